/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A query's answer as odictl works on it: one call tree, parents before children, node 0 the root, its children
 * one a service. All indices were checked. Times are nanoseconds of CPU. */

#include "odictl/cli.h"

#define TREE_MAX_DEPTH 4096 /* below the root; real stacks have at most a few hundred frames */

struct tree_function {
	const char *name, *module, *file;
	uint32_t type; /* enum profile_frame_type: 1 native, 2 kernel, ... */
	bool inlined;
};
struct tree_node {
	uint32_t parent, function;
	const char *service; /* on children of the root, else NULL */
	uint64_t self_ns, total_ns, self_samples;
	uint32_t first_child, next_sibling; /* 0 none; children in falling order of total */
};
struct tree_row {
	const char *service, *process, *thread;
	uint64_t ns, samples;
};
struct tree {
	char **strings;
	size_t n_strings;
	struct tree_function *functions;
	size_t n_functions;
	struct tree_node *nodes;
	size_t n_nodes;
	struct tree_row *rows;
	size_t n_rows;
	uint64_t from_unix_ns, to_unix_ns, total_ns, total_samples, cut_nodes, damaged, period_ns;
	struct buf pprof; /* where it was asked for, gzipped */
};

struct selection {
	char service[256], source[80];
	uint64_t from_unix_ns, to_unix_ns;
	bool from_given, to_given; /* what was not given moves along: selection_move() */
	uint64_t since_ns;
};

/* A tree from its parts, in the order in which they come. Text is copied. */
struct tree_builder;
struct tree_builder *tree_builder_new(void);
struct tree_builder *tree_builder_free(struct tree_builder *b);
DEFINE_FREEP(tree_builder_freep, struct tree_builder *, tree_builder_free)
void tree_builder_add(struct tree_builder *b, const Control__QueryPart *part);
/* Consumes b. NULL: an index out of range, a parent after its child, children that are more than their parent, too
 * deep, too large, or out of memory. */
struct tree *tree_builder_finish(struct tree_builder *b);

/* From --source, --service, --since, --from, --to; 0 or EXIT_USAGE with a message. */
int selection_parse(struct cli *cli, const struct args *args, struct selection *ret);
/* The same with a clock of one's own, for tests; the zone is TZ's. */
int selection_parse_at(
	struct cli *cli, const struct args *args, uint64_t now_unix_ns, struct selection *ret);
/* Now is later: moves the ends that were not given. */
void selection_move(struct selection *s);
/* Runs the query; 0 or an exit code. pprof: as a profile for other tools, too. */
int tree_query(
	struct cli *cli, struct selection *s, uint32_t max_nodes, bool pprof, struct tree **ret);
struct tree *tree_free(struct tree *t);
DEFINE_FREEP(tree_freep, struct tree *, tree_free)
/* What the tree covers. */
uint64_t tree_span_ns(const struct tree *t);

/* ---- top.c ---- */
enum top_by { TOP_SERVICE, TOP_PROCESS, TOP_THREAD, TOP_MODULE, TOP_FUNCTION };
#define TOP_NOT_RECORDED "(not recorded)" /* a process or thread that no source asked for */
struct top_row {
	const char *name, *module, *service;
	uint64_t self_ns, total_ns;
};
/* Rows by falling self (functions, modules) or total time; caller frees *ret. Recursion counts once in total. */
size_t top_rows(const struct tree *t, enum top_by by, struct top_row **ret);

/* ---- flame*.c: the picture, into out ---- */
void flame_folded(const struct tree *t, struct buf *out);
void flame_json(const struct tree *t, const char *title, struct buf *out);
void flame_html(const struct tree *t, const char *title, struct buf *out);
void flame_svg(const struct tree *t, const char *title, struct buf *out);
