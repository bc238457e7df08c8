/* SPDX-License-Identifier: Apache-2.0 */

/* The verbs about destinations: which there are and how they fare, their types, and a test through the
 * real path. Runs in agentd; all that is said of a destination's health came from the exporter. */

#include "agentd/daemon_verbs.h"
#include "destinations/destination.h"

#define TEST_DEADLINE_MS   15000
#define MAX_TESTED_OPTIONS 64

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
	type = destination_type_find(c->type);
	if (type)
		destination_endpoint(type, c->options, c->n_options, endpoint, sizeof(endpoint));
	x->endpoint = control_strdup(r, endpoint);
	x->last_error = control_strdup(r, "");
	for (size_t i = 0; i < n; i++) {
		const struct link_destination *l = &list[i];

		if (!streq(l->name, c->name))
			continue;
		if (c->enabled)
			x->state = control_strdup(r, l->state);
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

struct test_request {
	struct control_reply *reply;
	bool gone; /* the client is; the exporter answers, or agentd's stop does */
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

static void run_test(
	struct daemon *d, struct control_reply *r, const struct config_destination *destination)
{
	struct test_request *q = calloc(1, sizeof(*q));
	int error;

	if (!q) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	q->reply = r;
	control_on_cancel(r, on_test_cancelled, q);
	error = link_test(d->link, destination, TEST_DEADLINE_MS, on_tested, q);
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
