/* SPDX-License-Identifier: Apache-2.0 */

/* protobuf-c makes a tree of small pieces, all of which end at once: they are cut from chunks.
 * Its scanner takes large slabs besides, and gives them back early; those have chunks of their
 * own, or a message of 100,000 samples would keep twice what it needs. A process that reads from
 * strangers sets the budget. Exporter and reader. */

#include "agentd/profile/arena.h"

#define ARENA_CHUNK (256U << 10)
#define ARENA_LARGE                                                                                \
	(16U << 10) /* has a chunk of its own, which can go early: a slab of the scanner */

static struct arena_chunk *arena_chunk(struct arena *a, struct arena_chunk **list, size_t size)
{
	struct arena_chunk *c;

	if (size > a->budget) {
		a->exhausted = true;
		return NULL;
	}
	c = malloc(sizeof(*c) + size);
	if (!c)
		return NULL;
	a->budget -= size;
	*c = (struct arena_chunk){.next = *list, .size = size};
	*list = c;
	return c;
}

void *arena_alloc(void *allocator_data, size_t size)
{
	struct arena *a = allocator_data;
	struct arena_chunk *c = a->chunks;
	void *p;

	size = (size + 15) & ~(size_t)15;
	if (size >= ARENA_LARGE) {
		c = arena_chunk(a, &a->large, size);
		return c ? c->data : NULL;
	}
	if (!c || c->size - c->used < size)
		c = arena_chunk(a, &a->chunks, ARENA_CHUNK);
	if (!c)
		return NULL;
	p = c->data + c->used;
	c->used += size;
	return p;
}

/* Small ones go all at once, at the end. Of the large ones there are few, and what is freed is
 * among the newest. */
void arena_free(void *allocator_data, void *pointer)
{
	struct arena *a = allocator_data;
	unsigned looked = 0;

	for (struct arena_chunk **c = &a->large; *c && looked < 32; c = &(*c)->next, looked++) {
		struct arena_chunk *found = *c;

		if (found->data != pointer)
			continue;
		*c = found->next;
		a->budget += found->size;
		free(found);
		return;
	}
}

static void arena_drop(struct arena_chunk *c)
{
	while (c) {
		struct arena_chunk *next = c->next;

		free(c);
		c = next;
	}
}

void arena_deinit(struct arena *a)
{
	arena_drop(a->chunks);
	arena_drop(a->large);
}
