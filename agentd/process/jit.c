/* SPDX-License-Identifier: Apache-2.0 */
/* Code that a process made for itself, and what says how it is called.
 *
 * A frame in executable memory without a file belongs to its image alone: it becomes a FRAME_JIT of a file of
 * the image's own (FILE_JIT), whose offsets are addresses, so that code of two processes never shares a name.
 * With the first such frame the /proc reader is asked for what the runtime says of its code (reader_jit.c): a
 * jitdump, if one is mapped, or a perf map. The descriptor outlives the process, so that what ran last is
 * named, too. Where there is none, it is looked for again, more and more seldom, while the image is sampled:
 * a Java machine may be told to write its map at any time. One that lost its name was replaced, and is looked
 * for as well.
 *
 * Bounded: one request under way an image, JIT_ENDED_MAX images that ended, JIT_GRACE_NS each; descriptors count
 * among the files' (files.c). Runs in agentd; nothing is read here. */

#include "agentd/process/table.h"

#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/text.h"

#define JIT_RETRY_MIN_NS (1 * NSEC_PER_SEC)
#define JIT_RETRY_MAX_NS (60 * NSEC_PER_SEC)
#define JIT_GRACE_NS     (180 * NSEC_PER_SEC) /* an interval and its names take less */
#define JIT_ENDED_MAX    4096

struct jit {
	struct jit *prev, *next;
	struct entry *e; /* NULL: it ended */
	uint32_t file;
	bool asking;
	uint64_t tried_ns, gap_ns, ended_ns;
};

struct ask {
	struct process_table *table;
	struct sample_image key;
	uint32_t file;
	bool mapped;
	char path[256]; /* of what is mapped */
};

/* ---- lists --------------------------------------------------------------------------------------------------- */

static void put_last(struct jit_list *l, struct jit *j)
{
	j->prev = l->last;
	j->next = NULL;
	*(l->last ? &l->last->next : &l->first) = j;
	l->last = j;
	l->n++;
}

static void take(struct jit_list *l, struct jit *j)
{
	*(j->prev ? &j->prev->next : &l->first) = j->next;
	*(j->next ? &j->next->prev : &l->last) = j->prev;
	l->n--;
}

static void drop_ended(struct process_table *t, struct jit *j)
{
	const struct file *file = files_get(t->files, j->file);

	take(&t->jits_ended, j);
	/* Another entry of the same image may use it by now. */
	if (file && clock_monotonic_ns() - file->last_used_ns >= JIT_GRACE_NS)
		files_drop(t->files, j->file);
	free(j);
}

void jit_end(struct entry *e)
{
	struct process_table *t = e->table;
	struct jit *j = e->jit;

	if (!j)
		return;
	take(&t->jits, j);
	e->jit = NULL;
	j->e = NULL;
	j->ended_ns = clock_monotonic_ns();
	put_last(&t->jits_ended, j);
	if (t->jits_ended.n > JIT_ENDED_MAX)
		drop_ended(t, t->jits_ended.first);
}

void jit_free_all(struct process_table *t)
{
	struct jit_list *lists[] = {&t->jits, &t->jits_ended};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		while (lists[i]->first) {
			struct jit *j = lists[i]->first;

			take(lists[i], j);
			free(j);
		}
	}
}

/* ---- what makes the code --------------------------------------------------------------------------------------- */

static const char *basename_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* By the files that hold the runtimes. */
static enum file_runtime runtime_of(const char *path)
{
	static const struct {
		const char *prefix;
		enum file_runtime runtime;
	} names[] = {{"libjvm.so", RUNTIME_JVM}, {"libj9vm", RUNTIME_JVM},
		{"libnode.so", RUNTIME_V8}, {"libv8.so", RUNTIME_V8},
		{"libcoreclr.so", RUNTIME_DOTNET}, {"libpython", RUNTIME_PYTHON},
		{"libruby", RUNTIME_RUBY}, {"libluajit", RUNTIME_LUAJIT},
		{"beam.smp", RUNTIME_BEAM}, {"node", RUNTIME_V8}, {"deno", RUNTIME_V8},
		{"chrome", RUNTIME_V8}, {"chromium", RUNTIME_V8}, {"electron", RUNTIME_V8},
		{"python", RUNTIME_PYTHON}, {"pypy", RUNTIME_PYTHON}, {"ruby", RUNTIME_RUBY},
		{"luajit", RUNTIME_LUAJIT}, {"php", RUNTIME_PHP}};
	const char *name = basename_of(path);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (text_starts(name, names[i].prefix))
			return names[i].runtime;
	return RUNTIME_NONE;
}

static enum file_runtime find_runtime(const struct entry *e)
{
	for (size_t i = 0; e->mappings && i < e->mappings->n; i++) {
		enum file_runtime r = runtime_of(e->mappings->v[i].path->text);

		if (r)
			return r;
	}
	return runtime_of(e->image.exe);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/* jit-PID.dump; the first page of it is mapped. */
static const struct mapping *find_dump(const struct entry *e)
{
	for (size_t i = 0; e->mappings && i < e->mappings->n; i++) {
		const struct mapping *m = &e->mappings->v[i];
		const char *name = basename_of(m->path->text);
		size_t digits = text_starts(name, "jit-") ? strspn(name + 4, "0123456789") : 0;

		if (m->key.inode && digits && streq(name + 4 + digits, ".dump"))
			return m;
	}
	return NULL;
}

static const char *reason_of(int status, bool mapped)
{
	switch (status) {
	case -ENOENT:
	case -ESRCH:
		return NULL; /* there is none */
	case -EPERM:
		return mapped ? "its jitdump is of another user"
			      : "its perf map is of another user";
	case -EMLINK:
		return mapped ? "its jitdump has more than one name"
			      : "its perf map has more than one name";
	case -ELOOP:
	case -ENOEXEC:
		return "its perf map is not a regular file";
	case -EFBIG:
		return mapped ? "its jitdump is too long" : "its perf map is too long";
	case -EREMOTE:
		return "what it says of its code is on a network or FUSE file system";
	default:
		return "what it says of its code could not be opened";
	}
}

static int send(struct process_table *t, struct ask *ask, const struct entry *e);

static void on_found(void *userdata, struct client_result *r)
{
	struct ask *ask = userdata;
	struct process_table *t = ask->table;
	struct entry *e = t->freeing ? NULL : image_find(t, &ask->key);
	struct reader_file f;
	char path[64] = "";

	if (e && e->jit)
		e->jit->asking = false;
	if (!t->freeing && r->status == 0 && r->len >= sizeof(f) && r->fd >= 0) {
		memcpy(path, r->body + sizeof(f), MIN(r->len - sizeof(f), sizeof(path) - 1));
		text_clean(path);
		files_set_jit(t->files, ask->file, ask->mapped ? FILE_JIT_DUMP : FILE_JIT_MAP,
			ask->mapped ? ask->path : path, &r->fd);
	} else if (!t->freeing) {
		files_set_reason(t->files, ask->file, reason_of(r->status, ask->mapped));
		if (reason_of(r->status, ask->mapped))
			log_debug("process %u makes code, but %s (%s)", ask->key.tgid,
				reason_of(r->status, ask->mapped), strerrordesc_np(-r->status));
		if (ask->mapped && e && e->jit && send(t, ask, NULL) == 0) {
			e->jit->asking = true;
			return;
		}
	}
	free(ask);
}

/* e: looks for a dump first; NULL: for the map. Takes ask unless it fails. */
static int send(struct process_table *t, struct ask *ask, const struct entry *e)
{
	const struct mapping *m = e ? find_dump(e) : NULL;
	struct reader_request q = {.op = READER_JIT,
		.pid = ask->key.tgid,
		.start_ticks = ask->key.start_boottime / TICK_NS};

	ask->mapped = m;
	if (m) {
		snprintf(ask->path, sizeof(ask->path), "%s", m->path->text);
		q.start = m->start;
		q.end = m->end;
		q.inode = m->key.inode;
		q.major = m->key.major;
		q.minor = m->key.minor;
	}
	return client_ask(t->client, &q, m ? m->path->text : NULL, on_found, ask);
}

static void look(struct jit *j, uint64_t now)
{
	struct entry *e = j->e;
	struct process_table *t = e->table;
	struct file *file = files_get(t->files, j->file);
	struct ask *ask;

	if (!file || j->asking || e->image.ended || e->superseded_ns)
		return;
	j->tried_ns = now;
	j->gap_ns = j->gap_ns ? MIN(j->gap_ns * 2, JIT_RETRY_MAX_NS) : JIT_RETRY_MIN_NS;
	file->runtime = find_runtime(e);
	ask = calloc(1, sizeof(*ask));
	if (!ask)
		return;
	*ask = (struct ask){.table = t, .key = e->image.key, .file = j->file};
	if (send(t, ask, e) < 0)
		free(ask);
	else
		j->asking = true;
}

/* ---- frames ------------------------------------------------------------------------------------------------------- */

static bool make_file(struct process_table *t, struct jit *j, const struct sample_image *key)
{
	char name[64];

	snprintf(name, sizeof(name), "jit:%u:%llu:%u", key->tgid,
		(unsigned long long)key->start_boottime, key->exec);
	j->file = files_add_jit(t->files, name, "[jit]");
	return j->file && files_get(t->files, j->file)->kind == FILE_JIT;
}

/* The image's own file; 0: no memory or no room. */
static uint32_t own_file(struct entry *e, uint64_t time_ns)
{
	struct process_table *t = e->table;
	struct jit *j = e->jit;
	struct file *file = j ? files_get(t->files, j->file) : NULL;

	if (file) {
		if (file->last_used_ns + NSEC_PER_SEC < time_ns)
			files_touch(t->files, j->file);
		return j->file;
	}
	if (!j) {
		j = calloc(1, sizeof(*j));
		if (!j)
			return 0;
		j->e = e;
		e->jit = j;
		put_last(&t->jits, j);
	}
	if (!make_file(t, j, &e->image.key)) {
		j->file = 0;
		return 0;
	}
	j->gap_ns = 0;
	look(j, clock_monotonic_ns());
	return j->file;
}

void jit_frames(struct entry *e, struct sample_frame *frames, size_t n, uint64_t time_ns)
{
	struct process_table *t = e->table;
	uint32_t own = 0;

	for (size_t i = 0; t->anon && i < n; i++) {
		if (frames[i].file != t->anon || frames[i].kind != FRAME_NATIVE)
			continue;
		if (!own)
			own = own_file(e, time_ns);
		if (!own)
			return;
		frames[i].kind = FRAME_JIT;
		frames[i].file = own;
	}
}

uint32_t jit_anon(struct process_table *t)
{
	if (!t->anon || !files_get(t->files, t->anon)) {
		t->anon = files_add_anon(t->files, "[anon]");
		files_hold(t->files, t->anon);
	}
	return t->anon;
}

/* ---- later ---------------------------------------------------------------------------------------------------------- */

/* Whether there is nothing, or nothing any more, that names its code. */
static bool is_missing(struct process_table *t, const struct jit *j)
{
	struct file *file = files_get(t->files, j->file);
	struct stat st;

	if (!file)
		return false;
	if (file->fd < 0 || !file->jit)
		return true;
	return file->jit == FILE_JIT_MAP && (fstat(file->fd, &st) < 0 || !st.st_nlink);
}

void jit_housekeeping(struct process_table *t)
{
	uint64_t now = clock_monotonic_ns();

	for (struct jit *j = t->jits.first; j; j = j->next)
		if (now - j->tried_ns >= j->gap_ns && !j->asking &&
			j->e->image.last_sample_ns > j->tried_ns && is_missing(t, j))
			look(j, now);
	while (t->jits_ended.first && now - t->jits_ended.first->ended_ns >= JIT_GRACE_NS)
		drop_ended(t, t->jits_ended.first);
}

bool process_jit_changed(struct process_table *t, uint32_t id, bool *replaced)
{
	struct file *file = files_get(t->files, id);
	struct stat st;
	int64_t mtime_ns;

	*replaced = false;
	if (!file || file->kind != FILE_JIT || file->fd < 0 || fstat(file->fd, &st) < 0)
		return false;
	mtime_ns = st.st_mtim.tv_sec * (int64_t)NSEC_PER_SEC + st.st_mtim.tv_nsec;
	*replaced = file->jit_replaced;
	if (!file->jit_replaced && file->identity.size == (uint64_t)st.st_size &&
		file->identity.mtime_ns == mtime_ns)
		return false;
	file->jit_replaced = false;
	file->identity.size = (uint64_t)st.st_size;
	file->identity.mtime_ns = mtime_ns;
	return true;
}
