/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* C++ (Itanium ABI) and Rust (legacy and v0) names as their languages write them. demangle() runs in the
 * sandbox only; the modes are also what agentd's setting is made of. */

#include "agentd/base/macros.h"

enum symbol_demangle {
	SYMBOL_DEMANGLE_TEMPLATES, /* std::vector<int>::push_back: overloads share a name */
	SYMBOL_DEMANGLE_FULL,      /* std::vector<int>::push_back(int const&) */
	SYMBOL_DEMANGLE_SIMPLE,    /* std::vector::push_back: instances share a name, too */
	SYMBOL_DEMANGLE_NONE,
};

/* Writes the demangled name, at most size - 1 bytes (cut with "..." beyond), and returns true; false: not a
 * mangled name, nothing to be relied on is written. size is 8 to SYMBOL_NAME_MAX; names of SYMBOL_NAME_MAX bytes or
 * more are not looked at. The hash that ends Rust's legacy names is left out. FULL is what c++filt makes of it,
 * TEMPLATES what `c++filt -p` does without what nobody writes (demangle_std.h). `name@plt` is written as name is. */
bool demangle(const char *mangled, enum symbol_demangle mode, char *out, size_t size);
