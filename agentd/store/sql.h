/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* All SQL of the program, and what a failure of SQLite is called. For the store room only. */

#include <sqlite3.h>
#include "agentd/base/err.h"

#define SQL_APPLICATION_ID 0x6f646931 /* "odi1", in the file's header: "file" shows it */

/* One statement text a name; prepared on first use and kept. */
enum sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_LAYER_NEWEST,
	SQL_DOCUMENT_OF,
	SQL_LAYER_AT,
	SQL_DOCUMENT_ADD,
	SQL_REVISION_ADD,
	SQL_REVISIONS_NEWEST,
	SQL_REVISIONS_OLDEST,
	SQL_PRUNE_REVISIONS,
	SQL_PRUNE_DOCUMENTS,
	SQL_PRUNE_BYTES,
	SQL_STATE_SET,
	SQL_STATE_GET,
	SQL_STATE_DROP,
	SQL_STATE_ALL,
	SQL_STATEMENTS
};

/* migrations[i] brings a database of version i to version i + 1. Never edited once released. */
extern const char *const sql_migrations[];
extern const size_t sql_n_migrations;

struct sql_db {
	sqlite3 *db;
	const char *path;
	sqlite3_stmt *statements[SQL_STATEMENTS];
};

int sql_open(struct sql_db *s, const char *path, struct err_text *err);
void sql_close(struct sql_db *s);
/* The identity and version in the file's header, as of its last commit; tables: how many it has. */
int sql_identify(
	struct sql_db *s, int *application_id, int *version, int *tables, struct err_text *err);
/* WAL, full sync, checks; after the file is known to be ours. */
int sql_configure(struct sql_db *s, struct err_text *err);
/* -EBADMSG with what SQLite found. */
int sql_check(struct sql_db *s, struct err_text *err);
/* One transaction: the statements and the new version, or nothing. */
int sql_migrate(struct sql_db *s, const char *statements, int version, struct err_text *err);
/* A whole copy of the database in a new file. */
int sql_copy(struct sql_db *s, const char *to, struct err_text *err);
/* Moves the log into the database file and empties it; best effort. */
void sql_checkpoint(struct sql_db *s);

/* The prepared statement, reset and unbound; NULL sets err and *error. */
sqlite3_stmt *sql_get(struct sql_db *s, enum sql which, int *error, struct err_text *err);
/* 1 a row, 0 done, or -errno. */
int sql_step(struct sql_db *s, sqlite3_stmt *statement, struct err_text *err);
int sql_run(struct sql_db *s, enum sql which, struct err_text *err);
/* Ends a row's use; what a statement holds (a read transaction) is let go. */
static inline void sql_donep(sqlite3_stmt **statement)
{
	if (*statement)
		sqlite3_reset(*statement);
}
#define _cleanup_sql_ CLEANUP(sql_donep)

/* What SQLite answered as -errno and a sentence. doing: "reading", "committing to". */
int sql_error(struct sql_db *s, int code, const char *doing, struct err_text *err);
