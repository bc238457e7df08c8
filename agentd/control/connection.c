/* SPDX-License-Identifier: Apache-2.0 */

/* One client's connection: bytes in, requests out; replies in, bytes out.
 *
 * A client may be slow, silent, hostile or gone, and none of that may cost the daemon more than a
 * fixed amount or delay another client. So: every buffer has a bound; what is begun (a greeting, a
 * frame, taking a reply) has to make progress within a time; a few requests are handled per turn of
 * the loop, and none while the client does not take its answers. Unpacking runs on an allocator with
 * a bound, since a frame of two-byte messages unpacks to fifty times its size.
 *
 * Invariants: nothing that handlers call closes a connection under them: connection_doom() leaves
 * that to the next turn of the loop. `in` holds at most one frame and what came with it. Runs in
 * agentd. */

#include <sys/epoll.h>
#include <sys/socket.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/control/control_private.h"

#define CHUNK    65536
#define TURN     16           /* requests handled in one turn of the loop */
#define KEEP     (2 * CHUNK)  /* an idle buffer larger than this is given back */
#define ACCURACY (100 * 1000) /* us, of the time limits */

const struct control_limits control_default_limits = {
	.connections = 256,
	.connections_uid = 32,
	.in_flight = 16,
	.out_bytes = 32U << 20,
	.out_bytes_all = 64U << 20,
	.out_pause = 1U << 20,
	.unpack_bytes = 8U << 20,
	.hello_ns = 5 * NSEC_PER_SEC,
	.frame_ns = 30 * NSEC_PER_SEC,
	.stall_ns = 30 * NSEC_PER_SEC,
	.out_progress = CHUNK,
};

/* ---- time limits --------------------------------------------------------------------------------- */

static uint64_t earliest(uint64_t a, uint64_t b)
{
	return !a ? b : !b ? a : MIN(a, b);
}

static void arm(struct connection *c)
{
	uint64_t until = earliest(c->hello_until, earliest(c->frame_until, c->stall_until));

	if (c->doomed)
		until = 1;
	if (!until) {
		sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
		return;
	}
	sd_event_source_set_time(c->timer, until / 1000);
	sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

void connection_doom(struct connection *c)
{
	/* Its memory goes now, so that the next reply does not cost another client its own. */
	c->doomed = true;
	c->server->out_bytes -= c->out_counted;
	c->out_counted = c->out_at = 0;
	buf_deinit(&c->out);
	buf_init(&c->out, 1);
	arm(c);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct connection *c = userdata;
	uint64_t now = clock_monotonic_ns();

	if (!c->doomed && c->hello_until && now >= c->hello_until) {
		c->hello_until = 0;
		connection_violation(c, "no Hello came within the time allowed");
		return 0;
	}
	if (c->doomed || (c->frame_until && now >= c->frame_until) ||
		(c->stall_until && now >= c->stall_until)) {
		if (!c->doomed)
			log_info("control: a client (pid %d, uid %u) was too slow and is closed",
				(int)c->caller.pid, (unsigned)c->caller.uid);
		connection_close(c);
		return 0;
	}
	arm(c);
	return 0;
}

/* ---- out ----------------------------------------------------------------------------------------- */

static void count_out(struct connection *c)
{
	size_t waiting = c->out.len - c->out_at;

	c->server->out_bytes += waiting - c->out_counted;
	c->out_counted = waiting;
}

static bool wants_requests(const struct connection *c)
{
	return !c->closing && !c->doomed && c->out.len - c->out_at < c->server->limits.out_pause;
}

static void watch(struct connection *c)
{
	uint32_t events =
		(wants_requests(c) ? EPOLLIN : 0) | (c->out.len > c->out_at ? EPOLLOUT : 0);

	sd_event_source_set_io_events(c->io, events);
}

/* All clients together are bounded as well; who has taken least goes first. */
static void shed(struct control_server *s)
{
	struct connection *worst = NULL;

	if (s->out_bytes <= s->limits.out_bytes_all)
		return;
	for (struct connection *c = s->connections; c; c = c->next)
		if (!c->doomed && (!worst || c->out_counted > worst->out_counted))
			worst = c;
	if (!worst)
		return;
	log_warning("control: replies of %zu bytes wait for slow clients: closing pid %d",
		s->out_bytes, (int)worst->caller.pid);
	connection_doom(worst);
}

void connection_send(struct connection *c, const ProtobufCMessage *message)
{
	struct control_server *s = c->server;

	if (c->doomed)
		return;
	if (api_frame_pack(message, API_MAX_REPLY, &c->out) < 0 ||
		c->out.len - c->out_at > s->limits.out_bytes) {
		log_info(
			"control: a client (pid %d, uid %u) does not take its replies and is closed",
			(int)c->caller.pid, (unsigned)c->caller.uid);
		connection_doom(c);
		return;
	}
	count_out(c);
	if (!c->stall_until) {
		c->stall_until = clock_monotonic_ns() + s->limits.stall_ns;
		c->out_mark = 0;
		arm(c);
	}
	watch(c);
	shed(s);
}

static void out_done(struct connection *c)
{
	buf_reset(&c->out);
	c->out_at = 0;
	c->stall_until = 0;
	/* Log lines may have waited for room. */
	if (c->server->n_followers)
		sd_event_source_set_enabled(c->server->logs_source, SD_EVENT_ONESHOT);
	if (c->out.size > KEEP) {
		size_t cap = c->out.cap;

		buf_deinit(&c->out);
		buf_init(&c->out, cap);
	}
	arm(c);
}

/* What was sent makes room once it is most of the buffer. */
static void out_compact(struct connection *c)
{
	if (c->out_at < KEEP || c->out_at < c->out.len / 2)
		return;
	memmove(c->out.data, c->out.data + c->out_at, c->out.len - c->out_at);
	c->out.len -= c->out_at;
	c->out_at = 0;
}

/* 0, or -errno when the client is gone. */
static int flush_out(struct connection *c)
{
	struct control_server *s = c->server;

	while (c->out_at < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		c->out_at += (size_t)n;
		c->out_mark += (size_t)n;
	}
	if (c->out_at == c->out.len) {
		out_done(c);
	} else if (c->out_mark >= s->limits.out_progress) {
		/* A byte now and then is no progress. */
		c->out_mark = 0;
		c->stall_until = clock_monotonic_ns() + s->limits.stall_ns;
		arm(c);
	}
	out_compact(c);
	count_out(c);
	watch(c);
	return 0;
}

/* ---- in ------------------------------------------------------------------------------------------ */

void connection_violation(struct connection *c, const char *text)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Error error = CONTROL__ERROR__INIT;

	log_info("control: a client (pid %d, uid %u) is closed: %s", (int)c->caller.pid,
		(unsigned)c->caller.uid, text);
	error.code = CONTROL__CODE__INVALID;
	error.message = (char *)text;
	reply.final = true;
	reply.error = &error;
	c->closing = true;
	c->hello_until = c->frame_until = 0;
	connection_send(c, &reply.base);
	arm(c);
	watch(c);
}

struct budget {
	size_t left;
};

/* protobuf-c frees everything through the same allocator, but never needs to be given back. */
static void *budget_alloc(void *userdata, size_t size)
{
	struct budget *b = userdata;

	/* What malloc itself needs counts as well: hostile messages are many and tiny. */
	if (size + 16 > b->left)
		return NULL;
	b->left -= size + 16;
	return malloc(size);
}

static void budget_free(void *userdata, void *p)
{
	free(p);
}

static void on_hello(struct connection *c, const uint8_t *payload, size_t len)
{
	struct budget budget = {c->server->limits.unpack_bytes};
	ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
	Control__Hello *hello = control__hello__unpack(&allocator, len, payload);
	uint32_t protocol = hello ? hello->protocol : 0;

	if (hello)
		control__hello__free_unpacked(hello, &allocator);
	if (!hello) {
		connection_violation(c, "the first frame is not a Hello");
	} else if (protocol != API_PROTOCOL) {
		connection_violation(c,
			"this agentd (" ODI_VERSION
			") speaks another protocol: use the odictl that came with it");
	} else {
		c->greeted = true;
		c->hello_until = 0;
		arm(c);
	}
}

static void on_request(struct connection *c, const uint8_t *payload, size_t len)
{
	struct budget budget = {c->server->limits.unpack_bytes};
	ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
	Control__Request *request = control__request__unpack(&allocator, len, payload);
	size_t own, rest;

	if (!request) {
		connection_violation(c, "a frame is not a request");
		return;
	}
	own = request->verb_case == CONTROL__REQUEST__VERB_APPLY
		? MIN(request->apply->descriptors, c->n_fds)
		: 0;
	rest = c->n_fds - own;
	verbs_dispatch(c, request);
	/* Refused before they were taken: not for the next request. */
	if (c->n_fds > rest)
		connection_drop_fds(c, c->n_fds - rest);
	control__request__free_unpacked(request, &allocator);
}

/* Handles what is whole; at most TURN of them, so that one client does not hold the loop. */
static void handle_frames(struct connection *c)
{
	c->pending = false;
	for (unsigned n = 0; wants_requests(c); n++) {
		const uint8_t *payload;
		size_t len;
		ssize_t used = api_frame_find(c->in.data ? c->in.data + c->in_at : NULL,
			c->in.len - c->in_at, API_MAX_REQUEST, &payload, &len);

		if (used < 0) {
			connection_violation(c, "a frame is longer than a request may be");
			return;
		}
		if (used == 0)
			break;
		if (n == TURN) {
			c->pending = true;
			sd_event_source_set_enabled(c->more, SD_EVENT_ONESHOT);
			return;
		}
		c->in_at += (size_t)used;
		c->frame_until = 0;
		if (c->greeted)
			on_request(c, payload, len);
		else
			on_hello(c, payload, len);
	}
	if (c->in_at == c->in.len) {
		size_t cap = c->in.cap;

		/* They come with the first byte of a frame, and none is begun. */
		connection_drop_fds(c, c->n_fds);
		buf_reset(&c->in);
		c->in_at = 0;
		if (c->in.size > KEEP) {
			buf_deinit(&c->in);
			buf_init(&c->in, cap);
		}
		c->frame_until = 0;
	} else if (!c->frame_until && wants_requests(c) && c->greeted) {
		c->frame_until = clock_monotonic_ns() + c->server->limits.frame_ns;
	}
	arm(c);
}

/* 1 goes on, 0 the client has ended it, -errno. */
static int receive(struct connection *c)
{
	void *to;
	ssize_t n;

	if (c->in_at) {
		memmove(c->in.data, c->in.data + c->in_at, c->in.len - c->in_at);
		c->in.len -= c->in_at;
		c->in_at = 0;
	}
	to = buf_reserve(&c->in, CHUNK);
	if (!to)
		return buf_error(&c->in);
	n = connection_receive(c, to, CHUNK);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -errno;
	buf_commit(&c->in, (size_t)n);
	return n > 0;
}

static int on_more(sd_event_source *source, void *userdata)
{
	handle_frames(userdata);
	return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct connection *c = userdata;
	int r = 1;

	if (c->doomed)
		return 0; /* the timer is due */
	if (events & EPOLLOUT)
		r = flush_out(c) < 0 ? -1 : 1;
	if (r > 0 && (events & EPOLLIN) && wants_requests(c)) {
		/* What came is handled before more is read: `in` stays within its bound. */
		r = c->pending ? 1 : receive(c);
		if (r > 0)
			handle_frames(c);
	} else if (r > 0 && (events & (EPOLLHUP | EPOLLERR))) {
		r = 0;
	} else if (r > 0 && (events & EPOLLOUT) && c->in_at < c->in.len) {
		handle_frames(c); /* those that waited for room */
	}
	if (r <= 0 || (c->closing && c->out_at == c->out.len))
		connection_close(c);
	return 0;
}

/* ---- life ---------------------------------------------------------------------------------------- */

static int add_sources(struct connection *c)
{
	sd_event *loop = c->server->loop;
	int r = sd_event_add_io(loop, &c->io, c->fd, EPOLLIN, on_io, c);

	if (r >= 0)
		r = sd_event_add_time(loop, &c->timer, CLOCK_MONOTONIC, 0, ACCURACY, on_timer, c);
	if (r >= 0)
		r = sd_event_add_defer(loop, &c->more, on_more, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->more, SD_EVENT_OFF);
	/* After samples: a client never delays them. */
	if (r >= 0)
		r = sd_event_source_set_priority(c->io, SD_EVENT_PRIORITY_NORMAL + 10);
	if (r >= 0)
		r = sd_event_source_set_priority(c->more, SD_EVENT_PRIORITY_NORMAL + 20);
	return r < 0 ? r : 0;
}

int connection_new(struct control_server *s, int fd, const struct control_caller *caller)
{
	struct connection *c = calloc(1, sizeof(*c));
	Control__Hello hello = CONTROL__HELLO__INIT;
	int r;

	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	c->server = s;
	c->fd = fd;
	c->caller = *caller;
	buf_init(&c->in, API_MAX_REQUEST + 2 * CHUNK);
	/* Room for one reply beyond the limit: it is judged after it was packed. */
	buf_init(&c->out, 2 * (s->limits.out_bytes + API_MAX_REPLY));
	c->next = s->connections;
	c->link = &s->connections;
	if (c->next)
		c->next->link = &c->next;
	s->connections = c;
	s->n_connections++;
	s->n_not_root += caller->uid != 0;
	r = add_sources(c);
	if (r < 0) {
		connection_close(c);
		return r;
	}
	c->hello_until = clock_monotonic_ns() + s->limits.hello_ns;
	hello.protocol = API_PROTOCOL;
	hello.version = (char *)ODI_VERSION;
	hello.access = caller->may_change ? "change" : "view";
	connection_send(c, &hello.base);
	arm(c);
	return 0;
}

void connection_close(struct connection *c)
{
	struct control_server *s = c->server;

	c->doomed = true;
	while (c->replies)
		reply_cancel(c->replies);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	s->n_connections--;
	s->n_not_root -= c->caller.uid != 0;
	s->out_bytes -= c->out_counted;
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->timer);
	sd_event_source_disable_unref(c->more);
	closep(&c->fd);
	connection_drop_fds(c, c->n_fds);
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	free(c);
}
