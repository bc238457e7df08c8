/* SPDX-License-Identifier: Apache-2.0 */

/* The status's part on sandboxes: what holds each process that reads what others wrote or reaches the network, and
 * what it has to do without. A child that could not close its sandbox has ended, so what is missing here is what a
 * kernel does not offer, or a process that has just been started. Runs in agentd. */

#include "agentd/base/landlock.h"
#include "agentd/base/sandbox.h"
#include "agentd/daemon_verbs.h"

#define ROLES     4
#define SENTENCES 4

struct role {
	const char *name;
	pid_t pid;
	bool looks;   /* at others: keeps the capabilities for it, and opens their files */
	bool service; /* of its own: its pid is not known here */
};

static void say(Control__Sandbox *x, struct control_reply *r, bool has, const char *text)
{
	char ***list = has ? &x->has : &x->lacks;
	size_t *n = has ? &x->n_has : &x->n_lacks;

	if (!*list)
		*list = control_alloc(r, SENTENCES * sizeof(**list));
	if (*list && *n < SENTENCES)
		(*list)[(*n)++] = control_strdup(r, text);
}

static void say_paths(Control__Sandbox *x, struct control_reply *r, int abi)
{
	char text[64];

	snprintf(text, sizeof(text), "Landlock (version %d)", abi);
	say(x, r, abi > 0, abi > 0 ? text : "Landlock: not on this kernel");
}

static void look(Control__Sandbox *x, struct control_reply *r, const struct role *role, int abi)
{
	struct sandbox_seen seen;

	if (role->service) {
		say(x, r, true, "a service of its own: systemctl cat odi-exporter");
		return;
	}
	if (sandbox_look(role->pid, &seen) < 0) {
		say(x, r, false, "what it has cannot be read: it has just ended");
		return;
	}
	if (!seen.filtered || !seen.no_new_privileges) {
		say(x, r, false, "its sandbox is not closed yet");
		return;
	}
	say(x, r, true, "system call filter");
	if (role->looks) {
		say(x, r, true, "only capabilities to look at others");
		return;
	}
	say(x, r, !seen.capabilities,
		seen.capabilities ? "some capabilities are left" : "no capabilities");
	say_paths(x, r, abi);
}

void daemon_status_sandboxes(struct daemon *d, struct control_reply *r, Control__Status *s)
{
	const struct role roles[ROLES] = {
		{.name = "proc reader", .pid = process_reader_pid(d->processes), .looks = true},
		{.name = "symbolizer", .pid = symbol_child_pid(d->symbols)},
		{.name = "unwinder", .pid = daemon_unwinder_pid(d)},
		{.name = "exporter",
			.pid = link_child_pid(d->link),
			.service = d->exporter_socket != NULL},
	};
	int abi = landlock_abi();

	s->sandboxes = control_alloc(r, ROLES * sizeof(*s->sandboxes));
	for (size_t i = 0; s->sandboxes && i < ROLES; i++) {
		Control__Sandbox *x;

		if (roles[i].pid <= 0 && !roles[i].service)
			continue;
		x = control_alloc(r, sizeof(*x));
		if (!x)
			return;
		control__sandbox__init(x);
		x->role = control_strdup(r, roles[i].name);
		x->pid = roles[i].pid > 0 ? (uint32_t)roles[i].pid : 0;
		look(x, r, &roles[i], abi);
		s->sandboxes[s->n_sandboxes++] = x;
	}
}
