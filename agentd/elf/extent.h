/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where functions begin and end, as a file's unwind tables tell: also in a file whose symbols were stripped.
 * Addresses are the file's own. Sandbox only. Source: LSB 5.0, 10.5 and 10.6. */

#include "agentd/elf/elf_file.h"

struct elf_extents;

/* Borrows elf. 0 with *ret NULL: it has no table that can be searched. -ENOMEM. */
int elf_extents_open(struct elf_extents **ret, const struct elf_file *elf);
struct elf_extents *elf_extents_close(struct elf_extents *x);
DEFINE_FREEP(elf_extents_closep, struct elf_extents *, elf_extents_close)
/* The piece of code that vaddr lies in, as [*from, *to). Compilers split functions (hot and cold): each piece is one.
 * False: not known. */
bool elf_extents_find(struct elf_extents *x, uint64_t vaddr, uint64_t *from, uint64_t *to);
size_t elf_extents_memory(const struct elf_extents *x);
