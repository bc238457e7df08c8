/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Counters, record headers, and when the reader is woken. */

#include "bpf/maps.h"

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
