/* SPDX-License-Identifier: Apache-2.0 */

/* The batch in memory: tables of what is distinct, and parts whose samples point into them. Runs
 * in agentd (which builds one an interval), in the exporter and the reader (which decode them).
 *
 * Invariants: position 0 of each table is its zero entry; everything referred to was added
 * before what refers to it, so an index is always in range; text is valid UTF-8 without control
 * characters, since protobuf refuses whole messages for one bad byte of a symbol name. The
 * look-up indices are built when something is first interned: a batch that is only decoded,
 * walked and freed never pays for them.
 *
 * The identity of a sample is {stack, set of attributes}, as OTLP has it (links are not in use
 * yet). */

#include "agentd/base/text.h"
#include "agentd/profile/batch_private.h"

const struct profile_type profile_types[PROFILE_TYPES] = {
	{
		.name = "cpu",
		.sample_type = "samples",
		.sample_unit = "count",
		.period_type = "cpu",
		.period_unit = "nanoseconds",
		.temporality = PROFILE_DELTA,
	},
};

const struct profile_type *profile_type_find(const char *name, unsigned *index)
{
	for (unsigned i = 0; i < PROFILE_TYPES; i++) {
		if (streq(profile_types[i].name, name)) {
			if (index)
				*index = i;
			return &profile_types[i];
		}
	}
	return NULL;
}

/* ---- life ---- */

int batch_new_raw(struct batch **ret)
{
	CLEANUP(batch_freep) struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	/* Never NULL: an entry without lines still points at its place in them. */
	if (ARRAY_GROW(b->lines, b->lines_room, 0, 1) < 0 ||
		ARRAY_GROW(b->stack_locations, b->stack_locations_room, 0, 1) < 0 ||
		ARRAY_GROW(b->resource_attributes, b->resource_attributes_room, 0, 1) < 0 ||
		ARRAY_GROW(b->timestamps, b->timestamps_room, 0, 1) < 0)
		return -ENOMEM;
	*ret = TAKE_PTR(b);
	return 0;
}

int batch_new(struct batch **ret)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	static const struct profile_mapping mapping;
	static const struct profile_function function;
	static const struct profile_location location;
	static const struct profile_attribute attribute;
	int64_t r = batch_new_raw(&b);

	if (r < 0)
		return (int)r;
	r = batch_string(b, "");
	if (r >= 0)
		r = batch_mapping(b, &mapping);
	if (r >= 0)
		r = batch_function(b, &function);
	if (r >= 0)
		r = batch_location(b, &location, NULL);
	if (r >= 0)
		r = batch_stack(b, NULL, 0);
	if (r >= 0)
		r = batch_attribute(b, &attribute);
	if (r >= 0)
		r = batch_resource(b, NULL, 0);
	if (r < 0)
		return (int)r;
	*ret = TAKE_PTR(b);
	return 0;
}

struct batch *batch_free(struct batch *b)
{
	if (!b)
		return NULL;
	for (struct text_chunk *c = b->text, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	for (uint32_t i = 0; i < b->parts.n; i++) {
		free(b->parts.at[i].samples);
		if (i < b->sample_index_room)
			intern_deinit(&b->sample_index[i]);
	}
	free(b->sample_index);
#define FREE_TABLE(t)                                                                              \
	do {                                                                                       \
		free(b->t.at);                                                                     \
		intern_deinit(&b->t.index);                                                        \
	} while (0)
	FREE_TABLE(strings);
	FREE_TABLE(mappings);
	FREE_TABLE(functions);
	FREE_TABLE(locations);
	FREE_TABLE(stacks);
	FREE_TABLE(attributes);
	FREE_TABLE(resources);
	FREE_TABLE(parts);
	free(b->lines);
	free(b->stack_locations);
	free(b->resource_attributes);
	free(b->timestamps);
	free(b);
	return NULL;
}

uint64_t batch_memory(const struct batch *b)
{
	uint64_t sum = b->text_bytes;

#define COST(t) ((uint64_t)b->t.room * (sizeof(*b->t.at) + 10))
	sum += COST(strings) + COST(mappings) + COST(functions) + COST(locations) + COST(stacks) +
		COST(attributes) + COST(resources) + COST(parts);
	sum += (uint64_t)b->lines_room * sizeof(*b->lines);
	sum += (uint64_t)b->stack_locations_room * sizeof(*b->stack_locations);
	sum += (uint64_t)b->timestamps_room * sizeof(*b->timestamps);
	sum += b->n_samples * (sizeof(struct profile_sample) + 10);
	return sum;
}

/* ---- text ---- */

const char *batch_text(struct batch *b, const char *s, size_t len)
{
	struct text_chunk *c = b->text;
	char *copy;

	len = MIN(len, (size_t)PROFILE_MAX_STRING);
	if (!c || c->size - c->used < len + 1) {
		size_t size = MAX((size_t)32768, len + 1);

		c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		*c = (struct text_chunk){.next = b->text, .size = size};
		b->text = c;
		b->text_bytes += size;
	}
	copy = c->data + c->used;
	memcpy(copy, s, len);
	copy[len] = 0;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)copy[i] < 0x20 || (unsigned char)copy[i] >= 0x7f) {
			text_clean(copy);
			break;
		}
	}
	c->used += len + 1;
	return copy;
}

/* ---- content: equality and hash, one pair a table ---- */

/* attributes have padding: hash and compare by field */
struct attribute_key {
	uint32_t key, value;
	uint64_t is_int;
	int64_t number;
};

static struct attribute_key attribute_key(uint32_t key, uint32_t value, bool is_int, int64_t number)
{
	return (struct attribute_key){key, is_int ? 0 : value, is_int, is_int ? number : 0};
}

static uint32_t hash_attribute(const struct profile_attribute *a)
{
	struct attribute_key k = attribute_key(a->key, a->value, a->is_int, a->number);

	return hash32(&k, sizeof(k));
}

static uint32_t hash_location(const struct profile_location *l, const struct profile_line *lines)
{
	struct {
		uint64_t address;
		uint32_t mapping, kind, n, tail;
	} k = {l->address, l->mapping, l->frame_type | (uint32_t)l->approximate << 8, l->n_lines,
		0};

	if (l->n_lines == 1) /* nearly all */
		k.tail = lines->function * 2654435761U ^ lines->line;
	else if (l->n_lines)
		k.tail = hash32(lines, l->n_lines * sizeof(*lines));
	return hash32(&k, sizeof(k));
}

static uint32_t hash_resource(const struct profile_resource_attribute *list, size_t n)
{
	uint64_t h = n;

	for (size_t i = 0; i < n; i++) {
		struct attribute_key k =
			attribute_key(list[i].key, list[i].value, list[i].is_int, list[i].number);

		k.is_int ^= h << 1;
		h = hash_local(&k, sizeof(k));
	}
	return (uint32_t)h;
}

static bool equal_string(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;

	return streq(c->b->strings.at[at], c->content);
}

static bool equal_mapping(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;

	return memcmp(&c->b->mappings.at[at], c->content, sizeof(struct profile_mapping)) == 0;
}

static bool equal_function(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;

	return memcmp(&c->b->functions.at[at], c->content, sizeof(struct profile_function)) == 0;
}

static bool equal_location(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;
	const struct profile_location *a = &c->b->locations.at[at], *l = c->content;

	return a->mapping == l->mapping && a->frame_type == l->frame_type &&
		a->approximate == l->approximate && a->address == l->address &&
		a->n_lines == l->n_lines &&
		(!l->n_lines ||
			memcmp(c->b->lines + a->first_line, c->tail,
				l->n_lines * sizeof(struct profile_line)) == 0);
}

static bool equal_stack(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;
	const struct profile_stack *s = &c->b->stacks.at[at];

	return s->n == c->n_tail &&
		(!s->n ||
			memcmp(c->b->stack_locations + s->first, c->tail,
				s->n * sizeof(uint32_t)) == 0);
}

static bool equal_attribute(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;
	const struct profile_attribute *a = &c->b->attributes.at[at], *x = c->content;

	return a->key == x->key && a->is_int == x->is_int &&
		(a->is_int ? a->number == x->number : a->value == x->value);
}

static bool equal_resource(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;
	const struct profile_resource *r = &c->b->resources.at[at];
	const struct profile_resource_attribute *a = c->b->resource_attributes + r->first,
						*x = c->tail;

	if (r->n != c->n_tail)
		return false;
	for (size_t i = 0; i < r->n; i++) {
		if (a[i].key != x[i].key || a[i].is_int != x[i].is_int ||
			(a[i].is_int ? a[i].number != x[i].number : a[i].value != x[i].value))
			return false;
	}
	return true;
}

/* ---- interning ---- */

static int string_sync(struct batch *b)
{
	return TABLE_SYNC(b, strings, hash32(b->strings.at[at], strlen(b->strings.at[at])));
}

int64_t batch_find_string(const struct batch *b, const char *s)
{
	struct candidate c = {.b = b, .content = s};
	int r = string_sync((struct batch *)b); /* the index is a cache: logically const */

	if (r < 0)
		return r;
	return intern_find(&b->strings.index, hash32(s, strlen(s)), equal_string, &c);
}

int64_t batch_string(struct batch *b, const char *s)
{
	struct candidate c = {.b = b, .content = s};
	const char *copy;
	int64_t found;
	int r = string_sync(b);

	if (r < 0)
		return r;
	found = intern_find(&b->strings.index, hash32(s, strlen(s)), equal_string, &c);
	if (found >= 0)
		return found;
	copy = batch_text(b, s, strlen(s));
	if (!copy)
		return -ENOMEM;
	if (!streq(copy, s)) { /* cleaning or cutting made another text of it */
		c.content = copy;
		found = intern_find(
			&b->strings.index, hash32(copy, strlen(copy)), equal_string, &c);
		if (found >= 0)
			return found;
	}
	r = ARRAY_GROW(b->strings.at, b->strings.room, b->strings.n, 1);
	if (r < 0)
		return r;
	r = intern_push(&b->strings.index, hash32(copy, strlen(copy)));
	if (r < 0)
		return r;
	b->strings.at[b->strings.n] = copy;
	return b->strings.n++;
}

int64_t batch_mapping(struct batch *b, const struct profile_mapping *m)
{
	struct candidate c = {.b = b, .content = m};
	int r = TABLE_SYNC(b, mappings, hash32(&b->mappings.at[at], sizeof(*m)));

	if (r < 0)
		return r;
	if (m->filename >= b->strings.n || m->build_id >= b->strings.n ||
		m->go_build_id >= b->strings.n || m->htlhash >= b->strings.n)
		return -EINVAL;
	return TABLE_INTERN(b, mappings, m, hash32(m, sizeof(*m)), equal_mapping, &c);
}

int64_t batch_function(struct batch *b, const struct profile_function *f)
{
	struct candidate c = {.b = b, .content = f};
	int r = TABLE_SYNC(b, functions, hash32(&b->functions.at[at], sizeof(*f)));

	if (r < 0)
		return r;
	if (f->name >= b->strings.n || f->system_name >= b->strings.n ||
		f->filename >= b->strings.n)
		return -EINVAL;
	return TABLE_INTERN(b, functions, f, hash32(f, sizeof(*f)), equal_function, &c);
}

int64_t batch_location(
	struct batch *b, const struct profile_location *l, const struct profile_line *lines)
{
	struct profile_location entry = *l;
	struct candidate c = {.b = b, .content = l, .tail = lines, .n_tail = l->n_lines};
	uint32_t n = b->locations.n;
	int64_t at_new;
	int r = TABLE_SYNC(b, locations,
		hash_location(&b->locations.at[at], b->lines + b->locations.at[at].first_line));

	if (r < 0)
		return r;
	if (n && l->mapping >= b->mappings.n)
		return -EINVAL;
	for (uint32_t i = 0; i < l->n_lines; i++) {
		if (lines[i].function >= b->functions.n)
			return -EINVAL;
	}
	r = ARRAY_GROW(b->lines, b->lines_room, b->n_lines, l->n_lines);
	if (r < 0)
		return r;
	entry.first_line = b->n_lines;
	at_new = TABLE_INTERN(b, locations, &entry, hash_location(l, lines), equal_location, &c);
	if (at_new == n && l->n_lines) {
		memcpy(b->lines + b->n_lines, lines, l->n_lines * sizeof(*lines));
		b->n_lines += l->n_lines;
	}
	return at_new;
}

int64_t batch_stack(struct batch *b, const uint32_t *locations, size_t n)
{
	struct profile_stack entry = {b->n_stack_locations, (uint32_t)n};
	struct candidate c = {.b = b, .tail = locations, .n_tail = n};
	uint32_t before = b->stacks.n;
	int64_t at_new;
	int r = TABLE_SYNC(b, stacks,
		hash32(b->stack_locations + b->stacks.at[at].first,
			b->stacks.at[at].n * sizeof(uint32_t)));

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (locations[i] >= b->locations.n)
			return -EINVAL;
	}
	r = ARRAY_GROW(b->stack_locations, b->stack_locations_room, b->n_stack_locations, n);
	if (r < 0)
		return r;
	at_new = TABLE_INTERN(
		b, stacks, &entry, hash32(locations, n * sizeof(*locations)), equal_stack, &c);
	if (at_new == before && n) {
		memcpy(b->stack_locations + b->n_stack_locations, locations,
			n * sizeof(*locations));
		b->n_stack_locations += (uint32_t)n;
	}
	return at_new;
}

int64_t batch_attribute(struct batch *b, const struct profile_attribute *a)
{
	struct candidate c = {.b = b, .content = a};
	int r = TABLE_SYNC(b, attributes, hash_attribute(&b->attributes.at[at]));

	if (r < 0)
		return r;
	if (a->key >= b->strings.n || (!a->is_int && a->value >= b->strings.n))
		return -EINVAL;
	return TABLE_INTERN(b, attributes, a, hash_attribute(a), equal_attribute, &c);
}

int64_t batch_resource(
	struct batch *b, const struct profile_resource_attribute *attributes, size_t n)
{
	_cleanup_free_ struct profile_resource_attribute *sorted = NULL;
	struct profile_resource entry = {b->n_resource_attributes, (uint32_t)n};
	uint32_t before = b->resources.n;
	struct candidate c;
	int64_t at_new;
	int r = TABLE_SYNC(b, resources,
		hash_resource(
			b->resource_attributes + b->resources.at[at].first, b->resources.at[at].n));

	if (r < 0)
		return r;
	if (n > 1024)
		return -E2BIG;
	sorted = calloc(n + 1, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	/* An insertion sort by key text: resources have a dozen attributes. */
	for (size_t i = 0; i < n; i++) {
		size_t j = i;

		if (attributes[i].key >= b->strings.n ||
			(!attributes[i].is_int && attributes[i].value >= b->strings.n))
			return -EINVAL;
		for (; j > 0 &&
			strcmp(b->strings.at[sorted[j - 1].key], b->strings.at[attributes[i].key]) >
				0;
			j--)
			sorted[j] = sorted[j - 1];
		if (j > 0 && sorted[j - 1].key == attributes[i].key)
			return -EEXIST;
		sorted[j] = attributes[i];
	}
	r = ARRAY_GROW(
		b->resource_attributes, b->resource_attributes_room, b->n_resource_attributes, n);
	if (r < 0)
		return r;
	c = (struct candidate){.b = b, .tail = sorted, .n_tail = n};
	at_new = TABLE_INTERN(b, resources, &entry, hash_resource(sorted, n), equal_resource, &c);
	if (at_new == before && n) {
		memcpy(b->resource_attributes + b->n_resource_attributes, sorted,
			n * sizeof(*sorted));
		b->n_resource_attributes += (uint32_t)n;
	}
	return at_new;
}

/* ---- reading ---- */

const char *batch_string_at(const struct batch *b, uint32_t i)
{
	return b->strings.at[i];
}

const struct profile_mapping *batch_mapping_at(const struct batch *b, uint32_t i)
{
	return &b->mappings.at[i];
}

const struct profile_function *batch_function_at(const struct batch *b, uint32_t i)
{
	return &b->functions.at[i];
}

const struct profile_location *batch_location_at(const struct batch *b, uint32_t i)
{
	return &b->locations.at[i];
}

const struct profile_line *batch_lines(const struct batch *b, const struct profile_location *l)
{
	return b->lines + l->first_line;
}

const uint32_t *batch_stack_at(const struct batch *b, uint32_t i, size_t *n)
{
	*n = b->stacks.at[i].n;
	return b->stack_locations + b->stacks.at[i].first;
}

const struct profile_attribute *batch_attribute_at(const struct batch *b, uint32_t i)
{
	return &b->attributes.at[i];
}

const struct profile_resource_attribute *batch_resource_at(
	const struct batch *b, uint32_t i, size_t *n)
{
	*n = b->resources.at[i].n;
	return b->resource_attributes + b->resources.at[i].first;
}

const uint64_t *batch_timestamps(const struct batch *b, const struct profile_sample *s)
{
	return b->timestamps + s->first_timestamp;
}

size_t batch_parts(const struct batch *b)
{
	return b->parts.n;
}

struct profile_part *batch_part_at(const struct batch *b, size_t i)
{
	return &b->parts.at[i];
}

void batch_totals(const struct batch *b, uint64_t totals[PROFILE_TYPES])
{
	memset(totals, 0, PROFILE_TYPES * sizeof(*totals));
	for (uint32_t i = 0; i < b->parts.n; i++)
		totals[b->parts.at[i].type] += b->parts.at[i].total;
}

size_t batch_strings(const struct batch *b)
{
	return b->strings.n;
}

size_t batch_locations(const struct batch *b)
{
	return b->locations.n;
}

size_t batch_stacks(const struct batch *b)
{
	return b->stacks.n;
}
