/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl source candidates`: what runs here, by CPU use, ready to add. Two surveys of /proc a
 * moment apart give the CPU time of now and of always; images fall together by unit, container or
 * executable, whichever names them best. Runs in agentd; the reading is done by the /proc child. */

#include "agentd/base/clock.h"
#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "agentd/daemon_verbs.h"

#define SURVEY_GAP_US      500000
#define CANDIDATES_DEFAULT 15
#define CANDIDATES_MAX     200

struct group {
	char kind[16], match[300], name[80], service[256], taken_by[80];
	uint32_t processes;
	uint64_t cpu_ns, before_ns;
};

struct survey {
	struct daemon *daemon;
	struct control_reply *reply;
	uint32_t limit;
	struct map *before; /* struct who -> uint64_t, the CPU time at the first survey */
	uint64_t first_ns, first_boottime_ns;
	sd_event_source *timer;
};

/* A process, whatever it executes: its CPU time goes on over exec. By the tick in which it began, which
 * is all that /proc tells of processes that no event has named yet. */
struct who {
	uint64_t tgid, start_tick;
};

#define TICK_NS (NSEC_PER_SEC / 100) /* USER_HZ is 100 on every architecture we run on */

static struct who who_is(const struct process_candidate *c)
{
	const struct sample_image *key = &c->image->key;

	return (struct who){key->tgid, key->start_boottime / TICK_NS};
}

static struct survey *survey_free(struct survey *s)
{
	map_free_with(s->before, free);
	sd_event_source_disable_unref(s->timer);
	free(s);
	return NULL;
}

static void on_cancelled(void *userdata)
{
	struct survey *s = userdata;

	daemon_survey_cancel(s->daemon, s);
	survey_free(s);
}

/* A name for the source out of what it matches. */
static void make_name(const char *text, char *out, size_t size)
{
	size_t n = 0;

	for (; *text && n + 1 < MIN(size, (size_t)49); text++) {
		char c = *text;
		bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			(c >= '0' && c <= '9') || strchr("._@:-", c);

		if (n == 0 && (c == '-' || c == '.' || !fine))
			continue;
		out[n++] = fine ? c : '-';
	}
	out[n] = '\0';
	if (!n)
		snprintf(out, size, "source");
}

static bool group_of(const struct image *image, struct group *g)
{
	*g = (struct group){};
	if (image->kernel_thread)
		return false;
	if (image->container_id[0]) {
		bool named = image->container_name && image->container_name[0];

		snprintf(g->kind, sizeof(g->kind), "container");
		snprintf(g->match, sizeof(g->match), "%.*s", named ? 255 : 12,
			named ? image->container_name : image->container_id);
	} else if (image->unit[0] && !text_starts(image->unit, "user@") &&
		!text_starts(image->unit, "session-")) {
		size_t n = strlen(image->unit);

		snprintf(g->kind, sizeof(g->kind), "systemd");
		snprintf(g->match, sizeof(g->match), "%s", image->unit);
		if (n > 8 && n < sizeof(g->match) && streq(image->unit + n - 8, ".service"))
			g->match[n - 8] = '\0';
	} else {
		const char *slash = strrchr(image->exe, '/');

		snprintf(g->kind, sizeof(g->kind), "process");
		snprintf(g->match, sizeof(g->match), "%s",
			slash && slash[1] ? slash + 1 : image->comm);
	}
	make_name(g->match, g->name, sizeof(g->name));
	return g->match[0] != '\0';
}

/* What it had used at the first survey. One that was not in that listing and began later used all of it
 * since; of one that was there all the time, and was missed or not known yet, nothing can be said. */
static uint64_t used_before(struct survey *s, const struct process_candidate *c)
{
	struct who who = who_is(c);
	const uint64_t *before = map_get(s->before, &who, sizeof(who));

	if (before)
		return MIN(*before, c->cpu_time_ns);
	return who.start_tick * TICK_NS > s->first_boottime_ns ? 0 : c->cpu_time_ns;
}

static void add_to_group(struct survey *s, struct map *groups, const struct process_candidate *c)
{
	struct daemon *d = s->daemon;
	struct source *source;
	struct group key, *g;
	char id[340];

	if (!group_of(c->image, &key))
		return;
	snprintf(id, sizeof(id), "%s/%s", key.kind, key.match);
	g = map_get_str(groups, id);
	if (!g) {
		g = malloc(sizeof(*g));
		if (!g)
			return;
		*g = key;
		source = source_set_match(
			d->in_force->sources, d->processes, c->image, NULL, 0, NULL);
		snprintf(g->taken_by, sizeof(g->taken_by), "%s", source ? source->name : "");
		if (map_put_str(groups, id, g, NULL) < 0) {
			free(g);
			return;
		}
	}
	g->processes++;
	g->cpu_ns += c->cpu_time_ns;
	g->before_ns += used_before(s, c);
}

static int by_use(const void *x, const void *y)
{
	const struct group *a = *(struct group *const *)x, *b = *(struct group *const *)y;
	uint64_t now_a = a->cpu_ns - a->before_ns, now_b = b->cpu_ns - b->before_ns;

	if (now_a != now_b)
		return now_a < now_b ? 1 : -1;
	if (a->cpu_ns != b->cpu_ns)
		return a->cpu_ns < b->cpu_ns ? 1 : -1;
	return strcmp(a->match, b->match);
}

/* As one word of a shell's: whoever is offered the command may paste it as root, and a program's name
 * is anybody's choice. size: four times the text, and three. */
static void shell_word(const char *text, char *out, size_t size)
{
	size_t n = 0;

	if (text_is_name(text)) {
		snprintf(out, size, "%s", text);
		return;
	}
	out[n++] = '\'';
	for (; *text && n + 6 < size; text++) {
		if (*text == '\'')
			n += (size_t)snprintf(out + n, size - n, "'\\''");
		else
			out[n++] = *text;
	}
	out[n++] = '\'';
	out[n] = '\0';
}

static Control__Candidate *candidate(struct survey *s, const struct group *g, uint64_t span_ns)
{
	char word[4 * sizeof(g->match) + 3];
	Control__Candidate *c = control_alloc(s->reply, sizeof(*c));
	bool same = streq(g->match, g->name);

	if (!c)
		return NULL;
	control__candidate__init(c);
	c->kind = control_strdup(s->reply, g->kind);
	c->match = control_strdup(s->reply, g->match);
	c->suggested_name = control_strdup(s->reply, g->name);
	c->service = control_strdup(s->reply, g->match);
	c->processes = g->processes;
	c->cpu_ns = g->cpu_ns;
	c->cores = span_ns ? (double)(g->cpu_ns - g->before_ns) / (double)span_ns : 0;
	c->taken_by = control_strdup(s->reply, g->taken_by);
	shell_word(g->match, word, sizeof(word));
	c->command = control_printf(s->reply, "odictl source add %s %s%s%s", g->kind, word,
		same ? "" : " --name ", same ? "" : g->name);
	return c;
}

static void answer(struct survey *s, struct map *groups)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Candidates body = CONTROL__CANDIDATES__INIT;
	uint64_t span = clock_monotonic_ns() - s->first_ns;
	struct map_iter it = {};
	size_t n = 0, limit = s->limit ? MIN(s->limit, CANDIDATES_MAX) : CANDIDATES_DEFAULT;
	_cleanup_free_ struct group **sorted = calloc(map_size(groups) + 1, sizeof(*sorted));

	while (sorted && map_next(groups, &it))
		sorted[n++] = it.value;
	if (n)
		qsort(sorted, n, sizeof(*sorted), by_use);
	body.candidates = control_alloc(s->reply, (limit + 1) * sizeof(*body.candidates));
	for (size_t i = 0; body.candidates && i < MIN(n, limit); i++) {
		Control__Candidate *c = candidate(s, sorted[i], span);

		if (c)
			body.candidates[body.n_candidates++] = c;
	}
	reply.body_case = CONTROL__REPLY__BODY_CANDIDATES;
	reply.candidates = &body;
	control_send(s->reply, &reply, true);
}

static void on_second(void *userdata, const struct process_candidate *list, size_t n)
{
	struct survey *s = userdata;
	struct map *groups = NULL;

	if (map_new(&groups, 0) == 0) {
		for (size_t i = 0; i < n; i++)
			add_to_group(s, groups, &list[i]);
		answer(s, groups);
		map_free_with(groups, free);
	} else {
		daemon_fail(s->reply, -ENOMEM, "out of memory");
	}
	survey_free(s);
}

static void fail(struct survey *s, int error)
{
	daemon_fail(s->reply, error,
		"the processes cannot be looked through now; try again in a second");
	survey_free(s);
}

static int on_gap_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct survey *s = userdata;
	int r = daemon_survey(s->daemon, on_second, s);

	if (r < 0)
		fail(s, r);
	return 0;
}

static void remember(struct survey *s, const struct process_candidate *c)
{
	uint64_t *cpu = malloc(sizeof(*cpu));
	struct who who = who_is(c);
	void *old = NULL;

	if (!cpu)
		return;
	*cpu = c->cpu_time_ns;
	if (map_put(s->before, &who, sizeof(who), cpu, &old) < 0)
		free(cpu);
	free(old);
}

static void on_first(void *userdata, const struct process_candidate *list, size_t n)
{
	struct survey *s = userdata;
	uint64_t now;

	s->first_ns = clock_monotonic_ns();
	s->first_boottime_ns = clock_boottime_ns();
	for (size_t i = 0; i < n; i++)
		remember(s, &list[i]);
	sd_event_now(s->daemon->loop, CLOCK_MONOTONIC, &now);
	if (sd_event_add_time(s->daemon->loop, &s->timer, CLOCK_MONOTONIC, now + SURVEY_GAP_US,
		    1000, on_gap_over, s) < 0)
		fail(s, -ENOMEM);
}

void daemon_candidates(
	void *userdata, struct control_reply *r, const Control__GetCandidates *request)
{
	struct survey *s = calloc(1, sizeof(*s));
	int error;

	if (!s || map_new(&s->before, sizeof(struct who)) < 0) {
		free(s);
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	s->daemon = userdata;
	s->reply = r;
	s->limit = request->limit;
	control_on_cancel(r, on_cancelled, s);
	error = daemon_survey(s->daemon, on_first, s);
	if (error < 0)
		fail(s, error);
}
