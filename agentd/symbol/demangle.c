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
 * Source: Itanium C++ ABI chapter 5.1; Rust RFC 2603. Runs in the symbolizer. */

#include "agentd/symbol/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>

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

bool demangle(const char *mangled, enum symbol_demangle style, char *out, size_t size)
{
	int options = style == SYMBOL_DEMANGLE_FULL ? DMGL_PARAMS | DMGL_ANSI : DMGL_NO_OPTS;
	int tries = strlen(mangled) > LIBIBERTY_LIMIT ? 2 : 1;

	if (style == SYMBOL_DEMANGLE_NONE || size < 8 || mangled[0] != '_')
		return false;
	for (int i = 0; i < tries; i++) {
		/* Rust first: its legacy names are C++ names too, with a hash behind. */
		if (run(rust_demangle_callback, mangled, options, out, size) ||
			run(cplus_demangle_v3_callback, mangled, options, out, size))
			return true;
		options |= DMGL_NO_RECURSE_LIMIT;
	}
	return false;
}
