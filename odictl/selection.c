/* SPDX-License-Identifier: Apache-2.0 */

/* Which samples: --source, --service, --since, or --from and --to. Times are of this host's clock: 03:12 and
 * 03:12:30 are today's (yesterday's, if that would be in the future), 2026-03-01 03:12 is a day's, 10m is so long
 * ago, now is now. */

#include <time.h>
#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/tree.h"

static bool parse_clock(const char *text, uint64_t now_ns, uint64_t *ret)
{
	static const char *const dated[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M",
		"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};
	static const char *const timed[] = {"%H:%M:%S", "%H:%M"};
	time_t now = (time_t)(now_ns / NSEC_PER_SEC), t;

	for (size_t i = 0; i < ARRAY_SIZE(dated) + ARRAY_SIZE(timed); i++) {
		bool date = i < ARRAY_SIZE(dated);
		struct tm tm = {};
		const char *end;

		if (!date)
			localtime_r(&now, &tm);
		tm.tm_sec = tm.tm_min = tm.tm_hour = 0;
		end = strptime(text, date ? dated[i] : timed[i - ARRAY_SIZE(dated)], &tm);
		if (!end || *end)
			continue;
		tm.tm_isdst = -1;
		t = mktime(&tm);
		if (t < 0)
			return false;
		if (!date && t > now)
			t -= 24 * 3600;
		*ret = (uint64_t)t * NSEC_PER_SEC;
		return true;
	}
	return false;
}

static bool parse_time(const char *text, uint64_t now_ns, uint64_t *ret)
{
	uint64_t ago;

	if (streq(text, "now")) {
		*ret = now_ns;
		return true;
	}
	if (parse_clock(text, now_ns, ret))
		return true;
	if (text_duration(text, &ago) < 0 || ago > now_ns)
		return false;
	*ret = now_ns - ago;
	return true;
}

int selection_parse(struct cli *cli, const struct args *args, struct selection *ret)
{
	const char *source = args_value(args, "source"), *service = args_value(args, "service"),
		   *since = args_value(args, "since"), *from = args_value(args, "from"),
		   *to = args_value(args, "to");
	uint64_t now = clock_unix_ns();

	*ret = (struct selection){.to_unix_ns = now, .since_ns = 60 * NSEC_PER_SEC};
	if (source && strlen(source) >= sizeof(ret->source))
		return cli_fail(cli, EXIT_USAGE, "--source: no source has a name that long");
	if (service && strlen(service) >= sizeof(ret->service))
		return cli_fail(cli, EXIT_USAGE, "--service: no service has a name that long");
	snprintf(ret->source, sizeof(ret->source), "%s", source ? source : "");
	snprintf(ret->service, sizeof(ret->service), "%s", service ? service : "");
	if (since && (from || to))
		return cli_fail(cli, EXIT_USAGE, "--since, or --from and --to, not both");
	if (since && (text_duration(since, &ret->since_ns) < 0 || !ret->since_ns))
		return cli_fail(cli, EXIT_USAGE,
			"--since: expected a time such as 30s, 5m or 2h, got '%s'", since);
	if (from && !parse_time(from, now, &ret->from_unix_ns))
		return cli_fail(cli, EXIT_USAGE,
			"--from: expected a time such as 03:12, '2026-03-01 03:12' or 10m (ago), got '%s'",
			from);
	if (to && !parse_time(to, now, &ret->to_unix_ns))
		return cli_fail(cli, EXIT_USAGE,
			"--to: expected a time such as 03:20, '2026-03-01 03:20' or 5m (ago), got '%s'",
			to);
	ret->relative = !from && !to;
	if (!from)
		ret->from_unix_ns = ret->to_unix_ns - MIN(ret->since_ns, ret->to_unix_ns);
	if (ret->from_unix_ns >= ret->to_unix_ns)
		return cli_fail(cli, EXIT_USAGE, "--from must be before --to");
	return 0;
}
