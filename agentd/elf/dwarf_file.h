/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* DWARF debug information of a file of unknown origin: for an address, the function that holds it
 * and those that were inlined there, with file and line. Versions 2 to 5, through libdw. Sandbox
 * only.
 *
 * Addresses are the ELF's own. Memory is bounded by DWARF_FILE_MEMORY plus what one unit takes;
 * what libdw decoded is dropped when it grows beyond. Sections compressed by zstd are inflated, at most
 * DWARF_FILE_INFLATED of them; those by zlib are libelf's business, and the process's memory limit bounds them. Source: DWARF 5, chapters 2.17, 3.1, 3.3,
 * 6.2. */

#include "agentd/base/err.h"

#define DWARF_FILE_MEMORY     (48 << 20)
#define DWARF_FILE_INFLATED   (96 << 20)
#define DWARF_FILE_UNITS_MAX  262144
#define DWARF_FILE_RANGES_MAX 1048576 /* address ranges of units: 24 bytes each */
#define DWARF_FILE_DEPTH_MAX  64      /* of functions inlined into each other */

struct dwarf_file;

struct dwarf_file_function {
	const char *name; /* mangled, where the file says it; never NULL, "" not known */
	const char *file; /* source; "" not known */
	uint32_t line;    /* of the address, or of the call to the one before; 0 not known */
	uint32_t start_line;
	bool inlined;
	bool unqualified; /* of a language with scopes, and only the last part of the name is known */
};

/* Borrows fd for its life, and alt_fd, the alternate file that its debug information refers to (-1: none to be had; what
 * lies there is not known then). 0 with *ret NULL: there is no debug information (that can be read;
 * *problem says so if there is some that cannot). -ENOMEM, -errno of reading. */
int dwarf_file_open(struct dwarf_file **ret, int fd, int alt_fd, struct err_text *problem);
struct dwarf_file *dwarf_file_close(struct dwarf_file *f);
DEFINE_FREEP(dwarf_file_closep, struct dwarf_file *, dwarf_file_close)

size_t dwarf_file_units(const struct dwarf_file *f);
size_t dwarf_file_split_units(const struct dwarf_file *f); /* in .dwo files: not read */
size_t dwarf_file_memory(const struct dwarf_file *f);      /* heap bytes, about */

/* Calls back for the chain, innermost first; texts are borrowed during the call. A negative return of
 * visit ends it. The number of functions, 0: not known; -errno: the file cannot be read any more. */
int dwarf_file_find(struct dwarf_file *f, uint64_t address,
	int (*visit)(void *userdata, const struct dwarf_file_function *function), void *userdata);
/* Of the last address that was found: where the code of its function that it lies in begins and ends. */
void dwarf_file_extent(const struct dwarf_file *f, uint64_t *from, uint64_t *to);
