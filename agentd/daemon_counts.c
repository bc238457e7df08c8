/* SPDX-License-Identifier: Apache-2.0 */

/* A stack is sent once, with an id, and then only counted in the kernel, until the halves of its
 * table are turned over (bpf/tables.h): so a count comes at a time when its sample is long booked,
 * or still waits for its image's facts, or was lost on the way. Here is kept which, by id.
 *
 * An id is the same number in each half. What was placed before a turn began is done with when the
 * turn ends, since its half was read; what is placed during the turn may be of the new half, whose
 * counts come with the next one, so it stays one turn longer. A record on its way is counted in and
 * out (counts_sent, counts_placed, counts_dropped): a count that finds no place waits as long as one
 * with its id is under way, and one turn more, since it may also be handed out before its record. The
 * bound and this rule end every wait, and whatever is given up is said, so the ledger closes.
 *
 * A stack that is counted was walked by the mappings of the time at which it was sent. When addresses
 * are given to another file afterwards (dlclose, dlopen), samples between that moment and the one
 * when the kernel learns of it are counted for a stack that they do not have, if it leads through the file
 * that had them. Only the time of the last of them is known, so all that were counted of such a stack are
 * said to be in doubt then. Runs in agentd. */

#include "agentd/daemon_counts.h"

#define MAX_IDS    (1U << 19)
#define MIN_SLOTS  256 /* of the index */
#define MAX_REUSES 256

struct entry {
	uint64_t id;
	uint64_t waiting, waiting_last_ns; /* samples without a place */
	uint64_t time_ns;                  /* of the sample that was placed */
	struct sample_image image;
	struct counts_place place;
	uint32_t on_way;        /* records sent, neither placed nor dropped */
	uint32_t turn;          /* in which it was placed */
	uint32_t waiting_since; /* turn */
	bool placed;
};

/* Of one image: all of what is between the first and the last time counts as reused, of all the files. */
struct reuse {
	struct sample_image image;
	uint64_t first_ns, last_ns, files;
	uint32_t turn;
};

struct counts {
	size_t max;
	struct entry *entries;
	size_t n, room;
	uint32_t *index; /* position + 1; 0: free */
	size_t slots;    /* a power of two */
	uint32_t turn;
	uint64_t waiting;
	struct reuse reuses[MAX_REUSES], any; /* any: of all images, when there are too many */
	size_t n_reuses;
	bool any_reused;
};

int counts_new(struct counts **ret, size_t max)
{
	struct counts *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->max = max ? MIN(max, (size_t)1 << 30) : MAX_IDS;
	*ret = c;
	return 0;
}

struct counts *counts_free(struct counts *c)
{
	if (!c)
		return NULL;
	free(c->entries);
	free(c->index);
	free(c);
	return NULL;
}

/* ---- the table ---- */

/* Ids are keyed hashes already: their bits need no more mixing than this. */
static size_t home(const struct counts *c, uint64_t id)
{
	return (size_t)((id * 0x9e3779b97f4a7c15ULL) >> 32) & (c->slots - 1);
}

static void link_entry(struct counts *c, size_t position)
{
	size_t at = home(c, c->entries[position].id);

	while (c->index[at])
		at = (at + 1) & (c->slots - 1);
	c->index[at] = (uint32_t)position + 1;
}

static int reindex(struct counts *c, size_t slots)
{
	if (slots != c->slots) {
		uint32_t *index = calloc(slots, sizeof(*index));

		if (!index)
			return -ENOMEM;
		free(c->index);
		c->index = index;
		c->slots = slots;
	} else {
		memset(c->index, 0, c->slots * sizeof(*c->index));
	}
	for (size_t i = 0; i < c->n; i++)
		link_entry(c, i);
	return 0;
}

static struct entry *find(const struct counts *c, uint64_t id)
{
	if (!c->slots)
		return NULL;
	for (size_t at = home(c, id); c->index[at]; at = (at + 1) & (c->slots - 1))
		if (c->entries[c->index[at] - 1].id == id)
			return &c->entries[c->index[at] - 1];
	return NULL;
}

static struct entry *get(struct counts *c, uint64_t id, int *error)
{
	struct entry *e = find(c, id);

	if (e)
		return e;
	*error = -ENOBUFS;
	if (c->n >= c->max)
		return NULL;
	*error = -ENOMEM;
	if (c->n == c->room) {
		size_t room = MAX(c->room * 2, (size_t)64);
		struct entry *entries = reallocarray(c->entries, room, sizeof(*entries));

		if (!entries)
			return NULL;
		c->entries = entries;
		c->room = room;
	}
	if (c->slots < 2 * (c->n + 1) && reindex(c, MAX(c->slots * 2, (size_t)MIN_SLOTS)) < 0)
		return NULL;
	e = &c->entries[c->n];
	*e = (struct entry){.id = id};
	link_entry(c, c->n++);
	return e;
}

/* Gives back what the last turn does not need; a failure to do so costs nothing. */
static void shrink(struct counts *c)
{
	size_t room = MAX(c->n * 2, (size_t)64), slots = MIN_SLOTS;
	struct entry *entries;

	while (slots < 4 * c->n)
		slots *= 2;
	if (c->room > 8 * room) {
		entries = reallocarray(c->entries, room, sizeof(*entries));
		if (entries) {
			c->entries = entries;
			c->room = room;
		}
	}
	if (c->slots && reindex(c, c->slots > 8 * slots ? slots : c->slots) < 0)
		reindex(c, c->slots);
}

/* ---- reuse of addresses ---- */

static bool same_image(const struct sample_image *a, const struct sample_image *b)
{
	return a->tgid == b->tgid && a->exec == b->exec && a->start_boottime == b->start_boottime;
}

static void widen(struct reuse *r, uint64_t time_ns, uint64_t files, uint32_t turn)
{
	r->files |= files;
	r->first_ns = MIN(r->first_ns, time_ns);
	r->last_ns = MAX(r->last_ns, time_ns);
	r->turn = turn;
}

void counts_reused(
	struct counts *c, const struct sample_image *image, uint64_t time_ns, uint64_t files)
{
	for (size_t i = 0; i < c->n_reuses; i++) {
		if (same_image(&c->reuses[i].image, image)) {
			widen(&c->reuses[i], time_ns, files, c->turn);
			return;
		}
	}
	if (c->n_reuses < MAX_REUSES) {
		c->reuses[c->n_reuses++] = (struct reuse){*image, time_ns, time_ns, files, c->turn};
		return;
	}
	if (!c->any_reused)
		c->any = (struct reuse){.first_ns = time_ns, .last_ns = time_ns};
	c->any_reused = true;
	widen(&c->any, time_ns, files, c->turn);
}

/* Sent before, and counted after. */
static bool spans(const struct reuse *r, const struct entry *e, uint64_t last_ns)
{
	return e->time_ns < r->last_ns && last_ns >= r->first_ns && (e->place.files & r->files);
}

static bool is_reused(const struct counts *c, const struct entry *e, uint64_t last_ns)
{
	if (c->any_reused && spans(&c->any, e, last_ns))
		return true;
	for (size_t i = 0; i < c->n_reuses; i++)
		if (same_image(&c->reuses[i].image, &e->image) && spans(&c->reuses[i], e, last_ns))
			return true;
	return false;
}

/* What is counted after this turn was sent after the one before. */
static void forget_reuses(struct counts *c)
{
	size_t n = 0;

	if (c->waiting)
		return;
	for (size_t i = 0; i < c->n_reuses; i++)
		if (c->turn - c->reuses[i].turn < 2)
			c->reuses[n++] = c->reuses[i];
	c->n_reuses = n;
	if (c->any_reused && c->turn - c->any.turn >= 2)
		c->any_reused = false;
}

/* ---- records and counts ---- */

static void fill(const struct counts *c, const struct entry *e, uint64_t samples, uint64_t last_ns,
	struct counts_due *due)
{
	*due = (struct counts_due){
		.samples = samples,
		.last_ns = last_ns,
		.image = e->image,
		.place = e->place,
		.reused = is_reused(c, e, last_ns),
	};
}

void counts_sent(struct counts *c, uint64_t id)
{
	int error;
	struct entry *e = get(c, id, &error);

	/* Without it counts that come too early are kept for one turn only. */
	if (e)
		e->on_way++;
}

bool counts_placed(struct counts *c, uint64_t id, const struct sample_image *image,
	uint64_t time_ns, const struct counts_place *place, struct counts_due *due)
{
	int error;
	struct entry *e = get(c, id, &error);

	if (!e)
		return false;
	e->on_way -= e->on_way > 0;
	e->placed = true;
	e->turn = c->turn;
	e->image = *image;
	e->time_ns = time_ns;
	e->place = *place;
	if (!e->waiting)
		return false;
	fill(c, e, e->waiting, e->waiting_last_ns, due);
	c->waiting -= e->waiting;
	e->waiting = 0;
	return true;
}

static uint64_t give_up(struct counts *c, struct entry *e)
{
	uint64_t samples = e->waiting;

	c->waiting -= samples;
	e->waiting = 0;
	return samples;
}

uint64_t counts_dropped(struct counts *c, uint64_t id)
{
	struct entry *e = find(c, id);

	if (!e)
		return 0;
	e->on_way -= e->on_way > 0;
	return e->on_way ? 0 : give_up(c, e);
}

int counts_add(
	struct counts *c, uint64_t id, uint64_t samples, uint64_t last_ns, struct counts_due *due)
{
	int error;
	struct entry *e = get(c, id, &error);

	if (!e)
		return error;
	if (e->placed) {
		fill(c, e, samples, last_ns, due);
		return 0;
	}
	if (!e->waiting)
		e->waiting_since = c->turn;
	e->waiting += samples;
	e->waiting_last_ns = MAX(e->waiting_last_ns, last_ns);
	c->waiting += samples;
	return COUNTS_WAIT;
}

/* ---- turns ---- */

void counts_turn(struct counts *c)
{
	c->turn++;
}

uint64_t counts_turned(struct counts *c, bool nothing_waits)
{
	uint64_t given_up = 0;
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		struct entry *e = &c->entries[i];

		if (nothing_waits)
			e->on_way = 0;
		if (e->turn != c->turn)
			e->placed = false;
		if (e->waiting && !e->on_way && e->waiting_since != c->turn)
			given_up += give_up(c, e);
		if (e->placed || e->waiting || e->on_way)
			c->entries[n++] = *e;
	}
	c->n = n;
	shrink(c);
	forget_reuses(c);
	return given_up;
}

uint64_t counts_clear(struct counts *c)
{
	uint64_t given_up = c->waiting;

	c->waiting = 0;
	c->n = 0;
	c->n_reuses = 0;
	c->any_reused = false;
	shrink(c);
	return given_up;
}

void counts_each(
	struct counts *c, void (*visit)(void *userdata, struct counts_place *place), void *userdata)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->entries[i].placed)
			visit(userdata, &c->entries[i].place);
}

uint64_t counts_waiting(const struct counts *c)
{
	return c->waiting;
}

size_t counts_ids(const struct counts *c)
{
	return c->n;
}
