/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What may be wrong with a host, found by looking only. */

#include "odictl/cli.h"

enum finding_level { FINDING_OK, FINDING_WARNING, FINDING_FAILURE };

struct finding {
	const char *what; /* stable name: "btf" */
	enum finding_level level;
	char text[400];   /* what is the case, and what that means */
	char remedy[300]; /* the command that mends it; "" none */
};

struct findings {
	struct finding list[256];
	size_t n, dropped; /* what did not fit is counted */
};

void finding_add(struct findings *f, const char *what, enum finding_level level, const char *remedy,
	const char *format, ...) PRINTF(5, 6);

/* The daemon as the kernel sees it: capabilities and limits. pid 0 is nobody's. */
void doctor_agentd(struct findings *f, int root, unsigned pid, const char *release);
/* Who else holds perf events, or programs that run on them; own: pids of odi's. */
void doctor_others(struct findings *f, int root, const unsigned *own, size_t n_own);
/* The host itself, without agentd. root: folder that /proc, /sys and all else are looked up in; release: uname's;
 * rate_hz: what profiling is set to. */
void doctor_host(struct findings *f, int root, const char *release, unsigned rate_hz);
