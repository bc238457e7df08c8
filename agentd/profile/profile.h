/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The batch: one dictionary, many profiles, each for a (resource, type). What agentd builds at
 * an interval's end, what the exporter decodes and shapes, what the local profiles keep. On the
 * wire between roles it is an OTLP ExportRequest (agentd/wire/otlp.proto) that obeys every rule
 * of receivers; profile_encode() and profile_decode() are the only codec. Indices are into the
 * tables; index 0 is each table's zero entry. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"

/* ---- types ---- */

enum profile_temporality { PROFILE_DELTA, PROFILE_SNAPSHOT };

struct profile_type {
	const char *name;                      /* "cpu": what people type */
	const char *sample_type, *sample_unit; /* "samples", "count" */
	const char *period_type, *period_unit; /* "cpu", "nanoseconds"; "" where there is none */
	enum profile_temporality temporality;  /* of snapshots the latest counts, deltas add up */
};
/* One row an enum sample_type. */
extern const struct profile_type profile_types[];
#define PROFILE_TYPES 1
const struct profile_type *profile_type_find(const char *name, unsigned *index);

/* ---- the dictionary ---- */

struct profile_mapping {
	uint64_t start, limit, file_offset;      /* the ELF's own virtual addresses */
	uint32_t filename;                       /* string */
	uint32_t build_id, go_build_id, htlhash; /* strings, 0 none */
};
struct profile_function {
	uint32_t name, system_name, filename; /* strings */
	uint32_t start_line;
};
struct profile_line {
	uint32_t function, line;
};
enum profile_frame_type { /* profile.frame.type of the location */
	PROFILE_FRAME_NONE,
	PROFILE_FRAME_NATIVE,
	PROFILE_FRAME_KERNEL,
	PROFILE_FRAME_GO,
	PROFILE_FRAME_JVM,
	PROFILE_FRAME_CPYTHON,
	PROFILE_FRAME_V8JS,
	PROFILE_FRAME_UNKNOWN,
	PROFILE_FRAME_DOTNET,
	PROFILE_FRAME_RUBY,
	PROFILE_FRAME_PHP,
	PROFILE_FRAME_BEAM,
	PROFILE_FRAME_LUAJIT,
	PROFILE_FRAME_TYPES
};
struct profile_location {
	uint32_t mapping;
	uint8_t frame_type;
	bool approximate;
	uint64_t address;
	uint32_t first_line, n_lines; /* into lines, innermost inline first */
};
struct profile_stack {
	uint32_t first, n; /* into stack_locations, leaf first */
};
struct profile_attribute {   /* of samples */
	uint32_t key, value; /* strings */
	bool is_int;
	int64_t number;
};
struct profile_sample {
	uint32_t stack;
	uint32_t attributes[4]; /* indices into attributes, 0 none: thread.name, thread.id, cpu */
	uint64_t value;         /* count; 0 where timestamps are given */
	uint32_t first_timestamp,
		n_timestamps; /* into profile_data.timestamps; counts or timestamps, never both */
};
struct profile_resource_attribute {
	uint32_t key, value; /* strings */
	bool is_int;
	int64_t number;
};
struct profile_resource {
	uint32_t first, n; /* into resource_attributes, sorted by key text */
};
struct profile_part {      /* one OTLP Profile */
	uint32_t resource; /* into resources */
	uint8_t type;      /* into profile_types */
	uint64_t period;   /* ns for cpu; parts of one (resource, type) may differ in it */
	uint64_t time_unix_ns, duration_ns;
	uint8_t id[16]; /* from batch and part: a repeat can be recognised */
	struct profile_sample *samples;
	uint32_t n_samples, room;
	uint64_t total; /* sum of values (or timestamps): samples for cpu */
};

struct batch; /* opaque; the accessors below borrow */

int batch_new(struct batch **ret);
struct batch *batch_free(struct batch *b);
DEFINE_FREEP(batch_freep, struct batch *, batch_free)

/* Interning: return the index (> 0; 0 for empty) or a negative errno (-EINVAL: an index out of
 * range). Text is copied, cut at 16 KiB and made valid UTF-8 without control characters
 * (protobuf refuses a message for one bad byte); it stays where it is until batch_free(). What
 * the other accessors return is borrowed until the next addition to that table. */
int64_t batch_string(struct batch *b, const char *s);
int64_t batch_mapping(struct batch *b, const struct profile_mapping *m);
int64_t batch_function(struct batch *b, const struct profile_function *f);
int64_t batch_location(
	struct batch *b, const struct profile_location *l, const struct profile_line *lines);
int64_t batch_stack(struct batch *b, const uint32_t *locations, size_t n);
int64_t batch_attribute(struct batch *b, const struct profile_attribute *a);
/* Sorts by key; -EEXIST for a key given twice. */
int64_t batch_resource(
	struct batch *b, const struct profile_resource_attribute *attributes, size_t n);
/* The part for this key, made if need be; borrowed until the next batch_part(). */
int batch_part(struct batch *b, uint32_t resource, unsigned type, uint64_t period,
	uint64_t time_unix_ns, uint64_t duration_ns, struct profile_part **ret);
/* Adds to the sample with this identity {stack, set of attributes}. -ERANGE: the part's total
 * would pass 2^63. */
int batch_add(struct batch *b, struct profile_part *part, uint32_t stack,
	const uint32_t attributes[4], uint64_t value);
/* Adds n points in time (unix ns), each within the part's time: -ERANGE otherwise, since a
 * receiver refuses the whole request for one outside. -EINVAL on a sample that carries a count. */
int batch_add_timestamps(struct batch *b, struct profile_part *part, uint32_t stack,
	const uint32_t attributes[4], const uint64_t *timestamps, size_t n);

const char *batch_string_at(const struct batch *b, uint32_t i);
const struct profile_mapping *batch_mapping_at(const struct batch *b, uint32_t i);
const struct profile_function *batch_function_at(const struct batch *b, uint32_t i);
const struct profile_location *batch_location_at(const struct batch *b, uint32_t i);
const struct profile_line *batch_lines(const struct batch *b, const struct profile_location *l);
const uint32_t *batch_stack_at(const struct batch *b, uint32_t i, size_t *n);
const struct profile_attribute *batch_attribute_at(const struct batch *b, uint32_t i);
const struct profile_resource_attribute *batch_resource_at(
	const struct batch *b, uint32_t i, size_t *n);
const uint64_t *batch_timestamps(
	const struct batch *b, const struct profile_sample *s); /* s->n_timestamps of them */
/* How many entries, the zero entry among them. */
size_t batch_strings(const struct batch *b);
size_t batch_locations(const struct batch *b);
size_t batch_stacks(const struct batch *b);
size_t batch_parts(const struct batch *b);
struct profile_part *batch_part_at(const struct batch *b, size_t i);
/* Sum of part totals by type. */
void batch_totals(const struct batch *b, uint64_t totals[PROFILE_TYPES]);

/* ---- the codec ---- */

struct batch_header { /* beside a batch's bytes wherever it goes */
	uint8_t boot_id[16];
	uint64_t serial; /* of the batch, 1 first, kept over restarts by the store's state */
	uint64_t from_unix_ns, to_unix_ns;
	uint64_t revision;   /* of the configuration */
	uint64_t samples[8]; /* by type */
};

/* Encodes the parts whose indices are given (all with parts NULL) with a dictionary that holds
 * just what they use: no orphans. Appended to out. A part keeps the id it came with (a decoded
 * one); else profile_id is the hash of (boot id, serial, index of the part), the same in every
 * process and version; header NULL: random ids. -E2BIG past PROFILE_MAX_ENCODED: encode fewer
 * parts at a time. */
#define PROFILE_MAX_ENCODED (64U << 20)
int profile_encode(const struct batch *b, const struct batch_header *header, const uint32_t *parts,
	size_t n_parts, struct buf *out);
/* Strict: every index in range, every table within bounds; -EBADMSG otherwise with a sentence.
 * -EFBIG past PROFILE_MAX_ENCODED or when it would take much more memory than its size lets
 * expect. */
int profile_decode(const void *data, size_t len, struct batch **ret, struct err_text *err);
/* A valid profile without samples: destination test. */
int profile_encode_empty(const char *service, uint64_t now_unix_ns, struct buf *out);
/* Copies the parts of src into dst (interning); values are kept exactly. duration_ns 0: each
 * part keeps its time and duration (and timestamps); else all get those given, equal ones become
 * one, and timestamps become counts. After a failure dst may hold a part of src: free it. */
int batch_merge(
	struct batch *dst, const struct batch *src, uint64_t time_unix_ns, uint64_t duration_ns);
