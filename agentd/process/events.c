/* SPDX-License-Identifier: Apache-2.0 */
/* Events into the table.
 *
 * The sampler hands in one stream, ordered by time. Exec takes three kinds of record, in this order:
 * EXEC_BEGIN (the old address space is gone), MMAP for each executable range of the new one, EXEC with
 * the new image's key. Samples may carry the new key before EXEC comes, so mappings that have come so
 * far are kept by pid and move to whichever is first to name the new image. A fork shares its parent's
 * mappings; its facts are its own (a worker may have been put into another cgroup) and are read when it
 * is first sampled.
 *
 * Reading is lazy: at the first sample, which wakes us while the process runs; and of an image that
 * outlives its exec by a moment, within a budget that a fork storm exhausts without harm. Most
 * programs of a build or a script are gone before that, and nobody asks for them. Requests go out after the
 * round of events that asked for them, so that what ended in the same round is not read in vain.
 * Runs in agentd. */

#include "agentd/process/table.h"

#include <sys/mman.h>

#include "agentd/base/clock.h"

static void on_kernel_thread(struct entry *e, const struct record_sample *s)
{
	if (e->image.kernel_thread && e->facts_known)
		return;
	image_set_parent(e, NULL);
	memset(e->image.comm, 0, sizeof(e->image.comm));
	memcpy(e->image.comm, s->comm, strnlen(s->comm, SAMPLE_COMM));
	e->image.kernel_thread = true;
	e->image.state = IMAGE_READY;
	e->facts_known = e->facts_changed = true;
	e->facts_at = MAX(s->header.time, e->facts_after);
}

/* The slice behind its frames; NULL: none. */
static const struct sample_stack *stack_of(const struct record_sample *s)
{
	size_t frames = sizeof(*s) + s->n_frames * sizeof(s->frames[0]);

	if (s->stack < sizeof(struct sample_stack) || s->header.size < frames ||
		s->header.size - frames < s->stack)
		return NULL;
	return (const void *)&s->frames[s->n_frames];
}

static void on_sample(struct process_table *t, const struct record_sample *s)
{
	struct entry *e = image_get(t, &s->image, s->header.time);
	struct arrived a = {.s = s, .stack = stack_of(s), .stack_len = s->stack};

	if (!e) {
		image_lost_id(t, s->id);
		image_lost(t, "table full", s->count);
		return;
	}
	e->sampled = true;
	if (s->flags & SAMPLE_KERNEL_THREAD)
		on_kernel_thread(e, s);
	a.reused = spaces_distrust(e, s);
	if (s->end == WALK_MISS_SPACE)
		spaces_changed(e);
	if (!e->first)
		e->rows_since = 0;
	/* What waits is older, but a sample that needs nothing of what it waits for may pass it: its stack has
	 * to be known before the kernel's counts of it come. */
	if ((!e->first || resolve_is_whole(t, &a)) && !e->running_queue && reads_settle(e) &&
		resolve_sample(e, &a) == 0)
		return;
	(void)queue_sample(e, &a);
}

static void on_exec_begin(struct process_table *t, pid_t pid, uint64_t time_ns)
{
	struct slot *s = image_slot(t, pid, true);

	if (!s)
		return;
	if (s->current && !s->current->superseded_ns)
		s->current->superseded_ns = time_ns;
	mappings_unref(s->pending);
	s->pending = mappings_new();
	s->pending_ns = time_ns;
}

static void on_mmap(struct process_table *t, const struct sampler_mmap *m, uint64_t time_ns)
{
	struct slot *s = image_slot(t, m->pid, false);
	struct file_key key = {.inode = m->inode,
		.generation = m->generation,
		.major = m->major,
		.minor = m->minor};
	struct mapping map;

	/* Of an unknown process: it is read when it is sampled. */
	if (!s || !(m->prot & PROT_EXEC) || (!s->pending && (!s->current || s->current->surrogate)))
		return;
	if (!opens_mapping(t, &map, m->start, m->len, m->pgoff, &key, m->path))
		return;
	if (s->pending) {
		/* The kernel maps the program first, then its loader. */
		if (!s->pending->program && map.key.inode)
			s->pending->program = path_ref(map.path);
		if (mappings_replace(&s->pending, &map, t->config.max_mappings) < 0)
			t->counters.mappings_refused++;
		return;
	}
	spaces_on_map(s->current, time_ns, &map);
	if (s->current->first)
		(void)queue_map(s->current, time_ns, &map);
	else
		opens_map(s->current, &map);
}

static void on_exec(struct process_table *t, const struct record_process *p)
{
	struct entry *cur = image_current(t, (pid_t)p->image.tgid), *e;
	struct slot *s;

	/* A surrogate is what ran before. */
	if (cur && cur->surrogate && !cur->superseded_ns)
		cur->superseded_ns = p->header.time;
	e = image_get(t, &p->image, p->header.time);
	if (!e)
		return;
	s = image_slot(t, (pid_t)p->image.tgid, false);
	if (s && s->current == e && s->pending) {
		mappings_unref(e->mappings);
		e->mappings = TAKE_PTR(s->pending);
		e->maps_at = s->pending_ns;
		e->image.mapping_epoch++;
	}
	e->forked = false;
	facts_from_event(e, p);
	if (!e->image.ended)
		reads_later(e, p->header.time);
}

static void on_fork(struct process_table *t, const struct record_process *p)
{
	struct entry *parent = p->parent.tgid ? image_get(t, &p->parent, p->header.time) : NULL;
	struct entry *e = image_get(t, &p->image, p->header.time);

	if (!e)
		return;
	parent = p->parent.tgid ? image_find(t, &p->parent)
				: NULL; /* adding the child may have evicted it */
	e->forked = true;
	facts_from_event(e, p);
	e->image.ppid = (pid_t)p->parent.tgid;
	if (!parent || parent == e)
		return;
	image_set_parent(e, parent);
	/* Mappings that wait in the parent's queue were not applied yet: the child then reads its own. */
	if (!e->mappings && parent->mappings && !parent->queued_maps &&
		parent->maps_at >= MAX(parent->maps_after, t->lost_ns)) {
		e->mappings = mappings_ref(parent->mappings);
		e->maps_at = p->header.time;
	}
}

static void on_exit_event(struct process_table *t, const struct record_process *p)
{
	struct entry *e = image_find(t, &p->image);
	struct slot *s = image_slot(t, (pid_t)p->image.tgid, false);

	if (!e && s && s->current && s->current->surrogate && !s->current->superseded_ns)
		e = s->current;
	if (s && s->pending)
		s->pending = mappings_unref(s->pending);
	if (e) {
		image_end(e, p->header.time);
	} else if (s && !s->current) {
		map_remove(t->by_pid, &s->pid, sizeof(s->pid));
		free(s);
	}
}

static void on_cgroup(struct process_table *t, const struct record_process *p)
{
	struct entry *e = image_find(t, &p->image);

	if (!e || e->image.kernel_thread)
		return;
	facts_from_event(e, p);
	e->facts_after = MAX(e->facts_after, p->header.time);
	/* The kernel keeps its samples until it is decided again whose it is. */
	if (e->announced && !e->image.ended)
		reads_want(e);
}

void process_on_event(struct process_table *t, const struct sampler_event *event)
{
	t->stream_ns = MAX(t->stream_ns, event->time_ns);
	t->event_wall_ns = MAX(t->event_wall_ns, event->time_ns);
	/* What was read before this event is about the time before it. */
	if (t->held_first && event->time_ns)
		reads_release_held(t, event->time_ns - 1);
	switch (event->kind) {
	case SAMPLER_SAMPLE:
		on_sample(t, event->sample);
		break;
	case SAMPLER_EXEC_BEGIN:
		on_exec_begin(t, event->mmap.pid, event->time_ns);
		break;
	case SAMPLER_MMAP:
		on_mmap(t, &event->mmap, event->time_ns);
		break;
	case SAMPLER_EXEC:
		on_exec(t, event->process);
		break;
	case SAMPLER_FORK:
		on_fork(t, event->process);
		break;
	case SAMPLER_EXIT:
		on_exit_event(t, event->process);
		break;
	case SAMPLER_CGROUP:
		on_cgroup(t, event->process);
		break;
	case SAMPLER_LOST_EVENTS:
		t->lost_ns = MAX(t->lost_ns, event->time_ns);
		break;
	case SAMPLER_KERNEL_CODE:
		break;
	}
	table_housekeeping(t);
}
