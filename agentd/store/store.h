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
	uint64_t revision; /* global, rising by one */
	const char *layer, *origin, *reason, *hash,
		*diff; /* hash: SHA-256 of the document's text, hex; made here */
	uint32_t uid;
	uint64_t time_unix_ns; /* 0 at a commit: now */
};

#define STORE_MAX_DOCUMENT   (8U << 20) /* bytes of one document */
#define STORE_KEEP_REVISIONS 10000      /* older ones go, but for each layer's newest */
#define STORE_KEEP_BYTES                                                                           \
	(32U << 20) /* of documents; older ones lose their document, not their line in the history */

/* The newest document of a layer into *text (caller frees; NULL where there is none) and its revision. */
int store_layer_load(struct store *s, const char *layer, char **text, size_t *len,
	uint64_t *revision, struct err_text *err);
uint64_t store_head(struct store *s);
/* One transaction: a new immutable revision with the whole document of the layer. -ESTALE if head moved. Disk full and
 * I/O errors leave the former state and say so. */
int store_commit(struct store *s, const struct store_revision *r, const char *text, size_t len,
	uint64_t expected_head, uint64_t *revision, struct err_text *err);
int store_history(struct store *s, size_t limit, /* 0: all */
	void (*visit)(void *userdata, const struct store_revision *r), void *userdata,
	struct err_text *err);
/* The document of any kept revision, and its layer (caller frees both). -ENOENT: no such revision, or only its line is
 * kept. */
int store_document(struct store *s, uint64_t revision, char **layer, char **text, size_t *len,
	struct err_text *err);
/* The document of a layer as of a revision of any layer (caller frees; NULL and length 0 where the layer had none yet).
 * -ENOENT: there was no such revision, or it is too old to tell. */
int store_layer_at(struct store *s, const char *layer, uint64_t revision, char **text, size_t *len,
	struct err_text *err);
/* Small counters and values that outlive a restart ("batch/serial"). */
int store_state_set(struct store *s, const char *key, uint64_t value, struct err_text *err);
int store_state_get(struct store *s, const char *key, uint64_t *value); /* -ENOENT */
struct store_value {
	const char *key;
	uint64_t value;
	bool drop; /* it goes */
};
/* All or none of them, in one transaction. */
int store_state_set_all(
	struct store *s, const struct store_value *list, size_t n, struct err_text *err);
