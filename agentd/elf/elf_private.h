/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files of this folder alone. */

#include "agentd/elf/elf_file.h"

#define ELF_FILE_MAX_NOTES 16

struct elf_note_range {
	uint64_t offset, size;
	uint32_t align;
};

struct elf_file {
	int fd;          /* borrowed; -1: in memory */
	uint8_t *memory; /* own; NULL: in fd */
	bool is64;
	uint64_t size;
	struct elf_segment segments[ELF_FILE_MAX_SEGMENTS];
	size_t n_segments;
	struct elf_section *sections; /* [0] unused; type SHT_NULL where bounds are broken */
	size_t n_sections;
	size_t names; /* number of the section of section names; 0 none */
	struct elf_note_range notes[ELF_FILE_MAX_NOTES];
	size_t n_notes;
};

/* Whether [offset, offset + size) lies within [0, limit). */
static inline bool elf_within(uint64_t offset, uint64_t size, uint64_t limit)
{
	return offset <= limit && size <= limit - offset;
}
