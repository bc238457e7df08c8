/* SPDX-License-Identifier: Apache-2.0 */
/* An image's queue: samples that wait, and the mapping events between them.
 *
 * A sample's addresses mean what was mapped at its time. So while a sample waits, later mapping events of the
 * image wait behind it, and all are worked off in the order in which they happened. Bounded over all
 * images, in samples and in bytes; what finds no room is counted as lost. Runs in agentd. */

#include "agentd/process/table.h"

static int push(struct entry *e, struct queued *q, size_t bytes)
{
	struct process_table *t = e->table;

	q->bytes = bytes;
	q->next = NULL;
	*e->last = q;
	e->last = &q->next;
	e->n_queued++;
	t->n_queued++;
	t->queued_samples += q->is_map ? 0 : q->sample.count;
	t->queued_bytes += bytes;
	return 0;
}

static bool full(const struct process_table *t, size_t bytes)
{
	return t->n_queued >= t->config.max_queued || t->queued_bytes + bytes > QUEUE_BYTES_MAX;
}

int queue_sample(struct entry *e, const struct record_sample *s)
{
	size_t n = MIN(s->n_frames, SAMPLE_MAX_FRAMES), frames = n * sizeof(s->frames[0]);
	size_t bytes = sizeof(struct queued) + frames;
	struct queued *q;

	if (full(e->table, bytes)) {
		image_lost(e->table, "queue full", s->count);
		return -ENOBUFS;
	}
	q = malloc(bytes);
	if (!q) {
		image_lost(e->table, "out of memory", s->count);
		return -ENOMEM;
	}
	memset(q, 0, sizeof(*q));
	q->time_ns = s->header.time;
	memcpy(&q->sample, s, sizeof(*s) + frames);
	q->sample.n_frames = (uint16_t)n;
	return push(e, q, bytes);
}

int queue_map(struct entry *e, uint64_t time_ns, struct mapping *m)
{
	struct queued *q = full(e->table, sizeof(*q)) ? NULL : calloc(1, sizeof(*q));

	if (!q) {
		/* The waiting samples are as they were; later ones read afresh. */
		path_unref(m->path);
		e->maps_after = MAX(e->maps_after, time_ns);
		return -ENOBUFS;
	}
	q->time_ns = time_ns;
	q->is_map = true;
	q->map = *m;
	return push(e, q, sizeof(*q));
}

void queue_pop(struct entry *e)
{
	struct process_table *t = e->table;
	struct queued *q = e->first;

	e->first = q->next;
	if (!e->first)
		e->last = &e->first;
	e->n_queued--;
	t->n_queued--;
	t->queued_samples -= q->is_map ? 0 : q->sample.count;
	t->queued_bytes -= q->bytes;
	if (q->is_map)
		path_unref(q->map.path);
	free(q);
}

void queue_run(struct entry *e)
{
	if (e->running_queue)
		return;
	e->running_queue = true;
	while (e->first && reads_settle(e)) {
		struct queued *q = e->first;

		if (q->is_map)
			resolve_map(e, &q->map);
		else if (resolve_sample(e, &q->sample) == -EAGAIN)
			break;
		queue_pop(e);
	}
	e->running_queue = false;
}
