/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From a batch as agentd made it to the bodies of requests.
 *
 * Shaping takes away what is agentd's own (resource attributes that begin with SOURCE_OWN_PREFIX) and adds up parts
 * that are the same then. The rows of a shaped batch are the samples of its parts, in order; the order depends on the
 * bytes alone, so that "row 1200" means the same to every exporter. A request is a run of rows within the limits. */

#include "agentd/base/err.h"
#include "agentd/profile/profile.h"

struct shaped;

/* bytes: as agentd handed them over; borrowed for the call. -EBADMSG with a sentence: not a batch, or not with the
 * totals that the header says. */
int shape_batch(struct shaped **ret, const void *bytes, size_t len,
	const struct batch_header *header, struct err_text *err);
struct shaped *shape_free(struct shaped *s);
DEFINE_FREEP(shape_freep, struct shaped *, shape_free)
uint64_t shape_rows(const struct shaped *s);

struct shape_limits {
	uint64_t max_bytes;   /* of a request, encoded and not compressed; 0 none */
	uint64_t max_samples; /* of one profile, in rows; 0 none */
	bool gzip;
};

struct shape_profile { /* one OTLP Profile in a request */
	uint8_t type;
	uint64_t samples;
};

struct shape_request {
	uint64_t first, rows; /* rows 0: a row that no request can carry; body is NULL */
	uint64_t skipped;     /* then how many rows are passed over, 1 */
	struct shape_profile *profiles;
	size_t n_profiles;
	uint64_t samples[PROFILE_TYPES]; /* what the rows add up to */
	uint8_t *body;                   /* as it goes out */
	size_t len, raw_len;
};

/* All requests from row `first` on, for one set of limits; counted references, so that destinations with the same
 * limits share the bytes. */
struct encoded {
	unsigned refs;
	struct shape_limits limits;
	uint64_t first;
	uint64_t before[PROFILE_TYPES]; /* what the rows before `first` add up to */
	struct shape_request *requests;
	size_t n, room;
};

int shape_encode(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, uint64_t first, struct encoded **ret);
struct encoded *encoded_ref(struct encoded *e);
struct encoded *encoded_unref(struct encoded *e);
/* What the rows before `row` (at least `first`) add up to. */
void encoded_before(const struct encoded *e, uint64_t row, uint64_t samples[PROFILE_TYPES]);
/* The request that begins at row; NULL: none. */
const struct shape_request *encoded_at(const struct encoded *e, uint64_t row);
