/* SPDX-License-Identifier: Apache-2.0 */

/* What a destination's rules make of resources, stacks and attributes.
 *
 * A frame that is left out takes nothing along: what it called hangs on what called it, and what was spent in itself
 * becomes its caller's own. A stack of which nothing is left becomes one frame that says so, since time without a
 * stack would be dropped by backends, and totals would not be true any more. Of functions that were inlined each is
 * left out for itself.
 *
 * A service's name survives a pattern that takes attributes away (not one that names it): without it a profile is
 * nobody's. Attributes that only we make (SOURCE_OWN_PREFIX) never go out, whatever the rules.
 *
 * All is remembered by index, so the cost is that of the dictionary. Runs in the exporter. */

#include "agentd/base/text.h"
#include "destinations/shape_filter.h"

#define UNKNOWN   UINT32_MAX
#define NOT_KEPT  (UINT32_MAX - 1) /* a resource of another source; a location that is left out */
#define NO_KERNEL (UINT32_MAX - 2) /* a location that is left out because it is the kernel's */

void shape_filter_init(struct shape_filter *f, struct batch *batch, const struct shape_rules *rules)
{
	*f = (struct shape_filter){.batch = batch, .rules = rules};
}

void shape_filter_deinit(struct shape_filter *f)
{
	free(f->resources.at);
	free(f->stacks.at);
	free(f->locations.at);
	free(f->attributes.at);
	free(f->scratch);
}

/* The place for index i; NULL: no memory. */
static uint32_t *place(struct shape_map *m, uint32_t i)
{
	if (i >= m->n) {
		size_t n = MAX(2 * m->n, (size_t)i + 64);
		uint32_t *at = reallocarray(m->at, n, sizeof(*at));

		if (!at)
			return NULL;
		memset(at + m->n, 0xff, (n - m->n) * sizeof(*at));
		m->at = at;
		m->n = n;
	}
	return &m->at[i];
}

/* ---- resources ----------------------------------------------------------------------------------- */

static bool is_kept(
	const struct shape_filter *f, const struct profile_resource_attribute *list, size_t n)
{
	const struct shape_rules *rules = f->rules;
	const char *source = NULL;

	if (!rules || !rules->n_sources)
		return true;
	for (size_t i = 0; i < n; i++)
		if (streq(batch_string_at(f->batch, list[i].key), SOURCE_OWN_PREFIX "source"))
			source = batch_string_at(f->batch, list[i].value);
	for (size_t i = 0; source && i < rules->n_sources; i++)
		if (streq(rules->sources[i], source))
			return true;
	return false;
}

static size_t find_key(const struct batch *b, const struct profile_resource_attribute *list,
	size_t n, const char *key)
{
	size_t i = 0;

	while (i < n && !streq(batch_string_at(b, list[i].key), key))
		i++;
	return i;
}

static bool is_dropped(const struct shape_attribute_rule *rule, const char *key)
{
	if (streq(key, "service.name"))
		return streq(rule->key, key);
	return text_glob(rule->key, key);
}

static int add(struct batch *b, const struct shape_attribute_rule *rule,
	struct profile_resource_attribute *list, size_t *n)
{
	int64_t key = batch_string(b, rule->key), value = batch_string(b, rule->value);
	size_t i;

	if (key < 0 || value < 0)
		return (int)MIN(key, value);
	i = find_key(b, list, *n, rule->key);
	*n += i == *n;
	list[i] =
		(struct profile_resource_attribute){.key = (uint32_t)key, .value = (uint32_t)value};
	return 0;
}

static int rename_key(struct batch *b, const struct shape_attribute_rule *rule,
	struct profile_resource_attribute *list, size_t *n)
{
	size_t i = find_key(b, list, *n, rule->key), taken;
	int64_t key;

	if (i == *n || streq(rule->key, rule->value))
		return 0;
	key = batch_string(b, rule->value);
	if (key < 0)
		return (int)key;
	taken = find_key(b, list, *n, rule->value);
	list[i].key = (uint32_t)key;
	/* The one that had the name gives way. */
	if (taken < *n)
		list[taken] = list[--*n];
	return 0;
}

static int apply(struct batch *b, const struct shape_attribute_rule *rule,
	struct profile_resource_attribute *list, size_t *n)
{
	size_t kept = 0;

	if (rule->action == SHAPE_ADD)
		return add(b, rule, list, n);
	if (rule->action == SHAPE_RENAME)
		return rename_key(b, rule, list, n);
	for (size_t i = 0; i < *n; i++)
		if (!is_dropped(rule, batch_string_at(b, list[i].key)))
			list[kept++] = list[i];
	*n = kept;
	return 0;
}

static int64_t make_resource(struct shape_filter *f, uint32_t resource)
{
	struct batch *b = f->batch;
	size_t n, kept = 0, n_rules = f->rules ? f->rules->n_attributes : 0;
	const struct profile_resource_attribute *from = batch_resource_at(b, resource, &n);
	_cleanup_free_ struct profile_resource_attribute *list = NULL;

	if (!is_kept(f, from, n))
		return SHAPE_NOT_KEPT;
	list = calloc(n + n_rules + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!text_starts(batch_string_at(b, from[i].key), SOURCE_OWN_PREFIX))
			list[kept++] = from[i];
	if (kept == n && !n_rules)
		return resource;
	for (size_t i = 0; i < n_rules; i++) {
		int r = apply(b, &f->rules->attributes[i], list, &kept);

		if (r < 0)
			return r;
	}
	return batch_resource(b, list, kept);
}

int64_t shape_filter_resource(struct shape_filter *f, uint32_t resource)
{
	uint32_t *known = place(&f->resources, resource);
	int64_t made;

	if (!known)
		return -ENOMEM;
	if (*known != UNKNOWN)
		return *known == NOT_KEPT ? SHAPE_NOT_KEPT : (int64_t)*known;
	made = make_resource(f, resource);
	if (made >= 0 || made == SHAPE_NOT_KEPT)
		*known = made < 0 ? NOT_KEPT : (uint32_t)made;
	return made;
}

/* ---- attributes of samples ----------------------------------------------------------------------- */

/* 0: it is dropped. */
static int64_t make_attribute(struct shape_filter *f, uint32_t attribute)
{
	struct profile_attribute a = *batch_attribute_at(f->batch, attribute);
	uint32_t key = a.key;

	for (size_t i = 0; i < f->rules->n_attributes; i++) {
		const struct shape_attribute_rule *rule = &f->rules->attributes[i];
		const char *name = batch_string_at(f->batch, a.key);
		int64_t renamed;

		if (rule->action == SHAPE_DROP && is_dropped(rule, name))
			return 0;
		if (rule->action != SHAPE_RENAME || !streq(rule->key, name))
			continue;
		renamed = batch_string(f->batch, rule->value);
		if (renamed < 0)
			return renamed;
		a.key = (uint32_t)renamed;
	}
	return a.key == key ? (int64_t)attribute : batch_attribute(f->batch, &a);
}

/* Into a sorted set without holes, as agentd/profile keeps them. */
static void insert(uint32_t set[4], uint32_t attribute)
{
	size_t at = 0, n = 0;

	while (n < 4 && set[n])
		n++;
	while (at < n && set[at] < attribute)
		at++;
	/* Two that became one are one. */
	if (n == 4 || (at < n && set[at] == attribute))
		return;
	memmove(set + at + 1, set + at, (n - at) * sizeof(*set));
	set[at] = attribute;
}

int shape_filter_attributes(struct shape_filter *f, const uint32_t in[4], uint32_t out[4])
{
	if (!f->rules || !f->rules->n_attributes) {
		memcpy(out, in, 4 * sizeof(*out));
		return 0;
	}
	memset(out, 0, 4 * sizeof(*out));
	for (size_t i = 0; i < 4 && in[i]; i++) {
		uint32_t *known = place(&f->attributes, in[i]);
		int64_t made;

		if (!known)
			return -ENOMEM;
		made = *known == UNKNOWN ? make_attribute(f, in[i]) : (int64_t)*known;
		if (made < 0)
			return (int)made;
		*known = (uint32_t)made;
		if (made)
			insert(out, (uint32_t)made);
	}
	return 0;
}

/* ---- stacks -------------------------------------------------------------------------------------- */

static bool module_matches(const char *glob, const char *file)
{
	const char *slash = strrchr(file, '/');

	return text_glob(glob, file) || (slash && text_glob(glob, slash + 1));
}

static bool excludes_module(const struct shape_filter *f, const struct profile_location *l)
{
	const char *file =
		batch_string_at(f->batch, batch_mapping_at(f->batch, l->mapping)->filename);

	for (size_t i = 0; *file && i < f->rules->n_exclude; i++)
		if (f->rules->exclude[i].module && module_matches(f->rules->exclude[i].glob, file))
			return true;
	return false;
}

static bool excludes_function(const struct shape_filter *f, uint32_t function)
{
	const struct profile_function *x = batch_function_at(f->batch, function);
	const char *name = batch_string_at(f->batch, x->name),
		   *system_name = batch_string_at(f->batch, x->system_name);

	for (size_t i = 0; i < f->rules->n_exclude; i++) {
		const struct shape_pattern *p = &f->rules->exclude[i];

		if (!p->module &&
			(text_glob(p->glob, name) ||
				(*system_name && text_glob(p->glob, system_name))))
			return true;
	}
	return false;
}

/* What the location becomes: an index, NOT_KEPT or NO_KERNEL. */
static int64_t make_location(struct shape_filter *f, uint32_t location)
{
	struct profile_location l = *batch_location_at(f->batch, location);
	_cleanup_free_ struct profile_line *lines = NULL;
	const struct profile_line *from;
	uint32_t kept = 0;

	if (!f->rules->kernel && l.frame_type == PROFILE_FRAME_KERNEL)
		return NO_KERNEL;
	if (!f->rules->n_exclude)
		return location;
	if (excludes_module(f, &l))
		return NOT_KEPT;
	if (!l.n_lines)
		return location;
	lines = calloc(l.n_lines, sizeof(*lines));
	if (!lines)
		return -ENOMEM;
	from = batch_lines(f->batch, &l);
	for (uint32_t i = 0; i < l.n_lines; i++)
		if (!excludes_function(f, from[i].function))
			lines[kept++] = from[i];
	if (kept == l.n_lines)
		return location;
	l.n_lines = kept;
	return kept ? batch_location(f->batch, &l, lines) : NOT_KEPT;
}

static int64_t filter_location(struct shape_filter *f, uint32_t location)
{
	uint32_t *known = place(&f->locations, location);
	int64_t made;

	if (!known)
		return -ENOMEM;
	if (*known != UNKNOWN)
		return *known;
	made = make_location(f, location);
	if (made >= 0)
		*known = (uint32_t)made;
	return made;
}

/* A stack of one frame that says what was there. */
static int64_t make_placeholder(struct batch *b, bool kernel)
{
	struct profile_function function = {0};
	struct profile_location location = {
		.frame_type = kernel ? PROFILE_FRAME_KERNEL : PROFILE_FRAME_UNKNOWN, .n_lines = 1};
	struct profile_line line = {0};
	int64_t at = batch_string(b, kernel ? "[kernel]" : "[excluded]");
	uint32_t one;

	function.name = (uint32_t)at;
	at = at < 0 ? at : batch_function(b, &function);
	line.function = (uint32_t)at;
	at = at < 0 ? at : batch_location(b, &location, &line);
	one = (uint32_t)at;
	return at < 0 ? at : batch_stack(b, &one, 1);
}

static int64_t make_stack(struct shape_filter *f, uint32_t stack)
{
	size_t n, kept = 0;
	const uint32_t *from = batch_stack_at(f->batch, stack, &n);
	bool changed = false, only_kernel = true;

	if (n > f->room) {
		uint32_t *grown = reallocarray(f->scratch, n, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		f->scratch = grown;
		f->room = n;
	}
	for (size_t i = 0; i < n; i++) {
		int64_t made = filter_location(f, from[i]);

		if (made < 0)
			return made;
		changed |= made != from[i];
		only_kernel &= made == NO_KERNEL;
		if (made != NOT_KEPT && made != NO_KERNEL)
			f->scratch[kept++] = (uint32_t)made;
	}
	if (!changed)
		return stack;
	return kept ? batch_stack(f->batch, f->scratch, kept)
		    : make_placeholder(f->batch, only_kernel);
}

int64_t shape_filter_stack(struct shape_filter *f, uint32_t stack)
{
	uint32_t *known;
	int64_t made;

	if (!f->rules || (f->rules->kernel && !f->rules->n_exclude))
		return stack;
	known = place(&f->stacks, stack);
	if (!known)
		return -ENOMEM;
	if (*known != UNKNOWN)
		return *known;
	made = make_stack(f, stack);
	/* Growing may have moved the map only within place(): known is still good. */
	if (made >= 0)
		*known = (uint32_t)made;
	return made;
}
