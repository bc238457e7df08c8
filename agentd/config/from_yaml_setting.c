/* SPDX-License-Identifier: Apache-2.0 */

/* Plain settings of YAML: a section is a map of them, each checked by the schema. Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/config/from_yaml.h"

static const struct config_setting *setting_find(
	const char *section, const char *key, const char **near)
{
	const char *names[64];
	size_t n_settings, n = 0, len = strlen(section);
	const struct config_setting *s = config_schema(&n_settings);

	for (size_t i = 0; i < n_settings; i++) {
		if (strncmp(s[i].path, section, len) != 0 || s[i].path[len] != '/')
			continue;
		if (streq(s[i].path + len + 1, key))
			return &s[i];
		if (n < ARRAY_SIZE(names))
			names[n++] = s[i].path + len + 1;
	}
	*near = text_nearest(key, names, n);
	return NULL;
}

/* The value of one setting as the document keeps it. */
static int read_setting(struct ytree_ctx *c, const struct config_setting *s, const char *what,
	const struct ytree_node *value)
{
	bool urls = streq(s->path, "symbols/urls"), paths = streq(s->path, "symbols/paths"),
	     rules = text_starts(s->path, "shaping/") && s->option.type == OPTION_STRING;
	_cleanup_free_ char *text = NULL;
	uint32_t types;
	int r;

	if (streq(s->path, "profiling/types")) {
		r = ytree_joined(c, value, "types", &text);
		if (r == 0 && config_parse_types(text, &types, c->err) < 0)
			r = ytree_at(c, value, -EINVAL);
		return r < 0 ? r : ytree_set(c, value, text, "%s", s->path);
	}
	if (urls || paths || rules)
		r = ytree_joined_by(c, value, what, urls ? ' ' : paths ? ':' : ';', &text);
	else
		r = ytree_expect(c, value, YTREE_TEXT, what, "a value");
	if (r == 0 && config_check_setting(s, text ? text : value->text, c->err) < 0) {
		err_prefix(c->err, 0, "%.*s", (int)strcspn(what, "."), what);
		r = ytree_at(c, value, -EINVAL);
	}
	return r < 0 ? r : ytree_set(c, value, text ? text : value->text, "%s", s->path);
}

bool ytree_is_section(const char *word)
{
	size_t n, len = strlen(word);
	const struct config_setting *s = config_schema(&n);

	for (size_t i = 0; i < n; i++)
		if (strncmp(s[i].path, word, len) == 0 && s[i].path[len] == '/')
			return true;
	return false;
}

int ytree_read_section(struct ytree_ctx *c, const char *section, const struct ytree_node *map)
{
	int r = ytree_expect(c, map, YTREE_MAP, section, "a map of settings");

	for (size_t i = 0; r == 0 && i < map->n; i += 2) {
		const struct ytree_node *key = map->items[i], *value = map->items[i + 1];
		char name[YTREE_KEY_MAX], what[2 * YTREE_KEY_MAX];
		const struct config_setting *s;
		const char *near = NULL;

		ytree_canonical(key->text, name, sizeof(name));
		s = setting_find(section, name, &near);
		if (!s && near)
			return ytree_fail(c, key,
				"%s has no setting \"%.64s\": did you mean \"%s\"?", section,
				key->text, near);
		if (!s)
			return ytree_fail(
				c, key, "%s has no setting \"%.64s\"", section, key->text);
		snprintf(what, sizeof(what), "%.150s.%s", section, name);
		r = read_setting(c, s, what, value);
	}
	return r;
}
