/* SPDX-License-Identifier: Apache-2.0 */

/* Starts a program again and again, one after the other: launch COUNT PAUSE_MS PROGRAM
 * [ARGUMENT...]. Prints the CPU time that all of them used. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rusage used;
	int failed = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: launch COUNT PAUSE_MS PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	for (int i = 0; i < atoi(argv[1]); i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			execv(argv[3], argv + 3);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
			failed++;
		usleep((useconds_t)atoi(argv[2]) * 1000);
	}
	getrusage(RUSAGE_CHILDREN, &used);
	printf("{\"pid\": %d, \"failed\": %d, \"cpu_ns\": %llu}\n", getpid(), failed,
		(unsigned long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000u +
			(unsigned long long)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) *
				1000u);
	return failed ? 1 : 0;
}
