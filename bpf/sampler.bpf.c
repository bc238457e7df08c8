/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* The programs in the kernel: one takes samples on a perf event, four follow processes.
 *
 * The sampling program runs in the interrupt of a cpu-clock event. What user space does not want
 * costs one look-up by image; all else leaves by the ring with its frames. Nothing is lost without
 * being counted, by cause. The process programs make verdicts fall where they no longer hold (exec,
 * a move between cgroups, exit) and tell user space what began and ended, while it can still be
 * known.
 *
 * The value of a sample is settings.period_ns and not ctx->sample_period: the latter is
 * hw.last_period, which the hrtimer behind cpu-clock never updates, so that it stays at the first
 * period after PERF_EVENT_IOC_PERIOD (kernel/events/core.c, perf_swevent_hrtimer(); seen on 6.18).
 * User space changes both while the events are stopped.
 *
 * Kernels 5.10 and up: bounded loops, atomic adds without result, no bpf_loop(). Records of samples
 * are built in per-CPU memory and copied to the ring at their exact length, since
 * bpf_ringbuf_reserve() wants a constant. */

#include "bpf/maps.h"

#define FRAMES_ROOM 256
#define FRAMES_MASK (FRAMES_ROOM - 1)
_Static_assert(
	(FRAMES_ROOM & FRAMES_MASK) == 0, "a power of two, so that an index can be masked");

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Records with room behind their flexible array. */
#pragma clang diagnostic ignored "-Wgnu-variable-sized-type-not-at-end"

struct sample_scratch {
	__u32 busy;
	__u32 n_frames; /* in the record */
	__u32 n_stack;  /* in addresses */
	__u32 pad;
	__u64 addresses[STACK_MAX];
	struct {
		struct record_sample head;
		struct sample_frame frames[FRAMES_ROOM];
	} record;
};

struct process_scratch {
	__u32 busy, pad;
	struct kernfs_node *nodes[SAMPLE_CGROUP_DEPTH];
	struct {
		struct record_process head;
		char cgroup[SAMPLE_CGROUP_DEPTH * SAMPLE_CGROUP_NAME];
		char slack[SAMPLE_CGROUP_NAME]; /* a name is copied before its length is checked */
	} record;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sample_scratch);
} sample_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct process_scratch);
} process_scratch SEC(".maps");

/* ---- counting and waking
 * ---------------------------------------------------------------------------- */

static __always_inline struct sample_counters *counters_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&counters, &cpu);
}

/* Process programs may be preempted by others on kernels where tracepoints do not stop that. */
static __always_inline void count_lost_event(void)
{
	struct sample_counters *count = counters_here();

	if (count)
		__sync_fetch_and_add(&count->of[COUNT_EVENT_LOST], 1);
}

/* Wake the reader now, or let the record wait for its timer? Two CPUs may both find the gap over:
 * one wake-up too many, never one too few. */
static __always_inline __u64 wakeup_flags(__u64 now, bool urgent)
{
	if (now - last_wakeup_ns < settings.wakeup_gap_ns)
		return BPF_RB_NO_WAKEUP;
	if (!urgent && bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) < settings.wakeup_bytes)
		return BPF_RB_NO_WAKEUP;
	last_wakeup_ns = now;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void set_header(struct record_header *header, __u16 kind, __u64 now)
{
	header->kind = kind;
	header->version = SAMPLE_VERSION;
	header->size = 0;
	header->time = now;
	header->cpu = bpf_get_smp_processor_id();
	header->pad = 0;
}

/* ---- samples
 * ---------------------------------------------------------------------------------------- */

/* Frames are counted in the scratch memory and not in a register: the verifier follows a register
 * through each of its 127 values, and then again through all that comes behind the loop. */
static __always_inline __u32 frames_there(const struct sample_scratch *s)
{
	return *(const volatile __u32 *)&s->n_frames;
}

static __always_inline struct sample_frame *frame_at(struct sample_scratch *s, __u32 i)
{
	return &s->record.frames[i & FRAMES_MASK];
}

/* Adds the first n addresses: the first is where the program was, the others are return addresses.
 */
static __always_inline void add_frames(struct sample_scratch *s, __u32 n, __u8 kind)
{
	__u32 at = frames_there(s);

	for (__u32 i = 0; i < STACK_MAX; i++) {
		if (i >= n)
			break;
		*frame_at(s, at + i) = (struct sample_frame){
			.kind = kind,
			.flags = FRAME_RETURN,
			.offset = s->addresses[i],
		};
	}
	if (n)
		frame_at(s, at)->flags = 0;
}

static __always_inline void add_marker(struct sample_scratch *s, __u64 marker)
{
	*frame_at(s, frames_there(s)) = (struct sample_frame){
		.kind = FRAME_MARKER,
		.offset = marker,
	};
	s->n_frames++;
}

/* One side of the stack, leaf first: perf puts the interrupted instruction first, then return
 * addresses. */
static __always_inline void add_stack(
	struct bpf_perf_event_data *ctx, struct sample_scratch *s, __u64 flags, __u8 kind)
{
	long bytes = bpf_get_stack(ctx, s->addresses, sizeof(s->addresses), flags);
	__u32 n = bytes > 0 ? (__u32)bytes / 8 : 0;

	/* A user thread that never was in user space (io_uring, vhost) has zeroes for registers. */
	if (n > STACK_MAX || (n && !s->addresses[0]))
		n = 0;
	*(volatile __u32 *)&s->n_stack = n;
	add_frames(s, n, kind);
	n = *(volatile __u32 *)&s->n_stack;
	*(volatile __u32 *)&s->n_frames += n;
	if (!n && kind == FRAME_NATIVE)
		add_marker(s, MARKER_NO_USER);
	else if (n && n >= max_stack)
		add_marker(s, MARKER_TRUNCATED);
}

static __always_inline void add_stacks(
	struct bpf_perf_event_data *ctx, struct sample_scratch *s, const struct task_struct *task)
{
	s->n_frames = 0;
	if (!regs_of_user(&ctx->regs) && settings.kernel_frames)
		add_stack(ctx, s, 0, FRAME_KERNEL);
	/* A task without mm that is no kernel thread has begun to exit: it is still its image's
	 * time. */
	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		s->record.head.flags |= SAMPLE_KERNEL_THREAD;
	else if (BPF_CORE_READ(task, mm))
		add_stack(ctx, s, BPF_F_USER_STACK, FRAME_NATIVE);
}

static __always_inline void send_sample(
	struct sample_scratch *s, struct sample_counters *count, bool urgent)
{
	struct record_sample *head = &s->record.head;
	__u32 n = frames_there(s);
	__u64 size;

	if (n > FRAMES_ROOM)
		n = FRAMES_ROOM;
	head->n_frames = n;
	size = sizeof(*head) + n * sizeof(struct sample_frame);
	head->header.size = size;
	barrier_var(size);
	if (size > sizeof(s->record)) /* for the verifier, which forgot */
		size = sizeof(s->record);
	if (bpf_ringbuf_output(&ring, &s->record, size, wakeup_flags(head->header.time, urgent)))
		count->of[COUNT_LOST_RING]++;
	else
		count->of[COUNT_SENT]++;
}

static __always_inline void take_sample(struct bpf_perf_event_data *ctx,
	struct sample_counters *count, struct sample_scratch *s, __u32 tid)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();
	struct record_sample *head = &s->record.head;
	const struct sample_verdict *verdict;
	__u32 divisor = 1;

	image_of(task, &head->image);
	verdict = bpf_map_lookup_elem(&verdicts, &head->image);
	if (verdict && verdict->generation != settings.generation)
		verdict = NULL;
	if (verdict) {
		if (!(verdict->types & (1 << SAMPLE_TYPE_CPU))) {
			count->of[COUNT_IGNORED]++;
			return;
		}
		divisor = verdict->divisor;
		/* At random, so that no rhythm of the program is in step with it. */
		if (divisor > 1 && bpf_get_prandom_u32() % divisor) {
			count->of[COUNT_DIVIDED]++;
			return;
		}
	}
	set_header(&head->header, RECORD_SAMPLE, bpf_ktime_get_ns());
	head->tid = tid;
	head->type = SAMPLE_TYPE_CPU;
	head->value = settings.period_ns;
	head->count = divisor > 1 ? divisor : 1;
	head->flags = 0;
	head->id = 0;
	head->end = 0;
	head->pad = 0;
	head->guessed = 0;
	head->end_file = 0;
	head->space = 0;
	head->stack = 0;
	head->context = 0;
	bpf_get_current_comm(head->comm, sizeof(head->comm));
	add_stacks(ctx, s, task);
	send_sample(s, count, !verdict);
}

SEC("perf_event")
int sample_cpu(struct bpf_perf_event_data *ctx)
{
	struct sample_counters *count = counters_here();
	__u32 tid = (__u32)bpf_get_current_pid_tgid(), zero = 0;
	struct sample_scratch *s;

	if (!count)
		return 0;
	if (settings.paused) {
		count->of[COUNT_PAUSED]++;
		return 0;
	}
	count->of[COUNT_TAKEN]++;
	if (!tid) {
		count->of[COUNT_IDLE]++;
		return 0;
	}
	s = bpf_map_lookup_elem(&sample_scratch, &zero);
	if (!s || *(volatile __u32 *)&s->busy) {
		count->of[COUNT_LOST_SCRATCH]++;
		return 0;
	}
	*(volatile __u32 *)&s->busy = 1;
	take_sample(ctx, count, s, tid);
	*(volatile __u32 *)&s->busy = 0;
	return 0;
}

/* ---- processes
 * -------------------------------------------------------------------------------------- */

static __always_inline struct kernfs_node *cgroup_node(const struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
}

static __always_inline void set_process(
	struct record_process *record, __u16 kind, const struct task_struct *task, __u32 tid)
{
	set_header(&record->header, kind, bpf_ktime_get_ns());
	record->header.size = sizeof(*record);
	image_of(task, &record->image);
	record->parent.tgid = 0;
	record->parent.exec = 0;
	record->parent.start_boottime = 0;
	record->tid = tid;
	record->cgroup_len = 0;
	record->cgroup_id = BPF_CORE_READ(cgroup_node(task), id);
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), &task->comm);
}

/* Writes the path of kn and returns its length, 0 when it does not fit. */
static __always_inline __u32 cgroup_path(struct process_scratch *s, struct kernfs_node *kn)
{
	struct kernfs_node *parent;
	__u32 depth = 0, len = 0;

	for (int i = 0; i < SAMPLE_CGROUP_DEPTH; i++) {
		parent = kernfs_parent(kn);
		if (!parent)
			break; /* the root has no name */
		s->nodes[i] = kn;
		depth = i + 1;
		kn = parent;
	}
	if (kernfs_parent(kn))
		return 0; /* too deep: half a path is none */
	if (!depth) {
		s->record.cgroup[0] = '/';
		return 1;
	}
	for (int i = SAMPLE_CGROUP_DEPTH - 1; i >= 0; i--) {
		long got;

		if (i >= depth)
			continue;
		if (len > SAMPLE_CGROUP_DEPTH * SAMPLE_CGROUP_NAME - SAMPLE_CGROUP_NAME)
			return 0;
		s->record.cgroup[len] = '/';
		kn = s->nodes[i];
		got = bpf_probe_read_kernel_str(
			&s->record.cgroup[len + 1], SAMPLE_CGROUP_NAME, BPF_CORE_READ(kn, name));
		if (got <= 1 || got >= SAMPLE_CGROUP_NAME)
			return 0; /* unreadable, or possibly cut */
		len += got;       /* the NUL counts for the slash */
	}
	return len;
}

static __always_inline void send_process(void *record, __u64 size, bool urgent)
{
	__u64 now = ((struct record_process *)record)->header.time;

	if (bpf_ringbuf_output(&ring, record, size, wakeup_flags(now, urgent)))
		count_lost_event();
}

/* Without a path: where a nested run finds the scratch memory in use. */
static __always_inline void send_plain(
	__u16 kind, const struct task_struct *task, __u32 tid, bool urgent)
{
	struct record_process record;

	set_process(&record, kind, task, tid);
	send_process(&record, sizeof(record), urgent);
}

static __always_inline void send_with_cgroup(__u16 kind, const struct task_struct *task, __u32 tid)
{
	struct process_scratch *s;
	__u32 zero = 0, len;
	__u64 size;

	s = bpf_map_lookup_elem(&process_scratch, &zero);
	if (!s || *(volatile __u32 *)&s->busy) {
		send_plain(kind, task, tid, true);
		return;
	}
	*(volatile __u32 *)&s->busy = 1;
	set_process(&s->record.head, kind, task, tid);
	len = cgroup_path(s, cgroup_node(task));
	s->record.head.cgroup_len = len;
	size = sizeof(s->record.head) + len;
	s->record.head.header.size = size;
	barrier_var(size);
	if (size > sizeof(s->record))
		size = sizeof(s->record);
	send_process(&s->record, size, true);
	*(volatile __u32 *)&s->busy = 0;
}

/* After the new program is mapped; the old image is the one exec earlier. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(follow_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct sample_image old;

	image_of(task, &old);
	old.exec--;
	bpf_map_delete_elem(&verdicts, &old);
	send_with_cgroup(RECORD_EXEC, task, old_pid);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(follow_fork, struct task_struct *parent, struct task_struct *child)
{
	struct record_process record;

	if (BPF_CORE_READ(child, pid) != BPF_CORE_READ(child, tgid))
		return 0; /* a thread */
	set_process(&record, RECORD_FORK, child, BPF_CORE_READ(parent, pid));
	image_of(parent, &record.parent);
	send_process(&record, sizeof(record), false);
	return 0;
}

/* The last thread. All count themselves out of signal->live before they come here, so two that end
 * at the same moment may both find it zero: readers take a second EXIT of an image as none. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(follow_exit, struct task_struct *task)
{
	struct record_process record;

	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	set_process(&record, RECORD_EXIT, task, BPF_CORE_READ(task, pid));
	bpf_map_delete_elem(&verdicts, &record.image);
	send_process(&record, sizeof(record), false);
	return 0;
}

/* Fires for each hierarchy that a process is moved in (v1 too: unit names may live there). */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(follow_cgroup, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct sample_image image;

	image_of(task, &image);
	bpf_map_delete_elem(&verdicts, &image);
	send_with_cgroup(RECORD_CGROUP, task, BPF_CORE_READ(task, pid));
	return 0;
}
