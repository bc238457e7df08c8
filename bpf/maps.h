/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What the programs and user space share: the maps, what is fixed at load (read-only data, so that
 * the verifier knows the numbers), and the settings that user space changes at any time. Sizes
 * marked "set at load" are those of the running host. */

#include "bpf/kernel.h"
#include "bpf/tables.h"

#define STACK_MAX SAMPLE_MAX_KERNEL

/* Set before load. */
const volatile __u32 max_stack = STACK_MAX; /* how deep perf walks the kernel's stack:
					       min(STACK_MAX, kernel.perf_event_max_stack) */
const volatile __u32 max_user_frames = SAMPLE_DEFAULT_USER; /* at most SAMPLE_MAX_USER */
const volatile __u32 index_bits = 1;         /* rows_index has 1 << index_bits sets */
const volatile __u32 spaces_mask = 0;        /* units in spaces, a power of two, less one */
const volatile __u32 stack_bytes = 32 << 10; /* of a slice: at most SAMPLE_STACK_MAX, times of 8 */
const volatile __u64 hash_key[2] = {1, 1};   /* random */

volatile struct sample_settings settings = {
	.generation = 1,
	.kernel_frames = 1,
	.wakeup_gap_ns = 20000000,
	.wakeup_bytes = 1 << 20,
	.period_ns = 1,
};

volatile __u64 last_wakeup_ns;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* set at load */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384); /* set at load */
	__type(key, struct sample_image);
	__type(value, struct sample_verdict);
} verdicts SEC(".maps");

/* By CPU. Plain arrays that are mapped into user space: per-CPU ones cannot be. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set at load: possible CPUs */
	__type(key, __u32);
	__type(value, struct sample_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set at load: possible CPUs */
	__type(key, __u32);
	__type(value, struct count_table);
} counts SEC(".maps");

/* The arena of rows, in chunks. */
struct rows_chunk {
	__u8 bytes[ROWS_CHUNK];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set at load: bytes >> ROWS_CHUNK_SHIFT */
	__type(key, __u32);
	__type(value, struct rows_chunk);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2); /* set at load: 1 << index_bits */
	__type(key, __u32);
	__type(value, struct rows_set);
} rows_index SEC(".maps");

/* One value of all units, since a search goes across them; its size is set at load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct space_map)); /* set at load: (spaces_mask + 1) units */
} spaces SEC(".maps");
