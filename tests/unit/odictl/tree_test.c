/* SPDX-License-Identifier: Apache-2.0 */

/* From the parts of an answer to a tree, honest parts and others; tables of it. */

#include "tests/unit/odictl/parts.h"

static void test_honest(void **state)
{
	struct part *x = honest();
	struct tree *t = build_one(x);

	free(x); /* text was copied */
	assert_non_null(t);
	assert_int_equal(t->n_nodes, 7);
	assert_int_equal(tree_span_ns(t), NSEC_PER_SEC);
	/* Children by falling total. */
	assert_int_equal(t->nodes[0].first_child, 2);
	assert_string_equal(t->nodes[2].service, "web");
	assert_int_equal(t->nodes[2].next_sibling, 1);
	assert_int_equal(t->nodes[1].next_sibling, 0);
	assert_int_equal(t->nodes[3].first_child, 5);
	assert_int_equal(t->nodes[5].next_sibling, 4);
	assert_null(t->nodes[3].service);
	assert_string_equal(t->rows[0].process, "a");
	tree_free(t);
	tree_free(NULL);
	tree_builder_free(NULL);
}

/* Strings may come after what names them; what comes in pieces is the same tree. */
static void test_pieces(void **state)
{
	struct part *x = honest(), *pieces[3] = {part_new(), part_new(), part_new()};
	struct tree *t;

	pieces[0]->p.total_ns = 100;
	for (size_t i = 0; i < 7; i++)
		pieces[i / 4]->node_list[pieces[i / 4]->p.n_nodes++] = x->node_list[i];
	for (size_t i = 0; i < 2; i++)
		pieces[1]->function_list[pieces[1]->p.n_functions++] = x->function_list[i];
	for (size_t i = 0; i < 7; i++)
		add_string(pieces[2], x->strings[i]);
	t = build(pieces, 3);
	assert_non_null(t);
	assert_int_equal(t->n_nodes, 7);
	assert_int_equal(t->total_ns, 100);
	assert_string_equal(t->functions[t->nodes[6].function].module, "vmlinux");
	tree_free(t);
	for (size_t i = 0; i < 3; i++)
		free(pieces[i]);
	/* Nothing at all is an empty tree. */
	t = build(NULL, 0);
	assert_non_null(t);
	assert_int_equal(t->n_nodes, 0);
	tree_free(t);
	free(x);
}

static void spoil(struct part *x, unsigned how)
{
	switch (how) {
	case 0:
		x->nodes[6].parent = 6; /* its own parent, of no weight */
		x->nodes[6].self_ns = x->nodes[6].total_ns = 0;
		break;
	case 1:
		x->nodes[3].parent = 5; /* a parent after its child */
		break;
	case 2:
		x->nodes[6].parent = UINT32_MAX;
		break;
	case 3:
		x->nodes[4].function = 2;
		break;
	case 4:
		x->nodes[1].service = 7;
		break;
	case 5:
		x->functions[1].name = 7;
		break;
	case 6:
		x->functions[0].module = UINT32_MAX;
		break;
	case 7:
		x->functions[0].file = 7;
		break;
	case 8:
		x->rows[0].service = 7;
		break;
	case 9:
		x->rows[1].thread = 7;
		break;
	case 10:
		x->nodes[5].total_ns = 31; /* children are more than their parent */
		break;
	case 11:
		x->nodes[4].total_ns = UINT64_MAX; /* so much that the sum wraps around */
		break;
	case 12:
		x->nodes[6].self_ns = 41;
		break;
	case 13:
		x->p.total_ns = 99;
		break;
	}
}

static void test_hostile(void **state)
{
	for (unsigned how = 0; how <= 13; how++) {
		struct part *x = honest();
		struct tree *t;

		spoil(x, how);
		t = build_one(x);
		if (t)
			fail_msg("%u was accepted", how);
		free(x);
	}
}

static void test_names_are_cleaned(void **state)
{
	struct part *x = honest();
	struct tree *t;

	x->strings[3] = (char *)"a\033[2J\xff";
	t = build_one(x);
	assert_string_equal(t->functions[0].name, "a?[2J?");
	tree_free(t);
	free(x);
}

static void test_depth(void **state)
{
	for (unsigned over = 0; over < 2; over++) {
		struct tree_builder *b = tree_builder_new();
		struct part *x = part_new();
		struct tree *t;

		add_string(x, "s");
		add_function(x, 0, 0, 1);
		add_node(x, 0, 0, 0, 0);
		tree_builder_add(b, &x->p);
		x->p.n_strings = x->p.n_functions = 0;
		for (uint32_t i = 0; i < TREE_MAX_DEPTH + over; i++) {
			x->p.n_nodes = 0;
			add_node(x, i, 0, 0, 0);
			tree_builder_add(b, &x->p);
		}
		t = tree_builder_finish(b);
		assert_int_equal(t == NULL, over);
		tree_free(t);
		free(x);
	}
}

/* Any bytes: refused or a tree that keeps its promises; drawing it must not fall over. */
static void draw_all(const struct tree *t)
{
	void (*const draws[])(const struct tree *, const char *, struct buf *) = {
		flame_json, flame_svg, flame_html};
	struct top_row *rows;
	struct buf out;

	for (size_t i = 0; i < ARRAY_SIZE(draws); i++) {
		buf_init(&out, 64 << 20);
		draws[i](t, "title", &out);
		assert_int_equal(buf_error(&out), 0);
		buf_deinit(&out);
	}
	buf_init(&out, 64 << 20);
	flame_folded(t, &out);
	buf_deinit(&out);
	for (enum top_by by = TOP_SERVICE; by <= TOP_FUNCTION; by++) {
		top_rows(t, by, &rows);
		free(rows);
	}
}

static void test_random_damage(void **state)
{
	unsigned accepted = 0;

	for (unsigned round = 0; round < 3000; round++) {
		struct part *x = honest();
		uint32_t *fields[] = {&x->nodes[rnd(7)].parent, &x->nodes[rnd(7)].function,
			&x->nodes[rnd(7)].service, &x->functions[rnd(2)].name,
			&x->functions[rnd(2)].frame_type, &x->rows[rnd(2)].process};
		uint64_t *times[] = {&x->nodes[rnd(7)].self_ns, &x->nodes[rnd(7)].total_ns,
			&x->p.total_ns, &x->p.to_unix_ns};
		struct tree *t;

		*fields[rnd(ARRAY_SIZE(fields))] = (uint32_t)(rnd(4) ? rnd(9) : rnd(UINT64_MAX));
		if (rnd(2))
			*times[rnd(ARRAY_SIZE(times))] = rnd(4) ? rnd(120) : rnd(UINT64_MAX);
		t = build_one(x);
		if (t) {
			accepted++;
			if (round % 10 == 0)
				draw_all(t);
		}
		tree_free(t);
		free(x);
	}
	assert_in_range(accepted, 100, 2900);
}

/* ---- tables ---- */

static const struct top_row *find_row(
	const struct top_row *rows, size_t n, const char *name, const char *module)
{
	for (size_t i = 0; i < n; i++)
		if (streq(rows[i].name, name) && (!module || streq(rows[i].module, module)))
			return &rows[i];
	return NULL;
}

static void test_top(void **state)
{
	struct part *x = honest();
	struct tree *t = build_one(x);
	struct top_row *rows;
	size_t n = top_rows(t, TOP_FUNCTION, &rows);

	assert_int_equal(n, 2);
	assert_string_equal(rows[0].name, "b");
	assert_string_equal(rows[0].module, "vmlinux");
	assert_int_equal(rows[0].self_ns, 70);
	assert_int_equal(rows[0].total_ns, 70);
	/* Below itself: once. */
	assert_int_equal(rows[1].self_ns, 30);
	assert_int_equal(rows[1].total_ns, 60);
	free(rows);
	assert_int_equal(top_rows(t, TOP_MODULE, &rows), 2);
	assert_int_equal(find_row(rows, 2, "lib.so", NULL)->total_ns, 60);
	free(rows);
	assert_int_equal(top_rows(t, TOP_SERVICE, &rows), 2);
	assert_string_equal(rows[0].name, "web");
	assert_int_equal(rows[0].self_ns, 60);
	assert_int_equal(rows[1].self_ns, 40);
	free(rows);
	assert_int_equal(top_rows(t, TOP_PROCESS, &rows), 2);
	assert_string_equal(rows[0].name, "a");
	assert_string_equal(rows[0].service, "web");
	assert_string_equal(rows[1].name, TOP_NOT_RECORDED);
	free(rows);
	assert_int_equal(top_rows(t, TOP_THREAD, &rows), 2);
	assert_string_equal(rows[0].name, "b");
	free(rows);
	tree_free(t);
	free(x);
}

/* Two names of which one begins as the other, longer than any buffer. */
static void test_long_names(void **state)
{
	struct part *x = honest();
	char *one = malloc(5001), *two = malloc(5001);
	struct top_row *rows;
	struct tree *t;

	memset(one, 'x', 5000);
	one[5000] = '\0';
	strcpy(two, one);
	two[4999] = 'y';
	x->strings[3] = one;
	x->strings[4] = two;
	x->functions[1].module = 5;
	t = build_one(x);
	assert_int_equal(top_rows(t, TOP_FUNCTION, &rows), 2);
	free(rows);
	tree_free(t);
	free(x);
	free(one);
	free(two);
}

static const char *name_of(const struct tree *t, uint32_t i, enum top_by by)
{
	const struct tree_node *n = &t->nodes[i];

	if (n->service || !i)
		return NULL;
	return by == TOP_MODULE ? t->functions[n->function].module : t->functions[n->function].name;
}

/* The slow way: for each name, walk from every node to the root. */
static void brute_force(
	const struct tree *t, const char *name, enum top_by by, uint64_t *self, uint64_t *total)
{
	*self = *total = 0;
	for (uint32_t i = 1; i < t->n_nodes; i++) {
		bool leaf = true;

		for (uint32_t at = i; at; at = t->nodes[at].parent) {
			const char *x = name_of(t, at, by);

			if (x && streq(x, name)) {
				*self += leaf ? t->nodes[i].self_ns : 0;
				*total += t->nodes[i].self_ns;
				break;
			}
			leaf = false;
		}
	}
}

static void compare(const struct tree *t, enum top_by by)
{
	static const char *const functions[] = {"f0", "f1", "f2", "f3", "f4"};
	static const char *const modules[] = {"m0", "m1"};
	const char *const *names = by == TOP_MODULE ? modules : functions;
	size_t n_names = by == TOP_MODULE ? 2 : 5, n;
	struct top_row *rows;

	n = top_rows(t, by, &rows);
	for (size_t i = 0; i + 1 < n; i++)
		assert_true(rows[i].self_ns >= rows[i + 1].self_ns);
	for (size_t i = 0; i < n_names; i++) {
		const struct top_row *row = find_row(rows, n, names[i], NULL);
		uint64_t self, total;

		brute_force(t, names[i], by, &self, &total);
		assert_int_equal(row ? row->self_ns : 0, self);
		assert_int_equal(row ? row->total_ns : 0, total);
	}
	free(rows);
}

static void test_top_random(void **state)
{
	for (unsigned round = 0; round < 500; round++) {
		struct part *x = random_part();
		struct tree *t = build_one(x);
		struct top_row *rows;
		uint64_t sum = 0;
		size_t n;

		assert_non_null(t);
		compare(t, TOP_FUNCTION);
		compare(t, TOP_MODULE);
		n = top_rows(t, TOP_SERVICE, &rows);
		for (size_t i = 0; i < n; i++)
			sum += rows[i].self_ns;
		assert_int_equal(sum, t->total_ns);
		free(rows);
		tree_free(t);
		free(x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_honest),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_names_are_cleaned),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_random_damage),
		cmocka_unit_test(test_top),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_top_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
