/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Batches that the exporter holds, and the queue of each destination. A batch is held once, however many queues it
 * is in; what it was encoded to is kept beside it while somebody uses it, and a little longer. */

#include "destinations/protocol.h"
#include "destinations/shape.h"
#include "destinations/spool.h"

struct held_batch {
	unsigned refs; /* queues that it is in */
	uint64_t id;   /* agentd's */
	struct batch_header header;
	void *bytes; /* mapped or read; NULL: an empty one, or not read: held_batch_bytes() */
	size_t size;
	bool mapped;               /* of agentd's memfd */
	bool kept;                 /* the spool has it, so its bytes come from there */
	struct spool_batch *spool; /* where its progress is noted; NULL: nowhere */
	struct shaped *shaped;     /* while it is encoded: see held_batch_settle() */
	struct encoded *encoded[4];
	struct held_batch *previous, *next;
};

/* Maps a sealed memfd (borrowed). -EBADMSG: not sealed or too big. The caller holds one reference. */
int held_batch_new(
	struct held_batch **ret, uint64_t id, const struct batch_header *header, int memfd);
/* One that the spool has. */
int held_batch_new_kept(struct held_batch **ret, uint64_t id, struct spool_batch *spooled);
struct held_batch *held_batch_unref(struct held_batch *b);
struct held_batch *held_batch_find(uint64_t id); /* borrowed; NULL: none */
struct held_batch *held_batch_next(
	const struct held_batch *b); /* in the order of their coming; NULL: the first */
/* The spool has it now: its bytes need not stay. */
void held_batch_keep(struct held_batch *b);
/* Where batches that are kept are read from; NULL none. Borrowed. */
void held_batch_set_spool(struct spool *s);
/* What is held in memory for want of a spool. */
uint64_t held_batch_memory(uint32_t *batches);
/* The bytes, read if need be; borrowed until held_batch_settle(). -EIO: they are damaged or cannot be read; -ENOMEM:
 * memory or descriptors are lacking now. */
int held_batch_bytes(struct held_batch *b, struct err_text *err);
/* The requests from row on, made if need be; a reference for the caller. */
int held_batch_encode(struct held_batch *b, const struct shape_limits *limits, uint64_t row,
	struct encoded **ret, struct err_text *err);
/* Called when all destinations had their turn: decoded batches are dropped, and the oldest encoded bytes that nobody
 * uses, down to a bound. */
void held_batch_settle(void);

struct queue_item {
	struct held_batch *batch; /* a reference */
	uint64_t row;             /* of the shaped batch: what is before it is settled */
	struct message_counts counts;
};

struct queue {
	struct queue_item *items;
	size_t head, n, room; /* items[head] is the oldest */
};

/* The item that has to go, so that what the queue has in memory only keeps within max_bytes; -1: none. The newest
 * stays, however big, and so does `spare` (-1: none). */
ssize_t queue_over(const struct queue *q, ssize_t spare, uint64_t max_bytes);

void queue_deinit(struct queue *q);
/* Takes a reference of its own. */
int queue_push(
	struct queue *q, struct held_batch *b, uint64_t row, const struct message_counts *counts);
struct queue_item *queue_at(struct queue *q, size_t i); /* 0: the oldest; NULL past the end */
void queue_remove(struct queue *q, size_t i);
/* What of the item is not settled yet. */
uint64_t queue_item_left(const struct queue_item *item, unsigned type);
/* Settles all that is left of it with one fate. */
void queue_item_settle(struct queue_item *item, enum fate fate);
