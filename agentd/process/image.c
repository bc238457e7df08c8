/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of the table: how images come to be, replace each other and go.
 *
 * An image is (pid, start, exec count). Of one pid at most one image is current; an exec makes the next
 * one current and ends the one before, whose late samples are still its own. An entry that /proc told of
 * before any event did has no exec count (a surrogate): it serves as an ancestor and in surveys, and
 * becomes the real image when the first event names that.
 *
 * An ended image stays for a while (its last samples, and children that look for their parent), and for as
 * long as children are there that descend from it. When the table is full, ended ones without waiting
 * samples go first, then whatever was used least recently. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

#define EVICT_LOOK 64

/* ---- lists --------------------------------------------------------------------------------------------- */

static void lru_unlink(struct entry *e)
{
	e->lru_prev->lru_next = e->lru_next;
	e->lru_next->lru_prev = e->lru_prev;
}

static void lru_push(struct entry *e)
{
	struct entry *head = &e->table->lru;

	e->lru_next = head->lru_next;
	e->lru_prev = head;
	head->lru_next->lru_prev = e;
	head->lru_next = e;
}

void image_touch(struct entry *e)
{
	if (e->table->lru.lru_next == e)
		return;
	lru_unlink(e);
	lru_push(e);
}

struct entry *image_find(struct process_table *t, const struct sample_image *key)
{
	return map_get(t->by_key, key, sizeof(*key));
}

struct slot *image_slot(struct process_table *t, pid_t pid, bool create)
{
	struct slot *s = map_get(t->by_pid, &pid, sizeof(pid));

	if (s || !create)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->pid = pid;
	if (map_put(t->by_pid, &pid, sizeof(pid), s, NULL) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

struct entry *image_current(struct process_table *t, pid_t pid)
{
	struct slot *s = image_slot(t, pid, false);

	return s ? s->current : NULL;
}

static void slot_drop_if_empty(struct process_table *t, struct slot *s)
{
	pid_t pid = s->pid;

	if (s->current || s->pending)
		return;
	map_remove(t->by_pid, &pid, sizeof(pid));
	free(s);
}

/* ---- parents ------------------------------------------------------------------------------------------- */

void image_set_parent(struct entry *e, struct entry *parent)
{
	if (e->parent == parent || parent == e)
		return;
	/* No rings: whoever is above began no later, by more than the clock's grain. */
	if (parent && parent->image.key.start_boottime > e->image.key.start_boottime + TICK_NS)
		return;
	for (struct entry *p = parent; p; p = p->parent)
		if (p == e)
			return;
	if (e->parent)
		e->parent->children--;
	e->parent = parent;
	memset(&e->image.parent, 0, sizeof(e->image.parent));
	if (parent) {
		parent->children++;
		e->image.parent = parent->image.key;
	}
}

static void orphan_children(struct entry *parent)
{
	struct process_table *t = parent->table;

	for (struct entry *e = t->lru.lru_next; parent->children && e != &t->lru; e = e->lru_next)
		if (e->parent == parent) {
			e->parent = NULL;
			parent->children--;
		}
}

/* ---- the end ------------------------------------------------------------------------------------------- */

void image_lost(struct process_table *t, const char *cause, uint64_t samples)
{
	if (samples && t->ops.on_lost)
		t->ops.on_lost(t->userdata, cause, samples);
}

void image_lost_id(struct process_table *t, uint64_t id)
{
	if (id && t->ops.on_lost_id)
		t->ops.on_lost_id(t->userdata, id);
}

static void forget_wanted(struct entry *e)
{
	struct process_table *t = e->table;

	if (!e->wanted)
		return;
	for (struct entry **at = &t->want_first; *at; at = &(*at)->want_next)
		if (*at == e) {
			*at = e->want_next;
			if (t->want_last == &e->want_next)
				t->want_last = at;
			break;
		}
	e->wanted = false;
}

static void forget_ended(struct entry *e)
{
	struct process_table *t = e->table;

	if (!e->in_ended)
		return;
	for (struct entry **at = &t->ended_first; *at; at = &(*at)->ended_next)
		if (*at == e) {
			*at = e->ended_next;
			if (t->ended_last == &e->ended_next)
				t->ended_last = at;
			break;
		}
	e->in_ended = false;
}

void image_free(struct entry *e, const char *why)
{
	struct process_table *t = e->table;
	struct slot *s = image_slot(t, (pid_t)e->image.key.tgid, false);
	uint64_t lost = 0;

	while (e->first) {
		if (!e->first->is_map) {
			lost += e->first->sample.count;
			image_lost_id(t, e->first->sample.id);
		}
		queue_pop(e);
	}
	image_lost(t, why, lost);
	if (e->announced && t->ops.on_gone)
		t->ops.on_gone(t->userdata, &e->image);
	forget_wanted(e);
	forget_ended(e);
	walks_forget(e);
	jit_end(e);
	spaces_drop(e);
	image_set_parent(e, NULL);
	orphan_children(e);
	reads_wait_no_more(e);
	reads_not_later(e);
	map_remove(t->by_key, &e->image.key, sizeof(e->image.key));
	lru_unlink(e);
	if (s && s->current == e) {
		s->current = NULL;
		slot_drop_if_empty(t, s);
	}
	mappings_unref(e->mappings);
	facts_free(&e->image);
	free(e->event_cgroup);
	free(e);
}

void image_end(struct entry *e, uint64_t time_ns)
{
	struct process_table *t = e->table;

	if (e->in_ended)
		return;
	e->image.ended = true;
	e->ended_ns = time_ns;
	e->in_ended = true;
	e->ended_next = NULL;
	*t->ended_last = e;
	t->ended_last = &e->ended_next;
	/* Its samples, if any wait, will not hear from /proc. */
	if (e->superseded_ns && !e->reading && e->first)
		reads_advance(e);
}

static bool busy(const struct entry *e)
{
	return e->first || e->reading || e->opens;
}

void image_reap(struct process_table *t, uint64_t time_ns)
{
	struct entry **at = &t->ended_first, *e;

	while ((e = *at)) {
		if (time_ns < e->ended_ns + LINGER_NS)
			break;
		if (busy(e) || e->children) {
			/* Its mappings are of no more use once its samples are through. */
			if (!busy(e))
				e->mappings = mappings_unref(e->mappings);
			at = &e->ended_next;
			continue;
		}
		*at = e->ended_next;
		if (t->ended_last == &e->ended_next)
			t->ended_last = at;
		e->in_ended = false;
		image_free(e, "image evicted");
	}
}

static bool in_use(const struct entry *e)
{
	return e->running_queue || e->reading;
}

/* Makes room for one; false: everything is in use right now. */
static bool evict(struct process_table *t)
{
	struct entry *e = t->lru.lru_prev, *second = NULL;

	for (unsigned i = 0; i < EVICT_LOOK && e != &t->lru; i++, e = e->lru_prev) {
		if (in_use(e))
			continue;
		if (e->image.ended && !busy(e) && !e->children)
			break;
		/* Parents are worth more than leaves, and samples more than both. */
		if (!second || (busy(second) && !busy(e)) ||
			(busy(second) == busy(e) && second->children && !e->children))
			second = e;
	}
	if (e == &t->lru || !(e->image.ended && !busy(e) && !e->children && !in_use(e)))
		e = second;
	if (!e)
		return false;
	t->counters.evicted_images++;
	image_free(e, "image evicted");
	return true;
}

/* ---- the beginning ------------------------------------------------------------------------------------- */

static struct entry *add(struct process_table *t, const struct sample_image *key)
{
	uint64_t boot_to_unix = clock_unix_ns() - clock_boottime_ns(); /* wraps, as does the sum */
	struct entry *e;

	if (map_size(t->by_key) >= t->config.max_images && !evict(t))
		return NULL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->table = t;
	e->image.key = *key;
	e->image.state = IMAGE_NEW;
	facts_init(&e->image);
	e->image.start_unix_ns = key->start_boottime + boot_to_unix;
	e->last = &e->first;
	e->facts_after = e->maps_after = 1;
	if (map_put(t->by_key, key, sizeof(*key), e, NULL) < 0) {
		free(e);
		return NULL;
	}
	lru_push(e);
	return e;
}

static bool same_start(const struct sample_image *a, const struct sample_image *b)
{
	return a->start_boottime / TICK_NS == b->start_boottime / TICK_NS;
}

/* The surrogate becomes the image that an event named. Its facts are read again: it may have execed in the
 * time before the events. */
static bool adopt(struct entry *e, const struct sample_image *key)
{
	struct process_table *t = e->table;

	if (map_put(t->by_key, key, sizeof(*key), e, NULL) < 0)
		return false;
	map_remove(t->by_key, &e->image.key, sizeof(e->image.key));
	e->image.key = *key;
	e->surrogate = false;
	e->facts_known = e->unreadable = e->reading =
		false; /* an answer under way is for the old key */
	reads_wait_no_more(e);
	e->facts_after = clock_monotonic_ns();
	for (struct entry *c = t->lru.lru_next; e->children && c != &t->lru; c = c->lru_next)
		if (c->parent == e)
			c->image.parent = *key;
	return true;
}

/* Whether cur is a later image than key. */
static bool later(const struct entry *cur, const struct sample_image *key)
{
	if (!same_start(&cur->image.key, key))
		return cur->image.key.start_boottime > key->start_boottime;
	return !cur->surrogate && cur->image.key.exec > key->exec;
}

static void supersede(struct entry *cur, uint64_t time_ns)
{
	if (!cur->superseded_ns)
		cur->superseded_ns = time_ns;
	image_end(cur, time_ns);
}

struct entry *image_get(struct process_table *t, const struct sample_image *key, uint64_t time_ns)
{
	struct entry *e = image_find(t, key), *cur, *parent = NULL;
	struct slot *s;

	if (e) {
		image_touch(e);
		return e;
	}
	cur = image_current(t, (pid_t)key->tgid);
	if (cur && cur->surrogate && same_start(&cur->image.key, key) && !cur->superseded_ns &&
		adopt(cur, key)) {
		image_touch(cur);
		return cur;
	}
	e = add(t, key);
	if (!e)
		return NULL;
	s = image_slot(t, (pid_t)key->tgid, true); /* after add(): that may have dropped it */
	if (!s) {
		image_free(e, "table full");
		return NULL;
	}
	cur = s->current;
	if (cur && later(cur, key)) {
		/* A straggler: /proc tells of its successor. */
		e->superseded_ns = 1;
		image_end(e, time_ns);
		return e;
	}
	if (cur && same_start(&cur->image.key, key)) {
		parent = cur->parent;
		e->image.uid = cur->image.uid;
		e->image.ppid = cur->image.ppid;
	} else if (cur && s->pending && s->pending_ns < time_ns && cur->ended_ns > s->pending_ns) {
		s->pending = mappings_unref(s->pending); /* of a process before */
	}
	s->current = e;
	if (cur)
		supersede(cur, time_ns);
	image_set_parent(e, parent);
	if (s->pending) {
		e->mappings = TAKE_PTR(s->pending);
		e->maps_at = s->pending_ns;
		e->image.mapping_epoch++;
	}
	return e;
}

struct entry *image_add_surrogate(struct process_table *t, pid_t pid, uint64_t start_ticks)
{
	struct sample_image key = {.tgid = (uint32_t)pid,
		.exec = EXEC_UNKNOWN,
		.start_boottime = start_ticks * TICK_NS};
	struct entry *e = image_current(t, pid);
	struct slot *s;

	if (e && same_start(&e->image.key, &key) && !e->image.ended)
		return e;
	e = image_find(t, &key);
	if (e)
		return e;
	e = add(t, &key);
	if (!e)
		return NULL;
	e->surrogate = true;
	s = image_slot(t, pid, true);
	if (!s) {
		image_free(e, "table full");
		return NULL;
	}
	if (s->current)
		supersede(s->current, clock_monotonic_ns());
	s->current = e;
	return e;
}
