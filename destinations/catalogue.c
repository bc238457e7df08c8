/* SPDX-License-Identifier: Apache-2.0 */

/* Destination types out of YAML.
 *
 * A type only describes: which options there are, which header each becomes, what the backend's limits are. From this
 * come validation, `destination add --help` and documentation, so a type that speaks a known protocol is one file and
 * no C. The files are built in; a type that does not parse is a defect of the build and ends the program, which a test
 * sees first. Parsing is strict all the same, because operators will write such files: every key is known or refused
 * with name:line, and a near miss is pointed out (catalogue_yaml.c).
 *
 * Here is the file as a whole: its keys, the groups of fields that many types share, and what has to fit together. Its
 * own fields are in catalogue_fields.c. Bounds: 64 KiB a file, 64 fields. Runs in agentd and in the exporter, which
 * trusts its own copy. */

#include "agentd/base/text.h"
#include "destinations/catalogue_private.h"
#include "destinations/catalogue_yaml.h"

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

static int add_groups(struct catalogue_parser *p, const yaml_node_t *root)
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
		return catalogue_wrong(p, root,
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

static int on_limit(
	struct catalogue_parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	switch (key) {
	case 0:
		return catalogue_get_size(p, limit_keys[key], value, &p->type->max_profile_bytes);
	case 1:
		return catalogue_get_count(
			p, limit_keys[key], value, &p->type->max_profile_samples);
	default:
		return catalogue_get_duration(p, limit_keys[key], value, &p->type->max_age_ns);
	}
}

static const char *const hint_keys[] = {"not-found", "cost"};

static int on_hint(struct catalogue_parser *p, size_t key, const yaml_node_t *value, void *userdata)
{
	return catalogue_get_text(
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

static int on_top_key(
	struct catalogue_parser *p, size_t key, const yaml_node_t *value, void *userdata)
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
		return catalogue_get_list(p, "signals", value, &t->signals);
	case TOP_HINTS:
		return catalogue_each_key(
			p, "hints", value, hint_keys, ARRAY_SIZE(hint_keys), on_hint, NULL);
	case TOP_LIMITS:
		return catalogue_each_key(
			p, "limits", value, limit_keys, ARRAY_SIZE(limit_keys), on_limit, NULL);
	case TOP_FIELDS:
		return catalogue_get_fields(p, value);
	case TOP_WITH:
		return catalogue_get_list(p, "with", value, &t->with);
	case TOP_TIMESTAMPS:
		return catalogue_get_bool(p, "timestamps", value, &t->timestamps);
	default:
		return catalogue_get_text(p, top_keys[key], value, texts[key]);
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

static int check_words(struct catalogue_parser *p, const yaml_node_t *root)
{
	static const char *const transports[] = {"otlphttp", "otlpgrpc", "parca", "file", "debug",
		"local"},
				 *const compressions[] = {"gzip", "zstd", "none"};
	struct destination_type *t = p->type;

	if (!one_of(t->transport, transports, ARRAY_SIZE(transports)))
		return catalogue_wrong(p, root,
			"there is no transport \"%s\": expected otlphttp, otlpgrpc, parca, file, "
			"debug or local",
			t->transport);
	if (t->compression && !one_of(t->compression, compressions, ARRAY_SIZE(compressions)))
		return catalogue_wrong(p, root,
			"there is no compression \"%s\": expected gzip, zstd or none",
			t->compression);
	for (size_t i = 0; t->signals[i]; i++)
		if (!streq(t->signals[i], "PROFILES"))
			return catalogue_wrong(p, root,
				"there is no signal \"%s\": expected PROFILES", t->signals[i]);
	return 0;
}

/* Every {field} of the path is one that always has a value. */
static int check_path(struct catalogue_parser *p, const yaml_node_t *root)
{
	const struct destination_type *t = p->type;

	if (t->path && *t->path && t->path[0] != '/')
		return catalogue_wrong(p, root, "path: expected one that begins with /");
	for (const char *at = t->path; at && (at = strchr(at, '{')); at++) {
		size_t len = strcspn(at + 1, "{}");
		char name[80];
		const struct option_desc *d;

		snprintf(name, sizeof(name), "%.*s", (int)MIN(len, 79), at + 1);
		d = at[1 + len] == '}' ? option_find(t->options, name) : NULL;
		if (!d || d->type != OPTION_STRING || (!d->required && !d->fallback))
			return catalogue_wrong(p, root,
				"path: {%s} is no field of type string that is required or has a default",
				name);
	}
	return 0;
}

static int check_endpoint(struct catalogue_parser *p, const yaml_node_t *root)
{
	struct destination_type *t = p->type;
	const struct option_desc *endpoint =
		t->endpoint_option ? option_find(t->options, t->endpoint_option) : NULL;

	if (!destination_is_remote(t)) {
		if (t->endpoint_option && (!endpoint || endpoint->type != OPTION_STRING))
			return catalogue_wrong(
				p, root, "endpoint: expected the name of a field of type string");
	} else if (!endpoint ||
		(endpoint->type != OPTION_URL && endpoint->type != OPTION_ENDPOINT &&
			endpoint->type != OPTION_HOSTPORT)) {
		return catalogue_wrong(p, root,
			"endpoint: expected the name of a field of type url, endpoint or host:port");
	}
	return default_text(
		&t->default_endpoint, endpoint && endpoint->fallback ? endpoint->fallback : "");
}

static int check_type(struct catalogue_parser *p, const yaml_node_t *root)
{
	struct destination_type *t = p->type;
	int r;

	if (!t->display_name || !t->summary || !t->transport || !t->signals || !t->options)
		return catalogue_wrong(
			p, root, "display-name, summary, signals, transport and fields are needed");
	r = check_words(p, root);
	if (r >= 0)
		r = add_groups(p, root);
	if (r == -E2BIG)
		return catalogue_wrong(
			p, root, "the type has more than %d fields", CATALOGUE_MAX_OPTIONS);
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
		catalogue_free_list(d->values);
		free((void *)(uintptr_t)t->option_headers[d - t->options]);
	}
	free((void *)(uintptr_t)t->option_headers);
	free(t->options);
	free((void *)(uintptr_t)t->name);
	free((void *)(uintptr_t)t->display_name);
	free((void *)(uintptr_t)t->summary);
	free((void *)(uintptr_t)t->transport);
	catalogue_free_list(t->signals);
	catalogue_free_list(t->with);
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

int destination_type_parse(const char *name, const char *yaml, size_t len,
	struct destination_type **ret, struct err_text *err)
{
	CLEANUP(type_freep) struct destination_type *t = calloc(1, sizeof(*t));
	struct catalogue_parser p = {.name = name, .type = t, .err = err};
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
	r = catalogue_load(name, yaml, len, &doc, err);
	if (r < 0)
		return r;
	p.doc = &doc;
	root = yaml_document_get_root_node(&doc);
	r = root ? catalogue_each_key(
			   &p, "a destination type", root, top_keys, TOP_KEYS, on_top_key, NULL)
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
