/* SPDX-License-Identifier: Apache-2.0 */

/* Which batches go out together, and when; and that what they are encoded to has all of them. */

#include "tests/unit/profile/fixture.h"

#include "agentd/base/io.h"
#include "destinations/group.h"

#define SECOND NSEC_PER_SEC
#define START  (1700000040ULL * SECOND) /* a whole minute */

/* The i-th batch of 10 s. */
static void push(struct queue *q, unsigned i, uint64_t revision)
{
	struct batch_header header = {.serial = i + 1,
		.from_unix_ns = START + i * 10 * SECOND,
		.to_unix_ns = START + (i + 1) * 10 * SECOND,
		.revision = revision};
	struct shape shape = small_shape;
	const struct message_counts none = {0};
	struct held_batch *b = NULL;
	uint64_t totals[PROFILE_TYPES];
	struct batch *batch;
	struct buf bytes;
	int fd;

	shape.time_unix_ns = header.from_unix_ns;
	batch = random_batch(i + 1, &shape);
	batch_totals(batch, totals);
	header.samples[0] = totals[0];
	buf_init(&bytes, 0);
	assert_int_equal(profile_encode(batch, &header, NULL, 0, &bytes), 0);
	fd = io_sealed_memfd("batch", bytes.data, bytes.len);
	assert_true(fd >= 0);
	assert_int_equal(held_batch_new(&b, i + 1, &header, fd), 0);
	assert_int_equal(queue_push(q, b, 0, &none), 0);
	held_batch_unref(b);
	close(fd);
	buf_deinit(&bytes);
	batch_free(batch);
}

static ssize_t choose(
	struct queue *q, uint64_t after_ns, bool oldest, struct group *g, uint64_t *wait)
{
	return group_choose(q, 60 * SECOND, oldest, START + after_ns, g, wait);
}

static void test_waits(void **state)
{
	struct queue q = {0};
	struct group g;
	uint64_t wait;

	assert_int_equal(choose(&q, 0, false, &g, &wait), -1);
	assert_true(wait == UINT64_MAX);
	for (unsigned i = 0; i < 5; i++)
		push(&q, i, 1);
	/* The minute, a batch's length, and a little more. */
	assert_int_equal(choose(&q, 50 * SECOND, false, &g, &wait), -1);
	assert_int_equal(wait, 22 * SECOND);
	push(&q, 5, 1);
	assert_int_equal(choose(&q, 72 * SECOND - 1, false, &g, &wait), -1);
	assert_int_equal(choose(&q, 72 * SECOND, false, &g, &wait), 0);
	assert_int_equal(g.n, 6);
	/* The next minute's do not go along. */
	push(&q, 6, 1);
	assert_int_equal(choose(&q, 80 * SECOND, false, &g, &wait), 0);
	assert_int_equal(g.n, 6);
	assert_int_equal(wait, 52 * SECOND);
	/* A clock that went back by a day holds nothing back. */
	assert_int_equal(
		group_choose(&q, 60 * SECOND, false, START - 86400 * SECOND, &g, &wait), 6);
	assert_int_equal(g.n, 0);
	queue_deinit(&q);
}

static void test_orders(void **state)
{
	struct queue q = {0};
	struct group g;
	uint64_t wait;

	for (unsigned i = 0; i < 18; i++)
		push(&q, i, i < 14 ? 1 : 2);
	assert_int_equal(choose(&q, 3600 * SECOND, true, &g, &wait), 0);
	assert_int_equal(g.n, 6);
	/* Another configuration is another upload. */
	assert_int_equal(choose(&q, 3600 * SECOND, false, &g, &wait), 14);
	assert_int_equal(g.n, 4);
	assert_ptr_equal(g.batches[3], queue_at(&q, 17)->batch);
	/* One that was begun goes on alone, and the others without it. */
	queue_at(&q, 16)->row = 3;
	assert_int_equal(choose(&q, 3600 * SECOND, false, &g, &wait), 14);
	assert_int_equal(g.n, 3);
	queue_at(&q, 17)->counts.samples[FATE_SHAPED][0] = 1;
	assert_int_equal(choose(&q, 3600 * SECOND, false, &g, &wait), 17);
	assert_int_equal(g.n, 0);
	queue_deinit(&q);
}

static void test_encodes(void **state)
{
	const struct shape_limits limits = {0};
	struct queue q = {0};
	struct encoded *e = NULL;
	struct err_text err = {};
	struct group g;
	uint64_t wait, sum = 0;

	for (unsigned i = 0; i < 6; i++) {
		push(&q, i, 1);
		sum += queue_at(&q, i)->batch->header.samples[0];
	}
	assert_int_equal(choose(&q, 72 * SECOND, false, &g, &wait), 0);
	assert_int_equal(group_encode(&g, &q, &limits, &e, &err), 0);
	assert_int_equal(e->n, 1);
	assert_int_equal(e->requests[0].samples[0], sum);
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(e->requests[0].shares[i].rows, g.rows[i]);
		assert_int_equal(e->requests[0].shares[i].samples[0],
			queue_at(&q, i)->batch->header.samples[0]);
	}
	encoded_unref(e);
	/* One that went meanwhile: they are chosen anew. */
	queue_remove(&q, 2);
	assert_int_equal(group_encode(&g, &q, &limits, &e, &err), -ENOTSUP);
	queue_deinit(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_encodes),
	};

	return cmocka_run_group_tests_name("destinations/group", tests, NULL, NULL);
}
