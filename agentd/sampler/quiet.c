/* SPDX-License-Identifier: Apache-2.0 */

/* Memory that programs walk on other CPUs is given out again only when nobody can be in it any
 * more.
 *
 * A program says in COUNT_IN_HALF that it is at work, from before its first look until after its
 * last. It runs with interrupts off and for microseconds, so a CPU is nearly always found outside;
 * one that is inside now was seen to leave as soon as it is found outside once, or as it has begun
 * another run. Only a virtual CPU that the hypervisor stopped right there takes longer.
 *
 * Order: we store (a key taken away, the other half), then a full barrier, then look. A program
 * stores COUNT_IN_HALF and then looks. Where neither sees the other's store yet, which lasts as
 * long as a store buffer needs to drain, the program's second look at key and sequence number finds
 * out: those are stored before anything else is overwritten, which x86 shows in this order to all;
 * on arm64 our stores are releases, and the program's two looks may be made in either order within
 * that same moment. Source: Dekker's algorithm; Linux, Documentation/memory-barriers.txt. Runs in
 * agentd. */

#include <time.h>
#include "agentd/base/clock.h"
#include "agentd/sampler/quiet.h"

#define PAUSE_NS (20 * 1000)

/* Runs that came as far as saying so; nested ones, which are turned away at once, left out. */
static uint64_t runs_of(const struct sample_counters *c)
{
	return __atomic_load_n(&c->of[COUNT_TAKEN], __ATOMIC_ACQUIRE) -
		__atomic_load_n(&c->of[COUNT_LOST_SCRATCH], __ATOMIC_RELAXED);
}

int quiet_init(struct quiet *q, const struct sample_counters *counts, size_t n_cpus)
{
	uint64_t *runs = calloc(n_cpus + 1, sizeof(*runs));

	if (!runs)
		return -ENOMEM;
	*q = (struct quiet){.counts = counts, .n_cpus = n_cpus, .runs = runs};
	return 0;
}

void quiet_deinit(struct quiet *q)
{
	free(q->runs);
	*q = (struct quiet){0};
}

void quiet_mark(struct quiet *q)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (size_t i = 0; i < q->n_cpus; i++)
		q->runs[i] = runs_of(&q->counts[i]);
}

bool quiet_cpu(const struct quiet *q, size_t cpu)
{
	const struct sample_counters *c = &q->counts[cpu];

	return __atomic_load_n(&c->of[COUNT_IN_HALF], __ATOMIC_ACQUIRE) == 0 ||
		runs_of(c) != q->runs[cpu];
}

bool quiet_wait(struct quiet *q, uint64_t max_ns)
{
	uint64_t end = 0;

	quiet_mark(q);
	for (size_t i = 0; i < q->n_cpus; i++) {
		while (!quiet_cpu(q, i)) {
			uint64_t now = clock_monotonic_ns();

			end = end ? end : now + max_ns;
			if (now >= end)
				return false;
			nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
		}
	}
	return true;
}
