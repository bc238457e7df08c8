/* SPDX-License-Identifier: Apache-2.0 */

/* What agentd itself gives up of what it handed over, or would have.
 *
 * Only agentd evicts what the living exporter does not have: what is over the bound, what has nowhere to go any more,
 * what is only in memory at a stop. What the exporter has it evicts itself and says so, with one exception: the oldest
 * batch of exporters that end one after the other without getting anything done. That one is remembered, as their spool
 * may have it. Whatever is given up counts as evicted, at each destination that it was open for.
 *
 * Runs in agentd. */

#include "agentd/base/log.h"
#include "destinations/link_private.h"

/* agentd itself gives up what is left of a route. Returns whether the batch is gone. */
static bool evict_route(struct link *l, struct link_batch *b, size_t i)
{
	struct message_counts counts = *ledger_route_counts(&b->routes[i]);

	for (size_t t = 0; t < PROTOCOL_TYPES; t++)
		counts.samples[FATE_EVICTED][t] += ledger_left(b, &counts, t);
	return ledger_take(l, b, i, &counts, true);
}

static void evict_batch(struct link *l, size_t at)
{
	struct link_batch *b = l->batches[at];
	size_t n = b->n_routes;

	for (size_t i = 0; i < n; i++)
		if (!b->routes[i].final && evict_route(l, b, i))
			return;
}

void ledger_evict_unrouted(struct link *l)
{
	for (size_t at = 0; at < l->n_batches;) {
		struct link_batch *b = l->batches[at];
		/* What the living exporter has it gives up itself. */
		bool ours = !b->given || (b->durable && b->session != l->session);
		bool gone = false;

		for (size_t i = 0; !gone && ours && i < b->n_routes; i++) {
			const struct link_dest *d = ledger_dest(l, b->routes[i].destination);

			if (!b->routes[i].final && (!d || !d->enabled))
				gone = evict_route(l, b, i);
		}
		at += !gone;
	}
}

uint64_t ledger_evict_memory(struct link *l)
{
	uint64_t samples = 0;

	for (size_t at = l->n_batches; at-- > 0;) {
		const struct link_batch *b = l->batches[at];

		if (b->durable)
			continue;
		for (size_t i = 0; i < b->n_routes; i++)
			for (size_t t = 0; t < PROFILE_TYPES && !b->routes[i].final; t++)
				samples += ledger_left(b, ledger_route_counts(&b->routes[i]), t);
		evict_batch(l, at);
	}
	return samples;
}

void ledger_bound(struct link *l)
{
	size_t at = 0, evicted = 0;

	/* One is kept however big it is. */
	while (l->n_batches > 1 && at < l->n_batches - 1 &&
		(l->bytes > l->config.max_unheld_bytes || l->n_batches > PROTOCOL_BATCHES)) {
		if (l->batches[at]->given) {
			at++;
			continue;
		}
		evict_batch(l, at);
		evicted++;
	}
	if (evicted)
		log_warning(
			"exporter: %zu batches were given up, oldest first: more waited than is kept",
			evicted);
	/* No more descriptors than the exporter will take in at once. */
	for (size_t i = PROTOCOL_WINDOW; i < l->n_batches; i++)
		if (l->batches[i]->bytes)
			closep(&l->batches[i]->memfd);
}

void ledger_give_up_oldest(struct link *l)
{
	for (size_t i = 0; i < l->n_batches; i++) {
		const struct link_batch *b = l->batches[i];

		if (!b->given)
			continue;
		if (b->durable) {
			struct link_given_up *g =
				&l->given_up[l->n_given_up++ % ARRAY_SIZE(l->given_up)];

			memcpy(g->boot_id, b->header.boot_id, sizeof(g->boot_id));
			g->serial = b->header.serial;
		}
		evict_batch(l, i);
		return;
	}
}

void ledger_take_back(struct link *l)
{
	for (size_t i = 0; i < l->n_batches; i++) {
		struct link_batch *b = l->batches[i];

		/* What the spool has its next owner tells of. */
		b->adopt = false;
		if (!b->durable)
			b->given = b->held = false;
	}
	ledger_evict_unrouted(l);
	ledger_bound(l);
}
