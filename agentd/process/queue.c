/* SPDX-License-Identifier: Apache-2.0 */
/* An image's queue: samples that wait, and the mapping events between them.
 *
 * A sample's addresses mean what was mapped at its time. So while a sample waits, later mapping events of the
 * image wait behind it, and all are worked off in the order in which they happened. Bounded over all
 * images, in samples and in bytes; what finds no room is counted as lost. Before that, slices of stacks go,
 * oldest first, whose samples stay; a slice is wiped whenever it goes. Runs in agentd. */

#include "agentd/process/table.h"

/* ---- slices ------------------------------------------------------------------------------------------------ */

static void slice_free(struct process_table *t, struct queued *q)
{
	struct slice *s = TAKE_PTR(q->slice);

	if (!s)
		return;
	s->link.prev->next = s->link.next;
	s->link.next->prev = s->link.prev;
	t->queued_bytes -= sizeof(*s) + s->len;
	explicit_bzero(&s->stack, s->len);
	free(s);
}

static void slice_keep(struct process_table *t, struct queued *q, const struct arrived *a)
{
	struct slice *s = malloc(sizeof(*s) + a->stack_len);

	q->dropped = !s;
	if (!s) {
		t->counters.slices_dropped++;
		return;
	}
	s->link = (struct slice_link){t->slices.prev, &t->slices};
	s->owner = q;
	s->len = a->stack_len;
	memcpy(&s->stack, a->stack, a->stack_len);
	s->link.prev->next = s->link.next->prev = &s->link;
	q->slice = s;
	t->queued_bytes += sizeof(*s) + s->len;
}

/* A sample is worth more than the callers of an older one. */
static bool has_room(struct process_table *t, size_t bytes)
{
	while (t->queued_bytes + bytes > QUEUE_BYTES_MAX && t->slices.next != &t->slices) {
		struct queued *q = ((struct slice *)t->slices.next)->owner;

		slice_free(t, q);
		q->dropped = true;
		t->counters.slices_dropped++;
	}
	return t->n_queued < t->config.max_queued && t->queued_bytes + bytes <= QUEUE_BYTES_MAX;
}

/* ---- queues ------------------------------------------------------------------------------------------------ */

static int push(struct entry *e, struct queued *q, size_t bytes)
{
	struct process_table *t = e->table;

	q->bytes = bytes;
	q->next = NULL;
	if (!e->first) {
		e->busy_next = &t->busy;
		e->busy_prev = t->busy.busy_prev;
		e->busy_prev->busy_next = t->busy.busy_prev = e;
	}
	*e->last = q;
	e->last = &q->next;
	e->n_queued++;
	t->n_queued++;
	t->queued_samples += q->is_map ? 0 : q->sample.count;
	t->queued_bytes += bytes;
	return 0;
}

int queue_sample(struct entry *e, const struct arrived *a)
{
	struct process_table *t = e->table;
	const struct record_sample *s = a->s;
	size_t n = MIN(s->n_frames, SAMPLE_MAX_FRAMES), frames = n * sizeof(s->frames[0]);
	size_t bytes = sizeof(struct queued) + frames;
	struct queued *q;

	if (!has_room(t, bytes + (a->stack ? sizeof(struct slice) + a->stack_len : 0))) {
		image_lost_id(t, s->id);
		image_lost(t, "queue full", s->count);
		return -ENOBUFS;
	}
	q = malloc(bytes);
	if (!q) {
		image_lost_id(t, s->id);
		image_lost(t, "out of memory", s->count);
		return -ENOMEM;
	}
	memset(q, 0, sizeof(*q));
	q->time_ns = s->header.time;
	q->reused = a->reused;
	memcpy(&q->sample, s, sizeof(*s) + frames);
	q->sample.n_frames = (uint16_t)n;
	/* What is cut at its user frames is not walked. */
	if (a->stack && !a->reused)
		slice_keep(t, q, a);
	return push(e, q, bytes);
}

int queue_map(struct entry *e, uint64_t time_ns, struct mapping *m)
{
	struct queued *q = has_room(e->table, sizeof(*q)) ? calloc(1, sizeof(*q)) : NULL;

	if (!q) {
		/* The waiting samples are as they were; later ones read afresh. */
		path_unref(m->path);
		e->maps_after = MAX(e->maps_after, time_ns);
		return -ENOBUFS;
	}
	q->time_ns = time_ns;
	q->is_map = true;
	q->map = *m;
	e->queued_maps++;
	return push(e, q, sizeof(*q));
}

void queue_pop(struct entry *e)
{
	struct process_table *t = e->table;
	struct queued *q = e->first;

	e->first = q->next;
	if (!e->first) {
		e->last = &e->first;
		e->busy_prev->busy_next = e->busy_next;
		e->busy_next->busy_prev = e->busy_prev;
		e->rows_since = 0;
	}
	e->n_queued--;
	e->queued_maps -= q->is_map;
	t->n_queued--;
	t->queued_samples -= q->is_map ? 0 : q->sample.count;
	t->queued_bytes -= q->bytes;
	slice_free(t, q);
	if (q->is_map)
		path_unref(q->map.path);
	free(q);
}

static int resolve_first(struct entry *e)
{
	const struct queued *q = e->first;
	struct arrived a = {.s = &q->sample, .reused = q->reused, .dropped = q->dropped};

	if (q->slice) {
		a.stack = &q->slice->stack;
		a.stack_len = q->slice->len;
	}
	return resolve_sample(e, &a);
}

void queue_run(struct entry *e)
{
	if (e->running_queue)
		return;
	e->running_queue = true;
	while (e->first && reads_settle(e)) {
		if (e->first->is_map)
			opens_map(e, &e->first->map);
		else if (resolve_first(e) == -EAGAIN)
			break;
		queue_pop(e);
	}
	e->running_queue = false;
}
