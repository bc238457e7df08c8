/* SPDX-License-Identifier: Apache-2.0 */

/* Fetching debug files: what is wanted, in which order, from whom, and when again.
 *
 * A file is wanted from the moment that the symbolizer asked for its debug file and no place on the host had one
 * (daemon_fetch_open()): so what has debug information is never asked for. That is noted whether fetching is switched
 * on or not; with the switch on, at the end of each interval, the build id with the most samples is asked for, one
 * request at a time, server by server in the order of the setting. Nothing waits for it: the profile goes out with the
 * names that there are, and when a file came, its names are looked up afresh.
 *
 * Build ids are what files say of themselves, and any user can run a file that says anything. So there are bounds on how many are
 * remembered, on requests (a bucket that fills slowly) and on bytes a day; what came is believed by nobody
 * until the symbolizer has compared its build id; what was evicted is not fetched again on the same day.
 *
 * Answers are remembered by build id and server: "not found" for a day, failures with a pause that doubles. A failure that is
 * the server's (no connection, too slow, 5xx) also pauses the server, so that one that is down costs a request now
 * and then and not one for each file. While batches wait for a destination that works, no request begins: the
 * network is the profiles' first. What is under way then goes on.
 *
 * Source: debuginfod(8). Runs in agentd, which moves no byte of it: see destinations/fetch.c. */

#include "agentd/base/log.h"
#include "agentd/daemon_fetch_private.h"

#define CONNECT_MS       10000
#define STALL_MS         90000 /* servers unpack archives before they answer */
#define TOTAL_MS         (30 * 60 * 1000)
#define PACE_NS          (200 * NSEC_PER_MSEC)
#define WATCH_NS         (5 * NSEC_PER_SEC) /* of the disk, while a fetch is under way */
#define HERE_PAUSE_NS    (300 * NSEC_PER_SEC)
#define FILE_PAUSE_NS    (3600 * NSEC_PER_SEC)
#define SERVER_PAUSE_NS  (10 * NSEC_PER_SEC)
#define SERVER_PAUSE_MAX (3600 * NSEC_PER_SEC)
#define DISK_PAUSE_NS    (600 * NSEC_PER_SEC)
#define REQUESTS_MAX     500 /* at once, after a time without any */
#define REQUEST_FILL_NS  (20 * NSEC_PER_SEC)
#define BYTES_A_DAY      (8ULL << 30)

/* ---- the next one ---- */

/* Where to ask for it, now. */
static bool choose_server(
	const struct fetching *f, const struct fetch_want *w, uint64_t now, size_t *ret)
{
	if (now < w->not_before)
		return false;
	for (size_t s = 0; s < f->n_servers; s++) {
		if (now < f->servers[s].retry_ns || now < w->answers[s].retry_ns)
			continue;
		*ret = s;
		return true;
	}
	return false;
}

static struct fetch_want *choose(const struct fetching *f, uint64_t now, size_t *server)
{
	struct map_iter it = {0};
	struct fetch_want *best = NULL;
	size_t s;

	while (map_next(f->wants, &it)) {
		struct fetch_want *w = it.value;

		if (!w->weight || (best && w->weight <= best->weight) ||
			!choose_server(f, w, now, &s) || fetched_has(f->cache, w->build_id))
			continue;
		best = w;
		*server = s;
	}
	return best;
}

static void pause_for(struct fetching *f, const char *why)
{
	snprintf(f->figures.paused, sizeof(f->figures.paused), "%s", why);
}

/* Whether a request may begin at all. */
static bool may_begin(struct daemon *d, uint64_t now)
{
	struct fetching *f = d->fetching;
	uint64_t fill = (now - f->filled_ns) / REQUEST_FILL_NS;

	f->requests_left = MIN(f->requests_left + fill, (uint64_t)REQUESTS_MAX);
	f->filled_ns += fill * REQUEST_FILL_NS;
	if (now - f->day_ns > FETCH_DAY_NS) {
		f->day_ns = now;
		f->day_bytes = 0;
	}
	if (now < f->pause_ns)
		return false; /* says why already */
	pause_for(f, "");
	if (!f->requests_left)
		pause_for(f, "many build ids were asked for in a short time; it goes on slowly");
	else if (f->day_bytes >= BYTES_A_DAY)
		pause_for(f, "8 GB of debug files were fetched within a day; it goes on tomorrow");
	else if (link_is_behind(d->link))
		pause_for(f, "profiles wait to be sent, and go first");
	return !*f->figures.paused;
}

static void on_done(void *userdata, const struct link_fetch_result *result);

static void arm(struct fetching *f, uint64_t in_ns)
{
	(void)sd_event_source_set_time_relative(f->timer, in_ns / 1000);
	(void)sd_event_source_set_enabled(f->timer, SD_EVENT_ONESHOT);
}

static int begin(struct daemon *d, struct fetch_want *w, size_t server)
{
	struct fetching *f = d->fetching;
	struct link_fetch what = {.url = f->servers[server].url,
		.build_id = w->build_id,
		.connect_ms = CONNECT_MS,
		.stall_ms = STALL_MS,
		.total_ms = TOTAL_MS};
	_cleanup_close_ int fd = fetched_begin(f->cache, &what.max_bytes);
	int r;

	if (fd < 0)
		return fd;
	r = link_fetch(d->link, &what, fd, on_done, d);
	if (r < 0)
		return r;
	log_debug("debug file %s: asking %s", w->build_id, f->servers[server].url);
	snprintf(f->build_id, sizeof(f->build_id), "%s", w->build_id);
	f->server = server;
	f->fd = TAKE_FD(fd);
	f->requests_left--;
	f->figures.asked++;
	arm(f, WATCH_NS);
	return 0;
}

void daemon_fetch_next(struct daemon *d)
{
	struct fetching *f = d->fetching;
	uint64_t now = clock_monotonic_ns();
	struct fetch_want *w;
	size_t server;
	int r;

	if (!f || !f->cache || !f->on || *f->build_id || !may_begin(d, now))
		return;
	w = choose(f, now, &server);
	if (!w)
		return;
	r = begin(d, w, server);
	if (r == 0)
		return;
	f->pause_ns = now + DISK_PAUSE_NS;
	if (r == -ENOSPC)
		pause_for(
			f, "the disk of the state folder has less than 5 % free: make room there");
	else
		pause_for(f, strerrordesc_np(-r));
	log_warning("no debug file is fetched for now: %s", f->figures.paused);
}

/* ---- what came of it ---- */

static uint64_t doubled(uint64_t first, unsigned times, uint64_t most)
{
	return MIN(first << MIN(times, 16U), most);
}

/* The file has its name: all who wait for it look again. */
static void tell_files(struct daemon *d, struct fetch_want *w)
{
	for (size_t i = 0; i < w->n_files; i++) {
		w->files[i].given = false;
		symbol_debug_changed(d->symbols, w->files[i].id);
	}
}

static int take(struct daemon *d, struct fetch_want *w, const struct link_fetch_result *result)
{
	struct fetching *f = d->fetching;
	int r = fetched_commit(f->cache, f->fd, w->build_id, result->bytes);

	if (r < 0)
		return r;
	f->figures.found++;
	w->refused = false;
	/* Once evicted it is not wanted again at once. */
	w->not_before = clock_monotonic_ns() + FETCH_DAY_NS;
	log_info("debug file %s: fetched, %llu bytes", w->build_id,
		(unsigned long long)result->bytes);
	tell_files(d, w);
	return 0;
}

static void note_failure(
	struct fetching *f, struct fetch_want *w, const struct link_fetch_result *result)
{
	uint64_t now = clock_monotonic_ns();
	struct fetch_server *s = &f->servers[f->server];
	struct fetch_answer *a = &w->answers[f->server];

	f->figures.failed++;
	f->figures.last_error_unix_ns = clock_unix_ns();
	snprintf(f->figures.last_error, sizeof(f->figures.last_error), "%.380s%s%.380s",
		result->reason, *result->remedy ? "; " : "", result->remedy);
	a->retry_ns = now +
		doubled(result->outcome == FETCH_FAILED_FILE ? FILE_PAUSE_NS : HERE_PAUSE_NS,
			a->failures, FETCH_DAY_NS);
	a->failures += a->failures < 255;
	/* A server that is down is said once, not with every try. */
	if (result->outcome == FETCH_FAILED_SERVER && s->failures)
		log_debug("debuginfod: %s", f->figures.last_error);
	else
		log_warning("debuginfod: %s", f->figures.last_error);
	if (result->outcome != FETCH_FAILED_SERVER)
		return;
	s->retry_ns = now +
		MAX(result->retry_after_ns,
			doubled(SERVER_PAUSE_NS, s->failures, SERVER_PAUSE_MAX));
	s->failures++;
	/* It is the server that was at fault: the file is asked for as soon as that one answers. */
	a->retry_ns = s->retry_ns;
}

/* Nothing is under way any more. */
static void clear(struct fetching *f)
{
	closep(&f->fd);
	*f->build_id = '\0';
}

static void on_done(void *userdata, const struct link_fetch_result *result)
{
	struct daemon *d = userdata;
	struct fetching *f = d->fetching;
	struct fetch_want *w = fetch_find(f, f->build_id);
	struct link_fetch_result failed = *result;
	int r;

	f->figures.bytes += result->bytes;
	f->day_bytes += result->bytes;
	if (result->outcome == FETCH_FOUND || result->outcome == FETCH_NOT_FOUND)
		f->servers[f->server].failures = 0;
	if (result->outcome == FETCH_FOUND) {
		r = w ? take(d, w, result) : -ENOENT;
		if (r < 0) {
			failed.outcome = FETCH_FAILED_HERE;
			snprintf(failed.reason, sizeof(failed.reason),
				"a debug file that was fetched could not be kept: %s",
				strerrordesc_np(-r));
			snprintf(failed.remedy, sizeof(failed.remedy),
				"make room on the disk of the state folder");
		}
	}
	if (failed.outcome == FETCH_NOT_FOUND) {
		f->figures.not_found++;
		log_debug("debug file %s: not found", f->build_id);
		if (w) {
			w->answers[f->server].not_found = true;
			w->answers[f->server].retry_ns = clock_monotonic_ns() + FETCH_DAY_NS;
		}
	} else if (failed.outcome != FETCH_FOUND) {
		if (w)
			note_failure(f, w, &failed);
		else
			f->figures.failed++;
	}
	clear(f);
	arm(f, PACE_NS);
}

static void stop(struct daemon *d)
{
	struct fetching *f = d->fetching;

	if (!*f->build_id)
		return;
	link_fetch_cancel(d->link);
	clear(f);
	f->figures.stopped++;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct daemon *d = userdata;
	struct fetching *f = d->fetching;

	if (!*f->build_id) {
		daemon_fetch_next(d);
	} else if (fetched_disk_is_full(f->cache)) {
		struct link_fetch_result full = {.outcome = FETCH_FAILED_HERE,
			.reason =
				"the disk of the state folder is nearly full, so a debug file was "
				"given up",
			.remedy = "make room there"};

		link_fetch_cancel(d->link);
		f->pause_ns = clock_monotonic_ns() + DISK_PAUSE_NS;
		pause_for(
			f, "the disk of the state folder has less than 5 % free: make room there");
		on_done(d, &full);
	} else {
		arm(f, WATCH_NS);
	}
	return 0;
}

/* ---- settings ---- */

static void free_servers(struct fetching *f)
{
	for (size_t i = 0; i < f->n_servers; i++)
		free(f->servers[i].url);
	f->n_servers = 0;
}

static bool same_servers(const struct fetching *f, const struct config *c)
{
	if (f->n_servers != MIN(c->symbols.n_urls, (size_t)FETCH_MAX_SERVERS))
		return false;
	for (size_t i = 0; i < f->n_servers; i++)
		if (!streq(f->servers[i].url, c->symbols.urls[i]))
			return false;
	return true;
}

/* What was answered by others than are asked now is forgotten. */
static void take_servers(struct fetching *f, const struct config *c)
{
	struct map_iter it = {0};

	free_servers(f);
	for (size_t i = 0; i < c->symbols.n_urls && f->n_servers < FETCH_MAX_SERVERS; i++) {
		char *url = strdup(c->symbols.urls[i]);

		if (!url)
			break;
		f->servers[f->n_servers++] = (struct fetch_server){.url = url};
	}
	while (map_next(f->wants, &it)) {
		struct fetch_want *w = it.value;

		memset(w->answers, 0, sizeof(w->answers));
		w->not_before = 0;
		w->refused = false;
	}
}

void daemon_fetch_configure(struct daemon *d)
{
	struct fetching *f = d->fetching;
	const struct config *c = d->in_force;
	bool on = c->symbols.fetch;

	if (!f)
		return;
	if (!same_servers(f, c)) {
		stop(d);
		take_servers(f, c);
	}
	if (!on)
		stop(d);
	/* Who switches it off and on wants it to be tried anew. */
	if (on && !f->on) {
		f->pause_ns = 0;
		take_servers(f, c);
		arm(f, PACE_NS);
	}
	f->on = on;
	if (!on)
		pause_for(f, "");
}

int daemon_fetch_new(struct daemon *d, struct err_text *err)
{
	struct fetching *f = calloc(1, sizeof(*f));
	_cleanup_free_ char *folder = NULL;
	struct err_text problem = {};
	int r;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	d->fetching = f;
	f->fd = -1;
	f->requests_left = REQUESTS_MAX;
	f->filled_ns = f->day_ns = clock_monotonic_ns();
	r = map_new(&f->wants, 0);
	if (r < 0 || asprintf(&folder, "%s/debuginfo", d->state_dir) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = sd_event_add_time_relative(d->loop, &f->timer, CLOCK_MONOTONIC, 0, 100000, on_timer, d);
	if (r < 0)
		return err_set(err, r, "a timer cannot be made: %s", strerrordesc_np(-r));
	(void)sd_event_source_set_enabled(f->timer, SD_EVENT_OFF);
	/* Names are worse without it; profiles are not. */
	if (fetched_new(&f->cache, folder, &(struct fetched_config){}, &problem) < 0) {
		log_warning("no debug files can be fetched: %s", problem.text);
		snprintf(f->figures.last_error, sizeof(f->figures.last_error), "%s", problem.text);
		f->figures.last_error_unix_ns = clock_unix_ns();
	}
	return 0;
}

void daemon_fetch_free(struct daemon *d)
{
	struct fetching *f = d->fetching;

	if (!f)
		return;
	if (d->link)
		stop(d);
	sd_event_source_disable_unref(f->timer);
	free_servers(f);
	map_free_with(f->wants, free);
	fetched_free(f->cache);
	closep(&f->fd);
	free(f);
	d->fetching = NULL;
}
