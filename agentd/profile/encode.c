/* SPDX-License-Identifier: Apache-2.0 */

/* The hot half of the codec: a batch as the bytes of an OTLP ExportProfilesServiceRequest. Runs
 * in agentd once an interval and in the exporter once a destination's shape.
 *
 * Written directly and not through protobuf-c: its tree of pointers costs about ten times the
 * bytes it makes, in the process that has 40 MB for everything. The message is written from its
 * end to its start, so that each length is known when its prefix is due, without a pass that
 * computes sizes.
 *
 * Two passes. The first walks from the samples of the chosen parts to what they use and gives
 * each entry its new index, in order of first use: the dictionary has no orphans, whatever the
 * selection. The second writes. The zero entries are empty messages (link_table[0] as well:
 * Parca refuses 16 zero bytes); strings are inline in resources (KeyValue.key_strindex is not
 * known to all receivers); sample_type, period_type, period and scope are always there.
 *
 * Source: opentelemetry-proto v1.10, profiles.proto; the numbers are those of
 * agentd/wire/otlp.proto. */

#include <sys/random.h>

#include "agentd/profile/back.h"
#include "agentd/profile/encode_plan.h"

/* ---- the second pass: the dictionary, last table and last entry first ---- */

static void put_any_value(
	struct back *w, unsigned field, enum attribute_kind kind, uint64_t number, const char *text)
{
	size_t mark = back_used(w);

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
	size_t mark = back_used(w);

	for (size_t i = n; i-- > 0;) {
		if (list[i])
			put_varint(w, list[i]);
	}
	if (back_used(w) != mark)
		field_message(w, field, mark);
}

static void put_location(struct encoder *e, struct back *w, const struct profile_location *l)
{
	const struct profile_line *lines = e->b->lines + l->first_line;
	uint32_t attributes[2] = {
		e->frame_types[l->frame_type], l->approximate ? e->approximate : 0};

	put_indices(w, 4, attributes, 2);
	for (uint32_t i = l->n_lines; i-- > 0;) {
		size_t mark = back_used(w);

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

		mark = back_used(w);
		field_varint(w, 4, f->start_line);
		field_varint(w, 3, e->strings.to[f->filename]);
		field_varint(w, 2, e->strings.to[f->system_name]);
		field_varint(w, 1, e->strings.to[f->name]);
		field_message(w, 3, mark);
	}
	for (uint32_t i = e->locations.n; i-- > 0;) {
		mark = back_used(w);
		if (i)
			put_location(e, w, &e->b->locations.at[e->locations.from[i]]);
		field_message(w, 2, mark);
	}
	for (uint32_t i = e->mappings.n; i-- > 0;) {
		const struct profile_mapping *m = &e->b->mappings.at[e->mappings.from[i]];

		mark = back_used(w);
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
	size_t whole = back_used(w), mark;

	for (uint32_t i = e->stacks.n; i-- > 0;) {
		const struct profile_stack *s = &e->b->stacks.at[e->stacks.from[i]];
		size_t packed;

		mark = back_used(w);
		packed = back_used(w);
		for (uint32_t l = s->n; l-- > 0;)
			put_varint(w, e->locations.to[e->b->stack_locations[s->first + l]]);
		if (back_used(w) != packed)
			field_message(w, 1, packed);
		field_message(w, 7, mark);
	}
	for (uint32_t i = e->n_attributes + 1; i-- > 0;) {
		mark = back_used(w);
		if (i) {
			const struct out_attribute *a = &e->attributes[i - 1];

			put_any_value(w, 2, a->kind, a->value, (const char *)(uintptr_t)a->value);
			field_varint(w, 1, a->key);
		}
		field_message(w, 6, mark);
	}
	for (uint32_t i = e->strings.n; i-- > 0;)
		field_string(w, 5, i ? encoder_string(e, i) : "");
	field_message(w, 4, back_used(w)); /* the zero link: empty */
	put_code_tables(e, w);
	field_message(w, 2, whole);
}

/* ---- the profiles ---- */

static void put_sample(struct encoder *e, struct back *w, const struct profile_sample *s)
{
	uint32_t attributes[4] = {0};
	size_t whole = back_used(w), mark = back_used(w);

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
	size_t mark = back_used(w);

	field_varint(w, 2, unit);
	field_varint(w, 1, type);
	field_message(w, field, mark);
}

/* Two SipHash keys, for the two halves of an id. Part of the format: a repeat is recognised by
 * any process, and by any version, because they never change. */
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
	size_t mark = back_used(w);
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
	size_t whole = back_used(w), mark = back_used(w), inner;

	for (size_t i = n; i-- > 0;)
		put_profile(e, w, header, parts[i]);
	inner = back_used(w);
	field_string(w, 2, ODI_VERSION);
	field_string(w, 1, PROFILE_SCOPE_NAME);
	field_message(w, 1, inner);
	field_message(w, 2, mark); /* scope_profiles */
	mark = back_used(w);
	for (uint32_t i = r->n; i-- > 0;) {
		const struct profile_resource_attribute *a =
			&e->b->resource_attributes[r->first + i];

		inner = back_used(w);
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
		r = encoder_use_part(&e, &b->parts.at[order[i]]);
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
	if (back_used(&w) > PROFILE_MAX_ENCODED)
		return -E2BIG;
	buf_add(out, w.data + w.at, back_used(&w));
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
