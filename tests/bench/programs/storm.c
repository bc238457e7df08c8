/* SPDX-License-Identifier: Apache-2.0 */

/* storm A_SECOND SECONDS PROGRAM [ARGUMENT...]: starts a program so many times a second, each as a new
 * process, and waits for all. Prints how many ran, how many could not be started and the CPU time
 * of all, as JSON. */

#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	uint64_t start = now_ns(), started = 0, failed = 0, ended = 0, wanted;
	struct rusage used;
	double rate, seconds;

	if (argc < 4)
		return 2;
	rate = atof(argv[1]);
	seconds = atof(argv[2]);
	wanted = (uint64_t)(rate * seconds);
	for (uint64_t i = 0; i < wanted; i++) {
		uint64_t due = start + (uint64_t)(1e9 * (double)i / rate), now = now_ns();
		pid_t pid;

		if (now > start + (uint64_t)(1e9 * seconds))
			break; /* this machine starts no more */
		if (now < due)
			nanosleep(&(struct timespec){.tv_nsec = (long)(due - now) % 1000000000,
					  .tv_sec = (time_t)((due - now) / 1000000000)},
				NULL);
		if (posix_spawn(&pid, argv[3], NULL, NULL, argv + 3, environ) == 0)
			started++;
		else
			failed++;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			ended++;
	}
	seconds = (double)(now_ns() - start) / 1e9;
	while (waitpid(-1, NULL, 0) > 0)
		ended++;
	getrusage(RUSAGE_CHILDREN, &used);
	printf("{\"wanted\": %llu, \"started\": %llu, \"failed\": %llu, \"ended\": %llu, \"seconds\": %.3f, "
	       "\"cpu_ns\": %llu}\n",
		(unsigned long long)wanted, (unsigned long long)started, (unsigned long long)failed,
		(unsigned long long)ended, seconds,
		(unsigned long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000ULL +
			(unsigned long long)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) *
				1000ULL);
	return 0;
}
