/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The local profiles: batches kept on this host so that `odictl top` and `flamegraph` answer
 * without any backend. agentd writes them (append, checksummed, zstd), rolls old ones up (10 s
 * batches for an hour, 1 min for a day, 10 min beyond, over one shared dictionary a block) and
 * keeps them within a size and an age. What is read is read by the reader role, from
 * descriptors. A torn tail or a damaged block costs itself, is counted and shown. Roll-ups are
 * made by the reader role too: they decode. */

#include <systemd/sd-event.h>
#include "agentd/profile/profile.h"

struct local_config {
	uint64_t max_bytes;          /* 256 MB */
	uint64_t max_age_ns;         /* 7 days */
	uint64_t fine_ns, middle_ns; /* 1 h, 1 day: how long 10 s batches and 1 min ones are kept */
};

struct local_state {
	uint64_t bytes, blocks;
	uint64_t from_unix_ns, to_unix_ns; /* the span really held; 0 nothing */
	uint64_t damaged;                  /* blocks, or stretches of bytes that were none */
	uint64_t evicted;                  /* blocks */
	uint64_t write_errors;             /* batches that were not kept, and syncs that failed */
	char last_problem[256];
};

struct local;

/* dir: a folder below the state folder, made if need be. */
int local_new(struct local **ret, sd_event *loop, const char *dir,
	const struct local_config *config, struct err_text *err);
struct local *local_free(struct local *l);
DEFINE_FREEP(local_freep, struct local *, local_free)
void local_configure(struct local *l, const struct local_config *config);
/* Keeps one batch (its encoded bytes). A failure (disk full) is counted, logged, and never stops
 * profiling. */
int local_append(struct local *l, const struct batch_header *header, const void *data, size_t len);
void local_state(struct local *l, struct local_state *ret);

/* ---- queries ---- */

enum query_group { QUERY_SERVICE = 1, QUERY_PROCESS, QUERY_THREAD, QUERY_MODULE, QUERY_FUNCTION };

struct query {
	uint64_t from_unix_ns, to_unix_ns;
	char service[256]; /* "" all; exact service.name */
	char source[80];   /* "" all; name of a source: exact resource attribute odi.source */
	unsigned type;
	/* Of the call tree; 0: 50,000. Smallest cut first: what a parent lost so is in one child
	 * of it, the function (below the root: the service) "[other]". So the sum of self_ns
	 * over all nodes is total_ns, always. */
	uint32_t max_nodes;
	bool pprof; /* the samples as a profile for other tools, too */
};
/* A part counts when the middle of its time lies in [from, to): rolled-up parts are minutes
 * long, and each belongs to exactly one of two adjoining queries. from and to of the answer say
 * what was really covered. */

/* The answer: one call tree below each service, flat. Nodes come parents first; node 0 is the
 * root. Strings are indices into strings. Values are in units of the profile type: for cpu,
 * nanoseconds (count x period) and samples. */
struct query_function {              /* functions[0] and strings[0] are empty */
	uint32_t name, module, file; /* strings; module: the last part of the mapping's path */
	uint8_t frame_type;          /* enum profile_frame_type */
	bool inlined;
};
struct query_node {
	uint32_t parent;
	uint32_t function; /* 0 for node 0 and services; an inlined one is a node of its own */
	uint32_t service;  /* strings: only on the children of node 0 (one a service), else 0 */
	uint64_t self_ns, total_ns, self_samples;
};
/* By service, process and thread; process ("nginx (123)") and thread ("worker [124]") are ""
 * where resources or samples do not carry them. The rows add up to the total; at most 10,000,
 * the rest in a service's row "[other]", "[other]". */
struct query_group_row {
	uint32_t service, process, thread; /* strings */
	uint64_t ns, samples;
};
struct query_result {
	char **strings;
	size_t n_strings;
	struct query_function *functions;
	size_t n_functions;
	struct query_node *nodes;
	size_t n_nodes;
	struct query_group_row *rows;
	size_t n_rows;
	uint64_t from_unix_ns, to_unix_ns; /* what was really covered */
	uint64_t total_ns, total_samples, cut_nodes, damaged;
	uint64_t period_ns; /* of the newest part */
	/* Where asked for: gzipped, see pprof.h, with resources as labels; else NULL. */
	uint8_t *pprof;
	size_t pprof_len;
};
void query_result_free(struct query_result *r);

/* What done gets is its own: query_result_free(). It is never called from within local_query()
 * and not after local_cancel(); local_free() calls it with an error. Asks: starts a reader child
 * over the blocks in range plus the open interval (open_data: encoded batch, may be NULL). done
 * is called back exactly once; result NULL with err on failure or after deadline_ms. At most 4
 * at a time, others wait (bounded 16, then -EBUSY). Returns an id (> 0) for local_cancel(), or
 * -errno: then done is not called. q and open_data are copied. */
int64_t local_query(struct local *l, const struct query *q, const void *open_data, size_t open_len,
	unsigned deadline_ms,
	void (*done)(void *userdata, struct query_result *result, const struct err_text *err),
	void *userdata);
void local_cancel(struct local *l, int64_t id);

/* The role (`--role reader`). */
int local_reader_main(void);
