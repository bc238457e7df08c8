/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A receiver of profiles for the tests: a real HTTP server on a port of its own, one process a connection, told what
 * to do and asked what came through shared memory. What arrives is decoded and counted by service. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agentd/base/compress.h"
#include "agentd/base/text.h"
#include "agentd/profile/profile.h"

#define RECEIVER_SERVICES 20000

enum behaviour {
	ANSWER_STATUS,   /* `status`, empty body; 200 takes what came */
	ANSWER_PARTIAL,  /* 200 and `number` rejected profiles */
	ANSWER_HTML,     /* 200 and a web page */
	ANSWER_GARBAGE,  /* 200 and no protobuf */
	ANSWER_ENDLESS,  /* 200 and a body without end */
	ANSWER_DRIP,     /* a byte of the head each 50 ms */
	ANSWER_REDIRECT, /* 307 to another host */
	ANSWER_NEVER,    /* nothing */
	ANSWER_RESET,    /* takes the request, then resets */
	ANSWER_NOT_HTTP, /* another protocol's greeting */
};

struct receiver_shared {
	_Atomic int behaviour, status, retry_after, number, delay_ms, fail_next;
	_Atomic unsigned hold_after; /* so many requests the next one waits, while this is set */
	_Atomic unsigned requests, connections, taken, broken;
	_Atomic size_t biggest;  /* body, uncompressed */
	_Atomic size_t max_body; /* uncompressed; what is longer is answered 413; 0 none */
	_Atomic unsigned order[64], n_order; /* services as they came */
	_Atomic uint64_t samples;
	_Atomic uint32_t got[RECEIVER_SERVICES]; /* by N of the service "service-N" */
	_Atomic unsigned own_attributes;
	_Atomic unsigned biggest_profile; /* rows */
	char head[8192];                  /* of the last request */
};

struct receiver {
	pid_t pid;
	uint16_t port;
	char url[64];
	struct receiver_shared *shared;
};

static inline void receiver_write(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n <= 0)
			_exit(0);
		text += n;
		len -= (size_t)n;
	}
}

#define RECEIVER_SAY(fd, text) receiver_write(fd, text, sizeof(text) - 1)

static inline void receiver_reset(int fd)
{
	struct linger l = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
	_exit(0);
}

/* Counts what is in a body. */
static inline bool receiver_take(struct receiver_shared *s, const void *data, size_t len)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct err_text err;

	if (profile_decode(data, len, &b, &err) < 0)
		return false;
	if (len > s->biggest)
		s->biggest = len;
	for (size_t i = 0; i < batch_parts(b); i++) {
		const struct profile_part *p = batch_part_at(b, i);
		size_t n;
		const struct profile_resource_attribute *a = batch_resource_at(b, p->resource, &n);

		s->samples += p->total;
		if (p->n_samples > s->biggest_profile)
			s->biggest_profile = p->n_samples;
		for (size_t k = 0; k < n; k++) {
			const char *key = batch_string_at(b, a[k].key);
			unsigned service;

			if (text_starts(key, "odi."))
				s->own_attributes++;
			if (streq(key, "service.name") &&
				sscanf(batch_string_at(b, a[k].value), "service-%u", &service) ==
					1 &&
				service < RECEIVER_SERVICES)
				s->got[service] += (uint32_t)p->total;
			if (streq(key, "service.name") && !i && s->n_order < 64)
				(void)sscanf(batch_string_at(b, a[k].value), "service-%u",
					(unsigned *)&s->order[s->n_order++]);
		}
	}
	return true;
}

static inline void receiver_answer(
	struct receiver_shared *s, int fd, const struct buf *body, bool gzip)
{
	char head[512], more[64] = "";
	int status = s->status, behaviour = s->behaviour;
	struct buf plain;

	buf_init(&plain, 0);
	s->requests++;
	while (s->hold_after && s->requests > s->hold_after)
		usleep(1000);
	if (s->fail_next > 0 && atomic_fetch_sub(&s->fail_next, 1) > 0)
		status = 503;
	if (s->delay_ms)
		usleep((unsigned)s->delay_ms * 1000);
	if (behaviour == ANSWER_NEVER)
		for (;;)
			pause();
	while (behaviour == ANSWER_DRIP) {
		RECEIVER_SAY(fd, "H");
		usleep(50000);
	}
	if (behaviour == ANSWER_RESET)
		receiver_reset(fd);
	if (behaviour == ANSWER_NOT_HTTP) {
		RECEIVER_SAY(fd, "SSH-2.0-OpenSSH_9.2\r\n");
		_exit(0);
	}
	if (behaviour == ANSWER_REDIRECT) {
		static const char answer[] =
			"HTTP/1.1 307 Temporary Redirect\r\nLocation: "
			"http://elsewhere.invalid/x\r\nContent-Length: 0\r\n\r\n";

		receiver_write(fd, answer, sizeof(answer) - 1);
		return;
	}
	if (s->max_body && behaviour == ANSWER_STATUS && status == 200) {
		if (gzip && decompress_gzip(body->data, body->len, 256 << 20, &plain) < 0)
			s->broken++;
		if ((gzip ? plain.len : body->len) > s->max_body)
			status = 413;
		buf_reset(&plain);
	}
	if (behaviour == ANSWER_STATUS ? status == 200 : behaviour != ANSWER_HTML) {
		if (gzip ? decompress_gzip(body->data, body->len, 256 << 20, &plain) < 0 ||
					!receiver_take(s, plain.data, plain.len)
			 : !receiver_take(s, body->data, body->len))
			s->broken++;
		else
			s->taken++;
	}
	buf_deinit(&plain);
	switch (behaviour) {
	case ANSWER_PARTIAL:
		/* ExportResponse { partial_success 1 { rejected_profiles 1: N, error_message 2: "no" } } */
		snprintf(head, sizeof(head),
			"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 8\r\n\r\n"
			"\x0a\x06\x08%c\x12\x02no",
			(char)s->number);
		/* The number may be 0, which ends no string here. */
		receiver_write(fd, head,
			strlen("HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf"
			       "\r\nContent-Length: 8\r\n\r\n") +
				8);
		return;
	case ANSWER_HTML:
		RECEIVER_SAY(fd,
			"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p>x");
		return;
	case ANSWER_GARBAGE:
		RECEIVER_SAY(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff");
		return;
	case ANSWER_ENDLESS:
		RECEIVER_SAY(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		for (;;)
			RECEIVER_SAY(fd, "10\r\n0123456789abcdef\r\n");
	default:
		break;
	}
	if (s->retry_after)
		snprintf(more, sizeof(more), "Retry-After: %d\r\n", (int)s->retry_after);
	snprintf(head, sizeof(head), "HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s", status,
		more, status == 200 ? 0 : 13, status == 200 ? "" : "because I say");
	receiver_write(fd, head, strlen(head));
}

static inline void receiver_connection(struct receiver_shared *s, int fd)
{
	struct buf in;

	buf_init(&in, 0);
	s->connections++;
	for (;;) {
		char *end, *length, chunk[65536];
		size_t head, body;
		struct buf whole;

		buf_reset(&in);
		do {
			ssize_t n = recv(fd, chunk, 1, 0);

			if (n <= 0)
				_exit(0);
			/* TLS: answered as HTTP servers answer it. */
			if (!in.len && chunk[0] == 0x16) {
				RECEIVER_SAY(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
				receiver_reset(fd);
			}
			buf_add(&in, chunk, 1);
			end = strstr((char *)in.data, "\r\n\r\n");
			if (in.len > 7000)
				_exit(0);
		} while (!end);
		head = in.len;
		memcpy(s->head, in.data, head);
		s->head[head] = 0;
		length = strcasestr((char *)in.data, "\r\ncontent-length:");
		body = length ? strtoul(length + 17, NULL, 10) : 0;
		buf_init(&whole, 0);
		while (whole.len < body) {
			ssize_t n = recv(fd, chunk, MIN(sizeof(chunk), body - whole.len), 0);

			if (n <= 0)
				_exit(0);
			buf_add(&whole, chunk, (size_t)n);
		}
		receiver_answer(s, fd, &whole,
			strcasestr((char *)in.data, "\r\ncontent-encoding: gzip") != NULL);
		buf_deinit(&whole);
	}
}

/* Port 0: a free one, below those that the kernel gives to whoever connects: it has to stay free where nobody listens
 * for a while. */
static inline int receiver_listen(uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, r;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	for (int i = 0; i < 1000; i++) {
		uint16_t any = 0;

		assert_int_equal(getentropy(&any, sizeof(any)), 0);
		a.sin_port = htons(*port ? *port : (uint16_t)(10000 + any % 20000));
		r = bind(fd, (struct sockaddr *)&a, sizeof(a));
		r = r < 0 ? r : listen(fd, 64);
		if (*port || r == 0 || errno != EADDRINUSE)
			break;
	}
	assert_int_equal(r, 0);
	*port = ntohs(a.sin_port);
	return fd;
}

/* port 0: any. The shared part of an earlier one goes on if it is there. */
static inline void receiver_start(struct receiver *r, uint16_t port)
{
	int fd;

	r->port = port;
	fd = receiver_listen(&r->port);
	snprintf(r->url, sizeof(r->url), "http://127.0.0.1:%u", r->port);
	if (!r->shared) {
		r->shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		assert_true(r->shared != MAP_FAILED);
		r->shared->status = 200;
	}
	r->pid = fork();
	assert_true(r->pid >= 0);
	if (r->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		signal(SIGCHLD, SIG_IGN);
		for (;;) {
			int c = accept(fd, NULL, NULL);

			if (c < 0)
				continue;
			if (fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				close(fd);
				receiver_connection(r->shared, c);
			}
			close(c);
		}
	}
	setpgid(r->pid, r->pid);
	close(fd);
}

static inline void receiver_stop(struct receiver *r)
{
	if (r->pid > 0) {
		kill(-r->pid, SIGKILL); /* its own group: it and its connections */
		waitpid(r->pid, NULL, 0);
	}
	r->pid = -1;
}

static inline void receiver_free(struct receiver *r)
{
	receiver_stop(r);
	if (r->shared)
		munmap(r->shared, sizeof(*r->shared));
	*r = (struct receiver){.pid = -1};
}
