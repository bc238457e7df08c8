/* SPDX-License-Identifier: Apache-2.0 */

/* Demangling of any name in every style. Corpus: tests/fuzz/corpus/symbol_demangle. */

#include "agentd/symbol/demangle.h"
#include "agentd/symbol/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libiberty leaves a few bytes behind when punycode in a Rust name is damaged. It costs the symbolizer, which ends when
 * idle, and is not ours to mend. */
const char *__lsan_default_suppressions(void)
{
	return "leak:print_ident\n";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char name[SYMBOL_NAME_MAX], out[SYMBOL_NAME_MAX];

	if (size >= sizeof(name))
		return 0;
	memcpy(name, data, size);
	name[size] = '\0';
	for (int style = SYMBOL_DEMANGLE_TEMPLATES; style <= SYMBOL_DEMANGLE_NONE; style++)
		if (demangle(name, (enum symbol_demangle)style, out, sizeof(out)) &&
			(!*out || strnlen(out, sizeof(out)) == sizeof(out)))
			abort();
	return 0;
}
