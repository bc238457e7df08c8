/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as Go's table of functions, as the calls that it leads to, and as the module that says where those
 * are: chains are within their bounds. The first two bytes say how long (by 16) the calls and the module are
 * that come first; the rest is the table. The module's pointers to the table are set right, so that more is
 * reached. Corpus: tests/fuzz/corpus/symbol_go. */

#include "agentd/elf/elf_file.h"
#include "agentd/elf/gopclntab.h"
#include "agentd/symbol/resolver.h"
#include "tests/unit/unwind/fixture.h"

#define MODULE_BYTES (48 * 8)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void ask(void *state, uint64_t address)
{
	static struct found found;
	int r;

	found_reset(&found);
	r = source_go.find(state, address, &found);
	if (r == 0)
		r = source_go.find_bare(state, address, &found);
	check(r == 0 || (r == 1 && found.n >= 1 && found.n <= SYMBOL_CHAIN_MAX));
	for (size_t i = 0; i < found.n; i++)
		check(*found.functions[i].name && found.functions[i].inlined == (i + 1 < found.n));
}

static int make_file(const uint8_t *data, size_t size)
{
	static uint8_t text[1024];
	static uint8_t module[MODULE_BYTES];
	size_t calls = MIN((size_t)data[0] * 16, size - 2);
	size_t words = MIN(MIN((size_t)data[1] * 16, sizeof(module)), size - 2 - calls);
	const uint8_t *table = data + 2 + calls + words;
	struct fixture f = {
		.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0},
			{".gopclntab", table, (size_t)(data + size - table), SHF_ALLOC, 0},
			{".rodata", data + 2, calls, SHF_ALLOC, 0},
			{".go.module", module, sizeof(module), SHF_ALLOC, 0}}};
	uint64_t pointers[2] = {FIXTURE_BASE + fixture_offset(&f, 1)}, v;

	memset(module, 0, sizeof(module));
	memcpy(module, data + 2 + calls, words);
	/* Small numbers are offsets in the calls. */
	for (size_t i = 0; i + 8 <= sizeof(module); i += 8) {
		memcpy(&v, module + i, 8);
		v += v && v < 4096 ? FIXTURE_BASE + fixture_offset(&f, 2) : 0;
		memcpy(module + i, &v, 8);
	}
	pointers[1] = pointers[0];
	if (f.sections[1].len >= 40) {
		memcpy(&v, table + (table[0] == 0xfa ? 24 : 32), 8);
		pointers[1] += v;
	}
	memcpy(module, pointers, sizeof(pointers));
	return fixture_fd(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	_cleanup_close_ int fd = -1;
	struct err_text err = {0};
	const char *by = NULL;
	uint64_t n = 0, start, end;
	void *state = NULL;

	if (size < 2)
		return 0;
	fd = make_file(data, size);
	check(elf_file_open(&elf, fd, &err) == 0);
	check(source_go.open(&state, elf, &by, &n, &err) == 0);
	if (!state)
		return 0;
	for (uint64_t i = 0; i < MIN(n, (uint64_t)64); i++) {
		if (gopclntab_range(state, i, &start, &end) < 0)
			continue;
		for (uint64_t at = 0; at < 128; at += 9)
			ask(state, start + at);
		ask(state, end - 1);
	}
	for (uint64_t at = 0; at < 1024; at += 37)
		ask(state, FIXTURE_PC + at);
	check(source_go.memory(state) <= GOPCLNTAB_MEMORY);
	source_go.close(state);
	return 0;
}
