/* SPDX-License-Identifier: Apache-2.0 */

/* From layers to the one configuration that is in force.
 *
 * Merging is by path for settings and labels of the host, and by object for sources and
 * destinations: such an object belongs wholly to the strongest layer that has it, so that nobody has
 * to wonder where half of a source comes from. What comes out is typed and wholly valid, or it is
 * an error that says where the value stands; nothing else in agentd ever parses a setting.
 * Runs in agentd. */

#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "agentd/config/config_private.h"
#include "destinations/destination.h"

/* ---- merging ------------------------------------------------------------------------------------- */

void merged_deinit(struct merged *m)
{
	free(m->values);
	*m = (struct merged){};
}

static size_t merged_lower(const struct merged *m, const char *path)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(m->values[middle].entry->path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct merged_value *merged_find(const struct merged *m, const char *path)
{
	size_t i = merged_lower(m, path);

	return i < m->n && streq(m->values[i].entry->path, path) ? &m->values[i] : NULL;
}

bool merged_has(const struct merged *m, const char *path)
{
	char first[CONFIG_PATH_MAX + 1];
	size_t i;

	if (merged_find(m, path))
		return true;
	if (snprintf(first, sizeof(first), "%s/", path) >= (int)sizeof(first))
		return false;
	i = merged_lower(m, first);
	return i < m->n && text_starts(m->values[i].entry->path, first);
}

static int by_path(const void *a, const void *b)
{
	const struct merged_value *x = a, *y = b;

	return strcmp(x->entry->path, y->entry->path);
}

int config_merge(const struct config_doc *const docs[LAYERS], struct merged *ret)
{
	struct merged m CLEANUP(merged_deinit) = {};
	CLEANUP(map_freep) struct map *owners = NULL; /* object or path -> layer + 1 */
	size_t n = 0;
	int r;

	for (size_t layer = 0; layer < LAYERS; layer++)
		n += docs[layer] ? config_doc_size(docs[layer]) : 0;
	m.values = calloc(n + 1, sizeof(*m.values));
	r = map_new(&owners, 0);
	if (!m.values || r < 0)
		return -ENOMEM;
	for (size_t layer = LAYERS; layer-- > 0;) {
		for (size_t i = 0; docs[layer] && i < config_doc_size(docs[layer]); i++) {
			const struct config_entry *e = config_doc_at(docs[layer], i);
			size_t len = config_object_len(e->path);
			void *owner;

			len = len ? len : strlen(e->path);
			owner = map_get(owners, e->path, len);
			if (owner && (uintptr_t)owner != layer + 1)
				continue;
			if (!owner)
				r = map_put(owners, e->path, len, (void *)(layer + 1), NULL);
			if (r < 0)
				return r;
			m.values[m.n++] = (struct merged_value){
				.entry = e, .layer = (enum config_layer)layer};
		}
	}
	qsort(m.values, m.n, sizeof(*m.values), by_path);
	*ret = m;
	m = (struct merged){};
	return 0;
}

int config_built_in(struct config_doc **ret)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	size_t n;
	const struct config_setting *s = config_schema(&n);
	int r = config_doc_new(&d);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = config_doc_set(d, s[i].path, s[i].option.fallback, 0);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(d);
	return 0;
}

/* ---- named objects ------------------------------------------------------------------------------- */

void source_draft_deinit(struct source_draft *draft)
{
	free(draft->options);
	free(draft->labels);
	*draft = (struct source_draft){};
}

static int take_flag(const struct config_entry *e, const char *key, bool *ret, struct err_text *err)
{
	if (text_bool(e->value, ret) < 0)
		return err_set(
			err, -EINVAL, "%s must be true or false, not \"%.64s\"", key, e->value);
	return 0;
}

static int take_order(const struct config_entry *e, uint64_t *ret, struct err_text *err)
{
	if (text_u64(e->value, 0, UINT64_MAX, ret) < 0)
		return err_set(err, -EINVAL, "order must be a number, not \"%.64s\"", e->value);
	return 0;
}

static int take_source_entry(struct source_draft *d, const struct config_path *p,
	const struct config_entry *e, struct err_text *err)
{
	struct source_spec *spec = &d->spec;

	if (p->kind == PATH_SOURCE_LABEL)
		d->labels[spec->n_labels++] = (struct option_value){p->key, e->value};
	else if (p->kind == PATH_SOURCE_OPTION)
		d->options[spec->n_options++] = (struct option_value){p->key, e->value};
	else if (streq(p->key, "kind"))
		spec->kind = e->value;
	else if (streq(p->key, "match"))
		spec->match = e->value;
	else if (streq(p->key, "service-name"))
		spec->service_name = e->value;
	else if (streq(p->key, "enabled"))
		return take_flag(e, p->key, &spec->enabled, err);
	else if (streq(p->key, "order"))
		return take_order(e, &spec->order, err);
	else /* types, per-process, ...: options that every kind has */
		d->options[spec->n_options++] = (struct option_value){p->key, e->value};
	return 0;
}

/* [*from, *to) of the object's entries; their parsed paths are valid by the caller's checks or fail. */
static int each_entry(const struct config_doc *d, const char *group, const char *name, size_t *from,
	size_t *to, struct err_text *err)
{
	char path[CONFIG_PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", group, name) >= (int)sizeof(path))
		return err_set(err, -EINVAL, "the name \"%.64s\" is too long", name);
	if (config_doc_get(d, path))
		return err_set(err, -EINVAL, "%s holds settings, not a value", path);
	config_doc_below(d, path, from, to);
	return 0;
}

static int leaf(const struct config_entry *e, struct config_path *p, struct err_text *err)
{
	int r = config_path_parse(e->path, p, err);

	if (r == 0 && !config_path_is_leaf(p->kind))
		return err_set(err, -EINVAL, "%s holds settings, not a value", e->path);
	return r;
}

int source_draft_make(struct source_draft *ret, const struct config_doc *d, const char *name,
	struct err_text *err)
{
	struct source_draft draft CLEANUP(source_draft_deinit) = {.spec = {.name = name,
									  .kind = "",
									  .match = "",
									  .service_name = "",
									  .enabled = true}};
	size_t from, to;
	int r = each_entry(d, "sources", name, &from, &to, err);

	if (r < 0)
		return r;
	draft.options = calloc(to - from + 1, sizeof(*draft.options));
	draft.labels = calloc(to - from + 1, sizeof(*draft.labels));
	if (!draft.options || !draft.labels)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = from; i < to; i++) {
		const struct config_entry *e = config_doc_at(d, i);
		struct config_path p;

		r = leaf(e, &p, err);
		if (r == 0)
			r = take_source_entry(&draft, &p, e, err);
		if (r < 0)
			return err_prefix(err, r, "source %s", name);
	}
	if (!*draft.spec.kind)
		return err_set(err, -EINVAL,
			"source %s has no kind: systemd, process, container, cgroup or host", name);
	draft.spec.options = draft.options;
	draft.spec.labels = draft.labels;
	*ret = draft;
	draft = (struct source_draft){};
	return 0;
}

void destination_draft_deinit(struct destination_draft *draft)
{
	free(draft->options);
	*draft = (struct destination_draft){};
}

int destination_draft_make(struct destination_draft *ret, const struct config_doc *d,
	const char *name, struct err_text *err)
{
	struct destination_draft draft CLEANUP(destination_draft_deinit) = {
		.type = "", .enabled = true};
	size_t from, to;
	int r = each_entry(d, "destinations", name, &from, &to, err);

	if (r < 0)
		return r;
	draft.options = calloc(to - from + 1, sizeof(*draft.options));
	if (!draft.options)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = from; i < to; i++) {
		const struct config_entry *e = config_doc_at(d, i);
		struct config_path p;

		r = leaf(e, &p, err);
		if (r < 0)
			return r;
		if (p.kind == PATH_DESTINATION_OPTION)
			draft.options[draft.n_options++] = (struct option_value){p.key, e->value};
		else if (streq(p.key, "type"))
			draft.type = e->value;
		else if (streq(p.key, "enabled"))
			r = take_flag(e, p.key, &draft.enabled, err);
		else
			r = take_order(e, &draft.order, err);
		if (r < 0)
			return r;
	}
	if (!*draft.type)
		return err_set(
			err, -EINVAL, "it has no type: 'odictl destination types' lists them");
	*ret = draft;
	draft = (struct destination_draft){};
	return 0;
}

/* ---- the whole ----------------------------------------------------------------------------------- */

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
		r = leaf(v->entry, &p, b->err);
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
