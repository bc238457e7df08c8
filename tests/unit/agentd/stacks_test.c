/* SPDX-License-Identifier: Apache-2.0 */

/* How far stacks went: sums stay exact however many files there are. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "agentd/daemon_stacks.h"

static void test_ends(void **state)
{
	struct stacks *s = calloc(1, sizeof(*s));
	struct stacks_file *f;

	assert_non_null(s);
	stacks_reset(s, 42);
	assert_int_equal(s->since_unix_ns, 42);
	assert_null(stacks_add(s, WALK_ROOT, 0, 7, 90));
	assert_null(stacks_add(s, WALK_NONE, 0, 0, 1000));
	assert_null(stacks_add(s, WALK_DEPTH, 2, 7, 5));
	f = stacks_add(s, WALK_NO_INFORMATION, 0, 7, 3);
	assert_non_null(f);
	assert_int_equal(f->file, 7);
	assert_null(stacks_add(s, WALK_NO_INFORMATION, 0, 7, 2));
	assert_int_equal(f->samples, 5);
	assert_non_null(stacks_add(s, WALK_UNSUPPORTED, 0, 7, 1)); /* another reason */
	assert_null(stacks_add(s, 200, 0, 0, 0) ? NULL : NULL);    /* hostile: in bounds */
	assert_int_equal(stacks_walked(s), 101);
	assert_int_equal(s->ends[WALK_ROOT], 90);
	assert_int_equal(s->guessed, 10);
	assert_int_equal(s->guessed_samples, 5);
	free(s);
}

static void test_every_end_has_words(void **state)
{
	for (unsigned end = 0; end < 256; end++) {
		assert_true(*stacks_end_key((uint8_t)end));
		assert_true(*stacks_end_text((uint8_t)end));
	}
	for (unsigned a = 0; a <= WALK_REUSED; a++)
		for (unsigned b = 0; b < a; b++)
			assert_string_not_equal(
				stacks_end_key((uint8_t)a), stacks_end_key((uint8_t)b));
	assert_true(stacks_end_has_file(WALK_NO_INFORMATION));
	assert_true(stacks_end_has_file(WALK_UNSUPPORTED));
	assert_false(stacks_end_has_file(WALK_ROOT));
}

static void test_more_files_than_are_kept(void **state)
{
	struct stacks *s = calloc(1, sizeof(*s));
	uint64_t sum = 0;
	uint16_t top[3];

	assert_non_null(s);
	stacks_reset(s, 0);
	stacks_add(s, WALK_NO_INFORMATION, 0, 1, 5000);
	stacks_add(s, WALK_NO_INFORMATION, 0, 2, 7000);
	stacks_add(s, WALK_NO_INFORMATION, 0, 3, 6000);
	stacks_add(s, WALK_NO_INFORMATION, 0, 4, 4000);
	for (uint32_t i = 10; i < 10 + 3 * STACKS_FILES; i++)
		assert_non_null(stacks_add(s, WALK_NO_INFORMATION, 0, i, 1 + i % 3));
	assert_int_equal(s->n_files, STACKS_FILES);
	for (size_t i = 0; i < s->n_files; i++)
		sum += s->files[i].samples;
	assert_int_equal(sum + s->other_files, s->ends[WALK_NO_INFORMATION]);
	assert_int_equal(stacks_top(s, top, 3), 3);
	assert_int_equal(s->files[top[0]].file, 2);
	assert_int_equal(s->files[top[1]].file, 3);
	assert_int_equal(s->files[top[2]].file, 1);
	free(s);
}

static void test_top_of_few(void **state)
{
	struct stacks *s = calloc(1, sizeof(*s));
	uint16_t top[8];

	assert_non_null(s);
	stacks_reset(s, 0);
	assert_int_equal(stacks_top(s, top, 8), 0);
	stacks_add(s, WALK_NO_INFORMATION, 0, 1, 1);
	stacks_add(s, WALK_NO_INFORMATION, 0, 2, 2);
	assert_int_equal(stacks_top(s, top, 8), 2);
	assert_int_equal(s->files[top[0]].file, 2);
	assert_int_equal(s->files[top[1]].file, 1);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_every_end_has_words),
		cmocka_unit_test(test_more_files_than_are_kept),
		cmocka_unit_test(test_top_of_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
