/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/macros.h"

/* Each clock lies between two readings of the kernel's clock that it says it is. */
static uint64_t reading(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void test_clocks(void **s)
{
	const struct {
		clockid_t id;
		uint64_t (*get)(void);
	} clocks[] = {
		{CLOCK_MONOTONIC, clock_monotonic_ns},
		{CLOCK_BOOTTIME, clock_boottime_ns},
		{CLOCK_REALTIME, clock_unix_ns},
	};

	for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
		uint64_t before = reading(clocks[i].id), now = clocks[i].get();

		assert_true(now >= before);
		assert_true(now <= reading(clocks[i].id));
	}
}

static void test_offset(void **s)
{
	/* The offset as of now, within the time that asking takes. */
	uint64_t mono_before = clock_monotonic_ns(), unix_before = clock_unix_ns();
	int64_t offset = clock_unix_offset_ns();
	uint64_t unix_after = clock_unix_ns(), mono_after = clock_monotonic_ns();

	assert_true((int64_t)(unix_before - mono_after) <= offset);
	assert_true(offset <= (int64_t)(unix_after - mono_before));
}

/* Where a span began, whatever was done to the clock meanwhile. */
static void test_begin(void **s)
{
	const uint64_t t = UINT64_C(1792627200) * NSEC_PER_SEC, sec = NSEC_PER_SEC,
		       day = 86400 * NSEC_PER_SEC;

	/* left alone, or slewed by a little: as it was read */
	assert_int_equal(clock_unix_begin(t, t + 10 * sec, 10 * sec), t);
	assert_int_equal(clock_unix_begin(t, t + 10 * sec, 10 * sec + sec / 100), t);
	assert_int_equal(clock_unix_begin(t, t + 10 * sec, 10 * sec - sec / 100), t);
	/* a day forth, a day back: ten seconds, counted back from the end */
	assert_int_equal(clock_unix_begin(t, t + day + 10 * sec, 10 * sec), t + day);
	assert_int_equal(clock_unix_begin(t, t - day + 10 * sec, 10 * sec), t - day);
	/* back by less than a second, and no span would be left */
	assert_int_equal(clock_unix_begin(t, t - sec / 10, sec / 2), t - sec / 10 - sec / 2);
	assert_int_equal(clock_unix_begin(t, t, 0), t - 1);
	/* a clock that begins at 1970 */
	assert_int_equal(clock_unix_begin(t, sec, 10 * sec), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_offset),
		cmocka_unit_test(test_begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
