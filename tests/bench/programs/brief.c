/* SPDX-License-Identifier: Apache-2.0 */

/* Lives for 100 ms of CPU time, under brief_leaf < brief_four < ... < brief_one < main, without frame
 * pointers. */

#include <stdint.h>
#include <time.h>

#define KEEP __attribute__((noinline, noipa))

static volatile uint64_t sink;

static uint64_t used_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

KEEP static void brief_leaf(uint64_t n)
{
	uint64_t x = n;

	for (uint64_t i = 0; i < n; i++)
		x = (x ^ (x >> 29)) * 6364136223846793005u;
	sink = x;
}

#define CALLS(name, callee, bytes)                                                                 \
	KEEP static void name(uint64_t n)                                                          \
	{                                                                                          \
		volatile char room[bytes];                                                         \
                                                                                                   \
		room[0] = 1;                                                                       \
		callee(n);                                                                         \
		sink += (uint64_t)room[0];                                                         \
	}
CALLS(brief_four, brief_leaf, 40)
CALLS(brief_three, brief_four, 200)
CALLS(brief_two, brief_three, 16)
CALLS(brief_one, brief_two, 72)

int main(void)
{
	while (used_ns() < 100000000)
		brief_one(100000);
	return 0;
}
