/* SPDX-License-Identifier: Apache-2.0 */

/* The listener for scrapers.
 *
 * The address is the administrator's; nobody but whoever can reach it is asked who he is, which is why it is off unless
 * it is set. This process reads strangers' requests, bounded in number, bytes and time: MAX_CONNECTIONS at once
 * (others wait in the kernel's backlog), one request a connection of at most MAX_REQUEST bytes, and all of it within
 * LIFE_NS. There is one thing to have, GET /metrics; everything else is an error and a close. When one asks, agentd is
 * asked for the text, which all who wait then get.
 *
 * All waits are in one epoll set with the socket to agentd, so that the exporter's one wait need not know of them.
 * Source: RFC 9112. Runs in the exporter. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agentd/base/buf.h"
#include "agentd/base/text.h"
#include "agentd/wire/metrics.h"
#include "destinations/metrics_http.h"

#define MAX_CONNECTIONS 8
#define MAX_REQUEST     4096
#define BACKLOG         16
#define LIFE_NS         (5 * NSEC_PER_SEC)

struct connection {
	int fd; /* -1: free */
	uint64_t end_ns;
	char in[MAX_REQUEST + 1];
	size_t n_in;
	bool waits; /* for text */
	struct buf out;
	size_t sent; /* of out; n_in is over then */
};

static struct {
	int epoll, listener, sock;
	bool listening; /* the listener is in the set: there is room for one more */
	bool asked;
	struct connection connections[MAX_CONNECTIONS];
} h = {.epoll = -1, .listener = -1, .sock = -1};

static int watch(int fd, int op, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.fd = fd};

	return epoll_ctl(h.epoll, op, fd, &e) < 0 ? -errno : 0;
}

static void close_connection(struct connection *c)
{
	closep(&c->fd); /* leaves the set by that */
	buf_deinit(&c->out);
	c->waits = false;
	c->n_in = c->sent = 0;
}

static void stop(void)
{
	for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
		if (h.epoll < 0)
			h.connections[i].fd = -1;
		else
			close_connection(&h.connections[i]);
	}
	closep(&h.listener);
	closep(&h.epoll);
	h.sock = -1;
	h.listening = h.asked = false;
}

static int parse(
	const char *address, struct sockaddr_storage *ret, socklen_t *size, struct err_text *err)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	const char *colon = strrchr(address, ':');
	uint64_t port = 0;
	char host[64];
	size_t len;

	*ret = (struct sockaddr_storage){0};
	if (colon && text_u64(colon + 1, 1, 65535, &port) == 0) {
		len = (size_t)snprintf(host, sizeof(host), "%.*s",
			(int)MIN((size_t)(colon - address), sizeof(host) - 1), address);
		if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
			host[len - 1] = '\0';
			v6->sin6_family = AF_INET6;
			v6->sin6_port = htons((uint16_t)port);
			*size = sizeof(*v6);
			if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1)
				return 0;
		}
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		*size = sizeof(*v4);
		if (inet_pton(AF_INET, host, &v4->sin_addr) == 1)
			return 0;
	}
	return err_set(err, -EINVAL, "metrics: \"%.64s\" is no address and port", address);
}

int metrics_http_listen(const char *address, struct err_text *err)
{
	struct sockaddr_storage to;
	_cleanup_close_ int fd = -1, epoll = -1;
	socklen_t size = 0;
	const int on = 1;
	int r;

	stop();
	if (!*address)
		return 0;
	r = parse(address, &to, &size, err);
	if (r < 0)
		return r;
	epoll = epoll_create1(EPOLL_CLOEXEC);
	fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Connections that ended a moment ago do not keep the port. */
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (epoll < 0 || fd < 0 || bind(fd, (struct sockaddr *)&to, size) < 0 ||
		listen(fd, BACKLOG) < 0)
		return err_set(err, -errno, "metrics cannot be had at %s: %m", address);
	h.epoll = TAKE_FD(epoll);
	h.listener = TAKE_FD(fd);
	return 0;
}

int metrics_http_wait_fd(int sock)
{
	if (h.listener < 0)
		return sock;
	if (h.sock != sock) {
		if (h.sock >= 0)
			(void)watch(h.sock, EPOLL_CTL_DEL, 0); /* may be closed already */
		h.sock = watch(sock, EPOLL_CTL_ADD, EPOLLIN) == 0 ? sock : -1;
	}
	return h.sock == sock ? h.epoll : sock;
}

/* ---- answers ------------------------------------------------------------------------------------- */

static void answer(
	struct connection *c, const char *status, const char *type, const void *body, size_t len)
{
	buf_init(&c->out, 0);
	buf_printf(&c->out,
		"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n",
		status, type, len, text_starts(status, "405") ? "Allow: GET\r\n" : "");
	buf_add(&c->out, body, len);
	if (buf_error(&c->out) || watch(c->fd, EPOLL_CTL_MOD, EPOLLOUT) < 0)
		close_connection(c);
}

static void refuse(struct connection *c, const char *status, const char *text)
{
	answer(c, status, "text/plain; charset=utf-8", text, strlen(text));
}

void metrics_http_text(const void *text, size_t len)
{
	h.asked = false;
	for (size_t i = 0; h.epoll >= 0 && i < MAX_CONNECTIONS; i++) {
		struct connection *c = &h.connections[i];

		if (c->fd < 0 || !c->waits)
			continue;
		c->waits = false;
		if (len)
			answer(c, "200 OK", METRICS_CONTENT_TYPE, text, len);
		else
			refuse(c, "503 Service Unavailable", "agentd has no metrics now\n");
	}
}

/* The head of a request is there. */
static void on_request(struct connection *c)
{
	size_t method = strcspn(c->in, " \r\n"), path;
	const char *target = c->in + method + (c->in[method] == ' '), *version;

	path = strcspn(target, " \r\n");
	version = target + path + (target[path] == ' ');
	if (!text_starts(version, "HTTP/1."))
		refuse(c, "400 Bad Request", "this is not HTTP/1\n");
	else if (method != 3 || !text_starts(c->in, "GET"))
		refuse(c, "405 Method Not Allowed", "only GET\n");
	else if (strncmp(target, "/metrics", MIN(path, (size_t)8)) != 0 || path < 8 ||
		(path > 8 && target[8] != '?'))
		refuse(c, "404 Not Found", "the metrics are at /metrics\n");
	else
		c->waits = watch(c->fd, EPOLL_CTL_MOD, EPOLLRDHUP) == 0;
	if (c->fd >= 0 && !c->waits && !c->out.len)
		close_connection(c);
}

/* ---- coming and going ---------------------------------------------------------------------------- */

static void accept_all(uint64_t now_ns)
{
	for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
		struct connection *c = &h.connections[i];

		if (c->fd >= 0)
			continue;
		c->fd = accept4(h.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (c->fd < 0)
			return;
		*c = (struct connection){.fd = c->fd, .end_ns = now_ns + LIFE_NS};
		if (watch(c->fd, EPOLL_CTL_ADD, EPOLLIN) < 0)
			close_connection(c);
	}
}

static void read_request(struct connection *c)
{
	ssize_t n = recv(c->fd, c->in + c->n_in, MAX_REQUEST - c->n_in, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close_connection(c);
		return;
	}
	c->n_in += (size_t)n;
	c->in[c->n_in] = '\0';
	if (strstr(c->in, "\r\n\r\n") || strstr(c->in, "\n\n"))
		on_request(c);
	else if (c->n_in == MAX_REQUEST || memchr(c->in, 0, c->n_in))
		refuse(c, "431 Request Header Fields Too Large", "a request is that long\n");
}

static void write_answer(struct connection *c)
{
	ssize_t n = send(
		c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		c->sent += (size_t)n;
	if (n <= 0 || c->sent == c->out.len)
		close_connection(c);
}

static struct connection *find(int fd)
{
	for (size_t i = 0; i < MAX_CONNECTIONS; i++)
		if (h.connections[i].fd == fd)
			return &h.connections[i];
	return NULL;
}

static void serve(uint64_t now_ns)
{
	struct epoll_event events[MAX_CONNECTIONS + 2];
	int n = epoll_wait(h.epoll, events, (int)ARRAY_SIZE(events), 0);

	for (int i = 0; i < n; i++) {
		struct connection *c = find(events[i].data.fd);

		if (events[i].data.fd == h.listener)
			accept_all(now_ns);
		else if (c && c->out.len)
			write_answer(c);
		else if (c && c->waits)
			close_connection(c); /* it went */
		else if (c)
			read_request(c);
	}
}

bool metrics_http_run(uint64_t now_ns, uint64_t *wake_ns)
{
	bool room = false, wanted = false;

	if (h.listener < 0)
		return false;
	serve(now_ns);
	for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
		struct connection *c = &h.connections[i];

		if (c->fd >= 0 && now_ns >= c->end_ns)
			close_connection(c);
		if (c->fd >= 0)
			*wake_ns = MIN(*wake_ns, c->end_ns);
		room |= c->fd < 0;
		wanted |= c->fd >= 0 && c->waits;
	}
	if (room != h.listening &&
		watch(h.listener, room ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, EPOLLIN) == 0)
		h.listening = room;
	/* An agentd that does not answer is asked again by those who come after. */
	if (!wanted)
		h.asked = false;
	wanted &= !h.asked;
	h.asked |= wanted;
	return wanted;
}
