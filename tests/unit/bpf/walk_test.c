/* SPDX-License-Identifier: Apache-2.0 */

/* The walk in the kernel, against programs that know their own chain of calls (chain.c, built here
 * without frame pointers): whole stacks, stacks that are cut, and code that nobody describes. Rows are
 * made from the real files. Needs root. */

#include "tests/unit/bpf/child.h"

static bool is_whole(const struct record_sample *r)
{
	return r->end == WALK_ROOT && r->stack == 0 && r->n_frames > 0 &&
		r->frames[r->n_frames - 1].kind == FRAME_NATIVE;
}

/* ---- whole stacks
 * --------------------------------------------------------------------------------------------- */

static void check_whole(const char *what, int depth, bool in_kernel)
{
	struct rig_config config = {.slices_a_second = 1000};
	struct child c;
	struct rig g;
	size_t seen = 0;

	rig_open(&g, &config);
	child_start(&c, what, depth);
	run_known(&g, &c, 100);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];

		if (in_kernel != (r->n_frames > 0 && r->frames[0].kind == FRAME_KERNEL))
			continue;
		if (!is_whole(r))
			fail_msg("ended by %u with %u frames", r->end, r->n_frames);
		check_chain(&c, r, TRUTH_MAX);
		assert_int_equal(r->guessed, 0);
		assert_int_equal(r->space, g.tag);
		assert_int_equal(r->end_file, r->frames[r->n_frames - 1].file);
		seen++;
	}
	assert_true(seen > 50);
	assert_int_equal(rig_counter(&g, COUNT_LOST_SCRATCH), 0);
	child_end(&c);
	rig_close(&g);
}

static void test_recursion(void **state)
{
	check_whole("itself", 104, false);
}

static void test_mixed_frames(void **state)
{
	check_whole("chain", 60, false);
}

static void test_shallow(void **state)
{
	check_whole("chain", 1, false);
}

static void test_in_the_kernel(void **state)
{
	check_whole("kernel", 30, true);
}

static void test_signal_stack(void **state)
{
	check_whole("stack", 7, false);
}

/* ---- stacks that are cut
 * -------------------------------------------------------------------------------------- */

static void check_cut(uint32_t max_user, int depth)
{
	struct rig_config config = {.max_user = max_user};
	struct child c;
	struct rig g;

	rig_open(&g, &config);
	child_start(&c, "chain", depth);
	run_known(&g, &c, 20);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];
		size_t n;
		const struct sample_frame *f = user_frames(r, &n);

		assert_int_equal(r->end, WALK_DEPTH);
		assert_int_equal(n, max_user + 1);
		assert_int_equal(f[n - 1].kind, FRAME_MARKER);
		assert_int_equal(f[n - 1].offset, MARKER_TRUNCATED);
		assert_int_equal(check_chain(&c, r, max_user - 1), max_user - 1);
	}
	child_end(&c);
	rig_close(&g);
}

static void test_cut(void **state)
{
	check_cut(16, 40);
	check_cut(SAMPLE_DEFAULT_USER, 300);
	check_cut(SAMPLE_MAX_USER, 1200);
}

/* As many frames as are taken, to the frame: not cut. */
static void test_just_fits(void **state)
{
	struct rig_config config = {0};
	struct child c;
	struct rig g;
	size_t frames;

	rig_open(&g, &config);
	child_start(&c, "itself", 50);
	run_known(&g, &c, 10);
	user_frames(g.records[0], &frames);
	rig_close(&g);
	for (uint32_t less = 0; less < 2; less++) {
		config.max_user = (uint32_t)frames - less;
		rig_open(&g, &config);
		run_known(&g, &c, 10);
		for (size_t i = 0; i < g.n; i++)
			assert_int_equal(g.records[i]->end, less ? WALK_DEPTH : WALK_ROOT);
		rig_close(&g);
	}
	child_end(&c);
}

/* ---- code that no file describes
 * ----------------------------------------------------------------------------- */

static void check_guessed(const char *what, int depth, size_t frame)
{
	struct rig_config config = {0};
	struct child c;
	struct rig g;

	rig_open(&g, &config);
	child_start(&c, what, depth);
	run_known(&g, &c, 20);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];
		const struct sample_frame *f;
		size_t n;

		if (!is_whole(r))
			fail_msg("%s: ended by %u with %u frames", what, r->end, r->n_frames);
		check_chain(&c, r, TRUTH_MAX);
		assert_int_equal(r->guessed, 1);
		f = user_frames(r, &n);
		for (size_t j = 0; j < n; j++)
			assert_int_equal(
				f[j].flags & FRAME_APPROXIMATE, j == frame ? FRAME_APPROXIMATE : 0);
	}
	child_end(&c);
	rig_close(&g);
}

static void test_no_rows(void **state)
{
#if defined(__x86_64__)
	check_guessed("bare", 5, 1);
	check_guessed("jit-pointer", 5, 2);
	/* Where a function farther out keeps a frame pointer, that would be taken. */
	check_guessed("jit-leaf", 1, 1);
	check_guessed("jit-bare", 1, 2);
#endif
}

static void test_compat(void **state)
{
#if defined(__x86_64__)
	struct rig_config config = {.slices_a_second = 1000};
	struct child c;
	struct rig g;
	size_t seen = 0;

	rig_open(&g, &config);
	child_start(&c, "compat", 1);
	run_known(&g, &c, 20);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];

		assert_int_equal(r->stack, 0);
		seen += r->end == WALK_COMPAT && r->frames[r->n_frames - 1].kind == FRAME_MARKER &&
			r->frames[r->n_frames - 1].offset == MARKER_LOST;
	}
	assert_true(seen >= g.n - 2);
	child_end(&c);
	rig_close(&g);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recursion),
		cmocka_unit_test(test_mixed_frames),
		cmocka_unit_test(test_shallow),
		cmocka_unit_test(test_in_the_kernel),
		cmocka_unit_test(test_signal_stack),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_just_fits),
		cmocka_unit_test(test_no_rows),
		cmocka_unit_test(test_compat),
	};

	if (geteuid() != 0) {
		printf("cannot run - walk_test: loading BPF programs takes root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, child_find, NULL);
}
