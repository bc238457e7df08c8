/* SPDX-License-Identifier: Apache-2.0 */

/* A destination's options against its type, and what they mean together.
 *
 * What a person or a file says of a destination is checked here once, before anything is committed. No text repeats the
 * value of a header or secret. Runs in agentd and in the exporter. */

#include <ctype.h>

#include "agentd/base/text.h"
#include "destinations/catalogue_private.h"
#include "destinations/destination.h"
#include "destinations/shape_rules.h"

/* ---- options of a destination -------------------------------------------------------------------- */

/* Headers that the transport makes itself: another value would make the request unreadable or another one. */
static bool is_reserved_header(const char *s)
{
	static const char *const reserved[] = {"content-type", "content-length", "content-encoding",
		"transfer-encoding", "host", "connection", "expect", "user-agent", "te", "trailer",
		"upgrade", "keep-alive", "proxy-authorization"};

	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
		if (strcasecmp(reserved[i], s) == 0)
			return true;
	return strncasecmp(s, "grpc-", 5) == 0;
}

/* An entry of the map of headers; the value is never repeated. */
static int check_header(const char *key, struct err_text *err)
{
	if (!catalogue_is_header_name(key))
		return err_set(err, -EINVAL,
			"headers: \"%.80s\" cannot be the name of an HTTP header", key);
	if (is_reserved_header(key))
		return err_set(err, -EINVAL,
			"headers: %s is set by odi itself and cannot be changed", key);
	return 0;
}

/* Names of headers that hold what opens a door, as they are in use: Authorization, X-API-Key, Cookie. */
static bool is_secret_header(const char *name)
{
	static const char *const parts[] = {"auth", "token", "secret", "passw", "cookie",
		"credential", "apikey", "api-key", "api_key", "access-key", "session", "signature"};
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (strcasestr(name, parts[i]))
			return true;
	return strcasecmp(name, "key") == 0 || (len > 4 && strcasecmp(name + len - 4, "-key") == 0);
}

static bool is_secret_value(const char *value)
{
	static const char *const schemes[] = {"basic ", "bearer ", "digest ", "apikey ", "token "};

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strncasecmp(value, schemes[i], strlen(schemes[i])) == 0)
			return true;
	return false;
}

int destination_check_secrets(
	const char *type, const struct option_value *options, size_t n, struct err_text *err)
{
	for (size_t i = 0; i < n; i++) {
		const char *name = options[i].name;

		if (!text_starts(name, "headers/") ||
			(!is_secret_header(name + 8) && !is_secret_value(options[i].value)))
			continue;
		name += 8;
		if (strcasecmp(name, "authorization") == 0)
			return err_set(err, -EINVAL,
				"the header Authorization holds a secret, which is read from a file: "
				"--bearer-token-file FILE, or --basic-user USER --basic-password-file "
				"FILE (in YAML: bearer-token: file:/PATH)");
		return err_set(err, -EINVAL,
			"the header %.80s looks like a secret, which is read from a file: "
			"--secret-header %.80s=FILE (in YAML: secret-headers: {%.80s: file:/PATH})",
			name, name, name);
	}
	return 0;
}

static int unknown_option(const struct destination_type *t, const char *name, struct err_text *err)
{
	const char *names[CATALOGUE_MAX_OPTIONS], *near;
	char all[600] = "";
	size_t n = 0, len = 0;

	for (; t->options[n].name; n++) {
		names[n] = t->options[n].name;
		if (len < sizeof(all))
			len += (size_t)snprintf(
				all + len, sizeof(all) - len, "%s%s", n ? ", " : "", names[n]);
	}
	near = text_nearest(name, names, n);
	if (near)
		return err_set(err, -EINVAL,
			"%s has no option \"%.80s\": did you mean \"%s\"? It has: %s", t->name,
			name, near, all);
	return err_set(err, -EINVAL, "%s has no option \"%.80s\"; it has: %s", t->name, name, all);
}

static int check_map_entry(
	const struct option_desc *d, const char *key, const char *value, struct err_text *err)
{
	struct option_desc reference = {.name = key, .type = OPTION_SECRET};

	_cleanup_buf_ struct buf pair;
	struct err_text inner = {};
	int r;

	buf_init(&pair, 8192);
	buf_printf(&pair, "%s=%s", key, value);
	if (buf_error(&pair))
		return err_set(err, -EINVAL, "%s: the entry is too long", d->name);
	r = option_check(d, (const char *)pair.data, &inner);
	/* What it says may quote the value, which may be a secret. */
	if (r < 0)
		return err_set(err, r,
			"%s: the entry \"%.80s\" is not KEY=VALUE of clean text, at most 4096 bytes",
			d->name, key);
	if (d->type == OPTION_SECRET_MAP && option_check(&reference, value, err) < 0)
		return -EINVAL;
	return streq(d->name, "headers") || streq(d->name, "secret-headers")
		? check_header(key, err)
		: 0;
}

static int check_option(
	const struct destination_type *t, const struct option_value *o, struct err_text *err)
{
	const char *slash = strchr(o->name, '/');
	char name[80];
	const struct option_desc *d;
	int r;

	snprintf(name, sizeof(name), "%.*s", (int)(slash ? slash - o->name : 79), o->name);
	d = option_find(t->options, name);
	if (!d)
		return unknown_option(t, name, err);
	if (d->type == OPTION_MAP || d->type == OPTION_SECRET_MAP)
		return slash ? check_map_entry(d, slash + 1, o->value, err)
			     : err_set(err, -EINVAL, "%s takes KEY=VALUE", name);
	if (slash)
		return err_set(err, -EINVAL, "%s takes one value, no keys", name);
	r = option_check(d, o->value, err);
	return r < 0 ? r : shape_rules_check(name, o->value, err);
}

static int unknown_type(const char *type, struct err_text *err)
{
	const struct destination_type *const *all = destination_types();
	const char *names[CATALOGUE_MAX_TYPES], *near;
	size_t n = 0;

	for (; all[n] && n < ARRAY_SIZE(names); n++)
		names[n] = all[n]->name;
	near = text_nearest(type, names, n);
	if (near)
		return err_set(err, -EINVAL,
			"there is no destination type \"%.80s\": did you mean \"%s\"?", type, near);
	return err_set(err, -EINVAL,
		"there is no destination type \"%.80s\"; `odictl destination types` lists all",
		type);
}

/* Options that make sense only together. */
static int check_together(const struct destination_type *t, const struct option_value *options,
	size_t n, struct err_text *err)
{
	static const struct {
		const char *one, *other;
	} pairs[] = {{"cert", "key"}, {"key", "cert"}, {"basic-password", "basic-user"},
		{"proxy-password", "proxy-user"}, {"proxy-user", "proxy"}};
	const char *url = destination_option(t, options, n, t->endpoint_option);

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		if (*destination_option(t, options, n, pairs[i].one) &&
			!*destination_option(t, options, n, pairs[i].other))
			return err_set(
				err, -EINVAL, "%s needs %s as well", pairs[i].one, pairs[i].other);
	if (*destination_option(t, options, n, "basic-user") &&
		*destination_option(t, options, n, "bearer-token"))
		return err_set(err, -EINVAL,
			"basic-user and bearer-token cannot both be set: a request has one Authorization");
	if (strncasecmp(url, "https://", 8) == 0 && destination_flag(t, options, n, "insecure"))
		return err_set(err, -EINVAL,
			"insecure means without TLS, and the url begins with https://: leave one of them out");
	return 0;
}

int destination_check(
	const char *type, const struct option_value *options, size_t n, struct err_text *err)
{
	const struct destination_type *t = destination_type_find(type);

	if (!t)
		return unknown_type(type, err);
	for (size_t i = 0; i < n; i++) {
		int r = check_option(t, &options[i], err);

		for (size_t k = 0; r >= 0 && k < i; k++)
			if (streq(options[k].name, options[i].name))
				r = err_set(err, -EINVAL, "the option %.80s is given twice",
					options[i].name);
		if (r < 0)
			return r;
	}
	for (const struct option_desc *d = t->options; d->name; d++)
		if (d->required && d->type != OPTION_MAP && d->type != OPTION_SECRET_MAP &&
			!*destination_option(t, options, n, d->name))
			return option_check(d, "", err);
	return check_together(t, options, n, err);
}

/* ---- what they mean -------------------------------------------------------------------------------- */

const char *destination_option(const struct destination_type *type,
	const struct option_value *options, size_t n, const char *name)
{
	const struct option_desc *d = option_find(type->options, name);

	for (size_t i = 0; i < n; i++)
		if (streq(options[i].name, name) && options[i].value && *options[i].value)
			return options[i].value;
	return d && d->fallback ? d->fallback : "";
}

bool destination_flag(const struct destination_type *type, const struct option_value *options,
	size_t n, const char *name)
{
	bool flag = false;

	(void)text_bool(destination_option(type, options, n, name), &flag);
	return flag;
}

bool destination_is_remote(const struct destination_type *t)
{
	return !streq(t->transport, "file") && !streq(t->transport, "debug") &&
		!streq(t->transport, "local");
}

const char *destination_auth(const struct destination_type *t, char *out, size_t size)
{
	static const struct {
		const char *option, *what;
	} ways[] = {{"basic-user", "basic"}, {"bearer-token", "bearer"},
		{"cert", "client certificate"}, {"secret-headers", "headers"}};
	size_t len = 0;

	snprintf(out, size, "-");
	for (size_t i = 0; i < ARRAY_SIZE(ways) && len < size; i++)
		if (option_find(t->options, ways[i].option))
			len += (size_t)snprintf(
				out + len, size - len, "%s%s", len ? ", " : "", ways[i].what);
	return out;
}

/* The type's path, with values in the place of {fields}; they may hold anything, so all but what RFC 3986 leaves alone
 * is written as %XX. */
static void put_path(const struct destination_type *t, const struct option_value *options, size_t n,
	struct buf *out)
{
	for (const char *p = t->path; *p; p++) {
		const char *end = *p == '{' ? strchr(p, '}') : NULL, *value;
		char name[80];

		if (!end) {
			buf_add(out, p, 1);
			continue;
		}
		snprintf(name, sizeof(name), "%.*s", (int)MIN(end - p - 1, (ptrdiff_t)79), p + 1);
		for (value = destination_option(t, options, n, name); *value; value++)
			buf_printf(out,
				isalnum((unsigned char)*value) || strchr("-._~", *value) ? "%c"
											 : "%%%02X",
				(unsigned char)*value);
		p = end;
	}
}

/* The parts of what the endpoint's option says. */
struct url_parts {
	const char *scheme, *host, *port, *path; /* path: with the query; "" none */
	int host_len, path_len;                  /* path_len without the query */
	bool has_port;
};

static struct url_parts split_url(
	const struct destination_type *t, const struct option_value *options, size_t n)
{
	const char *url = destination_option(t, options, n, t->endpoint_option),
		   *sep = strstr(url, "://"), *at;
	struct url_parts u = {.host = sep ? sep + 3 : url};

	if (sep)
		u.scheme = strncasecmp(url, "https:", 6) == 0 ? "https" : "http";
	else
		u.scheme = destination_flag(t, options, n, "insecure") ? "http" : "https";
	u.path = u.host + strcspn(u.host, "/?#");
	u.path_len = (int)strcspn(u.path, "?#");
	at = memchr(u.host, '@', (size_t)(u.path - u.host));
	u.host = at ? at + 1 : u.host;
	u.host_len = (int)(u.path - u.host);
	/* A colon within brackets is of an IPv6 address. */
	u.port = memrchr(u.host, ':', (size_t)u.host_len);
	u.has_port = u.port && !memchr(u.port, ']', (size_t)(u.path - u.port));
	return u;
}

int destination_url(const struct destination_type *type, const struct option_value *options,
	size_t n, struct buf *out)
{
	struct url_parts u = split_url(type, options, n);

	if (!u.host_len)
		return -EINVAL;
	buf_printf(out, "%s://%.*s", u.scheme, u.host_len, u.host);
	if (u.path_len > 1) {
		buf_str(out, u.path);
	} else {
		put_path(type, options, n, out);
		buf_str(out, u.path + u.path_len);
	}
	return buf_error(out);
}

void destination_endpoint(const struct destination_type *type, const struct option_value *options,
	size_t n, char *out, size_t size)
{
	_cleanup_buf_ struct buf path = {0};
	struct url_parts u;

	if (!destination_is_remote(type)) {
		snprintf(out, size, "%s",
			*type->endpoint_option
				? destination_option(type, options, n, type->endpoint_option)
				: streq(type->transport, "debug") ? "the log"
								  : "this host");
		text_clean(out);
		return;
	}
	u = split_url(type, options, n);
	buf_init(&path, 4096);
	if (u.path_len > 1)
		buf_add(&path, u.path, (size_t)u.path_len);
	else
		put_path(type, options, n, &path);
	buf_add(&path, "", 1);
	snprintf(out, size, "%s://%.*s%s%s", u.scheme, u.host_len, u.host,
		u.has_port                         ? ""
			: streq(u.scheme, "https") ? ":443"
						   : ":80",
		buf_error(&path) ? "" : (const char *)path.data);
	text_clean(out);
}
