/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SHA-256 (FIPS 180-4), where other programs must be able to check the sum: revisions of the store, identities of files
 * (htlhash). No secret goes through it, so it needs no constant time, and no library with an allocator and a
 * configuration file inside the sandbox. */

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32 /* bytes */
#define SHA256_HEX  65 /* bytes of the text form, with its NUL */

struct sha256 {
	uint32_t state[8];
	uint64_t len; /* bytes so far */
	uint8_t block[64];
};

void sha256_init(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *data, size_t len);
void sha256_final(struct sha256 *h, uint8_t out[SHA256_SIZE]);
/* Lower-case hex. */
void sha256_final_hex(struct sha256 *h, char out[SHA256_HEX]);
void sha256_hex(const void *data, size_t len, char out[SHA256_HEX]);
/* HMAC (RFC 2104) with a key of at most 64 bytes. */
void sha256_hmac(
	const void *key, size_t key_len, const void *data, size_t len, uint8_t out[SHA256_SIZE]);
/* What sd_id128_get_machine_app_specific(3) makes of a machine's and an application's id, all 16 bytes. systemd before
 * 250 asks the kernel for it through AF_ALG sockets, which agentd's unit has not. */
void sha256_app_id(const uint8_t machine[16], const uint8_t app[16], uint8_t out[16]);
