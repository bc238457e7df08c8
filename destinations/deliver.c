/* SPDX-License-Identifier: Apache-2.0 */

/* Delivery to one destination.
 *
 * One request at a time. The batch that came last goes first, so that the picture is live; then what waits, the
 * newest or the oldest first (`drain`), at a bounded rate after an outage. After each request agentd is told how far
 * the batch is before anything else is sent: when this process dies, at most the one request whose answer was on its
 * way is sent again by its successor. What may be taken later is tried again when pace.c says; nothing is tried again
 * that was taken or refused for good. Only an answer that blames the profiles themselves refuses them: while a
 * destination is blocked (a wrong path, a token that ran out) they wait like in any outage, since a person mends that
 * in hours. A request that is too big for the backend is sent in halves, down to single rows; the size that goes
 * through is kept to, and now and then twice as much is tried. Destinations share nothing but the batches' bytes, so
 * none waits for another.
 *
 * Bounds: bytes and number of a queue, the age that the backend takes (type->max_age_ns); the oldest goes first and is
 * counted as evicted. A request under way is never evicted.
 *
 * Source: OTLP specification on retries. Runs in the exporter. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "destinations/deliver_private.h"

#define LEAVE_NS        (5 * NSEC_PER_SEC)
#define STATUS_EVERY_NS (100 * NSEC_PER_MSEC)
#define MEMORY_RETRY_NS NSEC_PER_SEC
#define OLD_NS          (120 * NSEC_PER_SEC) /* what comes older than that is a backlog */

/* ---- telling ------------------------------------------------------------------------------------- */

void deliver_tell_item(struct deliver *d, const struct queue_item *item, bool final)
{
	struct message_answer a = {
		.header = protocol_header(MESSAGE_ANSWER, sizeof(a)),
		.id = item->batch->id,
		.destination = d->spec->id,
		.final = final,
		.row = item->row,
		.counts = item->counts,
	};

	d->tell(&a, sizeof(a));
}

static void tell_status(struct deliver *d, uint64_t now_ns)
{
	d->status.header = protocol_header(MESSAGE_STATUS, sizeof(d->status));
	d->status.destination = d->spec->id;
	d->tell(&d->status, sizeof(d->status));
	d->status_changed = false;
	d->status_told_ns = now_ns;
}

void deliver_set_state(struct deliver *d, const char *state, const char *reason, const char *remedy)
{
	snprintf(d->status.state, sizeof(d->status.state), "%s", state);
	snprintf(d->status.last_error, sizeof(d->status.last_error), "%.300s%s%s", reason,
		*remedy ? "; " : "", remedy);
	d->status_changed = true;
}

/* Where the batch is in the queue; -1: it is not. Asked for of the first and the last, mostly. */
ssize_t deliver_index(struct deliver *d, const struct held_batch *b)
{
	if (!b || !d->queue.n)
		return -1;
	if (queue_at(&d->queue, d->queue.n - 1)->batch == b)
		return (ssize_t)d->queue.n - 1;
	for (size_t i = 0; i + 1 < d->queue.n; i++)
		if (queue_at(&d->queue, i)->batch == b)
			return (ssize_t)i;
	return -1;
}

/* The batch that is being sent; of a group the first that is left. -1: none. */
static ssize_t current_at(struct deliver *d)
{
	ssize_t at = deliver_index(d, d->current);

	for (size_t i = 0; d->current && at < 0 && i < d->group.n; i++)
		at = deliver_index(d, d->group.batches[i]);
	return at;
}

/* The one of which a request is under way, which stays where it is; -1: none. */
static ssize_t busy_at(struct deliver *d)
{
	return d->request ? current_at(d) : -1;
}

static bool is_busy(struct deliver *d, size_t i)
{
	const struct held_batch *b = queue_at(&d->queue, i)->batch;

	return d->request && (b == d->current || group_has(&d->group, b));
}

/* No request of the current batch is under way: another one may be chosen. */
void deliver_put_back(struct deliver *d)
{
	d->current = NULL;
	d->group.n = 0;
	d->encoded = encoded_unref(d->encoded);
}

/* The item is through: tells agentd, forgets it. */
void deliver_finish_item(struct deliver *d, size_t i)
{
	const struct held_batch *b = queue_at(&d->queue, i)->batch;

	if (b == d->current && !d->group.n)
		deliver_put_back(d);
	if (b == d->live)
		d->live = NULL;
	deliver_tell_item(d, queue_at(&d->queue, i), true);
	queue_remove(&d->queue, i);
	if (!d->queue.n)
		pace_drain_end(&d->pace);
}

static void give_up_item(struct deliver *d, size_t i, enum fate fate)
{
	/* What goes out with it is chosen anew, without it. */
	if (group_has(&d->group, queue_at(&d->queue, i)->batch))
		deliver_put_back(d);
	queue_item_settle(queue_at(&d->queue, i), fate);
	deliver_finish_item(d, i);
}

/* ---- what waits ---------------------------------------------------------------------------------- */

uint32_t deliver_id(const struct deliver *d)
{
	return d->spec->id;
}

int deliver_push(
	struct deliver *d, struct held_batch *b, uint64_t row, const struct message_counts *counts)
{
	uint64_t end = MAX(b->header.from_unix_ns, b->header.to_unix_ns), now = clock_unix_ns();
	int r = queue_push(&d->queue, b, row, counts);

	if (r < 0)
		return r;
	d->live = b;
	if (now - MIN(end, now) > OLD_NS) {
		pace_found_backlog(&d->pace, now - end, clock_monotonic_ns());
		d->live = NULL;
	}
	return 0;
}

bool deliver_evict(struct deliver *d, const struct held_batch *b)
{
	ssize_t i = deliver_index(d, b);

	if (i >= 0 && is_busy(d, (size_t)i))
		return false;
	if (i >= 0)
		give_up_item(d, (size_t)i, FATE_EVICTED);
	return true;
}

const struct queue_item *deliver_find(struct deliver *d, const struct held_batch *b)
{
	ssize_t i = deliver_index(d, b);

	return i >= 0 ? queue_at(&d->queue, (size_t)i) : NULL;
}

bool deliver_busy(const struct deliver *d)
{
	return d->request != NULL;
}

void deliver_leave(struct deliver *d)
{
	if (d->leave_by_ns)
		return;
	d->leave_by_ns = clock_monotonic_ns() + LEAVE_NS;
	for (size_t i = d->queue.n; i-- > 0;)
		if (!is_busy(d, i))
			give_up_item(d, i, FATE_EVICTED);
}

bool deliver_gone(const struct deliver *d)
{
	return d->leave_by_ns && !d->queue.n && !d->request;
}

/* ---- sending ------------------------------------------------------------------------------------- */

static void evict(struct deliver *d, uint64_t *wake_ns, uint64_t now_ns)
{
	uint64_t max_age = d->type ? d->type->max_age_ns : 0, now_unix = clock_unix_ns();
	struct queue_item *item;
	ssize_t over;

	/* The one under way stays; of the others at least the newest, however big. */
	while ((over = queue_over(&d->queue, busy_at(d), d->queue_bytes)) >= 0 &&
		!is_busy(d, (size_t)over))
		give_up_item(d, (size_t)over, FATE_EVICTED);
	for (size_t i = 0; max_age && (item = queue_at(&d->queue, i));) {
		uint64_t end = item->batch->header.from_unix_ns + max_age;

		if (is_busy(d, i)) {
			i++;
			continue;
		}

		if (end > now_unix) {
			*wake_ns = MIN(*wake_ns, now_ns + (end - now_unix) + NSEC_PER_MSEC);
			break;
		}
		give_up_item(d, i, FATE_EVICTED);
	}
}

/* The same where several become one upload. */
static ssize_t choose_group(struct deliver *d, uint64_t now_ns, uint64_t *wake_ns)
{
	uint64_t wait;
	ssize_t at = group_choose(&d->queue, d->rules->upload_interval_ns, d->oldest_first,
		clock_unix_ns(), &d->group, &wait);

	if (at < 0) {
		*wake_ns = MIN(*wake_ns, wait < UINT64_MAX - now_ns ? now_ns + wait : UINT64_MAX);
		return -1;
	}
	if (d->ungrouped)
		d->group.n = 0;
	d->ungrouped = false;
	d->group_row = 0;
	d->current = queue_at(&d->queue, (size_t)at)->batch;
	return at;
}

/* Which batch is next; -1: none, or not yet (*wake_ns). */
static ssize_t choose(struct deliver *d, uint64_t now_ns, uint64_t *wake_ns)
{
	bool grouped = d->rules && d->rules->upload_interval_ns;
	ssize_t at = current_at(d);

	if (at >= 0 || !d->queue.n)
		return at;
	deliver_put_back(d);
	at = grouped ? -1 : deliver_index(d, d->live);
	if (at < 0 && d->pace.draining && d->pace.drain_rate && now_ns < d->pace.next_drain_ns) {
		*wake_ns = MIN(*wake_ns, d->pace.next_drain_ns);
		return -1;
	}
	if (grouped)
		return choose_group(d, now_ns, wake_ns);
	if (at < 0)
		at = d->oldest_first ? 0 : (ssize_t)d->queue.n - 1;
	d->current = queue_at(&d->queue, (size_t)at)->batch;
	return at;
}

/* Whether the rows that count as settled hold what was settled. They do, unless a predecessor lied to agentd; going on
 * from there would make a liar of this one, too, and of all that follow. */
static bool sound(const struct queue_item *item, const struct encoded *e)
{
	uint64_t before[PROFILE_TYPES];

	encoded_before(e, item->row, before);
	for (unsigned t = 0; t < PROFILE_TYPES; t++)
		if (item->batch->header.samples[t] - queue_item_left(item, t) != before[t])
			return false;
	return true;
}

/* The requests of the current batch. 0, or negative: not now, or never (then it is settled). */
static int prepare(struct deliver *d, size_t at, uint64_t now_ns)
{
	struct queue_item *item = queue_at(&d->queue, at);
	struct shape_limits limits = {
		.max_bytes = d->type->max_profile_bytes,
		.max_samples = d->type->max_profile_samples,
		.soft_bytes = d->soft_bytes,
		.rules = d->rules,
	};
	struct err_text err = {};
	int r;

	if (d->encoded)
		return 0;
	d->transport->shape(d->sender, &limits);
	if (d->group.n) {
		r = group_encode(&d->group, &d->queue, &limits, &d->encoded, &err);
		if (r == -ENOTSUP) {
			deliver_put_back(d);
			d->ungrouped = true;
			return r;
		}
	} else {
		r = held_batch_encode(item->batch, &limits, item->row, &d->encoded, &err);
	}
	if (r == 0 && !d->group.n && !sound(item, d->encoded))
		r = err_set(
			&err, -EBADMSG, "how far it was delivered does not fit what was counted");
	if (r == -ENOMEM) {
		deliver_set_state(d, "failing", "out of memory", "");
		d->pace.next_try_ns = now_ns + MEMORY_RETRY_NS;
	} else if (r < 0) {
		log_error("destination %s: a batch is given up: %s", d->spec->name, err.text);
		deliver_set_state(d, "failing", err.text, "");
		give_up_item(d, at, r == -EIO ? FATE_EVICTED : FATE_REJECTED);
	}
	return r;
}

/* Rows that shaping takes away, or one that no request can carry within the backend's limits. */
static void pass_over(struct deliver *d, size_t at, const struct shape_request *q)
{
	struct queue_item *item = queue_at(&d->queue, at);

	if (q->too_big)
		log_warning(
			"destination %s: a sample is bigger than a request may be; it is left out",
			d->spec->name);
	if (d->group.n) {
		deliver_settle_group(d, q, (uint64_t[PROFILE_TYPES]){0});
		return;
	}
	for (size_t t = 0; t < PROFILE_TYPES; t++)
		item->counts.samples[FATE_SHAPED][t] += q->away[t];
	item->row += q->skipped;
	if (encoded_at(d->encoded, item->row))
		deliver_tell_item(d, item, false);
	else
		deliver_finish_item(d, at);
}

static void start_probe(struct deliver *d, uint64_t now_ns)
{
	int r;

	buf_reset(&d->probe);
	r = transport_probe(d->transport, d->sender, &d->probe);
	if (r == 0)
		r = d->transport->send(
			d->sender, d->probe.data, d->probe.len, deliver_on_probed, d);
	d->probing = r == 0;
	if (r < 0)
		d->pace.next_try_ns = now_ns + MEMORY_RETRY_NS;
}

static void start(struct deliver *d, uint64_t now_ns, uint64_t *wake_ns)
{
	ssize_t at;

	if (d->queue.n && now_ns >= d->pace.next_try_ns && pace_wants_try(&d->pace)) {
		start_probe(d, now_ns);
		return;
	}
	while (!d->request && now_ns >= d->pace.next_try_ns &&
		(at = choose(d, now_ns, wake_ns)) >= 0) {
		struct queue_item *item = queue_at(&d->queue, (size_t)at);
		const struct shape_request *q;
		int r = prepare(d, (size_t)at, now_ns);

		if (r == -ENOMEM)
			return;
		if (r < 0)
			continue;
		q = encoded_at(d->encoded, d->group.n ? d->group_row : item->row);
		if (!q) {
			/* Through; nothing can be left, but what were must not hang. */
			give_up_item(d, (size_t)at, FATE_REJECTED);
			continue;
		}
		if (q->skipped) {
			pass_over(d, (size_t)at, q);
			continue;
		}
		r = d->transport->send(d->sender, q->body, q->len, deliver_on_done, d);
		if (r < 0) {
			d->pace.next_try_ns = now_ns + MEMORY_RETRY_NS;
			return;
		}
		d->request = q;
	}
}

static void leave(struct deliver *d, uint64_t now_ns, uint64_t *wake_ns)
{
	if (d->request && now_ns < d->leave_by_ns) {
		*wake_ns = MIN(*wake_ns, d->leave_by_ns);
		return;
	}
	if (d->request) {
		/* Too slow: whether the backend has it nobody knows. */
		d->request = NULL;
		d->sender = d->transport->close(d->sender);
	}
	while (d->queue.n)
		give_up_item(d, 0, FATE_EVICTED);
}

void deliver_run(struct deliver *d, uint64_t now_ns, uint64_t *wake_ns)
{
	if (d->leave_by_ns) {
		leave(d, now_ns, wake_ns);
		return;
	}
	evict(d, wake_ns, now_ns);
	if (d->sender && !d->request && !d->probing)
		start(d, now_ns, wake_ns);
	if (d->sender && !d->request && !d->probing && d->queue.n && d->pace.next_try_ns > now_ns)
		*wake_ns = MIN(*wake_ns, d->pace.next_try_ns);
	if (!d->status_changed)
		return;
	if (now_ns - d->status_told_ns >= STATUS_EVERY_NS)
		tell_status(d, now_ns);
	else
		*wake_ns = MIN(*wake_ns, d->status_told_ns + STATUS_EVERY_NS);
}
