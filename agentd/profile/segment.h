/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The files of the local profiles: blocks behind each other, each a header and the
 * zstd-compressed bytes of one batch. Private to agentd/profile. */

#include "agentd/profile/profile.h"

#define SEGMENT_HEADER    144         /* bytes */
#define SEGMENT_MAX_BLOCK (64U << 20) /* compressed, and PROFILE_MAX_ENCODED not */
#define SEGMENT_LEVELS    3           /* 0: as sampled; 1: by the minute; 2: by ten minutes */

struct segment_block {
	uint64_t offset; /* of the header in the file */
	unsigned level;
	uint32_t stored, raw; /* bytes behind the header; after decompression */
	uint64_t check;       /* of the stored bytes */
	struct batch_header header;
};

/* Appends a block: header and compressed bytes. 0 or -errno (-EFBIG: too large for a block). */
int segment_put(struct buf *out, const struct batch_header *header, unsigned level, const void *raw,
	size_t len);

/* What a walk over a file's headers met. */
struct segment_scan {
	uint64_t offset; /* where the next block is looked for; 0 first */
	uint64_t end;    /* only bytes before it are looked at */
	uint64_t tail;   /* behind the last whole block */
	/* Stretches of bytes that are no block, in front of a good one or at the end. */
	uint64_t damaged;
};
/* The next block with a whole header that lies wholly before end: 1 and *ret; 0 at the end;
 * -errno (reading failed). */
int segment_next(int fd, struct segment_scan *scan, struct segment_block *ret);
/* Reads, checks and decompresses it: raw is replaced. -EBADMSG when it is damaged. */
int segment_read(int fd, const struct segment_block *block, struct buf *raw);
/* Checks the stored bytes alone. 0, -EBADMSG, -errno. */
int segment_check(int fd, const struct segment_block *block);
