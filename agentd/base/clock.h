/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/* Nanoseconds. Monotonic is CLOCK_MONOTONIC: what bpf_ktime_get_ns() and the perf events use. */
uint64_t clock_monotonic_ns(void);
uint64_t clock_boottime_ns(void);
uint64_t clock_unix_ns(void);
/* What to add to a monotonic time to get unix time, as of now. */
int64_t clock_unix_offset_ns(void);
