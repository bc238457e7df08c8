/* SPDX-License-Identifier: Apache-2.0 */

/* Processes by what they run: a name, the path of the executable, a pid, a pattern on the command
 * line. Everything that is given has to hold. A name is compared with the executable's name, with
 * the process's own (comm, which the kernel cuts at 15 bytes) and with the first word of its title,
 * since servers rename their workers ("nginx: worker process"). All of these but the executable's
 * path are the process's own word.
 *
 * Descendants are left out unless asked for: a pre-forking server's workers bear its name anyway,
 * and `process bash` must not take a person's whole session. With children=yes a process belongs to
 * the source if it or anything above it matches; parents are followed by what they were at the
 * fork, so that a child keeps its source when its parent ends and init adopts it. Runs in agentd.
 */

#include "agentd/base/text.h"
#include "sources/kind.h"

#define ANCESTORS_MAX 64 /* deeper trees than this exist only to annoy */
#define COMM_MAX      15 /* bytes, TASK_COMM_LEN - 1 */

struct rule {
	uint64_t pid;        /* 0: any */
	const char *cmdline; /* borrowed from the options; NULL any */
	bool path, children;
};

static const struct option_desc options[] = {
	{.name = "pid",
		.type = OPTION_UINT,
		.min = 1,
		.max = 4194304,
		.help = "this process id only"},
	{.name = "cmdline",
		.type = OPTION_STRING,
		.help = "glob on the whole command line, such as '*manage.py runserver*'"},
	{.name = "children",
		.type = OPTION_BOOL,
		.fallback = "no",
		.help = "also everything that these processes start, whatever it runs"},
	{.name = NULL},
};

static int parse(struct source *source, struct err_text *err)
{
	struct rule *rule = source->rule;
	const char *m = source->match, *pid = source_option(source, "pid"),
		   *cmdline = source_option(source, "cmdline");

	if (pid && text_u64(pid, 1, 4194304, &rule->pid) < 0)
		return err_set(
			err, -EINVAL, "pid must be a number from 1 to 4194304, not \"%s\"", pid);
	rule->cmdline = cmdline && *cmdline ? cmdline : NULL;
	rule->children = source_option_bool(source, "children");
	rule->path = *m == '/';
	if (!*m && !rule->pid && !rule->cmdline)
		return err_set(err, -EINVAL,
			"a process source needs a name, an executable's path, --pid or --cmdline, "
			"as in: odictl source add process nginx");
	if (!rule->path && strchr(m, '/'))
		return err_set(err, -EINVAL,
			"an executable is given by its whole path (\"/usr/sbin/nginx\") or by its name alone: "
			"did you mean \"%s\"?",
			source_basename(m));
	return 0;
}

static enum source_rank rank(const struct source *source)
{
	const struct rule *rule = source->rule;

	return rule->pid ? SOURCE_RANK_PID : SOURCE_RANK_PROCESS;
}

/* The name in a process's title: of "/usr/bin/foo" foo, of "-bash" bash, of "sshd: user@pts/0"
 * sshd. */
static void title_name(const char *argv0, char *out, size_t size)
{
	size_t len;

	if (*argv0 == '-')
		argv0++;
	len = *argv0 == '/' ? strlen(argv0) : strcspn(argv0, " :");
	for (size_t i = len; i > 0; i--)
		if (argv0[i - 1] == '/') {
			argv0 += i;
			len -= i;
			break;
		}
	snprintf(out, size, "%.*s", (int)MIN(len, size - 1), argv0);
}

static bool name_matches(const char *pattern, const struct image *image)
{
	const char *exe = source_basename(or_empty(image->exe));
	char title[256];

	if (*exe && source_matches(pattern, exe))
		return true;
	if (source_matches(pattern, image->comm))
		return true;
	/* Of a process that was gone before it was read only the cut name is known. */
	if (!*exe && strlen(image->comm) == COMM_MAX && !source_is_glob(pattern) &&
		strncmp(pattern, image->comm, COMM_MAX) == 0)
		return true;
	title_name(or_empty(image->argv0), title, sizeof(title));
	return *title && source_matches(pattern, title);
}

static bool self_matches(const struct source *source, const struct image *image)
{
	const struct rule *rule = source->rule;

	if (rule->pid && image->key.tgid != rule->pid)
		return false;
	if (rule->cmdline && !source_matches(rule->cmdline, or_empty(image->cmdline)))
		return false;
	if (!*source->match)
		return true;
	return rule->path ? source_matches(source->match, or_empty(image->exe))
			  : name_matches(source->match, image);
}

/* The image above. By its key if it is still in the table; the same process may have called exec
 * since. By the parent's id alone only what is older than the child: a younger process has that
 * number by chance. */
static const struct image *parent_of(struct process_table *table, const struct image *image)
{
	const struct image *parent = NULL;

	if (image->parent.tgid) {
		parent = process_find(table, &image->parent);
		if (parent)
			return parent;
		parent = process_find_pid(table, image->parent.tgid);
		return parent && parent->key.start_boottime == image->parent.start_boottime ? parent
											    : NULL;
	}
	if (image->ppid <= 0)
		return NULL;
	parent = process_find_pid(table, image->ppid);
	return parent && parent->key.start_boottime <= image->key.start_boottime ? parent : NULL;
}

static bool match(
	const struct source *source, struct process_table *table, const struct image *image)
{
	const struct rule *rule = source->rule;

	if (self_matches(source, image))
		return true;
	if (!rule->children || !table)
		return false;
	for (int i = 0; i < ANCESTORS_MAX; i++) {
		image = parent_of(table, image);
		if (!image)
			return false;
		if (self_matches(source, image))
			return true;
	}
	return false;
}

const struct source_kind source_kind_process = {
	.name = "process",
	.summary = "processes by name, executable, pid or command line",
	.example = "odictl source add process /usr/sbin/nginx",
	.match_help = "process name, absolute path of the executable, or a glob of either",
	.options = options,
	.rule_size = sizeof(struct rule),
	.parse = parse,
	.rank = rank,
	.match = match,
	.default_service = source_default_service,
};
