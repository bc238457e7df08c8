/* SPDX-License-Identifier: Apache-2.0 */

/* A library of our own: library_work < library_call, called from `shared` (linked) and `plugin`
 * (dlopen). */

#include "work.h"
#include "libwork.h"

WORK_NOINLINE static void library_inner(uint64_t units)
{
	WORK_BODY(units, 0x7123456);
}

WORK_NOINLINE void library_work(uint64_t units)
{
	library_inner(units);
	work_sink++;
}

WORK_NOINLINE void library_call(uint64_t units)
{
	library_work(units);
	work_sink++;
}
