/* SPDX-License-Identifier: Apache-2.0 */

/* The cache of names as a database: made, opened, and thrown away when it cannot be right. What is in it and why it may
 * go at any time stands in names.c. Runs in agentd. */

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/log.h"
#include "agentd/store/names_private.h"

#define APPLICATION_ID 0x6f64696e /* "odin": odi, names */
#define SCHEMA_VERSION 1
#define BYTES_DEFAULT  (64ULL << 20)
#define AGE_DEFAULT_S  (30 * 86400ULL)
#define REBUILDS_MAX   3 /* then it stays off */

static const char schema[] = "CREATE TABLE file ("
			     "	id INTEGER PRIMARY KEY AUTOINCREMENT,"
			     "	key BLOB," /* NULL: it goes */
			     "	used INTEGER NOT NULL,"
			     "	seal INTEGER NOT NULL,"
			     "	facts BLOB NOT NULL);"
			     "CREATE UNIQUE INDEX file_by_key ON file (key) WHERE key IS NOT NULL;"
			     "CREATE INDEX file_dead ON file (id) WHERE key IS NULL;"
			     "CREATE TABLE name ("
			     "	file INTEGER NOT NULL,"
			     "	address INTEGER NOT NULL,"
			     "	seal INTEGER NOT NULL,"
			     "	value BLOB NOT NULL,"
			     "	PRIMARY KEY (file, address)) WITHOUT ROWID;";

static void close_db(struct names *n)
{
	for (size_t i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(TAKE_PTR(n->statements[i]));
	if (n->db)
		sqlite3_close(TAKE_PTR(n->db));
	n->in_transaction = false;
}

static void remove_files(const struct names *n)
{
	static const char *const tails[] = {"", "-wal", "-shm", "-journal"};
	char name[4096];

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		snprintf(name, sizeof(name), "%s%s", n->path, tails[i]);
		if (unlink(name) < 0 && errno != ENOENT)
			log_debug("%s stays: %m", name);
	}
}

int names_scalar(struct names *n, const char *sql, int64_t *ret)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(n->db, sql, -1, &statement, NULL);

	*ret = -1;
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code == SQLITE_ROW) {
		*ret = sqlite3_column_int64(statement, 0);
		code = SQLITE_OK;
	}
	sqlite3_finalize(statement);
	return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int make_schema(struct names *n)
{
	char header[96];
	int code = sqlite3_exec(n->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	snprintf(header, sizeof(header), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		APPLICATION_ID, SCHEMA_VERSION);
	if (code == SQLITE_OK)
		code = sqlite3_exec(n->db, schema, NULL, NULL, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_exec(n->db, header, NULL, NULL, NULL);
	return code == SQLITE_OK ? sqlite3_exec(n->db, "COMMIT", NULL, NULL, NULL) : code;
}

static int configure(struct names *n)
{
	char limit[64];
	const char *const settings[] = {
		"PRAGMA trusted_schema = OFF",
		"PRAGMA cell_size_check = ON",
		"PRAGMA synchronous = OFF", /* it may be lost, and is noticed if it is torn */
		"PRAGMA mmap_size = 0",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA cache_size = -512",        /* KiB */
		"PRAGMA wal_autocheckpoint = 256", /* pages */
		"PRAGMA journal_size_limit = 4194304",
		limit,
	};
	int64_t ignored;
	int code = SQLITE_OK;

	snprintf(limit, sizeof(limit), "PRAGMA max_page_count = %llu",
		(unsigned long long)(n->config.max_bytes / NAMES_PAGE * 9 / 8));
	for (size_t i = 0; code == SQLITE_OK && i < ARRAY_SIZE(settings); i++)
		code = names_scalar(n, settings[i], &ignored);
	return code;
}

/* 0, 1: it is not what we made, or damaged; -errno: it cannot be used. */
static int open_db(struct names *n, struct err_text *err)
{
	_cleanup_close_ int fd = open(
		n->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	int64_t id = 0, version = 0, tables = 0, ignored;
	struct stat st;
	int code;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot open %s: %m", n->path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s is not a regular file", n->path);
	closep(&fd);
	code = sqlite3_open_v2(n->path, &n->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE
#ifdef SQLITE_OPEN_NOFOLLOW
			| SQLITE_OPEN_NOFOLLOW
#endif
		,
		NULL);
	sqlite3_extended_result_codes(n->db, 1);
	/* Before the first read: the log's index lives in our memory then. */
	if (code == SQLITE_OK)
		code = names_scalar(n, "PRAGMA locking_mode = EXCLUSIVE", &ignored);
	if (code == SQLITE_OK)
		code = names_scalar(n, "PRAGMA application_id", &id);
	if (code == SQLITE_OK)
		code = names_scalar(n, "PRAGMA user_version", &version);
	if (code == SQLITE_OK)
		code = names_scalar(n, "SELECT count(*) FROM sqlite_master", &tables);
	if (code == SQLITE_OK && tables &&
		(id != APPLICATION_ID || version != SCHEMA_VERSION || tables != 5))
		return 1;
	if (code == SQLITE_OK)
		code = names_scalar(n, "PRAGMA journal_mode = WAL", &ignored);
	if (code == SQLITE_OK)
		code = configure(n);
	if (code == SQLITE_OK && !tables)
		code = make_schema(n);
	if (code == SQLITE_OK)
		return 0;
	err_set(err, -EIO, "%s: %s", n->path, sqlite3_errstr(code));
	return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB ? 1 : -EIO;
}

int names_rebuild(struct names *n, const char *why)
{
	struct err_text err = {};
	int r;

	close_db(n);
	n->life++;
	if (++n->counters.damaged > REBUILDS_MAX) {
		log_error(
			"names are kept in memory only: %s was damaged again (%s): check the disk "
			"(dmesg)",
			n->path, why);
		return -EIO;
	}
	log_warning("the cache of names in %s is removed and made anew: %s", n->path, why);
	remove_files(n);
	r = open_db(n, &err);
	if (r) {
		close_db(n);
		log_error("names are kept in memory only: %s", err.text);
		return r < 0 ? r : -EIO;
	}
	return 0;
}

int names_open(struct names **ret, const char *path, const struct names_config *config,
	struct err_text *err)
{
	CLEANUP(names_closep) struct names *n = calloc(1, sizeof(*n));
	int r;

	if (!n || !(n->path = strdup(path)))
		return err_set(err, -ENOMEM, "no memory for the cache of names");
	n->config = *config;
	n->life = 1;
	if (!n->config.max_bytes)
		n->config.max_bytes = BYTES_DEFAULT;
	if (!n->config.max_age_s)
		n->config.max_age_s = AGE_DEFAULT_S;
	r = open_db(n, err);
	if (r > 0)
		r = names_rebuild(n, *err->text ? err->text : "it is of another version");
	if (r < 0)
		return r;
	*ret = TAKE_PTR(n);
	return 0;
}

struct names *names_close(struct names *n)
{
	if (n) {
		close_db(n);
		free(n->path);
		free(n);
	}
	return NULL;
}
