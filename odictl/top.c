/* SPDX-License-Identifier: Apache-2.0 */

/* Tables out of the call tree. Self time is where the samples' leaves are; total time counts a function once a
 * stack, however often it recurses: on the way down the tree each row knows how many of its nodes are above. */

#include "agentd/base/map.h"
#include "odictl/tree.h"

struct counting {
	struct top_row row;
	uint32_t above; /* nodes of this row on the way from the root */
};

struct walk {
	const struct tree *tree;
	enum top_by by;
	struct map *rows;
	struct counting **of_node;     /* the row of each node; NULL none */
	struct counting **of_function; /* the row of each function, once it was looked for */
};

static struct counting *row_of(
	struct walk *w, const char *name, const char *module, const char *service)
{
	/* Names are as long as C++ makes them: nothing is cut, two long ones must not become one. */
	_cleanup_free_ char *key = NULL;
	int len = asprintf(&key, "%s\n%s", name, module);
	struct counting *c;

	if (len < 0) {
		key = NULL;
		return NULL;
	}
	c = map_get(w->rows, key, (size_t)len);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->row.name = name;
	c->row.module = module;
	c->row.service = service;
	if (map_put(w->rows, key, (size_t)len, c, NULL) < 0) {
		free(c);
		return NULL;
	}
	return c;
}

static struct counting *row_of_node(struct walk *w, size_t i)
{
	const struct tree_node *n = &w->tree->nodes[i];
	const struct tree_function *f;

	if (i == 0)
		return NULL;
	if (n->service)
		return w->by == TOP_SERVICE ? row_of(w, n->service, "", n->service) : NULL;
	if (w->by == TOP_SERVICE)
		return NULL;
	f = &w->tree->functions[n->function];
	if (!w->of_function[n->function])
		w->of_function[n->function] = w->by == TOP_MODULE
			? row_of(w, f->module, "", "")
			: row_of(w, f->name, f->module, "");
	return w->of_function[n->function];
}

/* Depth first without recursion: stacks may be deep. */
static void walk_tree(struct walk *w)
{
	const struct tree *t = w->tree;
	uint32_t at = 0;

	for (;;) {
		struct counting *c = w->of_node[at];
		const struct tree_node *n = &t->nodes[at];

		if (c) {
			/* All of a service's own time is below its node. */
			c->row.self_ns += w->by == TOP_SERVICE ? n->total_ns : n->self_ns;
			if (c->above++ == 0)
				c->row.total_ns += n->total_ns;
		}
		if (n->first_child) {
			at = n->first_child;
			continue;
		}
		for (;;) {
			if (w->of_node[at])
				w->of_node[at]->above--;
			if (at == 0)
				return;
			if (t->nodes[at].next_sibling) {
				at = t->nodes[at].next_sibling;
				break;
			}
			at = t->nodes[at].parent;
		}
	}
}

static void add_group_rows(struct walk *w)
{
	for (size_t i = 0; i < w->tree->n_rows; i++) {
		const struct tree_row *r = &w->tree->rows[i];
		const char *name = w->by == TOP_PROCESS ? r->process : r->thread;
		struct counting *c;

		if (!name[0])
			name = TOP_NOT_RECORDED;
		c = row_of(w, name, r->service, r->service);
		if (c) {
			c->row.self_ns += r->ns;
			c->row.total_ns += r->ns;
		}
	}
}

static int by_self(const void *x, const void *y)
{
	const struct top_row *a = x, *b = y;

	if (a->self_ns != b->self_ns)
		return a->self_ns < b->self_ns ? 1 : -1;
	if (a->total_ns != b->total_ns)
		return a->total_ns < b->total_ns ? 1 : -1;
	return strcmp(a->name, b->name);
}

size_t top_rows(const struct tree *t, enum top_by by, struct top_row **ret)
{
	struct walk w = {.tree = t,
		.by = by,
		.of_node = calloc(t->n_nodes + 1, sizeof(*w.of_node)),
		.of_function = calloc(t->n_functions + 1, sizeof(*w.of_function))};
	struct map_iter it = {};
	struct top_row *rows = NULL;
	size_t n = 0;

	if (w.of_node && w.of_function && map_new(&w.rows, 0) == 0) {
		if (by == TOP_PROCESS || by == TOP_THREAD) {
			add_group_rows(&w);
		} else if (t->n_nodes) {
			for (size_t i = 0; i < t->n_nodes; i++)
				w.of_node[i] = row_of_node(&w, i);
			walk_tree(&w);
		}
		rows = calloc(map_size(w.rows) + 1, sizeof(*rows));
		while (rows && map_next(w.rows, &it))
			rows[n++] = ((struct counting *)it.value)->row;
		map_free_with(w.rows, free);
	}
	free(w.of_node);
	free(w.of_function);
	if (n)
		qsort(rows, n, sizeof(*rows), by_self);
	*ret = rows;
	return n;
}
