/* SPDX-License-Identifier: Apache-2.0 */

/* What waits, in memory.
 *
 * A batch stays a mapping of the sealed memfd that agentd made: the pages are agentd's and the exporter's at once, no
 * descriptor is kept, and thousands may wait. Decoding and encoding happen when a destination gets to the batch, so
 * a long queue costs its bytes and no more. Encoded bytes are shared between destinations of equal limits, and outlive
 * their last user within CACHE_BYTES, so that one that comes a little later does not encode again.
 *
 * The bounds of a queue are its owner's (deliver.c). Runs in the exporter. */

#include <sys/mman.h>

#include "agentd/base/io.h"
#include "destinations/queue.h"

#define CACHE_BYTES (8U << 20)

static struct held_batch *oldest, *newest;

/* ---- batches ------------------------------------------------------------------------------------- */

int held_batch_new(
	struct held_batch **ret, uint64_t id, const struct batch_header *header, int memfd)
{
	struct held_batch *b;
	size_t size;
	void *bytes = NULL;

	if (io_check_sealed(memfd, PROFILE_MAX_ENCODED, &size) < 0)
		return -EBADMSG;
	/* MAP_PRIVATE: older kernels refuse a shared mapping of what is sealed against writing. */
	if (size)
		bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, memfd, 0);
	if (bytes == MAP_FAILED)
		return -errno;
	b = calloc(1, sizeof(*b));
	if (!b) {
		if (size)
			munmap(bytes, size);
		return -ENOMEM;
	}
	*b = (struct held_batch){.refs = 1,
		.id = id,
		.header = *header,
		.bytes = bytes,
		.size = size,
		.previous = newest};
	*(newest ? &newest->next : &oldest) = b;
	newest = b;
	*ret = b;
	return 0;
}

struct held_batch *held_batch_unref(struct held_batch *b)
{
	if (!b || --b->refs)
		return NULL;
	*(b->previous ? &b->previous->next : &oldest) = b->next;
	*(b->next ? &b->next->previous : &newest) = b->previous;
	for (size_t i = 0; i < ARRAY_SIZE(b->encoded); i++)
		encoded_unref(b->encoded[i]);
	shape_free(b->shaped);
	if (b->bytes)
		munmap(b->bytes, b->size);
	free(b);
	return NULL;
}

static bool serves(const struct encoded *e, const struct shape_limits *limits, uint64_t row)
{
	const struct shape_request *q;

	if (!shape_limits_equal(&e->limits, limits) || e->first > row)
		return false;
	q = encoded_at(e, row);
	return (q && (q->body || q->skipped)) || !e->n;
}

int held_batch_encode(struct held_batch *b, const struct shape_limits *limits, uint64_t row,
	struct encoded **ret, struct err_text *err)
{
	struct encoded *e = NULL;
	size_t place = 0;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(b->encoded); i++) {
		if (!b->encoded[i]) {
			place = i;
			continue;
		}
		if (!serves(b->encoded[i], limits, row))
			continue;
		*ret = encoded_ref(b->encoded[i]);
		return 0;
	}
	if (b->shaped && !shape_rules_equal(shape_rules_of(b->shaped), limits->rules))
		b->shaped = shape_free(b->shaped);
	if (!b->shaped)
		r = shape_batch(&b->shaped, b->bytes, b->size, &b->header, limits->rules, err);
	if (r < 0)
		return r;
	r = shape_encode(b->shaped, &b->header, limits, row, &e);
	if (r < 0)
		return err_set(err, r, "the batch could not be encoded: %s", strerrordesc_np(-r));
	encoded_unref(b->encoded[place]);
	b->encoded[place] = e;
	*ret = encoded_ref(e);
	return 0;
}

static size_t encoded_bytes(const struct encoded *e)
{
	size_t bytes = 0;

	for (size_t i = 0; i < e->n; i++)
		bytes += e->requests[i].body ? e->requests[i].len : 0;
	return bytes;
}

void held_batch_settle(void)
{
	size_t total = 0;

	for (struct held_batch *b = newest; b; b = b->previous) {
		b->shaped = shape_free(b->shaped);
		for (size_t i = 0; i < ARRAY_SIZE(b->encoded); i++) {
			if (!b->encoded[i])
				continue;
			total += encoded_bytes(b->encoded[i]);
			/* The newest first: the oldest go beyond the bound. */
			if (total > CACHE_BYTES && b->encoded[i]->refs == 1)
				b->encoded[i] = encoded_unref(b->encoded[i]);
		}
	}
}

/* ---- queues -------------------------------------------------------------------------------------- */

void queue_deinit(struct queue *q)
{
	for (size_t i = 0; i < q->n; i++)
		held_batch_unref(q->items[q->head + i].batch);
	free(q->items);
	*q = (struct queue){0};
}

int queue_push(
	struct queue *q, struct held_batch *b, uint64_t row, const struct message_counts *counts)
{
	if (q->head + q->n == q->room) {
		size_t room = MAX(2 * q->n, (size_t)16);
		struct queue_item *items;

		if (q->head)
			memmove(q->items, q->items + q->head, q->n * sizeof(*q->items));
		q->head = 0;
		items = reallocarray(q->items, room, sizeof(*items));
		if (!items)
			return -ENOMEM;
		q->items = items;
		q->room = room;
	}
	b->refs++;
	q->items[q->head + q->n++] = (struct queue_item){b, row, *counts};
	q->bytes += b->size;
	return 0;
}

struct queue_item *queue_at(struct queue *q, size_t i)
{
	return i < q->n ? &q->items[q->head + i] : NULL;
}

void queue_remove(struct queue *q, size_t i)
{
	struct queue_item *item = queue_at(q, i);

	q->bytes -= item->batch->size;
	held_batch_unref(item->batch);
	if (i == 0)
		q->head++;
	else
		memmove(item, item + 1, (q->n - i - 1) * sizeof(*item));
	q->n--;
	if (!q->n)
		q->head = 0;
}

uint64_t queue_item_left(const struct queue_item *item, unsigned type)
{
	uint64_t settled = 0;

	for (size_t f = 0; f < FATES; f++)
		settled += item->counts.samples[f][type];
	return settled < item->batch->header.samples[type]
		? item->batch->header.samples[type] - settled
		: 0;
}

void queue_item_settle(struct queue_item *item, enum fate fate)
{
	for (unsigned t = 0; t < PROTOCOL_TYPES; t++)
		item->counts.samples[fate][t] += queue_item_left(item, t);
}
