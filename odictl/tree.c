/* SPDX-License-Identifier: Apache-2.0 */

/* A query's parts put together again, every index checked: agentd is trusted, a socket named on the command line
 * need not be. */

#include "odictl/tree.h"

#define MAX_STRINGS   (1U << 20)
#define MAX_FUNCTIONS (1U << 20)
#define MAX_NODES     (1U << 21)

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
	free(t);
	return NULL;
}

/* Raw indices until all strings are there. */
struct raw {
	uint32_t name, module, file, service;
};

struct building {
	struct tree *tree;
	struct raw *functions;
	uint32_t *services;
	struct raw *rows;
};

static bool grow(void **p, size_t n, size_t add, size_t size, size_t max)
{
	void *grown;

	if (!add)
		return true;
	if (n + add > max)
		return false;
	grown = reallocarray(*p, n + add, size);
	if (!grown)
		return false;
	*p = grown;
	return true;
}

static bool add_functions(struct building *b, const Control__QueryPart *p)
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

static bool add_nodes(struct building *b, const Control__QueryPart *p)
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
		t->nodes[t->n_nodes++] = (struct tree_node){
			.parent = n->parent,
			.function = n->function,
			.self_ns = n->self_ns,
			.total_ns = n->total_ns,
			.self_samples = n->self_samples,
		};
	}
	return true;
}

static bool add_rows(struct building *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (!grow((void **)&t->rows, t->n_rows, p->n_rows, sizeof(*t->rows), MAX_NODES) ||
		!grow((void **)&b->rows, t->n_rows, p->n_rows, sizeof(*b->rows), MAX_NODES))
		return false;
	for (size_t i = 0; i < p->n_rows; i++) {
		const Control__QueryRow *x = p->rows[i];

		b->rows[t->n_rows] = (struct raw){x->process, x->thread, 0, x->service};
		t->rows[t->n_rows++] = (struct tree_row){.ns = x->ns, .samples = x->samples};
	}
	return true;
}

static bool add_part(struct building *b, const Control__QueryPart *p)
{
	struct tree *t = b->tree;

	if (!grow((void **)&t->strings, t->n_strings, p->n_strings, sizeof(*t->strings),
		    MAX_STRINGS))
		return false;
	for (size_t i = 0; i < p->n_strings; i++) {
		char *s = strdup(p->strings[i]);

		if (!s)
			return false;
		t->strings[t->n_strings++] = s;
	}
	t->from_unix_ns = p->from_unix_ns;
	t->to_unix_ns = p->to_unix_ns;
	t->total_ns = p->total_ns;
	t->total_samples = p->total_samples;
	t->cut_nodes = p->cut_nodes;
	t->damaged = p->damaged;
	t->period_ns = p->period_ns;
	return add_functions(b, p) && add_nodes(b, p) && add_rows(b, p);
}

static const char *string(const struct tree *t, uint32_t i)
{
	return i < t->n_strings ? t->strings[i] : "";
}

static void sort_children(struct tree *t)
{
	/* Each new child goes into its parent's list by falling total: lists are short but for wide roots. */
	for (size_t i = 1; i < t->n_nodes; i++) {
		uint32_t *p = &t->nodes[t->nodes[i].parent].first_child;

		while (*p && t->nodes[*p].total_ns >= t->nodes[i].total_ns)
			p = &t->nodes[*p].next_sibling;
		t->nodes[i].next_sibling = *p;
		*p = (uint32_t)i;
	}
}

static bool finish(struct building *b)
{
	struct tree *t = b->tree;

	for (size_t i = 0; i < t->n_functions; i++) {
		t->functions[i].name = string(t, b->functions[i].name);
		t->functions[i].module = string(t, b->functions[i].module);
		t->functions[i].file = string(t, b->functions[i].file);
	}
	for (size_t i = 0; i < t->n_rows; i++) {
		t->rows[i].service = string(t, b->rows[i].service);
		t->rows[i].process = string(t, b->rows[i].name);
		t->rows[i].thread = string(t, b->rows[i].module);
	}
	for (size_t i = 0; i < t->n_nodes; i++) {
		bool service = i && t->nodes[i].parent == 0;

		if (i && !service && t->nodes[i].function >= t->n_functions)
			return false;
		if (service)
			t->nodes[i].service = string(t, b->services[i]);
	}
	sort_children(t);
	return true;
}

static int receive(struct cli *cli, Control__Reply *reply, struct building *b)
{
	struct err_text err = {};
	bool ok = true;

	for (;;) {
		bool final = reply->final;
		int r;

		ok = ok && reply->body_case == CONTROL__REPLY__BODY_QUERY_PART &&
			add_part(b, reply->query_part);
		api_reply_free(reply);
		reply = NULL;
		if (final)
			break;
		r = api_next(cli->client, 60000, &reply, &err);
		if (r < 0)
			return cli_fail(cli, cli_exit_of(r), "%s", err.text);
		if (!reply)
			break;
	}
	if (!ok || !finish(b))
		return cli_fail(cli, EXIT_FAILED, "agentd's answer makes no sense");
	return 0;
}

int tree_query(struct cli *cli, struct selection *s, uint32_t max_nodes, struct tree **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__RunQuery run = CONTROL__RUN_QUERY__INIT;
	Control__Reply *reply = NULL;
	struct building b = {.tree = calloc(1, sizeof(*b.tree))};
	int r;

	if (!b.tree)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	run.from_unix_ns = s->from_unix_ns;
	run.to_unix_ns = s->to_unix_ns;
	run.service = s->service;
	run.source = s->source;
	run.type = (char *)"cpu";
	run.max_nodes = max_nodes;
	request.verb_case = CONTROL__REQUEST__VERB_RUN_QUERY;
	request.run_query = &run;
	r = cli_call(cli, &request, &reply);
	if (!r)
		r = receive(cli, reply, &b);
	free(b.functions);
	free(b.services);
	free(b.rows);
	if (r)
		tree_free(b.tree);
	else
		*ret = b.tree;
	return r;
}

uint64_t tree_span_ns(const struct tree *t)
{
	return t->to_unix_ns > t->from_unix_ns ? t->to_unix_ns - t->from_unix_ns : 0;
}
