/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files of the store and by its tests. */

#include "agentd/base/sha256.h"
#include "agentd/store/sql.h"
#include "agentd/store/store.h"

struct store {
	char *path;
	int lock_fd;
	struct sql_db sql;
	uint64_t head;
	char seal[SHA256_HEX]; /* of the head's row; "" before the first */
};

/* store_open() with other migrations than the program's own. */
int store_open_with(struct store **ret, const char *path, const char *const *migrations, size_t n,
	struct err_text *err);

/* The seal of a revision's row: the first half is over its own columns, the second over those and the seal
 * before it ("" for the first). */
#define STORE_SEAL_OWN 32
void store_seal(const struct store_revision *r, const char *before, char out[SHA256_HEX]);
void store_state_seal(const char *key, uint64_t value, char out[SHA256_HEX]);
/* Row of SQL_REVISIONS_*; strings borrowed until the next step. *seal may be NULL. */
void store_read_row(sqlite3_stmt *row, struct store_revision *r, const char **seal);
/* -EBADMSG in the words of a damaged database. */
int store_damaged(const struct store *s, const char *what, struct err_text *err);
