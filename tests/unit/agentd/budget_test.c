/* SPDX-License-Identifier: Apache-2.0 */

/* The rate under loads that are written down: what it costs at each rate, and what the rate must be
 * after how many windows. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "agentd/base/macros.h"
#include "agentd/daemon_budget.h"

#define LIMIT  0.02
#define WINDOW BUDGET_WINDOW_NS

/* A host: what sampling costs at any rate, and a part that follows it. Shares. */
struct load {
	double fixed, per_hz;
};

static double cost_of(const struct load *l, unsigned hz)
{
	return l->fixed + l->per_hz * hz;
}

/* So many windows, looked at five times in each. The rate. */
static unsigned run(struct budget *b, uint64_t *now, const struct load *l, unsigned windows)
{
	for (unsigned i = 0; i < windows * 5; i++) {
		unsigned before = budget_rate(b);
		enum budget_move m;

		*now += WINDOW / 5;
		m = budget_judge(b, *now, cost_of(l, before), LIMIT);
		assert_int_equal(m,
			budget_rate(b) < before           ? BUDGET_DOWN
				: budget_rate(b) > before ? BUDGET_UP
							  : BUDGET_STAY);
	}
	return budget_rate(b);
}

static const struct load cheap = {0.001, 0.001 / 99}, dear = {0.001, 0.1 / 99},
			 floor_load = {0.5, 0}, steady = {0.012, 0.0001 / 99};

static void test_table(void **state)
{
	static const struct {
		const char *what;
		struct load load;
		unsigned windows, rate;
	} rows[] = {
		{"cheap: nothing happens", {0.001, 0.002 / 99}, 100, 99},
		{"just below the limit: nothing happens", {0.0, 0.0199 / 99}, 100, 99},
		{"just above it: one step", {0.0, 0.021 / 99}, 20, 49},
		{"above it by half: one step, and twice the cost is too much to go back",
			{0.0, 0.03 / 99}, 20, 49},
		{"five times: three steps", {0.001, 0.1 / 99}, 20, 12},
		{"whatever the rate: down to the lowest, and not below", {0.5, 0}, 40, 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct budget b;
		uint64_t now = 77;
		unsigned rate;

		budget_start(&b, 99, now);
		rate = run(&b, &now, &rows[i].load, rows[i].windows);
		if (rate != rows[i].rate)
			print_error("%s: %u Hz\n", rows[i].what, rate);
		assert_int_equal(rate, rows[i].rate);
	}
}

static void test_steps_are_halves(void **state)
{
	static const unsigned ladder[] = {99, 49, 24, 12, 6, 3, 1, 1};
	struct budget b;
	uint64_t now = 1;

	budget_start(&b, 99, now);
	run(&b, &now, &cheap, 3); /* warm */
	for (size_t i = 1; i < ARRAY_SIZE(ladder); i++)
		assert_int_equal(run(&b, &now, &floor_load, 1), ladder[i]);
	assert_int_equal(b.downs, 6);
	assert_true(b.over);
	/* And back, a step in three windows that are whole at that rate. */
	for (size_t i = ARRAY_SIZE(ladder) - 2; i-- > 0;) {
		assert_int_equal(run(&b, &now, &cheap, 2), ladder[i + 1]);
		assert_int_equal(run(&b, &now, &cheap, 1), ladder[i]);
	}
	assert_int_equal(b.ups, 6);
	assert_false(b.over);
	assert_int_equal(run(&b, &now, &cheap, 50), 99);
}

/* While everything is met for the first time. */
static void test_warm_up(void **state)
{
	static const struct load meeting = {0.07, 0}, far_too_much = {0.5, 0};
	struct budget b;
	uint64_t now = 5;

	budget_start(&b, 99, now);
	assert_int_equal(run(&b, &now, &meeting, 2), 99);
	assert_int_equal(run(&b, &now, &cheap, 20), 99);
	assert_int_equal(run(&b, &now, &meeting, 1), 49); /* later it counts */
	budget_start(&b, 99, now);
	assert_int_equal(run(&b, &now, &far_too_much, 1), 49);
}

static void test_calm_must_last(void **state)
{
	struct budget b;
	uint64_t now = 1;

	budget_start(&b, 99, now);
	run(&b, &now, &cheap, 3);
	assert_int_equal(run(&b, &now, &dear, 1), 49);
	/* Calm for two windows, then not, again and again: it stays where it is. */
	for (unsigned i = 0; i < 5; i++) {
		static const struct load middling = {0, 0.019 / 49};

		run(&b, &now, &cheap, 2);
		assert_int_equal(run(&b, &now, &middling, 1), 49);
	}
	assert_int_equal(run(&b, &now, &cheap, 3), 99);
}

/* A cost that does not follow the rate: doubling it says that going up is too dear, a try says that it
 * is not; and a try that was wrong is made less often. */
static void test_tries(void **state)
{
	struct budget b;
	uint64_t now = 1;
	unsigned tries = 0;

	budget_start(&b, 99, now);
	run(&b, &now, &cheap, 3);
	assert_int_equal(run(&b, &now, &dear, 1), 49);
	assert_int_equal(run(&b, &now, &steady, 29), 49);
	assert_int_equal(run(&b, &now, &steady, 5), 99);
	assert_int_equal(run(&b, &now, &steady, 100), 99);

	budget_start(&b, 99, now);
	run(&b, &now, &cheap, 3);
	for (unsigned i = 0; i < 6 * 360; i++) { /* six hours of it: 49 is quiet, 99 is too much */
		static const struct load too_much = {0, 0.025 / 99};
		uint64_t ups = b.ups;

		run(&b, &now, &too_much, 1);
		tries += b.ups > ups;
	}
	assert_in_range(tries, 5, 12);
}

static void test_people_decide(void **state)
{
	struct budget b;
	uint64_t now = 1;

	budget_start(&b, 99, now);
	run(&b, &now, &cheap, 3);
	run(&b, &now, &floor_load, 2);
	assert_int_equal(budget_rate(&b), 24);
	budget_want(&b, 200, now);
	assert_int_equal(budget_rate(&b), 200);
	assert_int_equal(run(&b, &now, &floor_load, 1), 100);
	/* No budget: back at once. */
	assert_int_equal(budget_judge(&b, ++now, 0.9, 0), BUDGET_UP);
	assert_int_equal(budget_rate(&b), 200);
	assert_int_equal(budget_judge(&b, ++now, 0.9, 0), BUDGET_STAY);
	assert_false(b.over);
	/* The lowest rate has nothing below it. */
	budget_want(&b, 1, now);
	now += WINDOW;
	assert_int_equal(budget_judge(&b, now, 0.9, LIMIT), BUDGET_STAY);
	assert_true(b.over);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_steps_are_halves),
		cmocka_unit_test(test_warm_up),
		cmocka_unit_test(test_calm_must_last),
		cmocka_unit_test(test_tries),
		cmocka_unit_test(test_people_decide),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
