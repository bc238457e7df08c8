/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The file table: every file that samples touched, by identity; look-up keys beside it; a bound on how many
 * are kept and on how many are held open. */

#include "agentd/process/mappings.h"
#include "agentd/process/process.h"

struct files;

/* on_gone (may be NULL): an id goes away. */
int files_new(struct files **ret, size_t max_files, size_t max_open,
	void (*on_gone)(void *userdata, uint32_t id), void *userdata);
struct files *files_free(struct files *f);
DEFINE_FREEP(files_freep, struct files *, files_free)

/* All return an id, or 0: no memory. They make the file the most recently used. */
/* Consumes *fd if it has use for it (and sets it to -1). key and path are remembered for files_guess(). */
struct file_seen {
	struct file_identity identity;
	uid_t owner;
	uint32_t mode;
	bool plain_numbers; /* READER_PLAIN_NUMBERS */
};
uint32_t files_add(struct files *f, const struct file_seen *seen, const struct file_key *key,
	const char *path, int *fd);
uint32_t files_add_anon(struct files *f, const char *label);
/* Code of one image, which name stands for. */
uint32_t files_add_jit(struct files *f, const char *name, const char *path);
/* What names it from now on; consumes *fd. path: "" leaves the one it has. */
void files_set_jit(struct files *f, uint32_t id, enum file_jit jit, const char *path, int *fd);
void files_set_reason(struct files *f, uint32_t id, const char *reason); /* NULL: none */
void files_drop(struct files *f, uint32_t id); /* unless somebody holds it: then it goes with age */
uint32_t files_add_unopened(
	struct files *f, const struct file_key *key, const char *path, const char *reason);
/* What was mapped under this key and path when it could still be looked at; 0: nothing was. */
uint32_t files_guess(struct files *f, const struct file_key *key, const char *path);

/* The same, but only what is certain: under that key nothing else can have been mapped at any time from
 * since_ns (CLOCK_MONOTONIC) on, and the file is still what it was. Costs one fstat; 0: has to be looked at. */
uint32_t files_known(
	struct files *f, const struct file_key *key, const char *path, uint64_t since_ns);

/* Whether it is still what it was when it was opened; false also where that cannot be told any more. */
bool files_unchanged(const struct files *f, uint32_t id);

struct file *files_get(struct files *f, uint32_t id); /* borrowed until the next add; NULL: gone */
void files_touch(struct files *f, uint32_t id);
void files_hold(struct files *f, uint32_t id);
void files_release(struct files *f, uint32_t id);
/* Gives a file whose descriptor was closed one that is open on the same; consumes it. */
void files_reopen(struct files *f, uint32_t id, const struct file_identity *identity, int *fd);
/* A sealed memfd with our own vDSO; negative: there is none. The caller's. */
int files_copy_vdso(void);
void files_counters(const struct files *f, struct process_counters *ret);
