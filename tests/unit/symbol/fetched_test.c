/* SPDX-License-Identifier: Apache-2.0 */

/* The disk cache of fetched debug files: bounds, ages, what survives a restart, and what must not be used. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/symbol/fetched.h"

#define KB 1024ULL

static char folder[64], cache[80];

static int set_up(void **state)
{
	snprintf(folder, sizeof(folder), "/tmp/odi-fetched-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(cache, sizeof(cache), "%s/debuginfo", folder);
	return 0;
}

static int tear_down(void **state)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static const struct fetched_config small = {.max_bytes = 100 * KB, .max_file_bytes = 60 * KB};

static struct fetched *make(const struct fetched_config *config)
{
	struct fetched *f = NULL;
	struct err_text err = {};

	if (fetched_new(&f, cache, config, &err) < 0)
		fail_msg("%s", err.text);
	return f;
}

/* A build id of its own for each i. */
static const char *id(unsigned i)
{
	static char ids[8][41];
	static unsigned at;
	char *s = ids[at++ % ARRAY_SIZE(ids)];

	snprintf(s, 41, "%040x", i);
	return s;
}

static const char *path_of(const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s", cache, name);
	return path;
}

static void fill(int fd, unsigned i, size_t bytes)
{
	_cleanup_free_ uint8_t *data = malloc(bytes);

	memset(data, (int)i, bytes);
	assert_int_equal(io_write_all(fd, data, bytes), 0);
}

/* Until the clock by which files' times are kept has gone on. */
static void next_tick(void)
{
	struct timespec was, now;

	clock_gettime(CLOCK_REALTIME_COARSE, &was);
	do {
		usleep(1000);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (now.tv_sec == was.tv_sec && now.tv_nsec == was.tv_nsec);
}

static void put(struct fetched *f, unsigned i, size_t bytes)
{
	uint64_t room;
	int fd = fetched_begin(f, &room);

	assert_true(fd >= 0);
	fill(fd, i, bytes);
	assert_int_equal(fetched_commit(f, fd, id(i), bytes), 0);
	close(fd);
	next_tick(); /* the order of use must not hang on one */
}

static bool is_there(struct fetched *f, unsigned i, size_t bytes)
{
	_cleanup_close_ int fd = fetched_open(f, id(i));
	uint8_t byte = 0;
	struct stat st;

	if (fd < 0) {
		assert_int_equal(fd, -ENOENT);
		fd = -1;
		assert_false(fetched_has(f, id(i)));
		assert_int_equal(access(path_of(id(i)), F_OK), -1);
		return false;
	}
	assert_true(fetched_has(f, id(i)));
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, bytes);
	assert_int_equal(pread(fd, &byte, 1, (off_t)bytes - 1), 1);
	assert_int_equal(byte, (uint8_t)i);
	assert_int_equal(write(fd, &byte, 1), -1); /* for reading only */
	return true;
}

static struct fetched_figures figures(struct fetched *f)
{
	struct fetched_figures r;

	fetched_figures(f, &r);
	return r;
}

static void test_kept(void **state)
{
	CLEANUP(fetched_freep) struct fetched *f = make(&small);
	struct stat st;
	uint64_t room;
	int fd;

	assert_false(is_there(f, 1, 1));
	put(f, 1, 10 * KB);
	assert_true(is_there(f, 1, 10 * KB));
	assert_int_equal(stat(path_of(id(1)), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(cache, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	/* What is not whole has no name, and room is never more than one file may have. */
	fd = fetched_begin(f, &room);
	assert_int_equal(room, 60 * KB);
	fill(fd, 2, 10 * KB);
	assert_int_equal(fetched_commit(f, fd, id(2), 11 * KB), -EBADMSG);
	assert_int_equal(fetched_commit(f, fd, id(2), 0), -EBADMSG);
	close(fd);
	assert_false(is_there(f, 2, 0));
	assert_int_equal(figures(f).bytes, 10 * KB);
	/* The same once more takes the place of the first. */
	put(f, 1, 20 * KB);
	assert_true(is_there(f, 1, 20 * KB));
	assert_int_equal(figures(f).files, 1);
	assert_int_equal(figures(f).bytes, 20 * KB);
	fetched_remove(f, id(1));
	fetched_remove(f, id(1));
	assert_false(is_there(f, 1, 0));
	assert_int_equal(figures(f).bytes, 0);
}

static void test_names(void **state)
{
	static const char *const bad[] = {"", "..", "../../etc/passwd", "0123", "0123456789ABCDEF",
		"0123456789abcdef0", "0123456789abcde/",
		"0123456789abcdef0123456789abcdef0123456789"};
	CLEANUP(fetched_freep) struct fetched *f = make(&small);
	uint64_t room;
	_cleanup_close_ int fd = fetched_begin(f, &room);

	fill(fd, 1, 100);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(fetched_commit(f, fd, bad[i], 100), -EINVAL);
		assert_int_equal(fetched_open(f, bad[i]), -ENOENT);
	}
	assert_int_equal(fetched_commit(f, fd, "0123456789abcdef", 100), 0);
	assert_true(fetched_has(f, "0123456789abcdef"));
}

static void test_least_recently_used(void **state)
{
	CLEANUP(fetched_freep) struct fetched *f = make(&small);

	for (unsigned i = 1; i <= 4; i++)
		put(f, i, 25 * KB);
	assert_int_equal(figures(f).bytes, 100 * KB);
	assert_true(is_there(f, 1, 25 * KB)); /* used: now 2 is the oldest */
	next_tick();
	put(f, 5, 26 * KB);
	assert_true(is_there(f, 1, 25 * KB));
	assert_false(is_there(f, 2, 0));
	assert_false(is_there(f, 3, 0));
	assert_true(is_there(f, 4, 25 * KB));
	assert_true(is_there(f, 5, 26 * KB));
	assert_int_equal(figures(f).evicted, 2);
	assert_int_equal(figures(f).bytes, 76 * KB);
}

static void test_too_big(void **state)
{
	CLEANUP(fetched_freep) struct fetched *f = make(&small);
	uint64_t room;
	_cleanup_close_ int fd = fetched_begin(f, &room);

	put(f, 1, 50 * KB);
	fill(fd, 2, 61 * KB);
	assert_int_equal(fetched_commit(f, fd, id(2), 61 * KB), -ENOSPC);
	assert_false(is_there(f, 2, 0));
	assert_true(is_there(f, 1, 50 * KB)); /* nothing had to go for it */
}

/* Which was used last survives, too. */
static void test_restart(void **state)
{
	struct fetched *f = make(&small);

	for (unsigned i = 1; i <= 4; i++)
		put(f, i, 20 * KB);
	assert_true(is_there(f, 1, 20 * KB));
	fetched_free(f);
	f = make(&small);
	assert_int_equal(figures(f).files, 4);
	assert_int_equal(figures(f).bytes, 80 * KB);
	assert_true(is_there(f, 3, 20 * KB));
	next_tick();
	put(f, 5, 40 * KB); /* room for one less: 2 is the oldest */
	assert_false(is_there(f, 2, 0));
	assert_true(is_there(f, 1, 20 * KB));
	fetched_free(f);
	/* A smaller bound holds at once. */
	f = make(&(struct fetched_config){.max_bytes = 45 * KB, .max_file_bytes = 45 * KB});
	assert_true(figures(f).bytes <= 45 * KB);
	fetched_free(f);
}

static void test_age(void **state)
{
	const struct fetched_config config = {.max_age_ns = 3600 * NSEC_PER_SEC};
	struct fetched *f = make(&config);
	struct timespec old[] = {{.tv_sec = time(NULL)}, {.tv_sec = time(NULL) - 3700}};
	struct timespec ahead[] = {{.tv_sec = time(NULL)}, {.tv_sec = time(NULL) + 7 * 86400}};

	put(f, 1, KB);
	put(f, 2, KB);
	put(f, 3, KB);
	fetched_free(f);
	/* It counts when it was fetched, however often it is used. */
	assert_int_equal(utimensat(AT_FDCWD, path_of(id(1)), old, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, path_of(id(2)), ahead, 0), 0);
	f = make(&config);
	assert_false(is_there(f, 1, 0));
	assert_false(is_there(f, 2, 0));
	assert_true(is_there(f, 3, KB));
	assert_int_equal(figures(f).expired, 2);
	fetched_free(f);
}

/* Names that nobody would miss, links, folders, files that others may read or that have another name: gone or let lie, and
 * never opened. */
static void test_foreign(void **state)
{
	char command[1200], target[80];
	struct fetched *f = make(&small);

	put(f, 9, KB);
	fetched_free(f);
	snprintf(target, sizeof(target), "%s/target", folder);
	snprintf(command, sizeof(command),
		"cd %s && umask 077 && echo secret > %s && echo x > note.txt && echo x > .unfinished &&"
		" echo x > %s && chmod 0644 %s && ln -s %s %s && echo x > ../two && ln ../two %s &&"
		" mkdir %s && mkfifo %s && : > %s",
		cache, target, id(1), id(1), target, id(2), id(3), id(4), id(5), id(6));
	assert_int_equal(system(command), 0);
	f = make(&small);
	assert_int_equal(figures(f).files, 1);
	assert_int_equal(figures(f).foreign, 6);
	for (unsigned i = 1; i <= 6; i++)
		assert_int_equal(fetched_open(f, id(i)), -ENOENT);
	assert_true(is_there(f, 9, KB));
	assert_int_equal(access(target, F_OK), 0);
	fetched_free(f);
}

/* Written to or cut behind our back: not used. */
static void test_changed(void **state)
{
	CLEANUP(fetched_freep) struct fetched *f = make(&small);

	put(f, 1, 10 * KB);
	put(f, 2, 10 * KB);
	put(f, 3, 10 * KB);
	assert_int_equal(truncate(path_of(id(1)), 5 * KB), 0);
	assert_int_equal(truncate(path_of(id(2)), 500 * KB), 0);
	assert_int_equal(unlink(path_of(id(3))), 0);
	assert_int_equal(symlink("/etc/passwd", path_of(id(3))), 0);
	for (unsigned i = 1; i <= 3; i++)
		assert_false(is_there(f, i, 0));
	assert_int_equal(figures(f).foreign, 3);
	assert_int_equal(figures(f).bytes, 0);
}

static void test_folder_of_others(void **state)
{
	struct fetched *f = NULL;
	struct err_text err = {};

	assert_int_equal(mkdir(cache, 0700), 0);
	assert_int_equal(chmod(cache, 0777), 0);
	assert_int_equal(fetched_new(&f, cache, &small, &err), -EPERM);
	assert_null(f);
	assert_int_equal(rmdir(cache), 0);
	assert_int_equal(symlink("/tmp", cache), 0);
	assert_true(fetched_new(&f, cache, &small, &err) < 0);
}

/* A disk that should have more free than it can: nothing is begun, and nothing is kept. */
static void test_full_disk(void **state)
{
	struct fetched *f = make(&small);
	uint64_t room;

	put(f, 1, KB);
	assert_false(fetched_disk_is_full(f));
	fetched_free(f);
	f = make(&(struct fetched_config){.min_free_percent = 100});
	assert_true(fetched_disk_is_full(f));
	assert_int_equal(fetched_begin(f, &room), -ENOSPC);
	assert_false(is_there(f, 1, 0));
	fetched_free(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_kept),
		TEST(test_names),
		TEST(test_least_recently_used),
		TEST(test_too_big),
		TEST(test_restart),
		TEST(test_age),
		TEST(test_foreign),
		TEST(test_changed),
		TEST(test_folder_of_others),
		TEST(test_full_disk),
	};

	return cmocka_run_group_tests_name("symbol/fetched", tests, NULL, NULL);
}
