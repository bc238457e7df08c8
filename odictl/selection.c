/* SPDX-License-Identifier: Apache-2.0 */

/* Which samples: --source, --service, --since, or --from and --to.
 *
 * Times are of this host's clock, as people say them: 10m is so long ago, 03:12 the last time it was that late, and
 * as the end of a span the next time after its beginning (so --from 23:50 --to 00:10 spans midnight, and --from 03:12
 * --to 03:20 is right at 03:15 as well). Days are calendar days: an hour that a change of the clock added or took is
 * counted. What odictl prints with --json can be given back: ...T...Z is in UTC, @N is N seconds since 1970. */

#include <time.h>
#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/tree.h"

/* A span over midnight of bare times is no longer than this: 03:20 to 03:12 is a slip, not a day. */
#define MAX_OVERNIGHT (12 * 3600)
#define DEFAULT_SINCE (60 * NSEC_PER_SEC)

/* A time of day without a day; tm's other fields are left alone. */
static bool parse_time_of_day(const char *text, struct tm *tm)
{
	static const char *const formats[] = {"%H:%M:%S", "%H:%M"};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct tm found = {};
		const char *end = strptime(text, formats[i], &found);

		if (!end || *end)
			continue;
		tm->tm_hour = found.tm_hour;
		tm->tm_min = found.tm_min;
		tm->tm_sec = found.tm_sec;
		return true;
	}
	return false;
}

/* That time of day on the day of `day` and so many days later. */
static time_t on_day(const struct tm *time_of_day, time_t day, int later)
{
	struct tm tm;

	if (!localtime_r(&day, &tm))
		return -1;
	tm.tm_hour = time_of_day->tm_hour;
	tm.tm_min = time_of_day->tm_min;
	tm.tm_sec = time_of_day->tm_sec;
	tm.tm_mday += later;
	tm.tm_isdst = -1;
	return mktime(&tm);
}

static bool parse_utc(const char *text, uint64_t *ret)
{
	struct tm tm = {};
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	uint64_t fraction = 0, unit = NSEC_PER_SEC;
	time_t t;

	if (end && *end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++) {
			unit /= 10;
			fraction += (uint64_t)(*end - '0') * unit;
		}
	if (!end || !streq(end, "Z"))
		return false;
	t = timegm(&tm);
	if (t < 0)
		return false;
	*ret = (uint64_t)t * NSEC_PER_SEC + fraction;
	return true;
}

static bool parse_dated(const char *text, uint64_t *ret)
{
	static const char *const formats[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M",
		"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct tm tm = {};
		const char *end = strptime(text, formats[i], &tm);
		time_t t;

		if (!end || *end)
			continue;
		tm.tm_isdst = -1;
		t = mktime(&tm);
		if (t < 0)
			return false;
		*ret = (uint64_t)t * NSEC_PER_SEC;
		return true;
	}
	return false;
}

/* Everything but a bare time of day. */
static bool parse_instant(const char *text, uint64_t now_ns, uint64_t *ret)
{
	uint64_t n;

	if (streq(text, "now")) {
		*ret = now_ns;
		return true;
	}
	if (text[0] == '@' && text_u64(text + 1, 0, UINT64_MAX / NSEC_PER_SEC, &n) == 0) {
		*ret = n * NSEC_PER_SEC;
		return true;
	}
	if (parse_utc(text, ret) || parse_dated(text, ret))
		return true;
	if (text_duration(text, &n) < 0 || n > now_ns)
		return false;
	*ret = now_ns - n;
	return true;
}

static bool parse_from(const char *text, uint64_t now_ns, uint64_t *ret)
{
	time_t now = (time_t)(now_ns / NSEC_PER_SEC), t;
	struct tm tm = {};

	if (!parse_time_of_day(text, &tm))
		return parse_instant(text, now_ns, ret);
	t = on_day(&tm, now, 0);
	if (t > now)
		t = on_day(&tm, now, -1);
	if (t < 0)
		return false;
	*ret = (uint64_t)t * NSEC_PER_SEC;
	return true;
}

/* from_ns 0: the span's beginning hangs on its end, so a bare time is the last one. */
static bool parse_to(const char *text, uint64_t now_ns, uint64_t from_ns, uint64_t *ret)
{
	time_t from = (time_t)(from_ns / NSEC_PER_SEC), t;
	struct tm tm = {};

	if (!from_ns || !parse_time_of_day(text, &tm))
		return parse_from(text, now_ns, ret);
	t = on_day(&tm, from, 0);
	if (t <= from)
		t = on_day(&tm, from, 1);
	/* What is too long to be meant is left before the beginning, and refused there. */
	if (t - from > MAX_OVERNIGHT && t != on_day(&tm, from, 0))
		t = on_day(&tm, from, 0);
	if (t < 0)
		return false;
	*ret = (uint64_t)t * NSEC_PER_SEC;
	return true;
}

static int bad_time(struct cli *cli, const char *option, const char *examples, const char *value)
{
	char quoted[80];

	return cli_fail(cli, EXIT_USAGE, "--%s: expected a time such as %s, not '%s'", option,
		examples, out_quote(value, quoted, sizeof(quoted)));
}

static int parse_names(struct cli *cli, const struct args *args, struct selection *ret)
{
	const char *source = args_value(args, "source"), *service = args_value(args, "service");

	if (source && !text_is_name(source))
		return cli_fail(cli, EXIT_USAGE,
			"--source: no source is called that; odictl source list shows all");
	if (service && (!text_is_clean(service, sizeof(ret->service) - 1) || !service[0]))
		return cli_fail(cli, EXIT_USAGE,
			"--service: no service is called that; odictl top --by service shows all");
	snprintf(ret->source, sizeof(ret->source), "%s", source ? source : "");
	snprintf(ret->service, sizeof(ret->service), "%s", service ? service : "");
	return 0;
}

int selection_parse_at(
	struct cli *cli, const struct args *args, uint64_t now, struct selection *ret)
{
	const char *since = args_value(args, "since"), *from = args_value(args, "from"),
		   *to = args_value(args, "to");
	int r;

	*ret = (struct selection){.to_unix_ns = now,
		.since_ns = DEFAULT_SINCE,
		.from_given = from != NULL,
		.to_given = to != NULL};
	r = parse_names(cli, args, ret);
	if (r)
		return r;
	if (since && (from || to))
		return cli_fail(cli, EXIT_USAGE, "--since, or --from and --to, not both");
	if (since && (text_duration(since, &ret->since_ns) < 0 || !ret->since_ns))
		return bad_time(cli, "since", "30s, 5m or 2h", since);
	if (from && !parse_from(from, now, &ret->from_unix_ns))
		return bad_time(cli, "from", "03:12, '2026-03-01 03:12' or 10m (ago)", from);
	if (to && !parse_to(to, now, ret->from_unix_ns, &ret->to_unix_ns))
		return bad_time(cli, "to", "03:20, '2026-03-01 03:20' or 5m (ago)", to);
	if (!from)
		ret->from_unix_ns = ret->to_unix_ns - MIN(ret->since_ns, ret->to_unix_ns);
	if (ret->from_unix_ns > now)
		return cli_fail(cli, EXIT_USAGE, "--from lies in the future");
	if (ret->from_unix_ns >= ret->to_unix_ns)
		return cli_fail(cli, EXIT_USAGE, "--from must be before --to");
	return 0;
}

int selection_parse(struct cli *cli, const struct args *args, struct selection *ret)
{
	return selection_parse_at(cli, args, clock_unix_ns(), ret);
}

void selection_move(struct selection *s)
{
	if (!s->to_given)
		s->to_unix_ns = clock_unix_ns();
	if (!s->from_given)
		s->from_unix_ns = s->to_unix_ns - MIN(s->since_ns, s->to_unix_ns);
}
