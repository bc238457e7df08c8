/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of a destination's delivery: deliver.c (what waits, what goes next), deliver_answer.c (what the backend
 * said of it), deliver_configure.c (its options). */

#include "destinations/deliver.h"
#include "destinations/group.h"
#include "destinations/pace.h"

struct deliver {
	deliver_tell_fn *tell;
	struct buf spec_bytes; /* what spec borrows from */
	struct destination_spec *spec;
	const struct destination_type *type;
	const struct transport *transport;
	struct sender *sender;     /* NULL: its options cannot be used */
	struct shape_rules *rules; /* NULL: nothing is shaped */
	struct queue queue;
	uint64_t queue_bytes; /* the bound */
	struct pace pace;
	bool oldest_first;
	const struct held_batch *live;    /* came last; NULL: it is through. Only to compare with */
	const struct held_batch *current; /* is being sent, in one or more requests; NULL none */
	struct group group;    /* that goes with it, it being the first; n 0: it goes alone */
	uint64_t group_row;    /* of its rows: what is before it is settled */
	bool ungrouped;        /* they did not go together: the next is sent alone */
	uint64_t soft_bytes;   /* what a backend found too big is cut to; 0 nothing was */
	unsigned soft_taken;   /* requests that it took since */
	unsigned tiny_refused; /* single rows that were too big, in a row */
	struct buf probe;      /* a small request; under way while `probing` */
	bool probing;
	struct encoded *encoded;             /* of the current item; NULL not yet */
	const struct shape_request *request; /* under way, of `encoded` */
	bool reopen;                         /* options changed while a request was under way */
	uint64_t leave_by_ns;                /* 0: stays */
	struct message_status status;
	bool status_changed;
	uint64_t status_told_ns;
};

/* ---- deliver.c ---- */

void deliver_tell_item(struct deliver *d, const struct queue_item *item, bool final);
/* state: "ok", "failing", "idle". */
void deliver_set_state(
	struct deliver *d, const char *state, const char *reason, const char *remedy);
/* Where the batch is in the queue; -1: it is not. */
ssize_t deliver_index(struct deliver *d, const struct held_batch *b);
/* No request of the current batch is under way: another one may be chosen. */
void deliver_put_back(struct deliver *d);
/* The item is through: tells agentd, forgets it. */
void deliver_finish_item(struct deliver *d, size_t i);

/* ---- deliver_configure.c ---- */

/* Takes the options that there are now. */
void deliver_open_sender(struct deliver *d);

/* ---- deliver_answer.c: a sender's done ---- */

void deliver_on_done(void *userdata, const struct send_result *result);
/* Rows of a request that have their fate, of each batch of a group. rejected is used up. */
void deliver_settle_group(
	struct deliver *d, const struct shape_request *q, uint64_t rejected[PROFILE_TYPES]);
/* Of the small request. */
void deliver_on_probed(void *userdata, const struct send_result *result);
