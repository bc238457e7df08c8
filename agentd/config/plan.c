/* SPDX-License-Identifier: Apache-2.0 */

/* Planning a change: what would be, without touching what is.
 *
 * A request is applied to a copy of one layer; whether it may (managed by a file, there already, not
 * there) is judged change by change, whether the outcome makes sense by building the whole from all
 * layers. A plan that is dropped leaves nothing behind. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "agentd/config/manager.h"
#include "agentd/config/policy.h"

void plan_deinit(struct plan *p)
{
	for (size_t i = 0; i < LAYERS; i++) {
		config_doc_free(p->changed[i].doc);
		buf_deinit(&p->changed[i].diff);
	}
	merged_deinit(&p->merged);
	config_free(p->next);
}

/* "source 'web'" or the path itself. */
static const char *what_is(const char *path, const struct config_path *p, char *out, size_t size)
{
	if (p->kind == PATH_SOURCE || p->kind == PATH_DESTINATION)
		snprintf(out, size, "%s '%s'", p->kind == PATH_SOURCE ? "source" : "destination",
			p->name);
	else
		snprintf(out, size, "setting '%.128s'", path);
	return out;
}

/* The name nearest to one that is not there, among the objects of its group. */
static int not_found(const struct config_manager *m, const char *path, const struct config_path *p,
	struct err_text *err)
{
	const char *names[CONFIG_MAX_SOURCES], *near;
	_cleanup_free_ char *store = NULL;
	char what[200];
	size_t n = 0;

	what_is(path, p, what, sizeof(what));
	store = calloc(CONFIG_MAX_SOURCES, sizeof(p->name));
	for (size_t i = 0; store && p->name[0] && i < m->merged.n; i++) {
		const char *other = m->merged.values[i].entry->path;
		struct config_path o;

		if (config_path_parse(other, &o, NULL) < 0 || !o.name[0] || other[0] != path[0] ||
			(n && streq(names[n - 1], o.name)) || n == CONFIG_MAX_SOURCES)
			continue;
		names[n] = strcpy(store + n * sizeof(p->name), o.name);
		n++;
	}
	near = p->name[0] ? text_nearest(p->name, names, n) : NULL;
	if (near && !streq(near, p->name))
		return err_set(err, -ENOENT, "there is no %s: did you mean '%s'?", what, near);
	return err_set(err, -ENOENT, "there is no %s%s", what,
		p->kind == PATH_SOURCE ? ": 'odictl source list' shows those there are"
			: p->kind == PATH_DESTINATION
			? ": 'odictl destination list' shows those there are"
			: "");
}

/* "sources/web" of "sources/web/enabled"; a setting is its own. */
static void object_of(const char *path, char out[CONFIG_PATH_MAX + 1])
{
	size_t len = config_object_len(path);

	snprintf(out, CONFIG_PATH_MAX + 1, "%.*s", (int)(len ? len : CONFIG_PATH_MAX), path);
}

/* What the file says, only the file may change; what a stronger layer says cannot be changed with
 * any effect. */
int plan_check_managed(const struct config_manager *m, const struct plan *plan,
	const struct config_change *change, struct err_text *err)
{
	const struct config_entry *e;
	char object[CONFIG_PATH_MAX + 1];

	/* Set before the other layer had it: giving that up is allowed. */
	if (!change->set && config_doc_has(plan->doc, change->path))
		return 0;
	object_of(change->path, object);
	e = config_doc_first(m->docs[LAYER_FILES], object);
	if (e && e->file)
		return err_set(err, -EACCES, "%s is set by %s:%" PRIu32 "; change it there", object,
			e->file, e->line);
	if (e)
		return err_set(err, -EACCES,
			"%s is set by a file, which cannot be read now: see 'odictl config validate'",
			object);
	for (size_t i = (size_t)plan->layer + 1; i < LAYERS; i++)
		if (config_doc_has(m->docs[i], object))
			return err_set(err, -EACCES,
				"%s is set by the layer %s, which is stronger; change it there",
				object, config_layer_name((enum config_layer)i));
	return 0;
}

/* must_exist and must_not_exist speak of the object, whichever of its fields carries them. */
static int check_presence(const struct config_manager *m, const struct plan *plan,
	const struct config_change *change, const struct config_path *p, struct err_text *err)
{
	bool named = p->kind == PATH_SOURCE_FIELD || p->kind == PATH_DESTINATION_FIELD;
	char object[CONFIG_PATH_MAX + 1], what[200];
	struct config_path of = *p;
	bool there;

	if (change->must_exist || named)
		object_of(change->path, object);
	else
		snprintf(object, sizeof(object), "%s", change->path);
	config_path_parse(object, &of, NULL);
	there = merged_has(&m->merged, object) || config_doc_has(plan->doc, object);
	if (change->must_exist && !there)
		return not_found(m, object, &of, err);
	if (change->must_not_exist && there)
		return err_set(err, -EEXIST, "there is a %s already",
			what_is(object, &of, what, sizeof(what)));
	return 0;
}

/* An object belongs wholly to one layer: changing a part of a weaker one's takes all of it over. */
static int adopt(const struct config_manager *m, struct plan *plan, const char *path)
{
	char object[CONFIG_PATH_MAX + 1];
	int r = 0;

	object_of(path, object);
	if (!config_object_len(path) || config_doc_has(plan->doc, object))
		return 0;
	for (size_t i = 0; r == 0 && i < m->merged.n; i++) {
		const struct config_entry *e = m->merged.values[i].entry;

		if (config_path_within(e->path, object))
			r = config_doc_set(plan->doc, e->path, e->value, 0);
	}
	return r;
}

static int set_value(const struct config_manager *m, struct plan *plan,
	const struct config_change *change, struct err_text *err)
{
	int r = adopt(m, plan, change->path);

	if (r == 0)
		r = config_doc_set(plan->doc, change->path, change->set, 0);
	if (r == -EINVAL)
		return err_set(err, r,
			"'%.128s': the value holds control characters, invalid UTF-8 or more than %d "
			"bytes",
			change->path, CONFIG_VALUE_MAX);
	if (r == -E2BIG)
		return err_set(err, r, "the configuration has more than %d settings or %u MB",
			CONFIG_MAX_ENTRIES, CONFIG_MAX_BYTES >> 20);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

/* What a weaker layer has would come forth under its old name, beside the new one. */
static int check_ours(const struct config_manager *m, const struct plan *plan, const char *object,
	struct err_text *err)
{
	for (size_t i = 0; i < (size_t)plan->layer; i++) {
		const struct config_entry *e = config_doc_first(m->docs[i], object);

		if (e)
			return err_set(err, -EACCES,
				"%s is of the layer %s (%s) and keeps its name: disable it, and "
				"add one of the other name",
				object, config_layer_name((enum config_layer)i),
				e->file ? e->file : "as last read");
	}
	return 0;
}

/* Another name for a source or destination, which stays what it is and as old as it is. */
static int move_object(const struct config_manager *m, struct plan *plan,
	const struct config_change *change, const struct config_path *to, struct err_text *err)
{
	struct config_change gone = {.path = change->move};
	const struct config_entry *e;
	struct config_path from;
	char path[CONFIG_PATH_MAX + 1], what[200];
	size_t len = strlen(change->move);
	int r = config_path_parse(change->move, &from, err);

	if (r < 0)
		return r;
	if (from.kind != to->kind || (to->kind != PATH_SOURCE && to->kind != PATH_DESTINATION))
		return err_set(err, -EINVAL, "only a source or a destination gets another name");
	if (!merged_has(&m->merged, change->move))
		return not_found(m, change->move, &from, err);
	if (merged_has(&m->merged, change->path) || config_doc_has(plan->doc, change->path))
		return err_set(err, -EEXIST, "there is a %s already",
			what_is(change->path, to, what, sizeof(what)));
	r = plan_check_managed(m, plan, &(struct config_change){.path = gone.path, .set = ""}, err);
	if (r == 0)
		r = check_ours(m, plan, gone.path, err);
	if (r == 0)
		r = adopt(m, plan, gone.path);
	while (r == 0 && (e = config_doc_first(plan->doc, gone.path))) {
		char old[CONFIG_PATH_MAX + 1];
		_cleanup_free_ char *value = strdup(e->value);

		/* Setting one moves the others, what e points to among them. */
		snprintf(old, sizeof(old), "%s", e->path);
		if (snprintf(path, sizeof(path), "%s%s", change->path, old + len) >=
			(int)sizeof(path))
			return err_set(err, -EINVAL, "the name is too long");
		r = value ? config_doc_set(plan->doc, path, value, 0) : -ENOMEM;
		if (r == 0 && !config_doc_remove(plan->doc, old))
			return err_set(err, -EIO, "%s cannot be taken out", old);
	}
	return r < 0 && !err->text[0] ? err_set(err, r, "out of memory") : r;
}

static int apply_one(const struct config_manager *m, struct plan *plan,
	const struct config_change *change, struct err_text *err)
{
	struct config_path p;
	int r;

	if (!change->path || strlen(change->path) >= CONFIG_PATH_MAX)
		return err_set(err, -EINVAL, "the name of a setting has at most %d bytes",
			CONFIG_PATH_MAX - 1);
	r = config_path_parse(change->path, &p, err);
	if (r == 0)
		r = plan_check_managed(m, plan, change, err);
	if (r == 0)
		r = check_presence(m, plan, change, &p, err);
	if (r < 0)
		return r;
	if (change->move)
		return move_object(m, plan, change, &p, err);
	if (change->set && config_path_is_leaf(p.kind))
		return set_value(m, plan, change, err);
	/* The object itself with an empty value is a question only: is it there? */
	if (change->set && !*change->set && (change->must_exist || change->must_not_exist))
		return 0;
	if (change->set)
		return err_set(
			err, -EINVAL, "'%.128s' holds settings and is no setting", change->path);
	/* Nothing of this layer's own to remove: a default, maybe. */
	if (config_doc_remove(plan->doc, change->path) == 0)
		return not_found(m, change->path, &p, err);
	return 0;
}

/* New sources and destinations get their age. */
static int fill_order(struct config_doc *doc)
{
	uint64_t now = clock_unix_ns();

	for (size_t i = 0; i < config_doc_size(doc); i++) {
		const char *path = config_doc_at(doc, i)->path;
		char order[CONFIG_PATH_MAX + 8], text[24];
		size_t len = config_object_len(path);

		if (!len || (i && strncmp(config_doc_at(doc, i - 1)->path, path, len + 1) == 0))
			continue;
		snprintf(order, sizeof(order), "%.*s/order", (int)len, path);
		if (config_doc_get(doc, order))
			continue;
		snprintf(text, sizeof(text), "%" PRIu64, now++);
		if (config_doc_set(doc, order, text, 0) < 0)
			return -ENOMEM;
	}
	return 0;
}

bool plan_differs(const struct plan *plan)
{
	for (size_t i = 0; i < LAYERS; i++)
		if (plan->changed[i].n_differences)
			return true;
	return false;
}

int plan_documents(const struct config_manager *m, struct plan *plan, struct err_text *err)
{
	int r;

	for (size_t i = 0; i < LAYERS; i++)
		plan->docs[i] = plan->changed[i].doc ? plan->changed[i].doc : m->docs[i];
	r = config_merge(plan->docs, &plan->merged);
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = config_build(plan->docs, &plan->merged, store_head(m->store) + 1, &plan->next, err);
	if (r == 0)
		r = policy_check_changed(m->current, plan->next, &plan->merged, err);
	for (size_t i = 0; i < LAYERS && r == 0; i++) {
		struct plan_layer *l = &plan->changed[i];

		if (!l->doc)
			continue;
		buf_init(&l->diff, 2 * CONFIG_MAX_BYTES);
		l->n_differences = config_diff(m->docs[i], l->doc, &l->diff);
		if (buf_error(&l->diff))
			r = err_set(err, -ENOMEM, "out of memory");
	}
	return r;
}

int plan_request(const struct config_manager *m, struct plan *plan, const struct config_request *q,
	struct err_text *err)
{
	int r;

	plan->layer = q->layer;
	r = config_doc_copy(m->docs[q->layer], &plan->changed[q->layer].doc);
	if (r < 0)
		return err_set(err, r, "out of memory");
	plan->doc = plan->changed[q->layer].doc;
	if (q->rollback)
		r = plan_rollback(m, plan, q->rollback, err);
	if (r == 0 && q->yaml)
		r = plan_yaml(m, plan, q, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < q->n_changes; i++) {
		r = apply_one(m, plan, &q->changes[i], err);
		if (r < 0)
			return r;
	}
	r = fill_order(plan->doc);
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = policy_check_files((const struct config_doc *const *)m->docs, plan->doc, q, err);
	return r < 0 ? r : plan_documents(m, plan, err);
}
