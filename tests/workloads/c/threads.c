/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: three threads beside a main thread that only waits. Of all CPU time 50 % in thread `alpha`
 * (alpha_work < alpha_call < thread_main), 30 % in `beta` (beta_work < thread_main), 20 % in
 * `gamma` (gamma_work < gamma_inner < gamma_call < thread_main). */

#include <pthread.h>

#include "work.h"

static pthread_barrier_t barrier;
static volatile uint64_t unit_now;

WORK_NOINLINE void alpha_work(uint64_t units)
{
	WORK_BODY(units, 0x1111117);
}

WORK_NOINLINE void alpha_call(uint64_t units)
{
	alpha_work(units);
	work_sink++;
}

WORK_NOINLINE void beta_work(uint64_t units)
{
	WORK_BODY(units, 0x2222227);
}

WORK_NOINLINE void gamma_work(uint64_t units)
{
	WORK_BODY(units, 0x3333337);
}

WORK_NOINLINE void gamma_inner(uint64_t units)
{
	gamma_work(units);
	work_sink++;
}

WORK_NOINLINE void gamma_call(uint64_t units)
{
	gamma_inner(units);
	work_sink++;
}

struct job {
	const char *name;
	void (*call)(uint64_t units);
	uint64_t share;
};

static const struct job jobs[] = {
	{"alpha", alpha_call, 50},
	{"beta", beta_work, 30},
	{"gamma", gamma_call, 20},
};

WORK_NOINLINE void *thread_main(void *arg)
{
	const struct job *job = arg;

	pthread_setname_np(pthread_self(), job->name);
	for (;;) {
		pthread_barrier_wait(&barrier);
		uint64_t unit = unit_now;

		if (!unit)
			break;
		job->call(unit * job->share);
		work_sink++;
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct work_clock c = work_begin(work_seconds(argc, argv));
	pthread_t threads[3];

	pthread_barrier_init(&barrier, NULL, 4);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, thread_main, (void *)&jobs[i]);
	for (;;) {
		unit_now = work_next(&c) * 10; /* long rounds: the barrier's system calls vanish */
		pthread_barrier_wait(&barrier);
		if (!unit_now)
			break;
		pthread_barrier_wait(&barrier);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	work_report(&c);
	return 0;
}
