/* SPDX-License-Identifier: Apache-2.0 */

/* From libyaml's events to a tree, and no further.
 *
 * Events, not libyaml's documents: depth, size and aliases can be refused while they are read,
 * before any memory is spent on them. An alias is refused outright: a thousand bytes of them can
 * stand for gigabytes, and a settings file does not need one.
 *
 * Every node keeps its line and column, counted from 1 as editors do; that is what makes an error
 * one that can be mended. Source: YAML 1.1, and libyaml's yaml.h. Runs in agentd. */

#include <yaml.h>

#include "agentd/base/text.h"
#include "agentd/config/ytree.h"

struct reader {
	yaml_parser_t parser;
	const char *file, *text;
	size_t len;
	size_t nodes;
	struct err_text *err;
};

static void event_deinit(yaml_event_t *event)
{
	yaml_event_delete(event);
}
#define _cleanup_event_ CLEANUP(event_deinit)

struct ytree_node *ytree_free(struct ytree_node *node)
{
	if (!node)
		return NULL;
	for (size_t i = 0; i < node->n; i++)
		ytree_free(node->items[i]); /* no deeper than YTREE_MAX_DEPTH */
	free(node->items);
	free(node->text);
	free(node);
	return NULL;
}

const char *ytree_kind_name(const struct ytree_node *node)
{
	return node->kind == YTREE_MAP ? "a map" : node->kind == YTREE_LIST ? "a list" : "a text";
}

static int at_mark(struct reader *r, const yaml_mark_t *mark, int code, const char *what)
{
	return err_set(
		r->err, code, "%s:%zu:%zu: %s", r->file, mark->line + 1, mark->column + 1, what);
}

/* The reader of bytes (encoding errors) knows an offset only. */
static int at_offset(struct reader *r, size_t offset, const char *what)
{
	yaml_mark_t mark = {0};

	for (size_t i = 0; i < offset && i < r->len; i++) {
		mark.column++;
		if (r->text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return at_mark(r, &mark, -EINVAL, what);
}

static int parser_failed(struct reader *r)
{
	const yaml_parser_t *p = &r->parser;
	char what[300];

	if (p->error == YAML_MEMORY_ERROR)
		return err_set(r->err, -ENOMEM, "out of memory");
	if (p->error == YAML_READER_ERROR)
		return at_offset(r, p->problem_offset, "not UTF-8 text");
	snprintf(what, sizeof(what), "not valid YAML: %s%s%s%s",
		p->problem ? p->problem : "unknown problem", p->context ? " (" : "",
		p->context ? p->context : "", p->context ? ")" : "");
	return at_mark(r, &p->problem_mark, -EINVAL, what);
}

static int next_event(struct reader *r, yaml_event_t *event)
{
	return yaml_parser_parse(&r->parser, event) ? 0 : parser_failed(r);
}

static int add_item(struct ytree_node *node, struct ytree_node *item)
{
	struct ytree_node **items;

	/* Room for a power of two, without keeping count of it. */
	if ((node->n & (node->n - 1)) == 0) {
		items = reallocarray(node->items, node->n ? node->n * 2 : 1, sizeof(*items));
		if (!items)
			return -ENOMEM;
		node->items = items;
	}
	node->items[node->n++] = item;
	return 0;
}

static int read_text(struct reader *r, const yaml_event_t *event, struct ytree_node *node)
{
	const char *value = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;

	if (strlen(value) != len)
		return at_mark(
			r, &event->start_mark, -EINVAL, "a NUL byte cannot be part of a value");
	node->kind = YTREE_TEXT;
	node->text = strdup(value);
	node->null = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
		(!len || streq(value, "~") || streq(value, "null"));
	return node->text ? 0 : err_set(r->err, -ENOMEM, "out of memory");
}

static bool has_anchor_or_tag(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor || event->data.scalar.tag;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor || event->data.sequence_start.tag;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor || event->data.mapping_start.tag;
	default:
		return event->type == YAML_ALIAS_EVENT;
	}
}

static int read_node(
	struct reader *r, const yaml_event_t *start, unsigned depth, struct ytree_node **ret);

static int read_items(
	struct reader *r, struct ytree_node *node, yaml_event_type_t end, unsigned depth)
{
	for (;;) {
		_cleanup_event_ yaml_event_t event = {0};
		CLEANUP(ytree_freep) struct ytree_node *item = NULL;
		int error = next_event(r, &event);

		if (error < 0)
			return error;
		if (event.type == end)
			return 0;
		error = read_node(r, &event, depth + 1, &item);
		if (error < 0)
			return error;
		if (node->kind == YTREE_MAP && node->n % 2 == 0 && item->kind != YTREE_TEXT)
			return at_mark(r, &event.start_mark, -EINVAL,
				"the name of a setting has to be a text");
		if (add_item(node, item) < 0)
			return err_set(r->err, -ENOMEM, "out of memory");
		item = NULL;
	}
}

static int read_node(
	struct reader *r, const yaml_event_t *start, unsigned depth, struct ytree_node **ret)
{
	CLEANUP(ytree_freep) struct ytree_node *node = NULL;
	int error = 0;

	if (has_anchor_or_tag(start))
		return at_mark(r, &start->start_mark, -EINVAL,
			"anchors (&), aliases (*) and tags (!) are not used here: write the value "
			"out, or put it in quotes");
	if (depth > YTREE_MAX_DEPTH)
		return at_mark(r, &start->start_mark, -EINVAL, "nested too deeply");
	if (++r->nodes > YTREE_MAX_NODES)
		return at_mark(r, &start->start_mark, -E2BIG, "too many settings in one file");
	node = calloc(1, sizeof(*node));
	if (!node)
		return err_set(r->err, -ENOMEM, "out of memory");
	node->line = (uint32_t)start->start_mark.line + 1;
	node->column = (uint32_t)start->start_mark.column + 1;
	if (start->type == YAML_SCALAR_EVENT) {
		error = read_text(r, start, node);
	} else if (start->type == YAML_MAPPING_START_EVENT) {
		node->kind = YTREE_MAP;
		error = read_items(r, node, YAML_MAPPING_END_EVENT, depth);
	} else {
		node->kind = YTREE_LIST;
		error = read_items(r, node, YAML_SEQUENCE_END_EVENT, depth);
	}
	if (error < 0)
		return error;
	*ret = TAKE_PTR(node);
	return 0;
}

static int read_stream(struct reader *r, struct ytree_node **ret)
{
	CLEANUP(ytree_freep) struct ytree_node *root = NULL;
	unsigned documents = 0;

	for (;;) {
		_cleanup_event_ yaml_event_t event = {0};
		int error = next_event(r, &event);

		if (error < 0)
			return error;
		if (event.type == YAML_STREAM_END_EVENT)
			break;
		if (event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_END_EVENT)
			continue;
		if (event.type == YAML_DOCUMENT_START_EVENT) {
			if (documents++)
				return at_mark(r, &event.start_mark, -EINVAL,
					"a second document (---) in one file");
			continue;
		}
		error = read_node(r, &event, 1, &root);
		if (error < 0)
			return error;
	}
	if (root && root->null)
		root = ytree_free(root);
	*ret = TAKE_PTR(root);
	return 0;
}

int ytree_read(const char *file, const char *text, size_t len, struct ytree_node **ret,
	struct err_text *err)
{
	struct reader r = {.file = file, .text = text, .len = len, .err = err};
	int error;

	if (!yaml_parser_initialize(&r.parser))
		return err_set(err, -ENOMEM, "out of memory");
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	error = read_stream(&r, ret);
	yaml_parser_delete(&r.parser);
	return error;
}
