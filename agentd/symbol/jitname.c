/* SPDX-License-Identifier: Apache-2.0 */

/* Names of JIT-compiled code, as runtimes write them into perf maps and jitdumps:
 *
 *   V8        JS:*run /app/x.js:2:14         kind, tier (~ interpreted, ^ baseline, + and * optimised), function,
 *                                            script, line and column where the function begins
 *   CPython   py::fetch:/app/x.py
 *   HotSpot   int Hot.fib(int)               as it is; and all others
 *
 * The raw name stays beside the readable one. Tiers of one function are one function to who reads a profile. Source:
 * V8's src/logging/log.cc, CPython's Python/perf_trampoline.c. Runs in the symbolizer. */

#include "agentd/symbol/jitname.h"

#include "agentd/base/text.h"

static const char *const v8_kinds[] = {"JS:", "LazyCompile:", "Function:", "Script:", "Eval:"};

static const char *after_v8_kind(const char *raw)
{
	for (size_t i = 0; i < ARRAY_SIZE(v8_kinds); i++)
		if (text_starts(raw, v8_kinds[i]))
			return raw + strlen(v8_kinds[i]);
	return NULL;
}

bool jitname_is_v8(const char *raw)
{
	return after_v8_kind(raw) != NULL;
}

/* Cuts ":12" off the end of s. False: there is none. */
static bool cut_number(char *s, uint32_t *ret)
{
	char *colon = strrchr(s, ':');
	uint64_t n;

	if (!colon || text_u64(colon + 1, 0, UINT32_MAX, &n) < 0)
		return false;
	*colon = '\0';
	*ret = (uint32_t)n;
	return true;
}

/* Functions' names and scripts' may have blanks in them: "get size /app/my file.js:1:2". */
static char *blank_before_script(char *s)
{
	static const char *const begins[] = {" /", " file:", " node:", " evalmachine."};

	for (size_t i = 0; i < ARRAY_SIZE(begins); i++) {
		char *at = strstr(s, begins[i]);

		if (at)
			return at;
	}
	return strrchr(s, ' ');
}

/* s is "name script:line:column", its tier before it. */
static void split_v8(char *s, const char **name, const char **file, uint32_t *start_line)
{
	uint32_t column, line = 0;
	char *blank;

	s += strspn(s, "~^+*");
	*name = s;
	blank = blank_before_script(s);
	if (blank && cut_number(blank, &column) && cut_number(blank, &line)) {
		*blank = '\0';
		*file = blank + 1;
		*start_line = line;
	}
	if (!**name)
		*name = "(anonymous)";
}

static void split_python(char *s, const char **name, const char **file)
{
	char *colon = strchr(s, ':');

	if (!colon || colon == s)
		return;
	*colon = '\0';
	*name = s;
	*file = colon + 1;
}

int jitname_add(struct found *f, const char *raw, const char *file, uint32_t line)
{
	char text[SYMBOL_NAME_MAX];
	const char *v8 = after_v8_kind(raw), *name = NULL, *named_file = "";
	uint32_t start_line = 0;
	struct found_function *function;
	int r;

	snprintf(text, sizeof(text), "%s", v8 ? v8 : text_starts(raw, "py::") ? raw + 4 : "");
	if (v8)
		split_v8(text, &name, &named_file, &start_line);
	else if (*text)
		split_python(text, &name, &named_file);
	r = found_add(f, raw, *file ? file : named_file, line, start_line, false);
	if (r < 0 || !name)
		return r;
	function = &f->functions[f->n - 1];
	name = found_text(f, name);
	if (*name)
		function->name = name;
	return 0;
}
