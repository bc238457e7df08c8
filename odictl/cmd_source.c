/* SPDX-License-Identifier: Apache-2.0 */

/* source list, show, enable, disable, remove. What a kind matches and which options it has is known to agentd: it is
 * asked, so that a new kind needs nothing here. */

#include "odictl/named.h"
#include "odictl/source.h"

#define MAX_IMAGES 30 /* that are printed; --json has all */

int source_get(struct cli *cli, const char *name, bool images, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSources get = CONTROL__GET_SOURCES__INIT;

	get.name = (char *)(name ? name : "");
	get.images = images;
	request.verb_case = CONTROL__REQUEST__VERB_GET_SOURCES;
	request.get_sources = &get;
	return cli_call(cli, &request, ret);
}

void source_describe_matches(const Control__SourceState *s, char *out, size_t size)
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

void source_json(struct json *j, const Control__SourceState *s)
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

/* ---- list and show ---- */

int cmd_source_list(struct cli *cli, struct args *args)
{
	static const char *const headers[] = {
		"NAME", "KIND", "SAMPLES", "LAST", "NOW", "SERVICE", "MATCH"};
	Control__Reply *reply = NULL;
	struct table *t;
	struct json j;
	int r = source_get(cli, NULL, false, &reply);

	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "sources", '[');
		for (size_t i = 0; i < reply->sources->n_sources; i++)
			source_json(&j, reply->sources->sources[i]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else if (!reply->sources->n_sources) {
		out_line("", 0,
			"no source yet; odictl source candidates shows what runs here, odictl source add host "
			"takes everything");
	} else {
		t = table_new(headers, "llrllll");
		for (size_t i = 0; t && i < reply->sources->n_sources; i++) {
			const Control__SourceState *s = reply->sources->sources[i];
			char matches[64], samples[32], ago[64];
			const char *cells[] = {s->name, s->kind,
				out_number(s->samples, samples, sizeof(samples)),
				out_ago(s->last_sample_unix_ns, ago, sizeof(ago)), matches,
				s->service_name, s->match};

			source_describe_matches(s, matches, sizeof(matches));
			table_row(t, cells);
		}
		table_print(t, stdout);
	}
	api_reply_free(reply);
	return r;
}

static int by_samples(const void *x, const void *y)
{
	const Control__ImageState *a = *(Control__ImageState *const *)x,
				  *b = *(Control__ImageState *const *)y;

	if (a->samples != b->samples)
		return a->samples < b->samples ? 1 : -1;
	return a->pid < b->pid ? -1 : a->pid > b->pid;
}

static void print_images(const char *title, Control__ImageState **list, size_t n, bool taken_by)
{
	static const char *const headers[] = {"PID", "COMMAND", "SERVICE", "SAMPLES", "WHERE"};
	static const char *const lost[] = {"PID", "COMMAND", "SERVICE", "TAKEN BY", "WHERE"};
	struct table *t;

	if (!n)
		return;
	printf("\n%s\n", title);
	qsort(list, n, sizeof(*list), by_samples);
	t = table_new(taken_by ? lost : headers, taken_by ? "rllll" : "rllrl");
	for (size_t i = 0; t && i < n && i < MAX_IMAGES; i++) {
		char pid[16], samples[32];
		const char *cells[] = {pid, list[i]->comm, list[i]->service,
			taken_by ? list[i]->taken_by : samples,
			list[i]->container[0]      ? list[i]->container
				: list[i]->unit[0] ? list[i]->unit
						   : list[i]->exe};

		snprintf(pid, sizeof(pid), "%u", list[i]->pid);
		out_number(list[i]->samples, samples, sizeof(samples));
		table_row(t, cells);
	}
	table_print(t, stdout);
	if (n > MAX_IMAGES)
		printf("and %zu more; --json shows all\n", n - MAX_IMAGES);
}

static void print_source(const Control__SourceState *s)
{
	char number[32], ago[64], matches[64];

	source_describe_matches(s, matches, sizeof(matches));
	out_line("name", 10, "%s", s->name);
	out_line("kind", 10, "%s", s->kind);
	out_line("match", 10, "%s", s->match[0] ? s->match : "everything");
	out_line("enabled", 10, "%s", s->enabled ? "yes" : "no");
	out_line("service", 10, "%s",
		s->service_name[0] ? s->service_name : "(as the process, unit or container says)");
	out_line("from", 10, "%s (%s)", s->layer, s->origin);
	out_line("now", 10, "%s", matches);
	out_line("samples", 10, "%s, last %s", out_number(s->samples, number, sizeof(number)),
		out_ago(s->last_sample_unix_ns, ago, sizeof(ago)));
	named_print_pairs("options", s->options, s->n_options);
	named_print_pairs("labels", s->labels, s->n_labels);
	print_images("processes it takes", s->images, s->n_images, false);
	print_images(
		"processes it matches but others take", s->lost_claims, s->n_lost_claims, true);
}

int cmd_source_show(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	struct json j;
	int r = named_check(cli, "source", args->positional[0]);

	if (!r)
		r = source_get(cli, args->positional[0], true, &reply);
	if (r)
		return r;
	if (!reply->sources->n_sources) {
		r = cli_fail(cli, EXIT_FAILED,
			"there is no source '%s'; odictl source list shows all",
			args->positional[0]);
	} else if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "sources", '[');
		source_json(&j, reply->sources->sources[0]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		print_source(reply->sources->sources[0]);
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
