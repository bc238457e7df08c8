/* SPDX-License-Identifier: Apache-2.0 */

/* What one address stands for, as readers hand it to the writer.
 *
 * Text of a file enters here and nowhere else, so here it is demangled, cut to length and made clean; agentd
 * refuses what is not. Runs in the symbolizer. */

#include "agentd/base/text.h"
#include "agentd/symbol/resolver.h"

void found_reset(struct found *f)
{
	f->module = "";
	f->n = 0;
	f->text_len = 0;
	f->before = f->behind = 0;
	f->function_from = f->function_to = 0;
	f->outermost_unqualified = false;
}

const char *found_text(struct found *f, const char *s)
{
	size_t len = strnlen(s, SYMBOL_NAME_MAX - 1);
	char *out = f->text + f->text_len;

	if (!len || len + 1 > sizeof(f->text) - f->text_len)
		return "";
	memcpy(out, s, len);
	out[len] = '\0';
	text_clean(out);
	f->text_len += len + 1;
	return out;
}

void found_holds(struct found *f, uint64_t address, uint64_t from, uint64_t to)
{
	f->before = (uint32_t)MIN(address - from, (uint64_t)UINT32_MAX);
	f->behind = (uint32_t)MIN(to - 1 - address, (uint64_t)UINT32_MAX);
}

static void set_name(struct found *f, struct found_function *function, const char *system_name)
{
	char readable[SYMBOL_NAME_MAX];

	function->name = function->system_name = found_text(f, system_name);
	if (demangle(system_name, f->demangle, readable, sizeof(readable)))
		function->name = found_text(f, readable);
}

void found_rename(struct found *f, const char *system_name)
{
	struct found_function renamed = f->functions[f->n - 1];

	set_name(f, &renamed, system_name);
	if (*renamed.name)
		f->functions[f->n - 1] = renamed;
	f->outermost_unqualified = false;
}

int found_add(struct found *f, const char *system_name, const char *file, uint32_t line,
	uint32_t start_line, bool inlined)
{
	struct found_function *function = &f->functions[f->n];

	if (f->n == SYMBOL_CHAIN_MAX)
		return -ENOSPC;
	*function =
		(struct found_function){.line = line, .start_line = start_line, .inlined = inlined};
	set_name(f, function, system_name);
	function->file = found_text(f, file);
	if (!*function->name)
		return -ENOSPC;
	f->n++;
	return 0;
}
