/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The kernel's types as far as we use them, and everything that differs between kernels or
 * machines.
 *
 * Declared by hand, only the fields in use: offsets come from the running kernel's BTF when the
 * programs are loaded (CO-RE). A name behind ___ is a flavour: the same kernel type as another
 * version has it. */

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "bpf/sample.h"

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h; the same from 2.6.32 to 6.18 */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct linux_binprm;

struct mm_struct {
	unsigned long start_stack; /* where exec put the stack pointer */
	unsigned long start_code;
};

struct kernfs_node {
	struct kernfs_node *parent;
	const char *name;
	__u64 id;
};

/* 633488947ef6 ("kernfs: Use RCU to access kernfs_node::parent.", 6.15) renamed it. */
struct kernfs_node___615 {
	struct kernfs_node *__parent;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in the v2 hierarchy */
};

struct signal_struct {
	struct {
		int counter;
	} live; /* threads that did not begin to exit */
};

struct task_struct {
	unsigned int flags;
	void *stack;
	int pid, tgid;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	__u64 start_boottime;
	__u64 self_exec_id; /* u32 before 5.7; only its low half is used */
	struct signal_struct *signal;
	struct css_set *cgroups;
	char comm[SAMPLE_COMM];
};

#pragma clang attribute pop

/* ---- registers
 * ------------------------------------------------------------------------------------------------- */

/* The kernel's own type, for its size. */
struct pt_regs___kernel {
	char any[1];
} __attribute__((preserve_access_index));

#if defined(__TARGET_ARCH_x86)
typedef bpf_user_pt_regs_t user_regs;
#define sampled bpf_perf_event_data
#define USER_CS 0x33 /* 64-bit code of user space: __USER_CS, the same on every x86-64 */
#elif defined(__TARGET_ARCH_arm64)
/* Laid out here, so that this compiles wherever it is compiled. */
struct user_regs_arm64 {
	__u64 regs[31], sp, pc, pstate;
};
typedef struct user_regs_arm64 user_regs;
struct sampled { /* struct bpf_perf_event_data there */
	user_regs regs;
	__u64 sample_period, addr;
};
#define PSR_MODE32 0x10
#define PSR_MODE   0xf /* 0: EL0 */
#else
#error "registers of this machine are not known here"
#endif

/* Where the kernel's stack of a task ends: THREAD_SIZE of the usual configurations (not KASAN's,
 * nor pages of 64 KiB). Only for kernels that cannot tell. */
#define THREAD_SIZE (16 << 10)

/* Whether the registers are those of user space. */
static __always_inline bool regs_of_user(const user_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return regs->cs & 3;
#else
	return (regs->pstate & PSR_MODE) == 0;
#endif
}

/* Of user registers: whether they are those of 32-bit code. */
static __always_inline bool regs_compat(const user_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return regs->cs != USER_CS;
#else
	return regs->pstate & PSR_MODE32;
#endif
}

/* The registers with which the current task entered the kernel. bpf_task_pt_regs() came with 5.15
 * (dd6e10fbd9fb); before, the kernel keeps them at the end of the task's stack without any padding
 * (x86-64's came with FRED in 6.9, which has the helper). */
static __always_inline bool regs_saved(user_regs *regs)
{
	const void *at;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		at = (const void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	} else {
		const struct task_struct *task = (const void *)bpf_get_current_task();

		at = BPF_CORE_READ(task, stack) + THREAD_SIZE -
			bpf_core_type_size(struct pt_regs___kernel);
	}
	return bpf_probe_read_kernel(regs, sizeof(*regs), at) == 0 && regs_of_user(regs);
}

/* ---- images
 * ------------------------------------------------------------------------------------------------ */

/* The exec count goes up in begin_new_exec(), right after perf's COMM record, and survives nothing
 * else: threads and children start with their creator's. */
static __always_inline __u32 exec_count(const struct task_struct *leader)
{
	if (!bpf_core_field_exists(leader->self_exec_id))
		return 0; /* user space says so among the features */
	return (__u32)BPF_CORE_READ(leader, self_exec_id);
}

static __always_inline void image_of(const struct task_struct *task, struct sample_image *image)
{
	const struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	image->tgid = BPF_CORE_READ(leader, tgid);
	image->exec = exec_count(leader);
	image->start_boottime = BPF_CORE_READ(leader, start_boottime);
}

/* Of the current task, for each sample: what it is, and whether it has a user stack. Where the
 * verifier knows what the pointer points to (3ca1032ab7ab, 5.11), a field costs a load and not a
 * call. */
struct current {
	const struct mm_struct *mm; /* NULL: none; to be read by BPF_CORE_READ() */
	bool kernel_thread;
};

static __always_inline void current_task(struct sample_image *image, struct current *ret)
{
	const struct task_struct *task, *leader;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)) {
		task = bpf_get_current_task_btf();
		leader = task->group_leader;
		image->tgid = leader->tgid;
		image->exec = bpf_core_field_exists(leader->self_exec_id)
			? (__u32)leader->self_exec_id
			: 0;
		image->start_boottime = leader->start_boottime;
		ret->kernel_thread = task->flags & PF_KTHREAD;
		ret->mm = task->mm;
		return;
	}
	task = (const void *)bpf_get_current_task();
	image_of(task, image);
	ret->kernel_thread = BPF_CORE_READ(task, flags) & PF_KTHREAD;
	ret->mm = BPF_CORE_READ(task, mm);
}

static __always_inline struct kernfs_node *kernfs_parent(const struct kernfs_node *kn)
{
	const struct kernfs_node___615 *newer = (const void *)kn;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(kn, parent);
}
