/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* The programs in the kernel: one takes samples on a perf event, four follow processes
 * (bpf/process.h).
 *
 * The sampling program runs in the interrupt of a cpu-clock event. What user space does not want
 * costs one look-up by image. The rest is walked: the kernel's stack by the kernel, that of user
 * space by rows (bpf/unwind_walk.h, bpf/find.h). A stack that was sent before is only counted
 * (bpf/count.h); one that met something unknown takes along what user space needs to go on
 * (bpf/slice.h). Nothing is lost without being counted, by cause.
 *
 * The value of a sample is settings.period_ns and not ctx->sample_period: the latter is
 * hw.last_period, which the hrtimer behind cpu-clock never updates, so that it stays at the first
 * period after PERF_EVENT_IOC_PERIOD (kernel/events/core.c, perf_swevent_hrtimer(); seen on 6.18).
 * User space changes both while the events are stopped.
 *
 * Kernels 5.10 and up, one way for all. A turn of the walk is a global function: those are verified
 * once, for any argument (51c39bb1d5d1, 5.6), and the loop over them is as cheap to verify as it is
 * short; no bpf_loop() (5.17) and no tail calls are needed, and none would be faster. Atomic adds have
 * no result (5.12), and records are copied to the ring at their exact length, since
 * bpf_ringbuf_reserve() wants a constant. */

#include "bpf/count.h"
#include "bpf/process.h"
#include "bpf/slice.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- the beginning of a sample
 * ------------------------------------------------------------------------------------ */

/* perf puts the interrupted instruction first, then return addresses. */
static __always_inline void add_kernel_stack(struct sampled *ctx, struct scratch *s)
{
	long bytes = bpf_get_stack(ctx, s->addresses, sizeof(s->addresses), 0);
	__u32 n = bytes > 0 ? (__u32)bytes / 8 : 0;

	if (n > STACK_MAX)
		n = 0;
	*(volatile __u32 *)&s->n_stack = n;
	for (__u32 i = 0; i < STACK_MAX; i++) {
		if (i >= *(volatile __u32 *)&s->n_stack)
			break;
		add_frame(s, FRAME_KERNEL | (i ? FRAME_RETURN << 8 : 0), s->addresses[i]);
	}
	if (*(volatile __u32 *)&s->n_stack >= max_stack)
		add_marker(s, MARKER_TRUNCATED);
}

/* The registers of user space. False: there are none (a user thread that never was there, of
 * io_uring or vhost, has zeroes). */
static __always_inline bool load_regs(struct sampled *ctx, struct scratch *s)
{
	struct unwind_regs *r = &s->walk.regs;
	bool compat;

	if (regs_of_user(&ctx->regs)) {
		UNWIND_REGS_LOAD(r, &ctx->regs);
		compat = regs_compat(&ctx->regs);
	} else {
		if (!regs_saved(&s->saved))
			return false;
		UNWIND_REGS_LOAD(r, &s->saved);
		compat = regs_compat(&s->saved);
	}
	if (compat)
		s->walk.end = WALK_COMPAT;
	s->leaf_pc = r->pc;
	return r->pc != 0;
}

/* The space by which this image is walked, if it is there and to be believed. */
static __always_inline bool load_space(struct scratch *s, const struct sample_verdict *verdict)
{
	const struct space_head *head;
	const void *units = space_units();
	__u32 n;

	if (!verdict || !verdict->space || !units ||
		verdict->space_generation != settings.space_generation)
		return false;
	head = (const void *)space_unit(units, verdict->space);
	if (head->tag != verdict->space_tag)
		return false;
	n = head->n;
	s->space = verdict->space + 1;
	s->n_maps = n <= SPACE_MAPS_MAX ? n : SPACE_MAPS_MAX;
	s->verdict.space = verdict->space;
	s->verdict.space_tag = verdict->space_tag;
	s->walk.tag = verdict->space_tag;
	return true;
}

/* Whether there is a user stack to be walked; if not, walk.end says why. */
static __always_inline bool begin_walk(struct sampled *ctx, struct scratch *s,
	const struct current *task, const struct sample_verdict *verdict)
{
	const struct mm_struct *mm = task->mm;

	unwind_walk_begin(&s->walk);
	s->walked = 0;
	s->has_user = 0;
	/* A task without mm that is no kernel thread has begun to exit: it is still its image's
	 * time. */
	if (task->kernel_thread) {
		s->record.head.flags |= SAMPLE_KERNEL_THREAD;
		return false;
	}
	if (!mm)
		return false;
	/* Within execve, between the old program and the new one: the registers are still those of
	 * the old, whose memory is gone. load_elf_binary() says last where the new code is. */
	if (!regs_of_user(&ctx->regs) && !BPF_CORE_READ(mm, start_code))
		return false;
	s->has_user = 1;
	if (!load_regs(ctx, s) || s->walk.end)
		return false;
	if (!load_space(s, verdict)) {
		s->walk.end = WALK_MISS_SPACE;
		return false;
	}
	s->walked = 1;
	return true;
}

static __always_inline void begin_record(struct scratch *s, __u32 tid, __u32 divisor, __u64 now)
{
	struct record_sample *head = &s->record.head;

	set_header(&head->header, RECORD_SAMPLE, now);
	head->tid = tid;
	head->type = SAMPLE_TYPE_CPU;
	head->value = settings.period_ns;
	head->count = divisor > 1 ? divisor : 1;
	head->flags = 0;
	head->context = 0;
	head->id = 0;
	head->pad = 0;
	head->space = 0;
	head->stack = 0;
	s->n_frames = 0;
	s->n_user = 0;
	s->window_len = 0;
	s->place_last = PLACES_START;
	s->hash = hash_key[0];
}

/* What becomes of a sample: */
enum begun {
	BEGUN_DONE, /* nothing is wanted of it */
	BEGUN_WALK, /* its user stack is walked next */
	BEGUN_WHOLE /* there is none */
};

static __always_inline enum begun begin_sample(
	struct sampled *ctx, struct sample_counters *count, struct scratch *s, __u32 tid, __u64 now)
{
	const struct sample_verdict *verdict;
	struct current task;
	__u32 divisor = 1;

	current_task(&s->record.head.image, &task);
	verdict = bpf_map_lookup_elem(&verdicts, &s->record.head.image);
	s->verdict.generation = 0;
	if (verdict && verdict->generation == settings.generation) {
		if (!(verdict->types & (1 << SAMPLE_TYPE_CPU))) {
			count->of[COUNT_IGNORED]++;
			return BEGUN_DONE;
		}
		divisor = verdict->divisor;
		/* At random, so that no rhythm of the program is in step with it. */
		if (divisor > 1 && bpf_get_prandom_u32() % divisor) {
			count->of[COUNT_DIVIDED]++;
			return BEGUN_DONE;
		}
		s->verdict.generation = 1;
		s->verdict.flags = verdict->flags;
		s->verdict.serial = verdict->serial;
	}
	begin_record(s, tid, divisor, now);
	if (!regs_of_user(&ctx->regs) && settings.kernel_frames)
		add_kernel_stack(ctx, s);
	return begin_walk(ctx, s, &task, verdict) ? BEGUN_WALK : BEGUN_WHOLE;
}

/* ---- its end
 * ---------------------------------------------------------------------------------------------------- */

/* A space that was replaced under the walk has led it anywhere: user space begins at the leaf. */
static __always_inline void check_space(struct scratch *s)
{
	const void *units = space_units();
	const volatile struct space_head *head;
	struct unwind_regs *r = &s->walk.regs;

	if (!s->walked || !units)
		return;
	head = (const void *)space_unit(units, s->verdict.space);
	if (head->tag == s->verdict.space_tag) {
		s->record.head.space = s->verdict.space_tag;
		return;
	}
	r->pc = s->leaf_pc;
	r->sp = r->leaf[UNWIND_DW_SP];
	r->fp = r->leaf[UNWIND_DW_FP];
	r->aux = r->leaf[UNWIND_DW_AUX];
	r->fp_at = r->aux_at = r->leaf_at = 0;
	r->flags = UNWIND_REGS_LEAF;
	s->n_frames -= s->n_user;
	s->n_user = 0;
	s->walk.guessed = 0;
	s->walk.end_file = 0;
	s->walk.end = WALK_MISS_SPACE;
}

/* The frame at which a walk ended without a slice, by its address: user space has at least its name, and
 * the next one its rows. */
static __always_inline void add_missed(struct scratch *s)
{
	const struct unwind_regs *r = &s->walk.regs;
	__u64 frame = FRAME_NATIVE;

	if (!(r->flags & (UNWIND_REGS_LEAF | UNWIND_REGS_EXACT)))
		frame |= FRAME_RETURN << 8;
	if (r->flags & UNWIND_REGS_GUESSED) {
		frame |= FRAME_APPROXIMATE << 8;
		s->record.head.guessed++;
	}
	add_frame(s, frame, r->pc);
}

/* An address in no map, behind a guess, when nobody can look closer: not a new map but a wrong guess, as
 * nearly always. Such a stack can be counted. */
static __always_inline __u32 beyond_belief(struct scratch *s, __u32 end)
{
	const struct space_map *map = &s->walk.map;

	if (end != WALK_MISS_MAP || !s->walk.guessed || (s->walk.regs.flags & UNWIND_REGS_LEAF) ||
		unwind_walk_in(map, unwind_lookup_pc(&s->walk.regs)))
		return end;
	return WALK_UNMAPPED;
}

/* The size of the record. */
static __always_inline __u64 end_record(struct sample_counters *count, struct scratch *s)
{
	struct record_sample *head = &s->record.head;
	__u32 end = s->walk.end, slice = 0, n;

	head->guessed = s->walk.guessed;
	head->end_file = s->walk.end_file;
	if (end >= WALK_MISS_SPACE) {
		if (slice_allowed(s, head->header.time)) {
			slice = add_slice(s, *(volatile __u32 *)&s->n_frames);
			slice_pay(s, slice);
			count->of[COUNT_SLICES]++;
		} else {
			count->of[COUNT_NO_SLICE]++;
			end = beyond_belief(s, end);
		}
	}
	head->end = end;
	if (!slice && end >= WALK_MISS_SPACE)
		add_missed(s);
	if (!slice && s->has_user && unwind_walk_marker(end))
		add_marker(s, unwind_walk_marker(end));
	n = *(volatile __u32 *)&s->n_frames;
	head->n_frames = n;
	head->stack = slice;
	return sizeof(*head) + n * sizeof(struct sample_frame) + slice;
}

/* As long as user space does not know of it, each further sample costs more than a wake-up, or lacks its
 * callers: unknown images, addresses that go from file to file, mappings and rows that are missing. */
static __always_inline bool is_urgent(const struct scratch *s)
{
	return !s->verdict.generation || (s->verdict.flags & VERDICT_UNCOUNTED) ||
		(s->record.head.stack && !s->walk.guessed);
}

static __always_inline bool send_sample(
	struct sample_counters *count, struct scratch *s, __u64 size)
{
	struct record_sample *head = &s->record.head;

	head->header.size = size;
	barrier_var(size);
	if (size > sizeof(s->record)) /* for the verifier, which cannot know */
		size = sizeof(s->record);
	if (bpf_ringbuf_output(
		    &ring, &s->record, size, wakeup_flags(head->header.time, is_urgent(s)))) {
		count->of[COUNT_LOST_RING]++;
		return false;
	}
	count->of[COUNT_SENT]++;
	return true;
}

static __always_inline void end_sample(struct sample_counters *count, struct scratch *s)
{
	struct record_sample *head = &s->record.head;
	struct count_entry *entry = NULL;
	__u64 size, id;

	check_space(s);
	size = end_record(count, s);
	bpf_get_current_comm(head->comm, sizeof(head->comm));
	if (head->end < WALK_MISS_SPACE && s->verdict.generation && s->half != HALF_NONE &&
		!(s->verdict.flags & VERDICT_UNCOUNTED)) {
		id = sample_id(s);
		entry = count_find(id, s->half);
		if (!entry) {
			count->of[COUNT_TABLE_FULL]++;
		} else if (entry->id == id) {
			entry->samples++;
			entry->last_ns = head->header.time;
			count->of[COUNT_COUNTED]++;
			return;
		} else {
			head->id = id;
		}
	}
	/* In the table only what user space will see, too. */
	if (send_sample(count, s, size) && entry) {
		entry->samples = 0;
		entry->last_ns = 0;
		entry->id = head->id;
	}
}

/* ---- the programs
 * -------------------------------------------------------------------------------------------- */

/* Scratch memory of a sample that is to be taken; NULL: it is counted otherwise. */
static __always_inline struct scratch *enter(struct sample_counters *count, __u32 tid)
{
	struct scratch *s;

	if (settings.paused) {
		count->of[COUNT_PAUSED]++;
		return NULL;
	}
	count->of[COUNT_TAKEN]++;
	if (!tid) {
		count->of[COUNT_IDLE]++;
		return NULL;
	}
	s = scratch_here();
	if (!s || *(volatile __u32 *)&s->busy) {
		count->of[COUNT_LOST_SCRATCH]++;
		return NULL;
	}
	*(volatile __u32 *)&s->busy = 1;
	s->half = half_enter(count);
	return s;
}

static __always_inline void leave(struct sample_counters *count, struct scratch *s, __u64 began)
{
	*(volatile __u32 *)&s->busy = 0;
	count->of[COUNT_RUN_NS] += bpf_ktime_get_ns() - began;
	half_leave(count);
}

/* A function of its own, global, so that the verifier looks at it once and not once a turn. */
__attribute__((noinline)) int walk_turn(__u32 cpu)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &cpu);

	return s ? unwind_walk_turn(&s->walk, s) : 1;
}

static __always_inline void walk(void)
{
	__u32 cpu = bpf_get_smp_processor_id(), turns = UNWIND_WALK_TURNS(max_user_frames);

	for (__u32 i = 0; i < UNWIND_WALK_TURNS(SAMPLE_MAX_USER); i++)
		if (i >= turns || walk_turn(cpu))
			break;
}

SEC("perf_event")
int sample_cpu(struct sampled *ctx)
{
	struct sample_counters *count = counters_here();
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct scratch *s;
	enum begun begun;
	__u64 now;

	if (!count)
		return 0;
	s = enter(count, tid);
	if (!s)
		return 0;
	now = bpf_ktime_get_ns();
	begun = begin_sample(ctx, count, s, tid, now);
	if (begun == BEGUN_WALK)
		walk();
	if (begun != BEGUN_DONE)
		end_sample(count, s);
	leave(count, s, now);
	return 0;
}
