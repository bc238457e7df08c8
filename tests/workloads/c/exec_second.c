/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: all time in after_exec < main. See exec_first.c. */

#include "work.h"

WORK_NOINLINE void after_exec(uint64_t units)
{
	WORK_BODY(units, 0x5671234);
}

int main(int argc, char **argv)
{
	struct work_clock c = work_begin(work_seconds(argc, argv));
	uint64_t unit;

	while ((unit = work_next(&c)))
		after_exec(unit * 100);
	work_report(&c);
	return 0;
}
