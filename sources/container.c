/* SPDX-License-Identifier: Apache-2.0 */

/* A container by name, glob of names, id, or the start of an id. The id comes from the cgroup path
 * and is there at once; the name comes from the runtime's state file and may come later, so a
 * source by name is asked again when the process table learns it (on_facts). A container without a
 * name is found by its id. A name of twelve or more hex digits may be either: both are tried. Runs
 * in agentd. */

#include <ctype.h>
#include "agentd/base/text.h"
#include "sources/kind.h"

#define ID_MIN 12 /* what `docker ps` shows; less would be a guess */

struct rule {
	bool maybe_id;
	char id[65]; /* lower case */
};

static const char *const runtimes[] = {"docker", "containerd", "podman", "crio", NULL};

static const struct option_desc options[] = {
	{.name = "runtime",
		.type = OPTION_ENUM,
		.values = runtimes,
		.help = "containers of this runtime only: docker, containerd, podman or crio"},
	{.name = "namespace",
		.type = OPTION_STRING,
		.help = "containers of this Kubernetes namespace only (glob)"},
	{.name = "pod",
		.type = OPTION_STRING,
		.help = "containers of this Kubernetes pod only (glob)"},
	{.name = "image",
		.type = OPTION_STRING,
		.help = "containers made from this image only (glob), where the runtime's state file says it"},
	{.name = NULL},
};

static int parse(struct source *source, struct err_text *err)
{
	struct rule *rule = source->rule;
	const char *m = source->match;
	size_t len = strlen(m);

	if (*m == '/') /* as `docker inspect` writes names */
		return err_set(err, -EINVAL,
			"a container is given by name or id, without \"/\": did you mean \"%s\"?",
			source_basename(m));
	if (len > 255)
		return err_set(err, -EINVAL, "a container's name has at most 255 bytes");
	rule->maybe_id = len >= ID_MIN && len <= 64;
	for (size_t i = 0; rule->maybe_id && i < len; i++) {
		rule->id[i] = tolower((unsigned char)m[i]);
		if (!isxdigit((unsigned char)m[i]))
			rule->maybe_id = false;
	}
	return 0;
}

static enum source_rank rank(const struct source *source)
{
	return SOURCE_RANK_CONTAINER;
}

static bool option_matches(const struct source *source, const char *name, const char *fact)
{
	const char *pattern = source_option(source, name);

	return !pattern || !*pattern || source_matches(pattern, fact);
}

/* "nginx" means any tag of nginx, as everywhere else where images are named. */
static bool image_matches(const struct source *source, const char *fact)
{
	const char *pattern = source_option(source, "image");
	size_t len;

	if (!pattern || !*pattern || source_matches(pattern, fact))
		return true;
	len = strlen(pattern);
	return strncmp(fact, pattern, len) == 0 && (fact[len] == ':' || fact[len] == '@');
}

static bool match(
	const struct source *source, struct process_table *table, const struct image *image)
{
	const struct rule *rule = source->rule;
	const char *name = or_empty(image->container_name),
		   *k8s = source_k8s(image, "k8s.container.name");

	if (!*or_empty(image->container_id))
		return false;
	if (!(*name && source_matches(source->match, name)) &&
		!(*k8s && source_matches(source->match, k8s)) &&
		!(rule->maybe_id && text_starts(image->container_id, rule->id)) &&
		!streq(source->match, "*"))
		return false;
	return option_matches(source, "runtime", or_empty(image->container_runtime)) &&
		option_matches(source, "namespace", source_k8s(image, "k8s.namespace.name")) &&
		option_matches(source, "pod", source_k8s(image, "k8s.pod.name")) &&
		image_matches(source, or_empty(image->container_image));
}

/* The container first: a container that a unit started is, to this source, the container. */
static void default_service(
	const struct source *source, const struct image *image, char *out, size_t size)
{
	if (!source_container_service(image, out, size))
		source_default_service(source, image, out, size);
}

const struct source_kind source_kind_container = {
	.name = "container",
	.summary = "a container of Docker, containerd, Podman or CRI-O",
	.example = "odictl source add container web",
	.match_help =
		"container name, glob of names, id or at least its first 12 digits; '*' for all",
	.match_required = true,
	.options = options,
	.rule_size = sizeof(struct rule),
	.parse = parse,
	.rank = rank,
	.match = match,
	.default_service = default_service,
};
