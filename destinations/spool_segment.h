/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A file of batches, as it lies on the disk, for the two that know it: spool_segment.c writes it, spool_segment_read.c
 * reads it back.
 *
 * A segment is named by the number of its first batch and begins with a head; records follow, each a head with the
 * numbers of the destinations and a check of its own, then the compressed bytes, whose check is in the head. All is
 * aligned to 8 bytes. A full segment ends with an index (the heads again, each with where its bytes are) and a tail that
 * tells where it is. Checks of heads begin with the instance's number, which no profiled program knows, so that none can
 * put what looks like a record into a batch. */

#include "destinations/spool_private.h"

#define SPOOL_SEGMENT_MAGIC 0x3153444fU /* "ODS1" */
#define SPOOL_RECORD_MAGIC  0x3142444fU /* "ODB1" */
#define SPOOL_TAIL_MAGIC    0x3149444fU /* "ODI1" */
#define SPOOL_INDEX_MAX     (64U << 20)
#define SPOOL_ALIGN8(n)     (((uint64_t)(n) + 7) & ~7ULL)

struct spool_segment_head {
	uint32_t magic, pad;
	uint64_t instance, first_seq;
	uint32_t pad2, check;
};
_Static_assert(sizeof(struct spool_segment_head) == 32, "spool_segment_head");

struct spool_record_head {
	uint32_t magic;
	uint32_t check; /* of this and the routes, with 0 here */
	uint64_t seq, boottime_ns;
	uint32_t stored, raw, payload_check, n_routes;
	struct batch_header header;
};
_Static_assert(sizeof(struct spool_record_head) == 152, "spool_record_head");

struct spool_segment_tail {
	uint32_t magic, check; /* of this, with 0 here */
	uint64_t index_offset;
	uint32_t index_len, index_check;
};
_Static_assert(sizeof(struct spool_segment_tail) == 24, "spool_segment_tail");

static inline size_t spool_head_size(uint32_t n_routes)
{
	return sizeof(struct spool_record_head) + SPOOL_ALIGN8(n_routes * sizeof(uint32_t));
}

/* A new newest segment: files are read and made in the order of their first numbers. NULL: no memory. */
struct spool_segment *spool_segment_add(struct spool *s, uint64_t first_seq);
/* At the segment's end; takes it. */
void spool_batch_add(struct spool *s, struct spool_segment *g, struct spool_batch *b);
DEFINE_FREEP(spool_batch_freep, struct spool_batch *, spool_batch_free)
