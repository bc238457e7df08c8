/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How long requests took, by what became of them: counted by the exporter, shown by agentd. */

#include <stdint.h>

/* Upper bounds in seconds; one more bucket holds what took longer. */
#define LATENCY_BOUNDS_S                                                                           \
	{                                                                                          \
		0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30                        \
	}
#define LATENCY_BUCKETS 13

enum latency_result { LATENCY_TAKEN, LATENCY_REFUSED, LATENCY_FAILED, LATENCY_RESULTS };
#define LATENCY_RESULT_NAMES                                                                       \
	{                                                                                          \
		"taken", "refused", "failed"                                                       \
	}

struct latencies { /* by enum latency_result */
	uint64_t counts[LATENCY_RESULTS][LATENCY_BUCKETS];
	uint64_t sum_ns[LATENCY_RESULTS];
};

static inline void latency_note(struct latencies *l, enum latency_result result, uint64_t ns)
{
	static const double bounds[] = LATENCY_BOUNDS_S;
	unsigned i = 0;

	while (i < LATENCY_BUCKETS - 1 && (double)ns / 1e9 > bounds[i])
		i++;
	l->counts[result][i]++;
	l->sum_ns[result] += ns;
}

/* sum = a + b; may be one of them. */
static inline void latency_add(
	struct latencies *sum, const struct latencies *a, const struct latencies *b)
{
	for (unsigned r = 0; r < LATENCY_RESULTS; r++) {
		for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
			sum->counts[r][i] = a->counts[r][i] + b->counts[r][i];
		sum->sum_ns[r] = a->sum_ns[r] + b->sum_ns[r];
	}
}
