/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers of /proc's text and of OpenTelemetry's variables. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/process/procfs.h"
#include "agentd/process/process.h"

static void test_stat(void **state)
{
	struct procfs_stat s;

	assert_int_equal(
		procfs_stat(
			"4711 (a) R (b) ) S 1 4711 4711 0 -1 4194560 100 0 0 0 17 42 0 0 20 0 3 0 123456 1 2 3\n",
			&s),
		0);
	assert_string_equal(s.comm, "a) R (b) ");
	assert_int_equal(s.state, 'S');
	assert_int_equal(s.ppid, 1);
	assert_int_equal(s.utime, 17);
	assert_int_equal(s.stime, 42);
	assert_int_equal(s.start, 123456);
	assert_false(s.flags & PROCFS_KTHREAD);
	assert_int_equal(
		procfs_stat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 7 0\n", &s),
		0);
	assert_true(s.flags & PROCFS_KTHREAD);
	assert_int_equal(procfs_stat("", &s), -EBADMSG);
	assert_int_equal(procfs_stat(")(", &s), -EBADMSG);
	assert_int_equal(procfs_stat("1 (x) S 1 2", &s), -EBADMSG);
}

static void test_maps(void **state)
{
	char line[] =
		"7f8f08a17000-7f8f08b6d000 r-xp 00026000 fe:01 326269                     /usr/lib/a b (deleted)";
	char none[] = "55c1d2b6c000-55c1d2b71000 rw-p 00000000 00:00 0 ";
	char vsyscall[] =
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]";
	static const char *const bad[] = {"", "x", "1000-", "1000-2000", "1000-2000 r-xp",
		"2000-1000 r-xp 0 0:0 1", "1000-2000 r-xp 0 0:0", "1000-2000 r-xp 0 0-0 1",
		"1000-2000 r-xp 0 0:0 x", "-1-2000 r-xp 0 0:0 1",
		"1000-2000 r-xp fffffffffffffffff 0:0 1"};
	struct procfs_map m;
	char path[64];

	assert_int_equal(procfs_map(line, &m), 0);
	assert_int_equal(m.start, 0x7f8f08a17000);
	assert_int_equal(m.end, 0x7f8f08b6d000);
	assert_int_equal(m.pgoff, 0x26000);
	assert_int_equal(m.major, 0xfe);
	assert_int_equal(m.minor, 1);
	assert_int_equal(m.inode, 326269);
	assert_true(m.exec);
	assert_string_equal(m.path, "/usr/lib/a b (deleted)");
	snprintf(path, sizeof(path), "%s", m.path);
	assert_true(procfs_strip_deleted(path));
	assert_string_equal(path, "/usr/lib/a b");
	assert_false(procfs_strip_deleted(path));
	assert_int_equal(procfs_map(none, &m), 0);
	assert_false(m.exec);
	assert_string_equal(m.path, "");
	assert_int_equal(procfs_map(vsyscall, &m), 0);
	assert_true(m.exec);
	assert_string_equal(m.path, "[vsyscall]");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char copy[64];

		snprintf(copy, sizeof(copy), "%s", bad[i]);
		if (procfs_map(copy, &m) != -EBADMSG)
			fail_msg("accepted: '%s'", bad[i]);
	}
}

/* In pieces of every size: the same result. */
static void scan(struct environ_scan *s, const char *data, size_t len, size_t piece)
{
	environ_scan_init(s);
	for (size_t at = 0; at < len; at += piece)
		environ_scan_feed(s, data + at, MIN(piece, len - at));
	environ_scan_end(s);
}

static void test_environ(void **state)
{
	static const char env[] =
		"PATH=/bin\0SECRET=OTEL_SERVICE_NAME=no\0XOTEL_SERVICE_NAME=no\0OTEL_SERVICE_NAMES=no\0"
		"OTEL_SERVICE_NAME=shop\0OTEL_SERVICE_NAME=second\0"
		"OTEL_RESOURCE_ATTRIBUTES=a=b,service.version=1.2\0HOME=/";
	static struct environ_scan s;

	for (size_t piece = 1; piece <= sizeof(env); piece++) {
		scan(&s, env, sizeof(env), piece);
		assert_true(s.have_service_name);
		assert_string_equal(s.service_name, "shop");
		assert_true(s.have_attributes);
		assert_string_equal(s.attributes, "a=b,service.version=1.2");
		assert_false(s.too_long);
	}
	/* Nothing else is kept: not a byte of the others. */
	assert_null(memmem(&s, sizeof(s), "second", 6));
	assert_null(memmem(&s, sizeof(s), "SECRET", 6));
	scan(&s, "", 0, 1);
	assert_false(s.have_service_name);
	scan(&s, "OTEL_SERVICE_NAME=end", 21, 5);
	assert_string_equal(s.service_name, "end");
	scan(&s, "OTEL_SERVICE_NAME", 17, 5);
	assert_false(s.have_service_name);
}

static void test_environ_too_long(void **state)
{
	static struct environ_scan s;
	size_t len = 18 + 40000;
	char *env = malloc(len);

	memset(env, 'x', len);
	memcpy(env, "OTEL_SERVICE_NAME=", 18);
	scan(&s, env, len, 1000);
	assert_true(s.too_long);
	assert_string_equal(s.service_name, "");
	free(env);
}

struct expected {
	const char *text;
	int refused;
	size_t n;
	const char *key, *value; /* of the last */
};

static void test_otel(void **state)
{
	static const struct expected cases[] = {
		{"", 0, 0, NULL, NULL},
		{",,", 0, 0, NULL, NULL},
		{"a=b", 0, 1, "a", "b"},
		{" a = b , c=d,", 0, 2, "c", "d"},
		{"a=b%20c%2Cd%3De", 0, 1, "a", "b c,d=e"},
		{"k%65y=v", 0, 1, "key", "v"},
		{"a=", 0, 1, "a", ""},
		{"a=b=c", 0, 1, "a", "b=c"},
		{"a=1,a=2", 0, 1, "a", "2"},
		{"a=%C3%BC", 0, 1, "a", "\xc3\xbc"},
		{"a+b=c+d", 0, 1, "a+b", "c+d"},
		/* refused, the others kept */
		{"nope,a=b", 1, 1, "a", "b"},
		{"=b,a=b", 1, 1, "a", "b"},
		{"x=%,y=%1,z=%zz,a=b", 3, 1, "a", "b"},
		{"x=%00,y=%0a,z=%ff,w=%C3,a=b", 4, 1, "a", "b"},
		{"x=\x1b[31m,a=b", 1, 1, "a", "b"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct attribute *list = (void *)1;
		size_t n = 99;
		int r = otel_parse(cases[i].text, &list, &n);

		if (r != cases[i].refused || n != cases[i].n ||
			(n &&
				(strcmp(list[n - 1].key, cases[i].key) ||
					strcmp(list[n - 1].value, cases[i].value))))
			fail_msg("'%s': %d refused, %zu kept, last %s=%s", cases[i].text, r, n,
				n ? list[n - 1].key : "", n ? list[n - 1].value : "");
		otel_free(list, n);
	}
}

static void test_otel_bounds(void **state)
{
	char text[40000], *at = text;
	struct attribute *list;
	size_t n;

	for (int i = 0; i < 70; i++)
		at += sprintf(at, "k%d=v,", i);
	assert_int_equal(otel_parse(text, &list, &n), 6);
	assert_int_equal(n, OTEL_ATTRIBUTES_MAX);
	otel_free(list, n);
	at = text;
	for (int len = 127; len <= 129; len++)
		at += sprintf(at, "%0*d=v,", len, 0);
	for (int len = 255; len <= 257; len++)
		at += sprintf(at, "k%d=%0*d,", len, len, 0);
	assert_int_equal(otel_parse(text, &list, &n), 2);
	assert_int_equal(n, 4);
	otel_free(list, n);
}

static void test_status(void **state)
{
	struct procfs_status st = {0};

	assert_int_equal(procfs_status("Name:\tUid: 7\nUmask:\t0022\nPid:\t4833\n"
				       "Uid:\t1000\t1001\t1002\t1003\nGid:\t5\t5\t5\t5\n"
				       "NStgid:\t4833\t9\t2\nNSpid:\t4833\t17\t1\nNSpgid:\t8\n",
				 &st),
		0);
	assert_int_equal(st.uid, 1001);
	assert_int_equal(st.ns_pid, 1);
	assert_int_equal(procfs_status("Pid:\t12\nUid:\t0\t0\t0\t0\nNSpid:\t12", &st), 0);
	assert_int_equal(st.ns_pid, 12);
	assert_int_equal(procfs_status("Pid:\t13\nUid:\t0\t7\t0\t0\n", &st), 0);
	assert_int_equal(st.ns_pid, 13);
	assert_int_equal(st.uid, 7);
	assert_int_equal(procfs_status("", &st), -EBADMSG);
	assert_int_equal(procfs_status("Pid:\t12\nUid:\t0\n", &st), -EBADMSG);
	assert_int_equal(procfs_status("Pid:\tx\nUid:\t0\t0\n", &st), -EBADMSG);
	assert_int_equal(procfs_status("Pid:\t99999999999\nUid:\t0\t0\n", &st), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_stat),
		cmocka_unit_test(test_maps),
		cmocka_unit_test(test_environ),
		cmocka_unit_test(test_environ_too_long),
		cmocka_unit_test(test_otel),
		cmocka_unit_test(test_otel_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
