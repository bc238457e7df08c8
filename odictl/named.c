/* SPDX-License-Identifier: Apache-2.0 */

#include "odictl/named.h"

static int change_named(struct cli *cli, const char *what, const char *name, struct change_list *l,
	const char *verb, const char *done)
{
	Control__Reply *reply = NULL;
	char reason[200];
	struct json j;
	int r;

	snprintf(reason, sizeof(reason), "%s %s %s", what, verb, name);
	r = cli_apply(cli, l, reason, &reply);
	change_free(l);
	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_str(&j, "name", name);
		json_bool(&j, "changed", reply->applied->changed);
		json_uint(&j, "revision", reply->applied->revision);
		named_json_strings(
			&j, "warnings", reply->applied->warnings, reply->applied->n_warnings);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		printf("%s %s %s%s\n", what, name, reply->applied->changed ? "is " : "was already ",
			done);
	}
	api_reply_free(reply);
	return r;
}

int named_set_enabled(struct cli *cli, const char *what, const char *name, bool enabled)
{
	struct change_list l = {};
	Control__Change *c =
		change_add(&l, enabled ? "true" : "false", "%ss/%s/enabled", what, name);

	if (!c)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	/* The object must be there, not just this setting of it. */
	c->must_exist = true;
	return change_named(cli, what, name, &l, enabled ? "enable" : "disable",
		enabled ? "enabled" : "disabled");
}

int named_remove(struct cli *cli, const char *what, const char *name)
{
	struct change_list l = {};
	char question[200];

	snprintf(question, sizeof(question), "Remove %s %s?", what, name);
	if (!cli_confirm(cli, question))
		return EXIT_USAGE;
	change_add(&l, NULL, "%ss/%s", what, name);
	return change_named(cli, what, name, &l, "remove", "removed");
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
		printf("%-9s %s=%s\n", i ? "" : title, list[i]->key, list[i]->value);
}
