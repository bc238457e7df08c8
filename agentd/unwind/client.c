/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's side of rows: who asks, and when they are told.
 *
 * A walk that lacks a page asks for it and waits, and so do all others that lack it: they ask for the
 * same few pages again and again, so a page is in a table while it is pending.
 *
 * Invariants. on_page and on_idle come from events alone, never from within a caller's call; what
 * they ask for in turn is seen to when the event ends. Whatever was asked is answered, unless its
 * file was forgotten. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/unwind/client_private.h"

#define PENDING_DEFAULT     4096
#define DEADLINE_DEFAULT_MS 2000
#define IDLE_DEFAULT_MS     30000
#define BACK_OFF_DEFAULT_MS 30000

/* ---- events
 * ------------------------------------------------------------------------------------------- */

static int on_deferred(sd_event_source *source, void *userdata)
{
	struct unwinder *u = userdata;

	unwinder_enter(u);
	unwinder_leave(u);
	return 0;
}

/* The end of an event does what there is to do; outside of one, the next turn of the loop. */
void unwinder_see_to_it(struct unwinder *u)
{
	if (u->inside)
		return;
	if (u->later)
		sd_event_source_set_enabled(u->later, SD_EVENT_ONESHOT);
	else if (sd_event_add_defer(u->loop, &u->later, on_deferred, u) < 0)
		u->later = NULL; /* the end of the next event does it */
}

void unwinder_enter(struct unwinder *u)
{
	u->inside = true;
}

void unwinder_leave(struct unwinder *u)
{
	union {
		struct rows_slot slot;
		uint8_t bytes[sizeof(struct rows_slot) + 16 +
			UNWIND_FIXED_RULES * sizeof(struct unwind_rule)];
	} empty;
	size_t n = 0;

	/* First, so that the child is at work meanwhile. */
	unwinder_pump(u, false);
	for (const struct page_ask *a = u->refused.first; a; a = a->next)
		n++;
	/* What the callbacks ask for is of the next turn. */
	for (; n && u->refused.first; n--) {
		struct page_ask *a = page_list_pop(&u->refused);
		size_t size = rows_slot_empty(&empty.slot, a->cfa);

		unwinder_hand_out(u, a, &empty.slot, size);
	}
	u->inside = false;
	if (u->refused.first)
		unwinder_see_to_it(u);
	unwinder_pump(u, false);
	if (u->handed_out) {
		u->handed_out = false;
		if (u->ops->on_idle)
			u->ops->on_idle(u->userdata);
	}
}

/* ---- callers
 * ------------------------------------------------------------------------------------------ */

int unwinder_ask(struct unwinder *u, uint32_t file, uint32_t page)
{
	uint64_t key = ROWS_KEY(file, page);
	struct asked_file *f;
	int r;

	if (map_get(u->pending, &key, sizeof(key)))
		return 1;
	if (map_size(u->pending) >= u->config.max_pending) {
		u->counters.refused++;
		return -ENOBUFS;
	}
	f = unwinder_file_get(u, file);
	if (!f)
		return -ENOMEM;
	f->used = ++u->clock;
	r = unwinder_add_ask(u, f, key);
	if (r < 0)
		return r;
	u->counters.asked++;
	unwinder_enqueue(u, f);
	if (!u->inside)
		unwinder_pump(u, false);
	return 0;
}

void unwinder_forget_file(struct unwinder *u, uint32_t file)
{
	struct asked_file *f = map_remove(u->files, &file, sizeof(file));
	struct page_list kept;

	if (!f)
		return;
	unwinder_unqueue(u, f);
	if (u->current == f)
		u->current = NULL;
	if (f->asks.first)
		u->handed_out = true;
	while (f->asks.first)
		unwinder_drop_ask(u, page_list_pop(&f->asks));
	page_list_init(&kept);
	while (u->refused.first) {
		struct page_ask *a = page_list_pop(&u->refused);

		if (page_ask_file(a) != file) {
			page_list_add(&kept, a);
			continue;
		}
		unwinder_drop_ask(u, a);
		u->handed_out = true;
	}
	while (kept.first)
		page_list_add(&u->refused, page_list_pop(&kept));
	if (u->handed_out)
		unwinder_see_to_it(u);
	unwinder_file_free(f);
}

const struct unwind_file_facts *unwinder_file_facts(struct unwinder *u, uint32_t file)
{
	const struct asked_file *f = map_get(u->files, &file, sizeof(file));

	if (!f)
		return NULL;
	u->facts = (struct unwind_file_facts){.sources = f->sources,
		.pages = f->pages,
		.rows = f->rows,
		.bytes = f->bytes,
		.unsupported = f->unsupported};
	snprintf(u->facts.problem, sizeof(u->facts.problem), "%s", f->problem ? f->problem : "");
	return &u->facts;
}

void unwinder_counters(struct unwinder *u, struct unwinder_counters *ret)
{
	*ret = u->counters;
	ret->pending = map_size(u->pending);
	ret->cpu_us = u->lives_cpu_us + unwinder_child_cpu_us(u);
}

pid_t unwinder_child_pid(struct unwinder *u)
{
	return u->child.pid;
}

int unwinder_new(struct unwinder **ret, sd_event *loop, const struct unwinder_config *config,
	const struct unwinder_ops *ops, void *userdata, struct err_text *err)
{
	CLEANUP(unwinder_freep) struct unwinder *u = calloc(1, sizeof(*u));
	struct unwinder_config *c;
	int r;

	if (!u)
		return err_set(err, -ENOMEM, "no memory for the unwinder's client");
	u->child = SANDBOX_CHILD_NONE;
	u->queue_tail = &u->queue;
	page_list_init(&u->refused);
	u->loop = sd_event_ref(loop);
	u->config = *config;
	u->ops = ops;
	u->userdata = userdata;
	c = &u->config;
	c->max_pending = c->max_pending ? c->max_pending : PENDING_DEFAULT;
	c->deadline_ms = c->deadline_ms ? c->deadline_ms : DEADLINE_DEFAULT_MS;
	c->idle_exit_ms = c->idle_exit_ms ? c->idle_exit_ms : IDLE_DEFAULT_MS;
	c->back_off_ms = c->back_off_ms ? c->back_off_ms : BACK_OFF_DEFAULT_MS;
	r = map_new(&u->files, sizeof(uint32_t));
	if (r == 0)
		r = map_new(&u->pending, sizeof(uint64_t));
	if (r < 0)
		return err_set(err, r, "no memory for the unwinder's client");
	unwinder_pump(u, true);
	*ret = TAKE_PTR(u);
	return 0;
}

struct unwinder *unwinder_free(struct unwinder *u)
{
	if (!u)
		return NULL;
	unwinder_child_stop(u);
	u->retry = sd_event_source_disable_unref(u->retry);
	u->later = sd_event_source_disable_unref(u->later);
	while (u->refused.first)
		free(page_list_pop(&u->refused));
	map_free_with(u->files, unwinder_file_free);
	map_free(u->pending);
	sd_event_unref(u->loop);
	free(u);
	return NULL;
}
