/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The call tree's inside: its tables and their bounds (tree_nodes.c), and what batches and
 * results make of them (tree.c). */

#include "agentd/profile/batch_private.h"
#include "agentd/profile/tree.h"

#define OTHER "[other]"

struct node {
	uint32_t parent, function, service;
	uint64_t self_ns, self_samples, total_ns;
};

struct leaf {
	uint64_t hash;
	uint32_t node; /* + 1; 0 empty */
};

struct tree {
	const struct query *q;
	uint32_t max_nodes, held_nodes;
	struct text_chunk *text;
	TABLE(const char *) strings;
	TABLE(struct query_function) functions;
	TABLE(struct node) nodes;
	TABLE(struct query_group_row) rows;
	struct leaf *leaves;
	uint32_t n_leaf_slots, n_leaves;
	uint32_t *path;
	uint32_t path_room;
	uint64_t from, to, newest, period;
	uint64_t total_ns, total_samples, cut;
	/* of tree_finish() */
	struct query_node *out_nodes;
	struct query_function *out_functions;
	struct query_group_row *out_rows;
	char **out_strings;
};

struct wanted {
	const struct tree *t;
	const void *content;
};

/* Each returns the position, or -errno. */
int64_t tree_string(struct tree *t, const char *s);
int64_t tree_function(struct tree *t, const struct query_function *f);
int64_t tree_node(struct tree *t, uint32_t parent, uint32_t function, uint32_t service);
/* The node of a whole path (leaf last) below its service. */
int64_t tree_leaf(struct tree *t, uint32_t service, const uint32_t *path, uint32_t n);
/* Sums the totals up and cuts the tree down to max nodes. 0 or -errno. */
int tree_prune(struct tree *t, uint32_t max);
