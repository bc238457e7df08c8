/* SPDX-License-Identifier: Apache-2.0 */

/* Debug information through libdw, held to bounds of ours.
 *
 * At first the units' own address ranges are listed once (not .debug_aranges, which clang does not
 * write and which others write for some units only). An address then leads to its unit, to the list
 * of functions of that unit (the last few are kept), and to the chain of what was inlined there.
 *
 * libdw never gives back what it decoded, and a line table is fifty times its size in the file. So
 * when the heap has grown by DWARF_FILE_MEMORY, the handle is closed and opened again: our lists hold
 * offsets, which stay good. Callers that ask in the order of addresses lose nothing by it.
 *
 * Unlike elf_file.c, this maps the file: libelf takes a section whole into memory else, and debug
 * sections are what fills a file of gigabytes. A file that is cut short meanwhile ends this process by
 * SIGBUS, which costs the caller's request for this one file.
 *
 * Units whose entries are in another file (.dwo) are counted and left out. Source: DWARF 5, 3.1.1,
 * 6.2; libdw of elfutils 0.183 to 0.192. Runs in the sandbox. */

#include <dwarf.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/elf/dwarf_private.h"

#define UNITS_KEPT    8
#define MEASURE_EVERY 64 /* addresses */

/* The list of functions of one unit. */
struct unit {
	Dwarf_Off offset;
	struct dwarf_ranges functions;
	uint64_t used;
	bool there, deep;
	struct dwarf_lines *lines; /* NULL: none, or left to libdw */
	bool lines_read, lines_by_libdw;
};

struct dwarf_file {
	struct dwarf_sections sections; /* of main */
	char path[4096];                /* of a source, while it is shown */
	struct dwarf_handle main, alt;  /* alt: none where nothing refers to one */
	size_t decoded;                 /* heap that libdw took since the handle was opened */
	struct dwarf_ranges units;
	size_t n_units, n_split;
	struct unit kept[UNITS_KEPT];
	uint64_t clock;
	uint64_t from, to; /* see dwarf_file_extent() */
};

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void add_growth(struct dwarf_file *f, size_t before)
{
	size_t now = heap();

	if (now > before)
		f->decoded += now - before;
}

/* ---- opening ---- */

static int add_unit(struct dwarf_file *f, Dwarf_Die *die, uint8_t type)
{
	if (type == DW_UT_skeleton || dwarf_hasattr(die, DW_AT_GNU_dwo_name)) {
		f->n_split++;
		return 0;
	}
	if (type != DW_UT_compile || dwarf_tag(die) != DW_TAG_compile_unit)
		return 0;
	if (++f->n_units > DWARF_FILE_UNITS_MAX)
		return -ENOSPC;
	return dwarf_ranges_add_die(&f->units, die);
}

static int list_units(struct dwarf_file *f, struct err_text *problem)
{
	Dwarf_CU *cu = NULL;
	Dwarf_Half version;
	Dwarf_Die die;
	uint8_t type;
	int r = 0, more = 0;

	while (r == 0 &&
		(more = dwarf_get_units(f->main.dwarf, cu, &cu, &version, &type, &die, NULL)) == 0)
		r = add_unit(f, &die, type);
	if (r == -ENOSPC)
		err_set(problem, r, "it has more units or address ranges than are kept");
	else if (more < 0)
		err_set(problem, -EBADMSG, "its debug information is damaged: %s",
			dwarf_errmsg(-1));
	dwarf_ranges_sort(&f->units);
	return r == -ENOMEM ? r : 0;
}

static void unit_drop(struct unit *u)
{
	free(u->functions.v);
	dwarf_lines_free(u->lines);
	*u = (struct unit){0};
}

struct dwarf_file *dwarf_file_close(struct dwarf_file *f)
{
	if (!f)
		return NULL;
	for (size_t i = 0; i < UNITS_KEPT; i++)
		unit_drop(&f->kept[i]);
	free(f->units.v);
	dwarf_handle_close(&f->main);
	dwarf_handle_close(&f->alt);
	free(f);
	return NULL;
}

/* libdw opens a file by itself unless it has one. */
static int open_alternate(struct dwarf_file *f, int fd, struct err_text *problem)
{
	int r = fd >= 0 ? dwarf_handle_open(&f->alt, fd, problem) : 0;

	if (r == 0 && !f->alt.dwarf) {
		dwarf_handle_close(&f->alt);
		r = dwarf_handle_open_empty(&f->alt);
	}
	if (r == 0)
		dwarf_setalt(f->main.dwarf, f->alt.dwarf);
	return r;
}

int dwarf_file_open(struct dwarf_file **ret, int fd, int alt_fd, struct err_text *problem)
{
	CLEANUP(dwarf_file_closep) struct dwarf_file *f = calloc(1, sizeof(*f));
	size_t before = heap();
	int r;

	if (!f)
		return -ENOMEM;
	f->units.max = DWARF_FILE_RANGES_MAX;
	r = dwarf_handle_open(&f->main, fd, problem);
	if (r < 0 || !f->main.dwarf)
		return r;
	r = open_alternate(f, alt_fd, problem);
	if (r == 0) {
		dwarf_sections_find(&f->sections, f->main.elf);
		r = list_units(f, problem);
	}
	if (r < 0)
		return r;
	add_growth(f, before + f->units.room * sizeof(*f->units.v) + f->main.size + f->alt.size);
	if (!f->units.n && f->n_split)
		err_set(problem, -ENOTSUP,
			"its debug information is in .dwo files, which are not read");
	if (f->units.n)
		*ret = TAKE_PTR(f);
	return 0;
}

size_t dwarf_file_units(const struct dwarf_file *f)
{
	return f->n_units;
}

size_t dwarf_file_split_units(const struct dwarf_file *f)
{
	return f->n_split;
}

size_t dwarf_file_memory(const struct dwarf_file *f)
{
	return sizeof(*f) + f->units.room * sizeof(*f->units.v) + f->main.size + f->alt.size +
		f->decoded;
}

/* ---- looking ---- */

/* What libdw decoded goes; nothing of it is held here. */
static int start_anew(struct dwarf_file *f)
{
	for (size_t i = 0; i < UNITS_KEPT; i++)
		unit_drop(&f->kept[i]);
	f->decoded = 0;
	if (dwarf_handle_renew(&f->main) < 0 || dwarf_handle_renew(&f->alt) < 0)
		return -EIO;
	dwarf_setalt(f->main.dwarf, f->alt.dwarf);
	return 0;
}

static struct unit *find_kept(struct dwarf_file *f, Dwarf_Off offset)
{
	for (size_t i = 0; i < UNITS_KEPT; i++)
		if (f->kept[i].there && f->kept[i].offset == offset)
			return &f->kept[i];
	return NULL;
}

static struct unit *get_unit(struct dwarf_file *f, Dwarf_Die *die)
{
	Dwarf_Off offset = dwarf_dieoffset(die);
	struct unit *oldest = &f->kept[0], *u = find_kept(f, offset);

	if (u) {
		u->used = ++f->clock;
		return u;
	}
	for (size_t i = 0; i < UNITS_KEPT; i++)
		if (f->kept[i].used < oldest->used)
			oldest = &f->kept[i];
	unit_drop(oldest);
	*oldest = (struct unit){.offset = offset,
		.functions.max = DWARF_FILE_RANGES_MAX,
		.used = ++f->clock,
		.there = true};
	if (dwarf_unit_functions(die, &oldest->functions, false) < 0) {
		oldest->there = false;
		oldest->used = 0;
		return NULL;
	}
	return oldest;
}

static const struct dwarf_range *find_function(struct unit *u, Dwarf_Die *unit, uint64_t address)
{
	const struct dwarf_range *r = dwarf_ranges_find(&u->functions, address);

	if (r || u->deep)
		return r;
	u->deep = true;
	u->functions.n = 0;
	return dwarf_unit_functions(unit, &u->functions, true) < 0
		? NULL
		: dwarf_ranges_find(&u->functions, address);
}

static const char *text(Dwarf_Die *die, unsigned name)
{
	Dwarf_Attribute attribute;
	const char *s = dwarf_formstring(dwarf_attr_integrate(die, name, &attribute));

	return s ? s : "";
}

/* Mangled, if it can be. Functions of local types have no such name here. */
static const char *name_of(Dwarf_Die *die, bool *mangled)
{
	const char *s = text(die, DW_AT_linkage_name);

	if (!*s)
		s = text(die, DW_AT_MIPS_linkage_name);
	*mangled = *s;
	return *s ? s : text(die, DW_AT_name);
}

static bool has_scopes(Dwarf_Die *unit)
{
	switch (dwarf_srclang(unit)) {
	case DW_LANG_C:
	case DW_LANG_C89:
	case DW_LANG_C99:
	case DW_LANG_C11:
	case DW_LANG_Mips_Assembler:
		return false;
	default:
		return true;
	}
}

static uint32_t number(Dwarf_Attribute *attribute)
{
	Dwarf_Word value;

	return dwarf_formudata(attribute, &value) == 0 && value <= INT32_MAX ? (uint32_t)value : 0;
}

static uint32_t integrated(Dwarf_Die *die, unsigned name)
{
	Dwarf_Attribute attribute;

	return number(dwarf_attr_integrate(die, name, &attribute));
}

static uint32_t own(Dwarf_Die *die, unsigned name)
{
	Dwarf_Attribute attribute;

	return number(dwarf_attr(die, name, &attribute));
}

/* The unit's own table, read when it is needed first. */
static const struct dwarf_lines *lines_of(struct dwarf_file *f, struct unit *u, Dwarf_Die *unit)
{
	if (!u->lines_read) {
		u->lines_read = true;
		u->lines_by_libdw = dwarf_lines_read(&u->lines, &f->sections, unit) == -ENOTSUP;
	}
	return u->lines;
}

/* A line of the table at address: that of the instruction. */
static void place_of_address(struct dwarf_file *f, struct unit *u, Dwarf_Die *unit,
	uint64_t address, struct dwarf_file_function *ret)
{
	const struct dwarf_lines *lines = lines_of(f, u, unit);
	Dwarf_Line *line;
	const char *file;
	uint32_t number;
	int n;

	if (lines && dwarf_lines_find(lines, address, &number, &ret->line)) {
		ret->file = dwarf_lines_file(lines, number, f->path, sizeof(f->path));
		ret->line = MIN(ret->line, (uint32_t)INT32_MAX);
	}
	line = u->lines_by_libdw ? dwarf_getsrc_die(unit, address) : NULL;
	file = line ? dwarf_linesrc(line, NULL, NULL) : NULL;
	if (file)
		ret->file = file;
	if (line && dwarf_lineno(line, &n) == 0 && n > 0)
		ret->line = (uint32_t)n;
}

/* Where inner was inlined. */
static void place_of_call(struct dwarf_file *f, struct unit *u, Dwarf_Die *unit, Dwarf_Die *inner,
	struct dwarf_file_function *ret)
{
	const struct dwarf_lines *lines = lines_of(f, u, unit);
	uint32_t file = own(inner, DW_AT_call_file);
	Dwarf_Files *files;
	const char *name;
	size_t n;

	ret->line = own(inner, DW_AT_call_line);
	if (lines)
		ret->file = dwarf_lines_file(lines, file, f->path, sizeof(f->path));
	if (!u->lines_by_libdw || dwarf_getsrcfiles(unit, &files, &n) != 0 || file >= n)
		return;
	name = dwarf_filesrc(files, file, NULL, NULL);
	if (name)
		ret->file = name;
}

static int give(struct dwarf_file *f, struct unit *u, Dwarf_Die *unit, uint64_t address,
	Dwarf_Die *chain, size_t n,
	int (*visit)(void *userdata, const struct dwarf_file_function *function), void *userdata)
{
	for (size_t i = 0; i < n; i++) {
		bool mangled;
		struct dwarf_file_function out = {.name = name_of(&chain[i], &mangled),
			.file = "",
			.start_line = integrated(&chain[i], DW_AT_decl_line),
			.inlined = i + 1 < n};
		int r;

		out.unqualified = !mangled && has_scopes(unit) && strcmp(out.name, "main") != 0;
		if (i == 0)
			place_of_address(f, u, unit, address, &out);
		else
			place_of_call(f, u, unit, &chain[i - 1], &out);
		r = visit(userdata, &out);
		if (r < 0)
			return r;
	}
	return (int)n;
}

static int find(struct dwarf_file *f, const struct dwarf_range *r, uint64_t address,
	int (*visit)(void *userdata, const struct dwarf_file_function *function), void *userdata)
{
	Dwarf_Die unit, function, chain[DWARF_FILE_DEPTH_MAX];
	struct unit *u;

	if (!dwarf_offdie(f->main.dwarf, r->die, &unit))
		return 0;
	u = get_unit(f, &unit);
	r = u ? find_function(u, &unit, address) : NULL;
	if (!r || !dwarf_offdie(f->main.dwarf, r->die, &function))
		return 0;
	f->from = r->start;
	f->to = r->end;
	return give(f, u, &unit, address, chain,
		dwarf_unit_chain(&function, address, chain, ARRAY_SIZE(chain)), visit, userdata);
}

void dwarf_file_extent(const struct dwarf_file *f, uint64_t *from, uint64_t *to)
{
	*from = f->from;
	*to = f->to;
}

int dwarf_file_find(struct dwarf_file *f, uint64_t address,
	int (*visit)(void *userdata, const struct dwarf_file_function *function), void *userdata)
{
	const struct dwarf_range *r = dwarf_ranges_find(&f->units, address);
	bool measure;
	size_t before;
	int n;

	if (!r)
		return 0;
	if (f->decoded > DWARF_FILE_MEMORY && start_anew(f) < 0)
		return -EIO;
	/* Asking the heap takes longer than a name does; what a unit costs, it costs at first. */
	measure = !find_kept(f, r->die) || f->clock % MEASURE_EVERY == 0;
	before = measure ? heap() : 0;
	n = find(f, r, address, visit, userdata);
	if (measure)
		add_growth(f, before);
	return n;
}
