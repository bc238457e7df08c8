/* SPDX-License-Identifier: Apache-2.0 */

/* config apply, export, diff, validate, rollback: configuration as documents. Files are read here, with the rights of
 * who types, and judged by agentd, which has the reader of YAML. */

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "odictl/config.h"
#include "odictl/named.h"

#define MAX_DOCUMENT (API_MAX_REQUEST - 4096) /* with what goes around it in one frame */

/* What can be a string of a request: UTF-8 without NUL. */
static bool is_text(const struct buf *b)
{
	const char *s = (const char *)b->data;
	size_t at = 0, n;

	while (at < b->len) {
		n = s[at] ? text_utf8(s + at, NULL) : 0;
		if (!n)
			return false;
		at += n;
	}
	return true;
}

/* "-": standard input. *shown: its whole path, for messages and origins; free() it. */
static int read_document(struct cli *cli, const char *name, struct buf *text, char **shown)
{
	_cleanup_close_ int fd = -1;
	bool input = streq(name, "-");
	char quoted[200];
	int r;

	out_quote(name, quoted, sizeof(quoted));
	buf_init(text, 0);
	if (!input)
		fd = open(name, O_RDONLY | O_CLOEXEC);
	if (!input && fd < 0)
		return cli_fail(cli, EXIT_FAILED, "cannot read %s: %m", quoted);
	r = io_read_fd(input ? STDIN_FILENO : fd, text, MAX_DOCUMENT);
	if (r == -EFBIG)
		return cli_fail(
			cli, EXIT_FAILED, "%s is larger than %u KB", quoted, MAX_DOCUMENT >> 10);
	if (r < 0)
		return cli_fail(cli, EXIT_FAILED, "cannot read %s: %s", quoted, strerror(-r));
	if (!is_text(text))
		return cli_fail(cli, EXIT_FAILED, "%s is no UTF-8 text", quoted);
	*shown = input ? strdup("standard input") : realpath(name, NULL);
	if (!*shown)
		*shown = strdup(quoted);
	return *shown ? 0 : cli_fail(cli, EXIT_FAILED, "out of memory");
}

static char *text_of(const struct buf *b)
{
	return b->len ? (char *)b->data : (char *)"";
}

/* ---- changing ---- */

static int print_applied(
	struct cli *cli, const Control__Applied *a, bool dry_run, const char *nothing)
{
	if (cli->json) {
		struct json j;

		json_init(&j);
		json_open(&j, NULL, '{');
		json_bool(&j, "changed", a->changed);
		json_bool(&j, "dry_run", dry_run);
		json_uint(&j, "revision", a->revision);
		named_json_strings(&j, "diff", a->diff, a->n_diff);
		named_json_strings(&j, "warnings", a->warnings, a->n_warnings);
		json_close(&j, '}');
		return json_print(&j, stdout);
	}
	for (size_t i = 0; i < a->n_diff; i++)
		puts(a->diff[i]);
	if (!a->n_diff)
		puts(nothing);
	else if (a->changed)
		printf("revision %llu; to go back: odictl config rollback %llu\n",
			(unsigned long long)a->revision, (unsigned long long)a->revision - 1);
	if (!dry_run)
		named_print_notes(a);
	return 0;
}

/* Sends it and says what it did, or would do; nothing: what to say when there is no difference. */
static int send_apply(struct cli *cli, Control__Apply *apply, const char *nothing)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__Reply *reply = NULL;
	int r;

	apply->layer = (char *)"local";
	request.verb_case = CONTROL__REQUEST__VERB_APPLY;
	request.apply = apply;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	r = print_applied(cli, reply->applied, apply->dry_run, nothing);
	api_reply_free(reply);
	return r;
}

static int apply_document(struct cli *cli, const char *name, bool dry_run, const char *nothing)
{
	Control__Apply apply = CONTROL__APPLY__INIT;
	_cleanup_free_ char *shown = NULL;
	_cleanup_buf_ struct buf text = {0};
	char reason[300];
	int r = read_document(cli, name, &text, &shown);

	if (r)
		return r;
	snprintf(reason, sizeof(reason), "config apply -f %.250s", shown);
	apply.document = text_of(&text);
	apply.document_name = shown;
	apply.reason = reason;
	apply.dry_run = dry_run;
	return send_apply(cli, &apply, nothing);
}

static int roll_back(struct cli *cli, const char *to, bool dry_run, const char *nothing)
{
	Control__Apply apply = CONTROL__APPLY__INIT;
	char reason[64], quoted[80];
	uint64_t revision;

	if (text_u64(to, 1, UINT64_MAX, &revision) < 0)
		return cli_fail(cli, EXIT_USAGE,
			"'%s' is no revision: odictl history lists them by number",
			out_quote(to, quoted, sizeof(quoted)));
	snprintf(reason, sizeof(reason), "config rollback %llu", (unsigned long long)revision);
	apply.rollback = revision;
	apply.reason = reason;
	apply.dry_run = dry_run;
	return send_apply(cli, &apply, nothing);
}

int cmd_config_apply(struct cli *cli, struct args *args)
{
	const char *file = args_value(args, "file");

	if (!file)
		return cli_fail(
			cli, EXIT_USAGE, "which file? odictl config apply -f FILE, or -f -");
	return apply_document(cli, file, args_flag(args, "dry-run"),
		"all of it is so already; nothing to change");
}

int cmd_config_rollback(struct cli *cli, struct args *args)
{
	return roll_back(cli, args->positional[0], args_flag(args, "dry-run"),
		"what odictl set is as it was then; nothing to change");
}

/* Without a word: what is set other than by default. */
static int diff_defaults(struct cli *cli)
{
	Control__Reply *reply = NULL;
	struct json j;
	int r = config_get(cli, "", &reply);

	if (r)
		return r;
	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "diff", '[');
	for (size_t i = 0; i < reply->config->n_values; i++) {
		const Control__ConfigValue *v = reply->config->values[i];
		char line[CONFIG_KEY_MAX + 4500];

		if (v->is_default || config_is_age(v->path))
			continue;
		snprintf(line, sizeof(line), "+%s = %s", v->path, v->value);
		json_str(&j, NULL, line);
		if (!cli->json)
			puts(line);
	}
	json_close(&j, ']');
	json_close(&j, '}');
	if (cli->json)
		r = json_print(&j, stdout);
	else
		buf_deinit(&j.out);
	api_reply_free(reply);
	return r;
}

int cmd_config_diff(struct cli *cli, struct args *args)
{
	const char *what = args->n_positional ? args->positional[0] : NULL;

	if (!what)
		return diff_defaults(cli);
	if (what[0] && strspn(what, "0123456789") == strlen(what))
		return roll_back(cli, what, true, "nothing differs");
	return apply_document(cli, what, true, "nothing differs");
}

int cmd_config_export(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	_cleanup_buf_ struct buf out;
	int r = config_get(cli, "", &reply);

	buf_init(&out, 0);
	if (r)
		return r;
	config_yaml(reply->config, &out);
	if (buf_error(&out)) {
		r = cli_fail(cli, EXIT_FAILED, "out of memory");
	} else if (cli->json) {
		struct json j;

		json_init(&j);
		json_open(&j, NULL, '{');
		json_uint(&j, "revision", reply->config->revision);
		json_str(&j, "yaml", out.len ? (const char *)out.data : "");
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		fputs(out.len ? (const char *)out.data : "{}\n", stdout);
	}
	api_reply_free(reply);
	return r;
}

/* ---- judging ---- */

/* "path:line:column: text" into its parts; what it has not is 0 or "". */
static const char *split_place(const char *finding, char *file, size_t size, uint64_t place[2])
{
	const char *p = finding;

	place[0] = place[1] = 0;
	file[0] = '\0';
	for (;;) {
		char *end;

		p = strchr(p, ':');
		if (!p)
			return finding;
		if (p[1] < '0' || p[1] > '9') {
			p++;
			continue;
		}
		snprintf(file, size, "%.*s", (int)(p - finding), finding);
		place[0] = strtoul(p + 1, &end, 10);
		if (*end == ':' && end[1] >= '0' && end[1] <= '9')
			place[1] = strtoul(end + 1, &end, 10);
		return end[0] == ':' && end[1] == ' ' ? end + 2 : finding;
	}
}

static int findings_json(const Control__FilesChecked *c, size_t wrong)
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_bool(&j, "valid", !wrong);
	json_uint(&j, "files", c->files);
	json_open(&j, "findings", '[');
	for (size_t i = 0; i < c->n_findings; i++) {
		char file[PATH_MAX];
		uint64_t place[2];
		const char *text = split_place(c->findings[i]->text, file, sizeof(file), place);

		json_open(&j, NULL, '{');
		json_str(&j, "severity", c->findings[i]->warning ? "warning" : "error");
		json_str(&j, "file", file);
		json_uint(&j, "line", place[0]);
		json_uint(&j, "column", place[1]);
		json_str(&j, "text", text);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_uint(&j, "more", c->more);
	json_close(&j, '}');
	return json_print(&j, stdout);
}

int cmd_config_validate(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__CheckFiles check = CONTROL__CHECK_FILES__INIT;
	_cleanup_free_ char *shown = NULL;
	_cleanup_buf_ struct buf text;
	Control__Reply *reply = NULL;
	size_t wrong = 0;
	int r = 0;

	buf_init(&text, 0);
	if (args->n_positional)
		r = read_document(cli, args->positional[0], &text, &shown);
	if (r)
		return r;
	check.document_name = shown ? shown : check.document_name;
	check.document = text_of(&text);
	request.verb_case = CONTROL__REQUEST__VERB_CHECK_FILES;
	request.check_files = &check;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	for (size_t i = 0; i < reply->files_checked->n_findings; i++) {
		const Control__FileFinding *f = reply->files_checked->findings[i];

		wrong += !f->warning;
		if (!cli->json)
			out_line(f->warning ? "warning" : "error", 9, "%s", f->text);
	}
	if (reply->files_checked->more && !cli->json)
		out_line("warning", 9, "and %u more, which are not listed",
			reply->files_checked->more);
	if (cli->json)
		r = findings_json(reply->files_checked, wrong);
	else if (!wrong)
		printf("%u file%s, and nothing is wrong\n", reply->files_checked->files,
			reply->files_checked->files == 1 ? "" : "s");
	api_reply_free(reply);
	return r ? r : wrong ? EXIT_FAILED : EXIT_DONE;
}
