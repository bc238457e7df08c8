/* SPDX-License-Identifier: Apache-2.0 */

/* The verbs about destinations: which there are and how they fare, their types, and a test through the
 * real path. Runs in agentd; all that is said of a destination's health came from the exporter. */

#include "agentd/daemon_handover.h"
#include "agentd/daemon_verbs.h"
#include "destinations/destination.h"

#define TEST_DEADLINE_MS   15000
#define MAX_TESTED_OPTIONS 64

/* Of all profile types together. */
static Control__DestinationLedger *ledger_of(
	struct control_reply *r, const struct link_destination *l)
{
	Control__DestinationLedger *x = control_alloc(r, sizeof(*x));

	if (!x)
		return NULL;
	control__destination_ledger__init(x);
	x->name = control_strdup(r, l->name);
	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		x->routed += l->ledger[t].routed;
		x->delivered += l->ledger[t].delivered;
		x->held += l->ledger[t].held;
		x->evicted += l->ledger[t].evicted;
		x->rejected += l->ledger[t].rejected;
		x->shaped += l->ledger[t].shaped;
	}
	return x;
}

/* As they may be seen: no value that is or may be a secret. */
static Control__KeyValue **shown_options(struct control_reply *r, const struct destination_type *t,
	const struct config_destination *c, size_t *ret_n)
{
	Control__KeyValue **list = daemon_key_values(r, c->options, c->n_options, ret_n);

	for (size_t i = 0; list && i < *ret_n; i++) {
		char name[100];
		const struct option_desc *o;

		snprintf(name, sizeof(name), "%.*s",
			(int)MIN(strcspn(c->options[i].name, "/"), (size_t)99), c->options[i].name);
		o = t ? option_find(t->options, name) : NULL;
		list[i]->value = control_strdup(r,
			!o || streq(name, "headers") ? "(secret)"
						     : config_option_shown(o, c->options[i].value));
	}
	return list;
}

static void fill_latencies(
	struct control_reply *r, Control__DestinationState *x, const struct latencies *l)
{
	static const char *const names[] = LATENCY_RESULT_NAMES;

	x->latencies = control_alloc(r, LATENCY_RESULTS * sizeof(*x->latencies));
	for (unsigned k = 0; x->latencies && k < LATENCY_RESULTS; k++) {
		Control__Latency *one = control_alloc(r, sizeof(*one));

		if (!one)
			return;
		control__latency__init(one);
		one->result = control_strdup(r, names[k]);
		one->counts = control_alloc(r, sizeof(l->counts[k]));
		one->n_counts = one->counts ? LATENCY_BUCKETS : 0;
		if (one->counts)
			memcpy(one->counts, l->counts[k], sizeof(l->counts[k]));
		one->sum_ns = l->sum_ns[k];
		x->latencies[x->n_latencies++] = one;
	}
}

Control__DestinationState *daemon_destination_state(
	struct daemon *d, struct control_reply *r, const struct config_destination *c)
{
	Control__DestinationState *x = control_alloc(r, sizeof(*x));
	const struct link_destination *list;
	size_t n = link_destinations(d->link, &list);
	char path[160], origin[300] = "";
	const struct destination_type *type;
	enum config_layer layer = LAYER_BUILT_IN;
	char endpoint[512] = "";
	const char *forbidden;

	if (!x)
		return NULL;
	control__destination_state__init(x);
	x->name = control_strdup(r, c->name);
	x->type = control_strdup(r, c->type);
	x->enabled = c->enabled;
	snprintf(path, sizeof(path), "destinations/%s", c->name);
	config_origin(d->config, path, &layer, origin, sizeof(origin));
	x->layer = control_strdup(r, config_layer_name(layer));
	x->origin = control_strdup(r, origin);
	x->state = control_strdup(r, c->enabled ? "idle" : "disabled");
	type = destination_type_find(c->type);
	x->options = shown_options(r, type, c, &x->n_options);
	forbidden = daemon_handover_forbidden(d, c);
	x->forbidden = control_strdup(r, forbidden ? forbidden : "");
	x->unverified =
		type && destination_flag(type, c->options, c->n_options, "insecure-skip-verify");
	if (forbidden && c->enabled)
		x->state = control_strdup(r, "forbidden");
	else if (c->enabled && type && streq(type->transport, "local"))
		x->state = control_strdup(r, "ok");
	if (type)
		destination_endpoint(type, c->options, c->n_options, endpoint, sizeof(endpoint));
	x->endpoint = control_strdup(r, endpoint);
	x->last_error = control_strdup(r, "");
	for (size_t i = 0; i < n; i++) {
		const struct link_destination *l = &list[i];

		if (!streq(l->name, c->name))
			continue;
		if (c->enabled && !forbidden)
			x->state = control_strdup(r, l->state);
		x->last_error = control_strdup(r, l->last_error);
		x->last_success_unix_ns = l->last_success_unix_ns;
		x->last_failure_unix_ns = l->last_failure_unix_ns;
		x->sent_batches = l->sent_batches;
		x->sent_bytes = l->sent_bytes;
		x->recent_batches = l->recent.batches;
		x->recent_bytes = l->recent.bytes;
		x->recent_ns = l->recent.span_ns;
		fill_latencies(r, x, &l->latencies);
		x->sent_samples = l->ledger[SAMPLE_TYPE_CPU].delivered;
		x->queued_batches = l->queued_batches;
		x->queued_bytes = l->queued_bytes;
		x->queued_since_unix_ns = l->queued_since_unix_ns;
		x->ledger = ledger_of(r, l);
		x->requests = l->requests;
		x->failures = l->failures;
	}
	return x;
}

void daemon_get_destinations(
	void *userdata, struct control_reply *r, const Control__GetDestinations *request)
{
	struct daemon *d = userdata;
	const struct config *c = d->in_force;
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

void daemon_destination_types(void *userdata, struct control_reply *r)
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
		char auth[100];
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
		for (size_t o = t->n_own; o < x->n_options; o++)
			x->options[o]->common = true;
		x->auth = control_strdup(r, destination_auth(t, auth, sizeof(auth)));
		x->endpoint_option = control_strdup(r, t->endpoint_option);
		x->example = control_strdup(r, t->example);
		x->cost = control_strdup(r, t->cost);
		x->own = t->yaml != NULL;
		body.types[body.n_types++] = x;
	}
	reply.body_case = CONTROL__REPLY__BODY_DESTINATION_TYPES;
	reply.destination_types = &body;
	control_send(r, &reply, true);
}

struct test_request {
	struct control_reply *reply;
	char endpoint[512]; /* as the options say */
	bool gone;          /* the client is; the exporter answers, or agentd's stop does */
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
		body.steps = control_alloc(q->reply, (result->n_steps + 1) * sizeof(*body.steps));
		for (size_t i = 0; body.steps && i < result->n_steps; i++) {
			Control__TestStep *step = control_alloc(q->reply, sizeof(*step));

			if (!step)
				break;
			control__test_step__init(step);
			step->name = control_strdup(q->reply, result->steps[i].name);
			step->ok = result->steps[i].ok;
			step->duration_ns = result->steps[i].duration_ns;
			step->detail = control_strdup(q->reply, result->steps[i].detail);
			body.steps[body.n_steps++] = step;
		}
		body.ok = result->ok;
		body.endpoint = (char *)(*result->endpoint ? result->endpoint : q->endpoint);
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

/* What goes nowhere is as good as what local.c says of itself. */
static bool tested_here(
	struct daemon *d, const struct config_destination *c, struct test_request *q)
{
	const struct destination_type *t = destination_type_find(c->type);
	struct link_test_result result = {.ok = true};
	struct local_state state = {};

	if (!t || !streq(t->transport, "local"))
		return false;
	local_state(d->local, &state);
	snprintf(result.endpoint, sizeof(result.endpoint), "%s/profiles", d->state_dir);
	if (state.last_problem[0]) {
		result.ok = false;
		snprintf(result.reason, sizeof(result.reason), "%s", state.last_problem);
		snprintf(result.remedy, sizeof(result.remedy), "is its disk full? df -h");
	}
	on_tested(q, &result);
	return true;
}

static void run_test(
	struct daemon *d, struct control_reply *r, const struct config_destination *destination)
{
	struct handed handed CLEANUP(daemon_handed_free) = {};
	struct test_request *q;
	struct err_text err = {};
	int error = daemon_hand(d, destination, &handed, &err);

	if (error < 0) {
		/* EPERM would be said as that of a file that manages it. */
		control_fail(r, error == -EPERM ? -EINVAL : error, &err);
		return;
	}
	q = calloc(1, sizeof(*q));
	if (!q) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	q->reply = r;
	destination_endpoint(destination_type_find(destination->type), destination->options,
		destination->n_options, q->endpoint, sizeof(q->endpoint));
	if (tested_here(d, destination, q))
		return;
	control_on_cancel(r, on_test_cancelled, q);
	error = link_test(d->link, &handed.destination, TEST_DEADLINE_MS, on_tested, q);
	if (error < 0) {
		free(q);
		daemon_fail(r, error, "the exporter cannot be asked now; try again in a moment");
	}
}

/* One that is not configured (yet): what the request says of it, checked as an Apply would. */
static void test_unnamed(
	struct daemon *d, struct control_reply *r, const Control__TestDestination *request)
{
	struct option_value options[MAX_TESTED_OPTIONS];
	struct config_destination made = {.name = (char *)"(test)",
		.type = request->type,
		.enabled = true,
		.options = options,
		.n_options = request->n_options};
	struct err_text err = {};
	int error;

	if (request->n_options > MAX_TESTED_OPTIONS) {
		daemon_fail(r, -EINVAL, "a destination has at most 64 options");
		return;
	}
	for (size_t i = 0; i < request->n_options; i++)
		options[i] =
			(struct option_value){request->options[i]->key, request->options[i]->value};
	error = destination_check(made.type, options, made.n_options, &err);
	if (error == 0)
		error = destination_check_secrets(made.type, options, made.n_options, &err);
	/* Nobody has shown that they may read it. */
	for (size_t i = 0; i < made.n_options && error == 0; i++)
		if (option_is_reference(options[i].value))
			error = err_set(&err, -EINVAL,
				"%.80s: add the destination to test it with its secrets and files",
				options[i].name);
	if (error < 0)
		control_fail(r, error, &err);
	else
		run_test(d, r, &made);
}

void daemon_test_destination(
	void *userdata, struct control_reply *r, const Control__TestDestination *request)
{
	struct daemon *d = userdata;
	const struct config *c = d->in_force;
	struct err_text err = {};

	if (!request->name[0]) {
		test_unnamed(d, r, request);
		return;
	}
	for (size_t i = 0; i < c->n_destinations; i++) {
		if (streq(c->destinations[i].name, request->name)) {
			run_test(d, r, &c->destinations[i]);
			return;
		}
	}
	err_set(&err, -ENOENT, "there is no destination '%s'; odictl destination list shows all",
		request->name);
	control_fail(r, -ENOENT, &err);
}
