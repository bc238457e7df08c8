/* SPDX-License-Identifier: Apache-2.0 */

/* A growing byte buffer with a bound.
 *
 * Everything that is built from a stranger's input is built in one of these: the cap is the promise
 * that a lying length costs an error and not the host's memory. Errors stick, so that a writer of
 * forty fields checks once.
 *
 * Invariants: len <= cap (cap 0: no cap); size, the allocation, is at most cap + 1, and at least
 * len + 1 once anything was added; data[len] is NUL; a failed buffer keeps the bytes it had.
 * All roles. */

#include <stdarg.h>

#include "agentd/base/buf.h"

#define SIZE_FIRST 64

void buf_init(struct buf *b, size_t cap)
{
	*b = (struct buf){.cap = cap};
}

void buf_deinit(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.cap = b->cap};
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->failed = 0;
	if (b->data)
		b->data[0] = '\0';
}

/* Room for more bytes and a NUL. */
static bool make_room(struct buf *b, size_t more)
{
	size_t need, size;
	uint8_t *data;

	if (b->failed)
		return false;
	if (__builtin_add_overflow(b->len, more, &need) || (b->cap && need > b->cap) ||
		need >= SIZE_MAX / 2) {
		b->failed = -E2BIG;
		return false;
	}
	need++;
	if (need <= b->size)
		return true;
	size = MAX(b->size, (size_t)SIZE_FIRST);
	while (size < need)
		size *= 2;
	/* Doubling must not take memory that the cap will never let be used. */
	if (b->cap && size > b->cap)
		size = MAX(b->cap + 1, need);
	data = realloc(b->data, size);
	if (!data) {
		b->failed = -ENOMEM;
		return false;
	}
	b->data = data;
	b->size = size;
	return true;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
	if (!make_room(b, len))
		return;
	if (len)
		memcpy(b->data + b->len, data, len);
	buf_commit(b, len);
}

void buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *format, ...)
{
	int saved = errno, len;
	va_list ap, again;

	/* Most texts fit at once into what is there. */
	va_start(ap, format);
	va_copy(again, ap);
	len = make_room(b, 0) ? vsnprintf((char *)b->data + b->len, b->size - b->len, format, ap)
			      : -1;
	if (len < 0 && !b->failed)
		b->failed = -E2BIG; /* longer than an int can say */
	if (!b->failed && (size_t)len >= b->size - b->len) {
		b->data[b->len] = '\0';
		errno = saved;
		if (make_room(b, (size_t)len))
			vsnprintf((char *)b->data + b->len, b->size - b->len, format, again);
	}
	if (!b->failed)
		b->len += (size_t)len;
	va_end(again);
	va_end(ap);
}

void *buf_reserve(struct buf *b, size_t len)
{
	return make_room(b, len) ? b->data + b->len : NULL;
}

void buf_commit(struct buf *b, size_t len)
{
	if (b->failed || !b->data)
		return;
	/* More than was reserved is a bug of the caller; it must not become an overflow. */
	b->len += MIN(len, b->size - 1 - b->len);
	b->data[b->len] = '\0';
}

char *buf_take_str(struct buf *b)
{
	char *s;

	if (b->failed)
		return NULL;
	s = b->data ? (char *)TAKE_PTR(b->data) : strdup("");
	b->len = b->size = 0;
	return s;
}
