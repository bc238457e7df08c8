/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel walks by, and when that is not to be believed any more.
 *
 * The kernel has a copy of an image's mappings (its space, sampler.h). It is behind by what happened since it
 * was told: a mapping that it lacks costs a miss, and the sample is finished here. Only one thing would be
 * wrong: addresses that belong to another file now. Nothing tells of munmap, and nothing has to: before
 * other code can run at an address a mapping event says so. From that event's time on, until the kernel has
 * been told, what it walked by the old copy through the file that had the addresses is not believed: those
 * samples lose their user frames (WALK_REUSED), and the owner of the table is told, for what was counted.
 * A walk that met no such file went by what still holds, frame by frame.
 *
 * Whether a sample is believed is decided when it arrives, by its time and the tag of its space, since
 * events arrive in their order; the queue only carries the answer along.
 *
 * The kernel is told at the end of a drain, of images that are sampled; at the first one where an exec was
 * seen, before anything else is known of the image, since every sample until then brings a slice of its
 * stack, and there are only so many. What was told is remembered by the
 * version of the mappings, so that an image costs nothing while nothing changes; when the kernel has dropped
 * its copy (bounded memory, lost events), the samples say so. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

/* ---- reuse ------------------------------------------------------------------------------------------------- */

/* Files that lose addresses to m. What waits in the queue is not applied yet, nor was the kernel told of it.
 * The same file again may have been written over in between. */
static uint64_t gives_away(struct entry *e, const struct mapping *m)
{
	const struct mapping *old;
	uint64_t files;

	if (mappings_is_copied_text(e->mappings, m))
		return 0;
	files = mappings_told_under(e->mappings, m);
	old = mappings_find(e->mappings, m->start);
	if (old && old->told && !files_unchanged(e->table->files, old->told))
		files |= PROCESS_FILE_BIT(old->told);
	return files;
}

void spaces_on_map(struct entry *e, uint64_t time_ns, const struct mapping *m)
{
	struct process_table *t = e->table;
	uint64_t files = e->space_tag ? gives_away(e, m) : 0;

	if (!files)
		return;
	/* What happened before the kernel was told of the one before it adds to that: samples that were walked
	 * by what it knew earlier are still to come. */
	if (!e->reused_ns || (e->fixed_ns && time_ns >= e->fixed_ns)) {
		e->reused_ns = time_ns;
		e->reused_files = 0;
	}
	e->fixed_ns = 0;
	e->reused_files |= files;
	e->told_version = 0;
	spaces_changed(e);
	if (t->ops.on_reused)
		t->ops.on_reused(t->userdata, &e->image, time_ns, files);
}

uint64_t spaces_files(const struct record_sample *s)
{
	uint64_t files = 0;

	for (size_t i = 0; i < s->n_frames; i++)
		if (s->frames[i].kind == FRAME_NATIVE && s->frames[i].file)
			files |= PROCESS_FILE_BIT(s->frames[i].file);
	return files;
}

bool spaces_distrust(const struct entry *e, const struct record_sample *s)
{
	if (!e->reused_ns || !s->space || s->header.time < e->reused_ns ||
		!(spaces_files(s) & e->reused_files))
		return false;
	return !e->fixed_ns || (s->header.time < e->fixed_ns && s->space != e->fixed_tag);
}

/* ---- telling ----------------------------------------------------------------------------------------------- */

void spaces_changed(struct entry *e)
{
	struct process_table *t = e->table;

	if (e->space_listed || !t->ops.on_space || !e->sampled || !e->mappings ||
		e->told_version == e->mappings->version)
		return;
	e->space_listed = true;
	e->space_next = NULL;
	*t->space_last = e;
	t->space_last = &e->space_next;
}

void spaces_on_miss(struct entry *e, const struct record_sample *s)
{
	/* It had been told, and knows it no more. */
	if (s->end == WALK_MISS_SPACE && e->space_tag && s->header.time > e->space_ns)
		e->told_version = 0;
	spaces_changed(e);
}

void spaces_drop(struct entry *e)
{
	struct process_table *t = e->table;
	struct entry **at = &t->space_first;

	if (!e->space_listed)
		return;
	while (*at != e)
		at = &(*at)->space_next;
	*at = e->space_next;
	if (t->space_last == &e->space_next)
		t->space_last = at;
	e->space_listed = false;
}

/* Whether process_space() has something to say; later: not yet. */
static bool tellable(const struct entry *e, bool *later)
{
	*later = false;
	if (e->image.ended || e->superseded_ns || !e->mappings || !e->mappings->n ||
		e->told_version == e->mappings->version)
		return false;
	/* An answer that is under way would have it told again; addresses in wrong hands are urgent. */
	*later = e->queued_maps || reads_maps_needed(e) || (e->opens && !e->reused_ns);
	return !*later;
}

void spaces_tell(struct process_table *t)
{
	struct entry *e = t->space_first;

	t->space_first = NULL;
	t->space_last = &t->space_first;
	while (e) {
		struct entry *next = e->space_next;
		bool later, now = tellable(e, &later);

		e->space_listed = false;
		if (now)
			t->ops.on_space(t->userdata, &e->image);
		else if (later)
			spaces_changed(e);
		e = next;
	}
}

size_t process_space(
	struct process_table *t, struct image *image, struct space_map *maps, size_t max)
{
	struct entry *e = (struct entry *)image;
	struct mappings *m = e->mappings;
	size_t n = 0;

	if (!m || e->queued_maps || reads_maps_needed(e)) {
		spaces_changed(e);
		return 0;
	}
	for (size_t i = 0; i < m->n && n < max; i++) {
		uint32_t id = opens_known(e, &m->v[i]);
		const struct file *file = id ? files_get(t->files, id) : NULL;
		struct space_map *to = &maps[n++];

		*to = (struct space_map){
			.start = m->v[i].start, .end = m->v[i].end, .kind = SPACE_UNKNOWN};
		if (!file)
			continue;
		files_touch(t->files, id);
		m->v[i].told = to->file = id;
		to->kind = SPACE_ANON;
		if (file->kind != FILE_ANON) {
			to->kind = SPACE_FILE;
			to->bias = m->v[i].pgoff - m->v[i].start;
		}
	}
	e->told_version = m->version;
	return n;
}

void process_space_set(struct process_table *t, struct image *image, uint32_t tag)
{
	struct entry *e = (struct entry *)image;

	e->space_tag = tag;
	e->space_ns = clock_monotonic_ns();
	if (e->reused_ns && !e->fixed_ns && e->mappings &&
		e->told_version == e->mappings->version) {
		e->fixed_ns = e->space_ns;
		e->fixed_tag = tag;
	}
}
