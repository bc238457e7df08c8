/* SPDX-License-Identifier: Apache-2.0 */

/* Files as agentd knows them: what waits to be asked of each, and what came of it.
 *
 * Files wait in turn; one request is under way (see child.c). When a file fails, what it had in its queue gets
 * fallback names for now, and the file is left alone for a time that doubles. A child that died is no proof
 * against the file it was at (somebody may have killed it): the file is asked once more, behind the others. One
 * that took too long or lied gets no second try of that kind. What a file costs most by is its debug information, so
 * before it is given up it is asked again without (enum effort), and stays so.
 *
 * A file without debug information of its own may have a separate debug file. The symbolizer says so before it
 * does anything else; then the places where it may be are tried one after the other, and only then
 * are there names, so that none is given from a poorer source first. Where there was none, there may be later: it
 * is looked for again when the file has to be read again, and names from before are dropped if it is found.
 *
 * Invariants. An entry is PENDING exactly while its address waits in a queue or is under way; queues are first in,
 * first out, so the serial of the last one answered says which are. Runs in agentd. */

#include <fcntl.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/symbol/client.h"
#include "agentd/symbol/diskcache.h"

#define BACK_OFF_MIN_NS     (30 * NSEC_PER_SEC)
#define BACK_OFF_MAX_NS     (3600 * NSEC_PER_SEC)
#define UNREADABLE_RETRY_NS (30 * NSEC_PER_SEC)
#define DEBUG_RECHECK_NS    (600 * NSEC_PER_SEC)

void symbol_file_free(void *value)
{
	struct symbol_file *f = value;

	free(f->pending);
	symbol_ranges_deinit(&f->ranges);
	free(f->debuglink);
	free(f->altlink);
	free(f);
}

struct symbol_file *symbol_file_get(struct symbolizer *s, uint32_t id)
{
	struct symbol_file *f = map_get(s->files, &id, sizeof(id));

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->id = id;
	f->facts.named_by = "none";
	f->facts.debuglink = f->facts.altlink = "";
	f->facts.last_problem = f->problem;
	if (map_put(s->files, &id, sizeof(id), f, NULL) < 0) {
		free(f);
		return NULL;
	}
	return f;
}

void symbol_file_enqueue(struct symbolizer *s, struct symbol_file *f)
{
	if (f->in_queue || !f->n)
		return;
	f->in_queue = true;
	f->next = NULL;
	*s->queue_tail = f;
	s->queue_tail = &f->next;
}

void symbol_file_unqueue(struct symbolizer *s, struct symbol_file *f)
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

int symbol_file_add(struct symbolizer *s, struct symbol_file *f, uint64_t address)
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
void symbol_file_settle(
	struct symbolizer *s, struct symbol_file *f, size_t n, enum symbol_state state)
{
	n = MIN(n, f->n);
	for (size_t i = 0; i < n; i++) {
		struct symbol_entry *e =
			symbol_cache_find(s->cache, f->id, f->pending[f->head + i]);

		if (e && e->state == SYMBOL_PENDING) {
			e->state = state;
			/* It had one, when the file said something else of it. */
			if (state == SYMBOL_FALLBACK && e->chain && !e->chain->fallback)
				e->chain = NULL;
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

const char *symbol_module_name(struct symbolizer *s, uint32_t file)
{
	const char *name;

	if (file == SYMBOL_FILE_KERNEL)
		return "vmlinux";
	if (file == SYMBOL_FILE_VDSO)
		return "[vdso]";
	name = s->ops->module_name(s->userdata, file);
	return name && *name ? name : "[unknown]";
}

uint16_t symbol_file_kind(struct symbolizer *s, uint32_t file)
{
	if (file == SYMBOL_FILE_KERNEL)
		return SYMBOL_KIND_KALLSYMS;
	if (file == SYMBOL_FILE_VDSO || !s->ops->file_kind)
		return SYMBOL_KIND_ELF;
	return s->ops->file_kind(s->userdata, file);
}

/* What waits of this file is given up; nothing is asked of it before retry_ns from now. */
static void give_up(struct symbolizer *s, struct symbol_file *f, uint64_t retry_ns)
{
	f->retry_at_ns = clock_monotonic_ns() + retry_ns;
	symbol_file_unqueue(s, f);
	symbol_file_settle(s, f, f->n, SYMBOL_PROVISIONAL);
	symbol_on_progress(s, f->id, f->answered);
}

static void set_problem(
	struct symbolizer *s, struct symbol_file *f, const char *format, const char *detail)
{
	snprintf(f->problem, sizeof(f->problem), format, detail);
	text_clean(f->problem);
	if (s->ops->on_facts)
		s->ops->on_facts(s->userdata, f->id, &f->facts);
}

/* The next debug file to try, if one is wanted. */
static void open_debug(struct symbolizer *s, struct symbol_file *f, struct symbol_hand_over *h)
{
	uint64_t now = clock_monotonic_ns();
	int r = -ENOENT;

	if (!s->ops->open_debug || f->id == SYMBOL_FILE_KERNEL || f->effort == EFFORT_OWN)
		return;
	if (f->debug == DEBUG_NONE && !f->facts.has_debug_info &&
		now - f->debug_checked_ns > DEBUG_RECHECK_NS)
		f->debug = DEBUG_UNKNOWN;
	if (f->debug == DEBUG_SEEKING || f->debug == DEBUG_USED) {
		if (f->debug_tries < DEBUG_TRIES_MAX)
			r = s->ops->open_debug(s->userdata, f->id, f->facts.build_id,
				f->facts.debuglink, &f->debug_place);
		if (r < 0) {
			f->debug = DEBUG_NONE;
			f->debug_checked_ns = now;
		}
	}
	if (f->debug != DEBUG_NONE)
		h->flags |= SYMBOL_REQUEST_MAY_ASK;
	h->debug = r < 0 ? -1 : r;
	h->flags |= h->debug < 0 ? 0 : SYMBOL_REQUEST_HAS_DEBUG;
}

/* The same of the alternate file. */
static void open_alt(struct symbolizer *s, struct symbol_file *f, struct symbol_hand_over *h)
{
	uint64_t now = clock_monotonic_ns();
	int r = -ENOENT;

	if (!s->ops->open_alt || f->id == SYMBOL_FILE_KERNEL || f->effort != EFFORT_ALL)
		return;
	if (f->alt == DEBUG_NONE && f->altlink && now - f->alt_checked_ns > DEBUG_RECHECK_NS)
		f->alt = DEBUG_UNKNOWN;
	if (f->alt == DEBUG_SEEKING || f->alt == DEBUG_USED) {
		if (f->alt_tries < DEBUG_TRIES_MAX)
			r = s->ops->open_alt(s->userdata, f->id, f->alt_build_id, f->facts.altlink,
				&f->alt_place);
		if (r < 0) {
			f->alt = DEBUG_NONE;
			f->alt_checked_ns = now;
		}
	}
	if (f->alt != DEBUG_NONE)
		h->flags |= SYMBOL_REQUEST_MAY_ASK_ALT;
	h->alt = r < 0 ? -1 : r;
	h->flags |= h->alt < 0 ? 0 : SYMBOL_REQUEST_HAS_ALT;
}

struct symbol_file *symbol_next_file(struct symbolizer *s, struct symbol_hand_over *ret)
{
	while (s->queue) {
		struct symbol_file *f = s->queue;

		symbol_file_unqueue(s, f);
		*ret = SYMBOL_HAND_OVER_NONE;
		if (f->effort != EFFORT_ALL)
			ret->flags |= SYMBOL_REQUEST_CHEAP;
		if (f->loaded_by == s->child_serial)
			return f; /* the child has it, most likely */
		if (f->id == SYMBOL_FILE_KERNEL)
			ret->fd = ret->own = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
		else
			ret->fd = s->ops->open_file(s->userdata, f->id);
		if (f->id == SYMBOL_FILE_KERNEL && ret->fd < 0)
			ret->fd = -errno;
		if (ret->fd >= 0) {
			open_debug(s, f, ret);
			open_alt(s, f, ret);
			return f;
		}
		if (ret->fd != -EBADF)
			set_problem(s, f, "cannot be opened: %s", strerrordesc_np(-ret->fd));
		give_up(s, f, UNREADABLE_RETRY_NS);
	}
	return NULL;
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

/* No name, but where its function begins: what names the function where nothing else does. */
static int take_bare(struct symbolizer *s, uint64_t address, uint64_t before)
{
	struct symbol_entry *e = symbol_cache_find(s->cache, s->current->id, address);
	const struct symbol_chain *chain =
		symbol_fallback_chain(s, s->current->id, address - MIN(address, before));

	if (!chain || !e)
		return -ENOMEM;
	e->chain = chain; /* its state says yet that it is asked for */
	return 0;
}

static int take_row(struct symbolizer *s, const struct symbol_names_view *view,
	const struct symbol_row *row, const struct symbol_wire_function *wire)
{
	struct symbol_function functions[SYMBOL_CHAIN_MAX];
	const char *module = symbol_view_text(view, &row->module);
	struct symbol_chain like = {.n = row->n,
		.module = *module ? module : symbol_module_name(s, s->current->id),
		.functions = functions};
	uint64_t address = s->current_addresses[row->address], from, to;
	bool extra = row->flags & SYMBOL_ROW_EXTRA;
	struct symbol_entry *e;
	const struct symbol_chain *chain;

	if (row->flags == SYMBOL_ROW_BARE)
		return take_bare(s, address, row->before);
	for (uint16_t i = 0; i < row->n; i++)
		functions[i] =
			(struct symbol_function){.name = symbol_view_text(view, &wire[i].name),
				.system_name = symbol_view_text(view, &wire[i].system_name),
				.file = symbol_view_text(view, &wire[i].file),
				.line = wire[i].line,
				.start_line = wire[i].start_line,
				.inlined = wire[i].flags & SYMBOL_FUNCTION_INLINED};
	chain = symbol_cache_chain(s->cache, &like);
	address += (uint64_t)row->distance;
	from = address - MIN(address, (uint64_t)row->before);
	to = address + MIN(UINT64_MAX - address, (uint64_t)row->behind + 1);
	if (extra)
		address |= SYMBOL_EXTRA_KEY;
	e = symbol_cache_add(s->cache, s->current->id, address);
	if (!chain || !e)
		return -ENOMEM;
	if (!extra)
		s->current->facts.named += !e->chain || e->chain->fallback;
	e->chain = chain;
	/* Asked for in a mode that is no more: good enough until it is asked for again. */
	e->state = s->current_demangle == s->demangle ? SYMBOL_NAMED : SYMBOL_PROVISIONAL;
	s->counters.named += !extra;
	symbol_ranges_set(&s->current->ranges, from, to, address);
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

/* What the file says of itself, by which a debug file is found. */
static void take_ids(struct symbol_file *f, const struct symbol_facts_message *m)
{
	struct symbol_file_facts *facts = &f->facts;

	memcpy(facts->build_id, m->build_id, sizeof(facts->build_id));
	memcpy(facts->go_build_id, m->go_build_id, sizeof(facts->go_build_id));
	memcpy(facts->htlhash, m->htlhash, sizeof(facts->htlhash));
	free(f->debuglink);
	f->debuglink = *m->debuglink ? strdup(m->debuglink) : NULL;
	facts->debuglink = f->debuglink ? f->debuglink : "";
	free(f->altlink);
	f->altlink = *m->altlink ? strdup(m->altlink) : NULL;
	facts->altlink = f->altlink ? f->altlink : "";
	memcpy(f->alt_build_id, m->alt_build_id, sizeof(f->alt_build_id));
	facts->has_alt_file = m->has & SYMBOL_HAS_ALT_FILE;
	facts->has_debug_info = m->has & SYMBOL_HAS_DEBUG_INFO;
	facts->has_symtab = m->has & SYMBOL_HAS_SYMTAB;
	facts->has_debug_file = m->has & SYMBOL_HAS_DEBUG_FILE;
	f->costly = m->has & ~SYMBOL_HAS_SYMTAB;
}

/* It is complete with less than all when something was too much, and then says so. */
static void note_problem(struct symbol_file *f, const char *problem)
{
	const char *notes[] = {problem, f->effort_note, f->debug_note};
	size_t len = 0;

	f->problem[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(notes); i++)
		if (*notes[i] && len < sizeof(f->problem))
			len += (size_t)snprintf(f->problem + len, sizeof(f->problem) - len, "%s%s",
				len ? "; " : "", notes[i]);
}

static void take_facts(
	struct symbolizer *s, struct symbol_file *f, const struct symbol_facts_message *m)
{
	struct symbol_file_facts *facts = &f->facts;

	take_ids(f, m);
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
		log_debug("%s: %s", symbol_module_name(s, f->id), m->problem);
	note_problem(f, m->problem);
	facts->seen = true;
	if (s->ops->on_facts)
		s->ops->on_facts(s->userdata, f->id, facts);
}

/* The file was read with what came. Names from before it had a debug file are not as good. */
static void settle_debug(struct symbolizer *s, struct symbol_file *f)
{
	uint32_t has = s->current_facts.has;
	bool used = has & SYMBOL_HAS_DEBUG_FILE, alt = has & SYMBOL_HAS_ALT_FILE;

	if (!s->current_had_fd)
		return;
	if (f->facts.seen &&
		((used && !f->facts.has_debug_file) || (alt && !f->facts.has_alt_file)))
		symbol_cache_drop_others(s->cache, f->id, s->current_addresses, s->current_n);
	if (!used && f->debug != DEBUG_NONE)
		f->debug_checked_ns = clock_monotonic_ns();
	f->debug = used ? DEBUG_USED : DEBUG_NONE;
	if (used)
		f->debug_note[0] = '\0';
	if (!alt && f->alt != DEBUG_NONE)
		f->alt_checked_ns = clock_monotonic_ns();
	f->alt = alt ? DEBUG_USED : DEBUG_NONE;
}

/* What was handed over says which build id it has. */
static void tell_debug(struct symbolizer *s, struct symbol_file *f)
{
	const struct symbol_facts_message *m = &s->current_facts;

	if (s->ops->on_debug && s->current_had_debug && m->header.size && *m->debug_build_id)
		s->ops->on_debug(s->userdata, f->id, f->debug_place, m->debug_build_id);
}

/* Nothing was looked up yet: with the next debug file, or without when there is none. */
static void seek_debug(struct symbolizer *s, struct symbol_file *f)
{
	bool first = f->debug == DEBUG_UNKNOWN;

	take_ids(f, &s->current_facts);
	if (s->current_had_debug)
		snprintf(f->debug_note, sizeof(f->debug_note), "%.95s", s->current_facts.problem);
	f->debug_place = first ? 0 : f->debug_place + 1;
	f->debug_tries = first ? 0 : f->debug_tries + s->current_had_debug;
	f->debug = DEBUG_SEEKING;
}

/* The same with the next alternate file; whether there is a debug file is settled. */
static void seek_alt(struct symbolizer *s, struct symbol_file *f)
{
	bool first = f->alt == DEBUG_UNKNOWN;

	take_ids(f, &s->current_facts);
	f->debug = s->current_facts.has & SYMBOL_HAS_DEBUG_FILE ? DEBUG_USED : DEBUG_NONE;
	f->alt_place = first ? 0 : f->alt_place + 1;
	f->alt_tries = first ? 0 : f->alt_tries + s->current_had_alt;
	f->alt = DEBUG_SEEKING;
}

void symbol_on_done(struct symbolizer *s, const struct symbol_done_message *done)
{
	struct symbol_file *f = s->current;

	s->current = NULL;
	if (!f)
		return;
	f->failures = 0;
	f->facts.cpu_us += done->cpu_us;
	log_debug("the symbolizer answered %u addresses of %s in %llu us, and keeps %llu KiB",
		done->n_done, symbol_module_name(s, f->id), (unsigned long long)done->cpu_us,
		(unsigned long long)done->memory >> 10);
	tell_debug(s, f);
	if (done->flags & SYMBOL_DONE_UNKNOWN_FILE) {
		f->loaded_by = 0; /* it needed the room: asked again with a descriptor */
	} else if (done->flags & SYMBOL_DONE_WANTS_DEBUG) {
		f->loaded_by = 0;
		seek_debug(s, f);
	} else if (done->flags & SYMBOL_DONE_WANTS_ALT) {
		f->loaded_by = 0;
		seek_alt(s, f);
	} else {
		if (s->current_facts.header.size)
			settle_debug(s, f);
		f->loaded_by = s->child_serial;
		symbol_file_settle(s, f, done->n_done, SYMBOL_FALLBACK);
		symbol_on_progress(s, f->id, f->answered);
		if (s->current_facts.header.size)
			take_facts(s, f, &s->current_facts);
		if (!f->changed)
			disk_answered(s, f, done->n_done);
	}
	/* What was answered may be of before the change. */
	if (f->changed)
		symbol_cache_expire_file(s->cache, f->id);
	f->changed = false;
	symbol_file_enqueue(s, f);
}

/* Whether there is something left to leave out. */
static bool make_cheaper(struct symbolizer *s, struct symbol_file *f, const char *why)
{
	if (f->id == SYMBOL_FILE_KERNEL || f->effort == EFFORT_OWN)
		return false;
	if (f->effort == EFFORT_ALL && (!f->facts.seen || f->costly))
		f->effort = EFFORT_CHEAP;
	else if (f->debug == DEBUG_USED || f->debug == DEBUG_SEEKING)
		f->effort = EFFORT_OWN;
	else
		return false;
	if (!*f->effort_note)
		snprintf(f->effort_note, sizeof(f->effort_note),
			"named without its debug information, at which the symbolizer %s", why);
	return true;
}

void symbol_on_failed(struct symbolizer *s, enum symbol_blame blame, const char *why)
{
	struct symbol_file *f = s->current;
	bool again, cheaper;

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
	cheaper = !again && make_cheaper(s, f, why);
	log_warning("the symbolizer %s at %s: %s", why, symbol_module_name(s, f->id),
		again             ? "asked again"
			: cheaper ? "asked again without debug information"
				  : "its frames have no names for now");
	set_problem(s, f, "the symbolizer %s", why);
	if (again || cheaper) {
		symbol_file_enqueue(s, f);
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
