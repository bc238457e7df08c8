/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* agentd's side of the /proc reader: requests by id, in order, each with a deadline. A reader that does not
 * answer in time is killed and started again; the request that it hung at fails, the others are asked
 * again. */

#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "agentd/process/protocol.h"

struct client;

struct client_result {
	int status; /* 0, or -errno: what the reader said, -ETIMEDOUT (killed for it), -EIO (no reader to be had) */
	uint64_t t0, t1;
	const uint8_t *body; /* borrowed */
	size_t len;
	int fd; /* -1 none; take it by TAKE_FD, else it is closed */
};

struct client_counters {
	uint64_t requests, timed_out, restarts;
};

int client_new(struct client **ret, sd_event *loop, const char *proc_root, unsigned deadline_ms);
/* Drops what is under way: done is called with -ECANCELED. */
struct client *client_free(struct client *c);
DEFINE_FREEP(client_freep, struct client *, client_free)

/* Asks; request's id is filled in, path (NULL: none) is copied. done is called exactly once, never before this
 * returns 0; when it returns an error, not at all. */
int client_ask(struct client *c, const struct reader_request *request, const char *path,
	void (*done)(void *userdata, struct client_result *result), void *userdata);
size_t client_in_flight(const struct client *c);
/* Handles what has arrived, waiting at most so long for something. For callers outside the event loop. */
void client_pump(struct client *c, int timeout_ms);
void client_counters(const struct client *c, struct client_counters *ret);
pid_t client_pid(const struct client *c); /* -1: none runs */
