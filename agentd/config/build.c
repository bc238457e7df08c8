/* SPDX-License-Identifier: Apache-2.0 */

/* From what was merged to the one configuration that is in force.
 *
 * What comes out is typed and wholly valid, or it is an error that says where the value stands;
 * nothing else in agentd ever parses a setting. Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/config/config_private.h"
#include "destinations/destination.h"

static void values_free(struct option_value *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((char *)list[i].name);
		free((char *)list[i].value);
	}
	free(list);
}

struct config *config_free(struct config *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < c->n_destinations; i++) {
		free(c->destinations[i].name);
		free(c->destinations[i].type);
		values_free(c->destinations[i].options, c->destinations[i].n_options);
	}
	free(c->destinations);
	values_free(c->host_labels, c->n_host_labels);
	source_set_free(c->sources);
	config_list_free(c->symbols.urls, c->symbols.n_urls);
	config_list_free(c->symbols.paths, c->symbols.n_paths);
	values_free(c->shaping, c->n_shaping);
	free(c->metrics_listen);
	free(c->docker_root);
	free(c);
	return NULL;
}

static int copy_values(
	const struct option_value *from, size_t n, struct option_value **ret, size_t *ret_n)
{
	struct option_value *to = calloc(n + 1, sizeof(*to));

	if (!to)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		to[i].name = strdup(from[i].name);
		to[i].value = strdup(from[i].value);
		if (!to[i].name || !to[i].value) {
			values_free(to, i + 1);
			return -ENOMEM;
		}
	}
	*ret = to;
	*ret_n = n;
	return 0;
}

struct builder {
	const struct config_doc *const *docs;
	const struct merged *merged;
	struct config *config;
	struct err_text *err;
};

/* Says where a wrong value stands. what: whose it is, where the text does not say. */
static int wrong(struct builder *b, const struct merged_value *v, int code, const char *what)
{
	if (what)
		err_prefix(b->err, code, "%s", what);
	if (v->entry->file && v->entry->line)
		err_prefix(b->err, code, "%s:%u", v->entry->file, v->entry->line);
	return code;
}

static uint64_t power_of_two_below(uint64_t n)
{
	return n ? 1ULL << (63 - __builtin_clzll(n)) : 0;
}

/* Of profiling/ what is a number. False: it is another setting. The value was checked. */
static bool build_number(struct config *c, const char *path, const char *value)
{
	uint64_t number = 0;

	if (streq(path, "profiling/rate")) {
		text_u64(value, SAMPLER_RATE_MIN, SAMPLER_RATE_MAX, &number);
		c->profiling.rate_hz = (unsigned)number;
	} else if (streq(path, "profiling/max-frames")) {
		text_u64(value, 1, SAMPLE_MAX_USER, &number);
		c->profiling.max_frames = (unsigned)number;
	} else if (streq(path, "profiling/unwind-memory")) {
		text_size(value, &number);
		c->profiling.unwind_memory = power_of_two_below(number);
	} else if (streq(path, "exporter/min-free")) {
		text_u64(value, 0, 90, &number);
		c->exporter.min_free_permille = (unsigned)number * 10;
	} else if (streq(path, "profiling/budget")) {
		config_parse_percent(value, &c->profiling.budget_ppm, NULL);
	} else {
		return false;
	}
	return true;
}

static enum symbol_demangle demangle_mode(const char *value)
{
	enum symbol_demangle mode = SYMBOL_DEMANGLE_TEMPLATES;

	for (int i = 0; config_demangle_names[i]; i++)
		if (streq(config_demangle_names[i], value))
			mode = (enum symbol_demangle)i;
	return mode;
}

/* Of symbols/. 1: it is another setting. */
static int build_symbols(
	struct config *c, const char *path, const char *value, struct err_text *err)
{
	if (streq(path, "symbols/fetch"))
		return text_bool(value, &c->symbols.fetch);
	if (streq(path, "symbols/urls"))
		return config_parse_urls(value, &c->symbols.urls, &c->symbols.n_urls, err);
	if (streq(path, "symbols/paths"))
		return config_parse_paths(value, &c->symbols.paths, &c->symbols.n_paths, err);
	return 1;
}

/* shaping/ and metrics/. 1: it is another setting. */
static int build_exporter(
	struct builder *b, const struct config_path *p, const char *path, const char *value)
{
	struct config *c = b->config;
	struct option_value one = {p->key, value}, *list, *copy;
	size_t n;

	if (streq(path, "metrics/listen")) {
		free(c->metrics_listen);
		c->metrics_listen = strdup(streq(value, "off") ? "" : value);
		return c->metrics_listen ? 0 : err_set(b->err, -ENOMEM, "out of memory");
	}
	if (!text_starts(path, "shaping/"))
		return 1;
	if (streq(value, p->setting->option.fallback))
		return 0;
	list = reallocarray(c->shaping, c->n_shaping + 1, sizeof(*list));
	if (!list)
		return err_set(b->err, -ENOMEM, "out of memory");
	c->shaping = list;
	if (copy_values(&one, 1, &copy, &n) < 0)
		return err_set(b->err, -ENOMEM, "out of memory");
	c->shaping[c->n_shaping++] = copy[0];
	free(copy);
	return 0;
}

static int build_setting(
	struct builder *b, const struct config_path *p, const struct merged_value *v)
{
	struct config *c = b->config;
	const char *path = v->entry->path, *value = v->entry->value;
	int r;

	/* Checked: what follows cannot fail but for memory. */
	if (config_check_setting(p->setting, value, b->err) < 0)
		return wrong(b, v, -EINVAL, path);
	if (build_number(c, path, value))
		return 0;
	r = build_symbols(c, path, value, b->err);
	if (r == 1)
		r = build_exporter(b, p, path, value);
	if (r <= 0)
		return r;
	if (streq(path, "profiling/demangle")) {
		c->profiling.demangle = demangle_mode(value);
		return 0;
	}
	if (streq(path, "profiling/enabled"))
		return text_bool(value, &c->profiling.enabled);
	if (streq(path, "profiling/kernel-frames"))
		return text_bool(value, &c->profiling.kernel_frames);
	if (streq(path, "profiling/interval"))
		return text_duration(value, &c->profiling.interval_ns);
	if (streq(path, "local/max-size"))
		return text_size(value, &c->local.max_bytes);
	if (streq(path, "local/max-age"))
		return text_duration(value, &c->local.max_age_ns);
	if (streq(path, "exporter/spool-bytes"))
		return text_size(value, &c->exporter.spool_bytes);
	if (streq(path, "exporter/spool-age"))
		return text_duration(value, &c->exporter.spool_age_ns);
	if (streq(path, "profiling/types"))
		return config_parse_types(value, &c->profiling.types, b->err) < 0
			? wrong(b, v, -EINVAL, "profiling")
			: 0;
	if (value[0] != '/') {
		err_set(b->err, -EINVAL, "must be an absolute path, not \"%.128s\"", value);
		return wrong(b, v, -EINVAL, path);
	}
	free(c->docker_root);
	c->docker_root = strdup(value);
	return c->docker_root ? 0 : err_set(b->err, -ENOMEM, "out of memory");
}

static int build_host_label(
	struct builder *b, const struct config_path *p, const struct merged_value *v)
{
	struct config *c = b->config;
	struct option_value *labels, one = {p->key, v->entry->value}, *copy;
	size_t n;

	if (source_label_check(p->key, v->entry->value, b->err) < 0)
		return wrong(b, v, -EINVAL, "host");
	if (c->n_host_labels >= 64)
		return err_set(b->err, -E2BIG, "the host has more than 64 labels");
	labels = reallocarray(c->host_labels, c->n_host_labels + 1, sizeof(*labels));
	if (!labels)
		return err_set(b->err, -ENOMEM, "out of memory");
	c->host_labels = labels;
	if (copy_values(&one, 1, &copy, &n) < 0)
		return err_set(b->err, -ENOMEM, "out of memory");
	c->host_labels[c->n_host_labels++] = copy[0];
	free(copy);
	return 0;
}

static int build_source(struct builder *b, const char *name, const struct merged_value *v)
{
	struct source_draft draft CLEANUP(source_draft_deinit) = {};
	int r;

	if (source_set_size(b->config->sources) >= CONFIG_MAX_SOURCES)
		return err_set(
			b->err, -E2BIG, "there are more than %d sources", CONFIG_MAX_SOURCES);
	r = source_draft_make(&draft, b->docs[v->layer], name, b->err);
	if (r == 0)
		r = source_set_add(b->config->sources, &draft.spec, b->err); /* names it */
	return r < 0 ? wrong(b, v, r == -ENOMEM ? r : -EINVAL, NULL) : 0;
}

static int build_destination(struct builder *b, const char *name, const struct merged_value *v)
{
	struct destination_draft draft CLEANUP(destination_draft_deinit) = {};
	struct config_destination *list, *d;
	struct config *c = b->config;
	char what[96];
	int r;

	if (c->n_destinations >= CONFIG_MAX_DESTINATIONS)
		return err_set(b->err, -E2BIG, "there are more than %d destinations",
			CONFIG_MAX_DESTINATIONS);
	snprintf(what, sizeof(what), "destination %s", name);
	r = destination_draft_make(&draft, b->docs[v->layer], name, b->err);
	if (r == 0)
		r = destination_check(draft.type, draft.options, draft.n_options, b->err);
	if (r < 0)
		return wrong(b, v, r == -ENOMEM ? r : -EINVAL, what);
	list = reallocarray(c->destinations, c->n_destinations + 1, sizeof(*list));
	if (!list)
		return err_set(b->err, -ENOMEM, "out of memory");
	c->destinations = list;
	d = &list[c->n_destinations++];
	*d = (struct config_destination){.name = strdup(name),
		.type = strdup(draft.type),
		.enabled = draft.enabled,
		.order = draft.order};
	if (!d->name || !d->type ||
		copy_values(draft.options, draft.n_options, &d->options, &d->n_options) < 0)
		return err_set(b->err, -ENOMEM, "out of memory");
	return 0;
}

static int by_order(const void *a, const void *b)
{
	const struct config_destination *x = a, *y = b;

	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int build_all(struct builder *b)
{
	size_t done = 0; /* length of the object's prefix that is built */
	const char *object = "";

	for (size_t i = 0; i < b->merged->n; i++) {
		const struct merged_value *v = &b->merged->values[i];
		struct config_path p;
		int r;

		/* The values of one object lie together: one look at the first. */
		if (done && strncmp(v->entry->path, object, done) == 0 &&
			v->entry->path[done] == '/')
			continue;
		done = 0;
		r = config_leaf(v->entry, &p, b->err);
		if (r < 0)
			return wrong(b, v, r, "configuration");
		if (p.kind == PATH_SETTING)
			r = build_setting(b, &p, v);
		else if (p.kind == PATH_HOST_LABEL)
			r = build_host_label(b, &p, v);
		else if (text_starts(v->entry->path, "sources/"))
			r = build_source(b, p.name, v);
		else
			r = build_destination(b, p.name, v);
		if (r < 0)
			return r;
		object = v->entry->path;
		done = config_object_len(object);
	}
	return 0;
}

int config_build(const struct config_doc *const docs[LAYERS], const struct merged *m,
	uint64_t revision, struct config **ret, struct err_text *err)
{
	CLEANUP(config_freep) struct config *c = calloc(1, sizeof(*c));
	struct err_text own = {};
	struct builder b = {docs, m, c, err ? err : &own};
	int r;

	if (!c || source_set_new(&c->sources) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	c->revision = revision;
	r = build_all(&b);
	if (r < 0)
		return r;
	if (c->n_destinations)
		qsort(c->destinations, c->n_destinations, sizeof(*c->destinations), by_order);
	*ret = TAKE_PTR(c);
	return 0;
}
