/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl doctor`: everything that may keep profiles from being right, from arriving or from being made, each with what
 * it means and what to do. It changes nothing here; a test of a destination sends it an empty profile, which
 * --no-network leaves out. Without agentd it says
 * so, and looks at the host all the same. */

#include <fcntl.h>
#include <sys/utsname.h>

#include "agentd/base/text.h"
#include "odictl/doctor.h"

#define DEFAULT_RATE  99
#define NAMED_ENOUGH  90.0 /* percent */
#define WHOLE_ENOUGH  95.0
#define ENOUGH_TO_SAY 200 /* samples */
#define LISTED        5   /* of one kind */

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void look_versions(struct cli *cli, struct findings *f)
{
	const char *version = api_hello(cli->client)->version;

	if (streq(version, ODI_VERSION))
		finding_add(f, "agentd", FINDING_OK, "", "agentd %s answers at %s", version,
			cli->socket);
	else
		finding_add(f, "agentd", FINDING_WARNING, "systemctl restart odi",
			"agentd is %s and odictl is " ODI_VERSION
			": one of them is not of this installation",
			version);
}

static void look_profiling(const Control__Status *s, struct findings *f)
{
	if (s->profiling_active && s->cpus_sampled < s->cpus_online)
		finding_add(f, "profiling", FINDING_WARNING, "odictl logs --level warning",
			"only %u of %u CPUs are sampled", s->cpus_sampled, s->cpus_online);
	else if (s->profiling_active)
		finding_add(f, "profiling", FINDING_OK, "", "profiling is on, %u Hz on %u CPUs",
			s->rate_hz, s->cpus_sampled);
	else if (!s->profiling_enabled)
		finding_add(f, "profiling", FINDING_WARNING, "odictl profiling enable --all",
			"profiling is off");
	for (size_t i = 0; i < s->n_problems; i++) {
		const Control__Problem *p = s->problems[i];

		if (streq(p->severity, "note"))
			continue; /* said above */
		finding_add(f, "problem",
			streq(p->severity, "failure") ? FINDING_FAILURE : FINDING_WARNING,
			p->remedy, "%s", p->text);
	}
	for (size_t i = 0; i < s->n_ledger; i++)
		if (!s->ledger[i]->closes)
			finding_add(f, "ledger", FINDING_WARNING, "odictl status --verbose",
				"samples are unaccounted for (%s): %s", s->ledger[i]->type,
				s->ledger[i]->gap);
}

static void look_sources(const Control__Status *s, struct findings *f)
{
	char remedy[300];

	if (!s->n_sources)
		finding_add(f, "sources", FINDING_WARNING,
			"odictl source candidates, or odictl profiling enable --all",
			"there is no source: nothing is profiled");
	for (size_t i = 0; i < s->n_sources; i++) {
		const Control__SourceState *x = s->sources[i];

		if (!x->enabled)
			continue;
		snprintf(remedy, sizeof(remedy), "odictl source show %s", x->name);
		if (!s->profiling_active)
			finding_add(f, "source", FINDING_OK, "",
				"source %s: what it matches is known while profiling is on",
				x->name);
		else if (x->images_now)
			finding_add(f, "source", FINDING_OK, "", "source %s matches %u processes",
				x->name, x->images_now);
		else if (x->claimed_by_others)
			finding_add(f, "source", FINDING_WARNING, remedy,
				"source %s has no process: what it matches is taken by more specific "
				"sources",
				x->name);
		else
			finding_add(f, "source", FINDING_WARNING, remedy,
				"source %s (%s%s%s) matches no process that runs", x->name, x->kind,
				x->match[0] ? " " : "", x->match);
	}
}

static int look_destination(struct cli *cli, const char *name, struct findings *f)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__TestDestination test = CONTROL__TEST_DESTINATION__INIT;
	Control__Reply *reply = NULL;
	const Control__DestinationTested *t;
	char took[64];
	int r;

	test.name = (char *)name;
	request.verb_case = CONTROL__REQUEST__VERB_TEST_DESTINATION;
	request.test_destination = &test;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	t = reply->destination_tested;
	text_format_duration(t->duration_ns, took, sizeof(took));
	if (t->ok)
		finding_add(f, "destination", FINDING_OK, "",
			"destination %s: %s took an empty profile in %s", name, t->endpoint, took);
	else
		finding_add(f, "destination", FINDING_FAILURE, t->remedy,
			"destination %s at %s: %s", name, t->endpoint, t->reason);
	api_reply_free(reply);
	return 0;
}

static void look_quality(const Control__Status *s, struct findings *f)
{
	double named = percent(s->user_frames_named, s->user_frames), whole;

	if (s->user_frames >= ENOUGH_TO_SAY)
		finding_add(f, "names", named < NAMED_ENOUGH ? FINDING_WARNING : FINDING_OK,
			named < NAMED_ENOUGH ? "odictl symbols" : "",
			"%.1f %% of the frames of programs have names", named);
	if (!s->stacks || s->stacks->samples < ENOUGH_TO_SAY)
		return;
	whole = percent(s->stacks->to_root, s->stacks->samples);
	finding_add(f, "stacks", whole < WHOLE_ENOUGH ? FINDING_WARNING : FINDING_OK,
		whole < WHOLE_ENOUGH ? "odictl status --verbose says in which files the others end"
				     : "",
		"%.1f %% of the stacks reach their root", whole);
}

/* What waits on the disk for destinations. */
static void look_spool(const Control__Status *s, struct findings *f)
{
	const Control__SpoolState *x = s->spool;
	char used[32], max[32];

	if (!x || !x->known)
		return;
	text_format_size(x->bytes, used, sizeof(used));
	text_format_size(x->max_bytes, max, sizeof(max));
	if (x->problem[0])
		finding_add(f, "spool", FINDING_WARNING, "df -h; odictl status",
			"what waits for destinations is not safe on the disk: %s", x->problem);
	else if (!x->on)
		finding_add(f, "spool", FINDING_OK, "",
			"the spool is off: what waits for destinations is kept in memory");
	else if (x->max_bytes && x->bytes > x->max_bytes / 10 * 9)
		finding_add(f, "spool", FINDING_WARNING, "odictl destination list",
			"the spool is nearly full (%s of %s): soon the oldest profiles are given up",
			used, max);
	else
		finding_add(f, "spool", FINDING_OK, "",
			"%s of at most %s wait on the disk for destinations", used, max);
}

/* Where walks of stacks end for want of unwind information. */
static void look_unwinding(const Control__Status *s, struct findings *f)
{
	size_t n = 0;

	for (size_t i = 0; s->stacks && i < s->stacks->n_files && n < LISTED; i++) {
		const Control__StackFile *x = s->stacks->files[i];

		if (x->samples < ENOUGH_TO_SAY || !x->problem[0])
			continue;
		n++;
		finding_add(f, "unwinding", FINDING_WARNING,
			"build it with -fasynchronous-unwind-tables or -fno-omit-frame-pointer",
			"%s: stacks end there (%llu samples): %s", x->file,
			(unsigned long long)x->samples, x->problem);
	}
}

/* Binaries that samples fall into and that have no names. */
static int look_binaries(struct cli *cli, struct findings *f)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSymbols get = CONTROL__GET_SYMBOLS__INIT;
	Control__Reply *reply = NULL;
	size_t n = 0;
	int r;

	get.limit = 50;
	request.verb_case = CONTROL__REQUEST__VERB_GET_SYMBOLS;
	request.get_symbols = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	for (size_t i = 0; i < reply->symbols->n_files && n < LISTED; i++) {
		const Control__SymbolFile *x = reply->symbols->files[i];

		if (x->frames < ENOUGH_TO_SAY ||
			percent(x->frames_named, x->frames) >= NAMED_ENOUGH)
			continue;
		n++;
		finding_add(f, "binary", FINDING_WARNING,
			x->advice[0] ? x->advice : "odictl symbols",
			"%s: %.0f %% of its frames have names%s%s", x->path,
			percent(x->frames_named, x->frames), x->problem[0] ? ": " : "", x->problem);
	}
	api_reply_free(reply);
	return 0;
}

/* What agentd knows. An exit code where it cannot be asked. */
static int look_agentd(struct cli *cli, bool network, struct findings *f, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetStatus get = CONTROL__GET_STATUS__INIT;
	const Control__Status *s;
	int r;

	request.verb_case = CONTROL__REQUEST__VERB_GET_STATUS;
	request.get_status = &get;
	r = cli_call(cli, &request, ret);
	if (r)
		return r;
	s = (*ret)->status;
	look_versions(cli, f);
	look_profiling(s, f);
	look_sources(s, f);
	if (network && s->n_destinations && !streq(api_hello(cli->client)->access, "change")) {
		network = false;
		finding_add(f, "destination", FINDING_OK, "",
			"destinations were not tested: that takes the right to change things (sudo, or "
			"the group odi)");
	}
	for (size_t i = 0; network && i < s->n_destinations && !r; i++)
		if (s->destinations[i]->enabled)
			r = look_destination(cli, s->destinations[i]->name, f);
	look_spool(s, f);
	look_quality(s, f);
	look_unwinding(s, f);
	return r ? r : look_binaries(cli, f);
}

static void look_processes(
	const Control__Status *s, struct findings *f, int root, const char *release)
{
	unsigned own[16];
	size_t n = 0;

	for (size_t i = 0; i < s->n_processes && n < ARRAY_SIZE(own); i++) {
		own[n++] = s->processes[i]->pid;
		if (streq(s->processes[i]->role, "agentd"))
			doctor_agentd(f, root, s->processes[i]->pid, release);
	}
	doctor_others(f, root, own, n);
}

/* ---- saying it ---- */

static const char *const levels[] = {"ok", "warning", "failure"};

static int say_json(const struct findings *f, const size_t counts[3])
{
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_bool(&j, "ok", !counts[FINDING_FAILURE]);
	json_uint(&j, "warnings", counts[FINDING_WARNING]);
	json_uint(&j, "failures", counts[FINDING_FAILURE]);
	json_open(&j, "findings", '[');
	for (size_t i = 0; i < f->n; i++) {
		json_open(&j, NULL, '{');
		json_str(&j, "what", f->list[i].what);
		json_str(&j, "level", levels[f->list[i].level]);
		json_str(&j, "text", f->list[i].text);
		json_str(&j, "remedy", f->list[i].remedy);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	return json_print(&j, stdout);
}

static void say(struct cli *cli, const struct findings *f, const size_t counts[3])
{
	char head[64];

	for (size_t i = 0; i < f->n; i++) {
		const struct finding *x = &f->list[i];
		const char *color = x->level == FINDING_FAILURE ? out_red(cli)
			: x->level == FINDING_WARNING           ? out_bold(cli)
								: "";

		snprintf(head, sizeof(head), "%s%-8s%s", color, levels[x->level],
			*color ? out_plain(cli) : "");
		out_line(head, 9, "%s", x->text);
		if (x->remedy[0])
			out_line("      ->", 9, "%s", x->remedy);
	}
	if (f->dropped)
		out_line("", 0, "and %zu more", f->dropped);
	printf("%zu ok, %zu to look at, %zu wrong\n", counts[FINDING_OK], counts[FINDING_WARNING],
		counts[FINDING_FAILURE]);
}

int cmd_doctor(struct cli *cli, struct args *args)
{
	_cleanup_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ struct findings *f = calloc(1, sizeof(*f));
	Control__Reply *reply = NULL;
	struct err_text err = {""};
	size_t counts[3] = {0};
	struct utsname u = {0};
	int r = 0;

	if (!f)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	uname(&u);
	if (api_connect(&cli->client, cli->socket, &err) < 0)
		finding_add(f, "agentd", FINDING_FAILURE, "", "%s", err.text);
	else
		r = look_agentd(cli, !args_flag(args, "no-network"), f, &reply);
	if (!r && reply)
		look_processes(reply->status, f, root, u.release);
	else if (!r)
		doctor_others(f, root, NULL, 0);
	if (!r)
		doctor_host(f, root, u.release,
			reply && reply->status->rate_hz ? reply->status->rate_hz : DEFAULT_RATE);
	api_reply_free(reply);
	if (r)
		return r;
	for (size_t i = 0; i < f->n; i++)
		counts[f->list[i].level]++;
	if (cli->json)
		r = say_json(f, counts);
	else
		say(cli, f, counts);
	return r ? r : counts[FINDING_FAILURE] ? EXIT_FAILED : EXIT_DONE;
}
