/* SPDX-License-Identifier: Apache-2.0 */
/* Samples that the kernel could not finish are walked on here (agentd/unwind/walk.h).
 *
 * Everything the walk asks for may have to be waited for: the file behind a mapping (the /proc reader looks at
 * it), the rows of a page (the owner of the table has them made). The sample stays at the head of its
 * image's queue meanwhile, and the walk begins anew when there is more. So the first sample of a program that
 * nobody has met before is whole, and what it had loaded serves all that follow.
 *
 * A wait for rows is bounded for the image, not for each of its samples: when rows have not come in time,
 * what stands behind goes out at once, too, until one gets through. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

struct walking {
	struct entry *e;
	const struct arrived *a;
};

static int find_map(void *userdata, uint64_t address, struct space_map *ret)
{
	struct walking *w = userdata;
	struct entry *e = w->e;
	struct mapping *m = mappings_find(e->mappings, address);
	const struct file *file;
	int r;

	if (!m)
		return -ENOENT;
	r = opens_file(e, m, (pid_t)w->a->s->tid, &file);
	if (r < 0)
		return r;
	if (file->last_used_ns + NSEC_PER_SEC < w->a->s->header.time)
		files_touch(e->table->files, file->id);
	*ret = (struct space_map){
		.start = m->start, .end = m->end, .file = file->id, .kind = SPACE_ANON};
	if (file->kind != FILE_ANON) {
		ret->kind = SPACE_FILE;
		ret->bias = m->pgoff - m->start;
	}
	return 0;
}

static int find_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	struct walking *w = userdata;
	struct process_table *t = w->e->table;

	return t->ops.rows(t->userdata, file, page, ret);
}

static ssize_t read_code(void *userdata, uint32_t id, uint64_t offset, void *to, size_t n)
{
	struct walking *w = userdata;
	const struct file *file = files_get(w->e->table->files, id);
	ssize_t r;

	if (!file || file->fd < 0)
		return -EBADF;
	r = pread(file->fd, to, n, (off_t)offset);
	return r < 0 ? -errno : r;
}

/* ---- waiting ----------------------------------------------------------------------------------------------- */

static uint64_t rows_deadline(const struct entry *e)
{
	return e->rows_since + e->table->config.rows_wait_ms * NSEC_PER_MSEC;
}

bool walks_late(const struct entry *e)
{
	return e->rows_since && clock_monotonic_ns() >= rows_deadline(e);
}

static void wait_for_rows(struct entry *e)
{
	struct process_table *t = e->table;

	if (!e->rows_since) {
		e->rows_since = clock_monotonic_ns();
		t->counters.walks_waited++;
	}
	if (e->waits_rows)
		return;
	e->waits_rows = true;
	e->rows_next = NULL;
	*t->rows_last = e;
	t->rows_last = &e->rows_next;
	table_arm(t, rows_deadline(e));
}

static struct entry *take_waiting(struct process_table *t)
{
	struct entry *e = t->rows_first;

	t->rows_first = e->rows_next;
	if (!t->rows_first)
		t->rows_last = &t->rows_first;
	e->waits_rows = false;
	return e;
}

void walks_forget(struct entry *e)
{
	struct process_table *t = e->table;
	struct entry **at = &t->rows_first;

	if (!e->waits_rows)
		return;
	while (*at != e)
		at = &(*at)->rows_next;
	*at = e->rows_next;
	if (t->rows_last == &e->rows_next)
		t->rows_last = at;
	e->waits_rows = false;
}

/* Those that wait now, each once: who has to wait on is in the list again. */
static void run_waiting(struct process_table *t, bool only_late)
{
	size_t n = 0;

	for (struct entry *e = t->rows_first; e; e = e->rows_next)
		n++;
	while (n-- && t->rows_first) {
		struct entry *e = take_waiting(t);

		if (only_late && !walks_late(e))
			wait_for_rows(e);
		else
			queue_run(e);
	}
}

void process_rows_ready(struct process_table *t)
{
	run_waiting(t, false);
}

void walks_expire(struct process_table *t)
{
	if (!t->rows_first)
		return;
	run_waiting(t, true);
	for (struct entry *e = t->rows_first; e; e = e->rows_next)
		table_arm(t, rows_deadline(e));
}

/* ---- walking ----------------------------------------------------------------------------------------------- */

void walks_ask(struct entry *e, const struct sample_frame *frame)
{
	struct process_table *t = e->table;
	const struct file *file = files_get(t->files, frame->file);
	uint64_t offset = frame->offset - (frame->flags & FRAME_RETURN ? 1 : 0);
	const struct rows_slot *slot;

	if (t->ops.rows && file && file->kind != FILE_ANON && file->kind != FILE_KERNEL)
		(void)t->ops.rows(
			t->userdata, file->id, (uint32_t)(offset >> UNWIND_PAGE_SHIFT), &slot);
}

static uint32_t unmapped_leaf(struct process_table *t, const struct sample_frame *f)
{
	return f->kind == FRAME_NATIVE && !f->file ? resolve_unmapped(t) : f->file;
}

void walks_go(struct entry *e, const struct arrived *a, struct sample_frame *frames, size_t n,
	struct walked *ret)
{
	static const struct unwind_walk_ops ops = {find_map, find_rows, read_code};
	struct process_table *t = e->table;
	struct walking walking = {e, a};
	struct unwind_walk_result r;
	int status;

	if (!t->ops.rows)
		return;
	status = unwind_walk(a->stack, a->stack_len, &ops, &walking, frames, n,
		t->config.max_user_frames, SAMPLE_MAX_FRAMES, &r);
	if (status == -EBADMSG) {
		ret->end = WALK_BAD_STACK;
		return;
	}
	if (status == -EAGAIN && !t->forcing) {
		if (r.end != WALK_MISS_ROWS) {
			ret->waits = true; /* for a file: its answer comes to this image */
			return;
		}
		if (!walks_late(e)) {
			wait_for_rows(e);
			ret->waits = true;
			return;
		}
	}
	if (status == 0)
		e->rows_since = 0;
	else
		t->counters.walks_late++;
	t->counters.walks++;
	for (size_t i = n; i < r.n_frames; i++)
		frames[i].file = unmapped_leaf(t, &frames[i]);
	ret->n = r.n_frames;
	ret->end = r.end;
	ret->guessed = (uint16_t)MIN(ret->guessed + r.guessed, UINT16_MAX);
	ret->end_file = r.end_file ? r.end_file : ret->end_file;
}

void process_set_max_user_frames(struct process_table *t, unsigned max)
{
	t->config.max_user_frames = MIN(MAX(max, 1U), (unsigned)SAMPLE_MAX_USER);
}
