/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* When a destination's next request may go, and of what kind: back-off, the circuit, and how fast what waited through
 * an outage is sent. Times are monotonic nanoseconds. */

#include "agentd/base/macros.h"

#define PACE_CIRCUIT 5 /* failures in a row that open the circuit */

struct pace {
	uint64_t spread;      /* of this host and destination */
	unsigned failures;    /* in a row */
	bool blocked;         /* the last one: until a person mends something */
	bool tried;           /* a small request was taken since; a real one may follow */
	uint64_t next_try_ns; /* nothing goes before */
	/* An outage was and what waited through it is not sent yet. */
	bool draining;
	uint64_t outage_ns;     /* its beginning */
	uint64_t next_drain_ns; /* nothing of the backlog goes before */
	uint64_t drain_rate;    /* bytes a second; 0: all at once, and no place in the crowd */
};

/* name: the destination's. Keeps what was set: drain_rate. */
void pace_init(struct pace *p, const char *name);
/* Other options, another chance: at once. */
void pace_reset(struct pace *p);
/* It answered a real request with yes, or with a no that is about that request alone. */
void pace_answered(struct pace *p, uint64_t now_ns);
/* A small request was taken. */
void pace_tried(struct pace *p, uint64_t now_ns);
/* asked_ns: how long the backend asked us to wait; 0 nothing. */
void pace_failed(struct pace *p, bool blocked, uint64_t asked_ns, uint64_t now_ns);
/* Whether the next request is to be a small one, that costs little if it fails. */
bool pace_wants_try(const struct pace *p);
/* There is a backlog that is as old as this, from an earlier life. */
void pace_found_backlog(struct pace *p, uint64_t age_ns, uint64_t now_ns);
/* Bytes of the backlog were sent; none of it is left. */
void pace_drained(struct pace *p, uint64_t bytes, uint64_t now_ns);
void pace_drain_end(struct pace *p);
