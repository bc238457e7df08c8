/* SPDX-License-Identifier: Apache-2.0 */

/* The arena of rows: pages of text that samples met, in memory that never grows.
 *
 * A slot is a run of units, put in by a clock: a hand goes over the arena; what was looked at since
 * it came by last keeps its place and loses its mark, what was not makes room, until enough units
 * lie side by side. Programs in the kernel set the marks. While there is plenty of free memory the
 * hand looks for that alone, so nothing is put out before the arena has been full.
 *
 * Programs find a slot through the index only. Taking one away: its key in the index first, then
 * key and sequence number in its head, then nothing more until no program that began before is at
 * work (quiet.h), and only then other contents. Putting one in: contents, head, and last its key in
 * the index. Stores of keys and sequence numbers are releases, so that no CPU sees a later one
 * without the earlier ones (arm64; x86 keeps their order anyway).
 *
 * Invariants: a slot that has a way has len[] at its first unit and a key in its head that are
 * that way's; the units behind its first are marked INNER; the hand never stands on one of those;
 * no slot crosses the border of a chunk;
 * seq is never 0 in a slot that holds something and never the same twice in one place. What we
 * need for our own decisions is in len[] and in heads that we wrote ourselves.
 *
 * Source: second chance, F. J. Corbato, A Paging Experiment with the Multics System, 1968. Runs in
 * agentd. */

#include "agentd/sampler/rows.h"
#include "agentd/unwind/slot.h"

#define INNER       255
#define CHUNK       (ROWS_CHUNK >> ROWS_UNIT_SHIFT) /* units; no slot crosses the border of two */
#define PASSES      3  /* of the hand, before marks are not looked at any more */
#define PLENTY      32 /* a part in so many is free: no page has to go yet */
#define QUIET_NS    (20 * NSEC_PER_MSEC)
#define UNITS(size) ((uint32_t)(((size) + ROWS_UNIT - 1) >> ROWS_UNIT_SHIFT))
_Static_assert(UNITS(ROWS_SLOT_MAX) < INNER, "the length of a slot fits");
_Static_assert(ROWS_UNIT % 16 == 0 && sizeof(struct rows_slot) % 16 == 0, "rules are aligned");

unsigned rows_index_bits(size_t bytes)
{
	unsigned bits = 1;

	while (bits < 20 && ((size_t)ROWS_WAYS << bits) < 2 * (bytes >> ROWS_UNIT_SHIFT))
		bits++;
	return bits;
}

int rows_init(struct rows *r, void *arena, size_t bytes, struct rows_set *sets, unsigned bits,
	struct quiet *quiet)
{
	uint32_t n_units = (uint32_t)(bytes >> ROWS_UNIT_SHIFT);
	uint8_t *len = calloc(n_units, 1);

	if (!len)
		return -ENOMEM;
	*r = (struct rows){
		.arena = arena,
		.sets = sets,
		.quiet = quiet,
		.bits = bits,
		.n_units = n_units,
		.len = len,
		.free_units = n_units,
	};
	return 0;
}

void rows_deinit(struct rows *r)
{
	free(r->len);
	*r = (struct rows){0};
}

static struct rows_slot *slot_at(const struct rows *r, uint32_t unit)
{
	return (struct rows_slot *)(r->arena + ((size_t)unit << ROWS_UNIT_SHIFT));
}

static struct rows_way *find_way(const struct rows *r, uint64_t key)
{
	struct rows_set *set = &r->sets[ROWS_SET(key, r->bits)];

	for (unsigned i = 0; i < ROWS_WAYS; i++)
		if (set->way[i].key == key)
			return &set->way[i];
	return NULL;
}

static uint32_t next_seq(struct rows *r)
{
	r->seq = r->seq == UINT32_MAX ? 1 : r->seq + 1;
	return r->seq;
}

/* Takes a slot away. Its units are free, but not to be written before all is quiet. */
static void retire(struct rows *r, struct rows_way *way)
{
	uint32_t file = (uint32_t)(way->key >> 32);
	uint32_t unit = way->unit, n = r->len[unit];
	struct rows_slot *slot = slot_at(r, unit);

	__atomic_store_n(&way->key, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->key, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->seq, next_seq(r), __ATOMIC_RELEASE);
	r->of_file[file % ROWS_FILES]--;
	r->pages--;
	r->used_bytes -= slot->size;
	memset(r->len + unit, 0, n);
	r->free_units += n;
	r->retired = true;
}

static void evict(struct rows *r, struct rows_way *way)
{
	retire(r, way);
	r->evicted++;
}

/* Puts out all slots in a run of units whose ends are those of slots. */
static void evict_run(struct rows *r, uint32_t from, uint32_t to)
{
	while (from < to) {
		uint32_t n = r->len[from];

		if (n)
			evict(r, find_way(r, slot_at(r, from)->key));
		from += n ? n : 1;
	}
}

/* Free units side by side, from the hand on. UINT32_MAX: none. */
static uint32_t find_free(const struct rows *r, uint32_t n)
{
	uint32_t at = r->hand, run = 0, passed = 0;

	while (passed < r->n_units + n) {
		if (at == r->n_units)
			at = 0;
		if (at % CHUNK == 0)
			run = 0;
		if (r->len[at]) {
			passed += r->len[at];
			at += r->len[at];
			run = 0;
			continue;
		}
		passed++;
		at++;
		if (++run == n)
			return at - n;
	}
	return UINT32_MAX;
}

/* Units side by side that are free or whose slots nobody looked at. */
static uint32_t turn_hand(struct rows *r, uint32_t n)
{
	uint32_t from = r->hand, at = from;

	for (unsigned pass = 0; at - from < n;) {
		struct rows_way *way;

		if (at == r->n_units) {
			at = from = 0;
			pass++;
			continue;
		}
		if (at % CHUNK == 0)
			from = at;
		if (!r->len[at]) {
			at++;
			continue;
		}
		way = find_way(r, slot_at(r, at)->key);
		at += r->len[at];
		if (!way->used || pass >= PASSES)
			continue;
		__atomic_store_n(&way->used, 0, __ATOMIC_RELAXED);
		from = at;
	}
	evict_run(r, from, at);
	return from;
}

static uint32_t claim(struct rows *r, uint32_t n)
{
	uint32_t unit = UINT32_MAX;

	if (r->free_units >= MAX(n, r->n_units / PLENTY))
		unit = find_free(r, n);
	return unit != UINT32_MAX ? unit : turn_hand(r, n);
}

/* A free way of the key's set; the page that was looked at least goes for it, if need be. */
static struct rows_way *make_way(struct rows *r, uint64_t key)
{
	struct rows_set *set = &r->sets[ROWS_SET(key, r->bits)];
	struct rows_way *worst = NULL;
	uint32_t worst_age = 0;

	for (unsigned i = 0; i < ROWS_WAYS; i++) {
		struct rows_way *way = &set->way[i];
		uint32_t age;

		if (!way->key)
			return way;
		age = r->seq - slot_at(r, way->unit)->seq;
		if (!worst || (!way->used && worst->used) ||
			(!way->used == !worst->used && age > worst_age)) {
			worst = way;
			worst_age = age;
		}
	}
	evict(r, worst);
	return worst;
}

static void put_in(struct rows *r, struct rows_way *way, uint32_t unit, uint64_t key,
	const struct rows_slot *from, size_t size)
{
	struct rows_slot *to = slot_at(r, unit);
	uint32_t n = UNITS(size);

	memset(r->len + unit, INNER, n);
	r->len[unit] = (uint8_t)n;
	r->free_units -= n;
	r->hand = unit + n == r->n_units ? 0 : unit + n;
	__atomic_store_n(&to->key, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&to->seq, next_seq(r), __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(to + 1, from + 1, size - sizeof(*to));
	to->pad = 0;
	to->n_rows = from->n_rows;
	to->n_rules = from->n_rules;
	to->rules_at = from->rules_at;
	to->size = from->size;
	memcpy(to->part, from->part, sizeof(to->part));
	__atomic_store_n(&to->key, key, __ATOMIC_RELEASE);
	way->unit = unit;
	way->used = 0; /* whoever asked for it marks it by looking, and so does the next walk */
	__atomic_store_n(&way->key, key, __ATOMIC_RELEASE);
	r->of_file[(uint32_t)(key >> 32) % ROWS_FILES]++;
	r->pages++;
	r->used_bytes += size;
	r->added++;
}

int rows_add(struct rows *r, uint32_t file, uint32_t page, const void *slot, size_t size)
{
	uint64_t key = ROWS_KEY(file, page);
	struct rows_way *way;
	uint32_t unit;

	if (file == 0 || rows_slot_check(slot, size) < 0)
		return -EBADMSG;
	way = find_way(r, key);
	if (way)
		retire(r, way);
	else
		way = make_way(r, key);
	unit = claim(r, UNITS(size));
	if (r->retired) {
		if (!quiet_wait(r->quiet, QUIET_NS))
			return -EAGAIN;
		r->retired = false;
	}
	put_in(r, way, unit, key, slot, size);
	return 0;
}

const struct rows_slot *rows_find(struct rows *r, uint32_t file, uint32_t page)
{
	struct rows_way *way = file ? find_way(r, ROWS_KEY(file, page)) : NULL;

	if (!way)
		return NULL;
	if (!way->used)
		__atomic_store_n(&way->used, 1, __ATOMIC_RELAXED);
	return slot_at(r, way->unit);
}

void rows_forget_file(struct rows *r, uint32_t file)
{
	if (file == 0 || !r->of_file[file % ROWS_FILES])
		return; /* most files that go have none */
	for (size_t i = 0; i < (size_t)1 << r->bits; i++)
		for (unsigned j = 0; j < ROWS_WAYS; j++)
			if (r->sets[i].way[j].key >> 32 == file)
				retire(r, &r->sets[i].way[j]);
}
