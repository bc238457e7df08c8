/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Destination types of the tests' own, so that they hold whatever the catalogue says. The room's functions are
 * replaced in the test's program: its archive is only searched for what is missing. */

#include "destinations/destination.h"

static struct option_desc fake_options[] = {
	{.name = "url", .type = OPTION_URL, .required = true, .help = "where it listens"},
	{.name = "tenant", .type = OPTION_STRING},
	{.name = "token", .type = OPTION_SECRET},
	{.name = "headers", .type = OPTION_MAP},
	{.name = "timeout", .type = OPTION_DURATION},
	{},
};
static const struct destination_type fake_type = {.name = "pyroscope", .options = fake_options};

const struct destination_type *destination_type_find(const char *name)
{
	return streq(name, "pyroscope") ? &fake_type : NULL;
}

int destination_check(
	const char *type, const struct option_value *options, size_t n, struct err_text *err)
{
	bool url = false;

	if (!destination_type_find(type))
		return err_set(err, -EINVAL, "there is no destination type \"%s\"", type);
	for (size_t i = 0; i < n; i++) {
		char name[64];
		const struct option_desc *d;

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(options[i].name, "/"),
			options[i].name);
		d = option_find(fake_options, name);
		if (!d)
			return err_set(err, -EINVAL, "pyroscope has no option \"%s\"", name);
		if (d->type != OPTION_MAP && option_check(d, options[i].value, err) < 0)
			return -EINVAL;
		url |= streq(name, "url");
	}
	return url ? 0 : err_set(err, -EINVAL, "url is required");
}

/* What else the room asks of types, as far as its tests need it. */
const struct destination_type *const *destination_types(void)
{
	static const struct destination_type *const all[] = {&fake_type, NULL};

	return all;
}

const char *destination_option(const struct destination_type *type,
	const struct option_value *options, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (streq(options[i].name, name))
			return options[i].value;
	return "";
}

bool destination_flag(const struct destination_type *type, const struct option_value *options,
	size_t n, const char *name)
{
	return streq(destination_option(type, options, n, name), "true");
}

bool destination_is_remote(const struct destination_type *t)
{
	return true;
}

int destination_check_secrets(
	const char *type, const struct option_value *options, size_t n, struct err_text *err)
{
	return 0;
}

void destination_endpoint(const struct destination_type *type, const struct option_value *options,
	size_t n, char *out, size_t size)
{
	snprintf(out, size, "%s", destination_option(type, options, n, "url"));
}
