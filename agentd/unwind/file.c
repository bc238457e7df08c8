/* SPDX-License-Identifier: Apache-2.0 */

/* A file whose frames can be looked up.
 *
 * Opening finds out what describes the frames and reads none of it, but for files without the
 * linker's index. Everything else happens page by page, because programs run little of their text:
 * a compiler's run touches some percent of its library.
 *
 * Invariant: a file with nothing in it is a file whose pages know nothing; only what makes every
 * answer wrong (another word size, an unknown machine) refuses to open. Sandbox only. */

#include <elf.h>

#include "agentd/unwind/page.h"

#define TEXT_BYTES (UNWIND_PAGE_SIZE + 64)

static const char *const problem_names[UNWIND_PROBLEM_KINDS] = {
	[UNWIND_PROBLEM_CFA_EXPRESSION] = "CFA expression of unknown shape",
	[UNWIND_PROBLEM_CFA_REGISTER] = "CFA counts from a register that is not followed",
	[UNWIND_PROBLEM_RETURN_RULE] = "return address in an unknown place",
	[UNWIND_PROBLEM_STACK_RULE] = "the caller's stack pointer is not the CFA",
	[UNWIND_PROBLEM_SAVED_RULE] = "a saved register cannot be followed",
	[UNWIND_PROBLEM_OFFSET] = "offset out of range",
	[UNWIND_PROBLEM_OPCODE] = "unknown instruction",
	[UNWIND_PROBLEM_STATE_STACK] = "remembered states do not match",
	[UNWIND_PROBLEM_AUGMENTATION] = "unknown augmentation or version",
	[UNWIND_PROBLEM_ENCODING] = "unknown pointer encoding",
	[UNWIND_PROBLEM_DAMAGED] = "damaged",
	[UNWIND_PROBLEM_RULES_FULL] = "too many different rules",
	[UNWIND_PROBLEM_ROWS_FULL] = "too many rows in a page",
	[UNWIND_PROBLEM_WORK] = "too many instructions in a page",
	[UNWIND_PROBLEM_INDEX_FULL] = "too many functions without an index",
};

const char *unwind_problem_name(int kind)
{
	return kind >= 0 && kind < UNWIND_PROBLEM_KINDS ? problem_names[kind] : "?";
}

void unwind_count(struct unwind_counts *c, int kind, uint64_t vaddr, uint64_t offset, unsigned rows)
{
	struct unwind_problem *last = c->n_kept ? &c->kept[c->n_kept - 1] : NULL;

	c->problems[kind] += rows;
	if (last && last->kind == kind && last->offset == offset) {
		last->rows = (uint16_t)MIN(last->rows + rows, UINT16_MAX);
		return;
	}
	if (c->n_kept < UNWIND_PROBLEMS_KEPT)
		c->kept[c->n_kept++] = (struct unwind_problem){.vaddr = vaddr,
			.offset = offset,
			.kind = (uint16_t)kind,
			.rows = (uint16_t)MIN(rows, UINT16_MAX)};
}

static bool has_debug_frame(const struct elf_file *elf)
{
	const struct elf_section *s = elf_file_find_name(elf, ".debug_frame");

	if (!s)
		s = elf_file_find_name(elf, ".zdebug_frame");
	return s && s->type != SHT_NOBITS && s->size;
}

static int open_sources(struct unwind_file *f, const struct elf_file *elf)
{
	int r = cfi_open_eh_frame(&f->eh, elf, f->machine, &f->counts);

	if (r == -ENOMEM)
		return r;
	if (r == 0)
		f->sources |= f->eh->width ? UNWIND_SOURCE_EH_FRAME : UNWIND_SOURCE_EH_FRAME_SCAN;
	r = gopclntab_open(&f->go, elf);
	if (r == -ENOMEM)
		return r;
	if (r == 0)
		f->sources |= UNWIND_SOURCE_GO;
	f->has_debug = has_debug_frame(elf);
	if (f->has_debug)
		f->sources |= UNWIND_SOURCE_DEBUG_FRAME;
	return 0;
}

int unwind_file_open(struct unwind_file **ret, const struct elf_file *elf, struct err_text *err)
{
	CLEANUP(unwind_file_closep) struct unwind_file *f = NULL;
	Elf64_Ehdr h;
	int r = elf_file_read(elf, &h, sizeof(h), 0);

	if (r < 0)
		return err_set(err, r, "cannot read the file: %s", strerrordesc_np(-r));
	if (h.e_ident[EI_CLASS] != ELFCLASS64)
		return err_set(err, -ENOEXEC, "a 32-bit file: its stacks are not unwound");
	f = calloc(1, sizeof(*f));
	if (!f)
		return err_set(err, -ENOMEM, "no memory");
	f->elf = elf;
	f->entry = h.e_entry;
	f->machine = unwind_machine_find(h.e_machine);
	if (!f->machine)
		return err_set(err, -ENOEXEC, "a file for machine %u: its stacks are not unwound",
			h.e_machine);
	f->text = malloc(TEXT_BYTES);
	if (!f->text || open_sources(f, elf) < 0)
		return err_set(err, -ENOMEM, "no memory");
	*ret = TAKE_PTR(f);
	return 0;
}

struct unwind_file *unwind_file_close(struct unwind_file *f)
{
	if (f) {
		cfi_free(f->eh);
		cfi_free(f->debug);
		gopclntab_free(f->go);
		free(f->text);
		free(f);
	}
	return NULL;
}

unsigned unwind_file_sources(const struct unwind_file *f)
{
	return f->sources;
}

size_t unwind_file_memory(const struct unwind_file *f)
{
	return sizeof(*f) + TEXT_BYTES + cfi_memory(f->eh) + cfi_memory(f->debug) +
		gopclntab_memory(f->go);
}

const struct unwind_counts *unwind_file_counts(const struct unwind_file *f)
{
	return &f->counts;
}

int unwind_file_page(
	struct unwind_file *f, uint32_t page, struct unwind_rules *d, struct unwind_page *ret)
{
	return unwind_page_build(f, page, d, ret);
}

int unwind_file_each_page(struct unwind_file *f, struct unwind_rules *d, struct unwind_page *page,
	int (*visit)(void *userdata, const struct unwind_page *page), void *userdata)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(f->elf, &n);
	uint64_t next = 0;

	for (;;) {
		uint64_t lowest = UINT64_MAX;
		int r;

		/* The lowest page, from next on, that a segment touches. */
		for (size_t i = 0; i < n; i++) {
			uint64_t first = s[i].offset >> UNWIND_PAGE_SHIFT;
			uint64_t last = (s[i].offset + s[i].file_size - 1) >> UNWIND_PAGE_SHIFT;

			if (!s[i].executable || s[i].file_size == 0 || last < next)
				continue;
			lowest = MIN(lowest, MAX(first, next));
		}
		if (lowest > UINT32_MAX)
			return 0;
		r = unwind_file_page(f, (uint32_t)lowest, d, page);
		if (r == 0)
			r = visit(userdata, page);
		if (r < 0)
			return r;
		next = lowest + 1;
	}
}
