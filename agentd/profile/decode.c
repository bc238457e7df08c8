/* SPDX-License-Identifier: Apache-2.0 */

/* The strict half of the codec: bytes from another process or from a file, back to a batch. Runs
 * in the exporter and in the reader; never in agentd.
 *
 * The bytes may come from a process that was taken over or from a damaged disk, so nothing in
 * them is believed: every index is checked against its table, numbers against what a batch can
 * hold, and things that a batch cannot hold (links, other value kinds, unknown profile types)
 * are refused, not dropped.
 *
 * protobuf-c unpacks into a tree of pointers; two bytes on the wire (an empty message in a
 * repeated field) become about a hundred in memory. So it allocates from an arena with a budget
 * that grows with the input: what honest batches need, and a bomb hits the end before it hurts.
 * The arena also makes unpacking a few times faster. */

#include "agentd/profile/arena.h"
#include "agentd/profile/batch_private.h"
#include "agentd/wire/otlp.pb-c.h"

#define BUDGET_BASE     (2U << 20)
#define BUDGET_PER_BYTE 48 /* a sample of 12 bytes unpacks to 130 and is scanned with 60 more */
#define BUDGET_MAX      (1ULL << 30)

/* ---- the dictionary ---- */

/* One entry of attribute_table, understood. */
struct wire_attribute {
	enum {
		WIRE_SAMPLE,
		WIRE_FRAME_TYPE,
		WIRE_APPROXIMATE,
		WIRE_BUILD_ID,
		WIRE_GO_BUILD_ID,
		WIRE_HTLHASH
	} use;
	/* Frame type; string of the batch for build ids. */
	uint32_t value;
	uint32_t attribute;
};

struct decoder {
	struct batch *b;
	const Otlp__ProfilesDictionary *d;
	struct wire_attribute *attributes;
	struct err_text *err;
};

#define BAD(d, ...) err_set((d)->err, -EBADMSG, "not a valid batch: " __VA_ARGS__)

static bool in_table(int64_t i, size_t n)
{
	return i >= 0 && (uint64_t)i < n;
}

static int decode_strings(struct decoder *d)
{
	struct batch *b = d->b;
	size_t n = d->d->n_string_table;
	int r = ARRAY_GROW(b->strings.at, b->strings.room, 0, n);

	if (r < 0)
		return r;
	if (!n || d->d->string_table[0][0])
		return BAD(d, "string 0 is not empty");
	for (size_t i = 0; i < n; i++) {
		const char *s = d->d->string_table[i];
		const char *copy = batch_text(b, s, strlen(s));

		if (!copy)
			return -ENOMEM;
		b->strings.at[b->strings.n++] = copy;
	}
	return 0;
}

/* The value of a string attribute that we know; NULL: not a string. */
static const char *attribute_text(const Otlp__KeyValueAndUnit *a)
{
	return a->value && a->value->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE
		? a->value->string_value
		: NULL;
}

static int decode_known_attribute(
	struct decoder *d, size_t i, const char *key, const char *text, bool *known)
{
	static const char *const frame_types[] = PROFILE_FRAME_TYPE_NAMES;
	static const struct {
		const char *key;
		int use;
	} texts[] = {{PROFILE_KEY_BUILD_ID, WIRE_BUILD_ID},
		{PROFILE_KEY_GO_BUILD_ID, WIRE_GO_BUILD_ID}, {PROFILE_KEY_HTLHASH, WIRE_HTLHASH}};
	const Otlp__AnyValue *v = d->d->attribute_table[i]->value;
	struct wire_attribute *a = &d->attributes[i];

	*known = true;
	if (streq(key, PROFILE_KEY_FRAME_TYPE) && text) {
		a->use = WIRE_FRAME_TYPE;
		a->value = PROFILE_FRAME_UNKNOWN;
		for (uint32_t t = 1; t < PROFILE_FRAME_TYPES; t++) {
			if (streq(frame_types[t], text))
				a->value = t;
		}
		return 0;
	}
	if (streq(key, PROFILE_KEY_APPROXIMATE) &&
		v->value_case == OTLP__ANY_VALUE__VALUE_BOOL_VALUE) {
		a->use = WIRE_APPROXIMATE;
		a->value = v->bool_value != 0;
		return 0;
	}
	for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
		int64_t s;

		if (!streq(key, texts[k].key) || !text)
			continue;
		s = batch_string(d->b, text);
		a->use = texts[k].use;
		a->value = (uint32_t)MAX(s, 0);
		return s < 0 ? (int)s : 0;
	}
	*known = false;
	return 0;
}

static int decode_attribute(struct decoder *d, size_t i)
{
	const Otlp__KeyValueAndUnit *a = d->d->attribute_table[i];
	struct profile_attribute x = {0};
	const char *key, *text;
	bool known;
	int64_t at;
	int r;

	if (!i) {
		if (a->key_strindex || a->unit_strindex ||
			(a->value && a->value->value_case != OTLP__ANY_VALUE__VALUE__NOT_SET))
			return BAD(d, "attribute 0 is not empty");
		return 0;
	}
	if (!in_table(a->key_strindex, d->d->n_string_table) || !a->key_strindex ||
		a->unit_strindex || !a->value)
		return BAD(d, "attribute %zu has no key or no value, or a unit", i);
	key = d->b->strings.at[a->key_strindex];
	text = attribute_text(a);
	r = decode_known_attribute(d, i, key, text, &known);
	if (r < 0 || known)
		return r;
	x.key = (uint32_t)a->key_strindex;
	if (a->value->value_case == OTLP__ANY_VALUE__VALUE_INT_VALUE) {
		x.is_int = true;
		x.number = a->value->int_value;
	} else if (text) {
		at = batch_string(d->b, text);
		if (at < 0)
			return (int)at;
		x.value = (uint32_t)at;
	} else {
		return BAD(d, "attribute %zu is neither text nor a whole number", i);
	}
	at = batch_attribute(d->b, &x);
	d->attributes[i].attribute = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

static int decode_attributes(struct decoder *d)
{
	static const struct profile_attribute zero;
	size_t n = d->d->n_attribute_table;
	int64_t r = batch_attribute(d->b, &zero);

	if (!n)
		return BAD(d, "no attribute 0");
	d->attributes = calloc(n, sizeof(*d->attributes));
	if (!d->attributes)
		return -ENOMEM;
	for (size_t i = 0; i < n && r >= 0; i++)
		r = decode_attribute(d, i);
	return (int)MIN(r, 0);
}

static int decode_mapping(struct decoder *d, size_t i)
{
	const Otlp__Mapping *m = d->d->mapping_table[i];
	struct profile_mapping x = {
		.start = m->memory_start, .limit = m->memory_limit, .file_offset = m->file_offset};

	if (!in_table(m->filename_strindex, d->d->n_string_table))
		return BAD(d, "mapping %zu names a string that is not there", i);
	x.filename = (uint32_t)m->filename_strindex;
	for (size_t k = 0; k < m->n_attribute_indices; k++) {
		const struct wire_attribute *a;

		if (!in_table(m->attribute_indices[k], d->d->n_attribute_table))
			return BAD(d, "mapping %zu has an attribute that is not there", i);
		a = &d->attributes[m->attribute_indices[k]];
		if (a->use == WIRE_BUILD_ID)
			x.build_id = a->value;
		else if (a->use == WIRE_GO_BUILD_ID)
			x.go_build_id = a->value;
		else if (a->use == WIRE_HTLHASH)
			x.htlhash = a->value;
		else
			return BAD(d, "mapping %zu has an attribute of another kind", i);
	}
	if (!i && (x.start || x.limit || x.file_offset || x.filename || m->n_attribute_indices))
		return BAD(d, "mapping 0 is not empty");
	d->b->mappings.at[d->b->mappings.n++] = x;
	return 0;
}

static int decode_function(struct decoder *d, size_t i)
{
	const Otlp__Function *f = d->d->function_table[i];
	size_t n = d->d->n_string_table;

	if (!in_table(f->name_strindex, n) || !in_table(f->system_name_strindex, n) ||
		!in_table(f->filename_strindex, n))
		return BAD(d, "function %zu names a string that is not there", i);
	if (f->start_line < 0 || f->start_line > UINT32_MAX)
		return BAD(d, "function %zu starts at an impossible line", i);
	if (!i &&
		(f->name_strindex || f->system_name_strindex || f->filename_strindex ||
			f->start_line))
		return BAD(d, "function 0 is not empty");
	d->b->functions.at[d->b->functions.n++] = (struct profile_function){
		(uint32_t)f->name_strindex, (uint32_t)f->system_name_strindex,
		(uint32_t)f->filename_strindex, (uint32_t)f->start_line};
	return 0;
}

static int decode_location(struct decoder *d, size_t i)
{
	const Otlp__Location *l = d->d->location_table[i];
	struct batch *b = d->b;
	struct profile_location x = {
		.mapping = (uint32_t)l->mapping_index,
		.address = l->address,
		.first_line = b->n_lines,
		.n_lines = (uint32_t)l->n_lines,
	};
	int r;

	if (!in_table(l->mapping_index, d->d->n_mapping_table))
		return BAD(d, "location %zu names a mapping that is not there", i);
	for (size_t k = 0; k < l->n_attribute_indices; k++) {
		const struct wire_attribute *a;

		if (!in_table(l->attribute_indices[k], d->d->n_attribute_table))
			return BAD(d, "location %zu has an attribute that is not there", i);
		a = &d->attributes[l->attribute_indices[k]];
		if (a->use == WIRE_FRAME_TYPE)
			x.frame_type = (uint8_t)a->value;
		else if (a->use == WIRE_APPROXIMATE)
			x.approximate = a->value;
		else
			return BAD(d, "location %zu has an attribute of another kind", i);
	}
	if (!i && (l->mapping_index || l->address || l->n_lines || l->n_attribute_indices))
		return BAD(d, "location 0 is not empty");
	r = ARRAY_GROW(b->lines, b->lines_room, b->n_lines, l->n_lines);
	if (r < 0)
		return r;
	for (size_t k = 0; k < l->n_lines; k++) {
		const Otlp__Line *line = l->lines[k];

		if (!in_table(line->function_index, d->d->n_function_table))
			return BAD(d, "location %zu names a function that is not there", i);
		if (line->line < 0 || line->line > UINT32_MAX)
			return BAD(d, "location %zu is at an impossible line", i);
		b->lines[b->n_lines++] =
			(struct profile_line){(uint32_t)line->function_index, (uint32_t)line->line};
	}
	b->locations.at[b->locations.n++] = x;
	return 0;
}

static int decode_stack(struct decoder *d, size_t i)
{
	const Otlp__Stack *s = d->d->stack_table[i];
	struct batch *b = d->b;
	int r = ARRAY_GROW(b->stack_locations, b->stack_locations_room, b->n_stack_locations,
		s->n_location_indices);

	if (r < 0)
		return r;
	if (!i && s->n_location_indices)
		return BAD(d, "stack 0 is not empty");
	b->stacks.at[b->stacks.n++] =
		(struct profile_stack){b->n_stack_locations, (uint32_t)s->n_location_indices};
	for (size_t k = 0; k < s->n_location_indices; k++) {
		if (!in_table(s->location_indices[k], d->d->n_location_table))
			return BAD(d, "stack %zu names a location that is not there", i);
		b->stack_locations[b->n_stack_locations++] = (uint32_t)s->location_indices[k];
	}
	return 0;
}

static int decode_dictionary(struct decoder *d)
{
	const Otlp__ProfilesDictionary *x = d->d;
	struct batch *b = d->b;
	int r;

	if (!x)
		return BAD(d, "no dictionary");
	if (!x->n_mapping_table || !x->n_location_table || !x->n_function_table ||
		!x->n_stack_table)
		return BAD(d, "a table without its zero entry");
	if (x->n_link_table > 1 ||
		(x->n_link_table &&
			(x->link_table[0]->trace_id.len || x->link_table[0]->span_id.len)))
		return BAD(d, "links, which this version does not know");
	r = decode_strings(d);
	if (r >= 0)
		r = decode_attributes(d);
	if (r >= 0)
		r = ARRAY_GROW(b->mappings.at, b->mappings.room, 0, x->n_mapping_table);
	if (r >= 0)
		r = ARRAY_GROW(b->functions.at, b->functions.room, 0, x->n_function_table);
	if (r >= 0)
		r = ARRAY_GROW(b->locations.at, b->locations.room, 0, x->n_location_table);
	if (r >= 0)
		r = ARRAY_GROW(b->stacks.at, b->stacks.room, 0, x->n_stack_table);
	for (size_t i = 0; i < x->n_mapping_table && r >= 0; i++)
		r = decode_mapping(d, i);
	for (size_t i = 0; i < x->n_function_table && r >= 0; i++)
		r = decode_function(d, i);
	for (size_t i = 0; i < x->n_location_table && r >= 0; i++)
		r = decode_location(d, i);
	for (size_t i = 0; i < x->n_stack_table && r >= 0; i++)
		r = decode_stack(d, i);
	return r;
}

/* ---- the profiles ---- */

static int64_t decode_resource(struct decoder *d, const Otlp__Resource *r)
{
	_cleanup_free_ struct profile_resource_attribute *list = NULL;
	int64_t at;

	if (!r)
		return BAD(d, "a profile without a resource");
	if (r->n_attributes > 1024)
		return BAD(d, "a resource with %zu attributes", r->n_attributes);
	list = calloc(r->n_attributes + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < r->n_attributes; i++) {
		const Otlp__KeyValue *a = r->attributes[i];
		int64_t key = batch_string(d->b, a->key), value = 0;

		if (!key || !a->value)
			return BAD(d, "a resource attribute without a key or a value");
		if (a->value->value_case == OTLP__ANY_VALUE__VALUE_INT_VALUE) {
			list[i].is_int = true;
			list[i].number = a->value->int_value;
		} else if (a->value->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE) {
			value = batch_string(d->b, a->value->string_value);
		} else {
			return BAD(
				d, "a resource attribute that is neither text nor a whole number");
		}
		if (key < 0 || value < 0)
			return MIN(key, value);
		list[i].key = (uint32_t)key;
		list[i].value = (uint32_t)value;
	}
	at = batch_resource(d->b, list, r->n_attributes);
	return at == -EEXIST ? BAD(d, "a resource attribute given twice") : at;
}

static int decode_timestamps(struct decoder *d, const struct profile_part *part,
	const Otlp__Sample *s, struct profile_sample *x)
{
	struct batch *b = d->b;
	int r = ARRAY_GROW(
		b->timestamps, b->timestamps_room, b->n_timestamps, s->n_timestamps_unix_nano);

	if (r < 0)
		return r;
	x->first_timestamp = b->n_timestamps;
	x->n_timestamps = (uint32_t)s->n_timestamps_unix_nano;
	for (size_t i = 0; i < s->n_timestamps_unix_nano; i++) {
		uint64_t t = s->timestamps_unix_nano[i];

		if (t < part->time_unix_ns || t - part->time_unix_ns > part->duration_ns)
			return BAD(d, "a sample outside of its profile's time");
		b->timestamps[b->n_timestamps++] = t;
	}
	return 0;
}

static int decode_sample(struct decoder *d, struct profile_part *part, const Otlp__Sample *s)
{
	struct profile_sample x = {.stack = (uint32_t)s->stack_index};
	uint64_t total = part->total;
	int r;

	if (!in_table(s->stack_index, d->d->n_stack_table))
		return BAD(d, "a sample names a stack that is not there");
	if (s->link_index || s->n_attribute_indices > 4)
		return BAD(d, "a sample with a link or with more than 4 attributes");
	for (size_t i = 0; i < s->n_attribute_indices; i++) {
		if (!in_table(s->attribute_indices[i], d->d->n_attribute_table) ||
			!d->attributes[s->attribute_indices[i]].attribute)
			return BAD(d,
				"a sample has an attribute that is not there or of another kind");
		x.attributes[i] = d->attributes[s->attribute_indices[i]].attribute;
	}
	if ((s->n_values != 1 || s->n_timestamps_unix_nano) &&
		(s->n_values || !s->n_timestamps_unix_nano))
		return BAD(d, "a sample with neither one value nor timestamps alone");
	if (s->n_values) {
		if (s->values[0] < 0)
			return BAD(d, "a negative value");
		x.value = (uint64_t)s->values[0];
		total += x.value;
	} else {
		r = decode_timestamps(d, part, s, &x);
		if (r < 0)
			return r;
		total += x.n_timestamps;
	}
	if (total > INT64_MAX) /* both were below 2^63: no wrap */
		return BAD(d, "values that add up to more than 2^63");
	part->total = total;
	for (size_t i = 1; i < 4; i++) { /* as batch_add() keeps them */
		for (size_t k = i;
			k > 0 && x.attributes[k] && x.attributes[k - 1] > x.attributes[k]; k--) {
			uint32_t swap = x.attributes[k];

			x.attributes[k] = x.attributes[k - 1];
			x.attributes[k - 1] = swap;
		}
	}
	return batch_push_sample(d->b, part, &x);
}

static bool value_type_is(
	struct decoder *d, const Otlp__ValueType *v, const char *type, const char *unit)
{
	if (!v)
		return !*type && !*unit;
	return in_table(v->type_strindex, d->d->n_string_table) &&
		in_table(v->unit_strindex, d->d->n_string_table) &&
		streq(d->b->strings.at[v->type_strindex], type) &&
		streq(d->b->strings.at[v->unit_strindex], unit);
}

static int decode_type(struct decoder *d, const Otlp__Profile *p)
{
	for (unsigned i = 0; i < PROFILE_TYPES; i++) {
		const struct profile_type *t = &profile_types[i];

		if (value_type_is(d, p->sample_type, t->sample_type, t->sample_unit) &&
			value_type_is(d, p->period_type, t->period_type, t->period_unit))
			return (int)i;
	}
	return BAD(d, "a profile of a type that this version does not know");
}

static int decode_profile(struct decoder *d, uint32_t resource, const Otlp__Profile *p)
{
	struct batch *b = d->b;
	struct profile_part part = {.resource = resource,
		.period = (uint64_t)p->period,
		.time_unix_ns = p->time_unix_nano,
		.duration_ns = p->duration_nano};
	int type = decode_type(d, p);
	int r = type;

	if (type < 0)
		return type;
	if (p->period < 0 || p->time_unix_nano + p->duration_nano < p->time_unix_nano)
		return BAD(d, "a profile with an impossible period or time");
	if (p->original_payload.len || p->n_attribute_indices)
		return BAD(d, "a profile with a payload or attributes of its own");
	if (p->profile_id.len != 0 && p->profile_id.len != sizeof(part.id))
		return BAD(d, "a profile id of %zu bytes", p->profile_id.len);
	part.type = (uint8_t)type;
	if (p->profile_id.len)
		memcpy(part.id, p->profile_id.data, sizeof(part.id));
	/* Appended, not looked up: two profiles with one key are two parts, as they were. */
	r = ARRAY_GROW(b->parts.at, b->parts.room, b->parts.n, 1);
	if (r >= 0)
		r = ARRAY_GROW(b->sample_index, b->sample_index_room, b->parts.n, 1);
	if (r < 0)
		return r;
	b->sample_index[b->parts.n] = (struct intern){0};
	b->parts.at[b->parts.n++] = part;
	r = ARRAY_GROW(b->parts.at[b->parts.n - 1].samples, b->parts.at[b->parts.n - 1].room, 0,
		p->n_samples);
	for (size_t i = 0; i < p->n_samples && r >= 0; i++)
		r = decode_sample(d, &b->parts.at[b->parts.n - 1], p->samples[i]);
	return r;
}

static int decode_profiles(struct decoder *d, const Otlp__ExportRequest *request)
{
	int64_t r = batch_resource(d->b, NULL, 0);

	for (size_t i = 0; i < request->n_resource_profiles && r >= 0; i++) {
		const Otlp__ResourceProfiles *rp = request->resource_profiles[i];
		int64_t resource = decode_resource(d, rp->resource);

		r = MIN(resource, 0);
		for (size_t s = 0; s < rp->n_scope_profiles && r >= 0; s++) {
			const Otlp__ScopeProfiles *sp = rp->scope_profiles[s];

			for (size_t p = 0; p < sp->n_profiles && r >= 0; p++)
				r = decode_profile(d, (uint32_t)resource, sp->profiles[p]);
		}
	}
	return (int)MIN(r, 0);
}

int profile_decode(const void *data, size_t len, struct batch **ret, struct err_text *err)
{
	CLEANUP(arena_deinit)
	struct arena arena = {
		.budget = MIN(BUDGET_BASE + (uint64_t)len * BUDGET_PER_BYTE, BUDGET_MAX)};
	ProtobufCAllocator allocator = {arena_alloc, arena_free, &arena};
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_free_ struct wire_attribute *attributes = NULL;
	struct decoder d = {.err = err};
	Otlp__ExportRequest *request;
	int r;

	if (len > PROFILE_MAX_ENCODED)
		return err_set(err, -EFBIG, "a batch of %zu bytes: more than the %u that are read",
			len, PROFILE_MAX_ENCODED);
	request = otlp__export_request__unpack(&allocator, len, data);
	if (!request && arena.exhausted)
		return err_set(err, -EFBIG,
			"a batch of %zu bytes that unpacks to far more than its size lets expect",
			len);
	if (!request)
		return err_set(err, -EBADMSG,
			"not a valid batch: %zu bytes that are no OTLP profiles", len);
	r = batch_new_raw(&b);
	if (r < 0)
		return r;
	d.b = b;
	d.d = request->dictionary;
	r = decode_dictionary(&d);
	if (r >= 0)
		r = decode_profiles(&d, request);
	attributes = d.attributes;
	if (r == -ENOMEM || r == -E2BIG)
		return err_set(err, r, "a batch of %zu bytes does not fit into memory", len);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(b);
	return 0;
}
