/* SPDX-License-Identifier: Apache-2.0 */
/* What runs now, for `source candidates`: all of /proc once.
 *
 * One pass over /proc tells who is there and how much CPU time they have had; the facts of user processes that
 * the table does not know are then read as for any image (their entries are surrogates, which the next survey
 * drops again if they are gone). Bounded to half the table, those with most CPU time first. Runs in agentd. */

#include "agentd/process/table.h"

#include "agentd/base/clock.h"

#define STREAM_STALE_NS (5 * NSEC_PER_SEC)

struct survey {
	struct process_table *table;
	void (*done)(void *userdata, const struct process_candidate *list, size_t n);
	void *userdata;
	struct survey_row {
		struct sample_image key;
		uint64_t cpu_ns;
	} * rows;
	size_t n, at; /* rows before at are known */
	bool listed;
};

void survey_free(struct process_table *t)
{
	struct survey *s = TAKE_PTR(t->survey);

	if (!s)
		return;
	free(s->rows);
	free(s);
}

static void finish(struct process_table *t)
{
	struct survey *s = TAKE_PTR(t->survey);
	struct process_candidate *list = calloc(s->n + 1, sizeof(*list));
	size_t n = 0;

	for (size_t i = 0; list && i < s->n; i++) {
		struct entry *e = image_find(t, &s->rows[i].key);

		if (e && e->facts_known)
			list[n++] = (struct process_candidate){&e->image, s->rows[i].cpu_ns};
	}
	s->done(s->userdata, list, n);
	free(list);
	free(s->rows);
	free(s);
}

/* Containers go by their names; all are asked for at once. */
static bool names_known(struct survey *s)
{
	bool known = true;

	for (size_t i = 0; i < s->n; i++) {
		struct entry *e = image_find(s->table, &s->rows[i].key);

		if (e && e->facts_known && !e->image.ended)
			known &= reads_name_known(e);
	}
	return known;
}

void survey_progress(struct process_table *t)
{
	struct survey *s = t->survey;

	if (!s || !s->listed)
		return;
	for (; s->at < s->n; s->at++) {
		struct entry *e = image_find(t, &s->rows[s->at].key);

		if (!e || e->facts_known)
			continue;
		if (!e->unreadable && !e->image.ended) {
			reads_want(e); /* once more where it was adopted meanwhile */
			return;
		}
		facts_compose(e);
	}
	if (names_known(s))
		finish(t);
}

static int by_cpu(const void *a, const void *b)
{
	const struct reader_process *x = a, *y = b;

	return x->cpu_ticks < y->cpu_ticks ? 1 : x->cpu_ticks > y->cpu_ticks ? -1 : 0;
}

static void add(struct survey *s, const struct reader_process *p, bool stale)
{
	struct process_table *t = s->table;
	struct entry *e = image_add_surrogate(t, (pid_t)p->pid, p->start_ticks);

	if (!e)
		return;
	e->survey_serial = t->survey_serial;
	if (p->flags & FACT_KERNEL_THREAD && !e->facts_known) {
		memcpy(e->image.comm, p->comm, strnlen(p->comm, sizeof(p->comm)));
		e->image.kernel_thread = true;
		e->image.state = IMAGE_READY;
		e->image.ppid = (pid_t)p->ppid;
		e->facts_known = true;
		e->facts_at = clock_monotonic_ns();
	} else if (!e->image.kernel_thread && (e->surrogate || stale)) {
		/* Nobody would have told us of an exec. */
		e->facts_after = clock_monotonic_ns();
		e->facts_known = e->reading && e->facts_known;
		e->unreadable = false;
	}
	if (!e->facts_known)
		reads_want(e);
	s->rows[s->n++] = (struct survey_row){e->image.key, p->cpu_ticks * TICK_NS};
}

/* Entries that only /proc told of, and does no more. */
static void drop_gone(struct process_table *t, bool stale)
{
	uint64_t now = clock_monotonic_ns();

	for (struct entry *e = t->lru.lru_next, *next; e != &t->lru; e = next) {
		next = e->lru_next;
		if (e->survey_serial == t->survey_serial || e->image.ended)
			continue;
		if (e->surrogate && !e->children && !e->reading)
			image_free(e, "image evicted");
		else if (stale)
			image_end(e, now);
	}
}

static void on_list(void *userdata, struct client_result *r)
{
	struct survey *s = userdata;
	struct process_table *t = s->table;
	size_t n = r->len / sizeof(struct reader_process);
	_cleanup_free_ struct reader_process *list = NULL;
	bool stale = clock_monotonic_ns() > t->event_wall_ns + STREAM_STALE_NS;

	if (t->freeing)
		return;
	s->listed = true;
	list = r->status == 0 && n ? malloc(r->len) : NULL;
	if (list) {
		memcpy(list, r->body, n * sizeof(*list));
		qsort(list, n, sizeof(*list), by_cpu);
		n = MIN(n, t->config.max_images / 2);
		s->rows = calloc(n, sizeof(*s->rows));
		t->survey_serial++;
		for (size_t i = 0; s->rows && i < n; i++)
			add(s, &list[i], stale);
		drop_gone(t, stale);
		image_reap(t, clock_monotonic_ns());
	}
	table_soon(t);
}

int process_survey(struct process_table *t,
	void (*done)(void *userdata, const struct process_candidate *list, size_t n),
	void *userdata)
{
	struct reader_request q = {.op = READER_SURVEY};
	struct survey *s;
	int r;

	if (t->survey)
		return -EBUSY;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct survey){.table = t, .done = done, .userdata = userdata};
	r = client_ask(t->client, &q, NULL, on_list, s);
	if (r < 0) {
		free(s);
		return r;
	}
	t->survey = s;
	return 0;
}
