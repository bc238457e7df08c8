/* SPDX-License-Identifier: Apache-2.0 */

/* What lies between two functions: `plt` goes through the procedure linkage table into a library with every call,
 * `lazy` has each call resolved anew (a library opened and closed, its calls bound when first made), `vdso` reads the
 * clock, `deep` calls itself N times, `thread` works in a thread. */

#include <dlfcn.h>
#include <pthread.h>
#include "step.h"

int tiny_one(int a);
int tiny_two(int a);

STEP void plt_round(void)
{
	int a = 1;

	for (int i = 0; i < 20000; i++)
		a = tiny_two(tiny_one(a));
	step_sink = (uint64_t)a;
}

STEP void lazy_round(const char *path)
{
	void *h = dlopen(path, RTLD_LAZY);
	void (*f)(void);

	if (!h) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	*(void **)&f = dlsym(h, "lazy_calls");
	f();
	dlclose(h);
	STEP_AFTER();
}

STEP void vdso_round(void)
{
	struct timespec t;

	for (int i = 0; i < 10000; i++)
		clock_gettime(CLOCK_MONOTONIC, &t);
	step_sink = (uint64_t)t.tv_nsec;
}

STEP void deep_leaf(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
}

STEP void deep(uint64_t units, int n)
{
	if (n > 1)
		deep(units, n - 1);
	else
		deep_leaf(units);
	STEP_AFTER();
}

STEP void *thread_main(void *data)
{
	(void)data;
	while (step_on())
		deep(STEP_UNITS, 2);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "plt";
	pthread_t t;

	step_begin(argc, argv);
	if (!strcmp(what, "plt")) {
		while (step_on())
			plt_round();
	} else if (!strcmp(what, "lazy") && argc > 3) {
		while (step_on())
			lazy_round(argv[2]);
	} else if (!strcmp(what, "vdso")) {
		while (step_on())
			vdso_round();
	} else if (!strcmp(what, "deep") && argc > 3) {
		while (step_on())
			deep(STEP_UNITS * 4, atoi(argv[2]));
	} else if (!strcmp(what, "thread")) {
		pthread_create(&t, NULL, thread_main, NULL);
		pthread_join(t, NULL);
	}
	step_report("");
	return 0;
}
