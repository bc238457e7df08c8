/* SPDX-License-Identifier: Apache-2.0 */

/* The pprof encoder, on the same two passes as the OTLP one: the plan gives everything that the
 * chosen parts use its index, and the message is written from its end to its start. Indices of
 * the plan are pprof's ids, since both begin at 1 and string 0 is "" (but for mappings: the
 * main program's becomes the first).
 *
 * What readers expect beyond the schema: the main program's mapping comes first; addresses are
 * in the ELF file's own address space and mappings say so by start and offset; and a mapping
 * whose locations have functions says that it has, so that no tool symbolizes again. Go's
 * profile-guided optimisation needs start lines and names as the linker writes them, which is
 * how names of Go functions are anyway.
 *
 * Runs in the exporter and the reader. Source: pprof's proto/profile.proto and
 * cmd/internal/pgo of Go. */

#include "agentd/profile/back.h"
#include "agentd/profile/encode_plan.h"
#include "agentd/profile/pprof.h"

struct pprof {
	struct encoder plan;
	struct pprof_options options;
	uint32_t types[2][2]; /* type and unit of both values, strings */
	unsigned n_values;
	uint32_t main; /* mapping of the message that comes first; 0 none */
	bool *named;   /* by mapping of the message: locations of it have functions */
	uint64_t *weight;
	uint32_t text_approximate, text_true;
};

static void pprof_deinit(struct pprof *p)
{
	encoder_deinit(&p->plan);
	free(p->named);
	free(p->weight);
}

/* ---- the first pass ---- */

static uint32_t id_of(const struct profile_mapping *m)
{
	return m->build_id ? m->build_id : m->go_build_id ? m->go_build_id : m->htlhash;
}

static int keep(uint32_t *ret, int64_t at)
{
	if (at < 0)
		return (int)at;
	*ret = (uint32_t)at;
	return 0;
}

static int use_types(struct pprof *p, unsigned index)
{
	const struct profile_type *type = &profile_types[index];
	const char *texts[2][2] = {
		{type->sample_type, type->sample_unit}, {type->period_type, type->period_unit}};
	int r = 0;

	p->n_values = *type->period_type ? 2 : 1;
	for (size_t i = 0; i < 4 && r >= 0; i++)
		r = keep(&p->types[i / 2][i % 2], encoder_take_text(&p->plan, texts[i / 2][i % 2]));
	return r;
}

static void use_labels(struct pprof *p, const struct profile_part *part)
{
	const struct batch *b = p->plan.b;
	const struct profile_resource *resource = &b->resources.at[part->resource];

	for (uint32_t i = 0; p->options.flags & PPROF_RESOURCE_LABELS && i < resource->n; i++) {
		const struct profile_resource_attribute *a =
			&b->resource_attributes[resource->first + i];

		encoder_take_string(&p->plan, a->key);
		if (!a->is_int)
			encoder_take_string(&p->plan, a->value);
	}
	for (uint32_t i = 0; i < part->n_samples; i++) {
		const struct profile_sample *s = &part->samples[i];

		for (size_t k = 0; k < 4 && s->attributes[k]; k++) {
			const struct profile_attribute *a = &b->attributes.at[s->attributes[k]];

			encoder_take_string(&p->plan, a->key);
			if (!a->is_int)
				encoder_take_string(&p->plan, a->value);
		}
	}
}

/* How likely a mapping is the main program's: by its samples, of those that are neither a
 * library nor the kernel. */
static void weigh(struct pprof *p, const struct profile_part *part)
{
	const struct batch *b = p->plan.b;

	for (uint32_t i = 0; i < part->n_samples; i++) {
		const struct profile_sample *s = &part->samples[i];
		const struct profile_stack *stack = &b->stacks.at[s->stack];

		for (uint32_t k = 0; k < stack->n; k++) {
			const struct profile_location *l =
				&b->locations.at[b->stack_locations[stack->first + k]];
			uint32_t mapping = p->plan.mappings.to[l->mapping];
			bool program = l->frame_type != PROFILE_FRAME_KERNEL &&
				l->frame_type != PROFILE_FRAME_UNKNOWN;

			p->named[mapping] |= l->n_lines > 0;
			if (program)
				p->weight[mapping] += s->value + s->n_timestamps;
		}
	}
}

static bool is_program(const char *path)
{
	return path[0] == '/' && !strstr(path, ".so.") &&
		(strlen(path) < 3 || !streq(path + strlen(path) - 3, ".so"));
}

static void choose_main(struct pprof *p)
{
	const struct encoder *e = &p->plan;
	uint64_t best = 0;

	for (uint32_t i = 1; i < e->mappings.n; i++) {
		const struct profile_mapping *m = &e->b->mappings.at[e->mappings.from[i]];

		if (p->weight[i] > best && is_program(e->b->strings.at[m->filename])) {
			best = p->weight[i];
			p->main = i;
		}
	}
}

static int plan(struct pprof *p, const uint32_t *parts, size_t n)
{
	const struct batch *b = p->plan.b;
	bool approximate = false;
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i++) {
		const struct profile_part *part = &b->parts.at[parts ? parts[i] : i];

		if (!i)
			r = use_types(p, part->type);
		else if (part->type != b->parts.at[parts ? parts[0] : 0].type)
			r = -EINVAL;
		if (r >= 0)
			r = encoder_use_part(&p->plan, part);
		if (r >= 0)
			use_labels(p, part);
	}
	/* The plan has them as attributes, not as strings. */
	for (uint32_t i = 1; r >= 0 && i < p->plan.mappings.n; i++)
		encoder_take_string(&p->plan, id_of(&b->mappings.at[p->plan.mappings.from[i]]));
	for (uint32_t i = 1; i < p->plan.locations.n; i++)
		approximate |= b->locations.at[p->plan.locations.from[i]].approximate;
	if (r >= 0 && approximate)
		r = keep(
			&p->text_approximate, encoder_take_text(&p->plan, PROFILE_KEY_APPROXIMATE));
	if (r >= 0 && approximate)
		r = keep(&p->text_true, encoder_take_text(&p->plan, "true"));
	if (r < 0)
		return r;
	p->named = calloc(p->plan.mappings.n, sizeof(*p->named));
	p->weight = calloc(p->plan.mappings.n, sizeof(*p->weight));
	if (!p->named || !p->weight)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		weigh(p, &b->parts.at[parts ? parts[i] : i]);
	choose_main(p);
	return 0;
}

/* ---- the second pass: fields and entries, last first ---- */

/* Ids go up in the order of the entries (Parca refuses a profile where they do not), and the main program's is first. */
static uint32_t mapping_id(const struct pprof *p, uint32_t i)
{
	return i == p->main ? 1 : i && i < p->main ? i + 1 : i;
}

static void put_value_type(struct back *w, unsigned field, const uint32_t type[2])
{
	size_t mark = back_used(w);

	field_varint(w, 2, type[1]);
	field_varint(w, 1, type[0]);
	field_message(w, field, mark);
}

static void put_functions(const struct pprof *p, struct back *w)
{
	const struct encoder *e = &p->plan;

	for (uint32_t i = e->functions.n; i-- > 1;) {
		const struct profile_function *f = &e->b->functions.at[e->functions.from[i]];
		size_t mark = back_used(w);

		field_varint(w, 5, f->start_line);
		field_varint(w, 4, e->strings.to[f->filename]);
		field_varint(w, 3, e->strings.to[f->system_name ? f->system_name : f->name]);
		field_varint(w, 2, e->strings.to[f->name]);
		field_varint(w, 1, i);
		field_message(w, 5, mark);
	}
}

static void put_locations(const struct pprof *p, struct back *w)
{
	const struct encoder *e = &p->plan;

	for (uint32_t i = e->locations.n; i-- > 1;) {
		const struct profile_location *l = &e->b->locations.at[e->locations.from[i]];
		const struct profile_line *lines = e->b->lines + l->first_line;
		size_t mark = back_used(w), inner;

		for (uint32_t k = l->n_lines; k-- > 0;) {
			inner = back_used(w);
			field_varint(w, 2, lines[k].line);
			field_varint(w, 1, e->functions.to[lines[k].function]);
			field_message(w, 4, inner);
		}
		field_varint(w, 3, l->address);
		field_varint(w, 2, mapping_id(p, e->mappings.to[l->mapping]));
		field_varint(w, 1, i);
		field_message(w, 4, mark);
	}
}

static void put_mapping(const struct pprof *p, struct back *w, uint32_t i)
{
	const struct encoder *e = &p->plan;
	const struct profile_mapping *m = &e->b->mappings.at[e->mappings.from[i]];
	size_t mark = back_used(w);

	if (p->named[i]) {
		field_varint(w, 10, 1); /* inlined frames */
		field_varint(w, 9, 1);  /* line numbers */
		field_varint(w, 8, 1);  /* file names */
		field_varint(w, 7, 1);  /* functions */
	}
	field_varint(w, 6, e->strings.to[id_of(m)]);
	field_varint(w, 5, e->strings.to[m->filename]);
	field_varint(w, 4, m->file_offset);
	field_varint(w, 3, m->limit);
	field_varint(w, 2, m->start);
	field_varint(w, 1, mapping_id(p, i));
	field_message(w, 3, mark);
}

static void put_mappings(const struct pprof *p, struct back *w)
{
	for (uint32_t i = p->plan.mappings.n; i-- > 1;) {
		if (i != p->main)
			put_mapping(p, w, i);
	}
	if (p->main)
		put_mapping(p, w, p->main);
}

static void put_label(const struct pprof *p, struct back *w, uint32_t key, bool is_int,
	int64_t number, uint32_t text)
{
	size_t mark = back_used(w);

	if (is_int)
		field_varint(w, 3, (uint64_t)number);
	else
		field_varint(w, 2, p->plan.strings.to[text]);
	field_varint(w, 1, p->plan.strings.to[key]);
	field_message(w, 3, mark);
}

static bool is_approximate(const struct batch *b, const struct profile_stack *stack)
{
	for (uint32_t i = 0; i < stack->n; i++) {
		if (b->locations.at[b->stack_locations[stack->first + i]].approximate)
			return true;
	}
	return false;
}

static void put_labels(const struct pprof *p, struct back *w, const struct profile_part *part,
	const struct profile_sample *s)
{
	const struct batch *b = p->plan.b;
	const struct profile_resource *resource = &b->resources.at[part->resource];

	/* pprof has no room for it where the frame is. */
	if (is_approximate(b, &b->stacks.at[s->stack])) {
		size_t mark = back_used(w);

		field_varint(w, 2, p->text_true);
		field_varint(w, 1, p->text_approximate);
		field_message(w, 3, mark);
	}
	for (size_t i = 0; i < 4 && s->attributes[i]; i++) {
		const struct profile_attribute *a = &b->attributes.at[s->attributes[i]];

		put_label(p, w, a->key, a->is_int, a->number, a->value);
	}
	for (uint32_t i = 0; p->options.flags & PPROF_RESOURCE_LABELS && i < resource->n; i++) {
		const struct profile_resource_attribute *a =
			&b->resource_attributes[resource->first + i];

		put_label(p, w, a->key, a->is_int, a->number, a->value);
	}
}

static void put_sample(const struct pprof *p, struct back *w, const struct profile_part *part,
	const struct profile_sample *s)
{
	const struct encoder *e = &p->plan;
	const struct profile_stack *stack = &e->b->stacks.at[s->stack];
	uint64_t count = s->n_timestamps ? s->n_timestamps : s->value, sum;
	size_t whole = back_used(w), mark;

	put_labels(p, w, part, s);
	mark = back_used(w);
	if (p->n_values == 2) {
		if (__builtin_mul_overflow(count, part->period, &sum) || sum > INT64_MAX)
			sum = INT64_MAX;
		put_varint(w, sum);
	}
	put_varint(w, count);
	field_message(w, 2, mark);
	mark = back_used(w);
	for (uint32_t i = stack->n; i-- > 0;)
		put_varint(w, e->locations.to[e->b->stack_locations[stack->first + i]]);
	field_message(w, 1, mark);
	field_message(w, 2, whole);
}

static void put_all(const struct pprof *p, struct back *w, const uint32_t *parts, size_t n)
{
	const struct encoder *e = &p->plan;
	uint64_t from = UINT64_MAX, to = 0, period = 0, duration = p->options.duration_ns;

	for (size_t i = 0; i < n; i++) {
		const struct profile_part *part = &e->b->parts.at[parts ? parts[i] : i];

		from = MIN(from, part->time_unix_ns);
		to = MAX(to, part->time_unix_ns + part->duration_ns);
		period = part->period ? part->period : period;
	}
	if (n) {
		field_varint(w, 12, period);
		put_value_type(w, 11, p->types[1]);
		field_varint(w, 10, duration ? duration : to - from);
		field_varint(w, 9, p->options.time_unix_ns ? p->options.time_unix_ns : from);
	}
	for (uint32_t i = e->strings.n; i-- > 0;)
		field_string(w, 6, i ? encoder_string(e, i) : "");
	put_functions(p, w);
	put_locations(p, w);
	put_mappings(p, w);
	for (size_t i = n; i-- > 0;) {
		const struct profile_part *part = &e->b->parts.at[parts ? parts[i] : i];

		for (uint32_t s = part->n_samples; s-- > 0;)
			put_sample(p, w, part, &part->samples[s]);
	}
	if (p->n_values == 2)
		put_value_type(w, 1, p->types[1]);
	put_value_type(w, 1, p->types[0]);
}

int profile_pprof(const struct batch *b, const uint32_t *parts, size_t n_parts,
	const struct pprof_options *options, struct buf *out)
{
	CLEANUP(pprof_deinit) struct pprof p = {.options = *options};
	CLEANUP(back_deinit) struct back w = {0};
	size_t n = parts ? n_parts : b->parts.n;
	int r = encoder_init(&p.plan, b);

	for (size_t i = 0; parts && i < n; i++) {
		if (parts[i] >= b->parts.n)
			return -EINVAL;
	}
	if (r >= 0)
		r = n ? plan(&p, parts, n) : use_types(&p, 0);
	if (r < 0)
		return r;
	put_all(&p, &w, parts, n);
	if (w.failed)
		return w.failed;
	if (back_used(&w) > PROFILE_MAX_ENCODED)
		return -E2BIG;
	buf_add(out, w.data + w.at, back_used(&w));
	return buf_error(out);
}
