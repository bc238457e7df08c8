/* SPDX-License-Identifier: Apache-2.0 */

/* Room in the spool: what is given up so that it keeps within its bounds, or because somebody said so.
 *
 * The oldest batch goes first, at all its destinations at once, since its bytes lie there for all of them; what is left
 * of it counts as evicted. One with a request under way is passed over: its backend may be taking it. So is one that is
 * not synced, or that agentd has not given a number yet.
 *
 * Runs in the exporter. */

#include "agentd/base/log.h"
#include "destinations/exporter_private.h"

void keep_evict_left(const struct batch_header *header, struct message_counts *counts)
{
	for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
		uint64_t settled = 0;

		for (size_t f = 0; f < FATES; f++)
			settled += counts->samples[f][t];
		counts->samples[FATE_EVICTED][t] += header->samples[t] - settled;
	}
}

struct message_counts keep_counts_of(const struct spool_route *route)
{
	return route->counts ? *route->counts : (struct message_counts){0};
}

void keep_give_up_route(struct spool_batch *b, const struct spool_route *route)
{
	struct message_counts counts = keep_counts_of(route);

	keep_evict_left(&b->header, &counts);
	(void)spool_progress(keep_spool(), b, route->destination, route->row, &counts, true);
}

/* Everywhere. false: it cannot be now. */
static bool evict(struct spool_batch *b)
{
	struct held_batch *owner = b->owner;

	/* Not told yet, or not synced. */
	if (!owner || !owner->kept)
		return false;
	for (uint32_t i = 0; i < b->n_routes; i++) {
		struct deliver *d = exporter_find(b->routes[i].destination);

		if (b->routes[i].final)
			continue;
		if (!d)
			keep_give_up_route(b, &b->routes[i]);
		else if (!deliver_evict(d, owner))
			continue;
	}
	return !b->n_open;
}

unsigned keep_make_room(uint64_t need)
{
	struct spool *s = keep_spool();
	struct spool_batch *b;
	unsigned evicted = 0;

	/* Segments that are through go on the way, and it may be in one. */
	keep_forget_place();
	spool_spare_none(s);
	while ((b = spool_over(s, need))) {
		if (evict(b))
			evicted++;
		else
			spool_spare(s, b);
	}
	return evicted;
}

void keep_within(uint64_t need)
{
	unsigned evicted = keep_make_room(need);

	if (evicted)
		log_warning("the spool is at its bound: %u of its oldest batches were given up",
			evicted);
}

void keep_on_drop(const struct message_spool_drop *m)
{
	struct message_spool_dropped done = {
		.header = protocol_header(MESSAGE_SPOOL_DROPPED, sizeof(done)),
		.id = m->id,
	};
	struct spool *s = keep_spool();

	for (struct spool_batch *b = NULL, *next = s ? spool_next(s, NULL) : NULL; (b = next);) {
		uint64_t left = 0;

		next = spool_next(s, b);
		if (b->header.to_unix_ns >= m->before_unix_ns)
			continue;
		for (uint32_t i = 0; i < b->n_routes; i++) {
			struct message_counts before = keep_counts_of(&b->routes[i]),
					      after = before;

			keep_evict_left(&b->header, &after);
			for (size_t t = 0; t < PROTOCOL_TYPES && !b->routes[i].final; t++)
				left += after.samples[FATE_EVICTED][t] -
					before.samples[FATE_EVICTED][t];
		}
		if (!evict(b))
			continue;
		done.batches++;
		done.samples += left;
	}
	exporter_tell(&done, sizeof(done));
}
