/* SPDX-License-Identifier: Apache-2.0 */

/* What the control room asks of the others: sources with what they match, candidates, destinations
 * and their tests, queries. Each handler fills its reply from borrowed state and sends it, at once
 * or when the child that does the work has answered. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "agentd/daemon.h"
#include "agentd/daemon_verbs.h"
#include "destinations/destination.h"

#define TEST_DEADLINE_MS 15000

Control__KeyValue **daemon_key_values(
	struct control_reply *r, const struct option_value *list, size_t n, size_t *ret_n)
{
	Control__KeyValue **out = control_alloc(r, (n + 1) * sizeof(*out));

	*ret_n = 0;
	for (size_t i = 0; out && i < n; i++) {
		Control__KeyValue *kv = control_alloc(r, sizeof(*kv));

		if (!kv)
			break;
		control__key_value__init(kv);
		kv->key = control_strdup(r, list[i].name);
		kv->value = control_strdup(r, list[i].value);
		out[(*ret_n)++] = kv;
	}
	return out;
}

void daemon_fail(struct control_reply *r, int error, const char *text)
{
	struct err_text err = {};

	err_set(&err, error, "%s", text);
	control_fail(r, error, &err);
}

/* ---- sources ---- */

struct source_walk {
	struct daemon *daemon;
	struct control_reply *reply;
	struct source *source;
	Control__SourceState *state;
	bool list;
	size_t room, room_lost;
};

#define MAX_LISTED_IMAGES 200

static Control__ImageState *image_state(
	struct source_walk *w, struct image *image, const struct source *winner)
{
	Control__ImageState *s = control_alloc(w->reply, sizeof(*s));
	struct resource_attribute *attributes;
	size_t n;

	if (!s)
		return NULL;
	control__image_state__init(s);
	s->pid = image->key.tgid;
	s->exe = control_strdup(w->reply, image->exe);
	s->comm = control_strdup(w->reply, image->comm);
	s->unit = control_strdup(w->reply, image->unit);
	s->cgroup = control_strdup(w->reply, image->cgroup);
	s->container = control_strdup(w->reply,
		image->container_name && image->container_name[0] ? image->container_name
								  : image->container_id);
	s->samples = image->samples;
	s->taken_by = control_strdup(w->reply, winner ? winner->name : "");
	s->service = control_strdup(w->reply, "");
	if (winner && source_resource(winner, image, &w->daemon->host, &attributes, &n) == 0) {
		for (size_t i = 0; i < n; i++)
			if (streq(attributes[i].key, "service.name"))
				s->service = control_strdup(w->reply, attributes[i].value);
		resource_attributes_free(attributes, n);
	}
	return s;
}

static void visit_image(void *userdata, struct image *image)
{
	struct source_walk *w = userdata;
	struct source_set *set = config_current(w->daemon->config)->sources;
	struct source *winner, *claims[16];
	size_t n = 0;
	bool claimed = false;

	if (image->ended || image->state == IMAGE_NEW)
		return;
	winner = source_set_match(set, w->daemon->processes, image, claims, ARRAY_SIZE(claims), &n);
	for (size_t i = 0; i < n; i++)
		claimed |= claims[i] == w->source;
	if (winner == w->source) {
		w->state->images_now++;
		if (w->list && w->state->n_images < MAX_LISTED_IMAGES)
			w->state->images[w->state->n_images++] = image_state(w, image, winner);
	} else if (claimed) {
		w->state->claimed_by_others++;
		if (w->list && w->state->n_lost_claims < MAX_LISTED_IMAGES)
			w->state->lost_claims[w->state->n_lost_claims++] =
				image_state(w, image, winner);
	}
}

static Control__SourceState *source_state(
	struct daemon *d, struct control_reply *r, struct source *s, bool list)
{
	Control__SourceState *x = control_alloc(r, sizeof(*x));
	struct source_walk w = {.daemon = d, .reply = r, .source = s, .state = x, .list = list};
	char path[160], origin[300] = "";
	enum config_layer layer = LAYER_BUILT_IN;

	if (!x)
		return NULL;
	control__source_state__init(x);
	x->name = control_strdup(r, s->name);
	x->kind = control_strdup(r, s->kind->name);
	x->match = control_strdup(r, s->match);
	x->enabled = s->enabled;
	x->service_name = control_strdup(r, s->service_name);
	x->options = daemon_key_values(r, s->options, s->n_options, &x->n_options);
	x->labels = daemon_key_values(r, s->labels, s->n_labels, &x->n_labels);
	snprintf(path, sizeof(path), "sources/%s", s->name);
	config_origin(d->config, path, &layer, origin, sizeof(origin));
	x->layer = control_strdup(r, config_layer_name(layer));
	x->origin = control_strdup(r, origin);
	x->samples = s->samples;
	x->last_sample_unix_ns = s->last_sample_unix_ns;
	if (list) {
		x->images = control_alloc(r, MAX_LISTED_IMAGES * sizeof(*x->images));
		x->lost_claims = control_alloc(r, MAX_LISTED_IMAGES * sizeof(*x->lost_claims));
		if (!x->images || !x->lost_claims)
			return NULL;
	}
	process_each(d->processes, visit_image, &w);
	return x;
}

Control__SourceState *daemon_source_state(
	struct daemon *d, struct control_reply *r, struct source *s)
{
	return source_state(d, r, s, false);
}

/* A survey first: with profiling off, or for what has not been sampled yet, the table does not know
 * who runs. */
struct sources_request {
	struct daemon *daemon;
	struct control_reply *reply;
	char name[80];
	bool images, gone;
};

static void on_request_cancelled(void *userdata)
{
	struct sources_request *q = userdata;

	q->gone = true;
}

static void answer_sources(void *userdata, const struct process_candidate *list, size_t n_list)
{
	struct sources_request *q = userdata;
	struct daemon *d = q->daemon;
	struct source_set *set = config_current(d->config)->sources;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Sources body = CONTROL__SOURCES__INIT;

	if (q->gone) {
		free(q);
		return;
	}
	body.sources = control_alloc(q->reply, (source_set_size(set) + 1) * sizeof(*body.sources));
	for (size_t i = 0; body.sources && i < source_set_size(set); i++) {
		struct source *s = source_set_at(set, i);
		Control__SourceState *x;

		if (q->name[0] && !streq(q->name, s->name))
			continue;
		x = source_state(d, q->reply, s, q->images);
		if (x)
			body.sources[body.n_sources++] = x;
	}
	reply.body_case = CONTROL__REPLY__BODY_SOURCES;
	reply.sources = &body;
	control_send(q->reply, &reply, true);
	free(q);
}

static void on_sources(void *userdata, struct control_reply *r, const Control__GetSources *request)
{
	struct daemon *d = userdata;
	struct sources_request *q;

	if (request->name[0] &&
		!source_set_find(config_current(d->config)->sources, request->name)) {
		struct err_text err = {};

		err_set(&err, -ENOENT, "there is no source '%s'; odictl source list shows all",
			request->name);
		control_fail(r, -ENOENT, &err);
		return;
	}
	q = calloc(1, sizeof(*q));
	if (!q) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	*q = (struct sources_request){.daemon = d, .reply = r, .images = request->images};
	snprintf(q->name, sizeof(q->name), "%s", request->name);
	control_on_cancel(r, on_request_cancelled, q);
	/* When a survey is under way already, what the table knows now will do. */
	if (process_survey(d->processes, answer_sources, q) < 0)
		answer_sources(q, NULL, 0);
}

/* ---- destinations ---- */

Control__DestinationState *daemon_destination_state(
	struct daemon *d, struct control_reply *r, const struct config_destination *c)
{
	Control__DestinationState *x = control_alloc(r, sizeof(*x));
	const struct link_destination *list;
	size_t n = link_destinations(d->link, &list);
	char path[160], origin[300] = "";
	enum config_layer layer = LAYER_BUILT_IN;

	if (!x)
		return NULL;
	control__destination_state__init(x);
	x->name = control_strdup(r, c->name);
	x->type = control_strdup(r, c->type);
	x->enabled = c->enabled;
	x->options = daemon_key_values(r, c->options, c->n_options, &x->n_options);
	snprintf(path, sizeof(path), "destinations/%s", c->name);
	config_origin(d->config, path, &layer, origin, sizeof(origin));
	x->layer = control_strdup(r, config_layer_name(layer));
	x->origin = control_strdup(r, origin);
	x->state = control_strdup(r, c->enabled ? "idle" : "disabled");
	x->endpoint = x->last_error = control_strdup(r, "");
	for (size_t i = 0; i < n; i++) {
		const struct link_destination *l = &list[i];

		if (!streq(l->name, c->name))
			continue;
		if (c->enabled)
			x->state = control_strdup(r, l->state);
		x->endpoint = control_strdup(r, l->endpoint);
		x->last_error = control_strdup(r, l->last_error);
		x->last_success_unix_ns = l->last_success_unix_ns;
		x->last_failure_unix_ns = l->last_failure_unix_ns;
		x->sent_batches = l->sent_batches;
		x->sent_bytes = l->sent_bytes;
		x->sent_samples = l->ledger[SAMPLE_TYPE_CPU].delivered;
		x->queued_batches = l->queued_batches;
		x->queued_bytes = l->queued_bytes;
		x->requests = l->requests;
		x->failures = l->failures;
	}
	return x;
}

static void on_destinations(
	void *userdata, struct control_reply *r, const Control__GetDestinations *request)
{
	struct daemon *d = userdata;
	const struct config *c = config_current(d->config);
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Destinations body = CONTROL__DESTINATIONS__INIT;

	body.destinations = control_alloc(r, (c->n_destinations + 1) * sizeof(*body.destinations));
	for (size_t i = 0; body.destinations && i < c->n_destinations; i++) {
		Control__DestinationState *x;

		if (request->name[0] && !streq(request->name, c->destinations[i].name))
			continue;
		x = daemon_destination_state(d, r, &c->destinations[i]);
		if (x)
			body.destinations[body.n_destinations++] = x;
	}
	if (request->name[0] && !body.n_destinations) {
		struct err_text err = {};

		err_set(&err, -ENOENT,
			"there is no destination '%s'; odictl destination list shows all",
			request->name);
		control_fail(r, -ENOENT, &err);
		return;
	}
	reply.body_case = CONTROL__REPLY__BODY_DESTINATIONS;
	reply.destinations = &body;
	control_send(r, &reply, true);
}

static const char *option_type_name(enum option_type type)
{
	static const char *const names[] = {
		[OPTION_STRING] = "text",
		[OPTION_BOOL] = "yes/no",
		[OPTION_UINT] = "number",
		[OPTION_DURATION] = "duration",
		[OPTION_SIZE] = "size",
		[OPTION_ENUM] = "one of",
		[OPTION_URL] = "url",
		[OPTION_HOSTPORT] = "host:port",
		[OPTION_SECRET] = "secret",
		[OPTION_MAP] = "key=value",
	};

	return type < ARRAY_SIZE(names) ? names[type] : "text";
}

Control__OptionInfo **daemon_options(struct control_reply *r,
	const struct option_desc *const *tables, size_t n_tables, size_t *ret_n)
{
	Control__OptionInfo **out;
	size_t n = 0;

	*ret_n = 0;
	for (size_t t = 0; t < n_tables; t++)
		for (const struct option_desc *o = tables[t]; o && o->name; o++)
			n++;
	out = control_alloc(r, (n + 1) * sizeof(*out));
	for (size_t t = 0; out && t < n_tables; t++) {
		for (const struct option_desc *o = tables[t]; o && o->name; o++) {
			Control__OptionInfo *i = control_alloc(r, sizeof(*i));
			size_t values = 0;

			if (!i)
				return out;
			control__option_info__init(i);
			i->name = control_strdup(r, o->name);
			i->type = control_strdup(r, option_type_name(o->type));
			i->required = o->required;
			i->fallback = control_strdup(r, o->fallback);
			i->help = control_strdup(r, o->help);
			i->secret = o->type == OPTION_SECRET;
			while (o->values && o->values[values])
				values++;
			i->values = control_alloc(r, (values + 1) * sizeof(*i->values));
			for (; i->values && i->n_values < values; i->n_values++)
				i->values[i->n_values] = control_strdup(r, o->values[i->n_values]);
			out[(*ret_n)++] = i;
		}
	}
	return out;
}

static void on_destination_types(void *userdata, struct control_reply *r)
{
	const struct destination_type *const *types = destination_types();
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__DestinationTypes body = CONTROL__DESTINATION_TYPES__INIT;
	size_t n = 0;

	while (types[n])
		n++;
	body.types = control_alloc(r, (n + 1) * sizeof(*body.types));
	for (size_t i = 0; body.types && i < n; i++) {
		const struct destination_type *t = types[i];
		const struct option_desc *tables[] = {t->options};
		Control__DestinationType *x = control_alloc(r, sizeof(*x));
		size_t signals = 0;

		if (!x)
			break;
		control__destination_type__init(x);
		x->name = control_strdup(r, t->name);
		x->display_name = control_strdup(r, t->display_name);
		x->summary = control_strdup(r, t->summary);
		x->transport = control_strdup(r, t->transport);
		while (t->signals[signals])
			signals++;
		x->signals = control_alloc(r, (signals + 1) * sizeof(*x->signals));
		for (; x->signals && x->n_signals < signals; x->n_signals++)
			x->signals[x->n_signals] = control_strdup(r, t->signals[x->n_signals]);
		x->options = daemon_options(r, tables, 1, &x->n_options);
		body.types[body.n_types++] = x;
	}
	reply.body_case = CONTROL__REPLY__BODY_DESTINATION_TYPES;
	reply.destination_types = &body;
	control_send(r, &reply, true);
}

static void on_source_kinds(void *userdata, struct control_reply *r)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__SourceKinds body = CONTROL__SOURCE_KINDS__INIT;
	size_t n = 0;

	while (source_kinds[n])
		n++;
	body.kinds = control_alloc(r, (n + 1) * sizeof(*body.kinds));
	for (size_t i = 0; body.kinds && i < n; i++) {
		const struct source_kind *k = source_kinds[i];
		const struct option_desc *tables[] = {k->options, source_common_options};
		Control__SourceKind *x = control_alloc(r, sizeof(*x));

		if (!x)
			break;
		control__source_kind__init(x);
		x->name = control_strdup(r, k->name);
		x->summary = control_strdup(r, k->summary);
		x->example = control_strdup(r, k->example);
		x->match_help = control_strdup(r, k->match_help);
		x->match_required = k->match_required;
		x->options = daemon_options(r, tables, 2, &x->n_options);
		body.kinds[body.n_kinds++] = x;
	}
	reply.body_case = CONTROL__REPLY__BODY_SOURCE_KINDS;
	reply.source_kinds = &body;
	control_send(r, &reply, true);
}

struct test_request {
	struct control_reply *reply;
	bool gone;
};

static void on_test_cancelled(void *userdata)
{
	struct test_request *q = userdata;

	q->gone = true;
}

static void on_tested(void *userdata, const struct link_test_result *result)
{
	struct test_request *q = userdata;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__DestinationTested body = CONTROL__DESTINATION_TESTED__INIT;

	if (!q->gone) {
		body.ok = result->ok;
		body.endpoint = (char *)result->endpoint;
		body.reason = (char *)result->reason;
		body.remedy = (char *)result->remedy;
		body.http_status = result->http_status;
		body.duration_ns = result->duration_ns;
		reply.body_case = CONTROL__REPLY__BODY_DESTINATION_TESTED;
		reply.destination_tested = &body;
		control_send(q->reply, &reply, true);
	}
	free(q);
}

static void on_test_destination(
	void *userdata, struct control_reply *r, const Control__TestDestination *request)
{
	struct daemon *d = userdata;
	const struct config *c = config_current(d->config);
	struct config_destination made = {.name = (char *)"(test)", .enabled = true}, *found = NULL;
	struct option_value options[64];
	struct test_request *q;
	struct err_text err = {};
	int error = 0;

	for (size_t i = 0; i < c->n_destinations; i++)
		if (streq(c->destinations[i].name, request->name))
			found = &c->destinations[i];
	if (request->name[0] && !found) {
		error = err_set(&err, -ENOENT,
			"there is no destination '%s'; odictl destination list shows all",
			request->name);
	} else if (!found) {
		made.type = request->type;
		made.options = options;
		made.n_options = MIN(request->n_options, ARRAY_SIZE(options));
		for (size_t i = 0; i < made.n_options; i++)
			options[i] = (struct option_value){
				request->options[i]->key, request->options[i]->value};
		error = destination_check(made.type, options, made.n_options, &err);
		found = &made;
	}
	if (error < 0) {
		control_fail(r, error, &err);
		return;
	}
	q = calloc(1, sizeof(*q));
	if (!q) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	q->reply = r;
	control_on_cancel(r, on_test_cancelled, q);
	error = link_test(d->link, found, TEST_DEADLINE_MS, on_tested, q);
	if (error < 0) {
		free(q);
		daemon_fail(r, error, "the exporter cannot be asked now; try again in a moment");
	}
}

/* ---- after a change ---- */

static void describe_effects(void *userdata, struct control_reply *r, const Control__Apply *apply,
	Control__Applied *applied)
{
	struct daemon *d = userdata;
	const struct config *c = config_current(d->config);
	char **warnings = control_alloc(r, (applied->n_warnings + 4) * sizeof(*warnings));

	if (!warnings)
		return;
	if (applied->n_warnings)
		memcpy(warnings, applied->warnings, applied->n_warnings * sizeof(*warnings));
	applied->warnings = warnings;
	if (c->profiling.enabled && !d->sampler)
		warnings[applied->n_warnings++] = control_printf(r,
			"profiling is enabled but cannot "
			"start: %s",
			d->sampler_problem);
	if (!c->profiling.enabled)
		warnings[applied->n_warnings++] =
			control_strdup(r, "profiling is off: odictl profiling enable");
	else if (!source_set_size(c->sources))
		warnings[applied->n_warnings++] = control_strdup(r,
			"no source yet, so nothing is profiled: odictl source add host, or odictl "
			"source candidates to see what runs here");
}

void daemon_verbs_init(struct daemon *d)
{
	d->control_ops = (struct control_ops){
		.config = d->config,
		.store = d->store,
		.describe_effects = describe_effects,
		.status = daemon_status,
		.sources = on_sources,
		.candidates = daemon_candidates,
		.destinations = on_destinations,
		.destination_types = on_destination_types,
		.source_kinds = on_source_kinds,
		.test_destination = on_test_destination,
		.query = daemon_query,
	};
}
