/* SPDX-License-Identifier: Apache-2.0 */

/* The table of kinds, and what they share: options that every source has, patterns. Adding a kind
 * is a file of its own and a line here. Pure; runs in agentd. */

#include "agentd/base/text.h"
#include "sources/kind.h"

const struct source_kind *const source_kinds[] = {
	&source_kind_systemd,
	&source_kind_process,
	&source_kind_container,
	&source_kind_cgroup,
	&source_kind_host,
	NULL,
};

const struct option_desc source_common_options[] = {
	{.name = "service-name",
		.type = OPTION_STRING,
		.help = "the service's name; without it the process's OTEL_SERVICE_NAME, else the unit's, "
			"container's or executable's name"},
	{.name = "label",
		.type = OPTION_MAP,
		.help = "KEY=VALUE, kept as an attribute of every profile"},
	{.name = "types",
		.type = OPTION_STRING,
		.help = "profile types of this source, separated by commas (default: those of the host)"},
	{.name = "per-process",
		.type = OPTION_BOOL,
		.fallback = "no",
		.help = "a profile for each process, with its pid and executable as attributes"},
	{.name = "per-thread",
		.type = OPTION_BOOL,
		.fallback = "no",
		.help = "keep thread ids and names on the samples"},
	{.name = "per-cpu",
		.type = OPTION_BOOL,
		.fallback = "no",
		.help = "keep the CPU on the samples"},
	{.name = NULL},
};

const struct source_kind *source_kind_find(const char *name)
{
	for (size_t i = 0; name && source_kinds[i]; i++)
		if (streq(source_kinds[i]->name, name))
			return source_kinds[i];
	return NULL;
}

const char *source_option(const struct source *source, const char *name)
{
	const struct option_desc *desc = option_find(source->kind->options, name);

	for (size_t i = 0; i < source->n_options; i++)
		if (streq(source->options[i].name, name))
			return source->options[i].value;
	return desc ? desc->fallback : NULL;
}

bool source_option_bool(const struct source *source, const char *name)
{
	const char *value = source_option(source, name);
	bool b = false;

	return value && text_bool(value, &b) >= 0 && b;
}

bool source_is_glob(const char *pattern)
{
	return strpbrk(pattern, "*?[") != NULL;
}

bool source_matches(const char *pattern, const char *s)
{
	return source_is_glob(pattern) ? text_glob(pattern, s) : streq(pattern, s);
}

void source_escape(const char *pattern, char *out, size_t size)
{
	size_t len = 0;

	for (; *pattern && len + 2 < size; pattern++) {
		if (*pattern == '\\')
			out[len++] = '\\';
		out[len++] = *pattern;
	}
	out[len] = 0;
}
