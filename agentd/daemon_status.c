/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl status`: is it profiling, what, where to, what was lost, what it costs; and for whatever
 * is wrong or missing, a sentence and the command to type. Healthy means: what was asked for
 * happens. Runs in agentd. */

#include <fcntl.h>
#include <stdarg.h>
#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/config/policy.h"
#include "agentd/daemon_files.h"
#include "agentd/daemon_handover.h"
#include "agentd/daemon_spool.h"
#include "agentd/daemon_verbs.h"

#define MAX_PROBLEMS 32
#define MAX_DETAILS  96

struct filling {
	struct daemon *daemon;
	struct control_reply *reply;
	Control__Status *status;
};

static void problem(struct filling *f, const char *severity, const char *remedy, const char *format,
	...) PRINTF(4, 5);

static void problem(
	struct filling *f, const char *severity, const char *remedy, const char *format, ...)
{
	Control__Problem *p;
	char text[900];
	va_list args;

	if (f->status->n_problems >= MAX_PROBLEMS)
		return;
	p = control_alloc(f->reply, sizeof(*p));
	if (!p)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	control__problem__init(p);
	p->severity = control_strdup(f->reply, severity);
	p->text = control_strdup(f->reply, text);
	p->remedy = control_strdup(f->reply, remedy);
	f->status->problems[f->status->n_problems++] = p;
	if (streq(severity, "failure"))
		f->status->healthy = false;
}

static void detail(struct filling *f, const char *key, const char *format, ...) PRINTF(3, 4);

static void detail(struct filling *f, const char *key, const char *format, ...)
{
	Control__KeyValue *kv;
	char text[600];
	va_list args;

	if (f->status->n_details >= MAX_DETAILS)
		return;
	kv = control_alloc(f->reply, sizeof(*kv));
	if (!kv)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	control__key_value__init(kv);
	kv->key = control_strdup(f->reply, key);
	kv->value = control_strdup(f->reply, text);
	f->status->details[f->status->n_details++] = kv;
}

/* ---- cost ---- */

/* utime + stime of a child of ours, or of ourselves. */
static uint64_t cpu_of(pid_t pid)
{
	_cleanup_buf_ struct buf b = {};
	char path[64];
	const char *p;
	unsigned long long utime = 0, stime = 0;

	buf_init(&b, 4096);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file(AT_FDCWD, path, &b, 4096) < 0 || !b.len)
		return 0;
	p = strrchr((const char *)b.data, ')');
	if (!p ||
		sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &utime,
			&stime) != 2)
		return 0;
	return (utime + stime) * (NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t pss_of(pid_t pid)
{
	_cleanup_buf_ struct buf b = {};
	char path[64];
	const char *p;
	unsigned long long kb = 0;

	buf_init(&b, 8192);
	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	if (io_read_file(AT_FDCWD, path, &b, 8192) < 0 || !b.len)
		return 0;
	p = strstr((const char *)b.data, "\nPss:");
	if (!p || sscanf(p, "\nPss: %llu", &kb) != 1)
		return 0;
	return kb * 1024;
}

static void cost(struct filling *f, const char *role, pid_t pid, uint32_t restarts)
{
	Control__ProcessCost *c;

	if (pid <= 0 || f->status->n_processes >= 8)
		return;
	c = control_alloc(f->reply, sizeof(*c));
	if (!c)
		return;
	control__process_cost__init(c);
	c->role = control_strdup(f->reply, role);
	c->pid = (uint32_t)pid;
	c->cpu_ns = cpu_of(pid);
	c->memory_bytes = pss_of(pid);
	c->restarts = restarts;
	f->status->processes[f->status->n_processes++] = c;
}

static void fill_cost(struct filling *f)
{
	struct daemon *d = f->daemon;
	struct symbol_counters sc = {};
	struct process_counters pc = {};
	struct unwinder_counters uc = {};
	struct sampler_counters c = {};

	f->status->processes = control_alloc(f->reply, 8 * sizeof(*f->status->processes));
	if (!f->status->processes)
		return;
	symbol_counters(d->symbols, &sc);
	process_counters(d->processes, &pc);
	cost(f, "agentd", getpid(), 0);
	cost(f, "proc reader", process_reader_pid(d->processes), (uint32_t)pc.reader_restarts);
	cost(f, "symbolizer", symbol_child_pid(d->symbols), (uint32_t)sc.restarts);
	daemon_unwinder_counters(d, &uc);
	cost(f, "unwinder", daemon_unwinder_pid(d), (uint32_t)uc.restarts);
	cost(f, "exporter", link_child_pid(d->link), link_restarts(d->link));
	if (d->sampler)
		sampler_counters(d->sampler, &c);
	f->status->bpf_run_ns = daemon_bpf_ns(d, &c);
	f->status->cpus_online = c.online_cpus;
	f->status->cpus_sampled = c.sampled_cpus;
	if (d->sampler && c.online_cpus != c.sampled_cpus)
		problem(f, "failure", "odictl logs", "only %u of %u CPUs are sampled",
			c.sampled_cpus, c.online_cpus);
}

/* ---- what it does ---- */

static void fill_profiling(struct filling *f, const struct config *c)
{
	struct daemon *d = f->daemon;
	Control__Status *s = f->status;

	s->profiling_enabled = c->profiling.enabled;
	s->profiling_active = d->sampler != NULL;
	s->rate_hz = c->profiling.rate_hz;
	s->types = control_alloc(f->reply, (PROFILE_TYPES + 1) * sizeof(*s->types));
	for (unsigned t = 0; s->types && t < PROFILE_TYPES; t++)
		if (c->profiling.types & (1U << t))
			s->types[s->n_types++] = (char *)profile_types[t].name;
	s->kernel_frames = c->profiling.kernel_frames;
	s->interval_ns = c->profiling.interval_ns;
	s->max_frames = c->profiling.max_frames;
	s->unwind_memory = c->profiling.unwind_memory;
	s->active_since_unix_ns = d->active_since_unix_ns;
	if (c->profiling.enabled && !d->sampler)
		problem(f, "failure",
			"mend it, then: odictl profiling disable; odictl profiling enable",
			"profiling is enabled but cannot start: %s", d->sampler_problem);
	else if (!c->profiling.enabled)
		problem(f, "note", "odictl profiling enable", "profiling is off");
	if (d->sampler && d->replace_problem[0])
		problem(f, "failure", "odictl profiling disable; odictl profiling enable",
			"max-frames and unwind-memory are as before: the programs could not be "
			"started anew: %s",
			d->replace_problem);
}

static void fill_budget(struct filling *f)
{
	const Control__Budget *b = f->status->budget;

	if (!b || !f->daemon->sampler || b->limit_percent <= 0)
		return;
	if (b->rate_hz != b->wanted_rate_hz)
		problem(f, "warning", "odictl profiling set budget=PERCENT",
			"sampling at %u Hz instead of %u: at more, profiling would take more than its "
			"budget of %g %% of the host's CPU time",
			b->rate_hz, b->wanted_rate_hz, b->limit_percent);
	if (b->over)
		problem(f, "warning", "odictl profiling set budget=PERCENT",
			"profiling takes %.2f %% of the host's CPU time, its budget is %g %%, and the "
			"rate is as low as it gets",
			b->cost_percent, b->limit_percent);
}

/* Kernel frames without names, while there are any to name. */
static void fill_kernel(struct filling *f, const struct config *c)
{
	const struct symbol_file_facts *facts = symbol_facts(f->daemon->symbols, FILE_ID_KERNEL);
	struct err_text why = {}, remedy = {};

	if (!f->daemon->sampler || !c->profiling.kernel_frames || !facts->last_problem[0])
		return;
	kernel_code_explain(f->daemon->kernel_code, &why, &remedy);
	problem(f, "warning", remedy.text[0] ? remedy.text : "odictl logs",
		"kernel frames have no names: %s", why.text[0] ? why.text : facts->last_problem);
}

static void fill_sources(struct filling *f, const struct config *c)
{
	Control__Status *s = f->status;
	size_t enabled = 0;

	s->sources = daemon_source_states(f->daemon, f->reply, "", false, &s->n_sources);
	for (size_t i = 0; i < s->n_sources; i++)
		enabled += s->sources[i]->enabled;
	if (c->profiling.enabled && !enabled)
		problem(f, "warning", "odictl source candidates; odictl source add host",
			s->n_sources ? "every source is disabled, so nothing is profiled"
				     : "there is no source, so nothing is profiled");
}

static void fill_destinations(struct filling *f, const struct config *c)
{
	const struct policy *p = daemon_policy(f->daemon);

	if (p->problem[0])
		problem(f, "failure", "mend the policy: it is read again at once",
			"the policy is refused, so nothing is sent: %s", p->problem);
	f->status->destinations =
		control_alloc(f->reply, (c->n_destinations + 1) * sizeof(*f->status->destinations));
	for (size_t i = 0; f->status->destinations && i < c->n_destinations; i++) {
		Control__DestinationState *x =
			daemon_destination_state(f->daemon, f->reply, &c->destinations[i]);

		if (!x)
			return;
		f->status->destinations[f->status->n_destinations++] = x;
		if (x->enabled && *x->forbidden)
			problem(f, "failure",
				control_printf(f->reply, "odictl destination show %s", x->name),
				"destination %s gets nothing: %s", x->name, x->forbidden);
		else if (x->enabled && x->unverified)
			problem(f, "warning",
				control_printf(f->reply,
					"odictl destination set %s insecure-skip-verify- ca=FILE",
					x->name),
				"destination %s: whoever is in between can read and change what is "
				"sent: its certificate is not verified (insecure-skip-verify)",
				x->name);
		if (x->enabled && streq(x->state, "failing"))
			problem(f, "failure",
				control_printf(f->reply, "odictl destination test %s", x->name),
				"destination %s: %s", x->name, x->last_error);
	}
}

static void fill_local(struct filling *f, const struct config *c)
{
	struct local_state l = {};

	local_state(f->daemon->local, &l);
	f->status->local_from_unix_ns = l.from_unix_ns;
	f->status->local_to_unix_ns = l.to_unix_ns;
	f->status->local_bytes = l.bytes;
	f->status->local_max_bytes = c->local.max_bytes;
	if (l.last_problem[0])
		problem(f, "warning", "df -h; odictl logs", "local profiles: %s", l.last_problem);
	if (l.damaged)
		problem(f, "warning", "odictl logs",
			"local profiles: %llu damaged blocks were left out",
			(unsigned long long)l.damaged);
}

static void fill_state(struct filling *f)
{
	if (link_metrics_problem(f->daemon->link)[0])
		problem(f, "failure", "ss -ltnp; odictl config set metrics/listen=IP:PORT", "%s",
			link_metrics_problem(f->daemon->link));
	if (f->daemon->state_problem[0])
		problem(f, "warning", "df -h; odictl logs", "state folder: %s",
			f->daemon->state_problem);
}

static void fill_files(struct filling *f)
{
	const char *wrong = config_files_wrong(f->daemon->config);
	const char *unwatched = daemon_files_unwatched(f->daemon);
	struct err_text first = {};
	size_t hidden = daemon_files_hidden(f->daemon, &first);

	if (wrong)
		problem(f, "failure", "mend it: it is read again at once; odictl config validate",
			"configuration files: %s; what they said before stays in force", wrong);
	if (hidden)
		problem(f, "warning", "odictl config validate", "%s%s", first.text,
			hidden > 1 ? ", and there are more" : "");
	if (unwatched)
		problem(f, "warning", "systemctl reload odi after a change, or kill -HUP",
			"configuration files: %s", unwatched);
}

static void fill_ledger(struct filling *f)
{
	Control__Ledger *l = control_alloc(f->reply, sizeof(*l));

	f->status->ledger = control_alloc(f->reply, 2 * sizeof(*f->status->ledger));
	if (!l || !f->status->ledger)
		return;
	control__ledger__init(l);
	daemon_ledger_fill(f->daemon, f->reply, l);
	f->status->ledger[f->status->n_ledger++] = l;
	if (!l->closes)
		problem(f, "failure", "please report it with: odictl status --verbose --json",
			"the ledger does not close: %s", l->gap);
	if (l->taken && l->lost * 1000 > l->taken)
		problem(f, "warning", "odictl status --verbose", "%.2f %% of the samples were lost",
			100.0 * (double)l->lost / (double)l->taken);
}

static void fill_spool(struct filling *f)
{
	struct daemon *d = f->daemon;

	f->status->spool = daemon_spool_state(d, f->reply);
	f->status->gap_from_unix_ns = daemon_gap_from(d);
	f->status->gap_to_unix_ns = d->gap.to_unix_ns;
	f->status->gaps = d->gap.count;
	if (f->status->spool && f->status->spool->problem[0])
		problem(f, "warning", "df -h; odictl spool show",
			"spool: %s; batches that wait are held in memory, within 32 MB",
			f->status->spool->problem);
}

static void fill_details(struct filling *f)
{
	struct daemon *d = f->daemon;
	struct symbol_counters sc = {};
	struct process_counters pc = {};
	struct local_state l = {};
	const char *features[32];
	size_t n;

	f->status->details = control_alloc(f->reply, MAX_DETAILS * sizeof(*f->status->details));
	if (!f->status->details)
		return;
#define NUMBER(key, value) detail(f, key, "%llu", (unsigned long long)(value))
	symbol_counters(d->symbols, &sc);
	process_counters(d->processes, &pc);
	local_state(d->local, &l);
	NUMBER("images", pc.images);
	NUMBER("files", pc.files);
	NUMBER("open files", pc.open_files);
	NUMBER("process reads", pc.reads);
	NUMBER("process reads failed", pc.reads_failed);
	NUMBER("process reads timed out", pc.reads_timed_out);
	NUMBER("frames outside any mapping", pc.frames_unmapped);
	NUMBER("stacks walked in agentd", pc.walks);
	NUMBER("walks that waited for rows", pc.walks_waited);
	NUMBER("walks that waited too long", pc.walks_late);
	NUMBER("slices dropped", pc.slices_dropped);
	NUMBER("samples with reused addresses", pc.reused);
	NUMBER("images evicted", pc.evicted_images);
	NUMBER("names cached", sc.entries);
	NUMBER("name bytes", sc.string_bytes);
	NUMBER("names asked for", sc.asked);
	NUMBER("names from the cache", sc.cached);
	NUMBER("names from the disk", sc.from_disk);
	NUMBER("names written to the disk", sc.to_disk);
	NUMBER("names not written to the disk", sc.not_to_disk);
	NUMBER("frames without a name", sc.fallback);
	NUMBER("names too late", d->late_names);
	NUMBER("symbolizer restarts", sc.restarts);
	NUMBER("symbolizer crashes", sc.crashes);
	NUMBER("symbolizer time-outs", sc.timeouts);
	NUMBER("symbolizer answers refused", sc.refused);
	NUMBER("batches", d->ledger.batches);
	NUMBER("local blocks", l.blocks);
	NUMBER("local blocks evicted", l.evicted);
	NUMBER("local write errors", l.write_errors);
#undef NUMBER
	n = d->sampler ? sampler_features(d->sampler, features, ARRAY_SIZE(features)) : 0;
	for (size_t i = 0; i < n; i++)
		detail(f, "kernel", "%s", features[i]);
}

int daemon_status_fill(
	struct daemon *d, struct control_reply *r, Control__Status *s, bool verbose, bool settle)
{
	const struct config *c = d->in_force;
	struct process_counters pc = {};
	struct filling f = {d, r, s};

	/* The figures below stand still while they are read: everything sampled so far is where it
	 * belongs. */
	if (settle)
		daemon_settle(d);
	process_counters(d->processes, &pc);
	s->healthy = true;
	s->version = (char *)ODI_VERSION;
	s->started_unix_ns = d->started_unix_ns;
	s->revision = c->revision;
	s->host = control_strdup(r, d->host.name);
	s->images = pc.images;
	s->frames = d->frames;
	s->frames_named = d->frames_named;
	s->user_frames = d->user_frames;
	s->user_frames_named = d->user_frames_named;
	s->problems = control_alloc(r, MAX_PROBLEMS * sizeof(*s->problems));
	if (!s->problems)
		return -ENOMEM;
	fill_profiling(&f, c);
	fill_kernel(&f, c);
	fill_sources(&f, c);
	fill_destinations(&f, c);
	fill_local(&f, c);
	fill_spool(&f);
	fill_state(&f);
	fill_files(&f);
	fill_ledger(&f);
	fill_cost(&f);
	daemon_status_sandboxes(d, r, s);
	daemon_status_unwinding(d, r, s);
	fill_budget(&f);
	if (verbose)
		fill_details(&f);
	return 0;
}

void daemon_status(void *userdata, struct control_reply *r, const Control__GetStatus *request)
{
	Control__Status s = CONTROL__STATUS__INIT;
	Control__Reply reply = CONTROL__REPLY__INIT;

	if (daemon_status_fill(userdata, r, &s, request->verbose, true) < 0) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	reply.body_case = CONTROL__REPLY__BODY_STATUS;
	reply.status = &s;
	control_send(r, &reply, true);
}
