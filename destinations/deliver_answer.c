/* SPDX-License-Identifier: Apache-2.0 */

/* What a backend said of a request, and what becomes of the rows in it.
 *
 * Partial success names a number of profiles, not which. All rejected: their samples are. Else the smallest that many
 * are counted as rejected, the least that it can be, and the text says so.
 *
 * Runs in the exporter. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "destinations/deliver_private.h"

/* Whoever finds this too big, or so many single rows one after another, has a limit that is a mistake. */
#define TINY_BYTES 2048
#define TINY_ROWS  8
#define GROW_AFTER 64 /* requests that were taken */

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

/* What was rejected is taken from the first ones: nobody knows whose it was. */
void deliver_settle_group(
	struct deliver *d, const struct shape_request *q, uint64_t rejected[PROFILE_TYPES])
{
	d->group_row = q->first + q->rows + q->skipped;
	for (size_t i = 0; i < d->group.n; i++) {
		const struct shape_share *share = &q->shares[i];
		ssize_t at = share->rows ? deliver_index(d, d->group.batches[i]) : -1;
		struct queue_item *item;

		if (at < 0)
			continue;
		item = queue_at(&d->queue, (size_t)at);
		for (size_t t = 0; t < PROFILE_TYPES; t++) {
			uint64_t lost = MIN(rejected[t], share->samples[t]);

			rejected[t] -= lost;
			item->counts.samples[FATE_REJECTED][t] += lost;
			item->counts.samples[FATE_DELIVERED][t] += share->samples[t] - lost;
			item->counts.samples[FATE_SHAPED][t] += share->away[t];
		}
		item->row += share->rows;
		if (item->row == d->group.rows[i])
			deliver_finish_item(d, (size_t)at);
		else
			deliver_tell_item(d, item, false);
	}
	if (!encoded_at(d->encoded, d->group_row))
		deliver_put_back(d);
}

/* The request's rows are settled. */
static void settle(
	struct deliver *d, const struct shape_request *q, const struct send_result *result)
{
	ssize_t at = deliver_index(d, d->current);
	struct queue_item *item = queue_at(&d->queue, (size_t)at);
	uint64_t rejected[PROFILE_TYPES] = {0};

	if (result->outcome == SEND_REFUSED)
		memcpy(rejected, q->samples, sizeof(rejected));
	else if (result->rejected_profiles)
		count_rejected(q, result->rejected_profiles, rejected);
	if (d->group.n) {
		deliver_settle_group(d, q, rejected);
		return;
	}
	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		item->counts.samples[FATE_REJECTED][t] += rejected[t];
		item->counts.samples[FATE_DELIVERED][t] += q->samples[t] - rejected[t];
		item->counts.samples[FATE_SHAPED][t] += q->away[t];
	}
	item->row += q->rows;
	if (encoded_at(d->encoded, item->row))
		deliver_tell_item(d, item, false);
	else
		deliver_finish_item(d, (size_t)at);
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
	deliver_set_state(d,
		result->rejected_profiles >= q->n_profiles && q->n_profiles ? "failing" : "ok",
		said.reason, said.remedy);
}

static void on_failed(struct deliver *d, const struct send_result *result)
{
	bool refused = result->outcome == SEND_REFUSED;
	const char *meanwhile = result->outcome == SEND_BLOCKED ? " (profiles wait meanwhile)" : "";
	/* The reason, "; " and this one share the room that a status has for words. */
	size_t room =
		PROTOCOL_TEXT - 3 - MIN(strlen(result->reason), (size_t)300) - strlen(meanwhile);
	char remedy[PROTOCOL_TEXT];

	d->status.failures++;
	d->status.last_failure_unix_ns = clock_unix_ns();
	snprintf(remedy, sizeof(remedy), "%.*s%s", (int)MIN(room, strlen(result->remedy)),
		result->remedy, meanwhile);
	deliver_set_state(d, "failing", result->reason, remedy);
	if (!d->pace.failures || refused)
		log_warning("destination %s: %s; %s%s", d->spec->name, result->reason, remedy,
			refused ? " (these profiles are given up)" : "");
}

/* The backend knows best what is too big for it: this one goes again, in pieces. */
static void cut_smaller(struct deliver *d, const struct shape_request *q)
{
	uint64_t half = MAX(q->raw_len / 2, (size_t)1);

	if (!d->soft_bytes)
		log_info(
			"destination %s: a request of %zu bytes is too big for it; smaller ones are sent",
			d->spec->name, q->raw_len);
	d->soft_bytes = d->soft_bytes ? MIN(half, d->soft_bytes) : half;
	d->soft_taken = 0;
	if (d->group.n)
		deliver_put_back(d); /* what is left of it is chosen anew */
	d->encoded = encoded_unref(d->encoded);
}

/* A limit may have been raised: now and then twice as much is tried. */
static void grow(struct deliver *d)
{
	if (!d->soft_bytes || ++d->soft_taken < GROW_AFTER)
		return;
	d->soft_taken = 0;
	d->soft_bytes = 2 * d->soft_bytes < PROFILE_MAX_ENCODED ? 2 * d->soft_bytes : 0;
}

static void on_answer(struct deliver *d, const struct shape_request *q, const struct send_result *r)
{
	uint64_t now = clock_monotonic_ns();
	bool backlog = d->current != d->live && !group_has(&d->group, d->live);

	switch (r->outcome) {
	case SEND_TAKEN:
		d->status.sent_bytes += r->sent_bytes;
		d->tiny_refused = 0;
		grow(d);
		on_taken(d, q, r);
		break;
	case SEND_TOO_BIG:
		if (q->rows > 1 && q->raw_len > TINY_BYTES) {
			cut_smaller(d, q);
			return;
		}
		if (q->raw_len <= TINY_BYTES || ++d->tiny_refused > TINY_ROWS) {
			struct send_result blocked = *r;

			blocked.outcome = SEND_BLOCKED;
			on_answer(d, q, &blocked);
			return;
		}
		/* fall through */
	case SEND_REFUSED: {
		struct send_result refused = *r;

		refused.outcome = SEND_REFUSED;
		on_failed(d, &refused);
		pace_answered(&d->pace, now);
		settle(d, q, &refused);
		return;
	}
	case SEND_AGAIN:
	case SEND_BLOCKED:
		on_failed(d, r);
		pace_failed(&d->pace, r->outcome == SEND_BLOCKED, r->retry_after_ns, now);
		/* What came meanwhile may be more important; a part of a batch goes on where it was. */
		deliver_put_back(d);
		return;
	}
	if (d->pace.failures)
		log_info("destination %s: delivers again", d->spec->name);
	pace_answered(&d->pace, now);
	if (backlog)
		pace_drained(&d->pace, r->sent_bytes, now);
	settle(d, q, r);
}

void deliver_on_done(void *userdata, const struct send_result *result)
{
	struct deliver *d = userdata;
	const struct shape_request *q = d->request;

	d->request = NULL;
	d->status.requests++;
	latency_note(&d->status.latencies,
		result->outcome == SEND_TAKEN             ? LATENCY_TAKEN
			: result->outcome == SEND_REFUSED ? LATENCY_REFUSED
							  : LATENCY_FAILED,
		result->duration_ns);
	on_answer(d, q, result);
	if (d->reopen)
		deliver_open_sender(d);
}

/* The small request: whatever the backend says of it, it was asked and is not down. */
void deliver_on_probed(void *userdata, const struct send_result *result)
{
	struct deliver *d = userdata;
	uint64_t now = clock_monotonic_ns();

	d->probing = false;
	d->status.requests++;
	if (result->outcome == SEND_AGAIN || result->outcome == SEND_BLOCKED) {
		on_failed(d, result);
		pace_failed(&d->pace, result->outcome == SEND_BLOCKED, result->retry_after_ns, now);
	} else {
		pace_tried(&d->pace, now);
	}
}
