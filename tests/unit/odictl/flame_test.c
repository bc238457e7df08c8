/* SPDX-License-Identifier: Apache-2.0 */

/* The pictures of a tree: folded stacks, SVG, the page; above all that no name breaks out of its place. */

#include "tests/unit/odictl/parts.h"

#include "agentd/base/text.h"

static void test_folded(void **state)
{
	struct part *x = honest();
	struct buf out;
	struct tree *t;

	x->strings[3] = (char *)"a;b(int, c)";
	x->strings[1] = (char *)"";
	t = build_one(x);
	buf_init(&out, 0);
	flame_folded(t, &out);
	assert_string_equal((char *)out.data,
		"[unnamed];a:b(int, c) 10\n"
		"[unnamed];a:b(int, c);a:b(int, c) 20\n"
		"[unnamed];a:b(int, c);b_[k] 30\n"
		"db;b_[k] 40\n");
	buf_deinit(&out);
	tree_free(t);
	free(x);
}

/* The folded counts of random trees add up to the tree's samples. */
static void test_folded_sum(void **state)
{
	for (unsigned round = 0; round < 50; round++) {
		struct part *x = random_part();
		struct tree *t = build_one(x);
		uint64_t sum = 0;
		struct buf out;

		buf_init(&out, 0);
		flame_folded(t, &out);
		for (char *line = out.data ? strtok((char *)out.data, "\n") : NULL; line;
			line = strtok(NULL, "\n"))
			sum += strtoull(strrchr(line, ' ') + 1, NULL, 10);
		assert_int_equal(sum, t->total_ns);
		buf_deinit(&out);
		tree_free(t);
		free(x);
	}
}

/* Well-formed enough: every '<' and '&' is ours. */
static void check_xml(const char *s)
{
	size_t open = 0;

	for (size_t len; *s; s += len) {
		len = text_utf8(s, NULL);
		assert_true(len > 0);
		assert_true((unsigned char)*s >= 0x20 || *s == '\n');
		if (*s == '&' && strncmp(s, "&lt;", 4) && strncmp(s, "&gt;", 4) &&
			strncmp(s, "&amp;", 5) && strncmp(s, "&quot;", 6))
			fail_msg("a bare &: %.40s", s);
		if (*s == '<') {
			static const char *const tags[] = {"svg ", "rect ", "text ", "g>", "title>",
				"/svg>", "/text>", "/g>", "/title>"};
			bool known = false;

			for (size_t i = 0; i < ARRAY_SIZE(tags); i++)
				known |= strncmp(s + 1, tags[i], strlen(tags[i])) == 0;
			if (!known)
				fail_msg("a foreign tag: %.40s", s);
			open++;
		}
		if (*s == '>')
			assert_true(open-- > 0);
	}
	assert_int_equal(open, 0);
}

static void test_svg(void **state)
{
	struct part *x = honest();
	struct buf out;
	struct tree *t;

	x->strings[3] = (char *)"<script>alert(\"&\")</script>]]>\033\xff";
	x->strings[1] = (char *)"a & b < c";
	t = build_one(x);
	/* What cleans text on the way in is not what this relies on. */
	t->functions[1].name = "\033[31m\xff\xef\xbf\xbf<b>";
	buf_init(&out, 0);
	flame_svg(t, "CPU <of> \"x\" & \x01y", &out);
	check_xml((char *)out.data);
	assert_says((char *)out.data, "&lt;script&gt;alert(&quot;&amp;&quot;)");
	assert_says((char *)out.data, "?[31m??&lt;b&gt;");
	assert_says((char *)out.data, "a &amp; b &lt; c");
	buf_deinit(&out);
	/* An empty tree is a picture as well. */
	tree_free(t);
	t = build(NULL, 0);
	buf_init(&out, 0);
	flame_svg(t, "nothing", &out);
	check_xml((char *)out.data);
	assert_says((char *)out.data, "none in this span");
	buf_deinit(&out);
	tree_free(t);
	free(x);
}

/* Nothing lies outside the picture, and what is too narrow is in the grey block. */
static void test_svg_narrow(void **state)
{
	struct part *x = honest();
	struct buf out;
	struct tree *t;

	x->p.total_ns = 1000100;
	x->nodes[0].total_ns = 1000100;
	add_string(x, "wide");
	add_node(x, 0, 7, 1000000, 1000000);
	for (size_t i = 1; i < 7; i++) {
		x->nodes[i].self_ns *= 10;
		x->nodes[i].total_ns *= 10;
	}
	x->p.total_ns = x->nodes[0].total_ns = 1001000;
	t = build_one(x);
	assert_non_null(t);
	buf_init(&out, 0);
	flame_svg(t, "narrow", &out);
	assert_says((char *)out.data, "<title>2 more: ");
	assert_null(strstr((char *)out.data, ">web<"));
	for (const char *p = (char *)out.data; (p = strstr(p, "<rect x=\"")); p++)
		assert_true(strtod(p + 9, NULL) < 1200);
	buf_deinit(&out);
	tree_free(t);
	free(x);
}

static void test_html(void **state)
{
	struct part *x = honest();
	struct buf out;
	struct tree *t;
	size_t scripts = 0;

	x->strings[3] = (char *)"</script><script>alert(1)//ODI_TITLE/*ODI_DATA*/";
	t = build_one(x);
	buf_init(&out, 0);
	flame_html(t, "</title><script>", &out);
	assert_int_equal(buf_error(&out), 0);
	assert_says((char *)out.data, "&lt;/title>&lt;script>");
	assert_null(strstr((char *)out.data, "<script>alert(1)"));
	assert_says((char *)out.data, "\\u003c/script>\\u003cscript>alert(1)");
	for (const char *p = (char *)out.data; (p = strstr(p, "</script>")); p++)
		scripts++;
	assert_in_range(scripts, 1, 2);
	buf_deinit(&out);
	tree_free(t);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_folded),
		cmocka_unit_test(test_folded_sum),
		cmocka_unit_test(test_svg),
		cmocka_unit_test(test_svg_narrow),
		cmocka_unit_test(test_html),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
