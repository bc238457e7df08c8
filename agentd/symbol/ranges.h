/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* For how many addresses an answer of the symbolizer holds: where a source has no lines, all of a function have one
 * name. A range says under which key the cache has the name: that of the address that was asked for, or one of
 * its own. A range whose name is gone says nothing. Bounded: see ranges.c. */

#include <stddef.h>
#include <stdint.h>
#include "agentd/base/macros.h"

struct symbol_range {
	uint64_t from, to; /* [from, to) */
	uint64_t key;
};

struct symbol_ranges {
	struct symbol_range *list; /* sorted, none overlaps another */
	size_t n, room;
};

void symbol_ranges_deinit(struct symbol_ranges *r);
/* The name under `key` holds for [from, to); what was said of any of them before does not any
 * more. Without memory or room it is forgotten. */
void symbol_ranges_set(struct symbol_ranges *r, uint64_t from, uint64_t to, uint64_t key);
bool symbol_ranges_find(const struct symbol_ranges *r, uint64_t address, uint64_t *key);
