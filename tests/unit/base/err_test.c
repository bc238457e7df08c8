/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/err.h"

static void test_set(void **s)
{
	struct err_text err = {"old"};

	errno = ENOENT;
	assert_int_equal(err_set(&err, -EINVAL, "cannot open %s: %m", "x"), -EINVAL);
	assert_string_equal(err.text, "cannot open x: No such file or directory");
	assert_int_equal(errno, ENOENT);
	assert_int_equal(err_set(NULL, -EPERM, "nobody %s", "listens"), -EPERM);
	/* It may quote itself. */
	err_set(&err, -1, "again: %s", err.text);
	assert_string_equal(err.text, "again: cannot open x: No such file or directory");
}

static void test_control_characters(void **s)
{
	struct err_text err;

	err_set(&err, -1, "a\nb\x1b[31mc\x7f\xff\xc2\x9b%s", "\xc3\xa9");
	assert_string_equal(err.text, "a?b?[31mc????\xc3\xa9");
}

static void test_prefix(void **s)
{
	struct err_text err = {"no such unit"};

	assert_int_equal(err_prefix(&err, -ENOENT, "source %d", 7), -ENOENT);
	assert_string_equal(err.text, "source 7: no such unit");
	err.text[0] = '\0';
	err_prefix(&err, -EACCES, "store");
	assert_string_equal(err.text, "store: Permission denied");
	assert_int_equal(err_prefix(NULL, -EACCES, "store"), -EACCES);
}

static void test_long(void **s)
{
	struct err_text err;
	char big[2000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&err, -1, "%s", big);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_string_equal(err.text + sizeof(err.text) - 5, "x...");
	/* The end that is cut off is the inner text's, not the prefix. */
	err_prefix(&err, -1, "outer");
	assert_memory_equal(err.text, "outer: xxx", 10);
	assert_string_equal(err.text + sizeof(err.text) - 4, "...");
	err_prefix(&err, -1, "%s", big);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_control_characters),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
