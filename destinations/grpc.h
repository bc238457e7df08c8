/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What gRPC adds to HTTP/2: a prefix before each message, and a status of its own in headers or trailers.
 * Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md), statuscodes.md; google.rpc.Status and RetryInfo for
 * grpc-status-details-bin; OTLP specification on which statuses are tried again. */

#include "agentd/base/buf.h"
#include "destinations/transport.h"

#define GRPC_PREFIX 5 /* bytes */

struct grpc_status {
	int code;                /* -1: none came */
	char message[300];       /* clean; "" none */
	bool has_retry_info;     /* only then RESOURCE_EXHAUSTED is tried again */
	uint64_t retry_after_ns; /* of it */
};
#define GRPC_STATUS_NONE ((struct grpc_status){.code = -1})

void grpc_prefix(uint8_t out[GRPC_PREFIX], bool compressed, size_t len);
/* A line of headers or trailers: takes what is gRPC's. */
void grpc_take_header(struct grpc_status *s, const char *line, size_t len);
/* Appends the one message of an answer to out, unpacked (some servers pack what answers a packed request); out's cap
 * bounds it. -EBADMSG: there is not exactly one. An answer without any is an empty message. */
int grpc_message(const void *data, size_t n, struct buf *out);
enum send_outcome grpc_outcome(const struct grpc_status *s);
/* "UNAVAILABLE"; for codes that are not known "status 99". */
const char *grpc_name(int code, char *out, size_t size);
/* Of a status that is not OK, and of none: what happened and what to do. host, port and hint are words_failure's. */
void grpc_say(const struct grpc_status *s, const char *host, const char *port, const char *hint,
	char reason[PROTOCOL_TEXT], char remedy[PROTOCOL_TEXT]);
