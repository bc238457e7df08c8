/* SPDX-License-Identifier: Apache-2.0 */

/* SipHash-1-3, a keyed hash for tables whose keys strangers choose.
 *
 * With a fixed hash a profiled program could make all its stacks or file names fall into one bucket
 * and turn a look-up into a walk. The key is random per process start and never leaves the process.
 * One round a word and three at the end is the variant that language runtimes use for hash tables:
 * the attack here is flooding, not forgery of authenticators.
 *
 * Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012. All roles. */

#include <endian.h>
#include <sys/random.h>

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "agentd/base/macros.h"

struct state {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotate(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct state *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 = rotate(s->v2, 32);
}

static inline void absorb(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	sip_round(s);
	s->v0 ^= word;
}

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len)
{
	/* The words spell "somepseudorandomlygeneratedbytes". */
	struct state s = {
		.v0 = key->k[0] ^ 0x736f6d6570736575ULL,
		.v1 = key->k[1] ^ 0x646f72616e646f6dULL,
		.v2 = key->k[0] ^ 0x6c7967656e657261ULL,
		.v3 = key->k[1] ^ 0x7465646279746573ULL,
	};
	const uint8_t *p = data;
	uint64_t word = 0;

	for (size_t left = len; left >= 8; left -= 8, p += 8) {
		memcpy(&word, p, 8);
		absorb(&s, le64toh(word));
	}
	/* The last word: what is left of the bytes, and the length's low byte on top. */
	word = (uint64_t)(len & 0xff) << 56;
	for (size_t i = 0; i < len % 8; i++)
		word |= (uint64_t)p[i] << (8 * i);
	absorb(&s, word);
	s.v2 ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

const struct hash_key *hash_process_key(void)
{
	static struct hash_key key;
	static bool made;

	if (made)
		return &key;
	if (getrandom(&key, sizeof(key), GRND_NONBLOCK) != (ssize_t)sizeof(key)) {
		/* Before the kernel's pool is ready, early in a boot: weaker, but never a fixed
		 * key, and never a daemon that waits. */
		key.k[0] = clock_boottime_ns() * 0x9e3779b97f4a7c15ULL;
		key.k[1] = clock_unix_ns() ^ (uint64_t)(uintptr_t)&made ^ (uint64_t)getpid() << 40;
	}
	made = true;
	return &key;
}
