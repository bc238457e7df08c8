/* SPDX-License-Identifier: Apache-2.0 */

/* Pieces of JIT-compiled code by address.
 *
 * A JIT writes code over code that it threw away and seldom says that it did, so that what it said last of an
 * address holds. Pieces are collected as they come and made disjoint all at once: a sweep over their starts, with
 * a heap of those that cover the place where the sweep is, gives every stretch to the one of the highest rank.
 * That is n log n whatever the overlaps, and at most two stretches a piece. What was disjoint already is only
 * merged, so that a map that grows costs by what is new.
 *
 * Invariants. Settled ranges are sorted, disjoint and not empty; start + len never wraps. At JIT_RANGES_MAX the
 * oldest go, so that what is newest is never called by an older name. Runs in the symbolizer. */

#include "agentd/symbol/jitranges.h"
#include "agentd/symbol/sort.h"

static bool starts_before(const struct jit_range *a, const struct jit_range *b)
{
	return a->start != b->start ? a->start < b->start : a->what < b->what;
}
DEFINE_SORT(sort_by_start, struct jit_range, starts_before)

static bool is_newer(const struct jit_range *a, const struct jit_range *b)
{
	return a->rank != b->rank ? a->rank > b->rank : a->what > b->what;
}
DEFINE_SORT(sort_newest_first, struct jit_range, is_newer)

static uint64_t end_of(const struct jit_range *r)
{
	return r->start + r->len;
}

void jit_ranges_deinit(struct jit_ranges *r)
{
	free(r->v);
	*r = (struct jit_ranges){};
}

static int grow(struct jit_range **v, size_t *room, size_t n)
{
	size_t more = *room ? *room * 2 : 256;
	struct jit_range *grown;

	if (n < *room)
		return 0;
	grown = reallocarray(*v, more, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	*v = grown;
	*room = more;
	return 0;
}

int jit_ranges_add(struct jit_ranges *r, uint64_t start, uint64_t len, uint64_t rank, uint32_t what)
{
	int e;

	if (!len || len > JIT_CODE_MAX || start >= JIT_ADDRESS_MAX)
		return 0;
	if (r->n + r->n_new >= JIT_RANGES_MAX) {
		e = jit_ranges_settle(r);
		if (e < 0)
			return e;
	}
	e = grow(&r->v, &r->room, r->n + r->n_new);
	if (e < 0)
		return e;
	r->v[r->n + r->n_new++] = (struct jit_range){start, (uint32_t)len, what, rank};
	return 0;
}

/* ---- the sweep ------------------------------------------------------------------------------------------- */

struct sweep {
	const struct jit_ranges *in;
	size_t old_at, new_at; /* next of the settled ones, of the new ones */
	uint32_t *heap;        /* indices into in->v, the newest on top */
	size_t n_heap, heap_room;
	struct jit_range *out;
	size_t n_out, out_room;
};

static void sweep_deinit(struct sweep *s)
{
	free(s->heap);
	free(s->out);
}

static bool above(const struct sweep *s, size_t a, size_t b)
{
	return is_newer(&s->in->v[s->heap[a]], &s->in->v[s->heap[b]]);
}

static void heap_swap(struct sweep *s, size_t a, size_t b)
{
	uint32_t t = s->heap[a];

	s->heap[a] = s->heap[b];
	s->heap[b] = t;
}

static int heap_push(struct sweep *s, size_t index)
{
	size_t at = s->n_heap;

	if (at == s->heap_room) {
		size_t room = at ? at * 2 : 64;
		uint32_t *grown = reallocarray(s->heap, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		s->heap = grown;
		s->heap_room = room;
	}
	s->heap[s->n_heap++] = (uint32_t)index;
	for (; at && above(s, at, (at - 1) / 2); at = (at - 1) / 2)
		heap_swap(s, at, (at - 1) / 2);
	return 0;
}

static void heap_pop(struct sweep *s)
{
	s->heap[0] = s->heap[--s->n_heap];
	for (size_t at = 0, child; (child = 2 * at + 1) < s->n_heap; at = child) {
		if (child + 1 < s->n_heap && above(s, child + 1, child))
			child++;
		if (!above(s, child, at))
			break;
		heap_swap(s, at, child);
	}
}

/* The next one by its start; -1: none is left. */
static ssize_t peek(const struct sweep *s)
{
	const struct jit_ranges *in = s->in;
	bool old = s->old_at < in->n, new = s->new_at < in->n_new;

	if (old && new)
		old = in->v[s->old_at].start <= in->v[in->n + s->new_at].start;
	if (old)
		return (ssize_t)s->old_at;
	return new ? (ssize_t)(in->n + s->new_at) : -1;
}

static int push_next(struct sweep *s, ssize_t index)
{
	if ((size_t)index < s->in->n)
		s->old_at++;
	else
		s->new_at++;
	return heap_push(s, (size_t)index);
}

static int emit(struct sweep *s, uint64_t from, uint64_t to, const struct jit_range *by)
{
	struct jit_range *last = s->n_out ? &s->out[s->n_out - 1] : NULL;
	int e;

	if (last && end_of(last) == from && last->rank == by->rank && last->what == by->what &&
		last->len + (to - from) <= JIT_CODE_MAX) {
		last->len += (uint32_t)(to - from);
		return 0;
	}
	e = grow(&s->out, &s->out_room, s->n_out);
	if (e < 0)
		return e;
	s->out[s->n_out++] = (struct jit_range){from, (uint32_t)(to - from), by->what, by->rank};
	return 0;
}

/* From stretch to stretch: each begins at a start or at the end of what covered the one before. */
static int sweep_all(struct sweep *s)
{
	uint64_t at = 0;

	for (;;) {
		ssize_t next = peek(s);
		const struct jit_range *top;
		uint64_t stop;
		int e;

		while (s->n_heap && end_of(&s->in->v[s->heap[0]]) <= at)
			heap_pop(s);
		if (!s->n_heap) {
			if (next < 0)
				return 0;
			at = s->in->v[next].start;
		} else {
			top = &s->in->v[s->heap[0]];
			stop = end_of(top);
			if (next >= 0)
				stop = MIN(stop, s->in->v[next].start);
			e = stop > at ? emit(s, at, stop, top) : 0;
			if (e < 0)
				return e;
			at = stop;
		}
		while ((next = peek(s)) >= 0 && s->in->v[next].start <= at) {
			e = push_next(s, next);
			if (e < 0)
				return e;
		}
	}
}

int jit_ranges_settle(struct jit_ranges *r)
{
	CLEANUP(sweep_deinit) struct sweep s = {.in = r};
	int e;

	if (!r->n_new)
		return 0;
	sort_by_start(r->v + r->n, r->n_new);
	e = sweep_all(&s);
	if (e < 0)
		return e;
	free(r->v);
	r->v = TAKE_PTR(s.out);
	r->room = s.out_room;
	r->n = s.n_out;
	r->n_new = 0;
	if (r->n > JIT_RANGES_MAX / 4 * 3)
		jit_ranges_drop_oldest(r, JIT_RANGES_MAX / 2);
	return 0;
}

void jit_ranges_drop_oldest(struct jit_ranges *r, size_t max)
{
	if (r->n <= max || r->n_new)
		return;
	sort_newest_first(r->v, r->n);
	r->n = max;
	r->dropped = true;
	sort_by_start(r->v, r->n);
}

const struct jit_range *jit_ranges_find(const struct jit_ranges *r, uint64_t address)
{
	size_t low = 0, high = r->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->v[mid].start <= address)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low || address - r->v[low - 1].start >= r->v[low - 1].len)
		return NULL;
	return &r->v[low - 1];
}
