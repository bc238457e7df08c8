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

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
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
	else if (v->layer == LAYER_FILES)
		snprintf(out, size, "%s:%" PRIu32, m->file ? m->file : "file", v->entry->line);
	else if (a)
		snprintf(out, size, "%s", a->text);
	else
		snprintf(out, size, "%s",
			v->layer == LAYER_LOCAL ? "odictl" : config_layer_name(v->layer));
}

/* ---- committing ---------------------------------------------------------------------------------- */

static const char *diff_text(const struct plan *plan)
{
	return plan->diff.len ? (const char *)plan->diff.data : "";
}

static int commit(struct config_manager *m, struct plan *plan, const struct config_request *q,
	uint64_t *revision, struct err_text *err)
{
	_cleanup_buf_ struct buf text;
	struct store_revision row = {
		.layer = config_layer_name(plan->layer),
		.origin = q->origin ? q->origin : "",
		.reason = q->reason ? q->reason : "",
		.diff = diff_text(plan),
		.uid = q->uid,
		.time_unix_ns = clock_unix_ns(),
	};

	buf_init(&text, STORE_MAX_DOCUMENT);
	if (config_doc_encode(plan->doc, &text) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	return store_commit(m->store, &row, (const char *)text.data, text.len, store_head(m->store),
		revision, err);
}

/* From here on nothing fails. */
static void put_in_place(
	struct config_manager *m, struct plan *plan, const struct config_request *q)
{
	char author[64];

	if (m->current && m->hooks.swap)
		m->hooks.swap(m->userdata, plan->next);
	config_free(m->current);
	m->current = TAKE_PTR(plan->next);
	merged_deinit(&m->merged);
	m->merged = plan->merged;
	plan->merged = (struct merged){};
	config_doc_free(m->docs[plan->layer]);
	m->docs[plan->layer] = TAKE_PTR(plan->doc);
	if (m->authors[plan->layer]) {
		describe_author(q->origin ? q->origin : "", q->uid, author, sizeof(author));
		learn(m->authors[plan->layer], diff_text(plan), author, true);
	}
}

/* What the kernel does not permit agentd is not what a file does not permit the caller. */
static int unavailable(int error)
{
	return error == -EACCES || error == -EPERM ? -EOPNOTSUPP : error;
}

/* The plan stands: prepare, commit, swap. */
static int carry_out(struct config_manager *m, struct plan *plan, const struct config_request *q,
	uint64_t *revision, struct err_text *err)
{
	uint64_t committed = 0;
	int r;

	if (m->hooks.prepare) {
		r = m->hooks.prepare(m->userdata, m->current, plan->next, err);
		if (r < 0)
			return unavailable(r);
	}
	r = commit(m, plan, q, &committed, err);
	if (r < 0) {
		if (m->hooks.abandon)
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
	if (!plan->n_differences)
		return CONFIG_UNCHANGED;
	return q->dry_run ? 0 : carry_out(m, plan, q, revision, err);
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
		buf_add(diff, diff_text(&plan), plan.diff.len);
	return r;
}

/* ---- the file ------------------------------------------------------------------------------------ */

static int read_config_file(const char *file, struct config_doc **ret, struct err_text *err)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	_cleanup_buf_ struct buf text;
	struct stat st;
	int r;

	buf_init(&text, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot read %s: %m", file);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "cannot read %s: it is not a regular file", file);
	/* What it says is done with root's rights. */
	if (st.st_mode & S_IWOTH)
		return err_set(err, -EPERM,
			"%s may be written by everyone on this host: chmod o-w %s", file, file);
	r = io_read_fd(fd, &text, CONFIG_MAX_FILE);
	if (r == -EFBIG)
		return err_set(err, r, "%s is larger than %u KB", file, CONFIG_MAX_FILE >> 10);
	if (r < 0)
		return err_set(err, r, "cannot read %s: %s", file, strerrordesc_np(-r));
	return config_doc_from_yaml(
		file, text.len ? (const char *)text.data : "", text.len, ret, err);
}

static int reload(
	struct config_manager *m, struct plan *plan, uint64_t *revision, struct err_text *err)
{
	char reason[320];
	struct config_request q = {
		.layer = LAYER_FILES, .uid = 0, .origin = "file", .reason = reason};
	int r;

	snprintf(reason, sizeof(reason), "read %.300s", m->file ? m->file : "(no file)");
	plan->layer = LAYER_FILES;
	r = m->file ? read_config_file(m->file, &plan->doc, err) : config_doc_new(&plan->doc);
	if (r < 0)
		return r;
	r = plan_document(m, plan, err);
	if (r < 0)
		return r;
	if (plan->n_differences)
		return carry_out(m, plan, &q, revision, err);
	/* The same settings, maybe on other lines: no revision, but origins have to be right. */
	merged_deinit(&m->merged);
	m->merged = plan->merged;
	plan->merged = (struct merged){};
	config_doc_free(m->docs[LAYER_FILES]);
	m->docs[LAYER_FILES] = TAKE_PTR(plan->doc);
	return CONFIG_UNCHANGED;
}

int config_reload_file(struct config_manager *m, uint64_t *revision, struct err_text *err)
{
	struct plan plan CLEANUP(plan_deinit) = {};
	uint64_t head = store_head(m->store);
	struct err_text own = {};
	int r;

	if (m->busy)
		return err_set(err, -EBUSY, "another change is being applied: try again");
	m->busy = true;
	r = reload(m, &plan, &head, err ? err : &own);
	m->busy = false;
	if (r >= 0 && revision)
		*revision = head;
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

static int load(struct config_manager *m, struct err_text *err)
{
	struct plan plan CLEANUP(plan_deinit) = {.layer = LAYER_FILES};
	struct config_request q = {
		.layer = LAYER_FILES, .origin = "file", .reason = "read at start"};
	uint64_t revision = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < LAYERS; i++)
		r = load_layer(m, (enum config_layer)i, err);
	for (size_t i = LAYER_LOCAL; r == 0 && i < LAYERS; i++)
		if (map_new(&m->authors[i], 0) < 0)
			r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = store_history(m->store, 0, on_history, m, err);
	if (r == 0)
		r = m->file ? read_config_file(m->file, &plan.doc, err) : config_doc_new(&plan.doc);
	if (r == 0)
		r = plan_document(m, &plan, err);
	if (r < 0)
		return r;
	/* What the file says now is a revision like any other. */
	if (plan.n_differences)
		r = commit(m, &plan, &q, &revision, err);
	if (r < 0)
		return r;
	plan.next->revision = store_head(m->store);
	put_in_place(m, &plan, &q);
	return 0;
}

int config_manager_new(struct config_manager **ret, struct store *store, const char *file,
	const struct config_hooks *hooks, void *userdata, struct err_text *err)
{
	CLEANUP(config_manager_freep) struct config_manager *m = calloc(1, sizeof(*m));
	struct err_text own = {};
	int r;

	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	m->store = store;
	m->userdata = userdata;
	if (hooks)
		m->hooks = *hooks;
	if (file) {
		m->file = strdup(file);
		if (!m->file)
			return err_set(err, -ENOMEM, "out of memory");
	}
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
