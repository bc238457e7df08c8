/* SPDX-License-Identifier: Apache-2.0 */

/* Parts of a batch and their samples. A part is one OTLP Profile: samples of one resource and
 * type over one time, with one period (a change of rate makes another part). The identity of a
 * sample is {stack, set of attributes}, as OTLP has it (links are not in use yet); values add
 * up, and a sample carries a count or timestamps, never both.
 *
 * Invariant: total is the sum of the samples' values and numbers of timestamps, and stays below
 * 2^63, so that no sum over a part can overflow what OTLP can carry. */

#include "agentd/profile/batch_private.h"

static uint32_t hash_part(const struct profile_part *p)
{
	uint64_t k[4] = {
		p->resource | (uint64_t)p->type << 32, p->period, p->time_unix_ns, p->duration_ns};

	return hash32(k, sizeof(k));
}

static uint32_t hash_sample(uint32_t stack, const uint32_t attributes[4])
{
	uint32_t k[5] = {stack, attributes[0], attributes[1], attributes[2], attributes[3]};

	return hash32(k, sizeof(k));
}

static bool equal_part(const void *ctx, uint32_t at)
{
	const struct candidate *c = ctx;
	const struct profile_part *a = &c->b->parts.at[at], *x = c->content;

	return a->resource == x->resource && a->type == x->type && a->period == x->period &&
		a->time_unix_ns == x->time_unix_ns && a->duration_ns == x->duration_ns;
}

int batch_part(struct batch *b, uint32_t resource, unsigned type, uint64_t period,
	uint64_t time_unix_ns, uint64_t duration_ns, struct profile_part **ret)
{
	struct profile_part entry = {.resource = resource,
		.type = (uint8_t)type,
		.period = period,
		.time_unix_ns = time_unix_ns,
		.duration_ns = duration_ns};
	struct candidate c = {.b = b, .content = &entry};
	uint32_t before = b->parts.n;
	int64_t at_new;
	int r;

	if (resource >= b->resources.n || type >= PROFILE_TYPES ||
		time_unix_ns + duration_ns < time_unix_ns || period > INT64_MAX)
		return -EINVAL;
	r = TABLE_SYNC(b, parts, hash_part(&b->parts.at[at]));
	if (r < 0)
		return r;
	r = ARRAY_GROW(b->sample_index, b->sample_index_room, b->parts.n, 1);
	if (r < 0)
		return r;
	at_new = TABLE_INTERN(b, parts, &entry, hash_part(&entry), equal_part, &c);
	if (at_new < 0)
		return (int)at_new;
	if (at_new == before)
		b->sample_index[before] = (struct intern){0};
	*ret = &b->parts.at[at_new];
	return 0;
}

struct sample_candidate {
	const struct profile_part *part;
	uint32_t stack;
	const uint32_t *attributes;
};

static bool equal_sample(const void *ctx, uint32_t at)
{
	const struct sample_candidate *c = ctx;
	const struct profile_sample *s = &c->part->samples[at];

	return s->stack == c->stack &&
		memcmp(s->attributes, c->attributes, sizeof(s->attributes)) == 0;
}

/* A set: sorted, without holes, so that equal sets are equal bytes. */
static void canonical_attributes(const uint32_t in[4], uint32_t out[4])
{
	size_t n = 0;

	memset(out, 0, 4 * sizeof(*out));
	for (size_t i = 0; in && i < 4; i++) {
		size_t j = n;

		if (!in[i])
			continue;
		for (; j > 0 && out[j - 1] > in[i]; j--)
			out[j] = out[j - 1];
		out[j] = in[i];
		n++;
	}
}

int batch_push_sample(
	struct batch *b, struct profile_part *part, const struct profile_sample *sample)
{
	int r = ARRAY_GROW(part->samples, part->room, part->n_samples, 1);

	if (r < 0)
		return r;
	part->samples[part->n_samples++] = *sample;
	b->n_samples++;
	return 0;
}

/* The sample with this identity, made if need be. */
static int find_sample(struct batch *b, struct profile_part *part, uint32_t stack,
	const uint32_t attributes[4], struct profile_sample **ret)
{
	struct profile_sample fresh = {.stack = stack};
	struct intern *index;
	struct sample_candidate c;
	int64_t found;
	int r;

	if (part < b->parts.at || part >= b->parts.at + b->parts.n || stack >= b->stacks.n)
		return -EINVAL;
	canonical_attributes(attributes, fresh.attributes);
	if (fresh.attributes[0] >= b->attributes.n || fresh.attributes[1] >= b->attributes.n ||
		fresh.attributes[2] >= b->attributes.n || fresh.attributes[3] >= b->attributes.n)
		return -EINVAL;
	index = &b->sample_index[part - b->parts.at];
	for (uint32_t i = index->n; i < part->n_samples; i++) {
		r = intern_push(
			index, hash_sample(part->samples[i].stack, part->samples[i].attributes));
		if (r < 0)
			return r;
	}
	c = (struct sample_candidate){part, stack, fresh.attributes};
	found = intern_find(index, hash_sample(stack, fresh.attributes), equal_sample, &c);
	if (found < 0) {
		r = batch_push_sample(b, part, &fresh);
		if (r < 0)
			return r;
		r = intern_push(index, hash_sample(stack, fresh.attributes));
		if (r < 0) {
			part->n_samples--;
			return r;
		}
		found = part->n_samples - 1;
	}
	*ret = &part->samples[found];
	return 0;
}

int batch_add(struct batch *b, struct profile_part *part, uint32_t stack,
	const uint32_t attributes[4], uint64_t value)
{
	struct profile_sample *s = NULL;
	uint64_t sum, total;
	int r;

	if (!value)
		return 0;
	if (__builtin_add_overflow(part->total, value, &total) || total > INT64_MAX)
		return -ERANGE;
	r = find_sample(b, part, stack, attributes, &s);
	if (r < 0)
		return r;
	if (s->n_timestamps)
		return -EINVAL; /* counts or timestamps, never both */
	sum = s->value + value; /* below the total, so below its bound */
	s->value = sum;
	part->total = total;
	return 0;
}

int batch_add_timestamps(struct batch *b, struct profile_part *part, uint32_t stack,
	const uint32_t attributes[4], const uint64_t *timestamps, size_t n)
{
	struct profile_sample *s = NULL;
	uint32_t first;
	int r;

	if (!n)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (timestamps[i] < part->time_unix_ns ||
			timestamps[i] - part->time_unix_ns > part->duration_ns)
			return -ERANGE;
	}
	r = find_sample(b, part, stack, attributes, &s);
	if (r < 0)
		return r;
	if (s->value)
		return -EINVAL;
	/* A list that is not the last one moves to the end: callers that add all of a sample at
	 * once never pay for it. */
	r = ARRAY_GROW(b->timestamps, b->timestamps_room, b->n_timestamps, n + s->n_timestamps);
	if (r < 0)
		return r;
	first = s->first_timestamp;
	if (s->n_timestamps && first + s->n_timestamps != b->n_timestamps) {
		memcpy(b->timestamps + b->n_timestamps, b->timestamps + first,
			s->n_timestamps * sizeof(uint64_t));
		first = b->n_timestamps;
		b->n_timestamps += s->n_timestamps;
	} else if (!s->n_timestamps) {
		first = b->n_timestamps;
	}
	memcpy(b->timestamps + b->n_timestamps, timestamps, n * sizeof(uint64_t));
	b->n_timestamps += (uint32_t)n;
	s->first_timestamp = first;
	s->n_timestamps += (uint32_t)n;
	part->total += n;
	return 0;
}
