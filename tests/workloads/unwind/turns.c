/* SPDX-License-Identifier: Apache-2.0 */

/* Opens two libraries in turn, each at the addresses that the other has just left: turns FOLDER MILLISECONDS SECONDS.
 * Says how many times that was so. */

#include <dlfcn.h>
#include "step.h"

static uint64_t visit_ns;
static int visits, reused;

STEP void visit_alpha(void (*entry)(uint64_t))
{
	for (uint64_t t = step_now(CLOCK_MONOTONIC) + visit_ns; step_now(CLOCK_MONOTONIC) < t;)
		entry(STEP_UNITS);
	STEP_AFTER();
}

STEP void visit_beta(void (*entry)(uint64_t))
{
	for (uint64_t t = step_now(CLOCK_MONOTONIC) + visit_ns; step_now(CLOCK_MONOTONIC) < t;)
		entry(STEP_UNITS);
	STEP_AFTER();
}

STEP void turn(const char *folder, int beta)
{
	static void *last;
	char path[4096];
	void (*entry)(uint64_t);
	void *h;

	snprintf(path, sizeof(path), "%s/libturn_%s.so", folder, beta ? "beta" : "alpha");
	h = dlopen(path, RTLD_NOW);
	if (!h) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	*(void **)&entry = dlsym(h, "turn_entry");
	visits++;
	reused += last == *(void **)&entry;
	last = *(void **)&entry;
	if (beta)
		visit_beta(entry);
	else
		visit_alpha(entry);
	dlclose(h);
	STEP_AFTER();
}

int main(int argc, char **argv)
{
	char more[64];

	if (argc < 4)
		return 2;
	step_begin(argc, argv);
	visit_ns = (uint64_t)(atof(argv[2]) * 1e6);
	for (int i = 0; step_on(); i++)
		turn(argv[1], i & 1);
	snprintf(more, sizeof(more), ", \"visits\": %d, \"reused\": %d", visits, reused);
	step_report(more);
	return 0;
}
