/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whether a program that may have seen what was just taken away is still at work. */

#include "agentd/base/macros.h"
#include "bpf/sample.h"

struct quiet {
	const struct sample_counters *counts; /* borrowed; one a CPU */
	size_t n_cpus;
	uint64_t *runs; /* of each CPU, at the mark */
};

/* counts may be NULL with n_cpus 0: always quiet. -ENOMEM. */
int quiet_init(struct quiet *q, const struct sample_counters *counts, size_t n_cpus);
void quiet_deinit(struct quiet *q);
/* Everything stored before is seen by programs that begin from now on. */
void quiet_mark(struct quiet *q);
/* Whether every run on that CPU that began before the mark is over. */
bool quiet_cpu(const struct quiet *q, size_t cpu);
/* Marks, then waits for all CPUs, at most max_ns. False: one did not leave. */
bool quiet_wait(struct quiet *q, uint64_t max_ns);
