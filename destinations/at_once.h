/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Senders that are through before send() returns (files, the log). They fill `result`; who sent is told of it from
 * transport_wait(), as the others do, and a test has one step. */

#include "destinations/transport.h"

struct at_once {
	struct sender base; /* first */
	bool test;          /* was opened for one */
	struct send_result result;
	struct message_test_step step;
};

/* result says what became of it, but for the time since started_ns (monotonic) and the step. */
void at_once_end(struct at_once *a, uint64_t started_ns, send_done_fn *done, void *userdata);
