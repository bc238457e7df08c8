/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of reading a destination type: catalogue.c (the file as a whole), catalogue_fields.c (its fields),
 * catalogue_yaml.c (values out of nodes). Errors are sentences in p->err. */

#include <yaml.h>

#include "agentd/base/err.h"
#include "destinations/destination.h"

struct catalogue_parser {
	yaml_document_t *doc;
	const char *name; /* of the file, for errors */
	struct destination_type *type;
	struct err_text *err;
};

/* ---- catalogue_yaml.c ---- */

/* The document is the caller's to delete. -EFBIG; -EINVAL: no YAML; -ENOMEM. */
int catalogue_load(
	const char *name, const char *yaml, size_t len, yaml_document_t *doc, struct err_text *err);
/* Says name:line in front; at NULL: line 1. Returns -EINVAL. */
int catalogue_wrong(struct catalogue_parser *p, const yaml_node_t *at, const char *format, ...)
	PRINTF(3, 4);
const yaml_node_t *catalogue_node(struct catalogue_parser *p, int index);
/* The text of a scalar, borrowed from the document; NULL and an error for anything else. */
const char *catalogue_scalar(struct catalogue_parser *p, const char *key, const yaml_node_t *n);
/* The value of a key. Text and lists are copies; what *ret had is freed. */
int catalogue_get_text(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, const char **ret);
int catalogue_get_size(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, uint64_t *ret);
int catalogue_get_duration(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, uint64_t *ret);
int catalogue_get_count(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, uint64_t *ret);
int catalogue_get_bool(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, bool *ret);
int catalogue_get_list(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, const char *const **ret);
void catalogue_free_list(const char *const *list);
/* Calls visit with the index of the key in known for each pair of a mapping, in the file's order. A key given twice or
 * not known is an error. */
int catalogue_each_key(struct catalogue_parser *p, const char *what, const yaml_node_t *n,
	const char *const *known, size_t n_known,
	int (*visit)(
		struct catalogue_parser *p, size_t key, const yaml_node_t *value, void *userdata),
	void *userdata);

/* ---- catalogue_fields.c ---- */

/* The type's own options and their headers, out of the list `fields`. */
int catalogue_get_fields(struct catalogue_parser *p, const yaml_node_t *n);
