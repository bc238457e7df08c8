/* SPDX-License-Identifier: Apache-2.0 */

/* Opening an ELF file that its author may have made to harm us.
 *
 * Everything a header says is a claim. It is checked against the file's real size once, here, and
 * what fails is left out, so that no other file of the project compares offsets. libelf decodes the
 * headers (both classes, extended section counts); we read the contents ourselves, by pread, in
 * pieces of bounded size, because libelf takes a section whole into memory and a section may be 4
 * GB long.
 *
 * Invariants. The file is never mapped: its owner may truncate it under us, and a mapping would
 * then end the process by SIGBUS (reads come back short instead). Header counts are looked at
 * before libelf allocates for them. Nothing of libelf lives longer than elf_file_open(), so an open
 * file costs its section table. Chains (sh_link and the like) are followed one step, and the
 * target's type is checked: no cycles.
 *
 * Source: gABI chapters 4 and 5, elf(5). Runs in the sandbox only. */

#include <elf.h>
#include <endian.h>
#include <gelf.h>
#include <sys/stat.h>

#include "agentd/elf/elf_private.h"

static void elf_endp(Elf **e)
{
	if (*e)
		elf_end(*e);
}

int elf_file_read(const struct elf_file *f, void *data, size_t len, uint64_t offset)
{
	uint8_t *p = data;

	if (!elf_within(offset, len, f->size))
		return -ENODATA;
	if (f->memory) {
		memcpy(p, f->memory + offset, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(f->fd, p, len, (off_t)offset);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -ENODATA;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* The counts that libelf would allocate by, as the raw header has them. */
struct counts {
	uint64_t shoff;
	size_t sections; /* 0: none, or not believable */
};

static int check_ident(const struct elf_file *f, const unsigned char *ident, struct err_text *err)
{
	const unsigned char order = __BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB;

	if (memcmp(ident, ELFMAG, SELFMAG) != 0)
		return err_set(err, -ENOEXEC, "not an ELF file");
	if (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)
		return err_set(err, -ENOEXEC, "ELF class %u is unknown", ident[EI_CLASS]);
	if (ident[EI_DATA] != order)
		return err_set(err, -ENOEXEC, "an ELF file of another byte order");
	return 0;
}

/* Section counts over 0xff00 are kept in the size of section 0. */
static size_t believable_sections(
	const struct elf_file *f, uint64_t shoff, unsigned n, unsigned entsize)
{
	const size_t size = f->is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	uint64_t count = n;

	if (!shoff || entsize != size || !elf_within(shoff, size, f->size))
		return 0;
	if (n == 0) {
		union {
			Elf64_Shdr s64;
			Elf32_Shdr s32;
		} first;

		if (elf_file_read(f, &first, size, shoff) < 0)
			return 0;
		count = f->is64 ? first.s64.sh_size : first.s32.sh_size;
	}
	if (count > ELF_FILE_MAX_SECTIONS || !elf_within(shoff, count * size, f->size))
		return 0;
	return (size_t)count;
}

static int check_header(struct elf_file *f, struct counts *ret, struct err_text *err)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf64_Ehdr e64;
		Elf32_Ehdr e32;
	} h = {0};
	unsigned type, phnum, phentsize, shnum, shentsize;
	int r;

	if (f->size < sizeof(h.e32))
		return err_set(
			err, -ENOEXEC, "not an ELF file (%llu bytes)", (unsigned long long)f->size);
	r = elf_file_read(f, &h, MIN(sizeof(h), f->size), 0);
	if (r < 0)
		return err_set(err, r, "cannot read the file: %s", strerrordesc_np(-r));
	r = check_ident(f, h.ident, err);
	if (r < 0)
		return r;
	f->is64 = h.ident[EI_CLASS] == ELFCLASS64;
	if (f->is64 && f->size < sizeof(h.e64))
		return err_set(err, -EBADMSG, "the ELF header is cut short");
	type = f->is64 ? h.e64.e_type : h.e32.e_type;
	phnum = f->is64 ? h.e64.e_phnum : h.e32.e_phnum;
	phentsize = f->is64 ? h.e64.e_phentsize : h.e32.e_phentsize;
	shnum = f->is64 ? h.e64.e_shnum : h.e32.e_shnum;
	shentsize = f->is64 ? h.e64.e_shentsize : h.e32.e_shentsize;
	ret->shoff = f->is64 ? h.e64.e_shoff : h.e32.e_shoff;
	/* What dwz takes out of several files is of no type that runs. */
	if (type != ET_EXEC && type != ET_DYN && type != ET_REL)
		return err_set(
			err, -ENOEXEC, "an ELF file of type %u, not a program or a library", type);
	if (phnum > ELF_FILE_MAX_PHDRS ||
		(phnum && phentsize != (f->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr))))
		return err_set(
			err, -EBADMSG, "%u program headers of %u bytes: damaged", phnum, phentsize);
	ret->sections = believable_sections(f, ret->shoff, shnum, shentsize);
	return 0;
}

static void add_notes(struct elf_file *f, uint64_t offset, uint64_t size, uint64_t align)
{
	if (f->n_notes == ELF_FILE_MAX_NOTES || !elf_within(offset, size, f->size))
		return;
	f->notes[f->n_notes++] = (struct elf_note_range){
		.offset = offset, .size = size, .align = align == 8 ? 8 : 4};
}

static int load_segments(struct elf_file *f, Elf *elf, struct err_text *err)
{
	size_t n;

	if (elf_getphdrnum(elf, &n) < 0 || n > ELF_FILE_MAX_PHDRS)
		return err_set(err, -EBADMSG, "the program headers are damaged");
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr p;

		if (!gelf_getphdr(elf, (int)i, &p))
			return err_set(err, -EBADMSG, "program header %zu is damaged", i);
		if (p.p_type == PT_NOTE)
			add_notes(f, p.p_offset, p.p_filesz, p.p_align);
		if (p.p_type != PT_LOAD || f->n_segments == ELF_FILE_MAX_SEGMENTS)
			continue;
		/* What lies beyond the file or wraps round cannot have been mapped. */
		if (!elf_within(p.p_offset, p.p_filesz, f->size) || p.p_memsz < p.p_filesz ||
			p.p_memsz > UINT64_MAX - p.p_vaddr)
			continue;
		f->segments[f->n_segments++] = (struct elf_segment){.offset = p.p_offset,
			.file_size = p.p_filesz,
			.vaddr = p.p_vaddr,
			.mem_size = p.p_memsz,
			.executable = p.p_flags & PF_X};
	}
	return 0;
}

/* Damage here costs the sections, not the file. */
static int load_sections(struct elf_file *f, Elf *elf, const struct counts *counts)
{
	size_t n, names = 0;

	if (!counts->sections || elf_getshdrnum(elf, &n) < 0 || n == 0)
		return 0;
	n = MIN(n, counts->sections);
	f->sections = calloc(n, sizeof(*f->sections));
	if (!f->sections)
		return -ENOMEM;
	f->n_sections = n;
	for (size_t i = 1; i < n; i++) {
		Elf_Scn *scn = elf_getscn(elf, i);
		GElf_Shdr s;

		if (!scn || !gelf_getshdr(scn, &s))
			continue;
		if (s.sh_type != SHT_NOBITS && !elf_within(s.sh_offset, s.sh_size, f->size))
			continue;
		if (s.sh_size > UINT64_MAX - s.sh_addr)
			continue;
		f->sections[i] = (struct elf_section){.type = s.sh_type,
			.link = s.sh_link,
			.name = s.sh_name,
			.flags = s.sh_flags,
			.addr = s.sh_addr,
			.size = s.sh_size,
			.entsize = s.sh_entsize,
			.offset = s.sh_offset};
		if (s.sh_type == SHT_NOTE)
			add_notes(f, s.sh_offset, s.sh_size, s.sh_addralign);
	}
	if (elf_getshdrstrndx(elf, &names) == 0 && names < n)
		f->names = names;
	return 0;
}

/* Consumes f, whose fd or memory and size are set. */
static int load(struct elf_file **ret, struct elf_file *own, struct err_text *err)
{
	CLEANUP(elf_file_closep) struct elf_file *f = own;
	CLEANUP(elf_endp) Elf *elf = NULL;
	struct counts counts = {0};
	int r;

	r = check_header(f, &counts, err);
	if (r < 0)
		return r;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return err_set(err, -EIO, "libelf: %s", elf_errmsg(-1));
	elf = f->memory ? elf_memory((char *)f->memory, (size_t)f->size)
			: elf_begin(f->fd, ELF_C_READ, NULL);
	if (!elf || elf_kind(elf) != ELF_K_ELF)
		return err_set(err, -EBADMSG, "damaged: %s", elf_errmsg(-1));
	r = load_segments(f, elf, err);
	if (r < 0)
		return r;
	r = load_sections(f, elf, &counts);
	if (r < 0)
		return err_set(err, r, "no memory");
	*ret = TAKE_PTR(f);
	return 0;
}

int elf_file_open(struct elf_file **ret, int fd, struct err_text *err)
{
	CLEANUP(elf_file_closep) struct elf_file *f = calloc(1, sizeof(*f));
	struct stat st;

	if (!f)
		return err_set(err, -ENOMEM, "no memory");
	f->fd = fd;
	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot look at the file: %m");
	if (!S_ISREG(st.st_mode) || st.st_size < 0)
		return err_set(err, -ENOEXEC, "not a regular file");
	f->size = (uint64_t)st.st_size;
	return load(ret, TAKE_PTR(f), err);
}

int elf_file_open_memory(struct elf_file **ret, uint8_t *data, size_t size, struct err_text *err)
{
	struct elf_file *f = calloc(1, sizeof(*f));

	if (!f) {
		free(data);
		return err_set(err, -ENOMEM, "no memory");
	}
	f->fd = -1;
	f->memory = data;
	f->size = size;
	return load(ret, f, err);
}

struct elf_file *elf_file_close(struct elf_file *f)
{
	if (f) {
		free(f->memory);
		free(f->sections);
		free(f);
	}
	return NULL;
}

int elf_file_fd(const struct elf_file *f)
{
	return f->fd;
}

uint64_t elf_file_size(const struct elf_file *f)
{
	return f->size;
}

size_t elf_file_memory(const struct elf_file *f)
{
	return sizeof(*f) + f->n_sections * sizeof(*f->sections) +
		(f->memory ? (size_t)f->size : 0);
}

const struct elf_segment *elf_file_segments(const struct elf_file *f, size_t *n)
{
	*n = f->n_segments;
	return f->segments;
}

const struct elf_section *elf_file_section(const struct elf_file *f, size_t i)
{
	if (i == 0 || i >= f->n_sections || f->sections[i].type == SHT_NULL)
		return NULL;
	return &f->sections[i];
}

size_t elf_file_sections(const struct elf_file *f)
{
	return f->n_sections;
}

const struct elf_section *elf_file_find_type(const struct elf_file *f, uint32_t type, size_t *i)
{
	for (size_t at = 1; at < f->n_sections; at++) {
		if (f->sections[at].type != type)
			continue;
		if (i)
			*i = at;
		return &f->sections[at];
	}
	return NULL;
}

const struct elf_section *elf_file_find_name(const struct elf_file *f, const char *name)
{
	CLEANUP(elf_strings_deinit) struct elf_strings names = {0};
	const struct elf_section *table = elf_file_section(f, f->names);
	char text[64];

	if (!table || elf_strings_init(&names, f, table, 4096) < 0)
		return NULL;
	for (size_t i = 1; i < f->n_sections; i++) {
		if (f->sections[i].type == SHT_NULL)
			continue;
		if (elf_strings_get(&names, f->sections[i].name, text, sizeof(text), NULL) > 0 &&
			streq(text, name))
			return &f->sections[i];
	}
	return NULL;
}

int elf_file_vaddr(const struct elf_file *f, uint64_t offset, uint64_t *ret)
{
	const uint64_t page = 4096;

	/* Executable segments, then others (code in data is read like this), then the slack before
	 * an executable segment: mappings begin at a page, so code of a segment that does not is
	 * mapped with what lies before it. */
	for (int pass = 0; pass < 3; pass++) {
		for (size_t i = 0; i < f->n_segments; i++) {
			const struct elf_segment *s = &f->segments[i];
			uint64_t slack = pass == 2 ? MIN(s->offset % page, s->vaddr % page) : 0;

			if (s->executable != (pass != 1))
				continue;
			if (offset < s->offset - slack ||
				offset - (s->offset - slack) >= s->file_size + slack)
				continue;
			*ret = s->vaddr - slack + (offset - (s->offset - slack));
			return 0;
		}
	}
	return -ENOENT;
}

bool elf_file_code_range(const struct elf_file *f, uint64_t vaddr, uint64_t *start, uint64_t *end)
{
	const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;

	for (size_t i = 1; i < f->n_sections; i++) {
		const struct elf_section *s = &f->sections[i];

		if (s->type != SHT_NULL && (s->flags & code) == code && vaddr >= s->addr &&
			vaddr - s->addr < s->size) {
			*start = s->addr;
			*end = s->addr + s->size;
			return true;
		}
	}
	for (size_t i = 0; i < f->n_segments; i++) {
		const struct elf_segment *s = &f->segments[i];

		if (s->executable && vaddr >= s->vaddr && vaddr - s->vaddr < s->mem_size) {
			*start = s->vaddr;
			*end = s->vaddr + s->mem_size;
			return true;
		}
	}
	return false;
}
