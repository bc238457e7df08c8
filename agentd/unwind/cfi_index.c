/* SPDX-License-Identifier: Apache-2.0 */

/* Finding a function's entry by address.
 *
 * The linker leaves a table of all of them in .eh_frame_hdr, sorted: it is used where it stands, a
 * few reads a look-up, so that opening a file costs nothing by its size. Where there is none
 * (static programs of some linkers, .debug_frame), the section is read through once and the table
 * made here, 8 bytes a function.
 *
 * Invariants: cfi_index_seek() ends and gives a number below n whatever the table holds; an
 * entry's own address must agree with the table's, which the caller checks; an index of our own is
 * sorted.
 *
 * Source: LSB 5.0, 10.6.2. Sandbox only. */

#include <elf.h>

#include "agentd/unwind/unwind_private.h"

#define WINDOW_ENTRIES 16384
#define WINDOW_TABLE   4096
#define AUX_SCAN_MAX   65536          /* glibc's dynamic linker has 13 KB */
#define SCAN_MAX       (256ULL << 20) /* bytes of a section that are read through */

struct cfi *cfi_free(struct cfi *c)
{
	if (c) {
		view_deinit(&c->view);
		view_deinit(&c->table);
		free(c->own);
		free(c);
	}
	return NULL;
}

size_t cfi_memory(const struct cfi *c)
{
	return c ? sizeof(*c) + c->view.room + (c->view.whole ? c->view.size : 0) + c->table.room +
			c->size_own * sizeof(*c->own)
		 : 0;
}

static int cfi_new(struct cfi **ret, const struct unwind_machine *m, bool eh)
{
	struct cfi *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->machine = m;
	c->eh = eh;
	for (size_t i = 0; i < CFI_CIES; i++)
		c->cies[i].offset = UINT64_MAX;
	*ret = c;
	return 0;
}

/* ---- the linker's table
 * ---------------------------------------------------------------------------------- */

static int64_t table_number(const struct cfi *c, const uint8_t *p)
{
	int32_t v4;
	int64_t v8;

	if (c->width == 4) {
		memcpy(&v4, p, 4);
		return v4;
	}
	memcpy(&v8, p, 8);
	return v8;
}

int cfi_index_get(struct cfi *c, uint64_t i, uint64_t *start, uint64_t *offset)
{
	const uint8_t *p;

	if (i >= c->n)
		return -EBADMSG;
	if (!c->width) {
		*start = c->base + c->own[i].start;
		*offset = c->own[i].offset;
		return 0;
	}
	p = view_get(&c->table, i * 2 * c->width, 2 * c->width);
	if (!p)
		return -EBADMSG;
	*start = c->table_addr + (uint64_t)table_number(c, p);
	*offset = c->table_addr + (uint64_t)table_number(c, p + c->width) - c->view.addr;
	return 0;
}

uint64_t cfi_index_seek(struct cfi *c, uint64_t vaddr)
{
	uint64_t lo = 0, n = c->n;

	while (n > 1) {
		uint64_t half = n / 2, start, offset;

		if (cfi_index_get(c, lo + half, &start, &offset) < 0)
			return lo;
		if (start <= vaddr) {
			lo += half;
			n -= half;
		} else {
			n = half;
		}
	}
	return lo;
}

/* The program header, which running programs use too; else the section. */
static int find_header(
	const struct elf_file *elf, uint64_t *vaddr, uint64_t *offset, uint64_t *size)
{
	const struct elf_section *s;
	Elf64_Ehdr h;
	Elf64_Phdr p;

	if (elf_file_read(elf, &h, sizeof(h), 0) == 0 && h.e_phentsize == sizeof(p)) {
		for (unsigned i = 0; i < MIN(h.e_phnum, ELF_FILE_MAX_PHDRS); i++) {
			uint64_t at;

			if (__builtin_add_overflow(h.e_phoff, i * sizeof(p), &at) ||
				elf_file_read(elf, &p, sizeof(p), at) < 0)
				break;
			if (p.p_type != PT_GNU_EH_FRAME)
				continue;
			*vaddr = p.p_vaddr;
			*offset = p.p_offset;
			*size = p.p_filesz;
			return 0;
		}
	}
	s = elf_file_find_name(elf, ".eh_frame_hdr");
	if (!s || s->type == SHT_NOBITS)
		return -ENOENT;
	*vaddr = s->addr;
	*offset = s->offset;
	*size = s->size;
	return 0;
}

/* Where .eh_frame lies: the section that begins there says how long it is, else the segment. */
static int view_entries(struct cfi *c, const struct elf_file *elf, uint64_t vaddr)
{
	const struct elf_section *s = elf_file_find_name(elf, ".eh_frame");
	uint64_t offset, len;
	int r;

	if (s && s->type != SHT_NOBITS && s->addr == vaddr) {
		view_init(&c->view, elf, s->offset, s->size, s->addr, WINDOW_ENTRIES);
		return 0;
	}
	r = view_vaddr(elf, vaddr, &offset, &len);
	if (r < 0)
		return r;
	view_init(&c->view, elf, offset, len, vaddr, WINDOW_ENTRIES);
	return 0;
}

/* -ENOENT: no header, or one without a table that we can search; *entries is .eh_frame's address
 * if it told. */
static int read_header(struct cfi *c, const struct elf_file *elf, uint64_t *entries)
{
	uint64_t vaddr, offset, size, n;
	uint8_t head[32];
	struct cursor in;
	uint8_t version, ptr_encoding, count_encoding, table_encoding;
	int r;

	r = find_header(elf, &vaddr, &offset, &size);
	if (r < 0)
		return r;
	size = MIN(size, elf_file_size(elf) - MIN(offset, elf_file_size(elf)));
	in = (struct cursor){head, head + MIN(sizeof(head), size), false};
	r = elf_file_read(elf, head, (size_t)(in.end - in.at), offset);
	if (r < 0)
		return r;
	version = cursor_u8(&in);
	ptr_encoding = cursor_u8(&in);
	count_encoding = cursor_u8(&in);
	table_encoding = cursor_u8(&in);
	if (version != 1 || ptr_encoding == PE_OMIT || (ptr_encoding & PE_INDIRECT))
		return -ENOENT;
	*entries = cfi_pointer(c, &in, ptr_encoding, 8, vaddr + 4);
	if (in.bad)
		return -ENOENT;
	if ((ptr_encoding & PE_APPLICATION) == PE_DATAREL)
		*entries += vaddr;
	if (table_encoding == (PE_DATAREL | PE_SDATA4))
		c->width = 4;
	else if (table_encoding == (PE_DATAREL | PE_SDATA8))
		c->width = 8;
	else
		return -ENOENT;
	n = cfi_pointer(c, &in, count_encoding & PE_FORMAT, 8, 0);
	if (in.bad || count_encoding == PE_OMIT || (count_encoding & PE_APPLICATION) != 0 ||
		n == 0) {
		c->width = 0;
		return -ENOENT;
	}
	view_init(&c->table, elf, offset + (uint64_t)(in.at - head),
		size - (uint64_t)(in.at - head), 0, WINDOW_TABLE);
	c->table_addr = vaddr;
	c->n = MIN(n, c->table.size / (2 * c->width));
	return c->n ? 0 : -ENOENT;
}

/* ---- our own
 * ---------------------------------------------------------------------------------------------- */

static int compare_starts(const void *a, const void *b)
{
	const struct cfi_start *x = a, *y = b;

	return x->start != y->start ? (x->start < y->start ? -1 : 1)
				    : (x->offset > y->offset) - (x->offset < y->offset);
}

static int add_start(struct cfi *c, uint64_t start, uint64_t offset)
{
	if (c->n_own == c->size_own) {
		size_t size = c->size_own ? c->size_own * 2 : 1024;
		struct cfi_start *more = realloc(c->own, size * sizeof(*more));

		if (!more)
			return -ENOMEM;
		c->own = more;
		c->size_own = size;
	}
	c->own[c->n_own++] = (struct cfi_start){
		.start = (uint32_t)(start - c->base), .offset = (uint32_t)offset};
	return 0;
}

static uint64_t lowest_code(const struct elf_file *elf)
{
	uint64_t base = UINT64_MAX;
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);

	for (size_t i = 0; i < n; i++) {
		if (s[i].executable)
			base = MIN(base, s[i].vaddr);
	}
	return base == UINT64_MAX ? 0 : base;
}

static int scan(struct cfi *c, const struct elf_file *elf, struct unwind_counts *counts)
{
	uint64_t next = 0;

	c->base = lowest_code(elf);
	c->width = 0;
	for (uint64_t at = 0; at + 4 <= c->view.size; at = next) {
		struct cfi_entry e;
		int problem, r;

		if (at > SCAN_MAX || c->n_own == UNWIND_INDEX_MAX) {
			unwind_count(counts, UNWIND_PROBLEM_INDEX_FULL, 0, at, 1);
			break;
		}
		r = cfi_entry_at(c, at, &e, &next, &problem);
		if (r < 0)
			unwind_count(counts, problem, 0, at, 1);
		if (next <= at)
			break;
		/* Functions that the linker dropped are left at 0 in .debug_frame. */
		if (r <= 0 || e.start >= e.end || e.start < c->base)
			continue;
		if (e.start - c->base > UINT32_MAX || at > UINT32_MAX) {
			unwind_count(counts, UNWIND_PROBLEM_OFFSET, e.start, at, 1);
			continue;
		}
		r = add_start(c, e.start, at);
		if (r < 0)
			return r;
	}
	if (c->n_own)
		qsort(c->own, c->n_own, sizeof(*c->own), compare_starts);
	c->n = c->n_own;
	return 0;
}

struct aux_seen {
	uint8_t aux;
	bool seen;
};

static void see_aux(void *userdata, uint64_t from, uint64_t to, const struct cfi_state *state)
{
	struct aux_seen *s = userdata;

	if (state->has_cfa && !state->expression && state->reg == s->aux)
		s->seen = true;
}

bool cfi_uses_aux(struct cfi *c)
{
	struct aux_seen s = {.aux = c->machine->aux};
	uint64_t work = UNWIND_PAGE_WORK, next = 0;

	if (c->machine->ra_is_aux || c->view.size > AUX_SCAN_MAX)
		return false;
	for (uint64_t at = 0; at + 4 <= c->view.size && !s.seen; at = next) {
		struct cfi_entry e;
		int problem;

		if (cfi_entry_at(c, at, &e, &next, &problem) > 0)
			(void)cfi_run(c, &e, e.start, e.end, &work, see_aux, &s);
		if (next <= at)
			break;
	}
	return s.seen;
}

int cfi_open_eh_frame(struct cfi **ret, const struct elf_file *elf, const struct unwind_machine *m,
	struct unwind_counts *counts)
{
	CLEANUP(cfi_freep) struct cfi *c = NULL;
	const struct elf_section *s;
	uint64_t entries = 0;
	int header, r;

	r = cfi_new(&c, m, true);
	if (r < 0)
		return r;
	header = read_header(c, elf, &entries);
	if (header != 0 && entries == 0) {
		s = elf_file_find_name(elf, ".eh_frame");
		if (!s || s->type == SHT_NOBITS || s->size == 0)
			return -ENOENT;
		entries = s->addr;
	}
	r = view_entries(c, elf, entries);
	if (r < 0)
		return -ENOENT;
	if (header != 0) {
		r = scan(c, elf, counts);
		if (r < 0)
			return r;
	}
	c->follow_aux = cfi_uses_aux(c);
	*ret = TAKE_PTR(c);
	return 0;
}

int cfi_open_debug_frame(struct cfi **ret, const struct elf_file *elf,
	const struct unwind_machine *m, struct unwind_counts *counts)
{
	CLEANUP(cfi_freep) struct cfi *c = NULL;
	int r;

	r = cfi_new(&c, m, false);
	if (r < 0)
		return r;
	r = view_section(&c->view, elf, ".debug_frame", WINDOW_ENTRIES);
	if (r == -ENOENT)
		r = view_section(&c->view, elf, ".zdebug_frame", WINDOW_ENTRIES);
	if (r < 0)
		return r;
	r = scan(c, elf, counts);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}
