/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What waits, on disk: batches in segments, and how far each destination is with each, in a journal.
 *
 * A batch is written once, compressed and checksummed, behind those before it. It counts as kept after spool_commit(),
 * which syncs what was written since the last one in one go. Progress is kept the same way: noted, then committed, and
 * only then may anybody be told. What was committed survives kill -9 and power loss; what was torn or damaged costs
 * itself, is counted and passed over. A segment is deleted when all its batches are through everywhere.
 *
 * Only numbers of destinations are in here, no names and no options. One process at a time: a lock file beside.
 * Source: "End-to-end arguments" (Saltzer, 1984) for the checks; ARIES' rule of the log before the deed. Runs in the
 * exporter. */

#include "destinations/protocol.h"

struct spool;

struct spool_config {
	/* Whose numbers of destinations these are; what another one wrote is thrown away. */
	uint64_t instance;
	uint64_t max_bytes;         /* of all files; 0: 512 MiB */
	uint64_t max_age_ns;        /* 0: 24 h */
	unsigned min_free_permille; /* of the file system, that stay free */
	uint8_t boot_id[16]; /* of this boot: ages of its batches do not rest on the wall clock */
	/* NULL: the real ones. */
	uint64_t (*unix_ns)(void);
	uint64_t (*boottime_ns)(void);
};

struct spool_route {
	uint32_t destination;
	bool final; /* through */
	uint64_t row;
	struct message_counts *counts; /* NULL: nothing settled yet */
};

struct spool_segment;

struct spool_batch {
	uint64_t seq; /* the spool's own number, never used twice */
	struct batch_header header;
	uint64_t boottime_ns; /* when it was written */
	struct spool_segment *segment;
	uint64_t offset;      /* of its bytes */
	uint32_t stored, raw; /* bytes: as they lie there; of the batch */
	uint32_t check;
	uint32_t n_routes, n_open;
	struct spool_route *routes;
	struct spool_batch *next; /* in its segment; see spool_next() */
	void *owner;              /* the caller's; NULL at first */
	uint64_t spared;          /* see spool_over() */
};

struct spool_totals { /* of one destination, over all that was ever in this spool */
	uint32_t destination;
	struct message_counts settled;
};

struct spool_state {
	uint64_t bytes, max_bytes; /* of all files, the journal among them */
	uint64_t free_bytes, disk_bytes;
	uint32_t segments, batches; /* batches that are not through */
	uint64_t newest_unix_ns;    /* end of the newest batch that ever was here; 0 none */
	uint64_t damaged;           /* batches, or stretches of bytes that were none */
	uint64_t foreign;           /* files of another instance that were thrown away */
	uint64_t write_errors, sync_errors;
	bool progress_behind; /* noted, but not on the disk */
	uint64_t recovery_ns; /* how long opening took */
};

/* Takes a descriptor of a folder of ours (a copy is kept), locks it and reads what is there. -EBUSY: another process
 * has it. -errno with a sentence. */
int spool_open(
	struct spool **ret, int dirfd, const struct spool_config *config, struct err_text *err);
struct spool *spool_close(struct spool *s); /* without a commit */
DEFINE_FREEP(spool_closep, struct spool *, spool_close)
void spool_configure(struct spool *s, uint64_t max_bytes, uint64_t max_age_ns, unsigned min_free);

/* Batches that are not through everywhere, oldest first; b NULL: the first. Borrowed until spool_reap(). */
struct spool_batch *spool_next(const struct spool *s, const struct spool_batch *b);

/* Writes a batch for these destinations (1 to PROTOCOL_DESTINATIONS). Make room first, see spool_over(). It is kept
 * after spool_commit(). -errno: nothing of it is there. */
int spool_append(struct spool *s, const struct batch_header *header, const void *bytes, size_t size,
	const uint32_t *destinations, size_t n, struct spool_batch **ret);
/* How far a destination is: absolute, only ever more. counts NULL: as they are. */
int spool_progress(struct spool *s, struct spool_batch *b, uint32_t destination, uint64_t row,
	const struct message_counts *counts, bool final);
bool spool_dirty(const struct spool *s);
/* Syncs. -errno: batches since the last commit are not kept, and struct spool_batch of them are gone. Progress
 * that could not be written is no error: it stays noted and goes with the next commit, and state says so. */
int spool_commit(struct spool *s);
/* Reads one batch, checks and decompresses it; out is replaced. -EBADMSG: it is damaged. */
int spool_read(struct spool *s, const struct spool_batch *b, struct buf *out);
/* Deletes segments whose batches are through. Call after a commit. */
void spool_reap(struct spool *s);

/* The oldest batch that has to go so that `need` more bytes keep within all bounds; NULL: there is room, or nothing
 * that could go. The caller settles its routes and asks again; those that it cannot settle now (a request is under
 * way) it gives to spool_spare(), and they are passed over until spool_spare_none(). */
struct spool_batch *spool_over(struct spool *s, uint64_t need);
void spool_spare(struct spool *s, struct spool_batch *b);
void spool_spare_none(struct spool *s);
/* Whether `need` more bytes are within all bounds. */
bool spool_has_room(struct spool *s, uint64_t need);
/* Whether they would be if all else went. */
bool spool_could_hold(const struct spool *s, uint64_t need);
/* When the next batch becomes too old; boot time, UINT64_MAX: none. */
uint64_t spool_next_expiry(const struct spool *s);

size_t spool_get_totals(const struct spool *s, const struct spool_totals **list); /* borrowed */
/* Forgets what a destination settled. It must have no open route. */
void spool_forget(struct spool *s, uint32_t destination);
void spool_get_state(const struct spool *s, struct spool_state *ret);
