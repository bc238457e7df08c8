/* SPDX-License-Identifier: Apache-2.0 */

/* destination add, set, enable, disable, rename, remove: what is changed. Which options there are, and which of them
 * come from files, agentd's catalogue says; how a file goes to agentd is in files.c. */

#include "agentd/base/text.h"
#include "odictl/destination.h"
#include "odictl/files.h"
#include "odictl/kinds.h"
#include "odictl/named.h"

/* ---- add ---- */

static const Control__DestinationType *type_of(const struct cli *cli, const char *name)
{
	const Control__DestinationTypes *all = cli->kinds->reply->destination_types;

	for (size_t i = 0; i < all->n_types; i++)
		if (streq(all->types[i]->name, name))
			return all->types[i];
	return NULL;
}

/* Options that were left at a default that matters to people: where it sends. */
static void print_defaults(struct cli *cli, const struct args *args, bool where)
{
	const Control__DestinationType *t = type_of(cli, args->positional[0]);

	for (size_t i = 0; t && !where && i < t->n_options; i++)
		if (streq(t->options[i]->name, t->endpoint_option) && t->options[i]->fallback[0] &&
			!args_value(args, t->endpoint_option))
			out_line("note:", 6, "--%s was not given: it sends to %s, the default",
				t->endpoint_option, t->options[i]->fallback);
	if (t && *t->cost)
		out_line("note:", 6, "%s", t->cost);
}

/* One option of the line. */
static int add_option(
	struct cli *cli, struct change_list *l, const char *name, const struct given *g)
{
	const struct option_spec *o = g->spec;
	_cleanup_free_ char *key = NULL;
	const char *file = g->value;
	char path[400], option[120];
	int r;

	if (o->from == FROM_WORD)
		return named_option_change(cli, l, "destination", name, g, false);
	if (o->map) {
		r = args_key_value(cli, g->value, &key, &file);
		if (r)
			return r;
	}
	snprintf(option, sizeof(option), "--%s", o->name);
	snprintf(path, sizeof(path), "destinations/%s/options/%s%s%s", name,
		o->secret_of ? o->secret_of : o->stored, key ? "/" : "", key ? key : "");
	return file_change(cli, l, path, option, o, file);
}

/* A URL, HOST:PORT or folder; else it is a name. */
static bool is_where(const char *s)
{
	const char *port = strrchr(s, ':');

	return strstr(s, "://") || s[0] == '/' || s[0] == '[' ||
		(port && port[1] && strspn(port + 1, "0123456789") == strlen(port + 1));
}

struct adding {
	const char *type, *where, *name;
};

static int read_adding(struct cli *cli, struct args *args, struct adding *ret)
{
	size_t i = 1;

	*ret = (struct adding){.type = args->positional[0]};
	if (i < args->n_positional && is_where(args->positional[i]))
		ret->where = args->positional[i++];
	if (i < args->n_positional)
		ret->name = args->positional[i++];
	if (i < args->n_positional || (ret->name && args_value(args, "name")))
		return cli_fail(cli, EXIT_USAGE,
			"destination add takes one WHERE and one NAME: odictl destination add %s WHERE "
			"--name NAME",
			ret->type);
	if (!ret->name)
		ret->name = args_value(args, "name");
	if (!ret->name)
		ret->name = ret->type;
	return named_check(cli, "destination", ret->name);
}

static int add_changes(
	struct cli *cli, struct args *args, const struct adding *a, struct change_list *l)
{
	const Control__DestinationType *t = type_of(cli, a->type);
	Control__Change *first = change_add(l, a->type, "destinations/%s/type", a->name);

	if (first)
		first->must_not_exist = true;
	change_add(l, args_flag(args, "disabled") ? "false" : "true", "destinations/%s/enabled",
		a->name);
	if (a->where && (!t || !*t->endpoint_option))
		return cli_fail(cli, EXIT_USAGE, "%s goes nowhere: it takes no %s", a->type,
			a->where[0] == '/' ? "folder" : "address");
	if (a->where && args_value(args, t->endpoint_option))
		return cli_fail(cli, EXIT_USAGE, "where it goes was given twice: %s and --%s",
			a->where, t->endpoint_option);
	if (a->where)
		change_add(l, a->where, "destinations/%s/options/%s", a->name, t->endpoint_option);
	for (size_t i = 0; i < args->n_given; i++) {
		int r = 0;

		if (!streq(args->given[i].name, "disabled") && !streq(args->given[i].name, "name"))
			r = add_option(cli, l, a->name, &args->given[i]);
		if (r)
			return r;
	}
	return 0;
}

int cmd_destination_add(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	struct adding a;
	const char *type = args->positional[0], *name;
	char reason[300];
	struct json j;
	int r;

	r = read_adding(cli, args, &a);
	if (r)
		return r;
	name = a.name;
	r = add_changes(cli, args, &a, &l);
	snprintf(reason, sizeof(reason), "destination add %s %s", type, name);
	if (!r)
		r = cli_apply(cli, &l, reason, &reply);
	if (r && cli->last_error == -EEXIST)
		cli_hint(cli,
			"choose another name: odictl destination add %s --name NAME; or remove it: odictl "
			"destination remove %s",
			type, name);
	change_free(&l);
	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_str(&j, "name", name);
		json_str(&j, "type", type);
		json_uint(&j, "revision", reply->applied->revision);
		named_json_strings(
			&j, "warnings", reply->applied->warnings, reply->applied->n_warnings);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		out_line("", 0,
			"destination %s (%s) is added; to try it: odictl destination test %s", name,
			type, name);
		print_defaults(cli, args, a.where != NULL);
		named_print_notes(reply->applied);
	}
	api_reply_free(reply);
	return r;
}

/* ---- others ---- */

int cmd_destination_enable(struct cli *cli, struct args *args)
{
	return named_set_enabled(cli, "destination", args->positional[0], true);
}

int cmd_destination_disable(struct cli *cli, struct args *args)
{
	return named_set_enabled(cli, "destination", args->positional[0], false);
}

int cmd_destination_remove(struct cli *cli, struct args *args)
{
	return named_remove(cli, "destination", args->positional[0]);
}

int cmd_destination_rename(struct cli *cli, struct args *args)
{
	const char *from = args->positional[0], *to = args->positional[1];
	struct change_list l = {};
	Control__Reply *reply = NULL;
	Control__Change *c;
	char text[300], reason[300];
	int r = named_check(cli, "destination", from);

	if (!r)
		r = named_check(cli, "destination", to);
	if (r)
		return r;
	c = change_add(&l, NULL, "destinations/%s", to);
	if (!c || asprintf(&c->move, "destinations/%s", from) < 0) {
		change_free(&l);
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	}
	c->what_case = CONTROL__CHANGE__WHAT_MOVE;
	snprintf(reason, sizeof(reason), "destination rename %s %s", from, to);
	r = cli_apply(cli, &l, reason, &reply);
	change_free(&l);
	if (r)
		return r;
	snprintf(text, sizeof(text), "destination %s is %s now", from, to);
	r = named_print_change(cli, reply->applied, to, text);
	api_reply_free(reply);
	return r;
}

/* ---- set ---- */

/* The option that KEY names among those of the type that come from files; *rest: behind its '/'. */
static const struct option_spec *file_spec(
	const struct kind *kind, const char *key, const char **rest)
{
	size_t len = strcspn(key, "/");

	*rest = key[len] ? key + len + 1 : NULL;
	for (const struct option_spec *o = kind ? kind->specs : NULL; o && o->name; o++) {
		const char *name = o->map ? o->stored : o->name;

		if (o->from != FROM_WORD && strlen(name) == len && strncmp(name, key, len) == 0)
			return o;
	}
	return NULL;
}

/* One KEY=VALUE or KEY-. */
static int set_pair(struct cli *cli, struct change_list *l, const struct kind *kind,
	const char *name, const char *pair)
{
	_cleanup_free_ char *key = NULL;
	const struct option_spec *o;
	const char *value, *rest;
	char path[400];
	int r;

	if (!strchr(pair, '=')) {
		char own[120];

		snprintf(own, sizeof(own), "%.*s", (int)MIN(strlen(pair) - 1, (size_t)119), pair);
		o = file_spec(kind, own, &rest);
		/* bearer-token-file- takes away what bearer-token-file= has set. */
		if (!o || !o->secret_of || pair[strlen(pair) - 1] != '-')
			return named_option_pair(cli, l, "destination", name, pair);
		return change_add(l, NULL, "destinations/%s/options/%s", name, o->secret_of)
			? 0
			: cli_fail(cli, EXIT_FAILED, "out of memory");
	}
	r = args_key_value(cli, pair, &key, &value);
	if (r)
		return r;
	o = file_spec(kind, key, &rest);
	if (!o)
		return named_option_pair(cli, l, "destination", name, pair);
	snprintf(path, sizeof(path), "destinations/%s/options/%s%s%s", name,
		o->secret_of ? o->secret_of : o->stored, rest ? "/" : "", rest ? rest : "");
	r = file_change(cli, l, path, key, o, value);
	if (!r)
		l->changes[l->n - 1]->must_exist = true;
	return r;
}

int cmd_destination_set(struct cli *cli, struct args *args)
{
	const char *name = args->positional[0];
	struct change_list l = {};
	Control__Reply *reply = NULL;
	const struct kind *kind = NULL;
	int r = named_check(cli, "destination", name);

	if (!r)
		r = destination_get(cli, name, &reply);
	if (!r)
		r = kinds_load(cli, KINDS_DESTINATION);
	if (!r && reply->destinations->n_destinations)
		kind = kinds_find(cli->kinds, reply->destinations->destinations[0]->type);
	for (size_t i = 1; i < args->n_positional && !r; i++)
		r = set_pair(cli, &l, kind, name, args->positional[i]);
	if (!r)
		r = named_change(cli, "destination", name, &l, "set", "set so");
	change_free(&l);
	api_reply_free(reply);
	return r;
}
