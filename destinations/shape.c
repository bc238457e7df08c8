/* SPDX-License-Identifier: Apache-2.0 */

/* Shaping and splitting.
 *
 * A batch is decoded once, shaped in place and encoded once for each distinct set of limits. Shaping adds resources
 * and parts to the decoded batch and leaves the old ones where they are: the encoder writes only what the chosen parts
 * use, so nothing has to be copied or taken out. Splitting narrows a part to a window of its samples for the time of
 * one encoding.
 *
 * Invariants. Every sample of the batch is in exactly one row, and every row in exactly one request; the totals
 * of the header hold or the batch is refused. Rows and requests depend on the batch's bytes and the limits alone: a
 * successor that goes on at row n after a crash sends what its predecessor would have sent. Ids: a part that came
 * through whole keeps its profile_id; one that was added up or cut gets the hash of what it was made of, so that
 * a repeat can be recognised and no two profiles share an id.
 *
 * Source: the limits are each type's (catalogue/). Runs in the exporter. */

#include "agentd/base/compress.h"
#include "agentd/base/hash.h"
#include "agentd/base/text.h"
#include "agentd/profile/pprof.h"
#include "destinations/shape.h"
#include "destinations/write_raw.h"
#include "sources/source.h"

#define GZIP_LEVEL 6
#define ZSTD_LEVEL 3

struct shaped {
	struct batch *batch;
	uint32_t *parts; /* those that go out */
	size_t n_parts;
	uint64_t rows;
};

/* ---- shaping ------------------------------------------------------------------------------------- */

/* Part of the format of our ids, as the keys of agentd/profile are. */
static const struct hash_key id_keys[2] = {
	{{0x6f64692073686170ULL, 0x6520696420312020ULL}},
	{{0x6f64692073686170ULL, 0x6520696420322020ULL}},
};

/* id becomes the hash of itself, of other and of two numbers. */
static void mix_id(uint8_t id[16], const uint8_t other[16], uint64_t a, uint64_t b)
{
	uint8_t seed[48];

	memcpy(seed, id, 16);
	memcpy(seed + 16, other, 16);
	memcpy(seed + 32, &a, 8);
	memcpy(seed + 40, &b, 8);
	for (size_t i = 0; i < 2; i++) {
		uint64_t h = hash_bytes(&id_keys[i], seed, sizeof(seed));

		memcpy(id + 8 * i, &h, 8);
	}
}

/* The resource without our own attributes: the same index where it has none. */
static int64_t strip_resource(struct batch *b, uint32_t resource)
{
	size_t n, kept = 0;
	const struct profile_resource_attribute *from = batch_resource_at(b, resource, &n);
	_cleanup_free_ struct profile_resource_attribute *list = NULL;

	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!text_starts(batch_string_at(b, from[i].key), SOURCE_OWN_PREFIX))
			list[kept++] = from[i];
	return kept == n ? (int64_t)resource : batch_resource(b, list, kept);
}

static int copy_samples(struct batch *b, size_t from, struct profile_part *to)
{
	/* batch_part() may have moved the table: by index, from now on. */
	const struct profile_part *p = batch_part_at(b, from);

	for (uint32_t i = 0; i < p->n_samples; i++) {
		const struct profile_sample *s = &p->samples[i];
		_cleanup_free_ uint64_t *times = NULL;
		int r;

		if (!s->n_timestamps) {
			r = batch_add(b, to, s->stack, s->attributes, s->value);
		} else {
			/* They are in the table that grows: a copy. */
			times = calloc(s->n_timestamps, sizeof(*times));
			if (!times)
				return -ENOMEM;
			memcpy(times, batch_timestamps(b, s), s->n_timestamps * sizeof(*times));
			r = batch_add_timestamps(
				b, to, s->stack, s->attributes, times, s->n_timestamps);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* Adds part i to the one that it goes out as; *ret is that one's index. */
static int shape_part(struct batch *b, size_t i, uint32_t *ret)
{
	static const uint8_t none[16];
	const struct profile_part from = *batch_part_at(b, i);
	int64_t resource = strip_resource(b, from.resource);
	struct profile_part *to = NULL;
	bool fresh;
	int r;

	if (resource < 0)
		return (int)resource;
	r = batch_part(b, (uint32_t)resource, from.type, from.period, from.time_unix_ns,
		from.duration_ns, &to);
	if (r < 0)
		return r;
	*ret = (uint32_t)(to - batch_part_at(b, 0));
	if (*ret == i)
		return 0;
	fresh = !to->n_samples && memcmp(to->id, none, sizeof(none)) == 0;
	if (fresh)
		memcpy(to->id, from.id, sizeof(to->id));
	else
		mix_id(to->id, from.id, 0, 0);
	return copy_samples(b, i, to);
}

static int shape_parts(struct shaped *s)
{
	size_t n = batch_parts(s->batch);
	_cleanup_free_ bool *chosen = NULL;

	s->parts = calloc(n + 1, sizeof(*s->parts));
	/* Every part makes at most one more. */
	chosen = calloc(2 * n + 1, sizeof(*chosen));
	if (!s->parts || !chosen)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		uint32_t to = 0;
		int r = shape_part(s->batch, i, &to);

		if (r < 0)
			return r;
		if (!chosen[to])
			s->parts[s->n_parts++] = to;
		chosen[to] = true;
	}
	for (size_t i = 0; i < s->n_parts; i++)
		s->rows += batch_part_at(s->batch, s->parts[i])->n_samples;
	return 0;
}

int shape_batch(struct shaped **ret, const void *bytes, size_t len,
	const struct batch_header *header, struct err_text *err)
{
	CLEANUP(shape_freep) struct shaped *s = calloc(1, sizeof(*s));
	uint64_t totals[PROFILE_TYPES], after[PROFILE_TYPES] = {0};
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	r = profile_decode(bytes, len, &s->batch, err);
	if (r < 0)
		return r;
	batch_totals(s->batch, totals);
	for (size_t t = 0; t < ARRAY_SIZE(header->samples); t++)
		if (header->samples[t] != (t < PROFILE_TYPES ? totals[t] : 0))
			return err_set(err, -EBADMSG,
				"the batch does not hold the samples that its header says");
	r = shape_parts(s);
	if (r < 0)
		return err_set(err, r, "the batch could not be shaped: %s", strerrordesc_np(-r));
	for (size_t i = 0; i < s->n_parts; i++) {
		const struct profile_part *p = batch_part_at(s->batch, s->parts[i]);

		after[p->type] += p->total;
	}
	if (memcmp(after, totals, sizeof(after)) != 0)
		return err_set(err, -EBADMSG, "shaping lost samples; this is a defect of odi");
	*ret = TAKE_PTR(s);
	return 0;
}

struct shaped *shape_free(struct shaped *s)
{
	if (s) {
		batch_free(s->batch);
		free(s->parts);
		free(s);
	}
	return NULL;
}

uint64_t shape_rows(const struct shaped *s)
{
	return s->rows;
}

/* ---- splitting ----------------------------------------------------------------------------------- */

/* A part narrowed to [from, to) of its samples. */
struct window {
	uint32_t part, from, to;
};

struct cut { /* what one request carries */
	struct window *windows;
	uint32_t *parts;
	size_t n;
	uint64_t rows;
};

static void cut_deinit(struct cut *c)
{
	free(c->windows);
	free(c->parts);
}

/* The windows of up to max rows from row `first` on, no window over max_samples, no part twice. */
static void make_cut(struct shaped *s, const struct shape_limits *limits, uint64_t first,
	uint64_t max, struct cut *c)
{
	uint64_t at = 0;

	c->n = 0;
	c->rows = 0;
	for (size_t i = 0; i < s->n_parts && c->rows < max; i++) {
		uint32_t n = batch_part_at(s->batch, s->parts[i])->n_samples;
		uint64_t start = first + c->rows > at ? first + c->rows - at : 0, take;

		at += n;
		if (start >= n)
			continue;
		/* A pprof is of one type. */
		if (limits->form == SHAPE_PPROF && c->n &&
			batch_part_at(s->batch, s->parts[i])->type !=
				batch_part_at(s->batch, c->parts[0])->type)
			break;
		take = MIN(n - start, max - c->rows);
		if (limits->max_samples)
			take = MIN(take, limits->max_samples);
		c->windows[c->n] =
			(struct window){s->parts[i], (uint32_t)start, (uint32_t)(start + take)};
		c->parts[c->n++] = s->parts[i];
		c->rows += take;
		if (start + take < n)
			break; /* the rest of this part is another profile, in another request */
	}
}

static uint64_t row_value(const struct profile_sample *s)
{
	return s->value + s->n_timestamps;
}

static int encode_form(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, const struct cut *c, struct buf *out)
{
	const struct pprof_options labelled = {.flags = PPROF_RESOURCE_LABELS};

	switch (limits->form) {
	case SHAPE_OTLP:
		return profile_encode(s->batch, header, c->parts, c->n, out);
	case SHAPE_PPROF:
		return profile_pprof(s->batch, c->parts, c->n, &labelled, out);
	case SHAPE_WRITE_RAW:
		return write_raw_encode(s->batch, c->parts, c->n, out);
	}
	return -EINVAL;
}

/* Encodes a cut: the parts are narrowed, written and put back. */
static int encode_cut(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, const struct cut *c, struct buf *out)
{
	static const uint8_t none[16];
	_cleanup_free_ struct profile_part *before = calloc(c->n + 1, sizeof(*before));
	int r;

	if (!before)
		return -ENOMEM;
	for (size_t i = 0; i < c->n; i++) {
		struct profile_part *p = batch_part_at(s->batch, c->windows[i].part);

		before[i] = *p;
		if (c->windows[i].from || c->windows[i].to < p->n_samples)
			mix_id(p->id, none, c->windows[i].from | (uint64_t)c->windows[i].part << 32,
				c->windows[i].to);
		p->samples += c->windows[i].from;
		p->n_samples = c->windows[i].to - c->windows[i].from;
	}
	r = encode_form(s, header, limits, c, out);
	for (size_t i = 0; i < c->n; i++)
		*batch_part_at(s->batch, c->windows[i].part) = before[i];
	return r;
}

static void count_before(struct shaped *s, uint64_t row, uint64_t samples[PROFILE_TYPES])
{
	for (size_t i = 0; i < s->n_parts && row; i++) {
		const struct profile_part *p = batch_part_at(s->batch, s->parts[i]);

		for (uint32_t k = 0; k < p->n_samples && row; k++, row--)
			samples[p->type] += row_value(&p->samples[k]);
	}
}

static int count_cut(struct shaped *s, const struct cut *c, struct shape_request *q)
{
	q->profiles = calloc(c->n + 1, sizeof(*q->profiles));
	if (!q->profiles)
		return -ENOMEM;
	q->n_profiles = c->n;
	for (size_t i = 0; i < c->n; i++) {
		const struct window *w = &c->windows[i];
		const struct profile_part *p = batch_part_at(s->batch, w->part);

		q->profiles[i].type = p->type;
		for (uint32_t k = w->from; k < w->to; k++)
			q->profiles[i].samples += row_value(&p->samples[k]);
		q->samples[p->type] += q->profiles[i].samples;
	}
	return 0;
}

int shape_pack(const void *data, size_t len, enum shape_packing packing, struct buf *out)
{
	switch (packing) {
	case SHAPE_PLAIN:
		return 0;
	case SHAPE_GZIP:
		return compress_gzip(data, len, GZIP_LEVEL, out);
	case SHAPE_ZSTD:
		return compress_zstd(data, len, ZSTD_LEVEL, out);
	}
	return -EINVAL;
}

bool shape_limits_equal(const struct shape_limits *a, const struct shape_limits *b)
{
	return a->max_bytes == b->max_bytes && a->max_samples == b->max_samples &&
		a->soft_bytes == b->soft_bytes && a->form == b->form && a->packing == b->packing;
}

/* The bytes as they go out, in q->body. */
static int finish_body(struct shape_request *q, struct buf *raw, enum shape_packing packing)
{
	_cleanup_buf_ struct buf packed;
	struct buf *out = packing == SHAPE_PLAIN ? raw : &packed;
	int r;

	buf_init(&packed, 0);
	q->raw_len = raw->len;
	r = shape_pack(raw->data, raw->len, packing, &packed);
	if (r < 0)
		return r;
	/* No more than it takes: a destination may hold on to it for hours. */
	q->len = out->len;
	q->body = realloc(TAKE_PTR(out->data), out->len + 1);
	if (!q->body)
		return -ENOMEM;
	*out = (struct buf){.cap = out->cap};
	return 0;
}

/* One request from row `first` on: as many rows as fit. */
static int encode_request(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, uint64_t first, bool skim, uint64_t *max, struct cut *c,
	struct shape_request *q)
{
	int r;

	q->first = first;
	for (;;) {
		_cleanup_buf_ struct buf raw;

		buf_init(&raw, PROFILE_MAX_ENCODED);
		make_cut(s, limits, first, *max, c);
		r = encode_cut(s, header, limits, c, &raw);
		if (r < 0 && r != -E2BIG)
			return r;
		if (r < 0 || (limits->max_bytes && raw.len > limits->max_bytes)) {
			if (c->rows > 1) {
				*max = c->rows / 2;
				continue;
			}
			q->skipped = 1;
			return count_cut(s, c, q);
		}
		if (limits->soft_bytes && raw.len > limits->soft_bytes && c->rows > 1) {
			*max = c->rows / 2;
			continue;
		}
		q->rows = c->rows;
		r = count_cut(s, c, q);
		return r < 0 || skim ? r : finish_body(q, &raw, limits->packing);
	}
}

DEFINE_FREEP(encoded_freep, struct encoded *, encoded_unref)

/* Appends the requests from row `from` on. Those before e->first are counted through and not kept. */
static int encode_from(struct shaped *s, const struct batch_header *header, uint64_t from,
	struct cut *c, struct encoded *e)
{
	uint64_t max = UINT64_MAX;

	for (uint64_t row = from; row < s->rows;) {
		struct shape_request *q;
		int r;

		if (e->n == e->room) {
			size_t room = MAX(2 * e->room, (size_t)4);

			q = reallocarray(e->requests, room, sizeof(*q));
			if (!q)
				return -ENOMEM;
			e->requests = q;
			e->room = room;
		}
		q = &e->requests[e->n++];
		*q = (struct shape_request){0};
		r = encode_request(s, header, &e->limits, row, row < e->first, &max, c, q);
		if (r < 0)
			return r;
		row += q->rows + q->skipped;
		/* What halved for a row of unusual size may grow again. */
		if (max < UINT64_MAX / 2)
			max *= 2;
	}
	return 0;
}

int shape_encode(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, uint64_t first, struct encoded **ret)
{
	CLEANUP(encoded_freep) struct encoded *e = calloc(1, sizeof(*e));
	CLEANUP(cut_deinit) struct cut c = {0};
	int r;

	c.windows = calloc(s->n_parts + 1, sizeof(*c.windows));
	c.parts = calloc(s->n_parts + 1, sizeof(*c.parts));
	if (!e || !c.windows || !c.parts)
		return -ENOMEM;
	e->refs = 1;
	e->limits = *limits;
	e->first = first;
	count_before(s, first, e->before);
	/* From the first row, also where delivery goes on later: where a request begins depends on those before it, and
	 * the one whose answer was lost has to come again as it was. */
	r = encode_from(s, header, 0, &c, e);
	/* Other limits than the predecessor's: new requests from here on. */
	if (r == 0 && first < s->rows && !encoded_at(e, first))
		r = encode_from(s, header, first, &c, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(e);
	return 0;
}

struct encoded *encoded_ref(struct encoded *e)
{
	e->refs++;
	return e;
}

struct encoded *encoded_unref(struct encoded *e)
{
	if (!e || --e->refs)
		return NULL;
	for (size_t i = 0; i < e->n; i++) {
		free(e->requests[i].profiles);
		free(e->requests[i].body);
	}
	free(e->requests);
	free(e);
	return NULL;
}

void encoded_before(const struct encoded *e, uint64_t row, uint64_t samples[PROFILE_TYPES])
{
	uint64_t at = e->first;

	memcpy(samples, e->before, sizeof(e->before));
	/* From one request to the next: when they were cut twice, those of the first time overlap. */
	while (at < row) {
		const struct shape_request *q = encoded_at(e, at);

		if (!q)
			return;
		for (size_t t = 0; t < PROFILE_TYPES; t++)
			samples[t] += q->samples[t];
		at += q->rows + q->skipped;
	}
}

const struct shape_request *encoded_at(const struct encoded *e, uint64_t row)
{
	for (size_t i = 0; i < e->n; i++)
		if (e->requests[i].first == row)
			return &e->requests[i];
	return NULL;
}
