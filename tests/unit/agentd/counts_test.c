/* SPDX-License-Identifier: Apache-2.0 */

/* Counts of the kernel meet their samples, in whatever order both come, and none is booked twice or
 * forgotten. The last test plays kernel, ring, queue and turns at random and keeps its own books. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "agentd/daemon_counts.h"

static const struct sample_image image_a = {.tgid = 10, .exec = 1, .start_boottime = 7},
				 image_b = {.tgid = 11, .exec = 1, .start_boottime = 8};

static struct counts_place placed_at(uint32_t slot)
{
	return (struct counts_place){.fate = COUNTS_PLACED, .slot = slot, .value = 100, .files = 6};
}

static bool place(
	struct counts *c, uint64_t id, uint64_t time_ns, uint32_t slot, struct counts_due *due)
{
	struct counts_place p = placed_at(slot);

	return counts_placed(c, id, &image_a, time_ns, &p, due);
}

static uint64_t turn(struct counts *c)
{
	counts_turn(c);
	return counts_turned(c, false);
}

static void test_count_after_its_sample(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};

	assert_int_equal(counts_new(&c, 0), 0);
	counts_sent(c, 5);
	assert_false(place(c, 5, 1000, 3, &due));
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 12, 2000, &due), 0);
	assert_int_equal(due.samples, 12);
	assert_int_equal(due.last_ns, 2000);
	assert_int_equal(due.place.slot, 3);
	assert_int_equal(due.place.value, 100);
	assert_int_equal(due.image.tgid, 10);
	assert_false(due.reused);
	assert_int_equal(counts_turned(c, false), 0);
	assert_int_equal(counts_ids(c), 0);
	/* The same stack in the next half: it was sent anew, and that one still waits. */
	counts_sent(c, 5);
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 4, 3000, &due), COUNTS_WAIT);
	assert_int_equal(counts_waiting(c), 4);
}

static void test_count_before_its_sample(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};

	assert_int_equal(counts_new(&c, 0), 0);
	counts_sent(c, 5);
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 12, 2000, &due), COUNTS_WAIT);
	assert_int_equal(counts_turned(c, false), 0);
	/* Facts take their time: as long as the record is on its way its counts wait. */
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(turn(c), 0);
	counts_sent(c, 5); /* in a later half, and counted there */
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 3, 9000, &due), COUNTS_WAIT);
	assert_int_equal(counts_turned(c, false), 0);
	assert_int_equal(counts_waiting(c), 15);
	assert_true(place(c, 5, 1000, 8, &due));
	assert_int_equal(due.samples, 15);
	assert_int_equal(due.last_ns, 9000);
	assert_int_equal(due.place.slot, 8);
	assert_int_equal(counts_waiting(c), 0);
	assert_false(place(c, 5, 8500, 8, &due));
	assert_int_equal(turn(c), 0);
	assert_int_equal(turn(c), 0);
	assert_int_equal(counts_ids(c), 0);
}

/* Of the new half: its counts come with the next turn, when the interval of its sample is closed. */
static void test_sample_within_a_turn(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};

	assert_int_equal(counts_new(&c, 0), 0);
	counts_turn(c);
	counts_sent(c, 5);
	assert_false(place(c, 5, 1000, 3, &due));
	assert_int_equal(counts_turned(c, true), 0);
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 2, 1500, &due), 0);
	assert_int_equal(due.place.slot, 3);
	assert_int_equal(counts_turned(c, true), 0);
	assert_int_equal(counts_ids(c), 0);
}

static void carry(void *userdata, struct counts_place *p)
{
	p->slot += 100;
	(*(unsigned *)userdata)++;
}

static void test_places_move(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};
	unsigned calls = 0;

	assert_int_equal(counts_new(&c, 0), 0);
	assert_false(place(c, 4, 1000, 1, &due));
	counts_turn(c);
	assert_false(place(c, 5, 1000, 3, &due));
	counts_sent(c, 6);
	counts_turned(c, false);
	counts_each(c, carry, &calls);
	assert_int_equal(calls, 1); /* 4 is done with, 6 has no place */
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 2, 1500, &due), 0);
	assert_int_equal(due.place.slot, 103);
}

static void test_lost_records(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};

	assert_int_equal(counts_new(&c, 0), 0);
	/* Lost before its counts came, and one that never was heard of: kept for a turn, then given up. */
	counts_sent(c, 5);
	assert_int_equal(counts_dropped(c, 5), 0);
	counts_turn(c);
	assert_int_equal(counts_add(c, 5, 7, 1, &due), COUNTS_WAIT);
	assert_int_equal(counts_add(c, 6, 8, 1, &due), COUNTS_WAIT);
	assert_int_equal(counts_turned(c, false), 0);
	assert_int_equal(turn(c), 15);
	assert_int_equal(counts_waiting(c), 0);
	/* Handed out before its record: that comes within the turn. */
	counts_turn(c);
	assert_int_equal(counts_add(c, 6, 8, 1, &due), COUNTS_WAIT);
	counts_turned(c, true);
	counts_sent(c, 6);
	assert_true(place(c, 6, 1, 2, &due));
	assert_int_equal(due.samples, 8);
	/* Lost while its counts wait. Of two on their way the first loss gives nothing up. */
	counts_sent(c, 9);
	counts_turn(c);
	assert_int_equal(counts_add(c, 9, 3, 1, &due), COUNTS_WAIT);
	counts_turned(c, false);
	counts_sent(c, 9);
	assert_int_equal(counts_dropped(c, 9), 0);
	assert_int_equal(counts_dropped(c, 9), 3);
	assert_int_equal(counts_dropped(c, 9), 0);
	assert_int_equal(counts_dropped(c, 12345), 0);
	/* Nothing waits any more, whatever was said before. */
	counts_sent(c, 9);
	counts_turn(c);
	assert_int_equal(counts_add(c, 9, 3, 1, &due), COUNTS_WAIT);
	assert_int_equal(counts_turned(c, true), 0);
	counts_turn(c);
	assert_int_equal(counts_turned(c, true), 3);
	counts_turn(c);
	assert_int_equal(counts_add(c, 9, 3, 1, &due), COUNTS_WAIT);
	assert_int_equal(counts_clear(c), 3);
	assert_int_equal(counts_waiting(c), 0);
	assert_int_equal(counts_ids(c), 0);
}

static void test_reused_addresses(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};
	struct counts_place p = placed_at(9);

	assert_int_equal(counts_new(&c, 0), 0);
	assert_false(place(c, 1, 1000, 1, &due)); /* before, counted after */
	assert_false(place(c, 2, 1000, 2, &due)); /* before, counted before */
	assert_false(place(
		c, 3, 2000, 3, &due)); /* at that time: walked by what was known then, or cut */
	counts_placed(c, 4, &image_b, 1000, &p, &due); /* another image */
	p.files = 3;
	counts_placed(c, 8, &image_a, 1000, &p, &due); /* through other files alone */
	counts_reused(c, &image_a, 2000, 4);
	assert_false(place(c, 5, 1500, 5, &due)); /* comes later, is from before */
	counts_turn(c);
	assert_int_equal(counts_add(c, 1, 1, 2000, &due), 0);
	assert_true(due.reused);
	assert_int_equal(counts_add(c, 2, 1, 1999, &due), 0);
	assert_false(due.reused);
	assert_int_equal(counts_add(c, 3, 1, 3000, &due), 0);
	assert_false(due.reused);
	assert_int_equal(counts_add(c, 4, 1, 3000, &due), 0);
	assert_false(due.reused);
	assert_int_equal(counts_add(c, 5, 1, 3000, &due), 0);
	assert_true(due.reused);
	assert_int_equal(counts_add(c, 8, 1, 3000, &due), 0);
	assert_false(due.reused);
	/* Counts that wait are judged when their sample comes. */
	counts_sent(c, 6);
	assert_int_equal(counts_add(c, 6, 1, 3000, &due), COUNTS_WAIT);
	counts_turned(c, false);
	assert_int_equal(turn(c), 0);
	assert_int_equal(turn(c), 0);
	assert_true(place(c, 6, 1200, 6, &due));
	assert_true(due.reused);
	/* Two turns later nothing of before is left, and it is forgotten. */
	turn(c);
	turn(c);
	assert_false(place(c, 7, 1000, 7, &due));
	counts_turn(c);
	assert_int_equal(counts_add(c, 7, 1, 3000, &due), 0);
	assert_false(due.reused);
}

static void test_more_reuses_than_are_kept(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};

	assert_int_equal(counts_new(&c, 0), 0);
	for (uint32_t i = 0; i < 2000; i++) {
		struct sample_image image = {.tgid = 1000 + i, .exec = 1, .start_boottime = 1};

		counts_reused(c, &image, 5000, 2);
	}
	/* Some other image is in doubt with them: wrong on the safe side. */
	assert_false(place(c, 1, 4000, 1, &due));
	counts_turn(c);
	assert_int_equal(counts_add(c, 1, 1, 6000, &due), 0);
	assert_true(due.reused);
	turn(c);
	turn(c);
	assert_false(place(c, 1, 4000, 1, &due));
	counts_turn(c);
	assert_int_equal(counts_add(c, 1, 1, 6000, &due), 0);
	assert_false(due.reused);
}

static void test_bound(void **state)
{
	CLEANUP(counts_freep) struct counts *c = NULL;
	struct counts_due due = {};

	assert_int_equal(counts_new(&c, 1000), 0);
	for (uint64_t id = 1; id <= 3000; id++)
		counts_sent(c, id << 40);
	assert_int_equal(counts_ids(c), 1000);
	assert_int_equal(counts_add(c, 2000ULL << 40, 1, 1, &due), -ENOBUFS);
	assert_false(place(c, 2000ULL << 40, 1, 1, &due));
	assert_int_equal(counts_add(c, 500ULL << 40, 1, 1, &due), COUNTS_WAIT);
	assert_int_equal(counts_clear(c), 1);
	assert_int_equal(counts_add(c, 2000ULL << 40, 1, 1, &due), COUNTS_WAIT);
}

/* ---- at random ---- */

#define STACKS 300
#define QUEUE  500

struct play {
	struct counts *counts;
	uint64_t kernel[2][STACKS]; /* by half: 0 not sent, else 1 + counted */
	unsigned half;
	uint64_t queue[QUEUE]; /* ids between sampler and table */
	size_t queued;
	bool over; /* nothing is sampled any more */
	uint64_t taken, sent_placed, sent_lost, counted, due, refused, given_up;
	uint64_t by_stack[STACKS], sent_by_stack[STACKS], kernel_by_stack[STACKS];
	uint32_t random;
};

static uint32_t any(struct play *p, uint32_t n)
{
	p->random = p->random * 1664525 + 1013904223;
	return (uint32_t)(((uint64_t)p->random * n) >> 32);
}

static void take_due(struct play *p, const struct counts_due *due, uint64_t id)
{
	assert_int_equal(due->place.fate, COUNTS_PLACED);
	assert_int_equal(due->place.slot, id); /* never another's */
	p->due += due->samples;
	p->by_stack[id - 1] += due->samples;
}

static void sample(struct play *p)
{
	uint64_t id = 1 + any(p, STACKS);
	uint64_t *k = &p->kernel[p->half][id - 1];

	p->taken++;
	if (*k) {
		(*k)++;
		p->counted++;
		p->kernel_by_stack[id - 1]++;
		return;
	}
	if (p->queued == QUEUE) { /* the ring is full: not sent, not entered */
		p->sent_lost++;
		return;
	}
	*k = 1;
	counts_sent(p->counts, id);
	if (any(p, 50) == 0) { /* no room behind the ring */
		p->given_up += counts_dropped(p->counts, id);
		p->sent_lost++;
		return;
	}
	p->queue[p->queued++] = id;
}

static void deliver(struct play *p)
{
	struct counts_due due = {};
	uint64_t id;

	if (!p->queued)
		return;
	id = p->queue[0];
	memmove(p->queue, p->queue + 1, --p->queued * sizeof(p->queue[0]));
	if (any(p, 40) == 0) {
		p->given_up += counts_dropped(p->counts, id);
		p->sent_lost++;
		return;
	}
	p->sent_placed++;
	p->sent_by_stack[id - 1]++;
	if (place(p->counts, id, 1, (uint32_t)id, &due))
		take_due(p, &due, id);
}

static void collect(struct play *p)
{
	unsigned old = p->half;
	struct counts_due due = {};

	counts_turn(p->counts);
	p->half ^= 1;
	for (unsigned i = p->over ? 0 : any(p, 20); i; i--)
		sample(p); /* of the new half, in the midst of it */
	for (unsigned i = any(p, 20); i; i--)
		deliver(p);
	for (uint64_t id = 1; id <= STACKS; id++) {
		uint64_t n = p->kernel[old][id - 1];
		int r;

		p->kernel[old][id - 1] = 0;
		if (n < 2)
			continue;
		r = counts_add(p->counts, id, n - 1, 1, &due);
		if (r == 0)
			take_due(p, &due, id);
		else if (r < 0)
			p->refused += n - 1;
	}
	p->given_up += counts_turned(p->counts, p->queued == 0);
}

static void test_books_close_at_random(void **state)
{
	for (uint32_t seed = 1; seed <= 30; seed++) {
		struct play p = {.random = seed};
		uint64_t most = 0;

		assert_int_equal(counts_new(&p.counts, seed % 3 ? 0 : 250), 0);
		for (unsigned step = 0; step < 20000; step++) {
			uint32_t what = any(&p, 100);

			if (what < 60)
				sample(&p);
			else if (what < 99)
				deliver(&p);
			else
				collect(&p);
			most = MAX(most, counts_waiting(p.counts));
		}
		p.over = true;
		collect(&p);
		collect(&p);
		while (p.queued)
			deliver(&p);
		collect(&p);
		collect(&p);
		assert_int_equal(counts_waiting(p.counts), 0);
		assert_true(most > 0);
		assert_true(p.due > 1000);
		assert_int_equal(p.counted, p.due + p.refused + p.given_up);
		assert_int_equal(p.taken, p.sent_placed + p.sent_lost + p.counted);
		for (unsigned i = 0; i < STACKS; i++)
			assert_true(p.by_stack[i] <= p.kernel_by_stack[i]);
		/* With room for all, only what lost its sample is lost. */
		if (seed % 3)
			assert_true(p.refused == 0 && p.given_up * 5 < p.counted);
		p.counts = counts_free(p.counts);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count_after_its_sample),
		cmocka_unit_test(test_count_before_its_sample),
		cmocka_unit_test(test_sample_within_a_turn),
		cmocka_unit_test(test_places_move),
		cmocka_unit_test(test_lost_records),
		cmocka_unit_test(test_reused_addresses),
		cmocka_unit_test(test_more_reuses_than_are_kept),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_books_close_at_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
