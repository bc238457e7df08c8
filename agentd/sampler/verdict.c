/* SPDX-License-Identifier: Apache-2.0 */

/* What user space decided and knows, told to the kernel.
 *
 * The map evicts the least recently used: an image whose verdict was evicted is unknown again, its
 * samples come again, and it is decided again. So nothing is lost by a full map but time. A change
 * of configuration raises the generation: all verdicts count as absent at once, without a walk over
 * the map.
 *
 * An entry says two things that change apart from each other: the verdict, and where the image's
 * space is. Each is changed by reading the entry and writing it back: we are its only writer, while
 * the programs only ever delete, or take the generation away (a move between cgroups). Where they do
 * so in between, the old verdict stands until the record of that move is read, and it is decided
 * anew. Runs in agentd. */

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "agentd/sampler/internal.h"

#define TRIES 8

static int verdicts_fd(const struct sampler *s)
{
	return bpf_map__fd(s->skel->maps.verdicts);
}

/* Reads the entry (zeroes: none, no verdict, no space), lets change() work on it and writes it back.
 * The programs delete entries at any time: one that went meanwhile is begun anew. fresh: there is
 * none, most likely, so one system call does. */
static int update(struct sampler *s, const struct sample_image *image, bool fresh,
	void (*change)(struct sample_verdict *v, const struct sample_verdict *to),
	const struct sample_verdict *to)
{
	int fd = verdicts_fd(s);

	for (unsigned i = 0; i < TRIES; i++) {
		struct sample_verdict v = {0};
		bool there = !(fresh && i == 0) && bpf_map_lookup_elem(fd, image, &v) == 0;

		if (!there && !(fresh && i == 0) && errno != ENOENT)
			return -errno;
		change(&v, to);
		if (bpf_map_update_elem(fd, image, &v, there ? BPF_EXIST : BPF_NOEXIST) == 0)
			return 0;
		if (errno != (there ? ENOENT : EEXIST))
			return -errno;
	}
	return -EAGAIN;
}

static void set_decision(struct sample_verdict *v, const struct sample_verdict *to)
{
	v->types = to->types;
	v->generation = to->generation;
	v->divisor = to->divisor;
	v->flags = to->flags;
	v->serial = to->serial;
}

static void set_space(struct sample_verdict *v, const struct sample_verdict *to)
{
	v->space = to->space;
	v->space_tag = to->space_tag;
	v->space_generation = to->space_generation;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

int sampler_set_verdict(struct sampler *s, const struct sample_image *image, uint32_t types,
	uint16_t divisor, uint16_t flags)
{
	struct sample_verdict to = {
		.types = types,
		.generation = s->skel->data->settings.generation,
		.divisor = divisor,
		.flags = flags,
		.serial = ++s->serial,
	};

	return update(
		s, image, !map_get(s->spaces.images, image, sizeof(*image)), set_decision, &to);
}

void sampler_forget(struct sampler *s, const struct sample_image *image)
{
	(void)bpf_map_delete_elem(verdicts_fd(s), image); /* not there: as wished */
	spaces_forget(&s->spaces, image);
}

/* The next number, never 0. */
static void go_up(sample_u32 *number)
{
	uint32_t next = *number + 1;

	__atomic_store_n(number, next ? next : 1, __ATOMIC_RELEASE);
}

void sampler_next_generation(struct sampler *s)
{
	go_up((sample_u32 *)&s->skel->data->settings.generation);
}

/* ---- spaces ---------------------------------------------------------------------------------- */

int sampler_set_space(struct sampler *s, const struct sample_image *image,
	const struct space_map *maps, size_t n, uint32_t *tag)
{
	struct sample_verdict to = {0}, now = {0};
	int r;

	*tag = 0;
	if (n == 0) {
		spaces_forget(&s->spaces, image);
		return 0; /* what names the block finds another tag there */
	}
	(void)bpf_map_lookup_elem(verdicts_fd(s), image, &now); /* not there: zeroes */
	r = spaces_set(&s->spaces, image, maps, n, now.space_tag, &to.space, &to.space_tag);
	if (r < 0)
		return r;
	to.space_generation = s->skel->data->settings.space_generation;
	r = update(s, image, false, set_space, &to);
	if (r < 0) {
		spaces_forget(&s->spaces, image);
		return r;
	}
	*tag = to.space_tag;
	return 0;
}

void sampler_distrust_spaces(struct sampler *s)
{
	go_up((sample_u32 *)&s->skel->data->settings.space_generation);
}

/* ---- rows ------------------------------------------------------------------------------------ */

int sampler_rows_add(struct sampler *s, uint32_t file, uint32_t page, const void *slot, size_t size)
{
	return rows_add(&s->rows, file, page, slot, size);
}

const struct rows_slot *sampler_rows_find(struct sampler *s, uint32_t file, uint32_t page)
{
	return rows_find(&s->rows, file, page);
}

void sampler_rows_forget(struct sampler *s, uint32_t file)
{
	rows_forget_file(&s->rows, file);
	spaces_forget_file(&s->spaces, file);
}

void sampler_rows_counters(struct sampler *s, struct sampler_rows_counters *ret)
{
	*ret = (struct sampler_rows_counters){
		.bytes = s->config.rows_bytes,
		.used_bytes = s->rows.used_bytes,
		.pages = s->rows.pages,
		.added = s->rows.added,
		.evicted = s->rows.evicted,
		.spaces = s->spaces.n_blocks,
		.space_maps = s->spaces.n_maps,
		.spaces_evicted = s->spaces.evicted,
	};
}
