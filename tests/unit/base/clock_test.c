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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_offset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
