/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/* Nanoseconds. Monotonic is CLOCK_MONOTONIC: what bpf_ktime_get_ns() and the perf events use. */
uint64_t clock_monotonic_ns(void);
uint64_t clock_boottime_ns(void);
uint64_t clock_unix_ns(void);
/* What to add to a monotonic time to get unix time, as of now. */
int64_t clock_unix_offset_ns(void);
/* When a span began, in unix time, that ends now (to) and is elapsed_ns long by CLOCK_BOOTTIME.
 * That is `from`, the unix time read at its begin, unless unix time was set meanwhile (by a second
 * or more, or so that the span would be none): then it is counted back from `to`. */
uint64_t clock_unix_begin(uint64_t from_unix_ns, uint64_t to_unix_ns, uint64_t elapsed_ns);
