/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as .eh_frame: behind a table of the linker's (the first byte is H, the second says where it ends, in units
 * of 16), or without one. What is answered holds the address. Corpus: tests/fuzz/corpus/elf_extent. */

#include "tests/unit/unwind/fixture.h"
#include "agentd/elf/extent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t text[4096];
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	struct fixture f = {
		.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0}}};
	struct elf_extents *x = NULL;
	uint64_t from, to;
	size_t split;
	int fd;

	if (size < 2)
		return 0;
	split = data[0] == 'H' ? MIN((size_t)data[1] * 16, size - 2) : 0;
	f.sections[1] = (struct fixture_section){
		".eh_frame", data + 2 + split, size - 2 - split, SHF_ALLOC, 0};
	if (split) {
		f.sections[2] =
			(struct fixture_section){".eh_frame_hdr", data + 2, split, SHF_ALLOC, 0};
		f.header = ".eh_frame_hdr";
	}
	fd = fixture_fd(&f);
	check(elf_file_open(&elf, fd, NULL) == 0);
	check(elf_extents_open(&x, elf) == 0);
	for (uint64_t at = 0; x && at < 512; at++) {
		uint64_t address = FIXTURE_BASE + at * 24;

		if (elf_extents_find(x, address, &from, &to))
			check(from <= address && address < to && to - from <= 64 << 20);
	}
	elf_extents_close(x);
	close(fd);
	return 0;
}
