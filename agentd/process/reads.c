/* SPDX-License-Identifier: Apache-2.0 */
/* When an image is read, and when its samples may go.
 *
 * An answer of the /proc reader is about a pid at a moment; the table is about images, and the events that
 * tell of an exec run behind the moment by up to one drain. So an answer waits until the event stream has
 * passed its time, and is dropped if an exec fell before: then it told of the next image. Events
 * are authority on mappings from an exec on; an image whose exec was not seen (or was before events were
 * lost) takes them from the answer, and mapping events that are in its queue are put on top.
 *
 * Samples wait for: the image's own facts; those of all its ancestors (a source may claim a program with
 * its children); the name of its container, for a second at most. Whatever cannot be had is given up, and the
 * image is then put together by facts_compose(). Nothing waits for ever: reads have a deadline, answers are
 * released by a timer if no event comes. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

struct read {
	struct process_table *table;
	struct sample_image key;
	uint16_t flags;
};

/* Lost events may have been a move between cgroups. */
static bool facts_needed(const struct entry *e)
{
	if (e->sampled && !e->image.kernel_thread && e->facts_at < e->table->lost_ns)
		return true;
	return e->facts_at < e->facts_after;
}

bool reads_maps_needed(const struct entry *e)
{
	return e->sampled && !e->image.kernel_thread &&
		e->maps_at < MAX(e->maps_after, e->table->lost_ns);
}

bool reads_needed(const struct entry *e)
{
	return !e->unreadable && (facts_needed(e) || reads_maps_needed(e));
}

void reads_give_up(struct entry *e)
{
	e->unreadable = true;
	/* Ancestors first: reads_settle() puts it together. */
	e->table->wake_waiting = true;
	table_soon(e->table);
}

void reads_want(struct entry *e)
{
	struct process_table *t = e->table;

	if (e->reading || e->wanted || !reads_needed(e))
		return;
	/* /proc would tell of its successor. */
	if (e->superseded_ns) {
		reads_give_up(e);
		return;
	}
	e->wanted = true;
	e->want_next = NULL;
	*t->want_last = e;
	t->want_last = &e->want_next;
	table_soon(t);
}

/* ---- images that are read for their exec ------------------------------------------------------------------ */

void reads_later(struct entry *e, uint64_t time_ns)
{
	struct process_table *t = e->table;

	if (e->later_listed)
		return;
	e->later_listed = true;
	e->later_ns = time_ns + EXEC_READ_DELAY_NS;
	e->later_next = NULL;
	*t->later_last = e;
	t->later_last = &e->later_next;
}

/* Whether this exec may be read for itself: a bound on what a fork storm makes us read. */
static bool exec_budget(struct process_table *t)
{
	uint64_t now = clock_monotonic_ns(), gap = NSEC_PER_SEC / EXEC_READS_A_SEC;
	uint64_t earned = (now - t->exec_tokens_ns) / gap;

	if (earned) {
		t->exec_tokens = MIN(t->exec_tokens + earned, (uint64_t)EXEC_READS_BURST);
		t->exec_tokens_ns = now;
	}
	if (!t->exec_tokens || t->n_reading >= READS_MAX)
		return false;
	t->exec_tokens--;
	return true;
}

void reads_due(struct process_table *t)
{
	struct entry *e;

	while ((e = t->later_first) && e->later_ns <= t->stream_ns) {
		reads_not_later(e);
		if (!e->image.ended && !e->superseded_ns && reads_needed(e) && exec_budget(t))
			reads_want(e);
	}
}

void reads_not_later(struct entry *e)
{
	struct process_table *t = e->table;
	struct entry **at = &t->later_first;

	if (!e->later_listed)
		return;
	while (*at != e)
		at = &(*at)->later_next;
	*at = e->later_next;
	if (t->later_last == &e->later_next)
		t->later_last = at;
	e->later_listed = false;
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

static void fail(struct entry *e, int status)
{
	struct process_table *t = e->table;

	if (status != -ESRCH)
		t->counters.reads_failed++;
	if (status == -ETIMEDOUT)
		log_warning(
			"process %u (%s) could not be read in time: its samples go by what events said of it",
			e->image.key.tgid, e->image.comm);
	reads_give_up(e);
}

/* The stream has passed the answer's time. */
static void apply(struct entry *e, const struct client_result *r, uint16_t flags)
{
	int status;

	e->reading = false;
	if (e->superseded_ns && e->superseded_ns <= r->t1) {
		fail(e, -ESRCH);
	} else {
		status = facts_apply(e, r, flags);
		if (status < 0)
			fail(e, status);
	}
	reads_advance(e);
	e->table->wake_waiting = true;
	table_soon(e->table);
}

static int hold(struct entry *e, const struct client_result *r, uint16_t flags)
{
	struct process_table *t = e->table;
	struct held *h = malloc(sizeof(*h) + r->len);

	if (!h)
		return -ENOMEM;
	*h = (struct held){.key = e->image.key,
		.t0 = r->t0,
		.t1 = r->t1,
		.since = clock_monotonic_ns(),
		.flags = flags,
		.len = r->len};
	if (r->len)
		memcpy(h->body, r->body, r->len);
	*t->held_last = h;
	t->held_last = &h->next;
	table_arm(t, h->since + t->config.hold_max_ms * NSEC_PER_MSEC);
	/* An exec that was read for itself has time. */
	if (t->ops.on_waiting && (e->first || t->n_waiting))
		t->ops.on_waiting(t->userdata);
	return 0;
}

void reads_release_held(struct process_table *t, uint64_t stream_ns)
{
	uint64_t now = t->held_first ? clock_monotonic_ns() : 0;

	while (t->held_first) {
		struct held *h = t->held_first;
		struct client_result r = {
			.t0 = h->t0, .t1 = h->t1, .body = h->body, .len = h->len, .fd = -1};
		struct entry *e;

		if (h->t1 > stream_ns && now < h->since + t->config.hold_max_ms * NSEC_PER_MSEC)
			break;
		t->held_first = h->next;
		if (!t->held_first)
			t->held_last = &t->held_first;
		e = image_find(t, &h->key);
		if (e && e->reading)
			apply(e, &r, h->flags);
		free(h);
	}
}

static void on_read(void *userdata, struct client_result *r)
{
	struct read *read = userdata;
	struct process_table *t = read->table;
	struct entry *e = image_find(t, &read->key);
	uint16_t flags = read->flags;

	free(read);
	t->n_reading--;
	if (t->freeing)
		return;
	table_soon(t);
	if (!e || !e->reading)
		return;
	if (r->status < 0) {
		e->reading = false;
		fail(e, r->status);
		reads_advance(e);
		return;
	}
	if (e->surrogate || t->flushing || r->t1 <= t->stream_ns || hold(e, r, flags) < 0)
		apply(e, r, flags);
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

static int ask(struct entry *e)
{
	struct process_table *t = e->table;
	struct reader_request q = {.op = READER_READ,
		.pid = e->image.key.tgid,
		.start_ticks = e->image.key.start_boottime / TICK_NS,
		.max_mappings = (uint32_t)t->config.max_mappings};
	struct read *read = malloc(sizeof(*read));
	int r;

	if (!read)
		return -ENOMEM;
	q.tid = e->first && !e->first->is_map ? e->first->sample.tid : 0;
	q.flags = (facts_needed(e) ? READER_FACTS : 0) | (reads_maps_needed(e) ? READER_MAPS : 0);
	/* It is asked for once: who forked from whom is known by events otherwise. */
	if (q.flags & READER_FACTS && !e->parent)
		q.flags |= READER_PARENT;
	*read = (struct read){.table = t, .key = e->image.key, .flags = q.flags};
	r = client_ask(t->client, &q, NULL, on_read, read);
	if (r < 0) {
		free(read);
		return r;
	}
	t->counters.reads++;
	t->n_reading++;
	e->reading = true;
	return 0;
}

void reads_pump(struct process_table *t)
{
	while (t->want_first && t->n_reading < READS_MAX) {
		struct entry *e = t->want_first;

		t->want_first = e->want_next;
		if (!t->want_first)
			t->want_last = &t->want_first;
		e->wanted = false;
		if (e->image.ended && !e->first && !e->children)
			continue; /* nobody asks for it any more */
		if (!reads_needed(e)) {
			reads_advance(e);
		} else if (e->superseded_ns) {
			reads_give_up(e);
			reads_advance(e);
		} else if (ask(e) < 0) {
			fail(e, -ENOMEM);
			reads_advance(e);
		}
	}
}

/* ---- settling ---------------------------------------------------------------------------------------------- */

/* Facts, or the best that can be said; asks for them otherwise. Of those above a sampled image (depth > 0)
 * only the facts are wanted, and not the latest. */
static bool known(struct entry *e, unsigned depth)
{
	if (e->table->forcing)
		e->unreadable = true;
	if (!e->unreadable) {
		if (depth ? e->facts_known : !reads_needed(e))
			return true;
		reads_want(e);
		if (!e->unreadable)
			return false;
	}
	if (e->facts_known && e->facts_at >= e->facts_after)
		return true;
	if (e->parent && depth < ANCESTORS_MAX && !known(e->parent, depth + 1))
		return false;
	facts_compose(e);
	e->facts_at = MAX(e->facts_at, e->facts_after);
	return true;
}

/* All at once, instead of one after the other. */
static void want_ancestors(struct entry *e)
{
	unsigned depth = 0;

	for (struct entry *p = e->parent; p && ++depth < ANCESTORS_MAX; p = p->parent)
		if (!p->facts_known)
			reads_want(p);
}

static void wait_for(struct entry *e, bool *flag)
{
	struct process_table *t = e->table;

	if (!e->waits_parent && !e->waits_name) {
		t->n_waiting++;
		e->wait_next = &t->waiting;
		e->wait_prev = t->waiting.wait_prev;
		e->wait_prev->wait_next = t->waiting.wait_prev = e;
	}
	*flag = true;
}

void reads_wait_no_more(struct entry *e)
{
	if (e->waits_parent || e->waits_name) {
		e->table->n_waiting--;
		e->wait_prev->wait_next = e->wait_next;
		e->wait_next->wait_prev = e->wait_prev;
	}
	e->waits_parent = e->waits_name = false;
}

static bool ancestors_known(struct entry *e)
{
	unsigned depth = 0;

	for (struct entry *p = e->parent; p && ++depth < ANCESTORS_MAX; p = p->parent)
		if (!known(p, depth))
			return false;
	return true;
}

bool reads_name_known(struct entry *e)
{
	struct process_table *t = e->table;

	if (!*e->image.container_id || *e->image.container_name)
		return true;
	if (!e->name_asked) {
		e->name_asked = true;
		e->name_deadline = clock_monotonic_ns() + t->config.name_wait_ms * NSEC_PER_MSEC;
		names_ask(e);
	}
	if (*e->image.container_name || !e->name_deadline || t->flushing)
		return true;
	if (clock_monotonic_ns() < e->name_deadline) {
		table_arm(t, e->name_deadline);
		return false;
	}
	e->name_deadline = 0;
	return true;
}

bool reads_settle(struct entry *e)
{
	struct process_table *t = e->table;

	if (e->announced && !e->facts_changed && e->facts_at >= e->facts_after && !reads_needed(e))
		return true;
	reads_wait_no_more(e);
	if (!known(e, 0)) {
		want_ancestors(e);
		/* Its own read wakes it; a given-up one waits for its parent's. */
		if (e->unreadable)
			wait_for(e, &e->waits_parent);
		return false;
	}
	if (!ancestors_known(e)) {
		wait_for(e, &e->waits_parent);
		return false;
	}
	if (!reads_name_known(e)) {
		wait_for(e, &e->waits_name);
		return false;
	}
	e->announced = true;
	e->facts_changed = false;
	if (t->ops.on_facts)
		t->ops.on_facts(t->userdata, &e->image);
	return true;
}

void reads_advance(struct entry *e)
{
	if (e->first)
		queue_run(e);
	else if (!e->image.ended && !e->surrogate)
		(void)reads_settle(e);
}

/* By key: what runs may add and evict entries. */
void reads_run_waiting(struct process_table *t)
{
	_cleanup_free_ struct sample_image *keys = NULL;
	bool all = t->wake_all;
	size_t n = 0, max = t->n_waiting, n_busy = 0;

	t->wake_waiting = t->wake_all = false;
	for (struct entry *e = t->busy.busy_next; all && e != &t->busy; e = e->busy_next)
		n_busy++;
	if (!max && !n_busy)
		return;
	keys = calloc(max + n_busy, sizeof(*keys));
	for (struct entry *e = t->waiting.wait_next; keys && e != &t->waiting; e = e->wait_next)
		keys[n++] = e->image.key;
	for (struct entry *e = t->busy.busy_next; keys && all && e != &t->busy; e = e->busy_next)
		if (!e->waits_parent && !e->waits_name)
			keys[n++] = e->image.key;
	for (size_t i = 0; i < n; i++) {
		struct entry *e = image_find(t, &keys[i]);

		if (e)
			reads_advance(e);
	}
}
