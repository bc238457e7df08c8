/* SPDX-License-Identifier: Apache-2.0 */

/* What was handed to the exporter, and what it says became of it.
 *
 * For each batch and destination agentd keeps a route: how far delivery is and the counts of the last answer. A sample
 * is in exactly one place: held, or settled with one fate; routed is their sum at any time, so the ledger closes by
 * construction if only no answer is believed that cannot be. So an answer must be about an open route, its counts may
 * only grow, may not exceed what the batch holds, and must be all of it when it is final. An answer that breaks this
 * makes the exporter a liar: its counts are not taken, and it is replaced (link.c).
 *
 * Batches stay here until they are through everywhere; of those that the spool has only the routes do. A successor is
 * given the others again and goes on where the last answer left off; how far it is with those in the spool it says
 * itself (link_recover.c). One request can be doubled: the one that the backend took and whose answer died with
 * the exporter. What is not in the spool stays as a mapping of its sealed memfd: no descriptor, and no memory beside the
 * pages that the exporter has mapped, too.
 *
 * What agentd itself gives up is in link_giveup.c. Runs in agentd. */

#include <sys/mman.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "destinations/link_private.h"

struct link_dest *ledger_dest(struct link *l, uint32_t id)
{
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->id == id)
			return l->dests[i];
	return NULL;
}

void ledger_free_dest(struct link_dest *d)
{
	if (d) {
		buf_deinit(&d->spec);
		free(d);
	}
}

static void free_batch(struct link_batch *b)
{
	if (!b)
		return;
	if (b->bytes)
		munmap(b->bytes, b->size);
	closep(&b->memfd);
	for (size_t i = 0; b->routes && i < b->n_routes; i++)
		free(b->routes[i].counts);
	free(b->routes);
	free(b);
}

static void free_batchp(struct link_batch **b)
{
	free_batch(*b);
}

/* Index of the batch with this id, or -1. */
static ssize_t find_batch(const struct link *l, uint64_t id)
{
	size_t low = 0, high = l->n_batches;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->batches[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < l->n_batches && l->batches[low]->id == id ? (ssize_t)low : -1;
}

static void remove_batch(struct link *l, size_t i)
{
	struct link_batch *b = l->batches[i];

	l->bytes -= b->durable ? 0 : b->size;
	l->n_batches--;
	memmove(&l->batches[i], &l->batches[i + 1], (l->n_batches - i) * sizeof(*l->batches));
	free_batch(b);
}

/* ---- settling ------------------------------------------------------------------------------------ */

static uint64_t settled(const struct message_counts *c, size_t type)
{
	uint64_t sum = 0;

	for (size_t f = 0; f < FATES; f++)
		sum += c->samples[f][type];
	return sum;
}

const struct message_counts *ledger_route_counts(const struct link_route *r)
{
	static const struct message_counts none;

	return r->counts ? r->counts : &none;
}

uint64_t ledger_left(const struct link_batch *b, const struct message_counts *c, size_t t)
{
	uint64_t left = b->header.samples[t];

	for (size_t f = 0; f < FATES; f++)
		left -= MIN(left, c->samples[f][t]);
	return left;
}

/* Whether counts can follow those of the route. Sums cannot overflow: each is compared before it is added. */
const char *ledger_check_counts(const struct link_batch *b, const struct link_route *route,
	const struct message_counts *counts, bool final)
{
	const struct message_counts *before = ledger_route_counts(route);

	for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
		uint64_t left = b->header.samples[t];

		for (size_t f = 0; f < FATES; f++) {
			uint64_t n = counts->samples[f][t];

			if (n < before->samples[f][t])
				return "counts became less";
			if (n > left)
				return "more samples than it was given";
			left -= n;
		}
		if (final && left)
			return "not all samples of a batch that is through";
	}
	return NULL;
}

static void add_counts(struct link_dest *d, const struct message_counts *from,
	const struct message_counts *to, bool spooled)
{
	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		uint64_t more[FATES];

		for (size_t f = 0; f < FATES; f++) {
			more[f] = to->samples[f][t] - from->samples[f][t];
			d->row.ledger[t].held -= more[f];
			if (spooled)
				d->spooled.samples[f][t] += more[f];
		}
		d->row.ledger[t].delivered += more[FATE_DELIVERED];
		d->row.ledger[t].rejected += more[FATE_REJECTED];
		d->row.ledger[t].evicted += more[FATE_EVICTED];
		d->row.ledger[t].shaped += more[FATE_SHAPED];
	}
}

static bool nothing(const struct message_counts *c)
{
	for (size_t t = 0; t < PROTOCOL_TYPES; t++)
		if (settled(c, t))
			return false;
	return true;
}

static size_t index_of(const struct link *l, const struct link_batch *b)
{
	size_t i = 0;

	while (l->batches[i] != b)
		i++;
	return i;
}

bool ledger_take(struct link *l, struct link_batch *b, size_t i,
	const struct message_counts *counts, bool final)
{
	struct link_route *route = &b->routes[i];
	struct link_dest *d = ledger_dest(l, route->destination);
	ssize_t at;
	bool delivered = false;

	if (d) {
		add_counts(d, ledger_route_counts(route), counts, b->durable);
		link_save_soon(l, d);
	}
	if (final) {
		/* Nobody asks any more how far it is. */
		free(route->counts);
		route->counts = NULL;
	} else if (!nothing(counts)) {
		if (!route->counts)
			route->counts = calloc(1, sizeof(*route->counts));
		/* Without memory the ledger would be wrong for ever; this is 256 bytes. */
		if (!route->counts)
			abort();
		*route->counts = *counts;
	}
	if (!final)
		return false;
	route->final = true;
	b->n_open--;
	for (size_t t = 0; t < PROTOCOL_TYPES; t++)
		delivered |= counts->samples[FATE_DELIVERED][t] > 0;
	if (d) {
		d->open--;
		d->row.queued_batches--;
		d->row.queued_bytes -= b->size;
		d->row.sent_batches += delivered;
		rate_note(&d->rate, clock_monotonic_ns(), delivered, 0);
	}
	if (b->n_open)
		return false;
	at = find_batch(l, b->id);
	remove_batch(l, at >= 0 ? (size_t)at : index_of(l, b));
	return true;
}

void ledger_make_durable(struct link *l, struct link_batch *b)
{
	if (b->durable)
		return;
	b->durable = true;
	l->bytes -= b->size;
	if (b->bytes)
		munmap(b->bytes, b->size);
	b->bytes = NULL;
	closep(&b->memfd);
	/* What was settled before is in the spool's totals from now on. */
	for (size_t i = 0; i < b->n_routes; i++) {
		struct link_dest *d = ledger_dest(l, b->routes[i].destination);
		const struct message_counts *c = ledger_route_counts(&b->routes[i]);

		for (size_t f = 0; d && !b->routes[i].final && f < FATES; f++)
			for (size_t t = 0; t < PROTOCOL_TYPES; t++)
				d->spooled.samples[f][t] += c->samples[f][t];
	}
}

/* ---- answers ------------------------------------------------------------------------------------- */

int ledger_answer(struct link *l, const struct message_answer *a, const char **why)
{
	ssize_t at = find_batch(l, a->id);
	struct link_batch *b = at < 0 ? NULL : l->batches[at];
	size_t i = 0;

	*why = "a batch that it does not have";
	if (!b || !b->given)
		return -EBADMSG;
	while (i < b->n_routes && b->routes[i].destination != a->destination)
		i++;
	*why = "a destination that the batch does not go to";
	if (i == b->n_routes)
		return -EBADMSG;
	*why = "a batch that is through";
	if (b->routes[i].final || a->final > 1)
		return -EBADMSG;
	*why = "it went back";
	if (a->row < b->routes[i].row)
		return -EBADMSG;
	*why = ledger_check_counts(b, &b->routes[i], &a->counts, a->final);
	if (*why)
		return -EBADMSG;
	b->routes[i].row = a->row;
	if (a->final ||
		memcmp(ledger_route_counts(&b->routes[i]), &a->counts, sizeof(a->counts)) != 0)
		l->ends_for_nothing = l->ends_in_a_row = 0;
	ledger_take(l, b, i, &a->counts, a->final);
	return 0;
}

int ledger_held(struct link *l, const struct message_held *m, const char **why)
{
	ssize_t at = find_batch(l, m->id);
	struct link_batch *b = at < 0 ? NULL : l->batches[at];

	*why = "a batch that it does not have, or has already";
	/* One in memory may come to the disk later. */
	if (!b || !b->given || b->durable || (b->held && !m->durable) || m->durable > 1)
		return -EBADMSG;
	*why = "that it has a spool, which it has not";
	if (m->durable && !l->ready)
		return -EBADMSG;
	b->held = true;
	if (m->durable) {
		ledger_make_durable(l, b);
		b->session = l->session;
		/* Taking batches in is getting something done. */
		l->ends_for_nothing = l->ends_in_a_row = 0;
	}
	return 0;
}

/* ---- adding -------------------------------------------------------------------------------------- */

static int make_routes(struct link *l, struct link_batch *b)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n_dests; i++)
		n += l->dests[i]->enabled;
	b->routes = calloc(n + 1, sizeof(*b->routes));
	if (!b->routes)
		return -ENOMEM;
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->enabled)
			b->routes[b->n_routes++].destination = l->dests[i]->id;
	b->n_open = b->n_routes;
	return 0;
}

static void count_routed(struct link *l, const struct link_batch *b)
{
	for (size_t i = 0; i < b->n_routes; i++) {
		struct link_dest *d = ledger_dest(l, b->routes[i].destination);

		d->open++;
		d->row.queued_batches++;
		d->row.queued_bytes += b->size;
		for (size_t t = 0; t < PROFILE_TYPES; t++) {
			d->row.ledger[t].routed += b->header.samples[t];
			d->row.ledger[t].held += b->header.samples[t];
		}
		link_save_soon(l, d);
	}
}

static int make_room(struct link *l)
{
	size_t room = MAX(2 * l->room_batches, (size_t)64);
	struct link_batch **grown;

	if (l->n_batches < l->room_batches)
		return 0;
	grown = reallocarray(l->batches, room, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	l->batches = grown;
	l->room_batches = room;
	return 0;
}

int ledger_add_recovered(struct link *l, const struct message_recovered *m, struct link_batch **ret)
{
	CLEANUP(free_batchp) struct link_batch *b = calloc(1, sizeof(*b));
	size_t at = l->n_batches;
	int r = b ? make_room(l) : -ENOMEM;

	if (r < 0)
		return r;
	b->memfd = -1;
	b->routes = calloc(m->n_routes + 1, sizeof(*b->routes));
	if (!b->routes)
		return -ENOMEM;
	b->id = ++l->next_recovered;
	b->header = m->batch;
	b->size = m->size;
	b->given = b->held = b->durable = true;
	for (size_t i = 0; i < m->n_routes; i++) {
		const struct message_route *from = &m->routes[i];
		struct link_dest *d = ledger_dest(l, from->destination);
		struct link_route *to = &b->routes[b->n_routes];

		if (!d || !d->enabled)
			continue;
		*to = (struct link_route){.destination = from->destination, .row = from->row};
		if (!nothing(&from->counts)) {
			to->counts = malloc(sizeof(*to->counts));
			if (!to->counts)
				return -ENOMEM;
			*to->counts = from->counts;
		}
		b->n_routes++;
	}
	b->n_open = b->n_routes;
	if (!b->n_routes)
		return -ENOENT;
	for (size_t i = 0; i < b->n_routes; i++) {
		struct link_dest *d = ledger_dest(l, b->routes[i].destination);

		d->open++;
		d->row.queued_batches++;
		d->row.queued_bytes += b->size;
		/* What is settled of it comes with the totals. */
		for (size_t t = 0; t < PROFILE_TYPES; t++) {
			uint64_t left = ledger_left(b, ledger_route_counts(&b->routes[i]), t);

			d->row.ledger[t].routed += left;
			d->row.ledger[t].held += left;
		}
	}
	while (at > 0 && l->batches[at - 1]->id > b->id)
		at--;
	memmove(&l->batches[at + 1], &l->batches[at], (l->n_batches - at) * sizeof(*l->batches));
	l->n_batches++;
	*ret = b;
	l->batches[at] = TAKE_PTR(b);
	return 0;
}

int ledger_add(struct link *l, const struct batch_header *header, int memfd)
{
	_cleanup_close_ int fd = memfd;
	CLEANUP(free_batchp) struct link_batch *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	b->memfd = -1;
	for (size_t t = PROFILE_TYPES; t < PROTOCOL_TYPES; t++)
		if (header->samples[t])
			return -EINVAL;
	for (size_t t = 0; t < PROFILE_TYPES; t++)
		if (header->samples[t] > INT64_MAX)
			return -EINVAL;
	r = io_check_sealed(fd, PROFILE_MAX_ENCODED, &b->size);
	if (r == 0)
		r = make_routes(l, b);
	if (r < 0 || !b->n_routes)
		return r;
	r = make_room(l);
	if (r < 0)
		return r;
	if (b->size) {
		/* MAP_PRIVATE: older kernels refuse a shared mapping of what is sealed against writing. */
		void *bytes = mmap(NULL, b->size, PROT_READ, MAP_PRIVATE, fd, 0);

		if (bytes == MAP_FAILED)
			return -errno;
		b->bytes = bytes;
	}
	b->id = ++l->next_batch;
	b->header = *header;
	b->memfd = TAKE_FD(fd);
	l->bytes += b->size;
	count_routed(l, b);
	l->batches[l->n_batches++] = TAKE_PTR(b);
	return 0;
}

/* ---- its end ------------------------------------------------------------------------------------- */

void ledger_drop_unused_dests(struct link *l)
{
	for (size_t i = 0; i < l->n_dests;) {
		if (l->dests[i]->configured || l->dests[i]->open) {
			i++;
			continue;
		}
		ledger_free_dest(l->dests[i]);
		l->n_dests--;
		memmove(&l->dests[i], &l->dests[i + 1], (l->n_dests - i) * sizeof(*l->dests));
	}
}

void ledger_deinit(struct link *l)
{
	for (size_t i = 0; i < l->n_batches; i++)
		free_batch(l->batches[i]);
	for (size_t i = 0; i < l->n_dests; i++)
		ledger_free_dest(l->dests[i]);
	free(l->batches);
	free(l->dests);
	free(l->rows);
}
