/* SPDX-License-Identifier: Apache-2.0 */

/* Where every sample went. Two equations, in samples of one type since agentd started:
 *
 *	due   = taken + late
 *	taken = idle + ignored + lost + profiled + open
 *
 * `open` is what is on its way (in the ring, counted in the kernel, waiting for its image's facts or
 * for rows to walk by, in an interval that is not handed over yet): it is counted where it stands, not
 * derived, so that the second equation can fail and be seen to. And per destination, of what was
 * handed over since it was added:
 *
 *	routed = delivered + held + evicted + rejected + shaped away
 *
 * Runs in agentd. */

#include "agentd/base/log.h"
#include "agentd/daemon.h"

static void add(struct sampler_counters *sum, const struct sampler_counters *c)
{
	sum->due += c->due;
	sum->taken += c->taken;
	sum->late += c->late;
	sum->idle += c->idle;
	sum->ignored += c->ignored;
	sum->divided += c->divided;
	sum->sent += c->sent;
	sum->paused += c->paused;
	sum->lost_ring += c->lost_ring;
	sum->lost_scratch += c->lost_scratch;
	sum->lost_events += c->lost_events;
	sum->lost_memory += c->lost_memory;
	sum->received += c->received;
	sum->counted += c->counted;
	sum->collected += c->collected;
	sum->table_full += c->table_full;
	sum->slices += c->slices;
	sum->slices_refused += c->slices_refused;
	sum->run_ns += c->run_ns;
	sum->bpf_run_ns += c->bpf_run_ns;
	sum->bpf_runs += c->bpf_runs;
}

/* In the ring, or taken from it and held back for the order of time; counted in the kernel. */
static uint64_t waiting(const struct sampler_counters *c)
{
	return c->sent - MIN(c->sent, c->received + c->lost_memory) + c->counted -
		MIN(c->counted, c->collected);
}

void daemon_ledger_retire(struct daemon *d, struct sampler *s)
{
	struct sampler_counters c = {};

	sampler_counters(s, &c);
	/* What is still in the ring, or counted and not taken, goes with it. */
	d->ledger.lost_ring_end += waiting(&c);
	c.received = c.sent - c.lost_memory;
	c.collected = c.counted;
	add(&d->ledger.past, &c);
	d->ledger.lost_counts += counts_clear(d->counts);
}

static void add_cause(
	struct control_reply *r, Control__Ledger *l, const char *cause, uint64_t samples)
{
	Control__Count *c;

	l->lost += samples;
	if (!samples)
		return;
	c = control_alloc(r, sizeof(*c));
	if (!c)
		return;
	control__count__init(c);
	c->cause = control_strdup(r, cause);
	c->samples = samples;
	l->lost_by[l->n_lost_by++] = c;
}

static void fill_destinations(
	struct daemon *d, struct control_reply *r, Control__Ledger *l, unsigned type)
{
	const struct link_destination *list;
	size_t n = link_destinations(d->link, &list);

	l->destinations = control_alloc(r, (n + 1) * sizeof(*l->destinations));
	if (!l->destinations)
		return;
	for (size_t i = 0; i < n; i++) {
		Control__DestinationLedger *x = control_alloc(r, sizeof(*x));

		if (!x)
			return;
		control__destination_ledger__init(x);
		x->name = control_strdup(r, list[i].name);
		x->routed = list[i].ledger[type].routed;
		x->delivered = list[i].ledger[type].delivered;
		x->held = list[i].ledger[type].held;
		x->evicted = list[i].ledger[type].evicted;
		x->rejected = list[i].ledger[type].rejected;
		x->shaped = list[i].ledger[type].shaped;
		if (x->routed != x->delivered + x->held + x->evicted + x->rejected + x->shaped) {
			l->closes = false;
			l->gap = control_printf(r,
				"destination %s: %llu samples are unaccounted for", x->name,
				(unsigned long long)(x->routed - x->delivered - x->held -
					x->evicted - x->rejected - x->shaped));
		}
		l->destinations[l->n_destinations++] = x;
	}
}

void daemon_ledger_fill(struct daemon *d, struct control_reply *r, Control__Ledger *l)
{
	struct sampler_counters c = d->ledger.past, now = {};
	struct process_counters pc = {};
	const struct ledger *g = &d->ledger;
	uint64_t sum;

	if (d->sampler) {
		sampler_counters(d->sampler, &now);
		add(&c, &now);
	}
	process_counters(d->processes, &pc);
	l->type = control_strdup(r, profile_types[SAMPLE_TYPE_CPU].name);
	l->due = c.due;
	l->taken = c.taken;
	l->late = c.late;
	l->idle = c.idle;
	l->ignored = c.ignored + g->ignored_user;
	l->lost_by = control_alloc(r, 8 * sizeof(*l->lost_by));
	if (!l->lost_by)
		return;
	add_cause(r, l, "ring full", c.lost_ring);
	add_cause(r, l, "no scratch memory", c.lost_scratch);
	add_cause(r, l, "waiting queue full", g->lost_queue);
	add_cause(r, l, "process table full", g->lost_table);
	add_cause(r, l, "out of memory", g->lost_memory + c.lost_memory);
	add_cause(r, l, "left in the ring at a stop", g->lost_ring_end);
	add_cause(r, l, "counted, its stack lost", g->lost_counts);
	l->profiled = g->profiled;
	l->open = waiting(&now) + counts_waiting(d->counts) + pc.queued +
		aggregate_samples(d->open->aggregate);
	for (const struct interval *i = d->pending; i; i = i->next)
		l->open += aggregate_samples(i->aggregate);

	sum = l->idle + l->ignored + l->lost + l->profiled + l->open;
	l->closes = true;
	l->gap = control_strdup(r, "");
	if (l->due != l->taken + l->late) {
		l->closes = false;
		l->gap = control_strdup(r, "due is not taken + late");
	} else if (l->taken != sum) {
		l->closes = false;
		l->gap = control_printf(r, "taken is %llu, its parts add up to %llu",
			(unsigned long long)l->taken, (unsigned long long)sum);
	}
	fill_destinations(d, r, l, SAMPLE_TYPE_CPU);
}
