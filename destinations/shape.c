/* SPDX-License-Identifier: Apache-2.0 */

/* Splitting and encoding: from rows (shape_rows.c) to the bodies of requests.
 *
 * A request is a cut: a run of rows, whose samples are put into the parts of the decoded batch for the time of one
 * encoding, those of one group added up. Nothing is copied but them, and the encoder writes only what they use.
 *
 * Invariants. Every row is in exactly one request or passed over by exactly one; what a request sends and what its
 * rows stand for beside that add up to the rows' samples. Requests depend on the batches' bytes, the rules and
 * the limits alone: a successor that goes on at row n after a crash sends what its predecessor would have sent. Ids: a
 * part that goes out whole keeps its profile_id (one that was shaped or merged has the hash of what it was made of);
 * one that was cut gets the hash of that and of the cut, so that a repeat can be recognised and no two profiles share
 * an id.
 *
 * Source: the limits are each type's (catalogue/). Runs in the exporter. */

#include "agentd/base/compress.h"
#include "agentd/profile/pprof.h"
#include "destinations/shape_private.h"
#include "destinations/write_raw.h"

#define GZIP_LEVEL 6
#define ZSTD_LEVEL 3

/* ---- cuts ---------------------------------------------------------------------------------------- */

struct cut { /* what one request carries; the memory serves all cuts of a batch, one after the other */
	uint64_t first, rows;
	size_t n;        /* parts that it has samples of */
	uint32_t *order; /* these, in shaped.out, as they come */
	uint32_t *parts; /* the same, in the batch */
	struct in_cut {
		uint32_t samples, rows, offset;
	} * out;                        /* by place in shaped.out */
	uint32_t *place, *stamp;        /* by group: its sample in its part, if stamp is `serial` */
	uint32_t serial;                /* of this cut */
	struct profile_sample *samples; /* part by part */
	struct profile_part *before;    /* of the batch, while it is encoded */
};

static void cut_deinit(struct cut *c)
{
	free(c->order);
	free(c->parts);
	free(c->out);
	free(c->place);
	free(c->stamp);
	free(c->samples);
	free(c->before);
}

static int cut_init(struct cut *c, const struct shaped *s)
{
	*c = (struct cut){0};
	c->order = calloc(s->n_out + 1, sizeof(*c->order));
	c->parts = calloc(s->n_out + 1, sizeof(*c->parts));
	c->out = calloc(s->n_out + 1, sizeof(*c->out));
	c->before = calloc(s->n_out + 1, sizeof(*c->before));
	c->place = calloc((size_t)s->n_groups + 1, sizeof(*c->place));
	c->stamp = calloc((size_t)s->n_groups + 1, sizeof(*c->stamp));
	c->samples = calloc((size_t)s->n_groups + 1, sizeof(*c->samples));
	return c->order && c->parts && c->out && c->before && c->place && c->stamp && c->samples
		? 0
		: -ENOMEM;
}

/* Takes the row into the cut, if it may. */
static bool take_row(const struct shaped *s, const struct shape_limits *limits,
	const struct shape_row *row, struct cut *c)
{
	struct in_cut *out = &c->out[row->out];
	bool fresh = c->stamp[row->group] != c->serial;

	/* A pprof is of one type. */
	if (limits->form == SHAPE_PPROF && c->n &&
		s->out[row->out].type != s->out[c->order[0]].type)
		return false;
	if (fresh && limits->max_samples && out->samples == limits->max_samples)
		return false;
	if (!out->rows) {
		c->parts[c->n] = s->out[row->out].part;
		c->order[c->n++] = row->out;
	}
	if (fresh) {
		c->stamp[row->group] = c->serial;
		c->place[row->group] = out->samples++;
	}
	out->rows++;
	return true;
}

/* Up to max rows from row `first` on, no part with more than max_samples. */
static void make_cut(struct shaped *s, const struct shape_limits *limits, uint64_t first,
	uint64_t max, struct cut *c)
{
	uint32_t offset = 0;

	for (size_t i = 0; i < c->n; i++)
		c->out[c->order[i]] = (struct in_cut){0};
	c->n = 0;
	c->first = first;
	c->serial++;
	for (c->rows = 0; c->rows < max && first + c->rows < s->n_rows; c->rows++) {
		const struct shape_row *row = &s->rows[first + c->rows];

		if (row->kept && !take_row(s, limits, row, c))
			break;
	}
	for (size_t i = 0; i < c->n; i++) {
		c->out[c->order[i]].offset = offset;
		offset += c->out[c->order[i]].samples;
	}
	memset(c->samples, 0, offset * sizeof(*c->samples));
	for (uint64_t i = first; i < first + c->rows; i++) {
		const struct shape_row *row = &s->rows[i];
		const struct shape_group *g;
		struct profile_sample *sample;

		if (!row->kept)
			continue;
		g = &s->groups[row->group];
		sample = &c->samples[c->out[row->out].offset + c->place[row->group]];
		sample->stack = g->stack;
		memcpy(sample->attributes, g->attributes, sizeof(sample->attributes));
		if (!row->timed) {
			sample->value += row->kept;
			continue;
		}
		if (!sample->n_timestamps)
			sample->first_timestamp = row->first_timestamp;
		sample->n_timestamps += (uint32_t)row->kept;
	}
}

/* ---- encoding ------------------------------------------------------------------------------------ */

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

/* Encodes a cut: its samples are put into the parts, written, and the parts put back. */
static int encode_cut(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, const struct cut *c, struct buf *out)
{
	static const uint8_t none[16];
	int r;

	for (size_t i = 0; i < c->n; i++) {
		const struct shape_out *o = &s->out[c->order[i]];
		const struct in_cut *in = &c->out[c->order[i]];
		struct profile_part *p = batch_part_at(s->batch, o->part);

		c->before[i] = *p;
		memcpy(p->id, o->id, sizeof(p->id));
		if (in->rows < o->rows)
			shape_mix_id(p->id, none, c->first, c->first + c->rows);
		p->samples = c->samples + in->offset;
		p->n_samples = in->samples;
	}
	r = encode_form(s, header, limits, c, out);
	for (size_t i = 0; i < c->n; i++)
		*batch_part_at(s->batch, c->parts[i]) = c->before[i];
	return r;
}

static void count_before(const struct shaped *s, uint64_t row, uint64_t samples[PROFILE_TYPES])
{
	for (uint64_t i = 0; i < MIN(row, s->n_rows); i++)
		samples[s->rows[i].type] += s->rows[i].all;
}

/* What the cut has of each batch. sent: else nothing of it goes out. */
static int count_shares(
	const struct shaped *s, const struct cut *c, bool sent, struct shape_request *q)
{
	size_t batch = 0;

	q->shares = calloc(s->n_batches, sizeof(*q->shares));
	if (!q->shares)
		return -ENOMEM;
	q->n_shares = s->n_batches;
	for (uint64_t i = c->first; i < c->first + c->rows; i++) {
		const struct shape_row *row = &s->rows[i];
		uint64_t kept = sent ? row->kept : 0;
		struct shape_share *share;

		while (i >= s->first[batch + 1])
			batch++;
		share = &q->shares[batch];
		share->rows++;
		share->samples[row->type] += kept;
		share->away[row->type] += row->all - kept;
		q->samples[row->type] += kept;
		q->away[row->type] += row->all - kept;
	}
	return 0;
}

static int count_profiles(const struct shaped *s, const struct cut *c, struct shape_request *q)
{
	q->profiles = calloc(c->n + 1, sizeof(*q->profiles));
	if (!q->profiles)
		return -ENOMEM;
	q->n_profiles = c->n;
	for (size_t i = 0; i < c->n; i++) {
		const struct in_cut *in = &c->out[c->order[i]];

		q->profiles[i].type = s->out[c->order[i]].type;
		for (uint32_t k = in->offset; k < in->offset + in->samples; k++)
			q->profiles[i].samples += c->samples[k].value + c->samples[k].n_timestamps;
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
		a->soft_bytes == b->soft_bytes && a->form == b->form && a->packing == b->packing &&
		shape_rules_equal(a->rules, b->rules);
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

/* Nothing of the cut's rows is sent. */
static int pass_over(
	const struct shaped *s, const struct cut *c, bool too_big, struct shape_request *q)
{
	q->skipped = c->rows;
	q->too_big = too_big;
	return count_shares(s, c, false, q);
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
		if (!c->n)
			return pass_over(s, c, false, q);
		r = encode_cut(s, header, limits, c, &raw);
		if (r < 0 && r != -E2BIG)
			return r;
		if (r < 0 || (limits->max_bytes && raw.len > limits->max_bytes) ||
			(limits->soft_bytes && raw.len > limits->soft_bytes && c->rows > 1)) {
			if (c->rows == 1)
				return pass_over(s, c, true, q);
			*max = c->rows / 2;
			continue;
		}
		q->rows = c->rows;
		r = count_shares(s, c, true, q);
		if (r == 0)
			r = count_profiles(s, c, q);
		return r < 0 || skim ? r : finish_body(q, &raw, limits->packing);
	}
}

DEFINE_FREEP(encoded_freep, struct encoded *, encoded_unref)

/* Appends the requests from row `from` on. Those before e->first are counted through and not kept. */
static int encode_from(struct shaped *s, const struct batch_header *header, uint64_t from,
	struct cut *c, struct encoded *e)
{
	uint64_t max = UINT64_MAX;

	for (uint64_t row = from; row < s->n_rows;) {
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
	int r = e ? cut_init(&c, s) : -ENOMEM;

	if (r < 0)
		return r;
	e->refs = 1;
	e->limits = *limits;
	e->limits.rules = shape_rules_ref(limits->rules);
	e->first = first;
	count_before(s, first, e->before);
	/* From the first row, also where delivery goes on later: where a request begins depends on those before it, and
	 * the one whose answer was lost has to come again as it was. */
	r = encode_from(s, header, 0, &c, e);
	/* Other limits than the predecessor's: new requests from here on. */
	if (r == 0 && first < s->n_rows && !encoded_at(e, first))
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
		free(e->requests[i].shares);
		free(e->requests[i].body);
	}
	shape_rules_unref(e->limits.rules);
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
			samples[t] += q->samples[t] + q->away[t];
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
