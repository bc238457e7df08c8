/* SPDX-License-Identifier: Apache-2.0 */

/* The call tree of a query. A node is (parent, function); below the root there is one node a
 * service. Runs in the reader role, over hundreds of batches with thousands of stacks that are
 * mostly the same, so:
 *
 * - Batches have dictionaries of their own; a location becomes its chain of functions of this
 *   tree once a batch.
 * - A stack is looked up whole, by the hash of its functions, and found again at its leaf; only
 *   a new one is walked node by node. What the hash finds is checked along the parents, so a
 *   collision costs time and nothing else.
 *
 * Inlined functions are nodes of their own (innermost last). Values are conserved, also where a
 * tree is cut down (see tree_nodes.c).
 *
 * A part counts when the middle of its time lies within the query's: rolled-up parts are long,
 * and each belongs to exactly one of two adjoining queries. */

#include "agentd/profile/tree_private.h"

#define DEFAULT_NODES 50000
#define MAX_NODES     1000000
#define HELD_NODES    8
#define MAX_ROWS      10000

/* What of a batch was translated already. */
struct view {
	const struct batch *b;
	uint32_t *chain_first, *chain_n; /* by location, into chains; chain_n 0: not yet */
	uint32_t *chains;                /* functions of the tree, outermost first */
	uint32_t n_chains, chains_room;
};

/* ---- batches ---- */

static void view_deinit(struct view *v)
{
	free(v->chain_first);
	free(v->chain_n);
	free(v->chains);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* The functions of one location, translated on first use. */
static int view_location(struct tree *t, struct view *v, uint32_t location)
{
	const struct profile_location *l = batch_location_at(v->b, location);
	const struct profile_line *lines = batch_lines(v->b, l);
	uint32_t n = MAX(l->n_lines, 1U);
	int64_t module, name, file, at;
	int r;

	if (v->chain_n[location])
		return 0;
	r = ARRAY_GROW(v->chains, v->chains_room, v->n_chains, n);
	if (r < 0)
		return r;
	module = tree_string(
		t, base_name(batch_string_at(v->b, batch_mapping_at(v->b, l->mapping)->filename)));
	v->chain_first[location] = v->n_chains;
	for (uint32_t i = n; i-- > 0;) {
		struct query_function f = {.frame_type = l->frame_type, .inlined = i + 1 < n};
		const struct profile_function *from =
			batch_function_at(v->b, l->n_lines ? lines[i].function : 0);

		name = tree_string(t, from->name ? batch_string_at(v->b, from->name) : "[unknown]");
		file = tree_string(t, batch_string_at(v->b, from->filename));
		if (module < 0 || name < 0 || file < 0)
			return -ENOMEM;
		f.name = (uint32_t)name;
		f.module = (uint32_t)module;
		f.file = (uint32_t)file;
		at = tree_function(t, &f);
		if (at < 0)
			return (int)at;
		v->chains[v->n_chains++] = (uint32_t)at;
	}
	v->chain_n[location] = n;
	return 0;
}

/* The path of a stack into t->path, outermost first. Returns its length. */
static int64_t view_stack(struct tree *t, struct view *v, uint32_t stack)
{
	size_t n_locations;
	const uint32_t *locations = batch_stack_at(v->b, stack, &n_locations);
	uint32_t n = 0;

	for (size_t i = n_locations; i-- > 0;) {
		int r = view_location(t, v, locations[i]);

		if (r >= 0)
			r = ARRAY_GROW(t->path, t->path_room, n, v->chain_n[locations[i]]);
		if (r < 0)
			return r;
		memcpy(t->path + n, v->chains + v->chain_first[locations[i]],
			v->chain_n[locations[i]] * sizeof(*t->path));
		n += v->chain_n[locations[i]];
	}
	return n;
}

static const char *resource_text(const struct batch *b, uint32_t resource, const char *key)
{
	size_t n;
	const struct profile_resource_attribute *a = batch_resource_at(b, resource, &n);

	for (size_t i = 0; i < n; i++) {
		if (!a[i].is_int && streq(batch_string_at(b, a[i].key), key))
			return batch_string_at(b, a[i].value);
	}
	return NULL;
}

/* "nginx (1234)", "nginx", "1234" or "". */
static void process_name(const struct batch *b, uint32_t resource, char *out, size_t size)
{
	size_t n;
	const struct profile_resource_attribute *a = batch_resource_at(b, resource, &n);
	const char *name = resource_text(b, resource, "process.executable.name");
	long long pid = -1;

	for (size_t i = 0; i < n; i++) {
		if (a[i].is_int && streq(batch_string_at(b, a[i].key), "process.pid"))
			pid = a[i].number;
	}
	if (pid >= 0)
		snprintf(out, size, name ? "%.200s (%lld)" : "%.0s%lld", name ? name : "", pid);
	else
		snprintf(out, size, "%.200s", name ? name : "");
}

/* "worker [1235]", "worker", "[1235]" or "". */
static void thread_name(
	const struct batch *b, const struct profile_sample *s, char *out, size_t size)
{
	const char *name = NULL;
	long long tid = -1;

	for (size_t i = 0; i < 4 && s->attributes[i]; i++) {
		const struct profile_attribute *a = batch_attribute_at(b, s->attributes[i]);
		const char *key = batch_string_at(b, a->key);

		if (!a->is_int && streq(key, "thread.name"))
			name = batch_string_at(b, a->value);
		else if (a->is_int && streq(key, "thread.id"))
			tid = a->number;
	}
	if (tid >= 0)
		snprintf(out, size, "%.200s%s[%lld]", name ? name : "", name ? " " : "", tid);
	else
		snprintf(out, size, "%.200s", name ? name : "");
}

static bool equal_row(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct query_group_row *a = &w->t->rows.at[at], *x = w->content;

	return a->service == x->service && a->process == x->process && a->thread == x->thread;
}

static int add_row(struct tree *t, uint32_t service, const char *process, const char *thread,
	uint64_t ns, uint64_t samples)
{
	bool full = t->rows.n >= MAX_ROWS;
	int64_t p = tree_string(t, full ? OTHER : process),
		h = tree_string(t, full ? OTHER : thread);
	struct query_group_row row = {
		.service = service, .process = (uint32_t)p, .thread = (uint32_t)h};
	struct wanted w = {t, &row};
	uint32_t k[3] = {service, row.process, row.thread};
	int64_t at;

	if (p < 0 || h < 0)
		return -ENOMEM;
	at = TABLE_INTERN(t, rows, &row, hash32(k, sizeof(k)), equal_row, &w);
	if (at < 0)
		return (int)at;
	t->rows.at[at].ns += ns;
	t->rows.at[at].samples += samples;
	return 0;
}

bool tree_wants(const struct query *q, const struct batch *b, const struct profile_part *p)
{
	uint64_t middle = p->time_unix_ns + p->duration_ns / 2;
	const char *service = resource_text(b, p->resource, "service.name");
	const char *source = resource_text(b, p->resource, "odi.source");

	return p->type == q->type && middle >= q->from_unix_ns && middle < q->to_unix_ns &&
		(!*q->service || (service && streq(service, q->service))) &&
		(!*q->source || (source && streq(source, q->source)));
}

static int add_sample(struct tree *t, struct view *v, const struct profile_part *p,
	uint32_t service, const char *process, const struct profile_sample *s)
{
	uint64_t samples = s->value + s->n_timestamps, ns, sum;
	int64_t n, node;
	char thread[300];

	/* More nanoseconds than 500 years of all CPUs: not a batch of ours. */
	if (__builtin_mul_overflow(samples, MAX(p->period, 1UL), &ns) ||
		__builtin_add_overflow(t->total_ns, ns, &sum))
		return -EBADMSG;
	n = view_stack(t, v, s->stack);
	if (n < 0)
		return (int)n;
	node = tree_leaf(t, service, t->path, (uint32_t)n);
	if (node < 0)
		return (int)node;
	t->nodes.at[node].self_ns += ns;
	t->nodes.at[node].self_samples += samples;
	t->total_ns = sum;
	t->total_samples += samples;
	thread_name(v->b, s, thread, sizeof(thread));
	return add_row(t, service, process, thread, ns, samples);
}

static int add_part(struct tree *t, struct view *v, const struct profile_part *p)
{
	const char *name = resource_text(v->b, p->resource, "service.name");
	int64_t service = tree_string(t, name && *name ? name : "[unknown]");
	char process[300];
	int r = (int)MIN(service, 0);

	process_name(v->b, p->resource, process, sizeof(process));
	for (uint32_t i = 0; i < p->n_samples && r >= 0; i++)
		r = add_sample(t, v, p, (uint32_t)service, process, &p->samples[i]);
	if (p->n_samples && r >= 0) {
		t->from = t->from ? MIN(t->from, p->time_unix_ns) : p->time_unix_ns;
		t->to = MAX(t->to, p->time_unix_ns + p->duration_ns);
		if (p->time_unix_ns >= t->newest) {
			t->newest = p->time_unix_ns;
			t->period = p->period;
		}
	}
	if (r >= 0 && t->nodes.n > t->held_nodes)
		r = tree_prune(t, t->held_nodes / 2);
	return r;
}

int tree_add(struct tree *t, const struct batch *b)
{
	CLEANUP(view_deinit) struct view v = {.b = b};
	int r = 0;

	v.chain_first = calloc(batch_locations(b) + 1, sizeof(*v.chain_first));
	v.chain_n = calloc(batch_locations(b) + 1, sizeof(*v.chain_n));
	if (!v.chain_first || !v.chain_n)
		return -ENOMEM;
	for (size_t i = 0; i < batch_parts(b) && r >= 0; i++) {
		const struct profile_part *p = batch_part_at(b, i);

		if (tree_wants(t->q, b, p))
			r = add_part(t, &v, p);
	}
	return r;
}

/* ---- the tree ---- */

int tree_new(struct tree **ret, const struct query *q)
{
	CLEANUP(tree_freep) struct tree *t = calloc(1, sizeof(*t));
	static const struct query_function none;
	int64_t r;

	if (!t)
		return -ENOMEM;
	t->q = q;
	t->max_nodes =
		MIN(MAX(q->max_nodes ? q->max_nodes : DEFAULT_NODES, 16U), (uint32_t)MAX_NODES);
	t->held_nodes = MAX(t->max_nodes * HELD_NODES, 100000U);
	r = tree_string(t, "");
	if (r >= 0)
		r = tree_function(t, &none);
	if (r >= 0)
		r = tree_node(t, 0, 0, 0);
	if (r < 0)
		return (int)r;
	*ret = TAKE_PTR(t);
	return 0;
}

struct tree *tree_free(struct tree *t)
{
	if (!t)
		return NULL;
	for (struct text_chunk *c = t->text, *next; c; c = next) {
		next = c->next;
		free(c);
	}
#define FREE_TABLE(x)                                                                              \
	do {                                                                                       \
		free(t->x.at);                                                                     \
		intern_deinit(&t->x.index);                                                        \
	} while (0)
	FREE_TABLE(strings);
	FREE_TABLE(functions);
	FREE_TABLE(nodes);
	FREE_TABLE(rows);
	free(t->leaves);
	free(t->path);
	free(t->out_nodes);
	free(t->out_functions);
	free(t->out_rows);
	free(t->out_strings);
	free(t);
	return NULL;
}

/* New indices in order of first use; 0 stays 0. */
static uint32_t renumber(uint32_t *map, uint32_t *n, uint32_t i)
{
	if (i && !map[i])
		map[i] = ++*n;
	return map[i];
}

static uint32_t out_string(struct tree *t, uint32_t *map, uint32_t *n, uint32_t i)
{
	uint32_t at = renumber(map, n, i);

	t->out_strings[at] = (char *)t->strings.at[i];
	return at;
}

static void out_function(struct tree *t, uint32_t *strings, uint32_t *n, uint32_t at, uint32_t i)
{
	const struct query_function *f = &t->functions.at[i];
	struct query_function *o = &t->out_functions[at];

	memset(o, 0, sizeof(*o)); /* goes to another process as bytes: padding as well */
	o->name = out_string(t, strings, n, f->name);
	o->module = out_string(t, strings, n, f->module);
	o->file = out_string(t, strings, n, f->file);
	o->frame_type = f->frame_type;
	o->inlined = f->inlined;
}

int tree_finish(struct tree *t, struct query_result *ret)
{
	_cleanup_free_ uint32_t *functions = NULL, *strings = NULL;
	uint32_t n_functions = 0, n_strings = 0;
	int r = tree_prune(t, t->max_nodes);

	if (r < 0)
		return r;
	functions = calloc((size_t)t->functions.n + 1, sizeof(*functions));
	strings = calloc((size_t)t->strings.n + 1, sizeof(*strings));
	t->out_nodes = calloc((size_t)t->nodes.n + 1, sizeof(*t->out_nodes));
	t->out_functions = calloc((size_t)t->functions.n + 1, sizeof(*t->out_functions));
	t->out_rows = calloc((size_t)t->rows.n + 1, sizeof(*t->out_rows));
	t->out_strings = calloc((size_t)t->strings.n + 1, sizeof(*t->out_strings));
	if (!functions || !strings || !t->out_nodes || !t->out_functions || !t->out_rows ||
		!t->out_strings)
		return -ENOMEM;
	t->out_strings[0] = (char *)t->strings.at[0];
	for (uint32_t i = 0; i < t->nodes.n; i++) {
		const struct node *x = &t->nodes.at[i];
		struct query_node *o = &t->out_nodes[i];
		uint32_t before = n_functions;

		o->parent = x->parent;
		o->function = renumber(functions, &n_functions, x->function);
		if (n_functions != before)
			out_function(t, strings, &n_strings, n_functions, x->function);
		o->service = out_string(t, strings, &n_strings, x->service);
		o->self_ns = x->self_ns;
		o->total_ns = x->total_ns;
		o->self_samples = x->self_samples;
	}
	for (uint32_t i = 0; i < t->rows.n; i++) {
		struct query_group_row *o = &t->out_rows[i];

		*o = t->rows.at[i];
		o->service = out_string(t, strings, &n_strings, o->service);
		o->process = out_string(t, strings, &n_strings, o->process);
		o->thread = out_string(t, strings, &n_strings, o->thread);
	}
	*ret = (struct query_result){.strings = t->out_strings,
		.n_strings = n_strings + 1,
		.functions = t->out_functions,
		.n_functions = n_functions + 1,
		.nodes = t->out_nodes,
		.n_nodes = t->nodes.n,
		.rows = t->out_rows,
		.n_rows = t->rows.n,
		.from_unix_ns = t->from,
		.to_unix_ns = t->to,
		.total_ns = t->total_ns,
		.total_samples = t->total_samples,
		.cut_nodes = t->cut,
		.period_ns = t->period};
	return 0;
}
