/* SPDX-License-Identifier: Apache-2.0 */

/* What profiling costs this host, and the rate that follows from it (daemon_budget.h).
 *
 * Own cost is the CPU time of agentd and of all its children, living and reaped, and the time in the
 * sampling program by its own clock (all our programs, where kernel.bpf_stats_enabled is set). A child
 * that ends moves from one sum to the other, between which it may be in none: the sum never goes
 * back, so the difference to the window's begin is at worst a little late. Clocks of living children
 * are read by clock_getcpuclockid(3), a system call each and nanoseconds, where /proc knows only
 * ticks.
 *
 * A look every two seconds, a window of ten. The rate is changed like a configured one, but nothing
 * is waited for: a sample says its own period. Runs in agentd. */

#include <sys/resource.h>
#include <time.h>
#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/daemon.h"

#define LOOK_NS  (BUDGET_WINDOW_NS / 5)
#define LOOKS    6 /* a window between the first and the last */
#define SLACK_US 500000

struct look {
	uint64_t time_ns, spent_ns;
};

struct cost {
	sd_event_source *timer;
	struct look looks[LOOKS]; /* oldest first */
	size_t n;
	uint64_t most_ns; /* of CPU time that was seen */
	unsigned cpus;
};

static uint64_t timespec_ns(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * NSEC_PER_SEC + (uint64_t)t->tv_nsec;
}

static uint64_t timeval_ns(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * NSEC_PER_SEC + (uint64_t)t->tv_usec * 1000;
}

static uint64_t child_ns(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
		return 0;
	return timespec_ns(&t);
}

static uint64_t cpu_ns(struct daemon *d)
{
	struct timespec own = {};
	struct rusage reaped = {};

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
	(void)getrusage(RUSAGE_CHILDREN, &reaped);
	return timespec_ns(&own) + timeval_ns(&reaped.ru_utime) + timeval_ns(&reaped.ru_stime) +
		child_ns(process_reader_pid(d->processes)) +
		child_ns(symbol_child_pid(d->symbols)) + child_ns(daemon_unwinder_pid(d)) +
		child_ns(link_child_pid(d->link));
}

uint64_t daemon_bpf_ns(struct daemon *d, const struct sampler_counters *now)
{
	const struct sampler_counters *past = &d->ledger.past;

	return MAX(past->run_ns, past->bpf_run_ns) + MAX(now->run_ns, now->bpf_run_ns);
}

static struct look look(struct daemon *d)
{
	struct cost *c = d->cost;
	struct sampler_counters now = {};

	sampler_counters(d->sampler, &now);
	c->cpus = MAX(now.online_cpus, 1U);
	c->most_ns = MAX(c->most_ns, cpu_ns(d));
	return (struct look){clock_monotonic_ns(), c->most_ns + daemon_bpf_ns(d, &now)};
}

static void remember(struct cost *c, struct look l)
{
	if (c->n == LOOKS)
		memmove(c->looks, c->looks + 1, --c->n * sizeof(c->looks[0]));
	c->looks[c->n++] = l;
}

double daemon_cost_share(const struct daemon *d, uint64_t *window_ns)
{
	const struct cost *c = d->cost;
	const struct look *first = &c->looks[0], *last = &c->looks[c->n ? c->n - 1 : 0];
	uint64_t wall = c->n > 1 ? last->time_ns - first->time_ns : 0;

	*window_ns = wall;
	if (!wall)
		return 0;
	return (double)(last->spent_ns - MIN(first->spent_ns, last->spent_ns)) /
		((double)wall * c->cpus);
}

static double limit(const struct daemon *d)
{
	return d->in_force->profiling.budget_ppm / 1e6;
}

/* A change of rate closes the batch. What waits for its image's facts comes into a later one with the
 * period that it was taken with. */
static void change_rate(struct daemon *d, enum budget_move move, double cost)
{
	unsigned rate = budget_rate(&d->budget);
	struct err_text err = {};

	daemon_settle(d);
	daemon_interval_close(d);
	if (sampler_set_rate(d->sampler, rate, &err) < 0) {
		log_error("rate: %s", err.text);
		return;
	}
	if (daemon_interval_arm(d) < 0)
		log_error("no timer for the interval: batches come only when it is full");
	d->cost->n = 0; /* the next window is of this rate alone */
	if (move == BUDGET_DOWN)
		log_warning("profiling takes %.2f %% of the host's CPU time, more than the budget "
			    "of %g %%: %u Hz instead of %u",
			100 * cost, 100 * limit(d), rate, d->budget.wanted_hz);
	else
		log_info(
			"profiling takes %.2f %% of the host's CPU time: the rate goes up to %u Hz "
			"of %u",
			100 * cost, rate, d->budget.wanted_hz);
}

static int on_look(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct daemon *d = userdata;
	uint64_t window, now = clock_monotonic_ns();
	enum budget_move move;
	double cost;

	if (!d->sampler)
		return 0;
	remember(d->cost, look(d));
	cost = daemon_cost_share(d, &window);
	move = window >= BUDGET_WINDOW_NS || limit(d) <= 0
		? budget_judge(&d->budget, now, cost, limit(d))
		: BUDGET_STAY;
	if (move != BUDGET_STAY) {
		change_rate(d, move, cost);
		remember(d->cost, look(d));
	}
	sd_event_source_set_time(s, (clock_monotonic_ns() + LOOK_NS) / 1000);
	return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

void daemon_cost_start(struct daemon *d, bool anew)
{
	struct cost *c = d->cost;

	if (anew)
		budget_start(&d->budget, d->in_force->profiling.rate_hz, clock_monotonic_ns());
	c->n = 0;
	remember(c, look(d));
	sd_event_source_set_time(c->timer, (clock_monotonic_ns() + LOOK_NS) / 1000);
	if (sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT) < 0)
		log_error("no timer for the budget: the rate stays as it is");
}

void daemon_cost_stop(struct daemon *d)
{
	(void)sd_event_source_set_enabled(d->cost->timer, SD_EVENT_OFF);
	d->cost->n = 0;
}

int daemon_cost_new(struct daemon *d, struct err_text *err)
{
	struct cost *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	d->cost = c;
	r = sd_event_add_time(d->loop, &c->timer, CLOCK_MONOTONIC, 0, SLACK_US, on_look, d);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	return r < 0 ? err_set(err, r, "cannot make a timer: %s", strerror(-r)) : 0;
}

void daemon_cost_free(struct daemon *d)
{
	struct cost *c = TAKE_PTR(d->cost);

	if (c)
		sd_event_source_disable_unref(c->timer);
	free(c);
}
