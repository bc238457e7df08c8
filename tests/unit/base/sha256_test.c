/* SPDX-License-Identifier: Apache-2.0 */

/* The sums themselves are held to their vectors by the store's test; here is what is made of them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <systemd/sd-id128.h>

#include "agentd/base/macros.h"
#include "agentd/base/sha256.h"

/* RFC 4231, cases 1 and 2. */
static void test_hmac(void **s)
{
	static const uint8_t one[] = {0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8,
		0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, 0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7,
		0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7};
	static const uint8_t two[] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04,
		0x24, 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83,
		0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43};
	const char *question = "what do ya want for nothing?";
	uint8_t key[20], out[SHA256_SIZE];

	memset(key, 0x0b, sizeof(key));
	sha256_hmac(key, sizeof(key), "Hi There", 8, out);
	assert_memory_equal(out, one, sizeof(one));
	sha256_hmac("Jefe", 4, question, strlen(question), out);
	assert_memory_equal(out, two, sizeof(two));
}

static const sd_id128_t app =
	SD_ID128_MAKE(8c, 1f, 0b, 5e, 93, 4d, 4a, 6f, b2, 0e, 57, c1, 36, d8, a9, 74);

static void test_app_id(void **s)
{
	const sd_id128_t machine =
		SD_ID128_MAKE(00, 11, 22, 33, 44, 55, 66, 77, 88, 99, aa, bb, cc, dd, ee, ff);
	sd_id128_t got, real, wanted;

	/* worked out by Python's hmac and hashlib */
	sha256_app_id(machine.bytes, app.bytes, got.bytes);
	assert_int_equal(sd_id128_from_string("1122d97219654546a2301cad132c87b8", &wanted), 0);
	assert_true(sd_id128_equal(got, wanted));
	/* and as systemd has it, where this machine has an id */
	if (sd_id128_get_machine(&real) < 0 || sd_id128_get_machine_app_specific(app, &wanted) < 0)
		return;
	sha256_app_id(real.bytes, app.bytes, got.bytes);
	assert_true(sd_id128_equal(got, wanted));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hmac),
		cmocka_unit_test(test_app_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
