/* SPDX-License-Identifier: Apache-2.0 */

/* Files as agentd knows them: which of their pages wait, and what came of those.
 *
 * Files wait in turn, and one request takes what waits of one file: opening a file costs more than a
 * page of it.
 *
 * A page that cannot be had is answered all the same, by one row: who waits must not wait for ever,
 * and the kernel must not miss it at each sample. So that a child that was killed for want of memory
 * does not leave a library without rows, such pages are remembered and asked for again by
 * themselves. The page that a child failed at comes last then, since the others may be fine. A child
 * that died is no proof against the file it was at (somebody may have killed it): that page is tried
 * once more. One that took too long or lied gets no second try.
 *
 * Invariants. A page_ask is in unwinder.pending exactly while it is in its file's list, or in
 * unwinder.refused. A file is in the queue exactly while it has asks and is not the current one.
 * on_page is called from here and, for refused pages, at the end of an event. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/unwind/client_private.h"

#define BACK_OFF_MAX_NS (3600 * NSEC_PER_SEC)

void unwinder_drop_ask(struct unwinder *u, struct page_ask *a)
{
	map_remove(u->pending, &a->key, sizeof(a->key));
	free(a);
}

/* ---- files
 * -------------------------------------------------------------------------------------------- */

void unwinder_file_free(void *value)
{
	struct asked_file *f = value;

	while (f->asks.first)
		free(page_list_pop(&f->asks));
	free(f->failed);
	free(f->problem);
	free(f);
}

/* Files that were asked about longest ago; those with work in hand stay. */
static void trim_files(struct unwinder *u)
{
	if (map_size(u->files) < FILES_KEPT)
		return;
	for (uint64_t age = u->clock / 2; map_size(u->files) > FILES_KEPT * 3 / 4; age /= 2) {
		struct map_iter it = {0};

		while (map_next(u->files, &it)) {
			struct asked_file *f = it.value;

			if (f->asks.first || f == u->current || (f->retry_at_ns && age) ||
				u->clock - f->used < age)
				continue;
			map_remove(u->files, &f->id, sizeof(f->id));
			unwinder_file_free(f);
		}
		if (!age)
			break;
	}
}

struct asked_file *unwinder_file_get(struct unwinder *u, uint32_t id)
{
	struct asked_file *f = map_get(u->files, &id, sizeof(id));

	if (f)
		return f;
	trim_files(u);
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->id = id;
	page_list_init(&f->asks);
	if (map_put(u->files, &id, sizeof(id), f, NULL) < 0) {
		free(f);
		return NULL;
	}
	return f;
}

void unwinder_enqueue(struct unwinder *u, struct asked_file *f)
{
	if (f->in_queue || !f->asks.first || f == u->current)
		return;
	f->in_queue = true;
	f->next = NULL;
	*u->queue_tail = f;
	u->queue_tail = &f->next;
}

void unwinder_unqueue(struct unwinder *u, struct asked_file *f)
{
	for (struct asked_file **p = &u->queue; *p; p = &(*p)->next) {
		if (*p != f)
			continue;
		*p = f->next;
		if (u->queue_tail == &f->next)
			u->queue_tail = p;
		f->in_queue = false;
		return;
	}
}

static void set_problem(struct asked_file *f, const char *text)
{
	if (streq(f->problem ? f->problem : "", text))
		return;
	free(f->problem);
	f->problem = *text ? strdup(text) : NULL;
}

static void describe_file(struct unwinder *u, uint32_t file, char *out, size_t size)
{
	const char *name = u->ops->file_name ? u->ops->file_name(u->userdata, file) : NULL;

	if (name && *name)
		snprintf(out, size, "%s", name);
	else
		snprintf(out, size, "file %u", file);
}

/* ---- what cannot be had
 * ------------------------------------------------------------------------------- */

static void refuse(struct unwinder *u, struct asked_file *f, struct page_ask *a)
{
	a->cfa = f->refused_as;
	page_list_add(&u->refused, a);
	unwinder_see_to_it(u);
}

/* To be asked for again, at the end of the list or at its front. What finds no room is asked for when
 * the kernel's copy of its one row has made room. */
static void remember(struct asked_file *f, const struct page_ask *a, bool front)
{
	if (f->n_failed == FAILED_KEPT)
		return;
	if ((f->n_failed & (f->n_failed - 1)) == 0) {
		uint32_t *more = reallocarray(
			f->failed, f->n_failed ? f->n_failed * 2 : 1, sizeof(*f->failed));

		if (!more)
			return;
		f->failed = more;
	}
	if (front)
		memmove(f->failed + 1, f->failed, f->n_failed * sizeof(*f->failed));
	f->failed[front ? 0 : f->n_failed] = (uint32_t)a->key;
	f->n_failed++;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata);

static void set_retry(struct unwinder *u, uint64_t at_ns)
{
	uint64_t at_us = at_ns / 1000, now_us;

	if (!u->retry) {
		if (sd_event_add_time(
			    u->loop, &u->retry, CLOCK_MONOTONIC, at_us, 100000, on_retry, u) < 0)
			u->retry = NULL;
		return;
	}
	if (sd_event_source_get_time(u->retry, &now_us) >= 0) {
		int enabled = SD_EVENT_OFF;

		sd_event_source_get_enabled(u->retry, &enabled);
		if (enabled != SD_EVENT_OFF && now_us <= at_us)
			return;
	}
	sd_event_source_set_time(u->retry, at_us);
	sd_event_source_set_enabled(u->retry, SD_EVENT_ONESHOT);
}

/* What waits of this file is refused, and so is what comes, for a time that doubles. The page it
 * failed at, first in its list, is the last one to be tried again: the list is gone through from its
 * end. */
static void give_up(struct unwinder *u, struct asked_file *f, enum unwind_cfa as)
{
	uint64_t wait = u->config.back_off_ms * NSEC_PER_MSEC;

	wait = MIN(wait << MIN(f->failures ? f->failures - 1 : 0, 16U), BACK_OFF_MAX_NS);
	f->retry_at_ns = clock_monotonic_ns() + wait;
	f->refused_as = (uint8_t)as;
	f->held_by = 0;
	unwinder_unqueue(u, f);
	for (bool front = true; f->asks.first; front = false) {
		remember(f, f->asks.first, front);
		refuse(u, f, page_list_pop(&f->asks));
	}
	set_retry(u, f->retry_at_ns);
}

/* Pending, in its file's list. -ENOMEM. */
int unwinder_add_ask(struct unwinder *u, struct asked_file *f, uint64_t key)
{
	struct page_ask *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->key = key;
	if (map_put(u->pending, &key, sizeof(key), a, NULL) < 0) {
		free(a);
		return -ENOMEM;
	}
	if (f->retry_at_ns) {
		remember(f, a, false);
		refuse(u, f, a);
	} else {
		page_list_add(&f->asks, a);
	}
	return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct unwinder *u = userdata;
	uint64_t now = clock_monotonic_ns(), next = UINT64_MAX;
	struct map_iter it = {0};

	unwinder_enter(u);
	while (map_next(u->files, &it)) {
		struct asked_file *f = it.value;

		if (f->retry_at_ns == 0)
			continue;
		if (f->retry_at_ns > now) {
			next = MIN(next, f->retry_at_ns);
			continue;
		}
		f->retry_at_ns = 0;
		while (f->n_failed) {
			uint64_t key = ROWS_KEY(f->id, f->failed[--f->n_failed]);

			if (!map_get(u->pending, &key, sizeof(key)))
				(void)unwinder_add_ask(u, f, key);
		}
		unwinder_enqueue(u, f);
	}
	if (next != UINT64_MAX)
		set_retry(u, next);
	unwinder_leave(u);
	return 0;
}

/* ---- requests and answers
 * ----------------------------------------------------------------------------- */

struct asked_file *unwinder_next_file(struct unwinder *u, int *fd)
{
	while (u->queue) {
		struct asked_file *f = u->queue;

		unwinder_unqueue(u, f);
		u->request.n = 0;
		for (const struct page_ask *a = f->asks.first;
			a && u->request.n < ROWS_REQUEST_PAGES; a = a->next)
			u->request.pages[u->request.n++] = (uint32_t)a->key;
		*fd = -1;
		if (f->held_by == u->child_serial)
			return f; /* most likely */
		*fd = u->ops->open_file(u->userdata, f->id);
		if (*fd >= 0)
			return f;
		{
			char text[ROWS_PROBLEM_MAX];

			snprintf(text, sizeof(text), "cannot be opened: %s", strerrordesc_np(-*fd));
			set_problem(f, text);
		}
		f->failures++;
		give_up(u, f, UNWIND_CFA_NONE);
	}
	return NULL;
}

static uint32_t unsupported_rows(const struct rows_slot *slot)
{
	const uint16_t *rule = (const uint16_t *)(const void *)(slot + 1) + slot->n_rows;
	uint32_t n = 0;

	for (uint32_t i = 0; i < slot->n_rows; i++)
		n += rule[i] == UNWIND_CFA_UNSUPPORTED;
	return n;
}

void unwinder_hand_out(
	struct unwinder *u, struct page_ask *a, const struct rows_slot *slot, size_t size)
{
	uint32_t file = page_ask_file(a), page = (uint32_t)a->key;

	unwinder_drop_ask(u, a);
	u->counters.answered++;
	u->handed_out = true;
	u->ops->on_page(u->userdata, file, page, slot, size);
}

void unwinder_on_slot(struct unwinder *u)
{
	const struct rows_slot *slot = &u->answer.in.slot;
	struct asked_file *f = u->current;
	uint32_t unsupported = unsupported_rows(slot);

	u->counters.pages++;
	u->counters.rows += slot->n_rows;
	u->counters.bytes += slot->size;
	u->counters.unsupported += unsupported;
	if (!f) /* forgotten meanwhile */
		return;
	f->pages++;
	f->rows += slot->n_rows;
	f->bytes += slot->size;
	f->unsupported += unsupported;
	unwinder_hand_out(u, page_list_pop(&f->asks), slot, slot->size);
}

void unwinder_on_done(struct unwinder *u, const struct rows_done_message *done)
{
	struct asked_file *f = u->current;

	u->current = NULL;
	u->counters.child_memory = done->memory;
	if (!f)
		return;
	if (done->flags & ROWS_DONE_UNKNOWN_FILE) {
		f->held_by = 0; /* it needed the room: asked again with a descriptor */
	} else {
		f->held_by = u->child_serial;
		f->sources = done->sources;
		set_problem(f, done->problem);
		if (!f->asks.first)
			f->failures = 0;
	}
	unwinder_enqueue(u, f);
}

void unwinder_on_failed(struct unwinder *u, enum rows_blame blame, const char *why)
{
	struct asked_file *f = u->current;
	char name[256], text[ROWS_PROBLEM_MAX];
	bool again;

	u->current = NULL;
	u->counters.crashes += blame == BLAME_CRASH;
	u->counters.timeouts += blame == BLAME_TIMEOUT;
	if (!f || !f->asks.first)
		return;
	f->failures++;
	f->held_by = 0;
	again = blame == BLAME_CRASH && f->failures == 1;
	describe_file(u, f->id, name, sizeof(name));
	log_warning("the unwinder %s at page %u of %s: %s", why, (uint32_t)f->asks.first->key, name,
		again ? "asked again" : "it has no rows for now");
	snprintf(text, sizeof(text), "the unwinder %.140s", why);
	set_problem(f, text);
	if (again) {
		page_list_add(&f->asks, page_list_pop(&f->asks));
		unwinder_enqueue(u, f);
		return;
	}
	give_up(u, f, UNWIND_CFA_UNSUPPORTED);
}

void unwinder_give_up_all(struct unwinder *u, const char *why)
{
	while (u->queue) {
		set_problem(u->queue, why);
		give_up(u, u->queue, UNWIND_CFA_UNSUPPORTED);
	}
}
