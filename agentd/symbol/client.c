/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's side of naming: what to ask, for whom, and what to say meanwhile.
 *
 * Addresses that the cache does not have are queued by file (files.c). A caller's wait is over when each of its
 * files has answered, or given up, as far as that caller's last address: queues are first in, first out, so a
 * serial says it.
 *
 * Invariants. done is called last, when all is consistent, since it may call anything here; and never from
 * inside of a call that somebody else made. What was asked for and is not there has a fallback name at any time.
 * Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "agentd/symbol/client.h"
#include "agentd/symbol/diskcache.h"

#define DEADLINE_DEFAULT_MS 5000
#define IDLE_DEFAULT_NS     (60 * NSEC_PER_SEC)
#define FILES_MAX           16384 /* facts kept */

static const struct symbol_file_facts no_facts = {
	.named_by = "none", .debuglink = "", .last_problem = ""};

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

/* Waits for this file as far as it has answered are over. Callbacks come by symbol_run_waiters(). */
void symbol_on_progress(struct symbolizer *s, uint32_t file, uint64_t answered)
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

/* Whether an answer about another address holds for this one, too. */
static bool known_by_range(struct symbolizer *s, struct symbol_file *f, uint64_t address)
{
	const struct symbol_chain *chain;
	struct symbol_entry *e;
	uint64_t asked;

	if (!symbol_ranges_find(&f->ranges, address, &asked))
		return false;
	e = symbol_cache_find(s->cache, f->id, asked);
	if (!e || e->state != SYMBOL_NAMED)
		return false;
	chain = e->chain;
	e = symbol_cache_add(s->cache, f->id, address);
	if (!e)
		return false;
	f->facts.asked += e->state == SYMBOL_NONE;
	f->facts.named += !e->chain || e->chain->fallback;
	e->chain = chain;
	e->state = SYMBOL_NAMED;
	s->counters.cached++;
	disk_named(s, f, address);
	return true;
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
	f = symbol_file_get(s, q->file);
	if (!f)
		return 0;
	*file = f;
	f->used = s->trims;
	if (e && e->state == SYMBOL_PENDING)
		return 1;
	if (known_by_range(s, f, address))
		return 0;
	e = symbol_cache_add(s->cache, q->file, address);
	if (!e || disk_name(s, f, e) || f->retry_at_ns > now || symbol_file_add(s, f, address) < 0)
		return 0;
	f->facts.asked += e->state == SYMBOL_NONE;
	e->state = SYMBOL_PENDING;
	if (f != s->current)
		symbol_file_enqueue(s, f);
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

const struct symbol_chain *symbol_fallback_chain(
	struct symbolizer *s, uint32_t file, uint64_t address)
{
	const char *module = symbol_module_name(s, file);
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
	chain = symbol_fallback_chain(s, query->file, address);
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
			symbol_file_free(f);
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
	symbol_file_unqueue(s, f);
	symbol_file_settle(s, f, f->n, SYMBOL_PROVISIONAL);
	if (s->current == f)
		s->current = NULL;
	symbol_on_progress(s, file, UINT64_MAX);
	run_waiters_later(s);
	symbol_file_free(f);
	/* Its entries are never asked for again and go with age: ids are not used twice. */
}

void symbol_debug_changed(struct symbolizer *s, uint32_t file)
{
	struct symbol_file *f = map_get(s->files, &file, sizeof(file));

	if (!f ||
		((f->facts.has_debug_info || f->debug == DEBUG_USED) &&
			(!f->altlink || f->alt == DEBUG_USED)))
		return;
	f->generation++;
	f->loaded_by = 0;
	f->retry_at_ns = 0;
	f->debug = f->alt = DEBUG_UNKNOWN;
	f->effort = EFFORT_ALL;
	disk_outdated(f);
	symbol_cache_drop_others(s->cache, file, NULL, 0);
}

void symbol_debug_places_changed(struct symbolizer *s)
{
	struct map_iter it = {0};

	while (map_next(s->files, &it)) {
		struct symbol_file *f = it.value;

		symbol_debug_changed(s, f->id);
		/* What it has may be at another place from now on; its names stay. */
		f->debug = f->alt = DEBUG_UNKNOWN;
	}
}

void symbol_file_changed(struct symbolizer *s, uint32_t file, bool replaced)
{
	struct symbol_file *f = map_get(s->files, &file, sizeof(file));

	if (!f)
		return;
	if (replaced) {
		f->generation++;
		f->loaded_by = 0;
		f->failures = 0;
		f->effort = EFFORT_ALL;
		f->effort_note[0] = '\0';
	}
	f->retry_at_ns = 0;
	f->changed = f == s->current;
	symbol_cache_expire_file(s->cache, file);
}

void symbol_set_demangle(struct symbolizer *s, enum symbol_demangle mode)
{
	if (s->demangle == mode)
		return;
	s->demangle = mode;
	symbol_cache_outdate(s->cache);
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
	/* What the kernel itself has does not move before it boots again. */
	symbol_cache_drop_unlike(s->cache, id, symbol_module_name(s, id));
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
		disk_deinit(s);
		sd_event_source_disable_unref(s->later);
		while (s->waiters) {
			struct symbol_waiter *w = s->waiters;

			s->waiters = w->next;
			waiter_free(w);
		}
		map_free_with(s->files, symbol_file_free);
		symbol_cache_free(s->cache);
		sd_event_unref(s->loop);
		free(s);
	}
	return NULL;
}
