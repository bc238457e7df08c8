/* SPDX-License-Identifier: Apache-2.0 */

/* Which files only root can change: each way in which somebody else could. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/trusted.h"

static char folder[64];

static const char *at(const char *name)
{
	static char paths[4][200];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void put(const char *name, mode_t mode)
{
	int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void refused(const char *path, const char *says)
{
	struct err_text err = {};
	int fd = trusted_open(path, &err);

	if (fd >= 0 || !strstr(err.text, says))
		fail_msg("%s: %d: %s", path, fd, err.text);
}

static void taken(const char *path)
{
	struct err_text err = {};
	int fd = trusted_open(path, &err);

	if (fd < 0)
		fail_msg("%s: %d: %s", path, fd, err.text);
	close(fd);
}

static void test_paths(void **state)
{
	put("good", 0644);
	put("group", 0664);
	put("world", 0602);
	put("strange", 0600);
	assert_int_equal(chown(at("strange"), 12345, 12345), 0);
	assert_int_equal(mkdir(at("open"), 0700), 0);
	put("open/good", 0600);
	assert_int_equal(chmod(at("open"), 0777), 0);
	assert_int_equal(mkdir(at("sticky"), 0700), 0);
	put("sticky/good", 0600);
	assert_int_equal(chmod(at("sticky"), 01777), 0);
	assert_int_equal(mkdir(at("dir"), 0700), 0);
	put("dir/good", 0600);

	taken(at("good"));
	taken(at("sticky/good"));
	refused(at("group"), "chmod go-w");
	refused(at("world"), "chmod go-w");
	refused(at("strange"), "belongs to uid 12345");
	refused(at("open/good"), "/open may be written by others");
	refused(at("dir"), "is not a regular file");
	refused(at("none"), "No such file");
	refused("good", "no absolute path");
	refused(at("dir/../good"), "no absolute path");
}

static void test_links(void **state)
{
	assert_int_equal(symlink("good", at("near")), 0);
	assert_int_equal(symlink(at("dir/good"), at("far")), 0);
	assert_int_equal(symlink("../good", at("dir/up")), 0);
	assert_int_equal(symlink(at("world"), at("bad")), 0);
	assert_int_equal(symlink(at("good"), at("open/link")), 0);
	assert_int_equal(symlink("dir", at("way")), 0);
	assert_int_equal(symlink("open", at("badway")), 0);
	assert_int_equal(symlink("loop", at("loop")), 0);
	taken(at("near"));
	taken(at("far"));
	taken(at("dir/up"));
	taken(at("way/good"));
	refused(at("bad"), "chmod go-w");
	/* It leads to a good file now; who may write the folder lets it lead elsewhere. */
	refused(at("open/link"), "/open may be written by others");
	refused(at("badway/good"), "may be written by others");
	refused(at("loop"), "");
}

/* Whoever owns a link in a folder like /tmp can let it lead elsewhere, at once or later. */
static void test_others_links(void **state)
{
	assert_int_equal(symlink(at("good"), at("sticky/own")), 0);
	assert_int_equal(symlink(at("good"), at("sticky/other")), 0);
	assert_int_equal(lchown(at("sticky/other"), 12345, 12345), 0);
	assert_int_equal(symlink(at("dir"), at("sticky/way")), 0);
	assert_int_equal(lchown(at("sticky/way"), 12345, 12345), 0);
	assert_int_equal(symlink("sticky/other", at("via")), 0);
	assert_int_equal(symlink("dir/../sticky/other", at("dots")), 0);
	assert_int_equal(symlink(at("good"), at("dir/other")), 0);
	assert_int_equal(lchown(at("dir/other"), 12345, 12345), 0);
	assert_int_equal(symlink(at("sticky/deeper/x"), at("sticky/deeper")), 0);
	taken(at("sticky/own"));
	refused(at("sticky/other"), "is a link of uid 12345");
	refused(at("sticky/way/good"), "is a link of uid 12345");
	refused(at("via"), "is a link of uid 12345");
	refused(at("dots"), "is a link of uid 12345");
	/* Nobody else can take it away there. */
	taken(at("dir/other"));
	/* Without an end, and without recursion. */
	refused(at("sticky/deeper/x"), "Too many levels");
}

static void test_special(void **state)
{
	assert_int_equal(mkfifo(at("fifo"), 0600), 0);
	refused(at("fifo"), "is not a regular file"); /* and does not wait */
	refused("/dev/null", "");
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/odi-trusted-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_others_links),
		cmocka_unit_test(test_special),
	};

	return cmocka_run_group_tests_name("base/trusted", tests, setup, teardown);
}
