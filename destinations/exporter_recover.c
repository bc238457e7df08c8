/* SPDX-License-Identifier: Apache-2.0 */

/* What a predecessor left in the spool: told to agentd once, and taken on by the numbers that agentd gives.
 *
 * After the first configuration goes out: what each destination settled since the spool is there, then every batch that
 * is not through, then that this was all; or, that the spool cannot be used (yet), and the rest when it can. Nothing of a
 * batch is sent to anybody before agentd gave it a number: nothing is delivered that is not in the ledger. Of how far it
 * is the further one of both counts: the journal may have lost what agentd was told, and agentd may have died before it
 * noted what the journal has. Routes to destinations that are not there any more, on either side, are given up.
 *
 * Runs in the exporter. */

#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "destinations/exporter_private.h"

static bool told, not_ready_told;
static struct spool_batch *last_adopted;

/* Returns whether it goes anywhere. */
static bool tell_batch(struct spool_batch *b)
{
	static union {
		struct message_recovered recovered;
		uint8_t bytes[FDPASS_MAX_MESSAGE];
	} m;
	struct message_recovered *r = &m.recovered;
	size_t len;

	*r = (struct message_recovered){.seq = b->seq, .size = b->raw, .batch = b->header};
	for (uint32_t i = 0; i < b->n_routes; i++) {
		const struct spool_route *route = &b->routes[i];

		if (route->final)
			continue;
		if (!exporter_find(route->destination)) {
			keep_give_up_route(b, route);
			continue;
		}
		r->routes[r->n_routes++] = (struct message_route){
			.destination = route->destination,
			.row = route->row,
			.counts = keep_counts_of(route),
		};
	}
	len = sizeof(*r) + r->n_routes * sizeof(r->routes[0]);
	r->header = protocol_header(MESSAGE_RECOVERED, len);
	if (r->n_routes)
		exporter_tell(r, len);
	return r->n_routes > 0;
}

static void tell_totals(const struct spool *s)
{
	const struct spool_totals *list;
	size_t n = spool_get_totals(s, &list);

	for (size_t i = 0; i < n; i++) {
		struct message_totals m = {
			.header = protocol_header(MESSAGE_TOTALS, sizeof(m)),
			.destination = list[i].destination,
			.settled = list[i].settled,
		};

		if (exporter_find(list[i].destination))
			exporter_tell(&m, sizeof(m));
	}
}

void keep_tell_recovered(bool soon)
{
	struct message_ready m = {.header = protocol_header(MESSAGE_READY, sizeof(m))};
	struct spool *s = keep_spool();
	struct spool_state state;
	unsigned nowhere = 0;

	if (told || (!s && (not_ready_told || soon)))
		return;
	if (s) {
		tell_totals(s);
		for (struct spool_batch *b = NULL, *next = spool_next(s, NULL); (b = next);) {
			/* It may not be among the open ones afterwards. */
			next = spool_next(s, b);
			nowhere += !tell_batch(b);
		}
		spool_get_state(s, &state);
		m.newest_unix_ns = state.newest_unix_ns;
		told = true;
	}
	if (nowhere)
		log_warning("spool: %u batches for destinations that are not there any more are "
			    "given up",
			nowhere);
	m.spool = s != NULL;
	not_ready_told = true;
	exporter_tell(&m, sizeof(m));
}

static struct spool_batch *find_seq(const struct spool *s, uint64_t seq)
{
	/* They come in order. */
	struct spool_batch *b = last_adopted;

	if (!b || b->seq > seq)
		b = spool_next(s, NULL);
	while (b && b->seq < seq)
		b = spool_next(s, b);
	if (b && b->seq == seq)
		last_adopted = b;
	return b && b->seq == seq ? b : NULL;
}

static void adopt_route(struct held_batch *b, const struct message_adopt *m, size_t i)
{
	struct message_route route = m->routes[i];

	for (uint32_t n = 0; n < b->spool->n_routes; n++) {
		const struct spool_route *own = &b->spool->routes[n];

		if (own->destination != route.destination)
			continue;
		if (own->row >= route.row) {
			route.row = own->row;
			route.counts = keep_counts_of(own);
		} else {
			/* The journal lost what had been told. */
			(void)spool_progress(keep_spool(), b->spool, own->destination, route.row,
				&route.counts, false);
		}
		if (own->final)
			keep_answer(b->id, &route, &b->header);
		else
			keep_route_to(b, &route);
		return;
	}
	keep_answer(b->id, &route, &b->header);
}

int keep_on_adopt(const struct message_adopt *m, size_t len)
{
	struct spool *spool = keep_spool();
	struct spool_batch *s = spool ? find_seq(spool, m->seq) : NULL;
	struct held_batch *b = NULL;
	int r;

	if (m->n_routes > PROTOCOL_DESTINATIONS ||
		len != sizeof(*m) + m->n_routes * sizeof(m->routes[0]))
		return -EBADMSG;
	if (!s || s->owner)
		return -EBADMSG;
	/* What agentd has settled itself meanwhile. */
	for (uint32_t n = 0; n < s->n_routes; n++) {
		bool wanted = s->routes[n].final;

		for (uint32_t i = 0; i < m->n_routes && !wanted; i++)
			wanted = m->routes[i].destination == s->routes[n].destination;
		if (!wanted)
			keep_give_up_route(s, &s->routes[n]);
	}
	r = held_batch_new_kept(&b, m->id, s);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < m->n_routes; i++)
		adopt_route(b, m, i);
	held_batch_unref(b);
	return 0;
}

void keep_forget_place(void)
{
	last_adopted = NULL;
}

void keep_forget_told(void)
{
	keep_forget_place();
	told = not_ready_told = false;
}
