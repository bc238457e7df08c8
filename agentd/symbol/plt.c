/* SPDX-License-Identifier: Apache-2.0 */

/* The stubs by which a file calls other files' functions (the procedure linkage table), named as objdump and gdb do:
 * `write@plt`. They have no symbols of their own.
 *
 * A stub jumps through a word of the file's data, and a relocation says which function the dynamic linker puts
 * there. So a stub is read for the address of its word, and the word is looked up among the relocations: that
 * holds for every layout of linkers (.plt, .plt.sec of -fcf-protection, .plt.got). A word that a function of this
 * same file chooses its contents for (IRELATIVE) goes by the name that this function is exported under.
 *
 * Invariants: at most SLOTS_MAX relocations are kept, 16 bytes each; a stub is looked for in its own entry of
 * the section only. Runs in the symbolizer. Source: System V ABI, AMD64 supplement, 5.2; ELF for the Arm 64-bit
 * architecture, 5.7. */

#include <elf.h>

#include "agentd/elf/elf_file.h"
#include "agentd/symbol/resolver.h"
#include "agentd/symbol/sort.h"

#define SLOTS_MAX    262144
#define WINDOW       1024
#define STUB_MAX     16
#define SECTIONS_MAX 3
#define NAME_ROOM    (SYMBOL_NAME_MAX - 8)

struct slot {
	uint64_t at; /* the word's address */
	uint64_t
		target; /* number of the symbol in .dynsym; RESOLVED | address of the function that chooses */
};
#define RESOLVED (1ULL << 63)

struct plt {
	const struct elf_file *elf;
	const struct elf_section *symbols;
	struct elf_strings strings;
	uint16_t machine;
	struct {
		uint64_t addr, offset, size, stub;
	} sections[SECTIONS_MAX];
	size_t n_sections;
	struct slot *slots;
	size_t n, room;
};

static bool slot_less(const struct slot *a, const struct slot *b)
{
	return a->at < b->at;
}

DEFINE_SORT(sort_slots, struct slot, slot_less)

static void *plt_close(void *state)
{
	struct plt *p = state;

	if (p) {
		elf_strings_deinit(&p->strings);
		free(p->slots);
		free(p);
	}
	return NULL;
}
DEFINE_FREEP(plt_closep, struct plt *, plt_close)

/* ---- opening ----------------------------------------------------------------------------------------------- */

static void find_sections(struct plt *p)
{
	static const char *const names[SECTIONS_MAX] = {".plt", ".plt.sec", ".plt.got"};

	for (size_t i = 0; i < SECTIONS_MAX; i++) {
		const struct elf_section *s = elf_file_find_name(p->elf, names[i]);

		if (!s || s->type != SHT_PROGBITS || !(s->flags & SHF_EXECINSTR))
			continue;
		p->sections[p->n_sections].addr = s->addr;
		p->sections[p->n_sections].offset = s->offset;
		p->sections[p->n_sections].size = s->size;
		/* Some linkers leave the size of an entry out. */
		p->sections[p->n_sections++].stub = s->entsize == 8 ? 8 : STUB_MAX;
	}
}

static int add_slot(struct plt *p, const Elf64_Rela *r)
{
	uint32_t type = (uint32_t)ELF64_R_TYPE(r->r_info);
	bool arm = p->machine == EM_AARCH64;
	bool resolved = type == (arm ? R_AARCH64_IRELATIVE : R_X86_64_IRELATIVE);

	if (!resolved && type != (arm ? R_AARCH64_JUMP_SLOT : R_X86_64_JUMP_SLOT) &&
		type != (arm ? R_AARCH64_GLOB_DAT : R_X86_64_GLOB_DAT))
		return 0;
	if (p->n == SLOTS_MAX)
		return -E2BIG;
	if (p->n == p->room) {
		size_t room = p->room ? p->room * 2 : 256;
		struct slot *grown = reallocarray(p->slots, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		p->slots = grown;
		p->room = room;
	}
	p->slots[p->n++] = (struct slot){
		r->r_offset, resolved ? RESOLVED | (uint64_t)r->r_addend : ELF64_R_SYM(r->r_info)};
	return 0;
}

static int read_slots(struct plt *p, const struct elf_section *s)
{
	Elf64_Rela rows[64];
	uint64_t n = s->size / sizeof(rows[0]);

	for (uint64_t i = 0; i < n; i += ARRAY_SIZE(rows)) {
		size_t part = (size_t)MIN(n - i, (uint64_t)ARRAY_SIZE(rows));

		if (elf_file_read(p->elf, rows, part * sizeof(rows[0]),
			    s->offset + i * sizeof(rows[0])) < 0)
			return -ENODATA;
		for (size_t k = 0; k < part; k++) {
			int r = add_slot(p, &rows[k]);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int plt_open(void **ret, const struct elf_file *elf, const char **named_by,
	uint64_t *functions, struct err_text *problem)
{
	CLEANUP(plt_closep) struct plt *p = calloc(1, sizeof(*p));
	Elf64_Ehdr h;
	int r;

	if (!p)
		return -ENOMEM;
	p->elf = elf;
	p->symbols = elf_file_find_type(elf, SHT_DYNSYM, NULL);
	if (elf_file_read(elf, &h, sizeof(h), 0) < 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
		!p->symbols)
		return 0;
	p->machine = h.e_machine;
	find_sections(p);
	if (!p->n_sections ||
		elf_strings_init(&p->strings, elf, elf_file_section(elf, p->symbols->link), WINDOW))
		return 0;
	for (size_t i = 1; i < elf_file_sections(elf); i++) {
		const struct elf_section *s = elf_file_section(elf, i);

		if (!s || s->type != SHT_RELA || !(s->flags & SHF_ALLOC))
			continue;
		r = read_slots(p, s);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			break; /* what there is so far is true */
	}
	sort_slots(p->slots, p->n);
	*named_by = ".plt";
	*functions = p->n;
	*ret = TAKE_PTR(p);
	return 0;
}

/* ---- looking up -------------------------------------------------------------------------------------------- */

/* jmp *disp(%rip), perhaps behind endbr64 and a prefix. */
static bool x86_word(const uint8_t *stub, size_t len, uint64_t vaddr, uint64_t *ret)
{
	int32_t disp;

	for (size_t i = 0; i + 6 <= len; i++) {
		if (stub[i] != 0xff || stub[i + 1] != 0x25)
			continue;
		memcpy(&disp, stub + i + 2, sizeof(disp));
		*ret = vaddr + i + 6 + (uint64_t)(int64_t)disp;
		return true;
	}
	return false;
}

/* adrp x16, page; ldr x17, [x16, #offset]. */
static bool arm_word(const uint8_t *stub, size_t len, uint64_t vaddr, uint64_t *ret)
{
	uint32_t in[2];

	for (size_t i = 0; i + 8 <= len; i += 4) {
		int64_t pages;

		memcpy(in, stub + i, sizeof(in));
		if ((in[0] & 0x9f00001f) != 0x90000010 || (in[1] & 0xffc003ff) != 0xf9400211)
			continue;
		pages = (int64_t)((uint64_t)((in[0] >> 5 & 0x7ffff) << 2 | (in[0] >> 29 & 3))
				<< 43) >>
			43;
		*ret = ((vaddr + i) & ~0xfffULL) + (uint64_t)(pages * 4096) +
			(in[1] >> 10 & 0xfff) * 8ULL;
		return true;
	}
	return false;
}

/* The word that the stub of vaddr jumps through. */
static bool word_of(const struct plt *p, uint64_t vaddr, uint64_t *ret)
{
	uint8_t stub[STUB_MAX];

	for (size_t i = 0; i < p->n_sections; i++) {
		uint64_t pos = vaddr - p->sections[i].addr, size = p->sections[i].stub;

		if (vaddr < p->sections[i].addr || pos >= p->sections[i].size)
			continue;
		pos -= pos % size;
		size = MIN(size, p->sections[i].size - pos);
		if (elf_file_read(p->elf, stub, (size_t)size, p->sections[i].offset + pos) < 0)
			return false;
		vaddr = p->sections[i].addr + pos;
		return p->machine == EM_AARCH64 ? arm_word(stub, (size_t)size, vaddr, ret)
						: x86_word(stub, (size_t)size, vaddr, ret);
	}
	return false;
}

static const struct slot *find_slot(const struct plt *p, uint64_t at)
{
	size_t low = 0, high = p->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (p->slots[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low < p->n && p->slots[low].at == at ? &p->slots[low] : NULL;
}

/* The best name of what is exported at an address: see rule 5 of symtab.c, of which the first differences do. */
struct exported {
	struct plt *p;
	uint64_t address;
	char name[NAME_ROOM];
};

static int look_at(void *userdata, const struct elf_symbol *symbol)
{
	struct exported *e = userdata;
	char name[NAME_ROOM];
	size_t old = strspn(e->name, "_"), new;

	if (symbol->value != e->address || symbol->section == SHN_UNDEF ||
		elf_strings_get(&e->p->strings, symbol->name, name, sizeof(name), NULL) <= 0)
		return 0;
	new = strspn(name, "_");
	if (!*e->name || new < old || (new == old &&strcmp(name, e->name) < 0))
		memcpy(e->name, name, sizeof(name));
	return 0;
}

static bool name_of(struct plt *p, const struct slot *slot, char out[static NAME_ROOM])
{
	struct exported e = {.p = p, .address = slot->target & ~RESOLVED};
	uint64_t at;
	Elf64_Sym symbol;

	*out = '\0';
	if (slot->target & RESOLVED) {
		(void)elf_file_each_symbol(p->elf, p->symbols, look_at, &e);
		memcpy(out, e.name, NAME_ROOM);
	} else if (!__builtin_mul_overflow(slot->target, sizeof(symbol), &at) &&
		at < p->symbols->size && p->symbols->size - at >= sizeof(symbol) &&
		elf_file_read(p->elf, &symbol, sizeof(symbol), p->symbols->offset + at) == 0) {
		if (elf_strings_get(&p->strings, symbol.st_name, out, NAME_ROOM, NULL) < 0)
			*out = '\0';
	}
	out[strcspn(out, "@")] = '\0';
	return *out;
}

static int plt_find(void *state, uint64_t vaddr, struct found *found)
{
	struct plt *p = state;
	const struct slot *slot;
	char name[SYMBOL_NAME_MAX];
	uint64_t word;

	if (!word_of(p, vaddr, &word))
		return 0;
	slot = find_slot(p, word);
	if (!slot || !name_of(p, slot, name))
		return 0;
	strcat(name, "@plt");
	return found_add(found, name, "", 0, 0, false) == 0;
}

static size_t plt_memory(const void *state)
{
	const struct plt *p = state;

	return sizeof(*p) + p->room * sizeof(p->slots[0]) + WINDOW;
}

const struct native_source source_plt = {
	.name = "procedure linkage table",
	.late = true,
	.open = plt_open,
	.close = plt_close,
	.find = plt_find,
	.memory = plt_memory,
};
