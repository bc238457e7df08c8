/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl flamegraph`: asks, draws, writes; the file is replaced only when the whole picture is there. */

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include "agentd/base/io.h"
#include "odictl/tree.h"

#define MAX_NODES        50000
#define MAX_NODES_FOLDED 1000000
#define MAX_NODES_PPROF  1000         /* only its totals are of use */
#define MAX_PICTURE      (512U << 20) /* bytes */

static void draw_folded(const struct tree *t, const char *title, struct buf *out)
{
	flame_folded(t, out);
}

static void draw_pprof(const struct tree *t, const char *title, struct buf *out)
{
	buf_add(out, t->pprof.data, t->pprof.len);
}

/* By the ending that files of it have: FORMAT, or what follows it. */
static const struct format {
	const char *name, *ending, *default_file;
	void (*draw)(const struct tree *t, const char *title, struct buf *out);
	uint32_t max_nodes;
	bool pprof;
} formats[] = {
	{"html", ".html", "flamegraph.html", flame_html, MAX_NODES, false},
	{"svg", ".svg", "flamegraph.svg", flame_svg, MAX_NODES, false},
	{"json", ".json", "flamegraph.json", flame_json, MAX_NODES, false},
	{"folded", ".folded", "flamegraph.folded", draw_folded, MAX_NODES_FOLDED, false},
	{"pprof", ".pb.gz", "profile.pb.gz", draw_pprof, MAX_NODES_PPROF, true},
};

static bool ends_with(const char *text, const char *ending)
{
	size_t n = strlen(text), m = strlen(ending);

	return n > m && streq(text + n - m, ending);
}

/* By --format, else by the file's ending, else html. */
static int choose_format(struct cli *cli, const char *format, const char *file, size_t *ret)
{
	char quoted[80];

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (format ? streq(format, formats[i].name)
			   : file && ends_with(file, formats[i].ending)) {
			*ret = i;
			return 0;
		}
	}
	if (format)
		return cli_fail(cli, EXIT_USAGE,
			"--format: '%s' is none of html, svg, folded, json, pprof",
			out_quote(format, quoted, sizeof(quoted)));
	*ret = 0;
	return 0;
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* A pipe or a terminal that has a name (/dev/stdout) is written to, and not replaced by a file. 1: file is none. */
static int write_special(const char *file, const struct buf *out)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (stat(file, &st) < 0 || S_ISREG(st.st_mode))
		return 1;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode))
		return -ENOTSUP;
	fd = open(file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	return write_all(fd, out->data, out->len);
}

static int write_picture(struct cli *cli, const char *file, const struct buf *out)
{
	_cleanup_free_ char *dir = NULL;
	_cleanup_close_ int fd = -1;
	const char *slash = strrchr(file, '/');
	char quoted[300];
	int r = write_special(file, out);

	if (r <= 0)
		return r ? cli_fail(cli, EXIT_FAILED, "cannot write %s: %s",
				   out_quote(file, quoted, sizeof(quoted)), strerror(-r))
			 : 0;
	dir = slash ? strndup(file, slash == file ? 1 : (size_t)(slash - file)) : strdup(".");
	if (!dir)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? -errno
		   : io_write_atomic(fd, slash ? slash + 1 : file, out->data, out->len, 0644);
	if (r < 0)
		return cli_fail(cli, EXIT_FAILED,
			"cannot write %s: %s; choose another place with -o FILE",
			out_quote(file, quoted, sizeof(quoted)), strerror(-r));
	return 0;
}

static int report(struct cli *cli, const char *file, const char *format, const char *service,
	const struct tree *t)
{
	char path[PATH_MAX], seconds[32], samples[32], quoted[PATH_MAX];
	const char *full = realpath(file, path) ? path : file;
	struct json j;

	if (!cli->json) {
		printf("%s: %s CPU seconds, %s samples\n", out_quote(full, quoted, sizeof(quoted)),
			out_seconds(t->total_ns, seconds, sizeof(seconds)),
			out_number(t->total_samples, samples, sizeof(samples)));
		if (!t->total_samples && service[0])
			out_line("note:", 6,
				"no samples of this service in this span; odictl top --by service shows "
				"those there are");
		else if (!t->total_samples)
			out_line("note:", 6,
				"no samples in this span; odictl status says whether profiling is on");
		return EXIT_DONE;
	}
	json_init(&j);
	json_open(&j, NULL, '{');
	json_str(&j, "file", full);
	json_str(&j, "format", format);
	json_time(&j, "from", t->from_unix_ns);
	json_time(&j, "to", t->to_unix_ns);
	json_uint(&j, "total_ns", t->total_ns);
	json_uint(&j, "total_samples", t->total_samples);
	json_uint(&j, "cut_nodes", t->cut_nodes);
	json_close(&j, '}');
	return json_print(&j, stdout);
}

int cmd_flamegraph(struct cli *cli, struct args *args)
{
	CLEANUP(tree_freep) struct tree *t = NULL;
	_cleanup_buf_ struct buf out = {};
	const char *file = args_value(args, "output"), *title = args_value(args, "title");
	char own_title[400];
	struct selection s;
	size_t format = 0;
	int r = selection_parse(cli, args, &s);

	if (!r)
		r = choose_format(cli, args_value(args, "format"), file, &format);
	if (!r && file && !file[0])
		r = cli_fail(cli, EXIT_USAGE, "--output needs the name of a file");
	if (r)
		return r;
	if (title)
		out_quote(title, own_title, sizeof(own_title));
	else
		snprintf(own_title, sizeof(own_title), "CPU time%s%s",
			s.service[0] || s.source[0] ? " of " : "",
			s.service[0] ? s.service : s.source);
	r = tree_query(cli, &s, formats[format].max_nodes, formats[format].pprof, &t);
	if (r)
		return r;
	buf_init(&out, MAX_PICTURE);
	formats[format].draw(t, own_title, &out);
	if (buf_error(&out))
		return cli_fail(cli, EXIT_FAILED, "cannot draw: %s", strerror(-buf_error(&out)));
	if (file && streq(file, "-")) {
		if (out.len)
			fwrite(out.data, 1, out.len, stdout);
		return EXIT_DONE;
	}
	file = file ? file : formats[format].default_file;
	r = write_picture(cli, file, &out);
	return r ? r : report(cli, file, formats[format].name, s.service, t);
}
