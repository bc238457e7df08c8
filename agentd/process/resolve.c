/* SPDX-License-Identifier: Apache-2.0 */
/* From addresses to files.
 *
 * A native frame's address is looked up among the image's executable mappings as they were at the sample's
 * time (the queue sees to that); a return address by the byte before it, since the call may be the last thing
 * in its mapping. What was mapped gets a file id, once a mapping: the sample that touches it first waits
 * until the /proc reader has looked at the mapped inode itself (map_files), so that an id always
 * stands for an identity that was seen, never for a path or for the inode number in maps. Only where the process
 * is gone by then does the look-up key decide: the file last seen under it; else the path, if device
 * and inode there are those of the mapping; else the frame keeps path and offset (FILE_UNOPENED).
 *
 * An address outside all mappings may mean that ours are out of date (mremap, a range shared between processes
 * with one address space): they are read afresh, at most once a second an image and ever more seldom as long
 * as it does not help, since a stack walked by guesses has such addresses all the time. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "agentd/process/procfs.h"

#define LOW_4G (1ULL << 32)

struct open_ask {
	struct process_table *table;
	struct sample_image key;
	struct mappings *set; /* whose mapping waits */
	struct mapping map;   /* a copy; path is a reference */
	uint32_t tid;
	uint16_t flags;
};

/* ---- mappings ---------------------------------------------------------------------------------------------- */

bool resolve_mapping(struct process_table *t, struct mapping *ret, uint64_t start, uint64_t len,
	uint64_t pgoff, const struct file_key *key, const char *path)
{
	char text[READER_PATH_MAX + 1];

	if (!len || start + len < start)
		return false;
	*ret = (struct mapping){.start = start, .end = start + len, .pgoff = pgoff, .key = *key};
	snprintf(text, sizeof(text), "%s", path);
	procfs_strip_deleted(text);
	text_clean(text);
	if (text_starts(text, "//anon") || text_starts(text, "/anon_hugepage"))
		ret->key.inode = 0;
	if (!ret->key.inode) {
		ret->key = (struct file_key){};
		ret->pgoff = 0;
		if (text[0] != '[')
			snprintf(text, sizeof(text), "[anon]");
		/* Ours is the 64-bit one. */
		if (streq(text, "[vdso]") && start < LOW_4G)
			snprintf(text, sizeof(text), "[vdso32]");
		if (streq(text, "[vdso]"))
			ret->file = FILE_ID_VDSO;
	}
	ret->path = path_get(t->paths, text);
	return ret->path;
}

void resolve_map(struct entry *e, struct mapping *m)
{
	struct mapping copy = *m;

	m->path = NULL;
	if (!e->mappings)
		e->mappings = mappings_new();
	if (!e->mappings) {
		path_unref(copy.path);
		return;
	}
	if (mappings_replace(&e->mappings, &copy, e->table->config.max_mappings) == 0)
		e->image.mapping_epoch++;
	else
		e->table->counters.mappings_refused++;
}

/* ---- opening ----------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && streq(s + n - m, end);
}

/* The answer: id for the mapping, in the set it was asked for and in the one that has replaced it. */
static void assign(struct open_ask *ask, uint32_t id)
{
	struct process_table *t = ask->table;
	struct entry *e = image_find(t, &ask->key);
	struct mappings *sets[2] = {ask->set, e && e->mappings != ask->set ? e->mappings : NULL};
	const struct file *file = files_get(t->files, id);
	bool shared = ask->set->refs > 2;

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		struct mapping *m = sets[i] ? mappings_at_start(sets[i], ask->map.start) : NULL;

		if (!m || m->path != ask->map.path || !file_key_equal(&m->key, &ask->map.key) ||
			m->pgoff != ask->map.pgoff)
			continue;
		m->opening = false;
		m->file = id;
	}
	/* In a chroot the event's path is the end of ours. */
	if (e && file && !e->image.exe_file && ends_with(e->image.exe, ask->map.path->text))
		e->image.exe_file = id;
	if (e)
		e->opens--;
	mappings_unref(ask->set);
	path_unref(ask->map.path);
	free(ask);
	/* Others that forked from the same wait for this answer, too. */
	if (shared) {
		t->wake_all = true;
		table_soon(t);
	}
	if (e)
		reads_advance(e);
}

static const char *reason_of(int status)
{
	switch (status) {
	case -EREMOTE:
		return "on a network or FUSE file system, which may not answer";
	case -EFBIG:
		return "larger than may be opened";
	case -ENOEXEC:
		return "not a regular file";
	case -ETIMEDOUT:
		return "opening it took too long";
	case -EPERM:
	case -EACCES:
		return "not permitted (CAP_CHECKPOINT_RESTORE, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are needed)";
	case -ESRCH:
	case -ENOENT:
	case -ESTALE:
		return "gone before it could be opened";
	default:
		return strerrordesc_np(-status) ? strerrordesc_np(-status) : "could not be opened";
	}
}

static int send_open(struct open_ask *ask);

static void on_opened(void *userdata, struct client_result *r)
{
	struct open_ask *ask = userdata;
	struct process_table *t = ask->table;
	const struct file_key *key = &ask->map.key;
	const char *path = ask->map.path->text;
	struct reader_file f;
	uint32_t id = 0;

	if (t->freeing) {
		mappings_unref(ask->set);
		path_unref(ask->map.path);
		free(ask);
		return;
	}
	if (r->status == 0 && r->len == sizeof(f)) {
		struct file_identity identity;

		memcpy(&f, r->body, sizeof(f));
		identity =
			(struct file_identity){f.device, f.inode, f.size, f.mtime_ns, f.ctime_ns};
		id = files_add(t->files, &identity, f.owner, f.mode, key, path, &r->fd);
		/* It was another file than its key said, or is closed by now. */
		if (id && !(ask->flags & READER_FD) && files_get(t->files, id)->fd < 0) {
			ask->flags |= READER_FD;
			if (send_open(ask) == 0)
				return;
		}
		assign(ask, id);
		return;
	}
	if (r->status != -ETIMEDOUT && r->status != -EREMOTE)
		id = files_guess(t->files, key, path);
	if (!id && (r->status == -ESRCH || r->status == -ENOENT || r->status == -ESTALE) &&
		!(ask->flags & READER_BY_PATH) && path[0] == '/') {
		ask->flags |= READER_BY_PATH | READER_FD;
		if (send_open(ask) == 0)
			return;
	}
	if (r->status == -ETIMEDOUT) {
		struct entry *e = image_find(t, &ask->key);

		if (e)
			reads_give_up(e);
	}
	if (!id)
		id = files_add_unopened(t->files, key, path, reason_of(r->status));
	assign(ask, id);
}

static int send_open(struct open_ask *ask)
{
	const struct mapping *m = &ask->map;
	struct reader_request q = {.op = READER_OPEN,
		.flags = ask->flags,
		.pid = ask->key.tgid,
		.tid = ask->tid,
		.start_ticks = ask->key.start_boottime / TICK_NS,
		.start = m->start,
		.end = m->end,
		.inode = m->key.inode,
		.major = m->key.major,
		.minor = m->key.minor};

	return client_ask(ask->table->client, &q, m->path->text, on_opened, ask);
}

/* 0 assigned, -EAGAIN asked. */
static int want_file(struct entry *e, struct mapping *m, pid_t tid)
{
	struct process_table *t = e->table;
	bool gone = e->image.ended || e->superseded_ns || e->unreadable;
	const struct file *known;
	struct open_ask *ask;
	uint32_t guess;

	if (!m->key.inode) {
		m->file = files_add_anon(t->files, m->path->text);
		return m->file ? 0 : -ENOMEM;
	}
	guess = files_guess(t->files, &m->key, m->path->text);
	if (gone && guess) {
		m->file = guess;
		return 0;
	}
	ask = calloc(1, sizeof(*ask));
	if (!ask)
		return -ENOMEM;
	known = guess ? files_get(t->files, guess) : NULL;
	*ask = (struct open_ask){.table = t,
		.key = e->image.key,
		.set = mappings_ref(e->mappings),
		.map = *m,
		.tid = (uint32_t)tid};
	ask->flags = known && known->fd >= 0 ? 0 : READER_FD;
	if (gone)
		ask->flags |= READER_BY_PATH;
	path_ref(ask->map.path);
	if (send_open(ask) < 0) {
		mappings_unref(ask->set);
		path_unref(ask->map.path);
		free(ask);
		return -ENOMEM;
	}
	m->opening = true;
	e->opens++;
	return -EAGAIN;
}

/* ---- samples ----------------------------------------------------------------------------------------------- */

/* Whether a fresh read of the mappings may know more; asks for it. */
static bool refresh(struct entry *e, uint64_t sample_ns)
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

static uint32_t unmapped_file(struct process_table *t)
{
	if (!t->unmapped || !files_get(t->files, t->unmapped)) {
		t->unmapped = files_add_anon(t->files, "[unmapped]");
		files_hold(t->files, t->unmapped);
	}
	return t->unmapped;
}

static void deliver(
	struct entry *e, const struct record_sample *s, const struct sample_frame *frames, size_t n)
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
		.frames = frames,
		.n_frames = n};

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

/* At a stop that waits no longer: the best that is known, for this frame alone. */
static void force_file(struct process_table *t, const struct mapping *m, struct sample_frame *f)
{
	uint32_t id = m->key.inode ? files_guess(t->files, &m->key, m->path->text)
				   : files_add_anon(t->files, m->path->text);

	if (!id)
		id = files_add_unopened(t->files, &m->key, m->path->text, "not opened in time");
	f->file = id;
	if (m->key.inode)
		f->offset = f->offset - m->start + m->pgoff;
}

static void resolve_native(
	struct entry *e, const struct record_sample *s, struct sample_frame *f, struct pass *p)
{
	struct process_table *t = e->table;
	uint64_t address = f->offset - (f->flags & FRAME_RETURN ? 1 : 0);
	struct mapping *m = p->last;
	struct file *file;
	int r;

	p->n_native++;
	if (!m || address - m->start >= m->end - m->start) {
		m = mappings_find(e->mappings, address);
		if (!m) {
			p->unmapped = true;
			p->n_unmapped++;
			f->file = unmapped_file(t);
			return;
		}
		if (t->forcing && (m->opening || !m->file || !files_get(t->files, m->file))) {
			force_file(t, m, f);
			return;
		}
		if (m->opening) {
			p->waits = true;
			return;
		}
		file = m->file ? files_get(t->files, m->file) : NULL;
		if (!file) {
			m->file = 0;
			r = want_file(e, m, (pid_t)s->tid);
			p->waits |= r == -EAGAIN;
			if (r < 0)
				return;
			file = files_get(t->files, m->file);
		}
		if (!file)
			return;
		if (file->last_used_ns + NSEC_PER_SEC < s->header.time)
			files_touch(t->files, m->file);
		p->last = m;
		p->anon = file->kind == FILE_ANON;
	}
	f->file = m->file;
	if (!p->anon)
		f->offset = f->offset - m->start + m->pgoff;
}

/* A caller outside of all mappings is no caller: the walk has lost its way (code without frame pointers), and
 * what follows is as made up. The stack ends there, and says so. A leaf is where the CPU was, whatever is known
 * of the place. */
static size_t cut_lost(const struct process_table *t, struct sample_frame *frames, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (frames[i].kind != FRAME_NATIVE || !(frames[i].flags & FRAME_RETURN) ||
			frames[i].file != t->unmapped)
			continue;
		frames[i] = (struct sample_frame){.kind = FRAME_MARKER, .offset = MARKER_LOST};
		return i + 1;
	}
	return n;
}

int resolve_sample(struct entry *e, const struct record_sample *s)
{
	static struct sample_frame
		frames[SAMPLE_MAX_FRAMES]; /* not on the stack: 4 KiB; never re-entered */
	struct process_table *t = e->table;
	size_t n = MIN(s->n_frames, SAMPLE_MAX_FRAMES);
	struct pass p = {};

	for (size_t i = 0; i < n; i++) {
		frames[i] = s->frames[i];
		if (frames[i].kind == FRAME_KERNEL)
			frames[i].file = FILE_ID_KERNEL;
		else if (frames[i].kind == FRAME_NATIVE && !frames[i].file)
			resolve_native(e, s, &frames[i], &p);
	}
	if (p.waits)
		return -EAGAIN;
	if (p.unmapped && !t->forcing && refresh(e, s->header.time))
		return -EAGAIN;
	t->counters.frames += p.n_native;
	t->counters.frames_unmapped += p.n_unmapped;
	deliver(e, s, frames, p.unmapped ? cut_lost(t, frames, n) : n);
	return 0;
}
