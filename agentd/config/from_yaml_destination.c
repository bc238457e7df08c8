/* SPDX-License-Identifier: Apache-2.0 */

/* A destination as an administrator writes it, in our keys or in Odigos'.
 *
 * Odigos names options in capitals with the type before them (PYROSCOPE_URL) and keeps apart what
 * belongs together (an address without a scheme, and whether it speaks TLS). Both become our options
 * here, so that nothing behind knows of two spellings. Source: reference documentation of the Odigos
 * VM agent's destinations.d. Runs in agentd. */

#include <ctype.h>
#include <strings.h>

#include "agentd/base/text.h"
#include "agentd/config/from_yaml.h"
#include "destinations/destination.h"
#include "destinations/shape_rules.h"

static const struct option_desc *destination_option_desc(
	const struct destination_type *type, const char *name)
{
	return type ? option_find(type->options, name) : NULL;
}

static bool is_map(const struct option_desc *d)
{
	return d->type == OPTION_MAP || d->type == OPTION_SECRET_MAP;
}

/* "PYROSCOPE_TLS_ENABLED" of type pyroscope is "tls-enabled"; others as they are, or canonical. */
static void destination_option_name(
	const struct destination_type *type, const char *said, char *out, size_t size)
{
	size_t len = type ? strlen(type->name) : 0;

	snprintf(out, size, "%.150s", said);
	if (!type || option_find(type->options, said))
		return;
	if (strncasecmp(said, type->name, len) == 0 && said[len] == '_')
		said += len + 1;
	if (!strpbrk(said, "abcdefghijklmnopqrstuvwxyz")) {
		size_t i;

		for (i = 0; said[i] && i + 1 < size; i++)
			out[i] = said[i] == '_' ? '-' : (char)tolower(said[i]);
		out[i] = '\0';
		return;
	}
	ytree_canonical(said, out, size);
}

static int read_destination_option(struct ytree_ctx *c, const char *name,
	const struct destination_type *type, const struct ytree_node *key,
	const struct ytree_node *value, const char *scheme)
{
	const struct option_desc *desc;
	_cleanup_free_ char *with_scheme = NULL, *joined = NULL;
	const char *text;
	char id[YTREE_KEY_MAX];
	int r = 0;

	destination_option_name(type, key->text, id, sizeof(id));
	if (strchr(id, '/'))
		return ytree_fail(c, key, "\"%s\" cannot be an option's name", id);
	desc = destination_option_desc(type, id);
	if (!desc && streq(id, "tls-enabled"))
		return ytree_check_flag(
			c, value, key->text); /* is part of the URL: see odigos_scheme() */
	if (value->kind == YTREE_MAP && (!desc || is_map(desc))) {
		for (size_t i = 0; r == 0 && i < value->n; i += 2) {
			const struct ytree_node *k = value->items[i], *v = value->items[i + 1];

			r = ytree_expect(c, v, YTREE_TEXT, k->text, "a value");
			if (r == 0)
				r = ytree_set(c, v, v->text, "destinations/%s/options/%s/%s", name,
					id, k->text);
		}
		return r;
	}
	/* A list of rules is one text with semicolons. */
	if (value->kind == YTREE_LIST && desc && option_find(destination_common_options, id)) {
		r = ytree_joined_by(c, value, id, ';', &joined);
		if (r == 0 && shape_rules_check(id, joined, c->err) < 0)
			r = ytree_at(c, value, -EINVAL);
		return r < 0 ? r
			     : ytree_set(c, value, joined, "destinations/%s/options/%s", name, id);
	}
	r = ytree_expect(c, value, YTREE_TEXT, id, desc && is_map(desc) ? "a map" : "a value");
	if (r == 0 && desc && is_map(desc))
		return ytree_fail(c, value, "%s: expected a map, got a text", id);
	if (r < 0)
		return r;
	text = value->text;
	if (scheme && desc && (desc->type == OPTION_URL || desc->type == OPTION_ENDPOINT) &&
		!strstr(text, "://")) {
		if (asprintf(&with_scheme, "%s://%s", scheme, text) < 0) {
			with_scheme = NULL;
			return err_set(c->err, -ENOMEM, "out of memory");
		}
		text = with_scheme;
	}
	if (desc && option_check(desc, text, c->err) < 0)
		return ytree_at(c, value, -EINVAL);
	return ytree_set(c, value, text, "destinations/%s/options/%s", name, id);
}

/* Odigos says "localhost:4040" and, apart from it, whether that speaks TLS. Only where its spelling is used: a URL
 * without a scheme is otherwise a mistake. */
static const char *odigos_scheme(
	const struct destination_type *type, const struct ytree_node *options)
{
	const char *scheme = NULL;
	bool tls = false;

	for (size_t i = 0; type && i < options->n; i += 2) {
		const char *key = options->items[i]->text;
		size_t len = strlen(type->name);

		if (strncasecmp(key, type->name, len) != 0 || key[len] != '_')
			continue;
		scheme = "http";
		if (streq(key + len, "_TLS_ENABLED") && options->items[i + 1]->kind == YTREE_TEXT)
			text_bool(options->items[i + 1]->text, &tls);
	}
	return tls ? "https" : scheme;
}

static int check_signals(struct ytree_ctx *c, const struct ytree_node *value)
{
	_cleanup_free_ char *list = NULL;
	int r = ytree_joined(c, value, "signals", &list);

	if (r == 0 && !strcasestr(list, "PROFILES"))
		return ytree_fail(
			c, value, "signals does not have PROFILES, and odi sends nothing else");
	return r;
}

static int read_destination_field(struct ytree_ctx *c, const char *name,
	const struct destination_type *type, const struct ytree_node *key,
	const struct ytree_node *value)
{
	static const char *const all[] = {"name", "type", "enabled", "options", "signals"};
	char id[YTREE_KEY_MAX], option[YTREE_KEY_MAX];
	const char *near;
	int r;

	ytree_canonical(key->text, id, sizeof(id));
	if (streq(id, "name") || streq(id, "type"))
		return 0;
	if (streq(id, "signals"))
		return check_signals(c, value);
	if (streq(id, "enabled")) {
		r = ytree_check_flag(c, value, id);
		return r < 0 ? r
			     : ytree_set(c, value, value->text, "destinations/%s/enabled", name);
	}
	if (streq(id, "options") || streq(id, "config")) {
		r = ytree_expect(c, value, YTREE_MAP, id, "a map of options");
		for (size_t i = 0; r == 0 && i < value->n; i += 2)
			r = read_destination_option(c, name, type, value->items[i],
				value->items[i + 1], odigos_scheme(type, value));
		return r;
	}
	destination_option_name(type, key->text, option, sizeof(option));
	if (destination_option_desc(type, option))
		return read_destination_option(c, name, type, key, value, NULL);
	near = text_nearest(id, all, ARRAY_SIZE(all));
	if (near)
		return ytree_fail(c, key,
			"a destination has no setting \"%.64s\": did you mean \"%s\"?", key->text,
			near);
	return ytree_fail(c, key, "a destination has no setting \"%.64s\"", key->text);
}

int ytree_read_destination(struct ytree_ctx *c, const char *name, const struct ytree_node *where,
	const struct ytree_node *map, size_t index)
{
	struct destination_draft draft CLEANUP(destination_draft_deinit) = {};
	const struct ytree_node *node = ytree_field(map, "type");
	const struct destination_type *type;
	char order[24];
	int r = ytree_check_name(c, where, name, "destinations");

	if (r < 0)
		return r;
	if (!node)
		return ytree_fail(c, where,
			"destination %s has no type: 'odictl destination types' lists them", name);
	r = ytree_expect(c, node, YTREE_TEXT, "type", "a text");
	if (r < 0)
		return r;
	type = destination_type_find(node->text);
	if (!type && destination_check(node->text, NULL, 0, c->err) < 0) {
		err_prefix(c->err, 0, "destination %s", name);
		return ytree_at(c, node, -EINVAL);
	}
	r = ytree_set(c, node, node->text, "destinations/%s/type", name);
	for (size_t i = 0; r == 0 && i < map->n; i += 2)
		r = read_destination_field(c, name, type, map->items[i], map->items[i + 1]);
	snprintf(order, sizeof(order), "%zu", index);
	if (r == 0)
		r = ytree_set(c, where, order, "destinations/%s/order", name);
	if (r < 0)
		return r;
	r = destination_draft_make(&draft, c->doc, name, c->err);
	if (r == 0)
		r = destination_check(draft.type, draft.options, draft.n_options, c->err);
	if (r < 0) {
		err_prefix(c->err, r, "destination %s", name);
		return ytree_at(c, where, r);
	}
	return 0;
}
