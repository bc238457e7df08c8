/* SPDX-License-Identifier: Apache-2.0 */

/* destination types, add, test, list, show, enable, disable, remove. Types and their options come from agentd's
 * catalogue: `destination add TYPE --help` shows them, and a new type needs nothing here. */

#include "agentd/base/text.h"
#include "odictl/kinds.h"
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
	static const char *const headers[] = {"TYPE", "SIGNALS", "TRANSPORT", "WHAT IT IS"};
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
		const char *cells[] = {d->name, signals, d->transport, what};

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

/* ---- add ---- */

/* Options that were left at a default that matters to people: where it sends. */
static void print_defaults(struct cli *cli, const struct args *args)
{
	const struct kind *kind = kinds_find(cli->kinds, args->positional[0]);

	for (size_t i = 0; kind && i < kind->n_options; i++) {
		const Control__OptionInfo *o = kind->options[i];

		if ((streq(o->type, "url") || streq(o->type, "host:port")) && o->fallback[0] &&
			!args_value(args, o->name))
			out_line("note:", 6, "--%s was not given: it sends to %s, the default",
				o->name, o->fallback);
	}
}

static int add_changes(struct cli *cli, struct args *args, const char *name, struct change_list *l)
{
	Control__Change *first = change_add(l, args->positional[0], "destinations/%s/type", name);

	if (first)
		first->must_not_exist = true;
	change_add(
		l, args_flag(args, "disabled") ? "false" : "true", "destinations/%s/enabled", name);
	for (size_t i = 0; i < args->n_given; i++) {
		int r = 0;

		if (!streq(args->given[i].name, "disabled"))
			r = named_option_change(
				cli, l, "destination", name, &args->given[i], false);
		if (r)
			return r;
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
	const char *type = args->positional[0], *name;
	char reason[300];
	struct json j;
	int r;

	name = args->n_positional > 1 ? args->positional[1] : type;
	r = named_check(cli, "destination", name);
	if (!r)
		r = add_changes(cli, args, name, &l);
	snprintf(reason, sizeof(reason), "destination add %s %s", type, name);
	if (!r)
		r = cli_apply(cli, &l, reason, &reply);
	if (r && cli->last_error == -EEXIST)
		cli_hint(cli,
			"choose another name: odictl destination add %s NAME; or remove it: odictl "
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
		print_defaults(cli, args);
		named_print_notes(reply->applied);
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
		out_line("", 0, "%s: ok, %s took an empty profile in %s", name, t->endpoint, took);
	} else {
		out_line("", 0, "%s%s: failed%s at %s: %s", out_red(cli), name, out_plain(cli),
			t->endpoint, t->reason);
		if (t->remedy[0])
			out_line("  ->", 5, "%s", t->remedy);
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
		r = named_check(cli, "destination", args->positional[0]);
		if (!r)
			r = test_one(cli, args->positional[0], &j, &ok);
	} else {
		r = get_destinations(cli, NULL, &reply);
		for (size_t i = 0; !r && i < reply->destinations->n_destinations; i++)
			r = test_one(cli, reply->destinations->destinations[i]->name, &j, &ok);
		if (!r && !reply->destinations->n_destinations)
			r = cli_fail(cli, EXIT_FAILED,
				"there is no destination to test; to add one: odictl destination add pyroscope");
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
		"NAME", "TYPE", "STATE", "SENT", "LAST SUCCESS", "ENDPOINT"};
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
		t = table_new(headers, "lllrll");
		for (size_t i = 0; t && i < reply->destinations->n_destinations; i++) {
			const Control__DestinationState *d = reply->destinations->destinations[i];
			char sent[32], ago[64];
			const char *cells[] = {d->name, d->type, d->state, sent,
				out_ago(d->last_success_unix_ns, ago, sizeof(ago)), d->endpoint};

			text_format_size(d->sent_bytes, sent, sizeof(sent));
			table_row(t, cells);
		}
		table_print(t, stdout);
	}
	api_reply_free(reply);
	return r;
}

static void print_destination(struct cli *cli, const Control__DestinationState *d)
{
	char ago[64], size[32], n[32];

	out_line("name", 10, "%s", d->name);
	out_line("type", 10, "%s", d->type);
	out_line("state", 10, "%s%s%s", streq(d->state, "failing") ? out_red(cli) : "", d->state,
		streq(d->state, "failing") ? out_plain(cli) : "");
	out_line("endpoint", 10, "%s", d->endpoint);
	out_line("from", 10, "%s (%s)", d->layer, d->origin);
	text_format_size(d->sent_bytes, size, sizeof(size));
	out_line("sent", 10, "%llu batches, %s, %s samples", (unsigned long long)d->sent_batches,
		size, out_number(d->sent_samples, n, sizeof(n)));
	text_format_size(d->queued_bytes, size, sizeof(size));
	out_line("waiting", 10, "%u batches, %s", d->queued_batches, size);
	out_line("requests", 10, "%llu, %llu failed", (unsigned long long)d->requests,
		(unsigned long long)d->failures);
	out_line("success", 10, "%s", out_ago(d->last_success_unix_ns, ago, sizeof(ago)));
	out_line("failure", 10, "%s%s%s", out_ago(d->last_failure_unix_ns, ago, sizeof(ago)),
		d->last_error[0] ? ": " : "", d->last_error);
	named_print_pairs("options", d->options, d->n_options);
}

int cmd_destination_show(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	struct json j;
	int r = named_check(cli, "destination", args->positional[0]);

	if (!r)
		r = get_destinations(cli, args->positional[0], &reply);
	if (r)
		return r;
	if (!reply->destinations->n_destinations) {
		r = cli_fail(cli, EXIT_FAILED,
			"there is no destination '%s'; odictl destination list shows all",
			args->positional[0]);
	} else if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "destinations", '[');
		json_destination(&j, reply->destinations->destinations[0]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		print_destination(cli, reply->destinations->destinations[0]);
	}
	api_reply_free(reply);
	return r;
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

int cmd_destination_set(struct cli *cli, struct args *args)
{
	return named_set_options(cli, "destination", args->positional[0], args->positional + 1,
		args->n_positional - 1);
}
