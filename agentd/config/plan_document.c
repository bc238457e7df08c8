/* SPDX-License-Identifier: Apache-2.0 */

/* Whole documents as changes: back to a former revision, or what a YAML file says.
 *
 * Both end as a document of the layer, and what differs from the one in force is judged as if it had been asked for value by
 * value: what a file manages stays the file's. A file's sources and destinations replace those of the same name
 * wholly, so that what its author left out is left out. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/clock.h"
#include "agentd/config/manager.h"

static const char secret_shown[] = "(secret)";

/* ---- back ------------------------------------------------------------------------------------------ */

int plan_rollback(
	const struct config_manager *m, struct plan *plan, uint64_t revision, struct err_text *err)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL;
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	int r = store_layer_at(
		m->store, config_layer_name(plan->layer), revision, &text, &len, err);

	if (r == 0)
		r = config_doc_decode(text ? text : "", len, &doc, err);
	for (size_t i = 0; r == 0 && i < config_doc_size(doc); i++) {
		const struct config_entry *e = config_doc_at(doc, i);
		const struct config_entry *now = config_doc_get(plan->doc, e->path);
		struct config_change change = {.path = e->path, .set = e->value};

		if (!now || !streq(now->value, e->value))
			r = plan_check_managed(m, plan, &change, err);
	}
	if (r < 0)
		return err_prefix(err, r, "back to revision %" PRIu64, revision);
	config_doc_free(plan->changed[plan->layer].doc);
	plan->doc = plan->changed[plan->layer].doc = TAKE_PTR(doc);
	return 0;
}

/* ---- a file ---------------------------------------------------------------------------------------- */

/* When an object was made: as before, if it was there. */
static int set_order(struct plan *plan, const char *path, const char *index,
	const struct config_doc *before, uint64_t now)
{
	const struct config_entry *old = config_doc_get(before, path);
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, now + (uint64_t)strtoul(index, NULL, 10));
	return config_doc_set(plan->doc, path, old ? old->value : text, 0);
}

static int set_entry(const struct config_manager *m, struct plan *plan,
	const struct config_entry *e, const struct config_doc *before, uint64_t now,
	struct err_text *err)
{
	const struct merged_value *there = merged_find(&m->merged, e->path);
	size_t len = config_object_len(e->path);
	const char *value = e->value;
	int r;

	if (len && streq(e->path + len, "/order")) {
		r = set_order(plan, e->path, e->value, before, now);
	} else {
		if (streq(value, secret_shown) && !there)
			return err_set(err, -EINVAL,
				"%s stands for a secret that was left out, and there is none here "
				"to keep: put it in",
				secret_shown);
		value = streq(value, secret_shown) ? there->entry->value : value;
		r = config_doc_set(plan->doc, e->path, value, 0);
	}
	return r < 0 ? err_set(err, r, "too many settings, or out of memory") : 0;
}

int plan_yaml(const struct config_manager *m, struct plan *plan, const struct config_request *q,
	struct err_text *err)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL, *before = NULL;
	char object[CONFIG_PATH_MAX + 1], last[CONFIG_PATH_MAX + 1] = "";
	uint64_t now = clock_unix_ns();
	int r = config_doc_from_yaml(q->yaml_name, q->yaml, q->yaml_len, &doc, err);

	if (r < 0)
		return r;
	r = config_doc_copy(plan->doc, &before);
	if (r < 0)
		return err_set(err, r, "out of memory");
	for (size_t i = 0; i < config_doc_size(doc); i++) {
		const struct config_entry *e = config_doc_at(doc, i);
		struct config_change change = {.path = e->path, .set = e->value};
		size_t len = config_object_len(e->path);

		snprintf(object, sizeof(object), "%.*s", (int)len, e->path);
		r = plan_check_managed(m, plan, &change, err);
		if (r == 0 && len && !streq(object, last))
			config_doc_remove(plan->doc, object);
		memcpy(last, object, sizeof(last));
		if (r == 0)
			r = set_entry(m, plan, e, before, now, err);
		if (r < 0)
			return err_prefix(err, r, "%s:%" PRIu32, q->yaml_name, e->line);
	}
	return 0;
}
