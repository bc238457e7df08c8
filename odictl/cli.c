/* SPDX-License-Identifier: Apache-2.0 */

/* Talking to agentd on behalf of the commands: one connection, one way to fail, one way to change things. */

#include <stdarg.h>
#include "agentd/base/text.h"
#include "odictl/screen.h"

int cli_exit_of(int error)
{
	switch (error) {
	case 0:
		return EXIT_DONE;
	case -EINVAL: /* agentd says that what was asked for is wrong */
		return EXIT_USAGE;
	case -ECONNREFUSED:
		return EXIT_UNREACHABLE;
	case -EACCES:
		return EXIT_NOT_PERMITTED;
	default:
		return EXIT_FAILED;
	}
}

int cli_fail(struct cli *cli, int exit_code, const char *format, ...)
{
	char text[1500];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_clean(text);
	screen_leave();
	fflush(stdout);
	if (cli->json) {
		struct json j;

		json_init(&j);
		json_open(&j, NULL, '{');
		json_str(&j, "error", text);
		json_uint(&j, "exit_code", (uint64_t)exit_code);
		json_close(&j, '}');
		json_print(&j, stdout);
	}
	out_wrap(stderr, cli->color_errors ? "\033[31modictl:\033[0m" : "odictl:", 8, text,
		out_width(stderr));
	return exit_code;
}

void cli_hint(struct cli *cli, const char *format, ...)
{
	char text[700];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_clean(text);
	if (!cli->json)
		out_wrap(stderr, "", 8, text, out_width(stderr));
}

int cli_finish_output(struct cli *cli, int exit_code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return exit_code;
	if (errno == EPIPE)
		return exit_code;
	fprintf(stderr, "odictl: cannot write to standard output: %m\n");
	return exit_code ? exit_code : EXIT_FAILED;
}

bool cli_on_terminal(void)
{
	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

int cli_confirm(struct cli *cli, const char *question)
{
	char answer[16] = "";

	if (cli->yes)
		return 0;
	if (!cli_on_terminal() || cli->json)
		return cli_fail(
			cli, EXIT_USAGE, "%s Say --yes to do it without being asked.", question);
	printf("%s [y/N] ", question);
	fflush(stdout);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return 0;
	return cli_fail(cli, EXIT_FAILED, "nothing was changed");
}

struct api_client *cli_client(struct cli *cli, int *exit_code)
{
	struct err_text err = {};
	int r;

	if (cli->client)
		return cli->client;
	r = api_connect(&cli->client, cli->socket, &err);
	if (r < 0) {
		*exit_code = cli_fail(
			cli, r == -EACCES ? EXIT_NOT_PERMITTED : EXIT_UNREACHABLE, "%s", err.text);
		return NULL;
	}
	return cli->client;
}

int cli_call(struct cli *cli, Control__Request *request, Control__Reply **ret)
{
	return cli_call_with(cli, request, NULL, 0, ret);
}

int cli_call_with(struct cli *cli, Control__Request *request, const int *fds, size_t n_fds,
	Control__Reply **ret)
{
	struct err_text err = {};
	int exit_code = EXIT_FAILED, r;
	struct api_client *c = cli_client(cli, &exit_code);

	if (!c)
		return exit_code;
	r = api_call_with(c, request, fds, n_fds, ret, &err);
	cli->last_error = r;
	if (r < 0)
		return cli_fail(cli, cli_exit_of(r), "%s", err.text);
	out_clean(&(*ret)->base);
	return 0;
}

int cli_next(struct cli *cli, int timeout_ms, Control__Reply **ret)
{
	struct err_text err = {};
	int r = api_next(cli->client, timeout_ms, ret, &err);

	if (r == -EINTR) {
		*ret = NULL;
		return 0;
	}
	if (r < 0)
		return cli_fail(cli, cli_exit_of(r), "%s", err.text);
	if (*ret)
		out_clean(&(*ret)->base);
	return 0;
}

/* ---- changes ---- */

Control__Change *change_add(struct change_list *l, const char *set, const char *path_format, ...)
{
	Control__Change *c;
	char *path = NULL;
	va_list args;

	if (l->n == ARRAY_SIZE(l->changes))
		return NULL;
	c = malloc(sizeof(*c));
	va_start(args, path_format);
	if (vasprintf(&path, path_format, args) < 0)
		path = NULL;
	va_end(args);
	if (!c || !path) {
		free(c);
		free(path);
		return NULL;
	}
	control__change__init(c);
	c->path = path;
	c->what_case = set ? CONTROL__CHANGE__WHAT_SET : CONTROL__CHANGE__WHAT_REMOVE;
	if (set)
		c->set = strdup(set);
	else
		c->remove = true;
	l->changes[l->n++] = c;
	return c;
}

void change_free(struct change_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->changes[i]->path);
		if (l->changes[i]->what_case == CONTROL__CHANGE__WHAT_SET)
			free(l->changes[i]->set);
		else if (l->changes[i]->what_case == CONTROL__CHANGE__WHAT_MOVE)
			free(l->changes[i]->move);
		free(l->changes[i]);
	}
	l->n = 0;
	while (l->n_fds)
		close(l->fds[--l->n_fds]);
}

static int apply(struct cli *cli, struct change_list *l, const char *reason, bool dry_run,
	Control__Reply **reply)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__Apply apply = CONTROL__APPLY__INIT;
	int r;

	apply.layer = (char *)"local";
	apply.changes = l->changes;
	apply.n_changes = l->n;
	apply.reason = (char *)reason;
	apply.dry_run = dry_run;
	apply.expected_revision = l->revision;
	request.verb_case = CONTROL__REQUEST__VERB_APPLY;
	apply.descriptors = (uint32_t)l->n_fds;
	request.apply = &apply;
	r = cli_call_with(cli, &request, l->fds, l->n_fds, reply);
	if (r)
		return r;
	if ((*reply)->body_case != CONTROL__REPLY__BODY_APPLIED) {
		api_reply_free(*reply);
		*reply = NULL;
		return cli_fail(cli, EXIT_FAILED, "agentd answered something else than was asked");
	}
	return 0;
}

int cli_apply(struct cli *cli, struct change_list *l, const char *reason, Control__Reply **reply)
{
	return apply(cli, l, reason, false, reply);
}

int cli_apply_dry(struct cli *cli, struct change_list *l)
{
	Control__Reply *reply = NULL;
	int r = apply(cli, l, "", true, &reply);

	api_reply_free(reply);
	return r;
}
