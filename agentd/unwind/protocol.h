/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What agentd and the unwinder say to each other: flat messages of at most 64 KiB over one
 * SOCK_SEQPACKET socket, both ends the same binary. The child says READY once its sandbox is closed.
 * Then, one request at a time: REQUEST (pages of one file, with its descriptor unless the child is
 * thought to hold it) is answered by the slots of its first pages, in their order, and one DONE.
 * A slot comes as one SLOT message, or as two: a whole one is up to 96 KiB, and a socket's buffer of
 * an unprivileged user holds no message of that size. Integers are of the host's byte order.
 *
 * agentd believes nothing of an answer: rows_decode() checks every number, and an answer that breaks
 * a rule ends the child. */

#include "agentd/base/macros.h"
#include "agentd/unwind/slot.h"

#define ROWS_PROTOCOL      1
#define ROWS_MESSAGE_MAX   65536
#define ROWS_REQUEST_PAGES 64
#define ROWS_PROBLEM_MAX   160

enum rows_message {
	ROWS_MESSAGE_REQUEST = 1,
	ROWS_MESSAGE_READY,
	ROWS_MESSAGE_SLOT,
	ROWS_MESSAGE_DONE,
};

struct rows_header {
	uint16_t version, message;
	uint32_t size;    /* of the whole message */
	uint64_t request; /* READY: 0 */
};
_Static_assert(sizeof(struct rows_header) == 16, "header");

struct rows_request {
	struct rows_header header;
	uint32_t file; /* the child keeps what it found out of it */
	uint32_t n;
	uint32_t pages[ROWS_REQUEST_PAGES]; /* n are sent */
};
#define ROWS_REQUEST_SIZE(n) (offsetof(struct rows_request, pages) + (n) * sizeof(uint32_t))

struct rows_ready {
	struct rows_header header;
};

struct rows_slot_message {
	struct rows_header header;
	uint32_t index; /* into the request's pages */
	uint32_t total; /* bytes of the slot */
	uint32_t at;    /* where these go; 0, or the end of what came before */
	uint32_t pad;
	uint8_t bytes[]; /* to the end of the message */
};
_Static_assert(sizeof(struct rows_slot_message) == 32, "slot message");

#define ROWS_DONE_UNKNOWN_FILE 1 /* no descriptor came, and the child does not hold the file */

struct rows_done_message {
	struct rows_header header;
	uint32_t n_done;  /* pages [0, n_done) were answered; the rest is to be asked again */
	uint32_t flags;   /* ROWS_DONE_ */
	uint32_t sources; /* enum unwind_source */
	uint32_t pad;
	uint64_t memory;                /* bytes that the child holds of all its files */
	char problem[ROWS_PROBLEM_MAX]; /* of the file; "" none; clean text */
};
_Static_assert(sizeof(struct rows_done_message) == 40 + ROWS_PROBLEM_MAX, "done");

/* ---- agentd's side ------------------------------------------------------------------------------- */

/* An answer that is coming in. Zeroed, then request and n set, for each request. */
struct rows_answer {
	uint64_t request;
	uint32_t n;      /* pages asked; 0: READY is all that may come */
	uint32_t n_done; /* whole slots that came */
	uint32_t at;     /* bytes of the one that is coming */
	union {
		struct rows_slot slot;
		uint8_t bytes[ROWS_SLOT_MAX];
	} in;
};

enum rows_decoded {
	ROWS_DECODED_READY = 1,
	ROWS_DECODED_PART, /* more of this slot is to come */
	ROWS_DECODED_SLOT, /* in.slot is whole and checked: page n_done - 1 of the request */
	ROWS_DECODED_DONE,
};

/* Checks one message of the child and takes it in. message is aligned to 8. enum rows_decoded, or
 * -EBADMSG: the child lies or is broken. */
int rows_decode(struct rows_answer *a, const void *message, size_t len);

/* ---- the child's side ---------------------------------------------------------------------------- */

/* -EBADMSG: not a request. */
int rows_request_check(const struct rows_request *q, size_t len);
