/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files that turn YAML into a document. */

#include "agentd/config/config_private.h"
#include "agentd/config/ytree.h"

#define YTREE_KEY_MAX 160

struct ytree_ctx {
	const char *file;
	struct config_doc *doc;
	struct source_set *sources; /* to try them on */
	size_t first_order;         /* of the sources and destinations of this file */
	struct err_text *err;
};

/* Puts "file:line:column: " before the text that is there; returns code. */
int ytree_at(struct ytree_ctx *c, const struct ytree_node *node, int code);
#define ytree_fail(c, node, ...)                                                                   \
	(err_set((c)->err, -EINVAL, __VA_ARGS__), ytree_at(c, node, -EINVAL))

/* serviceName, service_name and service-name are one. */
void ytree_canonical(const char *key, char *out, size_t size);
/* -EINVAL with "WHAT: expected EXPECTED, got ...". Nothing (null) is no text. */
int ytree_expect(struct ytree_ctx *c, const struct ytree_node *node, enum ytree_kind kind,
	const char *what, const char *expected);
/* Sets a path that must not be there yet. */
int ytree_set(struct ytree_ctx *c, const struct ytree_node *node, const char *value,
	const char *format, ...) PRINTF(4, 5);
/* A text, or a list of texts joined by commas. The caller frees. */
int ytree_joined(struct ytree_ctx *c, const struct ytree_node *node, const char *what, char **ret);
int ytree_joined_by(struct ytree_ctx *c, const struct ytree_node *node, const char *what,
	char separator, char **ret);
/* The value of a key in any of its spellings; NULL none. */
const struct ytree_node *ytree_field(const struct ytree_node *map, const char *name);
int ytree_check_flag(struct ytree_ctx *c, const struct ytree_node *value, const char *name);
/* A name for a new object of the group ("sources"). */
int ytree_check_name(
	struct ytree_ctx *c, const struct ytree_node *where, const char *name, const char *group);
int ytree_read_destination(struct ytree_ctx *c, const char *name, const struct ytree_node *where,
	const struct ytree_node *map, size_t index);
/* Whether settings stand below this word, such as "profiling". */
bool ytree_is_section(const char *word);
int ytree_read_section(struct ytree_ctx *c, const char *section, const struct ytree_node *map);
