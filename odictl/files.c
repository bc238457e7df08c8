/* SPDX-License-Identifier: Apache-2.0 */

/* Secrets and certificates on their way to agentd.
 *
 * The file is opened here, so that the caller's rights decide and not root's. Its contents go in a sealed memory file,
 * which agentd can read without ever waiting for a file system; a file that agentd is to read again itself goes as it
 * is, to show that the caller may read it. A secret as an argument could be read by everybody on this host for as long
 * as odictl runs, and stays in the shell's history: it is refused, with what to type instead. */

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <signal.h>
#include <termios.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "agentd/base/trusted.h"
#include "odictl/files.h"

#define MAX_BYTES (512U << 10)

static void wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->size);
	buf_deinit(b);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

/* What ends a program, so that the terminal is as it was before: signals[i] or (back) as it was, in kept. */
static void catch_signals(struct sigaction kept[4], bool back)
{
	static const int signals[4] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	const struct sigaction ours = {.sa_handler = on_signal}; /* reading ends by it */

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		if (back)
			sigaction(signals[i], &kept[i], NULL);
		else
			sigaction(signals[i], &ours, &kept[i]);
	}
}

/* A line from the terminal, which does not show it. It is silent before it asks: who sees the question may type. */
static int ask(struct cli *cli, const char *what, struct buf *out)
{
	struct termios old, silent;
	struct sigaction kept[4];
	char line[4096] = "";
	bool got;

	if (tcgetattr(STDIN_FILENO, &old) < 0)
		return cli_fail(cli, EXIT_FAILED, "the terminal cannot be asked: %m");
	silent = old;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	catch_signals(kept, false);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
	fprintf(stderr, "%s: ", what);
	fflush(stderr);
	got = fgets(line, sizeof(line), stdin) != NULL;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
	fputs("\n", stderr);
	catch_signals(kept, true);
	if (interrupted)
		raise(interrupted);
	if (got)
		buf_add(out, line, strcspn(line, "\r\n"));
	explicit_bzero(line, sizeof(line));
	return out->len ? 0
			: cli_fail(cli, EXIT_FAILED, "nothing was entered, nothing was changed");
}

static int read_file(struct cli *cli, const char *option, const char *file, struct buf *out)
{
	_cleanup_close_ int fd = -1;
	char quoted[200];
	int r;

	if (streq(file, "-") && isatty(STDIN_FILENO))
		return ask(cli, option, out);
	fd = streq(file, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
			      : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	r = fd < 0 ? -errno : io_read_fd(fd, out, MAX_BYTES);
	if (r == -EFBIG)
		return cli_fail(cli, EXIT_FAILED, "%s is larger than %u KB",
			out_quote(file, quoted, sizeof(quoted)), MAX_BYTES >> 10);
	if (r < 0)
		return cli_fail(cli, r == -EACCES ? EXIT_NOT_PERMITTED : EXIT_FAILED,
			"cannot read %s: %s", out_quote(file, quoted, sizeof(quoted)),
			strerrordesc_np(-r));
	if (!out->len)
		return cli_fail(
			cli, EXIT_FAILED, "%s is empty", out_quote(file, quoted, sizeof(quoted)));
	return 0;
}

/* fd becomes the list's. */
static int add_change(
	struct cli *cli, struct change_list *l, const char *path, const char *set, int fd)
{
	Control__Change *c;

	if (l->n_fds == ARRAY_SIZE(l->fds)) {
		close(fd);
		return cli_fail(cli, EXIT_USAGE, "more than %zu files at once", ARRAY_SIZE(l->fds));
	}
	l->fds[l->n_fds++] = fd;
	c = change_add(l, set, "%s", path);
	if (!c)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	c->descriptor = (uint32_t)l->n_fds;
	return 0;
}

static int copy(struct cli *cli, struct change_list *l, const char *path, const char *option,
	const char *file)
{
	CLEANUP(wipe) struct buf bytes = {0};
	int fd, r;

	buf_init(&bytes, MAX_BYTES + 1);
	r = read_file(cli, option, file, &bytes);
	if (r)
		return r;
	fd = io_sealed_memfd("odi-secret", bytes.data, bytes.len);
	if (fd < 0)
		return cli_fail(
			cli, EXIT_FAILED, "cannot hand the file over: %s", strerrordesc_np(-fd));
	return add_change(cli, l, path, "", fd);
}

static bool whole_path(const char *file, char out[PATH_MAX])
{
	char cwd[PATH_MAX];

	if (strstr(file, ".."))
		return realpath(file, out);
	if (file[0] == '/')
		return snprintf(out, PATH_MAX, "%s", file) < PATH_MAX;
	return getcwd(cwd, sizeof(cwd)) &&
		snprintf(out, PATH_MAX, "%s/%s", streq(cwd, "/") ? "" : cwd, file) < PATH_MAX;
}

static int name_file(struct cli *cli, struct change_list *l, const char *path, const char *whole)
{
	char set[PATH_MAX + 8], quoted[200];
	int fd = open(whole, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return cli_fail(cli, errno == EACCES ? EXIT_NOT_PERMITTED : EXIT_FAILED,
			"cannot read %s: %m", out_quote(whole, quoted, sizeof(quoted)));
	snprintf(set, sizeof(set), "file:%s", whole);
	return add_change(cli, l, path, set, fd);
}

int file_change(struct cli *cli, struct change_list *l, const char *path, const char *option,
	const struct option_spec *spec, const char *file)
{
	struct err_text why = {};
	char whole[PATH_MAX], quoted[200];

	if (spec->from == FROM_NOWHERE)
		return cli_fail(cli, EXIT_USAGE,
			"a secret on the command line can be read by everyone on this host: %s-file%sFILE, "
			"or %s-file%s- to be asked for it",
			option, text_starts(option, "--") ? " " : "=", option,
			text_starts(option, "--") ? " " : "=");
	if (text_starts(file, "cred:"))
		return change_add(l, file, "%s", path)
			? 0
			: cli_fail(cli, EXIT_FAILED, "out of memory");
	if (spec->from == FROM_COPY || streq(file, "-"))
		return copy(cli, l, path, option, file);
	if (!whole_path(file, whole))
		return cli_fail(cli, EXIT_FAILED, "cannot read %s: %m",
			out_quote(file, quoted, sizeof(quoted)));
	if (spec->from == FROM_EITHER && trusted_path(whole, &why) < 0) {
		int r = copy(cli, l, path, option, file);

		if (!r && !cli->json)
			out_line("note:", 6,
				"%s was copied, so that later changes of it are not seen: %s", file,
				why.text);
		return r;
	}
	return name_file(cli, l, path, whole);
}
