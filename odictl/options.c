/* SPDX-License-Identifier: Apache-2.0 */

/* The options of each command, in the order in which --help shows them. Which command has which is in commands.c. */

#include "odictl/options.h"

const struct option_spec enable_options[] = {
	{.name = "rate",
		.kind = VALUE,
		.value = "HZ",
		.help = "samples a second on each CPU, 1 to 1000 (default 99)"},
	{.name = "types",
		.kind = VALUE,
		.value = "LIST",
		.help = "what to profile: cpu",
		.choices = "cpu"},
	{.name = "interval",
		.kind = VALUE,
		.value = "TIME",
		.help = "how long one batch is, 1s to 10m (default 10s)"},
	{.name = "kernel-frames", .help = "include the kernel's frames (default)"},
	{.name = "no-kernel-frames", .help = "leave the kernel's frames out"},
	{.name = "max-frames",
		.kind = VALUE,
		.value = "N",
		.help = "frames of user space in one stack, 1 to 1024 (default 256)"},
	{.name = "unwind-memory",
		.kind = VALUE,
		.value = "SIZE",
		.help = "kernel memory for unwind information, 1MB to 1GB (default 8MB)"},
	{.name = "budget",
		.kind = VALUE,
		.value = "PERCENT",
		.help = "of the host's CPU time that profiling may take (default 2; 0: no limit)"},
	{.name = "demangle",
		.kind = VALUE,
		.value = "MODE",
		.help = "how C++ and Rust names are shown: full (with parameters), templates (default), "
			"simple (without template arguments) or none",
		.choices = "full templates simple none"},
	{.name = "all", .help = "the whole host is a source: one command to a flame graph"},
	{},
};

const struct option_spec source_add_options[] = {
	{.name = "name",
		.kind = VALUE,
		.value = "NAME",
		.help = "what the source is called (default: as its service, else after what it matches)"},
	{.name = "service-name",
		.kind = VALUE,
		.value = "NAME",
		.help = "service.name of its samples (default: the process's own)"},
	{.name = "label",
		.kind = REPEAT,
		.value = "K=V",
		.help = "a label on its profiles; may come again",
		.stored = "labels",
		.map = true},
	{.name = "types",
		.kind = VALUE,
		.value = "LIST",
		.help = "profile types, other than the global ones"},
	{.name = "per-process", .help = "pid and executable become labels (a series each)"},
	{.name = "per-thread", .help = "thread name and id become labels"},
	{.name = "per-cpu", .help = "the CPU becomes a label"},
	{.name = "disabled", .help = "add it switched off"},
	{},
};

const struct option_spec destination_add_options[] = {
	{.name = "name", .kind = VALUE, .value = "NAME", .help = "what it is called (its type)"},
	{.name = "disabled", .help = "add it switched off"},
	{},
};

const struct option_spec destination_test_options[] = {
	{.name = "all", .help = "all of them"},
	{},
};

const struct option_spec status_options[] = {
	{.name = "verbose", .help = "everything that is counted", .letter = 'v'},
	{},
};

const struct option_spec top_options[] = {
	{.name = "source", .kind = VALUE, .value = "NAME", .help = "only what this source takes"},
	{.name = "service", .kind = VALUE, .value = "NAME", .help = "only this service"},
	{.name = "since",
		.kind = VALUE,
		.value = "TIME",
		.help = "the last so long, 30s, 5m, 2h (default 1m)"},
	{.name = "from",
		.kind = VALUE,
		.value = "TIME",
		.help = "from then: 03:12, 2026-03-01 03:12, 10m (ago)"},
	{.name = "to", .kind = VALUE, .value = "TIME", .help = "until then (default now)"},
	{.name = "by",
		.kind = VALUE,
		.value = "WHAT",
		.help = "service, process, thread, module or function (default function)",
		.choices = "service process thread module function"},
	{.name = "lines",
		.kind = VALUE,
		.value = "N",
		.help = "how many rows (default 20; all that fit with --watch)",
		.letter = 'n'},
	{.name = "watch", .help = "again every two seconds, until q or Ctrl-C"},
	{},
};

const struct option_spec flamegraph_options[] = {
	{.name = "source", .kind = VALUE, .value = "NAME", .help = "only what this source takes"},
	{.name = "service", .kind = VALUE, .value = "NAME", .help = "only this service"},
	{.name = "since", .kind = VALUE, .value = "TIME", .help = "the last so long (default 1m)"},
	{.name = "from",
		.kind = VALUE,
		.value = "TIME",
		.help = "from then: 03:12, 2026-03-01 03:12, 10m (ago)"},
	{.name = "to", .kind = VALUE, .value = "TIME", .help = "until then (default now)"},
	{.name = "output",
		.kind = VALUE,
		.value = "FILE",
		.help = "where to write; - is standard output (default flamegraph.FORMAT)",
		.letter = 'o'},
	{.name = "format",
		.kind = VALUE,
		.value = "F",
		.help = "html, svg, folded, json or pprof (default by the file's ending, else html)",
		.choices = "html svg folded json pprof"},
	{.name = "title", .kind = VALUE, .value = "TEXT", .help = "what stands above it"},
	{},
};

const struct option_spec symbols_options[] = {
	{.name = "limit",
		.kind = VALUE,
		.value = "N",
		.help = "how many binaries (default 20)",
		.letter = 'n'},
	{.name = "all", .help = "every binary"},
	{},
};

const struct option_spec symbols_fetch_options[] = {
	{.name = "url",
		.kind = REPEAT,
		.value = "URL",
		.help = "a debuginfod server; may come again, best first (default "
			"https://debuginfod.elfutils.org)"},
	{},
};

const struct option_spec lines_options[] = {
	{.name = "lines", .kind = VALUE, .value = "N", .help = "how many", .letter = 'n'},
	{},
};

const struct option_spec spool_drop_options[] = {
	{.name = "older-than",
		.kind = VALUE,
		.value = "TIME",
		.help = "what ended so long ago: 90s, 30m, 1h, 2d; 0s is everything"},
	{},
};

const struct option_spec config_show_options[] = {
	{.name = "origin", .help = "where each value comes from: file and line, odictl, default"},
	{.name = "changed", .help = "only what is no default"},
	{},
};

const struct option_spec config_apply_options[] = {
	{.name = "file",
		.kind = VALUE,
		.value = "FILE",
		.help = "the YAML file; -: standard input",
		.letter = 'f'},
	{.name = "dry-run", .help = "say what would change, and change nothing"},
	{},
};

const struct option_spec dry_run_options[] = {
	{.name = "dry-run", .help = "say what would change, and change nothing"},
	{},
};

const struct option_spec doctor_options[] = {
	{.name = "no-network",
		.help = "leave out the tests of destinations, each of which sends an empty profile"},
	{},
};

const struct option_spec bundle_options[] = {
	{.name = "output",
		.kind = VALUE,
		.value = "FILE",
		.help = "where it goes (default odi-support-HOST-TIME.tar.gz here)",
		.letter = 'o'},
	{.name = "list", .help = "say what would be in it, and write nothing"},
	{.name = "no-network", .help = "without the doctor's tests of destinations"},
	{},
};

const struct option_spec logs_options[] = {
	{.name = "lines",
		.kind = VALUE,
		.value = "N",
		.help = "how many of the last (default 50)",
		.letter = 'n'},
	{.name = "follow", .help = "go on as new ones come", .letter = 'f'},
	{.name = "level",
		.kind = VALUE,
		.value = "L",
		.help = "error, warning, info or debug, and what is graver",
		.choices = "error warning info debug"},
	{},
};

const struct option_spec help_options[] = {
	{.name = "man", .help = "as a manual page, in the language of man(7)"},
	{.name = "man-pages", .help = "the words that have manual pages"},
	{},
};
