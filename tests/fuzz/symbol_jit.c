/* SPDX-License-Identifier: Apache-2.0 */

/* Perf maps and jitdumps as files that grow: the first byte says of which kind, the second where the file ends at
 * first; the rest comes before a second look. Corpus: tests/fuzz/corpus/symbol_jit. */

#include <sys/mman.h>

#include "agentd/base/io.h"
#include "agentd/symbol/resolver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const struct resolver *r, void *state)
{
	static struct found found;
	static const uint64_t bases[] = {
		0, 0x1000, 0x7000, 0x10000, 0x7f0000001000, UINT64_MAX - 64};

	for (size_t i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
		for (uint64_t at = 0; at < 64; at += 7) {
			found_reset(&found);
			if (r->find(state, bases[i] + at * 16, &found) > 0 &&
				(!found.n || !*found.functions[0].name))
				abort();
		}
	}
	(void)r->memory(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct symbol_facts_message facts;
	struct resolver_input in = {.debug_fd = -1};
	const struct resolver *r;
	void *state = NULL;
	size_t first;

	if (size < 2)
		return 0;
	r = data[0] & 1 ? &resolver_jitdump : &resolver_perfmap;
	first = 2 + (size - 2) * data[1] / 255;
	in.fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (in.fd < 0 || io_write_all(in.fd, data + 2, first - 2) < 0)
		abort();
	if (r->open(&state, &in, &facts) == 0) {
		look(r, state);
		if (io_write_all(in.fd, data + first, size - first) < 0)
			abort();
		if (r->refresh(state, &facts) == 0)
			look(r, state);
		/* And another file in its place, shorter. */
		if (ftruncate(in.fd, (off_t)(size / 2)) == 0 && r->refresh(state, &facts) == 0)
			look(r, state);
		r->close(state);
	}
	close(in.fd);
	return 0;
}
