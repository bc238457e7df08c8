/* SPDX-License-Identifier: Apache-2.0 */

/* What a line table begins with: how its program is encoded, and the folders and files that it names. Every text points
 * into a section, and ends there.
 *
 * Source: DWARF 5, 6.2.4, and DWARF 4, 6.2.4 for the older form. Runs in the sandbox. */

#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/elf/dwarf_line.h"

#define FILES_MAX   65536
#define FORMATS_MAX 8

static const char *string_at(const struct dwarf_sections *s, size_t section, uint64_t offset)
{
	const uint8_t *data = s->v[section].data;

	return data && offset < s->v[section].size &&
			memchr(data + offset, '\0', s->v[section].size - offset)
		? (const char *)data + offset
		: NULL;
}

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
		struct line_file *v;

		if (l->n_files == FILES_MAX)
			return -EBADMSG;
		v = reallocarray(l->files, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		l->files = v;
		l->room_files = room;
	}
	l->files[l->n_files++] = (struct line_file){name, folder};
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
static int read_form(struct line_header *h, const struct dwarf_sections *s, uint64_t form,
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
	struct dwarf_lines *l, struct line_header *h, const struct dwarf_sections *s, bool files)
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

int line_header_read(struct dwarf_lines *l, struct line_header *h, const struct dwarf_sections *s)
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
