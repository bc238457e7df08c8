/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An ELF file of unknown origin, opened from a descriptor and held to its real size. Sandbox only.
 *
 * Offsets, sizes and addresses are in bytes; every range that is given out lies within the file as
 * fstat saw it. The file may change meanwhile: reads then come back short (-ENODATA), never as a
 * signal. Source: the System V ABI's gABI chapters 4 and 5, and the GNU and Go notes. */

#include <sys/types.h>
#include "agentd/base/err.h"

#define ELF_FILE_MAX_SEGMENTS 64 /* PT_LOAD kept; real files have 2 to 6 */
#define ELF_FILE_MAX_PHDRS    512
#define ELF_FILE_MAX_SECTIONS 16384 /* real executables have 30 to 100 */
#define ELF_FILE_MAX_SYMBOLS                                                                       \
	8388608 /* scanned in one table; a debug build of a browser has 3 million */

struct elf_segment {
	uint64_t offset, file_size, vaddr, mem_size;
	bool executable;
};

struct elf_section {
	uint32_t type, link, name; /* sh_type, sh_link, sh_name as the file says */
	uint64_t flags, addr, size, entsize;
	uint64_t offset; /* [offset, offset + size) lies within the file, but for SHT_NOBITS */
};

struct elf_file;

/* Borrows fd (a regular file or memfd, any position), which must outlive the elf_file. -ENOEXEC:
 * not an ELF executable or library of this host's byte order; -EBADMSG: damaged; -ENOMEM; -errno of
 * reading. A file whose sections are damaged or missing still opens: it has segments and no
 * sections. */
int elf_file_open(struct elf_file **ret, int fd, struct err_text *err);
/* The same of bytes in memory. Consumes data (of malloc), also on failure. */
int elf_file_open_memory(struct elf_file **ret, uint8_t *data, size_t size, struct err_text *err);
struct elf_file *elf_file_close(struct elf_file *f);
DEFINE_FREEP(elf_file_closep, struct elf_file *, elf_file_close)

int elf_file_fd(const struct elf_file *f); /* borrowed; -1: it is in memory */
uint64_t elf_file_size(const struct elf_file *f);
size_t elf_file_memory(const struct elf_file *f); /* heap bytes held */
const struct elf_segment *elf_file_segments(const struct elf_file *f, size_t *n);
/* Section number i, 1-based as in the file; NULL beyond the last and for one that breaks its
 * bounds. */
const struct elf_section *elf_file_section(const struct elf_file *f, size_t i);
size_t elf_file_sections(const struct elf_file *f); /* numbers are below this */
/* The first section of this type, or NULL; *i (if not NULL) gets its number. */
const struct elf_section *elf_file_find_type(const struct elf_file *f, uint32_t type, size_t *i);
/* The first section with this name, or NULL. Reads the name table. */
const struct elf_section *elf_file_find_name(const struct elf_file *f, const char *name);

/* All len bytes or an error: -ENODATA where the file ends before. */
int elf_file_read(const struct elf_file *f, void *data, size_t len, uint64_t offset);

/* The ELF's own virtual address of a file offset, by the PT_LOAD segments; executable ones first.
 * -ENOENT. */
int elf_file_vaddr(const struct elf_file *f, uint64_t offset, uint64_t *ret);
/* The executable section that holds vaddr, as [*start, *end), or the executable segment where no section
 * does. False: not code. */
bool elf_file_code_range(const struct elf_file *f, uint64_t vaddr, uint64_t *start, uint64_t *end);

/* ---- strings: a window over one string table, read as needed
 * ----------------------------------------- */

struct elf_strings {
	const struct elf_file *file;
	uint64_t offset, size; /* of the table */
	uint64_t at;           /* the window holds [at, at + len) of the table */
	size_t len, window;
	char *data;
};

/* table: a section of type SHT_STRTAB, else -EBADMSG. window: bytes to hold; more is read ahead,
 * not kept. */
int elf_strings_init(struct elf_strings *s, const struct elf_file *f,
	const struct elf_section *table, size_t window);
void elf_strings_deinit(struct elf_strings *s);
/* Another window. -ENOMEM: it is as it was. */
int elf_strings_resize(struct elf_strings *s, size_t window);
/* The string at pos, NUL-terminated within size bytes; a longer one is cut there and *cut set. Its
 * length, or -EBADMSG (outside the table), -errno. */
ssize_t elf_strings_get(struct elf_strings *s, uint64_t pos, char *out, size_t size, bool *cut);

/* ---- symbols
 * -------------------------------------------------------------------------------------------- */

struct elf_symbol {
	uint64_t value, size;
	uint32_t name; /* offset in the string table */
	uint16_t section;
	uint8_t type, bind; /* STT_, STB_ */
};

/* Visits every symbol of the table in its order (but for number 0). table: SHT_SYMTAB or
 * SHT_DYNSYM. A negative return of visit ends it and is returned. -EBADMSG: entry size, -E2BIG:
 * over ELF_FILE_MAX_SYMBOLS. */
int elf_file_each_symbol(const struct elf_file *f, const struct elf_section *table,
	int (*visit)(void *userdata, const struct elf_symbol *symbol), void *userdata);

/* ---- what the file calls itself
 * ----------------------------------------------------------------------- */

struct elf_ids {
	char gnu[41]; /* GNU build id, lower-case hex; "" none, or longer than 20 bytes */
	char go[97];  /* Go build id, clean text; "" none */
};

/* Of any file: the first 16 bytes, in hex, of SHA-256 over the first 4096 bytes, the last 4096
 * bytes and the length as big-endian 64 bits (OpenTelemetry semantic conventions,
 * process.executable.build_id.htlhash). */
int elf_file_htlhash(int fd, char out[33]);
/* From the notes; never fails, damaged notes are none. */
void elf_file_ids(const struct elf_file *f, struct elf_ids *ret);

/* ---- what it says of its debug information
 * ------------------------------------------------------------ */

#define ELF_FILE_LINK_MAX      256
#define ELF_FILE_DEBUGDATA_MAX (64 << 20) /* bytes, unpacked */

/* Whether it has DWARF of its own, compressed or not. Reads the name table. */
bool elf_file_has_debug_info(const struct elf_file *f);

/* .gnu_debuglink: the separate debug file's name, without folders, and the CRC-32 of its bytes. */
struct elf_debuglink {
	char name[ELF_FILE_LINK_MAX]; /* clean; "" none */
	uint32_t crc;
};
void elf_file_debuglink(const struct elf_file *f, struct elf_debuglink *ret);
/* The CRC-32 (that of .gnu_debuglink) of the whole file. -EFBIG: longer than max. */
int elf_file_crc(const struct elf_file *f, uint64_t max, uint32_t *ret);

/* The alternate file that its debug information refers to, made of what several files have in common (dwz):
 * .gnu_debugaltlink, or .debug_sup of DWARF 5. */
struct elf_altlink {
	char path[ELF_FILE_LINK_MAX]; /* clean; "" none */
	char build_id
		[41]; /* hex of what the alternate file has as build id, or says in its own .debug_sup */
};
void elf_file_altlink(const struct elf_file *f, struct elf_altlink *ret);
/* Whether f is what that refers to. */
bool elf_file_is_alternate(const struct elf_file *f, const struct elf_altlink *link);

/* .gnu_debugdata: a small ELF file, packed by xz, with the symbols that were stripped ("mini debug
 * information"). 0 with *ret NULL: there is none. -EFBIG: longer than ELF_FILE_DEBUGDATA_MAX unpacked;
 * -EBADMSG: damaged; -ENOMEM. */
int elf_file_open_debugdata(
	struct elf_file **ret, const struct elf_file *f, struct err_text *problem);
