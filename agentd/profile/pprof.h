/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Batches as pprof (profile.proto of github.com/google/pprof, whose field numbers are stable):
 * what `go tool pprof`, Pyroscope, Parca and Go's profile-guided optimisation read. */

#include "agentd/profile/profile.h"

enum pprof_flag {
	/* The attributes of the parts' resources become labels of their samples: for one profile of
	 * several services. Else the caller says them beside the profile, and all parts are of one
	 * resource. */
	PPROF_RESOURCE_LABELS = 1,
};

struct pprof_options {
	unsigned flags; /* enum pprof_flag */
	uint64_t time_unix_ns,
		duration_ns; /* 0: from the first part's begin to the last one's end */
};

/* Appends one profile of the parts whose indices are given (all with parts NULL), not compressed:
 * receivers and tools expect gzip around it. All parts are of one type, else -EINVAL. A sample
 * carries how many there were (samples/count) and, where the type has a period, their sum (for
 * cpu: cpu/nanoseconds, count times the period of its own part); timestamps become counts.
 * -E2BIG past PROFILE_MAX_ENCODED. */
int profile_pprof(const struct batch *b, const uint32_t *parts, size_t n_parts,
	const struct pprof_options *options, struct buf *out);
