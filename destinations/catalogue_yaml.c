/* SPDX-License-Identifier: Apache-2.0 */

/* Reading YAML strictly: one value of one kind, a list, a mapping of known keys.
 *
 * Everything that is not as expected is an error that says name:line and what belongs there; a key that is nearly one is
 * pointed out. libyaml's document is a flat array of nodes, and whoever reads it here asks for a node, a list or a
 * mapping at a fixed depth, so that aliases can neither loop nor blow up.
 *
 * Bounds: CATALOGUE_MAX_FILE a file, MAX_LIST values of a list, 1024 bytes a value, 64 known keys of a mapping. Runs in
 * agentd and in the exporter. */

#include <stdarg.h>

#include "agentd/base/text.h"
#include "destinations/catalogue_private.h"
#include "destinations/catalogue_yaml.h"

#define MAX_LIST 32

int catalogue_wrong(struct catalogue_parser *p, const yaml_node_t *at, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return err_set(
		p->err, -EINVAL, "%s:%zu: %s", p->name, at ? at->start_mark.line + 1 : 1, text);
}

const yaml_node_t *catalogue_node(struct catalogue_parser *p, int index)
{
	return yaml_document_get_node(p->doc, index);
}

const char *catalogue_scalar(struct catalogue_parser *p, const char *key, const yaml_node_t *n)
{
	const char *s = (const char *)n->data.scalar.value;

	if (n->type != YAML_SCALAR_NODE) {
		catalogue_wrong(p, n, "%s: expected one value", key);
		return NULL;
	}
	if (strlen(s) != n->data.scalar.length || !text_is_clean(s, 1024)) {
		catalogue_wrong(p, n,
			"%s: expected at most 1024 bytes of text without control characters", key);
		return NULL;
	}
	return s;
}

int catalogue_get_text(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, const char **ret)
{
	const char *s = catalogue_scalar(p, key, n);
	char *copy;

	if (!s)
		return -EINVAL;
	copy = strdup(s);
	if (!copy)
		return -ENOMEM;
	free((void *)(uintptr_t)*ret);
	*ret = copy;
	return 0;
}

int catalogue_get_size(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, uint64_t *ret)
{
	const char *s = catalogue_scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_size(s, ret) < 0
		? catalogue_wrong(p, n, "%s: expected a size such as 2MB, not \"%s\"", key, s)
		: 0;
}

int catalogue_get_duration(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, uint64_t *ret)
{
	const char *s = catalogue_scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_duration(s, ret) < 0
		? catalogue_wrong(p, n, "%s: expected a time such as 10s or 1h, not \"%s\"", key, s)
		: 0;
}

int catalogue_get_count(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, uint64_t *ret)
{
	const char *s = catalogue_scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_u64(s, 0, UINT64_MAX, ret) < 0
		? catalogue_wrong(p, n, "%s: expected a whole number, not \"%s\"", key, s)
		: 0;
}

int catalogue_get_bool(struct catalogue_parser *p, const char *key, const yaml_node_t *n, bool *ret)
{
	const char *s = catalogue_scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_bool(s, ret) < 0
		? catalogue_wrong(p, n, "%s: expected true or false, not \"%s\"", key, s)
		: 0;
}

void catalogue_free_list(const char *const *list)
{
	for (size_t i = 0; list && list[i]; i++)
		free((void *)(uintptr_t)list[i]);
	free((void *)(uintptr_t)list);
}

int catalogue_get_list(
	struct catalogue_parser *p, const char *key, const yaml_node_t *n, const char *const **ret)
{
	size_t count;
	const char **list;

	if (n->type != YAML_SEQUENCE_NODE)
		return catalogue_wrong(p, n, "%s: expected a list such as [a, b]", key);
	count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	if (!count || count > MAX_LIST)
		return catalogue_wrong(p, n, "%s: expected 1 to %d values", key, MAX_LIST);
	list = calloc(count + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	catalogue_free_list(*ret);
	*ret = list;
	for (size_t i = 0; i < count; i++) {
		int r = catalogue_get_text(
			p, key, catalogue_node(p, n->data.sequence.items.start[i]), &list[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

int catalogue_each_key(struct catalogue_parser *p, const char *what, const yaml_node_t *n,
	const char *const *known, size_t n_known,
	int (*visit)(
		struct catalogue_parser *p, size_t key, const yaml_node_t *value, void *userdata),
	void *userdata)
{
	uint64_t seen = 0;

	if (!n || n->type != YAML_MAPPING_NODE)
		return catalogue_wrong(p, n, "%s: expected keys and values", what);
	for (const yaml_node_pair_t *pair = n->data.mapping.pairs.start;
		pair < n->data.mapping.pairs.top; pair++) {
		const yaml_node_t *k = catalogue_node(p, pair->key);
		const char *key = catalogue_scalar(p, what, k), *near;
		size_t i = 0;
		int r;

		if (!key)
			return -EINVAL;
		while (i < n_known && !streq(known[i], key))
			i++;
		near = i == n_known ? text_nearest(key, known, n_known) : NULL;
		if (near)
			return catalogue_wrong(p, k, "%s has no key \"%s\": did you mean \"%s\"?",
				what, key, near);
		if (i == n_known)
			return catalogue_wrong(p, k, "%s has no key \"%s\"", what, key);
		if (seen & 1ULL << i)
			return catalogue_wrong(p, k, "%s: \"%s\" is given twice", what, key);
		seen |= 1ULL << i;
		r = visit(p, i, catalogue_node(p, pair->value), userdata);
		if (r < 0)
			return r;
	}
	return 0;
}

int catalogue_load(
	const char *name, const char *yaml, size_t len, yaml_document_t *doc, struct err_text *err)
{
	yaml_parser_t parser;
	int r = 0;

	if (len > CATALOGUE_MAX_FILE)
		return err_set(
			err, -EFBIG, "%s: expected at most %u bytes", name, CATALOGUE_MAX_FILE);
	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, len);
	if (!yaml_parser_load(&parser, doc))
		r = err_set(err, -EINVAL, "%s:%zu: %s", name, parser.problem_mark.line + 1,
			parser.problem ? parser.problem : "not YAML");
	yaml_parser_delete(&parser);
	return r;
}
