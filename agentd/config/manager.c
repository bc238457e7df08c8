/* SPDX-License-Identifier: Apache-2.0 */

/* The one transaction by which configuration changes.
 *
 * Whatever asks (odictl, the file, later a control plane), the way is the same: a copy of one
 * layer's document is changed, the whole is built and checked (plan), everything that can fail is
 * done beside the running state (prepare), the document becomes a revision on disk (commit), and
 * only then what is running is exchanged (swap), which cannot fail. Before the commit any failure
 * changes nothing; after it a crash comes back with the new configuration.
 *
 * Invariants: docs[] are the newest documents of all layers and current was built from exactly
 * these; the borrowed strings of `merged` live in docs[]. Requests are serialised by the event
 * loop; two clients find out about each other by expected_revision. Who set a value is not part of
 * the document but of the history: it is read back from the revisions' diffs. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/clock.h"
#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "agentd/config/manager.h"

/* ---- who set it ---------------------------------------------------------------------------------- */

/* The path in a diff's line, NUL-terminated in out. */
static size_t diff_path(const char *line, char *out, size_t size)
{
	size_t len = strcspn(line, " \n");

	if (len > 1 && line[len - 1] == ':' && line[0] == '~')
		len--;
	if (len < 2 || len >= size)
		return 0;
	memcpy(out, line + 1, len - 1);
	out[len - 1] = '\0';
	return len - 1;
}

/* newest: lines of an older revision do not replace what is known. */
static void learn(struct map *authors, const char *diff, const char *text, bool newest)
{
	while (diff && *diff) {
		char path[CONFIG_PATH_MAX + 1];
		const char *end = strchr(diff, '\n');
		size_t len = diff_path(diff, path, sizeof(path));
		struct author *a;
		void *old = NULL;

		if (len && (newest || !map_get(authors, path, len))) {
			a = calloc(1, sizeof(*a));
			if (a)
				snprintf(a->text, sizeof(a->text), "%s", text);
			/* Without memory the origin stays vague, nothing else. */
			if (a && map_put(authors, path, len, a, &old) < 0)
				free(a);
			free(old);
		}
		diff = end ? end + 1 : NULL;
	}
}

static void describe_author(const char *origin, uint32_t uid, char *out, size_t size)
{
	snprintf(out, size, "%.40s (uid %" PRIu32 ")", origin, uid);
}

static void on_history(void *userdata, const struct store_revision *r)
{
	struct config_manager *m = userdata;
	enum config_layer layer;
	char text[64];

	if (config_layer_parse(r->layer, &layer) < 0 || layer < LAYER_LOCAL)
		return;
	describe_author(r->origin, r->uid, text, sizeof(text));
	learn(m->authors[layer], r->diff, text, false);
}

static void origin_of(
	const struct config_manager *m, const struct merged_value *v, char *out, size_t size)
{
	const struct author *a = NULL;

	if (m->authors[v->layer])
		a = map_get_str(m->authors[v->layer], v->entry->path);
	if (v->layer == LAYER_BUILT_IN)
		snprintf(out, size, "default");
	else if (v->entry->file)
		snprintf(out, size, "%s:%" PRIu32, v->entry->file, v->entry->line);
	else if (v->layer == LAYER_FILES || v->layer == LAYER_PACKAGED)
		snprintf(out, size, "%s, as last read", config_layer_name(v->layer));
	else if (a)
		snprintf(out, size, "%s", a->text);
	else
		snprintf(out, size, "%s",
			v->layer == LAYER_LOCAL ? "odictl" : config_layer_name(v->layer));
}

/* ---- committing ---------------------------------------------------------------------------------- */

static const char *diff_text(const struct plan_layer *l)
{
	return l->diff.len ? (const char *)l->diff.data : "";
}

/* A layer, a revision. Where the second of two fails the first is in the store and not in force: layers of which a
 * transaction changes several are files', and these are read again and compared at the next occasion. */
static int commit(struct config_manager *m, struct plan *plan, const struct config_request *q,
	uint64_t *revision, struct err_text *err)
{
	for (size_t i = 0; i < LAYERS; i++) {
		_cleanup_buf_ struct buf text = {0};
		struct store_revision row = {
			.layer = config_layer_name((enum config_layer)i),
			.origin = q->origin ? q->origin : "",
			.reason = q->reason ? q->reason : "",
			.diff = diff_text(&plan->changed[i]),
			.uid = q->uid,
			.time_unix_ns = clock_unix_ns(),
		};
		int r;

		if (!plan->changed[i].n_differences)
			continue;
		buf_init(&text, STORE_MAX_DOCUMENT);
		if (config_doc_encode(plan->changed[i].doc, &text) < 0)
			return err_set(err, -ENOMEM, "out of memory");
		r = store_commit(m->store, &row, (const char *)text.data, text.len,
			store_head(m->store), revision, err);
		if (r < 0)
			return r;
	}
	return 0;
}

void config_put_documents(struct config_manager *m, struct plan *plan)
{
	merged_deinit(&m->merged);
	m->merged = plan->merged;
	plan->merged = (struct merged){};
	for (size_t i = 0; i < LAYERS; i++) {
		if (!plan->changed[i].doc)
			continue;
		config_doc_free(m->docs[i]);
		m->docs[i] = TAKE_PTR(plan->changed[i].doc);
	}
}

/* From here on nothing fails. */
static void put_in_place(
	struct config_manager *m, struct plan *plan, const struct config_request *q)
{
	char author[64];

	plan->next->revision = store_head(m->store);
	if (m->current && m->hooks.swap)
		m->hooks.swap(m->userdata, plan->next);
	config_free(m->current);
	m->current = TAKE_PTR(plan->next);
	config_put_documents(m, plan);
	describe_author(q->origin ? q->origin : "", q->uid, author, sizeof(author));
	for (size_t i = 0; i < LAYERS; i++)
		if (m->authors[i] && plan->changed[i].n_differences)
			learn(m->authors[i], diff_text(&plan->changed[i]), author, true);
}

/* What the kernel does not permit agentd is not what a file does not permit the caller. */
static int unavailable(int error)
{
	return error == -EACCES || error == -EPERM ? -EOPNOTSUPP : error;
}

int config_carry_out(struct config_manager *m, struct plan *plan, const struct config_request *q,
	uint64_t *revision, struct err_text *err)
{
	uint64_t committed = store_head(m->store);
	int r;

	if (m->current && m->hooks.prepare) {
		r = m->hooks.prepare(m->userdata, m->current, plan->next, err);
		if (r < 0)
			return unavailable(r);
	}
	r = commit(m, plan, q, &committed, err);
	if (r < 0) {
		if (m->current && m->hooks.abandon)
			m->hooks.abandon(m->userdata);
		return unavailable(r);
	}
	put_in_place(m, plan, q);
	*revision = committed;
	return 0;
}

static int conflict(
	const struct config_manager *m, const struct config_request *q, struct err_text *err)
{
	return err_set(err, -ESTALE,
		"the configuration has changed meanwhile: it is at revision %" PRIu64
		", not %" PRIu64 "; see 'odictl history', then try again",
		store_head(m->store), q->expected_revision);
}

static int apply(struct config_manager *m, struct plan *plan, const struct config_request *q,
	uint64_t *revision, struct err_text *err)
{
	int r;

	if (q->expected_revision && q->expected_revision != store_head(m->store))
		return conflict(m, q, err);
	r = plan_request(m, plan, q, err);
	if (r < 0)
		return r;
	if (!plan_differs(plan))
		return CONFIG_UNCHANGED;
	return q->dry_run ? 0 : config_carry_out(m, plan, q, revision, err);
}

int config_apply(struct config_manager *m, const struct config_request *q, uint64_t *revision,
	struct buf *diff, struct err_text *err)
{
	struct plan plan CLEANUP(plan_deinit) = {};
	uint64_t head = store_head(m->store);
	struct err_text own = {};
	int r;

	if (q->layer != LAYER_LOCAL && q->layer != LAYER_REMOTE)
		return err_set(err, -EINVAL, "the layer %s is not changed by requests",
			config_layer_name(q->layer));
	if (m->busy)
		return err_set(err, -EBUSY, "another change is being applied: try again");
	m->busy = true;
	r = apply(m, &plan, q, &head, err ? err : &own);
	m->busy = false;
	if (r < 0)
		return r;
	if (revision)
		*revision = head;
	if (diff)
		buf_str(diff, diff_text(&plan.changed[q->layer]));
	return r;
}

/* ---- life ---------------------------------------------------------------------------------------- */

static int load_layer(struct config_manager *m, enum config_layer layer, struct err_text *err)
{
	_cleanup_free_ char *text = NULL;
	uint64_t revision = 0;
	size_t len = 0;
	int r;

	if (layer == LAYER_BUILT_IN) {
		r = config_built_in(&m->docs[layer]);
		return r < 0 ? err_set(err, r, "out of memory") : 0;
	}
	r = store_layer_load(m->store, config_layer_name(layer), &text, &len, &revision, err);
	if (r < 0)
		return r;
	r = config_doc_decode(text ? text : "", len, &m->docs[layer], err);
	return r < 0 ? err_prefix(err, r, "revision %" PRIu64 " of the layer %s", revision,
			       config_layer_name(layer))
		     : 0;
}

/* What was in force at the last end, then what the files say now. */
static int load(struct config_manager *m, struct err_text *err)
{
	struct plan plan CLEANUP(plan_deinit) = {};
	uint64_t revision = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < LAYERS; i++)
		r = load_layer(m, (enum config_layer)i, err);
	for (size_t i = LAYER_LOCAL; r == 0 && i < LAYERS; i++)
		if (map_new(&m->authors[i], 0) < 0)
			r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = store_history(m->store, 0, on_history, m, err);
	if (r < 0)
		return r;
	r = config_take_files(m, &revision, err);
	if (m->current)
		return 0;
	/* Something is wrong with them, or nothing is new. */
	if (r < 0 && !m->wrong.text[0])
		return r;
	r = plan_documents(m, &plan, err);
	if (r == 0)
		put_in_place(m, &plan, &(struct config_request){});
	return r;
}

static int take_places(struct config_manager *m, const struct config_places *places)
{
	const struct {
		const char *from;
		char **to;
	} all[] = {
		{places->packaged, &m->packaged}, {places->dir, &m->dir}, {places->file, &m->file}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!all[i].from)
			continue;
		*all[i].to = strdup(all[i].from);
		if (!*all[i].to)
			return -ENOMEM;
	}
	m->places = (struct config_places){m->packaged, m->dir, m->file};
	return 0;
}

int config_manager_new(struct config_manager **ret, struct store *store,
	const struct config_places *places, const struct config_hooks *hooks, void *userdata,
	struct err_text *err)
{
	CLEANUP(config_manager_freep) struct config_manager *m = calloc(1, sizeof(*m));
	struct err_text own = {};
	int r;

	if (!m || (places && take_places(m, places) < 0))
		return err_set(err, -ENOMEM, "out of memory");
	m->store = store;
	m->userdata = userdata;
	if (hooks)
		m->hooks = *hooks;
	r = load(m, err ? err : &own);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(m);
	return 0;
}

struct config_manager *config_manager_free(struct config_manager *m)
{
	if (!m)
		return NULL;
	merged_deinit(&m->merged);
	config_free(m->current);
	for (size_t i = 0; i < LAYERS; i++) {
		config_doc_free(m->docs[i]);
		map_free_with(m->authors[i], free);
	}
	free(m->packaged);
	free(m->dir);
	free(m->file);
	free(m);
	return NULL;
}

const struct config *config_current(const struct config_manager *m)
{
	return m->current;
}

/* ---- looking ------------------------------------------------------------------------------------- */

void config_each_value(const struct config_manager *m, const char *prefix,
	void (*visit)(void *userdata, const struct config_value *value), void *userdata)
{
	for (size_t i = 0; i < m->merged.n; i++) {
		const struct merged_value *v = &m->merged.values[i];
		struct config_value value = {.path = v->entry->path,
			.value = v->entry->value,
			.shown = config_shown(m->docs[v->layer], v->entry->path, v->entry->value),
			.reference = config_reference(
				m->docs[v->layer], v->entry->path, v->entry->value),
			.layer = v->layer};

		if (prefix && *prefix && !config_path_within(v->entry->path, prefix))
			continue;
		origin_of(m, v, value.origin, sizeof(value.origin));
		visit(userdata, &value);
	}
}

int config_origin(const struct config_manager *m, const char *path, enum config_layer *layer,
	char *origin, size_t size)
{
	const struct merged_value *best = NULL;

	for (size_t i = 0; i < m->merged.n; i++) {
		const struct merged_value *v = &m->merged.values[i];

		/* Of a file's object, the first line. */
		if (config_path_within(v->entry->path, path) &&
			(!best || v->entry->line < best->entry->line))
			best = v;
	}
	if (!best)
		return -ENOENT;
	if (layer)
		*layer = best->layer;
	if (origin)
		origin_of(m, best, origin, size);
	return 0;
}
