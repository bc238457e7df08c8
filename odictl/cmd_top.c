/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl top`: CPU seconds and cores beside shares, self and total, a running sum, function and module. */

#include <poll.h>
#include <sys/ioctl.h>
#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/tree.h"

struct top_view {
	enum top_by by;
	size_t lines;
};

static const char *const by_names[] = {"service", "process", "thread", "module", "function"};

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static double cores(uint64_t ns, const struct tree *t)
{
	return tree_span_ns(t) ? (double)ns / (double)tree_span_ns(t) : 0;
}

static void print_head(struct cli *cli, const struct tree *t)
{
	char span[64], from[40], to[40], samples[32], seconds[32];

	text_format_duration(tree_span_ns(t), span, sizeof(span));
	printf("%s%s CPU seconds in %s%s (%.2f cores, %s samples), %s to %s\n", out_bold(cli),
		out_seconds(t->total_ns, seconds, sizeof(seconds)), span, out_plain(cli),
		cores(t->total_ns, t), out_number(t->total_samples, samples, sizeof(samples)),
		out_time(t->from_unix_ns, from, sizeof(from)),
		out_time(t->to_unix_ns, to, sizeof(to)));
	if (t->damaged)
		printf("note: %llu damaged blocks of local profiles were left out\n",
			(unsigned long long)t->damaged);
}

static void print_rows(
	const struct tree *t, const struct top_view *v, const struct top_row *rows, size_t n)
{
	static const char *const functions[] = {
		"SELF", "SELF %", "SUM %", "TOTAL", "TOTAL %", "CORES", "FUNCTION", "MODULE"};
	static const char *const groups[] = {"CPU", "CPU %", "SUM %", "CORES", "", "SERVICE"};
	bool function = v->by == TOP_FUNCTION, module = v->by == TOP_MODULE;
	const char *head[8];
	struct table *table;
	uint64_t sum = 0;

	memcpy(head, functions, sizeof(head));
	if (module) {
		head[6] = "MODULE";
		head[7] = "";
	}
	if (!function && !module) {
		memcpy(head, groups, sizeof(groups));
		head[4] = v->by == TOP_SERVICE ? "SERVICE"
			: v->by == TOP_PROCESS ? "PROCESS"
					       : "THREAD";
		if (v->by == TOP_SERVICE)
			head[5] = "";
	}
	table = table_new(head, function || module ? "rrrrrrll" : "rrrrll");
	for (size_t i = 0; table && i < MIN(n, v->lines); i++) {
		char self[32], self_p[16], sum_p[16], total[32], total_p[16], c[16];

		sum += rows[i].self_ns;
		out_seconds(rows[i].self_ns, self, sizeof(self));
		out_seconds(rows[i].total_ns, total, sizeof(total));
		snprintf(self_p, sizeof(self_p), "%.1f", percent(rows[i].self_ns, t->total_ns));
		snprintf(sum_p, sizeof(sum_p), "%.1f", percent(sum, t->total_ns));
		snprintf(total_p, sizeof(total_p), "%.1f", percent(rows[i].total_ns, t->total_ns));
		snprintf(c, sizeof(c), "%.2f", cores(rows[i].self_ns, t));
		if (function || module)
			table_row(table,
				(const char *const[]){self, self_p, sum_p, total, total_p, c,
					rows[i].name, rows[i].module});
		else
			table_row(table,
				(const char *const[]){self, self_p, sum_p, c, rows[i].name,
					v->by == TOP_SERVICE ? "" : rows[i].module});
	}
	table_print(table, stdout);
	if (n > v->lines)
		printf("and %zu more; -n %zu shows them\n", n - v->lines, n);
}

static int print_json(
	const struct tree *t, const struct top_view *v, const struct top_row *rows, size_t n)
{
	struct json j;
	uint64_t sum = 0;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_str(&j, "by", by_names[v->by]);
	json_time(&j, "from", t->from_unix_ns);
	json_time(&j, "to", t->to_unix_ns);
	json_uint(&j, "span_ns", tree_span_ns(t));
	json_uint(&j, "total_ns", t->total_ns);
	json_uint(&j, "total_samples", t->total_samples);
	json_num(&j, "cores", cores(t->total_ns, t));
	json_uint(&j, "damaged_blocks", t->damaged);
	json_uint(&j, "rows_in_all", n);
	json_open(&j, "rows", '[');
	for (size_t i = 0; i < MIN(n, v->lines); i++) {
		sum += rows[i].self_ns;
		json_open(&j, NULL, '{');
		json_str(&j, "name", rows[i].name);
		if (v->by == TOP_FUNCTION)
			json_str(&j, "module", rows[i].module);
		if (v->by == TOP_PROCESS || v->by == TOP_THREAD)
			json_str(&j, "service", rows[i].service);
		json_uint(&j, "self_ns", rows[i].self_ns);
		json_num(&j, "self_share", percent(rows[i].self_ns, t->total_ns) / 100);
		json_num(&j, "sum_share", percent(sum, t->total_ns) / 100);
		json_uint(&j, "total_ns", rows[i].total_ns);
		json_num(&j, "total_share", percent(rows[i].total_ns, t->total_ns) / 100);
		json_num(&j, "cores", cores(rows[i].self_ns, t));
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

static void print_nothing(const struct top_view *v)
{
	puts("no samples in this span; odictl status says whether profiling is on and what it takes");
}

static int show(struct cli *cli, struct selection *s, const struct top_view *v, bool clear)
{
	CLEANUP(tree_freep) struct tree *t = NULL;
	_cleanup_free_ struct top_row *rows = NULL;
	size_t n;
	int r = tree_query(cli, s, 0, &t);

	if (r)
		return r;
	n = top_rows(t, v->by, &rows);
	if (cli->json)
		return print_json(t, v, rows, n);
	if (clear)
		fputs("\033[H\033[2J", stdout);
	if (!t->total_samples) {
		print_nothing(v);
		return EXIT_DONE;
	}
	print_head(cli, t);
	print_rows(t, v, rows, n);
	if ((v->by == TOP_PROCESS || v->by == TOP_THREAD) && n == 1 && rows[0].name[0] == '(')
		printf("note: to see them, a source has to record them: odictl source add host --per-%s\n",
			by_names[v->by]);
	return EXIT_DONE;
}

static int watch(struct cli *cli, struct selection *s, struct top_view *v, bool fit)
{
	for (;;) {
		struct winsize size;
		int r;

		if (s->relative) {
			s->to_unix_ns = clock_unix_ns();
			s->from_unix_ns = s->to_unix_ns - MIN(s->since_ns, s->to_unix_ns);
		}
		if (fit && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 6)
			v->lines = size.ws_row - 4U;
		r = show(cli, s, v, isatty(STDOUT_FILENO));
		if (r)
			return r;
		if (fflush(stdout) != 0)
			return EXIT_FAILED;
		poll(NULL, 0, 2000);
	}
}

int cmd_top(struct cli *cli, struct args *args)
{
	struct selection s;
	struct top_view v = {.by = TOP_FUNCTION, .lines = 20};
	const char *by = args_value(args, "by"), *lines = args_value(args, "lines"), *near;
	uint64_t n;
	int r = selection_parse(cli, args, &s);

	if (r)
		return r;
	if (by) {
		for (v.by = 0; v.by <= TOP_FUNCTION && !streq(by, by_names[v.by]); v.by++)
			;
		near = text_nearest(by, by_names, ARRAY_SIZE(by_names));
		if (v.by > TOP_FUNCTION)
			return cli_fail(cli, EXIT_USAGE,
				"--by: '%s' is none of service, process, thread, module, function%s%s%s",
				by, near ? ": did you mean " : "", near ? near : "",
				near ? "?" : "");
	}
	if (lines) {
		if (text_u64(lines, 1, 1000000, &n) < 0)
			return cli_fail(cli, EXIT_USAGE,
				"-n: expected a number from 1 to 1000000, got '%s'", lines);
		v.lines = n;
	}
	if (args_flag(args, "watch"))
		return watch(cli, &s, &v, !lines);
	return show(cli, &s, &v, false);
}
