/* SPDX-License-Identifier: Apache-2.0 */

/* Shaping and splitting conserve samples, at any limits and from any row, and come out the same each time. */

#include "tests/unit/profile/fixture.h"

#include "agentd/base/compress.h"
#include "agentd/base/text.h"
#include "destinations/protocol.h"
#include "destinations/shape.h"

static const struct shape_limits limit_sets[] = {{0}, {.packing = SHAPE_GZIP}, {.max_bytes = 4000},
	{.max_bytes = 1500, .max_samples = 3, .packing = SHAPE_GZIP}, {.max_samples = 1},
	{.max_bytes = 20000, .max_samples = 7}, {.soft_bytes = 3000, .packing = SHAPE_ZSTD}};

struct made {
	struct batch_header header;
	struct buf bytes;
	struct shaped *shaped;
};

static void make(struct made *m, uint64_t seed)
{
	struct shape shape = small_shape;
	struct batch *b;
	uint64_t totals[PROFILE_TYPES];
	struct err_text err;

	shape.samples = 200;
	shape.stacks = 60;
	b = random_batch(seed, &shape);
	*m = (struct made){.header.serial = seed};
	batch_totals(b, totals);
	m->header.samples[0] = totals[0];
	buf_init(&m->bytes, 0);
	assert_int_equal(profile_encode(b, &m->header, NULL, 0, &m->bytes), 0);
	batch_free(b);
	if (shape_batch(&m->shaped, m->bytes.data, m->bytes.len, &m->header, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

static void unmake(struct made *m)
{
	shape_free(m->shaped);
	buf_deinit(&m->bytes);
}

/* What a receiver sees of a request: its samples; every id goes into ids. */
static uint64_t look(const struct shape_request *q, const struct shape_limits *limits,
	uint8_t (*ids)[16], size_t *n_ids)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf plain;
	uint64_t totals[PROFILE_TYPES];
	struct err_text err;

	buf_init(&plain, 0);
	if (limits->packing == SHAPE_GZIP)
		assert_int_equal(decompress_gzip(q->body, q->len, 1 << 28, &plain), 0);
	else if (limits->packing == SHAPE_ZSTD)
		assert_int_equal(decompress_zstd(q->body, q->len, 1 << 28, &plain), 0);
	else
		buf_add(&plain, q->body, q->len);
	assert_int_equal(plain.len, q->raw_len);
	if (limits->max_bytes)
		assert_true(plain.len <= limits->max_bytes);
	if (profile_decode(plain.data, plain.len, &b, &err) < 0)
		fail_msg("%s", err.text);
	batch_totals(b, totals);
	assert_int_equal(totals[0], q->samples[0]);
	assert_int_equal(batch_parts(b), q->n_profiles);
	for (size_t i = 0; i < batch_parts(b); i++) {
		const struct profile_part *p = batch_part_at(b, i);
		size_t n;
		const struct profile_resource_attribute *a = batch_resource_at(b, p->resource, &n);

		if (limits->max_samples)
			assert_true(p->n_samples <= limits->max_samples);
		for (size_t k = 0; k < n; k++)
			assert_false(text_starts(batch_string_at(b, a[k].key), "odi."));
		for (size_t k = 0; k < *n_ids; k++)
			assert_memory_not_equal(ids[k], p->id, 16);
		memcpy(ids[(*n_ids)++], p->id, 16);
	}
	return totals[0];
}

static void test_conserves(void **state)
{
	static uint8_t ids[4096][16];

	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct made m;

		make(&m, seed);
		for (size_t l = 0; l < ARRAY_SIZE(limit_sets); l++) {
			struct encoded *e = NULL;
			uint64_t sum = 0, row = 0, before[PROFILE_TYPES];
			size_t n_ids = 0;

			assert_int_equal(
				shape_encode(m.shaped, &m.header, &limit_sets[l], 0, &e), 0);
			for (size_t i = 0; i < e->n; i++) {
				const struct shape_request *q = &e->requests[i];

				assert_int_equal(q->first, row);
				assert_ptr_equal(encoded_at(e, row), q);
				encoded_before(e, row, before);
				assert_int_equal(before[0], sum);
				if (q->skipped)
					sum += q->away[0];
				else
					sum += look(q, &limit_sets[l], ids, &n_ids);
				row += q->rows + q->skipped;
			}
			assert_int_equal(row, shape_rows(m.shaped));
			assert_int_equal(sum, m.header.samples[0]);
			encoded_unref(e);
		}
		unmake(&m);
	}
}

/* A successor that goes on amid a batch makes the requests that its predecessor would have made. */
static void test_goes_on(void **state)
{
	struct made m, again;

	make(&m, 77);
	make(&again, 77);
	for (size_t l = 0; l < ARRAY_SIZE(limit_sets); l++) {
		struct encoded *all = NULL, *rest = NULL;
		uint64_t from, before[PROFILE_TYPES];

		assert_int_equal(shape_encode(m.shaped, &m.header, &limit_sets[l], 0, &all), 0);
		from = all->requests[all->n / 2].first;
		assert_int_equal(
			shape_encode(again.shaped, &again.header, &limit_sets[l], from, &rest), 0);
		for (size_t i = all->n / 2; i < all->n; i++) {
			const struct shape_request *a = &all->requests[i],
						   *b = encoded_at(rest, a->first);

			assert_non_null(b);
			assert_int_equal(a->len, b->len);
			if (a->len)
				assert_memory_equal(a->body, b->body, a->len);
		}
		encoded_before(all, from, before);
		assert_int_equal(rest->before[0], before[0]);
		encoded_unref(rest);
		/* From a row where none begins: other requests, the same samples. */
		rest = NULL;
		assert_int_equal(
			shape_encode(again.shaped, &again.header, &limit_sets[l], 5, &rest), 0);
		before[0] = rest->before[0];
		for (uint64_t row = 5; row < shape_rows(again.shaped);) {
			const struct shape_request *q = encoded_at(rest, row);

			assert_non_null(q);
			before[0] += q->samples[0] + q->away[0];
			row += q->rows + q->skipped;
		}
		assert_int_equal(before[0], again.header.samples[0]);
		encoded_unref(rest);
		encoded_unref(all);
	}
	unmake(&m);
	unmake(&again);
}

static void test_refuses(void **state)
{
	struct made m;
	struct shaped *s = NULL;
	struct err_text err = {};

	make(&m, 3);
	m.header.samples[0]++;
	assert_int_equal(
		shape_batch(&s, m.bytes.data, m.bytes.len, &m.header, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "its header says"));
	m.header.samples[0]--;
	m.header.samples[7] = 1;
	assert_int_equal(
		shape_batch(&s, m.bytes.data, m.bytes.len, &m.header, NULL, &err), -EBADMSG);
	m.header.samples[7] = 0;
	assert_true(shape_batch(&s, m.bytes.data, m.bytes.len - 1, &m.header, NULL, &err) < 0);
	assert_null(s);
	unmake(&m);
}

/* ---- the configuration's bytes ---- */

static void test_specs(void **state)
{
	struct option_value options[] = {{"url", "http://x"}, {"tenant", ""}};
	struct destination_spec spec = {7, "name", "pyroscope", options, 2}, *got = NULL;
	struct buf bytes;
	size_t n;

	buf_init(&bytes, 0);
	protocol_put_spec(&bytes, &spec);
	protocol_put_spec(&bytes, &spec);
	assert_int_equal(protocol_get_specs((char *)bytes.data, bytes.len, &got, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(got[1].id, 7);
	assert_string_equal(got[1].name, "name");
	assert_string_equal(got[1].options[0].value, "http://x");
	assert_string_equal(got[1].options[1].value, "");
	protocol_free_specs(got, n);
	/* Every cut is an error, but for the one between the two. */
	for (size_t len = 1; len < bytes.len; len++) {
		int r = protocol_get_specs((char *)bytes.data, len, &got, &n);

		assert_int_equal(r, len == bytes.len / 2 ? 0 : -EBADMSG);
		if (r == 0)
			protocol_free_specs(got, n);
	}
	bytes.data[5] = 0xff; /* options without end */
	assert_int_equal(protocol_get_specs((char *)bytes.data, bytes.len, &got, &n), -EBADMSG);
	buf_deinit(&bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conserves),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_specs),
	};

	return cmocka_run_group_tests_name("destinations/shape", tests, NULL, NULL);
}
