/* SPDX-License-Identifier: Apache-2.0 */

/* The command table, and main(). Everything a person can type stands here once: dispatch, --help, usage errors
 * and "did you mean" are made from it. */

#include <signal.h>
#include "odictl/cli.h"

static const struct option_spec enable_options[] = {
	{"rate", VALUE, "HZ", "samples a second on each CPU, 1 to 1000 (default 99)"},
	{"types", VALUE, "LIST", "what to profile: cpu"},
	{"interval", VALUE, "TIME", "how long one batch is, 1s to 10m (default 10s)"},
	{"kernel-frames", FLAG, NULL, "include the kernel's frames (default)"},
	{"no-kernel-frames", FLAG, NULL, "leave the kernel's frames out"},
	{"all", FLAG, NULL, "the whole host is a source: one command to a flame graph"},
	{},
};

static const struct option_spec source_add_options[] = {
	{"name", VALUE, "NAME", "what the source is called (default: after what it matches)"},
	{"service-name", VALUE, "NAME", "service.name of its samples (default: the process's own)"},
	{"label", REPEAT, "K=V", "a label on its profiles; may come again"},
	{"types", VALUE, "LIST", "profile types, other than the global ones"},
	{"per-process", FLAG, NULL, "pid and executable become labels (a series each)"},
	{"per-thread", FLAG, NULL, "thread name and id become labels"},
	{"per-cpu", FLAG, NULL, "the CPU becomes a label"},
	{"disabled", FLAG, NULL, "add it switched off"},
	{},
};

static const struct option_spec destination_add_options[] = {
	{"header", REPEAT, "K=V", "an HTTP header to send; may come again"},
	{"disabled", FLAG, NULL, "add it switched off"},
	{},
};

static const struct option_spec status_options[] = {
	{"verbose", FLAG, NULL, "everything that is counted"},
	{},
};

static const struct option_spec top_options[] = {
	{"source", VALUE, "NAME", "only what this source takes"},
	{"service", VALUE, "NAME", "only this service"},
	{"since", VALUE, "TIME", "the last so long, 30s, 5m, 2h (default 1m)"},
	{"from", VALUE, "TIME", "from then: 03:12, 2026-03-01 03:12, 10m (ago)"},
	{"to", VALUE, "TIME", "until then (default now)"},
	{"by", VALUE, "WHAT", "service, process, thread, module or function (default function)"},
	{"lines", VALUE, "N", "how many rows; also -n (default 20)"},
	{"watch", FLAG, NULL, "again every two seconds"},
	{},
};

static const struct option_spec flamegraph_options[] = {
	{"source", VALUE, "NAME", "only what this source takes"},
	{"service", VALUE, "NAME", "only this service"},
	{"since", VALUE, "TIME", "the last so long (default 1m)"},
	{"from", VALUE, "TIME", "from then: 03:12, 2026-03-01 03:12, 10m (ago)"},
	{"to", VALUE, "TIME", "until then (default now)"},
	{"output", VALUE, "FILE",
		"where to write; also -o; - for standard output (default flamegraph.FORMAT)"},
	{"format", VALUE, "F",
		"html, svg, folded or json (default by the file's ending, else html)"},
	{"title", VALUE, "TEXT", "what stands above it"},
	{},
};

static const struct option_spec lines_options[] = {
	{"lines", VALUE, "N", "how many; also -n"},
	{},
};

static const struct option_spec logs_options[] = {
	{"lines", VALUE, "N", "how many of the last; also -n (default 50)"},
	{"follow", FLAG, NULL, "go on as new ones come"},
	{"level", VALUE, "L", "error, warning, info or debug, and what is graver"},
	{},
};

const struct command commands[] = {
	{.words = "status",
		.positional = "",
		.summary = "is it profiling, what, where to, what was lost",
		.details = "Exits with 0 when all that was asked for happens, 1 when not.",
		.example = "odictl status --verbose",
		.options = status_options,
		.run = cmd_status},
	{.words = "profiling enable",
		.positional = "",
		.summary = "start sampling every CPU",
		.details =
			"Acts at once and stays on over restarts. With --all everything on the host is "
			"profiled; without it, add sources.",
		.example = "odictl profiling enable --all",
		.options = enable_options,
		.run = cmd_profiling_enable},
	{.words = "profiling disable",
		.positional = "",
		.summary = "stop; no program stays loaded",
		.example = "odictl profiling disable",
		.run = cmd_profiling_disable},
	{.words = "profiling status",
		.positional = "",
		.summary = "on or off, rate, interval",
		.example = "odictl profiling status --json",
		.run = cmd_profiling_status},
	{.words = "source add",
		.positional = "[KIND [MATCH]]",
		.max = 2,
		.summary = "choose a workload to profile",
		.details =
			"KIND is systemd, process, container, cgroup or host. Without words: the "
			"candidates. Options of the kind itself (odictl help source add shows common ones): "
			"--pid N, --cmdline PATTERN, --children yes|no for process; --exact for cgroup.",
		.example = "odictl source add systemd nginx --service-name web --label team=edge",
		.options = source_add_options,
		.open_options = true,
		.run = cmd_source_add},
	{.words = "source list",
		.positional = "",
		.summary = "the sources and what they match now",
		.example = "odictl source list",
		.run = cmd_source_list},
	{.words = "source show",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "one source, its processes, and who took what it also matches",
		.example = "odictl source show web",
		.run = cmd_source_show},
	{.words = "source enable",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "switch one on",
		.example = "odictl source enable web",
		.run = cmd_source_enable},
	{.words = "source disable",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "switch one off; it stays in the list",
		.example = "odictl source disable web",
		.run = cmd_source_disable},
	{.words = "source remove",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "take one out",
		.example = "odictl source remove web --yes",
		.run = cmd_source_remove},
	{.words = "source candidates",
		.positional = "",
		.summary = "what runs here, by CPU use, ready to add",
		.example = "odictl source candidates -n 5",
		.options = lines_options,
		.run = cmd_source_candidates},
	{.words = "destination types",
		.positional = "",
		.summary = "what profiles can be sent to",
		.example = "odictl destination types",
		.run = cmd_destination_types},
	{.words = "destination add",
		.positional = "TYPE [NAME]",
		.min = 1,
		.max = 2,
		.summary = "send profiles somewhere",
		.details = "odictl destination add TYPE --help shows the type's own options.",
		.example = "odictl destination add pyroscope --url http://localhost:4040",
		.options = destination_add_options,
		.open_options = true,
		.run = cmd_destination_add},
	{.words = "destination test",
		.positional = "[NAME]",
		.max = 1,
		.summary = "send an empty profile the real way and say what happened",
		.example = "odictl destination test pyroscope",
		.run = cmd_destination_test},
	{.words = "destination list",
		.positional = "",
		.summary = "the destinations and how they do",
		.example = "odictl destination list",
		.run = cmd_destination_list},
	{.words = "destination show",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "one destination: last success, last error, what waits",
		.example = "odictl destination show pyroscope",
		.run = cmd_destination_show},
	{.words = "destination enable",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "switch one on",
		.example = "odictl destination enable pyroscope",
		.run = cmd_destination_enable},
	{.words = "destination disable",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "switch one off; it stays in the list",
		.example = "odictl destination disable pyroscope",
		.run = cmd_destination_disable},
	{.words = "destination remove",
		.positional = "NAME",
		.min = 1,
		.max = 1,
		.summary = "take one out",
		.example = "odictl destination remove pyroscope --yes",
		.run = cmd_destination_remove},
	{.words = "top",
		.positional = "",
		.summary = "where the CPU time goes, as a table",
		.example = "odictl top --source web --since 5m --by module",
		.options = top_options,
		.run = cmd_top},
	{.words = "flamegraph",
		.positional = "",
		.summary = "where the CPU time goes, as a picture",
		.example = "odictl flamegraph --from 03:12 --to 03:20 -o night.html",
		.options = flamegraph_options,
		.run = cmd_flamegraph},
	{.words = "host label",
		.positional = "[K=V ...]",
		.max = 16,
		.summary = "labels on every profile of this host (K- removes)",
		.example = "odictl host label region=eu-1 environment=prod",
		.run = cmd_host_label},
	{.words = "history",
		.positional = "",
		.summary = "what was changed, when and by whom",
		.example = "odictl history -n 5",
		.options = lines_options,
		.run = cmd_history},
	{.words = "logs",
		.positional = "",
		.summary = "what agentd logged",
		.example = "odictl logs --follow",
		.options = logs_options,
		.run = cmd_logs},
	{.words = "version",
		.positional = "",
		.summary = "versions of odictl and agentd",
		.example = "odictl version",
		.run = cmd_version},
	{.words = "help",
		.positional = "[COMMAND]",
		.max = 3,
		.summary = "this list, or one command",
		.example = "odictl help source add",
		.run = cmd_help},
};
const size_t n_commands = ARRAY_SIZE(commands);

/* Global options may stand before the command's words. */
static int skip_globals(struct cli *cli, int argc, char **argv)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (streq(argv[i], "--json")) {
			cli->json = true;
		} else if (streq(argv[i], "--yes")) {
			cli->yes = true;
		} else if (streq(argv[i], "--no-color")) {
			cli->color = false;
		} else if (streq(argv[i], "--socket") && i + 1 < argc) {
			cli->socket = argv[++i];
		} else if (strncmp(argv[i], "--socket=", 9) == 0) {
			cli->socket = argv[i] + 9;
		} else if (streq(argv[i], "--help") || streq(argv[i], "-h")) {
			help_all(stdout);
			return -1;
		} else if (streq(argv[i], "--version")) {
			puts("odictl " ODI_VERSION);
			return -1;
		} else {
			fprintf(stderr, "odictl: there is no option %s; odictl --help\n", argv[i]);
			return -2;
		}
	}
	return i;
}

int main(int argc, char **argv)
{
	struct cli cli = {
		.socket = getenv("ODI_SOCKET"),
		.color = isatty(STDOUT_FILENO) && isatty(STDERR_FILENO) && !getenv("NO_COLOR"),
	};
	struct args args = {};
	const struct command *c;
	int at, words, r;

	signal(SIGPIPE, SIG_IGN);
	if (!cli.socket || !cli.socket[0])
		cli.socket = API_DEFAULT_SOCKET;
	at = skip_globals(&cli, argc, argv);
	if (at < 0)
		return at == -1 ? EXIT_DONE : EXIT_USAGE;
	if (at == argc) {
		help_all(stderr);
		return EXIT_USAGE;
	}
	if (at + 1 < argc && help_is_group(argv[at]) &&
		(streq(argv[at + 1], "--help") || streq(argv[at + 1], "-h"))) {
		help_group(stdout, argv[at]);
		return EXIT_DONE;
	}
	c = args_find(argc - at, argv + at, &words);
	if (!c)
		return EXIT_USAGE;
	r = args_parse(&args, c, argc - at - words, argv + at + words, &cli);
	if (r)
		return r;
	if (cli.help && !(c->run == cmd_destination_add && args.n_positional)) {
		help_command(stdout, c);
		return EXIT_DONE;
	}
	r = c->run(&cli, &args);
	api_close(cli.client);
	if (fflush(stdout) != 0 || ferror(stdout))
		return r ? r : EXIT_FAILED;
	return r;
}
