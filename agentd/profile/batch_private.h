/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The batch's inside, shared by its codec, its merge and nothing else. */

#include "agentd/base/hash.h"
#include "agentd/profile/intern.h"
#include "agentd/profile/profile.h"

/* Strings never move, so that batch_string_at() may be held while more are added. */
struct text_chunk {
	struct text_chunk *next;
	size_t used, size;
	char data[];
};

#define TABLE(type)                                                                                \
	struct {                                                                                   \
		type *at;                                                                          \
		uint32_t n, room;                                                                  \
		struct intern index; /* may lag behind n: see table_sync() */                      \
	}

struct batch {
	struct text_chunk *text;
	uint64_t text_bytes;
	TABLE(const char *) strings;
	TABLE(struct profile_mapping) mappings;
	TABLE(struct profile_function) functions;
	TABLE(struct profile_location) locations;
	TABLE(struct profile_stack) stacks;
	TABLE(struct profile_attribute) attributes;
	TABLE(struct profile_resource) resources;
	TABLE(struct profile_part) parts;
	struct intern *sample_index; /* one a part */
	uint32_t sample_index_room;
	struct profile_line *lines;
	uint32_t n_lines, lines_room;
	uint32_t *stack_locations;
	uint32_t n_stack_locations, stack_locations_room;
	struct profile_resource_attribute *resource_attributes;
	uint32_t n_resource_attributes, resource_attributes_room;
	uint64_t *timestamps;
	uint32_t n_timestamps, timestamps_room;
	uint64_t n_samples;
};

/* The attributes that the codec makes of fields, and the scope. */
#define PROFILE_SCOPE_NAME      "odi"
#define PROFILE_KEY_BUILD_ID    "process.executable.build_id.gnu"
#define PROFILE_KEY_GO_BUILD_ID "process.executable.build_id.go"
#define PROFILE_KEY_HTLHASH     "process.executable.build_id.htlhash"
#define PROFILE_KEY_FRAME_TYPE  "profile.frame.type"
#define PROFILE_KEY_APPROXIMATE "odi.frame.approximate" /* found by a guess of the unwinder */
/* By enum profile_frame_type. */
#define PROFILE_FRAME_TYPE_NAMES                                                                   \
	{                                                                                          \
		"", "native", "kernel", "go", "jvm", "cpython", "v8js", "unknown", "dotnet",       \
			"ruby", "php", "beam", "luajit"                                            \
	}
int profile_id(const struct batch_header *header, uint32_t part, uint8_t id[16]);

/* A batch without zero entries, for the decoder, which appends tables as they come. */
int batch_new_raw(struct batch **ret);
/* Copies text into the batch, made valid UTF-8 without control characters, at most
 * PROFILE_MAX_STRING bytes. */
#define PROFILE_MAX_STRING 16384
const char *batch_text(struct batch *b, const char *s, size_t len);
/* The index of a string that is there, or -1. */
int64_t batch_find_string(const struct batch *b, const char *s);
/* Appends to the part without looking for an equal sample. 0 or -errno. */
int batch_push_sample(
	struct batch *b, struct profile_part *part, const struct profile_sample *sample);
/* About how much memory the batch holds. */
uint64_t batch_memory(const struct batch *b);

/* Copying parts between batches: what was copied once is remembered. */
struct merge {
	struct batch *dst;
	const struct batch *src;
	uint32_t *strings, *mappings, *functions, *locations, *stacks, *attributes, *resources;
	uint32_t *scratch;
	uint32_t scratch_room;
	struct profile_line *lines;
	uint32_t lines_room;
};
int merge_init(struct merge *m, struct batch *dst, const struct batch *src);
void merge_deinit(struct merge *m);
/* duration 0: the part's own time and duration are kept (and its id, if it becomes a part of its
 * own). Else timestamps become counts. */
int merge_part(struct merge *m, size_t part, uint64_t time_unix_ns, uint64_t duration_ns);

/* ---- looking entries up ---- */

struct candidate {
	const struct batch *b;
	const void *content;
	const void *tail; /* lines, locations, attributes */
	size_t n_tail;
};

static inline uint32_t hash32(const void *data, size_t len)
{
	return (uint32_t)hash_local(data, len);
}

/* Brings a table's index up to its entries; `at` is the position in HASH. */
#define TABLE_SYNC(b, table, HASH)                                                                 \
	({                                                                                         \
		int sync_ = 0;                                                                     \
		for (uint32_t at = (b)->table.index.n; sync_ >= 0 && at < (b)->table.n; at++)      \
			sync_ = intern_push(&(b)->table.index, HASH);                              \
		sync_;                                                                             \
	})

/* Finds or appends *entry. The table is in sync; what the entry points to is already stored or
 * stored by the caller when this returns a position equal to the old n. */
#define TABLE_INTERN(b, table, entry, hash, equal, c)                                              \
	({                                                                                         \
		int64_t at_ = intern_find(&(b)->table.index, hash, equal, c);                      \
		if (at_ < 0) {                                                                     \
			at_ = ARRAY_GROW((b)->table.at, (b)->table.room, (b)->table.n, 1);         \
			if (at_ >= 0)                                                              \
				at_ = intern_push(&(b)->table.index, hash);                        \
			if (at_ >= 0) {                                                            \
				(b)->table.at[(b)->table.n] = *(entry);                            \
				at_ = (b)->table.n++;                                              \
			}                                                                          \
		}                                                                                  \
		at_;                                                                               \
	})
