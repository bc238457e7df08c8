/* SPDX-License-Identifier: Apache-2.0 */

/* destination types, test, list, show: what there is. Types and their options come from agentd's
 * catalogue: `destination add TYPE --help` shows them, and a new type needs nothing here. */

#include "agentd/base/text.h"
#include "odictl/destination.h"
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

int destination_get(struct cli *cli, const char *name, Control__Reply **ret)
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
		json_bool(j, "common", list[i]->common);
		json_str(j, "default", list[i]->fallback);
		json_str(j, "help", list[i]->help);
		named_json_strings(j, "values", list[i]->values, list[i]->n_values);
		json_close(j, '}');
	}
	json_close(j, ']');
}

int cmd_destination_types(struct cli *cli, struct args *args)
{
	static const char *const headers[] = {"TYPE", "WHAT IT IS", "SIGNALS", "TRANSPORT", "AUTH"};
	Control__Reply *reply = NULL;
	struct table *t;
	struct json j;
	int r = get_types(cli, &reply);

	if (r)
		return r;
	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "types", '[');
	t = table_new(headers, "lllll");
	for (size_t i = 0; t && i < reply->destination_types->n_types; i++) {
		const Control__DestinationType *d = reply->destination_types->types[i];
		char signals[100] = "", what[400];
		const char *cells[] = {d->name, what, signals, d->transport, d->auth};

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
		json_str(&j, "auth", d->auth);
		json_str(&j, "example", d->example);
		json_str(&j, "cost", d->cost);
		json_bool(&j, "own", d->own);
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

void destination_ledger_json(struct json *j, const char *key, const Control__DestinationLedger *l)
{
	json_open(j, key, '{');
	json_uint(j, "routed", l->routed);
	json_uint(j, "delivered", l->delivered);
	json_uint(j, "held", l->held);
	json_uint(j, "evicted", l->evicted);
	json_uint(j, "rejected", l->rejected);
	json_uint(j, "shaped", l->shaped);
	json_close(j, '}');
}

void destination_json(struct json *j, const Control__DestinationState *d)
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
	json_open(j, "sent_lately", '{');
	json_uint(j, "batches", d->recent_batches);
	json_uint(j, "bytes", d->recent_bytes);
	json_uint(j, "duration_ns", d->recent_ns);
	json_close(j, '}');
	json_uint(j, "queued_batches", d->queued_batches);
	json_uint(j, "queued_bytes", d->queued_bytes);
	json_time(j, "queued_since", d->queued_since_unix_ns);
	json_bool(j, "unverified", d->unverified);
	json_str(j, "forbidden", d->forbidden);
	if (d->ledger)
		destination_ledger_json(j, "ledger", d->ledger);
	json_uint(j, "requests", d->requests);
	json_uint(j, "failures", d->failures);
	json_close(j, '}');
}

/* ---- test ---- */

static void json_steps(struct json *j, const Control__DestinationTested *t)
{
	json_open(j, "steps", '[');
	for (size_t i = 0; i < t->n_steps; i++) {
		json_open(j, NULL, '{');
		json_str(j, "name", t->steps[i]->name);
		json_bool(j, "ok", t->steps[i]->ok);
		json_uint(j, "duration_ns", t->steps[i]->duration_ns);
		json_str(j, "detail", t->steps[i]->detail);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void print_steps(struct cli *cli, const Control__DestinationTested *t)
{
	for (size_t i = 0; i < t->n_steps; i++) {
		const Control__TestStep *step = t->steps[i];
		char took[64], head[40];

		/* What an answer says of us takes no time of its own. */
		text_format_duration(step->duration_ns, took, sizeof(took));
		snprintf(head, sizeof(head), "  %.20s", step->name);
		out_line(head, 12, "%s%s%s%s%s%s%s", step->ok ? "" : out_red(cli),
			step->ok ? "ok" : "failed", step->ok ? "" : out_plain(cli),
			step->duration_ns ? " in " : "", step->duration_ns ? took : "",
			*step->detail ? ": " : "", step->detail);
	}
}

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
		json_steps(j, t);
		json_close(j, '}');
	} else if (t->ok) {
		out_line("", 0, "%s: ok, %s took an empty profile in %s", name, t->endpoint, took);
		print_steps(cli, t);
	} else {
		out_line("", 0, "%s%s: failed%s at %s: %s", out_red(cli), name, out_plain(cli),
			t->endpoint, t->reason);
		print_steps(cli, t);
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
	if (args->n_positional && args_flag(args, "all")) {
		r = cli_fail(cli, EXIT_USAGE, "destination test takes a NAME or --all, not both");
	} else if (args->n_positional) {
		r = named_check(cli, "destination", args->positional[0]);
		if (!r)
			r = test_one(cli, args->positional[0], &j, &ok);
	} else {
		r = destination_get(cli, NULL, &reply);
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
	int r = destination_get(cli, NULL, &reply);

	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "destinations", '[');
		for (size_t i = 0; i < reply->destinations->n_destinations; i++)
			destination_json(&j, reply->destinations->destinations[i]);
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

static void print_given_up(const Control__DestinationState *d)
{
	const Control__DestinationLedger *l = d->ledger;
	char a[32], b[32], c[32];

	if (!l || (!l->rejected && !l->evicted && !l->shaped))
		return;
	out_line("given up", 10,
		"%s samples that it refused for good, %s that waited too long or did not fit, %s that "
		"its shaping leaves out",
		out_number(l->rejected, a, sizeof(a)), out_number(l->evicted, b, sizeof(b)),
		out_number(l->shaped, c, sizeof(c)));
}

static void print_waiting(const Control__DestinationState *d)
{
	char size[32], since[64], n[48];

	text_format_size(d->queued_bytes, size, sizeof(size));
	if (d->queued_since_unix_ns)
		out_line("waiting", 10, "%s, %s, the oldest for %s",
			out_batches(d->queued_batches, n, sizeof(n)), size,
			out_duration_since(d->queued_since_unix_ns, since, sizeof(since)));
	else
		out_line("waiting", 10, "%s, %s", out_batches(d->queued_batches, n, sizeof(n)),
			size);
}

static void print_rate(const Control__DestinationState *d)
{
	double seconds = (double)d->recent_ns / 1e9;
	char size[32], span[32];

	if (seconds < 1)
		return;
	text_format_size((uint64_t)((double)d->recent_bytes / seconds), size, sizeof(size));
	text_format_duration(d->recent_ns / NSEC_PER_SEC * NSEC_PER_SEC, span, sizeof(span));
	out_line("rate", 10, "%.1f batches a minute, %s/s over the last %s",
		(double)d->recent_batches * 60 / seconds, size, span);
}

static void print_destination(struct cli *cli, const Control__DestinationState *d)
{
	bool bad = streq(d->state, "failing") || streq(d->state, "forbidden");
	char ago[64], size[32], n[32], batches[48];

	out_line("name", 10, "%s", d->name);
	out_line("type", 10, "%s", d->type);
	out_line("state", 10, "%s%s%s%s%s", bad ? out_red(cli) : "", d->state,
		bad ? out_plain(cli) : "", *d->forbidden ? ": " : "", d->forbidden);
	out_line("endpoint", 10, "%s", d->endpoint);
	if (d->unverified)
		out_line("TLS", 10,
			"%snot verified%s (insecure-skip-verify): whoever is in between can "
			"read and change what is sent",
			out_red(cli), out_plain(cli));
	out_line("from", 10, "%s (%s)", d->layer, d->origin);
	text_format_size(d->sent_bytes, size, sizeof(size));
	out_line("sent", 10, "%s, %s, %s samples",
		out_batches(d->sent_batches, batches, sizeof(batches)), size,
		out_number(d->sent_samples, n, sizeof(n)));
	print_rate(d);
	print_waiting(d);
	out_line("requests", 10, "%llu, %llu failed", (unsigned long long)d->requests,
		(unsigned long long)d->failures);
	out_line("success", 10, "%s", out_ago(d->last_success_unix_ns, ago, sizeof(ago)));
	out_line("failure", 10, "%s%s%s", out_ago(d->last_failure_unix_ns, ago, sizeof(ago)),
		d->last_error[0] ? ": " : "", d->last_error);
	print_given_up(d);
	named_print_pairs("options", d->options, d->n_options);
}

int cmd_destination_show(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	struct json j;
	int r = named_check(cli, "destination", args->positional[0]);

	if (!r)
		r = destination_get(cli, args->positional[0], &reply);
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
		destination_json(&j, reply->destinations->destinations[0]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		print_destination(cli, reply->destinations->destinations[0]);
	}
	api_reply_free(reply);
	return r;
}
