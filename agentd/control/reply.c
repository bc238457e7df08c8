/* SPDX-License-Identifier: Apache-2.0 */

/* A reply under construction, and what becomes of it.
 *
 * Handlers fill messages of many small parts; an arena makes that one decision about memory instead
 * of a hundred, and the end of the reply frees it all. A reply outlives its handler's call when the
 * answer comes later, and then it may outlive its client as well: the handler is told through
 * control_on_cancel(), or, where it did not ask to be told, keeps a reply whose connection is NULL
 * and whose sending does nothing.
 *
 * Invariants: a reply is in its connection's list exactly while `connection` is set; the final send
 * frees it; nothing here closes a connection (a handler may be in the middle of using it), it is
 * only marked. Runs in agentd. */

#include <stdarg.h>

#include "agentd/control/control_private.h"

#define BLOCK 4000 /* bytes; larger for what is larger */

struct control_reply *reply_new(struct connection *c, uint64_t id)
{
	struct control_reply *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->connection = c;
	r->id = id;
	r->next = c->replies;
	c->replies = r;
	c->n_replies++;
	return r;
}

struct control_reply *reply_find(struct connection *c, uint64_t id)
{
	for (struct control_reply *r = c->replies; r; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

static void arena_reset(struct control_reply *r)
{
	while (r->arena) {
		struct arena_block *next = r->arena->next;

		free(r->arena);
		r->arena = next;
	}
}

static void unlink_reply(struct control_reply *r)
{
	struct connection *c = r->connection;

	if (!c)
		return;
	for (struct control_reply **at = &c->replies; *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	c->n_replies--;
	if (r->follows_logs)
		c->server->n_followers--;
	r->connection = NULL;
}

static void reply_end(struct control_reply *r)
{
	unlink_reply(r);
	arena_reset(r);
	free(r);
}

struct control_reply *control_reply_detached(void)
{
	return calloc(1, sizeof(struct control_reply));
}

struct control_reply *control_reply_free(struct control_reply *r)
{
	if (r)
		reply_end(r);
	return NULL;
}

void *control_alloc(struct control_reply *r, size_t size)
{
	struct arena_block *b = r->arena;
	void *p;

	if (size > API_MAX_REPLY * (size_t)4)
		return NULL; /* no reply is that large */
	size = (MAX(size, 1) + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
	if (!b || b->size - b->used < size) {
		size_t room = MAX(size, (size_t)BLOCK);

		b = calloc(1, sizeof(*b) + room);
		if (!b)
			return NULL;
		b->size = room;
		b->next = r->arena;
		r->arena = b;
	}
	p = (char *)b->data + b->used;
	b->used += size;
	return p;
}

char *control_strdup(struct control_reply *r, const char *s)
{
	size_t len = s ? strlen(s) : 0;
	char *copy = control_alloc(r, len + 1);

	if (copy && len)
		memcpy(copy, s, len);
	return copy;
}

char *control_printf(struct control_reply *r, const char *format, ...)
{
	va_list ap, again;
	char *text = NULL;
	int len;

	va_start(ap, format);
	va_copy(again, ap);
	len = vsnprintf(NULL, 0, format, ap);
	if (len >= 0)
		text = control_alloc(r, (size_t)len + 1);
	if (text)
		vsnprintf(text, (size_t)len + 1, format, again);
	va_end(again);
	va_end(ap);
	return text;
}

char **control_lines(struct control_reply *r, const char *text, size_t *n)
{
	size_t count = 0;
	char **lines;

	for (const char *p = text; p && *p; p++)
		count += *p == '\n';
	lines = control_alloc(r, (count + 1) * sizeof(*lines));
	*n = 0;
	for (const char *p = text; lines && *n < count;) {
		size_t len = strcspn(p, "\n");

		lines[*n] = control_printf(r, "%.*s", (int)len, p);
		if (!lines[*n]) {
			*n = 0;
			return NULL;
		}
		++*n;
		p += len + 1;
	}
	return lines;
}

static void send_error(struct control_reply *r, Control__Code code, const char *text)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Error error = CONTROL__ERROR__INIT;

	if (!r->connection)
		return;
	error.code = code;
	error.message = (char *)text;
	reply.id = r->id;
	reply.final = true;
	reply.error = &error;
	connection_send(r->connection, &reply.base);
}

void control_send(struct control_reply *r, Control__Reply *body, bool final)
{
	body->id = r->id;
	body->final = final;
	if (!r->connection) {
		/* Nobody waits. */
	} else if (protobuf_c_message_get_packed_size(&body->base) > API_MAX_REPLY) {
		send_error(r, CONTROL__CODE__INTERNAL,
			"the answer is larger than a reply may be: ask for a part of it");
		unlink_reply(r); /* what the handler still sends of it is dropped */
	} else {
		connection_send(r->connection, &body->base);
	}
	if (final)
		reply_end(r);
	else
		arena_reset(r);
}

Control__Code control_code(int error)
{
	/* The kernel's word to agentd, not agentd's to the caller. */
	if (error == -EACCES || error == -EPERM)
		return CONTROL__CODE__UNAVAILABLE;
	return api_code_of(error);
}

void reply_fail_code(struct control_reply *r, Control__Code code, const char *text)
{
	send_error(r, code, text);
	reply_end(r);
}

void control_fail(struct control_reply *r, int error, const struct err_text *err)
{
	const char *text = err && err->text[0] ? err->text : strerrordesc_np(-error);

	reply_fail_code(r, control_code(error), text ? text : "it failed for an unknown reason");
}

void control_on_cancel(struct control_reply *r, void (*cancelled)(void *userdata), void *userdata)
{
	r->cancelled = cancelled;
	r->cancel_userdata = userdata;
}

void reply_cancel(struct control_reply *r)
{
	if (r->cancelled || r->follows_logs) {
		if (r->cancelled)
			r->cancelled(r->cancel_userdata);
		reply_end(r);
		return;
	}
	/* Its handler still holds it. */
	unlink_reply(r);
	arena_reset(r);
}

const struct control_caller *reply_caller(const struct control_reply *r)
{
	return r->connection ? &r->connection->caller : NULL;
}
