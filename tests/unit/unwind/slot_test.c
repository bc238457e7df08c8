/* SPDX-License-Identifier: Apache-2.0 */

/* Slots: what is packed can be looked up as the page could, and the wall lets nothing else in. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/macros.h"
#include "agentd/unwind/slot.h"

static union {
	struct rows_slot slot;
	uint8_t bytes[ROWS_SLOT_MAX];
} s;
static struct unwind_page page;

static struct unwind_rule some_rule(uint32_t i)
{
	return (struct unwind_rule){
		.cfa = UNWIND_CFA_SP, .cfa_offset = (int32_t)i * 8, .ra_offset = -1};
}

/* n_rows rows, each with a rule of its own as far as n_rules go. */
static void make(struct unwind_rules *d, uint32_t n_rows, uint32_t n_rules)
{
	assert_int_equal(unwind_rules_init(d), 0);
	for (uint32_t i = 0; i < n_rules; i++) {
		struct unwind_rule rule = some_rule(i);

		assert_int_equal(unwind_rules_add(d, &rule), UNWIND_FIXED_RULES + i);
	}
	page.page = 7;
	page.n = n_rows;
	for (uint32_t i = 0; i < n_rows; i++) {
		page.pc[i] = (uint16_t)(i * 4);
		page.rule[i] = (uint16_t)(i % d->n);
	}
}

static size_t pack(uint32_t n_rows, uint32_t n_rules)
{
	CLEANUP(unwind_rules_deinit) struct unwind_rules d = {0};

	make(&d, n_rows, n_rules);
	memset(&s, 0xee, sizeof(s));
	return rows_slot_pack(&page, &d, &s.slot, sizeof(s));
}

static void test_a_slot_finds_what_its_page_finds(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 64, 1000, 4095, ROWS_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (uint32_t n_rules = 0; n_rules <= 600; n_rules += 300) {
			CLEANUP(unwind_rules_deinit) struct unwind_rules d = {0};
			size_t size;

			make(&d, sizes[i], n_rules);
			memset(&s, 0xee, sizeof(s));
			size = rows_slot_pack(&page, &d, &s.slot, sizeof(s));
			assert_int_equal(rows_slot_check(&s.slot, size), 0);
			assert_int_equal(size, s.slot.size);
			assert_int_equal(s.slot.rules_at % 16, 0);
			assert_int_equal(s.slot.key | s.slot.seq, 0);
			for (uint32_t at = 0; at < UNWIND_PAGE_SIZE; at++)
				assert_memory_equal(rows_slot_rule(&s.slot, at),
					&d.rules[unwind_page_find(&page, at)],
					sizeof(struct unwind_rule));
		}
	}
}

static void test_rules_beyond_the_room_are_not_understood(void **state)
{
	size_t size = pack(ROWS_MAX, 5000);

	assert_int_equal(rows_slot_check(&s.slot, size), 0);
	assert_int_equal(size, ROWS_SLOT_MAX);
	assert_int_equal(rows_slot_rule(&s.slot, (ROWS_RULES_MAX - 1) * 4)->cfa_offset,
		(ROWS_RULES_MAX - 1 - UNWIND_FIXED_RULES) * 8);
	for (uint32_t at = ROWS_RULES_MAX; at < 5000; at++)
		assert_int_equal(rows_slot_rule(&s.slot, at * 4)->cfa, UNWIND_CFA_UNSUPPORTED);
}

static void test_empty_slots(void **state)
{
	for (int cfa = 0; cfa < UNWIND_FIXED_RULES; cfa++) {
		size_t size;

		memset(&s, 0xee, sizeof(s));
		size = rows_slot_empty(&s.slot, (enum unwind_cfa)cfa);
		assert_int_equal(rows_slot_check(&s.slot, size), 0);
		assert_int_equal(rows_slot_rule(&s.slot, 0)->cfa, cfa);
		assert_int_equal(rows_slot_rule(&s.slot, 0xffff)->cfa, cfa);
	}
	/* What cannot be packed is a page of which nothing is known. */
	page.n = 0;
	{
		CLEANUP(unwind_rules_deinit) struct unwind_rules d = {0};

		assert_int_equal(unwind_rules_init(&d), 0);
		assert_int_equal(
			rows_slot_check(&s.slot, rows_slot_pack(&page, &d, &s.slot, sizeof(s))), 0);
		assert_int_equal(rows_slot_rule(&s.slot, 5)->cfa, UNWIND_CFA_NONE);
	}
}

#define REFUSED(change)                                                                            \
	do {                                                                                       \
		size_t size = pack(101, 50);                                                       \
		uint16_t *pc = (void *)(&s.slot + 1), *rule = pc + 101;                            \
		struct unwind_rule *rules = (void *)(s.bytes + s.slot.rules_at);                   \
                                                                                                   \
		(void)rule, (void)rules;                                                           \
		assert_int_equal(rows_slot_check(&s.slot, size), 0);                               \
		change;                                                                            \
		assert_int_equal(rows_slot_check(&s.slot, size), -EBADMSG);                        \
	} while (0)

static void test_everything_else_is_refused(void **state)
{
	REFUSED(size--);
	REFUSED(size++);
	REFUSED(size = 0);
	REFUSED(size = sizeof(struct rows_slot) - 1);
	REFUSED(s.slot.size = (uint32_t)(size = ROWS_SLOT_MAX + 16));
	REFUSED(s.slot.size += 16);
	REFUSED(s.slot.n_rows = 0);
	REFUSED(s.slot.n_rows = 102);
	REFUSED(s.slot.n_rows = 100);
	REFUSED(s.slot.n_rows = ROWS_MAX + 1);
	REFUSED(s.slot.n_rows = UINT32_MAX);
	REFUSED(s.slot.n_rules--);
	REFUSED(s.slot.n_rules++);
	REFUSED(s.slot.n_rules = UNWIND_FIXED_RULES - 1);
	REFUSED(s.slot.n_rules = UINT32_MAX);
	REFUSED(s.slot.rules_at += 16);
	REFUSED(s.slot.rules_at = 0);
	REFUSED(s.slot.rules_at = UINT32_MAX);
	REFUSED(pc[0] = 1);
	REFUSED(s.slot.part[0] = 1);
	REFUSED(s.slot.part[1]++);
	REFUSED(s.slot.part[1] = 0xffff);
	REFUSED(s.slot.part[ROWS_PARTS]--);
	REFUSED(s.slot.part[ROWS_PARTS] = 101);
	REFUSED(pc[50] = pc[49]);
	REFUSED(pc[100] = 0);
	REFUSED(rule[0] = (uint16_t)s.slot.n_rules);
	REFUSED(rule[100] = 0xffff);
	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++) {
		REFUSED(rules[i].cfa = UNWIND_CFA_SP);
		REFUSED(rules[i].aux_offset = 1);
	}
	REFUSED((s.slot.rules_at += 16, s.slot.size += 16, size += 16,
		memmove(rules + 1, rules, 50 * sizeof(*rules))));
	/* More rows than a page may have, all else in order. */
	{
		uint32_t n = ROWS_MAX + 1, at = (32 + n * 4 + 15) & ~15U;
		uint16_t *pc = (void *)(&s.slot + 1);
		struct unwind_rule *rules = (void *)(s.bytes + at);

		memset(&s, 0, sizeof(s));
		s.slot.n_rows = n;
		s.slot.n_rules = UNWIND_FIXED_RULES;
		s.slot.rules_at = at;
		s.slot.size = at + UNWIND_FIXED_RULES * 16;
		for (uint32_t i = 0; i < n; i++)
			pc[i] = (uint16_t)i;
		for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++)
			rules[i].cfa = (uint8_t)i;
		assert_int_equal(rows_slot_check(&s.slot, s.slot.size), -EBADMSG);
	}
	/* More rules than there is room for in a slot, all else in order. */
	{
		uint32_t at = s.slot.rules_at, n = ROWS_RULES_MAX + 1;

		(void)pack(101, 50);
		s.slot.n_rules = n;
		s.slot.size = at + n * 16;
		assert_int_equal(rows_slot_check(&s.slot, s.slot.size), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_slot_finds_what_its_page_finds),
		cmocka_unit_test(test_rules_beyond_the_room_are_not_understood),
		cmocka_unit_test(test_empty_slots),
		cmocka_unit_test(test_everything_else_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
