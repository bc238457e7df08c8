/* SPDX-License-Identifier: Apache-2.0 */

/* Every line of SQL, and the one place that speaks to SQLite.
 *
 * A revision is a row that is never changed (triggers hold that against our own mistakes); the
 * document it stands for is kept once per content. Each row of revision carries a seal: the hash of
 * its own columns and of the seal before it, so that a flipped byte, which SQLite has no check for,
 * is found when the database is opened and not believed. State rows carry one as well.
 *
 * Invariants: write-ahead log with synchronous=FULL, so what COMMIT answered is on the disk;
 * exclusive locking, so that nobody else's lock can delay the daemon and no shared memory file has
 * to be trusted; every value goes in by binding; nothing is written before sql_identify() said that
 * the file is ours. Source: sqlite.org's wal.html, pragma.html, lockingv3.html. Runs in agentd. */

#include <fcntl.h>

#include "agentd/store/sql.h"

/* Numbered by position, each run in one transaction. */
const char *const sql_migrations[] = {
	/* 0 -> 1 */
	"CREATE TABLE document ("
	"	hash TEXT NOT NULL PRIMARY KEY,"
	"	body BLOB NOT NULL);"
	"CREATE TABLE revision ("
	"	revision INTEGER NOT NULL PRIMARY KEY,"
	"	layer TEXT NOT NULL,"
	"	hash TEXT NOT NULL,"
	"	origin TEXT NOT NULL,"
	"	reason TEXT NOT NULL,"
	"	diff TEXT NOT NULL,"
	"	uid INTEGER NOT NULL,"
	"	time_unix_ns INTEGER NOT NULL,"
	"	seal TEXT NOT NULL);"
	"CREATE INDEX revision_by_layer ON revision (layer, revision);"
	"CREATE INDEX revision_by_hash ON revision (hash);"
	"CREATE TRIGGER revision_is_immutable BEFORE UPDATE ON revision BEGIN"
	"	SELECT RAISE(ABORT, 'revisions are immutable'); END;"
	"CREATE TRIGGER document_is_immutable BEFORE UPDATE ON document BEGIN"
	"	SELECT RAISE(ABORT, 'documents are immutable'); END;"
	"CREATE TABLE state ("
	"	key TEXT NOT NULL PRIMARY KEY,"
	"	value INTEGER NOT NULL,"
	"	seal TEXT NOT NULL) WITHOUT ROWID;",
};
const size_t sql_n_migrations = ARRAY_SIZE(sql_migrations);

#define REVISION_COLUMNS                                                                           \
	"revision, layer, hash, origin, reason, diff, uid, time_unix_ns, seal FROM revision"

static const char *const texts[SQL_STATEMENTS] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_LAYER_NEWEST] = "SELECT revision.revision, revision.hash, document.body FROM revision "
			     "LEFT JOIN document ON document.hash = revision.hash "
			     "WHERE layer = ?1 ORDER BY revision.revision DESC LIMIT 1",
	[SQL_DOCUMENT_OF] = "SELECT revision.layer, revision.hash, document.body FROM revision "
			    "LEFT JOIN document ON document.hash = revision.hash "
			    "WHERE revision.revision = ?1",
	[SQL_LAYER_AT] = "SELECT revision.revision, revision.hash, document.body FROM revision "
			 "LEFT JOIN document ON document.hash = revision.hash "
			 "WHERE layer = ?1 AND revision.revision <= ?2 "
			 "ORDER BY revision.revision DESC LIMIT 1",
	[SQL_DOCUMENT_ADD] = "INSERT INTO document (hash, body) VALUES (?1, ?2) "
			     "ON CONFLICT (hash) DO NOTHING",
	[SQL_REVISION_ADD] = "INSERT INTO revision (revision, layer, hash, origin, reason, diff, "
			     "uid, time_unix_ns, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
	[SQL_REVISIONS_NEWEST] = "SELECT " REVISION_COLUMNS " ORDER BY revision DESC LIMIT ?1",
	[SQL_REVISIONS_OLDEST] = "SELECT " REVISION_COLUMNS " ORDER BY revision",
	/* ?1: the last to go. The newest of each layer stays whatever its age. */
	[SQL_PRUNE_REVISIONS] = "DELETE FROM revision WHERE revision <= ?1 AND revision NOT IN "
				"(SELECT max(revision) FROM revision GROUP BY layer)",
	[SQL_PRUNE_DOCUMENTS] =
		"DELETE FROM document WHERE hash NOT IN (SELECT hash FROM revision)",
	/* Documents in the order of their last use, until all younger ones fit ?1 bytes. */
	[SQL_PRUNE_BYTES] =
		"DELETE FROM document WHERE hash IN (SELECT hash FROM ("
		"SELECT d.hash AS hash, sum(length(d.body)) OVER (ORDER BY max(r.revision) DESC) "
		"AS bytes FROM document d JOIN revision r ON r.hash = d.hash GROUP BY d.hash) "
		"WHERE bytes > ?1) AND hash NOT IN (SELECT hash FROM revision WHERE revision IN "
		"(SELECT max(revision) FROM revision GROUP BY layer))",
	[SQL_STATE_SET] = "INSERT INTO state (key, value, seal) VALUES (?1, ?2, ?3) "
			  "ON CONFLICT (key) DO UPDATE SET value = ?2, seal = ?3",
	[SQL_STATE_GET] = "SELECT value, seal FROM state WHERE key = ?1",
	[SQL_STATE_DROP] = "DELETE FROM state WHERE key = ?1",
	[SQL_STATE_ALL] = "SELECT key, value, seal FROM state",
};

static int full(const char *path, const char *doing, struct err_text *err)
{
	return err_set(err, -ENOSPC,
		"no room on the disk while %s %s: free some; nothing was changed", doing, path);
}

int sql_error(struct sql_db *s, int code, const char *doing, struct err_text *err)
{
	int system = s->db ? sqlite3_system_errno(s->db) : 0;
	const char *said = sqlite3_errstr(code);

	switch (code & 0xff) {
	case SQLITE_FULL:
		return full(s->path, doing, err);
	case SQLITE_IOERR:
		if (code == SQLITE_IOERR_NOMEM)
			return err_set(err, -ENOMEM, "out of memory while %s %s", doing, s->path);
		if (system == ENOSPC || system == EDQUOT)
			return full(s->path, doing, err);
		return err_set(err, -EIO,
			"input/output error while %s %s (%s): check the disk (dmesg); the former "
			"state is kept",
			doing, s->path, system ? strerrordesc_np(system) : said);
	case SQLITE_READONLY:
		return err_set(err, -EROFS,
			"%s cannot be written (read-only file, folder or file system) while %s it",
			s->path, doing);
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		return err_set(err, -EBADMSG,
			"%s is damaged (%s, found while %s it): it was left as it is; put back a "
			"copy of it, or move it away to start without configuration",
			s->path, said, doing);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, -EBUSY,
			"%s is in use by another program (fuser %s names it): close that one",
			s->path, s->path);
	case SQLITE_NOMEM:
		return err_set(err, -ENOMEM, "out of memory while %s %s", doing, s->path);
	case SQLITE_TOOBIG:
		return err_set(err, -E2BIG, "too large for %s", s->path);
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		if (system == ENOSPC)
			return full(s->path, doing, err);
		return err_set(err, system ? -system : -EACCES, "cannot open %s: %s", s->path,
			system ? strerrordesc_np(system) : said);
	default:
		return err_set(err, -EIO, "%s failed while %s it: %s", s->path, doing, said);
	}
}

int sql_open(struct sql_db *s, const char *path, struct err_text *err)
{
	int code;

	*s = (struct sql_db){.path = path};
	code = sqlite3_open_v2(path, &s->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE
#ifdef SQLITE_OPEN_NOFOLLOW
			| SQLITE_OPEN_NOFOLLOW
#endif
		,
		NULL);
	if (code != SQLITE_OK) {
		int r = sql_error(s, code, "opening", err);

		sql_close(s);
		return r;
	}
	/* SQLite opens what it may not write for reading, and fails at the first change. */
	if (sqlite3_db_readonly(s->db, "main") == 1) {
		int r = sql_error(s, SQLITE_READONLY, "opening", err);

		sql_close(s);
		return r;
	}
	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, 1000);
	/* Should the file turn out to be another program's, closing it must not touch it. */
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
	return 0;
}

void sql_close(struct sql_db *s)
{
	for (size_t i = 0; i < SQL_STATEMENTS; i++)
		sqlite3_finalize(TAKE_PTR(s->statements[i]));
	if (s->db)
		sqlite3_close(TAKE_PTR(s->db));
}

/* Runs one statement that answers at most one row; its first column as a number or text. */
static int ask(struct sql_db *s, const char *sql, int *number, char *text, size_t size)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code == SQLITE_ROW) {
		const char *got = (const char *)sqlite3_column_text(statement, 0);

		if (number)
			*number = sqlite3_column_int(statement, 0);
		if (text)
			snprintf(text, size, "%s", got ? got : "");
		code = SQLITE_OK;
	} else if (code == SQLITE_DONE) {
		code = SQLITE_OK;
	}
	sqlite3_finalize(statement);
	return code;
}

int sql_identify(
	struct sql_db *s, int *application_id, int *version, int *tables, struct err_text *err)
{
	/* Before the first read: with exclusive locking from the start the log's index lives in
	 * our memory, and no -shm file is made or trusted. */
	int code = ask(s, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, 0);

	if (code == SQLITE_OK)
		code = ask(s, "PRAGMA trusted_schema = OFF", NULL, NULL, 0);
	if (code == SQLITE_OK)
		code = ask(s, "PRAGMA application_id", application_id, NULL, 0);
	if (code == SQLITE_OK)
		code = ask(s, "PRAGMA user_version", version, NULL, 0);
	if (code == SQLITE_OK)
		code = ask(s, "SELECT count(*) FROM sqlite_master", tables, NULL, 0);
	return code == SQLITE_OK ? 0 : sql_error(s, code, "reading", err);
}

int sql_configure(struct sql_db *s, struct err_text *err)
{
	static const char *const settings[] = {
		"PRAGMA synchronous = FULL",
		"PRAGMA cell_size_check = ON",
		"PRAGMA mmap_size = 0", /* a cut file must be an error, not a SIGBUS */
		"PRAGMA temp_store = MEMORY",
		"PRAGMA cache_size = -1024",       /* KiB */
		"PRAGMA wal_autocheckpoint = 256", /* pages: 1 MiB of log */
		"PRAGMA journal_size_limit = 4194304",
	};
	char mode[16] = "";
	int code;

	code = ask(s, "PRAGMA journal_mode = WAL", NULL, mode, sizeof(mode));
	if (code == SQLITE_OK && !streq(mode, "wal"))
		return err_set(err, -EOPNOTSUPP,
			"%s: the write-ahead log cannot be used there (SQLite stays in mode %s)",
			s->path, mode);
	for (size_t i = 0; code == SQLITE_OK && i < ARRAY_SIZE(settings); i++)
		code = ask(s, settings[i], NULL, NULL, 0);
	if (code != SQLITE_OK)
		return sql_error(s, code, "setting up", err);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return 0;
}

/* The whole check and not the quick one: a damaged index finds the wrong row, or none. */
int sql_check(struct sql_db *s, struct err_text *err)
{
	char said[256] = "";
	int code = ask(s, "PRAGMA integrity_check(1)", NULL, said, sizeof(said));

	if (code != SQLITE_OK)
		return sql_error(s, code, "checking", err);
	if (!streq(said, "ok"))
		return err_set(err, -EBADMSG,
			"%s is damaged (%s): it was left as it is; put back a copy of it, or move "
			"it away to start without configuration",
			s->path, said);
	return 0;
}

int sql_migrate(struct sql_db *s, const char *statements, int version, struct err_text *err)
{
	char header[96];
	int code, r = 0;

	snprintf(header, sizeof(header), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		SQL_APPLICATION_ID, version);
	code = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_exec(s->db, statements, NULL, NULL, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_exec(s->db, header, NULL, NULL, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
	if (code != SQLITE_OK) {
		r = sql_error(s, code, "upgrading", err);
		if (!sqlite3_get_autocommit(s->db))
			sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	}
	return r;
}

int sql_copy(struct sql_db *s, const char *to, struct err_text *err)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, "VACUUM INTO ?1", -1, &statement, NULL), r = 0;

	if (code == SQLITE_OK)
		code = sqlite3_bind_text(statement, 1, to, -1, SQLITE_STATIC);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_DONE)
		r = sql_error(s, code, "copying", err);
	sqlite3_finalize(statement);
	return r;
}

void sql_checkpoint(struct sql_db *s)
{
	sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

sqlite3_stmt *sql_get(struct sql_db *s, enum sql which, int *error, struct err_text *err)
{
	sqlite3_stmt **statement = &s->statements[which];
	int code;

	if (!*statement) {
		code = sqlite3_prepare_v3(
			s->db, texts[which], -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
		if (code != SQLITE_OK) {
			*error = sql_error(s, code, "reading", err);
			return NULL;
		}
	}
	sqlite3_reset(*statement);
	sqlite3_clear_bindings(*statement);
	return *statement;
}

int sql_step(struct sql_db *s, sqlite3_stmt *statement, struct err_text *err)
{
	/* Asked before: some failures end the transaction by themselves. */
	bool reading = sqlite3_stmt_readonly(statement) && sqlite3_get_autocommit(s->db);
	int code = sqlite3_step(statement), r;

	if (code == SQLITE_ROW)
		return 1;
	if (code == SQLITE_DONE) {
		sqlite3_reset(statement);
		return 0;
	}
	r = sql_error(s, code, reading ? "reading" : "committing to", err);
	sqlite3_reset(statement);
	return r;
}

int sql_run(struct sql_db *s, enum sql which, struct err_text *err)
{
	int r = 0;
	sqlite3_stmt *statement = sql_get(s, which, &r, err);

	if (!statement)
		return r;
	r = sql_step(s, statement, err);
	return r > 0 ? 0 : r;
}
