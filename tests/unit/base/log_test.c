/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"

static int real_stderr = -1;

/* What the test logs goes through a socket pair (as to the journal), and is read back from its other end. */
static int pair[2];

static int capture(void **s)
{
	real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	unsetenv("JOURNAL_STREAM");
	log_set_hook(NULL, NULL);
	if (dup2(pair[1], STDERR_FILENO) < 0)
		return -1;
	log_init("agentd", LOG_LEVEL_DEBUG);
	return 0;
}

static int release(void **s)
{
	dup2(real_stderr, STDERR_FILENO);
	closep(&real_stderr);
	closep(&pair[0]);
	closep(&pair[1]);
	return 0;
}

static char *written(void)
{
	static char text[1 << 16];
	ssize_t n = read(pair[0], text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static const char *last_text;
static struct log_line last;
static size_t n_seen;

static void see(void *userdata, const struct log_line *line)
{
	assert_ptr_equal(userdata, &n_seen);
	last = *line;
	last_text = line->text;
	n_seen++;
}

/* The newest kept line. */
static const char *newest(void)
{
	last_text = NULL;
	log_each(0, see, &n_seen);
	return last_text;
}

static void test_levels(void **s)
{
	enum log_level level = LOG_LEVEL_ERROR;

	assert_int_equal(log_level_parse("warning", &level), 0);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(log_level_parse("7", &level), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse("5", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_string_equal(log_level_name(LOG_LEVEL_INFO), "info");
	log_set_level(LOG_LEVEL_WARN);
	assert_int_equal(log_get_level(), LOG_LEVEL_WARN);
	log_info("not this");
	assert_string_equal(written(), "");
	log_warning("but this");
	assert_non_null(strstr(written(), "warning agentd: but this\n"));
	assert_string_equal(newest(), "but this");
}

static void test_file_format(void **s)
{
	uint64_t before = clock_unix_ns(), at;
	unsigned ms;
	struct tm tm = {0};
	char *text, *rest;

	errno = ENOENT;
	log_error("cannot open %s: %m", "x");
	assert_int_equal(errno, ENOENT);
	text = written();
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	assert_non_null(rest);
	assert_int_equal(sscanf(rest, ".%3uZ", &ms), 1);
	assert_string_equal(rest + 5, " error agentd: cannot open x: No such file or directory\n");
	at = (uint64_t)timegm(&tm) * NSEC_PER_SEC + ms * NSEC_PER_MSEC;
	assert_true(at + NSEC_PER_MSEC >= before && at <= clock_unix_ns());
}

static void test_journal_format(void **s)
{
	struct stat st;
	char stream[64];

	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init("agentd", LOG_LEVEL_DEBUG);
	log_warning("one");
	log_init("symbolizer", LOG_LEVEL_DEBUG);
	log_debug("two");
	assert_string_equal(written(), "<4>one\n<7>symbolizer: two\n");
	/* Somebody redirected stderr since. */
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init("symbolizer", LOG_LEVEL_DEBUG);
	log_info("three");
	assert_non_null(strstr(written(), "Z info symbolizer: three\n"));
}

static void test_escapes(void **s)
{
	log_info("a\nb\tc\x1b[2J\x7f\xff\xc2\x9b|%s", "\xc3\xa9");
	assert_non_null(strstr(written(), ": a\\nb\\tc\\x1b[2J\\x7f\\xff\\xc2\\x9b|\xc3\xa9\n"));
	assert_string_equal(newest(), "a\\nb\\tc\\x1b[2J\\x7f\\xff\\xc2\\x9b|\xc3\xa9");
}

static void test_long_line(void **s)
{
	char big[5000];
	size_t len;

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_info("%s", big);
	len = strlen(newest());
	assert_true(len <= 1024 && len > 1000);
	assert_string_equal(last_text + len - 5, "xx...");
	assert_non_null(strstr(written(), "xx...\n"));
	/* Escapes take more room than what they stand for. */
	memset(big, '\x01', sizeof(big) - 1);
	log_info("%s", big);
	len = strlen(newest());
	assert_true(len <= 1024 && len > 1000);
	assert_string_equal(last_text + len - 7, "\\x01...");
}

/* One call site; now - back_s is where its window is made to begin. */
static void log_from_one_site(unsigned times, unsigned back_s)
{
	static struct log_site site;

	if (back_s)
		site.window_start_ns = clock_monotonic_ns() - back_s * NSEC_PER_SEC;
	for (unsigned i = 0; i < times; i++)
		log_write(&site, LOG_LEVEL_INFO, "line %u", i);
}

static size_t kept(void)
{
	uint64_t serial;

	newest();
	serial = last.serial;
	n_seen = 0;
	return serial;
}

static void test_rate(void **s)
{
	size_t before = kept();

	log_from_one_site(25, 0);
	assert_int_equal(kept() - before, 10);
	assert_string_equal(newest(), "line 9");
	/* Within the window nothing more, after it one that says how many there were. */
	log_from_one_site(1, 20);
	assert_int_equal(kept() - before, 10);
	log_from_one_site(1, 31);
	assert_int_equal(kept() - before, 11);
	assert_string_equal(newest(), "line 0 (16 more like this were held back)");
	log_from_one_site(1, 0);
	assert_string_equal(newest(), "line 0");
	/* Another site is not held back by this one; one without a site never is. */
	for (int i = 0; i < 30; i++)
		log_write(NULL, LOG_LEVEL_INFO, "free %d", i);
	assert_string_equal(newest(), "free 29");
}

static void test_kept(void **s)
{
	uint64_t first = kept(), serial;

	for (int i = 0; i < LOG_KEEP + 50; i++) {
		log_write(NULL, LOG_LEVEL_INFO, "number %d", i);
		written();
	}
	n_seen = 0;
	assert_int_equal(log_each(0, see, &n_seen), LOG_KEEP);
	assert_int_equal(n_seen, LOG_KEEP);
	assert_string_equal(last_text, "number 1049");
	assert_int_equal(last.serial, first + LOG_KEEP + 50);
	assert_int_equal(last.level, LOG_LEVEL_INFO);
	assert_true(last.time_unix_ns <= clock_unix_ns());
	serial = last.serial;
	assert_int_equal(log_each(serial - 2, see, &n_seen), 2);
	assert_int_equal(log_each(serial, see, &n_seen), 0);
	assert_int_equal(log_each(UINT64_MAX, see, &n_seen), 0);
	n_seen = 0;
	log_set_hook(see, &n_seen);
	log_info("followed");
	assert_int_equal(n_seen, 1);
	assert_string_equal(last_text, "followed");
	assert_int_equal(last.serial, serial + 1);
	log_set_hook(NULL, NULL);
	log_info("not followed");
	assert_int_equal(n_seen, 1);
}

/* A reader that does not read costs lines here, and is told so. */
static void test_stderr_full(void **s)
{
	char *text;

	for (int i = 0; i < 5000; i++)
		log_write(NULL, LOG_LEVEL_INFO, "filling %d", i);
	assert_string_equal(newest(), "filling 4999");
	do
		text = written();
	while (strlen(text));
	log_info("again");
	text = written();
	assert_non_null(strstr(text, "agentd: again ("));
	assert_non_null(strstr(text, " lines before this could not be written here)\n"));
	log_info("and again");
	assert_non_null(strstr(written(), "and again\n"));
}

#define captured(test) cmocka_unit_test_setup_teardown(test, capture, release)

int main(void)
{
	const struct CMUnitTest tests[] = {
		captured(test_levels),
		captured(test_file_format),
		captured(test_journal_format),
		captured(test_escapes),
		captured(test_long_line),
		captured(test_rate),
		captured(test_kept),
		captured(test_stderr_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
