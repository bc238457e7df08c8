/* SPDX-License-Identifier: Apache-2.0 */

/* The fields of a destination type: the options that it has of its own.
 *
 * A field becomes an option of the command line, a segment of a path in the configuration and maybe a header of every
 * request, so its name, type, bounds, default and header are checked here against each other, once, and nothing that
 * makes no sense (a secret number, a default of a secret) gets past. A bound is read after all keys, when the type says
 * what it counts. At most CATALOGUE_MAX_FIELDS; there is room behind them for what catalogue.c adds.
 *
 * Runs in agentd and in the exporter. */

#include <ctype.h>

#include "agentd/base/text.h"
#include "destinations/catalogue_private.h"
#include "destinations/catalogue_yaml.h"

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

static int get_type(struct catalogue_parser *p, const yaml_node_t *value, struct field *f)
{
	const char *s = catalogue_scalar(p, "type", value), *near;

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
		? catalogue_wrong(
			  p, value, "there is no type \"%s\": did you mean \"%s\"?", s, near)
		: catalogue_wrong(p, value,
			  "there is no type \"%s\": expected string, boolean, number, duration, "
			  "size, enum, url, host:port, endpoint, secret, file, map or secret-map",
			  s);
}

static int on_field_key(
	struct catalogue_parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	struct field *f = userdata;

	switch ((enum field_key)key) {
	case FIELD_NAME:
		return catalogue_get_text(p, "name", value, &f->desc->name);
	case FIELD_TYPE:
		return get_type(p, value, f);
	case FIELD_REQUIRED:
		return catalogue_get_bool(p, "required", value, &f->desc->required);
	case FIELD_SECRET:
		return catalogue_get_bool(p, "secret", value, &f->secret);
	case FIELD_DEFAULT:
		return catalogue_get_text(p, "default", value, &f->desc->fallback);
	case FIELD_HELP:
		return catalogue_get_text(p, "help", value, &f->desc->help);
	case FIELD_VALUES:
		return catalogue_get_list(p, "values", value, &f->desc->values);
	case FIELD_MIN:
	case FIELD_MAX:
		f->bound[key == FIELD_MAX] = value;
		return 0;
	case FIELD_HEADER:
		return catalogue_get_text(p, "header", value, f->header);
	case FIELD_KEYS:
		break;
	}
	return -EINVAL;
}

static int get_bound(struct catalogue_parser *p, struct field *f, size_t i)
{
	uint64_t *to = i ? &f->desc->max : &f->desc->min;
	const char *key = i ? "max" : "min";

	if (!f->bound[i])
		return 0;
	switch (f->desc->type) {
	case OPTION_UINT:
		return catalogue_get_count(p, key, f->bound[i], to);
	case OPTION_DURATION:
		return catalogue_get_duration(p, key, f->bound[i], to);
	case OPTION_SIZE:
		return catalogue_get_size(p, key, f->bound[i], to);
	default:
		return catalogue_wrong(p, f->bound[i],
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

static int check_field(struct catalogue_parser *p, const yaml_node_t *n, struct field *f)
{
	struct option_desc *d = f->desc;
	struct err_text inner = {};

	if (!d->name || !is_option_name(d->name))
		return catalogue_wrong(p, n,
			"a field needs a name of small letters, digits and '-', beginning with a letter");
	if (!f->typed)
		return catalogue_wrong(p, n, "the field %s needs a type", d->name);
	if (!d->help || !*d->help)
		return catalogue_wrong(p, n, "the field %s needs a help: one line", d->name);
	if (f->secret && d->type != OPTION_STRING && d->type != OPTION_SECRET)
		return catalogue_wrong(p, n, "the field %s: only text can be secret", d->name);
	if (f->secret)
		d->type = OPTION_SECRET;
	if ((d->type == OPTION_ENUM) != (d->values != NULL))
		return catalogue_wrong(p, n,
			"the field %s: values belong to an enum, and an enum needs them", d->name);
	if (*f->header &&
		(!catalogue_is_header_name(*f->header) || d->type == OPTION_MAP ||
			d->type == OPTION_SECRET_MAP || d->type == OPTION_FILE))
		return catalogue_wrong(
			p, n, "the field %s: its header is not one that can be sent", d->name);
	if (d->fallback &&
		(d->type == OPTION_SECRET || d->type == OPTION_MAP || d->type == OPTION_FILE ||
			d->type == OPTION_SECRET_MAP || d->required))
		return catalogue_wrong(p, n, "the field %s can have no default", d->name);
	for (size_t i = 0; i < 2; i++)
		if (get_bound(p, f, i) < 0)
			return -EINVAL;
	if (d->max && d->min > d->max)
		return catalogue_wrong(p, n, "the field %s: its min is above its max", d->name);
	if (d->fallback && option_check(d, d->fallback, &inner) < 0)
		return catalogue_wrong(
			p, n, "the default of the field %s: %s", d->name, inner.text);
	return 0;
}

int catalogue_get_fields(struct catalogue_parser *p, const yaml_node_t *n)
{
	size_t count;

	if (n->type != YAML_SEQUENCE_NODE)
		return catalogue_wrong(
			p, n, "fields: expected a list of fields, each with a name and a type");
	count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	if (count > CATALOGUE_MAX_FIELDS)
		return catalogue_wrong(p, n, "fields: expected at most %d", CATALOGUE_MAX_FIELDS);
	p->type->option_headers =
		calloc(CATALOGUE_MAX_OPTIONS + 1, sizeof(*p->type->option_headers));
	if (!p->type->option_headers)
		return -ENOMEM;
	p->type->options = calloc(CATALOGUE_MAX_OPTIONS + 1, sizeof(*p->type->options));
	if (!p->type->options)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *item = catalogue_node(p, n->data.sequence.items.start[i]);
		struct field f = {.desc = &p->type->options[i],
			.header = (const char **)(uintptr_t)&p->type->option_headers[i]};
		int r = catalogue_each_key(
			p, "a field", item, field_keys, FIELD_KEYS, on_field_key, &f);

		if (r < 0)
			return r;
		r = check_field(p, item, &f);
		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++)
			if (streq(p->type->options[k].name, f.desc->name))
				return catalogue_wrong(
					p, item, "the field %s is given twice", f.desc->name);
	}
	return 0;
}
