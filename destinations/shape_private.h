/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A shaped batch, shared by shape_rows.c (which makes it) and shape.c (which writes requests of it). */

#include "destinations/shape.h"
#include "destinations/shape_rules.h"

/* One sample of a batch as agentd made it, and what becomes of it. */
struct shape_row {
	uint64_t all;   /* samples that it stands for */
	uint64_t kept;  /* of these, those that go out; 0: nothing of the row does */
	uint32_t out;   /* part that it goes out in, in shaped.out */
	uint32_t group; /* rows of one group are one sample when they go out together */
	uint32_t
		first_timestamp; /* in the batch's table; those of a group are neighbours, in the order of rows */
	uint8_t type;
	bool timed; /* `kept` timestamps, else a count */
};

struct shape_group { /* {part, stack, attributes, whether timed} */
	uint32_t out, stack, attributes[4];
	bool timed;
	uint64_t all, before; /* samples; of the rows that were looked at so far */
	uint64_t offset;      /* of sampling down */
};

struct shape_out {
	uint32_t part; /* in the batch; its samples and id are put in for each encoding */
	uint8_t type;
	uint8_t id[16];
	uint32_t divisor; /* 1 of so many samples goes out */
	uint32_t rows;    /* that go out */
};

struct shaped {
	struct batch *batch;
	struct shape_rules *rules; /* a reference; NULL none */
	struct shape_row *rows;
	uint64_t n_rows;
	struct shape_group *groups;
	uint32_t n_groups;
	struct shape_out *out;
	size_t n_out;
	uint64_t *first; /* row of each batch; and one more: n_rows */
	size_t n_batches;
};

/* id becomes the hash of itself, of other and of two numbers. */
void shape_mix_id(uint8_t id[16], const uint8_t other[16], uint64_t a, uint64_t b);
