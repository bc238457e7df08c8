/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which piece of JIT-compiled code lies at an address, when code is written over code. Symbolizer only. */

#include "agentd/base/macros.h"

#define JIT_RANGES_MAX  (1U << 20)
#define JIT_CODE_MAX    UINT32_MAX /* bytes of one piece: more is no code */
#define JIT_ADDRESS_MAX (1ULL << 57)

struct jit_range {
	uint64_t start;
	uint32_t len, what; /* what: the caller's */
	uint64_t rank;      /* where two overlap the higher one wins; then the later one */
};

/* Zeroed: empty. v[0, n) is sorted and disjoint, n_new more wait behind it. */
struct jit_ranges {
	struct jit_range *v;
	size_t n, n_new, room;
	bool dropped; /* the oldest were, for want of room */
};

void jit_ranges_deinit(struct jit_ranges *r);
/* Of a size or address that no code has: 0, ignored. -ENOMEM. */
int jit_ranges_add(
	struct jit_ranges *r, uint64_t start, uint64_t len, uint64_t rank, uint32_t what);
/* What was added since is seen from here on. */
int jit_ranges_settle(struct jit_ranges *r);
/* Forgets those of the lowest ranks until at most max are left. */
void jit_ranges_drop_oldest(struct jit_ranges *r, size_t max);
/* Borrowed until the next change; NULL: none. */
const struct jit_range *jit_ranges_find(const struct jit_ranges *r, uint64_t address);
