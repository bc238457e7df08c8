/* SPDX-License-Identifier: Apache-2.0 */

/* The symbolizer as agentd sees it: a process that may die, hang or lie.
 *
 * One request is under way at a time, so when something goes wrong it is known which file it was at. There is
 * one timer, whose meaning is the state's: STARTING and BUSY, the deadline, at which the child is killed; NONE,
 * when the next may be started; IDLE, when it has been of no use long enough and its memory goes back.
 *
 * Invariants. Every message is checked by symbol_decode() before anything of it is used. Nothing here waits.
 * The end of a child is seen on its pidfd, whatever its socket says, after what it still said was read. A child
 * that ends without a request is replaced at need; several in a row, more and more slowly. Runs in agentd. */

#include <signal.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/symbol/client.h"

#define START_DEADLINE_MS 5000
#define MESSAGES_A_TURN   32
#define MESSAGES_LAST     128 /* a whole reply is less */
#define RESTART_MIN_NS    (100 * NSEC_PER_MSEC)
#define RESTART_MAX_NS    (5 * NSEC_PER_SEC)
#define FAILURES_GIVE_UP  3

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

static void set_timer(struct symbolizer *s, uint64_t in_ns)
{
	uint64_t at_us = (clock_monotonic_ns() + in_ns) / 1000;

	if (!s->timer) {
		if (sd_event_add_time(
			    s->loop, &s->timer, CLOCK_MONOTONIC, at_us, 20000, on_timer, s) < 0)
			s->timer = NULL;
		return;
	}
	sd_event_source_set_time(s->timer, at_us);
	sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT);
}

static void stop_timer(struct symbolizer *s)
{
	if (s->timer)
		sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
}

/* Kills what runs. The state is NONE after it; blame is the caller's. */
static void end_child(struct symbolizer *s)
{
	s->io = sd_event_source_disable_unref(s->io);
	s->exit = sd_event_source_disable_unref(s->exit);
	sandbox_kill(&s->child);
	s->state = CHILD_NONE;
	stop_timer(s);
}

void symbol_child_stop(struct symbolizer *s)
{
	end_child(s);
	s->timer = sd_event_source_disable_unref(s->timer);
}

/* The child is gone (end_child() was called). was: what it was doing. */
static void after_end(
	struct symbolizer *s, enum child_state was, enum symbol_blame blame, const char *why)
{
	if (was != CHILD_BUSY && blame != BLAME_LIE)
		s->counters.crashes++;
	if (was == CHILD_IDLE) {
		log_warning("the symbolizer %s while it had nothing to do", why);
		if (blame != BLAME_LIE)
			return;
	}
	s->child_failures++;
	if (was == CHILD_BUSY) {
		symbol_on_failed(s, blame, why);
	} else if (was == CHILD_STARTING) {
		log_warning("the symbolizer did not start: it %s", why);
		if (s->child_failures >= FAILURES_GIVE_UP)
			symbol_give_up_all(s, "the symbolizer does not start");
	}
	/* At once the first time, then twice as late each time. */
	if (s->child_failures > 1)
		set_timer(
			s, MIN(RESTART_MIN_NS << MIN(s->child_failures - 2, 16U), RESTART_MAX_NS));
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void on_lie(struct symbolizer *s)
{
	enum child_state was = s->state;

	end_child(s);
	s->counters.refused++;
	after_end(s, was, BLAME_LIE, "gave an answer that breaks the rules");
}

/* No step forward, again and again, would be a way to keep us busy for ever. */
static bool done_is_sound(const struct symbolizer *s, const struct symbol_done_message *done)
{
	switch (done->flags) {
	case 0:
		return done->n_done > 0;
	case SYMBOL_DONE_UNKNOWN_FILE:
		return !done->n_done && !s->current_had_fd;
	case SYMBOL_DONE_WANTS_DEBUG:
		return !done->n_done && s->current_may_ask && s->current_facts.header.size;
	case SYMBOL_DONE_WANTS_ALT:
		return !done->n_done && s->current_may_ask_alt && s->current_facts.header.size;
	default:
		return false;
	}
}

/* 0, 1: the request is over, -EBADMSG: a lie. */
static int on_message(struct symbolizer *s, size_t len)
{
	const struct symbol_header *h = (const void *)s->message;
	struct symbol_names_view view;
	int r = symbol_decode(s->message, len, s->state == CHILD_BUSY ? s->request : 0,
		s->current_n, &s->current_next, &view);

	if (r < 0)
		return r;
	if (s->state == CHILD_STARTING && h->message == SYMBOL_MESSAGE_READY) {
		s->state = CHILD_IDLE;
		set_timer(s, s->config.idle_exit_ns);
		return 1;
	}
	if (s->state != CHILD_BUSY || h->message == SYMBOL_MESSAGE_READY)
		return -EBADMSG;
	switch (h->message) {
	case SYMBOL_MESSAGE_FACTS:
		if (s->current_facts.header.size)
			return -EBADMSG;
		memcpy(&s->current_facts, s->message, sizeof(s->current_facts));
		return 0;
	case SYMBOL_MESSAGE_NAMES:
		return symbol_on_names(s, &view);
	default: {
		struct symbol_done_message done;

		memcpy(&done, s->message, sizeof(done));
		if (!done_is_sound(s, &done))
			return -EBADMSG;
		s->state = CHILD_IDLE;
		s->child_failures = 0;
		set_timer(s, s->config.idle_exit_ns);
		symbol_on_done(s, &done);
		return 1;
	}
	}
}

/* Reads what is there, at most `most` messages. */
static void drain(struct symbolizer *s, int most)
{
	for (int i = 0; i < most && s->state != CHILD_NONE; i++) {
		ssize_t len =
			fdpass_recv(s->child.sock, s->message, sizeof(s->message), NULL, NULL);

		if (len == -EAGAIN)
			return;
		if (len == -EMSGSIZE || (len > 0 && on_message(s, (size_t)len) < 0)) {
			on_lie(s);
			return;
		}
		if (len <= 0) {
			/* Its end is for the pidfd to say, and the deadline if it only closed the socket. */
			s->io = sd_event_source_disable_unref(s->io);
			return;
		}
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct symbolizer *s = userdata;

	drain(s, MESSAGES_A_TURN);
	symbol_pump(s);
	symbol_run_waiters(s);
	return 0;
}

static int on_exit_of_child(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct symbolizer *s = userdata;
	enum child_state was;
	enum symbol_blame blame;
	char why[128];
	int status = 0;

	/* The answer may have been given before the end. */
	drain(s, MESSAGES_LAST);
	was = s->state;
	if (was == CHILD_NONE || sandbox_reap(&s->child, &status) == -EAGAIN)
		return 0;
	end_child(s);
	sandbox_describe_status(status, why, sizeof(why));
	blame = WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF ? BLAME_TIMEOUT : BLAME_CRASH;
	if (blame == BLAME_TIMEOUT)
		snprintf(why, sizeof(why), "used up its CPU time");
	after_end(s, was, blame, why);
	symbol_pump(s);
	symbol_run_waiters(s);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct symbolizer *s = userdata;
	enum child_state was = s->state;
	char why[64];

	switch (was) {
	case CHILD_NONE: /* time to start another */
		break;
	case CHILD_IDLE: /* nothing to do: its memory goes back */
		log_debug("the symbolizer had nothing to do and is ended");
		end_child(s);
		break;
	case CHILD_STARTING:
	case CHILD_BUSY:
		/* It may have answered in the last moment, when we had no time to read it. */
		drain(s, MESSAGES_LAST);
		if (s->state != was)
			break;
		snprintf(why, sizeof(why), "did not answer within %u ms",
			was == CHILD_BUSY ? s->config.file_deadline_ms : START_DEADLINE_MS);
		end_child(s);
		after_end(s, was, BLAME_TIMEOUT, why);
	}
	symbol_pump(s);
	symbol_run_waiters(s);
	return 0;
}

/* ---- starting and asking ------------------------------------------------------------------------------------------ */

static int start_child(struct symbolizer *s)
{
	struct err_text err = {0};
	int r = sandbox_spawn(&s->child, "symbolizer", NULL, &err);

	if (r == 0) {
		s->state = CHILD_STARTING;
		s->counters.restarts += s->child_serial > 0;
		s->child_serial++;
		r = sd_event_add_io(s->loop, &s->io, s->child.sock, EPOLLIN, on_io, s);
		if (r >= 0)
			r = sd_event_add_io(
				s->loop, &s->exit, s->child.pidfd, EPOLLIN, on_exit_of_child, s);
		/* What it said is read before its end is looked at. */
		if (r >= 0)
			r = sd_event_source_set_priority(s->exit, SD_EVENT_PRIORITY_NORMAL + 1);
		if (r < 0)
			err_set(&err, r, "no event source for it: %s", strerrordesc_np(-r));
	}
	if (r < 0) {
		char why[320];

		end_child(s);
		snprintf(why, sizeof(why), "could not be started: %.256s", err.text);
		after_end(s, CHILD_STARTING, BLAME_CRASH, why);
		return r;
	}
	set_timer(s, START_DEADLINE_MS * NSEC_PER_MSEC);
	return 0;
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sends one request. -errno: the child is no good. */
static int ask(struct symbolizer *s, struct symbol_file *f, const struct symbol_hand_over *h)
{
	union {
		struct symbol_request request;
		uint8_t bytes[sizeof(struct symbol_request) +
			SYMBOL_ADDRESSES_MAX * sizeof(uint64_t)];
	} q;
	uint32_t n = (uint32_t)MIN(f->n, (size_t)SYMBOL_ADDRESSES_MAX);
	size_t size = sizeof(q.request) + n * sizeof(uint64_t);
	int fds[SYMBOL_REQUEST_FDS] = {h->fd};
	size_t n_fds = h->fd >= 0;

	/* Neighbours share a unit of debug information, which the reader decodes once and may drop then. */
	qsort(f->pending + f->head, n, sizeof(uint64_t), by_address);
	memcpy(s->current_addresses, f->pending + f->head, n * sizeof(uint64_t));
	memcpy(q.bytes + sizeof(q.request), s->current_addresses, n * sizeof(uint64_t));
	q.request = (struct symbol_request){
		.header = {.version = SYMBOL_PROTOCOL,
			.message = SYMBOL_MESSAGE_REQUEST,
			.size = (uint32_t)size,
			.request = ++s->request},
		.file = f->id,
		.generation = f->generation,
		.kind = symbol_file_kind(s, f->id),
		.flags = h->flags | SYMBOL_REQUEST_DEMANGLED(s->demangle),
		.n = n,
	};
	s->current = f;
	s->current_n = n;
	s->current_next = 0;
	s->current_had_fd = h->fd >= 0;
	s->current_had_debug = h->debug >= 0;
	s->current_demangle = s->demangle;
	s->current_may_ask = h->flags & SYMBOL_REQUEST_MAY_ASK;
	s->current_had_alt = h->alt >= 0;
	s->current_may_ask_alt = h->flags & SYMBOL_REQUEST_MAY_ASK_ALT;
	s->current_facts.header.size = 0;
	s->state = CHILD_BUSY;
	s->counters.requests++;
	if (h->fd >= 0)
		log_debug("the symbolizer reads %s for %u addresses", symbol_module_name(s, f->id),
			n);
	set_timer(s, s->config.file_deadline_ms * NSEC_PER_MSEC);
	if (h->debug >= 0)
		fds[n_fds++] = h->debug;
	if (h->alt >= 0)
		fds[n_fds++] = h->alt;
	return fdpass_send(s->child.sock, &q, size, fds, n_fds);
}

void symbol_pump(struct symbolizer *s)
{
	struct symbol_file *f;
	int r;

	if (s->state == CHILD_STARTING || s->state == CHILD_BUSY)
		return;
	if (s->state == CHILD_NONE) {
		int enabled = SD_EVENT_OFF;

		if (s->timer)
			sd_event_source_get_enabled(s->timer, &enabled);
		if (s->queue && enabled == SD_EVENT_OFF)
			(void)start_child(s);
		return;
	}
	for (;;) {
		CLEANUP(symbol_hand_over_close)
		struct symbol_hand_over h = SYMBOL_HAND_OVER_NONE;

		f = symbol_next_file(s, &h);
		if (!f)
			break;
		r = ask(s, f, &h);
		if (r == 0)
			return;
		/* A descriptor that cannot be passed is the file's fault; else its end is seen soon. */
		if (r == -EPIPE || r == -EAGAIN)
			return;
		s->state = CHILD_IDLE;
		set_timer(s, s->config.idle_exit_ns);
		symbol_on_failed(s, BLAME_TIMEOUT, strerrordesc_np(-r));
	}
}
