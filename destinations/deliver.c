/* SPDX-License-Identifier: Apache-2.0 */

/* Delivery to one destination.
 *
 * One request at a time, oldest batch first. After each request agentd is told how far the batch is before anything
 * else is sent: when this process dies, at most the one request whose answer was on its way is sent again by its
 * successor. What may be taken later is tried again with exponential back-off and full jitter (a uniformly random
 * part of a bound that doubles), or when the backend said (Retry-After); nothing is tried again that was taken or
 * refused for good. Destinations share nothing but the batches' bytes, so none waits for another.
 *
 * Bounds: bytes and number of a queue, the age that the backend takes (type->max_age_ns); the oldest goes first and is
 * counted as evicted. A request under way is never evicted.
 *
 * Partial success names a number of profiles, not which. All rejected: their samples are. Else the smallest that many
 * are counted as rejected, the least that it can be, and the text says so.
 *
 * Source: OTLP specification on retries; "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). Runs in the
 * exporter. */

#include <sys/random.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "destinations/deliver.h"

#define BACK_OFF_MIN_NS (500 * NSEC_PER_MSEC)
#define BACK_OFF_MAX_NS (60 * NSEC_PER_SEC)
#define LEAVE_NS        (5 * NSEC_PER_SEC)
#define STATUS_EVERY_NS (100 * NSEC_PER_MSEC)
#define QUEUE_BYTES     (32ULL << 20)
#define MEMORY_RETRY_NS NSEC_PER_SEC

struct deliver {
	deliver_tell_fn *tell;
	struct buf spec_bytes; /* what spec borrows from */
	struct destination_spec *spec;
	const struct destination_type *type;
	const struct transport *transport;
	struct sender *sender;     /* NULL: its options cannot be used */
	struct shape_rules *rules; /* NULL: nothing is shaped */
	struct queue queue;
	uint64_t queue_bytes;                /* the bound */
	struct encoded *encoded;             /* of the oldest item; NULL not yet */
	const struct shape_request *request; /* under way, of `encoded` */
	bool reopen;                         /* options changed while a request was under way */
	uint64_t leave_by_ns;                /* 0: stays */
	unsigned attempts;                   /* failures in a row */
	uint64_t next_try_ns;
	struct message_status status;
	bool status_changed;
	uint64_t status_told_ns;
};

/* ---- telling ------------------------------------------------------------------------------------- */

static void tell_item(struct deliver *d, const struct queue_item *item, bool final)
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

static void set_state(struct deliver *d, const char *state, const char *reason, const char *remedy)
{
	snprintf(d->status.state, sizeof(d->status.state), "%s", state);
	snprintf(d->status.last_error, sizeof(d->status.last_error), "%.340s%s%.168s", reason,
		*remedy ? "; " : "", remedy);
	d->status_changed = true;
}

/* The item is through: tells agentd, forgets it. */
static void finish_item(struct deliver *d, size_t i)
{
	tell_item(d, queue_at(&d->queue, i), true);
	queue_remove(&d->queue, i);
	if (i == 0)
		d->encoded = encoded_unref(d->encoded);
}

static void give_up_item(struct deliver *d, size_t i, enum fate fate)
{
	queue_item_settle(queue_at(&d->queue, i), fate);
	finish_item(d, i);
}

/* ---- configuration ------------------------------------------------------------------------------- */

static void open_sender(struct deliver *d)
{
	struct err_text err = {};

	d->reopen = false;
	d->sender = d->sender ? d->transport->close(d->sender) : NULL;
	d->encoded = encoded_unref(d->encoded);
	d->rules = shape_rules_unref(d->rules);
	d->type = destination_adopt(d->spec->type, d->spec->options, d->spec->n_options, &err);
	d->transport = d->type ? transport_find(d->type->transport) : NULL;
	if (d->type && !d->transport)
		err_set(&err, -EINVAL, "this exporter does not know the type %s", d->spec->type);
	else if (!d->transport)
		; /* err says why */
	/* Rules that cannot be used: nothing is sent, rather than what was not to be. */
	else if (shape_rules_new(&d->rules, d->spec->options, d->spec->n_options, &err) == 0 &&
		d->transport->open(
			&d->sender, d->type, d->spec->options, d->spec->n_options, &err) == 0)
		snprintf(d->status.endpoint, sizeof(d->status.endpoint), "%s",
			d->transport->endpoint(d->sender));
	/* Other options, another chance, at once. */
	d->attempts = 0;
	d->next_try_ns = 0;
	if (!d->sender)
		set_state(d, "failing", err.text, "");
	d->status_changed = true;
}

static int take_spec(struct deliver *d, struct buf *bytes)
{
	struct destination_spec *spec;
	size_t n;
	int r = protocol_get_specs((const char *)bytes->data, bytes->len, &spec, &n);

	if (r < 0)
		return r;
	protocol_free_specs(d->spec, d->spec ? 1 : 0);
	buf_deinit(&d->spec_bytes);
	d->spec = spec;
	d->spec_bytes = *bytes;
	*bytes = (struct buf){0};
	return 0;
}

int deliver_configure(struct deliver *d, const struct destination_spec *spec, uint64_t queue_bytes)
{
	_cleanup_buf_ struct buf bytes;
	int r;

	d->leave_by_ns = 0;
	d->queue_bytes = queue_bytes ? queue_bytes : QUEUE_BYTES;
	buf_init(&bytes, PROTOCOL_CONFIG_MAX);
	protocol_put_spec(&bytes, spec);
	if (buf_error(&bytes))
		return buf_error(&bytes);
	if (d->spec && bytes.len == d->spec_bytes.len &&
		memcmp(bytes.data, d->spec_bytes.data, bytes.len) == 0)
		return 0;
	r = take_spec(d, &bytes);
	if (r < 0)
		return r;
	/* What is under way ends as it began. */
	if (d->request)
		d->reopen = true;
	else
		open_sender(d);
	return 0;
}

int deliver_new(struct deliver **ret, const struct destination_spec *spec, deliver_tell_fn *tell)
{
	struct deliver *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->tell = tell;
	set_state(d, "idle", "", "");
	r = deliver_configure(d, spec, 0);
	if (r < 0) {
		deliver_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct deliver *deliver_free(struct deliver *d)
{
	if (!d)
		return NULL;
	if (d->sender)
		d->transport->close(d->sender);
	encoded_unref(d->encoded);
	shape_rules_unref(d->rules);
	queue_deinit(&d->queue);
	protocol_free_specs(d->spec, d->spec ? 1 : 0);
	buf_deinit(&d->spec_bytes);
	free(d);
	return NULL;
}

uint32_t deliver_id(const struct deliver *d)
{
	return d->spec->id;
}

int deliver_push(
	struct deliver *d, struct held_batch *b, uint64_t row, const struct message_counts *counts)
{
	return queue_push(&d->queue, b, row, counts);
}

bool deliver_evict(struct deliver *d, const struct held_batch *b)
{
	for (size_t i = 0; i < d->queue.n; i++) {
		if (queue_at(&d->queue, i)->batch != b)
			continue;
		if (i == 0 && d->request)
			return false;
		give_up_item(d, i, FATE_EVICTED);
		return true;
	}
	return true;
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
	while (d->queue.n > (d->request ? 1 : 0))
		give_up_item(d, d->queue.n - 1, FATE_EVICTED);
}

bool deliver_gone(const struct deliver *d)
{
	return d->leave_by_ns && !d->queue.n && !d->request;
}

/* ---- answers of the backend ---------------------------------------------------------------------- */

static uint64_t random_below(uint64_t bound)
{
	uint64_t x;

	if (getrandom(&x, sizeof(x), 0) != (ssize_t)sizeof(x))
		x = clock_monotonic_ns();
	return bound ? x % bound : 0;
}

static void back_off(struct deliver *d, uint64_t asked_ns)
{
	uint64_t bound = MIN(BACK_OFF_MIN_NS << MIN(d->attempts, 16U), BACK_OFF_MAX_NS);

	d->attempts++;
	d->next_try_ns = clock_monotonic_ns() +
		MAX(asked_ns + random_below(asked_ns / 10), random_below(bound) + NSEC_PER_MSEC);
}

static int by_size(const void *a, const void *b)
{
	const struct shape_profile *x = a, *y = b;

	return x->samples < y->samples ? -1 : x->samples > y->samples;
}

/* The least that `rejected` profiles of the request can hold, by type. */
static void count_rejected(
	const struct shape_request *q, uint64_t rejected, uint64_t out[PROFILE_TYPES])
{
	struct shape_profile *sorted;

	if (rejected >= q->n_profiles) {
		memcpy(out, q->samples, PROFILE_TYPES * sizeof(*out));
		return;
	}
	sorted = calloc(q->n_profiles + 1, sizeof(*sorted));
	if (!sorted)
		return; /* the text still says it */
	memcpy(sorted, q->profiles, q->n_profiles * sizeof(*sorted));
	qsort(sorted, q->n_profiles, sizeof(*sorted), by_size);
	for (size_t i = 0; i < rejected; i++)
		out[sorted[i].type] += sorted[i].samples;
	free(sorted);
}

/* The request's rows are settled. */
static void settle(
	struct deliver *d, const struct shape_request *q, const struct send_result *result)
{
	struct queue_item *item = queue_at(&d->queue, 0);
	uint64_t rejected[PROFILE_TYPES] = {0};

	if (result->outcome == SEND_REFUSED)
		memcpy(rejected, q->samples, sizeof(rejected));
	else if (result->rejected_profiles)
		count_rejected(q, result->rejected_profiles, rejected);
	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		item->counts.samples[FATE_REJECTED][t] += rejected[t];
		item->counts.samples[FATE_DELIVERED][t] += q->samples[t] - rejected[t];
		item->counts.samples[FATE_SHAPED][t] += q->away[t];
	}
	item->row += q->rows;
	if (encoded_at(d->encoded, item->row))
		tell_item(d, item, false);
	else
		finish_item(d, 0);
}

static void on_taken(
	struct deliver *d, const struct shape_request *q, const struct send_result *result)
{
	struct send_result said = *result;

	if (result->rejected_profiles && result->rejected_profiles < q->n_profiles)
		snprintf(said.remedy, sizeof(said.remedy),
			"of %zu profiles; it does not say which, so the smallest are counted as rejected",
			q->n_profiles);
	d->status.last_success_unix_ns = clock_unix_ns();
	if (result->rejected_profiles) {
		d->status.failures++;
		d->status.last_failure_unix_ns = clock_unix_ns();
	}
	if (d->attempts)
		log_info("destination %s: delivers again", d->spec->name);
	d->attempts = 0;
	set_state(d, result->rejected_profiles >= q->n_profiles && q->n_profiles ? "failing" : "ok",
		said.reason, said.remedy);
}

static void on_failed(struct deliver *d, const struct send_result *result)
{
	d->status.failures++;
	d->status.last_failure_unix_ns = clock_unix_ns();
	set_state(d, "failing", result->reason, result->remedy);
	if (!d->attempts || result->outcome == SEND_REFUSED)
		log_warning("destination %s: %s; %s%s", d->spec->name, result->reason,
			result->remedy,
			result->outcome == SEND_REFUSED ? " (these profiles are given up)" : "");
}

static void on_done(void *userdata, const struct send_result *result)
{
	struct deliver *d = userdata;
	const struct shape_request *q = d->request;

	d->request = NULL;
	d->status.requests++;
	if (result->outcome == SEND_TAKEN) {
		d->status.sent_bytes += result->sent_bytes;
		on_taken(d, q, result);
	} else {
		on_failed(d, result);
	}
	if (result->outcome == SEND_AGAIN)
		back_off(d, result->retry_after_ns);
	else
		settle(d, q, result);
	if (d->reopen)
		open_sender(d);
}

/* ---- sending ------------------------------------------------------------------------------------- */

static void evict(struct deliver *d, uint64_t *wake_ns, uint64_t now_ns)
{
	/* The one under way stays; of the others at least the newest, however big. */
	size_t first = d->request ? 1 : 0;
	uint64_t max_age = d->type ? d->type->max_age_ns : 0, now_unix = clock_unix_ns();
	struct queue_item *item;
	ssize_t over;

	while ((over = queue_over(&d->queue, first, d->queue_bytes)) >= 0)
		give_up_item(d, (size_t)over, FATE_EVICTED);
	while (max_age && (item = queue_at(&d->queue, first))) {
		uint64_t end = item->batch->header.from_unix_ns + max_age;

		if (end > now_unix) {
			*wake_ns = MIN(*wake_ns, now_ns + (end - now_unix) + NSEC_PER_MSEC);
			break;
		}
		give_up_item(d, first, FATE_EVICTED);
	}
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

/* The requests of the oldest batch. 0, or negative: not now, or never (then it is settled). */
static int prepare(struct deliver *d, struct queue_item *item)
{
	struct shape_limits limits = {
		.max_bytes = d->type->max_profile_bytes,
		.max_samples = d->type->max_profile_samples,
		.packing = d->transport->packs(d->sender) ? SHAPE_GZIP : SHAPE_PLAIN,
		.rules = d->rules,
	};
	struct err_text err = {};
	int r;

	if (d->encoded)
		return 0;
	r = held_batch_encode(item->batch, &limits, item->row, &d->encoded, &err);
	if (r == 0 && !sound(item, d->encoded))
		r = err_set(
			&err, -EBADMSG, "how far it was delivered does not fit what was counted");
	if (r == -ENOMEM) {
		set_state(d, "failing", "out of memory", "");
		d->next_try_ns = clock_monotonic_ns() + MEMORY_RETRY_NS;
	} else if (r < 0) {
		log_error("destination %s: a batch is given up: %s", d->spec->name, err.text);
		set_state(d, "failing", err.text, "");
		give_up_item(d, 0, r == -EIO ? FATE_EVICTED : FATE_REJECTED);
	}
	return r;
}

/* Rows that shaping takes away, or one that no request can carry within the backend's limits. */
static void pass_over(struct deliver *d, struct queue_item *item, const struct shape_request *q)
{
	for (size_t t = 0; t < PROFILE_TYPES; t++)
		item->counts.samples[FATE_SHAPED][t] += q->away[t];
	item->row += q->skipped;
	if (q->too_big)
		log_warning(
			"destination %s: a sample is bigger than a request may be; it is left out",
			d->spec->name);
	if (encoded_at(d->encoded, item->row))
		tell_item(d, item, false);
	else
		finish_item(d, 0);
}

static void start(struct deliver *d, uint64_t now_ns)
{
	struct queue_item *item;

	while (!d->request && now_ns >= d->next_try_ns && (item = queue_at(&d->queue, 0))) {
		const struct shape_request *q;
		int r = prepare(d, item);

		if (r == -ENOMEM)
			return;
		if (r < 0)
			continue;
		q = encoded_at(d->encoded, item->row);
		if (!q) {
			/* Through; nothing can be left, but what were must not hang. */
			give_up_item(d, 0, FATE_REJECTED);
			continue;
		}
		if (q->skipped) {
			pass_over(d, item, q);
			continue;
		}
		r = d->transport->send(d->sender, q->body, q->len, on_done, d);
		if (r < 0) {
			d->next_try_ns = now_ns + MEMORY_RETRY_NS;
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
	if (d->sender)
		start(d, now_ns);
	if (d->sender && !d->request && d->queue.n)
		*wake_ns = MIN(*wake_ns, d->next_try_ns);
	if (!d->status_changed)
		return;
	if (now_ns - d->status_told_ns >= STATUS_EVERY_NS)
		tell_status(d, now_ns);
	else
		*wake_ns = MIN(*wake_ns, d->status_told_ns + STATUS_EVERY_NS);
}
