/* SPDX-License-Identifier: Apache-2.0 */

/* Shaping: from decoded batches to rows.
 *
 * A row is a sample of a batch as agentd made it, in the order in which it stands there. So what "row 1200" is does not
 * depend on any setting: a destination that was given other rules, or other limits, amid a batch goes on at its row by
 * the new ones, and no sample is sent twice or forgotten. Shaping decides what of each row goes out: where to (part),
 * as what (stack, attributes), and how much of it; what does not go out is counted with the row as shaped away.
 * Rows that became the same sample are one group, and are added up when they go out in one request.
 *
 * Sampling down by N keeps every N-th sample of a group, counted over its rows from an offset that is drawn by hash
 * from the batch's name, and makes the part's period N times as long: as if the rate had been N times lower. Of v
 * samples v/N are kept on average, whatever v, so counts and times stay unbiased; a stack with many samples is never
 * off by more than one kept sample, and the wire carries no fraction and nothing scaled. Choosing whole stacks by their
 * hash would be unbiased over all hashes only: a program's hottest stack would be gone for good, or N times too hot.
 * A type without a period (a sum, not a count of samples) is not sampled down.
 *
 * Shaping adds resources, stacks and parts to the decoded batch and leaves the old ones where they are: the encoder
 * writes only what is used. Batches that are sent together are merged into the first one's tables, and their parts
 * cover the time from the first's begin to the last's end.
 *
 * All is a function of the batches' bytes and the rules. Runs in the exporter. */

#include "agentd/base/hash.h"
#include "destinations/shape_filter.h"
#include "destinations/shape_private.h"

#define NO_GROUP UINT32_MAX

/* Part of the format of our ids, as the keys of agentd/profile are. */
static const struct hash_key id_keys[2] = {
	{{0x6f64692073686170ULL, 0x6520696420312020ULL}},
	{{0x6f64692073686170ULL, 0x6520696420322020ULL}},
};

void shape_mix_id(uint8_t id[16], const uint8_t other[16], uint64_t a, uint64_t b)
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

/* While a batch is shaped. */
struct shaping {
	struct shaped *s;
	const struct batch_header *header; /* the first batch's */
	struct shape_filter filter;
	uint64_t rules_hash; /* 0: no rules */
	size_t n_in;         /* parts of the batches; those behind are of shaping */
	uint64_t from, to;   /* time of what is merged; 0, 0: each part keeps its own */
	uint32_t *out_of;    /* by part of the batch: index in s->out + 1 */
	size_t room_out_of;
	uint32_t *table; /* of groups; open addressing */
	size_t table_size;
	uint64_t *next; /* by row: the next one of its group that has timestamps */
};

static void shaping_deinit(struct shaping *w)
{
	shape_filter_deinit(&w->filter);
	free(w->out_of);
	free(w->table);
	free(w->next);
}

/* ---- parts --------------------------------------------------------------------------------------- */

static int out_slot(struct shaping *w, uint32_t part, uint32_t **ret)
{
	if (part >= w->room_out_of) {
		size_t room = (size_t)part + 2 * w->n_in + 16;
		uint32_t *grown = reallocarray(w->out_of, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		memset(grown + w->room_out_of, 0, (room - w->room_out_of) * sizeof(*grown));
		w->out_of = grown;
		w->room_out_of = room;
	}
	*ret = &w->out_of[part];
	return 0;
}

/* 1 of how many samples of a part is kept. */
static uint32_t divisor(const struct shaping *w, const struct profile_part *from)
{
	uint32_t n = w->filter.rules ? w->filter.rules->sample : 1;

	return from->period && from->period <= INT64_MAX / n ? n : 1;
}

/* The index in s->out of the part that part i goes out in; SHAPE_NOT_KEPT: in none. */
static int64_t shape_part(struct shaping *w, size_t i)
{
	const struct profile_part from = *batch_part_at(w->s->batch, i);
	int64_t resource = shape_filter_resource(&w->filter, from.resource);
	bool merged = w->to != 0;
	struct profile_part *to = NULL;
	struct shape_out *out;
	uint32_t at, *slot = NULL;
	int r;

	if (resource < 0)
		return resource;
	r = batch_part(w->s->batch, (uint32_t)resource, from.type, from.period * divisor(w, &from),
		merged ? w->from : from.time_unix_ns, merged ? w->to - w->from : from.duration_ns,
		&to);
	if (r < 0)
		return r;
	at = (uint32_t)(to - batch_part_at(w->s->batch, 0));
	r = out_slot(w, at, &slot);
	if (r < 0)
		return r;
	if (*slot) {
		out = &w->s->out[*slot - 1];
		shape_mix_id(out->id, from.id, 0, 0);
		return *slot - 1;
	}
	out = &w->s->out[w->s->n_out];
	*out = (struct shape_out){.part = at, .type = from.type, .divisor = divisor(w, &from)};
	memcpy(out->id, from.id, sizeof(out->id));
	if (w->rules_hash)
		shape_mix_id(out->id, from.id, w->rules_hash, 1);
	*slot = (uint32_t)++w->s->n_out;
	return *slot - 1;
}

/* ---- groups -------------------------------------------------------------------------------------- */

static bool same_group(const struct shape_group *a, const struct shape_group *b)
{
	return a->out == b->out && a->stack == b->stack && a->timed == b->timed &&
		memcmp(a->attributes, b->attributes, sizeof(a->attributes)) == 0;
}

static uint32_t find_group(struct shaping *w, const struct shape_group *key)
{
	uint32_t k[7] = {key->out, key->stack, key->attributes[0], key->attributes[1],
		key->attributes[2], key->attributes[3], key->timed};
	size_t at = hash_local(k, sizeof(k)) & (w->table_size - 1);

	for (; w->table[at]; at = (at + 1) & (w->table_size - 1))
		if (same_group(&w->s->groups[w->table[at] - 1], key))
			return w->table[at] - 1;
	w->s->groups[w->s->n_groups] = *key;
	w->table[at] = ++w->s->n_groups;
	return w->s->n_groups - 1;
}

static int shape_sample(struct shaping *w, const struct profile_sample *sample, uint8_t type,
	int64_t out, struct shape_row *row)
{
	bool times = w->filter.rules && w->filter.rules->timestamps;
	struct shape_group key = {.timed = times && sample->n_timestamps > 0};
	int64_t stack;
	int r;

	*row = (struct shape_row){.all = sample->value + sample->n_timestamps,
		.group = NO_GROUP,
		.first_timestamp = sample->first_timestamp,
		.timed = key.timed,
		.type = type};
	if (out < 0)
		return 0;
	row->out = key.out = (uint32_t)out;
	stack = shape_filter_stack(&w->filter, sample->stack);
	if (stack < 0)
		return (int)stack;
	key.stack = (uint32_t)stack;
	r = shape_filter_attributes(&w->filter, sample->attributes, key.attributes);
	if (r < 0)
		return r;
	row->group = find_group(w, &key);
	w->s->groups[row->group].all += row->all;
	return 0;
}

/* ---- what goes out ------------------------------------------------------------------------------- */

static void draw_offsets(struct shaping *w)
{
	uint32_t n = w->filter.rules ? w->filter.rules->sample : 1;
	uint8_t seed[32];

	if (n < 2)
		return;
	memcpy(seed, w->header->boot_id, 16);
	memcpy(seed + 16, &w->header->serial, 8);
	for (uint64_t i = 0; i < w->s->n_groups; i++) {
		memcpy(seed + 24, &i, 8);
		w->s->groups[i].offset = hash_bytes(&id_keys[0], seed, sizeof(seed)) % n;
	}
}

static void keep_row(struct shaping *w, struct shape_row *row)
{
	uint64_t min = w->filter.rules ? w->filter.rules->min_samples : 0, n;
	struct shape_group *g;

	if (row->group == NO_GROUP)
		return;
	g = &w->s->groups[row->group];
	n = w->s->out[row->out].divisor;
	if (g->all >= min)
		row->kept = (g->before + row->all + g->offset) / n - (g->before + g->offset) / n;
	g->before += row->all;
	w->s->out[row->out].rows += row->kept > 0;
}

/* ---- timestamps ---------------------------------------------------------------------------------- */

/* The kept timestamps of a group's rows, from its first row on, side by side: a request that has several of the rows
 * writes them as one list. They are put into the batch's table by way of a part that is never sent. */
static int gather(struct shaping *w, uint64_t first, uint64_t **list, size_t *room)
{
	struct shaped *s = w->s;
	struct shape_group *g = &s->groups[s->rows[first].group];
	uint64_t n = s->out[g->out].divisor, seen = g->offset;
	struct profile_part *store = NULL;
	const struct profile_sample *stored;
	size_t count = 0;
	uint32_t at;
	int r;

	for (uint64_t i = first; i != UINT64_MAX; i = w->next[i]) {
		struct shape_row *row = &s->rows[i];
		const struct profile_sample from = {.first_timestamp = row->first_timestamp,
			.n_timestamps = (uint32_t)row->all};
		const uint64_t *times = batch_timestamps(s->batch, &from);

		if (count + row->all > *room) {
			size_t more = 2 * (count + row->all);
			uint64_t *grown = reallocarray(*list, more, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			*list = grown;
			*room = more;
		}
		for (uint64_t k = 0; k < row->all; k++, seen++)
			if (row->kept && (seen + 1) / n != seen / n)
				(*list)[count++] = times[k];
	}
	if (!count)
		return 0;
	r = batch_part(s->batch, 0, s->out[g->out].type, 0, 0, UINT64_MAX, &store);
	if (r == 0)
		r = batch_add_timestamps(s->batch, store, g->stack, g->attributes, *list, count);
	if (r < 0)
		return r;
	/* What was added last stands at the end of the table, whatever sample it was added to. */
	stored = NULL;
	for (uint32_t i = store->n_samples; i-- > 0 && !stored;)
		if (store->samples[i].stack == g->stack &&
			memcmp(store->samples[i].attributes, g->attributes,
				sizeof(g->attributes)) == 0)
			stored = &store->samples[i];
	if (!stored)
		return -EINVAL;
	at = stored->first_timestamp + stored->n_timestamps - (uint32_t)count;
	for (uint64_t i = first; i != UINT64_MAX; i = w->next[i]) {
		s->rows[i].first_timestamp = at;
		at += (uint32_t)s->rows[i].kept;
	}
	return 0;
}

/* Chains the rows of each group that has timestamps; lists that are as they go out stay where they are. */
static int gather_timestamps(struct shaping *w)
{
	struct shaped *s = w->s;
	_cleanup_free_ uint64_t *last = NULL, *first = NULL, *list = NULL;
	size_t room = 0;
	bool any = false;
	int r = 0;

	for (uint64_t i = 0; i < s->n_rows && !any; i++)
		any = s->rows[i].timed && s->rows[i].group != NO_GROUP;
	if (!any)
		return 0;
	last = malloc(((size_t)s->n_groups + 1) * sizeof(*last));
	first = malloc(((size_t)s->n_groups + 1) * sizeof(*first));
	w->next = malloc((s->n_rows + 1) * sizeof(*w->next));
	if (!last || !first || !w->next)
		return -ENOMEM;
	memset(last, 0xff, ((size_t)s->n_groups + 1) * sizeof(*last));
	memset(first, 0xff, ((size_t)s->n_groups + 1) * sizeof(*first));
	memset(w->next, 0xff, (s->n_rows + 1) * sizeof(*w->next));
	for (uint64_t i = 0; i < s->n_rows; i++) {
		uint32_t g = s->rows[i].group;

		if (g == NO_GROUP || !s->rows[i].timed)
			continue;
		if (last[g] == UINT64_MAX)
			first[g] = i;
		else
			w->next[last[g]] = i;
		last[g] = i;
	}
	for (uint32_t g = 0; g < s->n_groups && r == 0; g++) {
		if (first[g] == UINT64_MAX ||
			(first[g] == last[g] && s->rows[first[g]].kept == s->rows[first[g]].all))
			continue;
		r = gather(w, first[g], &list, &room);
	}
	return r;
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static int shape_rows_make(struct shaping *w)
{
	struct shaped *s = w->s;
	uint64_t row = 0;

	for (size_t i = 0; i < w->n_in; i++) {
		int64_t out = shape_part(w, i);

		if (out < 0 && out != SHAPE_NOT_KEPT)
			return (int)out;
		for (uint32_t k = 0; k < batch_part_at(s->batch, i)->n_samples; k++) {
			const struct profile_part *p = batch_part_at(s->batch, i);
			int r = shape_sample(w, &p->samples[k], p->type, out, &s->rows[row++]);

			if (r < 0)
				return r;
		}
	}
	draw_offsets(w);
	for (uint64_t i = 0; i < s->n_rows; i++)
		keep_row(w, &s->rows[i]);
	return gather_timestamps(w);
}

static int shape(struct shaped *s, const struct batch_header *header, bool merged)
{
	struct shaping w CLEANUP(shaping_deinit) = {.s = s, .header = header};

	shape_filter_init(&w.filter, s->batch, s->rules);
	w.n_in = batch_parts(s->batch);
	if (s->rules && *s->rules->text)
		w.rules_hash = hash_bytes(&id_keys[1], s->rules->text, strlen(s->rules->text)) | 1;
	for (size_t i = 0; i < w.n_in; i++) {
		const struct profile_part *p = batch_part_at(s->batch, i);

		s->n_rows += p->n_samples;
		if (!merged)
			continue;
		w.from = i ? MIN(w.from, p->time_unix_ns) : p->time_unix_ns;
		w.to = MAX(w.to, p->time_unix_ns + p->duration_ns);
	}
	for (w.table_size = 64; w.table_size < 2 * s->n_rows;)
		w.table_size *= 2;
	s->rows = calloc(s->n_rows + 1, sizeof(*s->rows));
	s->groups = calloc(s->n_rows + 1, sizeof(*s->groups));
	s->out = calloc(w.n_in + 1, sizeof(*s->out));
	w.table = calloc(w.table_size, sizeof(*w.table));
	if (!s->rows || !s->groups || !s->out || !w.table)
		return -ENOMEM;
	return shape_rows_make(&w);
}

static int decode(const struct shape_batch *from, struct batch **ret, struct err_text *err)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	uint64_t totals[PROFILE_TYPES];
	int r = profile_decode(from->bytes, from->len, &b, err);

	if (r < 0)
		return r;
	batch_totals(b, totals);
	for (size_t t = 0; t < ARRAY_SIZE(from->header->samples); t++)
		if (from->header->samples[t] != (t < PROFILE_TYPES ? totals[t] : 0))
			return err_set(err, -EBADMSG,
				"the batch does not hold the samples that its header says");
	*ret = TAKE_PTR(b);
	return 0;
}

static uint64_t count_rows(const struct batch *b, size_t from_part)
{
	uint64_t rows = 0;

	for (size_t i = from_part; i < batch_parts(b); i++)
		rows += batch_part_at(b, i)->n_samples;
	return rows;
}

/* Appends the next batch's parts to those that are there. Its rows have to be what they are by themselves. */
static int append(struct batch *to, const struct batch *next, struct err_text *err)
{
	size_t parts = batch_parts(to);
	int r = batch_merge(to, next, 0, 0);
	bool same = r == 0 && batch_parts(to) == parts + batch_parts(next);

	if (r < 0)
		return err_set(err, r, "batches could not be merged: %s", strerrordesc_np(-r));
	for (size_t i = 0; same && i < batch_parts(next); i++)
		same = batch_part_at(to, parts + i)->n_samples == batch_part_at(next, i)->n_samples;
	return same ? 0 : err_set(err, -ENOTSUP, "batches of the same time are not merged");
}

int shape_batches(struct shaped **ret, const struct shape_batch *list, size_t n,
	struct shape_rules *rules, struct err_text *err)
{
	CLEANUP(shape_freep) struct shaped *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->rules = shape_rules_ref(rules);
	s->n_batches = n;
	s->first = calloc(n + 1, sizeof(*s->first));
	if (!s->first)
		return err_set(err, -ENOMEM, "out of memory");
	r = decode(&list[0], &s->batch, err);
	if (r < 0)
		return r;
	s->first[1] = count_rows(s->batch, 0);
	for (size_t i = 1; i < n; i++) {
		CLEANUP(batch_freep) struct batch *next = NULL;
		size_t parts = batch_parts(s->batch);

		r = decode(&list[i], &next, err);
		if (r == 0)
			r = append(s->batch, next, err);
		if (r < 0)
			return r;
		s->first[i + 1] = s->first[i] + count_rows(s->batch, parts);
	}
	r = shape(s, list[0].header, n > 1);
	if (r < 0)
		return err_set(err, r, "the batch could not be shaped: %s", strerrordesc_np(-r));
	*ret = TAKE_PTR(s);
	return 0;
}

int shape_batch(struct shaped **ret, const void *bytes, size_t len,
	const struct batch_header *header, struct shape_rules *rules, struct err_text *err)
{
	const struct shape_batch one = {bytes, len, header};

	return shape_batches(ret, &one, 1, rules, err);
}

struct shaped *shape_free(struct shaped *s)
{
	if (s) {
		batch_free(s->batch);
		shape_rules_unref(s->rules);
		free(s->rows);
		free(s->groups);
		free(s->out);
		free(s->first);
		free(s);
	}
	return NULL;
}

uint64_t shape_rows(const struct shaped *s)
{
	return s->n_rows;
}

uint64_t shape_batch_rows(const struct shaped *s, size_t batch)
{
	return s->first[batch + 1] - s->first[batch];
}

const struct shape_rules *shape_rules_of(const struct shaped *s)
{
	return s->rules;
}
