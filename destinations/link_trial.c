/* SPDX-License-Identifier: Apache-2.0 */

/* Tests of a destination, as agentd sees them: `done` is called exactly once, by the deadline.
 *
 * A test waits for an exporter like everything else does, and goes to the next one when the one that had it dies. Its
 * result is checked as a whole before anything of it is taken; one that comes too late is passed over. At most MAX_TESTS
 * at a time. The exporter's side is in exporter_trial.c. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "destinations/link_private.h"

#define MAX_TESTS 16

static struct link_test_run *take_test(struct link *l, uint64_t id)
{
	for (struct link_test_run **p = &l->tests; *p; p = &(*p)->next) {
		struct link_test_run *t = *p;

		if (t->id != id)
			continue;
		*p = t->next;
		return t;
	}
	return NULL;
}

/* Takes t, which is off the list: done may call anything here. */
static void end_test(struct link_test_run *t, const struct link_test_result *result)
{
	t->done(t->userdata, result);
	buf_deinit(&t->spec);
	free(t);
}

void link_fail_test(struct link_test_run *t, const char *reason, const char *remedy)
{
	struct link_test_result result = {.duration_ns = clock_monotonic_ns() - t->started_ns};

	snprintf(result.reason, sizeof(result.reason), "%s", reason);
	snprintf(result.remedy, sizeof(result.remedy), "%s", remedy);
	end_test(t, &result);
}

void link_expire_tests(struct link *l, uint64_t now)
{
	for (;;) {
		struct link_test_run *t = l->tests;
		char reason[96], limit[32];

		while (t && t->deadline_ns > now)
			t = t->next;
		if (!t)
			return;
		take_test(l, t->id);
		text_format_duration(now - t->started_ns, limit, sizeof(limit));
		snprintf(reason, sizeof(reason), "no answer within %s", limit);
		link_fail_test(t, reason,
			"is the address right, and is no firewall in between that drops packets?");
	}
}

int link_test(struct link *l, const struct config_destination *d, unsigned deadline_ms,
	void (*done)(void *userdata, const struct link_test_result *result), void *userdata)
{
	struct link_test_run *t;
	size_t n = 0;
	int r;

	for (t = l->tests; t; t = t->next)
		n++;
	if (n >= MAX_TESTS)
		return -EBUSY;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	r = link_put_spec(&t->spec, 0, d);
	if (r < 0) {
		buf_deinit(&t->spec);
		free(t);
		return r;
	}
	t->id = ++l->next_test;
	t->started_ns = clock_monotonic_ns();
	t->deadline_ns = t->started_ns + MAX(deadline_ms, 1U) * NSEC_PER_MSEC;
	t->done = done;
	t->userdata = userdata;
	t->next = l->tests;
	l->tests = t;
	/* Not at once: done is called from the loop only. */
	link_feed(l);
	link_arm(l);
	return 0;
}

int link_send_test(struct link *l, struct link_test_run *t, uint64_t now)
{
	struct message_test m = {
		.header = protocol_header(MESSAGE_TEST, sizeof(m)),
		.id = t->id,
		.deadline_ms = t->deadline_ns > now
			? (uint32_t)((t->deadline_ns - now) / NSEC_PER_MSEC + 1)
			: 1,
	};
	_cleanup_close_ int fd = io_sealed_memfd("odi-destination", t->spec.data, t->spec.len);
	int r = fd < 0 ? fd : link_send_folder(l, &t->spec, TRANSPORT_TEST | t->id);

	if (r == 0)
		r = fdpass_send(l->child.sock, &m, sizeof(m), &fd, 1);
	if (r == 0)
		t->sent = true;
	return r;
}

static int take_steps(
	const struct message_test_result *m, struct link_test_result *result, const char **why)
{
	*why = "steps that cannot be";
	if (m->n_steps > ARRAY_SIZE(m->steps))
		return -EBADMSG;
	for (size_t i = 0; i < m->n_steps; i++) {
		const struct message_test_step *s = &m->steps[i];
		struct link_test_step *to = &result->steps[result->n_steps++];

		if (!link_text_ends(s->name, sizeof(s->name)) ||
			!link_text_ends(s->detail, sizeof(s->detail)))
			return -EBADMSG;
		to->ok = s->ok != 0;
		to->duration_ns = MIN(s->duration_ns, 3600 * NSEC_PER_SEC);
		snprintf(to->name, sizeof(to->name), "%s", s->name);
		snprintf(to->detail, sizeof(to->detail), "%s", s->detail);
		text_clean(to->name);
		text_clean(to->detail);
	}
	return 0;
}

int link_on_test_result(struct link *l, const struct message_test_result *m, const char **why)
{
	struct link_test_result result = {.ok = m->ok != 0, .http_status = m->http_status};
	struct link_test_run *t;

	*why = "a test that there was not";
	if (!m->id || m->id > l->next_test)
		return -EBADMSG;
	*why = "texts that do not end";
	if (!link_text_ends(m->endpoint, sizeof(m->endpoint)) ||
		!link_text_ends(m->reason, sizeof(m->reason)) ||
		!link_text_ends(m->remedy, sizeof(m->remedy)))
		return -EBADMSG;
	if (take_steps(m, &result, why) < 0)
		return -EBADMSG;
	t = take_test(l, m->id);
	if (!t)
		return 0; /* it came too late */
	memcpy(result.endpoint, m->endpoint, sizeof(result.endpoint));
	memcpy(result.reason, m->reason, sizeof(result.reason));
	memcpy(result.remedy, m->remedy, sizeof(result.remedy));
	text_clean(result.endpoint);
	text_clean(result.reason);
	text_clean(result.remedy);
	result.duration_ns = MIN(m->duration_ns, clock_monotonic_ns() - t->started_ns);
	end_test(t, &result);
	return 0;
}
