/* SPDX-License-Identifier: Apache-2.0 */

/* Where Go's table of functions is, and where its offsets count from.
 *
 * The section has its name, or two: programs made to be loaded anywhere keep it among what is
 * relocated, where the system's linker takes its name away. A program without section headers has it
 * all the same, since its runtime needs it. Then it is looked for by its first bytes, once, in what is
 * loaded and not executed.
 *
 * Where the text begins is in the table's header up to 1.25, in the runtime's moduledata since, which has
 * a section of its own since 1.26 and is looked for before: it points to the table, and to the names in it.
 * All of these are pointers, so in a program that can be loaded anywhere they may be relocations.
 *
 * Invariants: all that is looked through counts against RELA_MAX or SCAN_MAX. Source: gopclntab.h;
 * src/cmd/link/internal/ld/{data,symtab}.go of 1.18 to 1.27. Sandbox only. */

#include <elf.h>

#include "agentd/elf/gofind.h"

#define RELA_MAX   (64 << 20)
#define RANGES_MAX 8
#define SCAN_MAX   (256ULL << 20) /* bytes of a file that are looked through */
#define TABLE_STEP 8              /* the linker aligns it to 32, or 16 */
#define SCAN_BLOCK 65536

static const char *const section_names[] = {".gopclntab", ".data.rel.ro.gopclntab"};

/* ---- relocations
 * ------------------------------------------------------------------------------------------ */

struct ranges {
	struct {
		uint64_t offset, size;
	} v[RANGES_MAX];
	size_t n;
};

static void add_range(struct ranges *r, const struct elf_file *elf, uint64_t offset, uint64_t size,
	uint64_t *left)
{
	if (r->n == RANGES_MAX || offset > elf_file_size(elf))
		return;
	size = MIN(MIN(size, elf_file_size(elf) - offset), *left);
	r->v[r->n].offset = offset;
	r->v[r->n++].size = size;
	*left -= size;
}

/* What the dynamic linker is told, where no section says it. */
static void add_dynamic(struct ranges *r, const struct elf_file *elf, uint64_t *left)
{
	uint64_t rela = 0, size = 0, offset, len;
	Elf64_Ehdr h;
	Elf64_Phdr p;
	Elf64_Dyn d;

	if (elf_file_read(elf, &h, sizeof(h), 0) < 0 || h.e_phentsize != sizeof(p))
		return;
	for (size_t i = 0; i < MIN(h.e_phnum, ELF_FILE_MAX_PHDRS); i++) {
		if (elf_file_read(elf, &p, sizeof(p), h.e_phoff + i * sizeof(p)) < 0)
			return;
		for (uint64_t at = 0; p.p_type == PT_DYNAMIC && at + sizeof(d) <= p.p_filesz &&
			at < RANGES_MAX * 1024;
			at += sizeof(d)) {
			if (elf_file_read(elf, &d, sizeof(d), p.p_offset + at) < 0 ||
				d.d_tag == DT_NULL)
				break;
			if (d.d_tag == DT_RELA)
				rela = d.d_un.d_ptr;
			else if (d.d_tag == DT_RELASZ)
				size = d.d_un.d_val;
		}
	}
	if (rela && view_vaddr(elf, rela, &offset, &len) == 0)
		add_range(r, elf, offset, MIN(size, len), left);
}

/* Calls back for each relocation until visit says true. */
static void each_relocation(const struct elf_file *elf,
	bool (*visit)(void *userdata, const Elf64_Rela *rela), void *userdata)
{
	struct ranges ranges = {0};
	uint64_t left = RELA_MAX;
	bool done = false;

	for (size_t i = 1; i < elf_file_sections(elf); i++) {
		const struct elf_section *s = elf_file_section(elf, i);

		if (s && s->type == SHT_RELA && (s->flags & SHF_ALLOC))
			add_range(&ranges, elf, s->offset, s->size, &left);
	}
	if (!ranges.n)
		add_dynamic(&ranges, elf, &left);
	for (size_t i = 0; i < ranges.n && !done; i++) {
		struct view v;

		view_init(&v, elf, ranges.v[i].offset, ranges.v[i].size, 0, SCAN_BLOCK);
		for (uint64_t at = 0; at + sizeof(Elf64_Rela) <= v.size && !done;
			at += sizeof(Elf64_Rela)) {
			const uint8_t *p = view_get(&v, at, sizeof(Elf64_Rela));
			Elf64_Rela rela;

			if (!p)
				break;
			memcpy(&rela, p, sizeof(rela));
			done = visit(userdata, &rela);
		}
		view_deinit(&v);
	}
}

struct find_pointer {
	uint64_t at, value;
};

static bool visit_pointer(void *userdata, const Elf64_Rela *rela)
{
	struct find_pointer *f = userdata;

	if (rela->r_offset == f->at)
		f->value = (uint64_t)rela->r_addend;
	return f->value != 0;
}

/* The addend of the relocation of a pointer, as position-independent programs have it. 0: none. */
static uint64_t relocated(const struct elf_file *elf, uint64_t vaddr)
{
	struct find_pointer f = {.at = vaddr};

	each_relocation(elf, visit_pointer, &f);
	return f.value;
}

/* ---- moduledata
 * ------------------------------------------------------------------------------------------- */

struct find_module {
	const struct elf_file *elf;
	uint64_t table, names; /* addresses */
	uint64_t found;        /* address of the module; 0: none */
	uint64_t *words;
};

static bool visit_word(void *userdata, const Elf64_Rela *rela)
{
	struct find_module *f = userdata;
	uint64_t i = (rela->r_offset - f->found) / 8;

	if (rela->r_offset >= f->found && i < GOFIND_WORDS && rela->r_offset % 8 == f->found % 8)
		f->words[i] = (uint64_t)rela->r_addend;
	return false;
}

static bool is_module(const struct find_module *f)
{
	return f->words[MODULE_TABLE] == f->table && f->words[MODULE_NAMES] == f->names;
}

/* The module at this address, if it is one. */
static bool try_module(struct find_module *f, uint64_t vaddr)
{
	uint64_t offset, len;

	if (view_vaddr(f->elf, vaddr, &offset, &len) < 0 || len < GOFIND_WORDS * 8 ||
		elf_file_read(f->elf, f->words, GOFIND_WORDS * 8, offset) < 0)
		return false;
	f->found = vaddr;
	if (!is_module(f) || !f->words[MODULE_TEXT])
		each_relocation(f->elf, visit_word, f);
	if (is_module(f))
		return true;
	f->found = 0;
	return false;
}

/* Where the pointer to the table is a relocation: the pointer behind it, to the names, is the next one, or
 * in any case another one. */
struct find_pair {
	const struct find_module *module;
	uint64_t table_at[RANGES_MAX], names_at[RANGES_MAX];
	size_t n_table, n_names;
};

static bool visit_pair(void *userdata, const Elf64_Rela *rela)
{
	struct find_pair *f = userdata;

	if ((uint64_t)rela->r_addend == f->module->table && f->n_table < RANGES_MAX)
		f->table_at[f->n_table++] = rela->r_offset;
	if ((uint64_t)rela->r_addend == f->module->names && f->n_names < RANGES_MAX)
		f->names_at[f->n_names++] = rela->r_offset;
	return false;
}

static bool module_by_relocations(struct find_module *f)
{
	struct find_pair pair = {.module = f};

	each_relocation(f->elf, visit_pair, &pair);
	for (size_t i = 0; i < pair.n_table; i++)
		for (size_t k = 0; k < pair.n_names; k++)
			if (pair.names_at[k] == pair.table_at[i] + 8 &&
				try_module(f, pair.table_at[i]))
				return true;
	return false;
}

/* Looks through what is loaded and not executed, by steps; until visit says true. */
static bool scan(const struct elf_file *elf, size_t step, size_t len,
	bool (*visit)(void *userdata, const struct elf_section *rest, const uint8_t *bytes),
	void *userdata)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);
	uint64_t left = SCAN_MAX;
	bool found = false;

	for (size_t i = 0; i < n && !found; i++) {
		struct view v;

		if (s[i].executable)
			continue;
		view_init(&v, elf, s[i].offset, MIN(s[i].file_size, left), s[i].vaddr, SCAN_BLOCK);
		left -= v.size;
		for (uint64_t at = -s[i].vaddr & (step - 1); at + len <= v.size && !found;
			at += step) {
			const uint8_t *p = view_get(&v, at, len);
			struct elf_section rest = {.type = SHT_PROGBITS,
				.offset = s[i].offset + at,
				.addr = s[i].vaddr + at,
				.size = s[i].file_size - at};

			if (!p)
				break;
			found = visit(userdata, &rest, p);
		}
		view_deinit(&v);
	}
	return found;
}

static bool visit_data(void *userdata, const struct elf_section *rest, const uint8_t *bytes)
{
	struct find_module *f = userdata;
	uint64_t pointers[2];

	memcpy(pointers, bytes, sizeof(pointers));
	return pointers[0] == f->table && pointers[1] == f->names && try_module(f, rest->addr);
}

int gofind_module(const struct elf_file *elf, const struct elf_section *table, uint64_t names,
	uint64_t words[GOFIND_WORDS])
{
	const struct elf_section *s = elf_file_find_name(elf, ".go.module");
	struct find_module f = {
		.elf = elf, .table = table->addr, .names = table->addr + names, .words = words};

	if (s && try_module(&f, s->addr))
		return 0;
	if (scan(elf, 8, 16, visit_data, &f) || module_by_relocations(&f))
		return 0;
	return -ENOENT;
}

/* ---- the text
 * --------------------------------------------------------------------------------------------- */

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

uint64_t gofind_text(const struct elf_file *elf, const struct elf_section *table, uint64_t names,
	uint64_t header)
{
	uint64_t found = header, words[GOFIND_WORDS];
	const struct elf_section *text;

	if (!found && !elf_file_find_name(elf, ".go.module"))
		found = relocated(elf, table->addr + 24);
	if (!found && gofind_module(elf, table, names, words) == 0)
		found = words[MODULE_TEXT];
	if (!found)
		found = text_symbol(elf);
	if (!found) {
		text = elf_file_find_name(elf, ".text");
		found = text ? text->addr : 0;
	}
	return found;
}

/* ---- the table
 * -------------------------------------------------------------------------------------------- */

struct find_table {
	bool (*plausible)(void *userdata, const struct elf_section *s);
	void *userdata;
	struct elf_section *found;
};

/* The first bytes of a table: its magic, two of zero, bytes of an instruction, bytes of a pointer. */
static bool visit_bytes(void *userdata, const struct elf_section *rest, const uint8_t *p)
{
	struct find_table *f = userdata;

	if (p[3] != 0xff || p[2] != 0xff || p[1] != 0xff || p[4] || p[5] || p[7] != 8 ||
		!f->plausible(f->userdata, rest))
		return false;
	*f->found = *rest;
	return true;
}

/* Whether the file says in any way that it is of Go. */
static bool is_go(const struct elf_file *elf)
{
	static const char *const names[] = {
		".go.buildinfo", ".note.go.buildid", ".go.module", ".noptrdata"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (elf_file_find_name(elf, names[i]))
			return true;
	return elf_file_sections(elf) <= 1;
}

int gofind_table(const struct elf_file *elf,
	bool (*plausible)(void *userdata, const struct elf_section *s), void *userdata,
	struct elf_section *ret)
{
	struct find_table f = {.plausible = plausible, .userdata = userdata, .found = ret};
	const struct elf_section *s;

	for (size_t i = 0; i < ARRAY_SIZE(section_names); i++) {
		s = elf_file_find_name(elf, section_names[i]);
		if (s && s->type != SHT_NOBITS) {
			*ret = *s;
			return 0;
		}
	}
	return is_go(elf) && scan(elf, TABLE_STEP, 8, visit_bytes, &f) ? 0 : -ENOENT;
}
