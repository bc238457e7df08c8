/* SPDX-License-Identifier: Apache-2.0 */

/* Ranges of one name, against a plain table of addresses. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "agentd/symbol/ranges.h"

#define ADDRESSES 2000

static void check_order(const struct symbol_ranges *r)
{
	for (size_t i = 0; i < r->n; i++) {
		assert_true(r->list[i].to - r->list[i].from > 1);
		assert_true(r->list[i].key >= r->list[i].from && r->list[i].key < r->list[i].to);
		assert_true(i == 0 || r->list[i - 1].to <= r->list[i].from);
	}
}

/* What was said last of an address holds, unless a part of the range it came with was said anew. */
static void test_model(void **state)
{
	struct symbol_ranges r = {0};
	uint64_t said[ADDRESSES] = {0}; /* asked + 1, 0 nothing */

	srand(7);
	for (unsigned turn = 0; turn < 20000; turn++) {
		uint64_t from = (uint64_t)(rand() % (ADDRESSES - 40)), asked, at;
		uint64_t to = from + 1 + (uint64_t)(rand() % 30);

		asked = from + (uint64_t)rand() % (to - from);
		for (uint64_t i = from; i < to; i++) {
			uint64_t old = said[i];

			for (uint64_t k = 0; old && k < ADDRESSES; k++)
				if (said[k] == old)
					said[k] = 0;
		}
		for (uint64_t i = from; i < to && to - from > 1; i++)
			said[i] = asked + 1;
		symbol_ranges_set(&r, from, to, asked);
		check_order(&r);
		at = (uint64_t)(rand() % ADDRESSES);
		assert_int_equal(symbol_ranges_find(&r, at, &asked), said[at] != 0);
		if (said[at])
			assert_int_equal(asked, said[at] - 1);
	}
	symbol_ranges_deinit(&r);
	assert_false(symbol_ranges_find(&r, 5, &(uint64_t){0}));
}

/* However many come, memory is bounded, and what is there is right. */
static void test_bound(void **state)
{
	struct symbol_ranges r = {0};
	uint64_t asked;

	for (uint64_t i = 0; i < 200000; i++) {
		symbol_ranges_set(&r, i * 16, i * 16 + 16, i * 16 + 3);
		assert_true(symbol_ranges_find(&r, i * 16 + 15, &asked) || r.n == 0);
		assert_true(r.room <= 16384);
	}
	check_order(&r);
	assert_true(r.n > 0);
	symbol_ranges_set(&r, UINT64_MAX - 10, UINT64_MAX, UINT64_MAX - 1);
	assert_true(symbol_ranges_find(&r, UINT64_MAX - 5, &asked));
	symbol_ranges_deinit(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
