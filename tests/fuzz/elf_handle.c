/* SPDX-License-Identifier: Apache-2.0 */

/* Debug sections that say they are compressed: any bytes as .debug_info and .debug_str, each with its header of
 * compression. The first two bytes say how long the first is. What is inflated is held to its bound, and what was opened
 * can be begun anew. Corpus: tests/fuzz/corpus/elf_handle. */

#include "tests/unit/unwind/fixture.h"
#include "agentd/elf/dwarf_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t abbrev[] = {1, 0x11, 0, 0, 0, 0};
	struct fixture f = {.sections = {{".text", abbrev, sizeof(abbrev), SHF_ALLOC, 0},
				    {".debug_abbrev", abbrev, sizeof(abbrev), 0, 0}}};
	struct err_text problem = {0};
	struct dwarf_handle h;
	size_t first;
	Dwarf_Die unit;
	int fd;

	if (size < 2)
		return 0;
	first = MIN((size_t)(data[0] | data[1] << 8), size - 2);
	f.sections[2] = (struct fixture_section){".debug_info", data + 2, first, SHF_COMPRESSED, 0};
	f.sections[3] = (struct fixture_section){
		".debug_str", data + 2 + first, size - 2 - first, SHF_COMPRESSED, 0};
	fd = fixture_fd(&f);
	check(dwarf_handle_open(&h, fd, &problem) == 0);
	check(h.size <= DWARF_FILE_INFLATED + (1 << 20));
	if (h.dwarf) {
		(void)dwarf_offdie(h.dwarf, 11, &unit);
		check(dwarf_handle_renew(&h) == 0);
	}
	dwarf_handle_close(&h);
	close(fd);
	return 0;
}
