/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What was sent in the last minute: a ring of slots of 5 s, so that it costs the same whatever is sent. */

#include <stdint.h>

#include "agentd/base/macros.h"

#define RATE_SLOTS   12
#define RATE_SLOT_NS (5 * NSEC_PER_SEC)

struct rate_sum {
	uint64_t batches, bytes;
	uint64_t span_ns; /* over how long: 55 to 60 s, less where it began later */
};

struct rate {
	uint64_t
		since_ns; /* when it began; like all of these times monotonic, and never going back */
	uint64_t newest; /* number of the newest slot since the epoch */
	struct {
		uint64_t batches, bytes;
	} slots[RATE_SLOTS];
};

/* Empties those that are over. Any thing not used for a minute costs RATE_SLOTS steps, once. */
static inline void rate_advance(struct rate *r, uint64_t now_ns)
{
	uint64_t now = now_ns / RATE_SLOT_NS;

	if (now > r->newest + RATE_SLOTS)
		r->newest = now - RATE_SLOTS;
	while (r->newest < now) {
		r->newest++;
		r->slots[r->newest % RATE_SLOTS].batches = 0;
		r->slots[r->newest % RATE_SLOTS].bytes = 0;
	}
}

static inline void rate_note(struct rate *r, uint64_t now_ns, uint64_t batches, uint64_t bytes)
{
	rate_advance(r, now_ns);
	r->slots[r->newest % RATE_SLOTS].batches += batches;
	r->slots[r->newest % RATE_SLOTS].bytes += bytes;
}

static inline struct rate_sum rate_get(struct rate *r, uint64_t now_ns)
{
	struct rate_sum sum = {0};
	uint64_t from;

	rate_advance(r, now_ns);
	for (unsigned i = 0; i < RATE_SLOTS; i++) {
		sum.batches += r->slots[i].batches;
		sum.bytes += r->slots[i].bytes;
	}
	from = r->newest < RATE_SLOTS ? 0 : (r->newest - RATE_SLOTS + 1) * RATE_SLOT_NS;
	sum.span_ns = now_ns - MAX(from, r->since_ns);
	return sum;
}
