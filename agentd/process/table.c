/* SPDX-License-Identifier: Apache-2.0 */
/* The process table: its life, its turns of the event loop, and what others ask of it.
 *
 * events.c takes what the sampler hands in, image.c keeps the entries, reads.c decides when an image is known
 * and its samples may go, resolve.c and opens.c turn their addresses into files, walks.c finishes their stacks,
 * spaces.c says what the kernel may walk by. Nothing here waits, but for
 * process_flush() and process_file_open(), which are bounded by the reader's deadline; neither may be called
 * from a callback of the table. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

/* ---- the loop ---------------------------------------------------------------------------------------------- */

void table_soon(struct process_table *t)
{
	if (t->soon && !t->freeing)
		sd_event_source_set_enabled(t->soon, SD_EVENT_ONESHOT);
}

static int on_soon(sd_event_source *source, void *userdata)
{
	struct process_table *t = userdata;

	reads_pump(t);
	if (t->wake_waiting || t->wake_all)
		reads_run_waiting(t);
	reads_pump(t);
	survey_progress(t);
	return 0;
}

void table_arm(struct process_table *t, uint64_t at_ns)
{
	if (t->timer_at && t->timer_at <= at_ns)
		return;
	t->timer_at = at_ns;
	sd_event_source_set_time(t->timer, at_ns / 1000 + 1);
	sd_event_source_set_enabled(t->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct process_table *t = userdata;

	t->timer_at = 0;
	reads_release_held(t, t->stream_ns);
	t->wake_waiting = true;
	reads_run_waiting(t);
	walks_expire(t);
	if (t->held_first)
		table_arm(t, t->held_first->since + t->config.hold_max_ms * NSEC_PER_MSEC);
	reads_pump(t);
	return 0;
}

void table_housekeeping(struct process_table *t)
{
	if (t->stream_ns < t->last_reap + NSEC_PER_SEC)
		return;
	t->last_reap = t->stream_ns;
	image_reap(t, t->stream_ns);
	jit_housekeeping(t);
}

void process_on_drained(struct process_table *t, uint64_t up_to_ns)
{
	t->stream_ns = MAX(t->stream_ns, up_to_ns);
	t->event_wall_ns = MAX(t->event_wall_ns, up_to_ns);
	reads_release_held(t, t->stream_ns);
	table_housekeeping(t);
	reads_due(t);
	(void)on_soon(NULL, t);
	spaces_tell(t);
}

/* ---- flush ------------------------------------------------------------------------------------------------- */

void process_flush(struct process_table *t)
{
	uint64_t deadline = clock_monotonic_ns() + 2 * t->config.read_deadline_ms * NSEC_PER_MSEC;

	t->flushing = t->wake_all = true;
	reads_release_held(t, UINT64_MAX);
	while (t->n_queued) {
		uint64_t now = clock_monotonic_ns();

		if (t->wake_waiting || t->wake_all)
			reads_run_waiting(t);
		reads_pump(t);
		if (!t->n_queued || now >= deadline)
			break;
		if (t->wake_waiting || t->wake_all)
			continue;
		if (client_in_flight(t->client) || t->want_first)
			client_pump(t->client, 50);
		else if (!t->rows_first || !t->ops.wait_rows || !t->ops.wait_rows(t->userdata, 50))
			break;
	}
	if (t->n_queued) {
		t->forcing = t->wake_all = true;
		reads_run_waiting(t);
		t->forcing = false;
	}
	t->flushing = false;
	table_soon(t);
}

/* ---- questions --------------------------------------------------------------------------------------------- */

void process_each(
	struct process_table *t, void (*visit)(void *userdata, struct image *image), void *userdata)
{
	for (struct entry *e = t->lru.lru_next, *next; e != &t->lru; e = next) {
		next = e->lru_next;
		if (e->announced || e->facts_known)
			visit(userdata, &e->image);
	}
}

struct image *process_find(struct process_table *t, const struct sample_image *key)
{
	struct entry *e = image_find(t, key);

	return e ? &e->image : NULL;
}

struct image *process_find_pid(struct process_table *t, pid_t tgid)
{
	struct entry *e = image_current(t, tgid);

	return e ? &e->image : NULL;
}

static bool is_ancestor(const struct entry *e, const struct sample_image *key)
{
	if (key_equal(&e->image.key, key))
		return true;
	return (e->surrogate || key->exec == EXEC_UNKNOWN) && e->image.key.tgid == key->tgid &&
		e->image.key.start_boottime / TICK_NS == key->start_boottime / TICK_NS;
}

bool process_descends(
	struct process_table *t, const struct image *image, const struct sample_image *ancestor)
{
	const struct entry *e = (const struct entry *)image;

	for (unsigned depth = 0; e->parent && depth < ANCESTORS_MAX; depth++) {
		e = e->parent;
		if (is_ancestor(e, ancestor))
			return true;
	}
	return false;
}

void process_counters(struct process_table *t, struct process_counters *ret)
{
	struct client_counters c;

	client_counters(t->client, &c);
	*ret = t->counters;
	files_counters(t->files, ret);
	ret->images = map_size(t->by_key);
	ret->queued = t->queued_samples;
	ret->reads_timed_out = c.timed_out;
	ret->reader_restarts = c.restarts;
}

/* ---- files ------------------------------------------------------------------------------------------------- */

struct file *process_file(struct process_table *t, uint32_t id)
{
	return files_get(t->files, id);
}

void process_file_hold(struct process_table *t, uint32_t id)
{
	files_hold(t->files, id);
}

void process_file_release(struct process_table *t, uint32_t id)
{
	files_release(t->files, id);
}

struct reopen {
	bool done, abandoned;
	int status, fd;
	struct reader_file file;
};

static void on_reopened(void *userdata, struct client_result *r)
{
	struct reopen *o = userdata;

	if (o->abandoned) {
		free(o);
		return;
	}
	o->done = true;
	o->status = r->status;
	if (r->status == 0 && r->len == sizeof(o->file)) {
		memcpy(&o->file, r->body, sizeof(o->file));
		o->fd = TAKE_FD(r->fd);
	}
}

/* One try through one mapping; bounded by the deadline. */
static int reopen(struct process_table *t, const struct entry *e, const struct mapping *m)
{
	struct reader_request q = {.op = READER_OPEN,
		.flags = READER_FD,
		.pid = e->image.key.tgid,
		.start_ticks = e->image.key.start_boottime / TICK_NS,
		.start = m->start,
		.end = m->end,
		.inode = m->key.inode,
		.major = m->key.major,
		.minor = m->key.minor};
	uint64_t deadline = clock_monotonic_ns() + 2 * t->config.read_deadline_ms * NSEC_PER_MSEC;
	struct reopen *o = calloc(1, sizeof(*o));
	struct file_identity identity;
	uint32_t id = m->file;
	const struct file *file;
	int r;

	if (!o)
		return -ENOMEM;
	o->fd = -1;
	r = client_ask(t->client, &q, m->path->text, on_reopened, o);
	if (r < 0) {
		free(o);
		return r;
	}
	while (!o->done && clock_monotonic_ns() < deadline)
		client_pump(t->client, 50);
	if (!o->done) {
		o->abandoned = true;
		return -ETIMEDOUT;
	}
	identity = (struct file_identity){
		o->file.device, o->file.inode, o->file.size, o->file.mtime_ns, o->file.ctime_ns};
	r = o->status;
	if (r == 0)
		files_reopen(t->files, id, &identity, &o->fd);
	free(o);
	file = files_get(t->files, id);
	return r < 0 ? r : !file ? -ENOENT : file->fd >= 0 ? file->fd : -ESTALE;
}

static struct mapping *find_mapping(struct entry *e, uint32_t id)
{
	if (e->image.ended || e->superseded_ns || e->unreadable || !e->mappings)
		return NULL;
	for (size_t i = 0; i < e->mappings->n; i++)
		if (e->mappings->v[i].file == id)
			return &e->mappings->v[i];
	return NULL;
}

size_t process_file_users(
	struct process_table *t, uint32_t id, const struct image **ret, size_t max)
{
	size_t n = 0;

	for (struct entry *e = t->lru.lru_next; e != &t->lru && n < max; e = e->lru_next)
		if (find_mapping(e, id))
			ret[n++] = &e->image;
	return n;
}

int process_file_open(struct process_table *t, uint32_t id)
{
	struct file *file = files_get(t->files, id);

	if (!file)
		return -ENOENT;
	files_touch(t->files, id);
	if (file->fd >= 0)
		return file->fd;
	if (file->kind != FILE_ELF)
		return -EBADF;
	for (struct entry *e = t->lru.lru_next; e != &t->lru; e = e->lru_next) {
		struct mapping *m = find_mapping(e, id);

		if (m)
			return reopen(t, e, m);
	}
	return -ESRCH;
}

/* ---- life -------------------------------------------------------------------------------------------------- */

static void set_defaults(struct process_config *c)
{
	c->max_images = c->max_images ? c->max_images : 16384;
	c->max_mappings = c->max_mappings ? c->max_mappings : 4096;
	c->max_queued = c->max_queued ? c->max_queued : 8192;
	c->max_files = c->max_files ? c->max_files : 16384;
	c->max_open_files = c->max_open_files ? c->max_open_files : 1024;
	c->read_deadline_ms = c->read_deadline_ms ? c->read_deadline_ms : 2000;
	c->name_wait_ms = c->name_wait_ms ? c->name_wait_ms : 1000;
	c->hold_max_ms = c->hold_max_ms ? c->hold_max_ms : 1000;
	c->rows_wait_ms = c->rows_wait_ms ? c->rows_wait_ms : 2000;
	c->max_user_frames = c->max_user_frames ? c->max_user_frames : SAMPLE_DEFAULT_USER;
}

static int make_parts(struct process_table *t)
{
	int r = map_new(&t->by_key, sizeof(struct sample_image));

	if (r == 0)
		r = map_new(&t->by_pid, sizeof(pid_t));
	if (r == 0)
		r = path_pool_new(&t->paths);
	if (r == 0)
		r = files_new(&t->files, t->config.max_files, t->config.max_open_files,
			t->ops.on_file_gone, t->userdata);
	if (r == 0)
		r = client_new(
			&t->client, t->loop, t->config.proc_root, t->config.read_deadline_ms);
	if (r == 0)
		r = sd_event_add_defer(t->loop, &t->soon, on_soon, t);
	if (r >= 0)
		r = sd_event_source_set_enabled(t->soon, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time(t->loop, &t->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, t);
	if (r >= 0)
		r = sd_event_source_set_enabled(t->timer, SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

int process_table_new(struct process_table **ret, sd_event *loop,
	const struct process_config *config, const struct process_ops *ops, void *userdata,
	struct err_text *err)
{
	CLEANUP(process_table_freep) struct process_table *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "no memory for the process table");
	t->loop = sd_event_ref(loop);
	t->config = config ? *config : (struct process_config){};
	set_defaults(&t->config);
	t->ops = *ops;
	t->userdata = userdata;
	t->lru.lru_next = t->lru.lru_prev = &t->lru;
	t->ended_last = &t->ended_first;
	t->want_last = &t->want_first;
	t->held_last = &t->held_first;
	t->rows_last = &t->rows_first;
	t->space_last = &t->space_first;
	t->later_last = &t->later_first;
	t->waiting.wait_next = t->waiting.wait_prev = &t->waiting;
	t->busy.busy_next = t->busy.busy_prev = &t->busy;
	t->slices.next = t->slices.prev = &t->slices;
	t->exec_tokens = EXEC_READS_BURST;
	r = make_parts(t);
	if (r < 0)
		return err_set(err, r, "cannot make the process table: %s", strerror(-r));
	*ret = TAKE_PTR(t);
	return 0;
}

struct process_table *process_table_free(struct process_table *t)
{
	struct map_iter it = {0};

	if (!t)
		return NULL;
	t->freeing = true;
	t->client = client_free(t->client);
	names_free(t);
	survey_free(t);
	while (t->held_first) {
		struct held *h = t->held_first;

		t->held_first = h->next;
		free(h);
	}
	while (t->lru.lru_next && t->lru.lru_next != &t->lru)
		image_free(t->lru.lru_next, "stopped");
	/* What is left in here has begun an exec. */
	while (t->by_pid && map_next(t->by_pid, &it)) {
		struct slot *s = it.value;

		mappings_unref(s->pending);
		free(s);
	}
	jit_free_all(t);
	map_free(t->by_pid);
	map_free(t->by_key);
	files_free(t->files);
	path_pool_free(t->paths);
	sd_event_source_disable_unref(t->soon);
	sd_event_source_disable_unref(t->timer);
	sd_event_unref(t->loop);
	free(t);
	return NULL;
}

pid_t process_reader_pid(struct process_table *t)
{
	return client_pid(t->client);
}
