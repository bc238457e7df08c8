/* SPDX-License-Identifier: Apache-2.0 */
/* From samples to what is given out.
 *
 * Frames that the kernel walked are typed and stay as they are. A native frame without a file is an
 * address: it is looked up among the image's executable mappings as they were at the sample's time (the
 * queue sees to that); a return address by the byte before it, since the call may be the last thing in its
 * mapping. A sample with a slice of its stack is then walked on (walks.c).
 *
 * An address outside all mappings may mean that ours are out of date (mremap, a range shared between processes
 * with one address space): they are read afresh, at most once a second an image and ever more seldom as long
 * as it does not help, since a stack walked by guesses has such addresses all the time. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

/* Whether a fresh read of the mappings may know more; asks for it. */
bool resolve_refresh(struct entry *e, uint64_t sample_ns)
{
	uint64_t now;

	if (e->unreadable || e->image.ended || e->superseded_ns || e->image.kernel_thread ||
		e->maps_at > sample_ns)
		return false;
	now = clock_monotonic_ns();
	if (now < e->refresh_next)
		return false;
	e->refresh_gap = e->refresh_gap ? MIN(e->refresh_gap * 2, REFRESH_MAX_NS) : REFRESH_MIN_NS;
	e->refresh_next = now + e->refresh_gap;
	e->maps_after = now;
	reads_want(e);
	return !e->unreadable;
}

uint32_t resolve_unmapped(struct process_table *t)
{
	if (!t->unmapped || !files_get(t->files, t->unmapped)) {
		t->unmapped = files_add_anon(t->files, "[unmapped]");
		files_hold(t->files, t->unmapped);
	}
	return t->unmapped;
}

static void deliver(struct entry *e, const struct record_sample *s,
	const struct sample_frame *frames, const struct walked *w)
{
	struct process_table *t = e->table;
	char comm[SAMPLE_COMM + 1] = "";
	struct process_sample out = {.time_ns = s->header.time,
		.tid = (pid_t)s->tid,
		.comm = comm,
		.type = s->type,
		.value = s->value,
		.count = s->count,
		.cpu = s->header.cpu,
		.context = s->context,
		.id = s->id,
		.files = s->id ? spaces_files(s) : 0,
		.end = w->end,
		.guessed = w->guessed,
		.end_file = w->end_file,
		.frames = frames,
		.n_frames = w->n};

	memcpy(comm, s->comm, strnlen(s->comm, SAMPLE_COMM));
	e->image.samples += s->count;
	e->image.last_sample_ns = s->header.time;
	if (s->type == SAMPLE_TYPE_CPU)
		e->image.cpu_ns += s->value * s->count;
	if (t->ops.on_sample)
		t->ops.on_sample(t->userdata, &e->image, &out);
}

/* What one pass over a sample's frames knows. */
struct pass {
	struct mapping *last;
	bool anon; /* last is memory without a file */
	bool waits, unmapped;
	uint64_t n_native, n_unmapped;
};

static void resolve_address(
	struct entry *e, const struct record_sample *s, struct sample_frame *f, struct pass *p)
{
	struct process_table *t = e->table;
	uint64_t address = f->offset - (f->flags & FRAME_RETURN ? 1 : 0);
	struct mapping *m = p->last;
	const struct file *file;
	int r;

	if (!m || address - m->start >= m->end - m->start) {
		m = mappings_find(e->mappings, address);
		if (!m) {
			p->unmapped = true;
			p->n_unmapped++;
			f->file = resolve_unmapped(t);
			return;
		}
		r = opens_file(e, m, (pid_t)s->tid, &file);
		p->waits |= r == -EAGAIN;
		if (r < 0)
			return;
		if (file->last_used_ns + NSEC_PER_SEC < s->header.time)
			files_touch(t->files, file->id);
		f->file = file->id;
		if (file->kind != FILE_ANON)
			f->offset = f->offset - m->start + m->pgoff;
		p->last = t->forcing ? NULL : m;
		p->anon = file->kind == FILE_ANON;
		return;
	}
	f->file = m->file;
	if (!p->anon)
		f->offset = f->offset - m->start + m->pgoff;
}

/* By the kernel: the file may have gone since, but hardly ever. */
static void resolve_typed(struct process_table *t, struct sample_frame *f, uint64_t time_ns)
{
	const struct file *file = files_get(t->files, f->file);

	if (!file)
		f->file = resolve_unmapped(t);
	else if (file->last_used_ns + NSEC_PER_SEC < time_ns)
		files_touch(t->files, f->file);
}

/* A caller outside of all mappings is no caller: the walk has lost its way (code without frame pointers), and
 * what follows is as made up. The stack ends there, and says so. A leaf is where the CPU was, whatever is known
 * of the place. */
static void cut_lost(const struct process_table *t, const struct record_sample *s,
	struct sample_frame *frames, struct walked *w)
{
	for (size_t i = 0; i < MIN(w->n, s->n_frames); i++) {
		if (frames[i].kind != FRAME_NATIVE || !(frames[i].flags & FRAME_RETURN) ||
			s->frames[i].file || frames[i].file != t->unmapped)
			continue;
		frames[i] = (struct sample_frame){.kind = FRAME_MARKER, .offset = MARKER_LOST};
		w->n = i + 1;
		w->end = WALK_UNMAPPED;
		return;
	}
}

static size_t n_kernel(const struct record_sample *s)
{
	size_t n = 0;

	while (n < s->n_frames && s->frames[n].kind == FRAME_KERNEL)
		n++;
	return n;
}

/* Unless whoever walked has said it. */
static void add_marker(struct sample_frame *frames, struct walked *w)
{
	if (w->n < SAMPLE_MAX_FRAMES && !(w->n && frames[w->n - 1].kind == FRAME_MARKER))
		frames[w->n++] = (struct sample_frame){.kind = FRAME_MARKER, .offset = MARKER_LOST};
}

/* No user stack (a kernel thread, a task within execve or that exits), and none of the kernel's, which may not
 * be asked for: a profile has no samples without a stack, and where the CPU was is known. */
static void fill_empty(struct sample_frame *frames, struct walked *w)
{
	if (!w->n)
		frames[w->n++] =
			(struct sample_frame){.kind = FRAME_MARKER, .offset = MARKER_KERNEL};
}

/* The kernel's and the addresses' files; nothing is walked yet. */
static void resolve_frames(struct entry *e, const struct record_sample *s,
	struct sample_frame *frames, size_t n, struct pass *p)
{
	for (size_t i = 0; i < n; i++) {
		frames[i] = s->frames[i];
		if (frames[i].kind == FRAME_KERNEL)
			frames[i].file = FILE_ID_KERNEL;
		if (frames[i].kind != FRAME_NATIVE)
			continue;
		p->n_native++;
		if (frames[i].file)
			resolve_typed(e->table, &frames[i], s->header.time);
		else
			resolve_address(e, s, &frames[i], p);
	}
}

/* Where the kernel had to end and there is nothing to go on by. A last frame that is an address is the one
 * whose rows it missed. */
static void end_missed(struct entry *e, const struct arrived *a, const struct sample_frame *frames,
	struct walked *w)
{
	size_t n = w->n;

	if (a->dropped)
		w->end = WALK_SLICE;
	if (w->end < WALK_MISS_SPACE)
		return;
	if (n && frames[n - 1].kind == FRAME_MARKER)
		n--;
	if (n && frames[n - 1].kind == FRAME_NATIVE && !a->s->frames[n - 1].file)
		walks_ask(e, &frames[n - 1]);
}

static bool is_wanted(struct entry *e)
{
	struct process_table *t = e->table;

	return !t->ops.wanted || t->ops.wanted(t->userdata, &e->image);
}

int resolve_sample(struct entry *e, const struct arrived *a)
{
	/* Not on the stack: 18 KiB; never re-entered. */
	static struct sample_frame frames[SAMPLE_MAX_FRAMES];
	struct process_table *t = e->table;
	const struct record_sample *s = a->s;
	struct walked w = {.n = MIN(s->n_frames, SAMPLE_MAX_FRAMES),
		.end = s->end,
		.guessed = s->guessed,
		.end_file = s->end_file};
	struct pass p = {};
	bool wanted = is_wanted(e), user = wanted && !a->reused;

	if (!user)
		w = (struct walked){.n = n_kernel(s), .end = s->end};
	resolve_frames(e, s, frames, w.n, &p);
	if (p.waits)
		return -EAGAIN;
	if (user && a->stack)
		walks_go(e, a, frames, w.n, &w);
	if (w.waits ||
		((p.unmapped || (a->stack && w.end == WALK_UNMAPPED)) && user && !t->forcing &&
			resolve_refresh(e, s->header.time)))
		return -EAGAIN;
	if (user && !a->stack)
		end_missed(e, a, frames, &w);
	if (a->reused && wanted) {
		t->counters.reused += s->count;
		w.end = WALK_REUSED;
	}
	if (wanted && w.end > WALK_ROOT)
		add_marker(frames, &w);
	t->counters.frames += p.n_native;
	t->counters.frames_unmapped += p.n_unmapped;
	if (p.unmapped)
		cut_lost(t, s, frames, &w);
	fill_empty(frames, &w);
	jit_frames(e, frames, w.n, s->header.time);
	deliver(e, s, frames, &w);
	if (s->end >= WALK_MISS_SPACE && wanted)
		spaces_on_miss(e, s);
	return 0;
}

bool resolve_is_whole(struct process_table *t, const struct arrived *a)
{
	const struct record_sample *s = a->s;

	if (a->stack || s->end >= WALK_MISS_SPACE)
		return false;
	for (size_t i = n_kernel(s); i < s->n_frames; i++) {
		const struct file *file;

		if (s->frames[i].kind != FRAME_NATIVE)
			continue;
		file = s->frames[i].file ? files_get(t->files, s->frames[i].file) : NULL;
		if (!file || file->kind == FILE_ANON)
			return false;
	}
	return true;
}
