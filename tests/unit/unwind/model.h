/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A machine that exists on paper: registers that are far apart and memory whose every word is a
 * function of its address. A rule and an independent description of the same row have to lead to
 * the same caller in it. */

#include <stdint.h>

#define MODEL_SP 0x7fff00001000ULL

static inline uint64_t model_word(uint64_t address)
{
	uint64_t h = (address ^ 0x5bd1e995a5a5a5a5ULL) * 0x9e3779b97f4a7c15ULL;

	/* Above every register and aligned, so that it can be a stack pointer too. */
	return 0x7fff80000000ULL + ((h >> 20) & 0x3ffffff8);
}

static inline int model_read(void *ctx, void *to, unsigned size, uint64_t address)
{
	(void)ctx;
	for (unsigned i = 0; i < size; i += 8) {
		uint64_t word = model_word(address + i);

		__builtin_memcpy((char *)to + i, &word, 8);
	}
	return 0;
}

#define UNWIND_READ(ctx, to, size, address) model_read(ctx, to, size, address)

#include "agentd/unwind/unwind.h"
#include "bpf/unwind_step.h"

static inline uint64_t model_reg(unsigned number)
{
	return number == UNWIND_DW_SP ? MODEL_SP : MODEL_SP + 0x1000000ULL * (number + 1);
}

static inline void model_regs(struct unwind_regs *r, uint64_t pc)
{
	*r = (struct unwind_regs){.pc = pc,
		.sp = MODEL_SP,
		.fp = model_reg(UNWIND_DW_FP),
		.aux = model_reg(UNWIND_DW_AUX),
		.flags = UNWIND_REGS_LEAF};
	for (unsigned i = 0; i < UNWIND_LEAF_REGS; i++)
		r->leaf[i] = model_reg(i);
}
