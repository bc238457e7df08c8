/* SPDX-License-Identifier: Apache-2.0 */

/* Figures of how each binary is named.
 *
 * They are made of the batches that go out, so that they say what a backend gets, whatever was asked for and
 * when. A batch has its mappings in one table: its frames are added up by mapping first, and each mapping is looked
 * up once, by path and build id. What the symbolizer says of a file may come before or after its first batch, and a
 * build id only with it: a row that has none yet is taken over then.
 *
 * Invariants: at most FIGURES_MAX rows; what leaves is added to the totals of others, so that sums stay
 * exact. Runs in agentd. */

#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "agentd/daemon_symbols.h"

struct figures {
	struct map *map; /* path, NUL, build id -> struct figure */
	uint64_t batches;
	struct figures_totals totals;
};

static void figure_free(void *value)
{
	struct figure *x = value;

	free(x->path);
	free(x);
}

int figures_new(struct figures **ret)
{
	struct figures *f = calloc(1, sizeof(*f));
	int r = f ? map_new(&f->map, 0) : -ENOMEM;

	if (r < 0) {
		free(f);
		return r;
	}
	*ret = f;
	return 0;
}

struct figures *figures_free(struct figures *f)
{
	if (f) {
		map_free_with(f->map, figure_free);
		free(f);
	}
	return NULL;
}

/* ---- rows ---- */

#define KEY_MAX 4200

static size_t make_key(char key[static KEY_MAX], const char *path, const char *build_id)
{
	int n = snprintf(key, KEY_MAX, "%.4096s%c%.40s", path, '\0', build_id);

	return MIN((size_t)n, (size_t)KEY_MAX - 1);
}

static struct figure *find(const struct figures *f, const char *path, const char *build_id)
{
	char key[KEY_MAX];
	size_t len = make_key(key, path, build_id);

	return map_get(f->map, key, len);
}

/* Makes room for one by the row that was not seen for longest, of these the smallest. */
static void evict(struct figures *f)
{
	struct map_iter it = {0};
	struct figure *out = NULL;
	char key[KEY_MAX];

	while (map_next(f->map, &it)) {
		struct figure *x = it.value;

		if (!out || x->batch < out->batch ||
			(x->batch == out->batch && x->samples < out->samples))
			out = x;
	}
	if (!out)
		return;
	f->totals.other_files++;
	f->totals.other_samples += out->samples;
	f->totals.other_frames += out->frames;
	f->totals.other_named += out->named;
	map_remove(f->map, key, make_key(key, out->path, out->build_id));
	figure_free(out);
}

static int put(struct figures *f, struct figure *x)
{
	char key[KEY_MAX];
	size_t len = make_key(key, x->path, x->build_id);

	return map_put(f->map, key, len, x, NULL);
}

/* Made if it is not there; NULL: no memory. */
static struct figure *get(struct figures *f, const char *path, const char *build_id)
{
	struct figure *x = find(f, path, build_id);

	if (x)
		return x;
	if (map_size(f->map) >= FIGURES_MAX)
		evict(f);
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	snprintf(x->build_id, sizeof(x->build_id), "%s", build_id);
	snprintf(x->named_by, sizeof(x->named_by), "none");
	x->path = strndup(path, 4096);
	if (x->path && put(f, x) >= 0)
		return x;
	figure_free(x);
	return NULL;
}

/* ---- counting ---- */

struct tally {
	uint64_t samples, frames, named;
	uint64_t stack; /* the last sample that had it, from 1 */
};

static void add_tally(
	struct figures *f, const char *path, const char *build_id, const struct tally *t)
{
	struct figure *x = get(f, path, build_id);

	if (!x) {
		f->totals.lost++;
		return;
	}
	x->samples += t->samples;
	x->frames += t->frames;
	x->named += t->named;
	x->batch = f->batches;
}

/* A file has a mapping for each segment: all of them count for the first. -ENOMEM. */
static int unite(const struct batch *b, uint32_t top, uint32_t *first)
{
	CLEANUP(map_freep) struct map *known = NULL;
	int r = map_new(&known, 2 * sizeof(uint32_t));

	for (uint32_t i = 1; i <= top && r >= 0; i++) {
		const struct profile_mapping *m = batch_mapping_at(b, i);
		uint32_t key[2] = {m->filename, m->build_id};
		void *other = map_get(known, key, sizeof(key));

		first[i] = other ? (uint32_t)(uintptr_t)other : i;
		if (!other)
			r = map_put(known, key, sizeof(key), (void *)(uintptr_t)i, NULL);
	}
	return r;
}

/* tallies[0] is the kernel's. */
static void count_stack(struct figures *f, const struct batch *b, const struct profile_sample *s,
	uint64_t serial, const uint32_t *first, struct tally *tallies)
{
	size_t n;
	const uint32_t *stack = batch_stack_at(b, s->stack, &n);

	f->totals.samples += s->value;
	for (size_t i = 0; i < n; i++) {
		const struct profile_location *l = batch_location_at(b, stack[i]);
		bool kernel = l->frame_type == PROFILE_FRAME_KERNEL;
		/* Fallbacks have no name of the symbol table's. */
		bool named = batch_function_at(b, batch_lines(b, l)->function)->system_name != 0;
		struct tally *t = &tallies[kernel ? 0 : first[l->mapping]];

		if (l->frame_type == PROFILE_FRAME_UNKNOWN || (!kernel && !l->mapping))
			continue;
		t->samples += t->stack != serial ? s->value : 0;
		t->stack = serial;
		t->frames += s->value;
		t->named += named ? s->value : 0;
		f->totals.frames += s->value;
		f->totals.named += named ? s->value : 0;
	}
}

void figures_count(struct figures *f, const struct batch *b)
{
	_cleanup_free_ struct tally *tallies = NULL;
	_cleanup_free_ uint32_t *first = NULL;
	uint64_t serial = 0;
	uint32_t top = 0;

	for (uint32_t i = 0; i < batch_locations(b); i++)
		top = MAX(top, batch_location_at(b, i)->mapping);
	tallies = calloc((size_t)top + 1, sizeof(*tallies));
	first = calloc((size_t)top + 1, sizeof(*first));
	f->batches++;
	if (!tallies || !first || unite(b, top, first) < 0) {
		f->totals.lost++;
		return;
	}
	for (size_t p = 0; p < batch_parts(b); p++) {
		const struct profile_part *part = batch_part_at(b, p);

		for (uint32_t s = 0; s < part->n_samples; s++)
			count_stack(f, b, &part->samples[s], ++serial, first, tallies);
	}
	if (tallies[0].samples)
		add_tally(f, FIGURES_KERNEL, "", &tallies[0]);
	for (uint32_t i = 1; i <= top; i++) {
		const struct profile_mapping *m = batch_mapping_at(b, i);

		if (tallies[i].samples)
			add_tally(f, batch_string_at(b, m->filename),
				batch_string_at(b, m->build_id), &tallies[i]);
	}
}

/* ---- facts ---- */

/* The row that this file had while its build id was not known becomes its own, unless both are there. */
static struct figure *adopt(struct figures *f, const char *path, const char *build_id)
{
	struct figure *mine = find(f, path, build_id), *nameless;
	char key[KEY_MAX];

	if (mine || !*build_id)
		return mine ? mine : get(f, path, build_id);
	nameless = find(f, path, "");
	if (!nameless || nameless->seen)
		return get(f, path, build_id);
	map_remove(f->map, key, make_key(key, path, ""));
	snprintf(nameless->build_id, sizeof(nameless->build_id), "%s", build_id);
	if (put(f, nameless) >= 0)
		return nameless;
	figure_free(nameless);
	f->totals.lost++;
	return NULL;
}

void figures_facts(
	struct figures *f, const char *path, uint32_t file, const struct symbol_file_facts *facts)
{
	struct figure *x = adopt(f, path, facts->build_id);

	if (!x)
		return;
	if (x->file != file)
		x->cpu_before_us = x->cpu_us;
	x->file = file;
	x->cpu_us = x->cpu_before_us + facts->cpu_us;
	x->seen = facts->seen;
	x->has_debug_info = facts->has_debug_info;
	x->has_symtab = facts->has_symtab;
	x->has_debug_file = facts->has_debug_file;
	snprintf(x->named_by, sizeof(x->named_by), "%s", facts->named_by);
	snprintf(x->problem, sizeof(x->problem), "%s", facts->last_problem);
	/* It may not be in a batch for a while yet: it is as young as those that are. */
	x->batch = MAX(x->batch, f->batches);
}

/* ---- reading ---- */

static int by_samples(const void *a, const void *b)
{
	const struct figure *x = *(const struct figure *const *)a,
			    *y = *(const struct figure *const *)b;

	if (x->samples != y->samples)
		return x->samples < y->samples ? 1 : -1;
	if (x->frames != y->frames)
		return x->frames < y->frames ? 1 : -1;
	return strcmp(x->path, y->path);
}

int figures_list(const struct figures *f, const struct figure ***ret, size_t *ret_n)
{
	const struct figure **list = calloc(map_size(f->map) + 1, sizeof(*list));
	struct map_iter it = {0};
	size_t n = 0;

	if (!list)
		return -ENOMEM;
	while (map_next(f->map, &it))
		list[n++] = it.value;
	qsort(list, n, sizeof(*list), by_samples);
	*ret = list;
	*ret_n = n;
	return 0;
}

const struct figures_totals *figures_totals(const struct figures *f)
{
	return &f->totals;
}
