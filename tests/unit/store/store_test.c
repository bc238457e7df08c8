/* SPDX-License-Identifier: Apache-2.0 */

/* The store's promises, each broken on purpose: full disks, failed syncs, killed processes, flipped
 * bytes, other programs' files, a second agentd, other versions. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agentd/base/buf.h"
#include "agentd/base/io.h"
#include "agentd/store/store_private.h"
#include "tests/unit/store/faults.h"

static char folder[64], db[96];

static void shell(const char *format, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/store_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(db, sizeof(db), "%s/state.db", folder);
	faults_arm(0, 0, 0);
	return 0;
}

static int teardown(void **state)
{
	umount2(db, MNT_DETACH);
	umount2(folder, MNT_DETACH);
	shell("rm -rf %s", folder);
	return 0;
}

static struct store *must_open(void)
{
	struct store *s = NULL;
	struct err_text err = {""};
	int r = store_open(&s, db, &err);

	if (r < 0)
		fail_msg("store_open: %d %s", r, err.text);
	return s;
}

static void refused(int code, const char *words)
{
	struct store *s = NULL;
	struct err_text err = {""};

	assert_int_equal(store_open(&s, db, &err), code);
	assert_null(s);
	if (!strstr(err.text, words))
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
	assert_non_null(strstr(err.text, db));
}

/* Commits a document that names its own revision. */
static int commit(struct store *s, const char *layer, struct err_text *err)
{
	struct store_revision r = {
		.layer = layer, .origin = "odictl", .reason = "test", .diff = "+a = b", .uid = 7};
	uint64_t revision = 0;
	char text[64];
	int len =
		snprintf(text, sizeof(text), "%s revision %" PRIu64 "\n", layer, store_head(s) + 1);

	return store_commit(s, &r, text, (size_t)len, store_head(s), &revision, err);
}

static void assert_layer(struct store *s, const char *layer, uint64_t revision)
{
	_cleanup_free_ char *text = NULL;
	struct err_text err = {""};
	uint64_t got = 0;
	char expected[64];
	size_t len;
	int r = store_layer_load(s, layer, &text, &len, &got, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(got, revision);
	if (!revision) {
		assert_null(text);
		return;
	}
	snprintf(expected, sizeof(expected), "%s revision %" PRIu64 "\n", layer, revision);
	assert_string_equal(text, expected);
	assert_int_equal(len, strlen(expected));
}

static void test_sha256(void **state)
{
	char hex[SHA256_HEX];
	struct sha256 h;

	/* FIPS 180-4's examples, from NIST. */
	sha256_hex("", 0, hex);
	assert_string_equal(
		hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha256_hex("abc", 3, hex);
	assert_string_equal(
		hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
	assert_string_equal(
		hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	sha256_init(&h);
	for (int i = 0; i < 1000000 / 50; i++)
		sha256_add(&h, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 50);
	sha256_final_hex(&h, hex);
	assert_string_equal(
		hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_commit_and_load(void **state)
{
	struct err_text err = {""};
	struct store *s = must_open();
	struct stat st;

	assert_int_equal(store_head(s), 0);
	assert_layer(s, "local", 0);
	assert_int_equal(commit(s, "local", &err), 0);
	assert_int_equal(commit(s, "files", &err), 0);
	assert_int_equal(commit(s, "local", &err), 0);
	assert_layer(s, "local", 3);
	assert_layer(s, "files", 2);
	store_close(s);
	s = must_open();
	assert_int_equal(store_head(s), 3);
	assert_layer(s, "local", 3);
	assert_layer(s, "files", 2);
	assert_layer(s, "remote", 0);
	store_close(s);
	/* Who may read agentd's state: root alone. */
	assert_int_equal(stat(db, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_empty_and_binary_documents(void **state)
{
	struct store_revision r = {.layer = "local"};
	struct err_text err = {""};
	struct store *s = must_open();
	_cleanup_free_ char *text = NULL, *layer = NULL, *old = NULL;
	uint64_t revision;
	size_t len;

	assert_int_equal(store_commit(s, &r, "a\0b", 3, 0, &revision, &err), 0);
	assert_int_equal(store_commit(s, &r, NULL, 0, 1, &revision, &err), 0);
	assert_int_equal(revision, 2);
	assert_int_equal(store_layer_load(s, "local", &text, &len, &revision, &err), 0);
	assert_non_null(text);
	assert_int_equal(len, 0);
	assert_int_equal(store_document(s, 1, &layer, &old, &len, &err), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(old, "a\0b", 3);
	assert_string_equal(layer, "local");
	free(TAKE_PTR(old));
	free(TAKE_PTR(layer));
	assert_int_equal(store_document(s, 3, &layer, &old, &len, &err), -ENOENT);
	store_close(s);
}

static void test_too_large(void **state)
{
	struct store_revision r = {.layer = "local"};
	_cleanup_free_ char *text = calloc(1, STORE_MAX_DOCUMENT + 1);
	struct err_text err = {""};
	struct store *s = must_open();
	uint64_t revision;

	assert_int_equal(
		store_commit(s, &r, text, STORE_MAX_DOCUMENT + 1, 0, &revision, &err), -E2BIG);
	assert_int_equal(store_head(s), 0);
	store_close(s);
}

static void test_stale(void **state)
{
	struct store_revision r = {.layer = "local"};
	struct err_text err = {""};
	struct store *s = must_open();
	uint64_t revision = 99;

	assert_int_equal(commit(s, "local", &err), 0);
	assert_int_equal(store_commit(s, &r, "x", 1, 0, &revision, &err), -ESTALE);
	assert_int_equal(revision, 99);
	assert_layer(s, "local", 1);
	store_close(s);
}

struct seen {
	size_t n;
	uint64_t revisions[4];
	struct store_revision last;
	char hash[SHA256_HEX], reason[64], diff[64];
};

static void see(void *userdata, const struct store_revision *r)
{
	struct seen *seen = userdata;

	if (seen->n < ARRAY_SIZE(seen->revisions))
		seen->revisions[seen->n] = r->revision;
	seen->n++;
	seen->last = *r;
	snprintf(seen->hash, sizeof(seen->hash), "%s", r->hash);
	snprintf(seen->reason, sizeof(seen->reason), "%s", r->reason);
	snprintf(seen->diff, sizeof(seen->diff), "%s", r->diff);
}

static void test_history(void **state)
{
	struct seen seen = {0};
	struct err_text err = {""};
	struct store *s = must_open();
	char hash[SHA256_HEX];

	for (int i = 0; i < 3; i++)
		assert_int_equal(commit(s, "local", &err), 0);
	assert_int_equal(store_history(s, 2, see, &seen, &err), 0);
	assert_int_equal(seen.n, 2);
	assert_int_equal(seen.revisions[0], 3);
	assert_int_equal(seen.revisions[1], 2);
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(store_history(s, 0, see, &seen, &err), 0);
	assert_int_equal(seen.n, 3);
	sha256_hex("local revision 1\n", 17, hash);
	assert_string_equal(seen.hash, hash);
	assert_string_equal(seen.reason, "test");
	assert_string_equal(seen.diff, "+a = b");
	assert_int_equal(seen.last.uid, 7);
	assert_true(seen.last.time_unix_ns > 1600000000 * NSEC_PER_SEC);
	store_close(s);
}

static void test_state(void **state)
{
	struct err_text err = {""};
	struct store *s = must_open();
	uint64_t value = 5;

	assert_int_equal(store_state_get(s, "batch/serial", &value), -ENOENT);
	assert_int_equal(value, 5);
	assert_int_equal(store_state_set(s, "batch/serial", 41, &err), 0);
	assert_int_equal(store_state_set(s, "batch/serial", UINT64_MAX, &err), 0);
	assert_int_equal(store_state_set(s, "store/head", 3, &err), -EINVAL);
	store_close(s);
	s = must_open();
	assert_int_equal(store_state_get(s, "batch/serial", &value), 0);
	assert_true(value == UINT64_MAX);
	store_close(s);
}

static void test_old_revisions_go(void **state)
{
	struct store_revision r = {.layer = "local"};
	struct seen seen = {0};
	struct err_text err = {""};
	struct store *s = must_open();
	size_t size = 4U << 20, n = 0;
	_cleanup_free_ char *text = calloc(1, size);
	uint64_t revision;

	assert_int_equal(commit(s, "files", &err), 0);
	for (int i = 0; i < 31; i++) {
		text[0] = (char)i; /* each its own content */
		assert_int_equal(
			store_commit(s, &r, text, size, store_head(s), &revision, &err), 0);
	}
	for (uint64_t i = 1; i <= 32; i++) {
		_cleanup_free_ char *layer = NULL, *body = NULL;
		size_t len;

		n += store_document(s, i, &layer, &body, &len, &err) == 0;
	}
	/* 32 MiB of 4 MiB documents, and the small one that is its layer's newest. */
	assert_in_range(n, 7, 9);
	assert_layer(s, "files", 1);
	assert_int_equal(store_history(s, 0, see, &seen, &err), 0);
	assert_int_equal(seen.n, 32);
	store_close(s);
	s = must_open();
	assert_int_equal(store_head(s), 32);
	store_close(s);
}

/* Ages a database by hand past the bound on revisions; chains must still hold over the gap. */
static void test_bound_on_revisions(void **state)
{
	struct seen seen = {0};
	struct err_text err = {""};
	struct store *s = must_open();

	sqlite3_exec(s->sql.db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	assert_int_equal(commit(s, "files", &err), 0);
	for (int i = 0; i < STORE_KEEP_REVISIONS + 47; i++)
		assert_int_equal(commit(s, "local", &err), 0);
	assert_int_equal(store_history(s, 0, see, &seen, &err), 0);
	assert_in_range(seen.n, STORE_KEEP_REVISIONS, STORE_KEEP_REVISIONS + 17);
	assert_int_equal(seen.last.revision, 1); /* of the layer files */
	store_close(s);
	s = must_open();
	assert_layer(s, "files", 1);
	assert_layer(s, "local", STORE_KEEP_REVISIONS + 48);
	store_close(s);
}

static void test_second_agentd(void **state)
{
	struct store *s = must_open();
	char words[32];

	snprintf(words, sizeof(words), "(pid %d)", (int)getpid());
	refused(-EBUSY, words);
	store_close(s);
	store_close(must_open());
}

static void write_file(const void *data, size_t len)
{
	int fd = open(db, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, data, len), 0);
	close(fd);
}

/* All of the folder's database files as one buffer. */
static void snapshot(struct buf *out)
{
	buf_init(out, 0);
	assert_int_equal(io_read_file(IO_NO_FD, db, out, 64 << 20), 0);
}

static void refused_and_kept(int code, const char *words)
{
	_cleanup_buf_ struct buf before, after;

	snapshot(&before);
	refused(code, words);
	snapshot(&after);
	assert_int_equal(before.len, after.len);
	if (before.len)
		assert_memory_equal(before.data, after.data, before.len);
}

static void test_not_a_database(void **state)
{
	char zeros[4096] = {0};

	write_file("profiling:\n  enabled: true\n", 27);
	refused_and_kept(-EBADMSG, "is not a database");
	write_file("x", 1);
	refused_and_kept(-EBADMSG, "is not a database");
	write_file(zeros, sizeof(zeros));
	refused_and_kept(-EBADMSG, "is not a database");
	unlink(db);
	assert_int_equal(mkdir(db, 0700), 0);
	refused(-EINVAL, "is not a regular file");
	rmdir(db);
	assert_int_equal(symlink("/etc/passwd", db), 0);
	refused(-ELOOP, "cannot open");
	unlink(db);
	assert_int_equal(mkfifo(db, 0600), 0);
	refused(-EINVAL, "is not a regular file");
}

static void test_empty_file_is_new(void **state)
{
	write_file("", 0);
	store_close(must_open());
}

static void test_foreign_database(void **state)
{
	sqlite3 *other = NULL;

	assert_int_equal(sqlite3_open(db, &other), 0);
	assert_int_equal(
		sqlite3_exec(other, "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)", NULL,
			NULL, NULL),
		0);
	sqlite3_close(other);
	refused_and_kept(-EUCLEAN, "another program");
	assert_int_equal(sqlite3_open(db, &other), 0);
	sqlite3_exec(
		other, "PRAGMA application_id = 1234; PRAGMA user_version = 1", NULL, NULL, NULL);
	sqlite3_close(other);
	refused_and_kept(-EUCLEAN, "another program");
	/* Someone else's, in write-ahead mode with a log that was not folded in. */
	unlink(db);
	if (fork() == 0) {
		sqlite3_open(db, &other);
		sqlite3_exec(other, "PRAGMA journal_mode = WAL; CREATE TABLE theirs (x)", NULL,
			NULL, NULL);
		_exit(0);
	}
	wait(NULL);
	refused_and_kept(-EUCLEAN, "another program");
}

static void test_newer(void **state)
{
	const char *two[] = {sql_migrations[0], "CREATE TABLE later (x)"};
	struct err_text err = {""};
	struct store *s = must_open();
	char copy[128];

	assert_int_equal(commit(s, "local", &err), 0);
	store_close(s);
	assert_int_equal(store_open_with(&s, db, two, 2, &err), 0);
	assert_layer(s, "local", 1);
	assert_int_equal(commit(s, "local", &err), 0);
	store_close(s);
	refused_and_kept(-EPROTONOSUPPORT, "newer version");
	/* The way back that the sentence names. */
	snprintf(copy, sizeof(copy), "%s.v1", db);
	assert_int_equal(access(copy, F_OK), 0);
	assert_int_equal(rename(copy, db), 0);
	s = must_open();
	assert_layer(s, "local", 1);
	store_close(s);
}

static void test_migration_fails_wholly(void **state)
{
	const char *bad[] = {sql_migrations[0], "CREATE TABLE good (x)",
		"CREATE TABLE half (x); CREATE TABLE half (x)"};
	struct err_text err = {""};
	struct store *s = must_open();
	int tables = 0, id, version = 0;

	assert_int_equal(commit(s, "local", &err), 0);
	store_close(s);
	s = NULL;
	assert_true(store_open_with(&s, db, bad, 3, &err) < 0);
	assert_null(s);
	assert_true(strlen(err.text) > 0);
	/* Step 2 stands, step 3 left nothing. */
	assert_int_equal(store_open_with(&s, db, bad, 2, &err), 0);
	assert_int_equal(sql_identify(&s->sql, &id, &version, &tables, &err), 0);
	assert_int_equal(version, 2);
	assert_layer(s, "local", 1);
	store_close(s);
}

static void test_read_only(void **state)
{
	struct err_text err = {""};
	struct store *s = NULL;

	if (mount("none", folder, "tmpfs", 0, "size=1m") < 0)
		fail_msg("this test mounts a tmpfs and has to run as root: %m");
	store_close(must_open());
	assert_int_equal(mount("none", folder, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_int_equal(store_open(&s, db, &err), -EROFS);
	assert_non_null(strstr(err.text, "ead-only"));
}

static void test_read_only_file(void **state)
{
	store_close(must_open());
	/* Root may write what nobody may, so the file itself is made immutable by a bind mount. */
	assert_int_equal(mount(db, db, NULL, MS_BIND, NULL), 0);
	assert_int_equal(mount("none", db, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
	refused(-EROFS, "ead-only");
	umount2(db, MNT_DETACH);
}

static void test_disk_full(void **state)
{
	struct store_revision r = {.layer = "local"};
	_cleanup_free_ char *big = malloc(200000);
	struct err_text err = {""};
	struct store *s;
	uint64_t head, revision;
	int error = 0;

	if (mount("none", folder, "tmpfs", 0, "size=1m") < 0)
		fail_msg("this test mounts a tmpfs and has to run as root: %m");
	s = must_open();
	assert_int_equal(commit(s, "files", &err), 0);
	for (int i = 0; i < 20 && error == 0; i++) {
		memset(big, 'a' + i, 200000);
		error = store_commit(s, &r, big, 200000, store_head(s), &revision, &err);
	}
	assert_int_equal(error, -ENOSPC);
	assert_non_null(strstr(err.text, "no room on the disk"));
	head = store_head(s);
	assert_true(head > 1);
	/* Still answers, and goes on. */
	assert_layer(s, "files", 1);
	assert_int_equal(mount("none", folder, "tmpfs", MS_REMOUNT, "size=8m"), 0);
	assert_int_equal(commit(s, "local", &err), 0);
	assert_layer(s, "local", head + 1);
	store_close(s);
	s = must_open();
	assert_layer(s, "local", head + 1);
	store_close(s);
}

static void test_disk_full_at_start(void **state)
{
	struct err_text err = {""};
	struct store *s = NULL;

	if (mount("none", folder, "tmpfs", 0, "size=8k") < 0)
		fail_msg("this test mounts a tmpfs and has to run as root: %m");
	assert_int_equal(store_open(&s, db, &err), -ENOSPC);
	assert_int_equal(mount("none", folder, "tmpfs", MS_REMOUNT, "size=8m"), 0);
	store_close(must_open());
}

/* What a crash now would leave: the files as they are, opened elsewhere. */
static void assert_crash_leaves(uint64_t head)
{
	char saved[96], elsewhere[160];
	struct store *s;

	memcpy(saved, db, sizeof(db));
	shell("rm -rf %s/crash && mkdir %s/crash && cp %s %s-wal %s/crash/ 2>/dev/null || "
	      "cp %s %s/crash/",
		folder, folder, db, db, folder, db, folder);
	snprintf(elsewhere, sizeof(elsewhere), "%s/crash/state.db", folder);
	snprintf(db, sizeof(db), "%.90s", elsewhere);
	s = must_open();
	assert_int_equal(store_head(s), head);
	store_close(s);
	memcpy(db, saved, sizeof(db));
}

/* Every write, sync and truncation of three commits fails once; what was answered is what is true. */
static void fail_each_operation(int code, int expected)
{
	bool reached_end = false;

	for (unsigned long at = 1; !reached_end; at++) {
		struct err_text err = {""};
		struct store *s;
		uint64_t acknowledged;
		int failures = 0;

		shell("rm -rf %s/*", folder);
		s = must_open();
		assert_int_equal(commit(s, "files", &err), 0);
		acknowledged = 1;
		faults_arm(at, 1, code);
		for (int i = 0; i < 3; i++) {
			int r = commit(s, "local", &err);

			if (r == 0) {
				acknowledged++;
			} else {
				assert_int_equal(r, expected);
				failures++;
				assert_int_equal(store_head(s), acknowledged);
				assert_crash_leaves(acknowledged);
			}
		}
		reached_end = faults.ops < at;
		faults_arm(0, 0, 0);
		assert_true(reached_end || failures <= 1);
		assert_crash_leaves(acknowledged);
		store_close(s);
		s = must_open();
		assert_int_equal(store_head(s), acknowledged);
		assert_layer(s, "local", acknowledged > 1 ? acknowledged : 0);
		store_close(s);
		assert_true(at < 500);
	}
}

static void test_each_operation_full(void **state)
{
	faults_install();
	fail_each_operation(SQLITE_FULL, -ENOSPC);
}

static void test_each_operation_error(void **state)
{
	faults_install();
	fail_each_operation(SQLITE_IOERR_WRITE, -EIO);
}

/* The same while the database is made, and while it is upgraded. */
static void test_each_operation_of_opening(void **state)
{
	const char *two[] = {sql_migrations[0], "CREATE TABLE later (x)"};
	bool reached_end = false;

	faults_install();
	for (unsigned long at = 1; !reached_end; at++) {
		struct err_text err = {""};
		struct store *s = NULL;
		int r;

		shell("rm -rf %s/*", folder);
		if (at % 2) {
			s = must_open();
			assert_int_equal(commit(s, "local", &err), 0);
			store_close(s);
			s = NULL;
		}
		faults_arm((at + 1) / 2, 1, SQLITE_IOERR_FSYNC);
		r = at % 2 ? store_open_with(&s, db, two, 2, &err) : store_open(&s, db, &err);
		reached_end = at % 2 && faults.ops < (at + 1) / 2;
		faults_arm(0, 0, 0);
		assert_true(r == 0 || r == -EIO);
		if (r == 0)
			store_close(s);
		assert_int_equal(store_open_with(&s, db, two, 2, &err), 0);
		if (at % 2)
			assert_layer(s, "local", 1);
		assert_int_equal(commit(s, "local", &err), 0);
		store_close(s);
		assert_true(at < 500);
	}
}

/* A child commits and says so after each; it is killed at a random moment, later where disk and CPU
 * give it no time for much. */
static void test_kill(void **state)
{
	uint64_t said = 0;

	srand(1);
	for (int round = 0; round < 60 || said <= 60; round++) {
		struct store *s;
		uint64_t head;
		ssize_t n;
		int pipes[2];
		pid_t pid;

		assert_int_equal(pipe(pipes), 0);
		pid = fork();
		if (pid == 0) {
			struct err_text err;

			if (store_open(&s, db, &err) < 0)
				_exit(2);
			for (;;) {
				if (commit(s, "local", &err) < 0)
					_exit(3);
				head = store_head(s);
				if (write(pipes[1], &head, sizeof(head)) < 0)
					_exit(4);
			}
		}
		close(pipes[1]);
		usleep((useconds_t)(rand() % 30000 * (1 + round / 60)));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while ((n = read(pipes[0], &head, sizeof(head))) == sizeof(head))
			said = head;
		close(pipes[0]);
		s = must_open();
		/* What was said is there; at most the one commit more that was not yet said. */
		assert_in_range(store_head(s), said, said + 1);
		said = store_head(s);
		assert_layer(s, "local", said);
		store_close(s);
	}
}

/* One byte anywhere: refused with a sentence, or everything is as it was. Never something else. */
static void test_flipped_bytes(void **state)
{
	struct err_text err = {""};
	struct store *s = must_open();
	_cleanup_buf_ struct buf good;
	size_t noticed = 0, rounds = 0;

	for (int i = 0; i < 5; i++)
		assert_int_equal(commit(s, i % 2 ? "files" : "local", &err), 0);
	assert_int_equal(store_state_set(s, "batch/serial", 77, &err), 0);
	store_close(s);
	snapshot(&good);
	for (size_t at = 0; at < good.len; at += 13, rounds++) {
		_cleanup_free_ char *local = NULL, *files = NULL;
		uint64_t revision = 0, serial = 0;
		size_t len;
		int r;

		good.data[at] ^= 0x41;
		write_file(good.data, good.len);
		good.data[at] ^= 0x41;
		s = NULL;
		r = store_open(&s, db, &err);
		if (r == 0)
			r = store_layer_load(s, "local", &local, &len, &revision, &err);
		if (r == 0) {
			assert_int_equal(revision, 5);
			assert_string_equal(local, "local revision 5\n");
			r = store_layer_load(s, "files", &files, &len, &revision, &err);
		}
		if (r == 0) {
			assert_int_equal(revision, 4);
			assert_string_equal(files, "files revision 4\n");
			assert_int_equal(store_state_get(s, "batch/serial", &serial), 0);
			assert_int_equal(serial, 77);
		} else {
			assert_non_null(strstr(err.text, db));
			noticed++;
		}
		store_close(s);
	}
	assert_true(noticed > 50 && noticed < rounds);
}

/* Values, not structure: what SQLite has no check for is found by the seals. */
static void test_changed_values(void **state)
{
	static const char *const changes[] = {
		"DROP TRIGGER revision_is_immutable; UPDATE revision SET uid = 0 WHERE revision = 2",
		"DROP TRIGGER revision_is_immutable; UPDATE revision SET layer = 'x'",
		"DELETE FROM revision WHERE revision = 3",
		"UPDATE state SET value = 4",
		"DROP TRIGGER document_is_immutable; UPDATE document SET body = 'x'",
		"DELETE FROM document",
	};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		_cleanup_free_ char *text = NULL;
		struct err_text err = {""};
		struct store *s;
		sqlite3 *raw = NULL;
		uint64_t revision;
		size_t len;
		int r;

		shell("rm -rf %s/*", folder);
		s = must_open();
		for (int n = 0; n < 3; n++)
			assert_int_equal(commit(s, "local", &err), 0);
		store_close(s);
		assert_int_equal(sqlite3_open(db, &raw), 0);
		assert_int_equal(sqlite3_exec(raw, changes[i], NULL, NULL, NULL), 0);
		sqlite3_close(raw);
		s = NULL;
		r = store_open(&s, db, &err);
		if (r == 0)
			r = store_layer_load(s, "local", &text, &len, &revision, &err);
		assert_int_equal(r, -EBADMSG);
		assert_non_null(strstr(err.text, "is damaged"));
		store_close(s);
	}
}

static void test_locked_by_other_program(void **state)
{
	sqlite3 *raw = NULL;

	store_close(must_open());
	assert_int_equal(sqlite3_open(db, &raw), 0);
	assert_int_equal(sqlite3_exec(raw, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE", NULL,
				 NULL, NULL),
		0);
	refused(-EBUSY, "in use by another program");
	sqlite3_close(raw);
	store_close(must_open());
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha256),
		TEST(test_commit_and_load),
		TEST(test_empty_and_binary_documents),
		TEST(test_too_large),
		TEST(test_stale),
		TEST(test_history),
		TEST(test_state),
		TEST(test_old_revisions_go),
		TEST(test_bound_on_revisions),
		TEST(test_second_agentd),
		TEST(test_not_a_database),
		TEST(test_empty_file_is_new),
		TEST(test_foreign_database),
		TEST(test_newer),
		TEST(test_migration_fails_wholly),
		TEST(test_read_only),
		TEST(test_read_only_file),
		TEST(test_disk_full),
		TEST(test_disk_full_at_start),
		TEST(test_kill),
		TEST(test_flipped_bytes),
		TEST(test_changed_values),
		TEST(test_locked_by_other_program),
		/* From here on through the failing layer. */
		TEST(test_each_operation_full),
		TEST(test_each_operation_error),
		TEST(test_each_operation_of_opening),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
