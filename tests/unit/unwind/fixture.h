/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* ELF files made to order: one executable segment over the whole file, whose sections are what a
 * test says. */

#include <elf.h>
#include <sys/mman.h>

#include "agentd/base/macros.h"

#define FIXTURE_BASE 0x400000ULL
#define FIXTURE_TEXT 0x1000ULL /* file offset of .text */
#define FIXTURE_PC   (FIXTURE_BASE + FIXTURE_TEXT)

struct bytes {
	uint8_t *data;
	size_t len, room;
};

static inline void bytes_deinit(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

static inline size_t bytes_put(struct bytes *b, const void *data, size_t len)
{
	size_t at = b->len;

	if (b->len + len > b->room) {
		b->room = (b->len + len) * 2 + 64;
		b->data = realloc(b->data, b->room);
		if (!b->data)
			abort();
	}
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	return at;
}

static inline void put8(struct bytes *b, unsigned v)
{
	uint8_t x = (uint8_t)v;

	bytes_put(b, &x, 1);
}

static inline void put16(struct bytes *b, unsigned v)
{
	uint16_t x = (uint16_t)v;

	bytes_put(b, &x, 2);
}

static inline void put32(struct bytes *b, uint64_t v)
{
	uint32_t x = (uint32_t)v;

	bytes_put(b, &x, 4);
}

static inline void put64(struct bytes *b, uint64_t v)
{
	bytes_put(b, &v, 8);
}

static inline void put_uleb(struct bytes *b, uint64_t v)
{
	do {
		put8(b, (unsigned)(v & 0x7f) | (v > 0x7f ? 0x80 : 0));
		v >>= 7;
	} while (v);
}

static inline void put_sleb(struct bytes *b, int64_t v)
{
	for (;;) {
		unsigned byte = (unsigned)(v & 0x7f);
		bool last;

		v >>= 7;
		last = (v == 0 && !(byte & 0x40)) || (v == -1 && (byte & 0x40));
		put8(b, byte | (last ? 0 : 0x80));
		if (last)
			return;
	}
}

#define FIXTURE_SECTIONS 6

struct fixture_section {
	const char *name;
	const void *data;
	size_t len;
	uint64_t flags, offset; /* offset is set by fixture_fd() */
};

struct fixture {
	uint16_t machine; /* 0: EM_X86_64 */
	uint64_t entry;
	size_t text_len; /* bytes of .text; 0: text.len of section[0] */
	struct fixture_section sections[FIXTURE_SECTIONS]; /* [0] is .text */
	const char *header;                                /* section that PT_GNU_EH_FRAME names */
};

/* Where section i will lie in the file: sections follow each other at multiples of 16. */
static inline uint64_t fixture_offset(const struct fixture *f, size_t i)
{
	uint64_t at = FIXTURE_TEXT;

	for (size_t k = 0; k < i; k++)
		at = (at + f->sections[k].len + 15) & ~15ULL;
	return at;
}

/* A memfd with the file. */
static inline int fixture_fd(const struct fixture *f)
{
	static const char names_name[] = ".shstrtab";
	int fd = memfd_create("fixture", MFD_CLOEXEC);
	struct bytes names = {0};
	Elf64_Shdr s[FIXTURE_SECTIONS + 2] = {0};
	Elf64_Phdr p[2] = {0};
	Elf64_Ehdr h = {.e_type = ET_DYN,
		.e_machine = f->machine ? f->machine : EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = f->entry,
		.e_phoff = sizeof(h),
		.e_ehsize = sizeof(h),
		.e_phentsize = sizeof(p[0]),
		.e_phnum = 1,
		.e_shentsize = sizeof(s[0])};
	uint64_t end = fixture_offset(f, FIXTURE_SECTIONS);
	uint16_t n = 1;
	bool ok = fd >= 0;

	memcpy(h.e_ident, ELFMAG, SELFMAG);
	h.e_ident[EI_CLASS] = ELFCLASS64;
	h.e_ident[EI_DATA] = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
	h.e_ident[EI_VERSION] = EV_CURRENT;
	put8(&names, 0);
	for (size_t i = 0; i < FIXTURE_SECTIONS && f->sections[i].name; i++, n++) {
		const struct fixture_section *from = &f->sections[i];
		uint64_t offset = fixture_offset(f, i);

		s[n] = (Elf64_Shdr){
			.sh_name = (uint32_t)bytes_put(&names, from->name, strlen(from->name) + 1),
			.sh_type = SHT_PROGBITS,
			.sh_flags = from->flags,
			.sh_offset = offset,
			.sh_addr = FIXTURE_BASE + offset,
			.sh_size = from->len};
		ok &= pwrite(fd, from->data, from->len, (off_t)offset) == (ssize_t)from->len;
		if (f->header && streq(f->header, from->name)) {
			p[h.e_phnum++] = (Elf64_Phdr){.p_type = PT_GNU_EH_FRAME,
				.p_offset = offset,
				.p_vaddr = FIXTURE_BASE + offset,
				.p_filesz = from->len,
				.p_memsz = from->len};
		}
	}
	s[n] = (Elf64_Shdr){.sh_name = (uint32_t)bytes_put(&names, names_name, sizeof(names_name)),
		.sh_type = SHT_STRTAB,
		.sh_offset = end};
	s[n].sh_size = names.len;
	h.e_shstrndx = n++;
	h.e_shnum = n;
	h.e_shoff = (end + names.len + 15) & ~15ULL;
	p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_vaddr = FIXTURE_BASE,
		.p_filesz = end,
		.p_memsz = end};
	ok &= pwrite(fd, &h, sizeof(h), 0) == sizeof(h);
	ok &= pwrite(fd, p, sizeof(p), sizeof(h)) == sizeof(p);
	ok &= pwrite(fd, names.data, names.len, (off_t)end) == (ssize_t)names.len;
	ok &= pwrite(fd, s, n * sizeof(s[0]), (off_t)h.e_shoff) == (ssize_t)(n * sizeof(s[0]));
	bytes_deinit(&names);
	if (!ok)
		abort();
	return fd;
}
