/* SPDX-License-Identifier: Apache-2.0 */

/* The cache of names on the disk: what was put is there after closing, what is damaged is gone as a whole and made
 * anew, and bounds hold. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/store/names.h"

static char folder[64], path[96];
static const uint8_t key_a[NAMES_KEY] = "a", key_b[NAMES_KEY] = "b";

static void shell(const char *format, const char *a)
{
	char command[512];

	snprintf(command, sizeof(command), format, a);
	assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/names_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/names.db", folder);
	return 0;
}

static int teardown(void **state)
{
	shell("rm -rf %s", folder);
	return 0;
}

static struct names *must_open(uint64_t max_bytes)
{
	struct names *n = NULL;
	struct err_text err = {""};
	int r = names_open(&n, path, &(struct names_config){.max_bytes = max_bytes}, &err);

	if (r < 0)
		fail_msg("names_open: %d %s", r, err.text);
	return n;
}

static uint64_t must_put_file(struct names *n, const uint8_t *key)
{
	uint64_t id = 0;

	assert_int_equal(names_put_file(n, key, "facts", 5, &id), 0);
	return id;
}

static void put_some(struct names *n, uint64_t id, uint64_t first, uint64_t count)
{
	char value[128];

	assert_int_equal(names_begin(n), 0);
	for (uint64_t i = first; i < first + count; i++) {
		memset(value, 'x', sizeof(value));
		snprintf(value, sizeof(value), "name %d", (int)i);
		assert_int_equal(names_put(n, id, i, value, sizeof(value)), 0);
	}
	assert_int_equal(names_commit(n), 0);
}

static bool has(struct names *n, uint64_t id, uint64_t address)
{
	char expected[128];
	const void *value;
	size_t len;
	int r = names_get(n, id, address, &value, &len);

	if (r < 0)
		return false;
	snprintf(expected, sizeof(expected), "name %d", (int)address);
	assert_int_equal(len, 128);
	assert_string_equal(value, expected);
	return true;
}

static void test_kept(void **state)
{
	struct names *n = must_open(0);
	uint64_t id, again;
	const void *facts;
	size_t len;

	assert_int_equal(names_find(n, key_a, &id, &facts, &len), -ENOENT);
	id = must_put_file(n, key_a);
	put_some(n, id, 0, 1000);
	assert_int_equal(names_begin(n), 0);
	assert_int_equal(names_put(n, id, UINT64_MAX, "", 0), 0);
	assert_int_equal(names_commit(n), 0);
	names_close(n);
	n = must_open(0);
	assert_int_equal(names_find(n, key_a, &id, &facts, &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(facts, "facts", 5);
	for (uint64_t i = 0; i < 1000; i++)
		assert_true(has(n, id, i));
	assert_false(has(n, id, 1000));
	assert_int_equal(names_get(n, id, UINT64_MAX, &facts, &len), 0);
	assert_int_equal(len, 0);
	assert_int_equal(names_find(n, key_b, &again, &facts, &len), -ENOENT);
	/* Another set of names in its place. */
	again = must_put_file(n, key_a);
	assert_false(has(n, again, 1));
	assert_int_equal(names_begin(n), 0);
	assert_int_equal(names_put(n, id, 1, "x", 1), -ESTALE);
	assert_int_equal(names_commit(n), 0);
	while (names_tidy(n) > 0)
		;
	assert_false(has(n, id, 1));
	names_close(n);
}

/* Bytes all over the file are flipped: no wrong name comes out, and what was found damaged works again after. */
static void test_damaged(void **state)
{
	struct names *n = must_open(0);
	uint64_t id = must_put_file(n, key_a);
	struct names_counters c;
	struct stat st;
	size_t found = 0;

	put_some(n, id, 0, 300);
	names_close(n);
	shell("cp %1$s/names.db %1$s/copy", folder);
	assert_int_equal(stat(path, &st), 0);
	for (off_t at = 0; at < st.st_size; at += 97) {
		const void *facts;
		uint8_t byte;
		size_t len;
		int fd, r;

		shell("cp %1$s/copy %1$s/names.db", folder);
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x5a;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		n = must_open(0);
		r = names_find(n, key_a, &id, &facts, &len);
		if (r == 0)
			assert_memory_equal(facts, "facts", 5);
		for (uint64_t i = 0; r == 0 && i < 300; i++)
			(void)has(n, id, i);
		names_counters(n, &c);
		assert_true(c.damaged <= 1);
		found += c.damaged;
		if (c.damaged) {
			put_some(n, must_put_file(n, key_a), 7, 1);
			assert_int_equal(names_find(n, key_a, &id, &facts, &len), 0);
			assert_true(has(n, id, 7));
		}
		names_close(n);
	}
	assert_true(found > 100);
}

static void test_other_things_in_its_place(void **state)
{
	struct names *n;
	struct err_text err;
	sqlite3 *db;

	shell("echo no database > %s", path);
	n = must_open(0);
	put_some(n, must_put_file(n, key_a), 0, 10);
	names_close(n);
	unlink(path);
	/* Of another version. */
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db, "CREATE TABLE name (x); PRAGMA user_version = 9", 0, 0, 0), 0);
	sqlite3_close(db);
	n = must_open(0);
	put_some(n, must_put_file(n, key_a), 0, 10);
	names_close(n);
	unlink(path);
	n = NULL;
	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(names_open(&n, path, &(struct names_config){}, &err) < 0);
	assert_null(n);
}

/* The file that was used longest ago goes, as a whole, and its id with it. */
static void test_bounds(void **state)
{
	struct names *n = must_open(2 << 20);
	struct names_counters c;
	uint64_t id = 0, first = 0;
	const void *facts;
	struct stat st;
	size_t len;

	for (uint8_t file = 1; file < 60; file++) {
		uint8_t key[NAMES_KEY] = {file};

		id = must_put_file(n, key);
		first = first ? first : id;
		for (uint64_t i = 0; i < 4; i++) {
			put_some(n, id, i * 256, 256);
			while (names_tidy(n) > 0)
				;
			names_counters(n, &c);
			assert_true(c.bytes <= 2 << 20);
		}
	}
	assert_true(c.evicted > 30);
	assert_true(has(n, id, 5));
	assert_int_equal(names_begin(n), 0);
	assert_int_equal(names_put(n, first, 1, "x", 1), -ESTALE);
	assert_int_equal(names_commit(n), 0);
	assert_int_equal(names_find(n, (const uint8_t[NAMES_KEY]){59}, &id, &facts, &len), 0);
	assert_int_equal(names_find(n, (const uint8_t[NAMES_KEY]){1}, &id, &facts, &len), -ENOENT);
	names_close(n);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size <= (2 << 20) * 5 / 4);
}

/* More than there is room for at once: refused, and room is there again after. */
static void test_no_room(void **state)
{
	struct names *n = must_open(1 << 20);
	uint64_t id = must_put_file(n, key_a);
	static char big[60000];
	int r = 0;

	assert_int_equal(names_begin(n), 0);
	for (uint64_t i = 0; i < 100 && r == 0; i++)
		r = names_put(n, id, i, big, sizeof(big));
	assert_int_equal(r, -ENOSPC);
	while (names_tidy(n) > 0)
		;
	put_some(n, must_put_file(n, key_b), 0, 100);
	names_close(n);
}

static void test_age(void **state)
{
	struct names *n = must_open(0);
	uint64_t id;
	const void *facts;
	size_t len;
	sqlite3 *db;

	must_put_file(n, key_a);
	must_put_file(n, key_b);
	names_close(n);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db, "UPDATE file SET used = used - 31 * 86400 WHERE id = 1", 0, 0, 0),
		0);
	sqlite3_close(db);
	n = must_open(0);
	while (names_tidy(n) > 0)
		;
	assert_int_equal(names_find(n, key_a, &id, &facts, &len), -ENOENT);
	assert_int_equal(names_find(n, key_b, &id, &facts, &len), 0);
	names_close(n);
}

/* Not a test: what it costs, for who wants to know. */
static void cost(void)
{
	struct names *n = must_open(0);
	uint64_t id = must_put_file(n, key_a), from = clock_monotonic_ns(), to;

	for (uint64_t i = 0; i < 2000; i += 250)
		put_some(n, id, i * 16, 250);
	to = clock_monotonic_ns();
	print_message("2,000 names written in %d us\n", (int)((to - from) / 1000));
	names_close(n);
	n = must_open(0);
	from = clock_monotonic_ns();
	for (uint64_t i = 0; i < 2000; i++)
		(void)has(n, id, i);
	print_message("2,000 names read in %d us\n", (int)((clock_monotonic_ns() - from) / 1000));
	names_close(n);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_things_in_its_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_age, setup, teardown),
	};

	if (argc > 1 && streq(argv[1], "cost")) {
		setup(NULL);
		cost();
		return teardown(NULL);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
