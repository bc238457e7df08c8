/* SPDX-License-Identifier: Apache-2.0 */

/* The line table of one unit: rows in order, each 16 bytes, and the files that they name.
 *
 * libdw decodes such a table into something fifty times as long, sorts all of it, and keeps it; most of the time that a
 * name in a large program took went there. Sequences are in order within themselves, so that only they are
 * sorted here (and those whose rows are not, if there are any), and of rows at one address the last is kept, which is the one that counts. A table of a kind that this does
 * not know is left to libdw (-ENOTSUP); one that is damaged has no lines.
 *
 * Texts point into the sections, which stay as long as the ELF handle. Bounds: ROWS_MAX, SEQUENCES_MAX, FILES_MAX of its header; code
 * that the linker dropped (at address 0) takes no room. Source: DWARF 5, 6.2, and DWARF 4, 6.2.4 for the older
 * header. Runs in the sandbox. */

#include <dwarf.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/elf/dwarf_line.h"

#define ROWS_MAX      (2 << 20)
#define SEQUENCES_MAX (1 << 20)

struct dwarf_lines *dwarf_lines_free(struct dwarf_lines *l)
{
	if (l) {
		free(l->rows);
		free(l->sequences);
		free(l->files);
		free(l->folders);
		free(l);
	}
	return NULL;
}

/* ---- sections ---- */

void dwarf_sections_find(struct dwarf_sections *s, Elf *elf)
{
	static const char *const names[] = {".debug_line", ".debug_line_str", ".debug_str"};
	Elf_Scn *section = NULL;
	size_t strings;

	*s = (struct dwarf_sections){0};
	if (elf_getshdrstrndx(elf, &strings) < 0)
		return;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr h;
		const char *name =
			gelf_getshdr(section, &h) ? elf_strptr(elf, strings, h.sh_name) : NULL;
		Elf_Data *data;

		for (size_t i = 0; name && i < ARRAY_SIZE(names); i++) {
			/* By now libdw has inflated what was compressed. */
			if (!streq(name, names[i]) || h.sh_type == SHT_NOBITS ||
				(h.sh_flags & SHF_COMPRESSED) || s->v[i].data)
				continue;
			data = elf_rawdata(section, NULL);
			if (data && data->d_buf) {
				s->v[i].data = data->d_buf;
				s->v[i].size = data->d_size;
			}
		}
	}
}

/* ---- the program ---- */

struct machine {
	uint64_t address;
	uint32_t file, line;
	size_t first; /* row of the sequence under way */
	bool unordered;
};

static int add_row(struct dwarf_lines *l, struct machine *m)
{
	struct line_row *last = l->n_rows > m->first ? &l->rows[l->n_rows - 1] : NULL;

	m->unordered |= last && last->address > m->address;
	if (last && last->address == m->address) {
		last->line = m->line;
		last->file = m->file;
		return 0;
	}
	if (l->n_rows == l->room_rows) {
		size_t room = MAX(l->room_rows * 2, (size_t)1024);
		struct line_row *v;

		if (l->n_rows >= ROWS_MAX)
			return -EBADMSG;
		v = reallocarray(l->rows, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		l->rows = v;
		l->room_rows = room;
	}
	l->rows[l->n_rows++] = (struct line_row){m->address, m->line, m->file};
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct line_row *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	return x->line < y->line ? -1 : x->line > y->line;
}

static int end_sequence(struct dwarf_lines *l, struct machine *m)
{
	size_t n = l->n_rows - m->first;
	uint64_t start;

	if (m->unordered)
		qsort(l->rows + m->first, n, sizeof(*l->rows), by_address);
	start = n ? l->rows[m->first].address : 0;
	if (!start || m->address <= start) { /* dropped by the linker, or empty */
		l->n_rows = m->first;
	} else {
		if (l->n_sequences == l->room_sequences) {
			size_t room = MAX(l->room_sequences * 2, (size_t)64);
			struct line_sequence *v;

			if (l->n_sequences >= SEQUENCES_MAX)
				return -EBADMSG;
			v = reallocarray(l->sequences, room, sizeof(*v));
			if (!v)
				return -ENOMEM;
			l->sequences = v;
			l->room_sequences = room;
		}
		l->sequences[l->n_sequences++] =
			(struct line_sequence){start, m->address, m->first, n};
	}
	*m = (struct machine){.file = 1, .line = 1, .first = l->n_rows};
	return 0;
}

static int run_extended(struct dwarf_lines *l, struct cursor *c, struct machine *m)
{
	uint64_t len = cursor_uleb(c);
	const uint8_t *at = len ? cursor_take(c, len) : NULL;

	if (!at)
		return len ? -EBADMSG : 0;
	switch (at[0]) {
	case DW_LNE_end_sequence:
		return end_sequence(l, m);
	case DW_LNE_set_address:
		if (len == 9) {
			memcpy(&m->address, at + 1, 8);
		} else if (len == 5) {
			uint32_t narrow;

			memcpy(&narrow, at + 1, 4);
			m->address = narrow;
		} else {
			return -ENOTSUP;
		}
		return 0;
	case DW_LNE_define_file:
		return -ENOTSUP;
	default:
		return 0;
	}
}

static int run_standard(struct dwarf_lines *l, struct line_header *h, struct cursor *c,
	struct machine *m, uint8_t op)
{
	uint64_t file;

	switch (op) {
	case DW_LNS_copy:
		return add_row(l, m);
	case DW_LNS_advance_pc:
		m->address += cursor_uleb(c) * h->min_length;
		return 0;
	case DW_LNS_advance_line:
		m->line += (uint32_t)cursor_sleb(c);
		return 0;
	case DW_LNS_set_file:
		file = cursor_uleb(c);
		m->file = (uint32_t)MIN(file, (uint64_t)UINT32_MAX);
		return 0;
	case DW_LNS_const_add_pc:
		m->address += (uint64_t)((255 - h->opcode_base) / h->line_range) * h->min_length;
		return 0;
	case DW_LNS_fixed_advance_pc:
		m->address += cursor_u16(c);
		return 0;
	default:
		for (uint8_t i = 0; i < h->lengths[op - 1]; i++)
			cursor_uleb(c);
		return 0;
	}
}

static int run(struct dwarf_lines *l, struct line_header *h)
{
	struct cursor c = {.at = h->program, .end = h->c.end};
	struct machine m = {.file = 1, .line = 1};
	int r = 0;

	while (c.at < c.end && r == 0) {
		uint8_t op = *c.at++;

		if (op >= h->opcode_base) {
			unsigned by = (unsigned)(op - h->opcode_base);

			m.address += (uint64_t)(by / h->line_range) * h->min_length;
			m.line += (uint32_t)(h->line_base + (int)(by % h->line_range));
			r = add_row(l, &m);
		} else if (op) {
			r = run_standard(l, h, &c, &m, op);
		} else {
			r = run_extended(l, &c, &m);
		}
	}
	/* What has no end is no sequence. */
	l->n_rows = MIN(l->n_rows, m.first);
	return r;
}

static int by_start(const void *a, const void *b)
{
	const struct line_sequence *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

int dwarf_lines_read(struct dwarf_lines **ret, const struct dwarf_sections *s, Dwarf_Die *unit)
{
	struct dwarf_lines *l;
	struct line_header h = {0};
	Dwarf_Attribute attribute;
	Dwarf_Word offset;
	int r;

	if (dwarf_formudata(dwarf_attr(unit, DW_AT_stmt_list, &attribute), &offset) != 0)
		return -ENODATA;
	if (!s->v[DWARF_LINE].data)
		return -ENOTSUP; /* libdw may know better */
	if (offset >= s->v[DWARF_LINE].size)
		return -EBADMSG;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->comp_dir = dwarf_formstring(dwarf_attr(unit, DW_AT_comp_dir, &attribute));
	if (!l->comp_dir)
		l->comp_dir = "";
	h.c.at = s->v[DWARF_LINE].data + offset;
	h.c.end = s->v[DWARF_LINE].data + s->v[DWARF_LINE].size;
	r = line_header_read(l, &h, s);
	if (r == 0)
		r = run(l, &h);
	if (r < 0) {
		dwarf_lines_free(l);
		return r;
	}
	if (l->n_sequences)
		qsort(l->sequences, l->n_sequences, sizeof(*l->sequences), by_start);
	*ret = l;
	return 0;
}

/* ---- looking ---- */

bool dwarf_lines_find(const struct dwarf_lines *l, uint64_t address, uint32_t *file, uint32_t *line)
{
	const struct line_sequence *s = NULL;
	size_t low = 0, high = l->n_sequences;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->sequences[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address >= l->sequences[low - 1].end)
		return false;
	s = &l->sequences[low - 1];
	low = s->first;
	high = s->first + s->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->rows[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	*file = l->rows[low - 1].file;
	*line = l->rows[low - 1].line;
	return true;
}

static size_t put(char *out, size_t size, size_t at, const char *text)
{
	int n = at < size ? snprintf(out + at, size - at, "%s/", text) : 0;

	return at + (size_t)MAX(n, 0);
}

const char *dwarf_lines_file(const struct dwarf_lines *l, uint32_t file, char *out, size_t size)
{
	const struct line_file *f = file < l->n_files ? &l->files[file] : NULL;
	const char *folder;
	size_t at = 0;

	if (!f || !*f->name)
		return "";
	if (*f->name == '/')
		return f->name;
	folder = f->folder < l->n_folders ? l->folders[f->folder] : "";
	if (*folder != '/' && f->folder && l->n_folders && *l->folders[0])
		at = put(out, size, at, l->folders[0]);
	if (*folder)
		at = put(out, size, at, folder);
	if (at + strlen(f->name) >= size)
		return f->name;
	snprintf(out + at, size - at, "%s", f->name);
	return out;
}
