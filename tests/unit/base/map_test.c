/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/map.h"

struct key {
	uint64_t a;
	uint32_t b, c;
};

static unsigned n_freed;

static void count_free(void *value)
{
	n_freed++;
	free(value);
}

static void test_strings(void **s)
{
	CLEANUP(map_freep) struct map *m = NULL;
	char key[] = "one";
	int one, two, three;
	void *old = NULL;

	assert_int_equal(map_new(&m, 0), 0);
	assert_null(map_get_str(m, "one"));
	assert_null(map_remove(m, "one", 3));
	assert_int_equal(map_put_str(m, key, &one, &old), 0);
	assert_null(old);
	key[0] = 'X'; /* keys are copied */
	assert_ptr_equal(map_get_str(m, "one"), &one);
	assert_int_equal(map_put_str(m, "one", &two, &old), 1);
	assert_ptr_equal(old, &one);
	assert_int_equal(map_put_str(m, "one", &three, NULL), 1);
	assert_int_equal(map_size(m), 1);
	/* A prefix, an empty key and one with a NUL are other keys. */
	assert_int_equal(map_put(m, "on", 2, &one, NULL), 0);
	assert_int_equal(map_put(m, "", 0, &two, NULL), 0);
	assert_int_equal(map_put(m, "on\0e", 4, &two, NULL), 0);
	assert_ptr_equal(map_get(m, "on\0e", 4), &two);
	assert_ptr_equal(map_get(m, "on", 2), &one);
	assert_ptr_equal(map_get(m, NULL, 0), &two);
	assert_ptr_equal(map_remove(m, "one", 3), &three);
	assert_null(map_get_str(m, "one"));
	assert_int_equal(map_size(m), 3);
	assert_int_equal(map_put_str(m, "nothing", NULL, NULL), -EINVAL);
}

static void test_fixed_keys(void **s)
{
	CLEANUP(map_freep) struct map *m = NULL;
	struct key key = {1, 2, 3};
	struct map_iter it = {0};
	int value;

	assert_int_equal(map_new(&m, sizeof(key)), 0);
	assert_int_equal(map_put(m, &key, sizeof(key), &value, NULL), 0);
	assert_int_equal(map_put(m, &key, 3, &value, NULL), -EINVAL);
	assert_null(map_get(m, &key, 3));
	assert_true(map_next(m, &it));
	assert_int_equal(it.key_len, sizeof(key));
	assert_memory_equal(it.key, &key, sizeof(key));
	assert_int_equal((uintptr_t)it.key % _Alignof(struct key), 0);
	assert_false(map_next(m, &it));
	key.c++;
	assert_null(map_get(m, &key, sizeof(key)));
}

/* Against an array that says what must be there, through growth, removal and reuse. */
static void compare_with_model(size_t key_size)
{
	enum { KEYS = 5000, STEPS = 100000 };
	static void *model[KEYS];
	CLEANUP(map_freep) struct map *m = NULL;
	static char values[STEPS];
	uint32_t random = 7;
	size_t live = 0;

	memset(model, 0, sizeof(model));
	assert_int_equal(map_new(&m, key_size), 0);
	for (size_t i = 0; i < STEPS; i++) {
		uint32_t k;

		random = random * 1664525 + 1013904223;
		k = (random >> 8) % KEYS;
		/* Phases that mostly fill and phases that mostly empty. */
		if ((random >> 4) % 8 < (i / 10000 % 2 ? 2U : 6U)) {
			void *old = NULL;

			assert_int_equal(
				map_put(m, &k, sizeof(k), &values[i], &old), model[k] != NULL);
			assert_ptr_equal(old, model[k]);
			live += model[k] == NULL;
			model[k] = &values[i];
		} else {
			assert_ptr_equal(map_remove(m, &k, sizeof(k)), model[k]);
			live -= model[k] != NULL;
			model[k] = NULL;
		}
		assert_int_equal(map_size(m), live);
	}
	for (uint32_t k = 0; k < KEYS; k++)
		assert_ptr_equal(map_get(m, &k, sizeof(k)), model[k]);
}

static void test_model(void **s)
{
	compare_with_model(sizeof(uint32_t));
	compare_with_model(0);
}

static void iterate_and_remove(size_t key_size)
{
	enum { N = 3000 };
	CLEANUP(map_freep) struct map *m = NULL;
	static unsigned char seen[N];
	struct map_iter it = {0};
	size_t n = 0;

	memset(seen, 0, sizeof(seen));
	assert_int_equal(map_new(&m, key_size), 0);
	for (uint32_t k = 0; k < N; k++)
		assert_int_equal(map_put(m, &k, sizeof(k), &seen[k], NULL), 0);
	while (map_next(m, &it)) {
		uint32_t k;

		memcpy(&k, it.key, sizeof(k));
		assert_ptr_equal(it.value, &seen[k]);
		seen[k]++;
		n++;
		if (k % 3)
			assert_ptr_equal(map_remove(m, it.key, it.key_len), &seen[k]);
	}
	assert_int_equal(n, N);
	assert_int_equal(map_size(m), N / 3);
	for (uint32_t k = 0; k < N; k++) {
		assert_int_equal(seen[k], 1);
		assert_ptr_equal(map_get(m, &k, sizeof(k)), k % 3 ? NULL : &seen[k]);
	}
}

static void test_remove_while_iterating(void **s)
{
	iterate_and_remove(sizeof(uint32_t));
	iterate_and_remove(0);
}

static void test_freeing(void **s)
{
	struct map *m = NULL;

	assert_null(map_free(NULL));
	assert_int_equal(map_new(&m, sizeof(uint32_t)), 0);
	n_freed = 0;
	for (uint32_t k = 0; k < 100; k++)
		assert_int_equal(map_put(m, &k, sizeof(k), malloc(1), NULL), 0);
	map_clear_with(m, count_free);
	assert_int_equal(n_freed, 100);
	assert_int_equal(map_size(m), 0);
	for (uint32_t k = 0; k < 7; k++)
		assert_int_equal(map_put(m, &k, sizeof(k), malloc(1), NULL), 0);
	m = map_free_with(m, count_free);
	assert_null(m);
	assert_int_equal(n_freed, 107);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_fixed_keys),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_remove_while_iterating),
		cmocka_unit_test(test_freeing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
