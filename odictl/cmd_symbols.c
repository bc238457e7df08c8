/* SPDX-License-Identifier: Apache-2.0 */

/* symbols list, fetch, add, remove. Places of debug files are one setting, a list: adding to it is reading it,
 * and a change that holds only if nobody else changed anything in between. */

#include <limits.h>
#include <sys/stat.h>

#include "agentd/base/text.h"
#include "odictl/named.h"

#define FILES_SHOWN    20
#define ADVICE_SHOWN   8
#define FILES_ADVISED  6
#define PROBLEMS_SHOWN 8

/* ---- list ---- */

static double percent(uint64_t part, uint64_t of)
{
	return of ? 100.0 * (double)part / (double)of : 0;
}

static void files_json(struct json *j, const Control__Symbols *s)
{
	json_open(j, "files", '[');
	for (size_t i = 0; i < s->n_files; i++) {
		const Control__SymbolFile *f = s->files[i];

		json_open(j, NULL, '{');
		json_str(j, "path", f->path);
		json_str(j, "build_id", f->build_id);
		json_uint(j, "samples", f->samples);
		json_num(j, "samples_percent", percent(f->samples, s->samples));
		json_uint(j, "frames", f->frames);
		json_uint(j, "frames_named", f->frames_named);
		json_num(j, "named_percent", percent(f->frames_named, f->frames));
		json_str(j, "named_by", f->named_by);
		json_num(j, "cpu_seconds", (double)f->cpu_us / 1e6);
		json_str(j, "problem", f->problem);
		json_str(j, "advice", f->advice);
		json_str(j, "fetch", f->fetch);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void fetch_json(struct json *j, const Control__SymbolFetch *f)
{
	json_open(j, "fetch", '{');
	json_bool(j, "on", f->on);
	named_json_strings(j, "urls", f->urls, f->n_urls);
	json_uint(j, "wanted", f->wanted);
	json_uint(j, "asked", f->asked);
	json_uint(j, "found", f->found);
	json_uint(j, "not_found", f->not_found);
	json_uint(j, "failed", f->failed);
	json_uint(j, "refused", f->refused);
	json_uint(j, "bytes", f->bytes);
	json_uint(j, "cached_files", f->cached_files);
	json_uint(j, "cached_bytes", f->cached_bytes);
	json_str(j, "under_way", f->under_way);
	json_str(j, "last_error", f->last_error);
	json_time(j, "last_error_time", f->last_error_unix_ns);
	json_str(j, "paused", f->paused);
	json_close(j, '}');
}

static int print_json(const Control__Symbols *s)
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_time(&j, "since", s->since_unix_ns);
	json_str(&j, "demangle", s->demangle);
	json_uint(&j, "samples", s->samples);
	json_uint(&j, "frames", s->frames);
	json_uint(&j, "frames_named", s->frames_named);
	json_num(&j, "named_percent", percent(s->frames_named, s->frames));
	files_json(&j, s);
	json_uint(&j, "files_left_off", s->files_left_off);
	json_uint(&j, "other_files", s->other_files);
	json_uint(&j, "other_frames", s->other_frames);
	json_uint(&j, "other_frames_named", s->other_frames_named);
	if (s->fetch)
		fetch_json(&j, s->fetch);
	json_open(&j, "paths", '[');
	for (size_t i = 0; i < s->n_paths; i++) {
		json_open(&j, NULL, '{');
		json_str(&j, "path", s->paths[i]->path);
		json_str(&j, "problem", s->paths[i]->problem);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

static void print_files(const Control__Symbols *s)
{
	static const char *const headers[] = {"SAMPLES", "NAMED", "CPU s", "NAMED BY", "FILE"};
	struct table *t = table_new(headers, "rrrll");

	for (size_t i = 0; t && i < s->n_files; i++) {
		const Control__SymbolFile *f = s->files[i];
		char samples[32], named[32], cpu[32];
		const char *cells[] = {samples, named, cpu, f->named_by, f->path};

		snprintf(samples, sizeof(samples), "%.1f %%", percent(f->samples, s->samples));
		/* 100 % is said of all only. */
		if (!f->frames)
			snprintf(named, sizeof(named), "-");
		else if (f->frames_named == f->frames)
			snprintf(named, sizeof(named), "100 %%");
		else
			snprintf(named, sizeof(named), "%.1f %%",
				MIN(percent(f->frames_named, f->frames), 99.9));
		out_seconds(f->cpu_us * 1000, cpu, sizeof(cpu));
		table_row(t, cells);
	}
	table_print(t, stdout);
	if (s->files_left_off)
		printf("and %llu more; --all shows them\n", (unsigned long long)s->files_left_off);
	if (s->other_files)
		printf("%llu more have no row of their own any more: %.1f %% of their frames are named\n",
			(unsigned long long)s->other_files,
			percent(s->other_frames_named, s->other_frames));
}

/* The advice with "FILE" where it names the file, so that what is to be done for many is said once. The caller frees. */
static char *advice_for_any(const Control__SymbolFile *f)
{
	const char *at = strstr(f->advice, f->path);
	struct buf b;

	buf_init(&b, 0);
	buf_add(&b, f->advice, at ? (size_t)(at - f->advice) : strlen(f->advice));
	if (at)
		buf_printf(&b, "FILE%s", at + strlen(f->path));
	return buf_take_str(&b);
}

struct advice {
	char *text;
	struct buf files;
	size_t n;
};

static void print_advice(const Control__Symbols *s)
{
	struct advice all[ADVICE_SHOWN] = {};
	size_t n = 0;

	for (size_t i = 0; i < s->n_files; i++) {
		const Control__SymbolFile *f = s->files[i];
		char *text = *f->advice ? advice_for_any(f) : NULL;
		size_t k = 0;

		while (text && k < n && !streq(all[k].text, text))
			k++;
		if (!text || k == ADVICE_SHOWN) {
			free(text);
			continue;
		}
		if (k == n) {
			buf_init(&all[n].files, 0);
			all[n++].text = TAKE_PTR(text);
		}
		free(text);
		if (all[k].n++ < FILES_ADVISED)
			buf_printf(&all[k].files, "%s%s", all[k].n > 1 ? ", " : "", f->path);
	}
	for (size_t k = 0; k < n; k++) {
		if (all[k].n > FILES_ADVISED)
			buf_printf(&all[k].files, " and %zu more", all[k].n - FILES_ADVISED);
		printf("\n");
		out_line("", 0, "names are missing in %s",
			buf_error(&all[k].files) ? "" : (const char *)all[k].files.data);
		out_line("  ->", 5, "%s", all[k].text);
		buf_deinit(&all[k].files);
		free(all[k].text);
	}
}

static void print_problems(const Control__Symbols *s)
{
	size_t shown = 0, more = 0;

	for (size_t i = 0; i < s->n_files; i++) {
		const Control__SymbolFile *f = s->files[i];

		if (!*f->problem)
			continue;
		if (shown == PROBLEMS_SHOWN) {
			more++;
			continue;
		}
		if (!shown++)
			printf("\n");
		out_line("", 0, "%s: %s", f->path, f->problem);
	}
	if (more)
		printf("and %zu more; --json has all\n", more);
}

static void print_fetch(const Control__SymbolFetch *f)
{
	char found[32], asked[32];

	if (!f->on) {
		out_line("fetch", 8,
			"off; odictl symbols fetch on sends build ids to a server, and "
			"gets debug files");
		return;
	}
	out_line("fetch", 8, "on: %s%s; %s found of %s asked for, %llu MB kept%s%s",
		f->n_urls ? f->urls[0] : "no server", f->n_urls > 1 ? " and others" : "",
		out_number(f->found, found, sizeof(found)),
		out_number(f->asked, asked, sizeof(asked)),
		(unsigned long long)(f->cached_bytes >> 20), *f->paused ? "; " : "", f->paused);
	if (*f->last_error)
		out_line("", 8, "last error: %s", f->last_error);
}

int cmd_symbols_list(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSymbols get = CONTROL__GET_SYMBOLS__INIT;
	Control__Reply *reply = NULL;
	const Control__Symbols *s;
	uint64_t limit = FILES_SHOWN;
	char since[64];
	int r = args_number(cli, args, "limit", 1, 100000, &limit);

	if (!r && args_flag(args, "all") && args_value(args, "limit"))
		r = cli_fail(cli, EXIT_USAGE, "--all or --limit, not both");
	if (r)
		return r;
	get.limit = args_flag(args, "all") ? 0 : (uint32_t)limit;
	request.verb_case = CONTROL__REQUEST__VERB_GET_SYMBOLS;
	request.get_symbols = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	if (reply->body_case != CONTROL__REPLY__BODY_SYMBOLS) {
		api_reply_free(reply);
		return cli_fail(cli, EXIT_FAILED, "agentd answered something else than was asked");
	}
	s = reply->symbols;
	if (cli->json) {
		r = print_json(s);
		api_reply_free(reply);
		return r;
	}
	if (s->n_files) {
		print_files(s);
		print_advice(s);
		print_problems(s);
		printf("\n");
		out_line("named", 8, "%.1f %% of all frames, in %s",
			percent(s->frames_named, s->frames),
			out_duration_since(s->since_unix_ns, since, sizeof(since)));
	} else {
		out_line("", 0,
			"nothing was profiled yet; odictl status says whether it is, and a profile is made "
			"at each interval's end");
	}
	if (s->fetch)
		print_fetch(s->fetch);
	for (size_t i = 0; i < s->n_paths; i++)
		out_line(i ? "" : "paths", 8, "%s%s%s", s->paths[i]->path,
			*s->paths[i]->problem ? ": " : "", s->paths[i]->problem);
	api_reply_free(reply);
	return EXIT_DONE;
}

/* ---- fetch ---- */

int cmd_symbols_fetch(struct cli *cli, struct args *args)
{
	_cleanup_buf_ struct buf urls;
	struct change_list l = {};
	Control__Reply *reply = NULL;
	char word[64], text[400];
	bool on;
	int r;

	buf_init(&urls, 0);
	if (text_bool(args->positional[0], &on) < 0)
		return cli_fail(cli, EXIT_USAGE, "fetch is on or off, not '%s'",
			out_quote(args->positional[0], word, sizeof(word)));
	for (size_t i = 0; i < args->n_given; i++)
		if (streq(args->given[i].name, "url"))
			buf_printf(&urls, "%s%s", urls.len ? " " : "", args->given[i].value);
	if (urls.len && !on)
		return cli_fail(
			cli, EXIT_USAGE, "--url goes with on: nothing is asked for when off");
	change_add(&l, on ? "true" : "false", "symbols/fetch");
	if (urls.len && !buf_error(&urls))
		change_add(&l, (const char *)urls.data, "symbols/urls");
	r = cli_apply(cli, &l, on ? "symbols fetch on" : "symbols fetch off", &reply);
	change_free(&l);
	if (r)
		return r;
	snprintf(text, sizeof(text), "%s",
		!on ? "nothing is fetched; what was fetched stays for its time"
		    : "debug files are fetched from now on: the build ids of programs that run here are sent "
		      "to the servers that odictl symbols shows");
	r = named_print_change(cli, reply->applied, NULL, text);
	api_reply_free(reply);
	return r;
}

/* ---- add and remove ---- */

/* The list as it is set; *revision: of the configuration that says so. The caller frees. */
static int get_paths(struct cli *cli, char **ret, uint64_t *revision)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetConfig get = CONTROL__GET_CONFIG__INIT;
	Control__Reply *reply = NULL;
	int r;

	get.prefix = (char *)"symbols/paths";
	request.verb_case = CONTROL__REQUEST__VERB_GET_CONFIG;
	request.get_config = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	*revision = reply->config->revision;
	*ret = strdup(reply->config->n_values ? reply->config->values[0]->value : "");
	api_reply_free(reply);
	return *ret ? 0 : cli_fail(cli, EXIT_FAILED, "out of memory");
}

/* Whether one of the list, which are separated by colons, is that. */
static bool has_path(const char *list, const char *path)
{
	size_t n = strlen(path);

	for (const char *p = list; *p; p += strcspn(p, ":")) {
		p += strspn(p, ":");
		if (strncmp(p, path, n) == 0 && (p[n] == ':' || !p[n]))
			return true;
	}
	return false;
}

/* What agentd would make of it is asked here already, where the caller's words are: 0 or an exit code. note: something
 * that does not speak against it; "" none. */
static int check_place(
	struct cli *cli, const char *given, char path[static PATH_MAX], char *note, size_t size)
{
	char quoted[200];
	struct stat st;

	out_quote(given, quoted, sizeof(quoted));
	note[0] = '\0';
	if (!realpath(given, path))
		return cli_fail(cli, EXIT_FAILED, "%s: %s", quoted, strerrordesc_np(errno));
	if (strchr(path, ':'))
		return cli_fail(cli, EXIT_USAGE,
			"%s: a path with a colon cannot be kept, as colons separate them", quoted);
	if (stat(path, &st) < 0)
		return cli_fail(cli, EXIT_FAILED, "%s: %s", quoted, strerrordesc_np(errno));
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return cli_fail(cli, EXIT_USAGE, "%s is neither a file nor a folder", quoted);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return cli_fail(cli, EXIT_FAILED,
			"%s may be written to by others than its owner, so it is not used: chmod go-w",
			quoted);
	if (st.st_uid != 0)
		snprintf(note, size, "%s is not root's: it is used for its owner's programs only",
			quoted);
	return 0;
}

static int set_paths(struct cli *cli, const char *list, uint64_t revision, const char *reason,
	Control__Reply **reply)
{
	struct change_list l = {.revision = revision};
	int r;

	change_add(&l, list, "symbols/paths");
	r = cli_apply(cli, &l, reason, reply);
	change_free(&l);
	return r;
}

int cmd_symbols_add(struct cli *cli, struct args *args)
{
	_cleanup_buf_ struct buf list;
	_cleanup_free_ char *now = NULL;
	Control__Reply *reply = NULL;
	uint64_t revision = 0;
	char path[PATH_MAX], note[300];
	int r = get_paths(cli, &now, &revision);

	buf_init(&list, 0);
	if (!r)
		buf_str(&list, now);
	for (size_t i = 0; i < args->n_positional && !r; i++) {
		r = check_place(cli, args->positional[i], path, note, sizeof(note));
		if (r)
			return r;
		if (*note && !cli->json)
			out_line("note:", 6, "%s", note);
		if (!has_path(list.len ? (const char *)list.data : "", path))
			buf_printf(&list, "%s%s", list.len ? ":" : "", path);
	}
	if (!r && buf_error(&list))
		r = cli_fail(cli, EXIT_FAILED, "out of memory");
	if (!r)
		r = set_paths(cli, (const char *)list.data, revision, "symbols add", &reply);
	if (r)
		return r;
	r = named_print_change(cli, reply->applied, NULL,
		reply->applied->changed
			? "added; a program whose build id a debug file there has gets its names from it"
			: "it was there already; nothing changed");
	api_reply_free(reply);
	return r;
}

int cmd_symbols_remove(struct cli *cli, struct args *args)
{
	_cleanup_buf_ struct buf list;
	_cleanup_free_ char *now = NULL, *save = NULL;
	Control__Reply *reply = NULL;
	uint64_t revision = 0;
	char path[PATH_MAX], quoted[200];
	bool gone[64] = {false};
	int r = get_paths(cli, &now, &revision);

	buf_init(&list, 0);
	if (r)
		return r;
	save = strdup(now);
	for (char *at = save, *one; at && (one = strsep(&at, ":"));) {
		bool out = !*one;

		for (size_t i = 0; i < args->n_positional; i++) {
			/* As it is kept, or as it is called today. */
			if (streq(one, args->positional[i]) ||
				(realpath(args->positional[i], path) && streq(one, path)))
				out = gone[i] = true;
		}
		if (!out)
			buf_printf(&list, "%s%s", list.len ? ":" : "", one);
	}
	for (size_t i = 0; i < args->n_positional; i++)
		if (!gone[i])
			return cli_fail(cli, EXIT_FAILED,
				"%s was not added; odictl symbols shows what was",
				out_quote(args->positional[i], quoted, sizeof(quoted)));
	if (!save || buf_error(&list))
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	r = set_paths(
		cli, list.len ? (const char *)list.data : "", revision, "symbols remove", &reply);
	if (r)
		return r;
	r = named_print_change(cli, reply->applied, NULL, "removed");
	api_reply_free(reply);
	return r;
}
