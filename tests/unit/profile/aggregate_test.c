/* SPDX-License-Identifier: Apache-2.0 */

/* The open interval: equal samples add up, different ones do not, nothing is lost at its bounds,
 * and the batch says what was put in. */

#include "tests/unit/profile/fixture.h"
#include "agentd/profile/aggregate.h"

static const struct aggregate_resource_attribute web[] = {
	{"host.name", "h", false}, {"process.pid", "12", true}, {"service.name", "web", false}};
static const struct aggregate_resource_attribute db[] = {{"service.name", "db", false}};

static struct sample_frame frame(uint8_t kind, uint32_t file, uint64_t offset)
{
	return (struct sample_frame){.kind = kind, .file = file, .offset = offset};
}

static struct aggregate_sample sample_of(const struct sample_frame *frames, size_t n)
{
	return (struct aggregate_sample){.period = 10,
		.count = 1,
		.frames = frames,
		.n_frames = n,
		.thread_id = -1,
		.cpu = -1};
}

struct located {
	unsigned calls;
	bool empty; /* answers nothing */
};

static void locate(void *userdata, const struct sample_frame *f, struct aggregate_location *ret)
{
	static char names[2][64];
	static struct aggregate_name chain[2];
	struct located *l = userdata;

	l->calls++;
	if (l->empty)
		return;
	snprintf(names[0], sizeof(names[0]), "inner_%u_%llx", f->file,
		(unsigned long long)f->offset);
	snprintf(names[1], sizeof(names[1]), "outer_%u_%llx", f->file,
		(unsigned long long)f->offset);
	chain[0] = (struct aggregate_name){names[0], "_Zinner", "a.c", 5, 1};
	chain[1] = (struct aggregate_name){names[1], NULL, NULL, 9, 2};
	*ret = (struct aggregate_location){.chain = chain,
		.n = 2,
		.address = f->offset,
		.map_start = 0x1000,
		.map_limit = 0x2000,
		.map_file = "/bin/x",
		.build_id = "abcd",
		.go_build_id = "",
		.htlhash = "ef",
		.type = f->kind == FRAME_KERNEL ? PROFILE_FRAME_KERNEL : PROFILE_FRAME_NATIVE};
}

static void test_adds_up(void **state)
{
	CLEANUP(aggregate_freep) struct aggregate *a = NULL;
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct sample_frame frames[] = {frame(FRAME_KERNEL, 1, 0x10), frame(FRAME_NATIVE, 2, 0x20),
		frame(FRAME_NATIVE, 2, 0x30)};
	struct aggregate_sample s = sample_of(frames, 3);
	struct located l = {0};
	uint64_t totals[PROFILE_TYPES];
	const uint32_t *stack;
	const struct profile_location *loc;
	size_t n;

	assert_int_equal(aggregate_new(&a, 0), 0);
	s.resource = (uint32_t)aggregate_resource(a, web, 3);
	assert_int_equal(aggregate_resource(a, web, 3), s.resource);
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.count = 4;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.resource = (uint32_t)aggregate_resource(a, db, 1);
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.period = 20; /* a part of its own */
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.thread_name = "worker";
	s.thread_id = 7;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.n_frames = 1;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_samples(a), 1 + 4 + 4 + 4 + 4 + 4);
	assert_int_equal(aggregate_stacks(a), 2);
	assert_int_equal(aggregate_build(a, 1000, 3000, locate, &l, &b), 0);
	assert_int_equal(l.calls, 3); /* each frame once */
	assert_int_equal(batch_parts(b), 3);
	batch_totals(b, totals);
	assert_int_equal(totals[0], 21);
	assert_int_equal(batch_part_at(b, 0)->n_samples, 1);
	assert_int_equal(batch_part_at(b, 0)->samples[0].value, 5);
	assert_int_equal(batch_part_at(b, 0)->time_unix_ns, 1000);
	assert_int_equal(batch_part_at(b, 0)->duration_ns, 2000);
	assert_int_equal(batch_part_at(b, 2)->n_samples, 3);
	stack = batch_stack_at(b, batch_part_at(b, 0)->samples[0].stack, &n);
	assert_int_equal(n, 3);
	loc = batch_location_at(b, stack[0]);
	assert_int_equal(loc->frame_type, PROFILE_FRAME_KERNEL);
	assert_int_equal(loc->n_lines, 2);
	assert_string_equal(
		batch_string_at(b, batch_function_at(b, batch_lines(b, loc)[0].function)->name),
		"inner_1_10");
	assert_string_equal(
		batch_string_at(b, batch_function_at(b, batch_lines(b, loc)[1].function)->name),
		"outer_1_10");
	assert_string_equal(batch_string_at(b, batch_mapping_at(b, loc->mapping)->htlhash), "ef");
	/* the interval stays open */
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_samples(a), 25);
}

static void test_epoch_only_outside_of_files(void **state)
{
	CLEANUP(aggregate_freep) struct aggregate *a = NULL;
	struct sample_frame in_file = frame(FRAME_NATIVE, 3, 0x10),
			    outside = frame(FRAME_NATIVE, 0, 0x10);
	struct aggregate_sample s = sample_of(&in_file, 1);

	assert_int_equal(aggregate_new(&a, 0), 0);
	s.resource = (uint32_t)aggregate_resource(a, db, 1);
	s.epoch = 1;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.epoch = 2;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_stacks(a), 1);
	s.frames = &outside;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_stacks(a), 2);
	s.epoch = 1;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_stacks(a), 3);
}

/* Counts that come later: to the slot, of another stack, and after the interval was closed. */
static void test_counts_after_the_sample(void **state)
{
	CLEANUP(aggregate_freep) struct aggregate *a = NULL, *next = NULL;
	CLEANUP(batch_freep) struct batch *b = NULL, *c = NULL;
	struct sample_frame frames[] = {frame(FRAME_NATIVE, 2, 0x20), frame(FRAME_NATIVE, 0, 0x30)};
	struct sample_frame marker = frame(FRAME_MARKER, 0, MARKER_LOST);
	struct aggregate_sample s = sample_of(frames, 2);
	struct located l = {0};
	const struct profile_part *part;
	uint32_t slot = 77, lost = 77, carried = 77, again = 77;
	size_t n;

	assert_int_equal(aggregate_new(&a, 0), 0);
	assert_int_equal(aggregate_new(&next, 0), 0);
	s.resource = (uint32_t)aggregate_resource(a, web, 3);
	s.thread_name = "worker";
	s.thread_id = 7;
	s.epoch = 5;
	assert_int_equal(aggregate_add(a, &s, &slot), 0);
	aggregate_count(a, slot, 9);
	assert_int_equal(aggregate_restack(a, slot, &marker, 1, &lost), 0);
	assert_int_not_equal(lost, slot);
	assert_int_equal(aggregate_samples(a), 10);
	aggregate_count(a, lost, 2);
	assert_int_equal(aggregate_samples(a), 12);
	assert_int_equal(aggregate_build(a, 0, 1, locate, &l, &b), 0);
	assert_int_equal(batch_parts(b), 1);
	part = batch_part_at(b, 0);
	assert_int_equal(part->n_samples, 2);
	assert_int_equal(part->samples[0].value, 10);
	assert_int_equal(part->samples[1].value, 2);
	/* the same thread, another stack */
	assert_memory_equal(part->samples[0].attributes, part->samples[1].attributes,
		sizeof(part->samples[0].attributes));
	batch_stack_at(b, part->samples[1].stack, &n);
	assert_int_equal(n, 1);

	aggregate_resource(next, db, 1); /* positions are not those of before */
	assert_int_equal(aggregate_carry(next, a, slot, &carried), 0);
	assert_int_equal(aggregate_samples(next), 0);
	assert_int_equal(aggregate_build(next, 0, 1, locate, &l, &c), 0);
	assert_int_equal(batch_parts(c), 0);
	c = batch_free(c);
	aggregate_count(next, carried, 3);
	s.resource = (uint32_t)aggregate_resource(next, web, 3);
	assert_int_equal(aggregate_add(next, &s, &again), 0);
	assert_int_equal(again, carried);
	assert_int_equal(aggregate_samples(next), 4);
	assert_int_equal(aggregate_build(next, 0, 1, locate, &l, &c), 0);
	assert_int_equal(batch_parts(c), 1);
	assert_int_equal(batch_part_at(c, 0)->samples[0].value, 4);
	assert_int_equal(aggregate_carry(next, a, 99, &carried), -EINVAL);
	assert_int_equal(aggregate_restack(a, 99, &marker, 1, &lost), -EINVAL);
}

static void test_bounds(void **state)
{
	CLEANUP(aggregate_freep) struct aggregate *a = NULL;
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct located l = {.empty = true};
	uint64_t taken = 0, totals[PROFILE_TYPES];
	struct aggregate_sample s;
	bool asked = false;

	assert_int_equal(aggregate_new(&a, 100), 0);
	for (unsigned i = 0; i < 1000; i++) {
		struct sample_frame f = frame(FRAME_NATIVE, 1, i);
		int r;

		s = sample_of(&f, 1);
		s.resource = (uint32_t)aggregate_resource(a, db, 1);
		r = aggregate_add(a, &s, NULL);
		assert_true(r == (i + 1 < 100 ? 0 : i < 200 ? 1 : -ENOBUFS));
		asked |= r == 1;
		taken += r >= 0;
	}
	assert_true(asked);
	assert_int_equal(aggregate_samples(a), taken);
	/* a locate() that knows nothing still gives every frame a name */
	assert_int_equal(aggregate_build(a, 5, 4, locate, &l, &b), 0);
	batch_totals(b, totals);
	assert_int_equal(totals[0], taken);
	assert_int_equal(batch_part_at(b, 0)->duration_ns, 0);
	for (uint32_t i = 1; i < batch_locations(b); i++)
		assert_true(batch_function_at(b, batch_lines(b, batch_location_at(b, i))->function)
				    ->name > 0);
	s.resource = 77;
	assert_int_equal(aggregate_add(a, &s, NULL), -EINVAL);
	s.resource = 0;
	s.type = PROFILE_TYPES;
	assert_int_equal(aggregate_add(a, &s, NULL), -EINVAL);
}

/* Random samples against a plain table. */
static void test_random_samples(void **state)
{
	CLEANUP(aggregate_freep) struct aggregate *a = NULL;
	CLEANUP(batch_freep) struct batch *b = NULL;
	static uint64_t plain[2][50][4];
	struct located l = {0};
	uint64_t seed = 99, seen = 0;

	assert_int_equal(aggregate_new(&a, 0), 0);
	for (unsigned i = 0; i < 20000; i++) {
		unsigned service = below(&seed, 2), stack = below(&seed, 50),
			 thread = below(&seed, 4);
		struct sample_frame f[50];
		struct aggregate_sample s = sample_of(f, stack + 1);

		for (unsigned k = 0; k <= stack; k++)
			f[k] = frame(FRAME_NATIVE, 1, k * 16);
		s.resource = (uint32_t)(service ? aggregate_resource(a, web, 3)
						: aggregate_resource(a, db, 1));
		s.thread_id = thread;
		s.count = 1 + below(&seed, 3);
		plain[service][stack][thread] += s.count;
		assert_int_equal(aggregate_add(a, &s, NULL), 0);
	}
	assert_int_equal(aggregate_build(a, 1, 2, locate, &l, &b), 0);
	for (size_t p = 0; p < batch_parts(b); p++) {
		const struct profile_part *part = batch_part_at(b, p);
		size_t n;

		batch_resource_at(b, part->resource, &n);
		for (uint32_t i = 0; i < part->n_samples; i++) {
			const struct profile_sample *s = &part->samples[i];
			size_t depth;

			batch_stack_at(b, s->stack, &depth);
			assert_int_equal(s->value,
				plain[n == 3][depth - 1]
				     [batch_attribute_at(b, s->attributes[0])->number]);
			seen += s->value;
		}
	}
	assert_int_equal(seen, aggregate_samples(a));
}

/* Timed samples come out as their times; what has none, or one outside the interval, is counted beside them. */
static void test_timed(void **state)
{
	const struct sample_frame a_frame = frame(FRAME_NATIVE, 1, 10),
				  b_frame = frame(FRAME_NATIVE, 1, 20);
	struct aggregate_sample s = sample_of(&a_frame, 1), t = sample_of(&b_frame, 1);
	struct located l = {0};
	struct aggregate *a = NULL;
	struct batch *b = NULL;
	uint32_t slot = 0;
	uint64_t totals[PROFILE_TYPES], seen = 0;

	assert_int_equal(aggregate_new(&a, 0), 0);
	s.resource = t.resource = (uint32_t)aggregate_resource(a, web, ARRAY_SIZE(web));
	s.timed = t.timed = true;
	for (uint64_t time = 1000; time < 1005; time++) {
		s.time_unix_ns = time;
		t.time_unix_ns = time + 50;
		assert_int_equal(aggregate_add(a, &t, NULL), 0);
		assert_int_equal(aggregate_add(a, &s, &slot), 0);
	}
	s.time_unix_ns = 999; /* of the interval before */
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	aggregate_count(a, slot, 7);
	s.timed = false;
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	s.resource = (uint32_t)aggregate_resource(a, db, ARRAY_SIZE(db));
	assert_int_equal(aggregate_add(a, &s, NULL), 0);
	assert_int_equal(aggregate_build(a, 1000, 2000, locate, &l, &b), 0);
	batch_totals(b, totals);
	assert_int_equal(totals[0], 20);
	assert_int_equal(totals[0], aggregate_samples(a));
	assert_int_equal(batch_parts(b), 3);
	for (size_t i = 0; i < 3; i++) {
		const struct profile_part *p = batch_part_at(b, i);

		for (uint32_t k = 0; k < p->n_samples; k++) {
			const uint64_t *times = batch_timestamps(b, &p->samples[k]);

			assert_true(!p->samples[k].value == !!p->samples[k].n_timestamps);
			for (uint32_t n = 0; n < p->samples[k].n_timestamps; n++)
				seen += times[n];
			if (p->samples[k].n_timestamps)
				assert_int_equal(p->duration_ns, 1000);
		}
	}
	assert_int_equal(seen, 2 * (1000 + 1001 + 1002 + 1003 + 1004) + 5 * 50);
	batch_free(b);
	/* No time at all: nothing can lie within it. */
	b = NULL;
	assert_int_equal(aggregate_build(a, 1000, 1000, locate, &l, &b), 0);
	batch_totals(b, totals);
	assert_int_equal(totals[0], 20);
	batch_free(b);
	aggregate_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timed),
		cmocka_unit_test(test_adds_up),
		cmocka_unit_test(test_epoch_only_outside_of_files),
		cmocka_unit_test(test_counts_after_the_sample),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_random_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
