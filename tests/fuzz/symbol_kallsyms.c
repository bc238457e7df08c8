/* SPDX-License-Identifier: Apache-2.0 */

/* The list of kernel symbols from any text, in pieces of any length (the first byte says). Corpus:
 * tests/fuzz/corpus/symbol_kallsyms. */

#include "agentd/symbol/kallsyms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = NULL;
	size_t piece = size ? 1 + data[0] : 1;
	const char *name, *module;

	if (kallsyms_new(&k) < 0)
		return 0;
	for (size_t at = 1; at < size; at += piece)
		if (kallsyms_add(k, (const char *)data + at, MIN(piece, size - at)) < 0)
			return 0;
	if (kallsyms_finish(k) < 0)
		return 0;
	for (uint64_t i = 0; i < 64; i++) {
		uint64_t address = i < 32 ? i * 0x1000 : 0xffffffff81000000 + (i - 32) * 0x80;

		if (!kallsyms_find(k, address, &name, &module))
			continue;
		if (!*name || !*module)
			abort();
	}
	return 0;
}
