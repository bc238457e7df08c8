/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl status`: one screen of truth. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/named.h"
#include "odictl/profiling.h"
#include "odictl/source.h"

#define INDENT     13
#define MAX_LISTED 10 /* sources, destinations: it has to fit one screen */

static double share(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_profiling(const Control__Status *s)
{
	char since[64] = "", interval[64], types[200] = "", rate[64];
	size_t at = 0;

	if (!s->profiling_active) {
		out_line("profiling", INDENT, "%s",
			s->profiling_enabled ? "enabled, but not running" : "off");
		return;
	}
	for (size_t i = 0; i < s->n_types && at < sizeof(types); i++)
		at += (size_t)snprintf(
			types + at, sizeof(types) - at, "%s%s", i ? "+" : "", s->types[i]);
	out_duration_since(s->active_since_unix_ns, since, sizeof(since));
	text_format_duration(s->interval_ns, interval, sizeof(interval));
	profiling_rate_text(s, rate, sizeof(rate));
	out_line("profiling", INDENT,
		"on for %s: %s, %s on %u of %u CPUs, kernel frames %s, batches of %s", since, types,
		rate, s->cpus_sampled, s->cpus_online, s->kernel_frames ? "on" : "off", interval);
}

static void print_sources(const Control__Status *s)
{
	if (!s->n_sources)
		out_line("sources", INDENT, "none");
	for (size_t i = 0; i < s->n_sources && i < MAX_LISTED; i++) {
		const Control__SourceState *x = s->sources[i];
		char n[32], matches[64];

		source_describe_matches(x, matches, sizeof(matches));
		out_line(i ? "" : "sources", INDENT, "%s (%s%s%s): %s, %s samples", x->name,
			x->kind, x->match[0] ? " " : "", x->match, matches,
			out_number(x->samples, n, sizeof(n)));
	}
	if (s->n_sources > MAX_LISTED)
		out_line("", INDENT, "and %zu more: odictl source list", s->n_sources - MAX_LISTED);
}

static void print_destinations(struct cli *cli, const Control__Status *s)
{
	if (!s->n_destinations)
		out_line("destinations", INDENT, "none: profiles stay on this host");
	for (size_t i = 0; i < s->n_destinations && i < MAX_LISTED; i++) {
		const Control__DestinationState *d = s->destinations[i];
		char ago[64], sent[32], n[48];
		bool failing = streq(d->state, "failing") || streq(d->state, "forbidden");

		if (!d->enabled) {
			out_line(i ? "" : "destinations", INDENT, "%s: disabled", d->name);
			continue;
		}
		text_format_size(d->sent_bytes, sent, sizeof(sent));
		out_line(i ? "" : "destinations", INDENT,
			"%s: %s%s%s, %s%s%s%s, last success %s, sent %s (%s)", d->name,
			failing ? out_red(cli) : "", d->state, failing ? out_plain(cli) : "",
			d->endpoint, d->unverified ? out_red(cli) : "",
			d->unverified ? " NOT VERIFIED" : "", d->unverified ? out_plain(cli) : "",
			out_ago(d->last_success_unix_ns, ago, sizeof(ago)),
			out_batches(d->sent_batches, n, sizeof(n)), sent);
	}
	if (s->n_destinations > MAX_LISTED)
		out_line("", INDENT, "and %zu more: odictl destination list",
			s->n_destinations - MAX_LISTED);
}

static void print_delivery(const Control__DestinationLedger *x)
{
	char a[32], b[32], c[32], d[32], e[32], f[32];

	out_line("", INDENT,
		"%s: routed %s = delivered %s + held %s + rejected %s + evicted %s + shaped away %s",
		x->name, out_number(x->routed, a, sizeof(a)),
		out_number(x->delivered, b, sizeof(b)), out_number(x->held, c, sizeof(c)),
		out_number(x->rejected, d, sizeof(d)), out_number(x->evicted, e, sizeof(e)),
		out_number(x->shaped, f, sizeof(f)));
}

static void print_ledger(const Control__Ledger *l, bool verbose)
{
	char a[32], b[32], c[32], d[32], e[32], f[32], g[32], h[32];

	out_line("samples", INDENT, "due %s = taken %s + late %s", out_number(l->due, a, sizeof(a)),
		out_number(l->taken, b, sizeof(b)), out_number(l->late, c, sizeof(c)));
	out_line("", INDENT,
		"taken = profiled %s + idle %s + ignored %s + lost %s + on the way %s%s%s",
		out_number(l->profiled, d, sizeof(d)), out_number(l->idle, e, sizeof(e)),
		out_number(l->ignored, f, sizeof(f)), out_number(l->lost, g, sizeof(g)),
		out_number(l->open, h, sizeof(h)),
		l->closes ? "" : "; this does not close: ", l->closes ? "" : l->gap);
	for (size_t i = 0; i < l->n_lost_by; i++)
		if (verbose || l->lost_by[i]->samples)
			out_line("", INDENT, "lost: %s: %s", l->lost_by[i]->cause,
				out_number(l->lost_by[i]->samples, a, sizeof(a)));
	for (size_t i = 0; i < l->n_destinations; i++)
		if (verbose || l->destinations[i]->rejected || l->destinations[i]->evicted)
			print_delivery(l->destinations[i]);
}

/* Rounded down: a share of 100 % is said of all, and of nothing less. */
static void print_stacks(const Control__Stacks *s)
{
	uint64_t permille = s && s->samples ? 1000 * s->to_root / s->samples : 0;

	if (s && s->samples)
		out_line("stacks", INDENT, "%u.%u %% to the root", (unsigned)permille / 10,
			(unsigned)permille % 10);
}

static void print_ended(uint64_t samples, const char *text, const char *file, const char *problem)
{
	char n[32];

	out_line("", INDENT, "%s%s%s%s%s%s  %s", text, file ? " for " : "", file ? file : "",
		problem[0] ? " (" : "", problem, problem[0] ? ")" : "",
		out_number(samples, n, sizeof(n)));
}

/* Why the others ended, by count; files by name, and what is left of their reason without one. */
static void print_ends(const Control__Stacks *s)
{
	char n[32], m[32];

	if (!s || !s->samples)
		return;
	out_line("stacks", INDENT,
		"%s with a user stack, %s of them with frames found by frame pointer or guess",
		out_number(s->samples, n, sizeof(n)), out_number(s->guessed_samples, m, sizeof(m)));
	for (size_t i = 0; i < s->n_files; i++)
		print_ended(s->files[i]->samples, s->files[i]->text, s->files[i]->file,
			s->files[i]->problem);
	for (size_t i = 0; i < s->n_ends; i++) {
		uint64_t left = s->ends[i]->samples;

		for (size_t k = 0; k < s->n_files; k++)
			if (streq(s->files[k]->key, s->ends[i]->key))
				left -= MIN(left, s->files[k]->samples);
		if (left)
			print_ended(left, s->ends[i]->text, NULL, "");
	}
}

static void print_unwinding(const Control__Unwinding *u)
{
	char a[32], b[32], c[32], d[32];

	if (!u || !u->rows_bytes)
		return;
	text_format_size(u->rows_used_bytes, a, sizeof(a));
	text_format_size(u->rows_bytes, b, sizeof(b));
	out_line("unwinding", INDENT, "%s of %s for %s pages of code, %s put out", a, b,
		out_number(u->pages, c, sizeof(c)), out_number(u->pages_evicted, d, sizeof(d)));
	out_line("", INDENT, "%s address spaces of %s mappings, %s put out",
		out_number(u->spaces, a, sizeof(a)), out_number(u->space_maps, b, sizeof(b)),
		out_number(u->spaces_evicted, c, sizeof(c)));
	out_line("", INDENT, "made %s pages of %s rows in %s CPU seconds, failed %s times",
		out_number(u->pages_made, a, sizeof(a)), out_number(u->rows_made, b, sizeof(b)),
		out_seconds(u->cpu_ns, c, sizeof(c)),
		out_number(u->crashes + u->timeouts + u->lies, d, sizeof(d)));
	out_line("", INDENT, "%s samples brought a part of their stack, %s were refused it",
		out_number(u->slices, a, sizeof(a)), out_number(u->slices_refused, b, sizeof(b)));
	out_line("", INDENT, "%s samples sent, %s only counted (%.1f %%)",
		out_number(u->sent, a, sizeof(a)), out_number(u->counted, b, sizeof(b)),
		share(u->counted, u->sent + u->counted));
}

static void print_cost(const Control__Status *s)
{
	uint64_t memory = 0, now = clock_unix_ns(), cpu = s->bpf_run_ns;
	char size[32];

	for (size_t i = 0; i < s->n_processes; i++) {
		memory += s->processes[i]->memory_bytes;
		cpu += s->processes[i]->cpu_ns;
	}
	text_format_size(memory, size, sizeof(size));
	out_line("cost", INDENT,
		"%.2f %% of one CPU since the start, %s of memory in %zu process%s",
		share(cpu, now > s->started_unix_ns ? now - s->started_unix_ns : 0), size,
		s->n_processes, s->n_processes == 1 ? "" : "es");
	if (s->budget && s->budget->window_ns && s->budget->limit_percent > 0)
		out_line("", INDENT, "now %.2f %% of the host, of a budget of %g %%",
			s->budget->cost_percent, s->budget->limit_percent);
}

static void sandbox_text(const Control__Sandbox *x, char *out, size_t size)
{
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; i < x->n_has + x->n_lacks && at < size; i++) {
		bool has = i < x->n_has;

		at += (size_t)snprintf(out + at, size - at, "%s%s",
			!i            ? ""
				: has ? ", "
				      : "; ",
			has ? x->has[i] : x->lacks[i - x->n_has]);
	}
}

/* Those that are held by the same share a line. */
static void print_sandboxes(const Control__Status *s)
{
	char last[400] = "", next[400], roles[200] = "";
	size_t lines = 0;

	for (size_t i = 0; i <= s->n_sandboxes; i++) {
		size_t at = strlen(roles);

		next[0] = '\0';
		if (i < s->n_sandboxes)
			sandbox_text(s->sandboxes[i], next, sizeof(next));
		if (at && !streq(last, next)) {
			out_line(lines++ ? "" : "sandbox", INDENT, "%s: %s", roles, last);
			at = 0;
		}
		if (i < s->n_sandboxes)
			snprintf(roles + at, sizeof(roles) - at, "%s%s", at ? ", " : "",
				s->sandboxes[i]->role);
		memcpy(last, next, sizeof(last));
	}
}

static void print_local(const Control__Status *s)
{
	char span[64], used[32], max[32];

	text_format_size(s->local_bytes, used, sizeof(used));
	text_format_size(s->local_max_bytes, max, sizeof(max));
	text_format_duration(s->local_to_unix_ns - MIN(s->local_from_unix_ns, s->local_to_unix_ns),
		span, sizeof(span));
	if (s->local_from_unix_ns)
		out_line("kept here", INDENT, "%s of profiles, %s of at most %s", span, used, max);
	else
		out_line("kept here", INDENT, "nothing yet, at most %s", max);
}

static void print_waiting(const Control__Status *s)
{
	const Control__SpoolState *x = s->spool;
	char used[32], max[32], from[40], to[40], n[48];

	if (x && x->batches) {
		text_format_size(x->bytes, used, sizeof(used));
		text_format_size(x->max_bytes, max, sizeof(max));
		out_line("waiting", INDENT, "%s on the disk, %s of at most %s",
			out_batches(x->batches, n, sizeof(n)), used, max);
	}
	if (s->gaps)
		out_line("gap", INDENT,
			"%s to %s: agentd was ended without a stop, so what was sampled then is not known%s",
			out_time(s->gap_from_unix_ns, from, sizeof(from)),
			out_time(s->gap_to_unix_ns, to, sizeof(to)),
			s->gaps > 1 ? " (and before that)" : "");
}

static void print_verbose(const Control__Status *s)
{
	puts("");
	print_ends(s->stacks);
	print_unwinding(s->unwinding);
	for (size_t i = 0; i < s->n_processes; i++) {
		const Control__ProcessCost *p = s->processes[i];
		char size[32], cpu[32];

		text_format_size(p->memory_bytes, size, sizeof(size));
		out_line(i ? "" : "processes", INDENT,
			"%s: pid %u, %s CPU seconds, %s, %u restarts", p->role, p->pid,
			out_seconds(p->cpu_ns, cpu, sizeof(cpu)), size, p->restarts);
	}
	for (size_t i = 0; i < s->n_details; i++)
		out_line(s->details[i]->key, 29, "%s", s->details[i]->value);
}

static void print_problem(struct cli *cli, const Control__Problem *p)
{
	char head[100];

	snprintf(head, sizeof(head), "%s%.40s%s", streq(p->severity, "failure") ? out_red(cli) : "",
		p->severity, out_plain(cli));
	out_line(head, INDENT, "%s", p->text);
	if (p->remedy[0])
		out_line("", INDENT, "-> %s", p->remedy);
}

static void print_status(struct cli *cli, const Control__Status *s, bool verbose)
{
	printf("%sodi %s%s on %s: %s%s%s\n", out_bold(cli), s->version, out_plain(cli), s->host,
		s->healthy ? "" : out_red(cli), s->healthy ? "healthy" : "NOT healthy",
		out_plain(cli));
	print_profiling(s);
	print_sources(s);
	print_destinations(cli, s);
	for (size_t i = 0; i < s->n_ledger; i++)
		print_ledger(s->ledger[i], verbose);
	print_stacks(s->stacks);
	if (s->frames)
		out_line("named", INDENT, "%.1f %% of all frames, %.1f %% of user space's",
			share(s->frames_named, s->frames),
			share(s->user_frames_named, s->user_frames));
	print_local(s);
	print_waiting(s);
	print_cost(s);
	print_sandboxes(s);
	for (size_t i = 0; i < s->n_problems; i++)
		print_problem(cli, s->problems[i]);
	if (verbose)
		print_verbose(s);
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
		r = status_print_json(reply->status);
	else
		print_status(cli, reply->status, get.verbose);
	healthy = reply->status->healthy;
	api_reply_free(reply);
	return r ? r : healthy ? EXIT_DONE : EXIT_FAILED;
}
