/* SPDX-License-Identifier: Apache-2.0 */

/* The unwinder as agentd sees it: a process that may die, hang or lie.
 *
 * One request is under way at a time and its pages are answered in order, so when something goes
 * wrong it is known which page it was at. There is one timer, whose meaning is the state's: STARTING
 * and BUSY, the deadline, at which the child is killed (BUSY: it begins anew with each page); NONE,
 * when the next may be started; IDLE, when it has been of no use long enough and its memory goes
 * back.
 *
 * Invariants. Every message is checked by rows_decode() before anything of it is used. Nothing here
 * waits. The end of a child is seen on its pidfd, whatever its socket says, after what it still said
 * was read. A child that ends without a request is replaced at need; several in a row, more and more
 * slowly. Its CPU time is what the kernel says, not what it says. Runs in agentd. */

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/unwind/client_private.h"

#define START_DEADLINE_MS 5000
#define MESSAGES_A_TURN   32
#define MESSAGES_LAST     (2 * ROWS_REQUEST_PAGES + 1) /* a whole answer is not more */
#define RESTART_MIN_NS    (100 * NSEC_PER_MSEC)
#define RESTART_MAX_NS    (5 * NSEC_PER_SEC)
#define FAILURES_GIVE_UP  3

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

static void set_timer(struct unwinder *u, uint64_t in_ns)
{
	uint64_t at_us = (clock_monotonic_ns() + in_ns) / 1000;

	if (!u->timer) {
		if (sd_event_add_time(
			    u->loop, &u->timer, CLOCK_MONOTONIC, at_us, 20000, on_timer, u) < 0)
			u->timer = NULL;
		return;
	}
	sd_event_source_set_time(u->timer, at_us);
	sd_event_source_set_enabled(u->timer, SD_EVENT_ONESHOT);
}

static void set_idle(struct unwinder *u)
{
	u->state = CHILD_IDLE;
	set_timer(u, u->config.idle_exit_ms * NSEC_PER_MSEC);
}

uint64_t unwinder_child_cpu_us(struct unwinder *u)
{
	clockid_t clock;
	struct timespec t;

	if (u->child.pid <= 0 || clock_getcpuclockid(u->child.pid, &clock) != 0 ||
		clock_gettime(clock, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

/* Kills what runs. The state is NONE after it; blame is the caller's. */
static void end_child(struct unwinder *u)
{
	u->lives_cpu_us += unwinder_child_cpu_us(u);
	u->io = sd_event_source_disable_unref(u->io);
	u->exit = sd_event_source_disable_unref(u->exit);
	sandbox_kill(&u->child);
	u->state = CHILD_NONE;
	u->counters.child_memory = 0;
	if (u->timer)
		sd_event_source_set_enabled(u->timer, SD_EVENT_OFF);
}

void unwinder_child_stop(struct unwinder *u)
{
	end_child(u);
	u->timer = sd_event_source_disable_unref(u->timer);
}

/* The child is gone (end_child() was called). was: what it was doing. */
static void after_end(
	struct unwinder *u, enum child_state was, enum rows_blame blame, const char *why)
{
	if (was != CHILD_BUSY)
		u->counters.crashes += blame != BLAME_LIE;
	if (was == CHILD_IDLE) {
		log_warning("the unwinder %s while it had nothing to do", why);
		if (blame != BLAME_LIE)
			return;
	}
	u->child_failures++;
	if (was == CHILD_BUSY) {
		unwinder_on_failed(u, blame, why);
	} else if (was == CHILD_STARTING) {
		log_warning("the unwinder did not start: it %s", why);
		if (u->child_failures >= FAILURES_GIVE_UP)
			unwinder_give_up_all(u, "the unwinder does not start");
	}
	/* At once the first time, then twice as late each time. */
	if (u->child_failures > 1)
		set_timer(
			u, MIN(RESTART_MIN_NS << MIN(u->child_failures - 2, 16U), RESTART_MAX_NS));
}

/* ---- messages
 * ----------------------------------------------------------------------------------------- */

static void on_lie(struct unwinder *u)
{
	enum child_state was = u->state;

	end_child(u);
	u->counters.lies++;
	after_end(u, was, BLAME_LIE, "gave an answer that breaks the rules");
}

/* 0, or -EBADMSG: a lie. */
static int on_message(struct unwinder *u, size_t len)
{
	struct rows_done_message done;
	int r;

	if (u->state != CHILD_STARTING && u->state != CHILD_BUSY)
		return -EBADMSG;
	r = rows_decode(&u->answer, u->message, len);
	switch (r) {
	case ROWS_DECODED_READY:
		if (u->state != CHILD_STARTING)
			return -EBADMSG;
		set_idle(u);
		return 0;
	case ROWS_DECODED_PART:
		return 0;
	case ROWS_DECODED_SLOT:
		set_timer(u, u->config.deadline_ms * NSEC_PER_MSEC);
		unwinder_on_slot(u);
		return 0;
	case ROWS_DECODED_DONE:
		memcpy(&done, u->message, sizeof(done));
		/* It had all it needs. */
		if ((done.flags & ROWS_DONE_UNKNOWN_FILE) && u->current_had_fd)
			return -EBADMSG;
		u->child_failures = 0;
		set_idle(u);
		unwinder_on_done(u, &done);
		return 0;
	default:
		return r;
	}
}

/* Reads what is there, at most `most` messages. */
static void drain(struct unwinder *u, int most)
{
	for (int i = 0; i < most && u->state != CHILD_NONE; i++) {
		ssize_t len =
			fdpass_recv(u->child.sock, u->message, sizeof(u->message), NULL, NULL);

		if (len == -EAGAIN)
			return;
		if (len == -EMSGSIZE || (len > 0 && on_message(u, (size_t)len) < 0)) {
			on_lie(u);
			return;
		}
		if (len <= 0) {
			/* Its end is for the pidfd to say, and the deadline if it only closed the
			 * socket. */
			u->io = sd_event_source_disable_unref(u->io);
			return;
		}
		/* The next request goes out before the callers are told of this one's pages. */
		if (u->state == CHILD_IDLE)
			unwinder_pump(u, false);
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct unwinder *u = userdata;

	unwinder_enter(u);
	drain(u, MESSAGES_A_TURN);
	unwinder_leave(u);
	return 0;
}

static int on_exit_of_child(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct unwinder *u = userdata;
	enum child_state was;
	enum rows_blame blame;
	char why[128];
	int status = 0;
	uint64_t cpu_us = unwinder_child_cpu_us(u);

	unwinder_enter(u);
	/* The answer may have been given before the end. */
	drain(u, MESSAGES_LAST);
	was = u->state;
	if (was == CHILD_NONE || sandbox_reap(&u->child, &status) == -EAGAIN) {
		unwinder_leave(u);
		return 0;
	}
	u->lives_cpu_us += cpu_us;
	end_child(u);
	sandbox_describe_status(status, why, sizeof(why));
	blame = WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF ? BLAME_TIMEOUT : BLAME_CRASH;
	if (blame == BLAME_TIMEOUT)
		snprintf(why, sizeof(why), "used up its CPU time");
	after_end(u, was, blame, why);
	unwinder_leave(u);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct unwinder *u = userdata;
	enum child_state was = u->state;
	uint64_t request = u->answer.request;
	uint32_t n_done = u->answer.n_done;
	char why[64];

	unwinder_enter(u);
	switch (was) {
	case CHILD_NONE: /* time to start another */
		break;
	case CHILD_IDLE: /* nothing to do: its memory goes back */
		log_debug("the unwinder had nothing to do and is ended");
		end_child(u);
		break;
	case CHILD_STARTING:
	case CHILD_BUSY:
		/* It may have answered in the last moment, when we had no time to read it. */
		drain(u, MESSAGES_LAST);
		if (u->state != was || u->answer.request != request || u->answer.n_done != n_done)
			break;
		snprintf(why, sizeof(why), "did not answer within %u ms",
			was == CHILD_BUSY ? u->config.deadline_ms : START_DEADLINE_MS);
		end_child(u);
		after_end(u, was, BLAME_TIMEOUT, why);
	}
	unwinder_leave(u);
	return 0;
}

/* ---- starting and asking
 * ------------------------------------------------------------------------------ */

static int start_child(struct unwinder *u)
{
	struct err_text err = {0};
	int r = sandbox_spawn(&u->child, "unwinder", NULL, &err);

	if (r == 0) {
		u->state = CHILD_STARTING;
		u->counters.restarts += u->child_serial > 0;
		u->child_serial++;
		u->answer.request = 0;
		u->answer.n = u->answer.n_done = u->answer.at = 0;
		r = sd_event_add_io(u->loop, &u->io, u->child.sock, EPOLLIN, on_io, u);
		if (r >= 0)
			r = sd_event_add_io(
				u->loop, &u->exit, u->child.pidfd, EPOLLIN, on_exit_of_child, u);
		/* What it said is read before its end is looked at. */
		if (r >= 0)
			r = sd_event_source_set_priority(u->exit, SD_EVENT_PRIORITY_NORMAL + 1);
		if (r < 0)
			err_set(&err, r, "no event source for it: %s", strerrordesc_np(-r));
	}
	if (r < 0) {
		char why[320];

		end_child(u);
		snprintf(why, sizeof(why), "could not be started: %.256s", err.text);
		after_end(u, CHILD_STARTING, BLAME_CRASH, why);
		return r;
	}
	set_timer(u, START_DEADLINE_MS * NSEC_PER_MSEC);
	return 0;
}

/* Sends u->request, whose pages are filled. -errno: the child is no good. */
static int ask(struct unwinder *u, struct asked_file *f, int fd)
{
	struct rows_request *q = &u->request;

	q->header.version = ROWS_PROTOCOL;
	q->header.message = ROWS_MESSAGE_REQUEST;
	q->header.size = (uint32_t)ROWS_REQUEST_SIZE(q->n);
	q->header.request++;
	q->file = f->id;
	u->answer.request = q->header.request;
	u->answer.n = q->n;
	u->answer.n_done = u->answer.at = 0;
	u->current = f;
	u->current_had_fd = fd >= 0;
	u->state = CHILD_BUSY;
	u->counters.requests++;
	set_timer(u, u->config.deadline_ms * NSEC_PER_MSEC);
	return fdpass_send(u->child.sock, q, q->header.size, &fd, fd >= 0 ? 1 : 0);
}

static bool waits_to_start(const struct unwinder *u)
{
	int enabled = SD_EVENT_OFF;

	if (u->timer)
		sd_event_source_get_enabled(u->timer, &enabled);
	return enabled != SD_EVENT_OFF;
}

void unwinder_pump(struct unwinder *u, bool ahead)
{
	struct asked_file *f;
	int fd, r;

	if (u->state == CHILD_NONE && (u->queue || ahead) && !waits_to_start(u))
		(void)start_child(u);
	while (u->state == CHILD_IDLE && (f = unwinder_next_file(u, &fd)) != NULL) {
		r = ask(u, f, fd);
		/* The child's end is seen soon. */
		if (r == 0 || r == -EPIPE || r == -EAGAIN)
			return;
		/* A descriptor that cannot be passed is the file's fault. */
		set_idle(u);
		unwinder_on_failed(u, BLAME_TIMEOUT, strerrordesc_np(-r));
	}
}

bool unwinder_wait(struct unwinder *u, unsigned ms)
{
	struct pollfd p = {.fd = u->child.sock, .events = POLLIN};

	if (u->inside || !map_size(u->pending))
		return false;
	/* The end of a child is for the loop to see. */
	if ((u->state == CHILD_BUSY || u->state == CHILD_STARTING) &&
		(!u->io || poll(&p, 1, (int)ms) < 0))
		return false;
	unwinder_enter(u);
	drain(u, MESSAGES_A_TURN);
	unwinder_leave(u);
	return u->state != CHILD_NONE && map_size(u->pending) > 0;
}
