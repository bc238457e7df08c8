/* SPDX-License-Identifier: Apache-2.0 */

/* Times as people type them, against a clock and a zone that stand still. */

#include "tests/unit/odictl/capture.h"

#include <time.h>

#include "agentd/base/clock.h"
#include "odictl/tree.h"

static struct cli cli;
static struct selection s;

/* 2026-03-28 09:00:00 UTC is 10:00 in Berlin, the day before its clocks go forward; for Berlin without a zone file. */
#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
static const uint64_t at_ten = 1774688400;

static uint64_t in_seconds(uint64_t ns)
{
	assert_int_equal(ns % NSEC_PER_SEC, 0);
	return ns / NSEC_PER_SEC;
}

static int parse(uint64_t now, const char *since, const char *from, const char *to)
{
	struct args args = {};

	if (since)
		args.given[args.n_given++] = (struct given){NULL, "since", since};
	if (from)
		args.given[args.n_given++] = (struct given){NULL, "from", from};
	if (to)
		args.given[args.n_given++] = (struct given){NULL, "to", to};
	return CAPTURE(selection_parse_at(&cli, &args, now * NSEC_PER_SEC, &s));
}

/* offsets in seconds from at_ten */
static void expect(uint64_t now, const char *from, const char *to, int64_t from_at, int64_t to_at)
{
	if (parse(now, NULL, from, to))
		fail_msg("%s to %s: %s", from, to, captured_err);
	assert_int_equal(in_seconds(s.from_unix_ns) - at_ten, from_at);
	assert_int_equal(in_seconds(s.to_unix_ns) - at_ten, to_at);
}

static void refuse(
	uint64_t now, const char *since, const char *from, const char *to, const char *why)
{
	if (parse(now, since, from, to) != EXIT_USAGE)
		fail_msg("%s %s %s was accepted", since, from, to);
	assert_says(captured_err, why);
}

#define HOUR 3600

static void test_since(void **state)
{
	assert_int_equal(parse(at_ten, NULL, NULL, NULL), 0);
	assert_int_equal(in_seconds(s.from_unix_ns), at_ten - 60);
	assert_int_equal(in_seconds(s.to_unix_ns), at_ten);
	assert_int_equal(parse(at_ten, "2h", NULL, NULL), 0);
	assert_int_equal(in_seconds(s.from_unix_ns), at_ten - 2 * HOUR);
	refuse(at_ten, "yesterdayish", NULL, NULL, "--since: expected a time");
	refuse(at_ten, "0s", NULL, NULL, "--since: expected a time");
	refuse(at_ten, "-5m", NULL, NULL, "--since: expected a time");
	refuse(at_ten, "1m", "5m", NULL, "not both");
}

static void test_clock_times(void **state)
{
	expect(at_ten, "03:12", "03:20", -7 * HOUR + 12 * 60, -7 * HOUR + 20 * 60);
	expect(at_ten, "03:12:30", "now", -7 * HOUR + 12 * 60 + 30, 0);
	/* Later than now: yesterday's. */
	expect(at_ten, "22:00", "22:30", -12 * HOUR, -12 * HOUR + 1800);
	/* Over midnight. */
	expect(at_ten, "23:50", "00:10", -10 * HOUR - 600, -10 * HOUR + 600);
	/* The span has not ended yet. */
	expect(at_ten, "09:58", "10:05", -120, 300);
	/* Its beginning hangs on its end: a minute, of the last 03:20. */
	expect(at_ten, NULL, "03:20", -7 * HOUR + 19 * 60, -7 * HOUR + 20 * 60);
	expect(at_ten, NULL, "11:00", -23 * HOUR - 60, -23 * HOUR);
	/* At every hour of the day a slip is a slip. */
	for (uint64_t now = at_ten; now < at_ten + 24 * HOUR; now += 600)
		refuse(now, NULL, "03:20", "03:12", "--from must be before --to");
	refuse(at_ten, NULL, "25:99", NULL, "--from: expected a time");
	refuse(at_ten, NULL, "5m", "24:61", "--to: expected a time");
	refuse(at_ten, NULL, "03:12x", NULL, "--from: expected a time");
	refuse(at_ten, NULL, "", NULL, "--from: expected a time");
	refuse(at_ten, NULL, "03:1\0332", NULL, "'03:1?2'");
}

static void test_dates(void **state)
{
	expect(at_ten, "2026-03-28 09:00", "2026-03-28T09:30:15", -HOUR, -HOUR + 1815);
	expect(at_ten, "2026-03-27", "2026-03-28", -34 * HOUR, -10 * HOUR);
	/* An end without a day is of the day on which it began. */
	expect(at_ten, "2026-03-20 03:12", "03:20", -8 * 24 * HOUR - 7 * HOUR + 720,
		-8 * 24 * HOUR - 7 * HOUR + 1200);
	/* What --json prints. */
	expect(at_ten, "2026-03-28T08:00:00.000Z", "@1774688399", -HOUR, -1);
	assert_int_equal(parse(at_ten, NULL, "2026-03-28T08:00:00.250Z", NULL), 0);
	assert_int_equal(s.from_unix_ns % NSEC_PER_SEC, 250 * NSEC_PER_MSEC);
	expect(at_ten, "10m", "5m", -600, -300);
	refuse(at_ten, NULL, "2026-13-28", NULL, "--from: expected a time");
	refuse(at_ten, NULL, "2027-01-01", "2027-01-02", "in the future");
	refuse(at_ten, NULL, "5m", "10m", "--from must be before --to");
	refuse(at_ten, NULL, "1774688400000000000000", NULL, "--from: expected a time");
	refuse(at_ten, NULL, "@99999999999999999999", NULL, "--from: expected a time");
}

/* The night of 2026-03-29 has no 02:xx in Berlin: yesterday is a calendar day, and not 24 hours ago. */
static void test_changed_clock(void **state)
{
	uint64_t sunday = at_ten + 23 * HOUR; /* 10:00 in summer time */

	expect(sunday, "09:00", "10:00", 22 * HOUR, 23 * HOUR);
	expect(sunday, "11:00", "12:00", HOUR, 2 * HOUR); /* Saturday's, in winter time */
	expect(sunday, "01:30", "03:30", 14 * HOUR + 1800 + HOUR, 16 * HOUR + 1800);
}

static void test_names(void **state)
{
	struct args args = {.n_given = 1};
	char wide[400];

	memset(wide, 'n', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	args.given[0] = (struct given){NULL, "source", "no/name"};
	assert_int_equal(CAPTURE(selection_parse(&cli, &args, &s)), EXIT_USAGE);
	args.given[0] = (struct given){NULL, "service", wide};
	assert_int_equal(CAPTURE(selection_parse(&cli, &args, &s)), EXIT_USAGE);
	args.given[0] = (struct given){NULL, "service", "tab\there"};
	assert_int_equal(CAPTURE(selection_parse(&cli, &args, &s)), EXIT_USAGE);
	args.given[0] = (struct given){NULL, "service", "a/b c"};
	assert_int_equal(selection_parse(&cli, &args, &s), 0);
	assert_string_equal(s.service, "a/b c");
}

static void test_move(void **state)
{
	uint64_t now = clock_unix_ns();

	assert_int_equal(parse(at_ten, "5m", NULL, NULL), 0);
	selection_move(&s);
	assert_true(s.to_unix_ns >= now);
	assert_int_equal(s.to_unix_ns - s.from_unix_ns, 300 * NSEC_PER_SEC);
	assert_int_equal(parse(at_ten, NULL, "03:12", NULL), 0);
	selection_move(&s);
	assert_int_equal(in_seconds(s.from_unix_ns), at_ten - 7 * HOUR + 720);
	assert_true(s.to_unix_ns >= now);
	assert_int_equal(parse(at_ten, NULL, "03:12", "03:20"), 0);
	selection_move(&s);
	assert_int_equal(in_seconds(s.to_unix_ns), at_ten - 7 * HOUR + 1200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_since),
		cmocka_unit_test(test_clock_times),
		cmocka_unit_test(test_dates),
		cmocka_unit_test(test_changed_clock),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_move),
	};

	setenv("TZ", BERLIN, 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
