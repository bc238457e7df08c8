/* SPDX-License-Identifier: Apache-2.0 */

/* A set of sources: checked as it is built, then only asked.
 *
 * A reload builds a whole new set and swaps it in, so a set never changes while images hold
 * pointers into it; the figures people look at move over by name. Sources are kept in the order in
 * which claims are settled (rank, then age, then the order of adding), so the first that matches
 * wins and a look-up stops there. Everything that is said of a source comes from outside: every
 * string has a bound, every error says what was expected, and a source that fails leaves the set as
 * it was. Runs in agentd. */

#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "sources/kind.h"

#define SOURCES_MAX 1024 /* a look-up asks each in turn */
#define OPTIONS_MAX 64
#define LABELS_MAX  64

struct source_set {
	struct source **list;    /* as added */
	struct source **settled; /* by rank, order */
	size_t n, size;
	struct map *by_name;
};

static void values_free(struct option_value *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((char *)list[i].name);
		free((char *)list[i].value);
	}
	free(list);
}

static struct source *source_free(struct source *source)
{
	if (!source)
		return NULL;
	if (source->rule && source->kind && source->kind->deinit)
		source->kind->deinit(source);
	free(source->rule);
	values_free(source->options, source->n_options);
	values_free(source->labels, source->n_labels);
	free(source->name);
	free(source->match);
	free(source->service_name);
	free(source);
	return NULL;
}
DEFINE_FREEP(source_freep, struct source *, source_free)

int source_set_new(struct source_set **ret)
{
	struct source_set *set = calloc(1, sizeof(*set));
	int r;

	if (!set)
		return -ENOMEM;
	r = map_new(&set->by_name, 0);
	if (r < 0) {
		free(set);
		return r;
	}
	*ret = set;
	return 0;
}

struct source_set *source_set_free(struct source_set *set)
{
	if (!set)
		return NULL;
	map_free(set->by_name);
	for (size_t i = 0; i < set->n; i++)
		source_free(set->list[i]);
	free(set->list);
	free(set->settled);
	free(set);
	return NULL;
}

/* ---- checks ---- */

static int check_kind(const char *name, const struct source_kind **ret, struct err_text *err)
{
	/* What people call these, here and in other tools. */
	static const struct {
		const char *said, *meant;
	} others[] = {
		{"docker", "container"},
		{"podman", "container"},
		{"containerd", "container"},
		{"crio", "container"},
		{"pod", "container"},
		{"k8s", "container"},
		{"kubernetes", "container"},
		{"unit", "systemd"},
		{"service", "systemd"},
		{"slice", "systemd"},
		{"pid", "process"},
		{"exe", "process"},
		{"all", "host"},
		{"system", "host"},
	};
	const char *names[16], *near = NULL;
	char list[160] = "";
	size_t n = 0, len = 0;

	*ret = source_kind_find(name);
	if (*ret)
		return 0;
	for (; source_kinds[n] && n < ARRAY_SIZE(names); n++) {
		names[n] = source_kinds[n]->name;
		if (len < sizeof(list))
			len += snprintf(
				list + len, sizeof(list) - len, "%s%s", n ? ", " : "", names[n]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(others) && !near; i++)
		if (streq(others[i].said, name))
			near = others[i].meant;
	if (!near)
		near = text_nearest(name, names, n);
	if (near)
		return err_set(err, -EINVAL,
			"unknown source kind \"%.64s\": did you mean \"%s\"? kinds: %s", name, near,
			list);
	return err_set(err, -EINVAL, "unknown source kind \"%.64s\"; kinds: %s", name, list);
}

static int unknown_option(const struct source_kind *kind, const char *name, struct err_text *err)
{
	const char *names[48], *near;
	char list[300] = "";
	size_t n = 0, len = 0;

	for (const struct option_desc *d = kind->options; d && d->name && n < 32; d++)
		names[n++] = d->name;
	for (const struct option_desc *d = source_common_options; d->name && n < ARRAY_SIZE(names);
		d++)
		names[n++] = d->name;
	for (size_t i = 0; i < n && len < sizeof(list); i++)
		len += snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "", names[i]);
	near = text_nearest(name, names, n);
	if (near)
		return err_set(err, -EINVAL,
			"a %s source has no option \"%.64s\": did you mean \"%s\"?", kind->name,
			name, near);
	return err_set(err, -EINVAL, "a %s source has no option \"%.64s\"; options: %s", kind->name,
		name, list);
}

/* "cpu" or "cpu,..." into bits. */
static int parse_types(const char *value, uint32_t *ret, struct err_text *err)
{
	static const char *const names[SAMPLE_TYPE_COUNT] = {[SAMPLE_TYPE_CPU] = "cpu"};
	uint32_t types = 0;

	for (const char *p = value; *p;) {
		size_t n = strcspn(p, ","), i;

		for (i = 0; i < ARRAY_SIZE(names); i++)
			if (strlen(names[i]) == n && strncmp(names[i], p, n) == 0)
				break;
		if (i == ARRAY_SIZE(names))
			return err_set(err, -EINVAL, "unknown profile type \"%.*s\"; types: cpu",
				(int)MIN(n, 64), p);
		types |= 1U << i;
		p += n;
		p += *p == ',';
	}
	*ret = types;
	return 0;
}

static int take_common(struct source *source, const struct option_desc *desc, const char *value,
	struct err_text *err)
{
	int r = 0;

	if (streq(desc->name, "types"))
		r = parse_types(value, &source->types, err);
	else if (streq(desc->name, "per-process"))
		r = text_bool(value, &source->per_process);
	else if (streq(desc->name, "per-thread"))
		r = text_bool(value, &source->per_thread);
	else if (streq(desc->name, "per-cpu"))
		r = text_bool(value, &source->per_cpu);
	else /* these two have their own place in struct source_spec */
		r = err_set(err, -EINVAL, "\"%s\" is not set among a source's options", desc->name);
	return r;
}

static int copy_value(struct option_value *to, const char *name, const char *value)
{
	to->name = strdup(name);
	to->value = strdup(value);
	return to->name && to->value ? 0 : -ENOMEM; /* the caller's free takes what is there */
}

static int take_options(struct source *source, const struct source_spec *spec, struct err_text *err)
{
	if (spec->n_options > OPTIONS_MAX)
		return err_set(err, -E2BIG, "a source has at most %d options", OPTIONS_MAX);
	source->options = calloc(spec->n_options + 1, sizeof(*source->options));
	if (!source->options)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < spec->n_options; i++) {
		const char *name = or_empty(spec->options[i].name),
			   *value = or_empty(spec->options[i].value);
		const struct option_desc *own = option_find(source->kind->options, name);
		const struct option_desc *common = option_find(source_common_options, name);
		int r;

		if (!own && !common)
			return unknown_option(source->kind, name, err);
		for (size_t k = 0; k < i; k++)
			if (streq(source->options[k].name, name))
				return err_set(err, -EINVAL, "option \"%s\" is given twice", name);
		r = option_check(own ? own : common, value, err);
		if (r >= 0 && !own)
			r = take_common(source, common, value, err);
		if (r < 0)
			return r;
		source->n_options = i + 1;
		if (copy_value(&source->options[i], name, value) < 0)
			return err_set(err, -ENOMEM, "out of memory");
	}
	for (const struct option_desc *d = source->kind->options; d && d->name; d++)
		if (d->required && !source_option(source, d->name))
			return err_set(err, -EINVAL, "a %s source needs --%s: %s",
				source->kind->name, d->name, d->help);
	return 0;
}

static int take_labels(struct source *source, const struct source_spec *spec, struct err_text *err)
{
	if (spec->n_labels > LABELS_MAX)
		return err_set(err, -E2BIG, "a source has at most %d labels", LABELS_MAX);
	source->labels = calloc(spec->n_labels + 1, sizeof(*source->labels));
	if (!source->labels)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < spec->n_labels; i++) {
		const struct option_value *l = &spec->labels[i];
		int r = source_label_check(l->name, l->value, err);

		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++)
			if (streq(source->labels[k].name, l->name))
				return err_set(
					err, -EINVAL, "label \"%s\" is given twice", l->name);
		source->n_labels = i + 1;
		if (copy_value(&source->labels[i], l->name, l->value) < 0)
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static int take_match(struct source *source, const char *match, struct err_text *err)
{
	const struct source_kind *kind = source->kind;

	if (!*match && kind->match_required)
		return err_set(err, -EINVAL, "a %s source needs what to match (%s), as in: %s",
			kind->name, kind->match_help, kind->example);
	if (!text_is_clean(match, SOURCE_MATCH_MAX))
		return err_set(err, -EINVAL,
			"what to match holds control characters, invalid UTF-8 or more than %d bytes",
			SOURCE_MATCH_MAX);
	source->match = strdup(match);
	source->rule = calloc(1, MAX(kind->rule_size, 1));
	if (!source->match || !source->rule)
		return err_set(err, -ENOMEM, "out of memory");
	return kind->parse(source, err);
}

static int source_new(struct source **ret, const struct source_spec *spec, struct err_text *err)
{
	CLEANUP(source_freep) struct source *source = calloc(1, sizeof(*source));
	int r;

	if (!source)
		return err_set(err, -ENOMEM, "out of memory");
	r = check_kind(or_empty(spec->kind), &source->kind, err);
	if (r < 0)
		return r;
	if (*or_empty(spec->service_name)) {
		r = source_service_check(spec->service_name, err);
		if (r < 0)
			return r;
	}
	source->name = strdup(spec->name);
	source->service_name = strdup(or_empty(spec->service_name));
	if (!source->name || !source->service_name)
		return err_set(err, -ENOMEM, "out of memory");
	source->enabled = spec->enabled;
	source->order = spec->order;
	r = take_options(source, spec, err);
	if (r >= 0)
		r = take_labels(source, spec, err);
	if (r >= 0)
		r = take_match(source, or_empty(spec->match), err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(source);
	return 0;
}

/* ---- the set ---- */

static int grow(struct source_set *set)
{
	size_t size = set->size ? set->size * 2 : 16;
	struct source **list;

	if (set->n < set->size)
		return 0;
	list = realloc(set->list, size * sizeof(*list));
	if (!list)
		return -ENOMEM;
	set->list = list;
	list = realloc(set->settled, size * sizeof(*list));
	if (!list)
		return -ENOMEM;
	set->settled = list;
	set->size = size;
	return 0;
}

static bool goes_before(const struct source *a, const struct source *b)
{
	enum source_rank ra = a->kind->rank(a), rb = b->kind->rank(b);

	return ra != rb ? ra < rb : a->order < b->order;
}

int source_set_add(struct source_set *set, const struct source_spec *spec, struct err_text *err)
{
	CLEANUP(source_freep) struct source *source = NULL;
	size_t at = set->n;
	int r;

	if (!text_is_name(or_empty(spec->name)))
		return err_set(err, -EINVAL,
			"a source's name has 1 to 64 letters, digits or . _ - @ : and does not start with - or .");
	if (set->n >= SOURCES_MAX)
		return err_set(err, -E2BIG,
			"there are %d sources already: remove one, or use a glob", SOURCES_MAX);
	if (map_get_str(set->by_name, spec->name))
		return err_set(err, -EEXIST,
			"there is a source \"%s\" already: remove it, or choose another name",
			spec->name);
	r = source_new(&source, spec, err);
	if (r < 0)
		return err_prefix(err, r, "source %s", spec->name);
	if (grow(set) < 0 || map_put_str(set->by_name, source->name, source, NULL) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	for (; at > 0 && goes_before(source, set->settled[at - 1]); at--)
		set->settled[at] = set->settled[at - 1];
	set->settled[at] = source;
	set->list[set->n++] = TAKE_PTR(source);
	return 0;
}

size_t source_set_size(const struct source_set *set)
{
	return set->n;
}

struct source *source_set_at(struct source_set *set, size_t i)
{
	return i < set->n ? set->list[i] : NULL;
}

struct source *source_set_find(struct source_set *set, const char *name)
{
	return map_get_str(set->by_name, name);
}

void source_set_inherit(struct source_set *set, const struct source_set *old)
{
	for (size_t i = 0; i < set->n; i++) {
		const struct source *was = map_get_str(old->by_name, set->list[i]->name);

		if (!was)
			continue;
		set->list[i]->samples = was->samples;
		set->list[i]->last_sample_unix_ns = was->last_sample_unix_ns;
	}
}

struct source *source_set_match(struct source_set *set, struct process_table *table,
	const struct image *image, struct source **claims, size_t max, size_t *n_claims)
{
	struct source *winner = NULL;
	size_t n = 0;

	for (size_t i = 0; i < set->n; i++) {
		struct source *source = set->settled[i];

		if (!source->enabled || !source->kind->match(source, table, image))
			continue;
		if (!winner)
			winner = source;
		if (!claims)
			break;
		if (n < max)
			claims[n++] = source;
	}
	if (n_claims)
		*n_claims = claims ? n : winner != NULL;
	return winner;
}
