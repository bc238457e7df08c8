/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The search among a page's rows and the one step from a frame to its caller, compiled into the
 * programs in the kernel and into user space.
 *
 * The includer says, before including this, how memory of the unwound program is read:
 *   UNWIND_READ(ctx, to, size, address)   0 when all bytes were read (size is a constant: 8 or 16)
 * and, where it searches rows, how a row's pc is read:
 *   UNWIND_PC(ctx, i)                     pc of row i, for any u32
 *
 * The step has no loop, calls nothing but UNWIND_READ and indexes nothing but leaf[], masked: what
 * the verifier of 5.10 takes. struct unwind_regs belongs into a map's value, since leaf[] is
 * indexed. It takes any rule and any registers: reading is what fails. A walk ends by its own
 * bound on frames, and, but for rules that may move between stacks, because the stack pointer must
 * rise.
 *
 * Callee-saved registers are followed by where they were saved, and read when a rule needs them:
 * most frames never do. */

#include "bpf/unwind.h"

#ifdef UNWIND_PC
/* Keeps the compiler from making a jump of a computed mask, and the verifier from following both
 * ways of each. */
#define UNWIND_OPAQUE(x) __asm__ volatile("" : "+r"(x))

/* The row for an offset within the page, among n rows (1 to 1 << turns) from row `at` on, of which the
 * first has a pc that is not higher: the last with pc <= offset. No branch within a turn. */
static __inline__ __attribute__((always_inline)) sample_u32 unwind_search(
	void *ctx, sample_u64 at, sample_u32 n, sample_u32 offset, int turns)
{
	sample_u64 left = n;

	(void)ctx;
	for (int i = 0; i < turns; i++) {
		sample_u64 half = left >> 1;

		if (!half)
			break;
		/* all ones where pc <= offset */
		sample_u64 mask = (sample_u64)UNWIND_PC(ctx, (sample_u32)(at + half)) - offset - 1;

		mask = (sample_u64)((unwind_s64)mask >> 63);
		UNWIND_OPAQUE(mask);
		at += half & mask;
		left -= half;
	}
	return (sample_u32)at;
}
#endif

#ifdef UNWIND_READ
static __inline__ __attribute__((always_inline)) int unwind_fp(struct unwind_regs *r, void *ctx)
{
	(void)ctx;
	if (r->flags & UNWIND_REGS_FP_LOST)
		return UNWIND_LOST_REGISTER;
	if (r->fp_at) {
		if (UNWIND_READ(ctx, &r->fp, 8, r->fp_at) != 0)
			return UNWIND_UNREADABLE;
		r->fp_at = 0;
	}
	return UNWIND_OK;
}

static __inline__ __attribute__((always_inline)) int unwind_aux(struct unwind_regs *r, void *ctx)
{
	(void)ctx;
	if (r->flags & UNWIND_REGS_AUX_LOST)
		return UNWIND_LOST_REGISTER;
	if (r->aux_at) {
		if (UNWIND_READ(ctx, &r->aux, 8, r->aux_at) != 0)
			return UNWIND_UNREADABLE;
		r->aux_at = 0;
	}
	return UNWIND_OK;
}

/* Any register of a frame that was interrupted, by a sample or by a signal; or of the caller of the
 * innermost frame, which nobody said was changed since. */
static __inline__ __attribute__((always_inline)) int unwind_leaf(
	struct unwind_regs *r, sample_u32 reg, void *ctx, sample_u64 *ret)
{
	(void)ctx;
	if (r->flags & UNWIND_REGS_LEAF) {
		*ret = r->leaf[reg & (UNWIND_LEAF_REGS - 1)];
		return UNWIND_OK;
	}
	if (!(r->flags & UNWIND_REGS_EXACT) && (r->flags & UNWIND_REGS_INHERITED)) {
		*ret = r->leaf[reg & (UNWIND_LEAF_REGS - 1)];
		return UNWIND_OK;
	}
	if (!(r->flags & UNWIND_REGS_EXACT) || r->leaf_at == 0)
		return UNWIND_LOST_REGISTER;
	if (UNWIND_READ(ctx, ret, 8, r->leaf_at + UNWIND_SLOT * UNWIND_SIGNAL_SLOT(reg)) != 0)
		return UNWIND_UNREADABLE;
	return UNWIND_OK;
}

/* The CFA of this frame. */
static __inline__ __attribute__((always_inline)) int unwind_cfa_of(
	struct unwind_regs *r, const struct unwind_rule *rule, void *ctx, sample_u64 *ret)
{
	sample_u64 cfa = 0;
	int result = UNWIND_OK;

	switch (rule->cfa) {
	case UNWIND_CFA_SP:
		cfa = r->sp;
		break;
	case UNWIND_CFA_FP:
		result = unwind_fp(r, ctx);
		cfa = r->fp;
		break;
	case UNWIND_CFA_AUX:
		result = unwind_aux(r, ctx);
		cfa = r->aux;
		break;
	case UNWIND_CFA_LEAF:
	case UNWIND_CFA_SCALED:
		result = unwind_leaf(r, rule->reg, ctx, &cfa);
		if (rule->cfa == UNWIND_CFA_SCALED)
			cfa = r->sp + (cfa << 3);
		break;
	case UNWIND_CFA_END:
		return UNWIND_ENDED;
	case UNWIND_CFA_SWITCH:
		return UNWIND_SWITCHED;
	case UNWIND_CFA_UNSUPPORTED:
		return UNWIND_UNSUPPORTED;
	default:
		return UNWIND_NO_INFORMATION;
	}
	if (result != UNWIND_OK)
		return result;
	cfa += (sample_u64)(unwind_s64)rule->cfa_offset;
	if (rule->flags & (UNWIND_DEREF | UNWIND_PLT)) {
		if (rule->flags & UNWIND_DEREF) {
			sample_u64 at = cfa;

			if (UNWIND_READ(ctx, &cfa, 8, at) != 0)
				return UNWIND_UNREADABLE;
			cfa += (sample_u64)(unwind_s64)rule->cfa_add;
		} else if ((r->pc & 15) >= rule->reg) {
			cfa += 8;
		}
	}
	*ret = cfa;
	return UNWIND_OK;
}

/* Where fp and aux of the caller are, once the CFA is known. fp_read: fp was read already, as
 * *fp. */
static __inline__ __attribute__((always_inline)) int unwind_saved(struct unwind_regs *r,
	const struct unwind_rule *rule, void *ctx, sample_u64 cfa, int fp_read, sample_u64 fp)
{
	const sample_u32 flags = rule->flags;
	sample_u64 base = cfa;

	if (flags & UNWIND_SAVED_SP) {
		base = r->sp;
	} else if (flags & UNWIND_SAVED_FP) {
		int result = unwind_fp(r, ctx);

		if (result != UNWIND_OK)
			return result;
		base = r->fp;
	}
	if (flags & UNWIND_FP_SAVED) {
		r->fp = fp;
		r->fp_at = fp_read ? 0
				   : base + (sample_u64)((unwind_s64)rule->fp_offset * UNWIND_SLOT);
		r->flags &= ~(sample_u32)UNWIND_REGS_FP_LOST;
	} else if (flags & UNWIND_FP_LOST) {
		r->flags |= UNWIND_REGS_FP_LOST;
	}
	/* One that was the return address is used up, so that a walk cannot stand still on it. */
	if ((flags & (UNWIND_AUX_SAVED | UNWIND_RA_AUX)) == UNWIND_AUX_SAVED) {
		r->aux_at = base + (sample_u64)((unwind_s64)rule->aux_offset * UNWIND_SLOT);
		r->flags &= ~(sample_u32)UNWIND_REGS_AUX_LOST;
	} else if (!UNWIND_AUX_SURVIVES || (flags & (UNWIND_AUX_LOST | UNWIND_RA_AUX))) {
		r->flags |= UNWIND_REGS_AUX_LOST;
	}
	return UNWIND_OK;
}

/* What is said of the interrupted frame alone is over; its registers are its caller's, as far as the
 * rules know. */
static __inline__ __attribute__((always_inline)) void unwind_leave(struct unwind_regs *r)
{
	_Static_assert(UNWIND_REGS_LEAF << 5 == UNWIND_REGS_INHERITED, "a shift makes it");
	r->flags = (r->flags &
			   ~(sample_u32)(UNWIND_REGS_LEAF | UNWIND_REGS_EXACT |
				   UNWIND_REGS_INHERITED)) |
		(r->flags & UNWIND_REGS_LEAF) << 5;
}

/* From the frame that r describes to its caller: pc, sp, and where fp and aux are. rule is that of
 * unwind_lookup_pc(r). On anything but UNWIND_OK r->pc and r->sp are as they were (UNWIND_ENDED by
 * return address 0 excepted: pc is 0 then). */
static __inline__ __attribute__((always_inline)) int unwind_step(
	struct unwind_regs *r, const struct unwind_rule *rule, void *ctx)
{
	const sample_u32 flags = rule->flags;
	/* The usual prologue puts fp right under the return address: one read takes both. */
	const int both = (flags & UNWIND_FP_SAVED) &&
		!(flags &
			(UNWIND_SAVED_SP | UNWIND_SAVED_FP | UNWIND_RA_SP | UNWIND_RA_LEAF |
				UNWIND_RA_AUX)) &&
		rule->fp_offset + 1 == rule->ra_offset;
	sample_u64 cfa = 0, leaf_at = 0, pair[2] = {0, 0};
	int fp_read = 0, in_register = 0, result;

	/* Nearly every frame: counted from sp, the return address on top, registers saved below it. */
	if (!UNWIND_RARE(!UNWIND_AUX_SURVIVES || rule->cfa != UNWIND_CFA_SP ||
		    rule->ra_offset != -1 ||
		    (flags & ~(sample_u32)(UNWIND_FP_SAVED | UNWIND_AUX_SAVED)))) {
		cfa = r->sp + (sample_u64)(unwind_s64)rule->cfa_offset;
		if (cfa <= r->sp || (cfa & 7))
			return UNWIND_BAD_STACK;
		if (UNWIND_READ(ctx, &pair[1], 8, cfa - 8) != 0)
			return UNWIND_UNREADABLE;
		if (flags & UNWIND_FP_SAVED) {
			r->fp_at = cfa + (sample_u64)((unwind_s64)rule->fp_offset * UNWIND_SLOT);
			r->flags &= ~(sample_u32)UNWIND_REGS_FP_LOST;
		}
		if (flags & UNWIND_AUX_SAVED) {
			r->aux_at = cfa + (sample_u64)((unwind_s64)rule->aux_offset * UNWIND_SLOT);
			r->flags &= ~(sample_u32)UNWIND_REGS_AUX_LOST;
		}
		unwind_leave(r);
		r->leaf_at = 0;
		r->pc = UNWIND_CODE_POINTER(pair[1]);
		if (r->pc == 0)
			return UNWIND_ENDED;
		r->sp = cfa;
		return UNWIND_OK;
	}
	result = unwind_cfa_of(r, rule, ctx, &cfa);

	if (result != UNWIND_OK)
		return result;
	if (flags & UNWIND_RA_LEAF) {
		result = unwind_leaf(r, (sample_u32)rule->ra_offset, ctx, &pair[1]);
		if (result != UNWIND_OK)
			return result;
		in_register = 1;
	} else if (flags & UNWIND_RA_AUX) {
		result = unwind_aux(r, ctx);
		if (result != UNWIND_OK)
			return result;
		pair[1] = r->aux;
		in_register = 1;
	}
	if (!(flags & UNWIND_MOVES) && (cfa < r->sp || (cfa == r->sp && !in_register)))
		return UNWIND_BAD_STACK;
	if (cfa & 7)
		return UNWIND_BAD_STACK;
	if (!in_register) {
		sample_u64 at = (flags & UNWIND_RA_SP ? r->sp : cfa) +
			(sample_u64)((unwind_s64)rule->ra_offset * UNWIND_SLOT);

		if ((flags & UNWIND_SIGNAL) && (flags & UNWIND_RA_SP))
			leaf_at = at - UNWIND_SLOT * UNWIND_SIGNAL_PC;
		if (both && UNWIND_READ(ctx, pair, 16, at - 8) == 0)
			fp_read = 1;
		else if (UNWIND_READ(ctx, &pair[1], 8, at) != 0)
			return UNWIND_UNREADABLE;
	}
	result = unwind_saved(r, rule, ctx, cfa, fp_read, pair[0]);
	if (result != UNWIND_OK)
		return result;
	unwind_leave(r);
	r->leaf_at = leaf_at;
	if (flags & UNWIND_SIGNAL)
		r->flags = (r->flags & ~(sample_u32)UNWIND_REGS_INHERITED) | UNWIND_REGS_EXACT;
	if (flags & UNWIND_APPROXIMATE)
		r->flags |= UNWIND_REGS_GUESSED;
	r->pc = UNWIND_CODE_POINTER(pair[1]);
	if (r->pc == 0)
		return UNWIND_ENDED;
	r->sp = cfa;
	return UNWIND_OK;
}
#endif
