/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An index from content to position, for tables that live elsewhere as arrays: open addressing
 * over a 32-bit keyed hash (callers hash with agentd/base/hash.h, since the content is chosen by
 * those who are profiled). Holds no keys: the caller compares. Private to agentd/profile. */

#include "agentd/base/macros.h"

struct intern {
	uint32_t *slots;  /* position + 1; 0 empty */
	uint32_t *hashes; /* by position, for growing without the content */
	uint32_t n_slots, n, room;
};

void intern_deinit(struct intern *t);
/* The position whose content equal() accepts, or -1. */
int64_t intern_find(const struct intern *t, uint32_t hash,
	bool (*equal)(const void *ctx, uint32_t at), const void *ctx);
/* Takes the next position (t->n) for this hash. 0 or -ENOMEM. */
int intern_push(struct intern *t, uint32_t hash);

/* Makes room for n more elements of an array that grows by half. 0, -ENOMEM, -E2BIG past 2^31. */
int array_grow(void **array, uint32_t *room, uint32_t used, size_t more, size_t element);
#define ARRAY_GROW(array, room, used, more)                                                        \
	({                                                                                         \
		void *p_ = (array);                                                                \
		int r_ = array_grow(&p_, &(room), (used), (more), sizeof(*(array)));               \
		(array) = p_;                                                                      \
		r_;                                                                                \
	})
