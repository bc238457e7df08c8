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

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "agentd/daemon_fetch.h"
#include "agentd/symbol/fetched.h"

#define MAX_WANTS        2048
#define MAX_FILES        32 /* files of one build id that are told when it came */
#define MAX_SERVERS      CONFIG_MAX_URLS
#define CONNECT_MS       10000
#define STALL_MS         90000 /* servers unpack archives before they answer */
#define TOTAL_MS         (30 * 60 * 1000)
#define PACE_NS          (200 * NSEC_PER_MSEC)
#define WATCH_NS         (5 * NSEC_PER_SEC) /* of the disk, while a fetch is under way */
#define DAY_NS           (86400 * NSEC_PER_SEC)
#define HERE_PAUSE_NS    (300 * NSEC_PER_SEC)
#define FILE_PAUSE_NS    (3600 * NSEC_PER_SEC)
#define SERVER_PAUSE_NS  (10 * NSEC_PER_SEC)
#define SERVER_PAUSE_MAX (3600 * NSEC_PER_SEC)
#define DISK_PAUSE_NS    (600 * NSEC_PER_SEC)
#define REQUESTS_MAX     500 /* at once, after a time without any */
#define REQUEST_FILL_NS  (20 * NSEC_PER_SEC)
#define BYTES_A_DAY      (8ULL << 30)

/* Of one build id at one server. */
struct answer {
	uint64_t retry_ns; /* monotonic; not before; 0: it was not asked yet */
	bool not_found;
	uint8_t failures; /* in a row */
};

struct want {
	char build_id[41];
	uint64_t weight;     /* samples with a frame in it */
	uint64_t not_before; /* monotonic: at no server */
	bool refused;
	struct {
		uint32_t id;
		bool given; /* it was handed what is in the cache */
	} files[MAX_FILES];
	size_t n_files;
	struct answer answers[MAX_SERVERS];
};

struct server {
	char *url;
	uint64_t retry_ns;
	unsigned failures;
};

struct fetching {
	struct fetched *cache; /* NULL: it could not be made, and nothing is fetched */
	struct map *wants;     /* by build id */
	struct server servers[MAX_SERVERS];
	size_t n_servers;
	bool on;
	sd_event_source *timer;
	/* under way */
	char build_id[41]; /* "" none */
	size_t server;
	int fd;
	/* bounds */
	uint64_t requests_left, filled_ns;
	uint64_t day_ns, day_bytes;
	uint64_t pause_ns; /* nothing before; for the disk */
	struct fetch_figures figures;
};

/* ---- what is wanted ---- */

static struct want *find(const struct fetching *f, const char *build_id)
{
	return map_get_str(f->wants, build_id);
}

static void drop(struct fetching *f, struct want *w)
{
	map_remove(f->wants, w->build_id, strlen(w->build_id));
	free(w);
}

/* Makes room for one: the one that matters least goes, if none of its answers need be remembered. */
static bool make_room(struct fetching *f)
{
	struct map_iter it = {0};
	struct want *least = NULL;

	if (map_size(f->wants) < MAX_WANTS)
		return true;
	f->figures.dropped++;
	while (map_next(f->wants, &it)) {
		struct want *w = it.value;

		if (!streq(w->build_id, f->build_id) && (!least || w->weight < least->weight))
			least = w;
	}
	if (!least)
		return false;
	drop(f, least);
	return true;
}

static struct want *want(struct fetching *f, const char *build_id)
{
	struct want *w = find(f, build_id);

	if (w || !protocol_build_id_ok(build_id) || !make_room(f))
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	snprintf(w->build_id, sizeof(w->build_id), "%s", build_id);
	if (map_put_str(f->wants, w->build_id, w, NULL) < 0) {
		free(w);
		return NULL;
	}
	return w;
}

/* Remembers that the file has this build id; of too many, the oldest is forgotten. Its index. */
static size_t note_file(struct want *w, uint32_t id)
{
	for (size_t i = 0; i < w->n_files; i++)
		if (w->files[i].id == id)
			return i;
	if (w->n_files == MAX_FILES) {
		memmove(&w->files[0], &w->files[1], (MAX_FILES - 1) * sizeof(w->files[0]));
		w->n_files--;
	}
	w->files[w->n_files].id = id;
	w->files[w->n_files].given = false;
	return w->n_files++;
}

/* What was in the cache was not what its name says. */
static void refuse(struct fetching *f, struct want *w)
{
	uint64_t now = clock_monotonic_ns();

	if (!fetched_has(f->cache, w->build_id))
		return;
	fetched_remove(f->cache, w->build_id);
	w->refused = true;
	w->not_before = now + DAY_NS;
	f->figures.refused++;
	f->figures.last_error_unix_ns = clock_unix_ns();
	snprintf(f->figures.last_error, sizeof(f->figures.last_error),
		"a debug file that was fetched is not the one of build id %s and was removed; is "
		"that the address of a debuginfod server that can be trusted?",
		w->build_id);
	log_warning("%s", f->figures.last_error);
	for (size_t i = 0; i < w->n_files; i++)
		w->files[i].given = false;
}

int daemon_fetch_open(struct daemon *d, uint32_t file, const char *build_id, unsigned *n)
{
	struct fetching *f = d->fetching;
	struct want *w = f ? want(f, build_id) : NULL;
	size_t i;
	int fd;

	if (!w || !f->cache)
		return -ENOENT;
	i = note_file(w, file);
	if (*n > FETCH_PLACE) {
		if (w->files[i].given)
			refuse(f, w);
		return -ENOENT;
	}
	fd = fetched_open(f->cache, build_id);
	if (fd >= 0) {
		*n = FETCH_PLACE;
		w->files[i].given = true;
	}
	return fd;
}

void daemon_fetch_on_facts(struct daemon *d, uint32_t file, const struct symbol_file_facts *facts)
{
	struct fetching *f = d->fetching;
	struct want *w = f && *facts->build_id ? find(f, facts->build_id) : NULL;

	/* It has one now that we did not give: of a package that was installed meanwhile. */
	if (w && facts->has_debug_file && f->cache && !fetched_has(f->cache, w->build_id) &&
		!streq(w->build_id, f->build_id))
		drop(f, w);
}

/* ---- the next one ---- */

/* Where to ask for it, now. */
static bool choose_server(const struct fetching *f, const struct want *w, uint64_t now, size_t *ret)
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

static struct want *choose(const struct fetching *f, uint64_t now, size_t *server)
{
	struct map_iter it = {0};
	struct want *best = NULL;
	size_t s;

	while (map_next(f->wants, &it)) {
		struct want *w = it.value;

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
	if (now - f->day_ns > DAY_NS) {
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

static int begin(struct daemon *d, struct want *w, size_t server)
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
	struct want *w;
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
static void tell_files(struct daemon *d, struct want *w)
{
	for (size_t i = 0; i < w->n_files; i++) {
		w->files[i].given = false;
		symbol_debug_changed(d->symbols, w->files[i].id);
	}
}

static int take(struct daemon *d, struct want *w, const struct link_fetch_result *result)
{
	struct fetching *f = d->fetching;
	int r = fetched_commit(f->cache, f->fd, w->build_id, result->bytes);

	if (r < 0)
		return r;
	f->figures.found++;
	w->refused = false;
	/* Once evicted it is not wanted again at once. */
	w->not_before = clock_monotonic_ns() + DAY_NS;
	log_info("debug file %s: fetched, %llu bytes", w->build_id,
		(unsigned long long)result->bytes);
	tell_files(d, w);
	return 0;
}

static void note_failure(struct fetching *f, struct want *w, const struct link_fetch_result *result)
{
	uint64_t now = clock_monotonic_ns();
	struct server *s = &f->servers[f->server];
	struct answer *a = &w->answers[f->server];

	f->figures.failed++;
	f->figures.last_error_unix_ns = clock_unix_ns();
	snprintf(f->figures.last_error, sizeof(f->figures.last_error), "%.380s%s%.380s",
		result->reason, *result->remedy ? "; " : "", result->remedy);
	a->retry_ns = now +
		doubled(result->outcome == FETCH_FAILED_FILE ? FILE_PAUSE_NS : HERE_PAUSE_NS,
			a->failures, DAY_NS);
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
	struct want *w = find(f, f->build_id);
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
			w->answers[f->server].retry_ns = clock_monotonic_ns() + DAY_NS;
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

/* ---- samples ---- */

bool daemon_fetch_cares(const struct daemon *d)
{
	return d->fetching && map_size(d->fetching->wants) > 0;
}

void daemon_fetch_weigh(struct daemon *d, const char *build_id, uint64_t samples)
{
	struct want *w = d->fetching ? find(d->fetching, build_id) : NULL;

	if (w)
		w->weight += samples;
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
	if (f->n_servers != MIN(c->symbols.n_urls, (size_t)MAX_SERVERS))
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
	for (size_t i = 0; i < c->symbols.n_urls && f->n_servers < MAX_SERVERS; i++) {
		char *url = strdup(c->symbols.urls[i]);

		if (!url)
			break;
		f->servers[f->n_servers++] = (struct server){.url = url};
	}
	while (map_next(f->wants, &it)) {
		struct want *w = it.value;

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

/* ---- for people ---- */

enum fetch_state daemon_fetch_state(const struct daemon *d, const char *build_id)
{
	const struct fetching *f = d->fetching;
	const struct want *w;
	size_t not_found = 0, failed = 0;

	if (!f || !f->cache || !*build_id)
		return FETCH_STATE_NONE;
	if (fetched_has(f->cache, build_id))
		return FETCH_STATE_HERE;
	if (streq(f->build_id, build_id))
		return FETCH_STATE_UNDER_WAY;
	w = find(f, build_id);
	if (!w)
		return FETCH_STATE_NONE;
	if (w->refused)
		return FETCH_STATE_REFUSED;
	for (size_t s = 0; s < f->n_servers; s++) {
		not_found += w->answers[s].not_found;
		failed += w->answers[s].failures > 0;
	}
	if (f->n_servers && not_found == f->n_servers)
		return FETCH_STATE_NOT_FOUND;
	return failed ? FETCH_STATE_FAILED : FETCH_STATE_WANTED;
}

void daemon_fetch_figures(const struct daemon *d, struct fetch_figures *ret)
{
	const struct fetching *f = d->fetching;
	struct fetched_figures cached = {0};
	struct map_iter it = {0};

	*ret = (struct fetch_figures){0};
	if (!f)
		return;
	*ret = f->figures;
	ret->on = f->on;
	snprintf(ret->under_way, sizeof(ret->under_way), "%s", f->build_id);
	while (map_next(f->wants, &it)) {
		const struct want *w = it.value;

		ret->wanted += daemon_fetch_state(d, w->build_id) == FETCH_STATE_WANTED;
	}
	if (!f->cache)
		return;
	fetched_figures(f->cache, &cached);
	ret->cached_files = cached.files;
	ret->cached_bytes = cached.bytes;
	ret->evicted = cached.evicted;
	ret->expired = cached.expired;
}
