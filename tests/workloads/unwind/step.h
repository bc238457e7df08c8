/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Work for programs whose call chains are known. Unlike ../c/work.h the leaves call nothing: without a frame pointer
 * they have no frame at all, which is what unwinding has to live with. Every compiler, any level: a function is
 * entered by a call and by nothing else, since no caller's last act is a call and none may be inlined or cloned. */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__clang__)
#define STEP __attribute__((noinline, used))
#else
#define STEP __attribute__((noipa, noinline, used))
#endif

/* About 50 us. */
#define STEP_UNITS 15000

static volatile uint64_t step_sink;

/* Dependent operations, inlined into every leaf. */
#define STEP_BODY(units, salt)                                                                     \
	do {                                                                                       \
		uint64_t step_x = (uint64_t)(units) ^ (salt);                                      \
		for (uint64_t step_i = 0; step_i < (uint64_t)(units); step_i++)                    \
			step_x = (step_x ^ (step_x >> 29)) * 6364136223846793005u;                 \
		step_sink = step_x;                                                                \
	} while (0)

/* After a call: so that it is none in tail position. */
#define STEP_AFTER() (step_sink = step_sink + 1)

static volatile sig_atomic_t step_stop;
static uint64_t step_until;

static inline uint64_t step_now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void step_on_signal(int signo)
{
	(void)signo;
	step_stop = 1;
}

/* The last argument: seconds. */
static inline void step_begin(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[argc - 1]) : 1;

	step_until = step_now(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
	signal(SIGTERM, step_on_signal);
}

static inline int step_on(void)
{
	return !step_stop && step_now(CLOCK_MONOTONIC) < step_until;
}

/* The last line of every program. */
static inline void step_report(const char *more)
{
	printf("{\"pid\": %d, \"cpu_ns\": %llu%s}\n", getpid(),
		(unsigned long long)step_now(CLOCK_PROCESS_CPUTIME_ID), more);
	fflush(stdout);
}
