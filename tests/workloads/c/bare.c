/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: nothing describes this code, its frame pointer holds something else, and its callers lie further up
 * the stack than anybody can guess: nobody can tell who called bare_work. */

#include "work.h"

WORK_NOINLINE void bare_work(uint64_t units)
{
	volatile char far[128 << 10];

	for (size_t i = 0; i < sizeof(far); i += 8)
		far[i] = 0;
	__asm__ volatile("mov $1, %%ebp" : : : "rbp");
	WORK_BODY(units, 0x1771);
}

WORK_NOINLINE void bare_call(uint64_t units)
{
	bare_work(units);
	work_sink++;
}

int main(int argc, char **argv)
{
	struct work_clock c = work_begin(work_seconds(argc, argv));
	uint64_t unit;

	while ((unit = work_next(&c)))
		bare_call(unit * 100);
	work_report(&c);
	return 0;
}
