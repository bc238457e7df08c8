/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of the spool: spool.c (what is kept), spool_bounds.c (how much of it), spool_segment.c (files of batches),
 * spool_segment_read.c (reading them back), spool_cursor.c (the journal of progress). All numbers on disk are as this
 * machine has them; a spool does not move between machines. */

#include "agentd/base/buf.h"
#include "agentd/base/map.h"
#include "destinations/spool.h"

#define SPOOL_JOURNAL      "cursors"
#define SPOOL_JOURNAL_NEW  "cursors.new"
#define SPOOL_LOCK         "lock"
#define SPOOL_SEGMENT_MAX  (8ULL << 20)
#define SPOOL_SEGMENT_MIN  (256ULL << 10)
#define SPOOL_MAX_SEGMENTS 4096
#define SPOOL_UNDEAD       64
#define SPOOL_PENDING_MAX  (1U << 20)
#define SPOOL_JOURNAL_ROOM (256ULL << 10) /* that the journal reserves ahead */

struct spool_segment {
	uint64_t first_seq, last_seq;
	uint64_t size;
	uint32_t n_open; /* batches that are not through */
	bool sealed;     /* nothing is appended any more */
	struct spool_batch *first, *last;
	struct spool_segment *next; /* newer */
};

struct spool_range {
	uint64_t first, last; /* seq */
};

struct spool_replay;

struct spool {
	struct spool_config config;
	uint32_t seed; /* of checks */
	int dirfd, lock;

	struct spool_segment *oldest, *newest;
	uint32_t n_segments, n_open;
	uint64_t next_seq, bytes; /* of segments */
	int write_fd;             /* of the newest, unless it is sealed; -1 */
	int read_fd;              /* of read_segment; -1 */
	const struct spool_segment *read_segment;
	bool segment_dirty, folder_dirty;
	int seal_error; /* syncing at a seal failed: the next commit says so */

	int journal; /* -1: there is none, and one is made at the next commit */
	uint64_t journal_size, journal_room, compact_at;
	/* Of the journal, not written yet. Failed (too much, no memory): it is to be written anew as a whole. */
	struct buf pending;
	bool journal_dirty; /* written, not synced */
	struct spool_totals *totals;
	size_t n_totals;
	/* Segments that are through and could not be deleted. */
	struct spool_range undead[SPOOL_UNDEAD];
	size_t n_undead;
	/* Batches that were not synced and of which nobody was told; they may be in the files. */
	struct spool_range discarded[SPOOL_UNDEAD];
	size_t n_discarded;
	uint64_t committed_seq;            /* this and what is above it is not synced */
	const struct spool_replay *replay; /* while it is opened */

	uint64_t round; /* of sparing */
	struct spool_state state;
};

/* ---- spool_segment.c ---- */

int spool_segment_append(struct spool *s, const struct batch_header *header, const void *bytes,
	size_t size, const uint32_t *destinations, size_t n, struct spool_batch **ret);
/* Index and end; nothing is appended afterwards. */
void spool_segment_seal(struct spool *s);
void spool_segment_name(uint64_t first_seq, char out[32]);
/* The number in such a name; 0: it is none. */
uint64_t spool_segment_parse(const char *name);
/* All of it, over EINTR and short writes. */
int spool_pwrite(int fd, const void *data, size_t len, uint64_t offset);
int spool_segment_open(const struct spool *s, uint64_t first_seq, int flags);
void spool_segment_free(struct spool_segment *g);
/* Off the list, and its memory. */
void spool_segment_forget(struct spool *s, struct spool_segment *g);
struct spool_batch *spool_batch_free(struct spool_batch *b);

/* ---- spool_segment_read.c ---- */

/* Reads one file; its batches become a segment, in order of numbers. 1: thrown away; 0; -errno. */
int spool_segment_load(struct spool *s, uint64_t first_seq, bool newest);

/* ---- spool_cursor.c ---- */

struct spool_progress_key {
	uint64_t seq;
	uint64_t destination;
};

struct spool_progress_value {
	uint64_t row;
	bool final;
	struct message_counts counts;
};

/* What the journal says; made by spool_cursor_load(), taken by the segments. */
struct spool_replay {
	struct map *progress; /* by spool_progress_key */
	struct spool_range *dropped;
	bool *whole; /* a file, by its first number; else single batches (DISCARDED) */
	size_t n_dropped;
};
bool spool_was_dropped(const struct spool_replay *r, uint64_t seq, bool file);

int spool_cursor_load(struct spool *s, struct spool_replay *ret);
void spool_replay_deinit(struct spool_replay *r);
void spool_cursor_progress(
	struct spool *s, const struct spool_batch *b, const struct spool_route *r);
void spool_cursor_discarded(struct spool *s, uint64_t first, uint64_t last);
void spool_cursor_dropped(struct spool *s, uint64_t first, uint64_t last);
/* Writes and syncs what is pending; compacts. */
int spool_cursor_commit(struct spool *s);
struct spool_totals *spool_totals_get(struct spool *s, uint32_t destination);
void spool_counts_add(struct message_counts *to, const struct message_counts *c, bool minus);
static inline bool spool_cursor_pending(const struct spool *s)
{
	return s->pending.len || s->pending.failed || s->journal_dirty || s->state.progress_behind;
}
