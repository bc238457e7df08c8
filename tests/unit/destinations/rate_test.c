/* SPDX-License-Identifier: Apache-2.0 */

/* What was sent in the last minute, with times that are given: against a plain sum over all that was noted. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "destinations/rate.h"

#define BEGIN (1000 * NSEC_PER_SEC + 3)

static void test_young(void **state)
{
	struct rate r = {.since_ns = BEGIN};
	struct rate_sum s;

	s = rate_get(&r, BEGIN);
	assert_int_equal(s.batches + s.bytes + s.span_ns, 0);
	rate_note(&r, BEGIN + NSEC_PER_SEC, 1, 0);
	rate_note(&r, BEGIN + NSEC_PER_SEC, 0, 500);
	s = rate_get(&r, BEGIN + 20 * NSEC_PER_SEC);
	assert_int_equal(s.batches, 1);
	assert_int_equal(s.bytes, 500);
	assert_int_equal(s.span_ns, 20 * NSEC_PER_SEC);
}

static void test_forgets(void **state)
{
	struct rate r = {.since_ns = BEGIN};
	struct rate_sum s;

	rate_note(&r, BEGIN, 7, 7000);
	assert_int_equal(rate_get(&r, BEGIN + 54 * NSEC_PER_SEC).batches, 7);
	s = rate_get(&r, BEGIN + 60 * NSEC_PER_SEC);
	assert_int_equal(s.batches + s.bytes, 0);
	/* also after a time that is many rings long */
	rate_note(&r, BEGIN + 3600 * NSEC_PER_SEC, 2, 10);
	s = rate_get(&r, BEGIN + 3601 * NSEC_PER_SEC);
	assert_int_equal(s.batches, 2);
	assert_int_equal(s.bytes, 10);
}

/* What is in the span, at moments and of amounts that a small generator gives. */
static void test_sums(void **state)
{
	struct {
		uint64_t at, bytes;
	} noted[2000];
	struct rate r = {.since_ns = BEGIN};
	uint64_t now = BEGIN, seed = 12345;

	for (size_t i = 0; i < ARRAY_SIZE(noted); i++) {
		struct rate_sum s;
		uint64_t bytes = 0, batches = 0;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		now += (seed >> 33) % (seed >> 63 ? 400 * NSEC_PER_MSEC : 9 * NSEC_PER_SEC);
		noted[i].at = now;
		noted[i].bytes = (seed >> 40) % 100000;
		rate_note(&r, now, 1, noted[i].bytes);
		s = rate_get(&r, now);
		assert_true(s.span_ns <= 60 * NSEC_PER_SEC);
		assert_true(s.span_ns >= 55 * NSEC_PER_SEC || s.span_ns == now - BEGIN);
		for (size_t k = 0; k <= i; k++) {
			if (noted[k].at < now - s.span_ns)
				continue;
			batches++;
			bytes += noted[k].bytes;
		}
		assert_int_equal(s.batches, batches);
		assert_int_equal(s.bytes, bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_young),
		cmocka_unit_test(test_forgets), cmocka_unit_test(test_sums)};

	return cmocka_run_group_tests_name("destinations/rate", tests, NULL, NULL);
}
