/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* C++ names without what nobody writes: default template arguments of the standard library, its inline
 * namespaces, ABI tags. Sandbox only. */

#include "agentd/base/macros.h"

/* In place, of a name as libiberty writes it (not one of Rust); never longer. Names of SYMBOL_NAME_MAX bytes and more
 * stay as they are. */
void demangle_std(char *text);
/* Of "operator" and the signs of one that has brackets, at `at`: their length; 0: no operator begins there. */
size_t demangle_operator(const char *at);
