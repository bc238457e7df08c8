/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The open file and the page that is being made of it; file.c and page.c alone. */

#include "agentd/unwind/unwind_private.h"

struct unwind_file {
	const struct elf_file *elf; /* borrowed */
	const struct unwind_machine *machine;
	uint64_t entry; /* e_entry; 0 none */
	struct cfi *eh, *debug;
	struct gopclntab *go;
	bool has_debug;   /* .debug_frame is there */
	bool debug_tried; /* and was opened, or cannot be */
	unsigned sources;
	struct unwind_counts counts;
	uint8_t *text; /* of the page that is made: UNWIND_PAGE_SIZE and the head of the next */
};

int unwind_page_build(
	struct unwind_file *f, uint32_t page, struct unwind_rules *d, struct unwind_page *ret);
