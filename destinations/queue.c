/* SPDX-License-Identifier: Apache-2.0 */

/* What waits.
 *
 * A batch that the spool has costs this record; its bytes are read when a destination gets to it and are let go of when
 * all had their turn. One that the spool does not have (there is none, or its disk is full) stays a mapping of the
 * sealed memfd that agentd made: the pages are agentd's and the exporter's at once, and no descriptor is kept.
 * Decoding and encoding happen when a destination gets to the batch. Encoded bytes are shared between destinations of
 * equal limits, and outlive their last user within CACHE_BYTES, so that one that comes a little later does not encode
 * again.
 *
 * The bounds of a queue are its owner's (deliver.c). Runs in the exporter. */

#include <sys/mman.h>

#include "agentd/base/io.h"
#include "agentd/base/map.h"
#include "destinations/queue.h"

#define CACHE_BYTES (8U << 20)

static struct held_batch *oldest, *newest;
static struct map *by_id;
static struct spool *spool;
static uint64_t memory_bytes; /* of batches that are not kept */
static uint32_t memory_batches;

/* ---- batches ------------------------------------------------------------------------------------- */

static void drop_bytes(struct held_batch *b)
{
	if (!b->bytes)
		return;
	if (b->mapped)
		munmap(b->bytes, b->size);
	else
		free(b->bytes);
	b->bytes = NULL;
	b->mapped = false;
}

/* Copies what there is of it. */
static int add_batch(struct held_batch **ret, const struct held_batch *like)
{
	struct held_batch *b = malloc(sizeof(*b));
	int r = b ? 0 : -ENOMEM;

	if (r == 0 && !by_id)
		r = map_new(&by_id, sizeof(like->id));
	if (r == 0)
		r = map_put(by_id, &like->id, sizeof(like->id), b, NULL);
	if (r < 0) {
		free(b);
		return r;
	}
	*b = *like;
	b->refs = 1;
	b->previous = newest;
	*(newest ? &newest->next : &oldest) = b;
	newest = b;
	memory_bytes += b->kept ? 0 : b->size;
	memory_batches += !b->kept;
	*ret = b;
	return 0;
}

int held_batch_new(
	struct held_batch **ret, uint64_t id, const struct batch_header *header, int memfd)
{
	struct held_batch like = {.id = id, .header = *header, .mapped = true};
	int r;

	if (io_check_sealed(memfd, PROFILE_MAX_ENCODED, &like.size) < 0)
		return -EBADMSG;
	/* MAP_PRIVATE: older kernels refuse a shared mapping of what is sealed against writing. */
	if (like.size)
		like.bytes = mmap(NULL, like.size, PROT_READ, MAP_PRIVATE, memfd, 0);
	if (like.bytes == MAP_FAILED)
		return -errno;
	r = add_batch(ret, &like);
	if (r < 0)
		drop_bytes(&like);
	return r;
}

int held_batch_new_kept(struct held_batch **ret, uint64_t id, struct spool_batch *spooled)
{
	struct held_batch like = {.id = id,
		.header = spooled->header,
		.size = spooled->raw,
		.kept = true,
		.spool = spooled};
	int r = add_batch(ret, &like);

	if (r == 0)
		spooled->owner = *ret;
	return r;
}

struct held_batch *held_batch_unref(struct held_batch *b)
{
	if (!b || --b->refs)
		return NULL;
	*(b->previous ? &b->previous->next : &oldest) = b->next;
	*(b->next ? &b->next->previous : &newest) = b->previous;
	if (map_get(by_id, &b->id, sizeof(b->id)) == b)
		map_remove(by_id, &b->id, sizeof(b->id));
	for (size_t i = 0; i < ARRAY_SIZE(b->encoded); i++)
		encoded_unref(b->encoded[i]);
	shape_free(b->shaped);
	drop_bytes(b);
	memory_bytes -= b->kept ? 0 : b->size;
	memory_batches -= !b->kept;
	if (b->spool)
		b->spool->owner = NULL;
	free(b);
	return NULL;
}

struct held_batch *held_batch_find(uint64_t id)
{
	return by_id ? map_get(by_id, &id, sizeof(id)) : NULL;
}

struct held_batch *held_batch_next(const struct held_batch *b)
{
	return b ? b->next : oldest;
}

void held_batch_set_spool(struct spool *s)
{
	spool = s;
}

void held_batch_keep(struct held_batch *b)
{
	if (b->kept)
		return;
	b->kept = true;
	memory_bytes -= b->size;
	memory_batches--;
}

uint64_t held_batch_memory(uint32_t *batches)
{
	*batches = memory_batches;
	return memory_bytes;
}

int held_batch_bytes(struct held_batch *b, struct err_text *err)
{
	struct buf bytes;
	int r;

	if (b->bytes || !b->size)
		return 0;
	if (!spool || !b->spool)
		return err_set(err, -EIO, "the spool that has the batch is not open");
	buf_init(&bytes, PROFILE_MAX_ENCODED + 1);
	r = spool_read(spool, b->spool, &bytes);
	if (r < 0) {
		buf_deinit(&bytes);
		/* What this process lacks now it may have later; the batch is not to blame. */
		if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
			return -ENOMEM;
		return err_set(err, -EIO, "a batch cannot be read from the spool: %s",
			r == -EBADMSG ? "it is damaged" : strerrordesc_np(-r));
	}
	b->bytes = TAKE_PTR(bytes.data);
	b->mapped = false;
	return 0;
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
		r = held_batch_bytes(b, err);
	if (!b->shaped && r == 0)
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

/* All of them, at each turn: with 5,000 batches that takes 20 to 90 us (with nothing of them in a cache about 1 ms),
 * where encoding and sending one takes milliseconds. A list of those that hold something would save a few per cent of an
 * exporter that drains a full spool, and nothing that counts of one that has little to do. */
void held_batch_settle(void)
{
	size_t total = 0;

	for (struct held_batch *b = newest; b; b = b->previous) {
		b->shaped = shape_free(b->shaped);
		if (b->kept)
			drop_bytes(b);
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
	return 0;
}

struct queue_item *queue_at(struct queue *q, size_t i)
{
	return i < q->n ? &q->items[q->head + i] : NULL;
}

void queue_remove(struct queue *q, size_t i)
{
	struct queue_item *item = queue_at(q, i);

	held_batch_unref(item->batch);
	if (i == 0)
		q->head++;
	else
		memmove(item, item + 1, (q->n - i - 1) * sizeof(*item));
	q->n--;
	if (!q->n)
		q->head = 0;
}

ssize_t queue_over(const struct queue *q, ssize_t spare, uint64_t max_bytes)
{
	ssize_t over = -1;
	uint64_t bytes = 0;

	if (q->n > PROTOCOL_BATCHES)
		return spare == 0 ? 1 : 0;
	if (memory_bytes <= max_bytes)
		return -1;
	for (size_t i = q->n; i-- > 0;) {
		const struct held_batch *b = q->items[q->head + i].batch;

		if (b->kept)
			continue;
		bytes += b->size;
		if ((ssize_t)i != spare && i + 1 < q->n)
			over = (ssize_t)i;
	}
	return bytes > max_bytes ? over : -1;
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
