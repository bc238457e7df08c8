/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/text.h"

static void test_u64(void **s)
{
	static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x10", "1.0", "1e3", "\n"};
	uint64_t v = 5;

	assert_int_equal(text_u64("18446744073709551615", 0, UINT64_MAX, &v), 0);
	assert_int_equal(v, UINT64_MAX);
	assert_int_equal(text_u64("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
	assert_int_equal(text_u64("99999999999999999999999999", 0, UINT64_MAX, &v), -ERANGE);
	assert_int_equal(text_u64("99999999999999999999999999x", 0, UINT64_MAX, &v), -EINVAL);
	assert_int_equal(v, UINT64_MAX);
	assert_int_equal(text_u64("0", 1, 1000, &v), -ERANGE);
	assert_int_equal(text_u64("1001", 1, 1000, &v), -ERANGE);
	assert_int_equal(text_u64("007", 1, 7, &v), 0);
	assert_int_equal(v, 7);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(text_u64(bad[i], 0, UINT64_MAX, &v), -EINVAL);
}

static void test_duration(void **s)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"90s", 90 * NSEC_PER_SEC},
		{"10m", 600 * NSEC_PER_SEC},
		{"1h30m", 5400 * NSEC_PER_SEC},
		{"7d", 7 * 86400 * NSEC_PER_SEC},
		{"250ms", 250 * NSEC_PER_MSEC},
		{"1w", 7 * 86400 * NSEC_PER_SEC},
		{"45", 45 * NSEC_PER_SEC},
		{"0", 0},
		{"1.5h", 5400 * NSEC_PER_SEC},
		{"0.000000001s", 1},
		{"12.5", 12500 * NSEC_PER_MSEC},
		{"2us3ns", 2003},
		{"18446744073709551615ns", UINT64_MAX},
	};
	static const char *const bad[] = {"", "s", "1x", "-1s", "1 s", "1h30", "30m1h", "1h1h",
		"1.s", ".5s", "1sx", "5M", "1,5s"};
	static const char *const over[] = {"18446744073709551616ns", "99999999999999999999w",
		"30501w", "18446744073s709551616ns"};
	uint64_t ns = 77;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(text_duration(good[i].text, &ns), 0);
		assert_int_equal(ns, good[i].ns);
	}
	ns = 77;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(text_duration(bad[i], &ns), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(over); i++)
		assert_int_equal(text_duration(over[i], &ns), -ERANGE);
	assert_int_equal(ns, 77);
}

static void test_format_duration(void **s)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
		{0, "0 ns"},
		{999, "999 ns"},
		{1500, "1.5 us"},
		{999949, "999.9 us"},
		{999950, "1 ms"},
		{250 * NSEC_PER_MSEC, "250 ms"},
		{999960 * 1000, "1 s"},
		{12500 * NSEC_PER_MSEC, "12.5 s"},
		{59940 * NSEC_PER_MSEC, "59.9 s"},
		{59960 * NSEC_PER_MSEC, "1m"},
		{90 * NSEC_PER_SEC, "1m 30s"},
		{5400 * NSEC_PER_SEC, "1h 30m"},
		{7200 * NSEC_PER_SEC, "2h"},
		{(86400 * 7 + 3 * 3600) * NSEC_PER_SEC, "7d 3h"},
	};
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		text_format_duration(rows[i].ns, text, sizeof(text));
		assert_string_equal(text, rows[i].text);
	}
}

static void test_size(void **s)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"256MB", 256 << 20},
		{"1GiB", 1 << 30},
		{"4k", 4096},
		{"4K", 4096},
		{"17", 17},
		{"17b", 17},
		{"1.5m", 3 << 19},
		{"2TB", 2ULL << 40},
		{"15PiB", 15ULL << 50},
	};
	static const char *const bad[] = {
		"", "MB", "1 MB", "-1", "1MBx", "1ib", "1mi", "0x1", "1.", "1kk"};
	uint64_t bytes = 3;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(text_size(good[i].text, &bytes), 0);
		assert_int_equal(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(text_size(bad[i], &bytes), -EINVAL);
	assert_int_equal(text_size("16384P", &bytes), -ERANGE);
}

static void test_format_size(void **s)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} rows[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KB"},
		{1024 * 1024 - 1, "1.0 MB"},
		{12897484, "12.3 MB"},
		{256 << 20, "256.0 MB"},
		{UINT64_MAX, "16.0 EB"},
	};
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		text_format_size(rows[i].bytes, text, sizeof(text));
		assert_string_equal(text, rows[i].text);
	}
}

static void test_bool(void **s)
{
	static const char *const yes[] = {"true", "yes", "on", "1", "True"},
				 *const no[] = {"false", "no", "off", "0", "OFF"};
	bool b;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		b = false;
		assert_int_equal(text_bool(yes[i], &b), 0);
		assert_true(b);
		assert_int_equal(text_bool(no[i], &b), 0);
		assert_false(b);
	}
	assert_int_equal(text_bool("y", &b), -EINVAL);
	assert_int_equal(text_bool("", &b), -EINVAL);
	assert_int_equal(text_bool("trueish", &b), -EINVAL);
}

static void test_names(void **s)
{
	char name[66];

	memset(name, 'a', 65);
	name[65] = '\0';
	assert_false(text_is_name(name));
	name[64] = '\0';
	assert_true(text_is_name(name));
	assert_true(text_is_name("getty@tty1.service"));
	assert_true(text_is_name("_a-b:c.d"));
	assert_false(text_is_name(""));
	assert_false(text_is_name("-rf"));
	assert_false(text_is_name(".."));
	assert_false(text_is_name("a/b"));
	assert_false(text_is_name("a b"));
	assert_false(text_is_name("\xc3\xa9"));
}

static void test_utf8(void **s)
{
	static const struct {
		const char *text;
		size_t len;
		uint32_t c;
	} rows[] = {
		{"", 1, 0},
		{"a", 1, 'a'},
		{"\xc3\xa9", 2, 0xe9},
		{"\xe2\x82\xac", 3, 0x20ac},
		{"\xf0\x9f\x94\xa5", 4, 0x1f525},
		{"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
		{"\xf4\x90\x80\x80", 0, 0}, /* past the end of Unicode */
		{"\xed\xa0\x80", 0, 0},     /* a surrogate */
		{"\xc0\x80", 0, 0},         /* overlong NUL */
		{"\xe0\x80\xaf", 0, 0},     /* overlong slash */
		{"\xf0\x80\x80\xaf", 0, 0},
		{"\x80", 0, 0},
		{"\xe2\x82", 0, 0}, /* cut */
		{"\xff", 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint32_t c = 0;

		assert_int_equal(text_utf8(rows[i].text, &c), rows[i].len);
		assert_int_equal(c, rows[i].c);
		assert_int_equal(text_utf8(rows[i].text, NULL), rows[i].len);
	}
}

static void test_clean(void **s)
{
	char text[] = "a\tb\x7f\xe2\x82\xac\xe2\x82|\xc2\x9b\xc2\xa0\x01";

	assert_true(text_is_clean("", 0));
	assert_true(text_is_clean("abc", 3));
	assert_false(text_is_clean("abcd", 3));
	assert_false(text_is_clean("a\xe2\x82\xac", 3));
	assert_true(text_is_clean("a\xe2\x82\xac", 4));
	assert_false(text_is_clean("a\nb", 10));
	assert_false(text_is_clean("a\x1b", 10));
	assert_false(text_is_clean("\x7f", 10));
	assert_false(text_is_clean("\xc2\x9b", 10));
	assert_false(text_is_clean("\xff", 10));
	text_clean(text);
	assert_string_equal(text, "a?b?\xe2\x82\xac??|??\xc2\xa0?");
	assert_true(text_is_clean(text, SIZE_MAX));
}

static void test_glob(void **s)
{
	static const struct {
		const char *pattern, *s;
		bool match;
	} rows[] = {
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"**", "abc", true},
		{"a*c", "abbc", true},
		{"a*c", "abb", false},
		{"*.service", "web.service", true},
		{"*.service", "web.service.d", false},
		{"a*b*c", "aXbYbZc", true},
		{"a*bc", "abcbc", true},
		{"*aab", "aaaaab", true},
		{"?", "", false},
		{"?", "\xc3\xa9", true},
		{"??", "\xc3\xa9", false},
		{"?", "\xff", true},
		{"*", "\xff\xfe", true},
		{"/usr/*", "/usr/lib/x", true},
		{"[abc]x", "bx", true},
		{"[abc]x", "dx", false},
		{"[!abc]x", "dx", true},
		{"[^abc]x", "ax", false},
		{"[a-f]", "c", true},
		{"[a-f]", "g", false},
		{"[a-]", "-", true},
		{"[-a]", "-", true},
		{"[]]", "]", true},
		{"[]a]", "a", true},
		{"[!]]", "]", false},
		{"[!]]", "x", true},
		{"[", "[", true},
		{"[abc", "[abc", true},
		{"[abc", "a", false},
		{"[]", "[]", true},
		{"a[", "a[", true},
		{"*[", "xx[", true},
		{"[[:digit:]]*", "7z", true},
		{"[[:digit:]]*", "z7", false},
		{"[[:nope:]]", ":]", true},
		{"[\xc3\xa0-\xc3\xbf]", "\xc3\xa9", true},
		{"\\*", "*", true},
		{"\\*", "x", false},
		{"\\[a]", "[a]", true},
		{"[\\]]", "]", true},
		{"a\\", "a\\", true},
		{"A", "a", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (text_glob(rows[i].pattern, rows[i].s) != rows[i].match)
			fail_msg("'%s' and '%s'", rows[i].pattern, rows[i].s);
}

/* Patterns that take a glob with full backtracking, or one that looks for each missing bracket,
 * longer than the world has been there: that this test ends at all is the assertion. */
static void test_glob_is_bounded(void **s)
{
	enum { N = 20000 };
	_cleanup_free_ char *pattern = calloc(1, 2 * N + 2), *text = calloc(1, N + 1);

	assert_non_null(pattern);
	assert_non_null(text);
	memset(text, 'a', N);
	for (size_t i = 0; i < 100; i++)
		memcpy(pattern + 2 * i, "*a", 2);
	strcpy(pattern + 200, "*b");
	assert_false(text_glob(pattern, text));
	memset(pattern, '[', 2000);
	strcpy(pattern + 2000, "x");
	pattern[0] = '*';
	memset(text, '[', N);
	for (size_t i = 2000; i < N; i += 2000)
		text[i] = 'y';
	assert_false(text_glob(pattern, text));
}

static void test_nearest(void **s)
{
	static const char *const names[] = {
		"enable", "disable", "status", "top", NULL, "flamegraph"};
	const size_t n = ARRAY_SIZE(names);
	char big[1000];

	assert_string_equal(text_nearest("enabel", names, n), "enable"); /* a swap is one step */
	assert_string_equal(text_nearest("flamgraf", names, n), "flamegraph");
	assert_string_equal(text_nearest("statuss", names, n), "status");
	assert_string_equal(text_nearest("top", names, n), "top");
	assert_string_equal(text_nearest("tpo", names, n), "top");
	assert_null(text_nearest("pot", names, n)); /* two steps are too many for three letters */
	assert_null(text_nearest("", names, n));
	assert_null(text_nearest("zzzz", names, n));
	assert_null(text_nearest("top", names, 0));
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_null(text_nearest(big, names, n));
	/* The nearest, not the first that is near. */
	assert_string_equal(text_nearest("abcd", (const char *const[]){"abxx", "abcx"}, 2), "abcx");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_duration),
		cmocka_unit_test(test_format_duration),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_format_size),
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_glob),
		cmocka_unit_test(test_glob_is_bounded),
		cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
