/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How bytes get to a backend. A transport is one row; a sender is one destination's use of it, with one request under
 * way at a time. All transports share the exporter's one wait, and so do other requests. */

#include "agentd/base/err.h"
#include "destinations/destination.h"
#include "destinations/protocol.h"
#include "destinations/shape.h"

enum send_outcome {
	SEND_TAKEN,   /* the backend has it (perhaps not all: rejected_profiles) */
	SEND_REFUSED, /* it will never take these profiles: not to be sent again */
	SEND_AGAIN,   /* it may take it later */
	SEND_TOO_BIG, /* it may take it in smaller pieces */
	SEND_BLOCKED, /* it takes nothing from us until a person mends something, here or there */
};

struct send_result {
	enum send_outcome outcome;
	unsigned http_status;       /* 0: there was no answer */
	uint64_t rejected_profiles; /* of a partial success */
	uint64_t retry_after_ns;    /* what the backend asked for; 0 nothing */
	uint64_t duration_ns, sent_bytes;
	/* In words: what happened and what to do. Both "" when all is well; with SEND_TAKEN, a remark. */
	char reason[PROTOCOL_TEXT], remedy[PROTOCOL_TEXT];
	/* Of a sender that was opened for a test: how far it came, in order. Borrowed for the call. */
	const struct message_test_step *steps;
	size_t n_steps;
};

struct sender;
typedef void send_done_fn(void *userdata, const struct send_result *result);

/* Something under way in the wait that all share. finish is called once, from transport_wait(), with libcurl's code (0
 * for what is none of it), when it is no longer under way. */
struct transport_job {
	void (*finish)(struct transport_job *job, int code);
	struct transport_job *next; /* transport_defer()'s */
};

/* What every transport's sender begins with. */
struct sender {
	struct transport_job job;
	send_done_fn *done;
	void *userdata;
	bool busy; /* a request is under way */
};

struct sender_setup {     /* all borrowed until open() returns */
	const char *name; /* of the destination */
	const struct destination_type *type;
	const struct option_value *options;
	size_t n_options;
	uint64_t
		folder; /* key of its folder, for those that write files; see transport_set_folder() */
	bool test;      /* the real path from its beginning: no kept connection, with its steps */
};

/* The value in force of one of the destination's options; "" none. */
static inline const char *sender_option(const struct sender_setup *u, const char *name)
{
	return destination_option(u->type, u->options, u->n_options, name);
}
/* Its option `compression`, else the type's. */
enum shape_packing sender_packing(const struct sender_setup *u);

struct transport {
	const char *name;
	/* Checks and copies the options. */
	int (*open)(struct sender **ret, const struct sender_setup *setup, struct err_text *err);
	/* Aborts what is under way, without calling done. NULL is fine. */
	struct sender *(*close)(struct sender *s);
	/* Where it goes, for people: without anything that may be secret. */
	const char *(*endpoint)(const struct sender *s);
	/* What bodies are to be: sets form and packing. */
	void (*shape)(const struct sender *s, struct shape_limits *limits);
	/* body stays until done, which is called later, from transport_wait(). */
	int (*send)(
		struct sender *s, const void *body, size_t len, send_done_fn *done, void *userdata);
};

const struct transport *transport_find(const char *name);
/* Appends a body that is as small as one can be, and that a backend takes when it takes any. */
int transport_probe(const struct transport *t, const struct sender *s, struct buf *out);

int transport_init(void);
void transport_deinit(void);
/* Waits until fd is readable, something moved on or the time is over; runs what is done. *readable says of fd. */
int transport_wait(int fd, unsigned timeout_ms, bool *readable);

/* handle: libcurl's easy handle, whose CURLOPT_PRIVATE becomes the job. */
int transport_add(void *handle, struct transport_job *job);
void transport_remove(void *handle); /* without calling finish */
/* finish is called in the next transport_wait(), with 0. For what needs no waiting. */
void transport_defer(struct transport_job *job);
void transport_forget(struct transport_job *job); /* without calling finish */

/* Folders that agentd opened for destinations that write files: by the destination's id, or TRANSPORT_TEST and the id
 * of a test. Takes fd; -1 forgets. */
int transport_set_folder(uint64_t key, int fd);
int transport_folder(uint64_t key); /* borrowed; -1 none */
int transport_folder_at(size_t i);  /* each of them, borrowed; -1 past the end */
