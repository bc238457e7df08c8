/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SipHash-1-3 (Aumasson and Bernstein, 2012): a keyed hash, since what we hash (stacks, names, paths)
 * is chosen by the programs that are profiled. The key is random per process start. */

#include <stddef.h>
#include <stdint.h>

struct hash_key {
	uint64_t k[2];
};

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len);
/* This process's key, made on first use by getrandom(2). */
const struct hash_key *hash_process_key(void);
static inline uint64_t hash_local(const void *data, size_t len)
{
	return hash_bytes(hash_process_key(), data, len);
}
