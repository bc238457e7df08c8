/* SPDX-License-Identifier: Apache-2.0 */

/* The end of requests that nothing was waited for. No sender calls back from within send(), so their word is put off to
 * the next wait. Runs in the exporter. */

#include "agentd/base/clock.h"
#include "destinations/at_once.h"

static void finish(struct transport_job *job, int code)
{
	struct at_once *a = (struct at_once *)job;

	a->base.busy = false;
	a->base.done(a->base.userdata, &a->result);
}

void at_once_end(struct at_once *a, uint64_t started_ns, send_done_fn *done, void *userdata)
{
	a->result.duration_ns = clock_monotonic_ns() - started_ns;
	if (a->test) {
		a->step = (struct message_test_step){.name = "accepted",
			.ok = a->result.outcome == SEND_TAKEN,
			.duration_ns = a->result.duration_ns};
		a->result.steps = &a->step;
		a->result.n_steps = 1;
	}
	a->base.done = done;
	a->base.userdata = userdata;
	a->base.job.finish = finish;
	a->base.busy = true;
	transport_defer(&a->base.job);
}
