/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* What a walk is compared with: the least that a program costs on this machine, and a fixed number of
 * random reads of an array that fits no first-level cache. */

#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <bpf/bpf_helpers.h>

#define READS 128
#define WORDS (1 << 18) /* of 4 bytes: 1 MiB */

struct words {
	__u32 word[WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct words);
} table SEC(".maps");

__u32 next = 1;

SEC("perf_event")
int empty(struct bpf_perf_event_data *ctx)
{
	return 0;
}

/* Each address comes out of the read before. */
SEC("perf_event")
int reads(struct bpf_perf_event_data *ctx)
{
	__u32 zero = 0, at = next;
	struct words *w = bpf_map_lookup_elem(&table, &zero);

	if (!w)
		return 0;
	for (int i = 0; i < READS; i++)
		at = at * 1664525 + 1013904223 + w->word[(at >> 12) & (WORDS - 1)];
	next = at;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
