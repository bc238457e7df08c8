/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Failures of requests in words: what happened, and what a person can do about it. Never a header's value, never a
 * URL's query. */

#include "destinations/protocol.h"

struct words_failure {
	int code; /* libcurl's; 0: there is an answer with http_status */
	long os_errno;
	unsigned http_status;
	const char *scheme, *host, *port, *path; /* of the endpoint */
	const char *detail; /* libcurl's own text, or the beginning of the answer's body; "" none */
	const char *location; /* of a redirect; "" none */
	const char *hint;     /* the type's, for 404 */
	uint64_t timeout_ns;
	bool connected; /* a connection stood when it failed */
	bool secured;   /* and TLS on it; or there is to be none */
};

void words_say(
	const struct words_failure *f, char reason[PROTOCOL_TEXT], char remedy[PROTOCOL_TEXT]);
