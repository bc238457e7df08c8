/* SPDX-License-Identifier: Apache-2.0 */

/* A program for live_test.c that never ends: all of chain.c again and again, interrupted by a timer
 * whose handler runs on a stack of its own, beside two threads that sort, print and parse. */

#define main chain_main
#include "chain.c" /* NOLINT: its functions, in one program */
#undef main
#include <pthread.h>
#include <unistd.h>

KEEP static int by_text(const void *a, const void *b)
{
	char x[32], y[32];

	snprintf(x, sizeof(x), "%.3f", *(const double *)a);
	snprintf(y, sizeof(y), "%.3f", *(const double *)b);
	return strcmp(x, y);
}

/* A thread's work: library code that calls back, under frames of three sizes. */
KEEP static double worker_step(double *v, int n)
{
	char room[48 + n];

	for (int i = 0; i < n; i++)
		v[i] = strtod("3.25", NULL) * ((i * 7919) % 31);
	qsort(v, (size_t)n, sizeof(v[0]), by_text);
	snprintf(room, sizeof(room), "%g", v[n / 2]);
	return strtod(room, NULL);
}

static void *worker(void *argument)
{
	double v[40], sum = 0;

	for (int n = 8;; n = n == 40 ? 8 : n + 1)
		sum += worker_step(v, n);
	return argument;
}

static void on_timer(int number)
{
	double v[8];

	sink += (uint64_t)worker_step(v, 8) + (uint64_t)number;
}

int main(void)
{
	struct itimerval often = {{0, 700}, {0, 700}};
	pthread_t threads[2];

	alarm(60); /* whatever becomes of the test */
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, worker, NULL);
	chain_main(); /* sets up the other stack */
	signal(SIGPROF, on_timer);
	struct sigaction a = {.sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART};

	sigaction(SIGPROF, &a, NULL);
	setitimer(ITIMER_PROF, &often, NULL);
	for (;;)
		chain_main();
}
