/* SPDX-License-Identifier: Apache-2.0 */

/* One row a verb, one handler each.
 *
 * What a caller may is decided here, once, before any handler runs: looking is for all who got in,
 * changing for root and the group odi. Configuration is answered by this room itself; everything
 * else goes through struct control_ops, so that no other room is seen from here. Secrets do not
 * pass: values come masked from the configuration, and texts of errors never hold one.
 * Runs in agentd. */

#include <inttypes.h>
#include <pwd.h>

#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/config/config.h"
#include "agentd/control/control_private.h"
#include "agentd/store/store.h"

#define HISTORY_DEFAULT 50
#define HISTORY_MAX     1000
#define REASON_MAX      400

static const char no_memory[] = "out of memory";

/* ---- Apply --------------------------------------------------------------------------------------- */

/* An Apply while it is taken apart. */
struct applying {
	struct config_change *changes;
	char **kept; /* values that replace what came by descriptor */
	int fds[CONTROL_MAX_FDS];
	size_t n_fds, n;
};

static void applying_deinit(struct applying *a)
{
	for (size_t i = 0; i < a->n_fds; i++)
		close(a->fds[i]);
	for (size_t i = 0; a->kept && i < a->n; i++)
		free(a->kept[i]);
	free(a->kept);
	free(a->changes);
}

static int check_change(struct control_server *s, struct applying *a, const Control__Change *c,
	size_t i, struct err_text *err)
{
	bool sets = c->what_case == CONTROL__CHANGE__WHAT_SET;

	if (c->what_case == CONTROL__CHANGE__WHAT__NOT_SET ||
		(c->what_case == CONTROL__CHANGE__WHAT_REMOVE && !c->remove))
		return err_set(err, -EINVAL, "a change neither sets nor removes anything");
	a->changes[i] = (struct config_change){
		.path = c->path,
		.set = sets ? c->set : NULL,
		.move = c->what_case == CONTROL__CHANGE__WHAT_MOVE ? c->move : NULL,
		.must_not_exist = c->must_not_exist,
		.must_exist = c->must_exist,
	};
	if (!c->descriptor)
		return 0;
	if (!sets || c->descriptor > a->n_fds || !s->ops->keep_file)
		return err_set(err, -EINVAL, "%.200s: its descriptor did not come", c->path);
	return 0;
}

/* Nothing is kept before everything was looked at. */
static int take_changes(struct control_server *s, struct control_reply *r,
	const Control__Apply *apply, struct applying *a, struct err_text *err)
{
	int result = 0;

	a->n = apply->n_changes;
	a->changes = calloc(a->n + 1, sizeof(*a->changes));
	a->kept = calloc(a->n + 1, sizeof(*a->kept));
	if (!a->changes || !a->kept)
		return err_set(err, -ENOMEM, no_memory);
	if (apply->descriptors > CONTROL_MAX_FDS ||
		connection_take_fds(r->connection, a->fds, apply->descriptors) < 0)
		return err_set(err, -EINVAL, "the descriptors of the request did not come with it");
	a->n_fds = apply->descriptors;
	for (size_t i = 0; i < a->n && result == 0; i++)
		result = check_change(s, a, apply->changes[i], i, err);
	for (size_t i = 0; i < a->n && result == 0; i++) {
		const Control__Change *c = apply->changes[i];

		if (!c->descriptor)
			continue;
		result = s->ops->keep_file(
			s->userdata, c->path, c->set, a->fds[c->descriptor - 1], &a->kept[i], err);
		a->changes[i].set = a->kept[i];
		a->changes[i].shown = true;
	}
	return result;
}

static void send_applied(struct control_server *s, struct control_reply *r,
	const Control__Apply *apply, bool changed, uint64_t revision, const struct buf *diff)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Applied applied = CONTROL__APPLIED__INIT;

	applied.revision = revision;
	applied.changed = changed && !apply->dry_run;
	applied.diff = control_lines(r, diff->len ? (const char *)diff->data : "", &applied.n_diff);
	if (!apply->dry_run && s->ops->describe_effects)
		s->ops->describe_effects(s->userdata, r, apply, &applied);
	reply.body_case = CONTROL__REPLY__BODY_APPLIED;
	reply.applied = &applied;
	control_send(r, &reply, true);
}

static void apply_fails(struct control_reply *r, int error, const struct err_text *err)
{
	const char *text = err->text[0] ? err->text : strerrordesc_np(-error);

	/* Here EACCES is the configuration's own word: a file manages the value. */
	reply_fail_code(r, error == -EACCES ? CONTROL__CODE__MANAGED : control_code(error), text);
}

static void on_apply(struct control_server *s, struct control_reply *r, const Control__Request *q)
{
	const Control__Apply *apply = q->apply;
	const struct control_caller *caller = reply_caller(r);
	struct applying a CLEANUP(applying_deinit) = {};
	struct config_request request = {
		.n_changes = apply->n_changes,
		.expected_revision = apply->expected_revision,
		.dry_run = apply->dry_run,
		.uid = caller->uid,
		.origin = "odictl",
	};
	_cleanup_buf_ struct buf diff;
	char reason[REASON_MAX + 1];
	struct err_text err = {};
	uint64_t revision = 0;
	int result;

	buf_init(&diff, 0);
	snprintf(reason, sizeof(reason), "%s", apply->reason);
	text_clean(reason);
	request.reason = reason;
	/* The other layers have other ways in. */
	if (config_layer_parse(apply->layer, &request.layer) < 0 || request.layer != LAYER_LOCAL) {
		reply_fail_code(
			r, CONTROL__CODE__INVALID, "only the layer local is changed this way");
		return;
	}
	request.rollback = apply->rollback;
	if (apply->document_name[0]) {
		request.yaml_name = apply->document_name;
		request.yaml = apply->document;
		request.yaml_len = strlen(apply->document);
	}
	result = take_changes(s, r, apply, &a, &err);
	request.changes = a.changes;
	if (result == 0)
		result = config_apply(s->ops->config, &request, &revision, &diff, &err);
	/* What was kept for nothing goes; so does what nothing refers to any more. */
	if ((a.n_fds || result == 0) && s->ops->forget_files)
		s->ops->forget_files(s->userdata);
	if (result < 0) {
		apply_fails(r, result, &err);
		return;
	}
	if (result == 0 && !apply->dry_run)
		log_info("revision %" PRIu64 " by uid %u: %s", revision, (unsigned)caller->uid,
			reason[0] ? reason : "(no reason given)");
	send_applied(s, r, apply, result == 0, revision, &diff);
}

/* ---- looking at configuration ---------------------------------------------------------------------- */

struct values {
	struct control_reply *reply;
	Control__ConfigValue **list; /* NULL: only count */
	size_t n;
};

static void on_value(void *userdata, const struct config_value *value)
{
	struct values *v = userdata;
	Control__ConfigValue *out;

	if (v->list) {
		out = control_alloc(v->reply, sizeof(*out));
		if (!out)
			return;
		control__config_value__init(out);
		out->path = control_strdup(v->reply, value->path);
		out->value = control_strdup(v->reply, value->shown);
		out->layer = (char *)config_layer_name(value->layer);
		out->origin = control_strdup(v->reply, value->origin);
		out->is_default = value->layer == LAYER_BUILT_IN;
		out->reference = control_strdup(v->reply, value->reference ? value->reference : "");
		v->list[v->n] = out;
	}
	v->n++;
}

static void on_get_config(
	struct control_server *s, struct control_reply *r, const Control__Request *q)
{
	struct values counted = {.reply = r}, v = {.reply = r};
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Config config = CONTROL__CONFIG__INIT;

	config_each_value(s->ops->config, q->get_config->prefix, on_value, &counted);
	v.list = control_alloc(r, (counted.n + 1) * sizeof(*v.list));
	if (!v.list) {
		reply_fail_code(r, CONTROL__CODE__INTERNAL, no_memory);
		return;
	}
	config_each_value(s->ops->config, q->get_config->prefix, on_value, &v);
	config.revision = store_head(s->ops->store);
	config.values = v.list;
	config.n_values = v.n;
	reply.body_case = CONTROL__REPLY__BODY_CONFIG;
	reply.config = &config;
	control_send(r, &reply, true);
}

/* ---- history -------------------------------------------------------------------------------------- */

/* From /etc/passwd alone: a look-up by libc may ask a directory server, and the loop does not wait for
 * one. */
static char *user_name(struct control_reply *r, uint32_t uid)
{
	_cleanup_fclose_ FILE *f = NULL;
	struct passwd one, *found = NULL;
	char text[4096];

	f = fopen("/etc/passwd", "re");
	while (f && fgetpwent_r(f, &one, text, sizeof(text), &found) == 0)
		if (found->pw_uid == uid)
			return control_strdup(r, found->pw_name);
	return control_strdup(r, "");
}

struct history {
	struct control_reply *reply;
	Control__HistoryEntry *entries;
	Control__HistoryEntry **list;
	size_t n, max;
};

static void on_revision(void *userdata, const struct store_revision *revision)
{
	struct history *h = userdata;
	Control__HistoryEntry *e;

	if (h->n == h->max)
		return;
	e = control_alloc(h->reply, sizeof(*e));
	if (!e)
		return;
	control__history_entry__init(e);
	e->revision = revision->revision;
	e->layer = control_strdup(h->reply, revision->layer);
	e->origin = control_strdup(h->reply, revision->origin);
	e->uid = revision->uid;
	e->time_unix_ns = revision->time_unix_ns;
	e->reason = control_strdup(h->reply, revision->reason);
	e->hash = control_strdup(h->reply, revision->hash);
	e->diff = control_lines(h->reply, revision->diff, &e->n_diff);
	h->list[h->n++] = e;
}

static void name_users(struct history *h)
{
	for (size_t i = 0; i < h->n; i++) {
		size_t k = 0;

		while (k < i && h->list[k]->uid != h->list[i]->uid)
			k++;
		h->list[i]->user = k < i ? h->list[k]->user : user_name(h->reply, h->list[i]->uid);
	}
}

static void on_get_history(
	struct control_server *s, struct control_reply *r, const Control__Request *q)
{
	uint32_t limit = q->get_history->limit;
	struct history h = {.reply = r, .max = limit ? MIN(limit, HISTORY_MAX) : HISTORY_DEFAULT};
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__History history = CONTROL__HISTORY__INIT;
	struct err_text err = {};
	int error;

	h.list = control_alloc(r, (h.max + 1) * sizeof(*h.list));
	if (!h.list) {
		reply_fail_code(r, CONTROL__CODE__INTERNAL, no_memory);
		return;
	}
	error = store_history(s->ops->store, h.max, on_revision, &h, &err);
	if (error < 0) {
		control_fail(r, error, &err);
		return;
	}
	name_users(&h);
	history.entries = h.list;
	history.n_entries = h.n;
	reply.body_case = CONTROL__REPLY__BODY_HISTORY;
	reply.history = &history;
	control_send(r, &reply, true);
}

static void on_get_logs(
	struct control_server *s, struct control_reply *r, const Control__Request *q)
{
	logs_get(s, r, q->get_logs);
}

/* ---- the others ------------------------------------------------------------------------------------ */

#define FORWARD(handler, op, field)                                                                \
	static void handler(                                                                       \
		struct control_server *s, struct control_reply *r, const Control__Request *q)      \
	{                                                                                          \
		if (s->ops->op)                                                                    \
			s->ops->op(s->userdata, r, q->field);                                      \
		else                                                                               \
			reply_fail_code(                                                           \
				r, CONTROL__CODE__UNAVAILABLE, "this agentd cannot do that now");  \
	}
#define FORWARD_PLAIN(handler, op)                                                                 \
	static void handler(                                                                       \
		struct control_server *s, struct control_reply *r, const Control__Request *q)      \
	{                                                                                          \
		if (s->ops->op)                                                                    \
			s->ops->op(s->userdata, r);                                                \
		else                                                                               \
			reply_fail_code(                                                           \
				r, CONTROL__CODE__UNAVAILABLE, "this agentd cannot do that now");  \
	}

static void on_check_files(
	struct control_server *s, struct control_reply *r, const Control__Request *q)
{
	verb_check_files(s, r, q->check_files);
}

static void on_get_keys(
	struct control_server *s, struct control_reply *r, const Control__Request *q)
{
	verb_get_keys(r);
}

FORWARD(on_status, status, get_status)
FORWARD(on_sources, sources, get_sources)
FORWARD(on_candidates, candidates, get_candidates)
FORWARD(on_destinations, destinations, get_destinations)
FORWARD(on_test_destination, test_destination, test_destination)
FORWARD(on_query, query, run_query)
FORWARD_PLAIN(on_destination_types, destination_types)
FORWARD_PLAIN(on_source_kinds, source_kinds)
FORWARD_PLAIN(on_metrics, metrics)
FORWARD_PLAIN(on_policy, policy)
FORWARD(on_symbols, symbols, get_symbols)
FORWARD(on_spool, spool, get_spool)
FORWARD(on_drop_spool, drop_spool, drop_spool)

static const struct verb {
	void (*handle)(
		struct control_server *s, struct control_reply *r, const Control__Request *q);
	bool changes; /* something, here or elsewhere: not for those who may only look */
} verbs[] = {
	[CONTROL__REQUEST__VERB_APPLY] = {on_apply, true},
	[CONTROL__REQUEST__VERB_GET_CONFIG] = {on_get_config, false},
	[CONTROL__REQUEST__VERB_GET_STATUS] = {on_status, false},
	[CONTROL__REQUEST__VERB_GET_SOURCES] = {on_sources, false},
	[CONTROL__REQUEST__VERB_GET_CANDIDATES] = {on_candidates, false},
	[CONTROL__REQUEST__VERB_GET_DESTINATIONS] = {on_destinations, false},
	[CONTROL__REQUEST__VERB_GET_DESTINATION_TYPES] = {on_destination_types, false},
	/* It makes the exporter connect wherever it is told, with the secrets of the host. */
	[CONTROL__REQUEST__VERB_TEST_DESTINATION] = {on_test_destination, true},
	[CONTROL__REQUEST__VERB_RUN_QUERY] = {on_query, false},
	[CONTROL__REQUEST__VERB_GET_HISTORY] = {on_get_history, false},
	[CONTROL__REQUEST__VERB_GET_LOGS] = {on_get_logs, false},
	[CONTROL__REQUEST__VERB_GET_SOURCE_KINDS] = {on_source_kinds, false},
	[CONTROL__REQUEST__VERB_GET_SYMBOLS] = {on_symbols, false},
	[CONTROL__REQUEST__VERB_CHECK_FILES] = {on_check_files, false},
	[CONTROL__REQUEST__VERB_GET_KEYS] = {on_get_keys, false},
	[CONTROL__REQUEST__VERB_GET_METRICS] = {on_metrics, false},
	[CONTROL__REQUEST__VERB_GET_SPOOL] = {on_spool, false},
	[CONTROL__REQUEST__VERB_GET_POLICY] = {on_policy, false},
	[CONTROL__REQUEST__VERB_DROP_SPOOL] = {on_drop_spool, true},
};

static void on_cancel(struct connection *c, const Control__Cancel *cancel)
{
	struct control_reply *r = reply_find(c, cancel->request);
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Error error = CONTROL__ERROR__INIT;

	if (!r)
		return;
	error.code = CONTROL__CODE__CANCELLED;
	error.message = "cancelled";
	reply.id = r->id;
	reply.final = true;
	reply.error = &error;
	connection_send(c, &reply.base);
	reply_cancel(r);
}

void verbs_dispatch(struct connection *c, const Control__Request *request)
{
	const struct verb *verb =
		(size_t)request->verb_case < ARRAY_SIZE(verbs) ? &verbs[request->verb_case] : NULL;
	struct control_reply *r;

	if (!request->id || reply_find(c, request->id)) {
		connection_violation(c, "a request's id is 0, or that of one not answered yet");
		return;
	}
	if (request->verb_case == CONTROL__REQUEST__VERB_CANCEL) {
		on_cancel(c, request->cancel);
		return;
	}
	r = reply_new(c, request->id);
	if (!r)
		connection_doom(c);
	else if (!verb || !verb->handle)
		reply_fail_code(r, CONTROL__CODE__INVALID,
			"this agentd (" ODI_VERSION
			") does not know that request: use the odictl that "
			"came with it");
	else if (verb->changes && !c->caller.may_change)
		reply_fail_code(r, CONTROL__CODE__PERMISSION,
			"the group odi-view may look and not change: use sudo, or ask for the group odi");
	else if (c->n_replies > c->server->limits.in_flight)
		reply_fail_code(r, CONTROL__CODE__BUSY,
			"too many requests on one connection: wait for the answer of one");
	else
		verb->handle(c->server, r, request);
}
