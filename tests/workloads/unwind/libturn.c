/* SPDX-License-Identifier: Apache-2.0 */

/* Two libraries of equal layout whose functions have other names: built twice, with TURN(x) alpha_x and beta_x. */

#include "step.h"

#if defined(BETA)
#define TURN(name) beta_##name
#else
#define TURN(name) alpha_##name
#endif

STEP void TURN(leaf)(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
}

STEP void TURN(mid)(uint64_t units)
{
	TURN(leaf)(units);
	STEP_AFTER();
}

void turn_entry(uint64_t units);
__attribute__((visibility("default"))) void turn_entry(uint64_t units)
{
	TURN(mid)(units);
	STEP_AFTER();
}
