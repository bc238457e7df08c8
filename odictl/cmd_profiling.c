/* SPDX-License-Identifier: Apache-2.0 */

/* profiling enable, disable, status. */

#include "agentd/base/text.h"
#include "odictl/cli.h"

/* Whether a source called or of kind host is there already. */
static int find_host_source(struct cli *cli, bool *found, bool *enabled, char *name, size_t size)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetConfig get = CONTROL__GET_CONFIG__INIT;
	Control__Reply *reply = NULL;
	int r;

	get.prefix = (char *)"sources";
	request.verb_case = CONTROL__REQUEST__VERB_GET_CONFIG;
	request.get_config = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	*found = false;
	*enabled = true;
	for (size_t i = 0; i < reply->config->n_values && !*found; i++) {
		const Control__ConfigValue *v = reply->config->values[i];
		size_t n = strlen(v->path);

		if (n > 13 && streq(v->path + n - 5, "/kind") && streq(v->value, "host")) {
			*found = true;
			snprintf(name, size, "%.*s", (int)(n - 13), v->path + 8);
		}
	}
	for (size_t i = 0; *found && i < reply->config->n_values; i++) {
		const Control__ConfigValue *v = reply->config->values[i];
		char path[200];

		snprintf(path, sizeof(path), "sources/%s/enabled", name);
		if (streq(v->path, path))
			*enabled = streq(v->value, "true");
	}
	api_reply_free(reply);
	return 0;
}

static int add_host_source(struct cli *cli, struct change_list *l, bool *added)
{
	char name[100];
	bool found, enabled;
	int r = find_host_source(cli, &found, &enabled, name, sizeof(name));

	*added = false;
	if (r)
		return r;
	if (!found) {
		Control__Change *c = change_add(l, "host", "sources/host/kind");

		if (c)
			c->must_not_exist = true;
		change_add(l, "true", "sources/host/enabled");
		*added = true;
	} else if (!enabled) {
		change_add(l, "true", "sources/%s/enabled", name);
		*added = true;
	}
	return 0;
}

static int print_applied(
	struct cli *cli, const Control__Applied *a, const char *done, const char *same)
{
	struct json j;

	if (!cli->json) {
		puts(a->changed ? done : same);
		for (size_t i = 0; i < a->n_effects; i++)
			printf("%s\n", a->effects[i]);
		for (size_t i = 0; i < a->n_warnings; i++)
			printf("note: %s\n", a->warnings[i]);
		return EXIT_DONE;
	}
	json_init(&j);
	json_open(&j, NULL, '{');
	json_bool(&j, "changed", a->changed);
	json_uint(&j, "revision", a->revision);
	json_open(&j, "warnings", '[');
	for (size_t i = 0; i < a->n_warnings; i++)
		json_str(&j, NULL, a->warnings[i]);
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

int cmd_profiling_enable(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	const char *rate = args_value(args, "rate"), *types = args_value(args, "types"),
		   *interval = args_value(args, "interval");
	bool host_added = false;
	char done[200];
	int r = 0;

	change_add(&l, "true", "profiling/enabled");
	if (rate)
		change_add(&l, rate, "profiling/rate");
	if (types)
		change_add(&l, types, "profiling/types");
	if (interval)
		change_add(&l, interval, "profiling/interval");
	if (args_flag(args, "no-kernel-frames") && args_flag(args, "kernel-frames"))
		r = cli_fail(cli, EXIT_USAGE, "--kernel-frames or --no-kernel-frames, not both");
	else if (args_flag(args, "no-kernel-frames") || args_flag(args, "kernel-frames"))
		change_add(&l, args_flag(args, "kernel-frames") ? "true" : "false",
			"profiling/kernel-frames");
	if (!r && args_flag(args, "all"))
		r = add_host_source(cli, &l, &host_added);
	if (!r)
		r = cli_apply(cli, &l, "profiling enable", &reply);
	change_free(&l);
	if (r)
		return r;
	snprintf(done, sizeof(done), "profiling is on%s%s",
		host_added ? "; the whole host is a source (host)" : "",
		host_added ? "; odictl top --watch, odictl flamegraph" : "");
	r = print_applied(cli, reply->applied, done, "profiling was on already; nothing changed");
	api_reply_free(reply);
	return r;
}

int cmd_profiling_disable(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	int r;

	change_add(&l, "false", "profiling/enabled");
	r = cli_apply(cli, &l, "profiling disable", &reply);
	change_free(&l);
	if (r)
		return r;
	if (!cli->json)
		/* That it is off now is what was asked for: no note about it. */
		reply->applied->n_warnings = 0;
	r = print_applied(cli, reply->applied, "profiling is off; no program is loaded",
		"profiling was off already; nothing changed");
	api_reply_free(reply);
	return r;
}

int cmd_profiling_status(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetStatus get = CONTROL__GET_STATUS__INIT;
	Control__Reply *reply = NULL;
	const Control__Status *s;
	struct json j;
	char text[64];
	int r;

	request.verb_case = CONTROL__REQUEST__VERB_GET_STATUS;
	request.get_status = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	s = reply->status;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_bool(&j, "enabled", s->profiling_enabled);
		json_bool(&j, "active", s->profiling_active);
		json_uint(&j, "rate_hz", s->rate_hz);
		json_bool(&j, "kernel_frames", s->kernel_frames);
		json_uint(&j, "interval_ns", s->interval_ns);
		json_time(&j, "active_since", s->active_since_unix_ns);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		text_format_duration(s->interval_ns, text, sizeof(text));
		printf("%s at %u Hz, every %s, kernel frames %s\n",
			s->profiling_active            ? "on"
				: s->profiling_enabled ? "enabled, but not running: odictl status"
						       : "off",
			s->rate_hz, text, s->kernel_frames ? "on" : "off");
	}
	r = r ? r : s->profiling_enabled && !s->profiling_active ? EXIT_FAILED : EXIT_DONE;
	api_reply_free(reply);
	return r;
}
