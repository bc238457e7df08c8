/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Parts of an answer to a query, without the trouble of the wire: one small tree that is known by heart, and random ones. */

#include "tests/unit/odictl/capture.h"

#include "odictl/tree.h"

static uint64_t random_state = 88172645463325252ULL;

static inline uint64_t rnd(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

/* ---- parts without the trouble of the wire ---- */

#define MOST 4000

struct part {
	Control__QueryPart p;
	char *strings[MOST];
	Control__QueryFunction functions[MOST], *function_list[MOST];
	Control__QueryNode nodes[MOST], *node_list[MOST];
	Control__QueryRow rows[MOST], *row_list[MOST];
};

static inline struct part *part_new(void)
{
	struct part *x = calloc(1, sizeof(*x));

	control__query_part__init(&x->p);
	x->p.strings = x->strings;
	x->p.functions = x->function_list;
	x->p.nodes = x->node_list;
	x->p.rows = x->row_list;
	return x;
}

static inline void add_string(struct part *x, const char *s)
{
	x->strings[x->p.n_strings++] = (char *)s;
}

static inline void add_function(struct part *x, uint32_t name, uint32_t module, uint32_t type)
{
	Control__QueryFunction *f = &x->functions[x->p.n_functions];

	control__query_function__init(f);
	f->name = name;
	f->module = module;
	f->frame_type = type;
	x->function_list[x->p.n_functions++] = f;
}

/* function is the service's string on children of the root */
static inline Control__QueryNode *add_node(
	struct part *x, uint32_t parent, uint32_t function, uint64_t self, uint64_t total)
{
	Control__QueryNode *n = &x->nodes[x->p.n_nodes];

	control__query_node__init(n);
	n->parent = parent;
	if (parent == 0)
		n->service = function;
	else
		n->function = function;
	n->self_ns = self;
	n->self_samples = self;
	n->total_ns = total;
	x->node_list[x->p.n_nodes++] = n;
	return n;
}

static inline void add_row(
	struct part *x, uint32_t service, uint32_t process, uint32_t thread, uint64_t ns)
{
	Control__QueryRow *r = &x->rows[x->p.n_rows];

	control__query_row__init(r);
	r->service = service;
	r->process = process;
	r->thread = thread;
	r->ns = ns;
	x->row_list[x->p.n_rows++] = r;
}

static inline struct tree *build(struct part **parts, size_t n)
{
	struct tree_builder *b = tree_builder_new();

	assert_non_null(b);
	for (size_t i = 0; i < n; i++)
		tree_builder_add(b, &parts[i]->p);
	return tree_builder_finish(b);
}

static inline struct tree *build_one(struct part *x)
{
	return build(&x, 1);
}

/* "web" calls a (self 10) which calls b (30) and, recursively, a (20); "db" calls b (40). */
static inline struct part *honest(void)
{
	struct part *x = part_new();

	add_string(x, "");
	add_string(x, "web");
	add_string(x, "db");
	add_string(x, "a");
	add_string(x, "b");
	add_string(x, "lib.so");
	add_string(x, "vmlinux");
	add_function(x, 3, 5, 1);
	add_function(x, 4, 6, 2);
	x->p.total_ns = x->p.total_samples = 100;
	x->p.from_unix_ns = 1774688400 * NSEC_PER_SEC;
	x->p.to_unix_ns = x->p.from_unix_ns + NSEC_PER_SEC;
	add_node(x, 0, 0, 0, 100);
	add_node(x, 0, 2, 0, 40);
	add_node(x, 0, 1, 0, 60);
	add_node(x, 2, 0, 10, 60);
	add_node(x, 3, 0, 20, 20);
	add_node(x, 3, 1, 30, 30);
	add_node(x, 1, 1, 40, 40);
	add_row(x, 1, 3, 4, 60);
	add_row(x, 2, 0, 0, 40);
	return x;
}

static inline struct part *random_part(void)
{
	static const char *const names[] = {"s1", "s2", "f0", "f1", "f2", "f3", "f4", "m0", "m1"};
	struct part *x = part_new();
	uint32_t n = 2 + (uint32_t)rnd(60);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		add_string(x, names[i]);
	/* A name in one module only, so that names alone tell rows apart. */
	for (uint32_t i = 0; i < 5; i++)
		add_function(x, 2 + i, 7 + i % 2, 1 + i % 2);
	add_node(x, 0, 0, 0, 0);
	add_node(x, 0, 0, 0, 0);
	for (uint32_t i = 2; i < n; i++) {
		uint32_t parent = (uint32_t)rnd(i);

		add_node(x, parent, (uint32_t)rnd(parent ? 5 : 2), parent ? rnd(1000) : 0, 0);
	}
	for (uint32_t i = n; i-- > 0;) {
		x->nodes[i].total_ns += x->nodes[i].self_ns;
		if (i)
			x->nodes[x->nodes[i].parent].total_ns += x->nodes[i].total_ns;
	}
	x->p.total_ns = x->nodes[0].total_ns;
	return x;
}
