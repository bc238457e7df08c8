/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SQLite, and all of its SQL: revisions of configuration documents, the audit trail, small state. WAL with
 * synchronous=FULL: what was acknowledged survives kill -9 and power loss. A database it cannot use is an error with
 * a sentence; it is never deleted or overwritten. One process at a time (a lock file beside it: a second agentd is
 * refused by name of the first's pid). Runs in agentd. */

#include "agentd/base/err.h"

struct store;

int store_open(struct store **ret, const char *path, struct err_text *err);
struct store *store_close(struct store *s);
DEFINE_FREEP(store_closep, struct store *, store_close)

struct store_revision {
	uint64_t revision;	/* global, rising by one */
	const char *layer, *origin, *reason, *hash, *diff;	/* hash: hex of the document's text */
	uint32_t uid;
	uint64_t time_unix_ns;
};

/* The newest document of a layer into *text (caller frees; NULL where there is none) and its revision. */
int store_layer_load(struct store *s, const char *layer, char **text, size_t *len, uint64_t *revision, struct err_text *err);
uint64_t store_head(struct store *s);
/* One transaction: a new immutable revision with the whole document of the layer. -ESTALE if head moved. Disk full and
 * I/O errors leave the former state and say so. */
int store_commit(struct store *s, const struct store_revision *r, const char *text, size_t len, uint64_t expected_head,
	uint64_t *revision, struct err_text *err);
int store_history(struct store *s, size_t limit,
	void (*visit)(void *userdata, const struct store_revision *r), void *userdata, struct err_text *err);
/* Small counters and values that outlive a restart ("batch/serial"). */
int store_state_set(struct store *s, const char *key, uint64_t value, struct err_text *err);
int store_state_get(struct store *s, const char *key, uint64_t *value);	/* -ENOENT */
