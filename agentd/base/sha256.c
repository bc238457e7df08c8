/* SPDX-License-Identifier: Apache-2.0 */

/* SHA-256, after FIPS 180-4.
 *
 * The store has to notice a flipped bit in what it hands back and to give a document a name that a
 * fleet's control plane computes as well; both ask for a real hash, neither for speed (a few
 * kilobytes a change), and a cryptographic library would be one more thing to carry for 100 lines.
 * Checked against the standard's own examples. Pure; runs in agentd (store) and in the symbolizer (elf). */

#include <stdio.h>
#include <string.h>

#include "agentd/base/sha256.h"

static const uint32_t k[64] = {0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b,
	0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6,
	0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d,
	0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
	0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585,
	0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa,
	0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* Section 6.2.2: one block of 64 bytes. */
static void compress(uint32_t state[8], const uint8_t *block)
{
	uint32_t w[64], s[8];

	for (unsigned t = 0; t < 16; t++)
		w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
			(uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
	for (unsigned t = 16; t < 64; t++) {
		uint32_t a = w[t - 15], b = w[t - 2];

		w[t] = (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10) + w[t - 7] +
			(rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[t - 16];
	}
	memcpy(s, state, sizeof(s));
	for (unsigned t = 0; t < 64; t++) {
		uint32_t e = s[4], a = s[0];
		uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
			((e & s[5]) ^ (~e & s[6])) + k[t] + w[t];
		uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
			((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++)
		state[i] += s[i];
}

void sha256_init(struct sha256 *h)
{
	*h = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
				     0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_add(struct sha256 *h, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		size_t at = h->len % 64, n = 64 - at < len ? 64 - at : len;

		memcpy(h->block + at, p, n);
		h->len += n;
		p += n;
		len -= n;
		if (h->len % 64 == 0)
			compress(h->state, h->block);
	}
}

void sha256_final(struct sha256 *h, uint8_t out[SHA256_SIZE])
{
	static const uint8_t padding[64] = {0x80};
	uint64_t bits = h->len * 8;
	size_t at = h->len % 64;
	uint8_t tail[8];

	for (unsigned i = 0; i < 8; i++)
		tail[i] = (uint8_t)(bits >> (56 - 8 * i));
	sha256_add(h, padding, at < 56 ? 56 - at : 120 - at);
	sha256_add(h, tail, sizeof(tail));
	for (unsigned i = 0; i < SHA256_SIZE; i++)
		out[i] = (uint8_t)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_final_hex(struct sha256 *h, char out[SHA256_HEX])
{
	uint8_t digest[SHA256_SIZE];

	sha256_final(h, digest);
	for (unsigned i = 0; i < SHA256_SIZE; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void sha256_hex(const void *data, size_t len, char out[SHA256_HEX])
{
	struct sha256 h;

	sha256_init(&h);
	if (len)
		sha256_add(&h, data, len);
	sha256_final_hex(&h, out);
}

void sha256_hmac(
	const void *key, size_t key_len, const void *data, size_t len, uint8_t out[SHA256_SIZE])
{
	uint8_t pad[64] = {0};
	struct sha256 h;

	memcpy(pad, key, key_len);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36;
	sha256_init(&h);
	sha256_add(&h, pad, sizeof(pad));
	sha256_add(&h, data, len);
	sha256_final(&h, out);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36 ^ 0x5c;
	sha256_init(&h);
	sha256_add(&h, pad, sizeof(pad));
	sha256_add(&h, out, SHA256_SIZE);
	sha256_final(&h, out);
}

void sha256_app_id(const uint8_t machine[16], const uint8_t app[16], uint8_t out[16])
{
	uint8_t sum[SHA256_SIZE];

	sha256_hmac(machine, 16, app, 16, sum);
	/* a UUID of version 4, as it says of itself */
	sum[6] = (uint8_t)((sum[6] & 0x0f) | 0x40);
	sum[8] = (uint8_t)((sum[8] & 0x3f) | 0x80);
	memcpy(out, sum, 16);
}
