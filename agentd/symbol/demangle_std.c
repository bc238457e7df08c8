/* SPDX-License-Identifier: Apache-2.0 */

/* Names of the C++ library as people write them: `std::vector<int>`, not `std::vector<int, std::allocator<int> >`.
 *
 * A mangled name spells every template argument out, also those that nobody wrote because they are the default. In
 * a flame graph they are most of the text. They are left out here where they are just what the standard says the
 * default is, by a table of its templates; so what is left still tells functions apart, but for those that a library
 * has twice, for an older and a newer ABI. Names
 * with an alias of their own (std::string, std::ostream) are written by that; inline namespaces and ABI
 * tags, which no source has, are left out.
 *
 * The text is rewritten in place, in one walk, with a stack of open brackets; inner names are done before the
 * outer ones that hold them, so that what is compared is rewritten already. A text that is cut or does not close its
 * brackets only keeps more than it needs. A bracket that was left open inside of others was a comparison.
 *
 * Invariants: what is written is never longer than what was read; DEPTH_MAX brackets and ARGS_MAX arguments of a list
 * are followed, beyond them all stays as it is. Source: ISO C++ 20 (23 to 31); libstdc++'s and libc++'s inline
 * namespaces. Runs in the symbolizer. */

#include <ctype.h>

#include "agentd/symbol/demangle_std.h"
#include "agentd/symbol/protocol.h"

#define DEPTH_MAX 128
#define ARGS_MAX  12

/* The defaults of a template's last arguments, in order; "$0" is its first argument, "$1" its second. */
struct std_template {
	const char *name;
	size_t n; /* arguments that have no default */
	const char *defaults[3];
};

#define ALLOCATOR "std::allocator<$0>"
#define PAIRS     "std::allocator<std::pair<$0 const, $1>>"
#define TRAITS    "std::char_traits<$0>"

static const struct std_template templates[] = {
	{"vector", 1, {ALLOCATOR}},
	{"deque", 1, {ALLOCATOR}},
	{"list", 1, {ALLOCATOR}},
	{"forward_list", 1, {ALLOCATOR}},
	{"set", 1, {"std::less<$0>", ALLOCATOR}},
	{"multiset", 1, {"std::less<$0>", ALLOCATOR}},
	{"map", 2, {"std::less<$0>", PAIRS}},
	{"multimap", 2, {"std::less<$0>", PAIRS}},
	{"unordered_set", 1, {"std::hash<$0>", "std::equal_to<$0>", ALLOCATOR}},
	{"unordered_multiset", 1, {"std::hash<$0>", "std::equal_to<$0>", ALLOCATOR}},
	{"unordered_map", 2, {"std::hash<$0>", "std::equal_to<$0>", PAIRS}},
	{"unordered_multimap", 2, {"std::hash<$0>", "std::equal_to<$0>", PAIRS}},
	{"stack", 1, {"std::deque<$0>"}},
	{"queue", 1, {"std::deque<$0>"}},
	{"priority_queue", 1, {"std::vector<$0>", "std::less<$0>"}},
	{"unique_ptr", 1, {"std::default_delete<$0>"}},
	{"basic_string", 1, {TRAITS, ALLOCATOR}},
	{"basic_string_view", 1, {TRAITS}},
	{"basic_regex", 1, {"std::regex_traits<$0>"}},
	{"match_results", 1, {"std::allocator<std::sub_match<$0>>"}},
	{"basic_ios", 1, {TRAITS}},
	{"basic_streambuf", 1, {TRAITS}},
	{"basic_istream", 1, {TRAITS}},
	{"basic_ostream", 1, {TRAITS}},
	{"basic_iostream", 1, {TRAITS}},
	{"basic_filebuf", 1, {TRAITS}},
	{"basic_ifstream", 1, {TRAITS}},
	{"basic_ofstream", 1, {TRAITS}},
	{"basic_fstream", 1, {TRAITS}},
	{"basic_stringbuf", 1, {TRAITS, ALLOCATOR}},
	{"basic_istringstream", 1, {TRAITS, ALLOCATOR}},
	{"basic_ostringstream", 1, {TRAITS, ALLOCATOR}},
	{"basic_stringstream", 1, {TRAITS, ALLOCATOR}},
	{"istreambuf_iterator", 1, {TRAITS}},
	{"ostreambuf_iterator", 1, {TRAITS}},
	{"chrono::duration", 1, {"std::ratio<1l, 1l>"}},
};

struct open {
	char bracket;
	uint16_t at; /* of the bracket in what is written */
	uint16_t n;  /* arguments begun */
	uint16_t args[ARGS_MAX];
};

struct walk {
	const char *from, *at;
	char *text;
	size_t len; /* written; never ahead of at */
	size_t depth;
	struct open open[DEPTH_MAX];
};

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80);
}

size_t demangle_operator(const char *at)
{
	static const char *const signs[] = {
		"<=>", "<<=", ">>=", "->*", "()", "[]", "->", "<<", ">>", "<=", ">=", "<", ">"};
	size_t len = strlen("operator");

	if (strncmp(at, "operator", len) != 0 || is_word(at[len]))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(signs); i++)
		if (strncmp(at + len, signs[i], strlen(signs[i])) == 0)
			return len + strlen(signs[i]);
	return len;
}

/* ---- defaults ------------------------------------------------------------------------------------------------ */

struct arg {
	const char *text;
	size_t len;
};

/* Whether text is this default of a list with these arguments; blanks before '>' do not count. */
static bool is_default(struct arg text, const char *pattern, const struct arg args[static 2])
{
	const char *at = text.text, *end = at + text.len;

	while (*pattern) {
		struct arg part = {pattern, 1};

		if (*pattern == '$') {
			part = args[pattern[1] - '0'];
			pattern++;
		}
		pattern++;
		while (at < end && *at == ' ' && at + 1 < end && at[1] == '>')
			at++;
		if (part.len > (size_t)(end - at) || memcmp(at, part.text, part.len) != 0)
			return false;
		at += part.len;
	}
	return at == end;
}

/* The template of the standard whose name ends at `end`, or NULL. */
static const struct std_template *template_at(const struct walk *w, size_t end)
{
	size_t begin = end;

	while (begin && (is_word(w->text[begin - 1]) || w->text[begin - 1] == ':'))
		begin--;
	if (end - begin < 6 || strncmp(w->text + begin, "std::", 5) != 0)
		return NULL;
	begin += 5;
	for (size_t i = 0; i < ARRAY_SIZE(templates); i++)
		if (strlen(templates[i].name) == end - begin &&
			strncmp(templates[i].name, w->text + begin, end - begin) == 0)
			return &templates[i];
	return NULL;
}

static struct arg arg_of(const struct walk *w, const struct open *o, size_t i)
{
	size_t end = i + 1 < o->n ? o->args[i + 1] - 1U : w->len, begin = o->args[i];

	while (begin < end && w->text[begin] == ' ')
		begin++;
	while (end > begin && w->text[end - 1] == ' ')
		end--;
	return (struct arg){w->text + begin, end - begin};
}

/* std::basic_string<char> and its like have names of their own. */
static bool take_alias(struct walk *w, const struct open *o, const struct std_template *t)
{
	size_t basic = strlen("basic_"), name = o->at - strlen(t->name);
	struct arg arg = arg_of(w, o, 0);
	bool wide = arg.len == 7 && memcmp(arg.text, "wchar_t", 7) == 0;

	if (strncmp(t->name, "basic_", basic) != 0 ||
		!(wide || (arg.len == 4 && memcmp(arg.text, "char", 4) == 0)))
		return false;
	w->len = name;
	if (wide)
		w->text[w->len++] = 'w';
	memmove(w->text + w->len, t->name + basic, strlen(t->name) - basic);
	w->len += strlen(t->name) - basic;
	return true;
}

/* A list of arguments was read up to its '>': leaves out what need not be said. True: '>' too. */
static bool shorten(struct walk *w, struct open *o)
{
	const struct std_template *t = o->n <= ARGS_MAX ? template_at(w, o->at) : NULL;
	struct arg args[2];
	size_t had = o->n;

	if (!t || o->n < t->n)
		return false;
	args[0] = arg_of(w, o, 0);
	args[1] = t->n > 1 ? arg_of(w, o, 1) : args[0];
	while (o->n > t->n) {
		size_t i = o->n - 1;

		if (i - t->n >= ARRAY_SIZE(t->defaults) || !t->defaults[i - t->n] ||
			!is_default(arg_of(w, o, i), t->defaults[i - t->n], args))
			break;
		w->len = o->args[i] - 1U; /* with its comma */
		o->n--;
	}
	if (o->n == 1 && take_alias(w, o, t))
		return true;
	/* As libiberty has it: a blank between two of them only. */
	if (o->n < had && w->text[w->len - 1] == '>')
		w->text[w->len++] = ' ';
	return false;
}

/* ---- the walk ------------------------------------------------------------------------------------------------ */

static void copy(struct walk *w, size_t n)
{
	memmove(w->text + w->len, w->at, n);
	w->len += n;
	w->at += n;
}

static void enter(struct walk *w)
{
	struct open *o = &w->open[w->depth++];

	*o = (struct open){.bracket = *w->at, .at = (uint16_t)w->len, .n = 1};
	copy(w, 1);
	o->args[0] = (uint16_t)w->len;
}

static void leave(struct walk *w)
{
	char c = *w->at, opened = c == ')' ? '(' : c == ']' ? '[' : c == '}' ? '{' : '<';
	size_t depth = w->depth;
	struct open *o;

	while (depth && opened != '<' && w->open[depth - 1].bracket != opened)
		depth--;
	if (!depth || w->open[depth - 1].bracket != opened) {
		copy(w, 1);
		return;
	}
	o = &w->open[depth - 1];
	w->depth = depth - 1;
	if (opened == '<') {
		/* The blank before it went with what stood there. */
		if (shorten(w, o)) {
			w->at++;
			return;
		}
		if (w->len >= 2 && w->text[w->len - 1] == ' ' && w->text[w->len - 2] != '>')
			w->len--;
	}
	copy(w, 1);
}

static void comma(struct walk *w)
{
	struct open *o = w->depth ? &w->open[w->depth - 1] : NULL;

	copy(w, 1);
	if (!o)
		return;
	if (o->n < ARGS_MAX)
		o->args[o->n] = (uint16_t)w->len;
	o->n++;
}

static bool starts(const char *at, const char *with)
{
	return strncmp(at, with, strlen(with)) == 0;
}

/* What no source has: inline namespaces of the library, and ABI tags. */
static bool take_hidden(struct walk *w)
{
	static const char *const spaces[] = {"__cxx11::", "__1::", "_V2::"};

	if (w->len >= 2 && w->text[w->len - 1] == ':' && w->text[w->len - 2] == ':')
		for (size_t i = 0; i < ARRAY_SIZE(spaces); i++)
			if (starts(w->at, spaces[i])) {
				w->at += strlen(spaces[i]);
				return true;
			}
	if (starts(w->at, "[abi:")) {
		size_t n = strcspn(w->at, "]");

		if (!w->at[n])
			return false;
		w->at += n + 1;
		return true;
	}
	return false;
}

void demangle_std(char *text)
{
	struct walk w;

	if (strlen(text) >= SYMBOL_NAME_MAX || (!strstr(text, "std::") && !strstr(text, "[abi:")))
		return;
	w.from = w.at = w.text = text;
	w.len = w.depth = 0;
	while (*w.at) {
		char c = *w.at, before = w.at > w.from ? w.at[-1] : '\0';
		size_t n = is_word(before) ? 0 : demangle_operator(w.at);

		if (take_hidden(&w))
			continue;
		if (n)
			copy(&w, n);
		else if (strchr("([{", c) || (c == '<' && before != ')')) {
			if (w.depth == DEPTH_MAX)
				break;
			enter(&w);
		} else if (strchr(")]}", c) || (c == '>' && before != '-'))
			leave(&w);
		else if (c == ',')
			comma(&w);
		else
			copy(&w, 1);
	}
	copy(&w, strlen(w.at) + 1);
}
