/* SPDX-License-Identifier: Apache-2.0 */

/* When requests go: back-off within its bounds, what the backend asks for, the circuit, and the drain of a backlog. Time
 * is what the test says. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "destinations/pace.h"

#define S NSEC_PER_SEC

static void test_backs_off(void **state)
{
	struct pace p = {0};
	uint64_t now = 1000 * S, longest = 0;

	pace_init(&p, "a");
	assert_int_equal(p.next_try_ns, 0);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t bound = i < 7 ? (S / 2) << i : 60 * S, wait;

		pace_failed(&p, false, 0, now);
		wait = p.next_try_ns - now;
		assert_in_range(wait, 1, bound + NSEC_PER_MSEC);
		longest = wait > longest ? wait : longest;
		assert_int_equal(pace_wants_try(&p), i + 1 >= PACE_CIRCUIT);
		now = p.next_try_ns;
	}
	/* Of 193 draws below a minute one is above 45 s, but for once in 10^24. */
	assert_true(longest > 45 * S);
	pace_answered(&p, now);
	assert_false(pace_wants_try(&p));
	assert_int_equal(p.failures, 0);
	pace_failed(&p, false, 0, now);
	assert_in_range(p.next_try_ns - now, 1, S / 2 + NSEC_PER_MSEC);
}

/* What it asks for is waited for, and a tenth of it at most beyond, the same each time on one host. */
static void test_asked(void **state)
{
	struct pace p = {0};
	uint64_t first = 0;

	pace_init(&p, "a");
	for (unsigned i = 0; i < 20; i++) {
		uint64_t wait;

		pace_reset(&p);
		pace_failed(&p, false, 100 * S, 5 * S);
		wait = p.next_try_ns - 5 * S;
		assert_in_range(wait, 100 * S, 110 * S);
		first = first ? first : wait;
		assert_int_equal(wait, first);
	}
	pace_init(&p, "b");
	pace_failed(&p, false, 100 * S, 5 * S);
	assert_int_not_equal(p.next_try_ns - 5 * S, first);
}

static void test_blocked(void **state)
{
	struct pace p = {0};
	uint64_t now = S;

	pace_init(&p, "a");
	for (unsigned i = 0; i < 50; i++) {
		uint64_t bound = i < 6 ? (5 * S) << i : 300 * S;

		pace_failed(&p, true, 0, now);
		assert_in_range(p.next_try_ns - now, bound / 2, bound + NSEC_PER_MSEC);
		assert_true(pace_wants_try(&p)); /* from the first time on */
		now = p.next_try_ns;
	}
}

/* A small request that was taken lets one real request through; what it fails opens the circuit again. */
static void test_circuit(void **state)
{
	struct pace p = {0};

	pace_init(&p, "a");
	for (unsigned i = 0; i < PACE_CIRCUIT; i++) {
		assert_false(pace_wants_try(&p));
		pace_failed(&p, false, 0, i * S);
	}
	assert_true(pace_wants_try(&p));
	pace_tried(&p, 100 * S);
	assert_false(pace_wants_try(&p));
	assert_int_equal(p.next_try_ns, 100 * S);
	pace_failed(&p, false, 0, 101 * S);
	assert_true(pace_wants_try(&p));
	assert_int_equal(p.failures, PACE_CIRCUIT + 1);
	pace_tried(&p, 200 * S);
	pace_answered(&p, 201 * S);
	assert_false(pace_wants_try(&p));
}

/* After an outage the backlog begins at this host's place in a quarter of its time, and goes at its rate. */
static void test_drains(void **state)
{
	struct pace p = {.drain_rate = 1000};
	uint64_t begin;

	pace_init(&p, "a");
	assert_false(p.draining);
	pace_failed(&p, false, 0, 100 * S);
	assert_true(p.draining);
	pace_failed(&p, false, 0, 150 * S);
	pace_drain_end(&p);
	assert_true(p.draining); /* it is down still */
	pace_answered(&p, 180 * S);
	begin = p.next_drain_ns;
	assert_in_range(begin, 180 * S, 200 * S);
	pace_drained(&p, 3000, begin);
	assert_int_equal(p.next_drain_ns, begin + 3 * S);
	pace_drained(&p, 500, begin + S);
	assert_int_equal(p.next_drain_ns, begin + 3 * S + S / 2);
	pace_drained(&p, 1000, begin + 100 * S);
	assert_int_equal(p.next_drain_ns, begin + 101 * S);
	pace_answered(&p, begin + 102 * S); /* no failure before: nothing is spread anew */
	assert_int_equal(p.next_drain_ns, begin + 101 * S);
	pace_drain_end(&p);
	assert_false(p.draining);
	/* Of days at most half a minute. */
	pace_found_backlog(&p, 200000 * S, 300000 * S);
	assert_true(p.draining);
	assert_in_range(p.next_drain_ns, 300000 * S, 300030 * S);
	/* The biggest there can be do not wrap. */
	p.drain_rate = 1;
	pace_drained(&p, 1ULL << 26, 300000 * S);
	assert_true(p.next_drain_ns > 300000 * S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backs_off),
		cmocka_unit_test(test_asked),
		cmocka_unit_test(test_blocked),
		cmocka_unit_test(test_circuit),
		cmocka_unit_test(test_drains),
	};

	return cmocka_run_group_tests_name("destinations/pace", tests, NULL, NULL);
}
