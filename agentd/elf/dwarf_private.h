/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by dwarf_*.c alone. */

#include <elfutils/libdw.h>

#include "agentd/elf/dwarf_file.h"

/* An address range of a unit, or of a function within one; die: offset in .debug_info. */
struct dwarf_range {
	uint64_t start, end;
	Dwarf_Off die;
};

struct dwarf_ranges {
	struct dwarf_range *v;
	size_t n, room, max;
};

/* -ENOSPC: there are max; -ENOMEM. Empty ranges and those at 0 (code that the linker dropped) are left
 * out. */
int dwarf_ranges_add(struct dwarf_ranges *r, uint64_t start, uint64_t end, Dwarf_Off die);
/* All ranges that die says of itself. */
int dwarf_ranges_add_die(struct dwarf_ranges *r, Dwarf_Die *die);
void dwarf_ranges_sort(struct dwarf_ranges *r);
/* The innermost one that holds address, or NULL. */
const struct dwarf_range *dwarf_ranges_find(const struct dwarf_ranges *r, uint64_t address);

/* An ELF file and what libdw makes of it. */
struct dwarf_handle {
	Elf *elf;
	Dwarf *dwarf;
	uint8_t *image; /* inflated sections, which elf is made of then; NULL */
	size_t size;
};

/* Borrows fd. 0 with dwarf NULL: no debug information that can be read, *problem says so if there is some. -ENOMEM. */
int dwarf_handle_open(struct dwarf_handle *ret, int fd, struct err_text *problem);
/* The smallest file there is: what is referred to in it is not there. */
int dwarf_handle_open_empty(struct dwarf_handle *ret);
/* What was decoded goes. -EIO. */
int dwarf_handle_renew(struct dwarf_handle *h);
void dwarf_handle_close(struct dwarf_handle *h);

/* What line tables are made of, in an ELF handle that libdw has begun. */
enum { DWARF_LINE, DWARF_LINE_STR, DWARF_STR };
struct dwarf_sections {
	struct {
		const uint8_t *data; /* NULL: not there */
		size_t size;
	} v[3];
};
void dwarf_sections_find(struct dwarf_sections *s, Elf *elf);

struct dwarf_lines;
/* The line table of a unit. -ENOTSUP: of a kind that only libdw may know; -ENODATA: it has none; -EBADMSG, -ENOMEM. */
int dwarf_lines_read(struct dwarf_lines **ret, const struct dwarf_sections *s, Dwarf_Die *unit);
struct dwarf_lines *dwarf_lines_free(struct dwarf_lines *l);
bool dwarf_lines_find(
	const struct dwarf_lines *l, uint64_t address, uint32_t *file, uint32_t *line);
/* The path of a file by its number, perhaps in out; "" not known. */
const char *dwarf_lines_file(const struct dwarf_lines *l, uint32_t file, char *out, size_t size);

/* The functions of a unit that have code; deep: those nested in others, too. */
int dwarf_unit_functions(Dwarf_Die *unit, struct dwarf_ranges *ret, bool deep);
/* The chain at address within function, innermost first: function last. Their number. */
size_t dwarf_unit_chain(Dwarf_Die *function, uint64_t address, Dwarf_Die *chain, size_t max);
