/* SPDX-License-Identifier: Apache-2.0 */

/* The layers `packaged` and `files`: read, compared with what is in force, and taken over by the same transaction as
 * any change.
 *
 * All files together are one state: while one of them is wrong none is taken over, and what they said when they were last
 * whole stays in force, over restarts, since it is in the store as a revision. So an administrator's typo costs nothing
 * but the sentence that names it, and a set of files that belong together never acts by halves. Runs in agentd. */

#include <inttypes.h>
#include <limits.h>

#include "agentd/base/text.h"
#include "agentd/config/manager.h"

static const enum config_layer file_layers[] = {LAYER_PACKAGED, LAYER_FILES};

int config_plan_files(struct config_manager *m, struct plan *plan, struct config_wrongs *wrongs)
{
	struct err_text err = {};
	int r;

	m->n_files = 0;
	for (size_t i = 0; i < ARRAY_SIZE(file_layers); i++) {
		size_t n = 0;

		r = config_read_files(
			&m->places, file_layers[i], &plan->changed[file_layers[i]].doc, &n, wrongs);
		if (r < 0)
			return r;
		m->n_files += n;
	}
	if (wrongs->n)
		return -EINVAL;
	r = plan_documents(m, plan, &err);
	if (r < 0 && r != -ENOMEM)
		config_wrong_add(wrongs, err.text);
	return r == -ENOMEM || r == 0 ? r : -EINVAL;
}

/* What is to be said where there is room for one sentence. */
static void remember(struct config_manager *m, const struct config_wrongs *w)
{
	size_t more = w->n + w->more - 1;
	char tail[64] = "";

	if (more)
		snprintf(tail, sizeof(tail), " (and %zu more: odictl config validate)", more);
	err_set(&m->wrong, 0, "%.*s%s", (int)(sizeof(m->wrong.text) - sizeof(tail)),
		w->list[0].text, tail);
}

int config_take_files(struct config_manager *m, uint64_t *revision, struct err_text *err)
{
	struct config_request q = {.layer = LAYER_FILES,
		.origin = "file",
		.reason = m->current ? "files were read" : "files were read at start"};
	struct plan plan CLEANUP(plan_deinit) = {};
	struct config_wrongs wrongs = {};
	int r = config_plan_files(m, &plan, &wrongs);

	if (r == -ENOMEM)
		return err_set(err, r, "out of memory");
	if (r < 0) {
		remember(m, &wrongs);
		return err_set(err, r, "%s", m->wrong.text);
	}
	if (m->current && !plan_differs(&plan)) {
		/* The same settings, maybe on other lines: no revision, but origins have to be right. */
		config_put_documents(m, &plan);
		m->wrong.text[0] = '\0';
		return CONFIG_UNCHANGED;
	}
	r = config_carry_out(m, &plan, &q, revision, err);
	m->wrong.text[0] = '\0';
	if (r < 0)
		err_set(&m->wrong, r, "%s", err->text);
	return r;
}

int config_reload_files(struct config_manager *m, uint64_t *revision, struct err_text *err)
{
	uint64_t head = store_head(m->store);
	struct err_text own = {};
	int r;

	if (m->busy)
		return err_set(err, -EBUSY, "another change is being applied: try again");
	m->busy = true;
	r = config_take_files(m, &head, err ? err : &own);
	m->busy = false;
	if (r >= 0 && revision)
		*revision = head;
	return r;
}

const char *config_files_wrong(const struct config_manager *m)
{
	return m->wrong.text[0] ? m->wrong.text : NULL;
}

/* ---- what has no effect ---------------------------------------------------------------------------- */

struct hidden {
	const struct config_doc *const *docs;
	void (*visit)(
		void *userdata, const char *path, const char *file_origin, const char *by_origin);
	void *userdata;
};

static void hidden_one(const struct hidden *h, const struct config_entry *e, const char *object)
{
	char file[CONFIG_PATH_MAX], by[64];

	for (size_t layer = LAYERS; layer-- > LAYER_LOCAL;) {
		if (!h->docs[layer] || !config_doc_has(h->docs[layer], object))
			continue;
		snprintf(file, sizeof(file), "%.480s:%" PRIu32, e->file ? e->file : "a file",
			e->line);
		snprintf(by, sizeof(by), "%s",
			layer == LAYER_LOCAL ? "odictl"
					     : config_layer_name((enum config_layer)layer));
		h->visit(h->userdata, object, file, by);
		return;
	}
}

static void each_hidden(const struct hidden *h)
{
	const struct config_doc *d = h->docs[LAYER_FILES];
	char object[CONFIG_PATH_MAX + 1], last[CONFIG_PATH_MAX + 1] = "";

	for (size_t i = 0; d && i < config_doc_size(d); i++) {
		const struct config_entry *e = config_doc_at(d, i);
		size_t len = config_object_len(e->path);

		snprintf(object, sizeof(object), "%.*s", len ? (int)len : CONFIG_PATH_MAX, e->path);
		if (streq(object, last))
			continue;
		memcpy(last, object, sizeof(last));
		hidden_one(h, config_doc_first(d, object), object);
	}
}

void config_each_hidden(const struct config_manager *m,
	void (*visit)(
		void *userdata, const char *path, const char *file_origin, const char *by_origin),
	void *userdata)
{
	const struct config_doc *const *docs = (const struct config_doc *const *)m->docs;

	each_hidden(&(struct hidden){docs, visit, userdata});
}

/* ---- judging without taking ------------------------------------------------------------------------ */

struct check {
	void (*visit)(void *userdata, bool warning, const char *text);
	void *userdata;
};

static void warn_hidden(
	void *userdata, const char *path, const char *file_origin, const char *by_origin)
{
	const struct check *c = userdata;
	char text[CONFIG_PATH_MAX * 2 + 200];

	snprintf(text, sizeof(text),
		"%s: %s has no effect: %s set it before this file did; 'odictl config unset %s' "
		"gives that up",
		file_origin, path, by_origin, path);
	c->visit(c->userdata, true, text);
}

size_t config_check_files(struct config_manager *m,
	void (*visit)(void *userdata, bool warning, const char *text), void *userdata)
{
	struct plan plan CLEANUP(plan_deinit) = {};
	struct config_wrongs wrongs = {};
	struct check c = {visit, userdata};
	size_t before = m->n_files, n;
	char more[80];
	int r = config_plan_files(m, &plan, &wrongs);

	n = m->n_files;
	m->n_files = before;
	for (size_t i = 0; i < wrongs.n; i++)
		visit(userdata, false, wrongs.list[i].text);
	if (wrongs.more) {
		snprintf(more, sizeof(more), "and %zu more: correct these, then ask again",
			wrongs.more);
		visit(userdata, false, more);
	} else if (r == -ENOMEM) {
		visit(userdata, false, "out of memory");
	}
	if (r == 0)
		each_hidden(&(struct hidden){plan.docs, warn_hidden, &c});
	return n;
}

/* As its place among the files says. */
static enum config_shape shape_of(const char *file_name)
{
	if (strstr(file_name, "/sources.d/") || text_starts(file_name, "sources.d/"))
		return CONFIG_SHAPE_SOURCES;
	if (strstr(file_name, "/destinations.d/") || text_starts(file_name, "destinations.d/"))
		return CONFIG_SHAPE_DESTINATIONS;
	return CONFIG_SHAPE_SETTINGS;
}

/* The layer `files` without what this file says now. */
static int files_without(const struct config_doc *d, const char *file, struct config_doc **ret)
{
	CLEANUP(config_doc_freep) struct config_doc *rest = NULL;
	int r = config_doc_new(&rest);

	for (size_t i = 0; r == 0 && i < config_doc_size(d); i++) {
		const struct config_entry *e = config_doc_at(d, i);

		if (!e->file || !streq(e->file, file))
			r = config_doc_set_at(rest, e->path, e->value, e->file, e->line);
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(rest);
	return 0;
}

void config_check_document(struct config_manager *m, const char *file_name, const char *text,
	size_t len, void (*visit)(void *userdata, bool warning, const char *text), void *userdata)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL;
	struct plan plan CLEANUP(plan_deinit) = {};
	struct config_doc **files = &plan.changed[LAYER_FILES].doc;
	struct check c = {visit, userdata};
	struct err_text err = {};
	int r = config_doc_from_yaml_as(shape_of(file_name), file_name, text, len, 0, &doc, &err);

	if (r == 0)
		r = files_without(m->docs[LAYER_FILES], file_name, files);
	if (r == 0)
		r = config_add_file(*files, doc, &err);
	if (r == 0)
		r = plan_documents(m, &plan, &err);
	if (r < 0)
		visit(userdata, false, err.text[0] ? err.text : "out of memory");
	else
		each_hidden(&(struct hidden){plan.docs, warn_hidden, &c});
}

/* ---- where they are -------------------------------------------------------------------------------- */

void config_each_folder(const struct config_manager *m,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata)
{
	static const char *const below[] = {"", "/conf.d", "/sources.d", "/destinations.d"};
	char path[PATH_MAX];

	for (size_t i = 0; m->dir && i < ARRAY_SIZE(below); i++) {
		snprintf(path, sizeof(path), "%s%s", m->dir, below[i]);
		config_path_way(path, visit, userdata);
		visit(userdata, path, NULL);
		config_each_link(path, visit, userdata);
	}
	if (m->packaged) {
		config_path_way(m->packaged, visit, userdata);
		visit(userdata, m->packaged, NULL);
		config_each_link(m->packaged, visit, userdata);
	}
	if (m->file)
		config_path_way(m->file, visit, userdata);
}
