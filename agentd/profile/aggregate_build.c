/* SPDX-License-Identifier: Apache-2.0 */

/* From the open interval to a batch, which is built while the interval stays as it is. Texts, locations, stacks and
 * resources are made once each and counts refer to them by position. Runs in agentd. */

#include "agentd/profile/aggregate_private.h"

struct build {
	const struct aggregate *a;
	struct batch *b;
	uint32_t *locations, *stacks, *resources; /* by position here, in the batch */
	uint32_t *scratch;
	uint32_t scratch_room;
	struct profile_line *lines;
	uint32_t lines_room;
	uint32_t thread_name_key, thread_id_key, cpu_key;
	uint64_t *times;  /* those within the interval, by slot */
	uint32_t *starts; /* of each slot, in times; and one more */
	bool *timed;      /* resources that have any */
};

static void build_deinit(struct build *x)
{
	free(x->locations);
	free(x->stacks);
	free(x->resources);
	free(x->scratch);
	free(x->lines);
	free(x->times);
	free(x->starts);
	free(x->timed);
}

static int build_text(struct build *x, const char *s, uint32_t *ret)
{
	int64_t at = s ? batch_string(x->b, s) : 0;

	*ret = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

static int64_t build_mapping(struct build *x, const struct aggregate_location *l)
{
	struct profile_mapping m = {l->map_start, l->map_limit, l->map_offset, 0, 0, 0, 0};
	int r = build_text(x, l->map_file, &m.filename);

	if (r >= 0)
		r = build_text(x, l->build_id, &m.build_id);
	if (r >= 0)
		r = build_text(x, l->go_build_id, &m.go_build_id);
	if (r >= 0)
		r = build_text(x, l->htlhash, &m.htlhash);
	return r < 0 ? r : batch_mapping(x->b, &m);
}

static int64_t build_function(struct build *x, const struct aggregate_name *n)
{
	struct profile_function f = {.start_line = n->start_line};
	/* An empty name would make the frame vanish from flame graphs. */
	int r = build_text(x, n->name && *n->name ? n->name : "[unknown]", &f.name);

	if (r >= 0)
		r = build_text(x, n->system_name, &f.system_name);
	if (r >= 0)
		r = build_text(x, n->file, &f.filename);
	return r < 0 ? r : batch_function(x->b, &f);
}

static int build_location(struct build *x, const struct sample_frame *frame,
	const struct aggregate_location *l, uint32_t *ret)
{
	static const struct aggregate_name unknown = {"[unknown]", "", "", 0, 0};
	const struct aggregate_name *chain = l->n ? l->chain : &unknown;
	struct profile_location e = {
		.frame_type = l->type < PROFILE_FRAME_TYPES ? l->type : PROFILE_FRAME_UNKNOWN,
		.approximate = frame->flags & FRAME_APPROXIMATE,
		.address = l->address,
		.n_lines = (uint32_t)MIN(MAX(l->n, (size_t)1), (size_t)1024)};
	int64_t at = build_mapping(x, l);
	int r;

	if (at < 0)
		return (int)at;
	e.mapping = (uint32_t)at;
	r = ARRAY_GROW(x->lines, x->lines_room, 0, e.n_lines);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < e.n_lines; i++) {
		at = build_function(x, &chain[i]);
		if (at < 0)
			return (int)at;
		x->lines[i] = (struct profile_line){(uint32_t)at, chain[i].line};
	}
	at = batch_location(x->b, &e, x->lines);
	*ret = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

static int build_stack(struct build *x, const struct stack *s, uint32_t *ret)
{
	int64_t at;
	int r = ARRAY_GROW(x->scratch, x->scratch_room, 0, s->n);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < s->n; i++)
		x->scratch[i] = x->locations[x->a->stack_frames[s->first + i]];
	at = batch_stack(x->b, x->scratch, s->n);
	*ret = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

static int build_resource(struct build *x, const struct resource *res, uint32_t *ret)
{
	_cleanup_free_ struct profile_resource_attribute *list = calloc(res->n + 1, sizeof(*list));
	int64_t at;

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < res->n; i++) {
		const struct aggregate_resource_attribute *a = &x->a->attributes.at[res->first + i];
		char *end = NULL;
		int r = build_text(x, a->key, &list[i].key);

		errno = 0;
		list[i].number = a->is_int ? strtoll(a->value, &end, 10) : 0;
		list[i].is_int = a->is_int && *a->value && !*end && !errno;
		if (r >= 0 && !list[i].is_int)
			r = build_text(x, a->value, &list[i].value);
		if (r < 0)
			return r;
	}
	at = batch_resource(x->b, list, res->n);
	*ret = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

/* thread.name, thread.id and cpu.logical_number, where they were asked for. */
static int build_attributes(struct build *x, const struct count *c, uint32_t out[4])
{
	const struct {
		const char *key;
		bool on;
		const char *text;
		int64_t number;
	} list[] = {
		{"thread.name", c->thread_name != 0,
			c->thread_name ? x->a->texts.at[c->thread_name - 1] : NULL, 0},
		{"thread.id", c->thread_id >= 0, NULL, c->thread_id},
		{"cpu.logical_number", c->cpu >= 0, NULL, c->cpu},
	};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		struct profile_attribute a = {.is_int = !list[i].text, .number = list[i].number};
		int64_t at;
		int r;

		if (!list[i].on)
			continue;
		r = build_text(x, list[i].key, &a.key);
		if (r >= 0)
			r = build_text(x, list[i].text, &a.value);
		if (r < 0)
			return r;
		at = batch_attribute(x->b, &a);
		if (at < 0)
			return (int)at;
		out[n++] = (uint32_t)at;
	}
	return 0;
}

/* Sorts the times by slot, in the order in which they came. */
static int build_times(struct build *x, uint64_t from, uint64_t to)
{
	const struct aggregate *a = x->a;
	uint32_t sum = 0;

	if (!a->n_times || to <= from)
		return 0;
	x->times = calloc(a->n_times, sizeof(*x->times));
	x->starts = calloc((size_t)a->counts.n + 2, sizeof(*x->starts));
	x->timed = calloc((size_t)a->resources.n + 1, sizeof(*x->timed));
	if (!x->times || !x->starts || !x->timed)
		return -ENOMEM;
	for (uint32_t i = 0; i < a->n_times; i++)
		if (a->times[i].time_unix_ns >= from && a->times[i].time_unix_ns <= to) {
			x->starts[a->times[i].slot]++;
			x->timed[a->counts.at[a->times[i].slot].resource] = true;
		}
	for (uint32_t i = 0; i <= a->counts.n; i++) {
		uint32_t n = x->starts[i];

		x->starts[i] = sum;
		sum += n;
	}
	for (uint32_t i = 0; i < a->n_times; i++)
		if (a->times[i].time_unix_ns >= from && a->times[i].time_unix_ns <= to)
			x->times[x->starts[a->times[i].slot]++] = a->times[i].time_unix_ns;
	/* Each is where the next begins now. */
	memmove(x->starts + 1, x->starts, ((size_t)a->counts.n + 1) * sizeof(*x->starts));
	x->starts[0] = 0;
	return 0;
}

static int build_count(struct build *x, uint32_t slot, uint64_t from, uint64_t to)
{
	const struct count *c = &x->a->counts.at[slot];
	uint32_t attributes[4] = {0}, n = x->times ? x->starts[slot + 1] - x->starts[slot] : 0;
	uint64_t shorter = x->times && x->timed[c->resource] ? 1 : 0;
	struct profile_part *part = NULL;
	int r;

	if (!c->value) /* carried over, and then there were no more */
		return 0;
	r = build_attributes(x, c, attributes);
	if (r >= 0 && n)
		r = batch_part(x->b, x->resources[c->resource], c->type, c->period, from, to - from,
			&part);
	if (r >= 0 && n)
		r = batch_add_timestamps(
			x->b, part, x->stacks[c->stack], attributes, x->times + x->starts[slot], n);
	if (r < 0 || c->value == n)
		return r;
	r = batch_part(x->b, x->resources[c->resource], c->type, c->period, from,
		to - from - shorter, &part);
	return r < 0 ? r : batch_add(x->b, part, x->stacks[c->stack], attributes, c->value - n);
}

int aggregate_build(const struct aggregate *a, uint64_t from_unix_ns, uint64_t to_unix_ns,
	void (*locate)(
		void *userdata, const struct sample_frame *frame, struct aggregate_location *ret),
	void *userdata, struct batch **ret)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	CLEANUP(build_deinit) struct build x = {.a = a};
	int r = batch_new(&b);

	x.b = b;
	x.locations = calloc((size_t)a->frames.n + 1, sizeof(uint32_t));
	x.stacks = calloc((size_t)a->stacks.n + 1, sizeof(uint32_t));
	x.resources = calloc((size_t)a->resources.n + 1, sizeof(uint32_t));
	if (!x.locations || !x.stacks || !x.resources)
		return -ENOMEM;
	for (uint32_t i = 0; i < a->frames.n && r >= 0; i++) {
		struct aggregate_location l = {0};

		locate(userdata, &a->frames.at[i], &l);
		r = build_location(&x, &a->frames.at[i], &l, &x.locations[i]);
	}
	for (uint32_t i = 0; i < a->stacks.n && r >= 0; i++)
		r = build_stack(&x, &a->stacks.at[i], &x.stacks[i]);
	for (uint32_t i = 0; i < a->resources.n && r >= 0; i++)
		r = build_resource(&x, &a->resources.at[i], &x.resources[i]);
	/* A clock that was set back must not make a negative duration. */
	to_unix_ns = MAX(from_unix_ns, to_unix_ns);
	if (r >= 0)
		r = build_times(&x, from_unix_ns, to_unix_ns);
	for (uint32_t i = 0; i < a->counts.n && r >= 0; i++)
		r = build_count(&x, i, from_unix_ns, to_unix_ns);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(b);
	return 0;
}
