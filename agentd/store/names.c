/* SPDX-License-Identifier: Apache-2.0 */

/* The cache of names on the disk.
 *
 * It holds what a parse made, so it is worth little and may go at any time: no sync, and whatever cannot be right (a
 * structure that SQLite refuses, a row that does not fit its seal, another version) makes the whole of it go, once,
 * with a word in the log. Seals are there because SQLite sees broken structure and not a flipped byte; they are no
 * protection against who can write the state folder, who needs none of this to lie to us.
 *
 * Bounds. Files go whole, the one not used for longest first; a file that goes loses its key at once and its rows in
 * slices, so that no call takes long. What is in use is counted in pages, and SQLite itself refuses to grow beyond an
 * eighth more.
 *
 * Invariants: exclusive locking (the store's own lock keeps a second agentd away); ids carry the life of the database
 * that they were given in; every statement is reset before its function returns. Source: sqlite.org's pragma.html,
 * wal.html, withoutrowid.html. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "agentd/base/log.h"
#include "agentd/store/names_private.h"

#define USED_STEP_S 3600 /* how exactly it is known when a file was used */
#define AGE_CHECK_S 3600
#define TIDY_ROWS   512
#define ROW_ID_BITS 48

static const char *const texts[STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[FILE_FIND] = "SELECT id, used, seal, facts FROM file WHERE key = ?1",
	[FILE_USED] = "UPDATE file SET used = ?2 WHERE id = ?1",
	[FILE_ALIVE] = "SELECT 1 FROM file WHERE id = ?1 AND key IS NOT NULL",
	[FILE_ADD] = "INSERT INTO file (key, used, seal, facts) VALUES (?1, ?2, ?3, ?4)",
	[FILE_KILL_KEY] = "UPDATE file SET key = NULL WHERE key = ?1",
	[FILE_KILL_OLDEST] = "UPDATE file SET key = NULL WHERE id = (SELECT id FROM file "
			     "WHERE key IS NOT NULL ORDER BY used, id LIMIT 1)",
	[FILE_KILL_AGE] = "UPDATE file SET key = NULL WHERE key IS NOT NULL AND used < ?1",
	[FILE_DEAD] = "SELECT id FROM file WHERE key IS NULL LIMIT 1",
	[FILE_REMOVE] = "DELETE FROM file WHERE id = ?1",
	[NAME_GET] = "SELECT seal, value FROM name WHERE file = ?1 AND address = ?2",
	[NAME_PUT] = "INSERT OR REPLACE INTO name (file, address, seal, value) "
		     "VALUES (?1, ?2, ?3, ?4)",
	[NAME_REMOVE] = "DELETE FROM name WHERE file = ?1 AND address IN "
			"(SELECT address FROM name WHERE file = ?1 LIMIT ?2)",
};

/* ---- statements -------------------------------------------------------------------------------------------- */

/* -errno. What only damage explains costs the cache. */
static int failed(struct names *n, int code)
{
	switch (code & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_IOERR:
	case SQLITE_ERROR: /* a table that is not there */
	case SQLITE_MISMATCH:
		(void)names_rebuild(n, sqlite3_errstr(code));
		return -EBADMSG;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

static int get(struct names *n, enum statement which, sqlite3_stmt **ret)
{
	sqlite3_stmt **s = &n->statements[which];
	int code;

	if (!n->db)
		return -ENODEV;
	if (!*s) {
		code = sqlite3_prepare_v3(
			n->db, texts[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
		if (code != SQLITE_OK)
			return failed(n, code);
	}
	*ret = *s;
	return 0;
}

/* 1 a row, 0 done, -errno. The statement is reset where there is no row. */
static int step(struct names *n, sqlite3_stmt *s)
{
	int code = sqlite3_step(s);

	if (code == SQLITE_ROW)
		return 1;
	sqlite3_reset(s);
	return code == SQLITE_DONE ? 0 : failed(n, code);
}

static int run(struct names *n, enum statement which, int64_t a, int64_t b)
{
	sqlite3_stmt *s;
	int r = get(n, which, &s), at;

	if (r < 0)
		return r;
	at = sqlite3_bind_parameter_count(s);
	if (at > 0)
		sqlite3_bind_int64(s, 1, a);
	if (at > 1)
		sqlite3_bind_int64(s, 2, b);
	r = step(n, s);
	if (r > 0)
		sqlite3_reset(s);
	return r;
}

/* A key of its own: the seal is no secret, and has to be the same after a restart. */
static int64_t seal(const uint64_t head[static 2], const void *key, const void *data, size_t len)
{
	static const struct hash_key fixed = {{0x6e616d6573206f66ULL, 0x6f6469207365616cULL}};
	uint64_t parts[4] = {head[0], head[1], key ? hash_bytes(&fixed, key, NAMES_KEY) : 0,
		hash_bytes(&fixed, data, len)};

	return (int64_t)hash_bytes(&fixed, parts, sizeof(parts));
}

/* Copies a row's bytes out, if they are what was put. */
static int take(struct names *n, sqlite3_stmt *s, int column, int64_t claimed,
	const uint64_t head[static 2], const void *key, const void **ret, size_t *len)
{
	const void *data = sqlite3_column_blob(s, column);
	int size = sqlite3_column_bytes(s, column);

	if (size < 0 || size > NAMES_VALUE_MAX || (size && !data) ||
		seal(head, key, size ? data : "", (size_t)size) != claimed)
		return -EBADMSG;
	if (size)
		memcpy(n->bytes, data, (size_t)size);
	*ret = n->bytes;
	*len = (size_t)size;
	return 0;
}

static uint64_t now_s(void)
{
	return clock_unix_ns() / NSEC_PER_SEC;
}

static uint64_t id_of(const struct names *n, int64_t row)
{
	return n->life << ROW_ID_BITS | (uint64_t)row;
}

/* 0: of an earlier life. */
static int64_t row_of(const struct names *n, uint64_t id)
{
	return id >> ROW_ID_BITS == n->life ? (int64_t)(id & ((1ULL << ROW_ID_BITS) - 1)) : 0;
}

/* ---- files --------------------------------------------------------------------------------------------------- */

int names_find(struct names *n, const uint8_t key[static NAMES_KEY], uint64_t *id,
	const void **facts, size_t *len)
{
	uint64_t now = now_s(), head[2] = {};
	int64_t row, used;
	sqlite3_stmt *s;
	int r = get(n, FILE_FIND, &s);

	if (r < 0)
		return r;
	sqlite3_bind_blob(s, 1, key, NAMES_KEY, SQLITE_STATIC);
	r = step(n, s);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	row = sqlite3_column_int64(s, 0);
	used = sqlite3_column_int64(s, 1);
	r = take(n, s, 3, sqlite3_column_int64(s, 2), head, key, facts, len);
	sqlite3_reset(s);
	if (r < 0) {
		(void)names_rebuild(n, "a file's facts do not fit their seal");
		return -ENOENT;
	}
	*id = id_of(n, row);
	if (now > (uint64_t)used + USED_STEP_S || (uint64_t)used > now + USED_STEP_S)
		(void)run(n, FILE_USED, row, (int64_t)now);
	return 0;
}

int names_put_file(struct names *n, const uint8_t key[static NAMES_KEY], const void *facts,
	size_t len, uint64_t *id)
{
	const uint64_t head[2] = {};
	sqlite3_stmt *kill, *add;
	int r;

	if (len > NAMES_VALUE_MAX)
		return -E2BIG;
	r = get(n, FILE_KILL_KEY, &kill);
	if (r == 0)
		r = get(n, FILE_ADD, &add);
	if (r < 0)
		return r;
	sqlite3_bind_blob(kill, 1, key, NAMES_KEY, SQLITE_STATIC);
	r = step(n, kill);
	if (r < 0)
		return r;
	sqlite3_bind_blob(add, 1, key, NAMES_KEY, SQLITE_STATIC);
	sqlite3_bind_int64(add, 2, (int64_t)now_s());
	sqlite3_bind_int64(add, 3, seal(head, key, facts, len));
	sqlite3_bind_blob(add, 4, len ? facts : "", (int)len, SQLITE_STATIC);
	r = step(n, add);
	if (r < 0)
		return r;
	*id = id_of(n, sqlite3_last_insert_rowid(n->db));
	return 0;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

int names_get(struct names *n, uint64_t id, uint64_t address, const void **value, size_t *len)
{
	int64_t row = row_of(n, id);
	const uint64_t head[2] = {(uint64_t)row, address};
	sqlite3_stmt *s;
	int r;

	if (!row)
		return -ESTALE;
	r = get(n, NAME_GET, &s);
	if (r < 0)
		return r;
	sqlite3_bind_int64(s, 1, row);
	sqlite3_bind_int64(s, 2, (int64_t)address);
	r = step(n, s);
	if (r <= 0) {
		n->counters.missing += r == 0;
		return r < 0 ? r : -ENOENT;
	}
	r = take(n, s, 1, sqlite3_column_int64(s, 0), head, NULL, value, len);
	sqlite3_reset(s);
	if (r < 0) {
		(void)names_rebuild(n, "a name does not fit its seal");
		return -ENOENT;
	}
	n->counters.read++;
	return 0;
}

int names_begin(struct names *n)
{
	int r = n->in_transaction ? 0 : run(n, BEGIN, 0, 0);

	n->writing = 0;
	if (r == 0)
		n->in_transaction = true;
	return r;
}

static int give_up(struct names *n, int r)
{
	if (n->db && n->in_transaction && !sqlite3_get_autocommit(n->db))
		(void)run(n, ROLLBACK, 0, 0);
	n->in_transaction = false;
	return r;
}

int names_put(struct names *n, uint64_t id, uint64_t address, const void *value, size_t len)
{
	int64_t row = row_of(n, id);
	const uint64_t head[2] = {(uint64_t)row, address};
	sqlite3_stmt *s;
	int r;

	if (!row)
		return -ESTALE;
	if (len > NAMES_VALUE_MAX)
		return -E2BIG;
	if (!n->in_transaction)
		return -EINVAL;
	if (n->writing != row) {
		r = run(n, FILE_ALIVE, row, 0);
		if (r <= 0)
			return r < 0 ? give_up(n, r) : -ESTALE;
		n->writing = row;
	}
	r = get(n, NAME_PUT, &s);
	if (r < 0)
		return give_up(n, r);
	sqlite3_bind_int64(s, 1, row);
	sqlite3_bind_int64(s, 2, (int64_t)address);
	sqlite3_bind_int64(s, 3, seal(head, NULL, value, len));
	sqlite3_bind_blob(s, 4, len ? value : "", (int)len, SQLITE_STATIC);
	r = step(n, s);
	if (r < 0)
		return give_up(n, r);
	n->counters.written++;
	return 0;
}

int names_commit(struct names *n)
{
	int r;

	if (!n->in_transaction)
		return -EINVAL;
	r = run(n, COMMIT, 0, 0);
	if (r < 0)
		return give_up(n, r);
	n->in_transaction = false;
	return 0;
}

/* ---- bounds -------------------------------------------------------------------------------------------------- */

static uint64_t bytes_in_use(struct names *n)
{
	int64_t pages = 0, unused = 0;

	if (!n->db || names_scalar(n, "PRAGMA page_count", &pages) != SQLITE_OK ||
		names_scalar(n, "PRAGMA freelist_count", &unused) != SQLITE_OK || pages < unused)
		return 0;
	return (uint64_t)(pages - unused) * NAMES_PAGE;
}

/* 1: a slice of it went, 0: nothing is left to remove. */
static int remove_dead(struct names *n)
{
	sqlite3_stmt *s;
	int64_t row;
	int r = get(n, FILE_DEAD, &s);

	if (r < 0)
		return r;
	r = step(n, s);
	if (r <= 0)
		return r;
	row = sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	r = run(n, NAME_REMOVE, row, TIDY_ROWS);
	if (r == 0 && sqlite3_changes(n->db) < TIDY_ROWS)
		r = run(n, FILE_REMOVE, row, 0);
	return r < 0 ? r : 1;
}

int names_tidy(struct names *n)
{
	uint64_t now = now_s();
	int r = remove_dead(n);

	if (r)
		return r;
	if (now >= n->age_checked_s + AGE_CHECK_S || now < n->age_checked_s) {
		n->age_checked_s = now;
		r = run(n, FILE_KILL_AGE, (int64_t)(now - MIN(now, n->config.max_age_s)), 0);
		if (r < 0)
			return r;
		n->counters.evicted += (uint64_t)sqlite3_changes(n->db);
		if (sqlite3_changes(n->db))
			return 1;
	}
	if (bytes_in_use(n) <= n->config.max_bytes)
		return 0;
	r = run(n, FILE_KILL_OLDEST, 0, 0);
	if (r < 0 || !sqlite3_changes(n->db))
		return r;
	n->counters.evicted++;
	return 1;
}

void names_counters(struct names *n, struct names_counters *ret)
{
	*ret = n->counters;
	ret->bytes = bytes_in_use(n);
}
