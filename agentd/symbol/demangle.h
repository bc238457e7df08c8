/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* C++ (Itanium ABI) and Rust (legacy and v0) names as their languages write them. Sandbox only. */

#include "agentd/base/macros.h"

enum demangle_style {
	DEMANGLE_TEMPLATES, /* std::vector<int>::push_back: overloads share a name */
	DEMANGLE_FULL,      /* std::vector<int>::push_back(int const&) */
	DEMANGLE_NONE,
};

/* Writes the demangled name, at most size - 1 bytes (cut with "..." beyond), and returns true; false: not a
 * mangled name, nothing written. The hash that ends Rust's legacy names is left out. */
bool demangle(const char *mangled, enum demangle_style style, char *out, size_t size);
