/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Batches that become one upload (upload-interval). Time is divided into spans of that length, from 1970 on; what a
 * queue has of one span and one revision of the configuration goes out together, once the span is over. */

#include "destinations/queue.h"

#define GROUP_MAX       64
#define GROUP_MAX_BYTES (8ULL << 20) /* encoded, as agentd handed them over */

struct group {
	const struct held_batch
		*batches[GROUP_MAX]; /* in the order of their rows; only to compare with */
	uint64_t rows[GROUP_MAX];    /* of each */
	size_t n;                    /* 0: none */
};

/* What goes next of the queue: its place, and, where it is not alone, the group that begins with it. -1: nothing is due
 * yet; *wait_ns says when it may be (UINT64_MAX: when something comes). */
ssize_t group_choose(struct queue *q, uint64_t interval_ns, bool oldest_first, uint64_t now_unix_ns,
	struct group *g, uint64_t *wait_ns);
bool group_has(const struct group *g, const struct held_batch *b);
/* The requests of a group. -ENOTSUP: these do not go together; send them one by one. */
int group_encode(struct group *g, struct queue *q, const struct shape_limits *limits,
	struct encoded **ret, struct err_text *err);
