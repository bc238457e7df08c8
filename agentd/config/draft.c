/* SPDX-License-Identifier: Apache-2.0 */

/* A source or destination as one document has it: its fields, options and labels, taken apart and not yet judged by
 * whose kind or type it is. Strings are the document's. Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/config/config_private.h"

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

int config_leaf(const struct config_entry *e, struct config_path *p, struct err_text *err)
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

		r = config_leaf(e, &p, err);
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

		r = config_leaf(e, &p, err);
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
