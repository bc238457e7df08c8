/* SPDX-License-Identifier: Apache-2.0 */

/* How well each binary is named: a file with several mappings is one, a stack counts once for it, and sums stay exact
 * however many files there are. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "agentd/daemon_symbols.h"

struct frame {
	const char *path, *build_id;
	uint64_t start;
	bool named;
	enum profile_frame_type type;
};

static uint32_t frame_location(struct batch *b, const struct frame *f)
{
	struct profile_mapping m = {.start = f->start,
		.limit = f->start + 4096,
		.filename = (uint32_t)batch_string(b, f->path),
		.build_id = (uint32_t)batch_string(b, f->build_id)};
	struct profile_function fn = {.name = (uint32_t)batch_string(b, "name"),
		.system_name = (uint32_t)batch_string(b, f->named ? "raw" : "")};
	struct profile_line line = {.function = (uint32_t)batch_function(b, &fn)};
	struct profile_location l = {.mapping = (uint32_t)batch_mapping(b, &m),
		.frame_type = (uint8_t)f->type,
		.address = f->start,
		.n_lines = 1};

	return (uint32_t)batch_location(b, &l, &line);
}

/* One sample of so many frames, counted `value` times. */
static void count(struct figures *f, const struct frame *frames, size_t n, uint64_t value)
{
	static const uint32_t none[4];
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct profile_part *part;
	uint32_t locations[16];

	assert_int_equal(batch_new(&b), 0);
	for (size_t i = 0; i < n; i++)
		locations[i] = frame_location(b, &frames[i]);
	assert_true(batch_part(b, (uint32_t)batch_resource(b, NULL, 0), 0, 1, 1, 1, &part) >= 0);
	assert_true(batch_add(b, part, (uint32_t)batch_stack(b, locations, n), none, value) >= 0);
	figures_count(f, b);
}

static const struct figure *find(const struct figures *f, const char *path, size_t *n)
{
	const struct figure **list = NULL, *found = NULL;

	assert_int_equal(figures_list(f, &list, n), 0);
	for (size_t i = 0; i < *n; i++) {
		assert_true(!i || list[i - 1]->samples >= list[i]->samples);
		if (strcmp(list[i]->path, path) == 0)
			found = list[i];
	}
	free(list);
	return found;
}

static void test_counts(void **state)
{
	static const struct frame stack[] = {
		{"vmlinux", "", 1, true, PROFILE_FRAME_KERNEL},
		{"ext4", "", 2, false, PROFILE_FRAME_KERNEL},
		{"/a", "11", 0x1000, true, PROFILE_FRAME_NATIVE},
		{"/a", "11", 0x9000, false, PROFILE_FRAME_NATIVE}, /* another segment */
		{"/b", "", 0x1000, false, PROFILE_FRAME_NATIVE},
		{"[marker]", "", 0, false, PROFILE_FRAME_UNKNOWN},
	};
	struct symbol_file_facts facts = {.seen = true,
		.named_by = "DWARF",
		.debuglink = "",
		.last_problem = "odd",
		.build_id = "22",
		.cpu_us = 5};
	CLEANUP(figures_freep) struct figures *f = NULL;
	const struct figure *x;
	size_t n;

	assert_int_equal(figures_new(&f), 0);
	count(f, stack, ARRAY_SIZE(stack), 10);
	count(f, stack + 4, 1, 3);
	x = find(f, FIGURES_KERNEL, &n);
	assert_non_null(x);
	assert_int_equal(n, 3);
	assert_int_equal(x->samples, 10);
	assert_int_equal(x->frames, 20);
	assert_int_equal(x->named, 10);
	x = find(f, "/a", &n);
	assert_int_equal(x->samples, 10);
	assert_int_equal(x->frames, 20);
	assert_int_equal(x->named, 10);
	x = find(f, "/b", &n);
	assert_int_equal(x->samples, 13);
	assert_int_equal(x->named, 0);
	assert_false(x->seen);
	/* Its build id comes late: the same row. */
	figures_facts(f, "/b", 7, &facts);
	facts.cpu_us = 9;
	figures_facts(f, "/b", 7, &facts);
	facts.cpu_us = 2;
	figures_facts(f, "/b", 8, &facts); /* the same file, met again under another id */
	x = find(f, "/b", &n);
	assert_int_equal(n, 3);
	assert_string_equal(x->build_id, "22");
	assert_string_equal(x->named_by, "DWARF");
	assert_string_equal(x->problem, "odd");
	assert_int_equal(x->samples, 13);
	assert_int_equal(x->cpu_us, 11);
	/* Another one at the same path. */
	memcpy(facts.build_id, "33", 3);
	figures_facts(f, "/b", 9, &facts);
	find(f, "/b", &n);
	assert_int_equal(n, 4);
	assert_int_equal(figures_totals(f)->samples, 13);
	assert_int_equal(figures_totals(f)->frames, 53);
	assert_int_equal(figures_totals(f)->named, 20);
}

static void test_bound(void **state)
{
	CLEANUP(figures_freep) struct figures *f = NULL;
	const struct figures_totals *t;
	const struct figure **list = NULL;
	uint64_t frames = 0, named = 0;
	char path[32];
	size_t n;

	assert_int_equal(figures_new(&f), 0);
	for (unsigned i = 0; i < FIGURES_MAX + 500; i++) {
		struct frame both[] = {{path, "", 1, i % 3 == 0, PROFILE_FRAME_NATIVE},
			{"/always", "", 1, true, PROFILE_FRAME_NATIVE}};

		snprintf(path, sizeof(path), "/f%u", i);
		count(f, both, 2, i + 1);
	}
	t = figures_totals(f);
	assert_non_null(find(f, "/always", &n));
	assert_int_equal(n, FIGURES_MAX);
	assert_null(find(f, "/f0", &n));
	assert_int_equal(t->other_files, 501);
	assert_int_equal(figures_list(f, &list, &n), 0);
	for (size_t i = 0; i < n; i++) {
		frames += list[i]->frames;
		named += list[i]->named;
	}
	free(list);
	assert_int_equal(frames + t->other_frames, t->frames);
	assert_int_equal(named + t->other_named, t->named);
	assert_int_equal(t->lost, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
