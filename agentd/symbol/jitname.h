/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What runtimes call their code, made readable. Symbolizer only. */

#include "agentd/symbol/resolver.h"

/* Adds the function that a perf map or a jitdump calls raw. file and line: of the address, as debug information has
 * it; "" and 0: not known, then what the name itself says of where the function begins. -ENOSPC. */
int jitname_add(struct found *f, const char *raw, const char *file, uint32_t line);
/* Whether the name is one that V8 gives to what it compiled from JavaScript. */
bool jitname_is_v8(const char *raw);
