/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the open interval is made of; for aggregate.c, which fills it, and aggregate_build.c, which reads it. */

#include "agentd/profile/aggregate.h"
#include "agentd/profile/batch_private.h"

struct resource {
	size_t first, n; /* into texts: key, value, key, value, ... */
};

struct stack {
	uint64_t epoch; /* 0 where all frames lie in files */
	uint32_t first, n;
};

struct count {
	uint32_t resource, stack;
	uint32_t thread_name; /* text + 1; 0: not asked for */
	uint16_t type;
	int64_t thread_id, cpu;
	uint64_t period, value;
};

struct moment {
	uint64_t time_unix_ns;
	uint32_t slot;
};

struct aggregate {
	size_t max_stacks;
	struct moment *times; /* of samples that are timed */
	uint32_t n_times, times_room;
	uint64_t samples;
	TABLE(struct sample_frame) frames;
	TABLE(struct stack) stacks;
	TABLE(struct count) counts;
	TABLE(struct aggregate_resource_attribute) attributes;
	TABLE(struct resource) resources;
	TABLE(const char *) texts;
	uint32_t *stack_frames;
	uint32_t n_stack_frames, stack_frames_room;
	uint32_t *scratch;
	uint32_t scratch_room;
	struct text_chunk *text;
};
