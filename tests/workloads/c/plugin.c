/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: half of the time in before_open < main; then libwork.so beside the program is opened with
 * dlopen and the other half goes into library_inner < library_work < library_call < after_open <
 * main. */

#include <dlfcn.h>
#include <string.h>

#include "work.h"

WORK_NOINLINE void before_open(uint64_t units)
{
	WORK_BODY(units, 0x2468101);
}

WORK_NOINLINE void after_open(void (*call)(uint64_t), uint64_t units)
{
	call(units);
	work_sink++;
}

int main(int argc, char **argv)
{
	double half = work_seconds(argc, argv) / 2;
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	void (*call)(uint64_t);
	uint64_t unit, rounds;
	struct work_clock c = work_begin(half > 0 ? half : 1);
	struct work_clock again = {.random = c.random};

	while ((unit = work_next(&c)))
		before_open(unit * 100);
	if (n < 0)
		return 1;
	path[n] = 0;
	strcpy(strrchr(path, '/') + 1, "libwork.so");
	void *library = dlopen(path, RTLD_NOW);

	if (!library || !(call = (void (*)(uint64_t))dlsym(library, "library_call"))) {
		fprintf(stderr, "plugin: %s\n", dlerror());
		return 1;
	}
	/* the same rounds again, so that the halves are equal in work */
	rounds = c.rounds;
	while (again.rounds < rounds && (unit = work_next(&again)))
		after_open(call, unit * 100);
	work_report(&again);
	return 0;
}
