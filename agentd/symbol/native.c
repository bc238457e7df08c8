/* SPDX-License-Identifier: Apache-2.0 */

/* Native frames: a file and an offset into it.
 *
 * The file's own segments turn the offset into the address that its tables speak of; then its sources of names
 * are asked, best first, and the first that knows the address answers. A source that cannot read the file is
 * left out and said in the facts; a file that no source can read has facts all the same. Sources behind one
 * that knows nearly all of a file (Go's own table) are opened when they are needed, most often never. Runs in
 * the symbolizer. */

#include <sys/stat.h>

#include "agentd/elf/elf_file.h"
#include "agentd/symbol/resolver.h"

/* Best first. */
static const struct native_source *const sources[] = {&source_go, &source_dwarf, &source_symtab};

struct native {
	struct elf_file *elf;
	void *state[ARRAY_SIZE(sources)]; /* NULL: it has nothing for this file */
	size_t n_opened;
};

static void *native_close(void *state)
{
	struct native *n = state;

	if (n) {
		for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
			if (n->state[i])
				sources[i]->close(n->state[i]);
		elf_file_close(n->elf);
		free(n);
	}
	return NULL;
}
DEFINE_FREEP(native_closep, struct native *, native_close)

static void set_segments(const struct elf_file *elf, struct symbol_facts_message *facts)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);

	/* Code first, in case there are more than fit. */
	for (int executable = 1; executable >= 0; executable--)
		for (size_t i = 0; i < n && facts->n_segments < SYMBOL_SEGMENTS_MAX; i++)
			if (s[i].executable == (executable != 0))
				facts->segments[facts->n_segments++] =
					(struct symbol_wire_segment){.offset = s[i].offset,
						.file_size = s[i].file_size,
						.vaddr = s[i].vaddr,
						.mem_size = s[i].mem_size,
						.executable = (uint32_t)executable};
}

static int native_open(void **ret, int fd, struct symbol_facts_message *facts)
{
	CLEANUP(native_closep) struct native *n = calloc(1, sizeof(*n));
	const char *named_by = NULL;
	struct err_text problem = {0};
	struct elf_ids ids;
	int r;

	if (!n)
		return -ENOMEM;
	if (elf_file_htlhash(fd, facts->htlhash) < 0)
		facts->htlhash[0] = '\0';
	r = elf_file_open(&n->elf, fd, &problem);
	if (r < 0) {
		snprintf(facts->problem, sizeof(facts->problem), "%.120s", problem.text);
		return r;
	}
	elf_file_ids(n->elf, &ids);
	memcpy(facts->build_id, ids.gnu, sizeof(ids.gnu));
	memcpy(facts->go_build_id, ids.go, sizeof(ids.go));
	set_segments(n->elf, facts);
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		uint64_t functions = 0;
		const char *by = NULL;

		r = sources[i]->open(&n->state[i], n->elf, &by, &functions, &problem);
		if (r == -ENOMEM)
			return r; /* the caller may be able to make room */
		n->n_opened = i + 1;
		if (n->state[i] && !named_by) {
			named_by = by;
			facts->functions = functions;
		}
		if (n->state[i] && sources[i]->alone)
			break;
	}
	snprintf(facts->problem, sizeof(facts->problem), "%.120s", problem.text);
	snprintf(facts->named_by, sizeof(facts->named_by), "%s", named_by ? named_by : "none");
	*ret = TAKE_PTR(n);
	return 0;
}

/* Those that were left for later. One that does not open now has nothing. */
static void open_up_to(struct native *n, size_t i)
{
	while (n->n_opened <= i) {
		const struct native_source *source = sources[n->n_opened];
		struct err_text problem = {0};
		uint64_t functions = 0;
		const char *by = NULL;

		if (source->open(&n->state[n->n_opened], n->elf, &by, &functions, &problem) < 0)
			n->state[n->n_opened] = NULL;
		n->n_opened++;
	}
}

static int native_find(void *state, uint64_t offset, struct found *found)
{
	struct native *n = state;
	uint64_t vaddr;
	int r = 0, by;

	if (elf_file_vaddr(n->elf, offset, &vaddr) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		if (r < 0 || (r > 0 && !found->outermost_unqualified))
			break;
		open_up_to(n, i);
		if (!n->state[i])
			continue;
		by = sources[i]->find(n->state[i], vaddr, found);
		if (by)
			r = by;
	}
	for (size_t i = 0; i < ARRAY_SIZE(sources) && r == 0; i++)
		if (n->state[i] && sources[i]->find_bare)
			r = sources[i]->find_bare(n->state[i], vaddr, found);
	return r;
}

static size_t native_memory(const void *state)
{
	const struct native *n = state;
	size_t sum = sizeof(*n) + elf_file_memory(n->elf);

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		if (n->state[i])
			sum += sources[i]->memory(n->state[i]);
	return sum;
}

const struct resolver resolver_native = {
	.name = "native",
	.kind = SYMBOL_KIND_ELF,
	.open = native_open,
	.close = native_close,
	.find = native_find,
	.memory = native_memory,
};
