/* SPDX-License-Identifier: Apache-2.0 */

/* Which batches go out together.
 *
 * Spans are cut from the calendar, not from when something was last sent, so that an exporter that died, was stopped or
 * was away for hours groups as it would have otherwise, with nothing to remember. A span is over when its time is,
 * and a little more for the batch that reaches beyond its end; what comes later than that goes out by itself.
 *
 * A batch of which a part is settled (a request of it was answered) goes on alone: its rows are its own, and a group
 * begins with all of its batches untouched. Runs in the exporter. */

#include "agentd/base/macros.h"
#include "destinations/group.h"

#define LATE_NS (2 * NSEC_PER_SEC) /* for what agentd takes to name and hand over a batch */

static uint64_t span_of(const struct held_batch *b, uint64_t interval_ns)
{
	return b->header.from_unix_ns / interval_ns;
}

/* When the batch may go. */
static uint64_t due(const struct held_batch *b, uint64_t interval_ns)
{
	uint64_t length = b->header.to_unix_ns - MIN(b->header.from_unix_ns, b->header.to_unix_ns);

	/* A strange length must not hold it back for ever. */
	return (span_of(b, interval_ns) + 1) * interval_ns + MIN(length, interval_ns) + LATE_NS;
}

static bool untouched(const struct queue_item *item)
{
	uint64_t settled = item->row;

	for (size_t f = 0; f < FATES; f++)
		for (size_t t = 0; t < PROTOCOL_TYPES; t++)
			settled += item->counts.samples[f][t];
	return settled == 0;
}

static bool together(const struct held_batch *a, const struct held_batch *b, uint64_t interval_ns)
{
	return span_of(a, interval_ns) == span_of(b, interval_ns) &&
		a->header.revision == b->header.revision &&
		memcmp(a->header.boot_id, b->header.boot_id, sizeof(a->header.boot_id)) == 0;
}

/* The group of the item at `at`, in the queue's order. */
static void collect(struct queue *q, size_t at, uint64_t interval_ns, struct group *g)
{
	const struct held_batch *like = queue_at(q, at)->batch;
	uint64_t bytes = like->size;

	g->n = 0;
	for (size_t i = 0; i < q->n && g->n < GROUP_MAX; i++) {
		const struct queue_item *item = queue_at(q, i);

		if (i != at &&
			(!untouched(item) || !together(item->batch, like, interval_ns) ||
				bytes + item->batch->size > GROUP_MAX_BYTES))
			continue;
		bytes += i != at ? item->batch->size : 0;
		g->batches[g->n++] = item->batch;
	}
}

ssize_t group_choose(struct queue *q, uint64_t interval_ns, bool oldest_first, uint64_t now_unix_ns,
	struct group *g, uint64_t *wait_ns)
{
	g->n = 0;
	*wait_ns = UINT64_MAX;
	for (size_t k = 0; k < q->n; k++) {
		size_t i = oldest_first ? k : q->n - 1 - k;
		const struct queue_item *item = queue_at(q, i);
		uint64_t when = due(item->batch, interval_ns);

		if (!untouched(item))
			return (ssize_t)i;
		/* A clock that was set back: what is of the future does not wait for it. */
		if (when > now_unix_ns && when - now_unix_ns <= 3 * interval_ns + LATE_NS) {
			*wait_ns = MIN(*wait_ns, when - now_unix_ns);
			continue;
		}
		collect(q, i, interval_ns, g);
		if (g->n < 2) {
			g->n = 0;
			return (ssize_t)i;
		}
		for (i = 0; i < q->n && queue_at(q, i)->batch != g->batches[0];)
			i++;
		return (ssize_t)i;
	}
	return -1;
}

bool group_has(const struct group *g, const struct held_batch *b)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->batches[i] == b)
			return true;
	return false;
}

/* The batch in the queue, which may write to it. */
static struct held_batch *find(struct queue *q, const struct held_batch *b)
{
	for (size_t i = 0; i < q->n; i++)
		if (queue_at(q, i)->batch == b)
			return queue_at(q, i)->batch;
	return NULL;
}

int group_encode(struct group *g, struct queue *q, const struct shape_limits *limits,
	struct encoded **ret, struct err_text *err)
{
	CLEANUP(shape_freep) struct shaped *s = NULL;
	struct shape_batch list[GROUP_MAX];
	int r = 0;

	for (size_t i = 0; i < g->n && r == 0; i++) {
		struct held_batch *b = find(q, g->batches[i]);

		if (!b)
			return err_set(err, -ENOTSUP, "a batch of a group is gone");
		r = held_batch_bytes(b, err);
		list[i] = (struct shape_batch){b->bytes, b->size, &b->header};
	}
	/* Which of them is damaged shows when they go one by one. */
	if (r == -EIO)
		return -ENOTSUP;
	if (r == 0)
		r = shape_batches(&s, list, g->n, limits->rules, err);
	if (r == -EBADMSG || r == -EFBIG)
		return -ENOTSUP;
	if (r == 0)
		r = shape_encode(s, list[0].header, limits, 0, ret);
	for (size_t i = 0; r == 0 && i < g->n; i++)
		g->rows[i] = shape_batch_rows(s, i);
	return r;
}
