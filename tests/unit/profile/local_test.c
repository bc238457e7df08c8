/* SPDX-License-Identifier: Apache-2.0 */

/* The local profiles on a real file system with real reader children (this program is the role,
 * too): answers are those of a plain count, crashes cost what they must and no more, roll-ups
 * conserve, and a reader that dies, hangs or lies costs its query. */

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#include "tests/unit/profile/fixture.h"
#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/profile/local_private.h"

#define T0 (1700000000ULL / 3600 * 3600 * NSEC_PER_SEC) /* on the hour */

/* ---- a place for each test ---- */

struct place {
	sd_event *loop;
	char dir[64];
	struct local_config config;
	struct local *l;
};

static void place_open(struct place *p)
{
	struct err_text err = {""};

	if (local_new(&p->l, p->loop, p->dir, &p->config, &err) < 0)
		fail_msg("%s", err.text);
}

static void place_reopen(struct place *p)
{
	p->l = local_free(p->l);
	place_open(p);
}

static int place_setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	snprintf(p->dir, sizeof(p->dir), "/tmp/odi-local-test-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	assert_true(sd_event_new(&p->loop) >= 0);
	p->config = (struct local_config){.max_bytes = 64 << 20, .max_age_ns = UINT64_MAX / 4};
	place_open(p);
	*state = p;
	return 0;
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int place_teardown(void **state)
{
	struct place *p = *state;

	sandbox_set_program("/proc/self/exe");
	local_free(p->l);
	sd_event_unref(p->loop);
	nftw(p->dir, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
	free(p);
	return 0;
}

/* Batch i: 10 s from T0 on. */
static struct shape shape_at(unsigned i)
{
	struct shape s = small_shape;

	s.time_unix_ns = T0 + i * 10 * NSEC_PER_SEC;
	s.period = i % 7 == 3 ? NSEC_PER_SEC / 49 : NSEC_PER_SEC / 99;
	return s;
}

static struct batch *batch_nr(unsigned i)
{
	struct shape s = shape_at(i);

	return random_batch(i + 1, &s);
}

static void encode_nr(unsigned i, struct batch_header *header, struct buf *bytes)
{
	CLEANUP(batch_freep) struct batch *b = batch_nr(i);
	uint64_t totals[PROFILE_TYPES];

	batch_totals(b, totals);
	*header = (struct batch_header){.boot_id = {7},
		.serial = i + 1,
		.from_unix_ns = shape_at(i).time_unix_ns,
		.to_unix_ns = shape_at(i).time_unix_ns + 10 * NSEC_PER_SEC,
		.samples = {totals[0]}};
	buf_init(bytes, 0);
	assert_int_equal(profile_encode(b, header, NULL, 0, bytes), 0);
}

static void append_nr(struct place *p, unsigned i)
{
	struct batch_header header;
	_cleanup_buf_ struct buf bytes;

	encode_nr(i, &header, &bytes);
	assert_int_equal(local_append(p->l, &header, bytes.data, bytes.len), 0);
}

/* ---- answers as text ---- */

struct outcome {
	int called;
	struct query_result *result;
	struct err_text err;
};

static void on_done(void *userdata, struct query_result *result, const struct err_text *err)
{
	struct outcome *o = userdata;

	o->called++;
	o->result = result;
	if (err)
		o->err = *err;
}

static void wait_for(struct place *p, const int *called, int times)
{
	uint64_t until = clock_monotonic_ns() + 60 * NSEC_PER_SEC;

	while (*called < times && clock_monotonic_ns() < until)
		assert_true(sd_event_run(p->loop, 100000) >= 0);
	assert_int_equal(*called, times);
}

static struct query_result *ask(struct place *p, const struct query *q, const struct buf *open)
{
	struct outcome o = {0};

	assert_true(local_query(p->l, q, open ? open->data : NULL, open ? open->len : 0, 30000,
			    on_done, &o) > 0);
	wait_for(p, &o.called, 1);
	if (!o.result)
		fail_msg("%s", o.err.text);
	return o.result;
}

/* "service;outermost;...;innermost" and its own time, a line each. */
struct lines {
	struct {
		char *path;
		uint64_t ns, samples;
	} * at;
	size_t n, room;
};

static void lines_add(struct lines *l, const char *path, uint64_t ns, uint64_t samples)
{
	if (!ns)
		return;
	if (l->n == l->room) {
		l->room = l->room * 2 + 64;
		l->at = realloc(l->at, l->room * sizeof(*l->at));
	}
	l->at[l->n].path = strdup(path);
	l->at[l->n].ns = ns;
	l->at[l->n++].samples = samples;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, equal paths as one. */
static char *lines_text(struct lines *l)
{
	struct buf out;

	buf_init(&out, 0);
	if (l->n)
		qsort(l->at, l->n, sizeof(*l->at), by_path);
	for (size_t i = 0; i < l->n;) {
		uint64_t ns = 0, samples = 0;
		size_t k = i;

		for (; k < l->n && streq(l->at[k].path, l->at[i].path); k++) {
			ns += l->at[k].ns;
			samples += l->at[k].samples;
		}
		buf_printf(&out, "%s %llu %llu\n", l->at[i].path, (unsigned long long)ns,
			(unsigned long long)samples);
		i = k;
	}
	for (size_t i = 0; i < l->n; i++)
		free(l->at[i].path);
	free(l->at);
	return buf_take_str(&out);
}

/* What the query should answer of a batch, by a plain walk. */
static void count_plainly(
	struct lines *l, struct lines *rows, const struct batch *b, const struct query *q)
{
	for (size_t i = 0; i < batch_parts(b); i++) {
		const struct profile_part *part = batch_part_at(b, i);
		uint64_t middle = part->time_unix_ns + part->duration_ns / 2;
		const struct profile_resource_attribute *a;
		const char *service = "", *source = "";
		long long pid = 0;
		size_t n;

		a = batch_resource_at(b, part->resource, &n);
		for (size_t k = 0; k < n; k++) {
			if (streq(batch_string_at(b, a[k].key), "service.name"))
				service = batch_string_at(b, a[k].value);
			if (streq(batch_string_at(b, a[k].key), "odi.source"))
				source = batch_string_at(b, a[k].value);
			if (streq(batch_string_at(b, a[k].key), "process.pid"))
				pid = a[k].number;
		}
		if (middle < q->from_unix_ns || middle >= q->to_unix_ns ||
			(*q->service && !streq(service, q->service)) ||
			(*q->source && !streq(source, q->source)))
			continue;
		for (uint32_t s = 0; s < part->n_samples; s++) {
			const struct profile_sample *x = &part->samples[s];
			const uint32_t *stack = batch_stack_at(b, x->stack, &n);
			const char *thread = "";
			long long tid = 0;
			struct buf path;

			buf_init(&path, 0);
			buf_str(&path, service);
			for (size_t k = n; k-- > 0;) {
				const struct profile_location *loc = batch_location_at(b, stack[k]);
				const char *file = batch_string_at(
					b, batch_mapping_at(b, loc->mapping)->filename);

				for (uint32_t f = loc->n_lines; f-- > 0;) {
					const struct profile_function *fn = batch_function_at(
						b, batch_lines(b, loc)[f].function);

					buf_printf(&path, ";%s[%s %s %u%s]",
						batch_string_at(b, fn->name),
						*file ? strrchr(file, '/') + 1 : "",
						batch_string_at(b, fn->filename), loc->frame_type,
						f + 1 < loc->n_lines ? " inlined" : "");
				}
			}
			lines_add(l, (char *)path.data, x->value * part->period, x->value);
			buf_reset(&path);
			for (size_t k = 0; k < 4 && x->attributes[k]; k++) {
				const struct profile_attribute *at =
					batch_attribute_at(b, x->attributes[k]);

				if (at->is_int)
					tid = at->number;
				else
					thread = batch_string_at(b, at->value);
			}
			buf_printf(&path, "%s|%lld|%s [%lld]", service, pid, thread, tid);
			if (rows)
				lines_add(
					rows, (char *)path.data, x->value * part->period, x->value);
			buf_deinit(&path);
		}
	}
}

static char *result_rows(const struct query_result *r)
{
	struct lines l = {0};

	for (size_t i = 0; i < r->n_rows; i++) {
		char path[512];

		snprintf(path, sizeof(path), "%s|%s|%s", r->strings[r->rows[i].service],
			r->strings[r->rows[i].process], r->strings[r->rows[i].thread]);
		lines_add(&l, path, r->rows[i].ns, r->rows[i].samples);
	}
	return lines_text(&l);
}

static char *result_text(const struct query_result *r)
{
	struct lines l = {0};
	char **paths = calloc(r->n_nodes, sizeof(*paths));
	uint64_t sum = 0, sum_samples = 0, *totals = calloc(r->n_nodes, sizeof(*totals));

	for (size_t i = 0; i < r->n_nodes; i++) {
		const struct query_node *x = &r->nodes[i];
		const struct query_function *f = &r->functions[x->function];
		struct buf path;

		buf_init(&path, 0);
		if (i && !x->parent)
			buf_str(&path, r->strings[x->service]);
		else if (i)
			buf_printf(&path, "%s;%s[%s %s %u%s]", paths[x->parent],
				r->strings[f->name], r->strings[f->module], r->strings[f->file],
				f->frame_type, f->inlined ? " inlined" : "");
		paths[i] = buf_take_str(&path);
		lines_add(&l, paths[i], x->self_ns, x->self_samples);
		sum += x->self_ns;
		sum_samples += x->self_samples;
	}
	for (size_t i = r->n_nodes; i-- > 0;) { /* totals are self and children's */
		totals[i] += r->nodes[i].self_ns;
		assert_int_equal(totals[i], r->nodes[i].total_ns);
		if (i)
			totals[r->nodes[i].parent] += totals[i];
	}
	assert_int_equal(sum, r->total_ns);
	assert_int_equal(sum_samples, r->total_samples);
	for (size_t i = 0; i < r->n_nodes; i++)
		free(paths[i]);
	free(paths);
	free(totals);
	return lines_text(&l);
}

static const struct query everything = {.to_unix_ns = UINT64_MAX};

static char *ask_text(struct place *p, const struct query *q)
{
	struct query_result *r = ask(p, q, NULL);
	char *text = result_text(r);

	query_result_free(r);
	return text;
}

static char *expect_text(const struct query *q, unsigned first, unsigned end)
{
	struct lines l = {0};

	for (unsigned i = first; i < end; i++) {
		CLEANUP(batch_freep) struct batch *b = batch_nr(i);

		count_plainly(&l, NULL, b, q);
	}
	return lines_text(&l);
}

static void path_in(const struct place *p, char out[128], uint64_t number, unsigned level)
{
	char name[32];

	local_segment_name(name, number, level);
	snprintf(out, 128, "%s/%s", p->dir, name);
}

/* ---- queries ---- */

static void test_queries_agree_with_a_plain_count(void **state)
{
	struct place *p = *state;
	const struct query queries[] = {
		everything,
		{.to_unix_ns = UINT64_MAX, .service = "service-1"},
		{.to_unix_ns = UINT64_MAX, .source = "source-0"},
		{.to_unix_ns = UINT64_MAX, .service = "service-1", .source = "source-0"}, /* none */
		{.from_unix_ns = T0 + 25 * NSEC_PER_SEC, .to_unix_ns = T0 + 75 * NSEC_PER_SEC},
		{.from_unix_ns = T0 + 26 * NSEC_PER_SEC,
			.to_unix_ns = T0 + 28 * NSEC_PER_SEC}, /* none: no middle */
		{.to_unix_ns = UINT64_MAX, .service = "not there"},
	};
	_cleanup_buf_ struct buf open;
	struct batch_header header;

	for (unsigned i = 0; i < 20; i++)
		append_nr(p, i);
	encode_nr(20, &header, &open);
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		struct query_result *r = ask(p, &queries[i], &open);
		struct lines lines = {0}, rows = {0};
		_cleanup_free_ char *got = result_text(r), *got_rows = result_rows(r), *want = NULL,
				    *want_rows = NULL;

		for (unsigned k = 0; k <= 20; k++) {
			CLEANUP(batch_freep) struct batch *b = batch_nr(k);

			count_plainly(&lines, &rows, b, &queries[i]);
		}
		want = lines_text(&lines);
		want_rows = lines_text(&rows);
		/* pids are "100", threads "worker-1 [1000]" on both sides */
		assert_string_equal(got, want);
		assert_string_equal(got_rows, want_rows);
		assert_int_equal(r->damaged, 0);
		if (i == 0) {
			assert_int_equal(r->from_unix_ns, T0);
			assert_int_equal(r->to_unix_ns, T0 + 210 * NSEC_PER_SEC);
			assert_int_equal(r->period_ns, shape_at(20).period);
		}
		if (i == 4) {
			assert_int_equal(r->from_unix_ns, T0 + 20 * NSEC_PER_SEC);
			assert_int_equal(r->to_unix_ns, T0 + 70 * NSEC_PER_SEC);
		}
		query_result_free(r);
	}
}

static void test_nothing_held(void **state)
{
	struct place *p = *state;
	struct query_result *r = ask(p, &everything, NULL);
	struct local_state s;

	assert_int_equal(r->n_nodes, 1);
	assert_int_equal(r->total_ns, 0);
	query_result_free(r);
	local_state(p->l, &s);
	assert_int_equal(s.from_unix_ns, 0);
	assert_int_equal(s.to_unix_ns, 0);
	assert_int_equal(s.bytes, 0);
}

static void test_pruning_conserves(void **state)
{
	struct place *p = *state;
	struct query_result *whole, *r;

	for (unsigned i = 0; i < 20; i++)
		append_nr(p, i);
	whole = ask(p, &everything, NULL);
	assert_int_equal(whole->cut_nodes, 0);
	for (uint32_t max = 16; max < whole->n_nodes; max = max * 3 / 2) {
		struct query q = everything;
		_cleanup_free_ char *text = NULL;

		q.max_nodes = max;
		r = ask(p, &q, NULL);
		text = result_text(r); /* checks the sums */
		assert_int_equal(r->total_ns, whole->total_ns);
		assert_int_equal(r->total_samples, whole->total_samples);
		assert_true(r->n_nodes <= max && r->n_nodes + 2 >= max);
		assert_true(r->cut_nodes > 0 && r->cut_nodes >= whole->n_nodes - max);
		assert_non_null(strstr(text, "[other]"));
		query_result_free(r);
	}
	query_result_free(whole);
}

/* ---- crashes ---- */

static void test_torn_tail(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *all = NULL, *first = expect_text(&everything, 0, 2);
	uint64_t before, after;
	struct local_state s;
	_cleanup_buf_ struct buf file;
	char path[128];

	buf_init(&file, 0);
	append_nr(p, 0);
	append_nr(p, 1);
	local_state(p->l, &s);
	before = s.bytes;
	append_nr(p, 2);
	local_state(p->l, &s);
	after = s.bytes;
	path_in(p, path, 1, 0);
	assert_int_equal(io_read_file(AT_FDCWD, path, &file, 1 << 20), 0);
	assert_int_equal(file.len, after);
	for (uint64_t cut = before; cut < after; cut++) {
		p->l = local_free(p->l);
		assert_int_equal(io_write_atomic(AT_FDCWD, path, file.data, cut, 0600), 0);
		place_open(p);
		local_state(p->l, &s);
		assert_int_equal(s.blocks, 2);
		assert_int_equal(s.bytes, before); /* cut off */
		assert_int_equal(s.damaged, cut > before);
		assert_int_equal(s.to_unix_ns, T0 + 20 * NSEC_PER_SEC);
		if (cut % 97 == 0) { /* what is left is read, and what comes goes behind it */
			_cleanup_free_ char *got = ask_text(p, &everything), *more = NULL;

			assert_string_equal(got, first);
			append_nr(p, 2);
			more = ask_text(p, &everything);
			all = all ? all : expect_text(&everything, 0, 3);
			assert_string_equal(more, all);
		}
	}
	/* power lost: the length is there, the bytes are not */
	p->l = local_free(p->l);
	memset(file.data + before + SEGMENT_HEADER + 5, 0, 40);
	assert_int_equal(io_write_atomic(AT_FDCWD, path, file.data, after, 0600), 0);
	place_open(p);
	local_state(p->l, &s);
	assert_int_equal(s.blocks, 2);
	assert_int_equal(s.damaged, 1);
	assert_int_equal(s.bytes, before);
}

static void test_damage_within_costs_itself(void **state)
{
	struct place *p = *state;
	_cleanup_buf_ struct buf file;
	uint64_t ends[4] = {0};
	struct local_state s;
	char path[128];

	buf_init(&file, 0);
	for (unsigned i = 0; i < 3; i++) {
		append_nr(p, i);
		local_state(p->l, &s);
		ends[i + 1] = s.bytes;
	}
	path_in(p, path, 1, 0);
	assert_int_equal(io_read_file(AT_FDCWD, path, &file, 1 << 20), 0);
	for (uint64_t at = ends[1]; at < ends[2]; at += at < ends[1] + SEGMENT_HEADER ? 11 : 101) {
		struct lines want = {0};
		_cleanup_free_ char *got = NULL, *expected = NULL;
		struct query_result *r;

		p->l = local_free(p->l);
		file.data[at] ^= 0x10;
		assert_int_equal(io_write_atomic(AT_FDCWD, path, file.data, file.len, 0600), 0);
		file.data[at] ^= 0x10;
		place_open(p);
		r = ask(p, &everything, NULL);
		assert_int_equal(r->damaged, 1);
		got = result_text(r);
		query_result_free(r);
		for (unsigned i = 0; i < 3; i += 2) {
			CLEANUP(batch_freep) struct batch *b = batch_nr(i);

			count_plainly(&want, NULL, b, &everything);
		}
		expected = lines_text(&want);
		assert_string_equal(got, expected);
	}
}

static void test_restart_goes_on(void **state)
{
	struct place *p = *state;
	struct local_state s;

	for (unsigned i = 0; i < 5; i++) {
		append_nr(p, i);
		place_reopen(p);
	}
	local_state(p->l, &s);
	assert_int_equal(s.blocks, 5);
	assert_int_equal(p->l->n_segments, 1); /* not one a start */
	append_nr(p, 400);                     /* the next hour */
	assert_int_equal(p->l->n_segments, 2);
	/* files that are not ours are left alone */
	{
		char path[128];

		snprintf(path, sizeof(path), "%s/notes.txt", p->dir);
		assert_int_equal(io_write_atomic(AT_FDCWD, path, "x", 1, 0600), 0);
		place_reopen(p);
		assert_int_equal(access(path, F_OK), 0);
	}
}

static void test_write_failure(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *got = NULL, *want = expect_text(&everything, 0, 3);
	struct batch_header header;
	_cleanup_buf_ struct buf bytes;
	struct rlimit was, tight;
	struct local_state s;

	append_nr(p, 0);
	append_nr(p, 1);
	local_state(p->l, &s);
	encode_nr(2, &header, &bytes);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	signal(SIGXFSZ, SIG_IGN);
	for (uint64_t room = 0; room < 400; room += 7) { /* as on a full disk: part of it goes in */
		tight = (struct rlimit){s.bytes + room, was.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
		assert_true(local_append(p->l, &header, bytes.data, bytes.len) < 0);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	}
	local_state(p->l, &s);
	assert_int_equal(s.blocks, 2);
	assert_true(s.write_errors > 50);
	assert_true(strlen(s.last_problem) > 10);
	assert_int_equal(local_append(p->l, &header, bytes.data, bytes.len), 0);
	place_reopen(p);
	got = ask_text(p, &everything);
	assert_string_equal(got, want);
	local_state(p->l, &s);
	assert_int_equal(s.damaged, 0);
}

/* ---- bounds ---- */

static uint64_t folder_bytes(const struct place *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < p->l->n_segments; i++) {
		char path[128];
		struct stat st;

		path_in(p, path, p->l->segments[i].number, p->l->segments[i].level);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal((uint64_t)st.st_size, p->l->segments[i].bytes);
		sum += (uint64_t)st.st_size;
	}
	return sum;
}

static void test_eviction(void **state)
{
	struct place *p = *state;
	struct local_state s;
	unsigned n = 0;

	p->config.max_bytes = 1 << 20;
	local_configure(p->l, &p->config);
	do {
		append_nr(p, n++);
		local_state(p->l, &s);
		assert_true(s.bytes <= 1 << 20);
		assert_int_equal(s.bytes, folder_bytes(p));
		assert_int_equal(s.blocks + s.evicted, n);
		/* the newest is always there */
		assert_int_equal(s.to_unix_ns, shape_at(n - 1).time_unix_ns + 10 * NSEC_PER_SEC);
	} while (s.evicted < 200 && n < 5000);
	assert_true(s.evicted >= 200);
	assert_true(s.bytes > (1 << 20) * 3 / 4); /* no more is thrown away than must be */
	assert_int_equal(
		s.from_unix_ns, shape_at((unsigned)s.evicted).time_unix_ns); /* the oldest went */
	{
		_cleanup_free_ char *got = ask_text(p, &everything),
				    *want = expect_text(&everything, (unsigned)s.evicted, n);

		assert_string_equal(got, want);
	}
	/* age */
	p->config.max_age_ns = 3600 * NSEC_PER_SEC;
	p->config.fine_ns = p->config.middle_ns = UINT64_MAX / 4;
	local_configure(p->l, &p->config);
	local_maintain(p->l, s.to_unix_ns + 1800 * NSEC_PER_SEC);
	local_state(p->l, &s);
	assert_true(s.blocks > 0 && s.blocks < n);
	assert_true(s.from_unix_ns + 2 * 3600 * NSEC_PER_SEC >= s.to_unix_ns);
	local_maintain(p->l, s.to_unix_ns + 3601 * NSEC_PER_SEC);
	local_state(p->l, &s);
	assert_int_equal(s.blocks, 0);
	assert_int_equal(s.bytes, 0);
	append_nr(p, 1);
	local_state(p->l, &s);
	assert_int_equal(s.blocks, 1);
}

/* ---- roll-ups ---- */

static void roll_all(struct place *p, uint64_t now)
{
	uint64_t until = clock_monotonic_ns() + 60 * NSEC_PER_SEC;

	for (;;) {
		local_maintain(p->l, now);
		if (!p->l->roll)
			break;
		while (p->l->roll && clock_monotonic_ns() < until)
			assert_true(sd_event_run(p->l->loop, 100000) >= 0);
		assert_null(p->l->roll);
	}
}

static unsigned levels(const struct place *p, unsigned level)
{
	unsigned n = 0;

	for (size_t i = 0; i < p->l->n_segments; i++)
		n += p->l->segments[i].level == level;
	return n;
}

static void test_roll_up_conserves(void **state)
{
	struct place *p = *state;
	const unsigned n = 400; /* more than an hour: two segments */
	struct query q = everything;
	_cleanup_free_ char *fine = NULL, *by_minute = NULL, *by_ten = NULL, *rows = NULL,
			    *rows_after = NULL;
	_cleanup_free_ char *minute = NULL, *minute_after = NULL;
	struct query_result *r;
	struct local_state s, after;
	uint64_t hour = 3600 * NSEC_PER_SEC;

	for (unsigned i = 0; i < n; i++)
		append_nr(p, i);
	fine = expect_text(&everything, 0, n);
	r = ask(p, &everything, NULL);
	rows = result_rows(r);
	query_result_free(r);
	q.from_unix_ns = T0 + 600 * NSEC_PER_SEC;
	q.to_unix_ns = T0 + 660 * NSEC_PER_SEC;
	minute = ask_text(p, &q);
	local_state(p->l, &s);

	roll_all(p, T0 + hour / 2); /* nothing is due */
	assert_int_equal(levels(p, 0), 2);
	roll_all(p, T0 + 3 * hour);
	assert_int_equal(levels(p, 0), 0);
	assert_int_equal(levels(p, 1), 2);
	local_state(p->l, &after);
	assert_int_equal(after.bytes, folder_bytes(p));
	assert_true(after.bytes < s.bytes);
	assert_int_equal(after.from_unix_ns, s.from_unix_ns);
	assert_int_equal(after.to_unix_ns, s.to_unix_ns);
	by_minute = ask_text(p, &everything);
	assert_string_equal(by_minute, fine);
	/* a minute is still a minute */
	minute_after = ask_text(p, &q);
	assert_string_equal(minute_after, minute);

	roll_all(p, T0 + 30 * hour);
	assert_int_equal(levels(p, 2), 2);
	r = ask(p, &everything, NULL);
	by_ten = result_text(r);
	rows_after = result_rows(r);
	assert_string_equal(by_ten, fine);
	assert_string_equal(rows_after, rows);
	query_result_free(r);
	q.to_unix_ns = T0 + 1200 * NSEC_PER_SEC;
	r = ask(p, &q, NULL);
	assert_int_equal(r->from_unix_ns, T0 + 600 * NSEC_PER_SEC);
	assert_int_equal(r->to_unix_ns, T0 + 1200 * NSEC_PER_SEC);
	query_result_free(r);
	roll_all(p, T0 + 300 * hour); /* it ends there */
	place_reopen(p);
	by_ten = (free(by_ten), ask_text(p, &everything));
	assert_string_equal(by_ten, fine);
}

static void copy_file(const char *from, const char *to)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 0);
	assert_int_equal(io_read_file(AT_FDCWD, from, &b, 64 << 20), 0);
	assert_int_equal(io_write_atomic(AT_FDCWD, to, b.data, b.len, 0600), 0);
}

static void test_interrupted_roll_up(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *want = expect_text(&everything, 0, 10), *got = NULL, *again = NULL;
	char source[128], saved[128], temporary[128], rolled[128];
	uint64_t later = T0 + 10 * 3600 * NSEC_PER_SEC;

	for (unsigned i = 0; i < 10; i++)
		append_nr(p, i);
	path_in(p, source, 1, 0);
	path_in(p, rolled, 1, 1);
	snprintf(saved, sizeof(saved), "%s/saved", p->dir);
	snprintf(temporary, sizeof(temporary), "%s/%016x.tmp", p->dir, 1);
	copy_file(source, saved);
	/* ended while the reader was at work */
	local_maintain(p->l, later);
	assert_non_null(p->l->roll);
	place_reopen(p);
	assert_int_equal(access(rolled, F_OK), -1);
	got = ask_text(p, &everything);
	assert_string_equal(got, want);
	/* killed before the rename: the temporary file is there */
	copy_file(saved, temporary);
	place_reopen(p);
	assert_int_equal(access(temporary, F_OK), -1);
	/* killed after the rename: both are there */
	roll_all(p, later);
	assert_int_equal(levels(p, 1), 1);
	assert_int_equal(access(source, F_OK), -1);
	copy_file(saved, source);
	place_reopen(p);
	assert_int_equal(p->l->n_segments, 1);
	assert_int_equal(levels(p, 1), 1);
	assert_int_equal(access(source, F_OK), -1);
	again = ask_text(p, &everything);
	assert_string_equal(again, want);
	/* a number is not used again */
	append_nr(p, 500);
	assert_int_equal(p->l->active, 2);
	/* in whatever order the folder lists them: names enough for both */
	for (uint64_t n = 3; n < 30; n++) {
		char one[128], two[128];

		path_in(p, one, n, 0);
		path_in(p, two, n, 1);
		copy_file(saved, one);
		copy_file(rolled, two);
	}
	place_reopen(p);
	assert_int_equal(levels(p, 1), 28);
	assert_int_equal(levels(p, 0), 1);
}

/* Asked before, answered after: each batch is counted once, and what came later is not in it. */
static void test_query_while_things_change(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *want = expect_text(&everything, 0, 10), *got = NULL;
	struct outcome o = {0};

	for (unsigned i = 0; i < 10; i++)
		append_nr(p, i);
	assert_true(local_query(p->l, &everything, NULL, 0, 30000, on_done, &o) > 0);
	for (unsigned i = 10; i < 20; i++)
		append_nr(p, i);
	wait_for(p, &o.called, 1);
	assert_non_null(o.result);
	got = result_text(o.result);
	assert_string_equal(got, want);
	query_result_free(o.result);
}

static void test_batch_of_an_hour_in_blocks(void **state)
{
	struct place *p = *state;
	struct shape shape = {.services = 2,
		.functions = 30000,
		.stacks = 6000,
		.depth = 60,
		.samples = 20000,
		.duration_ns = 10 * NSEC_PER_SEC,
		.period = 1000};
	uint64_t sum = 0;
	struct query_result *r;

	p->config.max_bytes = 1 << 30;
	local_configure(p->l, &p->config);
	for (unsigned i = 0; i < 4; i++) {
		CLEANUP(batch_freep) struct batch *b = NULL;
		struct batch_header header = {.serial = i + 1};
		uint64_t totals[PROFILE_TYPES];
		_cleanup_buf_ struct buf bytes;

		buf_init(&bytes, 0);
		shape.time_unix_ns = T0 + i * 100 * NSEC_PER_SEC;
		b = random_batch(1000 + i, &shape);
		batch_totals(b, totals);
		header.samples[0] = totals[0];
		header.from_unix_ns = shape.time_unix_ns;
		header.to_unix_ns = shape.time_unix_ns + shape.duration_ns;
		sum += totals[0];
		assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
		assert_int_equal(local_append(p->l, &header, bytes.data, bytes.len), 0);
	}
	roll_all(p, T0 + 10 * 3600 * NSEC_PER_SEC);
	assert_int_equal(levels(p, 1), p->l->n_segments);
	assert_int_equal(p->l->n_segments, 1);
	assert_true(p->l->segments[0].blocks > 1);
	r = ask(p, &everything, NULL);
	assert_int_equal(r->total_samples, sum);
	assert_true(r->n_nodes <= 50000);
	assert_true(r->cut_nodes > 0);
	free(result_text(r)); /* checks the sums */
	query_result_free(r);
}

/* ---- readers that fail ---- */

/* Makes the children run this program under a name that tells them what to do: see bad_reader(). */
static void use_reader(struct place *p, const char *mode)
{
	static char link[256];
	char self[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(n > 0);
	self[n] = 0;
	snprintf(link, sizeof(link), "%s/reader-%s", p->dir, mode);
	if (symlink(self, link) < 0)
		assert_int_equal(errno, EEXIST);
	sandbox_set_program(link);
}

static void say(uint32_t kind, uint32_t count, const void *payload, size_t len)
{
	static uint8_t message[FDPASS_MAX_MESSAGE];
	struct reader_head head = {kind, count};

	memcpy(message, &head, sizeof(head));
	if (len)
		memcpy(message + sizeof(head), payload, len);
	(void)fdpass_send(SANDBOX_FD, message, sizeof(head) + len, NULL, 0);
}

#define LIES 15

/* A sound answer but for one thing. */
static int lie(int which)
{
	struct reader_answer a = {.n_strings = 2,
		.string_bytes = 6,
		.n_functions = 2,
		.n_nodes = 3,
		.n_rows = 1,
		.total_ns = 5,
		.total_samples = 1};
	uint8_t strings[32] = {0, 0, 0, 0, 4, 0, 0, 0, 'n', 'a', 'm', 'e'};
	struct query_function functions[2] = {{0}, {.name = 1}};
	struct query_node nodes[3] = {
		{.total_ns = 5}, {.service = 1, .total_ns = 5}, {1, 1, 0, 5, 5, 1}};
	struct query_group_row row = {.service = 1, .ns = 5, .samples = 1};
	uint8_t two = 2;

	switch (which) {
	case 1:
		a.n_nodes = 1ULL << 60;
		break;
	case 2:
		a.string_bytes = 1ULL << 50;
		break;
	case 3:
		a.n_strings = 0;
		break;
	case 4:
		strings[4] = 200;
		break;
	case 5:
		strings[4] = 3;
		break; /* a byte is left over */
	case 6:
		functions[1].name = 2;
		break;
	case 7:
		functions[1].frame_type = PROFILE_FRAME_TYPES;
		break;
	case 8:
		memcpy(&functions[1].inlined, &two, 1);
		break;
	case 9:
		nodes[2].parent = 2;
		break;
	case 10:
		nodes[2].function = 2;
		break;
	case 11:
		nodes[1].service = 2;
		break;
	case 12:
		row.thread = 99;
		break;
	case 13:
		nodes[2].self_ns = 6;
		break;
	case 14:
		a.total_ns = 6;
		break;
	case 15:
		strings[9] = 0;
		break; /* a NUL within */
	}
	say(READER_BEGIN, 1, &a, sizeof(a));
	say(READER_STRINGS, 2, strings, 12);
	say(READER_FUNCTIONS, 2, functions, sizeof(functions));
	say(READER_NODES, 3, nodes, sizeof(nodes));
	say(READER_ROWS, 1, &row, sizeof(row));
	say(READER_DONE, 0, NULL, 0);
	pause();
	return 0;
}

/* Rolls a segment up, but for all blocks behind the first, and calls it done. */
static int roll_short(void)
{
	uint8_t message[512];
	struct reader_rolled done = {.blocks = 1};
	struct segment_scan scan = {0};
	struct segment_block block;
	struct buf raw, out;
	int fds[2] = {-1, -1};
	size_t n_fds = 2;
	struct stat st;

	buf_init(&raw, 0);
	buf_init(&out, 0);
	if (fdpass_recv(SANDBOX_FD, message, sizeof(message), fds, &n_fds) <= 0 || n_fds != 2 ||
		fstat(fds[0], &st) < 0)
		return 5;
	scan.end = (uint64_t)st.st_size;
	if (segment_next(fds[0], &scan, &block) != 1 || segment_read(fds[0], &block, &raw) < 0 ||
		segment_put(&out, &block.header, 1, raw.data, raw.len) < 0 ||
		io_write_all(fds[1], out.data, out.len) < 0)
		return 6;
	say(READER_ROLLED, 1, &done, sizeof(done));
	pause();
	return 0;
}

/* What a child does that was started by another name; -1: the real role. */
static int bad_reader(const char *program)
{
	const char *mode = strstr(program, "/reader-");

	if (!mode)
		return -1;
	mode += strlen("/reader-");
	if (streq(mode, "hang"))
		pause();
	if (streq(mode, "die"))
		raise(SIGKILL);
	if (streq(mode, "exit"))
		return 3;
	if (streq(mode, "roll-short"))
		return roll_short();
	if (streq(mode, "nothing")) {
		say(READER_DONE, 0, NULL, 0);
		pause();
	}
	if (streq(mode, "flood"))
		for (;;)
			say(READER_STRINGS, 0, NULL, 0);
	if (strncmp(mode, "lie-", 4) == 0)
		return lie(atoi(mode + 4));
	return 4;
}

static void test_bad_readers(void **state)
{
	struct local_state s;
	struct place *p = *state;
	_cleanup_free_ char *want = expect_text(&everything, 0, 3), *got = NULL;
	static const struct {
		const char *mode, *says;
	} cases[] = {{"hang", "too long"}, {"die", "SIGKILL"}, {"exit", "exited with 3"},
		{"nothing", "breaks its contract"}, {"flood", "breaks its contract"}};

	for (unsigned i = 0; i < 3; i++)
		append_nr(p, i);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct outcome o = {0};

		use_reader(p, cases[i].mode);
		assert_true(
			local_query(p->l, &everything, NULL, 0, i ? 20000 : 300, on_done, &o) > 0);
		wait_for(p, &o.called, 1);
		assert_null(o.result);
		if (!strstr(o.err.text, cases[i].says))
			fail_msg("%s: %s", cases[i].mode, o.err.text);
	}
	for (int which = 0; which <= LIES; which++) {
		struct outcome o = {0};
		char mode[32];

		snprintf(mode, sizeof(mode), "lie-%d", which);
		use_reader(p, mode);
		assert_true(local_query(p->l, &everything, NULL, 0, 20000, on_done, &o) > 0);
		wait_for(p, &o.called, 1);
		if (which ? o.result != NULL
			  : o.result == NULL) /* 0 is the truth, or the others prove nothing */
			fail_msg("lie %d: %s", which, o.err.text);
		if (which && !strstr(o.err.text, "breaks its contract"))
			fail_msg("lie %d: %s", which, o.err.text);
		query_result_free(o.result);
	}
	/* a roll-up with such a reader leaves all as it was */
	use_reader(p, "die");
	roll_all(p, T0 + 10 * 3600 * NSEC_PER_SEC);
	assert_int_equal(levels(p, 0), 1);
	place_reopen(p);
	use_reader(p, "roll-short");
	roll_all(p, T0 + 10 * 3600 * NSEC_PER_SEC);
	assert_int_equal(levels(p, 0), 1);
	local_state(p->l, &s);
	assert_non_null(strstr(s.last_problem, "its roll-up has "));
	sandbox_set_program("/proc/self/exe");
	got = ask_text(p, &everything);
	assert_string_equal(got, want);
}

static void test_queue(void **state)
{
	struct place *p = *state;
	struct outcome o[21] = {{0}};
	int64_t ids[21];
	int called = 0;

	append_nr(p, 0);
	use_reader(p, "hang");
	for (unsigned i = 0; i < 20; i++) {
		ids[i] = local_query(p->l, &everything, NULL, 0, 60000, on_done, &o[i]);
		assert_true(ids[i] > 0);
	}
	assert_int_equal(local_query(p->l, &everything, NULL, 0, 60000, on_done, &o[20]), -EBUSY);
	sandbox_set_program("/proc/self/exe");
	/* those that hang are cancelled: the others get their turn */
	for (unsigned i = 0; i < 4; i++)
		local_cancel(p->l, ids[i]);
	local_cancel(p->l, 12345);
	for (unsigned i = 4; i < 19; i++)
		wait_for(p, &o[i].called, 1);
	for (unsigned i = 0; i < 20; i++) {
		called += o[i].called;
		assert_true(i < 4 || i == 19 || o[i].result);
		query_result_free(o[i].result);
		o[i].result = NULL;
	}
	assert_true(called == 15 || called == 16);
	/* the end answers those that are under way, once */
	use_reader(p, "hang");
	wait_for(p, &o[19].called, 1);
	query_result_free(o[19].result);
	o[0] = (struct outcome){0};
	assert_true(local_query(p->l, &everything, NULL, 0, 60000, on_done, &o[0]) > 0);
	p->l = local_free(p->l);
	assert_int_equal(o[0].called, 1);
	assert_null(o[0].result);
	assert_non_null(strstr(o[0].err.text, "stopping"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, place_setup, place_teardown)
		TEST(test_nothing_held),
		TEST(test_queries_agree_with_a_plain_count),
		TEST(test_pruning_conserves),
		TEST(test_torn_tail),
		TEST(test_damage_within_costs_itself),
		TEST(test_restart_goes_on),
		TEST(test_write_failure),
		TEST(test_eviction),
		TEST(test_roll_up_conserves),
		TEST(test_interrupted_roll_up),
		TEST(test_query_while_things_change),
		TEST(test_batch_of_an_hour_in_blocks),
		TEST(test_bad_readers),
		TEST(test_queue),
	};

	if (argc >= 3 && streq(argv[1], "--role") && streq(argv[2], "reader")) {
		int r = bad_reader((const char *)getauxval(AT_EXECFN));

		return r < 0 ? local_reader_main() : r;
	}
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
