/* SPDX-License-Identifier: Apache-2.0 */

/* Demangling by libiberty, held to bounds of ours.
 *
 * A mangled name may refer to its own parts, so 100 bytes can stand for gigabytes. libiberty's callback form
 * allocates nothing and hands out text as it goes: we leave it, by longjmp, once the text is longer than a name
 * may be. (It keeps its working memory on the stack, so leaving loses nothing but, for Rust's punycode, one
 * small block.) What takes long without writing text is for the CPU limit of the request.
 *
 * libiberty's own limit refuses names over 1,024 bytes, which C++ programs do have; those are tried again
 * without it. A name is at most SYMBOL_NAME_MAX bytes, so the depth of its recursion is bounded by the length
 * and fits the stack.
 *
 * What SYMBOL_DEMANGLE_SIMPLE leaves out is found in the text (libiberty has no such mode), by one walk with a
 * stack of open brackets; a text that is cut or does not close its brackets only loses its end.
 *
 * Source: Itanium C++ ABI chapter 5.1; Rust RFC 2603. Runs in the symbolizer. */

#include "agentd/symbol/demangle.h"

#include <ctype.h>
#include <libiberty/demangle.h>
#include <setjmp.h>

#include "agentd/symbol/demangle_std.h"
#include "agentd/symbol/protocol.h"

#define LIBIBERTY_LIMIT 1024

struct out {
	char *text;
	size_t len, size;
	jmp_buf full;
};

static void append(const char *s, size_t len, void *userdata)
{
	struct out *out = userdata;

	if (!len)
		return; /* s may be NULL then */
	if (len >= out->size - out->len) {
		len = out->size - 1 - out->len;
		memcpy(out->text + out->len, s, len);
		memcpy(out->text + out->size - 4, "...", 4);
		longjmp(out->full, 1);
	}
	memcpy(out->text + out->len, s, len);
	out->len += len;
	out->text[out->len] = '\0';
}

static bool run(int (*by)(const char *, int, demangle_callbackref, void *), const char *mangled,
	int options, char *out, size_t size)
{
	struct out to = {.text = out, .size = size};

	if (setjmp(to.full))
		return true;
	return by(mangled, options, append, &to) && to.len > 0;
}

/* ---- without template arguments and parameters ------------------------------------------------------------- */

struct simplifier {
	const char *from; /* start of the text */
	const char *at;
	char *out; /* never ahead of at */
	bool rust;
	size_t depth,
		hidden; /* open brackets; of these, hidden from the first of them on: 1 + its place */
	char open[SYMBOL_NAME_MAX];
};

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80);
}

static char previous(const struct simplifier *s)
{
	return s->at > s->from ? s->at[-1] : '\0';
}

static void copy(struct simplifier *s, size_t n)
{
	if (!s->hidden) {
		memmove(s->out, s->at, n);
		s->out += n;
	}
	s->at += n;
}

static void enter(struct simplifier *s, bool hide)
{
	s->open[s->depth++] = *s->at;
	if (hide && !s->hidden)
		s->hidden = s->depth;
	copy(s, 1);
}

/* Closes what the bracket at s->at closes; a '<' that was left open inside was a comparison. */
static void leave(struct simplifier *s)
{
	char c = *s->at, opened = c == ')' ? '(' : c == ']' ? '[' : c == '}' ? '{' : '<';
	size_t depth = s->depth;
	bool was_hidden;

	while (depth && opened != '<' && s->open[depth - 1] != opened)
		depth--;
	if (!depth || s->open[depth - 1] != opened) {
		copy(s, 1);
		return;
	}
	was_hidden = s->hidden == depth;
	if (was_hidden || s->hidden > depth) {
		if (was_hidden)
			s->at++;
		s->hidden = 0;
	}
	if (!was_hidden)
		copy(s, 1);
	s->depth = depth - 1;
	/* What a member function may be called on belongs to its parameters. */
	while (was_hidden && c == ')' && !s->hidden) {
		static const char *const behind[] = {" const", " volatile", " &&", " &"};
		size_t i, n = 0;

		for (i = 0; i < ARRAY_SIZE(behind) && !n; i++)
			n = strncmp(s->at, behind[i], strlen(behind[i])) == 0 ? strlen(behind[i])
									      : 0;
		if (!n || is_word(s->at[n]))
			break;
		s->at += n;
	}
}

/* "operator<<" and its like: what stands behind are no brackets. */
static bool take_operator(struct simplifier *s)
{
	size_t len = s->rust || is_word(previous(s)) ? 0 : demangle_operator(s->at);

	if (!len)
		return false;
	copy(s, len);
	if (s->at[0] == ' ' && s->at[1] == '<')
		s->at++;
	return true;
}

/* A '<': Rust has some that hold no arguments, as in "<T as Trait>::f". */
static void take_angle(struct simplifier *s)
{
	bool turbofish = s->rust && s->at - s->from >= 2 && strncmp(s->at - 2, "::", 2) == 0 &&
		strncmp(s->at, "<impl ", 6) != 0;

	if (turbofish && !s->hidden)
		s->out -= 2;
	enter(s, s->rust ? turbofish || is_word(previous(s)) : true);
}

/* In place. */
static void simplify(char *text, bool rust)
{
	static const char anonymous[] = "(anonymous namespace)";
	struct simplifier s;

	s.from = s.at = s.out = text;
	s.rust = rust;
	s.depth = s.hidden = 0;
	while (*s.at) {
		char c = *s.at;

		if (take_operator(&s))
			continue;
		if (c == '(' && strncmp(s.at, anonymous, strlen(anonymous)) == 0)
			copy(&s, strlen(anonymous));
		else if (c == '<' && previous(&s) != ')')
			take_angle(&s);
		else if (c == '(' || c == '[' || c == '{')
			enter(&s, c == '(' && !rust);
		else if (strchr(")]}", c) || (c == '>' && previous(&s) != '-'))
			leave(&s);
		else
			copy(&s, 1);
	}
	while (s.out > text && s.out[-1] == ' ')
		s.out--;
	*s.out = '\0';
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool is_stub(const char *name, size_t len)
{
	return len > 6 && streq(name + len - 4, "@plt");
}

/* A stub of the procedure linkage table is written as the function that it stands for, and says so. There are none of
 * stubs: a name with a thousand of the ending would have the stack grow with each. */
static bool demangle_stub(
	const char *mangled, size_t len, enum symbol_demangle mode, char *out, size_t size)
{
	static const char stub[] = "@plt";
	char function[SYMBOL_NAME_MAX];

	memcpy(function, mangled, len - strlen(stub));
	function[len - strlen(stub)] = '\0';
	if (is_stub(function, strlen(function)) || !demangle(function, mode, out, size))
		return false;
	if (strlen(out) + sizeof(stub) <= size)
		strcat(out, stub);
	return true;
}

bool demangle(const char *mangled, enum symbol_demangle mode, char *out, size_t size)
{
	int options = mode == SYMBOL_DEMANGLE_FULL ? DMGL_PARAMS | DMGL_ANSI : DMGL_NO_OPTS;
	size_t len = strlen(mangled);
	int tries = len > LIBIBERTY_LIMIT ? 2 : 1;
	bool rust = false, done = false;

	if (mode == SYMBOL_DEMANGLE_NONE || size < 8 || size > SYMBOL_NAME_MAX ||
		len >= SYMBOL_NAME_MAX || mangled[0] != '_')
		return false;
	if (is_stub(mangled, len))
		return demangle_stub(mangled, len, mode, out, size);
	for (int i = 0; i < tries && !done; i++) {
		/* Rust first: its legacy names are C++ names too, with a hash behind. */
		rust = run(rust_demangle_callback, mangled, options, out, size);
		done = rust || run(cplus_demangle_v3_callback, mangled, options, out, size);
		options |= DMGL_NO_RECURSE_LIMIT;
	}
	if (done && !rust && mode != SYMBOL_DEMANGLE_FULL)
		demangle_std(out);
	if (done && mode == SYMBOL_DEMANGLE_SIMPLE)
		simplify(out, rust);
	return done && *out;
}
