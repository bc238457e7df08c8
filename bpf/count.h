/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Stacks that were sent are counted here from then on (bpf/tables.h). The id says all that makes
 * one sample differ from another but its time, so that a count needs nothing beside it.
 *
 * Which half: a program says in COUNT_IN_HALF what it read of settings.half, then reads it again.
 * Both sides store first and look afterwards with a full barrier between (here the locked add), so
 * either we see that the halves were turned over, or user space sees us in the old one and waits.
 * Where it was turned over twice under our eyes (this CPU was kept from running), the sample is not
 * counted but sent: no third try needs proof. On arm64 an atomic add without result orders nothing,
 * and user space's pause of a millisecond stands for the barrier: what was stored before is seen by
 * then. */

#include "bpf/find.h"

#define HALF_NONE 2

/* Before the first look at any of the arrays of tables.h. */
static __always_inline __u32 half_enter(struct sample_counters *count)
{
	__u32 half = settings.half & 1, again;

	__sync_fetch_and_add(&count->of[COUNT_IN_HALF], 1 + half);
	again = settings.half & 1;
	if (again == half)
		return half;
	__sync_fetch_and_add(&count->of[COUNT_IN_HALF], (__u64)again - half);
	return (settings.half & 1) == again ? again : HALF_NONE;
}

static __always_inline void half_leave(struct sample_counters *count)
{
	*(volatile __u64 *)&count->of[COUNT_IN_HALF] = 0;
}

static __always_inline __u64 sample_id(const struct scratch *s)
{
	const struct record_sample *head = &s->record.head;
	__u64 id = s->hash;

	id = hash_mix(id, (__u64)head->image.tgid << 32 | head->image.exec);
	id = hash_mix(id, head->image.start_boottime);
	id = hash_mix(id, (__u64)head->header.cpu << 32 | s->verdict.serial);
	id = hash_mix(id, (__u64)head->space << 32 | head->end_file);
	id = hash_mix(id, (__u64)head->type << 48 | (__u64)head->end << 32 | head->flags);
	id = hash_mix(id, head->value);
	id = hash_mix(id, head->context);
	if (s->verdict.flags & VERDICT_PER_THREAD) {
		const __u64 *comm = (const __u64 *)head->comm;

		id = hash_mix(hash_mix(hash_mix(id, head->tid), comm[0]), comm[1]);
	}
	id = hash_mix(id, hash_key[1]);
	return id ? id : 1;
}

/* The entry of an id, or a free one for it, or NULL. */
static __always_inline struct count_entry *count_find(__u64 id, __u32 half)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct count_table *table = bpf_map_lookup_elem(&counts, &cpu);
	struct count_entry *set, *found = NULL;
	__u64 at = (id & (COUNT_SETS - 1)) + (half & 1) * COUNT_SETS;

	if (!table)
		return NULL;
	/* Masked as a whole, too: the sum becomes an OR, of which verifiers before 6.10 know nothing. */
	barrier_var(at);
	set = &table->half[0][(at & (2 * COUNT_SETS - 1)) * COUNT_WAYS];
	if (set[3].id == id || !set[3].id)
		found = &set[3];
	if (set[2].id == id || (!set[2].id && (!found || !found->id)))
		found = &set[2];
	if (set[1].id == id || (!set[1].id && (!found || !found->id)))
		found = &set[1];
	if (set[0].id == id || (!set[0].id && (!found || !found->id)))
		found = &set[0];
	return found;
}
