/* SPDX-License-Identifier: Apache-2.0 */

/* Ways to become another process: `exec` from a thread that is not the first, by a path to exec_second; `vfork`,
 * whose children work on the parent's memory before they end; `forever`, until a signal; `many`, programs that are
 * executed, 2,000 a second. */

#include <pthread.h>
#include <sys/wait.h>
#include "step.h"

static const char *next_program;

STEP void before_leaf(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
}

STEP void before_call(void)
{
	before_leaf(STEP_UNITS);
	STEP_AFTER();
}

STEP void *exec_thread(void *data)
{
	(void)data;
	while (step_on())
		before_call();
	execl(next_program, next_program, "1", (char *)NULL);
	perror(next_program);
	_exit(127);
}

STEP void child_leaf(uint64_t units)
{
	STEP_BODY(units, 0x2345671);
}

STEP void child_call(void)
{
	for (int i = 0; i < 6000; i++)
		child_leaf(STEP_UNITS);
	STEP_AFTER();
}

STEP void vfork_call(void)
{
	pid_t pid = vfork();

	if (pid == 0) {
		child_call();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	STEP_AFTER();
}

STEP void many_call(void)
{
	static char *const nothing[] = {NULL};
	pid_t pid = vfork();

	if (pid == 0) {
		execve(next_program, (char *const *)nothing, (char *const *)nothing);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
	STEP_AFTER();
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	char more[64] = "";
	pthread_t t;

	step_begin(argc, argv);
	if (argc > 3)
		next_program = argv[2];
	if (!strcmp(what, "exec")) {
		pthread_create(&t, NULL, exec_thread, NULL);
		pthread_join(t, NULL);
		return 1;
	}
	if (!strcmp(what, "vfork")) {
		while (step_on())
			vfork_call();
	} else if (!strcmp(what, "many")) {
		unsigned n = 0;

		for (uint64_t next = step_now(CLOCK_MONOTONIC); step_on(); n++) {
			many_call();
			next += 500000;
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME,
				&(struct timespec){
					(time_t)(next / 1000000000u), (long)(next % 1000000000u)},
				NULL);
		}
		snprintf(more, sizeof(more), ", \"started\": %u", n);
	} else {
		while (step_on())
			before_call();
	}
	step_report(more);
	return 0;
}
