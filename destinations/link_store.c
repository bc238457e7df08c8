/* SPDX-License-Identifier: Apache-2.0 */

/* The small numbers that outlive agentd, in its store: the installation's, those of destinations, totals of the ledger.
 *
 * A destination's number is given once and never again, whatever its name or options become: batches in the spool know it
 * by nothing else, so one that was removed and comes again is another one. Of each destination the store has what was
 * settled in all, by type and fate, and the part of it that the spool's totals had then, so that what was settled after
 * the last time can be told from those totals at the next start (link_recover.c).
 *
 * Saved a while after a change, and at a stop; what cannot be saved is tried again at leisure. Without a store all begins
 * anew with each agentd. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "destinations/link_private.h"

#define SAVE_AFTER_NS (10 * NSEC_PER_SEC)
#define SAVE_RETRY_NS (60 * NSEC_PER_SEC)

static const char *const fate_names[FATES] = {"delivered", "rejected", "evicted", "shaped"};

int link_store_set(struct link *l, const char *key, uint64_t value)
{
	struct link_value v = {.value = value};

	if (!l->config.store)
		return 0;
	snprintf(v.key, sizeof(v.key), "%s", key);
	return l->config.store->set(l->config.store_userdata, &v, 1);
}

uint64_t link_store_get(struct link *l, const char *key, uint64_t fallback)
{
	uint64_t value;

	if (!l->config.store || l->config.store->get(l->config.store_userdata, key, &value) < 0)
		return fallback;
	return value;
}

static void dest_key(const struct link_dest *d, char out[192])
{
	snprintf(out, 192, "destination/%s/%s", d->row.type, d->row.name);
}

static void ledger_key(
	const struct link_dest *d, size_t type, size_t fate, bool spooled, char out[192])
{
	snprintf(out, 192, "ledger/%" PRIu32 "/%s/%s%s", d->id, profile_types[type].name,
		fate_names[fate], spooled ? "/spooled" : "");
}

int link_load_dest(struct link *l, struct link_dest *d)
{
	struct link_value v[2] = {{.key = "exporter/next-destination"}};
	char key[192];

	dest_key(d, v[1].key);
	d->id = (uint32_t)link_store_get(l, v[1].key, 0);
	if (!d->id || d->id >= l->next_dest) {
		d->id = l->next_dest++;
		v[0].value = l->next_dest;
		v[1].value = d->id;
		return l->config.store ? l->config.store->set(l->config.store_userdata, v, 2) : 0;
	}
	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		uint64_t n[FATES];

		for (size_t f = 0; f < FATES; f++) {
			ledger_key(d, t, f, false, key);
			n[f] = MIN(link_store_get(l, key, 0), (uint64_t)INT64_MAX / 8);
			d->row.ledger[t].routed += n[f];
			ledger_key(d, t, f, true, key);
			d->spooled.samples[f][t] = link_store_get(l, key, 0);
		}
		d->row.ledger[t].delivered = n[FATE_DELIVERED];
		d->row.ledger[t].rejected = n[FATE_REJECTED];
		d->row.ledger[t].evicted = n[FATE_EVICTED];
		d->row.ledger[t].shaped = n[FATE_SHAPED];
	}
	return 0;
}

static size_t put_ledger(const struct link_dest *d, struct link_value *list, bool drop)
{
	size_t n = 0;

	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		const uint64_t all[FATES] = {
			[FATE_DELIVERED] = d->row.ledger[t].delivered,
			[FATE_REJECTED] = d->row.ledger[t].rejected,
			[FATE_EVICTED] = d->row.ledger[t].evicted,
			[FATE_SHAPED] = d->row.ledger[t].shaped,
		};

		for (size_t f = 0; f < FATES; f++)
			for (int spooled = 0; spooled < 2; spooled++, n++) {
				list[n].value = spooled ? d->spooled.samples[f][t] : all[f];
				list[n].drop = drop;
				ledger_key(d, t, f, spooled != 0, list[n].key);
			}
	}
	return n;
}

void link_forget_dest(struct link *l, const struct link_dest *d)
{
	struct link_value list[1 + 2 * FATES * PROFILE_TYPES] = {{.drop = true}};

	if (!l->config.store)
		return;
	dest_key(d, list[0].key);
	if (l->config.store->set(
		    l->config.store_userdata, list, 1 + put_ledger(d, list + 1, true)) < 0)
		log_warning("destination %s: that it was removed cannot be saved", d->row.name);
}

void link_rename_dest(struct link *l, struct link_dest *d, const char *name)
{
	struct link_value list[2] = {{.drop = true}, {.value = d->id}};

	dest_key(d, list[0].key);
	snprintf(d->row.name, sizeof(d->row.name), "%s", name);
	dest_key(d, list[1].key);
	if (l->config.store && l->config.store->set(l->config.store_userdata, list, 2) < 0)
		log_warning("destination %s: its new name cannot be saved", name);
}

void link_save_soon(struct link *l, struct link_dest *d)
{
	d->ledger_dirty = true;
	if (!l->config.store || l->save_at_ns)
		return;
	l->save_at_ns = clock_monotonic_ns() + SAVE_AFTER_NS;
	link_arm(l);
}

void link_save(struct link *l)
{
	struct link_value *list = calloc(l->n_dests + 1, 2 * FATES * PROFILE_TYPES * sizeof(*list));
	size_t n = 0;
	int r = list ? 0 : -ENOMEM;

	l->save_at_ns = 0;
	for (size_t i = 0; i < l->n_dests && list; i++)
		if (l->dests[i]->ledger_dirty && l->dests[i]->configured)
			n += put_ledger(l->dests[i], list + n, false);
	if (n && l->config.store)
		r = l->config.store->set(l->config.store_userdata, list, n);
	for (size_t i = 0; i < l->n_dests && r == 0; i++)
		l->dests[i]->ledger_dirty = false;
	if (r < 0)
		l->save_at_ns = clock_monotonic_ns() + SAVE_RETRY_NS;
	free(list);
}
