/* SPDX-License-Identifier: Apache-2.0 */

/* The status's part on stacks: how far they went and why not further, what the kernel walks by, and
 * what may be spent on it. Runs in agentd. */

#include "agentd/daemon_verbs.h"

#define FILES_SHOWN 32

static void fill_ends(struct daemon *d, struct control_reply *r, Control__Stacks *s)
{
	s->ends = control_alloc(r, WALK_ENDS * sizeof(*s->ends));
	for (unsigned end = 0; s->ends && end < WALK_ENDS; end++) {
		Control__StackEnd *e;

		if (!d->stacks.ends[end] || end == WALK_ROOT || end == WALK_NONE)
			continue;
		e = control_alloc(r, sizeof(*e));
		if (!e)
			return;
		control__stack_end__init(e);
		e->key = control_strdup(r, stacks_end_key((uint8_t)end));
		e->text = control_strdup(r, stacks_end_text((uint8_t)end));
		e->samples = d->stacks.ends[end];
		s->ends[s->n_ends++] = e;
	}
}

static void fill_files(struct daemon *d, struct control_reply *r, Control__Stacks *s)
{
	uint16_t at[FILES_SHOWN];
	size_t n = stacks_top(&d->stacks, at, FILES_SHOWN);

	s->other_files = d->stacks.other_files;
	for (size_t i = 0; i < d->stacks.n_files; i++)
		s->other_files += d->stacks.files[i].samples;
	s->files = control_alloc(r, (n + 1) * sizeof(*s->files));
	for (size_t i = 0; s->files && i < n; i++) {
		const struct stacks_file *f = &d->stacks.files[at[i]];
		const struct unwind_file_facts *facts = daemon_unwind_facts(d, f->file);
		Control__StackFile *x = control_alloc(r, sizeof(*x));

		if (!x)
			return;
		control__stack_file__init(x);
		x->file = control_strdup(r, f->name[0] ? f->name : "(a file that is gone)");
		x->key = control_strdup(r, stacks_end_key(f->end));
		x->text = control_strdup(r, stacks_end_text(f->end));
		x->samples = f->samples;
		x->problem = control_strdup(r, facts ? facts->problem : "");
		s->other_files -= f->samples;
		s->files[s->n_files++] = x;
	}
}

static void fill_stacks(struct daemon *d, struct control_reply *r, Control__Status *status)
{
	Control__Stacks *s = control_alloc(r, sizeof(*s));

	if (!s)
		return;
	control__stacks__init(s);
	s->samples = stacks_walked(&d->stacks);
	s->to_root = d->stacks.ends[WALK_ROOT];
	s->guessed_samples = d->stacks.guessed_samples;
	s->guessed_frames = d->stacks.guessed;
	s->since_unix_ns = d->stacks.since_unix_ns;
	fill_ends(d, r, s);
	fill_files(d, r, s);
	status->stacks = s;
}

static void fill_unwinding(struct daemon *d, struct control_reply *r, Control__Status *status)
{
	Control__Unwinding *u = control_alloc(r, sizeof(*u));
	struct sampler_rows_counters rows = {};
	struct sampler_counters c = {};
	struct unwinder_counters uc = {};
	struct process_counters pc = {};

	if (!u)
		return;
	control__unwinding__init(u);
	if (d->sampler) {
		sampler_rows_counters(d->sampler, &rows);
		sampler_counters(d->sampler, &c);
	}
	daemon_unwinder_counters(d, &uc);
	process_counters(d->processes, &pc);
	u->rows_bytes = rows.bytes;
	u->rows_used_bytes = rows.used_bytes;
	u->pages = rows.pages;
	u->pages_added = rows.added;
	u->pages_evicted = rows.evicted;
	u->spaces = rows.spaces;
	u->space_maps = rows.space_maps;
	u->spaces_evicted = rows.spaces_evicted;
	daemon_space_counters(d, &u->spaces_set, &u->spaces_waiting);
	u->pages_asked = uc.asked;
	u->pages_made = uc.pages;
	u->rows_made = uc.rows;
	u->pages_refused = uc.refused;
	u->crashes = uc.crashes;
	u->timeouts = uc.timeouts;
	u->lies = uc.lies;
	u->cpu_ns = uc.cpu_us * 1000;
	u->slices = c.slices;
	u->slices_refused = c.slices_refused;
	u->walks = pc.walks;
	u->walks_waited = pc.walks_waited;
	u->sent = c.sent;
	u->counted = c.counted;
	u->table_full = c.table_full;
	u->counts_waiting = counts_waiting(d->counts);
	status->unwinding = u;
}

static void fill_budget(struct daemon *d, struct control_reply *r, Control__Status *status)
{
	Control__Budget *b = control_alloc(r, sizeof(*b));

	if (!b)
		return;
	control__budget__init(b);
	b->limit_percent = d->in_force->profiling.budget_ppm / 1e4;
	b->cost_percent = 100 * daemon_cost_share(d, &b->window_ns);
	b->rate_hz = d->sampler ? budget_rate(&d->budget) : 0;
	b->wanted_rate_hz = d->in_force->profiling.rate_hz;
	b->steps_down = d->budget.downs;
	b->steps_up = d->budget.ups;
	b->over = d->budget.over && b->rate_hz == 1;
	status->budget = b;
}

void daemon_status_unwinding(struct daemon *d, struct control_reply *r, Control__Status *s)
{
	fill_stacks(d, r, s);
	fill_unwinding(d, r, s);
	fill_budget(d, r, s);
}
