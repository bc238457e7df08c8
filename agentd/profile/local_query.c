/* SPDX-License-Identifier: Apache-2.0 */

/* Queries from agentd's side. What a query covers is fixed when it is asked: which segments, and
 * how much of the one that is appended to, so that a batch is never counted both there and as
 * the open interval. A segment that is rolled up before its turn keeps its number and is found
 * at its new level.
 *
 * The answer comes from a process that may have been taken over: sizes are bounded before
 * anything is allocated, every index and length is checked, and whatever does not fit ends the
 * query. Runs in agentd. */

#include <fcntl.h>

#include "agentd/base/io.h"
#include "agentd/profile/local_private.h"

#define MAX_RUNNING 4
#define MAX_WAITING 16

struct covered {
	uint64_t number, bytes; /* bytes: UINT64_MAX all of it */
};

struct local_query_run {
	struct local_query_run *next;
	struct local *local;
	struct local_job *job; /* NULL: waits */
	int64_t id;
	struct query query;
	int open; /* memfd with the open interval, -1 none */
	uint64_t open_len;
	struct covered *files;
	size_t n_files, next_file;
	enum { SEND_QUERY, SEND_FILES, SEND_GO, SEND_NOTHING } step;
	unsigned deadline_ms;
	void (*done)(void *userdata, struct query_result *result, const struct err_text *err);
	void *userdata;
	struct query_result *result; /* being received */
	struct reader_answer answer;
	size_t strings, text, functions, nodes, rows, pprof; /* received so far */
};

void query_result_free(struct query_result *r)
{
	if (!r)
		return;
	free(r->strings); /* the texts lie behind the pointers */
	free(r->functions);
	free(r->nodes);
	free(r->rows);
	free(r->pprof);
	free(r);
}

static void run_free(struct local_query_run *q)
{
	for (struct local_query_run **p = &q->local->queries; *p; p = &(*p)->next) {
		if (*p == q) {
			*p = q->next;
			break;
		}
	}
	local_job_free(q->job);
	closep(&q->open);
	query_result_free(q->result);
	free(q->files);
	free(q);
}

/* ---- asking ---- */

static ssize_t put_query(struct local_query_run *q, uint8_t *payload, int *fds, size_t *n_fds)
{
	struct reader_query x = {.query = q->query, .open_len = q->open_len};

	if (q->open >= 0) {
		fds[0] = TAKE_FD(q->open);
		*n_fds = 1;
	}
	memcpy(payload, &x, sizeof(x));
	return sizeof(x);
}

/* As many files as fit into a message; those that are gone (evicted) are left out. */
static ssize_t put_files(struct local_query_run *q, uint8_t *payload, int *fds, size_t *n_fds)
{
	struct local *l = q->local;

	while (q->next_file < q->n_files && *n_fds < FDPASS_MAX_FDS) {
		const struct covered *c = &q->files[q->next_file++];
		struct segment *s = local_segment(l, c->number);
		uint64_t bytes;
		char name[32];
		int fd;

		if (!s)
			continue;
		local_segment_name(name, s->number, s->level);
		fd = openat(l->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0) {
			local_problem(l, "cannot open %s: %s", name, strerror(errno));
			continue;
		}
		bytes = s->level ? s->bytes : MIN(c->bytes, s->bytes);
		memcpy(payload + *n_fds * sizeof(bytes), &bytes, sizeof(bytes));
		fds[(*n_fds)++] = fd;
	}
	return (ssize_t)(*n_fds * sizeof(uint64_t));
}

static ssize_t next_message(void *userdata, uint8_t *message, int *fds, size_t *n_fds)
{
	struct local_query_run *q = userdata;
	struct reader_head head = {0};
	ssize_t n = 0;

	switch (q->step) {
	case SEND_QUERY:
		head.kind = READER_QUERY;
		n = put_query(q, message + sizeof(head), fds, n_fds);
		q->step = SEND_FILES;
		break;
	case SEND_FILES:
		n = put_files(q, message + sizeof(head), fds, n_fds);
		if (n) {
			head.kind = READER_FILES;
			break;
		}
		q->step = SEND_GO;
		/* fall through */
	case SEND_GO:
		head.kind = READER_GO;
		q->step = SEND_NOTHING;
		break;
	case SEND_NOTHING:
		return 0;
	}
	head.count = (uint32_t)*n_fds;
	memcpy(message, &head, sizeof(head));
	return (ssize_t)sizeof(head) + n;
}

/* ---- the answer, believed step by step ---- */

static int take_begin(struct local_query_run *q, const uint8_t *payload, size_t len)
{
	struct reader_answer *a = &q->answer;
	struct query_result *r;

	if (q->result || len != sizeof(*a))
		return -EPROTO;
	memcpy(a, payload, sizeof(*a));
	if (!a->n_strings || a->n_strings > READER_MAX_STRINGS ||
		a->string_bytes > READER_MAX_TEXT || a->string_bytes < a->n_strings ||
		!a->n_functions || a->n_functions > READER_MAX_FUNCTIONS || !a->n_nodes ||
		a->n_nodes > READER_MAX_NODES || a->n_rows > READER_MAX_ROWS ||
		a->pprof_len > PROFILE_MAX_ENCODED || !a->pprof_len != !q->query.pprof)
		return -EPROTO;
	r = q->result = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct query_result){.n_strings = a->n_strings,
		.n_functions = a->n_functions,
		.n_nodes = a->n_nodes,
		.n_rows = a->n_rows,
		.from_unix_ns = a->from,
		.to_unix_ns = a->to,
		.total_ns = a->total_ns,
		.total_samples = a->total_samples,
		.cut_nodes = a->cut_nodes,
		.damaged = a->damaged,
		.period_ns = a->period_ns,
		.pprof_len = a->pprof_len};
	r->strings = malloc(a->n_strings * sizeof(char *) + a->string_bytes);
	r->functions = calloc(a->n_functions, sizeof(*r->functions));
	r->nodes = calloc(a->n_nodes, sizeof(*r->nodes));
	r->rows = calloc(a->n_rows + 1, sizeof(*r->rows));
	r->pprof = a->pprof_len ? malloc(a->pprof_len) : NULL;
	return r->strings && r->functions && r->nodes && r->rows && !r->pprof == !a->pprof_len
		? 0
		: -ENOMEM;
}

static int take_strings(
	struct local_query_run *q, uint32_t count, const uint8_t *payload, size_t len)
{
	struct query_result *r = q->result;
	char *texts = (char *)(r->strings + r->n_strings);
	uint32_t n;

	for (uint32_t i = 0; i < count; i++) {
		if (len < sizeof(n) || q->strings == r->n_strings)
			return -EPROTO;
		memcpy(&n, payload, sizeof(n));
		payload += sizeof(n);
		len -= sizeof(n);
		if (n > len || n >= q->answer.string_bytes - q->text || memchr(payload, 0, n))
			return -EPROTO;
		r->strings[q->strings++] = memcpy(texts + q->text, payload, n);
		texts[q->text + n] = 0;
		q->text += n + 1;
		payload += n;
		len -= n;
	}
	return len ? -EPROTO : 0;
}

/* Copies count elements behind the `have` ones of an array of n. */
static int take_array(void *array, size_t *have, size_t n, size_t element, uint32_t count,
	const uint8_t *payload, size_t len)
{
	if (len != count * element || count > n - *have)
		return -EPROTO;
	memcpy((char *)array + *have * element, payload, len);
	*have += count;
	return 0;
}

static bool functions_are_sound(const struct query_result *r)
{
	for (size_t i = 0; i < r->n_functions; i++) {
		const struct query_function *f = &r->functions[i];
		uint8_t inlined;

		memcpy(&inlined, &f->inlined,
			1); /* a bool that is neither is undefined to look at */
		if (f->name >= r->n_strings || f->module >= r->n_strings ||
			f->file >= r->n_strings || f->frame_type >= PROFILE_FRAME_TYPES ||
			inlined > 1)
			return false;
	}
	return true;
}

static bool nodes_are_sound(const struct query_result *r)
{
	const struct query_node *x = r->nodes;

	for (size_t i = 0; i < r->n_nodes; i++) {
		if (x[i].function >= r->n_functions || x[i].service >= r->n_strings ||
			x[i].self_ns > x[i].total_ns)
			return false;
		if (i == 0 ? x[i].parent || x[i].service || x[i].function
			   : x[i].parent >= i || (x[i].parent == 0) != (x[i].service != 0))
			return false;
	}
	return r->nodes[0].total_ns == r->total_ns;
}

static bool is_sound(const struct local_query_run *q)
{
	const struct query_result *r = q->result;

	if (q->strings != r->n_strings || q->functions != r->n_functions ||
		q->nodes != r->n_nodes || q->rows != r->n_rows || q->pprof != r->pprof_len ||
		*r->strings[0])
		return false;
	for (size_t i = 0; i < r->n_rows; i++) {
		if (r->rows[i].service >= r->n_strings || r->rows[i].process >= r->n_strings ||
			r->rows[i].thread >= r->n_strings)
			return false;
	}
	return functions_are_sound(r) && nodes_are_sound(r);
}

static int on_message(
	void *userdata, const struct reader_head *head, const uint8_t *payload, size_t len)
{
	struct local_query_run *q = userdata;
	struct query_result *r = q->result;

	if (head->kind == READER_BEGIN)
		return take_begin(q, payload, len);
	if (!r)
		return -EPROTO;
	switch (head->kind) {
	case READER_STRINGS:
		return take_strings(q, head->count, payload, len);
	case READER_FUNCTIONS:
		return take_array(r->functions, &q->functions, r->n_functions,
			sizeof(*r->functions), head->count, payload, len);
	case READER_NODES:
		return take_array(r->nodes, &q->nodes, r->n_nodes, sizeof(*r->nodes), head->count,
			payload, len);
	case READER_ROWS:
		return take_array(
			r->rows, &q->rows, r->n_rows, sizeof(*r->rows), head->count, payload, len);
	case READER_PPROF:
		return take_array(r->pprof, &q->pprof, r->pprof_len, 1, head->count, payload, len);
	case READER_DONE:
		return is_sound(q) ? 1 : -EPROTO;
	default:
		return -EPROTO;
	}
}

/* ---- running ---- */

static void start_waiting(struct local *l);

/* The caller's code may ask and cancel from within: the run is gone before it is called. */
static void finish(struct local_query_run *q, const struct err_text *why)
{
	void (*done)(void *userdata, struct query_result *result, const struct err_text *err) =
		q->done;
	struct query_result *result = why ? NULL : TAKE_PTR(q->result);
	void *userdata = q->userdata;
	struct err_text text = {""};

	if (why)
		text = *why;
	run_free(q);
	done(userdata, result, why ? &text : NULL);
}

static void on_end(void *userdata, int error, const struct err_text *why)
{
	struct local_query_run *q = userdata;
	struct local *l = q->local;

	finish(q, error ? why : NULL);
	start_waiting(l);
}

static int start(struct local_query_run *q, struct err_text *err)
{
	static const struct local_job_ops ops = {next_message, on_message, on_end};

	return local_job_new(&q->job, q->local->loop, &ops, q, q->deadline_ms, err);
}

static size_t running(const struct local *l)
{
	size_t n = 0;

	for (const struct local_query_run *q = l->queries; q; q = q->next)
		n += q->job != NULL;
	return n;
}

static void start_waiting(struct local *l)
{
	struct err_text err = {""};

	for (struct local_query_run *q = l->queries; q && running(l) < MAX_RUNNING; q = q->next) {
		if (q->job)
			continue;
		if (start(q, &err) < 0) {
			finish(q, &err);
			start_waiting(l); /* the list has changed */
			return;
		}
	}
}

static int cover(struct local_query_run *q)
{
	struct local *l = q->local;

	q->files = calloc(l->n_segments + 1, sizeof(*q->files));
	if (!q->files)
		return -ENOMEM;
	for (size_t i = 0; i < l->n_segments; i++) {
		const struct segment *s = &l->segments[i];

		if (!s->blocks || s->from >= q->query.to_unix_ns || s->to < q->query.from_unix_ns)
			continue;
		q->files[q->n_files++] =
			(struct covered){s->number, s->number == l->active ? s->bytes : UINT64_MAX};
	}
	return 0;
}

static int prepare(struct local_query_run *q, const void *open_data, size_t open_len)
{
	int r = cover(q);

	if (r < 0 || !open_len)
		return r;
	q->open = io_sealed_memfd("odi-open-interval", open_data, open_len);
	q->open_len = open_len;
	return MIN(q->open, 0);
}

int64_t local_query(struct local *l, const struct query *query, const void *open_data,
	size_t open_len, unsigned deadline_ms,
	void (*done)(void *userdata, struct query_result *result, const struct err_text *err),
	void *userdata)
{
	struct local_query_run *q, **tail = &l->queries;
	size_t waiting = 0;
	int r;

	for (; *tail; tail = &(*tail)->next)
		waiting += !(*tail)->job;
	if (l->stopping)
		return -ESHUTDOWN;
	if (waiting >= MAX_WAITING)
		return -EBUSY;
	if (query->type >= PROFILE_TYPES || query->to_unix_ns < query->from_unix_ns)
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	*q = (struct local_query_run){.local = l,
		.id = ++l->last_query,
		.query = *query,
		.open = -1,
		.deadline_ms = deadline_ms,
		.done = done,
		.userdata = userdata};
	q->query.service[sizeof(q->query.service) - 1] = 0;
	q->query.source[sizeof(q->query.source) - 1] = 0;
	r = prepare(q, open_data, open_len);
	if (r >= 0 && running(l) < MAX_RUNNING)
		r = start(q, NULL);
	if (r < 0) {
		run_free(q);
		return r;
	}
	*tail = q;
	return q->id;
}

void local_cancel(struct local *l, int64_t id)
{
	for (struct local_query_run *q = l->queries; q; q = q->next) {
		if (q->id == id) {
			run_free(q);
			start_waiting(l);
			return;
		}
	}
}

void local_queries_end(struct local *l)
{
	struct err_text stopping;

	l->stopping = true;
	err_set(&stopping, -ECANCELED, "agentd is stopping");
	while (l->queries)
		finish(l->queries, &stopping);
}
