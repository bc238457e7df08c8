/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How bytes get to a backend. A transport is one file and one row; a sender is one destination's use of it, with one
 * request under way at a time. All transports share the exporter's one wait, and so do other requests. */

#include "agentd/base/err.h"
#include "destinations/destination.h"
#include "destinations/protocol.h"

enum send_outcome {
	SEND_TAKEN,   /* the backend has it (perhaps not all: rejected_profiles) */
	SEND_REFUSED, /* it will never take it: not to be sent again */
	SEND_AGAIN,   /* it may take it later */
};

struct send_result {
	enum send_outcome outcome;
	unsigned http_status;       /* 0: there was no answer */
	uint64_t rejected_profiles; /* of a partial success */
	uint64_t retry_after_ns;    /* what the backend asked for; 0 nothing */
	uint64_t duration_ns, sent_bytes;
	/* In words: what happened and what to do. Both "" when all is well; with SEND_TAKEN, a remark. */
	char reason[PROTOCOL_TEXT], remedy[PROTOCOL_TEXT];
};

struct sender;
typedef void send_done_fn(void *userdata, const struct send_result *result);

struct transport {
	const char *name;
	/* Checks and copies the options. */
	int (*open)(struct sender **ret, const struct destination_type *type,
		const struct option_value *options, size_t n, struct err_text *err);
	/* Aborts what is under way, without calling done. NULL is fine. */
	struct sender *(*close)(struct sender *s);
	/* Where it goes, for people: without anything that may be secret. */
	const char *(*endpoint)(const struct sender *s);
	bool (*packs)(const struct sender *s); /* whether bodies are to be gzipped */
	/* body stays until done, which is called later, from transport_wait(). */
	int (*send)(
		struct sender *s, const void *body, size_t len, send_done_fn *done, void *userdata);
};

const struct transport *transport_find(const char *name);

int transport_init(void);
void transport_deinit(void);
/* Waits until fd is readable, a request moved on or the time is over; runs what is done. *readable says of fd. */
int transport_wait(int fd, unsigned timeout_ms, bool *readable);

/* A request under way in the wait that all share. finish is called once, from transport_wait(), with libcurl's code,
 * when the request is no longer under way. */
struct transport_job {
	void (*finish)(struct transport_job *job, int code);
};
/* handle: libcurl's easy handle, whose CURLOPT_PRIVATE becomes the job. */
int transport_add(void *handle, struct transport_job *job);
void transport_remove(void *handle); /* without calling finish */
