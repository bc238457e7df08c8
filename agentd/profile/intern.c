/* SPDX-License-Identifier: Apache-2.0 */

/* Why not agentd/base/map.h: a batch interns up to a million locations, stacks and samples an
 * hour of roll-up, and a map that copies keys would hold everything twice. Here an entry costs 4
 * bytes of hash and about 6 of slots. Invariants: slots is a power of two and at most 3/4 full;
 * an entry is never removed. */

#include "agentd/profile/intern.h"

void intern_deinit(struct intern *t)
{
	free(t->slots);
	free(t->hashes);
	*t = (struct intern){0};
}

int64_t intern_find(const struct intern *t, uint32_t hash,
	bool (*equal)(const void *ctx, uint32_t at), const void *ctx)
{
	uint32_t mask = t->n_slots - 1;

	if (!t->n_slots)
		return -1;
	for (uint32_t i = hash & mask; t->slots[i]; i = (i + 1) & mask) {
		uint32_t at = t->slots[i] - 1;

		if (t->hashes[at] == hash && equal(ctx, at))
			return at;
	}
	return -1;
}

static void place(struct intern *t, uint32_t at)
{
	uint32_t mask = t->n_slots - 1;
	uint32_t i = t->hashes[at] & mask;

	while (t->slots[i])
		i = (i + 1) & mask;
	t->slots[i] = at + 1;
}

static int grow_slots(struct intern *t)
{
	uint32_t n_slots = t->n_slots ? t->n_slots * 2 : 16;
	uint32_t *slots = calloc(n_slots, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	free(t->slots);
	t->slots = slots;
	t->n_slots = n_slots;
	for (uint32_t at = 0; at < t->n; at++)
		place(t, at);
	return 0;
}

int intern_push(struct intern *t, uint32_t hash)
{
	int r = ARRAY_GROW(t->hashes, t->room, t->n, 1);

	if (r < 0)
		return r;
	if ((uint64_t)(t->n + 1) * 4 > (uint64_t)t->n_slots * 3) {
		r = grow_slots(t);
		if (r < 0)
			return r;
	}
	t->hashes[t->n] = hash;
	place(t, t->n);
	t->n++;
	return 0;
}

int array_grow(void **array, uint32_t *room, uint32_t used, size_t more, size_t element)
{
	uint64_t need = (uint64_t)used + more, grown;
	void *p;

	if (more > INT32_MAX || need > INT32_MAX)
		return -E2BIG;
	if (need <= *room)
		return 0;
	grown = MAX(need, (uint64_t)*room + *room / 2 + 8);
	grown = MIN(grown, (uint64_t)INT32_MAX);
	p = realloc(*array, grown * element);
	if (!p)
		return -ENOMEM;
	*array = p;
	*room = (uint32_t)grown;
	return 0;
}
