/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files that read line tables: the header of one (dwarf_line_header.c), and its program (dwarf_line.c). */

#include "agentd/elf/cursor.h"
#include "agentd/elf/dwarf_private.h"

struct line_row {
	uint64_t address;
	uint32_t line, file;
};

struct line_sequence {
	uint64_t start, end;
	size_t first, n; /* rows */
};

struct line_file {
	const char *name;
	uint64_t folder;
};

struct dwarf_lines {
	struct line_row *rows;
	struct line_sequence *sequences;
	struct line_file *files;
	const char **folders;
	size_t n_rows, room_rows, n_sequences, room_sequences, n_files, room_files, n_folders,
		room_folders;
	const char *comp_dir;
};

struct line_header {
	struct cursor c; /* behind the header's length */
	const uint8_t *program;
	uint16_t version;
	bool wide; /* 64-bit DWARF */
	uint8_t address_size, min_length, line_range, opcode_base;
	int8_t line_base;
	const uint8_t *lengths; /* of standard opcodes */
};

/* h->c spans what there is of the section from the table on; fills in the rest of h, and the table's folders and files.
 * 0, -ENOTSUP: of a kind that only libdw may know; -EBADMSG, -ENOMEM. */
int line_header_read(struct dwarf_lines *l, struct line_header *h, const struct dwarf_sections *s);
