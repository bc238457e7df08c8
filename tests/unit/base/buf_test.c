/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/buf.h"

static void test_grow(void **s)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 0);
	for (int i = 0; i < 1000; i++) {
		buf_add(&b, "ab", 2);
		assert_int_equal(b.data[b.len], 0);
	}
	buf_str(&b, "cd");
	buf_add(&b, NULL, 0);
	assert_int_equal(b.len, 2002);
	assert_int_equal(buf_error(&b), 0);
	assert_string_equal((char *)b.data + 1998, "abcd");
	buf_reset(&b);
	assert_int_equal(b.len, 0);
	buf_str(&b, "x");
	assert_string_equal((char *)b.data, "x");
}

static void test_cap(void **s)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 10);
	buf_str(&b, "0123456789"); /* the NUL does not count */
	assert_int_equal(buf_error(&b), 0);
	assert_true(b.size <= 11);
	buf_str(&b, "");
	assert_int_equal(buf_error(&b), 0);
	buf_str(&b, "x");
	assert_int_equal(buf_error(&b), -E2BIG);
	/* What follows a failure is not appended, whether it fits or not. */
	buf_str(&b, "");
	buf_printf(&b, "%d", 1);
	assert_null(buf_reserve(&b, 0));
	assert_string_equal((char *)b.data, "0123456789");
	assert_int_equal(b.len, 10);
	assert_null(buf_take_str(&b));
	buf_reset(&b);
	assert_int_equal(buf_error(&b), 0);
	buf_str(&b, "y");
	assert_int_equal(b.len, 1);
}

static void test_sizes_that_lie(void **s)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 0);
	buf_str(&b, "abc");
	assert_null(buf_reserve(&b, SIZE_MAX - 1));
	assert_int_equal(buf_error(&b), -E2BIG);
	buf_reset(&b);
	assert_null(buf_reserve(&b, SIZE_MAX / 2));
	assert_int_equal(buf_error(&b), -E2BIG);
}

static void test_printf(void **s)
{
	_cleanup_buf_ struct buf b;
	char text[201];

	memset(text, 'z', 200);
	text[200] = '\0';
	buf_init(&b, 300);
	buf_printf(&b, "%s=%d;", "n", 42);
	assert_string_equal((char *)b.data, "n=42;");
	buf_printf(&b, "%s", text); /* grows */
	assert_int_equal(b.len, 205);
	assert_string_equal((char *)b.data + 203, "zz");
	errno = ENOENT;
	buf_printf(&b, "%m");
	assert_string_equal((char *)b.data + 205, "No such file or directory");
	buf_printf(&b, "%s", text);
	assert_int_equal(buf_error(&b), -E2BIG);
	/* %m also where the text did not fit at first. */
	buf_deinit(&b);
	errno = ENOENT;
	buf_printf(&b, "%s%m", text);
	assert_string_equal((char *)b.data + 200, "No such file or directory");
	buf_printf(&b, "%s", text);
	assert_int_equal(buf_error(&b), -E2BIG);
	assert_int_equal(strlen((char *)b.data), b.len);

	/* Exactly at a cap, one past it, and past it within what is allocated. */
	buf_deinit(&b);
	buf_init(&b, 4);
	buf_printf(&b, "%s", "abcd");
	assert_int_equal(buf_error(&b), 0);
	buf_printf(&b, "%s", "e");
	assert_int_equal(buf_error(&b), -E2BIG);
	assert_string_equal((char *)b.data, "abcd");
}

static void test_reserve(void **s)
{
	_cleanup_buf_ struct buf b;
	char *p;

	buf_init(&b, 0);
	buf_str(&b, "ab");
	p = buf_reserve(&b, 100);
	assert_non_null(p);
	memset(p, 'q', 100);
	buf_commit(&b, 3);
	assert_int_equal(b.len, 5);
	assert_string_equal((char *)b.data, "abqqq");
	/* More than there is room for stays within the allocation. */
	buf_commit(&b, 1 << 20);
	assert_true(b.len < b.size);
}

static void test_take(void **s)
{
	_cleanup_buf_ struct buf b;
	char *text;

	buf_init(&b, 0);
	text = buf_take_str(&b);
	assert_string_equal(text, "");
	free(text);
	buf_str(&b, "mine");
	text = buf_take_str(&b);
	assert_string_equal(text, "mine");
	free(text);
	assert_int_equal(b.len, 0);
	buf_str(&b, "next");
	assert_string_equal((char *)b.data, "next");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grow),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_sizes_that_lie),
		cmocka_unit_test(test_printf),
		cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_take),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
