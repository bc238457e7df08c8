/* SPDX-License-Identifier: Apache-2.0 */

/* Reading Go's table of functions in place.
 *
 * The table is an index of functions sorted by where they begin, a record for each, and what records point
 * to: names, and tables of values by pc (depth of the stack, file, line, inlined call), each a list of
 * (change of value, length) in few bits. So a look-up is a search in place and a walk through some of
 * these lists, and nothing has to be built or kept.
 *
 * What was inlined is said elsewhere, in funcdata: records hold offsets from a place that only the
 * runtime's moduledata knows (1.18 on; addresses before). Where moduledata has it changed three times,
 * and no version is written anywhere that stripping leaves. So each of its words is tried: the right one
 * is that which makes calls of all functions looked at (names that begin where a name begins, parents
 * within the function).
 *
 * Invariants: numbers of the file are used as offsets only through view_get() and elf_strings_get(),
 * after a comparison with the section's size that cannot overflow. Loops end by the number of functions,
 * by TRIED_MAX, or by the size of the section.
 *
 * Source: gopclntab.h. Sandbox only. */

#include <elf.h>

#include "agentd/elf/cursor.h"
#include "agentd/elf/gofind.h"
#include "agentd/elf/gopclntab.h"

static const uint32_t magics[] = {
	[GOPCLNTAB_116] = 0xfffffffa, [GOPCLNTAB_118] = 0xfffffff0, [GOPCLNTAB_120] = 0xfffffff1};

#define PCDATA_INLINE   2
#define FUNCDATA_INLINE 3
#define STEP_BYTES      20 /* of one step at most: two numbers */
#define TRIED_MAX       64 /* functions that have inlined ones, looked at to find where calls are */
#define LOOKED_MAX      65536      /* functions looked at for them */
#define FUNCTIONS_MAX   (4U << 20) /* real programs have up to some 500,000 */
#define WINDOW          4096
#define TABLE_WINDOW    8192

struct gopclntab {
	const struct elf_file *elf;
	enum gopclntab_layout layout;
	struct elf_section section;
	struct view index, functions, steps; /* the same section by three windows */
	struct view calls;                   /* the whole file */
	struct elf_strings names, files;
	uint64_t n, text, quantum;
	uint64_t names_at, units, files_at, pctab, pcln; /* offsets in the section */
	uint32_t entry_size;                             /* bytes of one number of the index */
	uint64_t gofunc;                                 /* 0: not known */
	bool inlines;                                    /* they can be found */
};

struct gopclntab *gopclntab_free(struct gopclntab *g)
{
	if (g) {
		view_deinit(&g->index);
		view_deinit(&g->functions);
		view_deinit(&g->steps);
		view_deinit(&g->calls);
		elf_strings_deinit(&g->names);
		elf_strings_deinit(&g->files);
		free(g);
	}
	return NULL;
}

size_t gopclntab_memory(const struct gopclntab *g)
{
	return g ? sizeof(*g) + g->index.room + g->functions.room + g->steps.room + g->calls.room +
			2 * (size_t)WINDOW
		 : 0;
}

const struct elf_file *gopclntab_elf(const struct gopclntab *g)
{
	return g->elf;
}

enum gopclntab_layout gopclntab_layout(const struct gopclntab *g)
{
	return g->layout;
}

uint64_t gopclntab_functions(const struct gopclntab *g)
{
	return g->n;
}

static uint64_t number(const uint8_t *p, size_t size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

/* Number i of the index: where function i begins (i may be n: where the last one ends), and its
 * record. */
static int index_get(struct gopclntab *g, uint64_t i, uint64_t *start, uint64_t *offset)
{
	size_t size = g->entry_size;
	const uint8_t *p = view_get(&g->index, g->pcln + i * 2 * size, i == g->n ? size : 2 * size);

	if (!p)
		return -EBADMSG;
	*start = g->text + number(p, size);
	*offset = i < g->n ? number(p + size, size) : 0;
	return 0;
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

/* *text: what the header says, 0 nothing. */
static int read_header(struct gopclntab *g, const struct elf_section *section, uint64_t *text)
{
	uint8_t h[8 + 8 * 8];
	uint32_t magic;
	size_t more;
	int r;

	if (section->type == SHT_NOBITS || section->size < sizeof(h))
		return -ENOENT;
	r = elf_file_read(g->elf, h, sizeof(h), section->offset);
	if (r < 0)
		return r;
	memcpy(&magic, h, 4);
	for (g->layout = GOPCLNTAB_116; g->layout <= GOPCLNTAB_120 && magics[g->layout] != magic;)
		g->layout++;
	if (g->layout > GOPCLNTAB_120 || h[4] || h[5] || h[7] != 8)
		return -ENOENT;
	more = g->layout == GOPCLNTAB_116 ? 0 : 8; /* where the text begins */
	g->quantum = h[6];
	g->n = number(h + 8, 8);
	*text = more ? number(h + 24, 8) : 0;
	g->names_at = number(h + 24 + more, 8);
	g->units = number(h + 32 + more, 8);
	g->files_at = number(h + 40 + more, 8);
	g->pctab = number(h + 48 + more, 8);
	g->pcln = number(h + 56 + more, 8);
	g->entry_size = g->layout == GOPCLNTAB_116 ? 8 : 4;
	if (g->quantum == 0 || g->quantum > 8 || g->pcln > section->size ||
		g->n > (section->size - g->pcln) / (2 * g->entry_size) || g->n == 0 ||
		g->n > FUNCTIONS_MAX)
		return -ENOENT;
	return 0;
}

static bool plausible(void *userdata, const struct elf_section *s)
{
	uint64_t text;

	return read_header(userdata, s, &text) == 0;
}

static int strings_at(struct elf_strings *s, const struct gopclntab *g, uint64_t at)
{
	struct elf_section table = {.type = SHT_STRTAB};
	int r;

	if (at >= g->section.size)
		return 0; /* every name will be out of bounds */
	table.offset = g->section.offset + at;
	table.size = g->section.size - at;
	r = elf_strings_init(s, g->elf, &table, WINDOW);
	return r == -EBADMSG ? 0 : r;
}

/* Without sections, and with nothing about it in the header: what the file says of its entry point is
 * the address of a function whose name is known. Not where the C library's code comes first. */
static int text_by_entry(struct gopclntab *g)
{
	char name[32], expected[32];
	Elf64_Ehdr h;
	int r = elf_file_read(g->elf, &h, sizeof(h), 0);

	if (r < 0)
		return r;
	snprintf(expected, sizeof(expected), "_rt0_%s_linux",
		h.e_machine == EM_X86_64 ? "amd64" : "arm64");
	g->text = 0; /* so that starts are offsets */
	for (uint64_t i = 0; i < g->n; i++) {
		struct gopclntab_function f;

		if (gopclntab_function(g, i, &f) < 0)
			return -ENOENT;
		if (gopclntab_name(g, f.name, name, sizeof(name), NULL) < 0 ||
			!streq(name, expected) || f.start > h.e_entry)
			continue;
		g->text = h.e_entry - f.start;
		return 0;
	}
	return -ENOENT;
}

/* Addresses that are all the same are relocations that nobody applied. */
static bool has_addresses(struct gopclntab *g)
{
	uint64_t first, last, offset;

	return index_get(g, 0, &first, &offset) == 0 && index_get(g, g->n, &last, &offset) == 0 &&
		first < last;
}

int gopclntab_open(struct gopclntab **ret, const struct elf_file *elf)
{
	CLEANUP(gopclntab_freep) struct gopclntab *g = calloc(1, sizeof(*g));
	struct elf_section *s;
	uint64_t text;
	int r;

	if (!g)
		return -ENOMEM;
	g->elf = elf;
	s = &g->section;
	r = gofind_table(elf, plausible, g, s);
	if (r < 0)
		return r;
	r = read_header(g, s, &text);
	if (r < 0)
		return r;
	view_init(&g->index, elf, s->offset, s->size, s->addr, WINDOW);
	view_init(&g->functions, elf, s->offset, s->size, s->addr, TABLE_WINDOW);
	view_init(&g->steps, elf, s->offset, s->size, s->addr, TABLE_WINDOW);
	view_init(&g->calls, elf, 0, elf_file_size(elf), 0, WINDOW);
	r = strings_at(&g->names, g, g->names_at);
	if (r == 0)
		r = strings_at(&g->files, g, g->files_at);
	if (r == 0 && g->layout != GOPCLNTAB_116) {
		g->text = gofind_text(elf, s, g->names_at, text);
		if (!g->text)
			r = text_by_entry(g);
	}
	if (r < 0)
		return r;
	if (!has_addresses(g))
		return -ENOENT;
	*ret = TAKE_PTR(g);
	return 0;
}

/* ---- functions
 * -------------------------------------------------------------------------------------------- */

int gopclntab_find(struct gopclntab *g, uint64_t pc, uint64_t *i)
{
	uint64_t lo = 0, n = g->n, start, offset;

	while (n > 1) {
		uint64_t half = n / 2;

		if (index_get(g, lo + half, &start, &offset) < 0)
			return -ENOENT;
		if (start <= pc) {
			lo += half;
			n -= half;
		} else {
			n = half;
		}
	}
	*i = lo;
	return 0;
}

int gopclntab_range(struct gopclntab *g, uint64_t i, uint64_t *start, uint64_t *end)
{
	uint64_t offset;

	if (i >= g->n || index_get(g, i, start, &offset) < 0 ||
		index_get(g, i + 1, end, &offset) < 0)
		return -ENOENT;
	return 0;
}

static uint32_t number_at(struct gopclntab *g, uint64_t at)
{
	const uint8_t *p = view_get(&g->functions, at, 4);

	return p ? (uint32_t)number(p, 4) : 0;
}

/* Where the calls of a function are. at: of its tables behind the record, n_pc numbers of pcdata first. */
static uint64_t inline_tree(struct gopclntab *g, uint64_t at, uint32_t n_pc, uint8_t n_func)
{
	const uint8_t *p;
	uint32_t offset;

	if (!g->inlines || n_func <= FUNCDATA_INLINE)
		return 0;
	at += (uint64_t)n_pc * 4;
	if (g->layout != GOPCLNTAB_116) {
		p = view_get(&g->functions, at + FUNCDATA_INLINE * 4, 4);
		offset = p ? (uint32_t)number(p, 4) : UINT32_MAX;
		return offset == UINT32_MAX ? 0 : g->gofunc + offset;
	}
	at += (g->section.addr + at) & 4; /* pointers, where pointers may be */
	p = view_get(&g->functions, at + FUNCDATA_INLINE * 8, 8);
	return p ? number(p, 8) : 0;
}

int gopclntab_function(struct gopclntab *g, uint64_t i, struct gopclntab_function *ret)
{
	/* Behind where it begins: name, size of arguments, deferreturn, pcsp, pcfile, pcln, number
	 * of pcdata, unit, (1.20 on) line; then four bytes: id, flags, none, number of funcdata. */
	size_t head = g->entry_size, bytes = head + (g->layout == GOPCLNTAB_120 ? 36 : 32);
	struct gopclntab_function f = {0};
	uint64_t offset, unused;
	uint32_t n_pc;
	const uint8_t *p;
	uint8_t n_func;

	if (i >= g->n || index_get(g, i, &f.start, &offset) < 0 ||
		index_get(g, i + 1, &f.end, &unused) < 0 || offset > g->section.size)
		return -EBADMSG;
	offset += g->pcln; /* neither is over the section's size */
	p = view_get(&g->functions, offset, bytes + 4);
	if (!p)
		return -EBADMSG;
	f.name = (int32_t)number(p + head, 4);
	f.pcsp = (uint32_t)number(p + head + 12, 4);
	f.pcfile = (uint32_t)number(p + head + 16, 4);
	f.pcln = (uint32_t)number(p + head + 20, 4);
	n_pc = (uint32_t)number(p + head + 24, 4);
	f.unit = (uint32_t)number(p + head + 28, 4);
	if (g->layout == GOPCLNTAB_120)
		f.start_line = (uint32_t)number(p + head + 32, 4);
	if (f.start_line > INT32_MAX)
		f.start_line = 0;
	f.flags = p[bytes + 1];
	n_func = p[bytes + 3];
	offset += bytes + 4;
	f.inline_tree = inline_tree(g, offset, n_pc, n_func);
	if (f.inline_tree && n_pc > PCDATA_INLINE)
		f.pcinline = number_at(g, offset + PCDATA_INLINE * 4);
	*ret = f;
	return 0;
}

ssize_t gopclntab_name(struct gopclntab *g, int32_t name, char *out, size_t size, bool *cut)
{
	if (name < 0)
		return -EBADMSG;
	return elf_strings_get(&g->names, (uint64_t)name, out, size, cut);
}

ssize_t gopclntab_file(struct gopclntab *g, const struct gopclntab_function *f, int64_t number_of,
	char *out, size_t size)
{
	const uint8_t *p;

	if (number_of < 0 || number_of > UINT32_MAX || g->units > g->section.size)
		return -EBADMSG;
	p = view_get(&g->functions, g->units + ((uint64_t)f->unit + (uint64_t)number_of) * 4, 4);
	if (!p || number(p, 4) == UINT32_MAX)
		return -EBADMSG;
	return elf_strings_get(&g->files, number(p, 4), out, size, NULL);
}

/* ---- values by pc
 * ----------------------------------------------------------------------------------------- */

struct gopclntab_walk gopclntab_walk(
	const struct gopclntab *g, const struct gopclntab_function *f, uint32_t table)
{
	return (struct gopclntab_walk){
		.at = table && g->pctab <= g->section.size ? g->pctab + table : UINT64_MAX,
		.start = f->start,
		.from = f->start,
		.to = f->start,
		.value = -1};
}

bool gopclntab_next(struct gopclntab *g, struct gopclntab_walk *w)
{
	struct cursor in = {0};
	const uint8_t *before;
	uint64_t v, len;

	if (w->at >= g->steps.size)
		return false;
	len = MIN((uint64_t)STEP_BYTES, g->steps.size - w->at);
	before = in.at = view_get(&g->steps, w->at, (size_t)len);
	if (!in.at)
		return false;
	in.end = in.at + len;
	v = cursor_uleb(&in);
	if (in.bad || (v == 0 && w->to != w->start) || v > UINT32_MAX)
		return false;
	w->value += v & 1 ? -(int64_t)(v >> 1) - 1 : (int64_t)(v >> 1);
	if (w->value < -4096 || w->value > INT32_MAX)
		return false;
	v = cursor_uleb(&in);
	if (in.bad || v == 0 || v > UINT32_MAX)
		return false;
	w->from = w->to;
	w->to += v * g->quantum;
	w->at += (uint64_t)(in.at - before);
	return true;
}

int64_t gopclntab_value(struct gopclntab *g, const struct gopclntab_function *f, uint32_t table,
	uint64_t pc, uint64_t *work)
{
	struct gopclntab_walk w = gopclntab_walk(g, f, table);
	uint64_t before = w.at;

	while (gopclntab_next(g, &w)) {
		if (w.at - before > *work)
			break;
		*work -= w.at - before;
		before = w.at;
		if (pc < w.to)
			return w.value;
	}
	return -1;
}

/* ---- what was inlined
 * ------------------------------------------------------------------------------------- */

int gopclntab_call(struct gopclntab *g, const struct gopclntab_function *f, int64_t i,
	struct gopclntab_call *ret)
{
	/* {parent, id, file, line, name, pc} before 1.20, {parent, id, name, pc, line} since. */
	bool old = g->layout != GOPCLNTAB_120;
	size_t size = old ? 20 : 16, name = old ? 12 : 4;
	uint64_t offset, len, at = (uint64_t)i * size;
	int32_t pc, line;
	const uint8_t *p;

	if (!f->inline_tree || i < 0 || i > INT32_MAX ||
		view_vaddr(g->elf, f->inline_tree, &offset, &len) < 0 || at > len ||
		len - at < size)
		return -EBADMSG;
	p = view_get(&g->calls, offset + at, size);
	if (!p)
		return -EBADMSG;
	memcpy(&ret->name, p + name, 4);
	memcpy(&pc, p + name + 4, 4);
	memcpy(&line, p + 12, 4);
	if (pc < 0 || (uint64_t)pc >= f->end - f->start)
		return -EBADMSG;
	ret->parent = f->start + (uint64_t)pc;
	ret->start_line = old || line < 0 ? 0 : (uint32_t)line;
	return 0;
}

/* Whether text begins at this name and not before. (Of the first name this cannot be told.) */
static bool is_name(struct gopclntab *g, int32_t name)
{
	char text[4];

	return gopclntab_name(g, name - 1, text, sizeof(text), NULL) == 0 &&
		gopclntab_name(g, name, text, sizeof(text), NULL) > 0;
}

/* How many functions with inlined ones make sense with g->gofunc as it is; 0: one does not. */
static unsigned count_sensible(struct gopclntab *g)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < MIN(g->n, (uint64_t)LOOKED_MAX) && n < TRIED_MAX; i++) {
		struct gopclntab_function f;
		struct gopclntab_call call;

		if (gopclntab_function(g, i, &f) < 0)
			return 0;
		if (!f.inline_tree)
			continue;
		if (gopclntab_call(g, &f, 0, &call) < 0 || (call.name && !is_name(g, call.name)))
			return 0;
		n += call.name != 0;
	}
	return n;
}

int gopclntab_find_inlines(struct gopclntab *g)
{
	uint64_t words[GOFIND_WORDS];

	g->inlines = true;
	if (g->layout == GOPCLNTAB_116 && count_sensible(g))
		return 0;
	if (g->layout != GOPCLNTAB_116 &&
		gofind_module(g->elf, &g->section, g->names_at, words) == 0) {
		for (size_t i = MODULE_GOFUNC_FIRST; i < GOFIND_WORDS; i++) {
			g->gofunc = words[i];
			if (g->gofunc && count_sensible(g))
				return 0;
		}
	}
	g->inlines = false;
	return -ENOENT;
}
