/* SPDX-License-Identifier: Apache-2.0 */

/* The client: one connection, one request at a time, every wait with an end.
 *
 * A command has to come back with an answer or a reason: agentd may be stopped in a debugger, busy,
 * gone in the middle, or something else altogether may listen on the path. So nothing here waits
 * without a deadline but api_next() where its caller says so, no length is believed past its bound,
 * and every failure is a sentence with what to type.
 *
 * Invariants: the socket does not block; `in` holds at most one frame and what was read with it;
 * replies to anything but the last request (a stream that was left) are dropped. Runs in odictl. */

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "agentd/api/api.h"
#include "agentd/base/clock.h"

#define CHUNK           65536
#define LIMIT_MS        30000
#define LIMIT_SLOW_MS   120000 /* verbs that wait for a network or a large query */
#define CONNECT_STEP_MS 20
#define MAX_FDS         16

struct api_client {
	int fd;
	char *path;
	struct buf in;
	size_t at; /* bytes of `in` that were used */
	uint64_t last_id;
	bool streaming; /* the last request's final reply has not come yet */
	Control__Hello *hello;
};

static int not_running(const char *path, struct err_text *err)
{
	return err_set(err, -ECONNREFUSED,
		"agentd is not running (%s): start it with 'systemctl start odi' or 'agentd'",
		path);
}

static int connect_error(const char *path, int error, struct err_text *err)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		return not_running(path, err);
	case EACCES:
	case EPERM:
		return err_set(err, -EACCES,
			"%s cannot be reached as this user: put sudo before the command, or ask for "
			"the group odi (to change) or odi-view (to look)",
			path);
	case EAGAIN:
		return err_set(err, -ECONNREFUSED,
			"agentd does not answer (%s): too many clients wait for it; see 'journalctl "
			"-u odi'",
			path);
	default:
		return err_set(err, -ECONNREFUSED, "cannot reach agentd (%s): %s", path,
			strerrordesc_np(error));
	}
}

static int open_socket(struct api_client *c, struct err_text *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	uint64_t until = clock_monotonic_ns() + 5 * NSEC_PER_SEC;

	if (strlen(c->path) >= sizeof(address.sun_path))
		return err_set(err, -ECONNREFUSED,
			"the socket's path is longer than %zu bytes: %.64s...",
			sizeof(address.sun_path) - 1, c->path);
	strcpy(address.sun_path, c->path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return err_set(err, -ECONNREFUSED, "cannot make a socket: %m");
	while (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		/* EAGAIN: its queue of connections is full; it will get to it. */
		if (errno != EAGAIN && errno != EINTR)
			return connect_error(c->path, errno, err);
		if (clock_monotonic_ns() > until)
			return connect_error(c->path, EAGAIN, err);
		poll(NULL, 0, CONNECT_STEP_MS);
	}
	return 0;
}

static int lost(struct api_client *c, struct err_text *err)
{
	return err_set(err, -ECONNREFUSED,
		"agentd closed the connection (%s): see 'journalctl -u odi', then try again",
		c->path);
}

static uint64_t deadline(int timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX
			      : clock_monotonic_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
}

/* 0 ready, -ETIMEDOUT, -EINTR. */
static int wait_for(struct api_client *c, short events, uint64_t until)
{
	struct pollfd p = {.fd = c->fd, .events = events};
	uint64_t now = clock_monotonic_ns(), left;
	struct timespec limit;
	int r;

	left = until > now ? until - now : 0;
	limit = (struct timespec){
		.tv_sec = (time_t)(left / NSEC_PER_SEC), .tv_nsec = (long)(left % NSEC_PER_SEC)};
	r = ppoll(&p, 1, until == UINT64_MAX ? NULL : &limit, NULL);
	if (r < 0)
		return -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

static int silent(struct api_client *c, struct err_text *err)
{
	return err_set(err, -ETIMEDOUT,
		"agentd does not answer (%s): it may be stopped or overloaded; see 'systemctl status "
		"odi'",
		c->path);
}

/* send(), with descriptors beside the first byte. */
static ssize_t send_some(
	struct api_client *c, const void *data, size_t len, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control = {};
	struct iovec v = {(void *)(uintptr_t)data, len};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	struct cmsghdr *h;

	if (!n_fds)
		return send(c->fd, data, len, MSG_NOSIGNAL);
	m.msg_control = &control;
	m.msg_controllen = CMSG_SPACE(n_fds * sizeof(*fds));
	h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n_fds * sizeof(*fds));
	memcpy(CMSG_DATA(h), fds, n_fds * sizeof(*fds));
	return sendmsg(c->fd, &m, MSG_NOSIGNAL);
}

static int send_all(struct api_client *c, const struct buf *out, const int *fds, size_t n_fds,
	uint64_t until, struct err_text *err)
{
	size_t done = 0;

	while (done < out->len) {
		ssize_t n = send_some(c, out->data + done, out->len - done, fds, done ? 0 : n_fds);
		int r;

		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		/* What agentd said before it closed may still be there to read: the caller's. */
		if (errno != EAGAIN)
			return lost(c, err);
		r = wait_for(c, POLLOUT, until);
		if (r == -ETIMEDOUT)
			return silent(c, err);
	}
	return 0;
}

/* One frame's payload, borrowed until the next call. */
static int next_frame(struct api_client *c, uint64_t until, const uint8_t **payload, size_t *len,
	struct err_text *err)
{
	for (;;) {
		ssize_t n = api_frame_find(c->in.data ? c->in.data + c->at : NULL,
			c->in.len - c->at, API_MAX_REPLY, payload, len);
		void *to;
		int r;

		if (n < 0)
			return err_set(err, -EPROTO,
				"what listens on %s does not speak agentd's protocol", c->path);
		if (n > 0) {
			c->at += (size_t)n;
			return 0;
		}
		/* What was used makes room for what comes. */
		if (c->at) {
			memmove(c->in.data, c->in.data + c->at, c->in.len - c->at);
			c->in.len -= c->at;
			c->at = 0;
		}
		to = buf_reserve(&c->in, CHUNK);
		if (!to)
			return err_set(err, -ENOMEM, "out of memory");
		n = recv(c->fd, to, CHUNK, 0);
		if (n > 0) {
			buf_commit(&c->in, (size_t)n);
			continue;
		}
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return lost(c, err);
		r = wait_for(c, POLLIN, until);
		if (r == -ETIMEDOUT)
			return silent(c, err);
		if (r < 0)
			return r;
	}
}

static int check_hello(struct api_client *c, struct err_text *err)
{
	const Control__Hello *h = c->hello;

	if (h->protocol != API_PROTOCOL && h->protocol)
		return err_set(err, -EPROTO,
			"agentd %s speaks protocol %u and this program (%s) speaks %u: use the one "
			"that came with it",
			h->version, h->protocol, ODI_VERSION, API_PROTOCOL);
	if (*h->refusal)
		return err_set(err,
			h->refusal_code == CONTROL__CODE__OK ? -EACCES
							     : api_error_of(h->refusal_code),
			"%s", h->refusal);
	if (!h->protocol)
		return err_set(err, -EPROTO, "what listens on %s does not speak agentd's protocol",
			c->path);
	return 0;
}

static int say_hello(struct api_client *c, struct err_text *err)
{
	Control__Hello own = CONTROL__HELLO__INIT;
	uint64_t until = deadline(LIMIT_MS);
	const uint8_t *payload;
	_cleanup_buf_ struct buf out;
	size_t len;
	int r;

	buf_init(&out, 0);
	do
		r = next_frame(c, until, &payload, &len, err);
	while (r == -EINTR);
	if (r < 0)
		return r;
	c->hello = control__hello__unpack(NULL, len, payload);
	if (!c->hello)
		return err_set(err, -EPROTO, "what listens on %s does not speak agentd's protocol",
			c->path);
	r = check_hello(c, err);
	if (r < 0)
		return r;
	own.protocol = API_PROTOCOL;
	own.version = (char *)ODI_VERSION;
	r = api_frame_pack(&own.base, API_MAX_REQUEST, &out);
	if (r < 0)
		return err_set(err, r, "out of memory");
	return send_all(c, &out, NULL, 0, until, err);
}

int api_connect(struct api_client **ret, const char *socket, struct err_text *err)
{
	CLEANUP(api_closep) struct api_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->fd = -1;
	buf_init(&c->in, API_MAX_REPLY + 2 * CHUNK);
	c->path = strdup(socket);
	if (!c->path)
		return err_set(err, -ENOMEM, "out of memory");
	r = open_socket(c, err);
	if (r == 0)
		r = say_hello(c, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

struct api_client *api_close(struct api_client *c)
{
	if (!c)
		return NULL;
	if (c->hello)
		control__hello__free_unpacked(c->hello, NULL);
	closep(&c->fd);
	buf_deinit(&c->in);
	free(c->path);
	free(c);
	return NULL;
}

const Control__Hello *api_hello(const struct api_client *c)
{
	return c->hello;
}

int api_fd(const struct api_client *c)
{
	return c->fd;
}

void api_reply_free(Control__Reply *reply)
{
	if (reply)
		control__reply__free_unpacked(reply, NULL);
}

static void replyp(Control__Reply **reply)
{
	api_reply_free(*reply);
}

/* The next reply to the last request. */
static int next_reply(
	struct api_client *c, uint64_t until, Control__Reply **ret, struct err_text *err)
{
	for (;;) {
		CLEANUP(replyp) Control__Reply *reply = NULL;
		const uint8_t *payload;
		size_t len;
		int r = next_frame(c, until, &payload, &len, err);

		if (r < 0)
			return r;
		reply = control__reply__unpack(NULL, len, payload);
		if (!reply ||
			(reply->id == c->last_id && !reply->error &&
				reply->body_case == CONTROL__REPLY__BODY__NOT_SET))
			return err_set(err, -EPROTO,
				"agentd's answer makes no sense (agentd %s, this program %s)",
				c->hello->version, ODI_VERSION);
		if (reply->id != c->last_id)
			continue;
		c->streaming = !reply->final;
		if (reply->error) {
			c->streaming = false;
			return err_set(err, api_error_of(reply->error->code), "%s",
				*reply->error->message ? reply->error->message
						       : "agentd could not do it");
		}
		*ret = TAKE_PTR(reply);
		return 0;
	}
}

int api_call(
	struct api_client *c, Control__Request *request, Control__Reply **ret, struct err_text *err)
{
	return api_call_with(c, request, NULL, 0, ret, err);
}

int api_call_with(struct api_client *c, Control__Request *request, const int *fds, size_t n_fds,
	Control__Reply **ret, struct err_text *err)
{
	bool slow = request->verb_case == CONTROL__REQUEST__VERB_RUN_QUERY ||
		request->verb_case == CONTROL__REQUEST__VERB_TEST_DESTINATION;
	uint64_t until = deadline(slow ? LIMIT_SLOW_MS : LIMIT_MS);
	_cleanup_buf_ struct buf out;
	int r;

	buf_init(&out, 0);
	request->id = ++c->last_id;
	c->streaming = false;
	r = api_frame_pack(&request->base, API_MAX_REQUEST, &out);
	if (r == -E2BIG)
		return err_set(
			err, -EINVAL, "the request is larger than %u KB", API_MAX_REQUEST >> 10);
	if (r < 0)
		return err_set(err, r, "out of memory");
	if (n_fds > MAX_FDS)
		return err_set(err, -EINVAL, "more than %d files at once", MAX_FDS);
	r = send_all(c, &out, fds, n_fds, until, err);
	if (r < 0)
		return r;
	do
		r = next_reply(c, until, ret, err);
	while (r == -EINTR);
	return r;
}

int api_next(struct api_client *c, int timeout_ms, Control__Reply **ret, struct err_text *err)
{
	int r;

	*ret = NULL;
	if (!c->streaming)
		return 0;
	r = next_reply(c, deadline(timeout_ms), ret, err);
	return r == -EINTR ? err_set(err, r, "interrupted") : r;
}
