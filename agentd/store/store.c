/* SPDX-License-Identifier: Apache-2.0 */

/* Revisions: what a change of configuration becomes when it is true.
 *
 * A commit is one transaction of a document (kept once per content), a revision's row and the new
 * head. It either stands on the disk when store_commit() returns 0, or the former state stands. The
 * head is held in memory as well: this process is the only writer, by its lock.
 *
 * A failed COMMIT is the one case in which the disk may know more than we said: when the log was
 * written but its fsync failed, a crash could bring the refused revision back. So after any failure
 * the log is folded into the database and emptied, which forgets it; where even that fails, the
 * disk is beyond what software can promise.
 *
 * Growth is bounded: old revisions and old documents go in the same transaction that adds. Runs in
 * agentd. */

#include <inttypes.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/store/store_private.h"

#define PRUNE_EVERY 16 /* revisions */

static void seal_text(struct sha256 *h, const char *s)
{
	sha256_add(h, s, strlen(s) + 1);
}

static void seal_number(struct sha256 *h, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	seal_text(h, text);
}

void store_seal(const struct store_revision *r, const char *before, char out[SHA256_HEX])
{
	char own[SHA256_HEX], chain[SHA256_HEX];
	struct sha256 h;

	sha256_init(&h);
	seal_number(&h, r->revision);
	seal_text(&h, r->layer);
	seal_text(&h, r->hash);
	seal_text(&h, r->origin);
	seal_text(&h, r->reason);
	seal_text(&h, r->diff);
	seal_number(&h, r->uid);
	seal_number(&h, r->time_unix_ns);
	sha256_final_hex(&h, own);
	sha256_init(&h);
	seal_text(&h, own);
	seal_text(&h, before ? before : "");
	sha256_final_hex(&h, chain);
	memcpy(out, own, STORE_SEAL_OWN);
	memcpy(out + STORE_SEAL_OWN, chain, SHA256_HEX - 1 - STORE_SEAL_OWN);
	out[SHA256_HEX - 1] = '\0';
}

void store_state_seal(const char *key, uint64_t value, char out[SHA256_HEX])
{
	struct sha256 h;

	sha256_init(&h);
	seal_text(&h, key);
	seal_number(&h, value);
	sha256_final_hex(&h, out);
}

static const char *column(sqlite3_stmt *row, int i)
{
	const char *text = (const char *)sqlite3_column_text(row, i);

	return text ? text : "";
}

void store_read_row(sqlite3_stmt *row, struct store_revision *r, const char **seal)
{
	*r = (struct store_revision){
		.revision = (uint64_t)sqlite3_column_int64(row, 0),
		.layer = column(row, 1),
		.hash = column(row, 2),
		.origin = column(row, 3),
		.reason = column(row, 4),
		.diff = column(row, 5),
		.uid = (uint32_t)sqlite3_column_int64(row, 6),
		.time_unix_ns = (uint64_t)sqlite3_column_int64(row, 7),
	};
	if (seal)
		*seal = column(row, 8);
}

/* Columns i (hash) and i + 1 (body, NULL when it went with age). */
static int take_document(
	struct store *s, sqlite3_stmt *row, int i, char **text, size_t *len, struct err_text *err)
{
	const void *body = sqlite3_column_blob(row, i + 1);
	size_t n = (size_t)sqlite3_column_bytes(row, i + 1);
	char hash[SHA256_HEX], *copy;

	if (sqlite3_column_type(row, i + 1) == SQLITE_NULL)
		return -ENOENT;
	sha256_hex(body, n, hash);
	if (!streq(hash, column(row, i)))
		return store_damaged(s, "a document does not fit its hash", err);
	copy = malloc(n + 1);
	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	if (n)
		memcpy(copy, body, n);
	copy[n] = '\0';
	*text = copy;
	*len = n;
	return 0;
}

int store_layer_load(struct store *s, const char *layer, char **text, size_t *len,
	uint64_t *revision, struct err_text *err)
{
	sqlite3_stmt *row _cleanup_sql_ = NULL;
	uint64_t number;
	int r = 0;

	row = sql_get(&s->sql, SQL_LAYER_NEWEST, &r, err);
	if (!row)
		return r;
	sqlite3_bind_text(row, 1, layer, -1, SQLITE_STATIC);
	r = sql_step(&s->sql, row, err);
	if (r < 0)
		return r;
	if (r == 0) {
		*text = NULL;
		*len = 0;
		*revision = 0;
		return 0;
	}
	number = (uint64_t)sqlite3_column_int64(row, 0);
	r = take_document(s, row, 1, text, len, err);
	if (r == -ENOENT)
		return store_damaged(s, "a layer's newest document is missing", err);
	if (r == 0)
		*revision = number;
	return r;
}

int store_document(struct store *s, uint64_t revision, char **layer, char **text, size_t *len,
	struct err_text *err)
{
	sqlite3_stmt *row _cleanup_sql_ = NULL;
	_cleanup_free_ char *name = NULL;
	int r = 0;

	row = sql_get(&s->sql, SQL_DOCUMENT_OF, &r, err);
	if (!row)
		return r;
	sqlite3_bind_int64(row, 1, (sqlite3_int64)revision);
	r = sql_step(&s->sql, row, err);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set(err, -ENOENT,
			"there is no revision %" PRIu64
			": 'odictl history' lists those that are kept",
			revision);
	name = strdup(column(row, 0));
	if (!name)
		return err_set(err, -ENOMEM, "out of memory");
	r = take_document(s, row, 1, text, len, err);
	if (r == -ENOENT)
		return err_set(err, r,
			"the document of revision %" PRIu64
			" is no longer kept: 'odictl history' still shows what it changed",
			revision);
	if (r == 0)
		*layer = TAKE_PTR(name);
	return r;
}

/* Revisions that were pruned may have been of the layer that is asked for. */
static int before_the_first(struct store *s, uint64_t revision, struct err_text *err)
{
	int r = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, SQL_REVISIONS_OLDEST, &r, err);

	if (!row)
		return r;
	r = sql_step(&s->sql, row, err);
	if (r < 0)
		return r;
	if (r > 0 && sqlite3_column_int64(row, 0) == 1)
		return 0;
	return err_set(
		err, -ENOENT, "what was set at revision %" PRIu64 " is no longer kept", revision);
}

int store_layer_at(struct store *s, const char *layer, uint64_t revision, char **text, size_t *len,
	struct err_text *err)
{
	sqlite3_stmt *row _cleanup_sql_ = NULL;
	int r = 0;

	if (!revision || revision > s->head)
		return err_set(err, -ENOENT,
			"there is no revision %" PRIu64
			": 'odictl history' lists those that are kept",
			revision);
	row = sql_get(&s->sql, SQL_LAYER_AT, &r, err);
	if (!row)
		return r;
	sqlite3_bind_text(row, 1, layer, -1, SQLITE_STATIC);
	sqlite3_bind_int64(row, 2, (sqlite3_int64)revision);
	r = sql_step(&s->sql, row, err);
	if (r < 0)
		return r;
	if (r == 0) {
		*text = NULL;
		*len = 0;
		return before_the_first(s, revision, err);
	}
	r = take_document(s, row, 1, text, len, err);
	if (r == -ENOENT)
		return err_set(err, r,
			"what was set at revision %" PRIu64
			" is no longer kept: 'odictl history' still shows what it changed",
			revision);
	return r;
}

uint64_t store_head(struct store *s)
{
	return s->head;
}

static int add_document(
	struct store *s, const char *hash, const char *text, size_t len, struct err_text *err)
{
	int r = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, SQL_DOCUMENT_ADD, &r, err);

	if (!row)
		return r;
	sqlite3_bind_text(row, 1, hash, -1, SQLITE_STATIC);
	/* Never NULL: an empty document is a document. */
	sqlite3_bind_blob64(row, 2, text ? text : "", len, SQLITE_STATIC);
	return sql_step(&s->sql, row, err);
}

static int add_revision(
	struct store *s, const struct store_revision *r, const char *seal, struct err_text *err)
{
	const char *const texts[] = {r->layer, r->hash, r->origin, r->reason, r->diff};
	int error = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, SQL_REVISION_ADD, &error, err);

	if (!row)
		return error;
	sqlite3_bind_int64(row, 1, (sqlite3_int64)r->revision);
	for (int i = 0; i < (int)ARRAY_SIZE(texts); i++)
		sqlite3_bind_text(row, i + 2, texts[i], -1, SQLITE_STATIC);
	sqlite3_bind_int64(row, 7, r->uid);
	sqlite3_bind_int64(row, 8, (sqlite3_int64)r->time_unix_ns);
	sqlite3_bind_text(row, 9, seal, -1, SQLITE_STATIC);
	return sql_step(&s->sql, row, err);
}

static int put_state(struct store *s, const char *key, uint64_t value, struct err_text *err)
{
	char seal[SHA256_HEX];
	int r = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, SQL_STATE_SET, &r, err);

	if (!row)
		return r;
	store_state_seal(key, value, seal);
	sqlite3_bind_text(row, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_int64(row, 2, (sqlite3_int64)value);
	sqlite3_bind_text(row, 3, seal, -1, SQLITE_STATIC);
	return sql_step(&s->sql, row, err);
}

static int prune_with(struct store *s, enum sql which, int64_t bound, struct err_text *err)
{
	int r = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, which, &r, err);

	if (!row)
		return r;
	if (bound >= 0)
		sqlite3_bind_int64(row, 1, bound);
	return sql_step(&s->sql, row, err);
}

static int prune(struct store *s, uint64_t head, struct err_text *err)
{
	int r = 0;

	if (head % PRUNE_EVERY)
		return 0;
	if (head > STORE_KEEP_REVISIONS)
		r = prune_with(s, SQL_PRUNE_REVISIONS, (int64_t)(head - STORE_KEEP_REVISIONS), err);
	if (r == 0)
		r = prune_with(s, SQL_PRUNE_BYTES, STORE_KEEP_BYTES, err);
	if (r == 0)
		r = prune_with(s, SQL_PRUNE_DOCUMENTS, -1, err);
	return r;
}

/* Back to the former state, also for what a crash after this would find. */
static int give_up(struct store *s, int error)
{
	if (!sqlite3_get_autocommit(s->sql.db))
		sql_run(&s->sql, SQL_ROLLBACK, NULL);
	sql_checkpoint(&s->sql);
	return error;
}

int store_commit(struct store *s, const struct store_revision *r, const char *text, size_t len,
	uint64_t expected_head, uint64_t *revision, struct err_text *err)
{
	struct store_revision row = *r;
	char hash[SHA256_HEX], seal[SHA256_HEX];
	int error;

	if (expected_head != s->head)
		return err_set(err, -ESTALE,
			"the configuration has changed meanwhile: it is at revision %" PRIu64
			", not %" PRIu64,
			s->head, expected_head);
	if (len > STORE_MAX_DOCUMENT)
		return err_set(err, -E2BIG, "the configuration is larger than %u MB",
			STORE_MAX_DOCUMENT >> 20);
	sha256_hex(text, len, hash);
	row.revision = s->head + 1;
	row.hash = hash;
	row.origin = row.origin ? row.origin : "";
	row.reason = row.reason ? row.reason : "";
	row.diff = row.diff ? row.diff : "";
	row.time_unix_ns = row.time_unix_ns ? row.time_unix_ns : clock_unix_ns();
	store_seal(&row, s->seal, seal);

	error = sql_run(&s->sql, SQL_BEGIN, err);
	if (error == 0)
		error = add_document(s, hash, text, len, err);
	if (error == 0)
		error = add_revision(s, &row, seal, err);
	if (error == 0)
		error = put_state(s, "store/head", row.revision, err);
	if (error == 0)
		error = prune(s, row.revision, err);
	if (error == 0)
		error = sql_run(&s->sql, SQL_COMMIT, err);
	if (error < 0)
		return give_up(s, error);
	s->head = row.revision;
	memcpy(s->seal, seal, sizeof(seal));
	*revision = row.revision;
	return 0;
}

int store_history(struct store *s, size_t limit,
	void (*visit)(void *userdata, const struct store_revision *r), void *userdata,
	struct err_text *err)
{
	sqlite3_stmt *row _cleanup_sql_ = NULL;
	int r = 0;

	row = sql_get(&s->sql, SQL_REVISIONS_NEWEST, &r, err);
	if (!row)
		return r;
	sqlite3_bind_int64(row, 1, limit && limit < INT64_MAX ? (sqlite3_int64)limit : -1);
	while ((r = sql_step(&s->sql, row, err)) > 0) {
		struct store_revision revision;

		store_read_row(row, &revision, NULL);
		visit(userdata, &revision);
	}
	return r;
}

int store_state_set(struct store *s, const char *key, uint64_t value, struct err_text *err)
{
	int r;

	if (strncmp(key, "store/", 6) == 0)
		return err_set(err, -EINVAL, "state %s is the store's own", key);
	r = put_state(s, key, value, err);
	return r < 0 ? give_up(s, r) : 0;
}

static int drop_state(struct store *s, const char *key, struct err_text *err)
{
	int r = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, SQL_STATE_DROP, &r, err);

	if (!row)
		return r;
	sqlite3_bind_text(row, 1, key, -1, SQLITE_STATIC);
	return sql_step(&s->sql, row, err);
}

int store_state_set_all(
	struct store *s, const struct store_value *list, size_t n, struct err_text *err)
{
	int r = sql_run(&s->sql, SQL_BEGIN, err);

	for (size_t i = 0; i < n && r == 0; i++) {
		if (strncmp(list[i].key, "store/", 6) == 0)
			r = err_set(err, -EINVAL, "state %s is the store's own", list[i].key);
		else if (list[i].drop)
			r = drop_state(s, list[i].key, err);
		else
			r = put_state(s, list[i].key, list[i].value, err);
	}
	if (r == 0)
		r = sql_run(&s->sql, SQL_COMMIT, err);
	return r < 0 ? give_up(s, r) : 0;
}

int store_state_get(struct store *s, const char *key, uint64_t *value)
{
	int r = 0;
	sqlite3_stmt *row _cleanup_sql_ = sql_get(&s->sql, SQL_STATE_GET, &r, NULL);

	if (!row)
		return r;
	sqlite3_bind_text(row, 1, key, -1, SQLITE_STATIC);
	r = sql_step(&s->sql, row, NULL);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	*value = (uint64_t)sqlite3_column_int64(row, 0);
	return 0;
}
