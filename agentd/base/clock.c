/* SPDX-License-Identifier: Apache-2.0 */

/* The three clocks that the daemon uses.
 *
 * Samples and kernel events carry CLOCK_MONOTONIC, start times of processes carry CLOCK_BOOTTIME,
 * and the wire wants unix time. Order and intervals are always taken from the first; unix time is
 * for showing and sending only, since it jumps. All roles. */

#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/macros.h"

static uint64_t now_ns(clockid_t id)
{
	struct timespec ts = {0};

	/* Cannot fail for these clocks: they exist on every kernel that runs this. */
	(void)clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
	return now_ns(CLOCK_MONOTONIC);
}

uint64_t clock_boottime_ns(void)
{
	return now_ns(CLOCK_BOOTTIME);
}

uint64_t clock_unix_ns(void)
{
	return now_ns(CLOCK_REALTIME);
}

int64_t clock_unix_offset_ns(void)
{
	uint64_t best = UINT64_MAX;
	int64_t offset = 0;

	/* The two clocks cannot be read at one instant; of some tries the one with the least time
	 * between its two monotonic readings is the least disturbed by interrupts and stolen time.
	 */
	for (int i = 0; i < 4; i++) {
		uint64_t before = now_ns(CLOCK_MONOTONIC);
		uint64_t unix_time = now_ns(CLOCK_REALTIME);
		uint64_t gap = now_ns(CLOCK_MONOTONIC) - before;

		if (gap < best) {
			best = gap;
			offset = (int64_t)(unix_time - (before + gap / 2));
		}
	}
	return offset;
}

uint64_t clock_unix_begin(uint64_t from_unix_ns, uint64_t to_unix_ns, uint64_t elapsed_ns)
{
	uint64_t span = to_unix_ns - from_unix_ns;
	uint64_t off = span > elapsed_ns ? span - elapsed_ns : elapsed_ns - span;

	/* What ntp slews away is less than a second; a span is at least a nanosecond. */
	if (to_unix_ns > from_unix_ns && off < NSEC_PER_SEC)
		return from_unix_ns;
	return to_unix_ns - MIN(to_unix_ns, MAX(elapsed_ns, (uint64_t)1));
}
