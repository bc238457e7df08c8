/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl support-bundle`: what a maintainer asks for first, in one file.
 *
 * Most of it is what odictl's own commands say: each runs as a child of its own, so that one that fails or hangs costs its
 * part and no more. Every text is searched for what may be a secret before it is packed (redact.c), on top of agentd
 * never saying one. The list of what is in it comes first: who sends it decides knowing that. It is written with the
 * caller's rights, for the caller alone, and never over a file that is there. */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "odictl/redact.h"
#include "odictl/tar.h"
#include "odictl/cli.h"

#define MAX_PART     (8U << 20) /* bytes of one part; what is longer is cut */
#define MAX_FILE     65536U     /* bytes of a file of the kernel's */
#define PART_TIME_NS (150 * NSEC_PER_SEC)
#define MAX_WORDS    16

struct part {
	const char *name, *what;
	const char *words[MAX_WORDS]; /* of odictl; or, with a program, its own */
	const char *program;          /* NULL: odictl */
	const char *path;             /* a file instead, of at most MAX_FILE */
	bool network;                 /* --no-network is put behind the words */
};

static const struct part parts[] = {
	{.name = "version.json",
		.what = "versions of odictl and agentd",
		.words = {"version", "--json"}},
	{.name = "status.txt", .what = "odictl status --verbose", .words = {"status", "--verbose"}},
	{.name = "status.json",
		.what = "the same, for programs",
		.words = {"status", "--verbose", "--json"}},
	{.name = "doctor.json",
		.what = "what may be wrong with this host",
		.words = {"doctor", "--json"},
		.network = true},
	{.name = "config.json",
		.what = "every setting and where it comes from, without secrets",
		.words = {"config", "show", "--json"}},
	{.name = "config.yaml",
		.what = "what is set, without secrets",
		.words = {"config", "export"}},
	{.name = "files.json",
		.what = "whether the configuration files are right",
		.words = {"config", "validate", "--json"}},
	{.name = "history.json",
		.what = "the last 200 changes of configuration, and by whom",
		.words = {"history", "-n", "200", "--json"}},
	{.name = "sources.json",
		.what = "the sources and what they match",
		.words = {"source", "list", "--json"}},
	{.name = "destinations.json",
		.what = "the destinations and how they do, without secrets",
		.words = {"destination", "list", "--json"}},
	{.name = "symbols.json",
		.what = "binaries that were met, and what names them",
		.words = {"symbols", "list", "--all", "--json"}},
	{.name = "metrics.txt", .what = "agentd's own metrics", .words = {"metrics"}},
	{.name = "log.txt",
		.what = "the last 1000 lines that agentd logged",
		.words = {"logs", "-n", "1000"}},
	{.name = "journal.txt",
		.what = "the journal of its units, if there is one",
		.program = "journalctl",
		.words = {"-u", "odi.service", "-u", "odi-exporter.service", "-n", "2000", "-o",
			"short-iso", "--no-pager", "-q"}},
	{.name = "unit.txt",
		.what = "its units as systemd has them, if it runs here",
		.program = "systemctl",
		.words = {"show", "odi.service", "odi-exporter.service", "--no-pager", "-p",
			"ActiveState,SubState,Result,NRestarts,MemoryCurrent,CPUUsageNSec,FragmentPath,"
			"DropInPaths,CapabilityBoundingSet"}},
	{.name = "kernel/version", .what = "the kernel's version", .path = "/proc/version"},
	{.name = "kernel/version_signature",
		.what = "the same on Ubuntu",
		.path = "/proc/version_signature"},
	{.name = "kernel/os-release", .what = "the distribution", .path = "/etc/os-release"},
	{.name = "kernel/lockdown",
		.what = "whether the kernel is locked down",
		.path = "/sys/kernel/security/lockdown"},
	{.name = "kernel/perf_event_paranoid",
		.what = "who may sample",
		.path = "/proc/sys/kernel/perf_event_paranoid"},
	{.name = "kernel/kptr_restrict",
		.what = "who may see addresses of the kernel",
		.path = "/proc/sys/kernel/kptr_restrict"},
	{.name = "kernel/bpf_jit_enable",
		.what = "whether BPF is compiled",
		.path = "/proc/sys/net/core/bpf_jit_enable"},
	{.name = "kernel/cpu",
		.what = "which CPUs are online",
		.path = "/sys/devices/system/cpu/online"},
	{.name = "kernel/meminfo", .what = "memory", .path = "/proc/meminfo"},
	{.name = "kernel/pressure-cpu", .what = "how busy CPUs are", .path = "/proc/pressure/cpu"},
	{.name = "kernel/loadavg", .what = "the same in one line", .path = "/proc/loadavg"},
	{.name = "kernel/cgroups", .what = "control group hierarchies", .path = "/proc/cgroups"},
};

/* ---- running --------------------------------------------------------------------------------------- */

/* In the child. */
static void run(struct cli *cli, const struct part *p, bool network, int out)
{
	char *argv[MAX_WORDS + 8];
	int n = 0, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	argv[n++] = (char *)(p->program ? p->program : "odictl");
	for (size_t i = 0; i < MAX_WORDS && p->words[i]; i++)
		argv[n++] = (char *)p->words[i];
	if (!p->program) {
		if (p->network && !network)
			argv[n++] = (char *)"--no-network";
		argv[n++] = (char *)"--no-color";
		argv[n++] = (char *)"--socket";
		argv[n++] = (char *)cli->socket;
	}
	argv[n] = NULL;
	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	if (p->program)
		execvp(p->program, argv);
	else
		execv("/proc/self/exe", argv);
	_exit(127);
}

/* Until its end, MAX_PART or the deadline. */
static void collect(int fd, struct buf *text)
{
	uint64_t deadline = clock_monotonic_ns() + PART_TIME_NS, now;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while ((now = clock_monotonic_ns()) < deadline && text->len < MAX_PART) {
		char *room;
		ssize_t n;

		if (poll(&p, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) <= 0)
			continue;
		room = buf_reserve(text, 65536);
		if (!room)
			return;
		n = read(fd, room, 65536);
		if (n <= 0)
			return;
		buf_commit(text, (size_t)n);
	}
	buf_str(text, "\n[cut here: too long, or too late]\n");
}

static void run_part(struct cli *cli, const struct part *p, bool network, struct buf *text)
{
	int ends[2], status = 0;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return;
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		run(cli, p, network, ends[1]);
	close(ends[1]);
	if (pid > 0) {
		collect(ends[0], text);
		kill(pid, SIGKILL); /* ended long ago, if all is well */
		waitpid(pid, &status, 0);
	}
	close(ends[0]);
	/* No such program: there is nothing of it to say. */
	if (p->program && WIFEXITED(status) && WEXITSTATUS(status) == 127)
		buf_reset(text);
}

/* ---- packing --------------------------------------------------------------------------------------- */

struct bundle {
	struct cli *cli;
	struct buf tar, list;
	struct json json;
	uint64_t now_s;
	size_t n, replaced;
};

/* text: made clean of NUL bytes, so that all of it is searched. */
static void pack(struct bundle *b, const char *name, const char *what, struct buf *text)
{
	_cleanup_buf_ struct buf clean;
	char size[32], line[300];
	size_t len;

	buf_init(&clean, 0);
	if (!text->len)
		return;
	for (size_t i = 0; i < text->len; i++)
		if (!text->data[i])
			text->data[i] = '?';
	len = strlen(name);
	b->replaced += len > 5 && streq(name + len - 5, ".json")
		? redact_json((const char *)text->data, &clean)
		: redact((const char *)text->data, &clean);
	tar_add(&b->tar, name, clean.data, clean.len, b->now_s);
	text_format_size(clean.len, size, sizeof(size));
	snprintf(line, sizeof(line), "%-28s %10s  %s\n", name, size, what);
	buf_str(&b->list, line);
	json_open(&b->json, NULL, '{');
	json_str(&b->json, "name", name);
	json_uint(&b->json, "bytes", clean.len);
	json_str(&b->json, "what", what);
	json_close(&b->json, '}');
	b->n++;
}

/* Of the kernel's configuration only what matters here. */
static void pack_kernel_config(struct bundle *b)
{
	static const char *const wanted[] = {"CONFIG_BPF", "CONFIG_DEBUG_INFO_BTF",
		"CONFIG_PERF_EVENTS", "CONFIG_HAVE_BPF", "CONFIG_KPROBE", "CONFIG_FTRACE",
		"CONFIG_CGROUP", "CONFIG_HZ", "CONFIG_NO_HZ", "CONFIG_PREEMPT", "CONFIG_UNWINDER",
		"CONFIG_FUNCTION_TRACER", "CONFIG_LOCKDOWN", "CONFIG_SECURITY_LOCKDOWN",
		"CONFIG_KALLSYMS", "CONFIG_PARAVIRT"};
	_cleanup_buf_ struct buf all, some;
	struct utsname u = {};
	char path[200];

	buf_init(&all, 0);
	buf_init(&some, 0);
	uname(&u);
	snprintf(path, sizeof(path), "/boot/config-%s", u.release);
	io_read_file(AT_FDCWD, path, &all, 1U << 20);
	for (const char *p = all.len ? (const char *)all.data : ""; *p;) {
		size_t len = strcspn(p, "\n");

		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
			if (text_starts(p, wanted[i])) {
				buf_add(&some, p, len);
				buf_str(&some, "\n");
				break;
			}
		p += len + (p[len] == '\n');
	}
	pack(b, "kernel/config", "what of BPF, events and tracing the kernel was built with",
		&some);
}

static void fill(struct bundle *b, bool network)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		_cleanup_buf_ struct buf text;

		buf_init(&text, MAX_PART + 65536 * 2);
		if (parts[i].path)
			io_read_file(AT_FDCWD, parts[i].path, &text, MAX_FILE);
		else
			run_part(b->cli, &parts[i], network, &text);
		pack(b, parts[i].name, parts[i].what, &text);
	}
	pack_kernel_config(b);
	{
		_cleanup_buf_ struct buf list;

		buf_init(&list, 0);
		buf_add(&list, b->list.data, b->list.len);
		pack(b, "CONTENTS", "this list", &list);
	}
	tar_end(&b->tar);
}

/* A new file that only its owner reads. */
static int write_out(struct cli *cli, const char *name, const struct buf *data)
{
	_cleanup_close_ int fd =
		open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	char quoted[200];
	int r;

	out_quote(name, quoted, sizeof(quoted));
	if (fd < 0 && errno == EEXIST)
		return cli_fail(
			cli, EXIT_FAILED, "%s is there already: -o gives another name", quoted);
	if (fd < 0)
		return cli_fail(cli, EXIT_FAILED, "cannot write %s: %m", quoted);
	r = io_write_all(fd, data->data, data->len);
	if (r < 0) {
		unlink(name);
		return cli_fail(cli, EXIT_FAILED, "cannot write %s: %s", quoted, strerror(-r));
	}
	return 0;
}

static void default_name(char *out, size_t size)
{
	struct utsname u = {};
	char when[32];
	time_t now = time(NULL);
	struct tm tm;

	uname(&u);
	for (char *p = u.nodename; *p; p++)
		*p = *p == '/' ? '-' : *p;
	strftime(when, sizeof(when), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
	snprintf(out, size, "odi-support-%.64s-%s.tar.gz", u.nodename, when);
}

static int finish(struct bundle *b, const char *name)
{
	_cleanup_buf_ struct buf packed;
	char size[32];
	int r;

	buf_init(&packed, 0);
	if (buf_error(&b->tar) || compress_gzip(b->tar.data, b->tar.len, 6, &packed) < 0)
		return cli_fail(b->cli, EXIT_FAILED, "out of memory");
	r = write_out(b->cli, name, &packed);
	if (r)
		return r;
	text_format_size(packed.len, size, sizeof(size));
	if (!b->cli->json)
		printf("\n%s, %s; look into it before you send it: tar -tzf %s\n", name, size,
			name);
	return 0;
}

static void print_list(const struct bundle *b)
{
	fputs(b->list.len ? (const char *)b->list.data : "", stdout);
	printf("\nNames of hosts, users, services, programs and addresses of destinations are in it; "
	       "profiles and\nsecrets are not: %zu place%s that may have been secret %s left out.\n",
		b->replaced, b->replaced == 1 ? "" : "s", b->replaced == 1 ? "was" : "were");
}

int cmd_support_bundle(struct cli *cli, struct args *args)
{
	bool only_list = args_flag(args, "list");
	const char *name = args_value(args, "output");
	struct bundle b = {.cli = cli, .now_s = clock_unix_ns() / NSEC_PER_SEC};
	char own[200];
	int r = 0;

	if (!name)
		default_name(own, sizeof(own));
	name = name ? name : own;
	buf_init(&b.tar, 0);
	buf_init(&b.list, 0);
	json_init(&b.json);
	json_open(&b.json, NULL, '{');
	json_open(&b.json, "parts", '[');
	fill(&b, !args_flag(args, "no-network"));
	json_close(&b.json, ']');
	json_uint(&b.json, "left_out", b.replaced);
	json_str(&b.json, "file", only_list ? "" : name);
	json_close(&b.json, '}');
	if (!cli->json)
		print_list(&b);
	if (!only_list && !cli->json && !cli->yes && cli_on_terminal())
		r = cli_confirm(cli, "Write it?");
	if (!r && !only_list)
		r = finish(&b, name);
	if (!r && cli->json)
		r = json_print(&b.json, stdout);
	else
		buf_deinit(&b.json.out);
	buf_deinit(&b.tar);
	buf_deinit(&b.list);
	return r;
}
