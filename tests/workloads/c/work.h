/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Work of known size, for programs whose profile is known before it is taken.
 *
 * One unit is a chain of dependent operations that no compiler can shorten: its time is their
 * latency, the same in every function wherever the linker puts it, and hardly touched by a sibling
 * thread of the core. Shares of CPU time are therefore the shares of units. Rounds have a random
 * length around a millisecond, so that no sampling rate can fall into step with them. */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WORK_NOINLINE __attribute__((noinline, noipa))

/* Units in a hundredth of an average round: 100 * 250 are about a millisecond. */
#define WORK_ROUND 250

/* The loop itself, inlined into every leaf: `salt` differs so that no two leaves can be folded into
 * one. */
#define WORK_BODY(units, salt)                                                                     \
	do {                                                                                       \
		uint64_t work_x = (units) ^ (salt);                                                \
		for (uint64_t work_i = 0; work_i < (units)*32; work_i++)                           \
			work_x = (work_x ^ (work_x >> 29)) * 6364136223846793005u;                 \
		work_done(work_x);                                                                 \
	} while (0)

/* Written only: it keeps the work from being removed. */
static __thread volatile uint64_t work_sink;

/* Compilers leave the frame out of functions that call nothing, whatever they are told: so the leaves call this,
 * once in hundreds of microseconds. */
static WORK_NOINLINE __attribute__((unused)) void work_done(uint64_t x)
{
	work_sink = work_sink + x;
}

static volatile sig_atomic_t work_stop;

static inline void work_on_signal(int signo)
{
	(void)signo;
	work_stop = 1;
}

struct work_clock {
	uint64_t until; /* CLOCK_MONOTONIC; 0: until SIGTERM */
	uint64_t random;
	uint64_t rounds;
	uint64_t units; /* all work done, in hundredths of rounds */
};

static inline uint64_t work_now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* argv[1]: seconds, with a fraction; 0 or none: until SIGTERM or SIGINT. */
static inline struct work_clock work_begin(double seconds)
{
	struct work_clock c = {0, work_now(CLOCK_MONOTONIC) | 1, 0, 0};

	if (seconds > 0)
		c.until = work_now(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
	signal(SIGTERM, work_on_signal);
	signal(SIGINT, work_on_signal);
	return c;
}

/* The length of the next round, in units for each hundredth of it; 0 when the time is up. */
static inline uint64_t work_next(struct work_clock *c)
{
	if (work_stop || (c->until && work_now(CLOCK_MONOTONIC) >= c->until))
		return 0;
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	c->rounds++;
	uint64_t units = WORK_ROUND / 2 + c->random % WORK_ROUND;

	c->units += units;
	return units;
}

static inline double work_seconds(int argc, char **argv)
{
	return argc > 1 ? atof(argv[1]) : 0;
}

/* The last line of every workload: what it used, for tests that compare it with the samples. */
static inline void work_report(const struct work_clock *c)
{
	printf("{\"pid\": %d, \"rounds\": %llu, \"units\": %llu, \"cpu_ns\": %llu}\n", getpid(),
		(unsigned long long)c->rounds, (unsigned long long)c->units,
		(unsigned long long)work_now(CLOCK_PROCESS_CPUTIME_ID));
	fflush(stdout);
}
