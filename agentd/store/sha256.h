/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SHA-256 (FIPS 180-4): what a revision's hash is made of, so that other programs can check it. */

#include <stddef.h>
#include <stdint.h>

#define STORE_SHA256_SIZE 32 /* bytes */
#define STORE_SHA256_HEX  65 /* bytes of the text form, with its NUL */

struct store_sha256 {
	uint32_t state[8];
	uint64_t len; /* bytes so far */
	uint8_t block[64];
};

void store_sha256_init(struct store_sha256 *h);
void store_sha256_add(struct store_sha256 *h, const void *data, size_t len);
void store_sha256_final(struct store_sha256 *h, uint8_t out[STORE_SHA256_SIZE]);
/* Lower-case hex. */
void store_sha256_final_hex(struct store_sha256 *h, char out[STORE_SHA256_HEX]);
void store_sha256_hex(const void *data, size_t len, char out[STORE_SHA256_HEX]);
