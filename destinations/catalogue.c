/* SPDX-License-Identifier: Apache-2.0 */

/* Destination types out of YAML.
 *
 * A type only describes: which options there are, which header each becomes, what the backend's limits are. From this
 * come validation, `destination add --help` and documentation, so a type that speaks a known protocol is one file and
 * no C. The files are built in; a type that does not parse is a defect of the build and ends the program, which a test
 * sees first. Parsing is strict all the same, because operators will write such files: every key is known or refused
 * with name:line, and a near miss is pointed out.
 *
 * Bounds: 64 KiB a file, 64 fields. libyaml's document is a flat array of nodes and the walk here has a fixed depth,
 * so that aliases can neither loop nor blow up. Runs in agentd and in the exporter, which trusts its own copy. */

#include <ctype.h>
#include <stdarg.h>
#include <yaml.h>

#include "agentd/base/buf.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/destination.h"
#include "destinations/catalogue_private.h"

#define MAX_LIST 32

struct parser {
	yaml_document_t *doc;
	const char *name;
	struct destination_type *type;
	struct err_text *err;
};

/* ---- nodes --------------------------------------------------------------------------------------- */

static int wrong(struct parser *p, const yaml_node_t *at, const char *format, ...) PRINTF(3, 4);
static int wrong(struct parser *p, const yaml_node_t *at, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return err_set(
		p->err, -EINVAL, "%s:%zu: %s", p->name, at ? at->start_mark.line + 1 : 1, text);
}

static const yaml_node_t *node(struct parser *p, int index)
{
	return yaml_document_get_node(p->doc, index);
}

/* The text of a scalar, borrowed from the document; NULL and an error for anything else. */
static const char *scalar(struct parser *p, const char *key, const yaml_node_t *n)
{
	const char *s = (const char *)n->data.scalar.value;

	if (n->type != YAML_SCALAR_NODE) {
		wrong(p, n, "%s: expected one value", key);
		return NULL;
	}
	if (strlen(s) != n->data.scalar.length || !text_is_clean(s, 1024)) {
		wrong(p, n, "%s: expected at most 1024 bytes of text without control characters",
			key);
		return NULL;
	}
	return s;
}

static int get_text(struct parser *p, const char *key, const yaml_node_t *n, const char **ret)
{
	const char *s = scalar(p, key, n);
	char *copy;

	if (!s)
		return -EINVAL;
	copy = strdup(s);
	if (!copy)
		return -ENOMEM;
	free((void *)(uintptr_t)*ret);
	*ret = copy;
	return 0;
}

static int get_size(struct parser *p, const char *key, const yaml_node_t *n, uint64_t *ret)
{
	const char *s = scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_size(s, ret) < 0
		? wrong(p, n, "%s: expected a size such as 2MB, not \"%s\"", key, s)
		: 0;
}

static int get_duration(struct parser *p, const char *key, const yaml_node_t *n, uint64_t *ret)
{
	const char *s = scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_duration(s, ret) < 0
		? wrong(p, n, "%s: expected a time such as 10s or 1h, not \"%s\"", key, s)
		: 0;
}

static int get_count(struct parser *p, const char *key, const yaml_node_t *n, uint64_t *ret)
{
	const char *s = scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_u64(s, 0, UINT64_MAX, ret) < 0
		? wrong(p, n, "%s: expected a whole number, not \"%s\"", key, s)
		: 0;
}

static int get_bool(struct parser *p, const char *key, const yaml_node_t *n, bool *ret)
{
	const char *s = scalar(p, key, n);

	if (!s)
		return -EINVAL;
	return text_bool(s, ret) < 0 ? wrong(p, n, "%s: expected true or false, not \"%s\"", key, s)
				     : 0;
}

static void free_list(const char *const *list)
{
	for (size_t i = 0; list && list[i]; i++)
		free((void *)(uintptr_t)list[i]);
	free((void *)(uintptr_t)list);
}

static int get_list(
	struct parser *p, const char *key, const yaml_node_t *n, const char *const **ret)
{
	size_t count;
	const char **list;

	if (n->type != YAML_SEQUENCE_NODE)
		return wrong(p, n, "%s: expected a list such as [a, b]", key);
	count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	if (!count || count > MAX_LIST)
		return wrong(p, n, "%s: expected 1 to %d values", key, MAX_LIST);
	list = calloc(count + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	free_list(*ret);
	*ret = list;
	for (size_t i = 0; i < count; i++) {
		int r = get_text(p, key, node(p, n->data.sequence.items.start[i]), &list[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Calls visit with the index of the key in known for each pair of a mapping, in the file's order. A key given twice or
 * not known is an error. */
static int each_key(struct parser *p, const char *what, const yaml_node_t *n,
	const char *const *known, size_t n_known,
	int (*visit)(struct parser *p, size_t key, const yaml_node_t *value, void *userdata),
	void *userdata)
{
	uint64_t seen = 0;

	if (!n || n->type != YAML_MAPPING_NODE)
		return wrong(p, n, "%s: expected keys and values", what);
	for (const yaml_node_pair_t *pair = n->data.mapping.pairs.start;
		pair < n->data.mapping.pairs.top; pair++) {
		const yaml_node_t *k = node(p, pair->key);
		const char *key = scalar(p, what, k), *near;
		size_t i = 0;
		int r;

		if (!key)
			return -EINVAL;
		while (i < n_known && !streq(known[i], key))
			i++;
		near = i == n_known ? text_nearest(key, known, n_known) : NULL;
		if (near)
			return wrong(p, k, "%s has no key \"%s\": did you mean \"%s\"?", what, key,
				near);
		if (i == n_known)
			return wrong(p, k, "%s has no key \"%s\"", what, key);
		if (seen & 1ULL << i)
			return wrong(p, k, "%s: \"%s\" is given twice", what, key);
		seen |= 1ULL << i;
		r = visit(p, i, node(p, pair->value), userdata);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- fields -------------------------------------------------------------------------------------- */

static const char *const type_names[] = {[OPTION_STRING] = "string",
	[OPTION_BOOL] = "boolean",
	[OPTION_UINT] = "number",
	[OPTION_DURATION] = "duration",
	[OPTION_SIZE] = "size",
	[OPTION_ENUM] = "enum",
	[OPTION_URL] = "url",
	[OPTION_HOSTPORT] = "host:port",
	[OPTION_SECRET] = "secret",
	[OPTION_MAP] = "map",
	[OPTION_ENDPOINT] = "endpoint",
	[OPTION_FILE] = "file",
	[OPTION_SECRET_MAP] = "secret-map"};

enum field_key {
	FIELD_NAME,
	FIELD_TYPE,
	FIELD_REQUIRED,
	FIELD_SECRET,
	FIELD_DEFAULT,
	FIELD_HELP,
	FIELD_VALUES,
	FIELD_MIN,
	FIELD_MAX,
	FIELD_HEADER,
	FIELD_KEYS
};
static const char *const field_keys[FIELD_KEYS] = {
	"name", "type", "required", "secret", "default", "help", "values", "min", "max", "header"};

struct field {
	struct option_desc *desc;
	const char **header;
	const yaml_node_t *bound[2]; /* read when the type is known */
	bool typed, secret;
};

static int get_type(struct parser *p, const yaml_node_t *value, struct field *f)
{
	const char *s = scalar(p, "type", value), *near;

	if (!s)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(type_names); i++) {
		if (!streq(type_names[i], s))
			continue;
		f->desc->type = (enum option_type)i;
		f->typed = true;
		return 0;
	}
	near = text_nearest(s, type_names, ARRAY_SIZE(type_names));
	return near
		? wrong(p, value, "there is no type \"%s\": did you mean \"%s\"?", s, near)
		: wrong(p, value,
			  "there is no type \"%s\": expected string, boolean, number, duration, "
			  "size, enum, url, host:port, endpoint, secret, file, map or secret-map",
			  s);
}

static int on_field_key(struct parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	struct field *f = userdata;

	switch ((enum field_key)key) {
	case FIELD_NAME:
		return get_text(p, "name", value, &f->desc->name);
	case FIELD_TYPE:
		return get_type(p, value, f);
	case FIELD_REQUIRED:
		return get_bool(p, "required", value, &f->desc->required);
	case FIELD_SECRET:
		return get_bool(p, "secret", value, &f->secret);
	case FIELD_DEFAULT:
		return get_text(p, "default", value, &f->desc->fallback);
	case FIELD_HELP:
		return get_text(p, "help", value, &f->desc->help);
	case FIELD_VALUES:
		return get_list(p, "values", value, &f->desc->values);
	case FIELD_MIN:
	case FIELD_MAX:
		f->bound[key == FIELD_MAX] = value;
		return 0;
	case FIELD_HEADER:
		return get_text(p, "header", value, f->header);
	case FIELD_KEYS:
		break;
	}
	return -EINVAL;
}

static int get_bound(struct parser *p, struct field *f, size_t i)
{
	uint64_t *to = i ? &f->desc->max : &f->desc->min;
	const char *key = i ? "max" : "min";

	if (!f->bound[i])
		return 0;
	switch (f->desc->type) {
	case OPTION_UINT:
		return get_count(p, key, f->bound[i], to);
	case OPTION_DURATION:
		return get_duration(p, key, f->bound[i], to);
	case OPTION_SIZE:
		return get_size(p, key, f->bound[i], to);
	default:
		return wrong(p, f->bound[i],
			"%s: only a number, duration or size has bounds, not a %s", key,
			type_names[f->desc->type]);
	}
}

/* Option names are `--name` on a command line and a segment of a path in the configuration. */
static bool is_option_name(const char *s)
{
	if (!islower((unsigned char)*s) || strlen(s) > 64)
		return false;
	for (; *s; s++)
		if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && *s != '-')
			return false;
	return true;
}

/* token of RFC 9110. */
bool catalogue_is_header_name(const char *s)
{
	if (!*s || strlen(s) > 128)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s))
			return false;
	return true;
}

static int check_field(struct parser *p, const yaml_node_t *n, struct field *f)
{
	struct option_desc *d = f->desc;
	struct err_text inner = {};

	if (!d->name || !is_option_name(d->name))
		return wrong(p, n,
			"a field needs a name of small letters, digits and '-', beginning with a letter");
	if (!f->typed)
		return wrong(p, n, "the field %s needs a type", d->name);
	if (!d->help || !*d->help)
		return wrong(p, n, "the field %s needs a help: one line", d->name);
	if (f->secret && d->type != OPTION_STRING && d->type != OPTION_SECRET)
		return wrong(p, n, "the field %s: only text can be secret", d->name);
	if (f->secret)
		d->type = OPTION_SECRET;
	if ((d->type == OPTION_ENUM) != (d->values != NULL))
		return wrong(p, n, "the field %s: values belong to an enum, and an enum needs them",
			d->name);
	if (*f->header &&
		(!catalogue_is_header_name(*f->header) || d->type == OPTION_MAP ||
			d->type == OPTION_SECRET_MAP || d->type == OPTION_FILE))
		return wrong(p, n, "the field %s: its header is not one that can be sent", d->name);
	if (d->fallback &&
		(d->type == OPTION_SECRET || d->type == OPTION_MAP || d->type == OPTION_FILE ||
			d->type == OPTION_SECRET_MAP || d->required))
		return wrong(p, n, "the field %s can have no default", d->name);
	for (size_t i = 0; i < 2; i++)
		if (get_bound(p, f, i) < 0)
			return -EINVAL;
	if (d->max && d->min > d->max)
		return wrong(p, n, "the field %s: its min is above its max", d->name);
	if (d->fallback && option_check(d, d->fallback, &inner) < 0)
		return wrong(p, n, "the default of the field %s: %s", d->name, inner.text);
	return 0;
}

static int get_fields(struct parser *p, const yaml_node_t *n)
{
	size_t count;

	if (n->type != YAML_SEQUENCE_NODE)
		return wrong(
			p, n, "fields: expected a list of fields, each with a name and a type");
	count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	if (count > CATALOGUE_MAX_FIELDS)
		return wrong(p, n, "fields: expected at most %d", CATALOGUE_MAX_FIELDS);
	p->type->option_headers =
		calloc(CATALOGUE_MAX_OPTIONS + 1, sizeof(*p->type->option_headers));
	if (!p->type->option_headers)
		return -ENOMEM;
	p->type->options = calloc(CATALOGUE_MAX_OPTIONS + 1, sizeof(*p->type->options));
	if (!p->type->options)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *item = node(p, n->data.sequence.items.start[i]);
		struct field f = {.desc = &p->type->options[i],
			.header = (const char **)(uintptr_t)&p->type->option_headers[i]};
		int r = each_key(p, "a field", item, field_keys, FIELD_KEYS, on_field_key, &f);

		if (r < 0)
			return r;
		r = check_field(p, item, &f);
		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++)
			if (streq(p->type->options[k].name, f.desc->name))
				return wrong(p, item, "the field %s is given twice", f.desc->name);
	}
	return 0;
}

/* ---- what many types have -------------------------------------------------------------------------- */

static int copy_text(const char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

static int copy_option(struct option_desc *to, const struct option_desc *from)
{
	size_t n = 0;
	const char **values;

	*to = *from;
	to->values = NULL;
	to->name = to->help = to->fallback = NULL;
	if (copy_text(&to->name, from->name) < 0 || copy_text(&to->help, from->help) < 0 ||
		copy_text(&to->fallback, from->fallback) < 0)
		return -ENOMEM;
	while (from->values && from->values[n])
		n++;
	if (!n)
		return 0;
	values = calloc(n + 1, sizeof(*values));
	to->values = values;
	for (size_t i = 0; values && i < n; i++)
		if (copy_text(&values[i], from->values[i]) < 0)
			return -ENOMEM;
	return values ? 0 : -ENOMEM;
}

/* The table's options behind the type's own, but for those that the type has itself. */
static int add_options(struct destination_type *t, const struct option_desc *table)
{
	size_t n = 0;

	while (t->options[n].name)
		n++;
	for (; table->name; table++) {
		if (option_find(t->options, table->name))
			continue;
		if (n == CATALOGUE_MAX_OPTIONS)
			return -E2BIG;
		if (copy_option(&t->options[n++], table) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int add_groups(struct parser *p, const yaml_node_t *root)
{
	struct destination_type *t = p->type;
	const char *names[16];
	size_t n = 0;
	int r = 0;

	for (; destination_groups[n].name; n++)
		names[n] = destination_groups[n].name;
	for (size_t i = 0; t->with && t->with[i] && r >= 0; i++) {
		size_t k = 0;
		const char *near;

		while (k < n && !streq(names[k], t->with[i]))
			k++;
		if (k < n) {
			r = add_options(t, destination_groups[k].options);
			continue;
		}
		near = text_nearest(t->with[i], names, n);
		return wrong(p, root,
			"with: there is no group of fields \"%s\"%s%s%s: expected network, "
			"insecure, tls, basic, bearer or headers",
			t->with[i], near ? ", did you mean \"" : "", near ? near : "",
			near ? "\"" : "");
	}
	while (r >= 0 && t->options[t->n_own].name)
		t->n_own++;
	return r < 0 ? r : add_options(t, destination_common_options);
}

/* ---- the file ------------------------------------------------------------------------------------ */

static const char *const limit_keys[] = {"max-profile-bytes", "max-profile-samples", "max-age"};

static int on_limit(struct parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	switch (key) {
	case 0:
		return get_size(p, limit_keys[key], value, &p->type->max_profile_bytes);
	case 1:
		return get_count(p, limit_keys[key], value, &p->type->max_profile_samples);
	default:
		return get_duration(p, limit_keys[key], value, &p->type->max_age_ns);
	}
}

static const char *const hint_keys[] = {"not-found", "cost"};

static int on_hint(struct parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	return get_text(
		p, hint_keys[key], value, key == 0 ? &p->type->not_found_hint : &p->type->cost);
}

enum top_key {
	TOP_DISPLAY_NAME,
	TOP_SUMMARY,
	TOP_SIGNALS,
	TOP_TRANSPORT,
	TOP_ENDPOINT,
	TOP_PATH,
	TOP_CONTENT_TYPE,
	TOP_COMPRESSION,
	TOP_EXAMPLE,
	TOP_HINTS,
	TOP_LIMITS,
	TOP_FIELDS,
	TOP_WITH,
	TOP_TIMESTAMPS,
	TOP_KEYS
};
static const char *const top_keys[TOP_KEYS] = {"display-name", "summary", "signals", "transport",
	"endpoint", "path", "content-type", "compression", "example", "hints", "limits", "fields",
	"with", "timestamps"};

static int on_top_key(struct parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	struct destination_type *t = p->type;
	const char **const texts[TOP_KEYS] = {[TOP_DISPLAY_NAME] = &t->display_name,
		[TOP_SUMMARY] = &t->summary,
		[TOP_TRANSPORT] = &t->transport,
		[TOP_ENDPOINT] = &t->endpoint_option,
		[TOP_PATH] = &t->path,
		[TOP_CONTENT_TYPE] = &t->content_type,
		[TOP_COMPRESSION] = &t->compression,
		[TOP_EXAMPLE] = &t->example};

	switch ((enum top_key)key) {
	case TOP_SIGNALS:
		return get_list(p, "signals", value, &t->signals);
	case TOP_HINTS:
		return each_key(p, "hints", value, hint_keys, ARRAY_SIZE(hint_keys), on_hint, NULL);
	case TOP_LIMITS:
		return each_key(
			p, "limits", value, limit_keys, ARRAY_SIZE(limit_keys), on_limit, NULL);
	case TOP_FIELDS:
		return get_fields(p, value);
	case TOP_WITH:
		return get_list(p, "with", value, &t->with);
	case TOP_TIMESTAMPS:
		return get_bool(p, "timestamps", value, &t->timestamps);
	default:
		return get_text(p, top_keys[key], value, texts[key]);
	}
}

static int default_text(const char **s, const char *text)
{
	if (!*s)
		*s = strdup(text);
	return *s ? 0 : -ENOMEM;
}

static bool one_of(const char *word, const char *const *words, size_t n)
{
	while (n && !streq(words[n - 1], word))
		n--;
	return n;
}

static int check_words(struct parser *p, const yaml_node_t *root)
{
	static const char *const transports[] = {"otlphttp", "otlpgrpc", "parca", "file", "debug",
		"local"},
				 *const compressions[] = {"gzip", "zstd", "none"};
	struct destination_type *t = p->type;

	if (!one_of(t->transport, transports, ARRAY_SIZE(transports)))
		return wrong(p, root,
			"there is no transport \"%s\": expected otlphttp, otlpgrpc, parca, file, "
			"debug or local",
			t->transport);
	if (t->compression && !one_of(t->compression, compressions, ARRAY_SIZE(compressions)))
		return wrong(p, root, "there is no compression \"%s\": expected gzip, zstd or none",
			t->compression);
	for (size_t i = 0; t->signals[i]; i++)
		if (!streq(t->signals[i], "PROFILES"))
			return wrong(p, root, "there is no signal \"%s\": expected PROFILES",
				t->signals[i]);
	return 0;
}

/* Every {field} of the path is one that always has a value. */
static int check_path(struct parser *p, const yaml_node_t *root)
{
	const struct destination_type *t = p->type;

	if (t->path && *t->path && t->path[0] != '/')
		return wrong(p, root, "path: expected one that begins with /");
	for (const char *at = t->path; at && (at = strchr(at, '{')); at++) {
		size_t len = strcspn(at + 1, "{}");
		char name[80];
		const struct option_desc *d;

		snprintf(name, sizeof(name), "%.*s", (int)MIN(len, 79), at + 1);
		d = at[1 + len] == '}' ? option_find(t->options, name) : NULL;
		if (!d || d->type != OPTION_STRING || (!d->required && !d->fallback))
			return wrong(p, root,
				"path: {%s} is no field of type string that is required or has a default",
				name);
	}
	return 0;
}

static int check_endpoint(struct parser *p, const yaml_node_t *root)
{
	struct destination_type *t = p->type;
	const struct option_desc *endpoint =
		t->endpoint_option ? option_find(t->options, t->endpoint_option) : NULL;

	if (!destination_is_remote(t)) {
		if (t->endpoint_option && (!endpoint || endpoint->type != OPTION_STRING))
			return wrong(
				p, root, "endpoint: expected the name of a field of type string");
	} else if (!endpoint ||
		(endpoint->type != OPTION_URL && endpoint->type != OPTION_ENDPOINT &&
			endpoint->type != OPTION_HOSTPORT)) {
		return wrong(p, root,
			"endpoint: expected the name of a field of type url, endpoint or host:port");
	}
	return default_text(
		&t->default_endpoint, endpoint && endpoint->fallback ? endpoint->fallback : "");
}

static int check_type(struct parser *p, const yaml_node_t *root)
{
	struct destination_type *t = p->type;
	int r;

	if (!t->display_name || !t->summary || !t->transport || !t->signals || !t->options)
		return wrong(
			p, root, "display-name, summary, signals, transport and fields are needed");
	r = check_words(p, root);
	if (r >= 0)
		r = add_groups(p, root);
	if (r == -E2BIG)
		return wrong(p, root, "the type has more than %d fields", CATALOGUE_MAX_OPTIONS);
	if (r >= 0)
		r = check_endpoint(p, root);
	if (r >= 0)
		r = check_path(p, root);
	if (r < 0)
		return r;
	if (default_text(&t->path, "") < 0 || default_text(&t->compression, "gzip") < 0 ||
		default_text(&t->content_type, "application/x-protobuf") < 0 ||
		default_text(&t->endpoint_option, "") < 0 || default_text(&t->cost, "") < 0 ||
		default_text(&t->not_found_hint, "") < 0 || default_text(&t->example, "") < 0)
		return -ENOMEM;
	return 0;
}

struct destination_type *destination_type_free(struct destination_type *t)
{
	if (!t)
		return NULL;
	for (struct option_desc *d = t->options; d &&
		(d->name || d->help || d->values || d->fallback ||
			t->option_headers[d - t->options]);
		d++) {
		free((void *)(uintptr_t)d->name);
		free((void *)(uintptr_t)d->fallback);
		free((void *)(uintptr_t)d->help);
		free_list(d->values);
		free((void *)(uintptr_t)t->option_headers[d - t->options]);
	}
	free((void *)(uintptr_t)t->option_headers);
	free(t->options);
	free((void *)(uintptr_t)t->name);
	free((void *)(uintptr_t)t->display_name);
	free((void *)(uintptr_t)t->summary);
	free((void *)(uintptr_t)t->transport);
	free_list(t->signals);
	free_list(t->with);
	free((void *)(uintptr_t)t->cost);
	free((void *)(uintptr_t)t->yaml);
	free((void *)(uintptr_t)t->default_endpoint);
	free((void *)(uintptr_t)t->endpoint_option);
	free((void *)(uintptr_t)t->path);
	free((void *)(uintptr_t)t->content_type);
	free((void *)(uintptr_t)t->compression);
	free((void *)(uintptr_t)t->not_found_hint);
	free((void *)(uintptr_t)t->example);
	free(t);
	return NULL;
}

DEFINE_FREEP(type_freep, struct destination_type *, destination_type_free)

static int load(
	const char *name, const char *yaml, size_t len, yaml_document_t *doc, struct err_text *err)
{
	yaml_parser_t parser;
	int r = 0;

	if (len > CATALOGUE_MAX_FILE)
		return err_set(
			err, -EFBIG, "%s: expected at most %u bytes", name, CATALOGUE_MAX_FILE);
	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, len);
	if (!yaml_parser_load(&parser, doc))
		r = err_set(err, -EINVAL, "%s:%zu: %s", name, parser.problem_mark.line + 1,
			parser.problem ? parser.problem : "not YAML");
	yaml_parser_delete(&parser);
	return r;
}

int destination_type_parse(const char *name, const char *yaml, size_t len,
	struct destination_type **ret, struct err_text *err)
{
	CLEANUP(type_freep) struct destination_type *t = calloc(1, sizeof(*t));
	struct parser p = {.name = name, .type = t, .err = err};
	yaml_document_t doc;
	const yaml_node_t *root;
	int r;

	if (!t)
		return -ENOMEM;
	if (!text_is_name(name))
		return err_set(err, -EINVAL, "a destination type cannot have this name");
	t->name = strdup(name);
	if (!t->name)
		return -ENOMEM;
	r = load(name, yaml, len, &doc, err);
	if (r < 0)
		return r;
	p.doc = &doc;
	root = yaml_document_get_root_node(&doc);
	r = root ? each_key(&p, "a destination type", root, top_keys, TOP_KEYS, on_top_key, NULL)
		 : err_set(err, -EINVAL, "%s:1: the file is empty", name);
	if (r >= 0)
		r = check_type(&p, root);
	yaml_document_delete(&doc);
	if (r == -ENOMEM)
		err_set(err, r, "%s: out of memory", name);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(t);
	return 0;
}
