/* SPDX-License-Identifier: Apache-2.0 */

/* A systemd unit, by cgroup path: no question to systemd, so it works before systemd answers, in
 * tests without it, and follows restarts by itself. A process belongs to every unit and slice that
 * its path goes through, as `systemctl status` shows it: a service's own subtree (delegation), a
 * user manager and its services, a slice and all below. systemd.unit(5) and systemd.slice(5) say
 * how names are built; src/basic/cgroup-util.c's escaping (one '_' before names that would be read
 * as the cgroup file system's own) is undone. Runs in agentd. */

#include "agentd/base/text.h"
#include "sources/kind.h"

#define UNIT_MAX 255 /* NAME_MAX, and systemd's own UNIT_NAME_MAX */

struct rule {
	char pattern[2 *
		(UNIT_MAX + 16)]; /* with its suffix: "nginx.service", "app@*.service", "x.slice" */
	bool everything;          /* "-.slice" */
};

static bool ends_with(const char *s, const char *suffix)
{
	size_t len = strlen(s), n = strlen(suffix);

	return len >= n && streq(s + len - n, suffix);
}

/* Units of these types run no processes; the service of that name is what is meant. */
static const char *other_suffix(const char *name)
{
	static const char *const suffixes[] = {
		".socket", ".timer", ".target", ".path", ".device", ".automount"};

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		if (ends_with(name, suffixes[i]))
			return suffixes[i];
	return NULL;
}

static int parse(struct source *source, struct err_text *err)
{
	struct rule *rule = source->rule;
	char pattern[UNIT_MAX + 16];
	const char *m = source->match, *other = other_suffix(m);
	size_t len = strlen(m);
	bool typed = ends_with(m, ".service") || ends_with(m, ".slice") || ends_with(m, ".scope") ||
		ends_with(m, ".mount") || ends_with(m, ".swap");

	if (strchr(m, '/'))
		return err_set(err, -EINVAL,
			"a unit's name has no \"/\": give the name alone (\"%s\"), or add a cgroup source for a path",
			source_basename(m));
	if (len > UNIT_MAX)
		return err_set(err, -EINVAL, "a unit's name has at most %d bytes", UNIT_MAX);
	/* What systemd allows, and what patterns need. */
	if (strspn(m,
		    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@*?[]!") !=
		len)
		return err_set(err, -EINVAL,
			"\"%s\" is no unit name: units are named by letters, digits and : - _ . \\ @ (and * ? [] in a pattern)",
			m);
	if (other)
		return err_set(err, -EINVAL,
			"a %s unit runs no processes: did you mean \"%.*s.service\"?", other + 1,
			(int)(len - strlen(other)), m);
	rule->everything = streq(m, "-.slice");
	if (len > 0 && m[len - 1] == '@')
		snprintf(pattern, sizeof(pattern), "%s*.service", m);
	else if (ends_with(m, "@.service"))
		snprintf(pattern, sizeof(pattern), "%.*s*.service", (int)(len - strlen(".service")),
			m);
	else
		snprintf(pattern, sizeof(pattern), "%s%s", m, typed ? "" : ".service");
	if (source_is_glob(pattern))
		source_escape(pattern, rule->pattern, sizeof(rule->pattern));
	else
		snprintf(rule->pattern, sizeof(rule->pattern), "%s", pattern);
	return 0;
}

static enum source_rank rank(const struct source *source)
{
	return SOURCE_RANK_SYSTEMD;
}

static bool part_matches(const struct rule *rule, const char *part)
{
	return source_matches(rule->pattern, part) ||
		(*part == '_' && source_matches(rule->pattern, part + 1));
}

static bool match(
	const struct source *source, struct process_table *table, const struct image *image)
{
	const struct rule *rule = source->rule;
	const char *container = or_empty(image->container_id);
	char part[UNIT_MAX + 1];

	if (rule->everything)
		return true;
	/* The facts alone, where only the kernel's record of the cgroup was to be had. */
	if (part_matches(rule, or_empty(image->unit)) || part_matches(rule, or_empty(image->slice)))
		return true;
	for (const char *path = or_empty(image->cgroup); *path;) {
		size_t n;

		path += strspn(path, "/");
		n = strcspn(path, "/");
		if (n > 0 && n <= UNIT_MAX) {
			memcpy(part, path, n);
			part[n] = 0;
			if (part_matches(rule, part))
				return true;
			/* What lies below was named in the container: no unit of this host. */
			if (*container && strstr(part, container))
				return false;
		}
		path += n;
	}
	return false;
}

const struct source_kind source_kind_systemd = {
	.name = "systemd",
	.summary = "a systemd unit, the instances of a template, or all below a slice",
	.example = "odictl source add systemd nginx",
	.match_help =
		"unit (with or without .service), template (app@), instance (app@1), glob (app*), or slice",
	.match_required = true,
	.rule_size = sizeof(struct rule),
	.parse = parse,
	.rank = rank,
	.match = match,
	.default_service = source_default_service,
};
