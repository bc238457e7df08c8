/* SPDX-License-Identifier: Apache-2.0 */

/* Rules: what they make of a batch, against a model that is written over texts; that nothing is lost on the way; that
 * a change of rules amid a batch, and batches that go out together, lose nothing either. */

#include "tests/unit/profile/fixture.h"

#include <math.h>

#include "agentd/base/text.h"
#include "destinations/shape.h"

static const struct shape_limits whole = {0}, small = {.max_bytes = 3000, .max_samples = 20};

/* ---- a batch as texts: one a sample, and its count ---- */

struct seen {
	char *key;
	uint64_t n;
};

struct texts {
	struct seen *at;
	size_t n;
};

static void note(struct texts *t, const char *key, uint64_t n)
{
	for (size_t i = 0; i < t->n; i++) {
		if (streq(t->at[i].key, key)) {
			t->at[i].n += n;
			return;
		}
	}
	t->at = reallocarray(t->at, t->n + 1, sizeof(*t->at));
	assert_non_null(t->at);
	t->at[t->n++] = (struct seen){strdup(key), n};
}

static void texts_free(struct texts *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->at[i].key);
	free(t->at);
	*t = (struct texts){0};
}

static void assert_same(const struct texts *want, const struct texts *got)
{
	assert_int_equal(want->n, got->n);
	for (size_t i = 0; i < want->n; i++) {
		size_t k = 0;

		while (k < got->n && !streq(got->at[k].key, want->at[i].key))
			k++;
		if (k == got->n)
			fail_msg("missing: %s", want->at[i].key);
		assert_int_equal(got->at[k].n, want->at[i].n);
	}
}

/* The rules of the test below, as the model has them. */
static const char *const model_rules[][2] = {
	{"attributes", "drop process.*; rename host.name=node; add env=prod; drop thread.id"},
	{"keep-sources", "nobody, source-1"},
	{"exclude", "function_1*; module:lib2.so"},
	{"kernel", "off"},
};

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, since the order of attributes means nothing. */
static void put_sorted(struct buf *out, char **list, size_t n)
{
	qsort(list, n, sizeof(*list), by_text);
	for (size_t i = 0; i < n; i++) {
		buf_printf(out, "%s,", list[i]);
		free(list[i]);
	}
}

static char *pair(const char *key, const char *value, bool is_int, int64_t number)
{
	char *s;

	if (is_int)
		assert_true(asprintf(&s, "%s=%lld", key, (long long)number) > 0);
	else
		assert_true(asprintf(&s, "%s=%s", key, value) > 0);
	return s;
}

/* false: not of the source that is kept. */
static bool put_resource(struct buf *out, const struct batch *b, uint32_t resource, bool model)
{
	size_t n, made = 0;
	const struct profile_resource_attribute *a = batch_resource_at(b, resource, &n);
	char *list[16];
	bool kept = !model;

	for (size_t i = 0; i < n; i++) {
		const char *key = batch_string_at(b, a[i].key),
			   *value = batch_string_at(b, a[i].value);

		if (streq(key, "odi.source")) {
			kept = kept || streq(value, "source-1");
			assert_true(model);
			continue;
		}
		if (model && text_starts(key, "process."))
			continue;
		list[made++] = pair(model && streq(key, "host.name") ? "node" : key, value,
			a[i].is_int, a[i].number);
	}
	if (model)
		list[made++] = strdup("env=prod");
	put_sorted(out, list, made);
	return kept;
}

static void put_attributes(
	struct buf *out, const struct batch *b, const struct profile_sample *s, bool model)
{
	char *list[4];
	size_t made = 0;

	for (size_t i = 0; i < 4 && s->attributes[i]; i++) {
		const struct profile_attribute *a = batch_attribute_at(b, s->attributes[i]);
		const char *key = batch_string_at(b, a->key);

		if (!model || !streq(key, "thread.id"))
			list[made++] =
				pair(key, batch_string_at(b, a->value), a->is_int, a->number);
	}
	buf_str(out, "|");
	put_sorted(out, list, made);
}

static void put_stack(struct buf *out, const struct batch *b, uint32_t stack, bool model)
{
	size_t n, frames = 0, kernels = 0;
	const uint32_t *at = batch_stack_at(b, stack, &n);

	buf_str(out, "|");
	for (size_t i = 0; i < n; i++) {
		const struct profile_location *l = batch_location_at(b, at[i]);
		const struct profile_line *lines = batch_lines(b, l);
		const char *module = batch_string_at(b, batch_mapping_at(b, l->mapping)->filename);
		bool any = false;

		kernels += l->frame_type == PROFILE_FRAME_KERNEL;
		if (model && (l->frame_type == PROFILE_FRAME_KERNEL || strstr(module, "/lib2.so")))
			continue;
		for (uint32_t k = 0; k < l->n_lines; k++) {
			const char *name =
				batch_string_at(b, batch_function_at(b, lines[k].function)->name);

			if (model && text_starts(name, "function_1"))
				continue;
			buf_printf(out, "%s%s:%u", any ? "/" : ";", name, lines[k].line);
			any = true;
		}
		if (any)
			buf_printf(out, "@%s+%llx", module, (unsigned long long)l->address);
		frames += any;
	}
	if (model && !frames)
		buf_printf(out, ";[%s]:0@+0", kernels == n ? "kernel" : "excluded");
}

/* Adds all of b. model: as the rules should make it. Returns what the model leaves out. */
static uint64_t put_batch(struct texts *t, const struct batch *b, bool model)
{
	uint64_t out = 0;

	for (size_t i = 0; i < batch_parts(b); i++) {
		const struct profile_part *p = batch_part_at(b, i);

		for (uint32_t k = 0; k < p->n_samples; k++) {
			_cleanup_buf_ struct buf key;

			buf_init(&key, 0);
			if (!put_resource(&key, b, p->resource, model)) {
				out += p->samples[k].value;
				continue;
			}
			put_attributes(&key, b, &p->samples[k], model);
			put_stack(&key, b, p->samples[k].stack, model);
			note(t, (char *)key.data, p->samples[k].value + p->samples[k].n_timestamps);
		}
	}
	return out;
}

/* ---- shaping ---- */

struct made {
	struct batch *batch;
	struct batch_header header;
	struct buf bytes;
};

static void make(struct made *m, uint64_t seed, uint64_t time_unix_ns)
{
	struct shape shape = small_shape;
	uint64_t totals[PROFILE_TYPES];

	shape.samples = 300;
	shape.stacks = 60;
	if (time_unix_ns)
		shape.time_unix_ns = time_unix_ns;
	*m = (struct made){.batch = random_batch(seed, &shape), .header.serial = seed};
	batch_totals(m->batch, totals);
	m->header.samples[0] = totals[0];
	buf_init(&m->bytes, 0);
	assert_int_equal(profile_encode(m->batch, &m->header, NULL, 0, &m->bytes), 0);
}

static void unmake(struct made *m)
{
	batch_free(m->batch);
	buf_deinit(&m->bytes);
}

static struct shape_rules *rules_of(const char *const (*list)[2], size_t n)
{
	struct option_value options[8];
	struct shape_rules *rules = NULL;
	struct err_text err = {};

	for (size_t i = 0; i < n; i++)
		options[i] = (struct option_value){list[i][0], list[i][1]};
	if (shape_rules_new(&rules, options, n, false, &err) < 0)
		fail_msg("%s", err.text);
	return rules;
}

static struct shaped *shape_it(const struct made *m, size_t n, struct shape_rules *rules)
{
	struct shape_batch list[8];
	struct shaped *s = NULL;
	struct err_text err = {};

	for (size_t i = 0; i < n; i++)
		list[i] = (struct shape_batch){m[i].bytes.data, m[i].bytes.len, &m[i].header};
	if (shape_batches(&s, list, n, rules, &err) < 0)
		fail_msg("%s", err.text);
	return s;
}

/* Sends rows from `row` on, `requests` of them at most; what a receiver has then. Returns the next row. */
static uint64_t send(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, uint64_t row, size_t requests, struct texts *t,
	uint64_t *sent, uint64_t *away)
{
	struct encoded *e = NULL;

	assert_int_equal(shape_encode(s, header, limits, row, &e), 0);
	for (; requests && row < shape_rows(s); requests--) {
		const struct shape_request *q = encoded_at(e, row);
		CLEANUP(batch_freep) struct batch *b = NULL;
		uint64_t shares[2] = {0}, rows = 0;
		struct err_text err;

		assert_non_null(q);
		for (size_t i = 0; i < q->n_shares; i++) {
			shares[0] += q->shares[i].samples[0];
			shares[1] += q->shares[i].away[0];
			rows += q->shares[i].rows;
		}
		assert_int_equal(shares[0], q->samples[0]);
		assert_int_equal(shares[1], q->away[0]);
		assert_int_equal(rows, q->rows + q->skipped);
		*sent += q->samples[0];
		*away += q->away[0];
		row += rows;
		if (!q->rows) {
			assert_int_equal(q->samples[0], 0);
			continue;
		}
		if (profile_decode(q->body, q->len, &b, &err) < 0)
			fail_msg("%s", err.text);
		put_batch(t, b, false);
	}
	encoded_unref(e);
	return row;
}

static void test_model(void **state)
{
	const struct shape_limits *limits[] = {&whole, &small};

	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct shape_rules *rules = rules_of(model_rules, ARRAY_SIZE(model_rules));
		struct texts want = {0};
		struct made m;
		uint64_t out;

		make(&m, seed, 0);
		out = put_batch(&want, m.batch, true);
		assert_true(out > 0 && want.n > 5);
		for (size_t l = 0; l < ARRAY_SIZE(limits); l++) {
			struct shaped *s = shape_it(&m, 1, rules);
			struct texts got = {0};
			uint64_t sent = 0, away = 0;

			send(s, &m.header, limits[l], 0, SIZE_MAX, &got, &sent, &away);
			assert_same(&want, &got);
			assert_int_equal(away, out);
			assert_int_equal(sent + away, m.header.samples[0]);
			texts_free(&got);
			shape_free(s);
		}
		texts_free(&want);
		unmake(&m);
		shape_rules_unref(rules);
	}
}

static void test_minimum(void **state)
{
	static const char *const rule[][2] = {{"min-samples", "9"}};
	struct shape_rules *rules = rules_of(rule, 1);
	struct texts all = {0}, got = {0};
	uint64_t sent = 0, away = 0, want = 0;
	struct shaped *s, *plain;
	struct made m;

	make(&m, 5, 0);
	plain = shape_it(&m, 1, NULL);
	send(plain, &m.header, &whole, 0, SIZE_MAX, &all, &sent, &away);
	assert_int_equal(away, 0);
	sent = 0;
	s = shape_it(&m, 1, rules);
	send(s, &m.header, &small, 0, SIZE_MAX, &got, &sent, &away);
	for (size_t i = 0; i < all.n; i++)
		want += all.at[i].n >= 9 ? all.at[i].n : 0;
	assert_true(want > 0 && away > 0);
	assert_int_equal(sent, want);
	assert_int_equal(sent + away, m.header.samples[0]);
	texts_free(&all);
	texts_free(&got);
	shape_free(plain);
	shape_free(s);
	shape_rules_unref(rules);
	unmake(&m);
}

/* One of 7: no stack is off by more than one, the sum over many batches is right, and the period says so. */
static void test_sample(void **state)
{
	static const char *const rule[][2] = {{"sample", "7"}};
	struct shape_rules *rules = rules_of(rule, 1);
	struct texts all = {0};
	struct made m;
	struct shaped *plain;
	uint64_t total = 0, unused[2] = {0};
	double error = 0, rare_want = 0, rare_got = 0;

	make(&m, 9, 0);
	plain = shape_it(&m, 1, NULL);
	send(plain, &m.header, &whole, 0, SIZE_MAX, &all, &unused[0], &unused[1]);
	shape_free(plain);
	for (uint64_t serial = 1; serial <= 60; serial++) {
		struct texts got = {0};
		uint64_t sent = 0, away = 0, again = 0;
		struct shaped *s, *twice;

		m.header.serial = serial;
		s = shape_it(&m, 1, rules);
		twice = shape_it(&m, 1, rules);
		send(s, &m.header, &whole, 0, SIZE_MAX, &got, &sent, &away);
		assert_int_equal(sent + away, m.header.samples[0]);
		/* The same for everybody, however it is cut. */
		texts_free(&got);
		away = 0;
		send(twice, &m.header, &small, 0, SIZE_MAX, &got, &again, &away);
		assert_int_equal(sent, again);
		total += sent;
		for (size_t i = 0; i < got.n; i++) {
			size_t k = 0;

			while (!streq(all.at[k].key, got.at[i].key))
				k++;
			error = MAX(error, fabs((double)got.at[i].n * 7 - (double)all.at[k].n));
			if (all.at[k].n < 7)
				rare_got += (double)got.at[i].n * 7;
		}
		texts_free(&got);
		shape_free(s);
		shape_free(twice);
	}
	for (size_t i = 0; i < all.n; i++)
		rare_want += all.at[i].n < 7 ? 60 * (double)all.at[i].n : 0;
	assert_true(error < 7);
	assert_true(fabs((double)total * 7 / 60 / (double)m.header.samples[0] - 1) < 0.03);
	assert_true(rare_want > 0 && fabs(rare_got / rare_want - 1) < 0.1);
	texts_free(&all);
	shape_rules_unref(rules);
	unmake(&m);
}

static void test_sample_period(void **state)
{
	static const char *const rule[][2] = {{"sample", "7"}};
	struct shape_rules *rules = rules_of(rule, 1);
	struct encoded *e = NULL;
	struct batch *b = NULL;
	struct err_text err;
	struct shaped *s;
	struct made m;

	make(&m, 9, 0);
	s = shape_it(&m, 1, rules);
	assert_int_equal(shape_encode(s, &m.header, &whole, 0, &e), 0);
	assert_int_equal(profile_decode(e->requests[0].body, e->requests[0].len, &b, &err), 0);
	for (size_t i = 0; i < batch_parts(b); i++)
		assert_int_equal(batch_part_at(b, i)->period, 7 * (NSEC_PER_SEC / 99));
	batch_free(b);
	encoded_unref(e);
	shape_free(s);
	shape_rules_unref(rules);
	unmake(&m);
}

/* Other rules and other limits from any row on: what was sent and what was not add up to what there was. */
static void test_change(void **state)
{
	static const char *const first[][2] = {{"exclude", "function_1*"}, {"sample", "3"}};
	struct shape_rules *a = rules_of(first, 2),
			   *b = rules_of(model_rules, ARRAY_SIZE(model_rules));

	for (size_t requests = 1; requests < 12; requests++) {
		struct shaped *before, *after;
		struct texts got = {0};
		struct encoded *e = NULL;
		uint64_t sent = 0, away = 0, settled[PROFILE_TYPES], row;
		struct made m;

		make(&m, 20 + requests, 0);
		before = shape_it(&m, 1, a);
		after = shape_it(&m, 1, b);
		row = send(before, &m.header, &small, 0, requests, &got, &sent, &away);
		/* What agentd was told so far is what a successor finds, whatever its rules. */
		assert_int_equal(shape_encode(after, &m.header, &whole, row, &e), 0);
		encoded_before(e, row, settled);
		assert_int_equal(settled[0], sent + away);
		row = send(after, &m.header, &whole, row, SIZE_MAX, &got, &sent, &away);
		assert_int_equal(row, shape_rows(before));
		assert_int_equal(sent + away, m.header.samples[0]);
		encoded_unref(e);
		texts_free(&got);
		shape_free(before);
		shape_free(after);
		unmake(&m);
	}
	shape_rules_unref(a);
	shape_rules_unref(b);
}

/* Three batches as one: the sums of each stack, one profile for each resource over all the time, and each batch's
 * share of a request. */
static void test_together(void **state)
{
	struct texts want = {0}, got = {0};
	uint64_t sent = 0, away = 0, rows[3] = {0}, samples[3] = {0};
	struct encoded *e = NULL;
	struct batch *b = NULL;
	struct err_text err = {};
	struct made m[3];
	struct shaped *s, *same = NULL;
	struct shape_batch twice[2];

	for (size_t i = 0; i < 3; i++) {
		struct shaped *alone;

		make(&m[i], 40 + i, (1700000000 + 10 * i) * NSEC_PER_SEC);
		alone = shape_it(&m[i], 1, NULL);
		send(alone, &m[i].header, &whole, 0, SIZE_MAX, &want, &sent, &away);
		rows[i] = shape_rows(alone);
		shape_free(alone);
	}
	s = shape_it(m, 3, NULL);
	assert_int_equal(shape_rows(s), rows[0] + rows[1] + rows[2]);
	assert_int_equal(shape_encode(s, &m[0].header, &small, 0, &e), 0);
	for (size_t i = 0; i < e->n; i++)
		for (size_t k = 0; k < 3; k++) {
			rows[k] -= e->requests[i].shares[k].rows;
			samples[k] += e->requests[i].shares[k].samples[0];
		}
	for (size_t k = 0; k < 3; k++) {
		assert_int_equal(rows[k], 0);
		assert_int_equal(samples[k], m[k].header.samples[0]);
	}
	encoded_unref(e);
	sent = 0;
	send(s, &m[0].header, &small, 0, SIZE_MAX, &got, &sent, &away);
	assert_same(&want, &got);
	e = NULL;
	assert_int_equal(shape_encode(s, &m[0].header, &whole, 0, &e), 0);
	assert_int_equal(e->n, 1);
	assert_int_equal(profile_decode(e->requests[0].body, e->requests[0].len, &b, &err), 0);
	/* 3 services, of 2 sources that do not go out. */
	assert_int_equal(batch_parts(b), 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(batch_part_at(b, i)->time_unix_ns, 1700000000 * NSEC_PER_SEC);
		assert_int_equal(batch_part_at(b, i)->duration_ns, 30 * NSEC_PER_SEC);
	}
	twice[0] = twice[1] = (struct shape_batch){m[0].bytes.data, m[0].bytes.len, &m[0].header};
	assert_int_equal(shape_batches(&same, twice, 2, NULL, &err), -ENOTSUP);
	batch_free(b);
	encoded_unref(e);
	shape_free(s);
	texts_free(&want);
	texts_free(&got);
	for (size_t i = 0; i < 3; i++)
		unmake(&m[i]);
}

/* The first `with` rules, times kept; 3: no rules, and none kept. */
static struct shape_rules *timed_rules(const char *const (*list)[2], size_t with)
{
	struct option_value options[2];
	struct shape_rules *rules = NULL;
	struct err_text err;

	for (size_t i = 0; i < 2; i++)
		options[i] = (struct option_value){list[i][0], list[i][1]};
	assert_int_equal(shape_rules_new(&rules, options, with % 3, with < 3, &err), 0);
	return rules;
}

/* Points in time stay what they are, each once, also where stacks become one and where they are thinned. */
static void test_timestamps(void **state)
{
	static const char *const rules_text[][2] = {{"exclude", "leaf*"}, {"sample", "4"}};

	for (size_t with = 0; with < 4; with++) {
		struct shape_rules *rules = timed_rules(rules_text, with);
		struct batch *b = NULL, *got = NULL;
		struct profile_part *p = NULL;
		struct batch_header header = {.serial = 3, .samples = {90}};
		struct shape_batch one;
		struct encoded *e = NULL;
		struct shaped *s = NULL;
		struct err_text err = {};
		struct buf bytes;
		uint64_t seen[90] = {0}, n = 0;
		uint32_t service;

		assert_int_equal(batch_new(&b), 0);
		service = random_resource(b, &small_shape, 0);
		assert_int_equal(batch_part(b, service, 0, 1000, 5000, 1000, &p), 0);
		for (unsigned i = 0; i < 30; i++) {
			struct profile_function f = {.name = text(b, "leaf_%u", i)},
						root = {.name = text(b, "root", 0)};
			struct profile_line line = {(uint32_t)batch_function(b, &f), 1},
					    root_line = {(uint32_t)batch_function(b, &root), 1};
			struct profile_location l = {.n_lines = 1, .address = 16 + i};
			uint32_t frames[2] = {(uint32_t)batch_location(b, &l, &line)};
			const uint64_t times[3] = {5000 + i, 5030 + i, 5060 + i};

			l.address = 8;
			frames[1] = (uint32_t)batch_location(b, &l, &root_line);
			assert_int_equal(
				batch_add_timestamps(b, p, (uint32_t)batch_stack(b, frames, 2),
					(const uint32_t[4]){0}, times, 3),
				0);
		}
		buf_init(&bytes, 0);
		assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
		one = (struct shape_batch){bytes.data, bytes.len, &header};
		assert_int_equal(shape_batches(&s, &one, 1, rules, &err), 0);
		assert_int_equal(shape_encode(s, &header, &whole, 0, &e), 0);
		assert_int_equal(
			profile_decode(e->requests[0].body, e->requests[0].len, &got, &err), 0);
		p = batch_part_at(got, 0);
		assert_int_equal(p->n_samples, with % 3 ? 1 : 30);
		if (with == 3) { /* for a backend that wants none: counts */
			for (uint32_t i = 0; i < p->n_samples; i++)
				assert_int_equal(p->samples[i].value, 3);
			n = p->total;
			p->n_samples = 0;
		}
		for (uint32_t i = 0; i < p->n_samples; i++) {
			const uint64_t *times = batch_timestamps(got, &p->samples[i]);

			assert_int_equal(p->samples[i].value, 0);
			for (uint32_t k = 0; k < p->samples[i].n_timestamps; k++, n++)
				assert_int_equal(seen[times[k] - 5000]++, 0);
		}
		assert_int_equal(n, e->requests[0].samples[0]);
		if (with != 2)
			assert_int_equal(n, 90);
		else
			assert_in_range(n, 22, 23);
		batch_free(got);
		batch_free(b);
		encoded_unref(e);
		shape_free(s);
		buf_deinit(&bytes);
		shape_rules_unref(rules);
	}
}

static void test_words(void **state)
{
	static const struct {
		const char *name, *value, *says;
	} wrong[] = {
		{"attributes", "remove x", "none of add KEY=VALUE"},
		{"attributes", "add x", "none of add KEY=VALUE"},
		{"attributes", "add x=", "none of add KEY=VALUE"},
		{"attributes", "drop", "none of add KEY=VALUE"},
		{"attributes", "add service_name=x", "service"},
		{"attributes", "rename a=odi.source", "odi."},
		{"keep-sources", "-x", "cannot be the name of a source"},
		{"exclude", "module:", "has no pattern"},
		{"kernel", "perhaps", "kernel"},
		{"sample", "0", "sample"},
		{"sample", "x", "sample"},
		{"upload-interval", "2d", "upload-interval"},
		{"min-samples", "-1", "min-samples"},
	};
	static const char *const same[][2] = {
		{"exclude", "a*;module:b"}, {"exclude", " function:a* ;; module:b "}};
	struct shape_rules *rules = NULL, *a = rules_of(&same[0], 1), *b = rules_of(&same[1], 1);
	struct option_value none[] = {{"kernel", "on"}, {"sample", "1"}, {"exclude", "none"},
		{"attributes", ""}, {"url", "http://x"}, {"min-samples", "0"},
		{"upload-interval", "0s"}, {"keep-sources", "none"}};
	struct err_text err;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		err.text[0] = 0;
		assert_int_equal(shape_rules_check(wrong[i].name, wrong[i].value, &err), -EINVAL);
		if (!strstr(err.text, wrong[i].says))
			fail_msg("%s=%s: %s", wrong[i].name, wrong[i].value, err.text);
	}
	assert_int_equal(shape_rules_new(&rules, none, ARRAY_SIZE(none), false, &err), 0);
	assert_null(rules);
	assert_true(shape_rules_equal(a, b));
	assert_false(shape_rules_equal(a, NULL));
	shape_rules_unref(b);
	b = rules_of((const char *const[][2]){{"upload-interval", "1m"}}, 1);
	assert_int_equal(b->upload_interval_ns, 60 * NSEC_PER_SEC);
	assert_true(shape_rules_equal(b, NULL));
	assert_int_equal(shape_rules_check("attributes", "add service.name=shop", &err), 0);
	shape_rules_unref(a);
	shape_rules_unref(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_minimum),
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_sample_period),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_together),
		cmocka_unit_test(test_timestamps),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests_name("destinations/shape_rules", tests, NULL, NULL);
}
