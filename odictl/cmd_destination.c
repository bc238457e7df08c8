/* SPDX-License-Identifier: Apache-2.0 */

/* destination types, add, test, list, show, enable, disable, remove. Types and their options come from agentd's
 * catalogue: `destination add TYPE --help` shows them, and a new type needs nothing here. */

#include "agentd/base/text.h"
#include "odictl/cli.h"
#include "odictl/named.h"

static int get_types(struct cli *cli, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetDestinationTypes get = CONTROL__GET_DESTINATION_TYPES__INIT;

	request.verb_case = CONTROL__REQUEST__VERB_GET_DESTINATION_TYPES;
	request.get_destination_types = &get;
	return cli_call(cli, &request, ret);
}

static int get_destinations(struct cli *cli, const char *name, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetDestinations get = CONTROL__GET_DESTINATIONS__INIT;

	get.name = (char *)(name ? name : "");
	request.verb_case = CONTROL__REQUEST__VERB_GET_DESTINATIONS;
	request.get_destinations = &get;
	return cli_call(cli, &request, ret);
}

/* ---- types ---- */

static void print_options(Control__OptionInfo **list, size_t n)
{
	static const char *const headers[] = {"  OPTION", "VALUE", "DEFAULT", "WHAT"};
	struct table *t = table_new(headers, "llll");

	for (size_t i = 0; t && i < n; i++) {
		char name[100], type[300];
		size_t at;
		const char *cells[] = {name, type,
			list[i]->required ? "(required)" : list[i]->fallback, list[i]->help};

		snprintf(name, sizeof(name), "  --%s", list[i]->name);
		at = (size_t)snprintf(
			type, sizeof(type), "%s", list[i]->n_values ? "" : list[i]->type);
		for (size_t v = 0; v < list[i]->n_values && at < sizeof(type); v++)
			at += (size_t)snprintf(type + at, sizeof(type) - at, "%s%s", v ? "|" : "",
				list[i]->values[v]);
		table_row(t, cells);
	}
	table_print(t, stdout);
}

static void json_options(struct json *j, Control__OptionInfo **list, size_t n)
{
	json_open(j, "options", '[');
	for (size_t i = 0; i < n; i++) {
		json_open(j, NULL, '{');
		json_str(j, "name", list[i]->name);
		json_str(j, "type", list[i]->type);
		json_bool(j, "required", list[i]->required);
		json_bool(j, "secret", list[i]->secret);
		json_str(j, "default", list[i]->fallback);
		json_str(j, "help", list[i]->help);
		named_json_strings(j, "values", list[i]->values, list[i]->n_values);
		json_close(j, '}');
	}
	json_close(j, ']');
}

int cmd_destination_types(struct cli *cli, struct args *args)
{
	static const char *const headers[] = {"TYPE", "WHAT IT IS", "SIGNALS", "TRANSPORT"};
	Control__Reply *reply = NULL;
	struct table *t;
	struct json j;
	int r = get_types(cli, &reply);

	if (r)
		return r;
	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "types", '[');
	t = table_new(headers, "llll");
	for (size_t i = 0; t && i < reply->destination_types->n_types; i++) {
		const Control__DestinationType *d = reply->destination_types->types[i];
		char signals[100] = "", what[400];
		const char *cells[] = {d->name, what, signals, d->transport};

		snprintf(what, sizeof(what), "%s: %s", d->display_name, d->summary);
		for (size_t s = 0; s < d->n_signals; s++) {
			strncat(signals, s ? "," : "", sizeof(signals) - strlen(signals) - 1);
			strncat(signals, d->signals[s], sizeof(signals) - strlen(signals) - 1);
		}
		table_row(t, cells);
		json_open(&j, NULL, '{');
		json_str(&j, "name", d->name);
		json_str(&j, "display_name", d->display_name);
		json_str(&j, "summary", d->summary);
		json_str(&j, "transport", d->transport);
		named_json_strings(&j, "signals", d->signals, d->n_signals);
		json_options(&j, d->options, d->n_options);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	if (cli->json) {
		r = json_print(&j, stdout);
		table_free(t);
	} else {
		buf_deinit(&j.out);
		table_print(t, stdout);
		puts("\nodictl destination add TYPE --help shows a type's options");
	}
	api_reply_free(reply);
	return r;
}

static int type_help(struct cli *cli, const char *type)
{
	Control__Reply *reply = NULL;
	const char *names[64], *near;
	size_t n;
	int r = get_types(cli, &reply);

	if (r)
		return r;
	n = MIN(reply->destination_types->n_types, ARRAY_SIZE(names));
	for (size_t i = 0; i < n; i++) {
		const Control__DestinationType *d = reply->destination_types->types[i];

		names[i] = d->name;
		if (!streq(d->name, type))
			continue;
		printf("usage: odictl destination add %s [NAME] [options]\n\n%s: %s\n\n", type,
			d->display_name, d->summary);
		print_options(d->options, d->n_options);
		printf("  --disabled  add it switched off\n\nexample: odictl destination add %s\n",
			type);
		api_reply_free(reply);
		return EXIT_DONE;
	}
	near = text_nearest(type, names, n);
	r = cli_fail(cli, EXIT_USAGE,
		"there is no destination type '%.80s'%s%s%s; odictl destination "
		"types lists them",
		type, near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
	api_reply_free(reply);
	return r;
}

/* ---- add ---- */

/* Options that were left at a default that matters to people: where it sends. */
static void print_defaults(struct cli *cli, const char *type, const struct args *args)
{
	Control__Reply *reply = NULL;

	if (get_types(cli, &reply))
		return;
	for (size_t i = 0; i < reply->destination_types->n_types; i++) {
		const Control__DestinationType *d = reply->destination_types->types[i];

		if (!streq(d->name, type))
			continue;
		for (size_t o = 0; o < d->n_options; o++)
			if ((streq(d->options[o]->type, "url") ||
				    streq(d->options[o]->type, "host:port")) &&
				d->options[o]->fallback[0] &&
				!args_value(args, d->options[o]->name))
				printf("note: --%s was not given, so %s is taken\n",
					d->options[o]->name, d->options[o]->fallback);
	}
	api_reply_free(reply);
}

static int option_changes(struct args *args, const char *name, struct change_list *l)
{
	for (size_t i = 0; i < args->n_given; i++) {
		const struct given *g = &args->given[i];
		char key[200];
		const char *value;

		if (streq(g->name, "disabled"))
			continue;
		if (streq(g->name, "header")) {
			if (!args_key_value(g->value, key, sizeof(key), &value))
				return EXIT_USAGE;
			change_add(l, value, "destinations/%s/options/headers/%s", name, key);
			continue;
		}
		change_add(l, g->value ? g->value : "true", "destinations/%s/options/%s", name,
			g->name);
	}
	return 0;
}

static void json_destination(struct json *j, const Control__DestinationState *d)
{
	json_open(j, NULL, '{');
	json_str(j, "name", d->name);
	json_str(j, "type", d->type);
	json_bool(j, "enabled", d->enabled);
	json_str(j, "state", d->state);
	json_str(j, "endpoint", d->endpoint);
	named_json_pairs(j, "options", d->options, d->n_options);
	json_str(j, "layer", d->layer);
	json_str(j, "origin", d->origin);
	json_time(j, "last_success", d->last_success_unix_ns);
	json_time(j, "last_failure", d->last_failure_unix_ns);
	json_str(j, "last_error", d->last_error);
	json_uint(j, "sent_batches", d->sent_batches);
	json_uint(j, "sent_bytes", d->sent_bytes);
	json_uint(j, "sent_samples", d->sent_samples);
	json_uint(j, "queued_batches", d->queued_batches);
	json_uint(j, "queued_bytes", d->queued_bytes);
	json_uint(j, "requests", d->requests);
	json_uint(j, "failures", d->failures);
	json_close(j, '}');
}

int cmd_destination_add(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	Control__Change *first;
	const char *type = args->n_positional ? args->positional[0] : "", *name;
	char reason[200];
	struct json j;
	int r;

	if (cli->help && type[0])
		return type_help(cli, type);
	name = args->n_positional > 1 ? args->positional[1] : type;
	if (!text_is_name(name))
		return cli_fail(cli, EXIT_USAGE,
			"'%.80s' is no name for a destination: 1 to 64 letters, digits, and . _ - @ :",
			name);
	first = change_add(&l, type, "destinations/%s/type", name);
	if (first)
		first->must_not_exist = true;
	change_add(&l, args_flag(args, "disabled") ? "false" : "true", "destinations/%s/enabled",
		name);
	r = option_changes(args, name, &l);
	snprintf(reason, sizeof(reason), "destination add %s %s", type, name);
	if (!r)
		r = cli_apply(cli, &l, reason, &reply);
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
		printf("destination %s (%s) is added; odictl destination test %s\n", name, type,
			name);
		print_defaults(cli, type, args);
		for (size_t i = 0; i < reply->applied->n_warnings; i++)
			printf("note: %s\n", reply->applied->warnings[i]);
	}
	api_reply_free(reply);
	return r;
}

/* ---- test ---- */

static int test_one(struct cli *cli, const char *name, struct json *j, bool *ok)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__TestDestination test = CONTROL__TEST_DESTINATION__INIT;
	Control__Reply *reply = NULL;
	const Control__DestinationTested *t;
	char took[64];
	int r;

	test.name = (char *)name;
	request.verb_case = CONTROL__REQUEST__VERB_TEST_DESTINATION;
	request.test_destination = &test;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	t = reply->destination_tested;
	*ok &= t->ok;
	text_format_duration(t->duration_ns, took, sizeof(took));
	if (cli->json) {
		json_open(j, NULL, '{');
		json_str(j, "name", name);
		json_bool(j, "ok", t->ok);
		json_str(j, "endpoint", t->endpoint);
		json_str(j, "reason", t->reason);
		json_str(j, "remedy", t->remedy);
		json_uint(j, "http_status", t->http_status);
		json_uint(j, "duration_ns", t->duration_ns);
		json_close(j, '}');
	} else if (t->ok) {
		printf("%s: ok, %s took an empty profile in %s\n", name, t->endpoint, took);
	} else {
		printf("%s%s: failed%s at %s: %s\n", out_red(cli), name, out_plain(cli),
			t->endpoint, t->reason);
		if (t->remedy[0])
			printf("    %s\n", t->remedy);
	}
	api_reply_free(reply);
	return 0;
}

int cmd_destination_test(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	bool ok = true;
	struct json j;
	int r = 0;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "tests", '[');
	if (args->n_positional) {
		r = test_one(cli, args->positional[0], &j, &ok);
	} else {
		r = get_destinations(cli, NULL, &reply);
		for (size_t i = 0; !r && i < reply->destinations->n_destinations; i++)
			r = test_one(cli, reply->destinations->destinations[i]->name, &j, &ok);
		if (!r && !reply->destinations->n_destinations)
			r = cli_fail(cli, EXIT_FAILED,
				"there is no destination; odictl destination add pyroscope");
		api_reply_free(reply);
	}
	json_close(&j, ']');
	json_close(&j, '}');
	if (!r && cli->json)
		r = json_print(&j, stdout);
	else
		buf_deinit(&j.out);
	return r ? r : ok ? EXIT_DONE : EXIT_FAILED;
}

/* ---- list and show ---- */

int cmd_destination_list(struct cli *cli, struct args *args)
{
	static const char *const headers[] = {
		"NAME", "TYPE", "STATE", "ENDPOINT", "BATCHES", "SENT", "LAST", "FROM"};
	Control__Reply *reply = NULL;
	struct table *t;
	struct json j;
	int r = get_destinations(cli, NULL, &reply);

	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "destinations", '[');
		for (size_t i = 0; i < reply->destinations->n_destinations; i++)
			json_destination(&j, reply->destinations->destinations[i]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else if (!reply->destinations->n_destinations) {
		puts("no destination: profiles stay on this host; odictl destination add pyroscope");
	} else {
		t = table_new(headers, "llllrrll");
		for (size_t i = 0; t && i < reply->destinations->n_destinations; i++) {
			const Control__DestinationState *d = reply->destinations->destinations[i];
			char batches[32], sent[32], ago[64];
			const char *cells[] = {d->name, d->type, d->state, d->endpoint, batches,
				sent, out_ago(d->last_success_unix_ns, ago, sizeof(ago)), d->layer};

			out_number(d->sent_batches, batches, sizeof(batches));
			text_format_size(d->sent_bytes, sent, sizeof(sent));
			table_row(t, cells);
		}
		table_print(t, stdout);
	}
	api_reply_free(reply);
	return r;
}

int cmd_destination_show(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	const Control__DestinationState *d;
	char ago[64], sent[32], queued[32], n[32];
	struct json j;
	int r = get_destinations(cli, args->positional[0], &reply);

	if (r)
		return r;
	d = reply->destinations->destinations[0];
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "destinations", '[');
		json_destination(&j, d);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
		api_reply_free(reply);
		return r;
	}
	text_format_size(d->sent_bytes, sent, sizeof(sent));
	text_format_size(d->queued_bytes, queued, sizeof(queued));
	printf("name      %s\ntype      %s\nstate     %s\nendpoint  %s\nfrom      %s (%s)\n",
		d->name, d->type, d->state, d->endpoint, d->layer, d->origin);
	printf("sent      %llu batches, %s, %s samples\n", (unsigned long long)d->sent_batches,
		sent, out_number(d->sent_samples, n, sizeof(n)));
	printf("waiting   %u batches, %s\n", d->queued_batches, queued);
	printf("requests  %llu, %llu failed\n", (unsigned long long)d->requests,
		(unsigned long long)d->failures);
	printf("success   %s\n", out_ago(d->last_success_unix_ns, ago, sizeof(ago)));
	printf("failure   %s%s%s\n", out_ago(d->last_failure_unix_ns, ago, sizeof(ago)),
		d->last_error[0] ? ": " : "", d->last_error);
	named_print_pairs("options", d->options, d->n_options);
	api_reply_free(reply);
	return EXIT_DONE;
}

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
