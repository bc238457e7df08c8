/* SPDX-License-Identifier: Apache-2.0 */

/* The options by which a destination is shaped, as people write them.
 *
 * Lists are one text, since their order means something: entries stand between semicolons, which names of
 * functions do not have. Parsed once in agentd, to be refused with a sentence, and again by the exporter,
 * which uses them. Runs in agentd and in the exporter. */

#include "agentd/base/buf.h"
#include "agentd/base/text.h"
#include "destinations/destination.h"
#include "destinations/shape_rules.h"

#define SEPARATORS ";"

static const char *const on_off[] = {"on", "off", NULL};

const struct option_desc destination_common_options[] = {
	{.name = "upload-interval",
		.type = OPTION_DURATION,
		.fallback = "0s",
		.max = 3600 * NSEC_PER_SEC,
		.help = "batches of so long become one upload; 0s: each goes out by itself"},
	{.name = "attributes",
		.type = OPTION_STRING,
		.fallback = "",
		.help = "changes of attributes, in order: \"add env=prod; drop container.*; rename "
			"host.name=node\""},
	{.name = "keep-sources",
		.type = OPTION_STRING,
		.fallback = "",
		.help = "only what these sources took: their names, separated by commas"},
	{.name = "exclude",
		.type = OPTION_STRING,
		.fallback = "",
		.help = "frames to leave out: globs of functions, or module:GLOB, separated by ; - "
			"their time stays in the caller"},
	{.name = "min-samples",
		.type = OPTION_UINT,
		.fallback = "0",
		.max = 1000000,
		.help = "stacks with fewer samples in an upload are left out"},
	{.name = "kernel",
		.type = OPTION_ENUM,
		.fallback = "on",
		.values = on_off,
		.help = "off: frames of the kernel are left out, their time stays in the caller"},
	{.name = "sample",
		.type = OPTION_UINT,
		.fallback = "1",
		.min = 1,
		.max = SHAPE_MAX_SAMPLE,
		.help = "1 of so many samples is sent, as if the rate were so many times lower"},
	{},
};

/* ---- parsing ------------------------------------------------------------------------------------- */

/* The next entry of a list without blanks around it, for the caller to free; NULL: no more, or no memory (*r). */
static char *next_entry(const char **at, const char *separators, int *r)
{
	for (;;) {
		const char *start, *end;
		char *entry;

		*at += strspn(*at, separators);
		if (!**at)
			return NULL;
		start = *at;
		end = *at += strcspn(*at, separators);
		start += strspn(start, " \t");
		while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
			end--;
		if (end <= start)
			continue;
		entry = strndup(start, (size_t)(end - start));
		if (!entry)
			*r = -ENOMEM;
		return entry;
	}
}

static int check_key(const char *key, const char *value, struct err_text *err)
{
	/* This one may be changed here: what it is called by a backend is the destination's matter. */
	if (streq(key, "service.name"))
		return value ? source_service_check(value, err) : 0;
	return source_label_check(key, value ? value : "x", err);
}

/* "add KEY=VALUE", "drop GLOB", "rename OLD=NEW". */
static int parse_attribute(
	const char *entry, struct shape_attribute_rule *rule, struct err_text *err)
{
	size_t word = strcspn(entry, " \t");
	const char *rest = entry + word + strspn(entry + word, " \t"), *equals = strchr(rest, '=');
	bool add = word == 3 && text_starts(entry, "add"),
	     rename = word == 6 && text_starts(entry, "rename"),
	     drop = word == 4 && text_starts(entry, "drop");
	int r;

	if ((!add && !drop && !rename) || !*rest ||
		(!drop && (!equals || equals == rest || !equals[1])))
		return err_set(err, -EINVAL,
			"attributes: \"%.80s\" is none of add KEY=VALUE, drop GLOB and rename OLD=NEW",
			entry);
	rule->action = add ? SHAPE_ADD : drop ? SHAPE_DROP : SHAPE_RENAME;
	rule->key = drop ? strdup(rest) : strndup(rest, (size_t)(equals - rest));
	rule->value = drop ? NULL : strdup(equals + 1);
	if (!rule->key || (!drop && !rule->value))
		return -ENOMEM;
	if (drop)
		return 0;
	r = add ? check_key(rule->key, rule->value, err) : check_key(rule->value, NULL, err);
	return r < 0 ? err_prefix(err, r, "attributes") : 0;
}

static int parse_attributes(struct shape_rules *s, const char *value, struct err_text *err)
{
	char *entry;
	int r = 0;

	s->attributes = calloc(SHAPE_MAX_RULES, sizeof(*s->attributes));
	if (!s->attributes)
		return -ENOMEM;
	while (r == 0 && (entry = next_entry(&value, SEPARATORS, &r))) {
		if (s->n_attributes == SHAPE_MAX_RULES)
			r = err_set(err, -EINVAL, "attributes: at most %d rules", SHAPE_MAX_RULES);
		else
			r = parse_attribute(entry, &s->attributes[s->n_attributes++], err);
		free(entry);
	}
	return r;
}

static int parse_sources(struct shape_rules *s, const char *value, struct err_text *err)
{
	char *entry;
	int r = 0;

	s->sources = calloc(SHAPE_MAX_RULES, sizeof(*s->sources));
	if (!s->sources)
		return -ENOMEM;
	while (r == 0 && (entry = next_entry(&value, SEPARATORS ", ", &r))) {
		if (!text_is_name(entry))
			r = err_set(err, -EINVAL,
				"keep-sources: \"%.80s\" cannot be the name of a source; odictl source "
				"list shows those that there are",
				entry);
		else if (s->n_sources == SHAPE_MAX_RULES)
			r = err_set(err, -EINVAL, "keep-sources: at most %d", SHAPE_MAX_RULES);
		if (r == 0)
			s->sources[s->n_sources++] = TAKE_PTR(entry);
		free(entry);
	}
	return r;
}

static int parse_exclude(struct shape_rules *s, const char *value, struct err_text *err)
{
	char *entry;
	int r = 0;

	s->exclude = calloc(SHAPE_MAX_RULES, sizeof(*s->exclude));
	if (!s->exclude)
		return -ENOMEM;
	while (r == 0 && (entry = next_entry(&value, SEPARATORS, &r))) {
		bool module = text_starts(entry, "module:");
		const char *glob = entry +
			(module                                           ? strlen("module:")
					: text_starts(entry, "function:") ? strlen("function:")
									  : 0);

		if (!*glob)
			r = err_set(err, -EINVAL, "exclude: \"%.80s\" has no pattern", entry);
		else if (s->n_exclude == SHAPE_MAX_RULES)
			r = err_set(err, -EINVAL, "exclude: at most %d patterns", SHAPE_MAX_RULES);
		if (r == 0) {
			s->exclude[s->n_exclude] = (struct shape_pattern){module, strdup(glob)};
			if (!s->exclude[s->n_exclude++].glob)
				r = -ENOMEM;
		}
		free(entry);
	}
	return r;
}

static int parse_one(
	struct shape_rules *s, const char *name, const char *value, struct err_text *err)
{
	const struct option_desc *d = option_find(destination_common_options, name);
	uint64_t number = 0;
	bool list;
	int r;

	if (!d)
		return 0;
	list = d->type == OPTION_STRING;
	/* "none" is how a destination says that a setting for all is not for it. */
	if (!value || !*value || (list && streq(value, "none")))
		return 0;
	r = option_check(d, value, err);
	if (r < 0)
		return r;
	if (streq(name, "attributes"))
		return parse_attributes(s, value, err);
	if (streq(name, "keep-sources"))
		return parse_sources(s, value, err);
	if (streq(name, "exclude"))
		return parse_exclude(s, value, err);
	if (streq(name, "upload-interval"))
		return text_duration(value, &s->upload_interval_ns);
	if (streq(name, "kernel"))
		return text_bool(value, &s->kernel);
	r = text_u64(value, 0, UINT64_MAX, &number);
	if (streq(name, "min-samples"))
		s->min_samples = number;
	else
		s->sample = (uint32_t)number;
	return r;
}

/* ---- life ---------------------------------------------------------------------------------------- */

/* Control characters cannot stand in a value: they keep the pieces apart. */
static int canonical(struct shape_rules *s)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 0);
	for (size_t i = 0; i < s->n_attributes; i++)
		buf_printf(&b, "a%d%s\001%s\001", s->attributes[i].action, s->attributes[i].key,
			s->attributes[i].value ? s->attributes[i].value : "");
	for (size_t i = 0; i < s->n_sources; i++)
		buf_printf(&b, "s%s\001", s->sources[i]);
	for (size_t i = 0; i < s->n_exclude; i++)
		buf_printf(&b, "e%d%s\001", s->exclude[i].module, s->exclude[i].glob);
	if (s->min_samples > 1)
		buf_printf(&b, "m%llu\001", (unsigned long long)s->min_samples);
	if (s->sample > 1)
		buf_printf(&b, "1/%u\001", s->sample);
	if (!s->kernel)
		buf_str(&b, "nokernel\001");
	if (s->timestamps)
		buf_str(&b, "times\001");
	s->text = buf_take_str(&b);
	return s->text ? 0 : -ENOMEM;
}

int shape_rules_new(struct shape_rules **ret, const struct option_value *options, size_t n,
	bool timestamps, struct err_text *err)
{
	CLEANUP(shape_rules_unrefp) struct shape_rules *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (s)
		*s = (struct shape_rules){
			.refs = 1, .kernel = true, .sample = 1, .timestamps = timestamps};
	for (size_t i = 0; r == 0 && i < n; i++)
		r = parse_one(s, options[i].name, options[i].value, err);
	if (r == 0)
		r = canonical(s);
	if (r == -ENOMEM)
		return err_set(err, r, "out of memory");
	if (r < 0)
		return r;
	*ret = *s->text || s->upload_interval_ns ? TAKE_PTR(s) : NULL;
	return 0;
}

int shape_rules_check(const char *name, const char *value, struct err_text *err)
{
	const struct option_value option = {name, value};
	CLEANUP(shape_rules_unrefp) struct shape_rules *s = NULL;

	return shape_rules_new(&s, &option, 1, false, err);
}

struct shape_rules *shape_rules_ref(struct shape_rules *r)
{
	if (r)
		r->refs++;
	return r;
}

struct shape_rules *shape_rules_unref(struct shape_rules *r)
{
	if (!r || --r->refs)
		return NULL;
	for (size_t i = 0; i < r->n_attributes; i++) {
		free(r->attributes[i].key);
		free(r->attributes[i].value);
	}
	for (size_t i = 0; i < r->n_sources; i++)
		free(r->sources[i]);
	for (size_t i = 0; i < r->n_exclude; i++)
		free(r->exclude[i].glob);
	free(r->attributes);
	free(r->sources);
	free(r->exclude);
	free(r->text);
	free(r);
	return NULL;
}

bool shape_rules_equal(const struct shape_rules *a, const struct shape_rules *b)
{
	return streq(a ? a->text : "", b ? b->text : "");
}
