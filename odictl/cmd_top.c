/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl top`: CPU seconds and cores beside shares, self and total, a running sum, function and module. */

#include <poll.h>
#include "agentd/base/text.h"
#include "odictl/screen.h"
#include "odictl/tree.h"

#define WATCH_MS 2000

struct top_view {
	enum top_by by;
	size_t lines;
	bool watched;
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

static void print_head(struct cli *cli, const struct tree *t, FILE *f, size_t width)
{
	char span[64], from[40], to[40], samples[32], seconds[32], text[400];

	text_format_duration(tree_span_ns(t), span, sizeof(span));
	out_time(t->from_unix_ns, from, sizeof(from));
	out_time(t->to_unix_ns, to, sizeof(to));
	/* The day once, if it is the same. */
	snprintf(text, sizeof(text), "%s%s CPU seconds in %s%s: %.2f cores, %s samples; %s to %s",
		out_bold(cli), out_seconds(t->total_ns, seconds, sizeof(seconds)), span,
		out_plain(cli), cores(t->total_ns, t),
		out_number(t->total_samples, samples, sizeof(samples)), from,
		strncmp(from, to, 10) == 0 && strlen(to) > 11 ? to + 11 : to);
	if (width)
		out_cut(text, width);
	fprintf(f, "%s\n", text);
	if (t->damaged)
		fprintf(f, "note: %llu damaged blocks of local profiles were left out\n",
			(unsigned long long)t->damaged);
}

/* For functions and modules self and total, for all else one figure. */
static struct table *new_table(const struct top_view *v)
{
	static const char *const functions[] = {
		"SELF", "SELF %", "SUM %", "TOTAL", "TOTAL %", "CORES", "FUNCTION", "MODULE"};
	static const char *const modules[] = {
		"SELF", "SELF %", "SUM %", "TOTAL", "TOTAL %", "CORES", "MODULE"};
	static const char *const services[] = {"CPU", "CPU %", "SUM %", "CORES", "SERVICE"};
	static const char *const processes[] = {
		"CPU", "CPU %", "SUM %", "CORES", "PROCESS", "SERVICE"};
	static const char *const threads[] = {
		"CPU", "CPU %", "SUM %", "CORES", "THREAD", "SERVICE"};

	switch (v->by) {
	case TOP_FUNCTION:
		return table_new(functions, "rrrrrrll");
	case TOP_MODULE:
		return table_new(modules, "rrrrrrl");
	case TOP_SERVICE:
		return table_new(services, "rrrrl");
	default:
		return table_new(v->by == TOP_PROCESS ? processes : threads, "rrrrll");
	}
}

static void print_rows(const struct tree *t, const struct top_view *v, const struct top_row *rows,
	size_t n, FILE *f, size_t width)
{
	bool both = v->by == TOP_FUNCTION || v->by == TOP_MODULE;
	struct table *table = new_table(v);
	uint64_t sum = 0;

	for (size_t i = 0; table && i < MIN(n, v->lines); i++) {
		const struct top_row *row = &rows[i];
		char self[32], self_p[16], sum_p[16], total[32], total_p[16], c[16];
		const char *second = v->by == TOP_FUNCTION ? row->module : row->service;

		sum += row->self_ns;
		out_seconds(row->self_ns, self, sizeof(self));
		out_seconds(row->total_ns, total, sizeof(total));
		snprintf(self_p, sizeof(self_p), "%.1f", percent(row->self_ns, t->total_ns));
		snprintf(sum_p, sizeof(sum_p), "%.1f", percent(sum, t->total_ns));
		snprintf(total_p, sizeof(total_p), "%.1f", percent(row->total_ns, t->total_ns));
		snprintf(c, sizeof(c), "%.2f", cores(row->self_ns, t));
		if (both)
			table_row(table,
				(const char *const[]){
					self, self_p, sum_p, total, total_p, c, row->name, second});
		else
			table_row(table,
				(const char *const[]){self, self_p, sum_p, c, row->name, second});
	}
	table_fit(table, f, width);
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

static bool none_recorded(const struct top_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!streq(rows[i].name, TOP_NOT_RECORDED))
			return false;
	return true;
}

static void print_text(struct cli *cli, const struct tree *t, const struct top_view *v,
	const struct top_row *rows, size_t n, FILE *f, size_t width)
{
	if (!t->total_samples) {
		out_wrap(f, "", 0,
			"no samples in this span; odictl status says whether profiling is on and what it "
			"takes",
			width);
		return;
	}
	print_head(cli, t, f, width);
	print_rows(t, v, rows, n, f, width);
	if (n > v->lines && !v->watched)
		fprintf(f, "and %zu more; -n %zu shows them\n", n - v->lines, n);
	if ((v->by == TOP_PROCESS || v->by == TOP_THREAD) && none_recorded(rows, n)) {
		char text[200];

		snprintf(text, sizeof(text),
			"to see them, a source has to record them: odictl source add host --per-%s",
			by_names[v->by]);
		out_wrap(f, "note:", 6, text, width);
	}
}

/* Asks and prints; with width, for a window of that width. */
static int show(
	struct cli *cli, struct selection *s, const struct top_view *v, FILE *f, size_t width)
{
	CLEANUP(tree_freep) struct tree *t = NULL;
	_cleanup_free_ struct top_row *rows = NULL;
	size_t n;
	int r = tree_query(cli, s, 0, false, &t);

	if (r)
		return r;
	n = top_rows(t, v->by, &rows);
	if (cli->json)
		return print_json(t, v, rows, n);
	print_text(cli, t, v, rows, n, f, width);
	return EXIT_DONE;
}

static int draw(struct cli *cli, struct selection *s, struct top_view *v)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	r = show(cli, s, v, f, out_width(stdout));
	fclose(f);
	if (!r)
		screen_draw(text, len);
	free(text);
	return r;
}

static int watch_terminal(struct cli *cli, struct selection *s, struct top_view *v, bool fit)
{
	size_t lines = v->lines;
	int r = EXIT_FAILED;

	/* No screen for an agentd that is not there. */
	if (!cli_client(cli, &r))
		return r;
	screen_enter();
	do {
		size_t rows = screen_rows();

		selection_move(s);
		v->lines = rows > 3 ? rows - 2 : 1;
		if (!fit)
			v->lines = MIN(v->lines, lines);
		r = draw(cli, s, v);
	} while (!r && screen_wait(WATCH_MS));
	screen_leave();
	return r;
}

/* Where nothing can be drawn over, one table follows the other. */
static int watch(struct cli *cli, struct selection *s, struct top_view *v, bool fit)
{
	v->watched = true;
	if (isatty(STDOUT_FILENO) && !cli->json)
		return watch_terminal(cli, s, v, fit);
	for (bool first = true;; first = false) {
		int r;

		selection_move(s);
		if (!first && !cli->json)
			puts("");
		r = show(cli, s, v, stdout, 0);
		if (r || fflush(stdout) != 0)
			return r;
		poll(NULL, 0, WATCH_MS);
	}
}

static int parse_by(struct cli *cli, const char *by, enum top_by *ret)
{
	const char *near;
	char quoted[80];

	for (size_t i = 0; i < ARRAY_SIZE(by_names); i++) {
		if (streq(by, by_names[i])) {
			*ret = (enum top_by)i;
			return 0;
		}
	}
	near = text_nearest(by, by_names, ARRAY_SIZE(by_names));
	return cli_fail(cli, EXIT_USAGE,
		"--by: '%s' is none of service, process, thread, module, function%s%s%s",
		out_quote(by, quoted, sizeof(quoted)), near ? ": did you mean " : "",
		near ? near : "", near ? "?" : "");
}

int cmd_top(struct cli *cli, struct args *args)
{
	struct selection s;
	struct top_view v = {.by = TOP_FUNCTION};
	const char *by = args_value(args, "by");
	uint64_t n = 20;
	bool watched = args_flag(args, "watch");
	int r = selection_parse(cli, args, &s);

	if (!r && by)
		r = parse_by(cli, by, &v.by);
	if (!r)
		r = args_number(cli, args, "lines", 1, 1000000, &n);
	if (!r && watched && args_value(args, "to"))
		r = cli_fail(cli, EXIT_USAGE, "--watch goes on until now: leave --to out");
	if (r)
		return r;
	v.lines = n;
	return watched ? watch(cli, &s, &v, !args_value(args, "lines"))
		       : show(cli, &s, &v, stdout, out_width(stdout));
}
