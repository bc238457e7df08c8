/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What agentd and the reader role say to each other: one message a packet, a head and what
 * follows it. Both ends are the same binary, so plain structs; agentd believes nothing of what
 * comes back. Private to agentd/profile. */

#include "agentd/base/fdpass.h"
#include "agentd/profile/local.h"
#include "agentd/profile/segment.h"

enum reader_kind {
	/* to the reader */
	READER_QUERY = 1, /* struct reader_query; a memfd with the open interval if open_len */
	READER_FILES, /* count times uint64_t: bytes of each file to read; as many descriptors */
	READER_GO,    /* that were all: answer */
	READER_ROLL,  /* struct reader_roll; the segment and the file to write to */
	/* from the reader */
	READER_BEGIN = 16, /* struct reader_answer: how much comes */
	READER_STRINGS,    /* count times: uint32_t length, bytes */
	READER_FUNCTIONS,  /* count times struct query_function; then nodes and rows likewise */
	READER_NODES,
	READER_ROWS,
	READER_PPROF,  /* bytes, count of them */
	READER_DONE,   /* the end of an answer */
	READER_ROLLED, /* struct reader_rolled */
	READER_FAILED, /* text */
};

struct reader_head {
	uint32_t kind, count;
};

struct reader_query {
	struct query query;
	uint64_t open_len;
};

struct reader_roll {
	uint64_t bytes, slot_ns; /* of the segment to read; parts get times of slot_ns */
	uint32_t level, pad;     /* of the blocks to write */
};

struct reader_answer {
	uint64_t n_strings, string_bytes, n_functions, n_nodes, n_rows;
	uint64_t from, to, total_ns, total_samples, cut_nodes, damaged, period_ns, pprof_len;
};

struct reader_rolled {
	uint64_t blocks, damaged;
	uint64_t samples[8]; /* read and so written, by type */
};

#define READER_PAYLOAD (FDPASS_MAX_MESSAGE - sizeof(struct reader_head))
/* An answer's bounds, held by both ends. */
#define READER_MAX_STRINGS   4000000U
#define READER_MAX_TEXT      (256U << 20)
#define READER_MAX_NODES     1000000U
#define READER_MAX_FUNCTIONS 1000001U
#define READER_MAX_ROWS      20000U
