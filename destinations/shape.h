/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From batches as agentd made them to the bodies of requests.
 *
 * A row is a sample of a batch as agentd made it, in the order in which it stands there, whatever the settings are; so
 * "row 1200" means the same to every exporter and under every configuration. Shaping (rules: see shape_rules.h)
 * decides what of each row goes out, and takes away what is agentd's own (resource attributes that begin with
 * SOURCE_OWN_PREFIX). A request is a run of rows; those that became equal are added up in it. Several batches can be
 * shaped as one: their rows follow each other. */

#include "agentd/base/err.h"
#include "agentd/profile/profile.h"
#include "destinations/shape_rules.h"

struct shaped;

struct shape_batch {       /* borrowed for the call */
	const void *bytes; /* as agentd handed them over */
	size_t len;
	const struct batch_header *header;
};

/* rules: NULL none; a reference is kept. -EBADMSG with a sentence: not a batch, or not with the totals that the header
 * says. -ENOTSUP: these batches cannot be merged (n over 1), each goes out by itself. */
int shape_batches(struct shaped **ret, const struct shape_batch *list, size_t n,
	struct shape_rules *rules, struct err_text *err);
int shape_batch(struct shaped **ret, const void *bytes, size_t len,
	const struct batch_header *header, struct shape_rules *rules, struct err_text *err);
struct shaped *shape_free(struct shaped *s);
DEFINE_FREEP(shape_freep, struct shaped *, shape_free)
uint64_t shape_rows(const struct shaped *s);
uint64_t shape_batch_rows(const struct shaped *s, size_t batch); /* of one of them */
const struct shape_rules *shape_rules_of(const struct shaped *s);

enum shape_form {
	SHAPE_OTLP,      /* OTLP's ExportRequest */
	SHAPE_PPROF,     /* one pprof, of one type; attributes of resources are labels of samples */
	SHAPE_WRITE_RAW, /* Parca's WriteRawRequest: for each profile its labels and a pprof, gzipped */
};

enum shape_packing { SHAPE_PLAIN, SHAPE_GZIP, SHAPE_ZSTD };

struct shape_limits {
	uint64_t max_bytes;   /* of a request, encoded and not compressed; 0 none */
	uint64_t max_samples; /* of one profile, in rows; 0 none */
	/* What a request of more than one row should keep to as well: a backend answered that one was too big
	 * for it. 0 none. */
	uint64_t soft_bytes;
	enum shape_form form;
	enum shape_packing packing; /* of the whole body */
	/* By which it is shaped; NULL none. Borrowed, but by struct encoded, which keeps a reference. Batches are shaped
	 * before they are encoded: here it says what equal limits are. */
	struct shape_rules *rules;
};
/* Appends the packed bytes to out; nothing for SHAPE_PLAIN. */
int shape_pack(const void *data, size_t len, enum shape_packing packing, struct buf *out);
bool shape_limits_equal(const struct shape_limits *a, const struct shape_limits *b);

struct shape_profile { /* one OTLP Profile in a request */
	uint8_t type;
	uint64_t samples;
};

struct shape_share { /* what a request has of one of the batches */
	uint64_t rows;
	uint64_t samples[PROFILE_TYPES]; /* that are sent */
	uint64_t away[PROFILE_TYPES];    /* that these rows stand for beside them: shaped away */
};

struct shape_request {
	uint64_t first,
		rows; /* rows 0: of the next `skipped` rows nothing is to be sent; body is NULL */
	uint64_t skipped;
	bool too_big; /* skipped because no request can carry it; else shaping takes them away */
	struct shape_profile *profiles;
	size_t n_profiles;
	uint64_t samples
		[PROFILE_TYPES];      /* what is sent; the sum of its profiles, and of its shares */
	uint64_t away[PROFILE_TYPES]; /* what the rows stand for beside it; skipped: all of it */
	struct shape_share *shares;   /* one a batch, also where it has no row of it */
	size_t n_shares;
	uint8_t *body; /* as it goes out */
	size_t len, raw_len;
};

/* All requests from row `first` on, for one set of limits; counted references, so that destinations with the same
 * limits share the bytes. */
struct encoded {
	unsigned refs;
	struct shape_limits limits;
	uint64_t first;
	uint64_t before[PROFILE_TYPES]; /* what the rows before `first` stand for, sent or not */
	struct shape_request *requests;
	size_t n, room;
};

int shape_encode(struct shaped *s, const struct batch_header *header,
	const struct shape_limits *limits, uint64_t first, struct encoded **ret);
struct encoded *encoded_ref(struct encoded *e);
struct encoded *encoded_unref(struct encoded *e);
/* What the rows before `row` (at least `first`) stand for: sent and shaped away. */
void encoded_before(const struct encoded *e, uint64_t row, uint64_t samples[PROFILE_TYPES]);
/* The request that begins at row; NULL: none. */
const struct shape_request *encoded_at(const struct encoded *e, uint64_t row);
