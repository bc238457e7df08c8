/* SPDX-License-Identifier: Apache-2.0 */

/* The types that are built in, and a destination's options against them.
 *
 * What a person or a file says of a destination is checked here once, before anything is committed. No text repeats the
 * value of a header or secret. Runs in agentd and in the exporter. */

#include "agentd/base/buf.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/catalogue_private.h"
#include "destinations/destination.h"
#include "destinations/catalogue.inc"

/* ---- what is built in ---------------------------------------------------------------------------- */

#define ROW(name, text) {name, text, sizeof(text) - 1},
static const struct {
	const char *name, *text;
	size_t len;
} built_in[] = {CATALOGUE_BUILT_IN(ROW)};

const struct destination_type *const *destination_types(void)
{
	static const struct destination_type *types[ARRAY_SIZE(built_in) + 1];

	if (types[0])
		return types;
	for (size_t i = 0; i < ARRAY_SIZE(built_in); i++) {
		struct destination_type *t = NULL;
		struct err_text err = {};

		if (destination_type_parse(
			    built_in[i].name, built_in[i].text, built_in[i].len, &t, &err) < 0) {
			log_error(
				"a destination type that is built in cannot be read: %s", err.text);
			abort();
		}
		types[i] = t;
	}
	return types;
}

const struct destination_type *destination_type_find(const char *name)
{
	for (const struct destination_type *const *t = destination_types(); *t; t++)
		if (streq((*t)->name, name))
			return *t;
	return NULL;
}

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

static int unknown_option(const struct destination_type *t, const char *name, struct err_text *err)
{
	const char *names[CATALOGUE_MAX_FIELDS], *near;
	char all[400] = "";
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
	return streq(d->name, "headers") ? check_header(key, err) : 0;
}

static int check_option(
	const struct destination_type *t, const struct option_value *o, struct err_text *err)
{
	const char *slash = strchr(o->name, '/');
	char name[80];
	const struct option_desc *d;

	snprintf(name, sizeof(name), "%.*s", (int)(slash ? slash - o->name : 79), o->name);
	d = option_find(t->options, name);
	if (!d)
		return unknown_option(t, name, err);
	if (d->type == OPTION_MAP)
		return slash ? check_map_entry(d, slash + 1, o->value, err)
			     : err_set(err, -EINVAL, "%s takes KEY=VALUE", name);
	if (slash)
		return err_set(err, -EINVAL, "%s takes one value, no keys", name);
	return option_check(d, o->value, err);
}

int destination_check(
	const char *type, const struct option_value *options, size_t n, struct err_text *err)
{
	const struct destination_type *t = destination_type_find(type);

	if (!t) {
		const struct destination_type *const *all = destination_types();
		const char *names[ARRAY_SIZE(built_in)], *near;

		for (size_t i = 0; i < ARRAY_SIZE(built_in); i++)
			names[i] = all[i]->name;
		near = text_nearest(type, names, ARRAY_SIZE(names));
		if (near)
			return err_set(err, -EINVAL,
				"there is no destination type \"%.80s\": did you mean \"%s\"?",
				type, near);
		return err_set(err, -EINVAL,
			"there is no destination type \"%.80s\"; `odictl destination types` lists all",
			type);
	}
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
		if (d->required && d->type != OPTION_MAP &&
			!*destination_option(t, options, n, d->name))
			return option_check(d, "", err);
	return 0;
}

const char *destination_option(const struct destination_type *type,
	const struct option_value *options, size_t n, const char *name)
{
	const struct option_desc *d = option_find(type->options, name);

	for (size_t i = 0; i < n; i++)
		if (streq(options[i].name, name) && options[i].value && *options[i].value)
			return options[i].value;
	return d && d->fallback ? d->fallback : "";
}

void destination_endpoint(const struct destination_type *type, const struct option_value *options,
	size_t n, char *out, size_t size)
{
	const char *url = destination_option(type, options, n, type->endpoint_option),
		   *sep = strstr(url, "://"), *host, *path, *at, *port;
	int scheme = sep ? (int)(sep - url) : 0;

	host = sep ? sep + 3 : url;
	path = host + strcspn(host, "/?#");
	at = memchr(host, '@', (size_t)(path - host));
	host = at ? at + 1 : host;
	/* A colon within brackets is of an IPv6 address. */
	port = memrchr(host, ':', (size_t)(path - host));
	if (port && memchr(port, ']', (size_t)(path - port)))
		port = NULL;
	snprintf(out, size, "%.*s://%.*s%s%s", scheme ? scheme : 4, scheme ? url : "http",
		(int)(path - host), host,
		port                  ? ""
			: scheme == 5 ? ":443"
				      : ":80",
		path[0] && !streq(path, "/") ? path : type->path);
	text_clean(out);
}
