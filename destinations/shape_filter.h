/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Rules applied to what a decoded batch holds: from an index of the batch to the index of what goes out instead.
 * What goes out is added to the batch; each entry is looked at once. Private to shape*.c. */

#include "agentd/profile/profile.h"
#include "destinations/shape_rules.h"

struct shape_map { /* by index; grown as it is asked */
	uint32_t *at;
	size_t n;
};

struct shape_filter {
	struct batch *batch;             /* borrowed */
	const struct shape_rules *rules; /* borrowed; NULL none */
	struct shape_map resources, stacks, locations, attributes;
	uint32_t *scratch;
	size_t room;
};

void shape_filter_init(
	struct shape_filter *f, struct batch *batch, const struct shape_rules *rules);
void shape_filter_deinit(struct shape_filter *f);
enum { SHAPE_NOT_KEPT = -1000 }; /* no errno */
/* The resource without attributes of our own, by the rules; SHAPE_NOT_KEPT: of a source that is not wanted. */
int64_t shape_filter_resource(struct shape_filter *f, uint32_t resource);
/* The stack without the frames that are excluded. Never an empty one for one that was not. */
int64_t shape_filter_stack(struct shape_filter *f, uint32_t stack);
/* A sample's attributes; 0 or -errno. */
int shape_filter_attributes(struct shape_filter *f, const uint32_t in[4], uint32_t out[4]);
