/* SPDX-License-Identifier: Apache-2.0 */

/* The shapes of frames that a compiler makes: none at all, a large one, all callee-saved registers, one that grows
 * (alloca), one that is realigned, a callback through the C library, a recursion. And, told `storm`, calls so short
 * that most samples lie within prologues and epilogues. */

#include <alloca.h>
#include "step.h"

STEP void plain_leaf(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
}

STEP void plain_mid(uint64_t units)
{
	plain_leaf(units);
	STEP_AFTER();
}

STEP void plain_outer(uint64_t units)
{
	plain_mid(units);
	STEP_AFTER();
}

STEP void big_leaf(uint64_t units)
{
	volatile char room[20000];

	room[units & 1023] = 1;
	STEP_BODY(units + (uint64_t)room[units & 1023], 0x2345671);
}

STEP void big_saved(uint64_t units)
{
	uint64_t a = step_sink, b = a * 3, c = b ^ a, d = c * 5, e = d ^ b, f = e * 7, g = f ^ c;

	big_leaf(units);
	step_sink = a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7;
	big_leaf(units);
	step_sink = (a ^ b) + (c ^ d) + (e ^ f) + g;
}

STEP void grown_leaf(uint64_t units, size_t size)
{
	volatile char *room = alloca(size);

	room[0] = 1;
	STEP_BODY(units + (uint64_t)room[0], 0x3456712);
}

STEP void grown_mid(uint64_t units)
{
	volatile char *room = alloca(64 + (units & 255));

	room[1] = 1;
	grown_leaf(units, 100 + (units & 127));
	step_sink = step_sink + (uint64_t)room[1];
}

struct wide {
	uint64_t v[16];
} __attribute__((aligned(64)));

STEP void aligned_leaf(uint64_t units, size_t size)
{
	struct wide w;
	volatile char *room = alloca(size);

	room[0] = 1;
	for (int i = 0; i < 16; i++)
		((volatile struct wide *)&w)->v[i] = units;
	STEP_BODY(
		units + ((volatile struct wide *)&w)->v[units & 15] + (uint64_t)room[0], 0x4567123);
}

/* More arguments than registers: they are found by the pointer that was saved before the stack was realigned. */
STEP void aligned_mid(uint64_t units, int a, int b, int c, int d, int e, int f, int g)
{
	struct wide w;
	volatile char *room = alloca((size_t)(a + b + c + d + e + f + g));

	room[0] = 1;
	((volatile struct wide *)&w)->v[units & 15] = units;
	aligned_leaf(units / 2, 200);
	step_sink = ((volatile struct wide *)&w)->v[3] + (uint64_t)room[0] + (uint64_t)g;
}

STEP void deep_leaf(uint64_t units)
{
	STEP_BODY(units, 0x5671234);
}

STEP void deep(uint64_t units, int n)
{
	if (n > 1)
		deep(units, n - 1);
	else
		deep_leaf(units);
	STEP_AFTER();
}

static uint64_t sort_units;

STEP int sort_leaf(const void *a, const void *b)
{
	STEP_BODY(sort_units, 0x6712345);
	return *(const int *)a - *(const int *)b;
}

STEP void sort_call(uint64_t units)
{
	int v[8] = {5, 3, 8, 1, 7, 2, 6, 4};

	sort_units = units / 16;
	qsort(v, 8, sizeof(v[0]), sort_leaf);
	STEP_AFTER();
}

STEP void run_round(void)
{
	plain_outer(STEP_UNITS);
	big_saved(STEP_UNITS);
	grown_mid(STEP_UNITS);
	aligned_mid(STEP_UNITS, 10, 20, 30, 40, 50, 60, 70);
	deep(STEP_UNITS, 30);
	sort_call(STEP_UNITS);
	STEP_AFTER();
}

STEP int storm_leaf(int a)
{
	step_sink = (uint64_t)a;
	return a + 1;
}

STEP int storm_saved(int a)
{
	int b = storm_leaf(a), c = storm_leaf(b), d = storm_leaf(c);

	return storm_leaf(d) + a + b + c + d;
}

STEP int storm_sized(int a)
{
	volatile char *room = alloca(16 + ((size_t)a & 31));

	room[0] = 1;
	return storm_saved(a) + room[0];
}

STEP int storm_outer(int a)
{
	struct wide w;

	((volatile struct wide *)&w)->v[a & 15] = 1;
	return storm_sized(a) + storm_saved(a) + (int)((volatile struct wide *)&w)->v[a & 15];
}

STEP void storm_round(void)
{
	for (int i = 0; i < 2000; i++)
		step_sink = (uint64_t)storm_outer(i);
}

int main(int argc, char **argv)
{
	step_begin(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "storm")) {
		while (step_on())
			storm_round();
	} else {
		while (step_on())
			run_round();
	}
	step_report("");
	return 0;
}
