/* SPDX-License-Identifier: Apache-2.0 */

/* source add, list, show, enable, disable, remove, candidates. What a kind is called, what it matches and which
 * options it has is known to agentd: it is asked, so that a new kind needs nothing here. */

#include "agentd/base/text.h"
#include "odictl/cli.h"
#include "odictl/named.h"

static int get_sources(struct cli *cli, const char *name, bool images, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSources get = CONTROL__GET_SOURCES__INIT;

	get.name = (char *)(name ? name : "");
	get.images = images;
	request.verb_case = CONTROL__REQUEST__VERB_GET_SOURCES;
	request.get_sources = &get;
	return cli_call(cli, &request, ret);
}

static int get_candidates(struct cli *cli, uint32_t limit, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetCandidates get = CONTROL__GET_CANDIDATES__INIT;

	get.limit = limit;
	request.verb_case = CONTROL__REQUEST__VERB_GET_CANDIDATES;
	request.get_candidates = &get;
	return cli_call(cli, &request, ret);
}

static void describe_matches(const Control__SourceState *s, char *out, size_t size)
{
	if (!s->enabled)
		snprintf(out, size, "disabled");
	else if (s->images_now)
		snprintf(out, size, "%u process%s", s->images_now, s->images_now == 1 ? "" : "es");
	else if (s->claimed_by_others)
		snprintf(out, size, "%u, all taken by others", s->claimed_by_others);
	else
		snprintf(out, size, "matches nothing yet");
}

static void json_source(struct json *j, const Control__SourceState *s)
{
	json_open(j, NULL, '{');
	json_str(j, "name", s->name);
	json_str(j, "kind", s->kind);
	json_str(j, "match", s->match);
	json_bool(j, "enabled", s->enabled);
	json_str(j, "service_name", s->service_name);
	named_json_pairs(j, "options", s->options, s->n_options);
	named_json_pairs(j, "labels", s->labels, s->n_labels);
	json_str(j, "layer", s->layer);
	json_str(j, "origin", s->origin);
	json_uint(j, "processes", s->images_now);
	json_uint(j, "taken_by_others", s->claimed_by_others);
	json_uint(j, "samples", s->samples);
	json_time(j, "last_sample", s->last_sample_unix_ns);
	for (int lost = 0; lost < 2; lost++) {
		Control__ImageState **list = lost ? s->lost_claims : s->images;
		size_t n = lost ? s->n_lost_claims : s->n_images;

		json_open(j, lost ? "lost_claims" : "images", '[');
		for (size_t i = 0; i < n; i++) {
			json_open(j, NULL, '{');
			json_uint(j, "pid", list[i]->pid);
			json_str(j, "comm", list[i]->comm);
			json_str(j, "exe", list[i]->exe);
			json_str(j, "service", list[i]->service);
			json_str(j, "unit", list[i]->unit);
			json_str(j, "container", list[i]->container);
			json_str(j, "cgroup", list[i]->cgroup);
			json_uint(j, "samples", list[i]->samples);
			json_str(j, "taken_by", list[i]->taken_by);
			json_close(j, '}');
		}
		json_close(j, ']');
	}
	json_close(j, '}');
}

/* ---- add ---- */

static int print_candidates(struct cli *cli, const Control__Candidates *c, FILE *f, bool numbered)
{
	static const char *const headers[] = {
		"", "CORES", "CPU TIME", "PROCESSES", "WHAT", "TAKEN BY", "TO ADD IT"};
	struct table *t = table_new(headers, "rrrrlll");

	for (size_t i = 0; t && i < c->n_candidates; i++) {
		const Control__Candidate *x = c->candidates[i];
		char number[24] = "", cores[16], cpu[32], n[16], what[400];
		const char *cells[] = {
			number, cores, cpu, n, what, x->taken_by, x->taken_by[0] ? "" : x->command};

		if (numbered)
			snprintf(number, sizeof(number), "%zu", i + 1);
		snprintf(cores, sizeof(cores), "%.2f", x->cores);
		text_format_duration(x->cpu_ns, cpu, sizeof(cpu));
		snprintf(n, sizeof(n), "%u", x->processes);
		snprintf(what, sizeof(what), "%s %s", x->kind, x->match);
		table_row(t, cells);
	}
	table_print(t, f);
	return EXIT_DONE;
}

/* `odictl source add`, bare: on a terminal the candidates to choose from, else usage and candidates. */
static int choose(struct cli *cli, struct args *args, Control__Reply **candidates)
{
	char line[32] = "";
	uint64_t n;
	int r = get_candidates(cli, 15, candidates);

	if (r)
		return r;
	if (!(*candidates)->candidates->n_candidates)
		return cli_fail(cli, EXIT_USAGE, "usage: odictl source add KIND [MATCH]");
	if (!cli_on_terminal() || cli->json) {
		fprintf(stderr, "usage: odictl source add KIND [MATCH]; what runs here:\n");
		print_candidates(cli, (*candidates)->candidates, stderr, false);
		return EXIT_USAGE;
	}
	print_candidates(cli, (*candidates)->candidates, stdout, true);
	printf("number to add (nothing: none): ");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return EXIT_USAGE;
	line[strcspn(line, "\n")] = '\0';
	if (!line[0])
		return EXIT_USAGE;
	if (text_u64(line, 1, (*candidates)->candidates->n_candidates, &n) < 0)
		return cli_fail(cli, EXIT_USAGE, "'%s' is none of the numbers", line);
	args->positional[0] = (*candidates)->candidates->candidates[n - 1]->kind;
	args->positional[1] = (*candidates)->candidates->candidates[n - 1]->match;
	args->n_positional = 2;
	return 0;
}

/* What a source is called when nobody says: by what it matches. */
static void default_name(const char *kind, const char *match, char *out, size_t size)
{
	const char *from = match[0] ? match : kind, *slash = strrchr(from, '/');
	size_t n = 0;

	if (slash && slash[1])
		from = slash + 1;
	for (; *from && n + 1 < MIN(size, (size_t)64); from++) {
		bool fine = (*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') ||
			(*from >= '0' && *from <= '9') || strchr("._@:-", *from);

		if (!n && (!fine || *from == '-' || *from == '.'))
			continue;
		out[n++] = fine ? *from : '-';
	}
	while (n && out[n - 1] == '-')
		n--;
	out[n] = '\0';
	if (n > 8 && streq(out + n - 8, ".service"))
		out[n - 8] = '\0';
	if (!out[0])
		snprintf(out, size, "%s", kind);
}

static int add_changes(
	struct cli *cli, struct args *args, struct change_list *l, char *name, size_t size)
{
	const char *kind = args->positional[0],
		   *match = args->n_positional > 1 ? args->positional[1] : "",
		   *given_name = args_value(args, "name");
	Control__Change *first;

	if (given_name)
		snprintf(name, size, "%s", given_name);
	else
		default_name(kind, match, name, size);
	if (!text_is_name(name))
		return cli_fail(cli, EXIT_USAGE,
			"'%.80s' is no name for a source: 1 to 64 letters, digits, and . _ - @ :; choose "
			"one with --name",
			name);
	first = change_add(l, kind, "sources/%s/kind", name);
	if (first)
		first->must_not_exist = true;
	if (match[0])
		change_add(l, match, "sources/%s/match", name);
	change_add(l, args_flag(args, "disabled") ? "false" : "true", "sources/%s/enabled", name);
	for (size_t i = 0; i < args->n_given; i++) {
		const struct given *g = &args->given[i];
		char key[200];
		const char *value;

		if (streq(g->name, "name") || streq(g->name, "disabled"))
			continue;
		if (streq(g->name, "label")) {
			if (!args_key_value(g->value, key, sizeof(key), &value))
				return EXIT_USAGE;
			change_add(l, value, "sources/%s/labels/%s", name, key);
		} else if (streq(g->name, "service-name") || streq(g->name, "types")) {
			change_add(l, g->value, "sources/%s/%s", name, g->name);
		} else if (text_starts(g->name, "per-")) {
			change_add(l, g->value ? g->value : "true", "sources/%s/%s", name, g->name);
		} else {
			change_add(l, g->value ? g->value : "true", "sources/%s/options/%s", name,
				g->name);
		}
	}
	return 0;
}

static int report_added(struct cli *cli, const char *name, const Control__Applied *applied)
{
	Control__Reply *reply = NULL;
	const Control__SourceState *s;
	char matches[64];
	struct json j;
	int r = get_sources(cli, name, false, &reply);

	if (r)
		return r;
	if (!reply->sources->n_sources) {
		api_reply_free(reply);
		return cli_fail(cli, EXIT_FAILED, "source %s is gone again", name);
	}
	s = reply->sources->sources[0];
	describe_matches(s, matches, sizeof(matches));
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_uint(&j, "revision", applied->revision);
		json_open(&j, "sources", '[');
		json_source(&j, s);
		json_close(&j, ']');
		named_json_strings(&j, "warnings", applied->warnings, applied->n_warnings);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		printf("source %s (%s%s%s): %s%s\n", s->name, s->kind, s->match[0] ? " " : "",
			s->match, s->images_now && s->enabled ? "matches " : "", matches);
		for (size_t i = 0; i < applied->n_warnings; i++)
			printf("note: %s\n", applied->warnings[i]);
	}
	api_reply_free(reply);
	return r;
}

int cmd_source_add(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL, *candidates = NULL;
	char name[300], reason[400];
	int r = 0;

	if (!args->n_positional)
		r = choose(cli, args, &candidates);
	if (!r)
		r = add_changes(cli, args, &l, name, sizeof(name));
	if (!r) {
		snprintf(reason, sizeof(reason), "source add %s %s", args->positional[0],
			args->n_positional > 1 ? args->positional[1] : "");
		r = cli_apply(cli, &l, reason, &reply);
	}
	if (!r)
		r = report_added(cli, name, reply->applied);
	change_free(&l);
	api_reply_free(reply);
	api_reply_free(candidates);
	return r;
}

/* ---- list and show ---- */

int cmd_source_list(struct cli *cli, struct args *args)
{
	static const char *const headers[] = {
		"NAME", "KIND", "MATCH", "SERVICE", "PROCESSES", "SAMPLES", "LAST", "FROM"};
	Control__Reply *reply = NULL;
	struct table *t;
	struct json j;
	int r = get_sources(cli, NULL, false, &reply);

	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "sources", '[');
		for (size_t i = 0; i < reply->sources->n_sources; i++)
			json_source(&j, reply->sources->sources[i]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else if (!reply->sources->n_sources) {
		puts("no source yet; odictl source candidates shows what runs here, odictl source add "
		     "host takes everything");
	} else {
		t = table_new(headers, "llllrrll");
		for (size_t i = 0; t && i < reply->sources->n_sources; i++) {
			const Control__SourceState *s = reply->sources->sources[i];
			char matches[64], samples[32], ago[64];
			const char *cells[] = {s->name, s->kind, s->match, s->service_name, matches,
				out_number(s->samples, samples, sizeof(samples)),
				out_ago(s->last_sample_unix_ns, ago, sizeof(ago)), s->layer};

			describe_matches(s, matches, sizeof(matches));
			table_row(t, cells);
		}
		table_print(t, stdout);
	}
	api_reply_free(reply);
	return r;
}

static void print_images(const char *title, Control__ImageState **list, size_t n, bool taken_by)
{
	static const char *const headers[] = {"PID", "COMMAND", "SERVICE", "SAMPLES", "", "WHERE"};
	struct table *t;

	if (!n)
		return;
	printf("%s\n", title);
	t = table_new(headers, "rllrll");
	for (size_t i = 0; t && i < n; i++) {
		char pid[16], samples[32], by[100] = "";
		const char *cells[] = {pid, list[i]->comm, list[i]->service, samples, by,
			list[i]->container[0]      ? list[i]->container
				: list[i]->unit[0] ? list[i]->unit
						   : list[i]->exe};

		snprintf(pid, sizeof(pid), "%u", list[i]->pid);
		out_number(list[i]->samples, samples, sizeof(samples));
		if (taken_by)
			snprintf(by, sizeof(by), "taken by %s", list[i]->taken_by);
		table_row(t, cells);
	}
	table_print(t, stdout);
}

int cmd_source_show(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	const Control__SourceState *s;
	struct json j;
	char number[32], ago[64], matches[64];
	int r = get_sources(cli, args->positional[0], true, &reply);

	if (r)
		return r;
	s = reply->sources->sources[0];
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "sources", '[');
		json_source(&j, s);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		describe_matches(s, matches, sizeof(matches));
		printf("name      %s\nkind      %s\nmatch     %s\nenabled   %s\nservice   %s\nfrom      %s "
		       "(%s)\nnow       %s\nsamples   %s, last %s\n",
			s->name, s->kind, s->match[0] ? s->match : "everything",
			s->enabled ? "yes" : "no",
			s->service_name[0] ? s->service_name
					   : "(as the process, unit or container says)",
			s->layer, s->origin, matches,
			out_number(s->samples, number, sizeof(number)),
			out_ago(s->last_sample_unix_ns, ago, sizeof(ago)));
		named_print_pairs("options", s->options, s->n_options);
		named_print_pairs("labels", s->labels, s->n_labels);
		print_images("\nprocesses it takes", s->images, s->n_images, false);
		print_images("\nprocesses it matches but others take", s->lost_claims,
			s->n_lost_claims, true);
	}
	api_reply_free(reply);
	return r;
}

int cmd_source_enable(struct cli *cli, struct args *args)
{
	return named_set_enabled(cli, "source", args->positional[0], true);
}

int cmd_source_disable(struct cli *cli, struct args *args)
{
	return named_set_enabled(cli, "source", args->positional[0], false);
}

int cmd_source_remove(struct cli *cli, struct args *args)
{
	return named_remove(cli, "source", args->positional[0]);
}

int cmd_source_candidates(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	const char *lines = args_value(args, "lines");
	uint64_t limit = 15;
	struct json j;
	int r;

	if (lines && text_u64(lines, 1, 200, &limit) < 0)
		return cli_fail(
			cli, EXIT_USAGE, "-n: expected a number from 1 to 200, got '%s'", lines);
	r = get_candidates(cli, (uint32_t)limit, &reply);
	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "candidates", '[');
		for (size_t i = 0; i < reply->candidates->n_candidates; i++) {
			const Control__Candidate *c = reply->candidates->candidates[i];

			json_open(&j, NULL, '{');
			json_str(&j, "kind", c->kind);
			json_str(&j, "match", c->match);
			json_str(&j, "name", c->suggested_name);
			json_uint(&j, "processes", c->processes);
			json_uint(&j, "cpu_ns", c->cpu_ns);
			json_num(&j, "cores", c->cores);
			json_str(&j, "taken_by", c->taken_by);
			json_str(&j, "command", c->command);
			json_close(&j, '}');
		}
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else if (!reply->candidates->n_candidates) {
		puts("nothing runs here that could be told apart; odictl source add host takes everything");
	} else {
		r = print_candidates(cli, reply->candidates, stdout, false);
	}
	api_reply_free(reply);
	return r;
}
