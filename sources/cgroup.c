/* SPDX-License-Identifier: Apache-2.0 */

/* A cgroup by its path, with all below it unless `exact` is asked for. The path is compared with
 * the one that says most about a process (cgroup_best()), so the same source works on v1, hybrid
 * and v2. People copy paths from /sys/fs/cgroup as well as from /proc/PID/cgroup: the mount point
 * is taken off. Runs in agentd. */

#include "agentd/base/text.h"
#include "sources/kind.h"

struct rule {
	char path[SOURCE_MATCH_MAX + 2]; /* no slash at the end; "" is the root */
	char glob_path[2 * SOURCE_MATCH_MAX +
		4]; /* a glob: the patterns for it and for what lies below */
	char below[2 * SOURCE_MATCH_MAX + 6];
	bool exact, glob;
};

static const struct option_desc options[] = {
	{.name = "exact",
		.type = OPTION_BOOL,
		.fallback = "no",
		.help = "this cgroup only, without those below it"},
	{.name = NULL},
};

static const char *without_mount_point(const char *path)
{
	static const char *const hierarchies[] = {
		"unified", "systemd", "memory", "cpu,cpuacct", "cpu", "cpuacct", "pids"};

	if (!text_starts(path, "/sys/fs/cgroup/"))
		return streq(path, "/sys/fs/cgroup") ? "/" : path;
	path += strlen("/sys/fs/cgroup");
	for (size_t i = 0; i < ARRAY_SIZE(hierarchies); i++) {
		size_t len = strlen(hierarchies[i]);

		if (strncmp(path + 1, hierarchies[i], len) == 0 &&
			(path[len + 1] == '/' || !path[len + 1]))
			return path[len + 1] ? path + len + 1 : "/";
	}
	return path;
}

static int parse(struct source *source, struct err_text *err)
{
	struct rule *rule = source->rule;
	const char *path = without_mount_point(source->match);
	size_t len = 0;

	if (*path != '/')
		return err_set(err, -EINVAL,
			"a cgroup is given by its path from the root, such as /system.slice/nginx.service, not \"%s\"",
			source->match);
	for (const char *part = path; *part;) {
		size_t n;

		part += strspn(part, "/");
		n = strcspn(part, "/");
		if ((n == 1 && *part == '.') || (n == 2 && strncmp(part, "..", 2) == 0))
			return err_set(err, -EINVAL,
				"the cgroup path \"%s\" must not hold \".\" or \"..\"",
				source->match);
		if (n > 0)
			len += snprintf(
				rule->path + len, sizeof(rule->path) - len, "/%.*s", (int)n, part);
		part += n;
	}
	rule->exact = source_option_bool(source, "exact");
	rule->glob = source_is_glob(rule->path);
	source_escape(rule->path, rule->glob_path, sizeof(rule->glob_path));
	snprintf(rule->below, sizeof(rule->below), "%s/*", rule->glob_path);
	return 0;
}

static enum source_rank rank(const struct source *source)
{
	return SOURCE_RANK_CGROUP;
}

static bool match(
	const struct source *source, struct process_table *table, const struct image *image)
{
	const struct rule *rule = source->rule;
	const char *path = or_empty(image->cgroup);
	size_t len = strlen(rule->path);

	if (streq(path, "/"))
		path = ""; /* as the rule writes the root */
	if (rule->glob)
		return text_glob(rule->glob_path, path) ||
			(!rule->exact && text_glob(rule->below, path));
	if (strncmp(path, rule->path, len) != 0)
		return false;
	return !path[len] || (!rule->exact && path[len] == '/');
}

const struct source_kind source_kind_cgroup = {
	.name = "cgroup",
	.summary = "a control group and those below it",
	.example = "odictl source add cgroup /batch.slice",
	.match_help = "path from the cgroup root, or a glob of it",
	.match_required = true,
	.options = options,
	.rule_size = sizeof(struct rule),
	.parse = parse,
	.rank = rank,
	.match = match,
	.default_service = source_default_service,
};
