/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Call trees out of batches: what a query answers. Bounded: see tree_new(). Private to
 * agentd/profile; runs in the reader role. */

#include "agentd/profile/local.h"

struct tree;

/* At most max_nodes nodes come out; up to 8 times as many (at least 100,000) are held meanwhile.
 * Borrows q. */
int tree_new(struct tree **ret, const struct query *q);
struct tree *tree_free(struct tree *t);
DEFINE_FREEP(tree_freep, struct tree *, tree_free)

/* Whether a query asks for a part. */
bool tree_wants(const struct query *q, const struct batch *b, const struct profile_part *p);
/* Adds what the query asks for of a batch. 0 or -errno. */
int tree_add(struct tree *t, const struct batch *b);
/* Prunes and compacts: strings and functions are those in use, nodes parents first. The result
 * borrows from the tree (do not free it by query_result_free()). */
int tree_finish(struct tree *t, struct query_result *ret);
