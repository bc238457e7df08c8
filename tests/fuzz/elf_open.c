/* SPDX-License-Identifier: Apache-2.0 */

/* elf_file_open() on any bytes; of what it takes, every section, segment, symbol, string and identity is looked at, and
 * all must lie within the file. Corpus: tests/fuzz/corpus/elf_open. */

#include <elf.h>
#include <sys/mman.h>

#include "agentd/base/io.h"
#include "agentd/elf/elf_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static int visit(void *userdata, const struct elf_symbol *symbol)
{
	char name[256];
	ssize_t len = elf_strings_get(userdata, symbol->name, name, sizeof(name), NULL);

	check(len < (ssize_t)sizeof(name));
	check(len < 0 || strlen(name) == (size_t)len);
	return 0;
}

static void look_at(struct elf_file *f)
{
	size_t n;
	const struct elf_segment *segments = elf_file_segments(f, &n);
	struct elf_ids ids;
	uint64_t vaddr, start, end;

	for (size_t i = 0; i < n; i++) {
		check(segments[i].offset + segments[i].file_size <= elf_file_size(f));
		check(segments[i].offset + segments[i].file_size >= segments[i].offset);
		if (elf_file_vaddr(f, segments[i].offset, &vaddr) == 0 &&
			elf_file_code_range(f, vaddr, &start, &end))
			check(vaddr >= start && vaddr < end);
	}
	for (size_t i = 0; i < elf_file_sections(f); i++) {
		const struct elf_section *s = elf_file_section(f, i);
		struct elf_strings strings = {0};

		if (!s)
			continue;
		if (s->type != SHT_NOBITS)
			check(s->offset <= elf_file_size(f) &&
				s->size <= elf_file_size(f) - s->offset);
		if ((s->type == SHT_SYMTAB || s->type == SHT_DYNSYM) &&
			elf_strings_init(&strings, f, elf_file_section(f, s->link), 128) == 0)
			(void)elf_file_each_symbol(f, s, visit, &strings);
		elf_strings_deinit(&strings);
	}
	(void)elf_file_find_name(f, ".text");
	elf_file_ids(f, &ids);
	check(strlen(ids.gnu) <= 40 && strlen(ids.go) <= 96);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_close_ int fd = memfd_create("fuzz", MFD_CLOEXEC);
	CLEANUP(elf_file_closep) struct elf_file *f = NULL;
	char hash[33];

	check(fd >= 0 && io_write_all(fd, data, size) == 0);
	check(elf_file_htlhash(fd, hash) == 0);
	if (elf_file_open(&f, fd, NULL) == 0)
		look_at(f);
	return 0;
}
