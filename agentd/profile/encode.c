/* SPDX-License-Identifier: Apache-2.0 */

/* The hot half of the codec: a batch as the bytes of an OTLP ExportProfilesServiceRequest. Runs in agentd once an interval
 * and in the exporter once a destination's shape.
 *
 * Written directly and not through protobuf-c: its tree of pointers costs about ten times the bytes it makes, in the
 * process that has 40 MB for everything. The message is written from its end to its start, so that each length is known
 * when its prefix is due, without a pass that computes sizes.
 *
 * Two passes. The first walks from the samples of the chosen parts to what they use and gives each entry its new
 * index, in order of first use: the dictionary has no orphans, whatever the selection. The second writes. The zero
 * entries are empty messages (link_table[0] as well: Parca refuses 16 zero bytes); strings are inline in resources
 * (KeyValue.key_strindex is not known to all receivers); sample_type, period_type, period and scope are always there.
 *
 * Source: opentelemetry-proto v1.10, profiles.proto; the numbers are those of agentd/wire/otlp.proto. */

#include <sys/random.h>

#include "agentd/profile/batch_private.h"

/* ---- writing backwards ------------------------------------------------------------------------------------------ */

struct back {
	uint8_t *data;
	size_t size, at; /* what is written is [at, size) */
	int failed;
};

static void back_deinit(struct back *w)
{
	free(w->data);
}

static uint8_t *back_take(struct back *w, size_t len)
{
	size_t used = w->size - w->at;

	if (w->failed)
		return NULL;
	if (len > w->at) {
		size_t size = MAX(w->size * 2, MAX(used + len, (size_t)65536));
		uint8_t *data;

		if (used + len > PROFILE_MAX_ENCODED) {
			w->failed = -E2BIG;
			return NULL;
		}
		data = malloc(size);
		if (!data) {
			w->failed = -ENOMEM;
			return NULL;
		}
		if (used)
			memcpy(data + size - used, w->data + w->at, used);
		free(w->data);
		w->data = data;
		w->size = size;
		w->at = size - used;
	}
	w->at -= len;
	return w->data + w->at;
}

static size_t used(const struct back *w)
{
	return w->size - w->at;
}

static void put_varint(struct back *w, uint64_t v)
{
	uint8_t bytes[10], *p;
	size_t n = 0;

	do {
		bytes[n] = (uint8_t)(v | 0x80);
		n++;
		v >>= 7;
	} while (v);
	bytes[n - 1] &= 0x7f;
	p = back_take(w, n);
	if (p)
		memcpy(p, bytes, n);
}

static void put_bytes(struct back *w, const void *data, size_t len)
{
	uint8_t *p = back_take(w, len);

	if (p && len)
		memcpy(p, data, len);
}

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LEN = 2 };

static void put_tag(struct back *w, unsigned field, enum wire wire)
{
	put_varint(w, field << 3 | wire);
}

/* A varint field; proto3 leaves zero out. */
static void field_varint(struct back *w, unsigned field, uint64_t v)
{
	if (!v)
		return;
	put_varint(w, v);
	put_tag(w, field, WIRE_VARINT);
}

static void field_fixed64(struct back *w, unsigned field, uint64_t v)
{
	uint8_t le[8];

	if (!v)
		return;
	for (size_t i = 0; i < 8; i++)
		le[i] = (uint8_t)(v >> 8 * i);
	put_bytes(w, le, sizeof(le));
	put_tag(w, field, WIRE_FIXED64);
}

static void field_bytes(struct back *w, unsigned field, const void *data, size_t len)
{
	put_bytes(w, data, len);
	put_varint(w, len);
	put_tag(w, field, WIRE_LEN);
}

static void field_string(struct back *w, unsigned field, const char *s)
{
	field_bytes(w, field, s, strlen(s));
}

/* Closes a message whose content was written since `used(w)` was `mark`. */
static void field_message(struct back *w, unsigned field, size_t mark)
{
	put_varint(w, used(w) - mark);
	put_tag(w, field, WIRE_LEN);
}

/* ---- the first pass: who is used ---------------------------------------------------------------------------------- */

/* From an index in the batch to one in the message, and back. */
struct remap {
	uint32_t *to;   /* by index in the batch; 0 not used (or the zero entry) */
	uint32_t *from; /* by index in the message */
	uint32_t n;     /* in the message, the zero entry among them */
};

enum attribute_kind { ATTRIBUTE_STRING, ATTRIBUTE_INT, ATTRIBUTE_BOOL };

struct out_attribute {
	uint32_t key; /* string of the message */
	uint32_t kind;
	uint64_t value; /* ATTRIBUTE_STRING: pointer to the text */
};

struct encoder {
	const struct batch *b;
	struct remap strings, mappings, functions, locations, stacks;
	const char **
		extra; /* strings of the message that are not in the batch: index n_batch_strings + i */
	const char *extra_room[32];
	uint32_t n_extra, *extra_index;
	uint32_t extra_index_room[32];
	struct out_attribute *attributes;
	uint32_t n_attributes, attributes_room;
	struct intern attribute_index;
	uint32_t *sample_attributes;       /* by attribute of the batch */
	uint32_t (*mapping_attributes)[3]; /* by mapping of the message */
	uint32_t frame_types[PROFILE_FRAME_TYPES], approximate;
	struct {
		uint32_t sample_type, sample_unit, period_type, period_unit;
	} types[PROFILE_TYPES];
};

static int remap_init(struct remap *m, uint32_t n)
{
	m->to = calloc((size_t)n + 1, sizeof(*m->to));
	m->from = calloc(
		(size_t)n + 1 + ARRAY_SIZE(((struct encoder *)0)->extra_room), sizeof(*m->from));
	m->n = 1;
	return m->to && m->from ? 0 : -ENOMEM;
}

/* Whether it was there already; *ret is the message's index. */
static bool remap_take(struct remap *m, uint32_t i, uint32_t *ret)
{
	bool known = i == 0 || m->to[i];

	if (!known) {
		m->from[m->n] = i;
		m->to[i] = m->n++;
	}
	*ret = m->to[i];
	return known;
}

static void encoder_deinit(struct encoder *e)
{
	struct remap *all[] = {&e->strings, &e->mappings, &e->functions, &e->locations, &e->stacks};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		free(all[i]->to);
		free(all[i]->from);
	}
	free(e->attributes);
	free(e->sample_attributes);
	free(e->mapping_attributes);
	intern_deinit(&e->attribute_index);
}

static int encoder_init(struct encoder *e, const struct batch *b)
{
	int r = 0;

	e->b = b;
	e->extra = e->extra_room;
	e->extra_index = e->extra_index_room;
	e->sample_attributes = calloc((size_t)b->attributes.n + 1, sizeof(*e->sample_attributes));
	e->mapping_attributes = calloc((size_t)b->mappings.n + 1, sizeof(*e->mapping_attributes));
	if (!e->sample_attributes || !e->mapping_attributes)
		r = -ENOMEM;
	if (r >= 0)
		r = remap_init(&e->strings, b->strings.n);
	if (r >= 0)
		r = remap_init(&e->mappings, b->mappings.n);
	if (r >= 0)
		r = remap_init(&e->functions, b->functions.n);
	if (r >= 0)
		r = remap_init(&e->locations, b->locations.n);
	if (r >= 0)
		r = remap_init(&e->stacks, b->stacks.n);
	return r;
}

static uint32_t take_string(struct encoder *e, uint32_t i)
{
	uint32_t at;

	remap_take(&e->strings, i, &at);
	return at;
}

#define FROM_EXTRA 0x80000000U

/* The message's index of a text of our own, which the batch may hold as well (a function may be called "cpu"). */
static int64_t take_text(struct encoder *e, const char *text)
{
	int64_t in_batch = *text ? batch_find_string(e->b, text) : 0;

	if (in_batch >= 0)
		return take_string(e, (uint32_t)in_batch);
	if (in_batch != -1)
		return in_batch;
	for (uint32_t i = 0; i < e->n_extra; i++) {
		if (streq(e->extra[i], text))
			return e->extra_index[i];
	}
	if (e->n_extra == ARRAY_SIZE(e->extra_room))
		return -E2BIG;
	e->extra[e->n_extra] = text;
	e->extra_index[e->n_extra] = e->strings.n;
	e->strings.from[e->strings.n] = FROM_EXTRA | e->n_extra++;
	return e->strings.n++;
}

static const char *out_string(const struct encoder *e, uint32_t i)
{
	uint32_t from = e->strings.from[i];

	return from & FROM_EXTRA ? e->extra[from & ~FROM_EXTRA] : e->b->strings.at[from];
}

static bool equal_attribute(const void *ctx, uint32_t at)
{
	const struct out_attribute *const *c = ctx, *a = &c[0][at], *x = c[1];

	return a->key == x->key && a->kind == x->kind &&
		(a->kind == ATTRIBUTE_STRING ? streq((const char *)(uintptr_t)a->value,
						       (const char *)(uintptr_t)x->value)
					     : a->value == x->value);
}

/* The index in attribute_table, which samples, mappings and locations share. */
static int64_t take_attribute(
	struct encoder *e, int64_t key, enum attribute_kind kind, uint64_t value, const char *text)
{
	struct out_attribute a = {
		(uint32_t)key, kind, kind == ATTRIBUTE_STRING ? (uintptr_t)text : value};
	const struct out_attribute *ctx[2] = {e->attributes, &a};
	uint64_t hashed[3] = {
		a.key, a.kind, kind == ATTRIBUTE_STRING ? hash_local(text, strlen(text)) : value};
	uint32_t hash = hash32(hashed, sizeof(hashed));
	int64_t found;
	int r;

	if (key < 0)
		return key;
	found = intern_find(&e->attribute_index, hash, equal_attribute, ctx);
	if (found >= 0)
		return found + 1;
	r = ARRAY_GROW(e->attributes, e->attributes_room, e->n_attributes, 1);
	if (r >= 0)
		r = intern_push(&e->attribute_index, hash);
	if (r < 0)
		return r;
	e->attributes[e->n_attributes] = a;
	return ++e->n_attributes;
}

/* Keeps a non-negative outcome in *ret. */
static int into(uint32_t *ret, int64_t at)
{
	if (at < 0)
		return (int)at;
	*ret = (uint32_t)at;
	return 0;
}

static const char *const frame_type_names[PROFILE_FRAME_TYPES] = PROFILE_FRAME_TYPE_NAMES;

static int use_mapping(struct encoder *e, uint32_t i)
{
	static const char *const keys[3] = {
		PROFILE_KEY_BUILD_ID, PROFILE_KEY_GO_BUILD_ID, PROFILE_KEY_HTLHASH};
	const struct profile_mapping *m = &e->b->mappings.at[i];
	const uint32_t values[3] = {m->build_id, m->go_build_id, m->htlhash};
	uint32_t at;
	int r = 0;

	if (remap_take(&e->mappings, i, &at))
		return 0;
	take_string(e, m->filename);
	for (size_t k = 0; k < 3 && r >= 0; k++) {
		if (values[k])
			r = into(&e->mapping_attributes[at][k],
				take_attribute(e, take_text(e, keys[k]), ATTRIBUTE_STRING, 0,
					e->b->strings.at[values[k]]));
	}
	return r;
}

static int use_location(struct encoder *e, uint32_t i)
{
	const struct profile_location *l = &e->b->locations.at[i];
	const struct profile_line *lines = e->b->lines + l->first_line;
	uint32_t at;
	int r;

	if (remap_take(&e->locations, i, &at))
		return 0;
	r = use_mapping(e, l->mapping);
	for (uint32_t k = 0; k < l->n_lines; k++) {
		const struct profile_function *f = &e->b->functions.at[lines[k].function];

		if (remap_take(&e->functions, lines[k].function, &at))
			continue;
		take_string(e, f->name);
		take_string(e, f->system_name);
		take_string(e, f->filename);
	}
	if (r >= 0 && l->frame_type && !e->frame_types[l->frame_type])
		r = into(&e->frame_types[l->frame_type],
			take_attribute(e, take_text(e, PROFILE_KEY_FRAME_TYPE), ATTRIBUTE_STRING, 0,
				frame_type_names[l->frame_type]));
	if (r >= 0 && l->approximate && !e->approximate)
		r = into(&e->approximate,
			take_attribute(
				e, take_text(e, PROFILE_KEY_APPROXIMATE), ATTRIBUTE_BOOL, 1, NULL));
	return r;
}

static int use_sample(struct encoder *e, const struct profile_sample *s)
{
	const struct profile_stack *stack = &e->b->stacks.at[s->stack];
	uint32_t at;
	int r = 0;

	if (!remap_take(&e->stacks, s->stack, &at)) {
		for (uint32_t i = 0; i < stack->n && r >= 0; i++)
			r = use_location(e, e->b->stack_locations[stack->first + i]);
	}
	for (size_t i = 0; i < 4 && s->attributes[i] && r >= 0; i++) {
		const struct profile_attribute *a = &e->b->attributes.at[s->attributes[i]];

		if (!e->sample_attributes[s->attributes[i]])
			r = into(&e->sample_attributes[s->attributes[i]],
				take_attribute(e, take_string(e, a->key),
					a->is_int ? ATTRIBUTE_INT : ATTRIBUTE_STRING,
					(uint64_t)a->number,
					a->is_int ? NULL : e->b->strings.at[a->value]));
	}
	return r;
}

static int use_part(struct encoder *e, const struct profile_part *p)
{
	const struct profile_type *type = &profile_types[p->type];
	int r = into(&e->types[p->type].sample_type, take_text(e, type->sample_type));

	if (r >= 0)
		r = into(&e->types[p->type].sample_unit, take_text(e, type->sample_unit));
	if (r >= 0)
		r = into(&e->types[p->type].period_type, take_text(e, type->period_type));
	if (r >= 0)
		r = into(&e->types[p->type].period_unit, take_text(e, type->period_unit));
	for (uint32_t i = 0; i < p->n_samples && r >= 0; i++)
		r = use_sample(e, &p->samples[i]);
	return r;
}

/* ---- the second pass: the dictionary, last table and last entry first --------------------------------------------- */

static void put_any_value(
	struct back *w, unsigned field, enum attribute_kind kind, uint64_t number, const char *text)
{
	size_t mark = used(w);

	/* A oneof is written even when it is zero: that it is set is what it says. */
	if (kind == ATTRIBUTE_STRING) {
		field_string(w, 1, text);
	} else {
		put_varint(w, number);
		put_tag(w, kind == ATTRIBUTE_BOOL ? 2 : 3, WIRE_VARINT);
	}
	field_message(w, field, mark);
}

/* repeated int32, packed; zeros are holes. */
static void put_indices(struct back *w, unsigned field, const uint32_t *list, size_t n)
{
	size_t mark = used(w);

	for (size_t i = n; i-- > 0;) {
		if (list[i])
			put_varint(w, list[i]);
	}
	if (used(w) != mark)
		field_message(w, field, mark);
}

static void put_location(struct encoder *e, struct back *w, const struct profile_location *l)
{
	const struct profile_line *lines = e->b->lines + l->first_line;
	uint32_t attributes[2] = {
		e->frame_types[l->frame_type], l->approximate ? e->approximate : 0};

	put_indices(w, 4, attributes, 2);
	for (uint32_t i = l->n_lines; i-- > 0;) {
		size_t mark = used(w);

		field_varint(w, 2, lines[i].line);
		field_varint(w, 1, e->functions.to[lines[i].function]);
		field_message(w, 3, mark);
	}
	field_varint(w, 2, l->address);
	field_varint(w, 1, e->mappings.to[l->mapping]);
}

static void put_code_tables(struct encoder *e, struct back *w)
{
	size_t mark;

	for (uint32_t i = e->functions.n; i-- > 0;) {
		const struct profile_function *f = &e->b->functions.at[e->functions.from[i]];

		mark = used(w);
		field_varint(w, 4, f->start_line);
		field_varint(w, 3, e->strings.to[f->filename]);
		field_varint(w, 2, e->strings.to[f->system_name]);
		field_varint(w, 1, e->strings.to[f->name]);
		field_message(w, 3, mark);
	}
	for (uint32_t i = e->locations.n; i-- > 0;) {
		mark = used(w);
		if (i)
			put_location(e, w, &e->b->locations.at[e->locations.from[i]]);
		field_message(w, 2, mark);
	}
	for (uint32_t i = e->mappings.n; i-- > 0;) {
		const struct profile_mapping *m = &e->b->mappings.at[e->mappings.from[i]];

		mark = used(w);
		put_indices(w, 5, e->mapping_attributes[i], 3);
		field_varint(w, 4, e->strings.to[m->filename]);
		field_varint(w, 3, m->file_offset);
		field_varint(w, 2, m->limit);
		field_varint(w, 1, m->start);
		field_message(w, 1, mark);
	}
}

static void put_dictionary(struct encoder *e, struct back *w)
{
	size_t whole = used(w), mark;

	for (uint32_t i = e->stacks.n; i-- > 0;) {
		const struct profile_stack *s = &e->b->stacks.at[e->stacks.from[i]];
		size_t packed;

		mark = used(w);
		packed = used(w);
		for (uint32_t l = s->n; l-- > 0;)
			put_varint(w, e->locations.to[e->b->stack_locations[s->first + l]]);
		if (used(w) != packed)
			field_message(w, 1, packed);
		field_message(w, 7, mark);
	}
	for (uint32_t i = e->n_attributes + 1; i-- > 0;) {
		mark = used(w);
		if (i) {
			const struct out_attribute *a = &e->attributes[i - 1];

			put_any_value(w, 2, a->kind, a->value, (const char *)(uintptr_t)a->value);
			field_varint(w, 1, a->key);
		}
		field_message(w, 6, mark);
	}
	for (uint32_t i = e->strings.n; i-- > 0;)
		field_string(w, 5, i ? out_string(e, i) : "");
	field_message(w, 4, used(w)); /* the zero link: empty */
	put_code_tables(e, w);
	field_message(w, 2, whole);
}

/* ---- the profiles ------------------------------------------------------------------------------------------------------ */

static void put_sample(struct encoder *e, struct back *w, const struct profile_sample *s)
{
	uint32_t attributes[4] = {0};
	size_t whole = used(w), mark = used(w);

	if (s->n_timestamps) {
		const uint64_t *t = e->b->timestamps + s->first_timestamp;

		for (uint32_t i = s->n_timestamps; i-- > 0;) {
			uint8_t le[8];

			for (size_t k = 0; k < 8; k++)
				le[k] = (uint8_t)(t[i] >> 8 * k);
			put_bytes(w, le, sizeof(le));
		}
		field_message(w, 5, mark);
	} else {
		put_varint(w, s->value);
		field_message(w, 4, mark);
	}
	for (size_t i = 0; i < 4 && s->attributes[i]; i++)
		attributes[i] = e->sample_attributes[s->attributes[i]];
	put_indices(w, 2, attributes, 4);
	field_varint(w, 1, e->stacks.to[s->stack]);
	field_message(w, 2, whole);
}

static void put_value_type(struct back *w, unsigned field, uint32_t type, uint32_t unit)
{
	size_t mark = used(w);

	field_varint(w, 2, unit);
	field_varint(w, 1, type);
	field_message(w, field, mark);
}

/* Two SipHash keys, for the two halves of an id. Part of the format: a repeat is recognised by any process, and
 * by any version, because they never change. */
static const struct hash_key id_keys[2] = {
	{{0x6f64692070726f66ULL, 0x696c652069642031ULL}},
	{{0x6f64692070726f66ULL, 0x696c652069642032ULL}},
};

int profile_id(const struct batch_header *header, uint32_t part, uint8_t id[16])
{
	uint8_t seed[28];

	if (!header)
		return getrandom(id, 16, 0) == 16 ? 0 : -EIO;
	memcpy(seed, header->boot_id, 16);
	for (size_t i = 0; i < 8; i++)
		seed[16 + i] = (uint8_t)(header->serial >> 8 * i);
	for (size_t i = 0; i < 4; i++)
		seed[24 + i] = (uint8_t)(part >> 8 * i);
	for (size_t h = 0; h < 2; h++) {
		uint64_t x = hash_bytes(&id_keys[h], seed, sizeof(seed));

		for (size_t i = 0; i < 8; i++)
			id[8 * h + i] = (uint8_t)(x >> 8 * i);
	}
	return 0;
}

static void put_profile(
	struct encoder *e, struct back *w, const struct batch_header *header, uint32_t index)
{
	static const uint8_t none[16];
	const struct profile_part *p = &e->b->parts.at[index];
	size_t mark = used(w);
	uint8_t id[16];
	int r = 0;

	if (memcmp(p->id, none, sizeof(none)) != 0)
		memcpy(id, p->id, sizeof(id));
	else
		r = profile_id(header, index, id);
	if (r < 0) {
		w->failed = r;
		return;
	}
	field_bytes(w, 7, id, sizeof(id));
	field_varint(w, 6, p->period);
	put_value_type(w, 5, e->types[p->type].period_type, e->types[p->type].period_unit);
	field_varint(w, 4, p->duration_ns);
	field_fixed64(w, 3, p->time_unix_ns);
	for (uint32_t i = p->n_samples; i-- > 0;)
		put_sample(e, w, &p->samples[i]);
	put_value_type(w, 1, e->types[p->type].sample_type, e->types[p->type].sample_unit);
	field_message(w, 2, mark);
}

/* One ResourceProfiles: all chosen parts of a resource. */
static void put_resource(struct encoder *e, struct back *w, const struct batch_header *header,
	uint32_t resource, const uint32_t *parts, size_t n)
{
	const struct profile_resource *r = &e->b->resources.at[resource];
	size_t whole = used(w), mark = used(w), inner;

	for (size_t i = n; i-- > 0;)
		put_profile(e, w, header, parts[i]);
	inner = used(w);
	field_string(w, 2, ODI_VERSION);
	field_string(w, 1, PROFILE_SCOPE_NAME);
	field_message(w, 1, inner);
	field_message(w, 2, mark); /* scope_profiles */
	mark = used(w);
	for (uint32_t i = r->n; i-- > 0;) {
		const struct profile_resource_attribute *a =
			&e->b->resource_attributes[r->first + i];

		inner = used(w);
		put_any_value(w, 2, a->is_int ? ATTRIBUTE_INT : ATTRIBUTE_STRING,
			(uint64_t)a->number, a->is_int ? NULL : e->b->strings.at[a->value]);
		field_string(w, 1, e->b->strings.at[a->key]);
		field_message(w, 1, inner);
	}
	field_message(w, 1, mark); /* resource: always there, even if empty */
	field_message(w, 1, whole);
}

/* The chosen parts, ordered by resource and then as given (a counting sort). */
static int order_parts(const struct batch *b, const uint32_t *parts, size_t n, uint32_t **ret)
{
	_cleanup_free_ uint32_t *start = calloc((size_t)b->resources.n + 1, sizeof(*start));
	uint32_t *order = calloc(n + 1, sizeof(*order));

	if (!start || !order) {
		free(order);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		start[b->parts.at[parts ? parts[i] : i].resource + 1]++;
	for (uint32_t i = 0; i < b->resources.n; i++)
		start[i + 1] += start[i];
	for (size_t i = 0; i < n; i++) {
		uint32_t p = parts ? parts[i] : (uint32_t)i;

		order[start[b->parts.at[p].resource]++] = p;
	}
	*ret = order;
	return 0;
}

int profile_encode(const struct batch *b, const struct batch_header *header, const uint32_t *parts,
	size_t n_parts, struct buf *out)
{
	CLEANUP(encoder_deinit) struct encoder e = {0};
	CLEANUP(back_deinit) struct back w = {0};
	_cleanup_free_ uint32_t *order = NULL;
	size_t n = parts ? n_parts : b->parts.n;
	int r = encoder_init(&e, b);

	for (size_t i = 0; parts && i < n; i++) {
		if (parts[i] >= b->parts.n)
			return -EINVAL;
	}
	if (r >= 0)
		r = order_parts(b, parts, n, &order);
	for (size_t i = 0; i < n && r >= 0; i++)
		r = use_part(&e, &b->parts.at[order[i]]);
	if (r < 0)
		return r;
	put_dictionary(&e, &w);
	for (size_t end = n; end > 0 && !w.failed;) {
		uint32_t resource = b->parts.at[order[end - 1]].resource;
		size_t first = end;

		while (first > 0 && b->parts.at[order[first - 1]].resource == resource)
			first--;
		put_resource(&e, &w, header, resource, order + first, end - first);
		end = first;
	}
	if (w.failed)
		return w.failed;
	if (used(&w) > PROFILE_MAX_ENCODED)
		return -E2BIG;
	buf_add(out, w.data + w.at, used(&w));
	return buf_error(out);
}

int profile_encode_empty(const char *service, uint64_t now_unix_ns, struct buf *out)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct profile_resource_attribute a = {0};
	struct profile_part *part = NULL;
	int64_t key, value, resource;
	int r = batch_new(&b);

	if (r < 0)
		return r;
	key = batch_string(b, "service.name");
	value = batch_string(b, service);
	if (key < 0 || value < 0)
		return (int)MIN(key, value);
	a.key = (uint32_t)key;
	a.value = (uint32_t)value;
	resource = batch_resource(b, &a, 1);
	if (resource < 0)
		return (int)resource;
	r = batch_part(b, (uint32_t)resource, 0, NSEC_PER_SEC / 99, now_unix_ns, 0, &part);
	return r < 0 ? r : profile_encode(b, NULL, NULL, 0, out);
}
