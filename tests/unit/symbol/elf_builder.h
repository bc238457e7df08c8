/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A small ELF file in memory, whose every header a test may then spoil. One executable segment that is the whole
 * file, .text, .symtab, .strtab; addresses are file offsets + BUILT_BASE. */

#include <elf.h>
#include "agentd/base/buf.h"

#define BUILT_BASE      0x400000ULL
#define BUILT_TEXT      0x1000
#define BUILT_TEXT_SIZE 0x1000

enum built_section { BUILT_NULL, BUILT_CODE, BUILT_SYMTAB, BUILT_STRTAB, BUILT_SECTIONS };

struct built {
	uint8_t *data;
	size_t len;
	Elf64_Ehdr *ehdr;
	Elf64_Phdr *phdr;
	Elf64_Shdr *shdr;
	Elf64_Sym *symbols; /* [1] on */
	size_t n_symbols;   /* with [0] */
	char *strings;
};

struct built_symbol {
	const char *name;
	uint64_t at; /* in .text */
	uint64_t size;
	uint8_t type, bind;
};

static inline void built_free(struct built *b)
{
	free(b->data);
}

static inline void built_init(struct built *b, const struct built_symbol *symbols, size_t n)
{
	size_t strings = 1, at = BUILT_TEXT + BUILT_TEXT_SIZE, name = 1;
	size_t symtab = at, strtab, shdr;

	for (size_t i = 0; i < n; i++)
		strings += strlen(symbols[i].name) + 1;
	strtab = symtab + (n + 1) * sizeof(Elf64_Sym);
	shdr = (strtab + strings + 7) & ~7UL;
	b->len = shdr + BUILT_SECTIONS * sizeof(Elf64_Shdr);
	b->data = calloc(1, b->len);
	b->ehdr = (void *)b->data;
	b->phdr = (void *)(b->data + sizeof(Elf64_Ehdr));
	b->shdr = (void *)(b->data + shdr);
	b->symbols = (void *)(b->data + symtab);
	b->n_symbols = n + 1;
	b->strings = (char *)b->data + strtab;
	memcpy(b->ehdr->e_ident, ELFMAG, SELFMAG);
	b->ehdr->e_ident[EI_CLASS] = ELFCLASS64;
	b->ehdr->e_ident[EI_DATA] = ELFDATA2LSB;
	b->ehdr->e_ident[EI_VERSION] = EV_CURRENT;
	b->ehdr->e_type = ET_DYN;
	b->ehdr->e_machine = EM_X86_64;
	b->ehdr->e_version = EV_CURRENT;
	b->ehdr->e_phoff = sizeof(Elf64_Ehdr);
	b->ehdr->e_shoff = shdr;
	b->ehdr->e_ehsize = sizeof(Elf64_Ehdr);
	b->ehdr->e_phentsize = sizeof(Elf64_Phdr);
	b->ehdr->e_phnum = 1;
	b->ehdr->e_shentsize = sizeof(Elf64_Shdr);
	b->ehdr->e_shnum = BUILT_SECTIONS;
	*b->phdr = (Elf64_Phdr){.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_vaddr = BUILT_BASE,
		.p_filesz = b->len,
		.p_memsz = b->len,
		.p_align = 4096};
	b->shdr[BUILT_CODE] = (Elf64_Shdr){.sh_type = SHT_PROGBITS,
		.sh_flags = SHF_ALLOC | SHF_EXECINSTR,
		.sh_addr = BUILT_BASE + BUILT_TEXT,
		.sh_offset = BUILT_TEXT,
		.sh_size = BUILT_TEXT_SIZE};
	b->shdr[BUILT_SYMTAB] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
		.sh_offset = symtab,
		.sh_size = (n + 1) * sizeof(Elf64_Sym),
		.sh_entsize = sizeof(Elf64_Sym),
		.sh_link = BUILT_STRTAB};
	b->shdr[BUILT_STRTAB] =
		(Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = strtab, .sh_size = strings};
	for (size_t i = 0; i < n; i++) {
		b->symbols[i + 1] = (Elf64_Sym){.st_name = (uint32_t)name,
			.st_info = ELF64_ST_INFO(symbols[i].bind, symbols[i].type),
			.st_shndx = BUILT_CODE,
			.st_value = BUILT_BASE + BUILT_TEXT + symbols[i].at,
			.st_size = symbols[i].size};
		strcpy(b->strings + name, symbols[i].name);
		name += strlen(symbols[i].name) + 1;
	}
}
