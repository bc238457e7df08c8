/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of the exporter:
 *	exporter.c		the process, messages
 *	exporter_destinations.c	where it sends to
 *	exporter_trial.c	tests of destinations
 *	exporter_spool.c	what it holds, and where
 *	exporter_recover.c	what a predecessor left
 *	exporter_room.c		what is given up */

#include "destinations/deliver.h"

/* ---- exporter.c ---- */

/* Goes out after what it tells of is on the disk. */
void exporter_tell(const void *message, size_t len);
/* The bytes of a sealed memfd of agentd's, ended by NUL, in out, whose bound is more than max. */
int exporter_read_memfd(int fd, size_t max, struct buf *out);

/* ---- exporter_destinations.c ---- */

int exporter_on_config(const struct message_config *m, int fd);
struct deliver *exporter_find(uint32_t id); /* NULL: there is no such destination */
struct deliver *exporter_at(size_t i);      /* each of them; NULL past the end */
bool exporter_sends(void);                  /* a request is under way */
/* Every destination has its turn; frees those that have left. */
void exporter_run_destinations(uint64_t now_ns, uint64_t *wake_ns);
void exporter_free_destinations(void); /* without an answer for what they hold */

/* ---- exporter_trial.c ---- */

int exporter_on_test(const struct message_test *m, int fd);
void exporter_end_tests(void); /* without an answer */

/* ---- exporter_spool.c ---- */

/* Settings, and with the first of them the folder: takes *fd. */
int keep_on_spool(const struct message_spool *m, int *fd);
/* Without agentd's folder: one that this process was given. Takes it. */
void keep_set_folder(int fd);
int keep_folder(void);          /* borrowed; -1 none */
struct spool *keep_spool(void); /* borrowed; NULL: it could not be opened (yet) */
/* Destinations are as they are to be: what the spool has is told, the first time. */
void keep_configured(void);
int keep_on_batch(const struct message_batch *m, size_t len, int fd);
/* An answer that is to go out: its progress is noted. */
void keep_note(const struct message_answer *a);
/* Syncs what was written and noted; says so of batches. To be called before anything goes out. */
void keep_commit(void);
/* Age, other tries, what is to be said of the spool. */
void keep_run(uint64_t now_ns, uint64_t *wake_ns);
/* Closes the spool; batches must be gone. */
void keep_deinit(void);
/* Hands the batch to a destination; evicted, where there is none or no memory. */
void keep_route_to(struct held_batch *b, const struct message_route *route);
/* The last one on a route: what its counts leave is evicted. */
void keep_answer(uint64_t id, const struct message_route *route, const struct batch_header *header);

/* ---- exporter_recover.c ---- */

/* Tells all that the spool has, once; without one that there is none, once, unless there may be one soon. */
void keep_tell_recovered(bool soon);
int keep_on_adopt(const struct message_adopt *m, size_t len);
/* Batches of the spool may be gone: where the last one was found does not count. */
void keep_forget_place(void);
/* Another agentd is to be told all anew. */
void keep_forget_told(void);

/* ---- exporter_room.c ---- */

/* Gives up batches until there is room for so many bytes more, or nothing that can go now. Returns how many. */
unsigned keep_make_room(uint64_t need);
void keep_within(uint64_t need); /* the same, and says so */
void keep_on_drop(const struct message_spool_drop *m);
/* What these counts leave of the batch is evicted. */
void keep_evict_left(const struct batch_header *header, struct message_counts *counts);
struct message_counts keep_counts_of(const struct spool_route *route);
/* The destination is not there any more. */
void keep_give_up_route(struct spool_batch *b, const struct spool_route *route);
