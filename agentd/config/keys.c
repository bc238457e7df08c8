/* SPDX-License-Identifier: Apache-2.0 */

/* Everything that may be set, in one list, for `odictl config keys` and the manual page odi.conf(5): made from the same
 * tables that check values, so that no key is undocumented and none is documented that is not there. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/text.h"
#include "agentd/config/config_private.h"
#include "destinations/destination.h"

static const struct config_key host_label = {.path = "host/labels/KEY",
	.of = "",
	.type = "text",
	.fallback = "",
	.help = "an attribute of every profile of this host"};

static const struct config_key source_keys[] = {
	{.path = "sources/NAME/kind",
		.of = "",
		.type = "text",
		.fallback = "",
		.allowed = "systemd, process, container (or docker), cgroup, host",
		.help = "what kind of workload it is",
		.required = true},
	{.path = "sources/NAME/match",
		.of = "",
		.type = "text",
		.fallback = "",
		.help = "which of that kind: a unit, a process, a container; in files, NAME where it is "
			"not given"},
	{.path = "sources/NAME/enabled",
		.of = "",
		.type = "yes/no",
		.fallback = "true",
		.help = "whether it is profiled"},
	{.path = "sources/NAME/labels/KEY",
		.of = "",
		.type = "text",
		.fallback = "",
		.help = "an attribute of each of its profiles"},
};

static const struct config_key destination_keys[] = {
	{.path = "destinations/NAME/type",
		.of = "",
		.type = "text",
		.fallback = "",
		.help = "where profiles are sent: 'odictl destination types' lists the types",
		.required = true},
	{.path = "destinations/NAME/enabled",
		.of = "",
		.type = "yes/no",
		.fallback = "true",
		.help = "whether profiles are sent there"},
};

const char *config_type_name(enum option_type type)
{
	switch (type) {
	case OPTION_BOOL:
		return "yes/no";
	case OPTION_UINT:
		return "number";
	case OPTION_DURATION:
		return "duration";
	case OPTION_SIZE:
		return "size";
	case OPTION_ENUM:
		return "one of";
	case OPTION_URL:
		return "url";
	case OPTION_HOSTPORT:
		return "host:port";
	case OPTION_SECRET:
		return "secret";
	case OPTION_MAP:
		return "key=value";
	case OPTION_ENDPOINT:
		return "host:port or url";
	case OPTION_FILE:
		return "file";
	case OPTION_SECRET_MAP:
		return "key=secret";
	default:
		return "text";
	}
}

static void put_amount(enum option_type type, uint64_t amount, char *out, size_t size)
{
	if (type == OPTION_DURATION)
		text_format_duration(amount, out, size);
	else if (type == OPTION_SIZE)
		text_format_size(amount, out, size);
	else
		snprintf(out, size, "%" PRIu64, amount);
}

void config_type_allowed(const struct option_desc *d, char *out, size_t size)
{
	char low[64], high[64];
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; d->values && d->values[i] && at < size; i++)
		at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", d->values[i]);
	if (d->values || (!d->min && !d->max))
		return;
	put_amount(d->type, d->min, low, sizeof(low));
	put_amount(d->type, d->max, high, sizeof(high));
	if (d->max)
		snprintf(out, size, "%s to %s", low, high);
	else
		snprintf(out, size, "at least %s", low);
}

static void one(const char *path, const char *of, const struct option_desc *d,
	void (*visit)(void *userdata, const struct config_key *key), void *userdata)
{
	struct config_key key = {.path = path,
		.of = of,
		.type = config_type_name(d->type),
		.fallback = d->fallback ? d->fallback : "",
		.help = d->help ? d->help : "",
		.required = d->required};

	config_type_allowed(d, key.allowed, sizeof(key.allowed));
	visit(userdata, &key);
}

/* Options of sources or destinations: prefix/NAME, or prefix/NAME/KEY where it is a map. */
static void options(const char *prefix, const char *of, const struct option_desc *list,
	void (*visit)(void *userdata, const struct config_key *key), void *userdata)
{
	char path[CONFIG_PATH_MAX];

	for (; list && list->name; list++) {
		bool map = list->type == OPTION_MAP || list->type == OPTION_SECRET_MAP;

		snprintf(path, sizeof(path), "%s/%s%s", prefix, list->name, map ? "/KEY" : "");
		one(path, of, list, visit, userdata);
	}
}

void config_each_key(void (*visit)(void *userdata, const struct config_key *key), void *userdata)
{
	const struct destination_type *const *types = destination_types();
	size_t n;
	const struct config_setting *s = config_schema(&n);

	for (size_t i = 0; i < n; i++)
		one(s[i].path, "", &s[i].option, visit, userdata);
	visit(userdata, &host_label);
	for (size_t i = 0; i < ARRAY_SIZE(source_keys); i++)
		visit(userdata, &source_keys[i]);
	for (const struct option_desc *o = source_common_options; o->name; o++) {
		char path[CONFIG_PATH_MAX];

		if (streq(o->name, "label"))
			continue;
		snprintf(path, sizeof(path), "sources/NAME/%s", o->name);
		one(path, "", o, visit, userdata);
	}
	for (size_t i = 0; source_kinds[i]; i++)
		options("sources/NAME/options", source_kinds[i]->name, source_kinds[i]->options,
			visit, userdata);
	for (size_t i = 0; i < ARRAY_SIZE(destination_keys); i++)
		visit(userdata, &destination_keys[i]);
	for (size_t i = 0; types[i]; i++)
		options("destinations/NAME/options", types[i]->name, types[i]->options, visit,
			userdata);
}
