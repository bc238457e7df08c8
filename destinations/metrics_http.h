/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* GET /metrics: our own metrics over HTTP, from text that agentd hands over when somebody asks. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agentd/base/err.h"

/* Serves at IP:PORT and nowhere else; "": nowhere. Negative with a sentence where that cannot be. */
int metrics_http_listen(const char *address, struct err_text *err);
/* What to wait for: readable when there is something to do for metrics_http_run() or on sock (borrowed). sock itself
 * while there is no listener. */
int metrics_http_wait_fd(int sock);
/* Takes what came, sends what can be sent, closes what took too long; never blocks. Returns whether somebody waits for
 * text that agentd was not asked for yet. *wake_ns (monotonic) becomes when it wants to be called again, if sooner. */
bool metrics_http_run(uint64_t now_ns, uint64_t *wake_ns);
/* The text has come: those who wait get it. len 0: there is none, and they are told so. */
void metrics_http_text(const void *text, size_t len);
