/* SPDX-License-Identifier: Apache-2.0 */
/* agentd's side of the /proc reader.
 *
 * Requests go out as they come, and the reader answers them in order, so that the one it is at is always
 * the oldest: when nothing was answered for the time allowed, that one is the culprit. The reader is
 * killed (a wait for a lock or for a FUSE server is killable), the culprit fails, and the
 * others are sent to the next reader. A reader that dies without being killed takes the oldest request
 * along at its second death only: it may have died of something else.
 *
 * It is started at the first request. Starts are spaced when they follow each other, and when none
 * can be started at all, what waits fails, so that samples are given out without facts rather than kept.
 * Invariants: `sent` requests are the first ones of the list; ids rise. Runs in agentd. */

#include "agentd/process/client.h"

#include <inttypes.h>
#include <poll.h>
#include <sys/epoll.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"

#define IN_FLIGHT_MAX 32
#define BACKOFF_MIN   (50 * NSEC_PER_MSEC)
#define BACKOFF_MAX   (1 * NSEC_PER_SEC)
#define GOOD_RUN      (10 * NSEC_PER_SEC) /* after so long a reader's death is no series */

struct ask {
	struct ask *next;
	void (*done)(void *userdata, struct client_result *result);
	void *userdata;
	struct reader_request request;
	unsigned deaths;
	bool sent;
	char path[];
};

struct client {
	sd_event *loop;
	struct sandbox_child child;
	sd_event_source *io, *timer;
	struct ask *first, **last;
	size_t n, n_sent;
	uint32_t next_id;
	struct buf body; /* of the oldest request's answer, so far */
	char *proc_root;
	uint64_t deadline_ns, oldest_since, started, not_before, backoff;
	struct client_counters counters;
	bool freeing;
	char message[FDPASS_MAX_MESSAGE];
};

static void send_more(struct client *c);
static void restart(struct client *c, bool culprit, const char *why);

/* ---- the list ------------------------------------------------------------------------------------------ */

static struct ask *take_first(struct client *c)
{
	struct ask *a = c->first;

	c->first = a->next;
	if (!c->first)
		c->last = &c->first;
	c->n--;
	if (a->sent)
		c->n_sent--;
	return a;
}

static void finish(struct ask *a, struct client_result *result)
{
	a->done(a->userdata, result);
	closep(&result->fd);
	free(a);
}

static void fail(struct ask *a, int status)
{
	struct client_result result = {.status = status, .fd = -1};

	finish(a, &result);
}

/* When the clock of the oldest request ends, or the next start is allowed. */
static void arm(struct client *c)
{
	uint64_t at = c->child.pid <= 0 ? c->not_before
		: c->n_sent             ? c->oldest_since + c->deadline_ns
					: 0;

	if (!c->timer)
		return;
	if (c->n == 0) {
		sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
		return;
	}
	sd_event_source_set_time(c->timer, at / 1000 + 1);
	sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

/* ---- the child ----------------------------------------------------------------------------------------- */

static void drop_child(struct client *c)
{
	c->io = sd_event_source_disable_unref(c->io);
	sandbox_kill(&c->child);
	buf_reset(&c->body);
	for (struct ask *a = c->first; a; a = a->next)
		a->sent = false;
	c->n_sent = 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata);

static int start(struct client *c)
{
	struct err_text err = {};
	int r = sandbox_spawn(&c->child, "proc", NULL, &err);

	if (r < 0) {
		log_error("cannot start the reader of /proc: %s", err.text);
		return r;
	}
	r = sd_event_add_io(c->loop, &c->io, c->child.sock, EPOLLIN, on_io, c);
	if (r < 0) {
		drop_child(c);
		return r;
	}
	c->started = c->oldest_since = clock_monotonic_ns();
	if (c->proc_root) {
		struct reader_request q = {
			.op = READER_ROOT, .path_len = (uint32_t)strlen(c->proc_root)};
		char message[sizeof(q) + READER_PATH_MAX];

		memcpy(message, &q, sizeof(q));
		memcpy(message + sizeof(q), c->proc_root, q.path_len);
		r = fdpass_send(c->child.sock, message, sizeof(q) + q.path_len, NULL, 0);
	}
	return r;
}

/* Starts one if one is wanted and allowed by now. */
static void ensure_child(struct client *c)
{
	uint64_t now = clock_monotonic_ns();

	if (c->child.pid > 0 || c->n == 0 || now < c->not_before)
		return;
	if (start(c) == 0)
		return;
	c->backoff = MIN(MAX(c->backoff * 2, (uint64_t)BACKOFF_MIN), (uint64_t)BACKOFF_MAX);
	c->not_before = now + c->backoff;
	for (size_t n = c->n; n > 0; n--)
		fail(take_first(c), -EIO);
}

static int send_one(struct client *c, struct ask *a)
{
	char message[sizeof(a->request) + READER_PATH_MAX];

	memcpy(message, &a->request, sizeof(a->request));
	memcpy(message + sizeof(a->request), a->path, a->request.path_len);
	return fdpass_send(
		c->child.sock, message, sizeof(a->request) + a->request.path_len, NULL, 0);
}

static int send_unsent(struct client *c)
{
	struct ask *a = c->first;

	while (a && a->sent)
		a = a->next;
	for (; a && c->n_sent < IN_FLIGHT_MAX; a = a->next) {
		int r = send_one(c, a);

		if (r < 0)
			return r == -EAGAIN ? 0 : r;
		if (c->n_sent == 0)
			c->oldest_since = clock_monotonic_ns();
		a->sent = true;
		c->n_sent++;
	}
	return 0;
}

static void send_more(struct client *c)
{
	ensure_child(c);
	if (c->child.pid > 0 && send_unsent(c) < 0) {
		restart(c, false, "its socket broke");
		return;
	}
	arm(c);
}

/* culprit: the oldest request is why. */
static void restart(struct client *c, bool culprit, const char *why)
{
	uint64_t now = clock_monotonic_ns();
	struct ask *victim = NULL;
	int status = culprit ? -ETIMEDOUT : -EIO;

	if (c->first && c->first->sent && (culprit || ++c->first->deaths >= 2))
		victim = take_first(c);
	c->counters.restarts++;
	c->counters.timed_out += culprit;
	if (victim && victim->request.pid)
		log_warning("the reader of /proc was ended at process %" PRIu32
			    ": %s; it is started again",
			victim->request.pid, why);
	else
		log_warning("the reader of /proc was ended: %s; it is started again", why);
	c->backoff = now - c->started > GOOD_RUN
		? 0
		: MIN(MAX(c->backoff * 2, BACKOFF_MIN), BACKOFF_MAX);
	c->not_before = now + c->backoff;
	drop_child(c);
	if (victim)
		fail(victim, status);
	send_more(c);
}

/* ---- answers ------------------------------------------------------------------------------------------- */

/* One message; -EAGAIN when there is none. */
static int receive(struct client *c)
{
	struct client_result result = {.fd = -1};
	struct reader_answer head;
	size_t n_fds = 1;
	ssize_t n = fdpass_recv(c->child.sock, c->message, sizeof(c->message), &result.fd, &n_fds);

	if (n < 0)
		return (int)n;
	if (n == 0)
		return -EPIPE;
	if (!n_fds)
		result.fd = -1;
	if ((size_t)n < sizeof(head)) {
		closep(&result.fd);
		return -EBADMSG;
	}
	memcpy(&head, c->message, sizeof(head));
	if (head.op == READER_ROOT) {
		if (head.status < 0)
			log_error("cannot read processes under %s: %s", c->proc_root,
				strerror(-head.status));
		return 0;
	}
	if (!c->first || !c->first->sent || head.id != c->first->request.id) {
		closep(&result.fd);
		return -EBADMSG;
	}
	buf_add(&c->body, c->message + sizeof(head), (size_t)n - sizeof(head));
	if (!(head.flags & READER_LAST)) {
		closep(&result.fd);
		return 0;
	}
	result.status = head.status > 0 ? -EBADMSG : head.status;
	if (buf_error(&c->body))
		result.status = buf_error(&c->body);
	result.t0 = head.t0;
	result.t1 = head.t1;
	result.body = c->body.data;
	result.len = c->body.len;
	c->oldest_since = clock_monotonic_ns();
	/* The callback may ask more, and look at the body until it returns. */
	finish(take_first(c), &result);
	buf_reset(&c->body);
	return 0;
}

static void drain(struct client *c)
{
	pid_t pid = c->child.pid;
	int r = 0;

	/* A callback may end in a restart; the next reader's answers are for the next round. */
	while (r == 0 && c->child.pid > 0 && c->child.pid == pid)
		r = receive(c);
	if (r < 0 && r != -EAGAIN && c->child.pid == pid) {
		int status = 0;
		char why[128] = "it broke the protocol";

		if (r == -EPIPE && sandbox_reap(&c->child, &status) == 0)
			sandbox_describe_status(status, why, sizeof(why));
		else if (r == -EPIPE)
			snprintf(why, sizeof(why), "it closed its socket");
		restart(c, false, why);
		return;
	}
	send_more(c);
}

static void check_deadline(struct client *c)
{
	if (c->child.pid > 0 && c->n_sent &&
		clock_monotonic_ns() >= c->oldest_since + c->deadline_ns)
		restart(c, true,
			"reading took too long (the process holds a lock, or its file system does not answer)");
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	drain(userdata);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct client *c = userdata;

	/* Slow may have been us: what has arrived counts. */
	if (c->child.pid > 0)
		drain(c);
	check_deadline(c);
	send_more(c);
	return 0;
}

void client_pump(struct client *c, int timeout_ms)
{
	struct pollfd p = {.fd = c->child.sock, .events = POLLIN};
	uint64_t now = clock_monotonic_ns();

	if (c->child.pid <= 0 && c->n && c->not_before > now)
		timeout_ms = MIN(timeout_ms, (int)((c->not_before - now) / NSEC_PER_MSEC) + 1);
	(void)poll(&p, c->child.pid > 0, timeout_ms);
	if (c->child.pid > 0)
		drain(c);
	check_deadline(c);
	send_more(c);
}

/* ---- outside ------------------------------------------------------------------------------------------- */

int client_ask(struct client *c, const struct reader_request *request, const char *path,
	void (*done)(void *userdata, struct client_result *result), void *userdata)
{
	size_t len = path ? strnlen(path, READER_PATH_MAX) : 0;
	struct ask *a;

	if (c->freeing)
		return -ECANCELED;
	a = calloc(1, sizeof(*a) + len + 1);
	if (!a)
		return -ENOMEM;
	a->done = done;
	a->userdata = userdata;
	a->request = *request;
	a->request.id = ++c->next_id;
	a->request.path_len = (uint32_t)len;
	if (len)
		memcpy(a->path, path, len);
	*c->last = a;
	c->last = &a->next;
	c->n++;
	c->counters.requests++;
	/* A start may fail and a broken socket restart the reader, which call done: both from the timer, so
	 * that nothing is called before we return. */
	if (c->child.pid > 0)
		(void)send_unsent(c);
	arm(c);
	return 0;
}

size_t client_in_flight(const struct client *c)
{
	return c->n;
}

pid_t client_pid(const struct client *c)
{
	return c->child.pid;
}

void client_counters(const struct client *c, struct client_counters *ret)
{
	*ret = c->counters;
}

int client_new(struct client **ret, sd_event *loop, const char *proc_root, unsigned deadline_ms)
{
	CLEANUP(client_freep) struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->child = SANDBOX_CHILD_NONE;
	c->last = &c->first;
	c->loop = sd_event_ref(loop);
	c->deadline_ns = deadline_ms * NSEC_PER_MSEC;
	buf_init(&c->body, READER_BODY_MAX);
	if (proc_root) {
		c->proc_root = strndup(proc_root, READER_PATH_MAX - 1);
		if (!c->proc_root)
			return -ENOMEM;
	}
	r = sd_event_add_time(loop, &c->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, c);
	if (r < 0)
		return r;
	sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	*ret = TAKE_PTR(c);
	return 0;
}

struct client *client_free(struct client *c)
{
	if (!c)
		return NULL;
	c->freeing = true;
	drop_child(c);
	while (c->first)
		fail(take_first(c), -ECANCELED);
	sd_event_source_disable_unref(c->timer);
	buf_deinit(&c->body);
	free(c->proc_root);
	sd_event_unref(c->loop);
	free(c);
	return NULL;
}
