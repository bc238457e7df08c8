/* SPDX-License-Identifier: Apache-2.0 */

/* The open interval. Runs in agentd, which calls aggregate_add() for every sample: that path is
 * one hash of the frames, one comparison with the stack that has it, one look-up of the count.
 *
 * A frame is kept once and stacks are lists of 32-bit positions: a stack of 40 frames costs 160
 * bytes, so that the 65,536 stacks at which an interval asks to be closed stay near 10 MB.
 * Frames outside files mean something only together with the mappings of that moment, so a stack
 * that has one is distinct by the image's mapping epoch as well; the frames themselves are not,
 * since they are named by what the caller knows of them.
 *
 * Nothing is ever dropped to stay bounded: at the bound the caller is asked to close the
 * interval, and only one that goes on for another bound's worth of stacks is refused (-ENOBUFS,
 * for it to count).
 *
 * Hashes are keyed (agentd/base/hash.h): a profiled program chooses its stacks. */

#include "agentd/base/hash.h"
#include "agentd/profile/aggregate_private.h"

#define MAX_STACKS       65536
#define MAX_RESOURCES    65536
#define MAX_TIMES        (1U << 20)
#define COUNTS_PER_STACK 4 /* counts are bounded by so many times max_stacks */

/* What is looked for, and where. */
struct wanted {
	const struct aggregate *a;
	const void *content;
	size_t n;
	uint64_t epoch;
};

int aggregate_new(struct aggregate **ret, size_t max_stacks)
{
	CLEANUP(aggregate_freep) struct aggregate *a = calloc(1, sizeof(*a));

	/* Never NULL: what is empty still points at its place in them. */
	if (!a || ARRAY_GROW(a->stack_frames, a->stack_frames_room, 0, 1) < 0 ||
		ARRAY_GROW(a->attributes.at, a->attributes.room, 0, 1) < 0)
		return -ENOMEM;
	a->max_stacks = max_stacks ? MIN(max_stacks, (size_t)1 << 24) : MAX_STACKS;
	*ret = TAKE_PTR(a);
	return 0;
}

struct aggregate *aggregate_free(struct aggregate *a)
{
	if (!a)
		return NULL;
	for (struct text_chunk *c = a->text, *next; c; c = next) {
		next = c->next;
		free(c);
	}
#define FREE_TABLE(t)                                                                              \
	do {                                                                                       \
		free(a->t.at);                                                                     \
		intern_deinit(&a->t.index);                                                        \
	} while (0)
	FREE_TABLE(frames);
	FREE_TABLE(stacks);
	FREE_TABLE(counts);
	FREE_TABLE(attributes);
	FREE_TABLE(resources);
	FREE_TABLE(texts);
	free(a->times);
	free(a->stack_frames);
	free(a->scratch);
	free(a);
	return NULL;
}

/* ---- interning ---- */

static bool equal_text(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;

	return streq(w->a->texts.at[at], w->content);
}

static int64_t intern_text(struct aggregate *a, const char *s)
{
	struct wanted w = {.a = a, .content = s};
	size_t len = strlen(s);
	uint32_t hash = hash32(s, len);
	int64_t found = intern_find(&a->texts.index, hash, equal_text, &w);
	struct text_chunk *c = a->text;
	char *copy;

	if (found >= 0)
		return found;
	if (!c || c->size - c->used < len + 1) {
		size_t size = MAX((size_t)4096, len + 1);

		c = malloc(sizeof(*c) + size);
		if (!c)
			return -ENOMEM;
		*c = (struct text_chunk){.next = a->text, .size = size};
		a->text = c;
	}
	copy = c->data + c->used;
	memcpy(copy, s, len + 1);
	c->used += len + 1;
	return TABLE_INTERN(a, texts, (const char *const *)&copy, hash, equal_text, &w);
}

static bool equal_resource(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct resource *r = &w->a->resources.at[at];
	const struct aggregate_resource_attribute *have = w->a->attributes.at + r->first,
						  *x = w->content;

	if (r->n != w->n)
		return false;
	for (size_t i = 0; i < r->n; i++) {
		if (have[i].is_int != x[i].is_int || !streq(have[i].key, x[i].key) ||
			!streq(have[i].value, x[i].value))
			return false;
	}
	return true;
}

int64_t aggregate_resource(
	struct aggregate *a, const struct aggregate_resource_attribute *list, size_t n)
{
	struct resource entry = {a->attributes.n, n};
	struct wanted w = {.a = a, .content = list, .n = n};
	uint64_t h = n;
	uint32_t before = a->resources.n;
	int64_t at;
	int r;

	for (size_t i = 0; i < n; i++) {
		h ^= hash_local(list[i].key, strlen(list[i].key));
		h = h * 0x9e3779b97f4a7c15ULL + list[i].is_int;
		h ^= hash_local(list[i].value, strlen(list[i].value));
		h = h * 0x9e3779b97f4a7c15ULL;
	}
	at = intern_find(&a->resources.index, (uint32_t)(h >> 32), equal_resource, &w);
	if (at >= 0)
		return at;
	if (before >= MAX_RESOURCES)
		return -ENOBUFS;
	r = ARRAY_GROW(a->attributes.at, a->attributes.room, a->attributes.n, n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		int64_t key = intern_text(a, list[i].key), value = intern_text(a, list[i].value);

		if (key < 0 || value < 0)
			return MIN(key, value);
		a->attributes.at[entry.first + i] = (struct aggregate_resource_attribute){
			a->texts.at[key], a->texts.at[value], list[i].is_int};
	}
	at = TABLE_INTERN(a, resources, &entry, (uint32_t)(h >> 32), equal_resource, &w);
	if (at == before)
		a->attributes.n += (uint32_t)n;
	return at;
}

static bool equal_frame(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;

	return memcmp(&w->a->frames.at[at], w->content, sizeof(struct sample_frame)) == 0;
}

static int64_t intern_frame(struct aggregate *a, const struct sample_frame *f)
{
	struct sample_frame entry = *f;
	struct wanted w = {.a = a, .content = &entry};

	entry.pad = 0;
	return TABLE_INTERN(a, frames, &entry, hash32(&entry, sizeof(entry)), equal_frame, &w);
}

/* Compared by content: content is the frames, n their number. */
static bool equal_stack(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct stack *s = &w->a->stacks.at[at];
	const struct sample_frame *f = w->content;
	const uint32_t *have = w->a->stack_frames + s->first;

	if (s->n != w->n || s->epoch != w->epoch)
		return false;
	for (uint32_t i = 0; i < s->n; i++) {
		const struct sample_frame *x = &w->a->frames.at[have[i]];

		if (x->offset != f[i].offset || x->file != f[i].file || x->kind != f[i].kind ||
			x->flags != f[i].flags)
			return false;
	}
	return true;
}

static int64_t intern_stack(struct aggregate *a, const struct aggregate_sample *s)
{
	struct stack entry = {.first = a->n_stack_frames, .n = (uint32_t)s->n_frames};
	struct wanted w = {.a = a, .content = s->frames, .n = s->n_frames};
	uint32_t before = a->stacks.n, hash;
	int64_t at;
	int r;

	for (size_t i = 0; i < s->n_frames; i++) {
		if (s->frames[i].kind == FRAME_NATIVE && !s->frames[i].file)
			entry.epoch = s->epoch;
	}
	w.epoch = entry.epoch;
	hash = hash32(s->frames, s->n_frames * sizeof(*s->frames)) ^
		(uint32_t)(entry.epoch * 2654435761U);
	at = intern_find(&a->stacks.index, hash, equal_stack, &w);
	if (at >= 0)
		return at;
	if (a->stacks.n >= 2 * a->max_stacks)
		return -ENOBUFS;
	r = ARRAY_GROW(a->scratch, a->scratch_room, 0, s->n_frames);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_frames; i++) {
		at = intern_frame(a, &s->frames[i]);
		if (at < 0)
			return at;
		a->scratch[i] = (uint32_t)at;
	}
	r = ARRAY_GROW(a->stack_frames, a->stack_frames_room, a->n_stack_frames, s->n_frames);
	if (r < 0)
		return r;
	at = TABLE_INTERN(a, stacks, &entry, hash, equal_stack, &w);
	if (at == before && s->n_frames) {
		memcpy(a->stack_frames + a->n_stack_frames, a->scratch,
			s->n_frames * sizeof(uint32_t));
		a->n_stack_frames += (uint32_t)s->n_frames;
	}
	return at;
}

static bool equal_count(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct count *c = &w->a->counts.at[at], *x = w->content;

	return c->resource == x->resource && c->stack == x->stack && c->type == x->type &&
		c->period == x->period && c->thread_name == x->thread_name &&
		c->thread_id == x->thread_id && c->cpu == x->cpu;
}

/* The position of the count that this is of. */
static int64_t intern_count(struct aggregate *a, const struct aggregate_sample *s)
{
	struct count entry = {.resource = s->resource,
		.type = s->type,
		.period = s->period,
		.thread_id = MAX(s->thread_id, (int64_t)-1),
		.cpu = MAX(s->cpu, (int64_t)-1)};
	struct wanted w = {.a = a, .content = &entry};
	uint64_t key[5];
	int64_t at;

	if (a->counts.n >= 2 * COUNTS_PER_STACK * a->max_stacks)
		return -ENOBUFS;
	at = intern_stack(a, s);
	if (at < 0)
		return at;
	entry.stack = (uint32_t)at;
	if (s->thread_name) {
		at = intern_text(a, s->thread_name);
		if (at < 0)
			return at;
		entry.thread_name = (uint32_t)at + 1;
	}
	key[0] = entry.resource | (uint64_t)entry.stack << 32;
	key[1] = entry.thread_name | (uint64_t)entry.type << 32;
	key[2] = entry.period;
	key[3] = (uint64_t)entry.thread_id;
	key[4] = (uint64_t)entry.cpu;
	return TABLE_INTERN(a, counts, &entry, hash32(key, sizeof(key)), equal_count, &w);
}

int aggregate_add(struct aggregate *a, const struct aggregate_sample *s, uint32_t *slot)
{
	int64_t at;

	if (s->resource >= a->resources.n || s->type >= PROFILE_TYPES || s->n_frames > 4096 ||
		s->period > INT64_MAX || s->count > INT32_MAX)
		return -EINVAL;
	if (!s->count)
		return 0;
	at = intern_count(a, s);
	if (at < 0)
		return (int)at;
	if (s->timed && s->count == 1) {
		int r = ARRAY_GROW(a->times, a->times_room, a->n_times, 1);

		if (r < 0)
			return r;
		a->times[a->n_times++] = (struct moment){s->time_unix_ns, (uint32_t)at};
	}
	a->counts.at[at].value += s->count;
	a->samples += s->count;
	if (slot)
		*slot = (uint32_t)at;
	return a->stacks.n >= a->max_stacks || a->counts.n >= COUNTS_PER_STACK * a->max_stacks ||
			a->n_times >= MAX_TIMES
		? 1
		: 0;
}

void aggregate_count(struct aggregate *a, uint32_t slot, uint64_t samples)
{
	if (slot >= a->counts.n)
		return;
	a->counts.at[slot].value += samples;
	a->samples += samples;
}

/* The sample that would be counted there, its frames excepted. */
static struct aggregate_sample sample_of(const struct aggregate *a, const struct count *c)
{
	return (struct aggregate_sample){
		.resource = c->resource,
		.type = c->type,
		.period = c->period,
		.thread_name = c->thread_name ? a->texts.at[c->thread_name - 1] : NULL,
		.thread_id = c->thread_id,
		.cpu = c->cpu,
	};
}

int aggregate_restack(struct aggregate *a, uint32_t slot, const struct sample_frame *frames,
	size_t n_frames, uint32_t *ret)
{
	struct aggregate_sample s;
	int64_t at;

	if (slot >= a->counts.n)
		return -EINVAL;
	s = sample_of(a, &a->counts.at[slot]);
	s.frames = frames;
	s.n_frames = n_frames;
	at = intern_count(a, &s);
	*ret = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

int aggregate_carry(struct aggregate *a, const struct aggregate *from, uint32_t slot, uint32_t *ret)
{
	_cleanup_free_ struct sample_frame *frames = NULL;
	const struct resource *resource;
	struct aggregate_sample s;
	const struct stack *stack;
	int64_t at;

	if (slot >= from->counts.n)
		return -EINVAL;
	s = sample_of(from, &from->counts.at[slot]);
	stack = &from->stacks.at[from->counts.at[slot].stack];
	resource = &from->resources.at[s.resource];
	frames = calloc((size_t)stack->n + 1, sizeof(*frames));
	if (!frames)
		return -ENOMEM;
	for (uint32_t i = 0; i < stack->n; i++)
		frames[i] = from->frames.at[from->stack_frames[stack->first + i]];
	s.frames = frames;
	s.n_frames = stack->n;
	s.epoch = stack->epoch;
	at = aggregate_resource(a, from->attributes.at + resource->first, resource->n);
	if (at >= 0) {
		s.resource = (uint32_t)at;
		at = intern_count(a, &s);
	}
	*ret = (uint32_t)MAX(at, 0);
	return at < 0 ? (int)at : 0;
}

uint64_t aggregate_samples(const struct aggregate *a)
{
	return a->samples;
}

size_t aggregate_stacks(const struct aggregate *a)
{
	return a->stacks.n;
}

void aggregate_each_frame(const struct aggregate *a,
	void (*visit)(void *userdata, const struct sample_frame *frame), void *userdata)
{
	for (uint32_t i = 0; i < a->frames.n; i++)
		visit(userdata, &a->frames.at[i]);
}
