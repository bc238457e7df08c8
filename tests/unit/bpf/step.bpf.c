/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* The step and the search as a program in the kernel, for tests/unit/unwind/bpf_test.c: it walks
 * this very task by rows that the test laid out, and leaves the registers of each frame. A bounded
 * loop, no bpf_loop(): what 5.10 has to accept. */

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <bpf/bpf_helpers.h>

#include "bpf/unwind.h"

#define ROWS   1024
#define RULES  64
#define FRAMES 32

struct walk {
	struct unwind_regs regs;
	struct unwind_rule rules[RULES];
	sample_u64 base; /* of the rows' pcs */
	sample_u32 n_rows, result, n_frames, pad;
	sample_u16 pc[ROWS], rule[ROWS];
	struct {
		sample_u64 pc, sp, fp, fp_at;
	} frames[FRAMES];
};

#define UNWIND_READ(ctx, to, size, address) bpf_probe_read_user(to, size, (const void *)(address))
#define UNWIND_PC(ctx, i)                   (((struct walk *)(ctx))->pc[(i) & (ROWS - 1)])

#include "bpf/unwind_step.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, sample_u32);
	__type(value, struct walk);
} walks SEC(".maps");

static __always_inline int one(struct walk *w, sample_u32 i)
{
	sample_u32 row = unwind_search(
		w, 0, w->n_rows, (sample_u32)(unwind_lookup_pc(&w->regs) - w->base), 16);
	int result = unwind_step(&w->regs, &w->rules[w->rule[row & (ROWS - 1)] & (RULES - 1)], w);

	w->frames[i & (FRAMES - 1)].pc = w->regs.pc;
	w->frames[i & (FRAMES - 1)].sp = w->regs.sp;
	w->frames[i & (FRAMES - 1)].fp = w->regs.fp;
	w->frames[i & (FRAMES - 1)].fp_at = w->regs.fp_at;
	return result;
}

static __always_inline struct walk *find(void)
{
	sample_u32 zero = 0;

	return bpf_map_lookup_elem(&walks, &zero);
}

static __always_inline int walk(struct walk *w)
{
	for (sample_u32 i = 0; i < FRAMES; i++) {
		int result = one(w, i);

		w->result = (sample_u32)result;
		w->n_frames = i + 1;
		if (result != UNWIND_OK)
			break;
	}
	return 0;
}

/* As the headers of this machine have it, or of arm64 where that is only compiled. */
#if defined(__TARGET_ARCH_arm64) && !defined(__aarch64__)
struct sampled {
	struct {
		sample_u64 regs[31], sp, pc, pstate;
	} regs;
};
#else
#define sampled bpf_perf_event_data
#endif

SEC("perf_event")
int step_perf(struct sampled *ctx)
{
	struct walk *w = find();

	if (!w)
		return 0;
	UNWIND_REGS_LOAD(&w->regs, &ctx->regs);
	return walk(w);
}

SEC("raw_tp/sys_enter")
int step_tp(void *ctx)
{
	struct walk *w = find();

	return w ? walk(w) : 0;
}
