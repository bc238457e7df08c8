/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* A walk, frame by frame, compiled into the programs in the kernel and into user space, so that a
 * walk that the kernel could not finish goes on in user space as if nothing had happened.
 *
 * One turn of unwind_walk_turn(): the mapping of the frame's pc (the one of the frame before, most
 * of the time), its rule, the frame itself, the step to its caller. Where there are no rows, or
 * none that can be read: by the frame pointer, if it is one (at or above sp, within
 * UNWIND_FRAME_MAX, aligned, and what lies there returns into executable memory); without even
 * that, by the nearest word of the stack that is an address behind a call instruction. An
 * interrupted function of a file is assembly, most often, which keeps no frame and leaves the frame
 * pointer its caller's, or its caller's caller's: there the stack is searched first, and believed
 * where the call is one that leads to such code. What was found so is marked FRAME_APPROXIMATE.
 *
 * x86-64: an interrupted function's first instructions, and its ret, have the caller's frame pointer;
 * by that its caller would be left out. So the code there is looked at first, and what lies on top of the
 * stack, or behind the frame pointer that was just pushed, is taken where it is an address in executable
 * memory, behind a call if that is a file. User space has no code but that of files, so a sample with a
 * slice carries in the flags of its registers what the kernel saw. And stacks are full of
 * addresses that calls left behind: in one of a function that keeps its frame pointer the
 * search does not believe them (unwind_walk_stale()). chain.c of the unit tests, built with frame
 * pointers and without tables: 6 to 16 % of its instructions had a wrong caller before both, 0.1 % have.
 *
 * A search of the stack is spread over turns, a word each, so that a turn has no loop and walks need
 * no loop within a loop. A walk ends within UNWIND_WALK_TURNS(frames) turns.
 *
 * The includer says, before including this:
 *   UNWIND_READ(ctx, to, size, address)    0 when all bytes were read
 *   UNWIND_FIND_MAP(ctx, address, map)     fills *map, struct space_map: 0; else an end, and *map is
 *                                          as it was: WALK_UNMAPPED where nothing executable is;
 *                                          WALK_MISS_*
 *   UNWIND_FIND_RULE(ctx, key, offset, rule)   fills *rule from the page's rows (ROWS_KEY()): 0;
 *                                          WALK_MISS_ROWS
 *   UNWIND_CODE(ctx, map, address, to, size)   0 when all bytes of code were read; map is that of
 *                                          the address behind them
 *   UNWIND_EMIT(ctx, frame)                takes one struct sample_frame (a value): 0; WALK_DEPTH:
 *                                          full
 *   UNWIND_KNOWN(ctx, pc)                  optional: where what was found out of the code at pc is kept
 *                                          from one walk to the next (struct unwind_known *), by
 *                                          w->tag, which says which mappings it holds of
 * Each may return other ends of enum walk_end where it cannot go on (WALK_SLICE in user space is
 * said by the includer: it knows which read failed for want of the slice).
 *
 * What a miss leaves: regs are those of the first frame that was not emitted, so that a walk goes on
 * from there (unwind_walk_begin() is not called again, but map is empty). */

#include "bpf/tables.h"
#include "bpf/unwind_step.h"

#define UNWIND_FRAME_MAX   (1 << 20) /* bytes; a frame pointer farther up is none */
#define UNWIND_GUESS_WORDS 64        /* of the stack that one search looks at */
#define UNWIND_FUNCTION_MAX                                                                        \
	(16 << 10)       /* of code without rows; a longer way to a call's target is doubtful */
#define UNWIND_GUESSES 4 /* searches in one walk */
#define UNWIND_ROOT_WORDS                                                                          \
	16 /* the same before what may be a root is believed: so much assembly keeps on the stack */
#define UNWIND_WALK_TURNS(frames)                                                                  \
	((frames) + 1 + UNWIND_GUESSES * (UNWIND_GUESS_WORDS + 1) +                                \
		1) /* after so many it has ended */

/* What was found out of a place in the code. It holds as long as the mappings that the tag stands for:
 * files do not change, nor do their rows, but that a page without any may get some later. So only
 * rules that lead on, or that end a stack, are kept. */
struct unwind_known {
	sample_u64 pc;   /* the place, as unwind_lookup_pc() has it; 0: not to be found again */
	sample_u64 bias; /* of its map */
	sample_u32 file;
	sample_u32 tag;
	sample_u32 kind; /* enum space_kind; 0: no map */
	sample_u32 uses; /* for the includer */
	struct unwind_rule rule;
};
_Static_assert(sizeof(struct unwind_known) == 48, "known");

struct unwind_walk {
	struct unwind_regs regs;
	struct unwind_known known; /* of an interrupted place, or where nothing is kept */
	struct space_map map;      /* the last one looked up; all 0: none */
	struct space_map other;    /* of an address that is only tried */
	sample_u64 weak, weak_at;  /* a return address that may be it, where it lay; 0: none */
	sample_u32 end;            /* enum walk_end; 0: goes on */
	sample_u32 end_file;       /* of the last frame; 0: none */
	sample_u32 guessed;        /* frames with FRAME_APPROXIMATE */
	sample_u32 word;      /* not 0: 2 + the word of the stack that is tried next; 1: fp's */
	sample_u32 guesses;   /* searches begun */
	sample_u32 why;       /* the end if the search finds nothing */
	sample_u32 tag;       /* see UNWIND_KNOWN */
	sample_u32 fp_belief; /* in what the frame pointer leads to, while a search goes on */
	sample_u64 fp_target,
		target; /* where that call leads, and the last one that was believed in */
};

/* The marker that follows the frames of a walk that ended so; 0: none. */
static __inline__ __attribute__((always_inline)) sample_u32 unwind_walk_marker(sample_u32 end)
{
	return end == WALK_ROOT     ? 0
		: end == WALK_NONE  ? MARKER_NO_USER
		: end == WALK_DEPTH ? MARKER_TRUNCATED
				    : MARKER_LOST;
}

/* Before the first turn. regs are set by the caller. */
static __inline__ __attribute__((always_inline)) void unwind_walk_begin(struct unwind_walk *w)
{
	w->map.start = w->map.end = w->map.bias = 0;
	w->map.file = w->map.kind = 0;
	w->end = w->end_file = w->guessed = w->word = w->guesses = w->why = 0;
	w->weak = w->weak_at = 0;
	w->tag = 0;
}

static __inline__ __attribute__((always_inline)) int unwind_walk_in(
	const struct space_map *map, sample_u64 address)
{
	return address - map->start < map->end - map->start;
}

static __inline__ __attribute__((always_inline)) int unwind_walk_end(
	struct unwind_walk *w, sample_u32 end)
{
	w->end = end;
	return 1;
}

/* How steps end, as walks end. */
static __inline__ __attribute__((always_inline)) sample_u32 unwind_walk_end_of(int result)
{
	return result == UNWIND_ENDED            ? WALK_ROOT
		: result == UNWIND_UNSUPPORTED   ? WALK_UNSUPPORTED
		: result == UNWIND_SWITCHED      ? WALK_SWITCHED
		: result == UNWIND_LOST_REGISTER ? WALK_LOST_REGISTER
		: result == UNWIND_UNREADABLE    ? WALK_UNREADABLE
		: result == UNWIND_BAD_STACK     ? WALK_BAD_STACK
						 : WALK_NO_INFORMATION;
}

#ifdef UNWIND_FIND_MAP

/* ---- frames without rows
 * ---------------------------------------------------------------------------------------------- */

#define UNWIND_ENDBR 0xfa1e0ff3

/* Where in eight bytes of code mov %rsp,%rbp ends, in either encoding; 9: nowhere. */
static __inline__ __attribute__((always_inline)) sample_u32 unwind_sets_frame(sample_u64 code)
{
#ifdef __clang__
#pragma clang loop unroll(full)
#endif
	for (sample_u32 i = 0; i < 6; i++) {
		sample_u32 three = (sample_u32)(code >> (8 * i)) & 0xffffff;

		if (three == 0xe58948 || three == 0xec8b48)
			return i + 3;
	}
	return 9;
}

/* Whether the eight bytes before an address (the last one is the highest of code) end with a call;
 * the target of a direct one is set as offset from the address behind it, else 0. */
static __inline__ __attribute__((always_inline)) int unwind_is_call(
	sample_u64 code, unwind_s64 *offset)
{
	*offset = 0;
#if defined(__TARGET_ARCH_arm64) || (!defined(__bpf__) && defined(__aarch64__))
	sample_u32 i = (sample_u32)(code >> 32);

	if ((i & 0xfc000000) == 0x94000000) { /* bl */
		*offset = (unwind_s64)((sample_u64)i << 38) >> 36;
		*offset -= 4;
		return 1;
	}
	return (i & 0xfffffc1f) == 0xd63f0000 || (i & 0xfefff800) == 0xd63f0800; /* blr, blraa.. */
#else
	/* ff /2: modrm's middle field is 2; its length follows from mod, rm and sib. Prefixes lie
	 * before it and change nothing. */
#define UNWIND_BYTE(n) ((sample_u32)(code >> (8 * (8 - (n)))) & 0xff) /* n before the end */
	if (UNWIND_BYTE(5) == 0xe8) {
		*offset = (unwind_s32)(sample_u32)(code >> 32);
		return 1;
	}
	if (UNWIND_BYTE(2) == 0xff) {
		sample_u32 m = UNWIND_BYTE(1);

		if ((m & 0xf8) == 0xd0 || ((m & 0xf8) == 0x10 && m != 0x14 && m != 0x15))
			return 1;
	}
	if (UNWIND_BYTE(3) == 0xff) {
		sample_u32 m = UNWIND_BYTE(2);

		if (((m & 0xf8) == 0x50 && m != 0x54) || (m == 0x14 && (UNWIND_BYTE(1) & 7) != 5))
			return 1;
	}
	if (UNWIND_BYTE(4) == 0xff && UNWIND_BYTE(3) == 0x54)
		return 1;
	if (UNWIND_BYTE(6) == 0xff) {
		sample_u32 m = UNWIND_BYTE(5);

		if (m == 0x15 || ((m & 0xf8) == 0x90 && m != 0x94))
			return 1;
	}
	return UNWIND_BYTE(7) == 0xff &&
		(UNWIND_BYTE(6) == 0x94 || (UNWIND_BYTE(6) == 0x14 && (UNWIND_BYTE(5) & 7) == 5));
#undef UNWIND_BYTE
#endif
}

/* Whether code begins at a function's first instructions or at its last one: the return address is
 * what lies at sp, and the frame pointer the caller's. The register that arm64 has for return addresses
 * says more. */
static __inline__ __attribute__((always_inline)) int unwind_at_edge(sample_u64 code)
{
	sample_u32 at = (sample_u32)code & 0xff;

	if (!UNWIND_AUX_SURVIVES)
		return 0;
	if ((sample_u32)code == UNWIND_ENDBR)
		at = (sample_u32)(code >> 32) & 0xff;
	else if (at == 0xc3 || at == 0xc2 || (code & 0xffff) == 0xc3f3 || (code & 0xffff) == 0xc3f2)
		return 1;  /* ret */
	return at == 0x55; /* push %rbp */
}

/* The executable map of an address that may be anything; NULL: in none that is known. */
static __inline__ __attribute__((always_inline)) struct space_map *unwind_walk_try_map(
	struct unwind_walk *w, void *ctx, sample_u64 address)
{
	if (unwind_walk_in(&w->map, address))
		return &w->map;
	return UNWIND_FIND_MAP(ctx, address, &w->other) == 0 ? &w->other : 0;
}

static __inline__ __attribute__((always_inline)) void unwind_walk_take(
	struct unwind_walk *w, sample_u64 pc, sample_u64 sp)
{
	struct unwind_regs *r = &w->regs;

	r->pc = pc;
	r->sp = sp;
	r->leaf_at = 0;
	r->flags &= ~(sample_u32)(UNWIND_REGS_LEAF | UNWIND_REGS_EXACT | UNWIND_REGS_INHERITED |
		UNWIND_REGS_SEEN | UNWIND_REGS_TOP | UNWIND_REGS_NEXT);
	r->flags |= UNWIND_REGS_GUESSED;
	if (!UNWIND_AUX_SURVIVES)
		r->flags |= UNWIND_REGS_AUX_LOST;
}

/* Whether the interrupted function, if it is the one at start, has its frame pointer by now. */
static __inline__ __attribute__((always_inline)) int unwind_walk_framed(
	struct unwind_walk *w, void *ctx, sample_u64 start)
{
	sample_u64 code[2] = {0, 0};
	sample_u32 end = 0;

	if (!UNWIND_AUX_SURVIVES || UNWIND_CODE(ctx, &w->map, start, code, 16) != 0)
		return 0;
	if ((sample_u32)code[0] == UNWIND_ENDBR) {
		code[0] = code[0] >> 32 | code[1] << 32;
		end = 4;
	}
	if ((code[0] & 0xff) != 0x55)
		return 0;
	end += unwind_sets_frame(code[0]);
	return end <= 12 && w->regs.pc - start >= end;
}

enum unwind_belief { UNWIND_NOT, UNWIND_WEAK, UNWIND_STRONG };

/* Whether pc is what a call returns to, and whether that call led here. Of a direct call in the map
 * where we are it is known: its target lies before us, and is without rows like all code from there
 * on. Words that were left behind by calls that returned long ago fail by that. */
static __inline__ __attribute__((always_inline)) enum unwind_belief unwind_walk_plausible(
	struct unwind_walk *w, void *ctx, sample_u64 pc)
{
	struct space_map *map = unwind_walk_try_map(w, ctx, pc - 1);
	sample_u64 code = 0, target;
	unwind_s64 offset;
	int result;

	if (!map || UNWIND_CODE(ctx, map, pc - 8, &code, 8) != 0)
		return UNWIND_NOT;
	if (!unwind_is_call(code, &offset))
		return UNWIND_NOT;
	if (w->map.kind != SPACE_FILE)
		return UNWIND_STRONG; /* nothing better is to be had */
	target = pc + (sample_u64)offset;
	if (offset == 0 || !unwind_walk_in(&w->map, target))
		return UNWIND_WEAK;
	if (target > w->regs.pc)
		return UNWIND_NOT;
	if (w->regs.pc - target >= UNWIND_FUNCTION_MAX)
		return UNWIND_WEAK;
	target += w->map.bias;
	result = UNWIND_FIND_RULE(ctx, ROWS_KEY(w->map.file, target >> UNWIND_PAGE_SHIFT),
		(sample_u32)target & (UNWIND_PAGE_SIZE - 1), &w->known.rule);
	if (result != 0)
		return UNWIND_WEAK;
	if (w->known.rule.cfa > UNWIND_CFA_UNSUPPORTED)
		return UNWIND_NOT;
	w->target = target - w->map.bias;
	return UNWIND_STRONG;
}

/* To the caller by the frame pointer. UNWIND_OK, UNWIND_ENDED, or it is none. */
static __inline__ __attribute__((always_inline)) int unwind_walk_by_fp(
	struct unwind_walk *w, void *ctx)
{
	struct unwind_regs *r = &w->regs;
	sample_u64 pair[2] = {0, 0}, pc;
	int interrupted = (r->flags & (UNWIND_REGS_LEAF | UNWIND_REGS_EXACT)) != 0;
	int result = unwind_fp(r, ctx);

	if (result != UNWIND_OK)
		return result;
	/* So threads begin, in assembly of a file; made code may just not use it. */
	if (r->fp == 0)
		return interrupted || w->map.kind != SPACE_FILE ? UNWIND_NO_INFORMATION
								: UNWIND_ENDED;
	if ((r->fp & 7) || r->fp - r->sp >= UNWIND_FRAME_MAX)
		return UNWIND_NO_INFORMATION;
	if (UNWIND_READ(ctx, pair, 16, r->fp) != 0)
		return UNWIND_UNREADABLE;
	pc = UNWIND_CODE_POINTER(pair[1]);
	/* Zeros are an outermost frame's, or just memory that a register points at. */
	if (pc == 0)
		return pair[0] == 0 && !interrupted ? UNWIND_ENDED : UNWIND_NO_INFORMATION;
	if (!unwind_walk_try_map(w, ctx, pc - 1))
		return UNWIND_NO_INFORMATION;
	unwind_walk_take(w, pc, r->fp + 16);
	r->fp = pair[0];
	r->flags |= UNWIND_REGS_AUX_LOST;
	return UNWIND_OK;
}

/* The search found no call that surely led here, or came to where a frame pointer points, behind which
 * lies what is its callers': by the frame pointer, if that was not tried; at last the nearest call
 * that may have. -1: the search goes on. */
static __inline__ __attribute__((always_inline)) int unwind_walk_settle(
	struct unwind_walk *w, void *ctx, int last)
{
	int result = UNWIND_NO_INFORMATION;

	if (w->map.kind == SPACE_FILE && (w->regs.flags & UNWIND_REGS_LEAF))
		result = unwind_walk_by_fp(w, ctx);
	if (result == UNWIND_ENDED)
		return unwind_walk_end(w, WALK_ROOT);
	if (result != UNWIND_OK && !last)
		return -1;
	if (result != UNWIND_OK && w->weak_at && w->why != WALK_ROOT) {
		unwind_walk_take(w, w->weak, w->weak_at);
		result = UNWIND_OK;
	}
	if (result != UNWIND_OK)
		return unwind_walk_end(w, w->why);
	w->word = 0;
	return 0;
}

/* Whether a search that found a call that leads before us goes on: what the frame pointer leads to is
 * better. The call that led here leads to the last of the functions before us; those that lead farther
 * before were left behind on the stack. And a function that keeps its frame pointer was not called
 * from anywhere else. */
static __inline__ __attribute__((always_inline)) int unwind_walk_stale(
	struct unwind_walk *w, void *ctx)
{
	if (w->fp_belief == UNWIND_STRONG)
		return w->fp_target >= w->target;
	return w->fp_belief == UNWIND_WEAK && w->word > 2 && unwind_walk_framed(w, ctx, w->target);
}

/* One word of the search. The first is where the frame pointer, if it is one, has its return address. */
static __inline__ __attribute__((always_inline)) int unwind_walk_guess(
	struct unwind_walk *w, void *ctx)
{
	const sample_u32 i = w->word - 2;
	const int by_fp = w->word == 1;
	const sample_u64 at = by_fp ? w->regs.fp + 8 : w->regs.sp + 8ULL * i;
	enum unwind_belief belief;
	sample_u64 pc = 0;
	int last = UNWIND_READ(ctx, &pc, 8, at) != 0 ||
		(!by_fp && i >= (w->why == WALK_ROOT ? UNWIND_ROOT_WORDS : UNWIND_GUESS_WORDS));

	if (!by_fp && (last || at - w->regs.fp < 8)) {
		int result = unwind_walk_settle(w, ctx, last);

		if (result >= 0)
			return result;
	}
	pc = UNWIND_CODE_POINTER(pc);
	belief = unwind_walk_plausible(w, ctx, pc);
	if (by_fp) {
		w->fp_belief = last ? UNWIND_NOT : belief;
		w->fp_target = w->target;
		w->word = 2;
		return 0;
	}
	if (belief == UNWIND_STRONG && unwind_walk_stale(w, ctx))
		belief = UNWIND_WEAK;
	if (belief == UNWIND_STRONG) {
		unwind_walk_take(w, pc, at + 8);
		w->word = 0;
		return 0;
	}
	if (belief == UNWIND_WEAK && !w->weak_at) {
		w->weak = pc;
		w->weak_at = at + 8;
	}
	w->word = i + 3;
	return 0;
}

/* Looks at the code at which the program was interrupted, once: what it says stays in the flags, and so
 * goes with the sample to user space, which has the code of files only. Between push %rbp and mov
 * %rsp,%rbp, where compilers put an instruction or two, the word at sp is the frame pointer. */
static __inline__ __attribute__((always_inline)) void unwind_walk_look(
	struct unwind_walk *w, void *ctx)
{
	struct unwind_regs *r = &w->regs;
	sample_u64 code[2] = {0, 0}, first = 0;

	if (!UNWIND_AUX_SURVIVES ||
		(r->flags & (UNWIND_REGS_LEAF | UNWIND_REGS_SEEN)) != UNWIND_REGS_LEAF)
		return;
	r->flags |= UNWIND_REGS_SEEN;
	if (UNWIND_CODE(ctx, &w->map, r->pc, &code[0], 8) != 0)
		return;
	if (unwind_at_edge(code[0])) {
		r->flags |= UNWIND_REGS_TOP;
		return;
	}
	if (UNWIND_READ(ctx, &first, 8, r->sp) != 0 || first != r->fp ||
		UNWIND_CODE(ctx, &w->map, r->pc + 8, &code[1], 8) != 0)
		return;
	if (unwind_sets_frame(code[0]) <= 8 ||
		unwind_sets_frame(code[0] >> 48 | code[1] << 16) <= 8)
		r->flags |= UNWIND_REGS_NEXT;
}

/* To the caller of code that said where its return address is: 1. 0: it did not, or that is none. */
static __inline__ __attribute__((always_inline)) int unwind_walk_by_edge(
	struct unwind_walk *w, void *ctx)
{
	struct unwind_regs *r = &w->regs;
	sample_u64 at = r->sp, pc = 0, code = 0;
	struct space_map *map;
	unwind_s64 offset;

	if (!(r->flags & (UNWIND_REGS_TOP | UNWIND_REGS_NEXT)))
		return 0;
	if (r->flags & UNWIND_REGS_NEXT)
		at += 8;
	if (UNWIND_READ(ctx, &pc, 8, at) != 0)
		return 0;
	map = unwind_walk_try_map(w, ctx, pc - 1);
	if (!map)
		return 0;
	/* Both sides can look at the code of files. */
	if (map->kind == SPACE_FILE &&
		(UNWIND_CODE(ctx, map, pc - 8, &code, 8) != 0 || !unwind_is_call(code, &offset)))
		return 0;
	unwind_walk_take(w, pc, at + 8);
	return 1;
}

/* No rule for this frame, which was emitted. */
static __inline__ __attribute__((always_inline)) int unwind_walk_without(
	struct unwind_walk *w, void *ctx, sample_u32 why)
{
	struct unwind_regs *r = &w->regs;

	/* A leaf's return address is in its register, where there is one. */
	if (!UNWIND_AUX_SURVIVES && (r->flags & UNWIND_REGS_LEAF)) {
		sample_u64 pc = UNWIND_CODE_POINTER(r->aux);

		if (unwind_walk_plausible(w, ctx, pc) != UNWIND_NOT) {
			unwind_walk_take(w, pc, r->sp);
			return 0;
		}
	}
	if (r->flags & UNWIND_REGS_LEAF) {
		unwind_walk_look(w, ctx);
		if (unwind_walk_by_edge(w, ctx))
			return 0;
	}
	if (w->map.kind != SPACE_FILE || !(r->flags & UNWIND_REGS_LEAF)) {
		int result = unwind_walk_by_fp(w, ctx);

		if (result == UNWIND_OK)
			return 0;
		/* Where nobody keeps a frame pointer it is as zero all the way down as it was at the
		 * root: unless a call surely led here, this is it. */
		if (result == UNWIND_ENDED)
			why = WALK_ROOT;
		if (result == UNWIND_ENDED && r->fp != 0)
			return unwind_walk_end(w, why);
	}
	if (w->guesses >= UNWIND_GUESSES)
		return unwind_walk_end(w, why);
	w->guesses++;
	w->why = why;
	w->weak_at = 0;
	w->fp_belief = UNWIND_NOT;
	w->word = w->map.kind == SPACE_FILE && UNWIND_AUX_SURVIVES &&
			(r->flags & UNWIND_REGS_LEAF) && !(r->fp & 7) &&
			r->fp - r->sp < UNWIND_FRAME_MAX
		? 1
		: 2;
	return 0;
}

/* ---- the walk
 * --------------------------------------------------------------------------------------------------- */

#ifndef UNWIND_KNOWN
#define UNWIND_KNOWN(ctx, pc) (&w->known)
#endif

static __inline__ __attribute__((always_inline)) int unwind_walk_emit(
	struct unwind_walk *w, void *ctx, const struct unwind_known *known)
{
	struct unwind_regs *r = &w->regs;
	struct sample_frame frame = {
		.kind = FRAME_NATIVE,
		.file = known->file,
		.offset = r->pc + known->bias,
	};

	frame.flags = r->flags & (UNWIND_REGS_LEAF | UNWIND_REGS_EXACT) ? 0 : FRAME_RETURN;
	w->end_file = known->file;
	if (r->flags & UNWIND_REGS_GUESSED) {
		frame.flags |= FRAME_APPROXIMATE;
		w->guessed++;
		r->flags &= ~(sample_u32)UNWIND_REGS_GUESSED;
	}
	return UNWIND_EMIT(ctx, frame);
}

/* Finds out what is known of the code at pc. 0 or the end. */
static __inline__ __attribute__((always_inline)) int unwind_walk_find(
	struct unwind_walk *w, void *ctx, sample_u64 pc, struct unwind_known *known)
{
	sample_u64 offset;
	int result;

	known->pc = 0;
	known->rule.cfa = UNWIND_CFA_NONE;
	if (!unwind_walk_in(&w->map, pc)) {
		result = UNWIND_FIND_MAP(ctx, pc, &w->map);
		if (result == WALK_UNMAPPED && (w->regs.flags & UNWIND_REGS_LEAF)) {
			/* It is running there, whatever we know: a frame by its address. */
			w->map.start = w->map.end = w->map.bias = 0;
			w->map.file = w->map.kind = 0;
		} else if (result != 0) {
			return result;
		}
	}
	known->bias = w->map.bias;
	known->file = w->map.file;
	known->kind = w->map.kind;
	if (known->kind == SPACE_UNKNOWN)
		return WALK_MISS_MAP;
	if (known->kind != SPACE_FILE)
		return 0;
	offset = pc + known->bias;
	result = UNWIND_FIND_RULE(ctx, ROWS_KEY(known->file, offset >> UNWIND_PAGE_SHIFT),
		(sample_u32)offset & (UNWIND_PAGE_SIZE - 1), &known->rule);
	if (result != 0)
		return result;
	if (known->rule.cfa >= UNWIND_CFA_END && known->rule.cfa <= UNWIND_CFA_LEAF) {
		known->tag = w->tag;
		known->pc = pc;
	}
	return 0;
}

/* 0: goes on; 1: ended, w->end says how. */
static __inline__ __attribute__((always_inline)) int unwind_walk_turn(
	struct unwind_walk *w, void *ctx)
{
	struct unwind_known *known = &w->known;
	sample_u64 pc;
	sample_u32 why = WALK_JIT;
	int result;

	if (UNWIND_RARE(w->word))
		return unwind_walk_guess(w, ctx);
	pc = unwind_lookup_pc(&w->regs);
	w->known.pc = 0;
	if (!(w->regs.flags & (UNWIND_REGS_LEAF | UNWIND_REGS_EXACT)))
		known = UNWIND_KNOWN(ctx, pc);
	/* Nothing is kept of address 0: there it says that the place is free. */
	if (UNWIND_RARE(known->pc != pc || known->tag != w->tag || pc == 0)) {
		result = unwind_walk_find(w, ctx, pc, known);
		if (result != 0)
			return unwind_walk_end(w, (sample_u32)result);
	}
	result = unwind_walk_emit(w, ctx, known);
	if (result != 0)
		return unwind_walk_end(w, (sample_u32)result);
	if (!UNWIND_RARE(known->kind != SPACE_FILE)) {
		result = unwind_step(&w->regs, &known->rule, ctx);
		if (!UNWIND_RARE(result != UNWIND_OK))
			return 0;
		why = unwind_walk_end_of(result);
		if (result != UNWIND_NO_INFORMATION && result != UNWIND_UNSUPPORTED)
			return unwind_walk_end(w, why);
	} else if (!known->kind) {
		why = WALK_UNMAPPED;
	}
	return unwind_walk_without(w, ctx, why);
}
#endif
