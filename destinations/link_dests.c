/* SPDX-License-Identifier: Apache-2.0 */

/* The destinations as agentd's configuration has them, and what is shown of each.
 *
 * A destination is the same as long as its name and type are, and so it keeps its number, its ledger and what waits for
 * it over any change of options; one that was renamed keeps them, too, which its age tells. One that was removed is
 * forgotten at once, and stays in the list, not configured, until no batch is open there: its answers still count. What
 * an exporter needs to know of one is encoded here once, and compared, so that only a real difference is sent.
 *
 * Runs in agentd. */

#include "agentd/base/clock.h"
#include "destinations/link_private.h"

static struct link_dest *find_dest(struct link *l, const char *name, const char *type)
{
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->configured && streq(l->dests[i]->row.name, name) &&
			streq(l->dests[i]->row.type, type))
			return l->dests[i];
	return NULL;
}

int link_put_spec(struct buf *out, uint32_t id, const struct config_destination *c)
{
	struct destination_spec spec = {.id = id,
		.name = c->name,
		.type = c->type,
		.options = c->options,
		.n_options = c->n_options};

	buf_init(out, PROTOCOL_CONFIG_MAX / 2);
	protocol_put_spec(out, &spec);
	return buf_error(out);
}

static int add_dest(struct link *l, const struct config_destination *c, struct link_dest **ret)
{
	struct link_dest *d;
	int r;

	if (l->n_dests == l->room_dests) {
		size_t room = MAX(2 * l->room_dests, (size_t)8);
		struct link_dest **grown = reallocarray(l->dests, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		l->dests = grown;
		l->room_dests = room;
	}
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	snprintf(d->row.name, sizeof(d->row.name), "%s", c->name);
	snprintf(d->row.type, sizeof(d->row.type), "%s", c->type);
	snprintf(d->row.state, sizeof(d->row.state), "idle");
	d->rate.since_ns = clock_monotonic_ns();
	r = link_load_dest(l, d);
	if (r < 0) {
		free(d);
		return r;
	}
	l->dests[l->n_dests++] = d;
	*ret = d;
	return 0;
}

/* The one that had another name until now: of the same type and as old to the nanosecond, and its name is not in use any
 * more. Objects of files are as old as their place there, which says nothing. */
static struct link_dest *find_renamed(struct link *l, const struct config_destination *c,
	const struct config_destination *list, size_t n)
{
	for (size_t i = 0; i < l->n_dests && c->order > NSEC_PER_SEC; i++) {
		struct link_dest *d = l->dests[i];
		bool in_use = false;

		if (!d->configured || d->order != c->order || !streq(d->row.type, c->type))
			continue;
		for (size_t k = 0; k < n; k++)
			in_use |= streq(list[k].name, d->row.name);
		if (!in_use)
			return d;
	}
	return NULL;
}

/* One destination as it is to be; kept, changed or new. */
static int configure_dest(struct link *l, const struct config_destination *c,
	const struct config_destination *list, size_t n)
{
	struct link_dest *d = find_dest(l, c->name, c->type),
			 *renamed = d ? NULL : find_renamed(l, c, list, n);
	_cleanup_buf_ struct buf spec = {0}, old;
	int r = 0;

	if (renamed)
		link_rename_dest(l, d = renamed, c->name);
	else if (!d)
		r = add_dest(l, c, &d);
	if (r == 0)
		r = link_put_spec(&spec, d->id, c);
	if (r < 0)
		return r;
	d->configured = true;
	d->order = c->order;
	if (d->enabled != c->enabled || d->spec.len != spec.len ||
		(spec.len && memcmp(d->spec.data, spec.data, spec.len) != 0))
		l->config_dirty = true;
	d->enabled = c->enabled;
	old = d->spec;
	d->spec = spec;
	spec = (struct buf){0};
	return 0;
}

static int check_list(const struct config_destination *list, size_t n, struct err_text *err)
{
	size_t enabled = 0;

	for (size_t i = 0; i < n; i++) {
		if (strlen(list[i].name) >= PROTOCOL_NAME || strlen(list[i].type) >= 40)
			return err_set(err, -EINVAL, "the name of a destination is too long");
		enabled += list[i].enabled;
	}
	if (enabled > PROTOCOL_DESTINATIONS)
		return err_set(err, -E2BIG, "%zu destinations are enabled; at most %d can be",
			enabled, PROTOCOL_DESTINATIONS);
	return 0;
}

int link_configure(
	struct link *l, const struct config_destination *list, size_t n, struct err_text *err)
{
	int r = check_list(list, n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++)
		r = configure_dest(l, &list[i], list, n);
	if (r < 0)
		return err_set(
			err, r, "the exporter cannot be configured: %s", strerrordesc_np(-r));
	for (size_t i = 0; i < l->n_dests; i++) {
		struct link_dest *d = l->dests[i];
		bool stays = false;

		for (size_t k = 0; k < n && d->configured; k++)
			stays |= streq(list[k].name, d->row.name) &&
				streq(list[k].type, d->row.type);
		if (!stays) {
			l->config_dirty |= d->enabled;
			if (d->configured)
				link_forget_dest(l, d);
			d->configured = d->enabled = false;
		}
	}
	ledger_evict_unrouted(l);
	ledger_drop_unused_dests(l);
	link_feed(l);
	link_arm(l); /* starts it, if need be */
	return 0;
}

/* When what waits for it began. */
static uint64_t oldest_of(const struct link *l, const struct link_dest *d)
{
	for (size_t i = 0; i < l->n_batches && d->open; i++) {
		const struct link_batch *b = l->batches[i];

		for (size_t k = 0; k < b->n_routes; k++)
			if (b->routes[k].destination == d->id && !b->routes[k].final)
				return b->header.from_unix_ns;
	}
	return 0;
}

size_t link_destinations(struct link *l, const struct link_destination **list)
{
	struct link_destination *rows = reallocarray(l->rows, l->n_dests + 1, sizeof(*rows));
	size_t n = 0;

	*list = rows;
	if (!rows)
		return 0;
	l->rows = rows;
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->configured) {
			rows[n] = l->dests[i]->row;
			rows[n].recent = rate_get(&l->dests[i]->rate, clock_monotonic_ns());
			rows[n++].queued_since_unix_ns = oldest_of(l, l->dests[i]);
		}
	return n;
}
