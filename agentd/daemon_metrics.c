/* SPDX-License-Identifier: Apache-2.0 */

/* What odi says of itself: the ledger, queues and sends of each destination, what its processes cost, how well stacks
 * are walked and frames named.
 *
 * All of it is made from the status that odictl shows, so that a dashboard and a person read the same figures.
 * Whatever counts samples is a counter since agentd started; what is counted since profiling was enabled (stacks) is
 * reset with it, as counters may be. Label values are names that an administrator gave, and words of ours: how many
 * series there are is bounded by the configuration, never by what runs on the host. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/daemon_metrics.h"
#include "agentd/daemon_verbs.h"
#include "destinations/latency.h"

#define NONE NULL, 0

static void gauge(struct metrics *m, const char *name, const char *help, uint64_t value)
{
	metrics_family(m, METRIC_GAUGE, name, "", help);
	metrics_count(m, value, NONE);
}

static void counter(struct metrics *m, const char *name, const char *help, uint64_t value)
{
	metrics_family(m, METRIC_COUNTER, name, "", help);
	metrics_count(m, value, NONE);
}

static void bytes_gauge(struct metrics *m, const char *name, const char *help, uint64_t value)
{
	metrics_family(m, METRIC_GAUGE, name, "bytes", help);
	metrics_count(m, value, NONE);
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

/* ---- the agent ----------------------------------------------------------------------------------- */

static void fill_agent(struct metrics *m, const Control__Status *s)
{
	const struct metric_label version = {"version", s->version};

	metrics_family(m, METRIC_INFO, "odi_agent", "", "The agent's version.");
	metrics_count(m, 1, &version, 1);
	metrics_family(m, METRIC_GAUGE, "odi_start_time_seconds", "seconds",
		"When agentd started, in seconds since 1970.");
	metrics_number(m, seconds(s->started_unix_ns), NONE);
	gauge(m, "odi_healthy", "1 while all that was asked for happens, as odictl status says.",
		s->healthy);
	gauge(m, "odi_config_revision", "Revision of the configuration in force.", s->revision);
	gauge(m, "odi_profiling_enabled", "1 where profiling is asked for.", s->profiling_enabled);
	gauge(m, "odi_profiling_active", "1 while CPUs are sampled.", s->profiling_active);
	metrics_family(m, METRIC_GAUGE, "odi_profiling_rate_hertz", "hertz",
		"Samples a second on each CPU that are taken now.");
	metrics_count(m, s->budget && s->profiling_active ? s->budget->rate_hz : 0, NONE);
	gauge(m, "odi_cpus_online", "CPUs of this host.", s->cpus_online);
	gauge(m, "odi_cpus_sampled", "CPUs that are sampled.", s->cpus_sampled);
	gauge(m, "odi_images", "Programs that agentd knows now.", s->images);
	bytes_gauge(m, "odi_local_profiles_bytes", "Disk room of the profiles kept on this host.",
		s->local_bytes);
	bytes_gauge(m, "odi_local_profiles_limit_bytes", "What they may take.", s->local_max_bytes);
}

static void fill_cost(struct metrics *m, const Control__Status *s)
{
	static const char *const severities[] = {"failure", "warning"};

	metrics_family(m, METRIC_GAUGE, "odi_problems", "",
		"Problems that odictl status shows, by how grave they are.");
	for (size_t k = 0; k < ARRAY_SIZE(severities); k++) {
		const struct metric_label severity = {"severity", severities[k]};
		uint64_t n = 0;

		for (size_t i = 0; i < s->n_problems; i++)
			n += streq(s->problems[i]->severity, severities[k]);
		metrics_count(m, n, &severity, 1);
	}
	metrics_family(m, METRIC_COUNTER, "odi_process_cpu_seconds", "seconds",
		"CPU time of each process of odi; starts anew with the process.");
	for (size_t i = 0; i < s->n_processes; i++)
		metrics_number(m, seconds(s->processes[i]->cpu_ns),
			&(struct metric_label){"role", s->processes[i]->role}, 1);
	metrics_family(m, METRIC_GAUGE, "odi_process_memory_bytes", "bytes",
		"Memory of each process (proportional set size).");
	for (size_t i = 0; i < s->n_processes; i++)
		metrics_count(m, s->processes[i]->memory_bytes,
			&(struct metric_label){"role", s->processes[i]->role}, 1);
	metrics_family(m, METRIC_COUNTER, "odi_process_restarts", "",
		"How often a process had to be started again.");
	for (size_t i = 0; i < s->n_processes; i++)
		metrics_count(m, s->processes[i]->restarts,
			&(struct metric_label){"role", s->processes[i]->role}, 1);
	metrics_family(m, METRIC_COUNTER, "odi_bpf_run_seconds", "seconds",
		"CPU time of all BPF programs of odi.");
	metrics_number(m, seconds(s->bpf_run_ns), NONE);
	if (!s->budget)
		return;
	metrics_family(m, METRIC_GAUGE, "odi_budget_used_ratio", "ratio",
		"Share of the host's CPU time that profiling takes.");
	if (s->budget->window_ns)
		metrics_number(m, s->budget->cost_percent / 100, NONE);
	metrics_family(m, METRIC_GAUGE, "odi_budget_limit_ratio", "ratio",
		"What it may take; 0: no limit.");
	metrics_number(m, s->budget->limit_percent / 100, NONE);
}

/* ---- quality ------------------------------------------------------------------------------------- */

static void fill_stacks(struct metrics *m, const Control__Status *s)
{
	const Control__Stacks *k = s->stacks;
	const Control__Unwinding *u = s->unwinding;

	if (k) {
		counter(m, "odi_stacks", "Samples with a stack of user space.", k->samples);
		counter(m, "odi_stacks_to_root", "Of these, those whose stack got to the root.",
			k->to_root);
		counter(m, "odi_stacks_guessed", "Of these, those with a frame that was guessed.",
			k->guessed_samples);
		metrics_family(m, METRIC_COUNTER, "odi_stacks_cut", "",
			"Samples whose stack did not get to the root, by reason.");
		for (size_t i = 0; i < k->n_ends; i++)
			metrics_count(m, k->ends[i]->samples,
				&(struct metric_label){"reason", k->ends[i]->key}, 1);
	}
	if (u) {
		bytes_gauge(m, "odi_unwind_rows_bytes",
			"Kernel memory for unwind information that is in use.", u->rows_used_bytes);
		bytes_gauge(
			m, "odi_unwind_rows_limit_bytes", "What there is of it.", u->rows_bytes);
		counter(m, "odi_unwind_pages_evicted",
			"Pages of unwind information that made room for others.", u->pages_evicted);
		counter(m, "odi_unwind_walks", "Stacks that were walked in user space.", u->walks);
	}
	counter(m, "odi_frames", "Frames of all samples in batches.", s->frames);
	counter(m, "odi_frames_named", "Of these, those with a name.", s->frames_named);
	counter(m, "odi_user_frames", "Frames of user space of all samples in batches.",
		s->user_frames);
	counter(m, "odi_user_frames_named", "Of these, those with a name.", s->user_frames_named);
}

/* ---- the ledger ---------------------------------------------------------------------------------- */

/* One family over the types of profiles. */
#define BY_TYPE(kind, name, help, field)                                                           \
	do {                                                                                       \
		metrics_family(m, kind, name, "", help);                                           \
		for (size_t i = 0; i < s->n_ledger; i++)                                           \
			metrics_count(m, s->ledger[i]->field,                                      \
				&(struct metric_label){"type", s->ledger[i]->type}, 1);            \
	} while (0)

static void fill_ledger(struct metrics *m, const Control__Status *s)
{
	BY_TYPE(METRIC_COUNTER, "odi_samples_due", "Samples that the rate asked for.", due);
	BY_TYPE(METRIC_COUNTER, "odi_samples_late",
		"Samples that were due and not taken: stolen time, shadowed.", late);
	BY_TYPE(METRIC_COUNTER, "odi_samples_taken", "Samples that were taken.", taken);
	BY_TYPE(METRIC_COUNTER, "odi_samples_idle", "Of the taken, those of an idle CPU.", idle);
	BY_TYPE(METRIC_COUNTER, "odi_samples_ignored", "Of the taken, those that no source wants.",
		ignored);
	BY_TYPE(METRIC_COUNTER, "odi_samples_profiled", "Of the taken, those in batches.",
		profiled);
	BY_TYPE(METRIC_GAUGE, "odi_samples_open", "Of the taken, those on their way to a batch.",
		open);
	metrics_family(m, METRIC_COUNTER, "odi_samples_lost", "",
		"Of the taken, those that were lost, by cause.");
	for (size_t i = 0; i < s->n_ledger; i++)
		for (size_t k = 0; k < s->ledger[i]->n_lost_by; k++) {
			const struct metric_label labels[] = {{"type", s->ledger[i]->type},
				{"cause", s->ledger[i]->lost_by[k]->cause}};

			metrics_count(m, s->ledger[i]->lost_by[k]->samples, labels, 2);
		}
	BY_TYPE(METRIC_GAUGE, "odi_ledger_closes", "1 while every sample is accounted for.",
		closes);
}

static void fill_sources(struct metrics *m, const Control__Status *s)
{
	metrics_family(m, METRIC_COUNTER, "odi_source_samples", "", "Samples that a source took.");
	for (size_t i = 0; i < s->n_sources; i++) {
		const struct metric_label labels[] = {
			{"source", s->sources[i]->name}, {"kind", s->sources[i]->kind}};

		metrics_count(m, s->sources[i]->samples, labels, 2);
	}
	metrics_family(m, METRIC_GAUGE, "odi_source_images", "", "Programs that it matches now.");
	for (size_t i = 0; i < s->n_sources; i++) {
		const struct metric_label labels[] = {
			{"source", s->sources[i]->name}, {"kind", s->sources[i]->kind}};

		metrics_count(m, s->sources[i]->images_now, labels, 2);
	}
}

/* ---- destinations -------------------------------------------------------------------------------- */

struct ledger_field {
	enum metric_type type;
	const char *name, *help;
	size_t offset; /* in Control__DestinationLedger */
};

static const struct ledger_field ledger_fields[] = {
	{METRIC_COUNTER, "odi_destination_samples_routed", "Samples that are to go there.",
		offsetof(Control__DestinationLedger, routed)},
	{METRIC_COUNTER, "odi_destination_samples_delivered", "Of these, those that it took.",
		offsetof(Control__DestinationLedger, delivered)},
	{METRIC_GAUGE, "odi_destination_samples_held", "Of these, those that wait.",
		offsetof(Control__DestinationLedger, held)},
	{METRIC_COUNTER, "odi_destination_samples_evicted",
		"Of these, those that were given up for want of room or for their age.",
		offsetof(Control__DestinationLedger, evicted)},
	{METRIC_COUNTER, "odi_destination_samples_rejected", "Of these, those that it refused.",
		offsetof(Control__DestinationLedger, rejected)},
	{METRIC_COUNTER, "odi_destination_samples_shaped",
		"Of these, those that its shaping took away.",
		offsetof(Control__DestinationLedger, shaped)},
};

static void fill_destination_ledger(struct metrics *m, const Control__Status *s)
{
	for (size_t f = 0; f < ARRAY_SIZE(ledger_fields); f++) {
		const struct ledger_field *field = &ledger_fields[f];

		metrics_family(m, field->type, field->name, "", field->help);
		for (size_t i = 0; i < s->n_ledger; i++)
			for (size_t k = 0; k < s->ledger[i]->n_destinations; k++) {
				const Control__DestinationLedger *l = s->ledger[i]->destinations[k];
				const struct metric_label labels[] = {
					{"destination", l->name}, {"type", s->ledger[i]->type}};
				uint64_t value;

				memcpy(&value, (const char *)l + field->offset, sizeof(value));
				metrics_count(m, value, labels, 2);
			}
	}
}

/* One family over the destinations. */
#define BY_DESTINATION(type_, name_, unit_, help_, value_)                                         \
	do {                                                                                       \
		metrics_family(m, type_, name_, unit_, help_);                                     \
		for (size_t i = 0; i < s->n_destinations; i++) {                                   \
			const Control__DestinationState *d = s->destinations[i];                   \
			const struct metric_label labels[] = {                                     \
				{"destination", d->name}, {"kind", d->type}};                      \
			metrics_count(m, value_, labels, 2);                                       \
		}                                                                                  \
	} while (0)

static const double latency_bounds[] = LATENCY_BOUNDS_S;

static void fill_latencies(struct metrics *m, const Control__Status *s)
{
	metrics_family(m, METRIC_HISTOGRAM, "odi_destination_send_duration_seconds", "seconds",
		"How long requests took, by what became of them.");
	for (size_t i = 0; i < s->n_destinations; i++)
		for (size_t k = 0; k < s->destinations[i]->n_latencies; k++) {
			const Control__Latency *l = s->destinations[i]->latencies[k];
			const struct metric_label labels[] = {
				{"destination", s->destinations[i]->name}, {"result", l->result}};

			if (l->n_counts == ARRAY_SIZE(latency_bounds) + 1)
				metrics_histogram(m, latency_bounds, l->counts,
					ARRAY_SIZE(latency_bounds), seconds(l->sum_ns), labels, 2);
		}
}

static void fill_destinations(struct metrics *m, const Control__Status *s)
{
	fill_destination_ledger(m, s);
	BY_DESTINATION(METRIC_GAUGE, "odi_destination_failing", "",
		"1 while it does not take what is sent.", streq(d->state, "failing"));
	BY_DESTINATION(METRIC_GAUGE, "odi_destination_queue_batches", "",
		"Batches that wait for it.", d->queued_batches);
	BY_DESTINATION(METRIC_GAUGE, "odi_destination_queue_bytes", "bytes", "Their bytes.",
		d->queued_bytes);
	BY_DESTINATION(METRIC_COUNTER, "odi_destination_batches_sent", "",
		"Batches that got through to it.", d->sent_batches);
	BY_DESTINATION(METRIC_COUNTER, "odi_destination_sent_bytes", "bytes",
		"Bytes of the requests that it took, as they went out.", d->sent_bytes);
	BY_DESTINATION(
		METRIC_COUNTER, "odi_destination_requests", "", "Requests to it.", d->requests);
	BY_DESTINATION(METRIC_COUNTER, "odi_destination_failures", "",
		"Requests that failed, or were not wholly taken.", d->failures);
	metrics_family(m, METRIC_GAUGE, "odi_destination_last_success_time_seconds", "seconds",
		"When it last took something, in seconds since 1970; 0: never.");
	for (size_t i = 0; i < s->n_destinations; i++) {
		const struct metric_label labels[] = {{"destination", s->destinations[i]->name},
			{"kind", s->destinations[i]->type}};

		metrics_number(m, seconds(s->destinations[i]->last_success_unix_ns), labels, 2);
	}
	fill_latencies(m, s);
}

/* ---- the whole ----------------------------------------------------------------------------------- */

void daemon_metrics_fill(struct metrics *m, const Control__Status *s)
{
	fill_agent(m, s);
	fill_cost(m, s);
	fill_stacks(m, s);
	fill_ledger(m, s);
	fill_sources(m, s);
	fill_destinations(m, s);
}

int daemon_metrics_make(struct daemon *d, bool settle, struct metrics **ret)
{
	CLEANUP(control_reply_freep) struct control_reply *r = control_reply_detached();
	CLEANUP(metrics_freep) struct metrics *m = NULL;
	Control__Status s = CONTROL__STATUS__INIT;
	int error = r ? metrics_new(&m) : -ENOMEM;

	if (error == 0)
		error = daemon_status_fill(d, r, &s, false, settle);
	if (error < 0)
		return error;
	daemon_metrics_fill(m, &s);
	if (metrics_error(m))
		return metrics_error(m);
	*ret = TAKE_PTR(m);
	return 0;
}

void daemon_get_metrics(void *userdata, struct control_reply *r)
{
	CLEANUP(metrics_freep) struct metrics *m = NULL;
	_cleanup_buf_ struct buf text;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Metrics body = CONTROL__METRICS__INIT;
	int error = daemon_metrics_make(userdata, true, &m);

	buf_init(&text, 8U << 20);
	if (error == 0)
		metrics_text(m, &text);
	if (error == 0)
		error = buf_error(&text);
	if (error < 0) {
		daemon_fail(r, error, "out of memory");
		return;
	}
	body.lines = control_lines(r, (const char *)text.data, &body.n_lines);
	if (!body.lines) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	reply.body_case = CONTROL__REPLY__BODY_METRICS;
	reply.metrics = &body;
	control_send(r, &reply, true);
}
