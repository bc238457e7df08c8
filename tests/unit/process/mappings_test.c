/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings against a model that cannot be wrong: one cell a page. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/process/mappings.h"
#include "agentd/process/process.h"

#define PAGES 64

struct cell {
	uint64_t inode, pgoff; /* inode 0, pgoff 0: nothing; ANON: memory */
};
#define ANON 999

static struct path_pool *pool;
static struct path *file_path, *anon_path;

static struct mapping make(uint64_t start, uint64_t end, uint64_t inode, uint64_t pgoff)
{
	struct mapping m = {.start = start,
		.end = end,
		.pgoff = inode == ANON ? 0 : pgoff,
		.key = {.inode = inode == ANON ? 0 : inode},
		.path = path_ref(inode == ANON ? anon_path : file_path)};

	return m;
}

static void check(struct mappings *m, const struct cell *model)
{
	for (size_t i = 0; i < m->n; i++) {
		assert_true(m->v[i].start < m->v[i].end);
		assert_true(i == 0 || m->v[i - 1].end <= m->v[i].start);
	}
	for (uint64_t p = 0; p < PAGES; p++) {
		struct mapping *found = mappings_find(m, p * 16 + (p % 16));

		if (!model[p].inode) {
			assert_null(found);
			continue;
		}
		assert_non_null(found);
		assert_ptr_equal(found->path, model[p].inode == ANON ? anon_path : file_path);
		if (model[p].inode == ANON)
			continue;
		assert_int_equal(found->key.inode, model[p].inode);
		assert_int_equal(p * 16 - found->start + found->pgoff, model[p].pgoff);
	}
	assert_null(mappings_find(m, PAGES * 16));
	assert_null(mappings_find(m, UINT64_MAX));
}

static void change(struct mappings **m, struct cell *model, unsigned *seed)
{
	uint64_t start = (uint64_t)rand_r(seed) % PAGES, len = 1 + (uint64_t)rand_r(seed) % 12;
	uint64_t inode = rand_r(seed) % 3 ? 1 + (uint64_t)rand_r(seed) % 3 : ANON,
		 pgoff = 4096 * (uint64_t)(rand_r(seed) % 8);
	uint64_t end = MIN(start + len, (uint64_t)PAGES);
	struct mapping new = make(start * 16, end * 16, inode, pgoff);

	assert_int_equal(mappings_replace(m, &new, 1000), 0);
	for (uint64_t p = start; p < end; p++)
		model[p] = (struct cell){inode, pgoff + (p - start) * 16};
}

static void test_random(void **state)
{
	unsigned seed = 7;

	for (int round = 0; round < 200; round++) {
		struct mappings *m = mappings_new(), *shared = NULL;
		struct cell model[PAGES] = {}, shared_model[PAGES] = {};

		for (int step = 0; step < 60; step++) {
			if (step == 30) {
				shared = mappings_ref(m);
				memcpy(shared_model, model, sizeof(model));
			}
			change(&m, model, &seed);
			check(m, model);
		}
		/* What was shared did not change with its sharer. */
		check(shared, shared_model);
		assert_ptr_not_equal(shared, m);
		/* A range as it was. */
		{
			uint64_t start = (uint64_t)rand_r(&seed) % PAGES,
				 end = start + 1 + (uint64_t)rand_r(&seed) % 20;

			end = MIN(end, (uint64_t)PAGES);
			assert_int_equal(
				mappings_restore(&m, shared, start * 16, end * 16, 1000), 0);
			memcpy(model + start, shared_model + start, (end - start) * sizeof(*model));
			check(m, model);
			assert_int_equal(mappings_restore(&m, NULL, start * 16, end * 16, 1000), 0);
			memset(model + start, 0, (end - start) * sizeof(*model));
			check(m, model);
		}
		mappings_unref(shared);
		mappings_unref(m);
	}
}

static void test_joins_memory_only(void **state)
{
	struct mappings *m = mappings_new();
	struct mapping a = make(0, 16, ANON, 0), b = make(32, 48, ANON, 0),
		       c = make(16, 32, ANON, 0);
	struct mapping d = make(48, 64, 5, 0), e = make(64, 80, 5, 16);

	assert_int_equal(mappings_replace(&m, &a, 100), 0);
	assert_int_equal(mappings_replace(&m, &b, 100), 0);
	assert_int_equal(m->n, 2);
	assert_int_equal(mappings_replace(&m, &c, 100), 0);
	assert_int_equal(m->n, 1);
	assert_int_equal(mappings_replace(&m, &d, 100), 0);
	assert_int_equal(mappings_replace(&m, &e, 100), 0);
	assert_int_equal(m->n, 3);
	mappings_unref(m);
}

static void test_refuses(void **state)
{
	struct mappings *m = mappings_new(), *before;
	struct mapping empty = make(16, 16, 1, 0), wraps = make(32, 16, 1, 0),
		       ok = make(0, 16, 1, 0), more = make(16, 32, 1, 0);

	assert_int_equal(mappings_replace(&m, &empty, 100), -EINVAL);
	assert_int_equal(mappings_replace(&m, &wraps, 100), -EINVAL);
	assert_int_equal(mappings_replace(&m, &ok, 2), 0);
	before = m;
	assert_int_equal(mappings_replace(&m, &more, 2), -E2BIG);
	assert_ptr_equal(m, before);
	assert_int_equal(m->n, 1);
	mappings_unref(m);
	assert_int_equal(file_path->refs, 1);
}

static void test_carries_files(void **state)
{
	struct mappings *old = mappings_new(), *new = mappings_new();
	struct mapping a = make(0, 64, 1, 4096), b = make(100, 200, 2, 0),
		       c = make(16, 64, 1, 4112), d = make(100, 200, 3, 0);

	a.file = 77;
	b.file = 88;
	assert_int_equal(mappings_replace(&old, &a, 100), 0);
	assert_int_equal(mappings_replace(&old, &b, 100), 0);
	assert_int_equal(mappings_replace(&new, &c, 100), 0); /* the rest of a, after a split */
	assert_int_equal(mappings_replace(&new, &d, 100), 0); /* another file at b's place */
	mappings_carry_files(new, old);
	assert_int_equal(mappings_find(new, 16)->file, 77);
	assert_int_equal(mappings_find(new, 100)->file, 0);
	assert_false(mappings_equal(old, new));
	assert_true(mappings_equal(old, old));
	mappings_unref(old);
	mappings_unref(new);
}

#define LARGE (2ULL << 20)

/* Memory without a file in a hole of a file, to the byte and as large pages lie, is that file's text. */
static void test_copied_text(void **state)
{
	struct mappings *m = mappings_new();
	/* One, two, ... LARGE into the file, where it lies twice, thrice... with holes. */
	const struct mapping rows[] = {
		make(LARGE - 4096, LARGE, 1, 0),
		make(LARGE, 3 * LARGE, ANON, 0), /* the hole */
		make(3 * LARGE, 3 * LARGE + 4096, 1, 4096 + 2 * LARGE),
		make(4 * LARGE, 5 * LARGE, ANON, 0), /* nothing before it */
		make(5 * LARGE, 6 * LARGE, 1, 0),
		make(6 * LARGE, 7 * LARGE, ANON, 0), /* not the same file behind it */
		make(7 * LARGE, 8 * LARGE, 2, 2 * LARGE),
		make(8 * LARGE, 9 * LARGE, ANON, 0), /* another part of the file behind it */
		make(9 * LARGE, 10 * LARGE, 2, 5 * LARGE),
		make(11 * LARGE - 4096, 11 * LARGE, 1, 0),
		make(11 * LARGE, 11 * LARGE + 4096, ANON, 0), /* too small */
		make(11 * LARGE + 4096, 12 * LARGE, 1, 8192),
	};
	uint64_t version;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(mappings_replace(&m, &rows[i], 100), 0);
	assert_int_equal(m->n, ARRAY_SIZE(rows));
	version = m->version;
	mappings_fill_copied_text(m);
	assert_true(m->version > version);
	assert_int_equal(m->n, ARRAY_SIZE(rows) - 2);
	assert_int_equal(m->v[0].start, LARGE - 4096);
	assert_int_equal(m->v[0].end, 3 * LARGE + 4096);
	assert_int_equal(m->v[0].pgoff, 0);
	for (size_t i = 1; i < m->n; i++)
		assert_int_equal(m->v[i].start, rows[i + 2].start);
	version = m->version;
	mappings_fill_copied_text(m);
	assert_int_equal(m->version, version);
	mappings_unref(m);
}

static void test_conflict(void **state)
{
	struct mappings *m = mappings_new();
	struct mapping a = make(0x1000, 0x4000, 1, 0x1000), b = make(0x8000, 0x9000, ANON, 0);
	const struct {
		uint64_t start, end, inode, pgoff;
		bool conflict;
	} cases[] = {
		{0x1000, 0x4000, 1, 0x1000, false},                        /* the same */
		{0x2000, 0x6000, 1, 0x2000, false},                        /* more of the same */
		{0x2000, 0x3000, 1, 0x1000, true},                         /* another part */
		{0x2000, 0x3000, 2, 0x2000, true},                         /* another file */
		{0x3fff, 0x5000, ANON, 0, true},                           /* none */
		{0x4000, 0x8000, 2, 0, false},                             /* between */
		{0, 0x1000, 2, 0, false},                                  /* before */
		{0, 0x1001, 2, 0, true}, {0x8000, 0x8800, ANON, 0, false}, /* memory over memory */
		{0x8000, 0x8800, 2, 0, true}, {0x9000, 0xa000, 2, 0, false}, /* behind */
	};

	assert_int_equal(mappings_told_under(NULL, &a), 0);
	assert_int_equal(mappings_replace(&m, &a, 100), 0);
	assert_int_equal(mappings_replace(&m, &b, 100), 0);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		size_t k = i / 2;
		struct mapping c =
			make(cases[k].start, cases[k].end, cases[k].inode, cases[k].pgoff);
		uint64_t file = PROCESS_FILE_BIT(cases[k].start < 0x8000 ? 7 : 8);

		/* What the kernel was not told of goes by without a word. */
		m->v[0].told = i % 2 ? 7 : 0;
		m->v[1].told = i % 2 ? 8 : 0;
		assert_int_equal(mappings_told_under(m, &c), i % 2 && cases[k].conflict ? file : 0);
		path_unref(c.path);
	}
	/* Memory that grows is still what was told of. */
	a = make(0x7000, 0x8000, ANON, 0);
	assert_int_equal(mappings_replace(&m, &a, 100), 0);
	a = make(0x7800, 0x9000, 2, 0);
	assert_int_equal(mappings_told_under(m, &a), PROCESS_FILE_BIT(8));
	path_unref(a.path);
	mappings_unref(m);
}

static int setup(void **state)
{
	assert_int_equal(path_pool_new(&pool), 0);
	file_path = path_get(pool, "/lib/x.so");
	anon_path = path_get(pool, "[anon]");
	assert_ptr_equal(path_get(pool, "/lib/x.so"), file_path);
	path_unref(file_path);
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(file_path->refs, 1);
	assert_int_equal(anon_path->refs, 1);
	path_unref(file_path);
	path_unref(anon_path);
	path_pool_free(pool);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_random),
		T(test_joins_memory_only),
		T(test_refuses),
		T(test_carries_files),
		T(test_copied_text),
		T(test_conflict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
