/* SPDX-License-Identifier: Apache-2.0 */

/* The one door through which configuration changes. prepare() does what can fail (loads the programs),
 * the store makes the change durable, swap() does what cannot fail. Before a swap all that was sampled
 * is settled under the old configuration, so that no sample of what stays selected is lost or counted
 * twice.
 *
 * Some settings are those of the programs: they take a new sampler, which is loaded in prepare() and
 * started in swap(), just before the old one stops. Both see what happens in that moment; the new one's
 * records are handed out after the old one's, and mappings are read afresh.
 *
 * Images' assignments borrow sources of the configuration that made them. They are dropped in the
 * middle of the swap, and from that line on d->in_force is the next one: rooms that are told of the
 * change below may decide on images at once. Runs in agentd. */

#include <systemd/sd-daemon.h>
#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/daemon.h"
#include "agentd/daemon_spool.h"
#include "agentd/daemon_debugfiles.h"
#include "agentd/daemon_fetch.h"
#include "agentd/daemon_handover.h"
#include "agentd/daemon_metrics.h"

/* Loaded, not started. rate: 0 the configured one. */
static int make_sampler(struct daemon *d, const struct config *c, unsigned rate,
	struct sampler **ret, struct err_text *err)
{
	struct sampler_config sc = {
		.rate_hz = rate ? rate : c->profiling.rate_hz,
		.kernel_frames = c->profiling.kernel_frames,
		.accept_unknown_kernel = d->accept_unknown_kernel,
		.max_user_frames = c->profiling.max_frames,
		.rows_bytes = c->profiling.unwind_memory,
	};

	return sampler_new(ret, d->loop, &sc, &daemon_sampler_ops, d, err);
}

static int start_sampler(
	struct daemon *d, const struct config *c, struct sampler **ret, struct err_text *err)
{
	CLEANUP(sampler_freep) struct sampler *s = NULL;
	int r = make_sampler(d, c, 0, &s, err);

	if (r >= 0)
		r = sampler_start(s, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

/* Whether the programs have to be loaded anew for it. */
static bool needs_another(const struct config *old, const struct config *next)
{
	return old->profiling.max_frames != next->profiling.max_frames ||
		old->profiling.unwind_memory != next->profiling.unwind_memory;
}

static int on_prepare(void *userdata, const struct config *current, const struct config *next,
	struct err_text *err)
{
	struct daemon *d = userdata;
	struct err_text why = {};
	int r;

	if (!next->profiling.enabled)
		return 0;
	if (d->sampler) {
		if (!needs_another(current, next) && !d->replace_problem[0])
			return 0;
		r = make_sampler(d, next,
			next->profiling.rate_hz == d->budget.wanted_hz ? budget_rate(&d->budget)
								       : 0,
			&d->prepared, &why);
		return r < 0 ? err_set(err, r, "the programs cannot be loaded anew: %s", why.text)
			     : 0;
	}
	r = start_sampler(d, next, &d->prepared, &why);
	if (r >= 0)
		return 0;
	/* It could not start before either: no reason to refuse what this change is about. */
	if (current && current->profiling.enabled) {
		snprintf(d->sampler_problem, sizeof(d->sampler_problem), "%s", why.text);
		return 0;
	}
	return err_set(err, r, "profiling cannot be enabled: %s", why.text);
}

static void on_abandon(void *userdata)
{
	struct daemon *d = userdata;

	d->prepared = sampler_free(d->prepared);
}

/* Takes what was sampled, closes the interval, unloads the programs. */
static void retire(struct daemon *d)
{
	sampler_stop(d->sampler);
	daemon_settle(d);
	daemon_unwinding_finish(d);
	process_flush(d->processes);
	daemon_interval_close(d);
	daemon_ledger_retire(d, d->sampler);
	d->sampler = sampler_free(d->sampler);
}

void daemon_disable(struct daemon *d)
{
	daemon_cost_stop(d);
	retire(d);
	d->active_since_unix_ns = 0;
	daemon_gap_profiling(d, false);
	log_info("profiling is off: the programs are unloaded");
}

/* anew: profiling was off before. */
static void enable(struct daemon *d, struct sampler *s, bool anew)
{
	/* What the table knows of images may be old: nothing told it of exec and mmap while we were
	 * off. */
	struct sampler_event stale = {.kind = SAMPLER_LOST_EVENTS, .time_ns = clock_monotonic_ns()};

	d->sampler = s;
	d->sampler_problem[0] = '\0';
	d->replace_problem[0] = '\0';
	process_on_event(d->processes, &stale);
	symbol_forget_kernel(d->symbols); /* modules may have come and gone meanwhile */
	daemon_unwinding_restart(d);
	if (anew) {
		daemon_gap_profiling(d, true);
		d->active_since_unix_ns = clock_unix_ns();
		stacks_reset(&d->stacks, d->active_since_unix_ns);
		d->open->from_unix_ns = d->active_since_unix_ns;
		d->open->from_boot_ns = clock_boottime_ns();
	}
	daemon_cost_start(d, anew);
	if (daemon_interval_arm(d) < 0)
		log_error("no timer for the interval: batches come only when it is full");
}

struct local_config daemon_local_config(const struct config *c)
{
	return (struct local_config){
		.max_bytes = c->local.max_bytes,
		.max_age_ns = c->local.max_age_ns,
		.fine_ns = 3600 * NSEC_PER_SEC,
		.middle_ns = 24 * 3600 * NSEC_PER_SEC,
	};
}

static void apply_settings(struct daemon *d, const struct config *next)
{
	struct local_config lc = daemon_local_config(next);

	local_configure(d->local, &lc);
	daemon_spool_configure(d, next);
	d->host.labels = next->host_labels;
	d->host.n_labels = next->n_host_labels;
	symbol_set_demangle(d->symbols, next->profiling.demangle);
	process_set_docker_root(d->processes, next->docker_root);
	process_set_max_user_frames(d->processes, next->profiling.max_frames);
	daemon_hand_over(d, next);
	daemon_scrape_configure(d, next);
	daemon_debug_paths_changed(d);
	daemon_fetch_configure(d);
	d->open->revision = next->revision;
}

/* The one that is prepared takes over from the one that runs; if it cannot start, all stays as it is, and
 * the next change tries again. */
static void take_over(struct daemon *d)
{
	struct err_text err = {};

	if (sampler_start(d->prepared, &err) < 0) {
		snprintf(d->replace_problem, sizeof(d->replace_problem), "%.250s", err.text);
		log_error(
			"settings of the programs wait: they cannot be started anew: %s", err.text);
		d->prepared = sampler_free(d->prepared);
		return;
	}
	retire(d);
}

/* Closes the books under the old configuration: everything sampled so far counts as it said. */
static void settle_old(struct daemon *d, const struct config *old, const struct config *next)
{
	if (!d->sampler)
		return;
	if (!next->profiling.enabled) {
		daemon_disable(d);
		return;
	}
	if (d->prepared)
		take_over(d);
	if (!d->sampler)
		return;
	daemon_settle(d);
	daemon_unwinding_finish(d);
	process_flush(d->processes);
	if (old->profiling.rate_hz != next->profiling.rate_hz ||
		old->profiling.interval_ns != next->profiling.interval_ns)
		daemon_interval_close(d);
}

static void set_rate(struct daemon *d, unsigned rate_hz)
{
	struct err_text err = {};

	budget_want(&d->budget, rate_hz, clock_monotonic_ns());
	daemon_cost_start(d, false);
	if (sampler_set_rate(d->sampler, rate_hz, &err) < 0)
		log_error("rate: %s", err.text);
}

static void swap_sampler(
	struct daemon *d, const struct config *old, const struct config *next, bool was_on)
{
	if (d->prepared) {
		enable(d, TAKE_PTR(d->prepared), !was_on);
		if (was_on && next->profiling.rate_hz != d->budget.wanted_hz)
			set_rate(d, next->profiling.rate_hz);
		if (was_on)
			log_info("the programs are loaded anew: stacks of %u frames, %llu MB of "
				 "unwind information",
				next->profiling.max_frames,
				(unsigned long long)(next->profiling.unwind_memory >> 20));
		else
			log_info("profiling is on: %u Hz", next->profiling.rate_hz);
		return;
	}
	if (!d->sampler)
		return;
	sampler_set_kernel_frames(d->sampler, next->profiling.kernel_frames);
	if (old->profiling.rate_hz != next->profiling.rate_hz)
		set_rate(d, next->profiling.rate_hz);
	sampler_next_generation(d->sampler);
	if (old->profiling.interval_ns != next->profiling.interval_ns && daemon_interval_arm(d) < 0)
		log_error("no timer for the interval: batches come only when it is full");
}

struct renaming {
	struct source_set *to;
};

/* Sent a moment ago under the source of before; what is counted of it is the next one's of that name. */
static void rename_source(void *userdata, struct counts_place *place)
{
	struct renaming *r = userdata;

	if (place->fate != COUNTS_PLACED)
		return;
	place->source = source_set_find(r->to, place->source->name);
	if (!place->source)
		place->fate = COUNTS_IGNORED;
}

static void on_swap(void *userdata, const struct config *next)
{
	struct daemon *d = userdata;
	const struct config *old = d->in_force;
	bool was_on = d->sampler != NULL;

	settle_old(d, old, next);
	source_set_inherit(next->sources, old->sources);
	counts_each(d->counts, rename_source, &(struct renaming){next->sources});
	daemon_forget_assignments(d);
	d->in_force = next;
	d->generation++;
	apply_settings(d, next);
	swap_sampler(d, old, next, was_on);
	if (!next->profiling.enabled)
		d->sampler_problem[0] = '\0';
	sd_notifyf(0, "STATUS=%s, %zu sources, %zu destinations",
		d->sampler ? "profiling" : "profiling is off", source_set_size(next->sources),
		next->n_destinations);
}

const struct config_hooks daemon_config_hooks = {
	.prepare = on_prepare,
	.abandon = on_abandon,
	.swap = on_swap,
};

void daemon_begin(struct daemon *d)
{
	const struct config *c = d->in_force;
	struct sampler *s = NULL;
	struct err_text why = {};

	d->generation = 1;
	apply_settings(d, c);
	if (!c->profiling.enabled) {
		daemon_gap_off(d);
		return;
	}
	/* The daemon stays up and says so: an operator can mend it, and the socket is how they
	 * learn. */
	if (start_sampler(d, c, &s, &why) < 0) {
		snprintf(d->sampler_problem, sizeof(d->sampler_problem), "%s", why.text);
		log_error("profiling is enabled but cannot start: %s", why.text);
		return;
	}
	enable(d, s, true);
}
