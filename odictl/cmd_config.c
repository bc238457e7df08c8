/* SPDX-License-Identifier: Apache-2.0 */

/* config show, get, set, unset, keys: single values, and where each comes from. The other verbs, which are about whole
 * documents, are in cmd_config_file.c. */

#include "agentd/base/text.h"
#include "odictl/config.h"
#include "odictl/named.h"

/* "profiling.rate" is meant as profiling/rate; where there is a slash a dot is a part of a name. */
void config_key(const char *typed, char *out, size_t size)
{
	snprintf(out, size, "%s", typed);
	if (!strchr(out, '/'))
		for (char *p = out; *p; p++)
			*p = *p == '.' ? '/' : *p;
}

bool config_is_age(const char *path)
{
	const char *name = text_starts(path, "sources/") ? path + strlen("sources/")
		: text_starts(path, "destinations/")     ? path + strlen("destinations/")
							 : NULL;

	/* A label may be called so, too. */
	return name && streq(name + strcspn(name, "/"), "/order");
}

int config_get(struct cli *cli, const char *prefix, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetConfig get = CONTROL__GET_CONFIG__INIT;

	get.prefix = (char *)prefix;
	request.verb_case = CONTROL__REQUEST__VERB_GET_CONFIG;
	request.get_config = &get;
	return cli_call(cli, &request, ret);
}

static int get_keys(struct cli *cli, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetKeys get = CONTROL__GET_KEYS__INIT;

	request.verb_case = CONTROL__REQUEST__VERB_GET_KEYS;
	request.get_keys = &get;
	return cli_call(cli, &request, ret);
}

/* Nothing is set there: a wrong key, or one that has no value now. */
static int no_value(struct cli *cli, const char *key)
{
	Control__Reply *reply = NULL;
	const char **names, *near = NULL;
	char quoted[160];
	int r = get_keys(cli, &reply);

	if (r)
		return r;
	names = calloc(reply->keys->n_keys + 1, sizeof(*names));
	for (size_t i = 0; names && i < reply->keys->n_keys; i++)
		names[i] = reply->keys->keys[i]->path;
	if (names)
		near = text_nearest(key, names, reply->keys->n_keys);
	out_quote(key, quoted, sizeof(quoted));
	if (near && !streq(near, key))
		r = cli_fail(cli, EXIT_FAILED, "%s has no value: did you mean %s?", quoted, near);
	else
		r = cli_fail(cli, EXIT_FAILED,
			"%s has no value; odictl config keys lists what may be set", quoted);
	free(names);
	api_reply_free(reply);
	return r;
}

static void json_value(struct json *j, const Control__ConfigValue *v)
{
	json_str(j, "path", v->path);
	json_str(j, "value", v->value);
	json_str(j, "layer", v->layer);
	json_str(j, "origin", v->origin);
	json_bool(j, "default", v->is_default);
}

static int show_json(const Control__Config *c)
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_uint(&j, "revision", c->revision);
	json_open(&j, "values", '[');
	for (size_t i = 0; i < c->n_values; i++) {
		json_open(&j, NULL, '{');
		json_value(&j, c->values[i]);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

int cmd_config_show(struct cli *cli, struct args *args)
{
	static const char *const heads[] = {"KEY", "VALUE", "FROM"};
	bool origin = args_flag(args, "origin"), changed = args_flag(args, "changed");
	Control__Reply *reply = NULL;
	char key[CONFIG_KEY_MAX] = "";
	struct table *t;
	int r;

	if (args->n_positional)
		config_key(args->positional[0], key, sizeof(key));
	r = config_get(cli, key, &reply);
	if (r)
		return r;
	if (key[0] && !reply->config->n_values) {
		api_reply_free(reply);
		return no_value(cli, key);
	}
	if (cli->json) {
		r = show_json(reply->config);
		api_reply_free(reply);
		return r;
	}
	t = origin ? table_new(heads, "lll")
		   : table_new((const char *[]){heads[0], heads[1], NULL}, "ll");
	for (size_t i = 0; i < reply->config->n_values; i++) {
		const Control__ConfigValue *v = reply->config->values[i];

		if (!config_is_age(v->path) && (!changed || !v->is_default))
			table_row(t, (const char *[]){v->path, v->value, v->origin});
	}
	table_print(t, stdout);
	api_reply_free(reply);
	return 0;
}

int cmd_config_get(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	char key[CONFIG_KEY_MAX];
	const Control__ConfigValue *v;
	int r;

	config_key(args->positional[0], key, sizeof(key));
	r = config_get(cli, key, &reply);
	if (r)
		return r;
	v = reply->config->n_values ? reply->config->values[0] : NULL;
	if (!v || !streq(v->path, key)) {
		r = v ? cli_fail(cli, EXIT_FAILED, "%s holds settings: odictl config show %s", key,
				key)
		      : no_value(cli, key);
	} else if (cli->json) {
		struct json j;

		json_init(&j);
		json_open(&j, NULL, '{');
		json_value(&j, v);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		puts(v->value);
	}
	api_reply_free(reply);
	return r;
}

/* One change; what it was for, in the history. value NULL: unset. */
static int change_one(struct cli *cli, const char *typed, const char *value)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	char key[CONFIG_KEY_MAX], reason[CONFIG_KEY_MAX + 32], text[CONFIG_KEY_MAX + 64];
	int r;

	config_key(typed, key, sizeof(key));
	snprintf(reason, sizeof(reason), "config %s %s", value ? "set" : "unset", key);
	change_add(&l, value, "%s", key);
	r = cli_apply(cli, &l, reason, &reply);
	change_free(&l);
	if (r)
		return r;
	snprintf(text, sizeof(text), "%s %s", key,
		!reply->applied->changed ? "was so already; nothing changed"
			: value          ? "is set"
					 : "is no longer set by odictl");
	r = named_print_change(cli, reply->applied, key, text);
	api_reply_free(reply);
	return r;
}

int cmd_config_set(struct cli *cli, struct args *args)
{
	return change_one(cli, args->positional[0], args->positional[1]);
}

int cmd_config_unset(struct cli *cli, struct args *args)
{
	return change_one(cli, args->positional[0], NULL);
}

/* ---- what may be set ---- */

static bool key_wanted(const Control__Key *k, const char *word)
{
	return !word || strstr(k->path, word) || streq(k->of, word);
}

static int keys_json(const Control__Keys *keys, const char *word)
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "keys", '[');
	for (size_t i = 0; i < keys->n_keys; i++) {
		const Control__Key *k = keys->keys[i];

		if (!key_wanted(k, word))
			continue;
		json_open(&j, NULL, '{');
		json_str(&j, "path", k->path);
		json_str(&j, "of", k->of);
		json_str(&j, "type", k->type);
		json_str(&j, "default", k->fallback);
		json_str(&j, "allowed", k->allowed);
		json_bool(&j, "required", k->required);
		json_str(&j, "help", k->help);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

static void print_key(struct cli *cli, const Control__Key *k)
{
	const char *of = k->of;

	printf("%s%s%s%s%s%s\n", out_bold(cli), k->path, out_plain(cli), of[0] ? " (" : "", of,
		of[0] ? ")" : "");
	out_line("", 4, "%s%s%s%s%s%s", k->type, k->allowed[0] ? ", " : "", k->allowed,
		k->fallback[0] ? "; default " : "", k->fallback, k->required ? "; required" : "");
	out_line("", 4, "%s", k->help);
}

int cmd_config_keys(struct cli *cli, struct args *args)
{
	const char *word = args->n_positional ? args->positional[0] : NULL;
	Control__Reply *reply = NULL;
	int r = get_keys(cli, &reply);

	if (r)
		return r;
	if (cli->json)
		r = keys_json(reply->keys, word);
	for (size_t i = 0; !cli->json && i < reply->keys->n_keys; i++)
		if (key_wanted(reply->keys->keys[i], word))
			print_key(cli, reply->keys->keys[i]);
	api_reply_free(reply);
	return r;
}
