/* SPDX-License-Identifier: Apache-2.0 */

/* Runs libpiece's code out of a library: far LIBRARY SECONDS. */

#include <dlfcn.h>
#include "step.h"

STEP void far_call(uint64_t (*entry)(uint64_t))
{
	step_sink = entry(STEP_UNITS);
	STEP_AFTER();
}

int main(int argc, char **argv)
{
	uint64_t (*entry)(uint64_t);
	void *h;

	step_begin(argc, argv);
	h = argc > 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!h) {
		fprintf(stderr, "%s\n", argc > 2 ? dlerror() : "usage: far LIBRARY SECONDS");
		return 1;
	}
	*(void **)&entry = dlsym(h, "piece_entry");
	while (step_on())
		far_call(entry);
	step_report("");
	return 0;
}
