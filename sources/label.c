/* SPDX-License-Identifier: Apache-2.0 */

/* What may stand in a service name and in a label.
 *
 * Labels become resource attributes and then a backend's labels, so they are held to what all of
 * them can keep. The key "service_name" is refused: Pyroscope makes its own of service.name, and a
 * profile that carries both is merged with strangers or refused. Pure; runs in agentd. */

#include <ctype.h>
#include "agentd/base/text.h"
#include "sources/kind.h"

bool source_label_key_ok(const char *key)
{
	size_t len = strlen(key);

	if (len == 0 || len > SOURCE_LABEL_KEY_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = key[i];

		if (!isascii(c) ||
			!(isalpha(c) || c == '_' || (i > 0 && (isdigit(c) || strchr(".-/", c)))))
			return false;
	}
	return true;
}

int source_label_check(const char *key, const char *value, struct err_text *err)
{
	if (!key || !value)
		return err_set(err, -EINVAL, "a label is KEY=VALUE");
	if (!source_label_key_ok(key))
		return err_set(err, -EINVAL,
			"\"%.64s\" cannot be a label's key: it starts with a letter or _, goes on with letters, "
			"digits, _ . - or /, and has at most %d bytes",
			key, SOURCE_LABEL_KEY_MAX);
	if (streq(key, "service_name"))
		return err_set(err, -EINVAL,
			"\"service_name\" cannot be a label, since backends make it of service.name: use --service-name");
	if (streq(key, "service.name"))
		return err_set(
			err, -EINVAL, "\"service.name\" is not set as a label: use --service-name");
	if (text_starts(key, SOURCE_OWN_PREFIX))
		return err_set(err, -EINVAL,
			"\"%s\" cannot be a label: keys that begin with \"%s\" are odi's own", key,
			SOURCE_OWN_PREFIX);
	if (!*value)
		return err_set(err, -EINVAL, "label %s has no value: write %s=VALUE", key, key);
	if (!text_is_clean(value, SOURCE_LABEL_VALUE_MAX))
		return err_set(err, -EINVAL,
			"the value of label %s holds control characters, invalid UTF-8 or more than %d bytes",
			key, SOURCE_LABEL_VALUE_MAX);
	return 0;
}

int source_service_check(const char *name, struct err_text *err)
{
	if (!name || !*name || strspn(name, " ") == strlen(name))
		return err_set(err, -EINVAL, "a service name cannot be empty");
	if (!text_is_clean(name, SOURCE_SERVICE_MAX))
		return err_set(err, -EINVAL,
			"the service name holds control characters, invalid UTF-8 or more than %d bytes",
			SOURCE_SERVICE_MAX);
	return 0;
}
