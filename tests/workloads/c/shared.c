/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: 70 % library_inner < library_work < library_call < shared_round < main, where the first
 * three are in libwork.so; 30 % own_work < shared_round < main. */

#include "work.h"
#include "libwork.h"

WORK_NOINLINE void own_work(uint64_t units)
{
	WORK_BODY(units, 0x1357911);
}

WORK_NOINLINE void shared_round(uint64_t unit)
{
	library_call(unit * 70);
	own_work(unit * 30);
	work_sink++;
}

int main(int argc, char **argv)
{
	struct work_clock c = work_begin(work_seconds(argc, argv));
	uint64_t unit;

	while ((unit = work_next(&c)))
		shared_round(unit);
	work_report(&c);
	return 0;
}
