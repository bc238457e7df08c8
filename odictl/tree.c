/* SPDX-License-Identifier: Apache-2.0 */

/* A query's parts put together again, every index checked: agentd is trusted, a socket named on the command line
 * need not be.
 *
 * Whoever draws a tree relies on this: parents stand before their children, so there is no cycle; nothing is deeper
 * than TREE_MAX_DEPTH; children together are no more than their parent; every name is there and clean. What does not keep
 * to it is refused as a whole: half a picture would be a wrong one. */

#include "agentd/base/text.h"
#include "odictl/tree.h"

#define MAX_PARTS     (1U << 20)
#define MAX_PPROF     (64U << 20)
#define MAX_STRINGS   (1U << 20)
#define MAX_BYTES     (512U << 20) /* of strings */
#define MAX_FUNCTIONS (1U << 20)
#define MAX_NODES     (1U << 21)
#define MAX_ROWS      (1U << 20)

struct tree *tree_free(struct tree *t)
{
	if (!t)
		return NULL;
	for (size_t i = 0; i < t->n_strings; i++)
		free(t->strings[i]);
	free(t->strings);
	free(t->functions);
	free(t->nodes);
	free(t->rows);
	buf_deinit(&t->pprof);
	free(t);
	return NULL;
}

/* Raw indices until all strings are there. */
struct raw {
	uint32_t name, module, file, service;
};

struct tree_builder {
	struct tree *tree;
	struct raw *functions;
	uint32_t *services;
	struct raw *rows;
	size_t parts, bytes;
	bool failed;
};

struct tree_builder *tree_builder_new(void)
{
	struct tree_builder *b = calloc(1, sizeof(*b));

	if (b)
		b->tree = calloc(1, sizeof(*b->tree));
	if (b && b->tree)
		buf_init(&b->tree->pprof, MAX_PPROF);
	return b && b->tree ? b : tree_builder_free(b);
}

struct tree_builder *tree_builder_free(struct tree_builder *b)
{
	if (!b)
		return NULL;
	free(b->functions);
	free(b->services);
	free(b->rows);
	tree_free(b->tree);
	free(b);
	return NULL;
}

static bool grow(void **p, size_t n, size_t add, size_t size, size_t max)
{
	void *grown;

	if (!add)
		return true;
	if (add > max || n > max - add)
		return false;
	grown = reallocarray(*p, n + add, size);
	if (!grown)
		return false;
	*p = grown;
	return true;
}

static bool add_strings(struct tree_builder *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (!grow((void **)&t->strings, t->n_strings, p->n_strings, sizeof(*t->strings),
		    MAX_STRINGS))
		return false;
	for (size_t i = 0; i < p->n_strings; i++) {
		char *s;

		b->bytes += strlen(p->strings[i]);
		s = b->bytes > MAX_BYTES ? NULL : strdup(p->strings[i]);
		if (!s)
			return false;
		text_clean(s);
		t->strings[t->n_strings++] = s;
	}
	return true;
}

static bool add_functions(struct tree_builder *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (!grow((void **)&t->functions, t->n_functions, p->n_functions, sizeof(*t->functions),
		    MAX_FUNCTIONS) ||
		!grow((void **)&b->functions, t->n_functions, p->n_functions, sizeof(*b->functions),
			MAX_FUNCTIONS))
		return false;
	for (size_t i = 0; i < p->n_functions; i++) {
		const Control__QueryFunction *f = p->functions[i];

		b->functions[t->n_functions] = (struct raw){f->name, f->module, f->file, 0};
		t->functions[t->n_functions++] =
			(struct tree_function){.type = f->frame_type, .inlined = f->inlined};
	}
	return true;
}

static bool add_nodes(struct tree_builder *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (!grow((void **)&t->nodes, t->n_nodes, p->n_nodes, sizeof(*t->nodes), MAX_NODES) ||
		!grow((void **)&b->services, t->n_nodes, p->n_nodes, sizeof(*b->services),
			MAX_NODES))
		return false;
	for (size_t i = 0; i < p->n_nodes; i++) {
		const Control__QueryNode *n = p->nodes[i];

		if (t->n_nodes && n->parent >= t->n_nodes)
			return false;
		b->services[t->n_nodes] = n->service;
		t->nodes[t->n_nodes] = (struct tree_node){
			.parent = t->n_nodes ? n->parent : 0,
			.function = n->function,
			.self_ns = n->self_ns,
			.total_ns = n->total_ns,
			.self_samples = n->self_samples,
		};
		t->n_nodes++;
	}
	return true;
}

static bool add_rows(struct tree_builder *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (!grow((void **)&t->rows, t->n_rows, p->n_rows, sizeof(*t->rows), MAX_ROWS) ||
		!grow((void **)&b->rows, t->n_rows, p->n_rows, sizeof(*b->rows), MAX_ROWS))
		return false;
	for (size_t i = 0; i < p->n_rows; i++) {
		const Control__QueryRow *x = p->rows[i];

		b->rows[t->n_rows] = (struct raw){x->process, x->thread, 0, x->service};
		t->rows[t->n_rows++] = (struct tree_row){.ns = x->ns, .samples = x->samples};
	}
	return true;
}

void tree_builder_add(struct tree_builder *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (b->parts == 0) {
		t->from_unix_ns = p->from_unix_ns;
		t->to_unix_ns = p->to_unix_ns;
		t->total_ns = p->total_ns;
		t->total_samples = p->total_samples;
		t->cut_nodes = p->cut_nodes;
		t->damaged = p->damaged;
		t->period_ns = p->period_ns;
	}
	if (p->pprof.len)
		buf_add(&t->pprof, p->pprof.data, p->pprof.len);
	b->failed = b->failed || buf_error(&t->pprof) || ++b->parts > MAX_PARTS ||
		!add_strings(b, p) || !add_functions(b, p) || !add_nodes(b, p) || !add_rows(b, p);
}

/* ---- checking the whole ---- */

static const char *string(const struct tree *t, uint32_t i)
{
	return i < t->n_strings ? t->strings[i] : NULL;
}

static bool name_functions(struct tree_builder *b)
{
	struct tree *t = b->tree;

	for (size_t i = 0; i < t->n_functions; i++) {
		struct tree_function *f = &t->functions[i];

		f->name = string(t, b->functions[i].name);
		f->module = string(t, b->functions[i].module);
		f->file = string(t, b->functions[i].file);
		if (!f->name || !f->module || !f->file)
			return false;
	}
	for (size_t i = 0; i < t->n_rows; i++) {
		t->rows[i].service = string(t, b->rows[i].service);
		t->rows[i].process = string(t, b->rows[i].name);
		t->rows[i].thread = string(t, b->rows[i].module);
		if (!t->rows[i].service || !t->rows[i].process || !t->rows[i].thread)
			return false;
	}
	return true;
}

/* Services on the root's children, functions below; depths; parts no more than the whole. */
static bool check_nodes(struct tree_builder *b)
{
	_cleanup_free_ uint64_t *below = calloc(b->tree->n_nodes + 1, sizeof(*below));
	_cleanup_free_ uint16_t *depth = calloc(b->tree->n_nodes + 1, sizeof(*depth));
	struct tree *t = b->tree;

	if (!below || !depth)
		return false;
	for (size_t i = 1; i < t->n_nodes; i++) {
		struct tree_node *n = &t->nodes[i];

		depth[i] = depth[n->parent] + 1;
		if (depth[i] > TREE_MAX_DEPTH)
			return false;
		if (n->parent == 0)
			n->service = string(t, b->services[i]);
		if (n->parent == 0 ? !n->service : n->function >= t->n_functions)
			return false;
		if (__builtin_add_overflow(below[n->parent], n->total_ns, &below[n->parent]))
			return false;
	}
	for (size_t i = 0; i < t->n_nodes; i++)
		if (t->nodes[i].self_ns > t->nodes[i].total_ns ||
			below[i] > t->nodes[i].total_ns - t->nodes[i].self_ns)
			return false;
	return !t->n_nodes || t->nodes[0].total_ns <= t->total_ns;
}

static int by_parent_and_total(const void *x, const void *y, void *nodes)
{
	uint32_t i = *(const uint32_t *)x, k = *(const uint32_t *)y;
	const struct tree_node *a = (const struct tree_node *)nodes + i,
			       *b = (const struct tree_node *)nodes + k;

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	if (a->total_ns != b->total_ns)
		return a->total_ns < b->total_ns ? 1 : -1;
	return i < k ? -1 : i > k;
}

static bool link_children(struct tree *t)
{
	_cleanup_free_ uint32_t *order = calloc(t->n_nodes + 1, sizeof(*order));

	if (!order)
		return false;
	for (size_t i = 1; i < t->n_nodes; i++)
		order[i] = (uint32_t)i;
	if (t->n_nodes > 2)
		qsort_r(order + 1, t->n_nodes - 1, sizeof(*order), by_parent_and_total, t->nodes);
	for (size_t i = t->n_nodes; i-- > 1;) {
		uint32_t *first = &t->nodes[t->nodes[order[i]].parent].first_child;

		t->nodes[order[i]].next_sibling = *first;
		*first = order[i];
	}
	return true;
}

struct tree *tree_builder_finish(struct tree_builder *b)
{
	struct tree *t = b->tree;
	bool ok = !b->failed && name_functions(b) && check_nodes(b) && link_children(t);

	if (ok)
		b->tree = NULL;
	tree_builder_free(b);
	return ok ? t : NULL;
}

/* ---- asking ---- */

static int receive(struct cli *cli, Control__Reply *reply, struct tree_builder *b)
{
	while (reply) {
		bool final = reply->final;
		int r;

		if (reply->body_case == CONTROL__REPLY__BODY_QUERY_PART)
			tree_builder_add(b, reply->query_part);
		else
			b->failed = true;
		api_reply_free(reply);
		reply = NULL;
		if (final || b->failed)
			break;
		r = cli_next(cli, 60000, &reply);
		if (r)
			return r;
		if (!reply) /* interrupted, or it ended without saying so: half a tree is none */
			b->failed = true;
	}
	return 0;
}

int tree_query(
	struct cli *cli, struct selection *s, uint32_t max_nodes, bool pprof, struct tree **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__RunQuery run = CONTROL__RUN_QUERY__INIT;
	Control__Reply *reply = NULL;
	struct tree_builder *b;
	int r;

	run.from_unix_ns = s->from_unix_ns;
	run.to_unix_ns = s->to_unix_ns;
	run.service = s->service;
	run.source = s->source;
	run.type = (char *)"cpu";
	run.max_nodes = max_nodes;
	run.pprof = pprof;
	request.verb_case = CONTROL__REQUEST__VERB_RUN_QUERY;
	request.run_query = &run;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	b = tree_builder_new();
	if (!b) {
		api_reply_free(reply);
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	}
	r = receive(cli, reply, b);
	if (r) {
		tree_builder_free(b);
		return r;
	}
	*ret = tree_builder_finish(b);
	if (!*ret)
		return cli_fail(cli, EXIT_FAILED,
			"agentd's answer makes no sense: is %s really agentd's, and of this version "
			"(odictl version)?",
			cli->socket);
	return 0;
}

uint64_t tree_span_ns(const struct tree *t)
{
	return t->to_unix_ns > t->from_unix_ns ? t->to_unix_ns - t->from_unix_ns : 0;
}
