/* SPDX-License-Identifier: Apache-2.0 */

/* Where Go's table of functions is, and where its offsets count from.
 *
 * A section has its name, or two: programs made to be loaded anywhere keep it among what is
 * relocated. A program without section headers has it all the same, since its runtime needs it: then
 * it is looked for by its first bytes, once, in what is loaded and not executed.
 *
 * Where the text begins is in the table's header up to 1.25, in the runtime's moduledata since; both
 * are pointers, so in a program that can be loaded anywhere they are relocations.
 *
 * Source: as gopclntab.c; src/cmd/link/internal/ld/data.go of 1.26. Sandbox only. */

#include <elf.h>

#include "agentd/unwind/unwind_private.h"

#define MODULE_TEXT 176 /* moduledata.text of 1.26, in .go.module */
#define RELA_MAX    (64 << 20)
#define SCAN_MAX    (256ULL << 20) /* bytes of a file without sections that are looked through */
#define SCAN_STEP   8              /* the linker aligns it to 32, or 16 */
#define SCAN_BLOCK  65536

static const char *const section_names[] = {".gopclntab", ".data.rel.ro.gopclntab"};

/* The addend of the relocation of a pointer, as position-independent programs have it. 0: none. */
static uint64_t relocated(const struct elf_file *elf, uint64_t vaddr)
{
	uint64_t left = RELA_MAX;

	for (size_t i = 1; i < elf_file_sections(elf); i++) {
		const struct elf_section *s = elf_file_section(elf, i);
		struct view v;
		uint64_t found = 0;

		if (!s || s->type != SHT_RELA || !(s->flags & SHF_ALLOC))
			continue;
		view_init(&v, elf, s->offset, MIN(s->size, left), s->addr, 65536);
		left -= v.size;
		for (uint64_t at = 0; at + sizeof(Elf64_Rela) <= v.size && !found;
			at += sizeof(Elf64_Rela)) {
			const uint8_t *p = view_get(&v, at, sizeof(Elf64_Rela));
			Elf64_Rela rela;

			if (!p)
				break;
			memcpy(&rela, p, sizeof(rela));
			if (rela.r_offset == vaddr)
				found = (uint64_t)rela.r_addend;
		}
		view_deinit(&v);
		if (found)
			return found;
	}
	return 0;
}

struct find_text {
	struct elf_strings names;
	uint64_t found;
};

static int visit_symbol(void *userdata, const struct elf_symbol *symbol)
{
	struct find_text *f = userdata;
	char name[16];
	bool cut = false;

	if (elf_strings_get(&f->names, symbol->name, name, sizeof(name), &cut) < 0 || cut ||
		!streq(name, "runtime.text"))
		return 0;
	f->found = symbol->value;
	return -EEXIST;
}

static uint64_t text_symbol(const struct elf_file *elf)
{
	const struct elf_section *table = elf_file_find_type(elf, SHT_SYMTAB, NULL), *names;
	struct find_text f = {0};

	if (!table)
		return 0;
	names = elf_file_section(elf, table->link);
	if (!names || elf_strings_init(&f.names, elf, names, 65536) < 0)
		return 0;
	(void)elf_file_each_symbol(elf, table, visit_symbol, &f);
	elf_strings_deinit(&f.names);
	return f.found;
}

uint64_t gofind_text(const struct elf_file *elf, const struct elf_section *table, uint64_t header)
{
	const struct elf_section *module = elf_file_find_name(elf, ".go.module"), *text;
	uint64_t found = header;

	if (!found && module && module->size >= MODULE_TEXT + 8) {
		if (elf_file_read(elf, &found, 8, module->offset + MODULE_TEXT) < 0)
			found = 0;
		if (!found)
			found = relocated(elf, module->addr + MODULE_TEXT);
	}
	if (!found && !module)
		found = relocated(elf, table->addr + 24);
	if (!found)
		found = text_symbol(elf);
	if (!found) {
		text = elf_file_find_name(elf, ".text");
		found = text ? text->addr : 0;
	}
	return found;
}

/* The first bytes of a table: its magic, two of zero, bytes of an instruction, bytes of a pointer. */
static bool looks_right(const uint8_t *p, const uint32_t *magics, size_t n)
{
	uint32_t magic;

	memcpy(&magic, p, sizeof(magic));
	for (size_t i = 0; i < n; i++)
		if (magics[i] == magic)
			return p[4] == 0 && p[5] == 0 && (p[6] == 1 || p[6] == 4) && p[7] == 8;
	return false;
}

/* By its bytes. *ret: up to the segment's end. */
static int scan(const struct elf_file *elf, const uint32_t *magics, size_t n_magics,
	struct elf_section *ret)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);
	uint64_t left = SCAN_MAX;

	for (size_t i = 0; i < n; i++) {
		struct view v;
		bool found = false;

		if (s[i].executable)
			continue;
		view_init(&v, elf, s[i].offset, MIN(s[i].file_size, left), s[i].vaddr, SCAN_BLOCK);
		left -= v.size;
		for (uint64_t at = -s[i].offset & (SCAN_STEP - 1); at + 8 <= v.size && !found;
			at += SCAN_STEP) {
			const uint8_t *p = view_get(&v, at, 8);

			if (!p)
				break;
			found = looks_right(p, magics, n_magics);
			if (found)
				*ret = (struct elf_section){.type = SHT_PROGBITS,
					.offset = s[i].offset + at,
					.addr = s[i].vaddr + at,
					.size = s[i].file_size - at};
		}
		view_deinit(&v);
		if (found)
			return 0;
	}
	return -ENOENT;
}

int gofind_table(const struct elf_file *elf, const uint32_t *magics, size_t n_magics,
	struct elf_section *ret)
{
	const struct elf_section *s = NULL;

	if (elf_file_sections(elf) <= 1)
		return scan(elf, magics, n_magics, ret);
	for (size_t i = 0; i < ARRAY_SIZE(section_names) && !s; i++)
		s = elf_file_find_name(elf, section_names[i]);
	if (!s || s->type == SHT_NOBITS)
		return -ENOENT;
	*ret = *s;
	return 0;
}
