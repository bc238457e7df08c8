/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Small text things: strict number parsing, names, durations, sizes, globs, distance for "did you mean". */

#include "agentd/base/macros.h"

/* Whole string, no sign, no blanks, base 10; -EINVAL, -ERANGE (outside [min, max]). */
int text_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
/* "90s", "10m", "1h30m", "7d", "250ms", "1w" -> nanoseconds; a bare number is seconds. -EINVAL, -ERANGE. */
int text_duration(const char *s, uint64_t *ret_ns);
void text_format_duration(uint64_t ns, char *out, size_t size); /* "1h 30m", "12.5 s" */
/* "256MB", "1GiB", "4k" -> bytes (k, m, g are powers of 1024, as are KB, KiB, ...). */
int text_size(const char *s, uint64_t *ret_bytes);
void text_format_size(uint64_t bytes, char *out, size_t size); /* "12.3 MB" */
int text_bool(const char *s, bool *ret);                       /* true/false, yes/no, on/off, 1/0 */

/* Names of sources and destinations: 1 to 64 of A-Za-z0-9 . _ - @ :, first not '-' or '.'. */
bool text_is_name(const char *s);
/* Length of the UTF-8 character at s (1 at the terminating NUL), its code point in *ret (may be NULL); 0 if
 * the bytes there are no valid UTF-8. */
size_t text_utf8(const char *s, uint32_t *ret);
/* Valid UTF-8 without control characters, at most max bytes. */
bool text_is_clean(const char *s, size_t max);
/* Makes s clean in place: control bytes and invalid UTF-8 become '?'. */
void text_clean(char *s);
/* * and ?, [sets] as in glob(7); '/' is not special. Bounded time (no exponential blow-up). */
bool text_glob(const char *pattern, const char *s);
bool text_starts(const char *s, const char *prefix);
/* The candidate nearest to s (Damerau-Levenshtein distance at most 1 + length/4), or NULL. */
const char *text_nearest(const char *s, const char *const *candidates, size_t n);
