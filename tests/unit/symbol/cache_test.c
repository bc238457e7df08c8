/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/unit/symbol/support.h"
#include "agentd/symbol/cache.h"

static const struct symbol_chain *chain_of(struct symbol_cache *c, const char *name, uint32_t line)
{
	struct symbol_function f[2] = {
		{.name = name, .system_name = "raw", .file = "", .line = line},
		{.name = "outer", .system_name = "outer", .file = "a.c"}};

	/* What lies in the padding must not matter. */
	memset((char *)&f[0] + offsetof(struct symbol_function, inlined) + 1, (int)line,
		sizeof(f[0]) - offsetof(struct symbol_function, inlined) - 1);
	return symbol_cache_chain(
		c, &(struct symbol_chain){.n = 2, .module = "lib.so", .functions = f});
}

static void add(
	struct symbol_cache *c, uint32_t file, uint64_t address, const struct symbol_chain *chain)
{
	struct symbol_entry *e = symbol_cache_add(c, file, address);

	assert_non_null(e);
	e->state = SYMBOL_NAMED;
	e->chain = chain;
}

static void test_interned(void **state)
{
	CLEANUP(symbol_cache_freep) struct symbol_cache *c = NULL;
	const struct symbol_chain *a, *b;
	char name[] = "work";

	assert_int_equal(symbol_cache_new(&c, 0, 0), 0);
	a = chain_of(c, name, 1);
	b = chain_of(c, "work", 1);
	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, chain_of(c, "work", 2));
	assert_ptr_equal(a->functions[0].name, chain_of(c, "work", 2)->functions[0].name);
	assert_string_equal(a->functions[1].file, "a.c");
	assert_string_equal(a->module, "lib.so");
	assert_ptr_equal(a->functions[0].file, symbol_cache_string(c, ""));
}

static void test_entries(void **state)
{
	CLEANUP(symbol_cache_freep) struct symbol_cache *c = NULL;
	const struct symbol_chain *chain;
	uint64_t n, bytes;

	assert_int_equal(symbol_cache_new(&c, 0, 0), 0);
	chain = chain_of(c, "work", 1);
	assert_null(symbol_cache_find(c, 1, 1));
	for (uint64_t i = 0; i < 50000; i++)
		add(c, (uint32_t)(1 + i % 7), i / 7 * 16, chain);
	for (uint64_t i = 0; i < 50000; i++)
		assert_non_null(symbol_cache_find(c, (uint32_t)(1 + i % 7), i / 7 * 16));
	assert_null(symbol_cache_find(c, 8, 0));
	assert_null(symbol_cache_find(c, 1, 1));
	assert_null(symbol_cache_add(c, 0, 1));
	symbol_cache_drop_file(c, 3);
	assert_null(symbol_cache_find(c, 3, 16));
	assert_non_null(symbol_cache_find(c, 4, 16));
	symbol_cache_size(c, &n, &bytes);
	assert_int_equal(n, 50000 - 50000 / 7 - 1);
}

/* Of one file, what another module has and what nobody named goes; what is pending stays. */
static void test_unlike(void **state)
{
	CLEANUP(symbol_cache_freep) struct symbol_cache *c = NULL;
	const struct symbol_chain *chain;

	assert_int_equal(symbol_cache_new(&c, 0, 0), 0);
	chain = chain_of(c, "work", 1);
	add(c, 1, 1, chain);
	symbol_cache_add(c, 1, 2)->state = SYMBOL_PENDING;
	symbol_cache_add(c, 1, 3)->state = SYMBOL_FALLBACK;
	symbol_cache_find(c, 1, 3)->chain = chain;
	symbol_cache_add(c, 1, 4)->state = SYMBOL_PROVISIONAL;
	add(c, 2, 5, chain);
	symbol_cache_drop_unlike(c, 1, "lib.so");
	assert_non_null(symbol_cache_find(c, 1, 1));
	assert_non_null(symbol_cache_find(c, 1, 2));
	assert_null(symbol_cache_find(c, 1, 3));
	assert_null(symbol_cache_find(c, 1, 4));
	symbol_cache_drop_unlike(c, 1, "other");
	assert_null(symbol_cache_find(c, 1, 1));
	assert_non_null(symbol_cache_find(c, 1, 2));
	assert_non_null(symbol_cache_find(c, 2, 5));
}

/* The older half goes, what is pending stays, and what nobody uses is freed. */
static void test_trim(void **state)
{
	CLEANUP(symbol_cache_freep) struct symbol_cache *c = NULL;
	uint64_t n, bytes, before;
	char name[32];

	assert_int_equal(symbol_cache_new(&c, 1000, 0), 0);
	symbol_cache_add(c, 1, 5)->state = SYMBOL_PENDING;
	for (uint64_t round = 0; round < 4; round++) {
		for (uint64_t i = 0; i < 300; i++) {
			snprintf(name, sizeof(name), "f%d", (int)(round * 300 + i));
			add(c, 2, round * 300 + i, chain_of(c, name, 0));
		}
		symbol_cache_find(c, 2, 7);
		if (round < 3)
			symbol_cache_trim(c);
	}
	symbol_cache_size(c, &n, &before);
	assert_int_equal(n, 1201);
	symbol_cache_trim(c);
	symbol_cache_size(c, &n, &bytes);
	assert_in_range(n, 600, 602);
	assert_true(bytes < before * 6 / 10);
	assert_null(symbol_cache_find(c, 2, 0));
	assert_null(symbol_cache_find(c, 2, 299));
	assert_non_null(symbol_cache_find(c, 2, 7)); /* used again and again */
	assert_non_null(symbol_cache_find(c, 1, 5));
	for (uint64_t i = 900; i < 1200; i++) {
		const struct symbol_entry *e = symbol_cache_find(c, 2, i);

		assert_non_null(e);
		snprintf(name, sizeof(name), "f%d", (int)i);
		assert_string_equal(e->chain->functions[0].name, name);
		assert_string_equal(e->chain->functions[1].name, "outer");
	}
	/* Interning goes on with what is left. */
	assert_ptr_equal(chain_of(c, "f1000", 0), symbol_cache_find(c, 2, 1000)->chain);
}

static void test_bounds(void **state)
{
	CLEANUP(symbol_cache_freep) struct symbol_cache *c = NULL;
	uint64_t n, bytes;
	size_t added = 0;

	assert_int_equal(symbol_cache_new(&c, 1000, 20000), 0);
	for (uint64_t i = 0; i < 5000; i++)
		added += symbol_cache_add(c, 1, i) != NULL;
	assert_int_equal(added, 2000);
	for (int i = 0; i < 2000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "function%d", i);
		add(c, 1, (uint64_t)i, chain_of(c, name, 0));
	}
	for (int i = 0; i < 12; i++)
		symbol_cache_trim(c);
	symbol_cache_size(c, &n, &bytes);
	assert_true(n <= 1000);
	assert_true(bytes <= 20000);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interned),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_unlike),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_bounds),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
