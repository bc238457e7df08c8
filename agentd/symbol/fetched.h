/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Debug files that came from debuginfod servers, on disk: a folder of files named by build id, bounded in bytes and in age,
 * the least recently used out first. What is in them is a stranger's: nothing here looks into them. */

#include "agentd/base/err.h"

struct fetched_config {
	uint64_t max_bytes;        /* of all; 0: 2 GiB */
	uint64_t max_file_bytes;   /* of one; 0: 1 GiB */
	uint64_t max_age_ns;       /* since it was fetched; 0: 30 days */
	unsigned min_free_percent; /* of the file system, that others find free; 0: 5 */
};

struct fetched_figures {
	uint64_t files, bytes; /* now */
	uint64_t evicted;      /* for want of room, since the start */
	uint64_t expired;      /* for their age */
	uint64_t foreign;      /* that lay there and were not ours, or not as we left them */
};

struct fetched;

/* Makes the folder, if need be, and takes over what an earlier run left; what is not as a file of ours is, is removed. */
int fetched_new(struct fetched **ret, const char *folder, const struct fetched_config *config,
	struct err_text *err);
struct fetched *fetched_free(struct fetched *f);
DEFINE_FREEP(fetched_freep, struct fetched *, fetched_free)

/* A file without a name, for writing; *max_bytes: what there is room for. -ENOSPC: none. The caller owns it. */
int fetched_begin(struct fetched *f, uint64_t *max_bytes);
/* What was written is whole: gives it its name, for which older ones may have to go. Borrows fd. bytes: how many there
 * have to be; -EBADMSG if there are not. -EINVAL: no build id (8 to 20 bytes of lower-case hex); -ENOSPC: no room after all. */
int fetched_commit(struct fetched *f, int fd, const char *build_id, uint64_t bytes);
/* For reading, as the least recently used one no more. The caller owns it. -ENOENT. */
int fetched_open(struct fetched *f, const char *build_id);
bool fetched_has(const struct fetched *f, const char *build_id);
void fetched_remove(struct fetched *f, const char *build_id);
/* Brings it within its bounds; to be called now and then. */
void fetched_trim(struct fetched *f);
/* Whether the file system has less free than it should, so that what is being written should not be. */
bool fetched_disk_is_full(const struct fetched *f);
void fetched_figures(const struct fetched *f, struct fetched_figures *ret);
