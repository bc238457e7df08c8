/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: of all CPU time 60 % leaf_sixty < mid_sixty < outer_sixty < run_round < main,
 * 30 % leaf_thirty < outer_thirty < run_round < main,
 * 10 % leaf_ten < inner_ten < mid_ten < outer_ten < run_round < main. */

#include "work.h"

WORK_NOINLINE void leaf_sixty(uint64_t units)
{
	WORK_BODY(units, 0x1234567);
}

WORK_NOINLINE void mid_sixty(uint64_t units)
{
	leaf_sixty(units);
	work_sink++;
}

WORK_NOINLINE void outer_sixty(uint64_t units)
{
	mid_sixty(units);
	work_sink++;
}

WORK_NOINLINE void leaf_thirty(uint64_t units)
{
	WORK_BODY(units, 0x2345671);
}

WORK_NOINLINE void outer_thirty(uint64_t units)
{
	leaf_thirty(units);
	work_sink++;
}

WORK_NOINLINE void leaf_ten(uint64_t units)
{
	WORK_BODY(units, 0x3456713);
}

WORK_NOINLINE void inner_ten(uint64_t units)
{
	leaf_ten(units);
	work_sink++;
}

WORK_NOINLINE void mid_ten(uint64_t units)
{
	inner_ten(units);
	work_sink++;
}

WORK_NOINLINE void outer_ten(uint64_t units)
{
	mid_ten(units);
	work_sink++;
}

WORK_NOINLINE void run_round(uint64_t unit)
{
	outer_sixty(unit * 60);
	outer_thirty(unit * 30);
	outer_ten(unit * 10);
	work_sink++;
}

int main(int argc, char **argv)
{
	struct work_clock c = work_begin(work_seconds(argc, argv));
	uint64_t unit;

	while ((unit = work_next(&c)))
		run_round(unit);
	work_report(&c);
	return 0;
}
