/* SPDX-License-Identifier: Apache-2.0 */

/* history, logs, host label, version, help. */

#include <signal.h>
#include "agentd/base/text.h"
#include "odictl/cli.h"

int cmd_version(struct cli *cli, struct args *args)
{
	struct err_text err = {};
	const char *agentd = "";

	/* No failure when agentd is not there: the version of odictl is known all the same. */
	if (cli->client || api_connect(&cli->client, cli->socket, &err) == 0)
		agentd = api_hello(cli->client)->version;
	if (cli->json) {
		struct json j;

		json_init(&j);
		json_open(&j, NULL, '{');
		json_str(&j, "odictl", ODI_VERSION);
		json_str(&j, "agentd", agentd);
		json_close(&j, '}');
		return json_print(&j, stdout);
	}
	printf("odictl " ODI_VERSION "\n");
	if (agentd[0])
		printf("agentd %s\n", agentd);
	else
		printf("agentd not reachable: %s\n", err.text);
	return EXIT_DONE;
}

int cmd_help(struct cli *cli, struct args *args)
{
	char *words[16];
	int n = (int)MIN(args->n_positional, ARRAY_SIZE(words)), taken;
	const struct command *c;

	for (int i = 0; i < n; i++)
		words[i] = (char *)args->positional[i];
	if (!n) {
		help_all(stdout);
		return EXIT_DONE;
	}
	if (n == 1 && help_is_group(words[0])) {
		help_group(stdout, words[0]);
		return EXIT_DONE;
	}
	c = args_find(n, words, &taken);
	if (!c)
		return EXIT_USAGE;
	help_command(stdout, c);
	return EXIT_DONE;
}

int cmd_host_label(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	int r = EXIT_DONE;

	for (size_t i = 0; i < args->n_positional && !r; i++) {
		char key[160];
		const char *value;
		size_t n = strlen(args->positional[i]);

		if (n > 1 && n < sizeof(key) && args->positional[i][n - 1] == '-' &&
			!strchr(args->positional[i], '=')) {
			snprintf(key, sizeof(key), "%.*s", (int)n - 1, args->positional[i]);
			change_add(&l, NULL, "host/labels/%s", key);
		} else if (args_key_value(args->positional[i], key, sizeof(key), &value)) {
			change_add(&l, value, "host/labels/%s", key);
		} else {
			r = EXIT_USAGE;
		}
	}
	if (!r && l.n)
		r = cli_apply(cli, &l, "host label", &reply);
	change_free(&l);
	api_reply_free(reply);
	if (!r) {
		Control__Request request = CONTROL__REQUEST__INIT;
		Control__GetConfig get = CONTROL__GET_CONFIG__INIT;
		struct json j;

		get.prefix = (char *)"host/labels";
		request.verb_case = CONTROL__REQUEST__VERB_GET_CONFIG;
		request.get_config = &get;
		r = cli_call(cli, &request, &reply);
		if (r)
			return r;
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "labels", '{');
		for (size_t i = 0; i < reply->config->n_values; i++) {
			const Control__ConfigValue *v = reply->config->values[i];

			json_str(&j, v->path + strlen("host/labels/"), v->value);
			if (!cli->json)
				printf("%s=%s\n", v->path + strlen("host/labels/"), v->value);
		}
		json_close(&j, '}');
		json_close(&j, '}');
		if (cli->json)
			json_print(&j, stdout);
		else
			buf_deinit(&j.out);
		if (!cli->json && !reply->config->n_values)
			puts("no host labels; odictl host label region=eu-1");
		api_reply_free(reply);
	}
	return r;
}

int cmd_history(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetHistory get = CONTROL__GET_HISTORY__INIT;
	Control__Reply *reply = NULL;
	const char *lines = args_value(args, "lines");
	uint64_t limit = 20;
	struct json j;
	int r;

	if (lines && text_u64(lines, 1, 10000, &limit) < 0)
		return cli_fail(cli, EXIT_USAGE,
			"--lines: expected a number from 1 to 10000, got '%s'", lines);
	get.limit = (uint32_t)limit;
	request.verb_case = CONTROL__REQUEST__VERB_GET_HISTORY;
	request.get_history = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "history", '[');
	for (size_t i = 0; i < reply->history->n_entries; i++) {
		const Control__HistoryEntry *e = reply->history->entries[i];
		char when[40];

		json_open(&j, NULL, '{');
		json_uint(&j, "revision", e->revision);
		json_time(&j, "time", e->time_unix_ns);
		json_str(&j, "layer", e->layer);
		json_str(&j, "origin", e->origin);
		json_uint(&j, "uid", e->uid);
		json_str(&j, "user", e->user);
		json_str(&j, "reason", e->reason);
		json_str(&j, "hash", e->hash);
		json_open(&j, "diff", '[');
		for (size_t d = 0; d < e->n_diff; d++)
			json_str(&j, NULL, e->diff[d]);
		json_close(&j, ']');
		json_close(&j, '}');
		if (cli->json)
			continue;
		printf("%s%llu%s  %s  %s (uid %u)  %s  %s\n", out_bold(cli),
			(unsigned long long)e->revision, out_plain(cli),
			out_time(e->time_unix_ns, when, sizeof(when)), e->user[0] ? e->user : "?",
			e->uid, e->origin, e->reason);
		for (size_t d = 0; d < e->n_diff; d++)
			printf("    %s\n", e->diff[d]);
	}
	json_close(&j, ']');
	json_close(&j, '}');
	if (cli->json)
		r = json_print(&j, stdout);
	else
		buf_deinit(&j.out);
	if (!cli->json && !reply->history->n_entries)
		puts("nothing was changed yet");
	api_reply_free(reply);
	return r;
}

static void print_log(struct cli *cli, const Control__LogLine *l)
{
	static const char *const names[] = {"", "", "", "error", "warning", "", "info", "debug"};
	char when[40];

	if (cli->json) {
		struct json j;

		json_init(&j);
		json_open(&j, NULL, '{');
		json_uint(&j, "serial", l->serial);
		json_time(&j, "time", l->time_unix_ns);
		json_str(&j, "level", names[l->level & 7]);
		json_str(&j, "text", l->text);
		json_close(&j, '}');
		json_print(&j, stdout);
		return;
	}
	printf("%s %s%-7s%s %s\n", out_time(l->time_unix_ns, when, sizeof(when)),
		l->level <= 3 ? out_red(cli) : "", names[l->level & 7],
		l->level <= 3 ? out_plain(cli) : "", l->text);
}

int cmd_logs(struct cli *cli, struct args *args)
{
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	static const uint32_t numbers[] = {3, 4, 6, 7};
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetLogs get = CONTROL__GET_LOGS__INIT;
	Control__Reply *reply = NULL;
	struct err_text err = {};
	const char *lines = args_value(args, "lines"), *level = args_value(args, "level");
	uint64_t n = 50;
	int r;

	if (lines && text_u64(lines, 1, 1000, &n) < 0)
		return cli_fail(cli, EXIT_USAGE,
			"--lines: expected a number from 1 to 1000, got '%s'", lines);
	for (size_t i = 0; level && i < ARRAY_SIZE(levels); i++)
		if (streq(level, levels[i]))
			get.level = numbers[i];
	if (level && !get.level)
		return cli_fail(cli, EXIT_USAGE,
			"--level: '%s' is none of error, warning, info, debug", level);
	get.lines = (uint32_t)n;
	get.follow = args_flag(args, "follow");
	request.verb_case = CONTROL__REQUEST__VERB_GET_LOGS;
	request.get_logs = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	for (;;) {
		bool final = reply->final;

		for (size_t i = 0; i < reply->logs->n_lines; i++)
			print_log(cli, reply->logs->lines[i]);
		fflush(stdout);
		api_reply_free(reply);
		reply = NULL;
		if (final)
			return EXIT_DONE;
		r = api_next(cli->client, -1, &reply, &err);
		if (r == -EINTR)
			return EXIT_DONE;
		if (r < 0)
			return cli_fail(cli, cli_exit_of(r), "%s", err.text);
		if (!reply)
			return EXIT_DONE;
	}
}
