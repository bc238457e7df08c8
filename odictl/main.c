/* SPDX-License-Identifier: Apache-2.0 */

/* main(): from argv to a command of the table, and from what it did to an exit code. */

#include <fcntl.h>
#include <signal.h>
#include "odictl/cli.h"
#include "odictl/kinds.h"

/* A descriptor that the caller closed would go to the next file that is opened: what is meant for people must
 * not end up in agentd's socket. It is opened the wrong way round, so that using it still fails. */
static void hold_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

static bool may_color(int fd)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fd) && !(no_color && no_color[0]) && term && !streq(term, "dumb");
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct args args = {};
	const struct command *c;
	int words, r;

	r = args_globals(cli, &argc, argv);
	if (r)
		return r;
	if (cli->version) {
		puts("odictl " ODI_VERSION);
		return EXIT_DONE;
	}
	if (cli->help)
		return help_words(cli, argc, argv);
	if (!argc) {
		help_all(stderr);
		return EXIT_USAGE;
	}
	c = args_find(cli, argc, argv, &words);
	if (!c)
		return EXIT_USAGE;
	r = kinds_parse(cli, &args, c, argc - words, argv + words);
	return r ? r : c->run(cli, &args);
}

int main(int argc, char **argv)
{
	struct cli cli = {.socket = getenv("ODI_SOCKET")};
	int r;

	hold_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	cli.color = may_color(STDOUT_FILENO);
	cli.color_errors = may_color(STDERR_FILENO);
	if (!cli.socket || !cli.socket[0])
		cli.socket = API_DEFAULT_SOCKET;
	r = run(&cli, argc - 1, argv + 1);
	r = cli_finish_output(&cli, r);
	cli.kinds = kinds_free(cli.kinds);
	cli.client = api_close(cli.client);
	return r;
}
