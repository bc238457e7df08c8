/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Counts of stacks that were sent (bpf/tables.h): two halves a CPU, one filled, one read. For this
 * room alone. */

#include "agentd/sampler/quiet.h"
#include "bpf/tables.h"

struct halves {
	struct count_table *tables; /* borrowed; one a CPU */
	struct quiet quiet;         /* marked when they were turned over last */
	/* By CPU: not 0: 1 + a half that could not be read in its turn, since a program was still in
	 * it. */
	uint8_t *left;
	uint64_t collected; /* samples */
};

/* Reads and clears half of the counts of one CPU, which no program may be filling. Calls back for each
 * id that counted; returns the sum of samples. */
uint64_t halves_take(struct count_table *table, uint32_t half,
	void (*on_count)(void *userdata, uint64_t id, uint64_t samples, uint64_t last_ns),
	void *userdata);
