/* SPDX-License-Identifier: Apache-2.0 */

/* The line table of a unit that is whole otherwise: any bytes as .debug_line, and as the two sections of strings that it
 * refers to. The first two bytes say how long the table is, the next how long .debug_line_str. Every address finds a line
 * of a file that has a path, or nothing. Corpus: tests/fuzz/corpus/elf_line. */

#include "tests/unit/unwind/fixture.h"
#include "agentd/elf/dwarf_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* One unit without children: its table at 0, its folder "/src". */
static const uint8_t abbrev[] = {1, 0x11, 0, 0x10, 0x17, 0x1b, 0x08, 0, 0, 0};
static const uint8_t info[] = {
	17, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0, '/', 's', 'r', 'c', 0};
_Static_assert(sizeof(info) == 17 + 4, "the length that it says");

static void look(const struct dwarf_lines *l, uint64_t address)
{
	char out[64], wide[70000];
	uint32_t file, line;

	if (!dwarf_lines_find(l, address, &file, &line))
		return;
	check(strlen(dwarf_lines_file(l, file, out, sizeof(out))) < 70000);
	check(strlen(dwarf_lines_file(l, file, wide, sizeof(wide))) < sizeof(wide));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture f = {.sections = {{".text", info, sizeof(info), SHF_ALLOC, 0},
				    {".debug_abbrev", abbrev, sizeof(abbrev), 0, 0},
				    {".debug_info", info, sizeof(info), 0, 0}}};
	struct dwarf_sections sections;
	struct dwarf_lines *l = NULL;
	struct dwarf_handle h;
	size_t table, strings;
	Dwarf_Die unit;
	int fd;

	if (size < 4)
		return 0;
	table = MIN((size_t)(data[0] | data[1] << 8), size - 4);
	strings = MIN((size_t)(data[2] | data[3] << 8), size - 4 - table);
	data += 4;
	f.sections[3] = (struct fixture_section){".debug_line", data, table, 0, 0};
	f.sections[4] = (struct fixture_section){".debug_line_str", data + table, strings, 0, 0};
	f.sections[5] = (struct fixture_section){
		".debug_str", data + table + strings, size - 4 - table - strings, 0, 0};
	fd = fixture_fd(&f);
	check(dwarf_handle_open(&h, fd, NULL) == 0);
	if (h.dwarf && dwarf_offdie(h.dwarf, 11, &unit)) {
		dwarf_sections_find(&sections, h.elf);
		if (dwarf_lines_read(&l, &sections, &unit) == 0) {
			for (uint64_t at = 0; at < 64; at++) {
				look(l, at * 8);
				look(l, FIXTURE_PC + at * 3);
			}
			for (size_t i = 0; i + 8 <= size - 4 && i < 256; i++) {
				uint64_t address;

				memcpy(&address, data + i, sizeof(address));
				look(l, address);
			}
		}
		dwarf_lines_free(l);
	}
	dwarf_handle_close(&h);
	close(fd);
	return 0;
}
