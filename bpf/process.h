/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The programs that follow processes: verdicts fall where they no longer hold (exec, a move between
 * cgroups, exit), and user space is told what began and ended, while it can still be known. */

#include "bpf/wake.h"

/* A record with room behind its flexible array. */
#pragma clang diagnostic ignored "-Wgnu-variable-sized-type-not-at-end"

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
	__type(value, struct process_scratch);
} process_scratch SEC(".maps");

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

/* Fires for each hierarchy that a process is moved in (v1 too: unit names may live there). What it
 * has mapped is the same as before: only the decision falls. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(follow_cgroup, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct sample_verdict *verdict;
	struct sample_image image;

	image_of(task, &image);
	verdict = bpf_map_lookup_elem(&verdicts, &image);
	if (verdict)
		verdict->generation = 0;
	send_with_cgroup(RECORD_CGROUP, task, BPF_CORE_READ(task, pid));
	return 0;
}
