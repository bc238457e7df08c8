/* SPDX-License-Identifier: Apache-2.0 */

/* Opening: whose database is it, can it be believed, and does anyone else have it?
 *
 * The order matters, since the promise is that a file which cannot be used is left as it was found:
 * the lock first, then what the file is (by its first bytes and its identity), its version, and only
 * then anything that writes. An empty file counts as new: that is what a crash leaves between
 * making it and the first commit.
 *
 * Believing goes beyond SQLite's own check, which sees broken structure and not a flipped byte in a
 * value: the seals of all revisions are verified here, those of documents when they are loaded.
 * What a crash leaves is a write-ahead log that SQLite replays up to the last whole commit.
 *
 * Before a migration the old database is copied beside itself as PATH.vN; that copy is the way back
 * after a downgrade. Runs in agentd. */

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/store/store_private.h"

static const char magic[16] = "SQLite format 3"; /* with its NUL */

/* sqlite.org/fileformat2.html, section 1.3 */
enum { HEADER = 100, HEADER_APPLICATION_ID = 68 };

int store_damaged(const struct store *s, const char *what, struct err_text *err)
{
	return err_set(err, -EBADMSG,
		"%s is damaged (%s): it was left as it is; put back a copy of it, or move it away "
		"to start without configuration",
		s->path, what);
}

static int locked(int fd, const char *path, struct err_text *err)
{
	char text[24] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	uint64_t pid;

	if (n > 0)
		text[strcspn(text, "\n")] = '\0';
	if (text_u64(text, 1, INT32_MAX, &pid) < 0)
		return err_set(err, -EBUSY,
			"another agentd uses %s: stop it, or give this one another --state-dir",
			path);
	return err_set(err, -EBUSY,
		"another agentd (pid %" PRIu64 ") uses %s: stop it, or give this one another "
		"--state-dir",
		pid, path);
}

/* The lock is on a file of its own: SQLite's locks on the database fall whenever any descriptor of
 * it is closed in this process. It stays when agentd ends: removing it would race with the next. */
static int take_lock(struct store *s, struct err_text *err)
{
	_cleanup_free_ char *name = NULL;
	_cleanup_close_ int fd = -1;
	char text[24];
	int n;

	if (asprintf(&name, "%s.lock", s->path) < 0) {
		name = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	if (fd < 0)
		return err_set(err, -errno, "cannot create %s: %m", name);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? locked(fd, s->path, err)
					    : err_set(err, -errno, "cannot lock %s: %m", name);
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	/* The lock is what counts: on a full disk the pid is what the next refusal cannot name. */
	if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) != n)
		log_debug("the pid could not be written to %s: %m", name);
	s->lock_fd = TAKE_FD(fd);
	return 0;
}

static int sync_folder(const char *path, struct err_text *err)
{
	_cleanup_free_ char *folder = strdup(path);
	_cleanup_close_ int fd = -1;
	char *slash;

	if (!folder)
		return err_set(err, -ENOMEM, "out of memory");
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_set(err, -errno, "cannot write the folder of %s: %m", path);
	return 0;
}

static int not_ours(const char *path, struct err_text *err)
{
	return err_set(err, -EUCLEAN,
		"%s is a database of another program: it was left as it is; move it away, or give "
		"another --state-dir",
		path);
}

/* Makes the file, or refuses what is no database by its first bytes. Closed again before SQLite
 * opens it. */
static int check_file(const char *path, struct err_text *err)
{
	_cleanup_close_ int fd = -1;
	uint8_t head[HEADER];
	uint32_t id;
	struct stat st;
	int r;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0) {
		fsync(fd);
		return sync_folder(path, err);
	}
	if (errno != EEXIST)
		return err_set(err, -errno, "cannot create %s: %m", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot open %s: %m", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s is not a regular file", path);
	if (st.st_size == 0)
		return 0;
	r = io_pread_all(fd, head, sizeof(head), 0);
	if (r < 0 && r != -ENODATA)
		return err_set(err, r, "cannot read %s: %s", path, strerrordesc_np(-r));
	if (r < 0 || memcmp(head, magic, sizeof(magic)) != 0)
		return err_set(err, -EBADMSG,
			"%s is not a database: it was left as it is; move it away, or give another "
			"--state-dir",
			path);
	/* Ours may still be in the log. Another one's is final: SQLite does not even open it, since
	 * that alone could replay a journal. */
	memcpy(&id, head + HEADER_APPLICATION_ID, sizeof(id));
	if (id != 0 && be32toh(id) != SQL_APPLICATION_ID)
		return not_ours(path, err);
	return 0;
}

static int keep_copy(struct store *s, int version, struct err_text *err)
{
	_cleanup_free_ char *name = NULL, *partial = NULL;
	int r;

	if (asprintf(&name, "%s.v%d", s->path, version) < 0)
		name = NULL;
	if (asprintf(&partial, "%s.v%d.partial", s->path, version) < 0)
		partial = NULL;
	if (!name || !partial)
		return err_set(err, -ENOMEM, "out of memory");
	/* What an interrupted attempt left; a whole copy of an earlier upgrade gives way too, since
	 * a downgrade in between made it old. */
	unlink(partial);
	r = sql_copy(&s->sql, partial, err);
	if (r < 0) {
		unlink(partial);
		return err_prefix(err, r, "the copy before an upgrade");
	}
	if (rename(partial, name) < 0)
		return err_set(err, -errno, "cannot rename %s to %s: %m", partial, name);
	return sync_folder(s->path, err);
}

static int migrate(
	struct store *s, int version, const char *const *migrations, size_t n, struct err_text *err)
{
	int r;

	if (version > 0 && (size_t)version < n) {
		r = keep_copy(s, version, err);
		if (r < 0)
			return r;
	}
	for (size_t i = (size_t)version; i < n; i++) {
		r = sql_migrate(&s->sql, migrations[i], (int)i + 1, err);
		if (r < 0)
			return r;
		if (version > 0)
			log_info("%s: upgraded from version %zu to %zu", s->path, i, i + 1);
	}
	return 0;
}

static int check_identity(struct store *s, size_t known, int *version, struct err_text *err)
{
	int id = 0, tables = 0, r;

	r = sql_identify(&s->sql, &id, version, &tables, err);
	if (r < 0)
		return r;
	if (id != SQL_APPLICATION_ID && (id != 0 || tables != 0 || *version != 0))
		return not_ours(s->path, err);
	if (*version < 0 || (id == SQL_APPLICATION_ID && *version == 0))
		return store_damaged(s, "its version makes no sense", err);
	if ((size_t)*version > known)
		return err_set(err, -EPROTONOSUPPORT,
			"%s was written by a newer version of odi (layout %d, this one knows %zu): "
			"install that version again; to go back for good, stop agentd and put "
			"%s.v%zu, the copy that was made at the upgrade, in its place",
			s->path, *version, known, s->path, known);
	return 0;
}

/* Where predecessors went with age, a row answers for itself alone. */
static int verify_revisions(struct store *s, struct err_text *err)
{
	sqlite3_stmt *row _cleanup_sql_ = NULL;
	char expected[SHA256_HEX];
	int r = 0;

	row = sql_get(&s->sql, SQL_REVISIONS_OLDEST, &r, err);
	if (!row)
		return r;
	while ((r = sql_step(&s->sql, row, err)) > 0) {
		struct store_revision revision;
		const char *seal;
		bool gap;

		store_read_row(row, &revision, &seal);
		gap = revision.revision != s->head + 1;
		store_seal(&revision, gap ? NULL : s->seal, expected);
		if (strlen(seal) != SHA256_HEX - 1 ||
			memcmp(seal, expected, gap ? STORE_SEAL_OWN : SHA256_HEX) != 0) {
			char what[64];

			snprintf(what, sizeof(what), "revision %" PRIu64 " does not fit its seal",
				revision.revision);
			return store_damaged(s, what, err);
		}
		s->head = revision.revision;
		memcpy(s->seal, seal, SHA256_HEX);
	}
	return r;
}

static int verify_state(struct store *s, struct err_text *err)
{
	sqlite3_stmt *row _cleanup_sql_ = NULL;
	uint64_t head = 0;
	int r = 0;

	row = sql_get(&s->sql, SQL_STATE_ALL, &r, err);
	if (!row)
		return r;
	while ((r = sql_step(&s->sql, row, err)) > 0) {
		const char *key = (const char *)sqlite3_column_text(row, 0),
			   *seal = (const char *)sqlite3_column_text(row, 2);
		uint64_t value = (uint64_t)sqlite3_column_int64(row, 1);
		char expected[SHA256_HEX];

		if (!key || !seal)
			return store_damaged(s, "a state row is not text", err);
		store_state_seal(key, value, expected);
		if (!streq(seal, expected))
			return store_damaged(s, "a state row does not fit its seal", err);
		if (streq(key, "store/head"))
			head = value;
	}
	if (r == 0 && head != s->head)
		return store_damaged(s, "its newest revisions are missing", err);
	return r;
}

int store_open_with(struct store **ret, const char *path, const char *const *migrations, size_t n,
	struct err_text *err)
{
	struct store *s CLEANUP(store_closep) = calloc(1, sizeof(*s));
	int version = 0, r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->lock_fd = -1;
	s->path = strdup(path);
	if (!s->path)
		return err_set(err, -ENOMEM, "out of memory");
	r = take_lock(s, err);
	if (r == 0)
		r = check_file(s->path, err);
	if (r == 0)
		r = sql_open(&s->sql, s->path, err);
	if (r == 0)
		r = check_identity(s, n, &version, err);
	if (r == 0)
		r = sql_check(&s->sql, err);
	if (r == 0)
		r = sql_configure(&s->sql, err);
	if (r == 0)
		r = migrate(s, version, migrations, n, err);
	if (r == 0)
		r = verify_revisions(s, err);
	if (r == 0)
		r = verify_state(s, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

int store_open(struct store **ret, const char *path, struct err_text *err)
{
	return store_open_with(ret, path, sql_migrations, sql_n_migrations, err);
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	sql_close(&s->sql);
	closep(&s->lock_fd);
	free(s->path);
	free(s);
	return NULL;
}
