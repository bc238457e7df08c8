/* SPDX-License-Identifier: Apache-2.0 */

/* The batch and its codec: what comes back is what went in, the bytes obey the rules of
 * receivers for any selection of parts, and bytes that were tampered with are refused or
 * harmless. */

#include "tests/unit/profile/fixture.h"
#include "agentd/wire/otlp.pb-c.h"

/* ---- what a batch says, as text: independent of the order of its tables ---- */

static void say_sample(const struct batch *b, const struct profile_part *p,
	const struct profile_sample *s, struct buf *out)
{
	const struct profile_resource_attribute *ra;
	const uint32_t *stack;
	size_t n;

	buf_printf(out, "%s %llu %llu %llu |", profile_types[p->type].name,
		(unsigned long long)p->period, (unsigned long long)p->time_unix_ns,
		(unsigned long long)p->duration_ns);
	ra = batch_resource_at(b, p->resource, &n);
	for (size_t i = 0; i < n; i++)
		buf_printf(out, " %s=%s/%lld", batch_string_at(b, ra[i].key),
			ra[i].is_int ? "" : batch_string_at(b, ra[i].value),
			(long long)ra[i].number);
	/* a set: by key, whatever the order of indices */
	for (const char *const *key = (const char *const[]){"thread.name", "thread.id", NULL}; *key;
		key++)
		for (size_t i = 0; i < 4 && s->attributes[i]; i++) {
			const struct profile_attribute *a = batch_attribute_at(b, s->attributes[i]);

			if (streq(batch_string_at(b, a->key), *key))
				buf_printf(out, " %s:%s/%lld", *key,
					a->is_int ? "" : batch_string_at(b, a->value),
					(long long)a->number);
		}
	stack = batch_stack_at(b, s->stack, &n);
	for (size_t i = 0; i < n; i++) {
		const struct profile_location *l = batch_location_at(b, stack[i]);
		const struct profile_mapping *m = batch_mapping_at(b, l->mapping);

		buf_printf(out,
			" <%llx %u %d %s %s %s %s %llx %llx %llx:", (unsigned long long)l->address,
			l->frame_type, l->approximate, batch_string_at(b, m->filename),
			batch_string_at(b, m->build_id), batch_string_at(b, m->go_build_id),
			batch_string_at(b, m->htlhash), (unsigned long long)m->start,
			(unsigned long long)m->limit, (unsigned long long)m->file_offset);
		for (uint32_t k = 0; k < l->n_lines; k++) {
			const struct profile_line *line = &batch_lines(b, l)[k];
			const struct profile_function *f = batch_function_at(b, line->function);

			buf_printf(out, " %s,%s,%s,%u,%u", batch_string_at(b, f->name),
				batch_string_at(b, f->system_name), batch_string_at(b, f->filename),
				f->start_line, line->line);
		}
	}
	buf_printf(out, "> = %llu", (unsigned long long)s->value);
	for (uint32_t i = 0; i < s->n_timestamps; i++)
		buf_printf(out, " @%llu", (unsigned long long)batch_timestamps(b, s)[i]);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All samples, sorted, one a line. */
static char *say(const struct batch *b, const uint32_t *parts, size_t n_parts)
{
	size_t n = 0, room = 0;
	char **lines = NULL;
	struct buf all;

	for (size_t p = 0; p < (parts ? n_parts : batch_parts(b)); p++) {
		const struct profile_part *part = batch_part_at(b, parts ? parts[p] : p);

		for (uint32_t s = 0; s < part->n_samples; s++) {
			struct buf line;

			buf_init(&line, 0);
			say_sample(b, part, &part->samples[s], &line);
			if (n == room) {
				room = room * 2 + 16;
				lines = realloc(lines, room * sizeof(*lines));
			}
			lines[n++] = buf_take_str(&line);
		}
	}
	if (n)
		qsort(lines, n, sizeof(*lines), by_text);
	buf_init(&all, 0);
	for (size_t i = 0; i < n; i++) {
		buf_printf(&all, "%s\n", lines[i]);
		free(lines[i]);
	}
	free(lines);
	return buf_take_str(&all);
}

static const struct batch_header header = {.boot_id = {1, 2, 3}, .serial = 42};

static struct batch *decode(const struct buf *bytes)
{
	struct err_text err = {""};
	struct batch *b = NULL;
	int r = profile_decode(bytes->data, bytes->len, &b, &err);

	if (r < 0)
		fail_msg("decode: %d %s", r, err.text);
	return b;
}

/* ---- the rules of receivers, on the bytes ---- */

struct uses {
	unsigned *strings, *attributes, *mappings, *functions, *locations, *stacks;
};

static void rules_values(const Otlp__ProfilesDictionary *d, const Otlp__Profile *p, struct uses *u)
{
	assert_non_null(p->sample_type);
	assert_non_null(p->period_type);
	assert_true(p->period > 0);
	assert_int_equal(p->profile_id.len, 16);
	assert_string_equal(d->string_table[p->sample_type->type_strindex], "samples");
	assert_string_equal(d->string_table[p->sample_type->unit_strindex], "count");
	assert_string_equal(d->string_table[p->period_type->type_strindex], "cpu");
	assert_string_equal(d->string_table[p->period_type->unit_strindex], "nanoseconds");
	u->strings[p->sample_type->type_strindex]++;
	u->strings[p->sample_type->unit_strindex]++;
	u->strings[p->period_type->type_strindex]++;
	u->strings[p->period_type->unit_strindex]++;
	for (size_t s = 0; s < p->n_samples; s++) {
		const Otlp__Sample *x = p->samples[s];

		assert_true(x->stack_index >= 0 && (size_t)x->stack_index < d->n_stack_table);
		assert_true((x->n_values == 1) != (x->n_timestamps_unix_nano > 0));
		u->stacks[x->stack_index]++;
		for (size_t a = 0; a < x->n_attribute_indices; a++)
			u->attributes[x->attribute_indices[a]]++;
		for (size_t t = 0; t < x->n_timestamps_unix_nano; t++) {
			assert_true(x->timestamps_unix_nano[t] >= p->time_unix_nano);
			assert_true(
				x->timestamps_unix_nano[t] <= p->time_unix_nano + p->duration_nano);
		}
		for (size_t o = 0; o < s; o++) /* identities are unique */
			assert_false(p->samples[o]->stack_index == x->stack_index &&
				p->samples[o]->n_attribute_indices == x->n_attribute_indices &&
				(!x->n_attribute_indices ||
					memcmp(p->samples[o]->attribute_indices,
						x->attribute_indices,
						x->n_attribute_indices * sizeof(int32_t)) == 0));
	}
}

static void rules_zero_entries(const Otlp__ProfilesDictionary *d)
{
	assert_true(d->n_mapping_table && d->n_location_table && d->n_function_table &&
		d->n_string_table && d->n_attribute_table && d->n_stack_table);
	assert_int_equal(otlp__mapping__get_packed_size(d->mapping_table[0]), 0);
	assert_int_equal(otlp__location__get_packed_size(d->location_table[0]), 0);
	assert_int_equal(otlp__function__get_packed_size(d->function_table[0]), 0);
	assert_int_equal(otlp__stack__get_packed_size(d->stack_table[0]), 0);
	assert_int_equal(otlp__key_value_and_unit__get_packed_size(d->attribute_table[0]), 0);
	assert_string_equal(d->string_table[0], "");
	assert_int_equal(d->n_link_table, 1);
	assert_int_equal(otlp__link__get_packed_size(d->link_table[0]), 0);
}

static void rules_dictionary(const Otlp__ProfilesDictionary *d, struct uses *u)
{
	for (size_t i = 1; i < d->n_stack_table; i++)
		for (size_t k = 0; k < d->stack_table[i]->n_location_indices; k++)
			u->locations[d->stack_table[i]->location_indices[k]]++;
	for (size_t i = 1; i < d->n_location_table; i++) {
		const Otlp__Location *l = d->location_table[i];

		u->mappings[l->mapping_index]++;
		assert_true(l->n_lines > 0);
		for (size_t k = 0; k < l->n_lines; k++) {
			assert_true(l->lines[k]->function_index > 0);
			u->functions[l->lines[k]->function_index]++;
		}
		for (size_t k = 0; k < l->n_attribute_indices; k++)
			u->attributes[l->attribute_indices[k]]++;
	}
	for (size_t i = 1; i < d->n_function_table; i++) {
		assert_true(d->function_table[i]->name_strindex > 0);
		u->strings[d->function_table[i]->name_strindex]++;
		u->strings[d->function_table[i]->system_name_strindex]++;
		u->strings[d->function_table[i]->filename_strindex]++;
	}
	for (size_t i = 1; i < d->n_mapping_table; i++) {
		u->strings[d->mapping_table[i]->filename_strindex]++;
		for (size_t k = 0; k < d->mapping_table[i]->n_attribute_indices; k++)
			u->attributes[d->mapping_table[i]->attribute_indices[k]]++;
	}
	for (size_t i = 1; i < d->n_attribute_table; i++)
		u->strings[d->attribute_table[i]->key_strindex]++;
}

#define NO_ORPHANS(n, used)                                                                        \
	for (size_t i = 1; i < (n); i++)                                                           \
	assert_true((used)[i] > 0)
#define NO_DUPLICATES(table, type)                                                                 \
	for (size_t i = 0; i < d->n_##table; i++) {                                                \
		uint8_t one[4096], other[4096];                                                    \
		size_t len = otlp__##type##__pack(d->table[i], one);                               \
		for (size_t k = 0; k < i; k++)                                                     \
			assert_false(otlp__##type##__pack(d->table[k], other) == len &&            \
				memcmp(one, other, len) == 0);                                     \
	}

static void check_rules(const struct buf *bytes)
{
	Otlp__ExportRequest *r = otlp__export_request__unpack(NULL, bytes->len, bytes->data);
	const Otlp__ProfilesDictionary *d;
	struct uses u;

	assert_non_null(r);
	/* our writer leaves out what protobuf leaves out, so that both agree on the size */
	assert_int_equal(otlp__export_request__get_packed_size(r), bytes->len);
	d = r->dictionary;
	assert_non_null(d);
	rules_zero_entries(d);
	u = (struct uses){calloc(d->n_string_table, sizeof(unsigned)),
		calloc(d->n_attribute_table, sizeof(unsigned)),
		calloc(d->n_mapping_table, sizeof(unsigned)),
		calloc(d->n_function_table, sizeof(unsigned)),
		calloc(d->n_location_table, sizeof(unsigned)),
		calloc(d->n_stack_table, sizeof(unsigned))};
	for (size_t i = 0; i < r->n_resource_profiles; i++) {
		const Otlp__ResourceProfiles *rp = r->resource_profiles[i];

		assert_non_null(rp->resource);
		assert_int_equal(rp->n_scope_profiles, 1);
		assert_string_equal(rp->scope_profiles[0]->scope->name, "odi");
		assert_string_equal(rp->scope_profiles[0]->scope->version, ODI_VERSION);
		for (size_t p = 0; p < rp->scope_profiles[0]->n_profiles; p++)
			rules_values(d, rp->scope_profiles[0]->profiles[p], &u);
	}
	rules_dictionary(d, &u);
	NO_ORPHANS(d->n_string_table, u.strings);
	NO_ORPHANS(d->n_attribute_table, u.attributes);
	NO_ORPHANS(d->n_mapping_table, u.mappings);
	NO_ORPHANS(d->n_function_table, u.functions);
	NO_ORPHANS(d->n_location_table, u.locations);
	NO_ORPHANS(d->n_stack_table, u.stacks);
	NO_DUPLICATES(mapping_table, mapping);
	NO_DUPLICATES(location_table, location);
	NO_DUPLICATES(function_table, function);
	NO_DUPLICATES(attribute_table, key_value_and_unit);
	NO_DUPLICATES(stack_table, stack);
	for (size_t i = 0; i < d->n_string_table; i++)
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(d->string_table[i], d->string_table[k]);
	for (unsigned **p = (unsigned **)&u; p < (unsigned **)(&u + 1); p++)
		free(*p);
	otlp__export_request__free_unpacked(r, NULL);
}

/* ---- tests ---- */

static void test_interning(void **state)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct profile_function f = {0};
	struct profile_line line = {0};
	struct profile_location l = {.address = 7, .n_lines = 1};
	struct profile_resource_attribute two[2] = {0}, swapped[2];
	char longer[20000];
	int64_t a, again;

	assert_int_equal(batch_new(&b), 0);
	assert_int_equal(batch_string(b, ""), 0);
	a = batch_string(b, "main");
	assert_true(a > 0);
	assert_int_equal(batch_string(b, "main"), a);
	assert_true(batch_string(b, "main2") > a);
	/* what protobuf would refuse is made clean, and stays one entry */
	again = batch_string(b, "bad\xff\x01name");
	assert_string_equal(batch_string_at(b, (uint32_t)again), "bad??name");
	assert_int_equal(batch_string(b, "bad\xff\x02name"), again);
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	again = batch_string(b, longer);
	assert_int_equal(strlen(batch_string_at(b, (uint32_t)again)), PROFILE_MAX_STRING);
	/* an index out of range is an error, not a crash later */
	f.name = 1000;
	assert_int_equal(batch_function(b, &f), -EINVAL);
	f.name = (uint32_t)a;
	line.function = (uint32_t)batch_function(b, &f);
	assert_int_equal(batch_function(b, &f), line.function);
	again = batch_location(b, &l, &line);
	assert_true(again > 0);
	l.first_line = 99; /* not part of the identity */
	assert_int_equal(batch_location(b, &l, &line), again);
	line.line = 5;
	assert_int_not_equal(batch_location(b, &l, &line), again);
	line.function = 77;
	assert_int_equal(batch_location(b, &l, &line), -EINVAL);
	assert_int_equal(batch_stack(b, (uint32_t[]){500}, 1), -EINVAL);
	/* resources: sorted by key, so the order given does not matter */
	two[0].key = text(b, "a", 0);
	two[1].key = text(b, "b", 0);
	swapped[0] = two[1];
	swapped[1] = two[0];
	assert_int_equal(batch_resource(b, two, 2), batch_resource(b, swapped, 2));
	two[1].key = two[0].key;
	assert_int_equal(batch_resource(b, two, 2), -EEXIST);
}

static void test_round_trip(void **state)
{
	for (uint64_t seed = 1; seed < 30; seed++) {
		CLEANUP(batch_freep) struct batch *b = random_batch(seed, &small_shape);
		CLEANUP(batch_freep) struct batch *back = NULL;
		_cleanup_buf_ struct buf bytes, again;
		_cleanup_free_ char *before = say(b, NULL, 0), *after = NULL;
		uint64_t totals[PROFILE_TYPES], totals_back[PROFILE_TYPES];

		buf_init(&bytes, 0);
		buf_init(&again, 0);
		assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
		check_rules(&bytes);
		back = decode(&bytes);
		after = say(back, NULL, 0);
		assert_string_equal(before, after);
		batch_totals(b, totals);
		batch_totals(back, totals_back);
		assert_int_equal(totals[0], totals_back[0]);
		/* ids are kept, whatever header the exporter has */
		assert_int_equal(profile_encode(back, NULL, NULL, 0, &again), 0);
		assert_int_equal(again.len, bytes.len);
		for (size_t i = 0; i < batch_parts(b); i++) {
			uint8_t id[16];

			assert_int_equal(profile_id(&header, (uint32_t)i, id), 0);
			assert_non_null(memmem(bytes.data, bytes.len, id, sizeof(id)));
			assert_non_null(memmem(again.data, again.len, id, sizeof(id)));
		}
	}
}

static void test_selection_has_no_orphans(void **state)
{
	unsigned smaller = 0;

	for (uint64_t seed = 1; seed < 20; seed++) {
		CLEANUP(batch_freep) struct batch *b = random_batch(seed, &small_shape);

		for (uint32_t i = 0; i < batch_parts(b); i++) {
			CLEANUP(batch_freep) struct batch *back = NULL;
			_cleanup_buf_ struct buf bytes;
			_cleanup_free_ char *before = NULL, *after = NULL;
			uint32_t parts[2] = {i, (i + 1) % (uint32_t)batch_parts(b)};

			buf_init(&bytes, 0);
			assert_int_equal(profile_encode(b, &header, parts, 1 + (i & 1), &bytes), 0);
			check_rules(&bytes);
			back = decode(&bytes);
			before = say(b, parts, 1 + (i & 1));
			after = say(back, NULL, 0);
			assert_string_equal(before, after);
			smaller += batch_stacks(back) < batch_stacks(b);
		}
		assert_int_equal(
			profile_encode(b, &header, (uint32_t[]){1000}, 1, &(struct buf){0}),
			-EINVAL);
	}
	assert_true(smaller > 0);
}

static void test_strings_of_ours_in_the_batch(void **state)
{
	static const struct shape shape = {.services = 1,
		.functions = 2,
		.stacks = 2,
		.depth = 2,
		.samples = 4,
		.time_unix_ns = 5,
		.duration_ns = 5,
		.period = 1};
	CLEANUP(batch_freep) struct batch *b = random_batch(3, &shape);
	struct profile_function f = {.name = text(b, "cpu", 0),
		.system_name = text(b, "samples", 0),
		.filename = text(b, "profile.frame.type", 0)};
	struct profile_line line = {(uint32_t)batch_function(b, &f), 1};
	struct profile_location l = {.n_lines = 1, .frame_type = PROFILE_FRAME_NATIVE};
	uint32_t at = (uint32_t)batch_location(b, &l, &line);
	_cleanup_buf_ struct buf bytes;

	buf_init(&bytes, 0);
	assert_int_equal(
		batch_add(b, batch_part_at(b, 0), (uint32_t)batch_stack(b, &at, 1), NULL, 3), 0);
	assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
	check_rules(&bytes);
}

static void test_profile_ids(void **state)
{
	static const uint8_t known[16] = {0xbb, 0x50, 0x02, 0x2a, 0xfe, 0x2a, 0x61, 0xfe, 0x6e,
		0xce, 0x3b, 0xcf, 0x0d, 0x97, 0x71, 0xcb};
	uint8_t a[16], b[16];
	struct batch_header other = header;

	assert_int_equal(profile_id(&header, 0, a), 0);
	assert_memory_equal(a, known, 16); /* part of the format: never changes */
	assert_int_equal(profile_id(&header, 1, b), 0);
	assert_memory_not_equal(a, b, 16);
	other.serial++;
	assert_int_equal(profile_id(&other, 0, b), 0);
	assert_memory_not_equal(a, b, 16);
}

static void test_timestamps(void **state)
{
	static const struct shape shape = {.services = 1,
		.functions = 2,
		.stacks = 2,
		.depth = 2,
		.samples = 1,
		.time_unix_ns = 1000,
		.duration_ns = 100,
		.period = 1};
	CLEANUP(batch_freep)
	struct batch *b = random_batch(3, &shape), *back = NULL, *merged = NULL;
	_cleanup_free_ char *before = NULL, *after = NULL;
	struct profile_part *part = batch_part_at(b, 0);
	uint32_t taken = part->samples[0].stack, other = 3 - taken;
	_cleanup_buf_ struct buf bytes;

	buf_init(&bytes, 0);
	assert_int_equal(
		batch_add_timestamps(b, part, taken, NULL, (uint64_t[]){1000}, 1), -EINVAL);
	assert_int_equal(batch_add_timestamps(b, part, other, NULL, (uint64_t[]){999}, 1), -ERANGE);
	assert_int_equal(
		batch_add_timestamps(b, part, other, NULL, (uint64_t[]){1101}, 1), -ERANGE);
	assert_int_equal(
		batch_add_timestamps(b, part, other, NULL, (uint64_t[]){1000, 1100}, 2), 0);
	assert_int_equal(batch_add_timestamps(b, part, 0, NULL, (uint64_t[]){1001}, 1), 0);
	assert_int_equal(batch_add_timestamps(b, part, other, NULL, (uint64_t[]){1050}, 1), 0);
	assert_int_equal(batch_add(b, part, other, NULL, 1), -EINVAL);
	before = say(b, NULL, 0);
	assert_non_null(strstr(before, " @1000 @1100 @1050"));
	assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
	check_rules(&bytes);
	back = decode(&bytes);
	after = say(back, NULL, 0);
	assert_string_equal(before, after);
	assert_int_equal(batch_part_at(back, 0)->total, part->total);
	/* another time: their number is kept */
	assert_int_equal(batch_new(&merged), 0);
	assert_int_equal(batch_merge(merged, back, 500, 5000), 0);
	assert_int_equal(batch_part_at(merged, 0)->total, part->total);
	assert_int_equal(merged->n_timestamps, 0);
}

static void test_merge(void **state)
{
	CLEANUP(batch_freep) struct batch *kept = NULL, *joined = NULL;
	uint64_t sum = 0, totals[PROFILE_TYPES];
	_cleanup_buf_ struct buf bytes;

	buf_init(&bytes, 0);
	assert_int_equal(batch_new(&kept), 0);
	assert_int_equal(batch_new(&joined), 0);
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct shape shape = small_shape;
		CLEANUP(batch_freep) struct batch *b = NULL;

		shape.time_unix_ns += seed * shape.duration_ns;
		b = random_batch(seed, &shape);
		batch_totals(b, totals);
		sum += totals[0];
		assert_int_equal(batch_merge(kept, b, 0, 0), 0);
		assert_int_equal(
			batch_merge(joined, b, small_shape.time_unix_ns, 200 * NSEC_PER_SEC), 0);
		if (seed == 1) { /* a copy says what the original says */
			_cleanup_free_ char *before = say(b, NULL, 0), *after = say(kept, NULL, 0);

			assert_string_equal(before, after);
		}
	}
	assert_int_equal(batch_parts(kept), 10 * 3);
	assert_int_equal(batch_parts(joined), 3);
	batch_totals(kept, totals);
	assert_int_equal(totals[0], sum);
	batch_totals(joined, totals);
	assert_int_equal(totals[0], sum);
	assert_int_equal(profile_encode(joined, &header, NULL, 0, &bytes), 0);
	check_rules(&bytes);
	/* a part that took more no longer carries the id of the one it came from */
	assert_int_equal(batch_merge(kept, joined, 0, 0), 0);
}

static void test_overflow(void **state)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct profile_part *part = NULL;

	assert_int_equal(batch_new(&b), 0);
	assert_int_equal(batch_part(b, 0, 0, 1, 1, 1, &part), 0);
	assert_int_equal(batch_add(b, part, 0, NULL, INT64_MAX), 0);
	assert_int_equal(batch_add(b, part, 0, NULL, 1), -ERANGE);
	assert_int_equal(part->total, INT64_MAX);
	assert_int_equal(batch_part(b, 9, 0, 1, 1, 1, &part), -EINVAL);
	assert_int_equal(batch_part(b, 0, PROFILE_TYPES, 1, 1, 1, &part), -EINVAL);
	assert_int_equal(batch_part(b, 0, 0, 1, UINT64_MAX, 1, &part), -EINVAL);
}

static void test_empty_profile(void **state)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes;
	const struct profile_resource_attribute *a;
	size_t n;

	buf_init(&bytes, 0);
	assert_int_equal(profile_encode_empty("odi-test", 12345, &bytes), 0);
	check_rules(&bytes);
	b = decode(&bytes);
	assert_int_equal(batch_parts(b), 1);
	assert_int_equal(batch_part_at(b, 0)->n_samples, 0);
	a = batch_resource_at(b, batch_part_at(b, 0)->resource, &n);
	assert_int_equal(n, 1);
	assert_string_equal(batch_string_at(b, a->value), "odi-test");
}

/* A batch that was decoded from tampered bytes can be walked, encoded and merged. */
static void use_batch(struct batch *b)
{
	CLEANUP(batch_freep) struct batch *copy = NULL;
	_cleanup_buf_ struct buf bytes;

	buf_init(&bytes, 0);
	free(say(b, NULL, 0));
	assert_int_equal(profile_encode(b, NULL, NULL, 0, &bytes), 0);
	assert_int_equal(batch_new(&copy), 0);
	assert_int_equal(batch_merge(copy, b, 0, 0), 0);
}

static void test_tampered_bytes(void **state)
{
	static const struct shape shape = {.services = 2,
		.functions = 4,
		.stacks = 3,
		.depth = 3,
		.samples = 5,
		.threads = true,
		.time_unix_ns = 1000,
		.duration_ns = 100,
		.period = 10};
	CLEANUP(batch_freep) struct batch *b = random_batch(5, &shape);
	unsigned refused = 0, taken = 0;
	_cleanup_buf_ struct buf bytes;

	buf_init(&bytes, 0);
	assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
	for (size_t i = 0; i < bytes.len; i++) {
		static const uint8_t flips[] = {0x01, 0x02, 0x08, 0x40, 0x80, 0xff};

		for (size_t f = 0; f < ARRAY_SIZE(flips) + 1; f++) {
			/* a copy of its own size, so that a read past it is seen */
			size_t len = f < ARRAY_SIZE(flips) ? bytes.len : i;
			_cleanup_free_ uint8_t *copy = malloc(len ? len : 1);
			struct batch *back = NULL;
			struct err_text err = {""};
			int r;

			memcpy(copy, bytes.data, len);
			if (f < ARRAY_SIZE(flips))
				copy[i] ^= flips[f];
			r = profile_decode(copy, len, &back, &err);
			assert_true(r == 0 || r == -EBADMSG || r == -EFBIG);
			if (r < 0) {
				assert_null(back);
				assert_true(strlen(err.text) > 10);
				refused++;
			} else {
				use_batch(back);
				batch_free(back);
				taken++;
			}
		}
	}
	assert_true(refused > bytes.len && taken > 0);
}

/* Refused one by one: each rule that a decoder of hostile bytes must hold. */
static void test_refusals(void **state)
{
	CLEANUP(batch_freep) struct batch *b = random_batch(5, &small_shape);
	_cleanup_buf_ struct buf bytes;
	Otlp__ExportRequest *r;
	Otlp__ProfilesDictionary *d;
	Otlp__Profile *p;
	int64_t two[2] = {1, 2};

	buf_init(&bytes, 0);
	assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
	r = otlp__export_request__unpack(NULL, bytes.len, bytes.data);
	d = r->dictionary;
	p = r->resource_profiles[0]->scope_profiles[0]->profiles[0];
#define REFUSED(place, bad)                                                                        \
	do {                                                                                       \
		__typeof__(place) was = place;                                                     \
		struct batch *x = NULL;                                                            \
		size_t len;                                                                        \
		uint8_t *out;                                                                      \
		place = bad;                                                                       \
		len = otlp__export_request__get_packed_size(r);                                    \
		out = malloc(len);                                                                 \
		otlp__export_request__pack(r, out);                                                \
		assert_int_equal(profile_decode(out, len, &x, NULL), -EBADMSG);                    \
		free(out);                                                                         \
		place = was;                                                                       \
	} while (0)
	REFUSED(p->samples[0]->stack_index, (int32_t)d->n_stack_table);
	REFUSED(p->samples[0]->stack_index, -1);
	REFUSED(p->samples[0]->attribute_indices[0], (int32_t)d->n_attribute_table);
	REFUSED(p->samples[0]->attribute_indices[0], 0);
	REFUSED(p->samples[0]->link_index, 1);
	REFUSED(p->samples[0]->values[0], -1);
	REFUSED(p->samples[0]->n_values, 0);
	REFUSED(p->period, -5);
	REFUSED(p->profile_id.len, 15);
	REFUSED(p->duration_nano, UINT64_MAX);
	REFUSED(p->period_type, NULL);
	REFUSED(p->sample_type->type_strindex, 0);
	REFUSED(d->stack_table[1]->location_indices[0], (int32_t)d->n_location_table);
	REFUSED(d->location_table[1]->mapping_index, (int32_t)d->n_mapping_table);
	REFUSED(d->location_table[1]->lines[0]->function_index, (int32_t)d->n_function_table);
	REFUSED(d->location_table[1]->lines[0]->function_index, INT32_MIN);
	REFUSED(d->location_table[1]->lines[0]->line, -1);
	REFUSED(d->function_table[1]->name_strindex, (int32_t)d->n_string_table);
	REFUSED(d->function_table[1]->start_line, 1LL << 40);
	REFUSED(d->function_table[0]->start_line, 1);
	REFUSED(d->mapping_table[1]->filename_strindex, -7);
	REFUSED(d->attribute_table[1]->key_strindex, 0);
	REFUSED(d->attribute_table[1]->value, NULL);
	REFUSED(d->n_stack_table, 0);
	REFUSED(d->n_string_table, 0);
	REFUSED(r->dictionary, NULL);
	REFUSED(r->resource_profiles[0]->resource, NULL);
	{ /* a value and a timestamp; two values */
		int64_t *was = p->samples[0]->values;

		p->samples[0]->values = two;
		REFUSED(p->samples[0]->n_values, 2);
		p->samples[0]->values = was;
	}
	otlp__export_request__free_unpacked(r, NULL);
}

static void test_bombs(void **state)
{
	size_t len = 8U << 20;
	uint8_t *bomb = malloc(len);
	struct batch *b = NULL;
	struct err_text err = {""};

	/* nothing but empty ResourceProfiles: 2 bytes each */
	for (size_t i = 0; i < len; i += 2) {
		bomb[i] = 0x0a;
		bomb[i + 1] = 0;
	}
	assert_int_equal(profile_decode(bomb, len, &b, &err), -EFBIG);
	assert_null(b);
	free(bomb);
	assert_int_equal(profile_decode(NULL, PROFILE_MAX_ENCODED + 1, &b, &err), -EFBIG);
	assert_int_equal(profile_decode("", 0, &b, &err), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interning),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_selection_has_no_orphans),
		cmocka_unit_test(test_strings_of_ours_in_the_batch),
		cmocka_unit_test(test_profile_ids),
		cmocka_unit_test(test_timestamps),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_empty_profile),
		cmocka_unit_test(test_tampered_bytes),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_bombs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
