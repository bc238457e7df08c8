/* SPDX-License-Identifier: Apache-2.0 */

/* The unwinder's answers, checked and put together.
 *
 * The child parses hostile files, so on the day that one of them takes it over its author holds the
 * other end of this socket. What is let through here goes, page by page, into memory that the
 * programs in the kernel search, so a slot is checked whole before anybody sees it.
 *
 * Invariants: the slots of an answer come in the order of its pages, each once, its bytes from first
 * to last; DONE counts what came, and nothing follows it. Runs in agentd, but for
 * rows_request_check(). */

#include "agentd/base/text.h"
#include "agentd/unwind/protocol.h"

static int decode_slot(struct rows_answer *a, const struct rows_slot_message *m)
{
	uint32_t len = m->header.size - (uint32_t)sizeof(*m);

	/* Parts of a slot are of one size, but for the last: no way to send us bytes one by one. */
	if (m->index != a->n_done || a->n_done >= a->n || m->total < sizeof(struct rows_slot) ||
		m->total > ROWS_SLOT_MAX || m->at != a->at || len == 0 || len > m->total - m->at ||
		m->pad)
		return -EBADMSG;
	if (len != m->total - m->at && m->header.size != ROWS_MESSAGE_MAX)
		return -EBADMSG;
	memcpy(a->in.bytes + m->at, m->bytes, len);
	a->at += len;
	if (a->at < m->total)
		return ROWS_DECODED_PART;
	a->at = 0;
	if (rows_slot_check(&a->in.slot, m->total) < 0)
		return -EBADMSG;
	a->n_done++;
	return ROWS_DECODED_SLOT;
}

static int decode_done(const struct rows_answer *a, const struct rows_done_message *m)
{
	/* No step forward, again and again, would be a way to keep us busy for ever. */
	if (a->n == 0 || a->at || m->n_done != a->n_done || (m->flags & ~ROWS_DONE_UNKNOWN_FILE) ||
		(m->n_done == 0) != (m->flags == ROWS_DONE_UNKNOWN_FILE) || m->pad)
		return -EBADMSG;
	if (strnlen(m->problem, sizeof(m->problem)) == sizeof(m->problem) ||
		!text_is_clean(m->problem, sizeof(m->problem)))
		return -EBADMSG;
	return ROWS_DECODED_DONE;
}

int rows_decode(struct rows_answer *a, const void *message, size_t len)
{
	const struct rows_header *h = message;

	if (len < sizeof(*h) || len > ROWS_MESSAGE_MAX || h->version != ROWS_PROTOCOL ||
		h->size != len || h->request != a->request)
		return -EBADMSG;
	switch (h->message) {
	case ROWS_MESSAGE_READY:
		return a->n == 0 && len == sizeof(struct rows_ready) ? ROWS_DECODED_READY
								     : -EBADMSG;
	case ROWS_MESSAGE_SLOT:
		return len > sizeof(struct rows_slot_message) ? decode_slot(a, message) : -EBADMSG;
	case ROWS_MESSAGE_DONE:
		return len == sizeof(struct rows_done_message) ? decode_done(a, message) : -EBADMSG;
	default:
		return -EBADMSG;
	}
}

int rows_request_check(const struct rows_request *q, size_t len)
{
	if (len < ROWS_REQUEST_SIZE(1) || q->header.version != ROWS_PROTOCOL ||
		q->header.message != ROWS_MESSAGE_REQUEST || q->header.size != len || q->n == 0 ||
		q->n > ROWS_REQUEST_PAGES || len != ROWS_REQUEST_SIZE(q->n))
		return -EBADMSG;
	return 0;
}
