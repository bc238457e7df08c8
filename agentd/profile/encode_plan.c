/* SPDX-License-Identifier: Apache-2.0 */

/* The encoder's first pass: walks from the samples of the chosen parts to what they use and
 * gives each entry its index in the message, in order of first use. What nobody uses gets none,
 * so the dictionary has no orphans, whatever the selection; what is there twice (a text of the
 * codec that a function is called by as well) gets one, so it has no duplicates. Attributes of
 * samples, mappings and locations share one table. agentd and exporter. */

#include "agentd/profile/encode_plan.h"

static int remap_init(struct remap *m, uint32_t n)
{
	m->to = calloc((size_t)n + 1, sizeof(*m->to));
	m->from =
		calloc((size_t)n + 1 + ARRAY_SIZE(((struct encoder *)0)->extra), sizeof(*m->from));
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

void encoder_deinit(struct encoder *e)
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

int encoder_init(struct encoder *e, const struct batch *b)
{
	int r = 0;

	e->b = b;
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

uint32_t encoder_take_string(struct encoder *e, uint32_t i)
{
	uint32_t at;

	remap_take(&e->strings, i, &at);
	return at;
}

#define FROM_EXTRA 0x80000000U

/* The message's index of a text of our own, which the batch may hold as well (a function may be
 * called "cpu"). */
int64_t encoder_take_text(struct encoder *e, const char *text)
{
	int64_t in_batch = *text ? batch_find_string(e->b, text) : 0;

	if (in_batch >= 0)
		return encoder_take_string(e, (uint32_t)in_batch);
	if (in_batch != -1)
		return in_batch;
	for (uint32_t i = 0; i < e->n_extra; i++) {
		if (streq(e->extra[i], text))
			return e->extra_index[i];
	}
	if (e->n_extra == ARRAY_SIZE(e->extra))
		return -E2BIG;
	e->extra[e->n_extra] = text;
	e->extra_index[e->n_extra] = e->strings.n;
	e->strings.from[e->strings.n] = FROM_EXTRA | e->n_extra++;
	return e->strings.n++;
}

const char *encoder_string(const struct encoder *e, uint32_t i)
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
	encoder_take_string(e, m->filename);
	for (size_t k = 0; k < 3 && r >= 0; k++) {
		if (values[k])
			r = into(&e->mapping_attributes[at][k],
				take_attribute(e, encoder_take_text(e, keys[k]), ATTRIBUTE_STRING,
					0, e->b->strings.at[values[k]]));
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
		encoder_take_string(e, f->name);
		encoder_take_string(e, f->system_name);
		encoder_take_string(e, f->filename);
	}
	if (r >= 0 && l->frame_type && !e->frame_types[l->frame_type])
		r = into(&e->frame_types[l->frame_type],
			take_attribute(e, encoder_take_text(e, PROFILE_KEY_FRAME_TYPE),
				ATTRIBUTE_STRING, 0, frame_type_names[l->frame_type]));
	if (r >= 0 && l->approximate && !e->approximate)
		r = into(&e->approximate,
			take_attribute(e, encoder_take_text(e, PROFILE_KEY_APPROXIMATE),
				ATTRIBUTE_BOOL, 1, NULL));
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
				take_attribute(e, encoder_take_string(e, a->key),
					a->is_int ? ATTRIBUTE_INT : ATTRIBUTE_STRING,
					(uint64_t)a->number,
					a->is_int ? NULL : e->b->strings.at[a->value]));
	}
	return r;
}

int encoder_use_part(struct encoder *e, const struct profile_part *p)
{
	const struct profile_type *type = &profile_types[p->type];
	int r = into(&e->types[p->type].sample_type, encoder_take_text(e, type->sample_type));

	if (r >= 0)
		r = into(&e->types[p->type].sample_unit, encoder_take_text(e, type->sample_unit));
	if (r >= 0)
		r = into(&e->types[p->type].period_type, encoder_take_text(e, type->period_type));
	if (r >= 0)
		r = into(&e->types[p->type].period_unit, encoder_take_text(e, type->period_unit));
	for (uint32_t i = 0; i < p->n_samples && r >= 0; i++)
		r = use_sample(e, &p->samples[i]);
	return r;
}
