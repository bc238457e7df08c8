/* SPDX-License-Identifier: Apache-2.0 */

/* Queries: the open interval is named and encoded as it stands, the reader child answers over it
 * and the local profiles, and the answer goes to the client in parts that fit a frame. Runs in
 * agentd. */

#include "agentd/base/clock.h"
#include "agentd/daemon_verbs.h"

#define NAMES_MS     2500
#define DEADLINE_MS  30000
#define PART_STRINGS 2000
#define PART_ROWS    20000
#define PART_BYTES   (512U << 10)

struct running {
	struct daemon *daemon;
	struct control_reply *reply;
	struct query query;
	int64_t id; /* of local_query(), 0 before */
};

/* The client went away: whatever is under way for it makes room for others. */
static void on_cancelled(void *userdata)
{
	struct running *run = userdata;

	if (run->id > 0)
		local_cancel(run->daemon->local, run->id);
	else
		daemon_snapshot_cancel(run->daemon, run);
	free(run);
}

/* One array of protobuf messages out of the arena, and its pointers. */
#define PART_ARRAY(type, init, count)                                                              \
	({                                                                                         \
		type **p_ = control_alloc(r, ((count) + 1) * sizeof(*p_));                         \
		type *x_ = control_alloc(r, ((count) + 1) * sizeof(*x_));                          \
		for (size_t k_ = 0; p_ && x_ && k_ < (count); k_++) {                              \
			init(&x_[k_]);                                                             \
			p_[k_] = &x_[k_];                                                          \
		}                                                                                  \
		x_ ? p_ : NULL;                                                                    \
	})

static void part_strings(Control__QueryPart *p, struct query_result *q, size_t at)
{
	if (at >= q->n_strings)
		return;
	p->strings = q->strings + at;
	p->n_strings = MIN(q->n_strings - at, (size_t)PART_STRINGS);
}

static bool part_functions(
	struct control_reply *r, Control__QueryPart *p, const struct query_result *q, size_t at)
{
	size_t n = at < q->n_functions ? MIN(q->n_functions - at, (size_t)PART_ROWS) : 0;

	p->functions = PART_ARRAY(Control__QueryFunction, control__query_function__init, n);
	if (!p->functions)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct query_function *f = &q->functions[at + i];

		p->functions[i]->name = f->name;
		p->functions[i]->module = f->module;
		p->functions[i]->file = f->file;
		p->functions[i]->frame_type = f->frame_type;
		p->functions[i]->inlined = f->inlined;
	}
	p->n_functions = n;
	return true;
}

static bool part_nodes(
	struct control_reply *r, Control__QueryPart *p, const struct query_result *q, size_t at)
{
	size_t n = at < q->n_nodes ? MIN(q->n_nodes - at, (size_t)PART_ROWS) : 0;

	p->nodes = PART_ARRAY(Control__QueryNode, control__query_node__init, n);
	if (!p->nodes)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct query_node *x = &q->nodes[at + i];

		p->nodes[i]->parent = x->parent;
		p->nodes[i]->function = x->function;
		p->nodes[i]->service = x->service;
		p->nodes[i]->self_ns = x->self_ns;
		p->nodes[i]->total_ns = x->total_ns;
		p->nodes[i]->self_samples = x->self_samples;
	}
	p->n_nodes = n;
	return true;
}

static bool part_rows(
	struct control_reply *r, Control__QueryPart *p, const struct query_result *q, size_t at)
{
	size_t n = at < q->n_rows ? MIN(q->n_rows - at, (size_t)PART_ROWS) : 0;

	p->rows = PART_ARRAY(Control__QueryRow, control__query_row__init, n);
	if (!p->rows)
		return false;
	for (size_t i = 0; i < n; i++) {
		p->rows[i]->service = q->rows[at + i].service;
		p->rows[i]->process = q->rows[at + i].process;
		p->rows[i]->thread = q->rows[at + i].thread;
		p->rows[i]->ns = q->rows[at + i].ns;
		p->rows[i]->samples = q->rows[at + i].samples;
	}
	p->n_rows = n;
	return true;
}

static void part_pprof(Control__QueryPart *p, const struct query_result *q, size_t at)
{
	if (at >= q->pprof_len)
		return;
	p->pprof.data = q->pprof + at;
	p->pprof.len = MIN(q->pprof_len - at, (size_t)PART_BYTES);
}

static void send_result(struct running *run, struct query_result *q)
{
	struct control_reply *r = run->reply;
	size_t parts = MAX((q->n_strings + PART_STRINGS - 1) / PART_STRINGS,
		MAX(MAX(q->n_functions, q->n_nodes), q->n_rows) / PART_ROWS + 1);

	parts = MAX(parts, q->pprof_len / PART_BYTES + 1);
	for (size_t i = 0; i < parts; i++) {
		Control__Reply reply = CONTROL__REPLY__INIT;
		Control__QueryPart p = CONTROL__QUERY_PART__INIT;

		part_strings(&p, q, i * PART_STRINGS);
		part_pprof(&p, q, i * PART_BYTES);
		if (!part_functions(r, &p, q, i * PART_ROWS) ||
			!part_nodes(r, &p, q, i * PART_ROWS) ||
			!part_rows(r, &p, q, i * PART_ROWS)) {
			daemon_fail(r, -ENOMEM, "out of memory");
			return;
		}
		p.type = (char *)profile_types[run->query.type].name;
		p.from_unix_ns = q->from_unix_ns;
		p.to_unix_ns = q->to_unix_ns;
		p.total_ns = q->total_ns;
		p.total_samples = q->total_samples;
		p.cut_nodes = q->cut_nodes;
		p.damaged = q->damaged;
		p.period_ns = q->period_ns;
		reply.body_case = CONTROL__REPLY__BODY_QUERY_PART;
		reply.query_part = &p;
		control_send(r, &reply, i + 1 == parts);
	}
}

static void on_result(void *userdata, struct query_result *result, const struct err_text *err)
{
	struct running *run = userdata;

	if (result)
		send_result(run, result);
	else
		control_fail(run->reply, -EIO, err);
	query_result_free(result);
	free(run);
}

static void on_snapshot(void *userdata, const void *data, size_t len)
{
	struct running *run = userdata;

	run->id = local_query(
		run->daemon->local, &run->query, data, len, DEADLINE_MS, on_result, run);
	if (run->id < 0) {
		daemon_fail(run->reply, (int)run->id,
			"too many queries are under way; try again in a moment");
		free(run);
	}
}

/* A source's samples are found by the service names it gives. */
void daemon_query(void *userdata, struct control_reply *r, const Control__RunQuery *request)
{
	struct daemon *d = userdata;
	struct running *run;
	unsigned type = 0;

	if (request->type[0] && !profile_type_find(request->type, &type)) {
		daemon_fail(r, -EINVAL, "no such profile type; known: cpu");
		return;
	}
	if (request->source[0] && !source_set_find(d->in_force->sources, request->source)) {
		struct err_text err = {};

		err_set(&err, -ENOENT, "there is no source '%s'; odictl source list shows all",
			request->source);
		control_fail(r, -ENOENT, &err);
		return;
	}
	run = calloc(1, sizeof(*run));
	if (!run) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	run->daemon = d;
	run->reply = r;
	run->query.from_unix_ns = request->from_unix_ns;
	run->query.to_unix_ns = request->to_unix_ns ? request->to_unix_ns : clock_unix_ns();
	run->query.type = type;
	run->query.max_nodes = request->max_nodes;
	run->query.pprof = request->pprof;
	snprintf(run->query.service, sizeof(run->query.service), "%s", request->service);
	snprintf(run->query.source, sizeof(run->query.source), "%s", request->source);
	control_on_cancel(r, on_cancelled, run);
	if (daemon_snapshot(d, NAMES_MS, on_snapshot, run) < 0) {
		daemon_fail(r, -ENOMEM, "out of memory");
		free(run);
	}
}
