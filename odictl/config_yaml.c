/* SPDX-License-Identifier: Apache-2.0 */

/* Configuration as YAML, from the flat paths that agentd answers with.
 *
 * Values come sorted by path, so what belongs together lies together; sources and destinations keep their order in
 * the file by their age. Every text that is not plainly a word or number is written in double quotes with JSON's
 * escapes, which are YAML's as well: nothing that somebody put into a label can become anything else. */

#include "agentd/base/text.h"
#include "odictl/config.h"

/* Words that YAML readers take for something else than a text. */
static bool is_keyword(const char *s)
{
	static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "~"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasecmp(s, words[i]) == 0)
			return true;
	return false;
}

static bool is_plain(const char *s, bool key)
{
	static const char safe[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";

	return *s && *s != '-' && *s != '.' && strspn(s, safe) == strlen(s) &&
		(!key || !is_keyword(s));
}

static void put_text(struct buf *out, const char *s, bool key)
{
	if (is_plain(s, key))
		buf_str(out, s);
	else
		json_escape(out, s);
}

static void put_line(struct buf *out, unsigned depth, const char *key, const char *value)
{
	buf_printf(out, "%*s", (int)depth * 2, "");
	put_text(out, key, true);
	buf_str(out, ":");
	if (value) {
		buf_str(out, " ");
		put_text(out, value, false);
	}
	buf_str(out, "\n");
}

static const char *value_of(const Control__ConfigValue *v)
{
	return v->reference[0] ? v->reference : v->value;
}

/* Opens the maps of path that the line before did not open: all parts but the last. keep: how many of its parts are
 * keys of one word, whatever slashes are in the rest (labels). */
static void put_path(struct buf *out, unsigned base, const char *path, const char *before,
	unsigned keep, const char *value)
{
	char part[CONFIG_KEY_MAX];
	bool same = true;
	unsigned depth = base;

	for (unsigned i = 0;; i++) {
		size_t len = strcspn(path, "/");

		if (!path[len] || i == keep) {
			put_line(out, depth, path, value);
			return;
		}
		snprintf(part, sizeof(part), "%.*s", (int)len, path);
		same = same && strncmp(path, before, len + 1) == 0;
		if (!same)
			put_line(out, depth, part, NULL);
		before += same ? len + 1 : strlen(before);
		path += len + 1;
		depth++;
	}
}

/* ---- sources and destinations ---- */

struct object {
	const char *path; /* "sources/web" and len of it */
	size_t len, from, to;
	uint64_t order;
};

static int by_order(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	return x->from < y->from ? -1 : 1;
}

/* The objects of a group; the caller frees. */
static struct object *objects_of(const Control__Config *c, const char *group, size_t *ret_n)
{
	struct object *list = calloc(c->n_values + 1, sizeof(*list));
	size_t start = strlen(group) + 1, n = 0;

	for (size_t i = 0; list && i < c->n_values; i++) {
		const char *path = c->values[i]->path;
		size_t len;

		if (strncmp(path, group, start - 1) != 0 || path[start - 1] != '/')
			continue;
		len = start + strcspn(path + start, "/");
		if (!n || list[n - 1].len != len || strncmp(list[n - 1].path, path, len) != 0)
			list[n++] = (struct object){.path = path, .len = len, .from = i};
		list[n - 1].to = i + 1;
		if (streq(path + len, "/order"))
			text_u64(c->values[i]->value, 0, UINT64_MAX, &list[n - 1].order);
	}
	if (n)
		qsort(list, n, sizeof(*list), by_order);
	*ret_n = n;
	return list;
}

static void put_objects(const Control__Config *c, const char *group, struct buf *out)
{
	size_t n = 0, start = strlen(group) + 1;
	_cleanup_free_ struct object *list = objects_of(c, group, &n);

	if (n)
		buf_printf(out, "%s:\n", group);
	for (size_t i = 0; i < n; i++) {
		const char *before = "";
		char name[CONFIG_KEY_MAX];

		snprintf(name, sizeof(name), "%.*s", (int)(list[i].len - start),
			list[i].path + start);
		buf_str(out, "  - name: ");
		json_escape(out, name);
		buf_str(out, "\n");
		for (size_t k = list[i].from; k < list[i].to; k++) {
			const Control__ConfigValue *v = c->values[k];
			const char *rest = v->path + list[i].len + 1;

			if (streq(rest, "order"))
				continue;
			/* labels/KEY with any slashes; options/KEY, options/MAP/KEY */
			put_path(out, 2, rest, before, text_starts(rest, "labels/") ? 1 : 2,
				value_of(v));
			before = rest;
		}
	}
}

void config_yaml(const Control__Config *c, struct buf *out)
{
	const char *before = "";

	for (size_t i = 0; i < c->n_values; i++) {
		const Control__ConfigValue *v = c->values[i];

		if (v->is_default || text_starts(v->path, "sources/") ||
			text_starts(v->path, "destinations/"))
			continue;
		put_path(out, 0, v->path, before, text_starts(v->path, "host/labels/") ? 2 : 8,
			v->value);
		before = v->path;
	}
	put_objects(c, "sources", out);
	put_objects(c, "destinations", out);
}
