/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's side: who asked for which container, what is known already, and the child that reads the
 * files.
 *
 * One file is with the child at a time, so a silence, an end or a nonsense answer is that file's
 * and nobody else's: the child is killed, the file given up, and the next question starts a fresh
 * one. A child that served other files before may have been spoilt by them (or have used up its
 * time), so then the file gets one more chance. Answers are looked at as a stranger's words before
 * anything is kept.
 *
 * Bounded: answers kept (cache.c), questions waiting, the deadline of a file,
 * the life of an idle child. "No name" is kept for seconds only, since a container's first process
 * may be seen before its runtime has written the file; a name is asked again after minutes, since
 * containers can be renamed. Runs in agentd. */

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/base/map.h"
#include "agentd/base/sandbox.h"
#include "agentd/base/text.h"
#include "agentd/container/private.h"

#define WAITING_MAX    4096
#define ROOTS_MAX      16
#define DEADLINE_NS    (2 * NSEC_PER_SEC)
#define IDLE_NS        (30 * NSEC_PER_SEC)
#define AGAIN_NS       (10 * NSEC_PER_SEC)  /* no name: perhaps not written yet */
#define AGAIN_HURT_NS  (300 * NSEC_PER_SEC) /* its file killed the child */
#define AGAIN_NAMED_NS (600 * NSEC_PER_SEC) /* it may have been renamed */
#define SPAWN_RETRY_NS (5 * NSEC_PER_SEC)
#define DOCKER_CONFIG  "etc/docker/daemon.json"

struct waiter {
	void (*done)(void *userdata, const char *id, const struct container_facts *facts);
	void *userdata;
	struct waiter *next;
};

/* One container that is asked for. */
struct job {
	char id[CONTAINER_ID_MAX + 1], runtime[16];
	struct waiter *waiters, **last;
	struct container_paths paths;
	size_t at; /* in paths */
	bool config_done, expanded;
	bool again; /* the file at hand had its second chance */
	bool hurt;  /* one of its files killed a child */
	struct job *next;
};

struct container_namer {
	sd_event *loop;
	int root_fd;
	struct map *jobs; /* by id */
	struct container_cache *cache;
	struct job *first, **last; /* in the order of asking; the first is at work */
	struct {
		char runtime[16];
		char *path;
	} roots[ROOTS_MAX];
	size_t n_roots;
	char docker_root[CONTAINER_PATH_MAX]; /* from daemon.json; "" it does not say */
	struct {
		uint64_t device, inode, size;
		int64_t mtime_ns;
	} docker_config; /* of the daemon.json that said it */
	struct sandbox_child child;
	uint64_t child_files; /* given to this child */
	uint64_t spawn_after_ns;
	sd_event_source *on_sock, *on_end, *timer;
	bool in_flight, working;
	struct container_request request; /* the one in flight */
	uint64_t deadline_ns, idle_ns, again_ns;
	struct container_counters counters;
};

static void work(struct container_namer *n);

/* ---- jobs ---- */

static struct job *job_free(struct job *job)
{
	struct waiter *w;

	if (!job)
		return NULL;
	while ((w = job->waiters)) {
		job->waiters = w->next;
		free(w);
	}
	container_paths_deinit(&job->paths);
	free(job);
	return NULL;
}

/* Ends the first job. It leaves the queue before anybody hears of it, since they may ask again. */
static void finish(struct container_namer *n, const struct container_facts *facts)
{
	struct job *job = n->first;

	n->first = job->next;
	if (!n->first)
		n->last = &n->first;
	map_remove(n->jobs, job->id, strlen(job->id));
	container_cache_put(n->cache, job->id, facts,
		clock_monotonic_ns() +
			(facts                      ? AGAIN_NAMED_NS
					: job->hurt ? AGAIN_HURT_NS
						    : n->again_ns));
	while (job->waiters) {
		struct waiter *w = job->waiters;

		job->waiters = w->next;
		n->counters.named += facts != NULL;
		n->counters.nameless += facts == NULL;
		w->done(w->userdata, job->id, facts);
		free(w);
	}
	job_free(job);
}

static void expand(struct container_namer *n, struct job *job)
{
	int r = 0;

	job->expanded = true;
	for (size_t i = 0; i < n->n_roots && r == 0; i++)
		if (!*job->runtime || streq(n->roots[i].runtime, job->runtime))
			r = container_paths_add(&job->paths, n->root_fd, n->roots[i].runtime,
				n->roots[i].path, job->id);
	if (r == 0 && *n->docker_root && (!*job->runtime || streq(job->runtime, "docker")))
		r = container_paths_add(&job->paths, n->root_fd, "docker", n->docker_root, job->id);
	if (r == 0)
		(void)container_paths_add(&job->paths, n->root_fd, job->runtime, NULL, job->id);
}

/* daemon.json, where it is another than the one that was read last. A descriptor, or -1: nothing to
 * do. */
static int open_docker_config(struct container_namer *n)
{
	_cleanup_close_ int fd = container_open(n->root_fd, DOCKER_CONFIG);
	__typeof__(n->docker_config) now = {0};
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0) {
		now.device = st.st_dev;
		now.inode = st.st_ino;
		now.size = st.st_size;
		now.mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
	}
	if (memcmp(&now, &n->docker_config, sizeof(now)) == 0)
		return -1;
	n->docker_config = now;
	n->docker_root[0] = 0;
	return TAKE_FD(fd);
}

/* ---- the child ---- */

static void stop_child(struct container_namer *n)
{
	n->on_sock = sd_event_source_disable_unref(n->on_sock);
	n->on_end = sd_event_source_disable_unref(n->on_end);
	sandbox_kill(&n->child);
	n->child_files = 0;
}

static void set_timer(struct container_namer *n, uint64_t ns)
{
	(void)sd_event_source_set_time(n->timer, (clock_monotonic_ns() + ns) / 1000);
	(void)sd_event_source_set_enabled(n->timer, SD_EVENT_ONESHOT);
}

/* Whatever went wrong with the child while a file was with it (or with none). */
static void child_failed(struct container_namer *n, const char *why)
{
	bool fresh = n->child_files <= 1;
	struct job *job = n->first;

	stop_child(n);
	(void)sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
	if (!n->in_flight) {
		log_debug("the reader of container names %s while it was idle", why);
		return;
	}
	n->in_flight = false;
	if (n->request.kind == CONTAINER_REQUEST_FACTS && !fresh && !job->again) {
		job->again = true;
	} else {
		n->counters.files_failed++;
		log_warning(
			"the reader of container names %s over /%s of container %.12s: it stays without what that "
			"file says",
			why,
			n->request.kind == CONTAINER_REQUEST_FACTS ? job->paths.list[job->at]
								   : DOCKER_CONFIG,
			job->id);
		if (n->request.kind == CONTAINER_REQUEST_FACTS) {
			job->hurt = true;
			job->again = false;
			job->at++;
		}
	}
	work(n);
}

/* It never got to the file: a program that cannot be run, a sandbox that cannot be made. That is no file's
 * fault, and another try at once would end the same way. */
static void child_cannot_start(struct container_namer *n, const char *why)
{
	stop_child(n);
	(void)sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
	log_warning("containers stay without names for now: their reader %s", why);
	n->spawn_after_ns = clock_monotonic_ns() + SPAWN_RETRY_NS;
	n->in_flight = false;
	finish(n, NULL);
	work(n);
}

static void on_answer(struct container_namer *n, const struct container_answer *a)
{
	struct job *job = n->first;

	n->in_flight = false;
	set_timer(n, n->idle_ns);
	if (n->request.kind == CONTAINER_REQUEST_DOCKER_ROOT) {
		if (a->result == 0)
			snprintf(n->docker_root, sizeof(n->docker_root), "%s", a->path);
		else if (a->result != -ENOENT)
			log_warning(
				"/" DOCKER_CONFIG
				" could not be read as JSON: Docker's containers are looked for "
				"below /var/lib/docker");
	} else if (a->result == 0) {
		finish(n, &a->facts);
	} else {
		log_debug("/%s does not name container %.12s: %s", job->paths.list[job->at],
			job->id, strerrordesc_np(-a->result));
		job->again = false;
		job->at++;
	}
	work(n);
}

static int on_sock(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct container_namer *n = userdata;
	struct container_answer a;
	ssize_t len = fdpass_recv(fd, &a, sizeof(a), NULL, NULL);

	if (len == -EAGAIN || len == -EINTR)
		return 0;
	if (len == 0 || len == -EPIPE || len == -ECONNRESET) {
		/* It ended: why is known in a moment, on the pidfd. The deadline holds meanwhile.
		 */
		n->on_sock = sd_event_source_disable_unref(n->on_sock);
		return 0;
	}
	if (!n->in_flight || len < 0 || container_answer_check(&a, len, &n->request) < 0)
		child_failed(n, "answered with nonsense");
	else
		on_answer(n, &a);
	return 0;
}

static int on_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct container_namer *n = userdata;
	char why[128] = "ended";
	int status = 0;
	bool exited = false;

	/* An answer that it sent before it ended is on the socket, which has precedence. */
	if (sandbox_reap(&n->child, &status) == 0) {
		sandbox_describe_status(status, why, sizeof(why));
		exited = WIFEXITED(status);
	}
	if (exited && n->in_flight && n->child_files <= 1)
		child_cannot_start(n, why);
	else
		child_failed(n, why);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct container_namer *n = userdata;

	if (n->in_flight)
		child_failed(n, "did not answer in time");
	else
		stop_child(n);
	return 0;
}

static int start_child(struct container_namer *n)
{
	struct err_text err;
	int r;

	if (n->child.pid > 0)
		return 0;
	if (clock_monotonic_ns() < n->spawn_after_ns)
		return -EAGAIN;
	r = sandbox_spawn(&n->child, "container", NULL, &err);
	if (r >= 0) {
		n->counters.starts++;
		r = sd_event_add_io(n->loop, &n->on_sock, n->child.sock, EPOLLIN, on_sock, n);
	} else {
		log_warning("containers stay without names for now: %s", err.text);
	}
	if (r >= 0)
		r = sd_event_add_io(n->loop, &n->on_end, n->child.pidfd, EPOLLIN, on_end, n);
	if (r >= 0)
		r = sd_event_source_set_priority(n->on_end, SD_EVENT_PRIORITY_NORMAL + 1);
	if (r < 0) {
		stop_child(n);
		n->spawn_after_ns = clock_monotonic_ns() + SPAWN_RETRY_NS;
	}
	return r < 0 ? r : 0;
}

/* Hands a file to the child. 0: an answer or its end will come. */
static int send_file(struct container_namer *n, enum container_request_kind kind, int fd)
{
	struct job *job = n->first;
	int r;

	n->request = (struct container_request){
		.magic = CONTAINER_MAGIC, .kind = kind, .serial = n->request.serial + 1};
	snprintf(n->request.runtime, sizeof(n->request.runtime), "%s", job->runtime);
	snprintf(n->request.id, sizeof(n->request.id), "%s", job->id);
	for (int i = 0; i < 2; i++) {
		r = start_child(n);
		if (r < 0)
			return r;
		r = fdpass_send(n->child.sock, &n->request, sizeof(n->request), &fd, 1);
		if (r == 0)
			break;
		/* It ended since the last question and nobody has told yet. */
		stop_child(n);
	}
	if (r < 0)
		return r;
	n->counters.files++;
	n->child_files++;
	n->in_flight = true;
	set_timer(n, n->deadline_ns);
	return 0;
}

/* The first job's next step. True: something is in flight. False: it has come to its end. */
static bool step(struct container_namer *n)
{
	struct job *job = n->first;

	if (!job->config_done) {
		_cleanup_close_ int fd = -1;

		job->config_done = true;
		if (!*job->runtime || streq(job->runtime, "docker"))
			fd = open_docker_config(n);
		if (fd >= 0 && send_file(n, CONTAINER_REQUEST_DOCKER_ROOT, fd) == 0)
			return true;
	}
	if (!job->expanded)
		expand(n, job);
	for (; job->at < job->paths.n; job->at++) {
		const char *path = job->paths.list[job->at];
		_cleanup_close_ int fd = container_open(n->root_fd, path);

		if (fd < 0) {
			if (fd != -ENOENT && fd != -ENOTDIR)
				log_warning("/%s is not taken for the state of container %.12s: %s",
					path, job->id, strerrordesc_np(-fd));
			continue;
		}
		if (send_file(n, CONTAINER_REQUEST_FACTS, fd) == 0)
			return true;
		break; /* no child to be had: the rest would fare no better */
	}
	return false;
}

/* Goes on until something is in flight or nobody waits. Not within itself: done() may ask. */
static void work(struct container_namer *n)
{
	if (n->working)
		return;
	n->working = true;
	while (n->first && !n->in_flight && !step(n))
		finish(n, NULL);
	n->working = false;
}

/* ---- the outside ---- */

static int add_waiter(struct job *job,
	void (*done)(void *userdata, const char *id, const struct container_facts *facts),
	void *userdata)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->done = done;
	w->userdata = userdata;
	*job->last = w;
	job->last = &w->next;
	return 0;
}

static int add_job(struct container_namer *n, const char *runtime, const char *id, struct job **ret)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	snprintf(job->id, sizeof(job->id), "%s", id);
	snprintf(job->runtime, sizeof(job->runtime), "%s", runtime ? runtime : "");
	job->last = &job->waiters;
	if (map_put_str(n->jobs, job->id, job, NULL) < 0) {
		free(job);
		return -ENOMEM;
	}
	*n->last = job;
	n->last = &job->next;
	*ret = job;
	return 0;
}

int container_ask(struct container_namer *n, const char *runtime, const char *id,
	void (*done)(void *userdata, const char *id, const struct container_facts *facts),
	void *userdata)
{
	struct container_facts facts;
	struct job *job;
	bool named;
	int r;

	n->counters.asked++;
	if (!container_is_id(id)) {
		n->counters.refused++;
		done(userdata, id, NULL);
		return 0;
	}
	if (container_cache_get(n->cache, id, clock_monotonic_ns(), &named, &facts)) {
		n->counters.from_cache++;
		done(userdata, id, named ? &facts : NULL);
		return 0;
	}
	job = map_get_str(n->jobs, id);
	if (!job && map_size(n->jobs) >= WAITING_MAX) {
		n->counters.refused++;
		log_warning("%d containers wait for their names already: others stay without",
			WAITING_MAX);
		done(userdata, id, NULL);
		return 0;
	}
	r = job ? 0 : add_job(n, runtime, id, &job);
	if (r >= 0)
		r = add_waiter(job, done, userdata);
	if (r < 0) {
		n->counters.refused++;
		return r;
	}
	work(n);
	return 0;
}

int container_namer_add_root(struct container_namer *n, const char *runtime, const char *path)
{
	char *copy;

	if (!runtime || strlen(runtime) >= sizeof(n->roots[0].runtime) || !path ||
		!container_is_path(path))
		return -EINVAL;
	for (size_t i = 0; i < n->n_roots; i++)
		if (streq(n->roots[i].runtime, runtime) && streq(n->roots[i].path, path))
			return 0;
	if (n->n_roots == ROOTS_MAX)
		return -E2BIG;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	snprintf(n->roots[n->n_roots].runtime, sizeof(n->roots[0].runtime), "%s", runtime);
	n->roots[n->n_roots++].path = copy;
	return 0;
}

void container_namer_clear_roots(struct container_namer *n)
{
	for (size_t i = 0; i < n->n_roots; i++)
		free(n->roots[i].path);
	n->n_roots = 0;
}

int container_namer_new(struct container_namer **ret, sd_event *loop, const char *root)
{
	CLEANUP(container_namer_freep) struct container_namer *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->child = SANDBOX_CHILD_NONE;
	n->last = &n->first;
	n->deadline_ns = DEADLINE_NS;
	n->idle_ns = IDLE_NS;
	n->again_ns = AGAIN_NS;
	n->loop = sd_event_ref(loop);
	n->root_fd = open(root ? root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (n->root_fd < 0)
		return -errno;
	r = map_new(&n->jobs, 0);
	if (r >= 0)
		r = container_cache_new(&n->cache, CONTAINER_CACHE_MAX);
	if (r >= 0)
		r = sd_event_add_time(loop, &n->timer, CLOCK_MONOTONIC, 0, 0, on_timer, n);
	if (r >= 0)
		r = sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(n);
	return 0;
}

struct container_namer *container_namer_free(struct container_namer *n)
{
	struct job *job;

	if (!n)
		return NULL;
	stop_child(n);
	n->timer = sd_event_source_disable_unref(n->timer);
	while ((job = n->first)) {
		n->first = job->next;
		job_free(job);
	}
	map_free(n->jobs);
	container_cache_free(n->cache);
	container_namer_clear_roots(n);
	closep(&n->root_fd);
	sd_event_unref(n->loop);
	free(n);
	return NULL;
}

void container_namer_counters(const struct container_namer *n, struct container_counters *ret)
{
	*ret = n->counters;
}

void container_namer_tune(
	struct container_namer *n, uint64_t deadline_ns, uint64_t idle_ns, uint64_t again_ns)
{
	n->deadline_ns = deadline_ns ? deadline_ns : n->deadline_ns;
	n->idle_ns = idle_ns ? idle_ns : n->idle_ns;
	n->again_ns = again_ns ? again_ns : n->again_ns;
}

pid_t container_namer_child(const struct container_namer *n)
{
	return n->child.pid;
}
