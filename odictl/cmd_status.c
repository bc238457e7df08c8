/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl status`: one screen of truth. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/cli.h"
#include "odictl/named.h"

static double share(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_profiling(struct cli *cli, const Control__Status *s)
{
	char since[64] = "", interval[64];

	if (!s->profiling_active) {
		printf("%-13s%s\n", "profiling",
			s->profiling_enabled ? "enabled, but not running" : "off");
		return;
	}
	text_format_duration(clock_unix_ns() - s->active_since_unix_ns, since, sizeof(since));
	text_format_duration(s->interval_ns, interval, sizeof(interval));
	printf("%-13son, %u Hz on %u CPUs, %s, kernel frames %s, batches of %s, for %s\n",
		"profiling", s->rate_hz, s->cpus_sampled, s->n_types ? s->types[0] : "",
		s->kernel_frames ? "on" : "off", interval, since);
}

static void print_sources(const Control__Status *s)
{
	if (!s->n_sources)
		printf("%-13snone\n", "sources");
	for (size_t i = 0; i < s->n_sources && i < 12; i++) {
		const Control__SourceState *x = s->sources[i];
		char n[32], matches[64];

		if (!x->enabled)
			snprintf(matches, sizeof(matches), "disabled");
		else if (!x->images_now && x->claimed_by_others)
			snprintf(matches, sizeof(matches), "all %u taken by others",
				x->claimed_by_others);
		else
			snprintf(matches, sizeof(matches), "%u process%s", x->images_now,
				x->images_now == 1 ? "" : "es");
		printf("%-13s%s (%s%s%s): %s, %s samples\n", i ? "" : "sources", x->name, x->kind,
			x->match[0] ? " " : "", x->match, matches,
			out_number(x->samples, n, sizeof(n)));
	}
	if (s->n_sources > 12)
		printf("%-13sand %zu more: odictl source list\n", "", s->n_sources - 12);
}

static void print_destinations(struct cli *cli, const Control__Status *s)
{
	if (!s->n_destinations)
		printf("%-13snone: profiles stay on this host\n", "destinations");
	for (size_t i = 0; i < s->n_destinations; i++) {
		const Control__DestinationState *d = s->destinations[i];
		char ago[64], sent[32];
		bool failing = streq(d->state, "failing");

		text_format_size(d->sent_bytes, sent, sizeof(sent));
		printf("%-13s%s: %s%s%s, %s, last success %s, %llu batches (%s)\n",
			i ? "" : "destinations", d->name, failing ? out_red(cli) : "", d->state,
			failing ? out_plain(cli) : "", d->endpoint,
			out_ago(d->last_success_unix_ns, ago, sizeof(ago)),
			(unsigned long long)d->sent_batches, sent);
	}
}

static void print_ledger(struct cli *cli, const Control__Ledger *l, bool verbose)
{
	char a[32], b[32], c[32], d[32], e[32], f[32], g[32], h[32];

	printf("%-13sdue %s = taken %s + late %s\n", "samples", out_number(l->due, a, sizeof(a)),
		out_number(l->taken, b, sizeof(b)), out_number(l->late, c, sizeof(c)));
	printf("%-13staken = profiled %s + idle %s + ignored %s + lost %s + on the way %s%s\n", "",
		out_number(l->profiled, d, sizeof(d)), out_number(l->idle, e, sizeof(e)),
		out_number(l->ignored, f, sizeof(f)), out_number(l->lost, g, sizeof(g)),
		out_number(l->open, h, sizeof(h)), l->closes ? "" : " (does not close)");
	for (size_t i = 0; i < l->n_lost_by; i++)
		printf("%-13s  lost: %s: %s\n", "", l->lost_by[i]->cause,
			out_number(l->lost_by[i]->samples, a, sizeof(a)));
	for (size_t i = 0; i < l->n_destinations; i++) {
		const Control__DestinationLedger *x = l->destinations[i];

		if (!verbose && !x->rejected && !x->evicted)
			continue;
		printf("%-13s%s: routed %s = delivered %s + held %s + rejected %s + evicted %s + shaped "
		       "away %s\n",
			"", x->name, out_number(x->routed, a, sizeof(a)),
			out_number(x->delivered, b, sizeof(b)), out_number(x->held, c, sizeof(c)),
			out_number(x->rejected, d, sizeof(d)), out_number(x->evicted, e, sizeof(e)),
			out_number(x->shaped, f, sizeof(f)));
	}
}

static void print_cost(const Control__Status *s)
{
	uint64_t memory = 0, up = clock_unix_ns() - s->started_unix_ns, cpu = s->bpf_run_ns;
	char size[32];

	for (size_t i = 0; i < s->n_processes; i++) {
		memory += s->processes[i]->memory_bytes;
		cpu += s->processes[i]->cpu_ns;
	}
	text_format_size(memory, size, sizeof(size));
	printf("%-13s%.2f %% of one CPU since the start, %s of memory in %zu processes\n", "cost",
		share(cpu, up), size, s->n_processes);
}

static void print_local(const Control__Status *s)
{
	char span[64], used[32], max[32];

	text_format_size(s->local_bytes, used, sizeof(used));
	text_format_size(s->local_max_bytes, max, sizeof(max));
	text_format_duration(s->local_to_unix_ns - s->local_from_unix_ns, span, sizeof(span));
	if (s->local_from_unix_ns)
		printf("%-13s%s of profiles, %s of at most %s\n", "kept here", span, used, max);
	else
		printf("%-13snothing yet, at most %s\n", "kept here", max);
}

static void print_verbose(const Control__Status *s)
{
	puts("");
	for (size_t i = 0; i < s->n_processes; i++) {
		const Control__ProcessCost *p = s->processes[i];
		char size[32], cpu[32];

		text_format_size(p->memory_bytes, size, sizeof(size));
		printf("%-13s%s: pid %u, %s CPU seconds, %s, %u restarts\n", i ? "" : "processes",
			p->role, p->pid, out_seconds(p->cpu_ns, cpu, sizeof(cpu)), size,
			p->restarts);
	}
	for (size_t i = 0; i < s->n_details; i++)
		printf("%-28s %s\n", s->details[i]->key, s->details[i]->value);
}

static void print_status(struct cli *cli, const Control__Status *s, bool verbose)
{
	printf("%sodi %s%s on %s: %s%s%s\n", out_bold(cli), s->version, out_plain(cli), s->host,
		s->healthy ? "" : out_red(cli), s->healthy ? "healthy" : "NOT healthy",
		out_plain(cli));
	print_profiling(cli, s);
	print_sources(s);
	print_destinations(cli, s);
	for (size_t i = 0; i < s->n_ledger; i++)
		print_ledger(cli, s->ledger[i], verbose);
	if (s->frames)
		printf("%-13s%.1f %% of all frames, %.1f %% of user space's\n", "named",
			share(s->frames_named, s->frames),
			share(s->user_frames_named, s->user_frames));
	print_local(s);
	print_cost(s);
	for (size_t i = 0; i < s->n_problems; i++) {
		const Control__Problem *p = s->problems[i];

		printf("%s%-13s%s%s%s\n", streq(p->severity, "failure") ? out_red(cli) : "",
			streq(p->severity, "note") ? "note" : p->severity, p->text, out_plain(cli),
			"");
		if (p->remedy[0])
			printf("%-13s-> %s\n", "", p->remedy);
	}
	if (verbose)
		print_verbose(s);
}

/* ---- JSON ---- */

static void json_ledger(struct json *j, const Control__Ledger *l)
{
	json_open(j, "ledger", '{');
	json_str(j, "type", l->type);
	json_uint(j, "due", l->due);
	json_uint(j, "taken", l->taken);
	json_uint(j, "late", l->late);
	json_uint(j, "idle", l->idle);
	json_uint(j, "ignored", l->ignored);
	json_uint(j, "lost", l->lost);
	json_open(j, "lost_by", '{');
	for (size_t i = 0; i < l->n_lost_by; i++)
		json_uint(j, l->lost_by[i]->cause, l->lost_by[i]->samples);
	json_close(j, '}');
	json_uint(j, "profiled", l->profiled);
	json_uint(j, "open", l->open);
	json_bool(j, "closes", l->closes);
	json_str(j, "gap", l->gap);
	json_open(j, "destinations", '{');
	for (size_t i = 0; i < l->n_destinations; i++) {
		const Control__DestinationLedger *d = l->destinations[i];

		json_open(j, d->name, '{');
		json_uint(j, "routed", d->routed);
		json_uint(j, "delivered", d->delivered);
		json_uint(j, "held", d->held);
		json_uint(j, "evicted", d->evicted);
		json_uint(j, "rejected", d->rejected);
		json_uint(j, "shaped", d->shaped);
		json_close(j, '}');
	}
	json_close(j, '}');
	json_close(j, '}');
}

static void json_lists(struct json *j, const Control__Status *s)
{
	json_open(j, "sources", '[');
	for (size_t i = 0; i < s->n_sources; i++) {
		const Control__SourceState *x = s->sources[i];

		json_open(j, NULL, '{');
		json_str(j, "name", x->name);
		json_str(j, "kind", x->kind);
		json_str(j, "match", x->match);
		json_bool(j, "enabled", x->enabled);
		json_uint(j, "processes", x->images_now);
		json_uint(j, "taken_by_others", x->claimed_by_others);
		json_uint(j, "samples", x->samples);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "destinations", '[');
	for (size_t i = 0; i < s->n_destinations; i++) {
		const Control__DestinationState *d = s->destinations[i];

		json_open(j, NULL, '{');
		json_str(j, "name", d->name);
		json_str(j, "type", d->type);
		json_bool(j, "enabled", d->enabled);
		json_str(j, "state", d->state);
		json_str(j, "endpoint", d->endpoint);
		json_time(j, "last_success", d->last_success_unix_ns);
		json_str(j, "last_error", d->last_error);
		json_uint(j, "sent_batches", d->sent_batches);
		json_uint(j, "sent_bytes", d->sent_bytes);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "problems", '[');
	for (size_t i = 0; i < s->n_problems; i++) {
		json_open(j, NULL, '{');
		json_str(j, "severity", s->problems[i]->severity);
		json_str(j, "text", s->problems[i]->text);
		json_str(j, "remedy", s->problems[i]->remedy);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "processes", '[');
	for (size_t i = 0; i < s->n_processes; i++) {
		const Control__ProcessCost *p = s->processes[i];

		json_open(j, NULL, '{');
		json_str(j, "role", p->role);
		json_uint(j, "pid", p->pid);
		json_uint(j, "cpu_ns", p->cpu_ns);
		json_uint(j, "memory_bytes", p->memory_bytes);
		json_uint(j, "restarts", p->restarts);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static int print_json(const Control__Status *s)
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_bool(&j, "healthy", s->healthy);
	json_str(&j, "version", s->version);
	json_str(&j, "host", s->host);
	json_time(&j, "started", s->started_unix_ns);
	json_uint(&j, "revision", s->revision);
	json_open(&j, "profiling", '{');
	json_bool(&j, "enabled", s->profiling_enabled);
	json_bool(&j, "active", s->profiling_active);
	json_uint(&j, "rate_hz", s->rate_hz);
	named_json_strings(&j, "types", s->types, s->n_types);
	json_bool(&j, "kernel_frames", s->kernel_frames);
	json_uint(&j, "interval_ns", s->interval_ns);
	json_time(&j, "active_since", s->active_since_unix_ns);
	json_uint(&j, "cpus_online", s->cpus_online);
	json_uint(&j, "cpus_sampled", s->cpus_sampled);
	json_close(&j, '}');
	for (size_t i = 0; i < s->n_ledger; i++)
		json_ledger(&j, s->ledger[i]);
	json_open(&j, "names", '{');
	json_uint(&j, "frames", s->frames);
	json_uint(&j, "named", s->frames_named);
	json_uint(&j, "user_frames", s->user_frames);
	json_uint(&j, "user_named", s->user_frames_named);
	json_close(&j, '}');
	json_open(&j, "local", '{');
	json_time(&j, "from", s->local_from_unix_ns);
	json_time(&j, "to", s->local_to_unix_ns);
	json_uint(&j, "bytes", s->local_bytes);
	json_uint(&j, "max_bytes", s->local_max_bytes);
	json_close(&j, '}');
	json_uint(&j, "bpf_run_ns", s->bpf_run_ns);
	json_uint(&j, "images", s->images);
	json_lists(&j, s);
	json_open(&j, "details", '{');
	for (size_t i = 0; i < s->n_details; i++)
		json_str(&j, s->details[i]->key, s->details[i]->value);
	json_close(&j, '}');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

int cmd_status(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetStatus get = CONTROL__GET_STATUS__INIT;
	Control__Reply *reply = NULL;
	bool healthy;
	int r;

	get.verbose = args_flag(args, "verbose");
	request.verb_case = CONTROL__REQUEST__VERB_GET_STATUS;
	request.get_status = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	if (cli->json)
		r = print_json(reply->status);
	else
		print_status(cli, reply->status, get.verbose);
	healthy = reply->status->healthy;
	api_reply_free(reply);
	return r ? r : healthy ? EXIT_DONE : EXIT_FAILED;
}
