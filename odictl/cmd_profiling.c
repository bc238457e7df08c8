/* SPDX-License-Identifier: Apache-2.0 */

/* profiling enable, disable, set, status. */

#include "agentd/base/text.h"
#include "odictl/named.h"
#include "odictl/profiling.h"

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
	snprintf(name, size, "host");
	for (size_t i = 0; i < reply->config->n_values && !*found; i++) {
		const Control__ConfigValue *v = reply->config->values[i];
		size_t n = strlen(v->path);

		if (n > 13 && streq(v->path + n - 5, "/kind") && streq(v->value, "host")) {
			*found = true;
			snprintf(name, size, "%.*s", (int)(n - 13), v->path + 8);
		} else if (streq(v->path, "sources/host/kind")) {
			/* Something else is called that. */
			snprintf(name, size, "whole-host");
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

static int add_host_source(struct cli *cli, struct change_list *l, char *name, size_t size)
{
	bool found, enabled;
	int r = find_host_source(cli, &found, &enabled, name, size);

	if (r)
		return r;
	if (!found) {
		Control__Change *c = change_add(l, "host", "sources/%s/kind", name);

		if (c)
			c->must_not_exist = true;
	}
	if (!found || !enabled)
		change_add(l, "true", "sources/%s/enabled", name);
	else
		name[0] = '\0';
	return 0;
}

static int enable_changes(struct cli *cli, const struct args *args, struct change_list *l)
{
	static const char *const settings[] = {
		"rate", "types", "interval", "max-frames", "unwind-memory", "budget", "demangle"};
	bool kernel = args_flag(args, "kernel-frames"), none = args_flag(args, "no-kernel-frames");

	if (kernel && none)
		return cli_fail(cli, EXIT_USAGE, "--kernel-frames or --no-kernel-frames, not both");
	change_add(l, "true", "profiling/enabled");
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		if (args_value(args, settings[i]))
			change_add(l, args_value(args, settings[i]), "profiling/%s", settings[i]);
	if (kernel || none)
		change_add(l, kernel ? "true" : "false", "profiling/kernel-frames");
	return 0;
}

int cmd_profiling_enable(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	char host[100] = "", text[300];
	int r = enable_changes(cli, args, &l);

	if (!r && args_flag(args, "all"))
		r = add_host_source(cli, &l, host, sizeof(host));
	if (!r)
		r = cli_apply(cli, &l,
			args_flag(args, "all") ? "profiling enable --all" : "profiling enable",
			&reply);
	change_free(&l);
	if (r)
		return r;
	if (!reply->applied->changed)
		snprintf(text, sizeof(text), "profiling was on already; nothing changed");
	else if (host[0])
		snprintf(text, sizeof(text),
			"profiling is on, and the whole host is a source (%s); to see it: odictl top "
			"--watch, odictl flamegraph",
			host);
	else
		snprintf(text, sizeof(text), "profiling is on");
	r = named_print_change(cli, reply->applied, NULL, text);
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
	/* That it is off now is what was asked for: a person needs no note about it. */
	for (size_t i = 0; !cli->json && i < reply->applied->n_warnings; i++)
		reply->applied->warnings[i][0] = '\0';
	r = named_print_change(cli, reply->applied, NULL,
		reply->applied->changed ? "profiling is off; no program is loaded"
					: "profiling was off already; nothing changed");
	api_reply_free(reply);
	return r;
}

/* One KEY=VALUE or KEY-. */
static int setting_pair(struct cli *cli, struct change_list *l, const char *pair)
{
	_cleanup_free_ char *key = NULL;
	size_t len = strlen(pair);
	const char *value;
	Control__Change *c;
	int r;

	if (!strchr(pair, '=') && len > 1 && pair[len - 1] == '-') {
		c = change_add(l, NULL, "profiling/%.*s", (int)len - 1, pair);
	} else {
		r = args_key_value(cli, pair, &key, &value);
		if (r)
			return r;
		if (streq(key, "enabled"))
			return cli_fail(cli, EXIT_USAGE,
				"'odictl profiling enable' and 'odictl profiling disable' switch it");
		c = change_add(l, value, "profiling/%s", key);
	}
	return c ? 0 : cli_fail(cli, EXIT_FAILED, "too many changes at once");
}

int cmd_profiling_set(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	int r = 0;

	for (size_t i = 0; i < args->n_positional && !r; i++)
		r = setting_pair(cli, &l, args->positional[i]);
	if (!r)
		r = cli_apply(cli, &l, "profiling set", &reply);
	change_free(&l);
	if (r)
		return r;
	r = named_print_change(cli, reply->applied, NULL,
		reply->applied->changed ? "set" : "set so already; nothing changed");
	api_reply_free(reply);
	return r;
}

/* "99 Hz", or "49 Hz of 99 Hz" below the rate that is set. */
void profiling_rate_text(const Control__Status *s, char *out, size_t size)
{
	const Control__Budget *b = s->budget;

	if (b && b->rate_hz && b->rate_hz != s->rate_hz)
		snprintf(out, size, "%u Hz (of %u Hz, for the budget)", b->rate_hz, s->rate_hz);
	else
		snprintf(out, size, "%u Hz", s->rate_hz);
}

void profiling_json(struct json *j, const Control__Status *s)
{
	const Control__Budget *b = s->budget;

	json_bool(j, "enabled", s->profiling_enabled);
	json_bool(j, "active", s->profiling_active);
	json_uint(j, "rate_hz", s->rate_hz);
	json_uint(j, "rate_now_hz", b ? b->rate_hz : 0);
	named_json_strings(j, "types", s->types, s->n_types);
	json_bool(j, "kernel_frames", s->kernel_frames);
	json_uint(j, "max_frames", s->max_frames);
	json_uint(j, "unwind_memory", s->unwind_memory);
	json_uint(j, "interval_ns", s->interval_ns);
	json_time(j, "active_since", s->active_since_unix_ns);
	json_open(j, "budget", '{');
	json_num(j, "limit_percent", b ? b->limit_percent : 0);
	json_num(j, "cost_percent", b ? b->cost_percent : 0);
	json_uint(j, "window_ns", b ? b->window_ns : 0);
	json_uint(j, "steps_down", b ? b->steps_down : 0);
	json_uint(j, "steps_up", b ? b->steps_up : 0);
	json_bool(j, "over", b && b->over);
	json_close(j, '}');
}

static void print_settings(const Control__Status *s)
{
	char interval[64], memory[32], rate[64], limit[64] = "none";

	text_format_duration(s->interval_ns, interval, sizeof(interval));
	text_format_size(s->unwind_memory, memory, sizeof(memory));
	profiling_rate_text(s, rate, sizeof(rate));
	if (s->budget && s->budget->limit_percent > 0)
		snprintf(limit, sizeof(limit), "%g %% of the host", s->budget->limit_percent);
	printf("%s at %s, every %s, kernel frames %s\n",
		s->profiling_active            ? "on"
			: s->profiling_enabled ? "enabled, but not running: odictl status"
					       : "off",
		rate, interval, s->kernel_frames ? "on" : "off");
	printf("stacks of at most %u frames, unwind information of at most %s, budget %s\n",
		s->max_frames, memory, limit);
	if (s->budget && s->budget->window_ns)
		printf("it takes %.2f %% of the host's CPU time\n", s->budget->cost_percent);
}

int cmd_profiling_status(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetStatus get = CONTROL__GET_STATUS__INIT;
	Control__Reply *reply = NULL;
	const Control__Status *s;
	struct json j;
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
		profiling_json(&j, s);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		print_settings(s);
	}
	r = r ? r : s->profiling_enabled && !s->profiling_active ? EXIT_FAILED : EXIT_DONE;
	api_reply_free(reply);
	return r;
}
