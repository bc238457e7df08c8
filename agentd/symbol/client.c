/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's side of naming: what to ask, for whom, and what to say meanwhile.
 *
 * Addresses that the cache does not have are queued by file; files wait in turn, one request is under way (see
 * child.c). A caller's wait is over when each of its files has answered, or given up, as far as that caller's
 * last address: queues are first in, first out, so a serial says it.
 *
 * When a file fails, what it had in its queue gets fallback names for now, and the file is left alone for a
 * time that doubles. A child that died is no proof against the file it was at (somebody may have killed it): the
 * file is asked once more, behind the others. One that took too long or lied gets no second try.
 *
 * Invariants. An entry is PENDING exactly while its address waits in a queue or is under way. done is called
 * last, when all is consistent, since it may call anything here. Runs in agentd. */

#include <fcntl.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/symbol/client.h"

#define DEADLINE_DEFAULT_MS 5000
#define FILES_MAX           16384 /* facts kept */
#define IDLE_DEFAULT_NS     (60 * NSEC_PER_SEC)
#define BACK_OFF_MIN_NS     (30 * NSEC_PER_SEC)
#define BACK_OFF_MAX_NS     (3600 * NSEC_PER_SEC)
#define UNREADABLE_RETRY_NS (30 * NSEC_PER_SEC)

static const struct symbol_file_facts no_facts = {.named_by = "none", .last_problem = ""};

/* ---- files ------------------------------------------------------------------------------------------------------ */

static void file_free(void *value)
{
	struct symbol_file *f = value;

	free(f->pending);
	free(f);
}

static struct symbol_file *get_file(struct symbolizer *s, uint32_t id)
{
	struct symbol_file *f = map_get(s->files, &id, sizeof(id));

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->id = id;
	f->facts.named_by = "none";
	f->facts.last_problem = f->problem;
	if (map_put(s->files, &id, sizeof(id), f, NULL) < 0) {
		free(f);
		return NULL;
	}
	return f;
}

static void enqueue_file(struct symbolizer *s, struct symbol_file *f)
{
	if (f->in_queue || !f->n)
		return;
	f->in_queue = true;
	f->next = NULL;
	*s->queue_tail = f;
	s->queue_tail = &f->next;
}

static void unqueue_file(struct symbolizer *s, struct symbol_file *f)
{
	for (struct symbol_file **p = &s->queue; *p; p = &(*p)->next) {
		if (*p != f)
			continue;
		*p = f->next;
		if (s->queue_tail == &f->next)
			s->queue_tail = p;
		f->in_queue = false;
		return;
	}
}

static int queue_address(struct symbolizer *s, struct symbol_file *f, uint64_t address)
{
	if (s->n_pending >= PENDING_MAX)
		return -ENOBUFS;
	if (f->head + f->n == f->size) {
		if (f->head >= f->n && f->head) {
			memcpy(f->pending, f->pending + f->head, f->n * sizeof(*f->pending));
			f->head = 0;
		} else {
			size_t size = f->size ? f->size * 2 : 32;
			uint64_t *grown = reallocarray(f->pending, size, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			f->pending = grown;
			f->size = size;
		}
	}
	f->pending[f->head + f->n++] = address;
	f->queued++;
	s->n_pending++;
	return 0;
}

/* The first n addresses of its queue are answered, with that state where rows did not say better. */
static void settle(struct symbolizer *s, struct symbol_file *f, size_t n, enum symbol_state state)
{
	n = MIN(n, f->n);
	for (size_t i = 0; i < n; i++) {
		struct symbol_entry *e =
			symbol_cache_find(s->cache, f->id, f->pending[f->head + i]);

		if (e && e->state == SYMBOL_PENDING) {
			e->state = state;
			s->counters.fallback++;
		}
	}
	f->head += n;
	f->n -= n;
	f->answered += n;
	s->n_pending -= n;
	if (!f->n) {
		free(f->pending);
		f->pending = NULL;
		f->head = f->size = 0;
	}
}

/* Waits for this file as far as it has answered are over. Callbacks come by symbol_run_waiters(). */
static void on_progress(struct symbolizer *s, uint32_t file, uint64_t answered)
{
	for (struct symbol_waiter *w = s->waiters; w; w = w->next) {
		for (size_t i = 0; i < w->n_waits; i++) {
			struct symbol_wait *wait = &w->waits[i];

			if (wait->file != file || wait->over || wait->serial > answered)
				continue;
			wait->over = true;
			w->n_left--;
		}
	}
}

static const char *module_name(struct symbolizer *s, uint32_t file)
{
	const char *name;

	if (file == SYMBOL_FILE_KERNEL)
		return "vmlinux";
	if (file == SYMBOL_FILE_VDSO)
		return "[vdso]";
	name = s->ops->module_name(s->userdata, file);
	return name && *name ? name : "[unknown]";
}

/* What waits of this file is given up; nothing is asked of it before retry_ns from now. */
static void give_up(struct symbolizer *s, struct symbol_file *f, uint64_t retry_ns)
{
	f->retry_at_ns = clock_monotonic_ns() + retry_ns;
	unqueue_file(s, f);
	settle(s, f, f->n, SYMBOL_PROVISIONAL);
	on_progress(s, f->id, f->answered);
}

static void set_problem(
	struct symbolizer *s, struct symbol_file *f, const char *format, const char *detail)
{
	snprintf(f->problem, sizeof(f->problem), format, detail);
	text_clean(f->problem);
	if (s->ops->on_facts)
		s->ops->on_facts(s->userdata, f->id, &f->facts);
}

struct symbol_file *symbol_next_file(struct symbolizer *s, int *fd, int *own)
{
	while (s->queue) {
		struct symbol_file *f = s->queue;

		unqueue_file(s, f);
		*fd = -1;
		if (f->loaded_by == s->child_serial)
			return f; /* the child has it, most likely */
		if (f->id == SYMBOL_FILE_KERNEL)
			*fd = *own = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
		else
			*fd = s->ops->open_file(s->userdata, f->id);
		if (f->id == SYMBOL_FILE_KERNEL && *fd < 0)
			*fd = -errno;
		if (*fd >= 0)
			return f;
		set_problem(s, f, "cannot be opened: %s", strerrordesc_np(-*fd));
		give_up(s, f, UNREADABLE_RETRY_NS);
	}
	return NULL;
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static int take_row(struct symbolizer *s, const struct symbol_names_view *view,
	const struct symbol_row *row, const struct symbol_wire_function *wire)
{
	struct symbol_function functions[SYMBOL_CHAIN_MAX];
	const char *module = symbol_view_text(view, &row->module);
	struct symbol_chain like = {.n = row->n,
		.module = *module ? module : module_name(s, s->current->id),
		.functions = functions};
	struct symbol_entry *e;
	const struct symbol_chain *chain;

	for (uint16_t i = 0; i < row->n; i++)
		functions[i] =
			(struct symbol_function){.name = symbol_view_text(view, &wire[i].name),
				.system_name = symbol_view_text(view, &wire[i].system_name),
				.file = symbol_view_text(view, &wire[i].file),
				.line = wire[i].line,
				.start_line = wire[i].start_line,
				.inlined = wire[i].flags & SYMBOL_FUNCTION_INLINED};
	chain = symbol_cache_chain(s->cache, &like);
	e = symbol_cache_add(s->cache, s->current->id, s->current_addresses[row->address]);
	if (!chain || !e)
		return -ENOMEM;
	e->chain = chain;
	e->state = SYMBOL_NAMED;
	s->current->facts.named++;
	s->counters.named++;
	return 0;
}

int symbol_on_names(struct symbolizer *s, const struct symbol_names_view *view)
{
	const struct symbol_wire_function *wire = view->functions;

	for (uint32_t i = 0; i < view->n_rows && s->current; i++) {
		/* Without memory it stays without a name. */
		(void)take_row(s, view, &view->rows[i], wire);
		wire += view->rows[i].n;
	}
	return 0;
}

static void take_facts(
	struct symbolizer *s, struct symbol_file *f, const struct symbol_facts_message *m)
{
	struct symbol_file_facts *facts = &f->facts;

	memcpy(facts->build_id, m->build_id, sizeof(facts->build_id));
	memcpy(facts->go_build_id, m->go_build_id, sizeof(facts->go_build_id));
	memcpy(facts->htlhash, m->htlhash, sizeof(facts->htlhash));
	snprintf(f->named_by, sizeof(f->named_by), "%s", m->named_by);
	facts->named_by = f->named_by;
	facts->n_segments = (uint8_t)m->n_segments;
	for (size_t i = 0; i < m->n_segments; i++)
		facts->segments[i] = (struct symbol_segment){.offset = m->segments[i].offset,
			.file_size = m->segments[i].file_size,
			.vaddr = m->segments[i].vaddr,
			.mem_size = m->segments[i].mem_size,
			.executable = m->segments[i].executable != 0};
	if (*m->problem && strcmp(f->problem, m->problem) != 0 && f->id == SYMBOL_FILE_KERNEL)
		log_warning("kernel frames have no names: %s", m->problem);
	else if (*m->problem && strcmp(f->problem, m->problem) != 0)
		log_debug("%s: %s", module_name(s, f->id), m->problem);
	snprintf(f->problem, sizeof(f->problem), "%s", m->problem);
	facts->seen = true;
	if (s->ops->on_facts)
		s->ops->on_facts(s->userdata, f->id, facts);
}

void symbol_on_done(struct symbolizer *s, const struct symbol_done_message *done)
{
	struct symbol_file *f = s->current;

	s->current = NULL;
	if (!f)
		return;
	f->failures = 0;
	f->facts.cpu_us += done->cpu_us;
	if (done->flags & SYMBOL_DONE_UNKNOWN_FILE) {
		f->loaded_by = 0; /* it needed the room: asked again with a descriptor */
	} else {
		f->loaded_by = s->child_serial;
		settle(s, f, done->n_done, SYMBOL_FALLBACK);
		on_progress(s, f->id, f->answered);
		if (s->current_facts.header.size)
			take_facts(s, f, &s->current_facts);
	}
	enqueue_file(s, f);
}

void symbol_on_failed(struct symbolizer *s, enum symbol_blame blame, const char *why)
{
	struct symbol_file *f = s->current;
	bool again;

	s->current = NULL;
	if (blame == BLAME_TIMEOUT)
		s->counters.timeouts++;
	else if (blame == BLAME_CRASH)
		s->counters.crashes++;
	if (!f)
		return;
	f->failures++;
	f->loaded_by = 0;
	f->facts.timeouts += blame == BLAME_TIMEOUT;
	f->facts.crashes += blame != BLAME_TIMEOUT;
	again = blame == BLAME_CRASH && f->failures == 1;
	log_warning("the symbolizer %s at %s: %s", why, module_name(s, f->id),
		again ? "asked again" : "its frames have no names for now");
	set_problem(s, f, "the symbolizer %s", why);
	if (again) {
		enqueue_file(s, f);
		return;
	}
	give_up(s, f, MIN(BACK_OFF_MIN_NS << MIN(f->failures - 1, 16U), BACK_OFF_MAX_NS));
}

void symbol_give_up_all(struct symbolizer *s, const char *why)
{
	while (s->queue) {
		struct symbol_file *f = s->queue;

		set_problem(s, f, "%s", why);
		give_up(s, f, 0);
	}
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

static struct symbol_waiter *waiter_free(struct symbol_waiter *w)
{
	if (w) {
		sd_event_source_disable_unref(w->timer);
		free(w->waits);
		free(w->keys);
		free(w);
	}
	return NULL;
}
DEFINE_FREEP(waiter_freep, struct symbol_waiter *, waiter_free)

static void waiter_unlink(struct symbolizer *s, struct symbol_waiter *w)
{
	for (struct symbol_waiter **p = &s->waiters; *p; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			return;
		}
	}
}

/* Consumes w, which is in no list. */
static void finish(struct symbol_waiter *w, size_t late)
{
	void (*done)(void *userdata, size_t late) = w->done;
	void *userdata = w->userdata;

	waiter_free(w);
	done(userdata, late);
}

void symbol_run_waiters(struct symbolizer *s)
{
	struct symbol_waiter *w = s->waiters;

	while (w) {
		if (w->n_left) {
			w = w->next;
			continue;
		}
		waiter_unlink(s, w);
		finish(w, 0);
		w = s->waiters; /* the callback may have changed the list */
	}
}

static int on_deferred(sd_event_source *source, void *userdata)
{
	symbol_run_waiters(userdata);
	return 0;
}

/* For what ends a wait outside of an event: its owner is called back from the loop, not from inside of a call that
 * somebody else made. */
static void run_waiters_later(struct symbolizer *s)
{
	bool any = false;

	for (const struct symbol_waiter *w = s->waiters; w; w = w->next)
		any |= w->n_left == 0;
	if (!any)
		return;
	if (s->later)
		sd_event_source_set_enabled(s->later, SD_EVENT_ONESHOT);
	else if (sd_event_add_defer(s->loop, &s->later, on_deferred, s) < 0)
		s->later = NULL; /* their deadline ends them */
}

void symbol_cancel(struct symbolizer *s, void *userdata)
{
	for (struct symbol_waiter *w = s->waiters, *next; w; w = next) {
		next = w->next;
		if (w->userdata != userdata)
			continue;
		waiter_unlink(s, w);
		waiter_free(w);
	}
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct symbol_waiter *w = userdata;
	size_t late = 0;

	for (size_t i = 0; i < w->n_keys; i++) {
		const struct symbol_entry *e =
			symbol_cache_find(w->s->cache, w->keys[i].file, w->keys[i].address);

		late += e && e->state == SYMBOL_PENDING;
	}
	waiter_unlink(w->s, w);
	finish(w, late);
	return 0;
}

static int wait_for(struct symbol_waiter *w, const struct symbol_file *f)
{
	struct symbol_wait *grown;

	/* Queries of one file come together; the last of a file says how far. */
	for (size_t i = w->n_waits; i-- > 0 && w->n_waits - i < 16;) {
		if (w->waits[i].file == f->id) {
			w->waits[i].serial = f->queued;
			return 0;
		}
	}
	if ((w->n_waits & (w->n_waits - 1)) == 0) {
		grown = reallocarray(w->waits, w->n_waits ? w->n_waits * 2 : 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		w->waits = grown;
	}
	w->waits[w->n_waits++] = (struct symbol_wait){.file = f->id, .serial = f->queued};
	w->n_left++;
	return 0;
}

static uint64_t address_of(const struct symbol_query *q)
{
	return q->offset - (q->return_address && q->offset ? 1 : 0);
}

/* Sees to one query. 1: it has to be waited for, *file says on whom; 0: all there is to know is known. */
static int want(
	struct symbolizer *s, const struct symbol_query *q, uint64_t now, struct symbol_file **file)
{
	uint64_t address = address_of(q);
	struct symbol_entry *e = symbol_cache_find(s->cache, q->file, address);
	struct symbol_file *f;

	if (!q->file)
		return 0;
	if (e && (e->state == SYMBOL_NAMED || e->state == SYMBOL_FALLBACK)) {
		s->counters.cached++;
		return 0;
	}
	f = get_file(s, q->file);
	if (!f)
		return 0;
	*file = f;
	f->used = s->trims;
	if (e && e->state == SYMBOL_PENDING)
		return 1;
	if (f->retry_at_ns > now)
		return 0;
	e = symbol_cache_add(s->cache, q->file, address);
	if (!e || queue_address(s, f, address) < 0)
		return 0;
	f->facts.asked += e->state == SYMBOL_NONE;
	e->state = SYMBOL_PENDING;
	if (f != s->current)
		enqueue_file(s, f);
	return 1;
}

int symbol_resolve(struct symbolizer *s, const struct symbol_query *queries, size_t n,
	uint64_t deadline_ns, void (*done)(void *userdata, size_t late), void *userdata)
{
	CLEANUP(waiter_freep) struct symbol_waiter *w = calloc(1, sizeof(*w));
	uint64_t now = clock_monotonic_ns();
	int r;

	if (!w)
		return -ENOMEM;
	w->s = s;
	w->done = done;
	w->userdata = userdata;
	w->keys = n ? reallocarray(NULL, n, sizeof(*w->keys)) : NULL;
	if (n && !w->keys)
		return -ENOMEM;
	s->counters.asked += n;
	for (size_t i = 0; i < n; i++) {
		struct symbol_file *f = NULL;

		if (!want(s, &queries[i], now, &f))
			continue;
		w->keys[w->n_keys++] = (struct symbol_key){
			.file = queries[i].file, .address = address_of(&queries[i])};
		r = wait_for(w, f);
		if (r < 0)
			return r;
	}
	symbol_pump(s); /* files that cannot be opened are given up here */
	run_waiters_later(s);
	for (size_t i = 0; i < w->n_waits; i++) {
		struct symbol_file *f =
			map_get(s->files, &w->waits[i].file, sizeof(w->waits[i].file));

		if (!f || f->answered >= w->waits[i].serial) {
			w->waits[i].over = true;
			w->n_left--;
		}
	}
	if (w->n_left) {
		r = sd_event_add_time(s->loop, &w->timer, CLOCK_MONOTONIC, deadline_ns / 1000, 1000,
			on_deadline, w);
		if (r < 0)
			return r;
		w->next = s->waiters;
		s->waiters = TAKE_PTR(w);
		return 0;
	}
	finish(TAKE_PTR(w), 0);
	return 0;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------ */

static const struct symbol_chain *fallback_chain(
	struct symbolizer *s, uint32_t file, uint64_t address)
{
	const char *module = module_name(s, file);
	char name[SYMBOL_NAME_MAX];
	struct symbol_function function = {.name = name, .system_name = name, .file = ""};
	struct symbol_chain like = {
		.n = 1, .fallback = true, .module = module, .functions = &function};

	snprintf(name, sizeof(name), "%.4000s+0x%llx", module, (unsigned long long)address);
	text_clean(name);
	return symbol_cache_chain(s->cache, &like);
}

const struct symbol_chain *symbol_chain(struct symbolizer *s, const struct symbol_query *query)
{
	static const struct symbol_function nameless = {
		.name = "[no memory]", .system_name = "", .file = ""};
	static const struct symbol_chain nothing = {
		.n = 1, .fallback = true, .module = "[unknown]", .functions = &nameless};
	uint64_t address = address_of(query);
	struct symbol_entry *e = symbol_cache_find(s->cache, query->file, address);
	const struct symbol_chain *chain;

	if (e && e->chain)
		return e->chain;
	chain = fallback_chain(s, query->file, address);
	if (!chain)
		return &nothing;
	if (!e) {
		e = symbol_cache_add(s->cache, query->file, address);
		if (e)
			e->state = SYMBOL_PROVISIONAL;
	}
	if (e)
		e->chain = chain;
	return chain;
}

const struct symbol_file_facts *symbol_facts(struct symbolizer *s, uint32_t file)
{
	const struct symbol_file *f = map_get(s->files, &file, sizeof(file));

	return f ? &f->facts : &no_facts;
}

/* Files that were asked about longest ago; those with work in hand stay. */
static void trim_files(struct symbolizer *s)
{
	for (uint32_t age = 64; map_size(s->files) > FILES_MAX; age /= 2) {
		struct map_iter it = {0};

		while (map_next(s->files, &it)) {
			struct symbol_file *f = it.value;

			if (f->n || f == s->current || s->trims - f->used < age)
				continue;
			map_remove(s->files, &f->id, sizeof(f->id));
			file_free(f);
		}
		if (!age)
			break;
	}
}

void symbol_trim(struct symbolizer *s)
{
	s->trims++;
	symbol_cache_trim(s->cache);
	trim_files(s);
}

void symbol_forget_file(struct symbolizer *s, uint32_t file)
{
	struct symbol_file *f = map_remove(s->files, &file, sizeof(file));

	if (!f)
		return;
	unqueue_file(s, f);
	settle(s, f, f->n, SYMBOL_PROVISIONAL);
	if (s->current == f)
		s->current = NULL;
	on_progress(s, file, UINT64_MAX);
	run_waiters_later(s);
	file_free(f);
	/* Its entries are never asked for again and go with age: ids are not used twice. */
}

void symbol_forget_kernel(struct symbolizer *s)
{
	const uint32_t id = SYMBOL_FILE_KERNEL;
	struct symbol_file *f = map_get(s->files, &id, sizeof(id));

	if (!f)
		return;
	f->generation++;
	f->loaded_by = 0;
	f->retry_at_ns = 0;
	symbol_cache_drop_file(s->cache, id);
}

void symbol_counters(struct symbolizer *s, struct symbol_counters *ret)
{
	*ret = s->counters;
	symbol_cache_size(s->cache, &ret->entries, &ret->string_bytes);
}

pid_t symbol_child_pid(struct symbolizer *s)
{
	return s->child.pid;
}

int symbol_new(struct symbolizer **ret, sd_event *loop, const struct symbol_config *config,
	const struct symbol_ops *ops, void *userdata, struct err_text *err)
{
	CLEANUP(symbol_freep) struct symbolizer *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "no memory for the symbolizer's client");
	s->child = SANDBOX_CHILD_NONE;
	s->queue_tail = &s->queue;
	s->loop = sd_event_ref(loop);
	s->config = *config;
	s->ops = ops;
	s->userdata = userdata;
	if (!s->config.file_deadline_ms)
		s->config.file_deadline_ms = DEADLINE_DEFAULT_MS;
	if (!s->config.idle_exit_ns)
		s->config.idle_exit_ns = IDLE_DEFAULT_NS;
	r = symbol_cache_new(&s->cache, config->max_entries, config->max_string_bytes);
	if (r == 0)
		r = map_new(&s->files, sizeof(uint32_t));
	if (r < 0)
		return err_set(err, r, "no memory for the cache of names");
	*ret = TAKE_PTR(s);
	return 0;
}

struct symbolizer *symbol_free(struct symbolizer *s)
{
	if (s) {
		symbol_child_stop(s);
		sd_event_source_disable_unref(s->later);
		while (s->waiters) {
			struct symbol_waiter *w = s->waiters;

			s->waiters = w->next;
			waiter_free(w);
		}
		map_free_with(s->files, file_free);
		symbol_cache_free(s->cache);
		sd_event_unref(s->loop);
		free(s);
	}
	return NULL;
}
