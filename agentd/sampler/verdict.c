/* SPDX-License-Identifier: Apache-2.0 */

/* What user space decided, told to the kernel.
 *
 * The map evicts the least recently used: an image whose verdict was evicted is unknown again, its
 * samples come again, and it is decided again. So nothing is lost by a full map but time. A change
 * of configuration raises the generation: all verdicts count as absent at once, without a walk over
 * the map. Runs in agentd. */

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "agentd/sampler/internal.h"

static int verdicts_fd(const struct sampler *s)
{
	return bpf_map__fd(s->skel->maps.verdicts);
}

int sampler_set_verdict(struct sampler *s, const struct sample_image *image, uint32_t types,
	uint16_t divisor, uint16_t flags)
{
	struct sample_verdict verdict = {
		.types = types,
		.generation = s->skel->data->settings.generation,
		.divisor = divisor,
		.flags = flags,
	};

	return bpf_map_update_elem(verdicts_fd(s), image, &verdict, BPF_ANY) < 0 ? -errno : 0;
}

void sampler_forget(struct sampler *s, const struct sample_image *image)
{
	(void)bpf_map_delete_elem(verdicts_fd(s), image); /* not there: as wished */
}

void sampler_next_generation(struct sampler *s)
{
	uint32_t *generation = &s->skel->data->settings.generation;

	__atomic_store_n(generation, *generation + 1, __ATOMIC_RELEASE);
}
