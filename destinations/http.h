/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of the transports over HTTP: http.c (options to a handle of libcurl), http_steps.c (how far a test came),
 * otlphttp.c (requests and what their answers mean). */

#include <curl/curl.h>

#include "destinations/grpc.h"
#include "destinations/transport.h"
#include "destinations/words.h"

#define HTTP_MAX_ANSWER (64U << 10)

struct http {
	struct sender base; /* first */
	const struct destination_type *type;
	CURL *easy;
	CURLU *url, *redirected; /* the latter: where this request was sent on to; NULL */
	struct curl_slist *headers, *connect_to;
	char *scheme, *host, *port, *path;
	char *proxy; /* host:port, for people; NULL: none is set */
	char endpoint[PROTOCOL_TEXT];
	char curl_error[CURL_ERROR_SIZE];
	uint64_t timeout_ns;
	enum shape_form form;
	enum shape_packing packing;
	bool grpc, test;
	/* of the request under way */
	const uint8_t *body;
	size_t read; /* by libcurl, of the prefix and the body (gRPC) */
	uint8_t prefix[GRPC_PREFIX];
	struct grpc_status grpc_status;
	struct buf answer;
	bool answer_too_long;
	size_t len;
	unsigned redirects;
	uint64_t started_ns;
	/* of a test */
	char tls_version[24], tls_issuer[120], tls_expires[64];
	struct message_test_step steps[PROTOCOL_STEPS];
};

int http_open(struct sender **ret, const struct sender_setup *setup, struct err_text *err);
struct sender *http_close(struct sender *s);
DEFINE_FREEP(http_freep, struct sender *, http_close)
/* What every request of this role keeps to, these and others': http and https alone, TLS 1.2 at least, redirects only
 * as its owner allows. */
void http_be_strict(CURL *easy);
/* Where a redirect leads, if it may be followed: the same host, no less safe. 0: h->redirected is set, -EPERM. */
int http_follow(struct http *h, const char *location);

/* What libcurl tells of TLS; for a test's handle. */
void http_watch_tls(struct http *h);
/* Fills result->steps. code: libcurl's. */
void http_take_steps(struct http *h, int code, struct send_result *result);
