/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/hash.h"
#include "agentd/base/macros.h"

/* What another implementation says of the bytes 0, 1, 2, ...: CPython 3.11's hash() of bytes is
 * SipHash-1-3, with the key 0 for PYTHONHASHSEED=0, and one made from the seed otherwise. */
struct vector {
	size_t len;
	uint64_t hash;
};

static void check(const struct hash_key *key, const struct vector *v, size_t n)
{
	uint8_t data[304];

	/* At an odd address: keys lie anywhere in a packed buffer. */
	for (size_t i = 0; i < 300; i++)
		data[i + 1] = (uint8_t)i;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(hash_bytes(key, data + 1, v[i].len), v[i].hash);
}

static void test_vectors(void **s)
{
	static const struct vector zero[] = {
		{1, 0x68a914128e01e473ULL},
		{7, 0x2f098ab0c751325aULL},
		{8, 0xead411e67ebe2eeaULL},
		{9, 0x75927f9d95124362ULL},
		{15, 0xf30eb725bb91c9eaULL},
		{16, 0x8972188433a5c5b7ULL},
		{63, 0x385d3e39e5f37359ULL},
		{64, 0x75e05fd5bbc870c6ULL},
		{300, 0x4a3ee92cf03a1ab4ULL},
	};
	static const struct vector seeded[] = {
		{1, 0xddb5fc492fbdf63aULL},
		{7, 0x831edfe12fee6ffdULL},
		{8, 0x354edb093928c942ULL},
		{9, 0x09a5e47bf18abeccULL},
		{15, 0xbe8dc664d017b99eULL},
		{16, 0x2e932605ea370595ULL},
		{63, 0x171afa1ac779cd10ULL},
		{64, 0x02bf7cdeb211db1cULL},
		{300, 0x74b77ee474ffc0efULL},
	};

	check(&(struct hash_key){{0, 0}}, zero, ARRAY_SIZE(zero));
	check(&(struct hash_key){{0x25556dc46dc3dca0ULL, 0xfc3ee4dbd06f6c90ULL}}, seeded,
		ARRAY_SIZE(seeded));
}

static void test_process_key(void **s)
{
	const struct hash_key *key = hash_process_key();
	struct hash_key first = *key;

	assert_ptr_equal(hash_process_key(), key);
	assert_memory_equal(&first, hash_process_key(), sizeof(first));
	assert_true(key->k[0] != 0 && key->k[1] != 0 && key->k[0] != key->k[1]);
	assert_int_equal(hash_local("abc", 3), hash_bytes(key, "abc", 3));
	assert_int_not_equal(hash_local("abc", 3), hash_local("abd", 3));
	assert_int_not_equal(hash_local("", 0), hash_local("\0", 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_process_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
