/* SPDX-License-Identifier: Apache-2.0 */

/* source add and source candidates: from a kind and a pattern to a source, and what there is to choose from. */

#include "agentd/base/text.h"
#include "odictl/kinds.h"
#include "odictl/named.h"
#include "odictl/source.h"

static int get_candidates(struct cli *cli, uint32_t limit, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetCandidates get = CONTROL__GET_CANDIDATES__INIT;

	get.limit = limit;
	request.verb_case = CONTROL__REQUEST__VERB_GET_CANDIDATES;
	request.get_candidates = &get;
	return cli_call(cli, &request, ret);
}

/* Of the command that adds it, the words that are the candidate's own; they are quoted for a shell already. */
static const char *words_of(const Control__Candidate *c, char *buf, size_t size)
{
	static const char lead[] = "odictl source add ";

	if (text_starts(c->command, lead))
		return c->command + strlen(lead);
	snprintf(buf, size, "%s %s", c->kind, c->match);
	return buf;
}

static void print_candidates(const Control__Candidates *c, FILE *f, bool numbered)
{
	static const char *const headers[] = {"CORES", "CPU TIME", "PROCS", "WHAT", "SOURCE"};
	static const char *const with_numbers[] = {
		"", "CORES", "CPU TIME", "PROCS", "WHAT", "SOURCE"};
	struct table *t =
		table_new(numbered ? with_numbers : headers, numbered ? "rrrrll" : "rrrll");

	for (size_t i = 0; t && i < c->n_candidates; i++) {
		const Control__Candidate *x = c->candidates[i];
		char number[24], cores[16], cpu[32], n[16], what[400];
		const char *cells[] = {
			number, cores, cpu, n, words_of(x, what, sizeof(what)), x->taken_by};

		snprintf(number, sizeof(number), "%zu", i + 1);
		snprintf(cores, sizeof(cores), "%.2f", x->cores);
		text_format_duration(x->cpu_ns, cpu, sizeof(cpu));
		snprintf(n, sizeof(n), "%u", x->processes);
		table_row(t, numbered ? cells : cells + 1);
	}
	table_print(t, f);
}

/* `odictl source add`, bare: on a terminal the candidates to choose from, else usage and candidates. */
static int choose(struct cli *cli, struct args *args, Control__Reply **candidates)
{
	const Control__Candidates *c;
	char line[32] = "", quoted[32];
	uint64_t n;
	int r;

	if (cli->json)
		return cli_fail(cli, EXIT_USAGE,
			"usage: odictl source add KIND [MATCH]; odictl source candidates shows what runs here");
	r = get_candidates(cli, 15, candidates);
	if (r)
		return r;
	c = (*candidates)->candidates;
	if (!cli_on_terminal() || !c->n_candidates) {
		cli_fail(cli, EXIT_USAGE, "usage: odictl source add KIND [MATCH]%s",
			c->n_candidates ? "; KIND and MATCH are one of these, for example:" : "");
		if (c->n_candidates)
			print_candidates(c, stderr, false);
		return EXIT_USAGE;
	}
	print_candidates(c, stdout, true);
	printf("number to add (nothing: none): ");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (!line[0])
		return cli_fail(cli, EXIT_FAILED, "nothing was added");
	if (text_u64(line, 1, c->n_candidates, &n) < 0)
		return cli_fail(cli, EXIT_USAGE, "'%s' is none of the numbers",
			out_quote(line, quoted, sizeof(quoted)));
	args->positional[0] = c->candidates[n - 1]->kind;
	args->positional[1] = c->candidates[n - 1]->match;
	args->n_positional = 2;
	return 0;
}

/* What a source is called when nobody says: by what it matches. */
void source_default_name(const char *kind, const char *match, char *out, size_t size)
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

static int add_changes(struct cli *cli, struct args *args, struct change_list *l, const char *name)
{
	const char *kind = args->positional[0], *match;
	Control__Change *first;

	match = args->n_positional > 1 ? args->positional[1] : "";
	first = change_add(l, kind, "sources/%s/kind", name);
	if (first)
		first->must_not_exist = true;
	if (match[0])
		change_add(l, match, "sources/%s/match", name);
	change_add(l, args_flag(args, "disabled") ? "false" : "true", "sources/%s/enabled", name);
	for (size_t i = 0; i < args->n_given; i++) {
		const struct given *g = &args->given[i];
		/* What the command's own table has is a source's, all else the kind's. */
		bool field = false;
		int r;

		for (const struct option_spec *o = args->command->options; o && o->name; o++)
			field |= o == g->spec;
		if (streq(g->name, "name") || streq(g->name, "disabled"))
			continue;
		r = named_option_change(cli, l, "source", name, g, field);
		if (r)
			return r;
	}
	return 0;
}

static int report_added(struct cli *cli, const char *name, const Control__Applied *applied)
{
	Control__Reply *reply = NULL;
	const Control__SourceState *s;
	char matches[64];
	struct json j;
	int r = source_get(cli, name, false, &reply);

	if (r)
		return r;
	if (!reply->sources->n_sources) {
		api_reply_free(reply);
		return cli_fail(cli, EXIT_FAILED, "source %s is gone again", name);
	}
	s = reply->sources->sources[0];
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_uint(&j, "revision", applied->revision);
		json_open(&j, "sources", '[');
		source_json(&j, s);
		json_close(&j, ']');
		named_json_strings(&j, "warnings", applied->warnings, applied->n_warnings);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		source_describe_matches(s, matches, sizeof(matches));
		out_line("", 0, "source %s (%s%s%s): %s%s", s->name, s->kind,
			s->match[0] ? " " : "", s->match,
			s->images_now && s->enabled ? "matches " : "", matches);
		named_print_notes(applied);
	}
	api_reply_free(reply);
	return r;
}

static int add(struct cli *cli, struct args *args)
{
	struct change_list l = {};
	Control__Reply *reply = NULL;
	const char *match = args->n_positional > 1 ? args->positional[1] : "";
	const char *given = args_value(args, "name"), *service = args_value(args, "service-name");
	char name[80], reason[400], quoted[300];
	int r = given ? named_check(cli, "source", given) : 0;

	if (r)
		return r;
	/* Whoever names the service speaks of it by that name: `top --source web`. */
	if (!given && service && text_is_name(service))
		given = service;
	if (given)
		snprintf(name, sizeof(name), "%s", given);
	else
		source_default_name(args->positional[0], match, name, sizeof(name));
	r = add_changes(cli, args, &l, name);
	snprintf(reason, sizeof(reason), "source add %s %s", args->positional[0],
		out_quote(match, quoted, sizeof(quoted)));
	if (!r)
		r = cli_apply(cli, &l, reason, &reply);
	if (r && cli->last_error == -EEXIST)
		cli_hint(cli,
			"choose another name with --name NAME, or remove it: odictl source remove %s",
			name);
	if (!r)
		r = report_added(cli, name, reply->applied);
	change_free(&l);
	api_reply_free(reply);
	return r;
}

int cmd_source_add(struct cli *cli, struct args *args)
{
	Control__Reply *candidates = NULL;
	int r = args->n_positional ? 0 : choose(cli, args, &candidates);

	if (!r)
		r = add(cli, args);
	api_reply_free(candidates);
	return r;
}

/* ---- candidates ---- */

static int json_candidates(const Control__Candidates *list)
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_open(&j, "candidates", '[');
	for (size_t i = 0; i < list->n_candidates; i++) {
		const Control__Candidate *c = list->candidates[i];

		json_open(&j, NULL, '{');
		json_str(&j, "kind", c->kind);
		json_str(&j, "match", c->match);
		json_str(&j, "name", c->suggested_name);
		json_str(&j, "service", c->service);
		json_uint(&j, "processes", c->processes);
		json_uint(&j, "cpu_ns", c->cpu_ns);
		json_num(&j, "cores", c->cores);
		json_str(&j, "taken_by", c->taken_by);
		json_str(&j, "command", c->command);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

int cmd_source_candidates(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	const Control__Candidates *c;
	uint64_t limit = 15;
	int r = args_number(cli, args, "lines", 1, 200, &limit);

	if (!r)
		r = get_candidates(cli, (uint32_t)limit, &reply);
	if (r)
		return r;
	c = reply->candidates;
	if (cli->json) {
		r = json_candidates(c);
	} else if (!c->n_candidates) {
		puts("nothing runs here that could be told apart; odictl source add host takes everything");
	} else {
		print_candidates(c, stdout, false);
		puts("");
		out_line("", 0, "to add one: odictl source add WHAT; or choose: odictl source add");
	}
	api_reply_free(reply);
	return r;
}
