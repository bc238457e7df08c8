/* SPDX-License-Identifier: Apache-2.0 */

/* One value against its description.
 *
 * Sources and destinations are described by tables, so what an option may hold is checked in one
 * place, before anything is committed, and the text says what was expected. Values come from
 * odictl, from files and later from a fleet's control plane: all are strangers. A text never quotes
 * what may be a secret, which includes the user part of a URL. URLs follow RFC 3986, narrowed to
 * what an exporter can use: http or https, a host, no user, no fragment. Host names follow RFC
 * 1123. Runs in agentd, the exporter and odictl alike. */

#include <arpa/inet.h>
#include <ctype.h>
#include "agentd/base/text.h"
#include "sources/source.h"

#define VALUE_MAX 4096
#define URL_MAX   2048
#define HOST_MAX  253

const struct option_desc *option_find(const struct option_desc *table, const char *name)
{
	if (!table || !name)
		return NULL;
	for (; table->name; table++)
		if (streq(table->name, name))
			return table;
	return NULL;
}

/* Labels of letters, digits and inner hyphens (and underscores, which container networks use). */
static bool is_host_name(const char *s, size_t len)
{
	size_t label = 0;

	if (len == 0 || len > HOST_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = s[i];

		if (c == '.') {
			if (label == 0 || s[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!(isascii(c) && isalnum(c)) && c != '_' && !(c == '-' && label > 0))
			return false;
		if (++label > 63)
			return false;
	}
	return s[len - 1] != '-'; /* one dot at the end is the absolute form */
}

/* Digits and dots only is meant as an IPv4 address, so it has to be one: 10.0.0.256 is no name. */
static bool is_host(const char *s, size_t len)
{
	char text[HOST_MAX + 1];
	struct in_addr v4;

	if (len == 0 || len > HOST_MAX)
		return false;
	memcpy(text, s, len);
	text[len] = 0;
	if (strspn(text, "0123456789.") == len)
		return inet_pton(AF_INET, text, &v4) == 1;
	return is_host_name(s, len);
}

static bool is_ipv6(const char *s, size_t len)
{
	char text[INET6_ADDRSTRLEN + 1];
	struct in6_addr v6;

	if (len == 0 || len >= sizeof(text))
		return false;
	memcpy(text, s, len);
	text[len] = 0;
	return inet_pton(AF_INET6, text, &v6) == 1;
}

/* "host", "host:port", "[v6]", "[v6]:port" of len bytes. NULL when right, else what is wrong. */
static const char *check_authority(const char *s, size_t len, bool port_required)
{
	const char *end = s + len, *port = NULL;
	char digits[6];
	uint64_t n;

	if (len > 0 && s[0] == '[') {
		const char *close = memchr(s, ']', len);

		if (!close || !is_ipv6(s + 1, close - s - 1))
			return "the address in [ ] is not an IPv6 address";
		if (close + 1 < end) {
			if (close[1] != ':')
				return "only \":PORT\" may follow \"]\"";
			port = close + 2;
		}
	} else {
		const char *colon = memchr(s, ':', len);

		if (colon && memchr(colon + 1, ':', end - colon - 1))
			return "an IPv6 address stands in brackets, as in [::1]:4317";
		if (!is_host(s, (colon ? colon : end) - s))
			return colon == s || len == 0 ? "the host is missing"
						      : "that is not a host name or address";
		port = colon ? colon + 1 : NULL;
	}
	if (!port)
		return port_required ? "the port is missing" : NULL;
	if (end - port < 1 || end - port > 5)
		return "the port must be 1 to 65535";
	memcpy(digits, port, end - port);
	digits[end - port] = 0;
	return text_u64(digits, 1, 65535, &n) < 0 ? "the port must be 1 to 65535" : NULL;
}

/* Path and query: RFC 3986's characters; a percent sign only before two hex digits. */
static const char *check_path(const char *s)
{
	for (; *s; s++) {
		unsigned char c = *s;

		if (c == '#')
			return "a fragment (#...) is never sent: leave it out";
		if (c == '%' && (!isxdigit((unsigned char)s[1]) || !isxdigit((unsigned char)s[2])))
			return "\"%\" must be followed by two hex digits";
		if (c <= ' ' || c >= 0x7f || strchr("\"<>\\^`{|}", c))
			return "the path has a character that must be written as %XX";
	}
	return NULL;
}

static int check_url(const char *name, const char *value, struct err_text *err)
{
	const char *rest, *path, *wrong;
	size_t scheme = strcspn(value, ":/?#");

	if (strlen(value) > URL_MAX)
		return err_set(err, -EINVAL, "%s is a URL of more than %d bytes", name, URL_MAX);
	if (strncmp(value + scheme, "://", 3) != 0 || scheme == 0) {
		/* Never echo what may hold a password; a bare authority is safe and the usual slip.
		 */
		if (!check_authority(value, strcspn(value, "/"), false))
			return err_set(err, -EINVAL,
				"%s must be a URL with its scheme: did you mean \"http://%s\"?",
				name, value);
		return err_set(err, -EINVAL,
			"%s must be a URL such as https://profiles.example:443", name);
	}
	rest = value + scheme + 3;
	if (strncasecmp(value, "http:", 5) != 0 && strncasecmp(value, "https:", 6) != 0)
		return err_set(err, -EINVAL,
			"%s: the scheme must be http or https, as in https://profiles.example:443",
			name);
	path = rest + strcspn(rest, "/?#");
	if (memchr(rest, '@', path - rest))
		return err_set(err, -EINVAL,
			"%s: user and password do not belong into a URL: set them by their own options",
			name);
	wrong = check_authority(rest, path - rest, false);
	if (!wrong)
		wrong = check_path(path);
	if (wrong)
		return err_set(err, -EINVAL, "%s: \"%s\" is not a URL: %s", name, value, wrong);
	return 0;
}

static int check_hostport(const char *name, const char *value, struct err_text *err)
{
	const char *wrong;

	if (strstr(value, "://"))
		return err_set(err, -EINVAL,
			"%s is HOST:PORT without a scheme, such as collector:4317", name);
	wrong = check_authority(value, strlen(value), true);
	if (wrong)
		return err_set(err, -EINVAL,
			"%s must be HOST:PORT such as collector:4317 or [::1]:4317: %s in \"%s\"",
			name, wrong, value);
	return 0;
}

static bool is_hex_id(const char *s)
{
	return strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

bool option_is_reference(const char *value)
{
	if (text_starts(value, "file:"))
		return value[5] == '/';
	if (text_starts(value, "secret:"))
		return is_hex_id(value + 7);
	return text_starts(value, "cred:") && text_is_name(value + 5);
}

/* A reference, never the secret: whatever is wrong, the value is not repeated. */
static int check_reference(const char *name, const char *value, bool secret, struct err_text *err)
{
	if (option_is_reference(value))
		return 0;
	if (text_starts(value, "file:"))
		return err_set(err, -EINVAL,
			"%s: file: needs an absolute path, as in file:/etc/odi/%s", name,
			secret ? "token" : "ca.pem");
	return err_set(err, -EINVAL,
		"%s %s and is given by reference: file:/PATH, or cred:NAME (of systemd); on the "
		"command line --%s%s FILE",
		name, secret ? "is a secret" : "is a file", name, secret ? "-file" : "");
}

static int check_endpoint(const char *name, const char *value, struct err_text *err)
{
	if (strstr(value, "://"))
		return check_url(name, value, err);
	if (!check_authority(value, strlen(value), true))
		return 0;
	if (strpbrk(value, "@/?#"))
		return err_set(err, -EINVAL,
			"%s must be HOST:PORT such as collector:4317, or a URL such as "
			"https://collector:4317",
			name);
	return check_hostport(name, value, err);
}

static int check_enum(const struct option_desc *desc, const char *value, struct err_text *err)
{
	char list[400] = "";
	const char *near;
	size_t n = 0, len = 0;

	for (; desc->values && desc->values[n]; n++) {
		if (streq(desc->values[n], value))
			return 0;
		if (len < sizeof(list))
			len += snprintf(list + len, sizeof(list) - len, "%s%s", n ? ", " : "",
				desc->values[n]);
	}
	near = text_nearest(value, desc->values, n);
	if (near)
		return err_set(err, -EINVAL,
			"%s cannot be \"%s\": did you mean \"%s\"? It is one of: %s", desc->name,
			value, near, list);
	return err_set(err, -EINVAL, "%s must be one of: %s; not \"%s\"", desc->name, list, value);
}

static int check_number(const struct option_desc *desc, const char *value, struct err_text *err)
{
	char low[48], high[48];
	const char *what = "a whole number";
	uint64_t n = 0;
	int r;

	if (desc->type == OPTION_DURATION) {
		r = text_duration(value, &n);
		what = "a time such as 30s, 10m or 1h30m";
		text_format_duration(desc->min, low, sizeof(low));
		text_format_duration(desc->max, high, sizeof(high));
	} else if (desc->type == OPTION_SIZE) {
		r = text_size(value, &n);
		what = "a size such as 256MB or 1GiB";
		text_format_size(desc->min, low, sizeof(low));
		text_format_size(desc->max, high, sizeof(high));
	} else {
		r = text_u64(value, 0, UINT64_MAX, &n);
		snprintf(low, sizeof(low), "%llu", (unsigned long long)desc->min);
		snprintf(high, sizeof(high), "%llu", (unsigned long long)desc->max);
	}
	if (r >= 0 && n >= desc->min && (desc->max == 0 || n <= desc->max))
		return 0;
	if (desc->max)
		return err_set(err, -EINVAL, "%s must be %s from %s to %s, not \"%s\"", desc->name,
			what, low, high, value);
	if (desc->min)
		return err_set(err, -EINVAL, "%s must be %s, at least %s, not \"%s\"", desc->name,
			what, low, value);
	return err_set(err, -EINVAL, "%s must be %s, not \"%s\"", desc->name, what, value);
}

/* One entry of a map. Which keys make sense is for the owner of the option to say. */
static int check_map(const char *name, const char *value, struct err_text *err)
{
	const char *eq = strchr(value, '=');

	if (!eq || eq == value)
		return err_set(err, -EINVAL, "%s takes KEY=VALUE, not \"%s\"", name, value);
	if (eq - value > 128)
		return err_set(err, -EINVAL, "%s: the key is longer than 128 bytes", name);
	for (const char *c = value; c < eq; c++)
		if (!isascii((unsigned char)*c) ||
			(!isalnum((unsigned char)*c) && !strchr("_.-/", *c)))
			return err_set(err, -EINVAL,
				"%s: the key may hold letters, digits and _ . - / only", name);
	return 0;
}

int option_check(const struct option_desc *desc, const char *value, struct err_text *err)
{
	bool b;

	if (!value)
		value = "";
	if (!*value && desc->required)
		return err_set(err, -EINVAL, "%s is required: %s", desc->name,
			desc->help ? desc->help : "set it");
	if (!text_is_clean(value, VALUE_MAX))
		return err_set(err, -EINVAL,
			"%s holds control characters, invalid UTF-8 or more than %d bytes",
			desc->name, VALUE_MAX);
	switch (desc->type) {
	case OPTION_STRING:
		return 0;
	case OPTION_BOOL:
		if (text_bool(value, &b) < 0)
			return err_set(err, -EINVAL, "%s must be yes or no, not \"%s\"", desc->name,
				value);
		return 0;
	case OPTION_UINT:
	case OPTION_DURATION:
	case OPTION_SIZE:
		return check_number(desc, value, err);
	case OPTION_ENUM:
		return check_enum(desc, value, err);
	case OPTION_URL:
		return check_url(desc->name, value, err);
	case OPTION_HOSTPORT:
		return check_hostport(desc->name, value, err);
	case OPTION_ENDPOINT:
		return check_endpoint(desc->name, value, err);
	case OPTION_SECRET:
		return check_reference(desc->name, value, true, err);
	case OPTION_FILE:
		return check_reference(desc->name, value, false, err);
	case OPTION_MAP:
	case OPTION_SECRET_MAP:
		return check_map(desc->name, value, err);
	}
	return err_set(err, -EINVAL, "%s has a type that is not known here", desc->name);
}
