/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Debug files from debuginfod servers, in the exporter: one at a time, straight into the descriptor that agentd gave.
 * Source: debuginfod(8), "webapi". */

#include "destinations/protocol.h"

/* Sends a message to agentd; the exporter ends when that fails. */
typedef void fetch_tell_fn(const void *message, size_t len);

/* Begins; consumes fd in any case. The answer is told once, later or (when it cannot begin) at once. -EBADMSG: m is not
 * what agentd sends. */
int fetch_start(const struct message_fetch *m, int fd, fetch_tell_fn *tell);
/* Ends the fetch with that id, if it is under way, without an answer. */
void fetch_stop(uint64_t id);
void fetch_deinit(void); /* before transport_deinit() */
