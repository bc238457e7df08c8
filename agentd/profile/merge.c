/* SPDX-License-Identifier: Apache-2.0 */

/* Copying parts from one batch into another: how intervals become longer ones, in the exporter
 * (upload-interval) and in the reader (roll-ups). Each table entry of the source is interned
 * into the destination once and remembered, so the cost is that of the dictionary plus one
 * look-up a sample. Values are conserved exactly; a part whose time is replaced gives up its
 * timestamps and keeps their number as its count. */

#include "agentd/profile/batch_private.h"

#define UNKNOWN UINT32_MAX

static uint32_t *unknowns(uint32_t n)
{
	uint32_t *p = malloc(((size_t)n + 1) * sizeof(*p));

	if (p)
		memset(p, 0xff, ((size_t)n + 1) * sizeof(*p));
	return p;
}

int merge_init(struct merge *m, struct batch *dst, const struct batch *src)
{
	*m = (struct merge){.dst = dst, .src = src};
	m->strings = unknowns(src->strings.n);
	m->mappings = unknowns(src->mappings.n);
	m->functions = unknowns(src->functions.n);
	m->locations = unknowns(src->locations.n);
	m->stacks = unknowns(src->stacks.n);
	m->attributes = unknowns(src->attributes.n);
	m->resources = unknowns(src->resources.n);
	if (m->strings && m->mappings && m->functions && m->locations && m->stacks &&
		m->attributes && m->resources)
		return 0;
	merge_deinit(m);
	return -ENOMEM;
}

void merge_deinit(struct merge *m)
{
	free(m->strings);
	free(m->mappings);
	free(m->functions);
	free(m->locations);
	free(m->stacks);
	free(m->attributes);
	free(m->resources);
	free(m->scratch);
	free(m->lines);
	*m = (struct merge){0};
}

/* Each of these returns the index in dst, or -errno. */
static int64_t keep(uint32_t *map, uint32_t i, int64_t at)
{
	if (at >= 0)
		map[i] = (uint32_t)at;
	return at;
}

static int64_t merge_string(struct merge *m, uint32_t i)
{
	if (m->strings[i] != UNKNOWN)
		return m->strings[i];
	return keep(m->strings, i, batch_string(m->dst, m->src->strings.at[i]));
}

static int64_t merge_mapping(struct merge *m, uint32_t i)
{
	struct profile_mapping copy = m->src->mappings.at[i];
	uint32_t *fields[] = {&copy.filename, &copy.build_id, &copy.go_build_id, &copy.htlhash};

	if (m->mappings[i] != UNKNOWN)
		return m->mappings[i];
	for (size_t f = 0; f < ARRAY_SIZE(fields); f++) {
		int64_t s = merge_string(m, *fields[f]);

		if (s < 0)
			return s;
		*fields[f] = (uint32_t)s;
	}
	return keep(m->mappings, i, batch_mapping(m->dst, &copy));
}

static int64_t merge_function(struct merge *m, uint32_t i)
{
	struct profile_function copy = m->src->functions.at[i];
	uint32_t *fields[] = {&copy.name, &copy.system_name, &copy.filename};

	if (m->functions[i] != UNKNOWN)
		return m->functions[i];
	for (size_t f = 0; f < ARRAY_SIZE(fields); f++) {
		int64_t s = merge_string(m, *fields[f]);

		if (s < 0)
			return s;
		*fields[f] = (uint32_t)s;
	}
	return keep(m->functions, i, batch_function(m->dst, &copy));
}

static int64_t merge_location(struct merge *m, uint32_t i)
{
	struct profile_location copy = m->src->locations.at[i];
	const struct profile_line *lines = m->src->lines + copy.first_line;
	int64_t at = merge_mapping(m, copy.mapping);
	int r;

	if (m->locations[i] != UNKNOWN)
		return m->locations[i];
	if (at < 0)
		return at;
	copy.mapping = (uint32_t)at;
	r = ARRAY_GROW(m->lines, m->lines_room, 0, copy.n_lines);
	if (r < 0)
		return r;
	for (uint32_t l = 0; l < copy.n_lines; l++) {
		at = merge_function(m, lines[l].function);
		if (at < 0)
			return at;
		m->lines[l] = (struct profile_line){(uint32_t)at, lines[l].line};
	}
	return keep(m->locations, i, batch_location(m->dst, &copy, m->lines));
}

static int64_t merge_stack(struct merge *m, uint32_t i)
{
	const struct profile_stack *s = &m->src->stacks.at[i];
	const uint32_t *locations = m->src->stack_locations + s->first;
	int r;

	if (m->stacks[i] != UNKNOWN)
		return m->stacks[i];
	r = ARRAY_GROW(m->scratch, m->scratch_room, 0, s->n);
	if (r < 0)
		return r;
	for (uint32_t l = 0; l < s->n; l++) {
		int64_t at = merge_location(m, locations[l]);

		if (at < 0)
			return at;
		m->scratch[l] = (uint32_t)at;
	}
	return keep(m->stacks, i, batch_stack(m->dst, m->scratch, s->n));
}

static int64_t merge_attribute(struct merge *m, uint32_t i)
{
	struct profile_attribute copy = m->src->attributes.at[i];
	int64_t key, value;

	if (m->attributes[i] != UNKNOWN)
		return m->attributes[i];
	key = merge_string(m, copy.key);
	value = copy.is_int ? 0 : merge_string(m, copy.value);
	if (key < 0 || value < 0)
		return MIN(key, value);
	copy.key = (uint32_t)key;
	copy.value = (uint32_t)value;
	return keep(m->attributes, i, batch_attribute(m->dst, &copy));
}

static int64_t merge_resource(struct merge *m, uint32_t i)
{
	const struct profile_resource *r = &m->src->resources.at[i];
	const struct profile_resource_attribute *from = m->src->resource_attributes + r->first;
	_cleanup_free_ struct profile_resource_attribute *list = NULL;

	if (m->resources[i] != UNKNOWN)
		return m->resources[i];
	list = calloc((size_t)r->n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (uint32_t a = 0; a < r->n; a++) {
		int64_t key = merge_string(m, from[a].key);
		int64_t value = from[a].is_int ? 0 : merge_string(m, from[a].value);

		if (key < 0 || value < 0)
			return MIN(key, value);
		list[a] = from[a];
		list[a].key = (uint32_t)key;
		list[a].value = (uint32_t)value;
	}
	return keep(m->resources, i, batch_resource(m->dst, list, r->n));
}

static int merge_sample(struct merge *m, size_t to, const struct profile_sample *s, bool retimed)
{
	uint32_t attributes[4] = {0};
	int64_t stack = merge_stack(m, s->stack);

	if (stack < 0)
		return (int)stack;
	for (size_t i = 0; i < 4 && s->attributes[i]; i++) {
		int64_t at = merge_attribute(m, s->attributes[i]);

		if (at < 0)
			return (int)at;
		attributes[i] = (uint32_t)at;
	}
	if (s->n_timestamps && !retimed)
		return batch_add_timestamps(m->dst, &m->dst->parts.at[to], (uint32_t)stack,
			attributes, m->src->timestamps + s->first_timestamp, s->n_timestamps);
	return batch_add(m->dst, &m->dst->parts.at[to], (uint32_t)stack, attributes,
		s->value + s->n_timestamps);
}

int merge_part(struct merge *m, size_t part, uint64_t time_unix_ns, uint64_t duration_ns)
{
	const struct profile_part *from = &m->src->parts.at[part];
	bool retimed = duration_ns != 0;
	struct profile_part *to = NULL;
	int64_t resource = merge_resource(m, from->resource);
	size_t at;
	int r;

	if (resource < 0)
		return (int)resource;
	r = batch_part(m->dst, (uint32_t)resource, from->type, from->period,
		retimed ? time_unix_ns : from->time_unix_ns,
		retimed ? duration_ns : from->duration_ns, &to);
	if (r < 0)
		return r;
	if (!retimed && !to->n_samples)
		memcpy(to->id, from->id, sizeof(to->id));
	else
		memset(to->id, 0, sizeof(to->id)); /* no longer what that id named */
	at = (size_t)(to - m->dst->parts.at);
	for (uint32_t i = 0; i < from->n_samples; i++) {
		r = merge_sample(m, at, &from->samples[i], retimed);
		if (r < 0)
			return r;
	}
	return 0;
}

int batch_merge(
	struct batch *dst, const struct batch *src, uint64_t time_unix_ns, uint64_t duration_ns)
{
	CLEANUP(merge_deinit) struct merge m = {0};
	int r = merge_init(&m, dst, src);

	for (uint32_t i = 0; r >= 0 && i < src->parts.n; i++)
		r = merge_part(&m, i, time_unix_ns, duration_ns);
	return r;
}
