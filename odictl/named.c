/* SPDX-License-Identifier: Apache-2.0 */

/* What the commands for sources and for destinations share: switching one that is there, removing it, and pairs. */

#include "agentd/base/text.h"
#include "odictl/named.h"

int named_check(struct cli *cli, const char *what, const char *name)
{
	char quoted[100];

	if (text_is_name(name))
		return 0;
	return cli_fail(cli, EXIT_USAGE,
		"'%s' is no name for a %s: 1 to 64 letters, digits, and . _ - @ :, not first a . or -",
		out_quote(name, quoted, sizeof(quoted)), what);
}

int named_print_change(
	struct cli *cli, const Control__Applied *a, const char *name, const char *text)
{
	struct json j;

	if (!cli->json) {
		out_line("", 0, "%s", text);
		named_print_notes(a);
		return EXIT_DONE;
	}
	json_init(&j);
	json_open(&j, NULL, '{');
	if (name)
		json_str(&j, "name", name);
	json_bool(&j, "changed", a->changed);
	json_uint(&j, "revision", a->revision);
	named_json_strings(&j, "warnings", a->warnings, a->n_warnings);
	json_close(&j, '}');
	return json_print(&j, stdout);
}

void named_print_notes(const Control__Applied *a)
{
	for (size_t i = 0; i < a->n_warnings; i++)
		if (*a->warnings[i])
			out_line("note:", 6, "%s", a->warnings[i]);
}

int named_change(struct cli *cli, const char *what, const char *name, struct change_list *l,
	const char *verb, const char *done)
{
	Control__Reply *reply = NULL;
	char text[300];
	int r;

	snprintf(text, sizeof(text), "%s %s %s", what, verb, name);
	r = cli_apply(cli, l, text, &reply);
	if (r)
		return r;
	snprintf(text, sizeof(text), "%s %s %s %s", what, name,
		reply->applied->changed ? "is" : "was already", done);
	r = named_print_change(cli, reply->applied, name, text);
	api_reply_free(reply);
	return r;
}

int named_set_enabled(struct cli *cli, const char *what, const char *name, bool enabled)
{
	struct change_list l = {};
	Control__Change *c;
	int r = named_check(cli, what, name);

	if (r)
		return r;
	c = change_add(&l, enabled ? "true" : "false", "%ss/%s/enabled", what, name);
	if (!c)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	/* The object must be there, not just this setting of it. */
	c->must_exist = true;
	r = named_change(cli, what, name, &l, enabled ? "enable" : "disable",
		enabled ? "enabled" : "disabled");
	change_free(&l);
	return r;
}

int named_option_pair(struct cli *cli, struct change_list *l, const char *what, const char *name,
	const char *pair)
{
	_cleanup_free_ char *key = NULL;
	size_t len = strlen(pair);
	Control__Change *c;
	const char *value;
	int r;

	if (!strchr(pair, '=') && len > 1 && pair[len - 1] == '-') {
		c = change_add(l, NULL, "%ss/%s/options/%.*s", what, name, (int)len - 1, pair);
	} else {
		r = args_key_value(cli, pair, &key, &value);
		if (r)
			return r;
		c = change_add(l, value, "%ss/%s/options/%s", what, name, key);
		/* Of an object that is there; else this would make half a one. */
		if (c)
			c->must_exist = true;
	}
	return c ? 0 : cli_fail(cli, EXIT_FAILED, "too many changes at once");
}

int named_remove(struct cli *cli, const char *what, const char *name)
{
	struct change_list l = {};
	char question[300];
	int r = named_check(cli, what, name);

	if (r)
		return r;
	change_add(&l, NULL, "%ss/%s", what, name);
	/* Nobody is asked about what cannot be done. */
	if (!cli->yes && cli_on_terminal())
		r = cli_apply_dry(cli, &l);
	snprintf(question, sizeof(question), "Remove %s %s?", what, name);
	if (!r)
		r = cli_confirm(cli, question);
	if (!r)
		r = named_change(cli, what, name, &l, "remove", "removed");
	change_free(&l);
	return r;
}

void named_json_pairs(struct json *j, const char *key, Control__KeyValue **list, size_t n)
{
	json_open(j, key, '{');
	for (size_t i = 0; i < n; i++)
		json_str(j, list[i]->key, list[i]->value);
	json_close(j, '}');
}

void named_json_strings(struct json *j, const char *key, char **list, size_t n)
{
	json_open(j, key, '[');
	for (size_t i = 0; i < n; i++)
		json_str(j, NULL, list[i]);
	json_close(j, ']');
}

void named_print_pairs(const char *title, Control__KeyValue **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out_line(i ? "" : title, 10, "%s=%s", list[i]->key, list[i]->value);
}

int named_option_change(struct cli *cli, struct change_list *l, const char *what, const char *name,
	const struct given *g, bool field)
{
	_cleanup_free_ char *key = NULL;
	const char *value = g->value ? g->value : "true",
		   *stored = g->spec->stored ? g->spec->stored : g->name;
	bool pair = g->spec->map || g->spec->kind == REPEAT;

	if (pair) {
		int r = args_key_value(cli, g->value, &key, &value);

		if (r)
			return r;
	}
	if (!change_add(l, value, "%ss/%s/%s%s%s%s", what, name, field ? "" : "options/", stored,
		    pair ? "/" : "", pair ? key : ""))
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	return 0;
}
