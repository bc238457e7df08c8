/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by gofind.c and gopclntab.c alone: where things of a Go program are. */

#include "agentd/elf/view.h"

#define GOFIND_WORDS 48 /* of moduledata that are looked at */

/* moduledata, by words of 8 bytes. */
#define MODULE_TABLE        0  /* address of the table */
#define MODULE_NAMES        1  /* of the names in it */
#define MODULE_TEXT         22 /* where offsets of functions count from */
#define MODULE_GOFUNC_FIRST 37 /* gofunc, of the versions: 38, 40, 43 */

/* The section, or what would be it where no section has its name. plausible: whether a table may begin
 * there. -ENOENT. */
int gofind_table(const struct elf_file *elf,
	bool (*plausible)(void *userdata, const struct elf_section *s), void *userdata,
	struct elf_section *ret);
/* The runtime's description of the program: the one that points to the table and to the names within it.
 * Relocated. -ENOENT. */
int gofind_module(const struct elf_file *elf, const struct elf_section *table, uint64_t names,
	uint64_t words[GOFIND_WORDS]);
/* Where the functions' offsets count from. header: what the table itself says. 0: nobody does. */
uint64_t gofind_text(const struct elf_file *elf, const struct elf_section *table, uint64_t names,
	uint64_t header);
