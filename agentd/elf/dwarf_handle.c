/* SPDX-License-Identifier: Apache-2.0 */

/* A file as libdw wants it: an ELF handle with debug sections that libelf can read.
 *
 * libelf inflates zlib, that of Debian 12 (0.188) no zstd. So where a debug section is compressed by zstd, a new ELF image is
 * made in memory that has the debug sections alone, those of zstd inflated and the others as they are; their sizes
 * are what the file claims, so that all together are held to DWARF_FILE_INFLATED before any is inflated. Sections that
 * names and lines do not need are left out. The image is of 64 bits whatever the file is: units say themselves how long
 * addresses are.
 *
 * dwarf_handle_open_empty() is for debug information that refers to an alternate file which is not to be had: libdw
 * would go and open one by itself, which ends a process in the sandbox. Source: gABI chapter 4, "Compressed sections"; RFC 8878.
 * Runs in the sandbox. */

#include <gelf.h>
#include <malloc.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include "agentd/elf/dwarf_private.h"

#define TYPE_ZSTD    2 /* ELFCOMPRESS_ZSTD, which elf.h of glibc 2.36 lacks */
#define SECTIONS_MAX 16
#define NAME_ROOM    32

static const char *const wanted[] = {".debug_info", ".debug_abbrev", ".debug_line", ".debug_str",
	".debug_line_str", ".debug_ranges", ".debug_rnglists", ".debug_addr", ".debug_str_offsets",
	".debug_types", ".gnu_debugaltlink"};

/* One section of the image. */
struct piece {
	const char *name;
	const uint8_t *data; /* in the file */
	size_t len;          /* there */
	uint64_t size;       /* in the image */
	GElf_Shdr header;
	bool zstd;
};

struct pieces {
	struct piece v[SECTIONS_MAX];
	size_t n;
	uint64_t size;
	bool any_zstd, any_info, foreign;
};

/* What compression a section has, and how long it claims to be. libelf says no more of a type that it does not know. */
static bool compression(Elf *elf, const Elf_Data *raw, uint32_t *type, uint64_t *size, size_t *skip)
{
	Elf64_Chdr c64;
	Elf32_Chdr c32;

	if (gelf_getclass(elf) == ELFCLASS64) {
		if (raw->d_size < sizeof(c64))
			return false;
		memcpy(&c64, raw->d_buf, sizeof(c64));
		*type = c64.ch_type;
		*size = c64.ch_size;
		*skip = sizeof(c64);
		return true;
	}
	if (raw->d_size < sizeof(c32))
		return false;
	memcpy(&c32, raw->d_buf, sizeof(c32));
	*type = c32.ch_type;
	*size = c32.ch_size;
	*skip = sizeof(c32);
	return true;
}

static void look_at(Elf *elf, Elf_Scn *section, const char *name, struct pieces *p)
{
	struct piece piece = {.name = name};
	uint32_t type = 0;
	size_t skip = 0;
	Elf_Data *raw;

	if (!gelf_getshdr(section, &piece.header) || piece.header.sh_type == SHT_NOBITS ||
		p->n == SECTIONS_MAX)
		return;
	raw = elf_rawdata(section, NULL);
	if (!raw || !raw->d_buf || !raw->d_size)
		return;
	piece.data = raw->d_buf;
	piece.len = piece.size = raw->d_size;
	if (piece.header.sh_flags & SHF_COMPRESSED) {
		if (!compression(elf, raw, &type, &piece.size, &skip))
			return;
		piece.zstd = type == TYPE_ZSTD;
		if (piece.zstd) {
			piece.data += skip;
			piece.len -= skip;
			piece.header.sh_flags &= ~(uint64_t)SHF_COMPRESSED;
		} else {
			piece.size = piece.len;
			p->foreign |= type != ELFCOMPRESS_ZLIB;
		}
	}
	p->any_zstd |= piece.zstd;
	p->size = piece.size > UINT32_MAX ? UINT64_MAX / 2 : p->size + piece.size + 16;
	p->v[p->n++] = piece;
}

static void look(Elf *elf, struct pieces *p)
{
	Elf_Scn *section = NULL;
	size_t names;

	if (elf_getshdrstrndx(elf, &names) < 0)
		return;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr h;
		const char *name =
			gelf_getshdr(section, &h) ? elf_strptr(elf, names, h.sh_name) : NULL;

		if (!name || h.sh_type == SHT_NOBITS)
			continue;
		if (streq(name, ".debug_info") || streq(name, ".zdebug_info"))
			p->any_info = true;
		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
			if (streq(name, wanted[i]))
				look_at(elf, section, wanted[i], p);
	}
}

/* ---- the image ---- */

/* Header, section headers (none, the pieces, their names), names, pieces. */
static size_t image_room(const struct pieces *p)
{
	return sizeof(Elf64_Ehdr) + (p->n + 2) * sizeof(Elf64_Shdr) + (p->n + 2) * NAME_ROOM +
		(size_t)p->size;
}

static bool put(uint8_t *at, const struct piece *p)
{
	size_t n;

	if (!p->zstd) {
		memcpy(at, p->data, p->len);
		return true;
	}
	n = ZSTD_decompress(at, (size_t)p->size, p->data, p->len);
	return !ZSTD_isError(n) && n == p->size;
}

static bool fill(uint8_t *image, const struct pieces *p, unsigned machine)
{
	Elf64_Ehdr *e = (void *)image;
	Elf64_Shdr *s = (void *)(e + 1);
	char *names = (char *)(s + p->n + 2);
	size_t at = (size_t)(names - (char *)image) + (p->n + 2) * NAME_ROOM;

	memcpy(e->e_ident, ELFMAG, SELFMAG);
	e->e_ident[EI_CLASS] = ELFCLASS64;
	e->e_ident[EI_DATA] = __BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB;
	e->e_ident[EI_VERSION] = EV_CURRENT;
	e->e_type = ET_DYN;
	e->e_machine = (Elf64_Half)machine;
	e->e_version = EV_CURRENT;
	e->e_ehsize = sizeof(*e);
	e->e_shoff = sizeof(*e);
	e->e_shentsize = sizeof(*s);
	e->e_shnum = (Elf64_Half)(p->n + 2);
	e->e_shstrndx = (Elf64_Half)(p->n + 1);
	for (size_t i = 0; i < p->n; i++) {
		size_t name = (i + 1) * NAME_ROOM;

		snprintf(names + name, NAME_ROOM, "%s", p->v[i].name);
		s[i + 1] = (Elf64_Shdr){.sh_name = (Elf64_Word)name,
			.sh_type = SHT_PROGBITS,
			.sh_flags = p->v[i].header.sh_flags &
				(SHF_COMPRESSED | SHF_MERGE | SHF_STRINGS),
			.sh_offset = at,
			.sh_size = p->v[i].size,
			.sh_addralign = 1,
			.sh_entsize = p->v[i].header.sh_entsize};
		if (!put(image + at, &p->v[i]))
			return false;
		at += ((size_t)p->v[i].size + 15) & ~(size_t)15;
	}
	snprintf(names, NAME_ROOM, "%s", "");
	snprintf(names + (p->n + 1) * NAME_ROOM, NAME_ROOM, ".shstrtab");
	s[p->n + 1] = (Elf64_Shdr){.sh_name = (Elf64_Word)((p->n + 1) * NAME_ROOM),
		.sh_type = SHT_STRTAB,
		.sh_offset = (size_t)(names - (char *)image),
		.sh_size = (p->n + 2) * NAME_ROOM,
		.sh_addralign = 1};
	return true;
}

/* In the place of h->elf. */
static int inflate(struct dwarf_handle *h, const struct pieces *p, struct err_text *problem)
{
	GElf_Ehdr e;
	uint8_t *image;
	size_t room;
	Elf *elf;

	if (p->size > DWARF_FILE_INFLATED) {
		err_set(problem, -EFBIG, "its debug information is too big uncompressed");
		return 0;
	}
	room = image_room(p);
	image = calloc(1, room);
	if (!image)
		return -ENOMEM;
	elf = gelf_getehdr(h->elf, &e) && fill(image, p, e.e_machine)
		? elf_memory((char *)image, room)
		: NULL;
	if (!elf) {
		free(image);
		err_set(problem, -EBADMSG, "its compressed debug information is damaged");
		return 0;
	}
	elf_end(h->elf);
	h->elf = elf;
	h->image = image;
	h->size = room;
	return 1;
}

/* ---- opening ---- */

void dwarf_handle_close(struct dwarf_handle *h)
{
	dwarf_end(h->dwarf);
	elf_end(h->elf);
	free(h->image);
	*h = (struct dwarf_handle){0};
}

static int begin(struct dwarf_handle *h, struct err_text *problem)
{
	h->dwarf = dwarf_begin_elf(h->elf, DWARF_C_READ, NULL);
	if (!h->dwarf)
		err_set(problem, -EBADMSG, "its debug information cannot be read: %s",
			dwarf_errmsg(-1));
	return 0;
}

int dwarf_handle_open(struct dwarf_handle *ret, int fd, struct err_text *problem)
{
	struct pieces p = {0};
	int r;

	*ret = (struct dwarf_handle){0};
	elf_version(EV_CURRENT);
	ret->elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	if (!ret->elf || elf_kind(ret->elf) != ELF_K_ELF)
		return 0;
	look(ret->elf, &p);
	if (!p.any_info)
		return 0;
	if (p.foreign) {
		err_set(problem, -ENOTSUP,
			"its debug information is compressed in a way that is not read");
		return 0;
	}
	if (p.any_zstd) {
		r = inflate(ret, &p, problem);
		if (r <= 0)
			return r;
	}
	return begin(ret, problem);
}

int dwarf_handle_open_empty(struct dwarf_handle *ret)
{
	/* libdw takes no file that has neither units nor lines. */
	static const struct piece none[] = {
		{.name = ".debug_line", .data = (const uint8_t *)"", .len = 1, .size = 1},
		{.name = ".debug_str", .data = (const uint8_t *)"", .len = 1, .size = 1}};
	struct pieces p = {.n = ARRAY_SIZE(none), .size = 16 * ARRAY_SIZE(none)};

	*ret = (struct dwarf_handle){0};
	memcpy(p.v, none, sizeof(none));
	elf_version(EV_CURRENT);
	ret->size = image_room(&p);
	ret->image = calloc(1, ret->size);
	if (!ret->image || !fill(ret->image, &p, EM_X86_64))
		return -ENOMEM;
	ret->elf = elf_memory((char *)ret->image, ret->size);
	if (ret->elf)
		ret->dwarf = dwarf_begin_elf(ret->elf, DWARF_C_READ, NULL);
	return ret->dwarf ? 0 : -ENOMEM;
}

int dwarf_handle_renew(struct dwarf_handle *h)
{
	dwarf_end(h->dwarf);
	h->dwarf = dwarf_begin_elf(h->elf, DWARF_C_READ, NULL);
	return h->dwarf ? 0 : -EIO;
}
