/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings, and the files behind them.
 *
 * What was mapped gets a file id, once a mapping: whoever needs it first waits until the /proc reader
 * has looked at the mapped inode itself (map_files), so that an id always stands for an identity that was
 * seen, never for a path or for the inode number in maps. Where that number can only mean a file that is
 * held open and has not changed, nobody is asked (files_known()). Only where the process is gone by then
 * does the look-up key alone decide: the file last seen under it; else the path, if device and inode there are
 * those of the mapping; else the frame keeps path and offset (FILE_UNOPENED).
 *
 * Text that a program has copied into large pages (memory without a file, put over its own text, byte for
 * byte) stays what it is a copy of: see mappings.h. Runs in agentd. */

#include "agentd/process/table.h"

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

bool opens_mapping(struct process_table *t, struct mapping *ret, uint64_t start, uint64_t len,
	uint64_t pgoff, const struct file_key *key, const char *path)
{
	char text[READER_PATH_MAX + 1];

	if (!len || start + len < start)
		return false;
	*ret = (struct mapping){.start = start, .end = start + len, .pgoff = pgoff, .key = *key};
	snprintf(text, sizeof(text), "%s", path);
	procfs_strip_deleted(text);
	text_clean(text);
	/* The last is where .NET writes its code, by another mapping. */
	if (text_starts(text, "//anon") || text_starts(text, "/anon_hugepage") ||
		streq(text, "/memfd:doublemapper"))
		ret->key.inode = 0;
	if (!ret->key.inode) {
		ret->key = (struct file_key){};
		ret->pgoff = 0;
		/* Named by the program itself: [anon:v8]. */
		if (text[0] != '[' || text_starts(text, "[anon"))
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

void opens_map(struct entry *e, struct mapping *m)
{
	struct mapping copy = *m;

	m->path = NULL;
	if (mappings_is_copied_text(e->mappings, &copy)) {
		path_unref(copy.path);
		return;
	}
	/* Memory where it was: new code in it, perhaps, but nothing that the kernel would have to be told. */
	if (mappings_has_memory(e->mappings, &copy)) {
		path_unref(copy.path);
		e->image.mapping_epoch++;
		return;
	}
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
	if (e->space_tag)
		spaces_changed(e);
}

/* ---- opening ----------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && streq(s + n - m, end);
}

static void set_file(struct entry *e, struct mapping *m, uint32_t id)
{
	const struct file *file = files_get(e->table->files, id);

	if (m->file != id)
		mappings_changed(e->mappings);
	m->file = id;
	/* In a chroot the event's path is the end of ours. */
	if (file && !e->image.exe_file && ends_with(e->image.exe, m->path->text))
		e->image.exe_file = id;
}

/* The answer: id for the mapping, in the set it was asked for and in the one that has replaced it. */
static void assign(struct open_ask *ask, uint32_t id)
{
	struct process_table *t = ask->table;
	struct entry *e = image_find(t, &ask->key);
	struct mappings *sets[2] = {ask->set, e && e->mappings != ask->set ? e->mappings : NULL};
	bool shared = ask->set->refs > (e && e->mappings == ask->set ? 2U : 1U);

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		struct mapping *m = sets[i] ? mappings_at_start(sets[i], ask->map.start) : NULL;

		if (!m || m->path != ask->map.path || !file_key_equal(&m->key, &ask->map.key) ||
			m->pgoff != ask->map.pgoff)
			continue;
		m->opening = false;
		if (e && e->mappings == sets[i])
			set_file(e, m, id);
		m->file = id;
		mappings_changed(sets[i]);
	}
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
	if (e) {
		spaces_changed(e);
		/* The kernel is told with the next drain: soon, while its samples still need slices. */
		if (e->space_listed && !e->opens && t->ops.on_waiting)
			t->ops.on_waiting(t->userdata);
		reads_advance(e);
	}
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
		memcpy(&f, r->body, sizeof(f));
		id = files_add(t->files,
			&(struct file_seen){
				.identity = {f.device, f.inode, f.size, f.mtime_ns, f.ctime_ns},
				.owner = f.owner,
				.mode = f.mode,
				.plain_numbers = f.flags & READER_PLAIN_NUMBERS},
			key, path, &r->fd);
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

static bool is_gone(const struct entry *e)
{
	return e->image.ended || e->superseded_ns || e->unreadable;
}

/* 0 assigned, -EAGAIN asked. */
static int want_file(struct entry *e, struct mapping *m, pid_t tid)
{
	struct process_table *t = e->table;
	const struct file *known;
	struct open_ask *ask;
	uint32_t guess;

	if (opens_known(e, m))
		return 0;
	if (!m->key.inode)
		return -ENOMEM;
	ask = calloc(1, sizeof(*ask));
	if (!ask)
		return -ENOMEM;
	guess = files_guess(t->files, &m->key, m->path->text);
	known = guess ? files_get(t->files, guess) : NULL;
	*ask = (struct open_ask){.table = t,
		.key = e->image.key,
		.set = mappings_ref(e->mappings),
		.map = *m,
		.tid = (uint32_t)tid};
	ask->flags = known && known->fd >= 0 ? 0 : READER_FD;
	if (is_gone(e))
		ask->flags |= READER_BY_PATH;
	path_ref(ask->map.path);
	if (send_open(ask) < 0) {
		mappings_unref(ask->set);
		path_unref(ask->map.path);
		free(ask);
		return -ENOMEM;
	}
	t->counters.opens++;
	m->opening = true;
	e->opens++;
	return -EAGAIN;
}

static uint32_t anon_file(struct process_table *t, const char *label)
{
	return streq(label, "[anon]") ? jit_anon(t) : files_add_anon(t->files, label);
}

uint32_t opens_known(struct entry *e, struct mapping *m)
{
	struct process_table *t = e->table;
	uint32_t id;

	if (m->file && files_get(t->files, m->file))
		return m->file;
	m->file = 0;
	if (m->opening)
		return 0;
	if (!m->key.inode)
		id = anon_file(t, m->path->text);
	else if (is_gone(e))
		id = files_guess(t->files, &m->key, m->path->text);
	else
		id = files_known(t->files, &m->key, m->path->text, e->maps_at);
	if (!id)
		return 0;
	t->counters.known += m->key.inode != 0;
	set_file(e, m, id);
	return id;
}

/* At a stop that waits no longer: the best that is known, for this frame alone. */
static uint32_t forced_file(struct process_table *t, const struct mapping *m)
{
	uint32_t id = m->key.inode ? files_guess(t->files, &m->key, m->path->text)
				   : anon_file(t, m->path->text);

	return id ? id : files_add_unopened(t->files, &m->key, m->path->text, "not opened in time");
}

int opens_file(struct entry *e, struct mapping *m, pid_t tid, const struct file **ret)
{
	struct process_table *t = e->table;
	uint32_t id = m->file;
	int r;

	*ret = m->file && !m->opening ? files_get(t->files, m->file) : NULL;
	if (*ret)
		return 0;
	if (t->forcing) {
		id = forced_file(t, m);
	} else {
		if (m->opening)
			return -EAGAIN;
		m->file = 0;
		r = want_file(e, m, tid);
		if (r < 0)
			return r;
		id = m->file;
	}
	*ret = files_get(t->files, id);
	return *ret ? 0 : -ENOMEM;
}
