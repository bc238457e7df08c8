/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* YAML as a small tree whose every node knows where it stands. For the config room only. */

#include "agentd/base/err.h"

enum ytree_kind { YTREE_TEXT, YTREE_MAP, YTREE_LIST };

#define YTREE_MAX_DEPTH 8
#define YTREE_MAX_NODES 60000

struct ytree_node {
	enum ytree_kind kind;
	uint32_t line, column;     /* from 1 */
	char *text;                /* YTREE_TEXT */
	bool null;                 /* a plain, empty scalar, ~ or null */
	struct ytree_node **items; /* YTREE_LIST: the items; YTREE_MAP: key, value, key, ... */
	size_t n;                  /* of items */
};

/* *ret is NULL for an empty document. Anchors, aliases, tags, several documents and keys that are not text are refused:
 * settings need none of them, and they are what makes YAML dangerous. Errors begin "file:line:column: ". */
int ytree_read(const char *file, const char *text, size_t len, struct ytree_node **ret,
	struct err_text *err);
struct ytree_node *ytree_free(struct ytree_node *node);
DEFINE_FREEP(ytree_freep, struct ytree_node *, ytree_free)
/* "a text", "a map", "a list" */
const char *ytree_kind_name(const struct ytree_node *node);
