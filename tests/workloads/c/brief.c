/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: lives for about 100 ms of CPU time (or argv[1] seconds), all of it in
 * brief_work < brief_call < main. */

#include "work.h"

WORK_NOINLINE void brief_work(uint64_t units)
{
	WORK_BODY(units, 0x6712345);
}

WORK_NOINLINE void brief_call(uint64_t units)
{
	brief_work(units);
	work_sink++;
}

int main(int argc, char **argv)
{
	struct work_clock c = work_begin(argc > 1 ? work_seconds(argc, argv) : 0.1);
	uint64_t unit;

	while ((unit = work_next(&c)))
		brief_call(unit * 100);
	work_report(&c);
	return 0;
}
