/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Memory with a budget, for protobuf-c's unpacking: alloc and free have the shape of its
 * allocator. Private to agentd/profile. */

#include "agentd/base/macros.h"

struct arena_chunk {
	struct arena_chunk *next;
	size_t used, size;
	_Alignas(16) uint8_t data[];
};

struct arena {
	struct arena_chunk *chunks, *large;
	uint64_t budget; /* bytes that may still be taken; set by the caller */
	bool exhausted;  /* more was asked for */
};

void *arena_alloc(void *arena, size_t size);
void arena_free(void *arena, void *pointer);
void arena_deinit(struct arena *a);
