/* SPDX-License-Identifier: Apache-2.0 */

/* Requests over HTTP and what their answers mean: OTLP over HTTP, OTLP over gRPC and Parca's WriteRaw (HTTP/2 and what
 * grpc.c adds).
 *
 * Every request has a whole-time bound; of an answer at most 64 KiB are read.
 *
 * What an answer means follows the OTLP specification: 2xx is taken and never sent again, whatever its body is or
 * does not become (an answer that breaks off behind its status line was still given); 429, 502, 503, 504 and failures
 * without an answer are tried again. Of the others the specification says that the request must not be sent again,
 * which is right where they blame the request: that one is refused, or is too big and goes in pieces. An answer that
 * blames where or as whom we ask (401, 404, ...), or a web page, says nothing of the profiles: no request goes there
 * until somebody mended it, and they wait. A small one now and then finds that out.
 *
 * Source: OTLP specification 1.x (OTLP/HTTP, OTLP/gRPC), RFC 9110; libcurl(3). Runs in the exporter. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "agentd/wire/otlp.pb-c.h"
#include "destinations/http.h"
#include "destinations/transports.h"

#define RETRY_AFTER_MAX_S 900
#define MAX_REDIRECTS     3

static void finish(struct transport_job *job, int code);

static int http_send(
	struct sender *s, const void *body, size_t len, send_done_fn *done, void *userdata)
{
	struct http *h = (struct http *)s;
	int r;

	if (s->busy)
		return -EBUSY;
	buf_reset(&h->answer);
	h->answer.failed = 0;
	h->answer_too_long = false;
	h->curl_error[0] = 0;
	h->body = body;
	h->len = len;
	h->read = 0;
	h->redirects = 0;
	h->grpc_status = GRPC_STATUS_NONE;
	s->done = done;
	s->userdata = userdata;
	s->job.finish = finish;
	h->started_ns = clock_monotonic_ns();
	if (h->redirected) {
		curl_easy_setopt(h->easy, CURLOPT_CURLU, h->url);
		curl_url_cleanup(h->redirected);
		h->redirected = NULL;
	}
	if (h->grpc) {
		grpc_prefix(h->prefix, h->packing != SHAPE_PLAIN, len);
		curl_easy_setopt(
			h->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(len + GRPC_PREFIX));
	} else {
		curl_easy_setopt(h->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
		curl_easy_setopt(h->easy, CURLOPT_POSTFIELDS, body);
	}
	r = transport_add(h->easy, &s->job);
	s->busy = r == 0;
	return r;
}

/* ---- answers that were given --------------------------------------------------------------------- */

static void say_no_receiver(struct http *h, struct send_result *result, const char *what)
{
	snprintf(result->reason, sizeof(result->reason), "%.200s port %s answered %u, but %s",
		h->host, h->port, result->http_status, what);
	snprintf(result->remedy, sizeof(result->remedy), "is this a receiver of profiles? %s",
		h->type->not_found_hint);
}

/* The message of an answer that says how it was taken. */
static void read_response(struct http *h, const void *data, size_t len, struct send_result *result)
{
	Otlp__ExportResponse *m;

	if (h->form == SHAPE_WRITE_RAW)
		return; /* it has no fields */
	m = otlp__export_response__unpack(NULL, len, data);
	if (!m) {
		say_no_receiver(h, result, "not as a receiver of OTLP does");
		return;
	}
	if (m->partial_success) {
		const char *said = m->partial_success->error_message;

		if (m->partial_success->rejected_profiles > 0)
			result->rejected_profiles = (uint64_t)m->partial_success->rejected_profiles;
		if (result->rejected_profiles || *said)
			snprintf(result->reason, sizeof(result->reason),
				"%.200s port %s took the request and rejected %llu of its profiles%s%.200s",
				h->host, h->port, (unsigned long long)result->rejected_profiles,
				*said ? ": " : "", said);
		text_clean(result->reason);
	}
	otlp__export_response__free_unpacked(m, NULL);
}

/* 200, and what stands in the body. */
static void read_taken(struct http *h, int code, struct send_result *result)
{
	const char *kind = NULL;

	curl_easy_getinfo(h->easy, CURLINFO_CONTENT_TYPE, &kind);
	if (kind && strncasecmp(kind, "text/html", 9) == 0) {
		/* A form to log in, or a site's start page: nothing that took profiles. */
		result->outcome = SEND_BLOCKED;
		say_no_receiver(h, result, "with a web page");
	} else if (code != CURLE_OK) {
		say_no_receiver(h, result,
			h->answer_too_long ? "with more than an answer can be"
					   : "its answer broke off");
	} else if (h->answer.len && h->answer.data[0] != '{') {
		/* JSON comes from proxies; our request was protobuf, so a receiver's answer is, too. */
		read_response(h, h->answer.data, h->answer.len, result);
	}
}

/* 200 is only that HTTP went well: what gRPC says counts. Without its word, in an answer that broke off, the request
 * may have been taken or not; it is sent again, as after a lost connection. */
static void read_grpc(struct http *h, int code, struct send_result *result)
{
	_cleanup_buf_ struct buf message;

	buf_init(&message, HTTP_MAX_ANSWER);
	if (h->grpc_status.code < 0 && code != CURLE_OK) {
		result->outcome = h->answer_too_long ? SEND_BLOCKED : SEND_AGAIN;
		say_no_receiver(h, result,
			h->answer_too_long ? "its answer is longer than one can be"
					   : "its answer broke off");
		return;
	}
	result->outcome = grpc_outcome(&h->grpc_status);
	if (h->grpc_status.retry_after_ns)
		result->retry_after_ns = h->grpc_status.retry_after_ns;
	if (result->outcome != SEND_TAKEN) {
		grpc_say(&h->grpc_status, h->host, h->port, h->type->not_found_hint, result->reason,
			result->remedy);
		/* What a collector lacks then is no matter where it is Parca that is wanted. */
		if (h->grpc_status.code == 12 && h->form == SHAPE_WRITE_RAW)
			snprintf(result->remedy, sizeof(result->remedy), "%.500s",
				h->type->not_found_hint);
	} else if (grpc_message(h->answer.data, h->answer.len, &message) < 0) {
		read_response(h, "\xff", 1, result); /* whatever it is, it is none */
	} else {
		read_response(h, message.data, message.len, result);
	}
}

/* ---- the others ---------------------------------------------------------------------------------- */

/* Without an answer (status 0) it may work later, whatever went wrong. One that broke off after its status still said
 * what it had to say. */
static enum send_outcome outcome_of(unsigned status)
{
	/* Where we ask, how, or as whom. */
	static const unsigned blocked[] = {401, 402, 403, 404, 405, 406, 407, 408, 410, 411, 415,
		421, 426, 431, 451, 501, 505, 511};

	if (status >= 200 && status < 300)
		return SEND_TAKEN;
	if (status < 200 || status == 429 || (status >= 502 && status <= 504))
		return SEND_AGAIN;
	if (status == 413)
		return SEND_TOO_BIG;
	for (size_t i = 0; i < ARRAY_SIZE(blocked); i++)
		if (blocked[i] == status)
			return SEND_BLOCKED;
	return status < 400 ? SEND_BLOCKED : SEND_REFUSED;
}

static bool is_redirect(unsigned status)
{
	return status == 301 || status == 302 || status == 307 || status == 308;
}

/* Goes where the answer points, if that may be. */
static bool follow(struct http *h, unsigned status, const char *location)
{
	if (!is_redirect(status) || !location || h->redirects == MAX_REDIRECTS ||
		http_follow(h, location) < 0)
		return false;
	h->redirects++;
	buf_reset(&h->answer);
	h->answer_too_long = false;
	h->read = 0;
	h->grpc_status = GRPC_STATUS_NONE;
	return transport_add(h->easy, &h->base.job) == 0;
}

/* The proxy's word, not the backend's. */
static void say_proxy(struct http *h, int code, long status, struct send_result *result)
{
	if (status)
		snprintf(result->reason, sizeof(result->reason),
			"the proxy %.200s answered %ld when it was asked for %.200s port %s",
			h->proxy, status, h->host, h->port);
	else
		snprintf(result->reason, sizeof(result->reason),
			code == CURLE_COULDNT_RESOLVE_PROXY
				? "the name of the proxy %.200s was not resolved"
				: "no connection to the proxy %.200s",
			h->proxy);
	snprintf(result->remedy, sizeof(result->remedy), "%s",
		status == 407    ? "set proxy-user and proxy-password"
			: status ? "may this host go there through it? Its own log says more"
				 : "check the option proxy, or set no-proxy for this backend");
	if (status)
		result->outcome = SEND_BLOCKED;
}

static void say(struct http *h, int code, struct send_result *result)
{
	curl_off_t connected = 0, secured = 0;
	long request_size = 0, proxy_status = 0, local_port = 0;
	char *location = NULL, shown[256];
	struct words_failure f = {.host = h->host,
		.scheme = h->scheme,
		.port = h->port,
		.path = h->path,
		.hint = h->type->not_found_hint,
		.timeout_ns = h->timeout_ns};

	curl_easy_getinfo(h->easy, CURLINFO_REDIRECT_URL, &location);
	curl_easy_getinfo(h->easy, CURLINFO_CONNECT_TIME_T, &connected);
	curl_easy_getinfo(h->easy, CURLINFO_APPCONNECT_TIME_T, &secured);
	curl_easy_getinfo(h->easy, CURLINFO_REQUEST_SIZE, &request_size);
	curl_easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &f.os_errno);
	curl_easy_getinfo(h->easy, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
	curl_easy_getinfo(h->easy, CURLINFO_LOCAL_PORT, &local_port);
	/* A kept connection took no time, and one that hangs in TLS has none yet. */
	f.connected = connected > 0 || request_size > 0 || local_port > 0;
	f.secured = !streq(h->scheme, "https") || secured > 0;
	if (h->proxy && !result->http_status &&
		(proxy_status >= 300 || code == CURLE_COULDNT_RESOLVE_PROXY ||
			(code == CURLE_COULDNT_CONNECT && !f.connected))) {
		say_proxy(h, code, proxy_status >= 300 ? proxy_status : 0, result);
		return;
	}
	f.code = result->http_status >= 200 ? 0 : code;
	f.http_status = result->http_status;
	/* Its query may repeat ours, in which a secret may be. */
	snprintf(shown, sizeof(shown), "%.*s", location ? (int)strcspn(location, "?#") : 0,
		location ? location : "");
	f.location = shown;
	f.detail = f.code ? h->curl_error : h->answer.len ? (const char *)h->answer.data : "";
	words_say(&f, result->reason, result->remedy);
	if (result->http_status == 404 && *h->type->path && !strchr(h->type->path, '{') &&
		!streq(h->path, h->type->path))
		snprintf(result->remedy, sizeof(result->remedy),
			"leave the path out of the url: %.150s is added then; %.300s",
			h->type->path, h->type->not_found_hint);
}

static void finish(struct transport_job *job, int code)
{
	struct http *h = (struct http *)job;
	struct send_result result = {.sent_bytes = h->len};
	const char *location = NULL;
	curl_off_t retry_after = 0;
	long status = 0;

	curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(h->easy, CURLINFO_RETRY_AFTER, &retry_after);
	curl_easy_getinfo(h->easy, CURLINFO_REDIRECT_URL, &location);
	if (follow(h, (unsigned)status, location))
		return;
	h->base.busy = false;
	result.http_status = (unsigned)status;
	result.duration_ns = clock_monotonic_ns() - h->started_ns;
	result.outcome = outcome_of(result.http_status);
	if (retry_after > 0)
		result.retry_after_ns =
			(uint64_t)MIN(retry_after, (curl_off_t)RETRY_AFTER_MAX_S) * NSEC_PER_SEC;
	if (h->grpc && status == 200)
		read_grpc(h, code, &result);
	else if (result.outcome == SEND_TAKEN)
		read_taken(h, code, &result);
	else
		say(h, code, &result);
	if (h->test)
		http_take_steps(h, code, &result);
	h->base.done(h->base.userdata, &result);
}

/* ---- the rows ------------------------------------------------------------------------------------ */

static const char *http_endpoint(const struct sender *s)
{
	return ((const struct http *)s)->endpoint;
}

static void http_shape(const struct sender *s, struct shape_limits *limits)
{
	const struct http *h = (const struct http *)s;

	limits->form = h->form;
	limits->packing = h->packing;
}

const struct transport transport_otlphttp = {
	.name = "otlphttp",
	.open = http_open,
	.close = http_close,
	.endpoint = http_endpoint,
	.shape = http_shape,
	.send = http_send,
};

const struct transport transport_otlpgrpc = {
	.name = "otlpgrpc",
	.open = http_open,
	.close = http_close,
	.endpoint = http_endpoint,
	.shape = http_shape,
	.send = http_send,
};

const struct transport transport_parca = {
	.name = "parca",
	.open = http_open,
	.close = http_close,
	.endpoint = http_endpoint,
	.shape = http_shape,
	.send = http_send,
};
