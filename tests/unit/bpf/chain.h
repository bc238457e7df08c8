/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What chain.c tells of itself. */

#include <stdint.h>

#define TRUTH_MAX 4096

struct truth {
	uint64_t ready;
	uint64_t n;             /* return addresses, the outermost function's first */
	uint64_t pc[TRUTH_MAX]; /* 0: some place that it cannot know */
	uint64_t code;          /* where its own code lies */
	uint64_t area;          /* of the other stack */
};
