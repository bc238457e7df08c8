/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What a sample takes along when its walk met something unknown: the walk's state and a slice of
 * the stack, so that user space goes on with that very sample.
 *
 * The slice begins below the red zone and ends, in the thread that exec began with, where its stack
 * does: most are short. Another thread's stack has no end that we know: up to THREAD_SLICE of it is
 * taken. The slice is read page by page, so that a page that is not there
 * costs no more than itself. It is bounded by size, by a rate a CPU (what was not used of it in the
 * last four seconds may be used at once), and by the ring: a slice that pushes samples out is worth
 * less than they are.
 *
 * The rate counts slices of SLICE_PRICED bytes: what they cost is mostly their bytes, and nearly all are
 * small, so that many more of those may come, as they do where processes are started by the dozen. A walk
 * that has guessed before it met the unknown may have lost its way, which a program with code of its own
 * making does again and again: such samples have a share of their own (1 / DOUBTFUL_SHARE), and leave
 * the others theirs. */

#include "bpf/find.h"

#define RED_ZONE       128
#define ABOVE_STACK    256 /* what lies behind the end and may be looked at */
#define THREAD_SLICE   (56 << 10)
#define SLICE_BURST    4000000000ULL /* ns */
#define SLICE_PRICED   (32 << 10)    /* bytes; and one of none costs a quarter of one of so many */
#define DOUBTFUL_SHARE 4

static __always_inline __u64 *slice_debt(struct scratch *s)
{
	return s->walk.guessed ? &s->doubtful_debt : &s->slice_debt;
}

/* One more slice? A debt is the time at which all that were taken are paid for. */
static __always_inline bool slice_allowed(struct scratch *s, __u64 now)
{
	__u64 *debt = slice_debt(s);

	if (*debt + SLICE_BURST < now)
		*debt = now - SLICE_BURST;
	return settings.slices_a_second && *debt < now &&
		bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) <= 2 * (__u64)settings.wakeup_bytes;
}

static __always_inline void slice_pay(struct scratch *s, __u32 bytes)
{
	__u32 rate = settings.slices_a_second;
	__u64 cost = rate ? 1000000000ULL / rate : 0;

	cost = cost / 4 + cost * bytes / (SLICE_PRICED / 3 * 4);
	*slice_debt(s) += s->walk.guessed ? cost * DOUBTFUL_SHARE : cost;
}

/* How much of the stack from start on is of use. */
static __always_inline __u64 slice_bytes(__u64 start)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();
	__u64 end = BPF_CORE_READ(task, mm, start_stack), bytes = stack_bytes;

	if (end - start >= bytes) /* as for all that lies behind the end */
		return bytes < THREAD_SLICE ? bytes : THREAD_SLICE;
	end = (end + ABOVE_STACK - start) & ~7ULL;
	return end < bytes ? end : bytes;
}

/* Behind the last frame; how many bytes it is. */
static __always_inline __u32 add_slice(struct scratch *s, __u32 n_frames)
{
	struct unwind_regs *r = &s->walk.regs;
	struct sample_stack *to;
	__u64 start, bytes;

	if (n_frames > SAMPLE_MAX_FRAMES)
		return 0;
	to = (void *)&s->record.frames[n_frames];
	unwind_walk_look(&s->walk, s);
	if (unwind_fp(r, s) != UNWIND_OK) {
		r->flags |= UNWIND_REGS_FP_LOST;
		r->fp_at = 0;
	}
	if (unwind_aux(r, s) != UNWIND_OK) {
		r->flags |= UNWIND_REGS_AUX_LOST;
		r->aux_at = 0;
	}
	_Static_assert(sizeof(*r) == sizeof(to->state), "the state is the registers");
	__builtin_memcpy(to->state, r, sizeof(to->state));
	start = (r->sp - RED_ZONE) & ~7ULL;
	bytes = slice_bytes(start);
	to->start = start;
	to->len = 0;
	to->present = 0;
	/* Where we are lies in memory, of which verifiers know nothing: the bounds that they make out of
	 * the page before contradict each other on 5.10, and it refuses what comes of that. */
	s->slice_at = 0;
	for (__u32 i = 0; i < SAMPLE_STACK_PAGES; i++) {
		__u64 from = *(volatile __u64 *)&s->slice_at, size;

		if (from >= bytes || from > SAMPLE_STACK_MAX)
			break;
		size = SAMPLE_STACK_PAGE - ((start + from) & (SAMPLE_STACK_PAGE - 1));
		if (size > bytes - from)
			size = bytes - from;
		barrier_var(size);
		if (size > SAMPLE_STACK_PAGE)
			size = SAMPLE_STACK_PAGE;
		s->slice_at = from + size;
		if (bpf_probe_read_user(&to->bytes[from], size, (const void *)(start + from)) ==
			0) {
			to->len = from + size;
			to->present |= 1U << i;
		}
	}
	return sizeof(*to) + *(volatile __u32 *)&to->len;
}
