/* SPDX-License-Identifier: Apache-2.0 */

/* Documents: order, what lies below a path, the one text form, bounds, what may be shown. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agentd/config/config_private.h"
#include "tests/unit/config/fakes.h"

static struct config_doc *decode(const char *text)
{
	struct config_doc *d = NULL;
	struct err_text err = {""};

	if (config_doc_decode(text, strlen(text), &d, &err) < 0)
		fail_msg("%s", err.text);
	return d;
}

static void assert_encodes(const struct config_doc *d, const char *expected)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 0);
	assert_int_equal(config_doc_encode(d, &b), 0);
	assert_string_equal(b.len ? (char *)b.data : "", expected);
}

static void test_set_get_remove(void **state)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;

	assert_int_equal(config_doc_new(&d), 0);
	assert_int_equal(config_doc_set(d, "sources/web/kind", "systemd", 3), 0);
	assert_int_equal(config_doc_set(d, "sources/web-2/kind", "host", 9), 0);
	assert_int_equal(config_doc_set(d, "sources/web/enabled", "true", 2), 0);
	assert_int_equal(config_doc_set(d, "profiling/rate", "99", 1), 0);
	assert_int_equal(config_doc_set(d, "profiling/rate", "49", 7), 0);
	assert_int_equal(config_doc_size(d), 4);
	assert_string_equal(config_doc_get(d, "profiling/rate")->value, "49");
	assert_int_equal(config_doc_get(d, "profiling/rate")->line, 7);
	assert_null(config_doc_get(d, "sources/web"));
	assert_true(config_doc_has(d, "sources/web"));
	assert_false(config_doc_has(d, "sources/we"));
	assert_int_equal(config_doc_first(d, "sources/web")->line, 2);
	/* "web-2" sorts between "web" and "web/...": it must not go with it. */
	assert_int_equal(config_doc_remove(d, "sources/web"), 2);
	assert_true(config_doc_has(d, "sources/web-2"));
	assert_int_equal(config_doc_remove(d, "sources/web"), 0);
	assert_encodes(d, "profiling/rate=49\nsources/web-2/kind=host\n");
}

static void test_refuses(void **state)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	char path[CONFIG_PATH_MAX + 2], value[CONFIG_VALUE_MAX + 2];
	static const char *const bad[] = {
		"", "/a", "a/", "a//b", "a=b", "a b", "a\nb", "a\x01", "a\xff"};

	assert_int_equal(config_doc_new(&d), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(config_doc_set(d, bad[i], "x", 0), -EINVAL);
	assert_int_equal(config_doc_set(d, "a", "x\ny", 0), -EINVAL);
	memset(path, 'a', sizeof(path));
	path[CONFIG_PATH_MAX] = 0;
	assert_int_equal(config_doc_set(d, path, "x", 0), -EINVAL);
	path[CONFIG_PATH_MAX - 1] = 0;
	assert_int_equal(config_doc_set(d, path, "x", 0), 0);
	memset(value, 'v', sizeof(value));
	value[CONFIG_VALUE_MAX + 1] = 0;
	assert_int_equal(config_doc_set(d, "a", value, 0), -EINVAL);
	value[CONFIG_VALUE_MAX] = 0;
	assert_int_equal(config_doc_set(d, "a", value, 0), 0);
	assert_int_equal(config_doc_size(d), 2);
}

static void test_bounds(void **state)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	_cleanup_free_ char *value = calloc(1, CONFIG_VALUE_MAX + 1);
	char path[64];
	size_t n = 0;
	int r = 0;

	assert_int_equal(config_doc_new(&d), 0);
	while (r == 0 && n <= CONFIG_MAX_ENTRIES) {
		snprintf(path, sizeof(path), "host/labels/l%06zu", n++);
		r = config_doc_set(d, path, "x", 0);
	}
	assert_int_equal(r, -E2BIG);
	assert_int_equal(config_doc_size(d), CONFIG_MAX_ENTRIES);
	/* What is there may still be changed. */
	assert_int_equal(config_doc_set(d, "host/labels/l000000", "y", 0), 0);
	config_doc_free(TAKE_PTR(d));
	assert_int_equal(config_doc_new(&d), 0);
	memset(value, 'v', CONFIG_VALUE_MAX);
	for (n = 0, r = 0; r == 0 && n < 5000; n++) {
		snprintf(path, sizeof(path), "host/labels/l%06zu", n);
		r = config_doc_set(d, path, value, 0);
	}
	assert_int_equal(r, -E2BIG);
	assert_in_range(n, 900, 1100);
	/* Room that was given back is there again. */
	assert_true(config_doc_remove(d, "host") > 0);
	assert_int_equal(config_doc_set(d, path, value, 0), 0);
}

static void test_text_form(void **state)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	CLEANUP(config_doc_freep) struct config_doc *copy = NULL;

	assert_int_equal(config_doc_new(&d), 0);
	assert_int_equal(config_doc_set(d, "sources/x/match", "a=b\\n c", 0), 0);
	assert_int_equal(config_doc_set(d, "host/labels/a/b", "\xc3\xa9", 0), 0);
	assert_encodes(d, "host/labels/a/b=\xc3\xa9\nsources/x/match=a=b\\\\n c\n");
	copy = decode("host/labels/a/b=\xc3\xa9\nsources/x/match=a=b\\\\n c\n");
	assert_string_equal(config_doc_get(copy, "sources/x/match")->value, "a=b\\n c");
	assert_int_equal(config_diff(d, copy, NULL), 0);
}

static void test_decode_refuses(void **state)
{
	static const char *const bad[] = {"a", "a=b", "=b\n", "b=1\na=1\n", "a=1\na=2\n", "a=\\x\n",
		"a=\\\n", "a=b\n\n", "a=\x01\n", "a=\\n\n", "a b=c\n"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct config_doc *d = NULL;
		struct err_text err = {""};

		if (config_doc_decode(bad[i], strlen(bad[i]), &d, &err) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
		assert_non_null(strstr(err.text, "line "));
		assert_null(d);
	}
	{
		struct config_doc *d = NULL;

		assert_int_equal(config_doc_decode("a=b\0c\n", 6, &d, NULL), -EINVAL);
		assert_int_equal(config_doc_decode("", 0, &d, NULL), 0);
		assert_int_equal(config_doc_size(d), 0);
		config_doc_free(d);
	}
}

static void test_paths(void **state)
{
	static const struct {
		const char *path, *words; /* NULL: known */
	} cases[] = {
		{"profiling/rate", NULL},
		{"profiling", NULL},
		{"sources/web", NULL},
		{"sources/a@1.service/kind", NULL},
		{"sources/web/labels/team/x", NULL},
		{"sources/web/options", NULL},
		{"destinations/p/options/headers/X-Y", NULL},
		{"host/labels/a.b/c", NULL},
		{"profiling/rat", "did you mean \"profiling/rate\""},
		{"nothing/like/it", "there is no setting"},
		{"sources/web/mach", "did you mean \"match\""},
		{"sources/web/kind/x", "there is no setting"},
		{"sources/-web/kind", "cannot be the name of a source"},
		{"destinations/web/kind", "a destination has no setting \"kind\""},
		{"sources/web/options/", "there is no setting"},
		{"host/labels/1a", "cannot be a label's key"},
		{"sources/", "there is no setting"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err_text err = {""};
		struct config_path p;
		int r = config_path_parse(cases[i].path, &p, &err);

		if (!cases[i].words && r < 0)
			fail_msg("%s: %s", cases[i].path, err.text);
		if (cases[i].words && (r != -EINVAL || !strstr(err.text, cases[i].words)))
			fail_msg("%s: %d \"%s\"", cases[i].path, r, err.text);
	}
}

static void test_diff(void **state)
{
	CLEANUP(config_doc_freep)
	struct config_doc *a =
		decode("profiling/rate=99\nsources/web/kind=host\nsources/web/order=5\n");
	CLEANUP(config_doc_freep)
	struct config_doc *b =
		decode("destinations/p/options/headers/Authorization=Bearer x\n"
		       "destinations/p/options/headers/X-Team=blue\n"
		       "destinations/p/options/token=secret:00112233445566778899aabbccddeeff\n"
		       "destinations/p/type=pyroscope\nprofiling/rate=49\nsources/web/order=6\n");
	_cleanup_buf_ struct buf out;

	buf_init(&out, 0);
	assert_int_equal(config_diff(a, b, &out), 7);
	assert_string_equal((char *)out.data,
		"+destinations/p/options/headers/Authorization = (secret)\n"
		"+destinations/p/options/headers/X-Team = (secret)\n"
		"+destinations/p/options/token = (secret)\n"
		"+destinations/p/type = pyroscope\n"
		"~profiling/rate: 99 -> 49\n"
		"-sources/web/kind\n");
}

static void test_shown(void **state)
{
	CLEANUP(config_doc_freep)
	struct config_doc *d = decode("destinations/p/type=pyroscope\ndestinations/q/type=gone\n");

	assert_string_equal(config_shown(d, "destinations/p/options/tenant", "t"), "t");
	assert_string_equal(config_shown(d, "destinations/p/options/token", "t"), "(secret)");
	assert_string_equal(
		config_shown(d, "destinations/p/options/headers/x-any", "t"), "(secret)");
	/* Of a type that nobody knows any more, nothing is known to be harmless. */
	assert_string_equal(config_shown(d, "destinations/q/options/tenant", "t"), "(secret)");
	assert_string_equal(config_shown(NULL, "destinations/p/options/tenant", "t"), "(secret)");
	assert_string_equal(config_shown(d, "profiling/rate", "99"), "99");
}

static void test_layers(void **state)
{
	for (enum config_layer l = 0; l < LAYERS; l++) {
		enum config_layer back;

		assert_int_equal(config_layer_parse(config_layer_name(l), &back), 0);
		assert_int_equal(back, l);
	}
	assert_int_equal(config_layer_parse("lokal", &(enum config_layer){0}), -EINVAL);
}

static void test_schema_defaults_are_valid(void **state)
{
	size_t n;
	const struct config_setting *s = config_schema(&n);

	assert_true(n >= 8);
	for (size_t i = 0; i < n; i++) {
		struct config_path p;
		struct err_text err = {""};

		if (option_check(&s[i].option, s[i].option.fallback, &err) < 0)
			fail_msg("%s: %s", s[i].path, err.text);
		assert_int_equal(config_path_parse(s[i].path, &p, &err), 0);
		assert_ptr_equal(p.setting, &s[i]);
		assert_true(strlen(s[i].option.help) > 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_get_remove),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_text_form),
		cmocka_unit_test(test_decode_refuses),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_diff),
		cmocka_unit_test(test_shown),
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_schema_defaults_are_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
