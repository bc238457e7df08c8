/* SPDX-License-Identifier: Apache-2.0 */

/* Blocks of address spaces on plain memory: what a verdict names is what was set last or has another
 * tag, whatever came and went. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agentd/sampler/spaces.h"

#define UNITS 1024

struct area {
	struct space_map *units;
	struct sample_counters cpu[2];
	struct quiet quiet;
	struct spaces spaces;
};

static uint64_t seed = 88172645463325252ULL;

static uint32_t below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % n;
}

static void area_open(struct area *a, uint32_t units, size_t images)
{
	memset(a, 0, sizeof(*a));
	a->units = calloc(units, sizeof(*a->units));
	assert_non_null(a->units);
	assert_int_equal(quiet_init(&a->quiet, a->cpu, 2), 0);
	assert_int_equal(spaces_init(&a->spaces, a->units, units, images, &a->quiet), 0);
}

static void area_close(struct area *a)
{
	spaces_deinit(&a->spaces);
	quiet_deinit(&a->quiet);
	free(a->units);
}

static struct sample_image image_of(uint32_t i)
{
	return (struct sample_image){.tgid = 100 + i, .exec = i % 3, .start_boottime = 7 * i};
}

/* Maps that only what (and their number) tells apart. */
static const struct space_map *make_maps(uint32_t n, uint32_t what)
{
	static struct space_map maps[SPACE_MAPS_MAX + 1];

	for (uint32_t i = 0; i < n; i++)
		maps[i] = (struct space_map){
			.start = 0x400000 + (uint64_t)i * 0x10000,
			.end = 0x400000 + (uint64_t)i * 0x10000 + 0x8000,
			.bias = what,
			.file = 1 + (what + i) % 50,
			.kind = SPACE_FILE,
		};
	return maps;
}

struct named {
	uint32_t unit, tag, n, what;
};

/* As the programs see it. */
static bool believed(const struct area *a, const struct named *v)
{
	const struct space_head *head = (const void *)&a->units[v->unit & (UNITS - 1)];

	return v->unit && head->tag == v->tag;
}

static void check_named(const struct area *a, const struct named *v)
{
	const struct space_head *head = (const void *)&a->units[v->unit];

	assert_in_range(v->unit, 1, UNITS - 1);
	assert_int_equal(head->tag, v->tag);
	assert_int_equal(v->tag & 1, 1);
	assert_int_equal(head->n, v->n);
	assert_memory_equal(head + 1, make_maps(v->n, v->what), v->n * sizeof(struct space_map));
}

static int set(struct area *a, uint32_t i, uint32_t n, uint32_t what, struct named *v)
{
	struct sample_image image = image_of(i);
	struct named to = {.n = n, .what = what};
	int r = spaces_set(&a->spaces, &image, make_maps(n, what), n, v->tag, &to.unit, &to.tag);

	if (r == 0) {
		assert_true(!v->tag || (int32_t)(to.tag - v->tag) >= 0);
		*v = to;
	}
	return r;
}

static void test_set_and_share(void **state)
{
	struct named a_ = {0}, b = {0}, c = {0}, was;
	struct sample_image image = image_of(2);
	struct area a;

	area_open(&a, UNITS, 100);
	assert_int_equal(set(&a, 1, 20, 5, &a_), 0);
	check_named(&a, &a_);
	assert_int_equal(set(&a, 2, 20, 5, &b), 0);
	assert_int_equal(b.unit, a_.unit);
	assert_int_equal(b.tag, a_.tag);
	assert_int_equal(a.spaces.n_blocks, 1);
	assert_int_equal(set(&a, 3, 20, 6, &c), 0);
	assert_true(c.unit != a_.unit && c.tag != a_.tag);
	/* The same again is the same. */
	was = a_;
	assert_int_equal(set(&a, 1, 20, 5, &a_), 0);
	assert_memory_equal(&was, &a_, sizeof(was));
	/* One of two that share changes: the other keeps what it has. */
	assert_int_equal(set(&a, 1, 21, 5, &a_), 0);
	check_named(&a, &a_);
	check_named(&a, &b);
	/* And back: not the block that the other still has, since its tag is an older one. */
	assert_int_equal(set(&a, 1, 20, 5, &a_), 0);
	assert_true(a_.tag != b.tag);
	check_named(&a, &a_);
	spaces_forget(&a.spaces, &image);
	spaces_forget(&a.spaces, &image);
	assert_false(believed(&a, &b));
	check_named(&a, &a_);
	check_named(&a, &c);
	area_close(&a);
}

static void test_refused(void **state)
{
	struct sample_image image = image_of(1);
	struct space_map maps[2] = {{.start = 0x1000, .end = 0x2000, .kind = SPACE_ANON},
		{.start = 0x2000, .end = 0x3000, .kind = SPACE_ANON}};
	struct named v = {0};
	struct area a;
	uint32_t unit, tag;

	area_open(&a, UNITS, 100);
	assert_int_equal(spaces_set(&a.spaces, &image, maps, 2, 0, &unit, &tag), 0);
	maps[1].start = 0x1ffe;
	assert_int_equal(spaces_set(&a.spaces, &image, maps, 2, 0, &unit, &tag), -EINVAL);
	maps[1].start = 0x3000;
	assert_int_equal(spaces_set(&a.spaces, &image, maps, 2, 0, &unit, &tag), -EINVAL);
	maps[1].start = 0x2001;
	assert_int_equal(spaces_set(&a.spaces, &image, maps, 2, 0, &unit, &tag), -EINVAL);
	assert_int_equal(set(&a, 1, UNITS - 1, 0, &v), -E2BIG);
	assert_int_equal(set(&a, 1, SPACE_MAPS_MAX + 1, 0, &v), -E2BIG);
	assert_int_equal(a.spaces.n_blocks, 1);
	/* The largest that there is room for. */
	assert_int_equal(set(&a, 1, UNITS - 2, 0, &v), 0);
	check_named(&a, &v);
	area_close(&a);
}

/* What a verdict names, after much coming and going, is either its maps or has another tag. */
static void test_model(void **state)
{
	enum { IMAGES = 60 };
	static struct named named[IMAGES];
	struct area a;
	uint64_t blocks, maps;

	memset(named, 0, sizeof(named));
	area_open(&a, UNITS, IMAGES - 10); /* fewer than there are */
	for (uint32_t step = 0; step < 60000; step++) {
		uint32_t i = below(IMAGES), what = below(100);

		if (what < 60) {
			uint32_t n = below(50) ? 1 + below(40) : 1 + below(UNITS - 2);

			assert_int_equal(set(&a, i, n, below(20), &named[i]), 0);
			check_named(&a, &named[i]);
		} else if (what < 61) {
			struct sample_image image = image_of(i);

			spaces_forget(&a.spaces, &image);
		} else if (what < 62 && below(10) == 0) {
			uint32_t file = 1 + below(50);

			spaces_forget_file(&a.spaces, file);
			for (uint32_t j = 0; j < IMAGES; j++)
				for (uint32_t m = 0; believed(&a, &named[j]) && m < named[j].n; m++)
					assert_int_not_equal(
						a.units[named[j].unit + 1 + m].file, file);
		}
		for (uint32_t j = 0; step % 16 == 0 && j < IMAGES; j++)
			if (believed(&a, &named[j]))
				check_named(&a, &named[j]);
	}
	assert_true(a.spaces.evicted > 1000);
	blocks = maps = 0;
	for (uint32_t at = 1; at < UNITS; at++)
		maps += a.spaces.taken[at / 64] >> (at % 64) & 1;
	assert_int_equal(maps, a.spaces.n_maps + a.spaces.n_blocks);
	for (uint32_t i = 0; i < IMAGES; i++) {
		struct sample_image image = image_of(i);

		blocks += map_get(a.spaces.images, &image, sizeof(image)) != NULL;
		spaces_forget(&a.spaces, &image);
	}
	assert_in_range(blocks, 1, IMAGES - 10);
	assert_int_equal(a.spaces.n_blocks, 0);
	assert_int_equal(a.spaces.n_maps, 0);
	assert_int_equal(a.spaces.taken[0], 1);
	for (uint32_t i = 1; i < UNITS / 64; i++)
		assert_int_equal(a.spaces.taken[i], 0);
	area_close(&a);
}

/* Who was set least recently goes first. */
static void test_least_recent(void **state)
{
	struct named v[12] = {{0}};
	struct area a;

	area_open(&a, UNITS, 100);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(set(&a, i, 100, i, &v[i]), 0); /* 1010 of 1023 units */
	assert_int_equal(set(&a, 0, 100, 0, &v[0]), 0);         /* once more */
	assert_int_equal(set(&a, 10, 100, 10, &v[10]), 0);
	assert_true(believed(&a, &v[0]));
	assert_false(believed(&a, &v[1]));
	for (uint32_t i = 2; i <= 10; i++)
		assert_true(believed(&a, &v[i]));
	assert_int_equal(a.spaces.evicted, 1);
	/* As many images as are kept. */
	area_close(&a);
	memset(v, 0, sizeof(v));
	area_open(&a, UNITS, 3);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(set(&a, i, 2, i, &v[i]), 0);
	assert_false(believed(&a, &v[0]));
	assert_true(believed(&a, &v[1]) && believed(&a, &v[3]));
	area_close(&a);
}

/* One large block among many small ones puts out no more than it must. */
static void test_neighbours(void **state)
{
	struct named v[300] = {{0}}, large = {0};
	uint32_t left = 0;
	struct area a;

	area_open(&a, UNITS, 400);
	for (uint32_t i = 0; i < 300; i++) /* of 3 units, in an order that no eviction follows */
		assert_int_equal(set(&a, (i * 7) % 300, 2, i, &v[(i * 7) % 300]), 0);
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(
			set(&a, (i * 113) % 300, 2, v[(i * 113) % 300].what, &v[(i * 113) % 300]),
			0);
	assert_int_equal(set(&a, 300, 149, 0, &large), 0);
	check_named(&a, &large);
	for (uint32_t i = 0; i < 300; i++)
		left += believed(&a, &v[i]);
	/* Twice its 150 units by age, then its own size. */
	assert_in_range(left, 300 - 100 - 50 - 2, 300 - 100);
	area_close(&a);
}

static void test_cpu_stays(void **state)
{
	struct named old = {0}, now = {0};
	struct area a;

	area_open(&a, UNITS, 100);
	assert_int_equal(set(&a, 1, 900, 3, &old), 0);
	a.cpu[0].of[COUNT_IN_HALF] = 2;
	assert_int_equal(set(&a, 2, 100, 4, &now), 0); /* memory that nobody had */
	assert_int_equal(set(&a, 3, 900, 5, &now), -EAGAIN);
	/* Not believed any more, and not written over. */
	assert_false(believed(&a, &old));
	assert_memory_equal(&a.units[old.unit + 1], make_maps(900, 3), 900 * sizeof(*a.units));
	a.cpu[0].of[COUNT_IN_HALF] = 0;
	now = (struct named){0};
	assert_int_equal(set(&a, 3, 900, 5, &now), 0);
	check_named(&a, &now);
	area_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_and_share),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_least_recent),
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_cpu_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
