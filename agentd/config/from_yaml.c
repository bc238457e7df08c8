/* SPDX-License-Identifier: Apache-2.0 */

/* What an administrator writes becomes a document.
 *
 * The file is for people: names in kebab-case, but camelCase and under_scores are understood;
 * sources and destinations as a list or as a map by name; a kind's options beside its fields or
 * under `options`. The keys of Odigos' own files (serviceName, kind docker, name as what is matched,
 * config with PYROSCOPE_URL) are accepted, so that moving over is copying.
 *
 * Everything is checked here already, though the whole is checked again when it is built: only here
 * is the column known. Each source and destination is tried on its own room's checks before the next
 * is read. Runs in agentd. */

#include <ctype.h>
#include <stdarg.h>
#include <strings.h>

#include "agentd/base/text.h"
#include "agentd/config/from_yaml.h"

/* Puts "file:line:column: " before the text that is there. */
int ytree_at(struct ytree_ctx *c, const struct ytree_node *node, int code)
{
	return err_prefix(c->err, code, "%s:%u:%u", c->file, node->line, node->column);
}

/* serviceName, service_name and service-name are one. */
void ytree_canonical(const char *key, char *out, size_t size)
{
	size_t n = 0;

	for (; *key && n + 2 < size; key++) {
		bool upper = isascii((unsigned char)*key) && isupper((unsigned char)*key);

		if (upper && n && out[n - 1] != '-')
			out[n++] = '-';
		out[n++] = *key == '_' ? '-' : upper ? (char)tolower(*key) : *key;
	}
	out[n] = '\0';
}

int ytree_expect(struct ytree_ctx *c, const struct ytree_node *node, enum ytree_kind kind,
	const char *what, const char *expected)
{
	if (node->kind == kind && !(kind == YTREE_TEXT && node->null))
		return 0;
	return ytree_fail(c, node, "%s: expected %s, got %s", what, expected,
		node->null ? "nothing" : ytree_kind_name(node));
}

int ytree_set(struct ytree_ctx *c, const struct ytree_node *node, const char *value,
	const char *format, ...)
{
	char path[CONFIG_PATH_MAX + 1];
	va_list ap;
	int n, r;

	va_start(ap, format);
	n = vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(path))
		return ytree_fail(c, node, "the name of the setting is too long");
	if (config_doc_get(c->doc, path))
		return ytree_fail(c, node, "%s is given twice", path);
	r = config_doc_set_at(c->doc, path, value, c->file, node->line);
	if (r == -EINVAL)
		return ytree_fail(c, node,
			"%s holds control characters (a line break?) or more than %d bytes", path,
			CONFIG_VALUE_MAX);
	if (r == -E2BIG)
		err_set(c->err, r, "too many settings in one file");
	else if (r < 0)
		err_set(c->err, r, "out of memory");
	return r < 0 ? ytree_at(c, node, r) : 0;
}

int ytree_joined_by(struct ytree_ctx *c, const struct ytree_node *node, const char *what,
	char separator, char **ret)
{
	struct buf _cleanup_buf_ b;
	int r;

	buf_init(&b, CONFIG_VALUE_MAX + 1);
	if (node->kind == YTREE_LIST) {
		for (size_t i = 0; i < node->n; i++) {
			r = ytree_expect(c, node->items[i], YTREE_TEXT, what, "a text");
			if (r < 0)
				return r;
			if (i)
				buf_add(&b, &separator, 1);
			buf_str(&b, node->items[i]->text);
		}
	} else {
		r = ytree_expect(c, node, YTREE_TEXT, what, "a text or a list of texts");
		if (r < 0)
			return r;
		buf_str(&b, node->text);
	}
	*ret = buf_take_str(&b);
	return *ret ? 0 : ytree_fail(c, node, "%s is too long", what);
}

int ytree_joined(struct ytree_ctx *c, const struct ytree_node *node, const char *what, char **ret)
{
	return ytree_joined_by(c, node, what, ',', ret);
}

/* ---- labels -------------------------------------------------------------------------------------- */

/* prefix: "host/labels" or "sources/NAME/labels". */
static int read_labels(struct ytree_ctx *c, const char *prefix, const struct ytree_node *map)
{
	int r = ytree_expect(c, map, YTREE_MAP, "labels", "a map of labels");

	for (size_t i = 0; r == 0 && i < map->n; i += 2) {
		const struct ytree_node *key = map->items[i], *value = map->items[i + 1];

		r = ytree_expect(c, value, YTREE_TEXT, key->text, "a value");
		if (r == 0 && source_label_check(key->text, value->text, c->err) < 0)
			r = ytree_at(c, key, -EINVAL);
		if (r == 0)
			r = ytree_set(c, value, value->text, "%s/%s", prefix, key->text);
	}
	return r;
}

static int read_host(struct ytree_ctx *c, const struct ytree_node *map)
{
	int r = ytree_expect(c, map, YTREE_MAP, "host", "a map");

	for (size_t i = 0; r == 0 && i < map->n; i += 2) {
		if (!streq(map->items[i]->text, "labels"))
			return ytree_fail(c, map->items[i],
				"host has no setting \"%.64s\"; there is: labels",
				map->items[i]->text);
		r = read_labels(c, "host/labels", map->items[i + 1]);
	}
	return r;
}

/* ---- named objects ------------------------------------------------------------------------------- */

/* The value of a key in any of its spellings; NULL none. */
const struct ytree_node *ytree_field(const struct ytree_node *map, const char *name)
{
	for (size_t i = 0; i < map->n; i += 2) {
		char key[YTREE_KEY_MAX];

		ytree_canonical(map->items[i]->text, key, sizeof(key));
		if (streq(key, name))
			return map->items[i + 1];
	}
	return NULL;
}

int ytree_check_flag(struct ytree_ctx *c, const struct ytree_node *value, const char *name)
{
	bool b;
	int r = ytree_expect(c, value, YTREE_TEXT, name, "true or false");

	if (r == 0 && text_bool(value->text, &b) < 0)
		return ytree_fail(
			c, value, "%s must be true or false, not \"%.64s\"", name, value->text);
	return r;
}

int ytree_check_name(
	struct ytree_ctx *c, const struct ytree_node *where, const char *name, const char *group)
{
	char path[CONFIG_PATH_MAX];
	struct config_path p;
	int n = snprintf(path, sizeof(path), "%s/%s", group, name);

	/* A '/' would make it a path below another one. */
	if (!*name || n >= (int)sizeof(path) || strchr(name, '/') ||
		config_path_parse(path, &p, c->err) < 0) {
		if (!*name || strchr(name, '/') || n >= (int)sizeof(path))
			return ytree_fail(c, where,
				"\"%.64s\" cannot be a name: 1 to 64 letters, digits and . _ - @ :; "
				"what is matched goes to match",
				name);
		return ytree_at(c, where, -EINVAL);
	}
	if (config_doc_has(c->doc, path))
		return ytree_fail(c, where, "%s is there twice", path);
	return 0;
}

static const struct option_desc *source_option_desc(const char *kind, const char *name)
{
	const struct source_kind *k = source_kind_find(kind);
	const struct option_desc *d = k ? option_find(k->options, name) : NULL;

	return d ? d : option_find(source_common_options, name);
}

static int read_source_option(struct ytree_ctx *c, const char *name, const char *kind,
	const struct ytree_node *key, const struct ytree_node *value)
{
	const struct option_desc *desc = source_option_desc(kind, key->text);
	_cleanup_free_ char *text = NULL;
	char option[YTREE_KEY_MAX];
	int r;

	snprintf(option, sizeof(option), "%.150s", key->text);
	if (!desc) {
		ytree_canonical(key->text, option, sizeof(option));
		desc = source_option_desc(kind, option);
	}
	if (strchr(option, '/'))
		return ytree_fail(c, key, "\"%s\" cannot be an option's name", option);
	r = ytree_joined(c, value, option, &text);
	if (r == 0 && desc && option_check(desc, text, c->err) < 0)
		r = ytree_at(c, value, -EINVAL);
	return r == 0 ? ytree_set(c, value, text, "sources/%s/options/%s", name, option) : r;
}

static int read_source_field(struct ytree_ctx *c, const char *name, const char *kind,
	const struct ytree_node *key, const struct ytree_node *value)
{
	static const char *const texts[] = {"match", "service-name"};
	static const char *const flags[] = {"enabled", "per-process", "per-thread", "per-cpu"};
	static const char *const all[] = {"name", "kind", "match", "enabled", "service-name",
		"types", "labels", "options", "per-process", "per-thread", "per-cpu"};
	char id[YTREE_KEY_MAX], prefix[YTREE_KEY_MAX];
	_cleanup_free_ char *types = NULL;
	const char *near;
	int r = 0;

	ytree_canonical(key->text, id, sizeof(id));
	if (streq(id, "name") || streq(id, "kind"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (streq(id, texts[i])) {
			r = ytree_expect(c, value, YTREE_TEXT, id, "a text");
			return r < 0 ? r
				     : ytree_set(c, value, value->text, "sources/%s/%s", name, id);
		}
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (streq(id, flags[i])) {
			r = ytree_check_flag(c, value, id);
			return r < 0 ? r
				     : ytree_set(c, value, value->text, "sources/%s/%s", name, id);
		}
	if (streq(id, "types")) {
		r = ytree_joined(c, value, id, &types);
		return r < 0 ? r : ytree_set(c, value, types, "sources/%s/types", name);
	}
	if (streq(id, "labels")) {
		snprintf(prefix, sizeof(prefix), "sources/%s/labels", name);
		return read_labels(c, prefix, value);
	}
	if (streq(id, "options") || streq(id, "config")) {
		r = ytree_expect(c, value, YTREE_MAP, id, "a map of options");
		for (size_t i = 0; r == 0 && i < value->n; i += 2)
			r = read_source_option(c, name, kind, value->items[i], value->items[i + 1]);
		return r;
	}
	if (source_option_desc(kind, key->text) || source_option_desc(kind, id))
		return read_source_option(c, name, kind, key, value);
	near = text_nearest(id, all, ARRAY_SIZE(all));
	if (near)
		return ytree_fail(c, key, "a source has no setting \"%.64s\": did you mean \"%s\"?",
			key->text, near);
	return ytree_fail(c, key, "a source has no setting \"%.64s\"", key->text);
}

/* Tries the source that was just read on the checks of the sources room. */
static int try_source(struct ytree_ctx *c, const char *name, const struct ytree_node *where)
{
	struct source_draft draft CLEANUP(source_draft_deinit) = {};
	int r = source_draft_make(&draft, c->doc, name, c->err);

	if (r == 0)
		r = source_set_add(c->sources, &draft.spec, c->err);
	return r < 0 ? ytree_at(c, where, r) : 0;
}

static int read_source(struct ytree_ctx *c, const char *name, const struct ytree_node *where,
	const struct ytree_node *map, size_t index)
{
	const struct ytree_node *node = ytree_field(map, "kind");
	const struct source_kind *k;
	const char *kind;
	char order[24];
	int r = ytree_check_name(c, where, name, "sources");

	if (r < 0)
		return r;
	if (!node)
		return ytree_fail(c, where,
			"source %s has no kind: systemd, process, container, cgroup or host", name);
	r = ytree_expect(c, node, YTREE_TEXT, "kind", "a text");
	if (r < 0)
		return r;
	kind = streq(node->text, "docker") ? "container" : node->text;
	if (!source_kind_find(kind)) {
		/* Before its options are looked for in a kind that is not there. */
		struct source_spec spec = {
			.name = name, .kind = kind, .match = "", .service_name = ""};

		source_set_add(c->sources, &spec, c->err);
		return ytree_at(c, node, -EINVAL);
	}
	r = ytree_set(c, node, kind, "sources/%s/kind", name);
	for (size_t i = 0; r == 0 && i < map->n; i += 2)
		r = read_source_field(c, name, kind, map->items[i], map->items[i + 1]);
	k = source_kind_find(kind);
	/* A name alone says what is meant, as in Odigos' files. */
	if (r == 0 && k && k->match_required && !ytree_field(map, "match"))
		r = ytree_set(c, where, name, "sources/%s/match", name);
	snprintf(order, sizeof(order), "%zu", index);
	if (r == 0)
		r = ytree_set(c, where, order, "sources/%s/order", name);
	return r == 0 ? try_source(c, name, where) : r;
}

/* A list of {name: ..., ...} or a map from names. */
static int read_objects(struct ytree_ctx *c, const char *what, const struct ytree_node *all,
	size_t max,
	int (*read_object)(struct ytree_ctx *c, const char *name, const struct ytree_node *where,
		const struct ytree_node *map, size_t index))
{
	size_t step = all->kind == YTREE_MAP ? 2 : 1;
	int r = 0;

	if (all->null)
		return 0;
	if (all->kind == YTREE_TEXT)
		return ytree_fail(c, all, "%s: expected a list or a map, got a text", what);
	for (size_t i = 0; r == 0 && i < all->n; i += step) {
		const struct ytree_node *map = all->items[i + step - 1], *name = all->items[i];

		r = ytree_expect(c, map, YTREE_MAP, what, "a map of settings for each");
		if (r == 0 && step == 1) {
			name = ytree_field(map, "name");
			if (!name)
				return ytree_fail(c, map, "%s: one of them has no name", what);
			r = ytree_expect(c, name, YTREE_TEXT, "name", "a text");
		}
		if (r == 0 && i / step >= max)
			return ytree_fail(c, map, "more than %zu %s", max, what);
		if (r == 0)
			r = read_object(c, name->text, name, map, c->first_order + i / step);
	}
	return r;
}

static int unknown_root(struct ytree_ctx *c, const struct ytree_node *key)
{
	const char *all[64] = {"sources", "destinations", "host"}, *near;
	char sections[61][32], list[400] = "";
	size_t n_settings, n = 3, at = 0;
	const struct config_setting *s = config_schema(&n_settings);

	for (size_t i = 0; i < n_settings && n < ARRAY_SIZE(all); i++) {
		snprintf(sections[n - 3], sizeof(sections[0]), "%.*s", (int)strcspn(s[i].path, "/"),
			s[i].path);
		if (n == 3 || !streq(all[n - 1], sections[n - 3])) {
			all[n] = sections[n - 3];
			n++;
		}
	}
	near = text_nearest(key->text, all, n);
	if (near)
		return ytree_fail(
			c, key, "unknown setting \"%.64s\": did you mean \"%s\"?", key->text, near);
	for (size_t i = 0; i < n && at < sizeof(list); i++)
		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s",
			!i                   ? ""
				: i == n - 1 ? " and "
					     : ", ",
			all[i]);
	return ytree_fail(c, key, "unknown setting \"%.64s\"; there are %s", key->text, list);
}

static int read_root_key(
	struct ytree_ctx *c, const struct ytree_node *key, const struct ytree_node *value)
{
	if (value->null)
		return 0;
	if (streq(key->text, "host"))
		return read_host(c, value);
	if (streq(key->text, "sources"))
		return read_objects(c, "sources", value, CONFIG_MAX_SOURCES, read_source);
	if (streq(key->text, "destinations"))
		return read_objects(
			c, "destinations", value, CONFIG_MAX_DESTINATIONS, ytree_read_destination);
	if (ytree_is_section(key->text))
		return ytree_read_section(c, key->text, value);
	return unknown_root(c, key);
}

static int read_root(struct ytree_ctx *c, const struct ytree_node *root)
{
	int r = ytree_expect(c, root, YTREE_MAP, "the file", "a map of settings");

	for (size_t i = 0; r == 0 && i < root->n; i += 2) {
		const struct ytree_node *key = root->items[i];

		for (size_t k = 0; k < i; k += 2)
			if (streq(root->items[k]->text, key->text))
				return ytree_fail(c, key, "%s is given twice", key->text);
		r = read_root_key(c, key, root->items[i + 1]);
	}
	return r;
}

/* A file of sources.d or destinations.d: a list, a map by name, one alone ({name: ..., kind: ...}), or any of these
 * below the word that they have in agentd.yaml. */
static int read_root_of(struct ytree_ctx *c, enum config_shape shape, const struct ytree_node *root)
{
	bool sources = shape == CONFIG_SHAPE_SOURCES;
	const char *what = sources ? "sources" : "destinations";
	const struct ytree_node *all = root;
	struct ytree_node one = {.kind = YTREE_LIST, .n = 1, .line = root->line};
	struct ytree_node *item = (struct ytree_node *)root;

	if (root->kind == YTREE_MAP && root->n == 2 && streq(root->items[0]->text, what)) {
		all = root->items[1];
	} else if (root->kind == YTREE_MAP && ytree_field(root, "name") &&
		ytree_field(root, "name")->kind == YTREE_TEXT) {
		one.items = &item;
		one.column = root->column;
		all = &one;
	}
	return sources
		? read_objects(c, what, all, CONFIG_MAX_SOURCES, read_source)
		: read_objects(c, what, all, CONFIG_MAX_DESTINATIONS, ytree_read_destination);
}

int config_doc_from_yaml_as(enum config_shape shape, const char *file_name, const char *text,
	size_t len, uint64_t first_order, struct config_doc **ret, struct err_text *err)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL;
	CLEANUP(source_set_freep) struct source_set *sources = NULL;
	CLEANUP(ytree_freep) struct ytree_node *root = NULL;
	struct err_text own = {};
	struct ytree_ctx c = {
		.file = file_name, .err = err ? err : &own, .first_order = first_order};
	int r;

	if (len > CONFIG_MAX_FILE)
		return err_set(
			err, -E2BIG, "%s is larger than %u KB", file_name, CONFIG_MAX_FILE >> 10);
	r = ytree_read(file_name, text, len, &root, c.err);
	if (r < 0)
		return r;
	if (config_doc_new(&doc) < 0 || source_set_new(&sources) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	c.doc = doc;
	c.sources = sources;
	if (root)
		r = shape == CONFIG_SHAPE_SETTINGS ? read_root(&c, root)
						   : read_root_of(&c, shape, root);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(doc);
	return 0;
}

int config_doc_from_yaml(const char *file_name, const char *text, size_t len,
	struct config_doc **ret, struct err_text *err)
{
	return config_doc_from_yaml_as(CONFIG_SHAPE_SETTINGS, file_name, text, len, 0, ret, err);
}
