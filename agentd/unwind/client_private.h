/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The insides of agentd's side, shared by client.c (callers), files.c (queues, answers, files in
 * back-off) and child.c (the process). */

#include "agentd/base/map.h"
#include "agentd/base/sandbox.h"
#include "agentd/unwind/client.h"
#include "agentd/unwind/protocol.h"

#define FILES_KEPT  8192 /* facts */
#define FAILED_KEPT 256  /* pages of a file that are asked for again by themselves */

/* A page that was asked for and not answered: in its file's list, and in unwinder.pending by key. */
struct page_ask {
	uint64_t key; /* ROWS_KEY() */
	uint8_t cfa;  /* unwinder.refused: what its one row says, enum unwind_cfa */
	struct page_ask *next;
};

struct page_list {
	struct page_ask *first, **last;
};

struct asked_file {
	uint32_t id;
	unsigned sources;
	uint64_t pages, rows, bytes, unsupported;
	char *problem; /* NULL none */
	struct page_list asks;
	bool in_queue;
	struct asked_file *next; /* in the queue of files */
	uint64_t held_by;        /* serial of the child that holds it open; 0 none */
	uint64_t retry_at_ns;    /* in back-off until then; 0 not */
	uint8_t refused_as;      /* in back-off: enum unwind_cfa */
	unsigned failures;       /* in a row */
	uint32_t *failed;        /* pages that were answered without rows; FAILED_KEPT */
	uint32_t n_failed;
	uint64_t used; /* unwinder.clock at the last question */
};

static inline void page_list_init(struct page_list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static inline void page_list_add(struct page_list *l, struct page_ask *a)
{
	a->next = NULL;
	*l->last = a;
	l->last = &a->next;
}

static inline struct page_ask *page_list_pop(struct page_list *l)
{
	struct page_ask *a = l->first;

	if (a) {
		l->first = a->next;
		if (!l->first)
			l->last = &l->first;
	}
	return a;
}

static inline uint32_t page_ask_file(const struct page_ask *a)
{
	return (uint32_t)(a->key >> 32);
}

enum child_state {
	CHILD_NONE,
	CHILD_STARTING, /* its sandbox is not closed yet */
	CHILD_IDLE,
	CHILD_BUSY,
};

struct unwinder {
	sd_event *loop;
	struct unwinder_config config;
	const struct unwinder_ops *ops;
	void *userdata;
	struct map *files;   /* id -> struct asked_file */
	struct map *pending; /* key -> struct page_ask */
	struct asked_file *queue, **queue_tail;
	struct page_list refused; /* to be answered as pages of one row */
	uint64_t clock;
	struct unwinder_counters counters;
	struct unwind_file_facts facts; /* what the last caller borrowed */
	bool inside;                    /* an event is handled: its end sees to what is asked */
	bool handed_out;                /* something came, and on_idle was not called yet */

	struct sandbox_child child;
	enum child_state state;
	uint64_t child_serial;
	unsigned child_failures;    /* in a row */
	struct asked_file *current; /* BUSY: whose request; NULL: forgotten meanwhile */
	bool current_had_fd;
	struct rows_request request;
	struct rows_answer answer;
	uint64_t lives_cpu_us; /* of children that ended */
	/* timer: deadline, restart or idleness, by state; retry: the next end of a back-off */
	sd_event_source *io, *exit, *timer, *retry, *later;
	uint64_t message[ROWS_MESSAGE_MAX / 8];
};

/* ---- client.c
 * ----------------------------------------------------------------------------------------- */

/* Around every event: nothing is started and nobody is told of failures in between. */
void unwinder_enter(struct unwinder *u);
void unwinder_leave(struct unwinder *u);
/* What was put into unwinder.refused, or forgotten, is seen to: at the end of the event, or by the
 * next turn of the loop. */
void unwinder_see_to_it(struct unwinder *u);

/* ---- files.c
 * ------------------------------------------------------------------------------------------ */

/* Made if it was not there. NULL: no memory. */
struct asked_file *unwinder_file_get(struct unwinder *u, uint32_t id);
void unwinder_file_free(void *value);
/* Pending from now on: in its file's list, or refused. -ENOMEM. */
int unwinder_add_ask(struct unwinder *u, struct asked_file *f, uint64_t key);
void unwinder_drop_ask(struct unwinder *u, struct page_ask *a);
/* Into the queue of files, behind the others, if it has anything to ask; and out of it. */
void unwinder_enqueue(struct unwinder *u, struct asked_file *f);
void unwinder_unqueue(struct unwinder *u, struct asked_file *f);
/* Answers a. Consumes it. */
void unwinder_hand_out(
	struct unwinder *u, struct page_ask *a, const struct rows_slot *slot, size_t size);

/* The next file with something to ask, out of the queue, and u->request's pages filled; *fd: its
 * descriptor (borrowed) or -1. NULL: none. */
struct asked_file *unwinder_next_file(struct unwinder *u, int *fd);
/* A page of the current request came (u->answer), or all that will. */
void unwinder_on_slot(struct unwinder *u);
void unwinder_on_done(struct unwinder *u, const struct rows_done_message *done);

enum rows_blame {
	BLAME_CRASH,   /* the child ended by itself: once may be chance */
	BLAME_TIMEOUT, /* it took too long */
	BLAME_LIE,     /* the answer broke the contract */
};
/* The current request came to nothing at page answer.n_done. */
void unwinder_on_failed(struct unwinder *u, enum rows_blame blame, const char *why);
/* All that waits is refused, since no child can be had now. */
void unwinder_give_up_all(struct unwinder *u, const char *why);
/* ---- child.c
 * ------------------------------------------------------------------------------------------ */

/* Starts what can be started: a child if anything is asked (or ahead), the next request. */
void unwinder_pump(struct unwinder *u, bool ahead);
void unwinder_child_stop(struct unwinder *u);
uint64_t unwinder_child_cpu_us(struct unwinder *u);
