/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes of any scrapers, in pieces, side by side, while time passes: who gets an answer gets one whole one; the
 * metrics go only to who asked for them, and all of them; and after its time nobody is left. An input is a list of steps:
 * a byte of what (its upper half) and whose (its lower), and for what is sent a length and the bytes.
 * Corpus: tests/fuzz/corpus/destinations_metrics_http. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "destinations/metrics_http.h"

#define CLIENTS 10 /* more than it serves at once */
#define ROOM    8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char metrics[] = "# TYPE a counter\na_total 1\n# EOF\n";

static struct client {
	int fd;
	char sent[ROOM + 1], got[ROOM + 1];
	size_t n_sent, n_got;
	bool ended; /* the other side closed */
} clients[CLIENTS];

static uint16_t port;
static uint64_t now;

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void listen_once(void)
{
	struct err_text err;
	char address[32];

	for (unsigned i = 0; !port && i < 1000; i++) {
		uint16_t at = (uint16_t)(20000 + ((unsigned)getpid() + i * 37) % 12000);

		snprintf(address, sizeof(address), "127.0.0.1:%u", at);
		if (metrics_http_listen(address, &err) == 0)
			port = at;
	}
	check(port);
	for (size_t i = 0; i < CLIENTS; i++)
		clients[i].fd = -1;
}

static void begin(struct client *c)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	/* No port is kept for a while after its end. */
	const struct linger reset = {.l_onoff = 1};

	if (c->fd >= 0)
		return;
	*c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	check(c->fd >= 0 && connect(c->fd, (const struct sockaddr *)&to, sizeof(to)) == 0);
	(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

static void read_all(struct client *c)
{
	ssize_t n = 1;

	while (c->fd >= 0 && !c->ended && n > 0) {
		n = recv(c->fd, c->got + c->n_got, ROOM - c->n_got, MSG_DONTWAIT);
		c->ended = n == 0 || (n < 0 && errno != EAGAIN);
		c->n_got += n > 0 ? (size_t)n : 0;
		check(c->n_got < ROOM);
	}
}

static bool serve(void)
{
	uint64_t wake = UINT64_MAX;
	bool wanted = metrics_http_run(now, &wake);

	check(wake == UINT64_MAX || (wake >= now && wake <= now + 5 * NSEC_PER_SEC));
	for (size_t i = 0; i < CLIENTS; i++)
		read_all(&clients[i]);
	return wanted;
}

/* What came is whole, and what was asked for. */
static void check_answer(struct client *c)
{
	static const char *const known[] = {"200 ", "400 ", "404 ", "405 ", "431 ", "503 "};
	const char *body, *length;
	bool is_known = false;

	c->got[c->n_got] = c->sent[c->n_sent] = '\0';
	if (!c->n_got)
		return;
	check(text_starts(c->got, "HTTP/1.1 "));
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		is_known |= text_starts(c->got + 9, known[i]);
	check(is_known);
	length = strstr(c->got, "\r\nContent-Length: ");
	body = strstr(c->got, "\r\n\r\n");
	check(length && body);
	check(strtoul(length + 18, NULL, 10) == c->n_got - (size_t)(body + 4 - c->got));
	if (text_starts(c->got + 9, "200 "))
		check(text_starts(c->sent, "GET /metrics") && streq(body + 4, metrics));
	/* What is right is not refused, whatever follows. */
	if (text_starts(c->sent, "GET /metrics HTTP/1.1\r\n\r\n"))
		check(text_starts(c->got + 9, "200 ") || text_starts(c->got + 9, "503 "));
}

static void end(struct client *c)
{
	if (c->fd < 0)
		return;
	check_answer(c);
	close(c->fd);
	c->fd = -1;
}

static size_t step(uint8_t what, const uint8_t *data, size_t size)
{
	struct client *c = &clients[(what & 15) % CLIENTS];
	size_t n;

	switch (what >> 4) {
	case 15:
		now += NSEC_PER_SEC;
		return 0;
	case 14:
		end(c);
		return 0;
	case 13:
		if (c->fd >= 0)
			(void)shutdown(c->fd, SHUT_WR);
		return 0;
	case 12:
		metrics_http_text(metrics, what & 1 ? 0 : strlen(metrics));
		return 0;
	default:
		if (!size)
			return 0;
		begin(c);
		n = MIN(MIN((size_t)data[0], size - 1), ROOM - c->n_sent);
		if (n && send(c->fd, data + 1, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n) {
			memcpy(c->sent + c->n_sent, data + 1, n);
			c->n_sent += n;
		}
		return 1 + MIN((size_t)data[0], size - 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!port)
		listen_once();
	for (size_t at = 0; at < size;) {
		uint8_t what = data[at++];

		at += step(what, data + at, size - at);
		(void)serve();
		(void)serve(); /* who was let in is read */
	}
	/* Those who wait are answered, and once their time is over all are gone. */
	for (size_t i = 0; i < 4; i++) {
		if (serve() || i == 1)
			metrics_http_text(metrics, strlen(metrics));
		now += 6 * NSEC_PER_SEC;
	}
	(void)serve();
	for (size_t i = 0; i < CLIENTS; i++) {
		check(clients[i].fd < 0 || clients[i].ended);
		end(&clients[i]);
	}
	(void)serve();
	return 0;
}
