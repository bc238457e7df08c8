/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: `exec_first SECONDS [PROGRAM]` spends half of the time in before_exec < main, then
 * executes PROGRAM (exec_second beside it by default) in the same process, which spends the other
 * half in after_exec < main. The pid and its start time stay; the executable and every address
 * change. */

#include <string.h>

#include "work.h"

WORK_NOINLINE void before_exec(uint64_t units)
{
	WORK_BODY(units, 0x4567123);
}

int main(int argc, char **argv)
{
	double half = work_seconds(argc, argv) / 2;
	struct work_clock c = work_begin(half > 0 ? half : 1);
	uint64_t unit;
	char path[4096], text[32];
	ssize_t n;

	while ((unit = work_next(&c)))
		before_exec(unit * 100);
	work_report(&c);
	if (argc > 2) {
		snprintf(path, sizeof(path), "%s", argv[2]);
	} else {
		n = readlink("/proc/self/exe", path, sizeof(path) - 16);
		if (n < 0)
			return 1;
		path[n] = 0;
		strcpy(strrchr(path, '/') + 1, "exec_second");
	}
	snprintf(text, sizeof(text), "%.3f", half > 0 ? half : 1);
	execl(path, path, text, NULL);
	perror(path);
	return 1;
}
