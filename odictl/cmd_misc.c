/* SPDX-License-Identifier: Apache-2.0 */

/* history, logs, host label, version, help. */

#include "agentd/base/text.h"
#include "odictl/config.h"

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
	if (args_flag(args, "man-pages"))
		return man_list();
	if (args_flag(args, "man"))
		return man_page(cli, args->n_positional ? args->positional[0] : NULL);
	return help_words(cli, (int)args->n_positional, (char **)args->positional);
}

static int label_changes(struct cli *cli, const struct args *args, struct change_list *l)
{
	for (size_t i = 0; i < args->n_positional; i++) {
		_cleanup_free_ char *key = NULL;
		const char *word = args->positional[i], *value;
		size_t n = strlen(word);
		int r;

		if (n > 1 && word[n - 1] == '-' && !strchr(word, '=')) {
			change_add(l, NULL, "host/labels/%.*s", (int)n - 1, word);
			continue;
		}
		r = args_key_value(cli, word, &key, &value);
		if (r)
			return r;
		change_add(l, value, "host/labels/%s", key);
	}
	return 0;
}

static int show_labels(struct cli *cli)
{
	Control__Reply *reply = NULL;
	struct json j;
	int r = config_get(cli, "host/labels", &reply);

	if (r)
		return r;
	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "labels", '{');
	for (size_t i = 0; i < reply->config->n_values; i++) {
		const Control__ConfigValue *v = reply->config->values[i];
		const char *key = v->path;

		if (text_starts(key, "host/labels/"))
			key += strlen("host/labels/");
		json_str(&j, key, v->value);
		if (!cli->json)
			printf("%s=%s\n", key, v->value);
	}
	json_close(&j, '}');
	json_close(&j, '}');
	if (cli->json)
		r = json_print(&j, stdout);
	else
		buf_deinit(&j.out);
	if (!cli->json && !reply->config->n_values)
		puts("no host labels; to add one: odictl host label region=eu-1");
	api_reply_free(reply);
	return r;
}

int cmd_host_label(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	int r = label_changes(cli, args, &l);

	if (!r && l.n)
		r = cli_apply(cli, &l, "host label", &reply);
	change_free(&l);
	api_reply_free(reply);
	return r ? r : show_labels(cli);
}

static void json_entry(struct json *j, const Control__HistoryEntry *e)
{
	json_open(j, NULL, '{');
	json_uint(j, "revision", e->revision);
	json_time(j, "time", e->time_unix_ns);
	json_str(j, "layer", e->layer);
	json_str(j, "origin", e->origin);
	json_uint(j, "uid", e->uid);
	json_str(j, "user", e->user);
	json_str(j, "reason", e->reason);
	json_str(j, "hash", e->hash);
	json_open(j, "diff", '[');
	for (size_t d = 0; d < e->n_diff; d++)
		json_str(j, NULL, e->diff[d]);
	json_close(j, ']');
	json_close(j, '}');
}

static void print_entry(struct cli *cli, const Control__HistoryEntry *e)
{
	char when[40], head[80];

	snprintf(head, sizeof(head), "%s%llu%s", out_bold(cli), (unsigned long long)e->revision,
		out_plain(cli));
	out_line(head, 6, "%s  %s (uid %u)  %s  %s", out_time(e->time_unix_ns, when, sizeof(when)),
		e->user[0] ? e->user : "?", e->uid, e->origin, e->reason);
	for (size_t d = 0; d < e->n_diff; d++)
		out_line("", 8, "%s", e->diff[d]);
}

int cmd_history(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetHistory get = CONTROL__GET_HISTORY__INIT;
	Control__Reply *reply = NULL;
	uint64_t limit = 20;
	struct json j;
	int r = args_number(cli, args, "lines", 1, 10000, &limit);

	if (r)
		return r;
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
		json_entry(&j, reply->history->entries[i]);
		if (!cli->json)
			print_entry(cli, reply->history->entries[i]);
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

/* ---- logs ---- */

static const char *level_name(uint32_t level)
{
	static const char *const names[] = {
		"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"};

	return names[level & 7];
}

static void json_log(struct json *j, const Control__LogLine *l)
{
	json_open(j, NULL, '{');
	json_uint(j, "serial", l->serial);
	json_time(j, "time", l->time_unix_ns);
	json_str(j, "level", level_name(l->level));
	json_str(j, "text", l->text);
	json_close(j, '}');
}

/* One document, or with --follow, which has no end, an object a line. */
static int print_logs(struct cli *cli, const Control__Logs *logs, bool follow, struct json *all)
{
	int r = 0;

	for (size_t i = 0; i < logs->n_lines && !r; i++) {
		const Control__LogLine *l = logs->lines[i];
		struct json j;
		char when[40];

		if (!cli->json) {
			printf("%s %s%-7s%s %s\n", out_time(l->time_unix_ns, when, sizeof(when)),
				l->level <= 3 ? out_red(cli) : "", level_name(l->level),
				l->level <= 3 ? out_plain(cli) : "", l->text);
		} else if (!follow) {
			json_log(all, l);
		} else {
			json_init_compact(&j);
			json_log(&j, l);
			r = json_print(&j, stdout);
		}
	}
	return r;
}

static int parse_level(struct cli *cli, const char *level, uint32_t *ret)
{
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	static const uint32_t numbers[] = {3, 4, 6, 7};
	char quoted[80];

	for (size_t i = 0; level && i < ARRAY_SIZE(levels); i++)
		if (streq(level, levels[i]))
			*ret = numbers[i];
	if (level && !*ret)
		return cli_fail(cli, EXIT_USAGE,
			"--level: '%s' is none of error, warning, info, debug",
			out_quote(level, quoted, sizeof(quoted)));
	return 0;
}

int cmd_logs(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetLogs get = CONTROL__GET_LOGS__INIT;
	Control__Reply *reply = NULL;
	uint64_t n = 50;
	struct json all;
	int r = args_number(cli, args, "lines", 1, 1000, &n);

	if (!r)
		r = parse_level(cli, args_value(args, "level"), &get.level);
	if (r)
		return r;
	get.lines = (uint32_t)n;
	get.follow = args_flag(args, "follow");
	request.verb_case = CONTROL__REQUEST__VERB_GET_LOGS;
	request.get_logs = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	json_init(&all);
	json_open(&all, NULL, '{');
	json_open(&all, "logs", '[');
	while (reply && !r) {
		bool final = reply->final;

		r = print_logs(cli, reply->logs, get.follow, &all);
		/* A reader that went away ends it. */
		final |= fflush(stdout) != 0;
		api_reply_free(reply);
		reply = NULL;
		if (!r && !final)
			r = cli_next(cli, -1, &reply);
	}
	json_close(&all, ']');
	json_close(&all, '}');
	if (!r && cli->json && !get.follow)
		return json_print(&all, stdout);
	buf_deinit(&all.out);
	return r;
}
