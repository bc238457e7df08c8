/* SPDX-License-Identifier: Apache-2.0 */

/* The line table of one unit: rows in order, each 16 bytes, and the files that they name.
 *
 * libdw decodes such a table into something fifty times as long, sorts all of it, and keeps it; most of the time that a
 * name in a large program took went there. Sequences are in order within themselves, so that only they are
 * sorted here (and those whose rows are not, if there are any), and of rows at one address the last is kept, which is the one that counts. A table of a kind that this does
 * not know is left to libdw (-ENOTSUP); one that is damaged has no lines.
 *
 * Texts point into the sections, which stay as long as the ELF handle. Bounds: ROWS_MAX, FILES_MAX, SEQUENCES_MAX; code
 * that the linker dropped (at address 0) takes no room. Source: DWARF 5, 6.2, and DWARF 4, 6.2.4 for the older
 * header. Runs in the sandbox. */

#include <dwarf.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/elf/cursor.h"
#include "agentd/elf/dwarf_private.h"

#define ROWS_MAX      (2 << 20)
#define SEQUENCES_MAX (1 << 20)
#define FILES_MAX     65536
#define FORMATS_MAX   8

struct row {
	uint64_t address;
	uint32_t line, file;
};

struct sequence {
	uint64_t start, end;
	size_t first, n; /* rows */
};

struct file {
	const char *name;
	uint64_t folder;
};

struct dwarf_lines {
	struct row *rows;
	struct sequence *sequences;
	struct file *files;
	const char **folders;
	size_t n_rows, room_rows, n_sequences, room_sequences, n_files, room_files, n_folders,
		room_folders;
	const char *comp_dir;
};

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

static const char *string_at(const struct dwarf_sections *s, size_t section, uint64_t offset)
{
	const uint8_t *data = s->v[section].data;

	return data && offset < s->v[section].size &&
			memchr(data + offset, '\0', s->v[section].size - offset)
		? (const char *)data + offset
		: NULL;
}

/* ---- the header ---- */

struct header {
	struct cursor c; /* behind the header's length */
	const uint8_t *program;
	uint16_t version;
	bool wide; /* 64-bit DWARF */
	uint8_t address_size, min_length, line_range, opcode_base;
	int8_t line_base;
	const uint8_t *lengths; /* of standard opcodes */
};

static const char *cursor_string(struct cursor *c)
{
	const uint8_t *end = memchr(c->at, '\0', (size_t)(c->end - c->at));

	if (!end) {
		c->bad = true;
		return "";
	}
	return (const char *)cursor_take(c, (uint64_t)(end - c->at) + 1);
}

static uint64_t cursor_offset(struct cursor *c, bool wide)
{
	return wide ? cursor_u64(c) : cursor_u32(c);
}

static int add_folder(struct dwarf_lines *l, const char *name)
{
	if (l->n_folders == l->room_folders) {
		size_t room = MAX(l->room_folders * 2, (size_t)32);
		const char **v;

		if (l->n_folders == FILES_MAX)
			return -EBADMSG;
		v = reallocarray(l->folders, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		l->folders = v;
		l->room_folders = room;
	}
	l->folders[l->n_folders++] = name;
	return 0;
}

static int add_file(struct dwarf_lines *l, const char *name, uint64_t folder)
{
	if (l->n_files == l->room_files) {
		size_t room = MAX(l->room_files * 2, (size_t)64);
		struct file *v;

		if (l->n_files == FILES_MAX)
			return -EBADMSG;
		v = reallocarray(l->files, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		l->files = v;
		l->room_files = room;
	}
	l->files[l->n_files++] = (struct file){name, folder};
	return 0;
}

/* Versions 2 to 4. Numbers begin with 1; folder 0 is the unit's. */
static int read_files_old(struct dwarf_lines *l, struct cursor *c)
{
	int r = add_folder(l, l->comp_dir);

	while (r == 0 && !c->bad) {
		const char *name = cursor_string(c);

		if (!*name)
			break;
		r = add_folder(l, name);
	}
	if (r == 0)
		r = add_file(l, "", 0);
	while (r == 0 && !c->bad) {
		const char *name = cursor_string(c);
		uint64_t folder;

		if (!*name)
			break;
		folder = cursor_uleb(c);
		cursor_uleb(c);
		cursor_uleb(c);
		r = add_file(l, name, folder);
	}
	return r;
}

/* One value of a format: a text, or a number. -ENOTSUP. */
static int read_form(struct header *h, const struct dwarf_sections *s, uint64_t form,
	const char **text, uint64_t *number)
{
	struct cursor *c = &h->c;

	switch (form) {
	case DW_FORM_string:
		*text = cursor_string(c);
		return 0;
	case DW_FORM_line_strp:
		*text = string_at(s, DWARF_LINE_STR, cursor_offset(c, h->wide));
		return 0;
	case DW_FORM_strp:
		*text = string_at(s, DWARF_STR, cursor_offset(c, h->wide));
		return 0;
	case DW_FORM_udata:
		*number = cursor_uleb(c);
		return 0;
	case DW_FORM_data1:
		*number = cursor_u8(c);
		return 0;
	case DW_FORM_data2:
		*number = cursor_u16(c);
		return 0;
	case DW_FORM_data4:
		*number = cursor_u32(c);
		return 0;
	case DW_FORM_data8:
		*number = cursor_u64(c);
		return 0;
	case DW_FORM_data16:
		cursor_take(c, 16);
		return 0;
	case DW_FORM_block:
		cursor_take(c, cursor_uleb(c));
		return 0;
	default:
		return -ENOTSUP;
	}
}

/* Version 5: a list whose entries are as a format before it says. */
static int read_list(
	struct dwarf_lines *l, struct header *h, const struct dwarf_sections *s, bool files)
{
	uint64_t formats[FORMATS_MAX][2];
	uint8_t n = cursor_u8(&h->c);
	uint64_t count;
	int r = 0;

	if (n > FORMATS_MAX)
		return -ENOTSUP;
	for (uint8_t i = 0; i < n; i++) {
		formats[i][0] = cursor_uleb(&h->c);
		formats[i][1] = cursor_uleb(&h->c);
	}
	count = cursor_uleb(&h->c);
	if (!n && count)
		return -EBADMSG; /* entries of no bytes */
	for (uint64_t i = 0; i < count && r == 0 && !h->c.bad; i++) {
		const char *name = NULL, *text;
		uint64_t folder = 0, number;

		for (uint8_t k = 0; k < n && r == 0; k++) {
			text = NULL;
			number = 0;
			r = read_form(h, s, formats[k][1], &text, &number);
			if (formats[k][0] == DW_LNCT_path)
				name = text;
			else if (formats[k][0] == DW_LNCT_directory_index)
				folder = number;
		}
		if (r == 0 && n)
			r = files ? add_file(l, name ? name : "", folder)
				  : add_folder(l, name ? name : "");
	}
	return r;
}

static int read_header(struct dwarf_lines *l, struct header *h, const struct dwarf_sections *s)
{
	struct cursor *c = &h->c;
	uint64_t length = cursor_u32(c);
	int r;

	if (length == UINT32_MAX) {
		h->wide = true;
		length = cursor_u64(c);
	}
	if (length > (uint64_t)(c->end - c->at))
		return -EBADMSG;
	c->end = c->at + length;
	h->version = cursor_u16(c);
	if (h->version < 2 || h->version > 5)
		return -ENOTSUP;
	h->address_size = 8;
	if (h->version == 5) {
		h->address_size = cursor_u8(c);
		if (cursor_u8(c))
			return -ENOTSUP; /* segments */
	}
	length = cursor_offset(c, h->wide);
	if (c->bad || length > (uint64_t)(c->end - c->at))
		return -EBADMSG;
	h->program = c->at + length;
	h->min_length = cursor_u8(c);
	if (h->version >= 4 && cursor_u8(c) > 1)
		return -ENOTSUP; /* several operations an instruction */
	cursor_u8(c);            /* default_is_stmt */
	h->line_base = (int8_t)cursor_u8(c);
	h->line_range = cursor_u8(c);
	h->opcode_base = cursor_u8(c);
	if (!h->line_range || !h->opcode_base)
		return -EBADMSG;
	h->lengths = cursor_take(c, h->opcode_base - 1U);
	if (h->version < 5) {
		r = read_files_old(l, c);
	} else {
		r = read_list(l, h, s, false);
		if (r == 0)
			r = read_list(l, h, s, true);
	}
	return r < 0 ? r : c->bad ? -EBADMSG : 0;
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
	struct row *last = l->n_rows > m->first ? &l->rows[l->n_rows - 1] : NULL;

	m->unordered |= last && last->address > m->address;
	if (last && last->address == m->address) {
		last->line = m->line;
		last->file = m->file;
		return 0;
	}
	if (l->n_rows == l->room_rows) {
		size_t room = MAX(l->room_rows * 2, (size_t)1024);
		struct row *v;

		if (l->n_rows >= ROWS_MAX)
			return -EBADMSG;
		v = reallocarray(l->rows, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		l->rows = v;
		l->room_rows = room;
	}
	l->rows[l->n_rows++] = (struct row){m->address, m->line, m->file};
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

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
			struct sequence *v;

			if (l->n_sequences >= SEQUENCES_MAX)
				return -EBADMSG;
			v = reallocarray(l->sequences, room, sizeof(*v));
			if (!v)
				return -ENOMEM;
			l->sequences = v;
			l->room_sequences = room;
		}
		l->sequences[l->n_sequences++] = (struct sequence){start, m->address, m->first, n};
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

static int run_standard(
	struct dwarf_lines *l, struct header *h, struct cursor *c, struct machine *m, uint8_t op)
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

static int run(struct dwarf_lines *l, struct header *h)
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
	const struct sequence *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

int dwarf_lines_read(struct dwarf_lines **ret, const struct dwarf_sections *s, Dwarf_Die *unit)
{
	struct dwarf_lines *l;
	struct header h = {0};
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
	r = read_header(l, &h, s);
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
	const struct sequence *s = NULL;
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
	const struct file *f = file < l->n_files ? &l->files[file] : NULL;
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
