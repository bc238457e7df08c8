/* SPDX-License-Identifier: Apache-2.0 */

/* What an exporter finds in its spool at its start, and what it means for the ledger.
 *
 * An exporter begins with totals (what each destination settled since the spool is there), then the batches that are
 * not through, then says that this was all. agentd takes a batch that it knows by its identity (boot id, serial), and
 * makes one that it does not know: it is agentd that was started anew. Each gets a number (ADOPT), with how far
 * agentd knows it to be; what is further counts. Nothing new is handed over before.
 *
 * What agentd knows to be in the spool and was not told of is through: the totals say how. What they do not account
 * for was lost with the disk and counts as evicted. In the first round of agentd's life the totals have grown, beside,
 * by what was settled after the ledger was saved for the last time: the store has, for each destination, all that was
 * settled and the part of it that was in the spool's totals then.
 *
 * The exporter is believed about its own deliveries, as ever; not that one became undone, nor counts that a batch
 * cannot have. Runs in agentd. */

#include "agentd/base/log.h"
#include "destinations/link_private.h"

struct identity { /* of a batch */
	uint8_t boot_id[16];
	uint64_t serial;
};

int link_on_totals(struct link *l, const struct message_totals *m, const char **why)
{
	struct link_dest *d = ledger_dest(l, m->destination);

	*why = "totals when it is too late for them";
	if (!l->spool_wanted || l->ready)
		return -EBADMSG;
	*why = "more samples than there can be";
	for (size_t f = 0; f < FATES; f++)
		for (size_t t = 0; t < PROTOCOL_TYPES; t++)
			if (m->settled.samples[f][t] > (t < PROFILE_TYPES ? INT64_MAX / 8 : 0))
				return -EBADMSG;
	if (d) {
		d->told = m->settled;
		d->has_told = true;
	}
	return 0;
}

static int index_batches(struct link *l)
{
	int r = map_new(&l->by_identity, sizeof(struct identity));

	for (size_t i = 0; i < l->n_batches && r >= 0; i++) {
		struct link_batch *b = l->batches[i];
		struct identity id = {.serial = b->header.serial};

		memcpy(id.boot_id, b->header.boot_id, sizeof(id.boot_id));
		r = map_put(l->by_identity, &id, sizeof(id), b, NULL);
	}
	if (r < 0)
		l->by_identity = map_free(l->by_identity);
	return MIN(r, 0);
}

static const char *check_recovered(const struct message_recovered *m, size_t len)
{
	struct link_batch as = {.header = m->batch};
	static const struct link_route none;

	if (!m->n_routes || m->n_routes > PROTOCOL_DESTINATIONS ||
		len != sizeof(*m) + m->n_routes * sizeof(m->routes[0]) || !m->seq)
		return "a batch of a wrong size";
	if (m->size > PROFILE_MAX_ENCODED)
		return "a batch that is too big";
	for (size_t t = 0; t < PROTOCOL_TYPES; t++)
		if (m->batch.samples[t] > (t < PROFILE_TYPES ? INT64_MAX : 0))
			return "more samples than there can be";
	for (size_t i = 0; i < m->n_routes; i++) {
		const char *why = ledger_check_counts(&as, &none, &m->routes[i].counts, false);

		if (why)
			return why;
		for (size_t k = 0; k < i; k++)
			if (m->routes[k].destination == m->routes[i].destination)
				return "a destination twice";
	}
	return NULL;
}

static bool was_given_up(const struct link *l, const struct message_recovered *m)
{
	size_t n = MIN(l->n_given_up, ARRAY_SIZE(l->given_up));

	for (size_t i = 0; i < n; i++)
		if (l->given_up[i].serial == m->batch.serial &&
			memcmp(l->given_up[i].boot_id, m->batch.boot_id, 16) == 0)
			return true;
	return false;
}

static int refuse(struct link *l, uint64_t seq)
{
	uint64_t *grown = reallocarray(l->refused, l->n_refused + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	l->refused = grown;
	grown[l->n_refused++] = seq;
	return 0;
}

/* One that agentd has. */
static void take_known(struct link *l, struct link_batch *b, const struct message_recovered *m)
{
	ledger_make_durable(l, b);
	b->given = b->held = true;
	for (size_t i = 0; i < b->n_routes; i++)
		b->routes[i].unseen = !b->routes[i].final;
	for (size_t k = 0; k < m->n_routes; k++) {
		const struct message_route *told = &m->routes[k];

		for (size_t i = 0; i < b->n_routes; i++) {
			struct link_route *route = &b->routes[i];

			if (route->destination != told->destination || route->final)
				continue;
			route->unseen = false;
			/* Where it knows less than was told before, agentd's view is sent back. */
			if (told->row < route->row ||
				ledger_check_counts(b, route, &told->counts, false))
				continue;
			route->row = told->row;
			(void)ledger_take(l, b, i, &told->counts, false);
		}
	}
}

int link_on_recovered(
	struct link *l, const struct message_recovered *m, size_t len, const char **why)
{
	struct identity id = {.serial = m->batch.serial};
	struct link_batch *b;
	int r = 0;

	*why = "a batch of a spool when it is too late for it";
	if (!l->spool_wanted || l->ready)
		return -EBADMSG;
	*why = check_recovered(m, len);
	if (*why)
		return -EBADMSG;
	*why = "more batches than a spool can have";
	if (l->n_batches > 4 * PROTOCOL_BATCHES)
		return -EBADMSG;
	if (was_given_up(l, m))
		return refuse(l, m->seq);
	if (!l->by_identity)
		r = index_batches(l);
	if (r < 0)
		return r;
	memcpy(id.boot_id, m->batch.boot_id, sizeof(id.boot_id));
	b = map_get(l->by_identity, &id, sizeof(id));
	/* This one opened its spool late, and was given the batch meanwhile: it has it in memory and delivers it once. */
	if (b && b->given && !b->durable)
		return refuse(l, m->seq);
	if (b) {
		*why = "a batch that is not as it was";
		if (b->size != m->size || memcmp(&b->header, &m->batch, sizeof(m->batch)) != 0)
			return -EBADMSG;
		*why = "a batch twice";
		if (b->durable && b->session == l->session)
			return -EBADMSG;
		take_known(l, b, m);
	} else {
		r = ledger_add_recovered(l, m, &b);
		if (r < 0) /* nowhere to go, or no memory */
			return refuse(l, m->seq);
		(void)map_put(l->by_identity, &id, sizeof(id), b, NULL);
	}
	b->seq = m->seq;
	b->session = l->session;
	b->adopt = true;
	return 0;
}

/* What the totals have grown by beyond what is known goes to routes that are through unseen. */
static uint64_t settle_unseen(struct link *l, struct link_batch *b, size_t i, bool *gone)
{
	struct message_counts counts = *ledger_route_counts(&b->routes[i]);
	struct link_dest *d = ledger_dest(l, b->routes[i].destination);
	uint64_t lost = 0;

	for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
		uint64_t left = ledger_left(b, &counts, t);

		for (size_t f = 0; d && d->has_told && f < FATES; f++) {
			uint64_t more = d->told.samples[f][t] -
				MIN(d->spooled.samples[f][t], d->told.samples[f][t]);
			uint64_t n = MIN(left, more);

			counts.samples[f][t] += n;
			left -= n;
		}
		counts.samples[FATE_EVICTED][t] += left;
		lost += left;
	}
	/* Adds to what is known as spooled; what was lost was never in the totals, which count next. */
	*gone = ledger_take(l, b, i, &counts, true);
	return lost;
}

static uint64_t reconcile_batches(struct link *l)
{
	uint64_t lost = 0;

	for (size_t at = 0; at < l->n_batches;) {
		struct link_batch *b = l->batches[at];
		bool gone = false;

		for (size_t i = 0; !gone && b->durable && i < b->n_routes; i++)
			if (!b->routes[i].final &&
				(b->session != l->session || b->routes[i].unseen))
				lost += settle_unseen(l, b, i, &gone);
		at += !gone;
	}
	return lost;
}

static void reconcile_dest(struct link *l, struct link_dest *d)
{
	for (size_t t = 0; t < PROFILE_TYPES && d->has_told; t++) {
		uint64_t more[FATES];

		for (size_t f = 0; f < FATES; f++) {
			more[f] = d->told.samples[f][t] -
				MIN(d->spooled.samples[f][t], d->told.samples[f][t]);
			/* Later rounds: agentd was there all the time and knows. */
			more[f] = l->reconciled ? 0 : more[f];
			d->row.ledger[t].routed += more[f];
		}
		d->row.ledger[t].delivered += more[FATE_DELIVERED];
		d->row.ledger[t].rejected += more[FATE_REJECTED];
		d->row.ledger[t].evicted += more[FATE_EVICTED];
		d->row.ledger[t].shaped += more[FATE_SHAPED];
	}
	d->spooled = d->told;
	link_save_soon(l, d);
}

int link_on_ready(struct link *l, const struct message_ready *m, const char **why)
{
	uint64_t lost;

	*why = "that it is ready, twice";
	if (!l->spool_wanted || l->ready)
		return -EBADMSG;
	*why = "an answer that there is not";
	if (m->spool > 1)
		return -EBADMSG;
	l->by_identity = map_free(l->by_identity);
	if (!m->spool) {
		/* New batches must not wait for a spool that cannot be opened. What it has waits. */
		l->unopened = true;
		return 0;
	}
	l->unopened = false;
	lost = reconcile_batches(l);
	for (size_t i = 0; i < l->n_dests; i++)
		reconcile_dest(l, l->dests[i]);
	if (lost)
		log_error("spool: %llu samples that were in it are not there any more",
			(unsigned long long)lost);
	l->newest_unix_ns = MAX(l->newest_unix_ns, m->newest_unix_ns);
	l->ready = l->reconciled = true;
	return 0;
}
