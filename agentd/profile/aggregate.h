/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The open interval: counts of resolved samples by (resource, type, period, stack, context,
 * thread). Stacks are identified by a keyed hash of their typed frames by (file, offset); frames
 * outside files carry the image's mapping epoch. Bounded: when max_stacks is reached the
 * interval asks to be closed early (never drops). Runs in agentd. */

#include "agentd/profile/profile.h"
#include "bpf/sample.h"

struct aggregate;

struct aggregate_resource_attribute {
	const char *key, *value;
	bool is_int;
};

struct aggregate_sample {
	uint32_t resource; /* of aggregate_resource() */
	uint16_t type;
	uint64_t period, count, time_unix_ns;
	bool timed;                        /* its time is kept, where count is 1 */
	uint64_t epoch;                    /* for frames outside files */
	const struct sample_frame *frames; /* resolved: kernel first, leaf first */
	size_t n_frames;
	const char *thread_name; /* NULL: not asked for */
	int64_t thread_id, cpu;  /* -1: not asked for */
};

int aggregate_new(struct aggregate **ret, size_t max_stacks /* 0: 65,536 */);
struct aggregate *aggregate_free(struct aggregate *a);
DEFINE_FREEP(aggregate_freep, struct aggregate *, aggregate_free)

/* Interns a resource (sorted attributes), valid for this aggregate only. Negative errno on
 * failure. */
int64_t aggregate_resource(
	struct aggregate *a, const struct aggregate_resource_attribute *list, size_t n);
/* 0; 1: taken, and the interval should be closed now; negative errno: not taken. *slot (may be NULL):
 * where it was counted, valid for this aggregate's life. */
int aggregate_add(struct aggregate *a, const struct aggregate_sample *sample, uint32_t *slot);
/* More of what was counted there. */
void aggregate_count(struct aggregate *a, uint32_t slot, uint64_t samples);
/* What was counted at slot, but for the frames, which lie in files or nowhere: *ret is where that is
 * counted. Counts nothing. */
int aggregate_restack(struct aggregate *a, uint32_t slot, const struct sample_frame *frames,
	size_t n_frames, uint32_t *ret);
/* What slot is in `from`, in this aggregate: for what is counted after `from` was closed. Counts
 * nothing; a slot at which nothing is ever counted does not show in the batch. */
int aggregate_carry(
	struct aggregate *a, const struct aggregate *from, uint32_t slot, uint32_t *ret);
uint64_t aggregate_samples(const struct aggregate *a);
size_t aggregate_stacks(const struct aggregate *a);

/* Every distinct frame, once (for naming and for holding files). */
void aggregate_each_frame(const struct aggregate *a,
	void (*visit)(void *userdata, const struct sample_frame *frame), void *userdata);

/* What turns a frame into a location. Filled by the daemon from the symbol and process rooms. */
struct aggregate_name {
	const char *name, *system_name, *file;
	uint32_t line, start_line;
};
struct aggregate_location {
	const struct aggregate_name *chain; /* innermost first, n >= 1, names never empty */
	size_t n;
	uint64_t address; /* in the ELF's own address space, call site (1 taken off) */
	uint64_t map_start, map_limit, map_offset;
	const char *map_file;                         /* "vmlinux", path of the file, "[anon]" */
	const char *build_id, *go_build_id, *htlhash; /* "" none */
	enum profile_frame_type type;
};

/* Builds the batch; the aggregate stays as it is (an open interval can be shown). What is timed goes as timestamps; what
 * else was counted of such a resource is in a part of its own, a nanosecond shorter, since one sample may not have both;
 * so does a time outside the interval, as a count. */
int aggregate_build(const struct aggregate *a, uint64_t from_unix_ns, uint64_t to_unix_ns,
	void (*locate)(
		void *userdata, const struct sample_frame *frame, struct aggregate_location *ret),
	void *userdata, struct batch **ret);
