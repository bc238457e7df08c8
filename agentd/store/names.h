/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names of functions over restarts: a database of its own, of what would be made anew if it were not there. Keys and
 * values are bytes; what they mean is for who put them. Nothing here is synced to the disk: after a power loss the last
 * names may be missing. What is damaged is removed and made anew, which the log says. Runs in agentd.
 *
 * A file (of a program that was profiled) has a key, facts, and values by address. Ids are given for one life of the
 * database: one from before is -ESTALE. */

#include "agentd/base/err.h"

#define NAMES_KEY       32      /* bytes */
#define NAMES_VALUE_MAX (64000) /* bytes of one value, or of one file's facts */

struct names;

struct names_config {
	uint64_t max_bytes; /* on the disk, in all; 0: 64 MiB */
	uint64_t max_age_s; /* files not asked for since then go; 0: 30 days */
};

struct names_counters {
	uint64_t read, missing, written;
	uint64_t evicted; /* files that went for their age or for room */
	uint64_t damaged; /* times it was made anew */
	uint64_t bytes;   /* in use in the database */
};

/* A file that cannot be used at all (a folder, no rights) is an error; a damaged one is replaced. */
int names_open(struct names **ret, const char *path, const struct names_config *config,
	struct err_text *err);
struct names *names_close(struct names *n);
DEFINE_FREEP(names_closep, struct names *, names_close)

/* Everything below: 0, -ENOENT, or -errno, whatever the cause: it can be gone on without. Bytes answered are
 * borrowed until the next call. */
int names_find(struct names *n, const uint8_t key[static NAMES_KEY], uint64_t *id,
	const void **facts, size_t *len);
/* In place of what was there of this key: its values go. */
int names_put_file(struct names *n, const uint8_t key[static NAMES_KEY], const void *facts,
	size_t len, uint64_t *id);
int names_get(struct names *n, uint64_t id, uint64_t address, const void **value, size_t *len);
/* Values are written between begin and commit; -ESTALE: the file went meanwhile. */
int names_begin(struct names *n);
int names_put(struct names *n, uint64_t id, uint64_t address, const void *value, size_t len);
int names_commit(struct names *n);
/* A slice of what there is to remove, for age or room; about a millisecond. 1: there is more. */
int names_tidy(struct names *n);
void names_counters(struct names *n, struct names_counters *ret);
