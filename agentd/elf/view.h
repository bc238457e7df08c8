/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A piece of a file, read through a window. Positions count from the piece's beginning. Sandbox only. */

#include "agentd/elf/elf_file.h"

#define VIEW_GET_MAX (1 << 20) /* bytes asked for at once */

struct view {
	const struct elf_file *elf;
	uint64_t offset, size, addr;
	uint8_t *whole;  /* inflated contents; NULL: windowed */
	uint8_t *window; /* holds [at, at + len) */
	uint64_t at;
	size_t len, room, ahead; /* ahead: bytes to read at least */
};

/* Borrows elf. [offset, offset + size) is what may be read of it; what the file does not have is not. */
void view_init(struct view *v, const struct elf_file *elf, uint64_t offset, uint64_t size,
	uint64_t addr, size_t ahead);
void view_deinit(struct view *v);
/* len bytes at pos, until the next call. NULL: outside, not readable, or longer than VIEW_GET_MAX. */
const uint8_t *view_get(struct view *v, uint64_t pos, size_t len);
/* Bytes of the file from this address on to its segment's end. -ENOENT. */
int view_vaddr(const struct elf_file *elf, uint64_t vaddr, uint64_t *offset, uint64_t *len);
