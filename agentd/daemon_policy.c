/* SPDX-License-Identifier: Apache-2.0 */

/* The policy of the host, for whoever wonders why a destination gets nothing: what it allows, the file that says so, and
 * which of the destinations that are set it forbids. It is only read here; agentd/config/policy.c says what it means.
 * Runs in agentd. */

#include "agentd/config/policy.h"
#include "agentd/daemon_handover.h"

static void add_forbidden(struct daemon *d, struct control_reply *r, Control__Policy *body)
{
	const struct config *c = d->in_force;

	body->forbidden = control_alloc(r, (c->n_destinations + 1) * sizeof(*body->forbidden));
	for (size_t i = 0; body->forbidden && i < c->n_destinations; i++) {
		const char *why = daemon_handover_forbidden(d, &c->destinations[i]);
		Control__KeyValue *x;

		if (!why)
			continue;
		x = control_alloc(r, sizeof(*x));
		if (!x)
			return;
		control__key_value__init(x);
		x->key = control_strdup(r, c->destinations[i].name);
		x->value = control_strdup(r, why);
		body->forbidden[body->n_forbidden++] = x;
	}
}

void daemon_get_policy(void *userdata, struct control_reply *r)
{
	struct daemon *d = userdata;
	const struct policy *p = daemon_policy(d);
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Policy body = CONTROL__POLICY__INIT;

	body.file = control_strdup(r, daemon_policy_file(d));
	body.found = p->found;
	body.problem = control_strdup(r, p->problem);
	body.hosts_bound = p->hosts_bound;
	/* Borrowed: the reply is packed at once. */
	body.hosts = p->hosts;
	body.n_hosts = p->n_hosts;
	body.require_verify = p->require_verify;
	body.folders = p->folders;
	body.n_folders = p->n_folders;
	body.folders_default = p->n_folders == 1 && streq(p->folders[0], POLICY_DEFAULT_FOLDER);
	add_forbidden(d, r, &body);
	reply.body_case = CONTROL__REPLY__BODY_POLICY;
	reply.policy = &body;
	control_send(r, &reply, true);
}
