/* SPDX-License-Identifier: Apache-2.0 */

/* OTLP over HTTP, and over gRPC (which is HTTP/2 and what grpc.c adds), by libcurl.
 *
 * One multi handle for all destinations: requests run side by side, connections are kept, names are resolved in
 * libcurl's threads, so that a backend that hangs in any phase holds up only its own destination. Every request has a
 * whole-time bound; of an answer at most 64 KiB are read.
 *
 * What an answer means follows the OTLP specification: 2xx is taken and never sent again, whatever its body is or
 * does not become (an answer that breaks off behind its status line was still given); 429, 502, 503, 504 and failures
 * without an answer are tried again; all else is refused for good. Redirects are not followed: profiles go where the
 * administrator said and nowhere else. No proxy is taken from the environment, which a role does not have.
 *
 * Values of headers and the query of a URL may be secrets: neither is ever put into a text.
 *
 * Source: OTLP specification 1.x (OTLP/HTTP, OTLP/gRPC), RFC 9110; libcurl(3). Runs in the exporter. */

#include <curl/curl.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/wire/otlp.pb-c.h"
#include "destinations/grpc.h"
#include "destinations/transport.h"
#include "destinations/words.h"

#define MAX_ANSWER        (64U << 10)
#define CONNECT_MAX_MS    10000
#define MAX_CONNECTIONS   256L
#define RETRY_AFTER_MAX_S 900

struct sender {
	struct transport_job job;
	const struct destination_type *type;
	CURL *easy;
	CURLU *url;
	struct curl_slist *headers;
	char *scheme, *host, *port, *path;
	char endpoint[PROTOCOL_TEXT];
	char curl_error[CURL_ERROR_SIZE];
	uint64_t timeout_ns;
	bool gzip, grpc, busy;
	/* of the request under way */
	const uint8_t *body;
	size_t read; /* by libcurl, of the prefix and the body (gRPC) */
	uint8_t prefix[GRPC_PREFIX];
	struct grpc_status grpc_status;
	struct buf answer;
	bool answer_too_long;
	size_t len;
	uint64_t started_ns;
	send_done_fn *done;
	void *userdata;
};

static CURLM *multi;

int transport_init(void)
{
	if (multi)
		return 0;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return -ENOMEM;
	multi = curl_multi_init();
	if (!multi)
		return -ENOMEM;
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, MAX_CONNECTIONS);
	/* One request at a time and destination: nothing to multiplex, and destinations stay apart. */
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	return 0;
}

void transport_deinit(void)
{
	if (multi)
		curl_multi_cleanup(multi);
	multi = NULL;
	curl_global_cleanup();
}

static void finish(struct transport_job *job, int code);

/* ---- opening ------------------------------------------------------------------------------------- */

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	struct sender *s = userdata;

	if (s->answer.len + size * n > MAX_ANSWER) {
		s->answer_too_long = true;
		return 0; /* ends the transfer */
	}
	buf_add(&s->answer, data, size * n);
	return buf_error(&s->answer) ? 0 : size * n;
}

/* gRPC's prefix and the body behind it, without copying that. */
static size_t on_read(char *out, size_t size, size_t n, void *userdata)
{
	struct sender *s = userdata;
	size_t room = size * n, done = 0;

	for (; s->read < GRPC_PREFIX && done < room; done++)
		out[done] = (char)s->prefix[s->read++];
	if (s->read >= GRPC_PREFIX) {
		size_t at = s->read - GRPC_PREFIX, more = MIN(room - done, s->len - at);

		memcpy(out + done, s->body + at, more);
		s->read += more;
		done += more;
	}
	return done;
}

/* libcurl sends anew what a kept connection lost at once. */
static int on_seek(void *userdata, curl_off_t offset, int origin)
{
	struct sender *s = userdata;

	if (origin != SEEK_SET || offset < 0 || (size_t)offset > s->len + GRPC_PREFIX)
		return CURL_SEEKFUNC_CANTSEEK;
	s->read = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
	struct sender *s = userdata;

	grpc_take_header(&s->grpc_status, line, size * n);
	return size * n;
}

static int url_part(CURLU *url, CURLUPart part, unsigned flags, char **ret)
{
	char *text = NULL;
	CURLUcode code = curl_url_get(url, part, &text, flags);

	if (code != CURLUE_OK || !text)
		return code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
	*ret = strdup(text);
	curl_free(text);
	return *ret ? 0 : -ENOMEM;
}

/* Takes the URL apart, adds the type's path to one without. */
static int set_url(struct sender *s, const char *url, struct err_text *err)
{
	const unsigned port_flag = CURLU_DEFAULT_PORT;
	size_t len;

	s->url = curl_url();
	if (!s->url)
		return -ENOMEM;
	if (curl_url_set(s->url, CURLUPART_URL, url, 0) != CURLUE_OK)
		return err_set(err, -EINVAL, "the url cannot be read");
	if (url_part(s->url, CURLUPART_SCHEME, 0, &s->scheme) < 0 ||
		url_part(s->url, CURLUPART_HOST, 0, &s->host) < 0 ||
		url_part(s->url, CURLUPART_PORT, port_flag, &s->port) < 0 ||
		url_part(s->url, CURLUPART_PATH, 0, &s->path) < 0)
		return err_set(err, -EINVAL, "the url needs a scheme and a host");
	if (!streq(s->scheme, "http") && !streq(s->scheme, "https"))
		return err_set(err, -EINVAL, "the url must begin with http:// or https://");
	if (streq(s->path, "/") && s->type->path[0]) {
		free(s->path);
		s->path = strdup(s->type->path);
		if (!s->path || curl_url_set(s->url, CURLUPART_PATH, s->path, 0) != CURLUE_OK)
			return -ENOMEM;
	}
	len = (size_t)snprintf(s->endpoint, sizeof(s->endpoint), "%s://%s:%s%s", s->scheme, s->host,
		s->port, s->path);
	if (len >= sizeof(s->endpoint))
		memcpy(s->endpoint + sizeof(s->endpoint) - 4, "...", 4);
	text_clean(s->endpoint);
	return 0;
}

static int add_header(struct sender *s, const char *name, const char *value)
{
	_cleanup_buf_ struct buf line;
	struct curl_slist *longer;

	buf_init(&line, 16384);
	/* "Name;" is how libcurl sends a header without a value; "Name:" would take it out. */
	if (*value)
		buf_printf(&line, "%s: %s", name, value);
	else
		buf_printf(&line, "%s;", name);
	if (buf_error(&line))
		return buf_error(&line);
	longer = curl_slist_append(s->headers, (const char *)line.data);
	if (!longer)
		return -ENOMEM;
	s->headers = longer;
	return 0;
}

/* The transport's own, those that options become, and the map of further ones. */
static int set_headers(struct sender *s, const struct option_value *options, size_t n)
{
	const struct destination_type *t = s->type;
	int r = add_header(s, "Content-Type", t->content_type);

	if (r >= 0 && s->gzip)
		r = add_header(s, s->grpc ? "grpc-encoding" : "Content-Encoding", "gzip");
	if (r >= 0 && s->grpc)
		r = add_header(s, "te", "trailers");
	/* libcurl would wait a second for a 100 that many backends never send. */
	if (r >= 0) {
		struct curl_slist *longer = curl_slist_append(s->headers, "Expect:");

		r = longer ? 0 : -ENOMEM;
		s->headers = longer ? longer : s->headers;
	}
	for (size_t i = 0; t->options[i].name && r >= 0; i++) {
		const char *value = destination_option(t, options, n, t->options[i].name);

		if (t->option_headers[i] && *value)
			r = add_header(s, t->option_headers[i], value);
	}
	for (size_t i = 0; i < n && r >= 0; i++)
		if (text_starts(options[i].name, "headers/"))
			r = add_header(s, options[i].name + 8, options[i].value);
	return r;
}

static int set_options(struct sender *s)
{
	uint64_t timeout_ms = MAX(s->timeout_ns / NSEC_PER_MSEC, (uint64_t)1);
	CURL *c = s->easy;

	curl_easy_setopt(c, CURLOPT_CURLU, s->url);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, s->headers);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "odi/" ODI_VERSION);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(
		c, CURLOPT_CONNECTTIMEOUT_MS, (long)MIN(timeout_ms, (uint64_t)CONNECT_MAX_MS));
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, s->curl_error);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, s);
	if (s->grpc) {
		curl_easy_setopt(c, CURLOPT_HTTP_VERSION,
			(long)(streq(s->scheme, "https") ? CURL_HTTP_VERSION_2TLS
							 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
		/* Before libcurl 8, a kept connection of HTTP/2 without TLS fails at its second request. */
		if (!streq(s->scheme, "https"))
			curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(c, CURLOPT_READDATA, s);
		curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(c, CURLOPT_SEEKDATA, s);
		curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
		curl_easy_setopt(c, CURLOPT_HEADERDATA, s);
	}
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A name that is still being resolved must not be waited for when its request has ended. */
	curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
#endif
	return 0;
}

static struct sender *sender_close(struct sender *s)
{
	if (!s)
		return NULL;
	if (s->busy)
		transport_remove(s->easy);
	curl_easy_cleanup(s->easy);
	curl_url_cleanup(s->url);
	curl_slist_free_all(s->headers);
	buf_deinit(&s->answer);
	free(s->scheme);
	free(s->host);
	free(s->port);
	free(s->path);
	free(s);
	return NULL;
}
DEFINE_FREEP(sender_freep, struct sender *, sender_close)

static int sender_open(struct sender **ret, const struct destination_type *type,
	const struct option_value *options, size_t n, struct err_text *err)
{
	CLEANUP(sender_freep) struct sender *s = calloc(1, sizeof(*s));
	const char *compression;
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	buf_init(&s->answer, MAX_ANSWER + 1);
	s->job.finish = finish;
	s->type = type;
	s->grpc = streq(type->transport, "otlpgrpc");
	s->easy = curl_easy_init();
	compression = destination_option(type, options, n, "compression");
	s->gzip = streq(*compression ? compression : type->compression, "gzip");
	if (text_duration(destination_option(type, options, n, "timeout"), &s->timeout_ns) < 0 ||
		!s->timeout_ns)
		s->timeout_ns = 10 * NSEC_PER_SEC;
	r = s->easy ? set_url(s, destination_option(type, options, n, type->endpoint_option), err)
		    : -ENOMEM;
	if (r >= 0)
		r = set_headers(s, options, n);
	if (r >= 0)
		r = set_options(s);
	if (r == -ENOMEM)
		return err_set(err, r, "out of memory");
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

/* ---- sending ------------------------------------------------------------------------------------- */

static int sender_send(
	struct sender *s, const void *body, size_t len, send_done_fn *done, void *userdata)
{
	int r;

	if (s->busy)
		return -EBUSY;
	buf_reset(&s->answer);
	s->answer.failed = 0;
	s->answer_too_long = false;
	s->curl_error[0] = 0;
	s->body = body;
	s->len = len;
	s->read = 0;
	s->grpc_status = GRPC_STATUS_NONE;
	s->done = done;
	s->userdata = userdata;
	s->started_ns = clock_monotonic_ns();
	if (s->grpc) {
		grpc_prefix(s->prefix, s->gzip, len);
		curl_easy_setopt(
			s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(len + GRPC_PREFIX));
	} else {
		curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
		curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, body);
	}
	r = transport_add(s->easy, &s->job);
	s->busy = r == 0;
	return r;
}

static const char *host_of(const struct sender *s)
{
	return s->host;
}

/* The message of an answer that says how it was taken. */
static void read_response(
	struct sender *s, const void *data, size_t len, struct send_result *result)
{
	Otlp__ExportResponse *m = otlp__export_response__unpack(NULL, len, data);

	if (!m) {
		snprintf(result->reason, sizeof(result->reason),
			"%s port %s answered %u, but not as a receiver of OTLP does", host_of(s),
			s->port, result->http_status);
		snprintf(result->remedy, sizeof(result->remedy),
			"is this a receiver of profiles? %s", s->type->not_found_hint);
		return;
	}
	if (m->partial_success) {
		const char *said = m->partial_success->error_message;

		if (m->partial_success->rejected_profiles > 0)
			result->rejected_profiles = (uint64_t)m->partial_success->rejected_profiles;
		if (result->rejected_profiles || *said)
			snprintf(result->reason, sizeof(result->reason),
				"%s port %s took the request and rejected %llu of its profiles%s%.300s",
				host_of(s), s->port, (unsigned long long)result->rejected_profiles,
				*said ? ": " : "", said);
		text_clean(result->reason);
	}
	otlp__export_response__free_unpacked(m, NULL);
}

/* 200, and what stands in the body. */
static void read_taken(struct sender *s, int code, struct send_result *result)
{
	const char *kind = NULL;

	curl_easy_getinfo(s->easy, CURLINFO_CONTENT_TYPE, &kind);
	if (code != CURLE_OK || (kind && strncasecmp(kind, "text/html", 9) == 0)) {
		snprintf(result->reason, sizeof(result->reason), "%s port %s answered %u, but %s",
			host_of(s), s->port, result->http_status,
			code == CURLE_OK             ? "with a web page"
				: s->answer_too_long ? "with more than an answer can be"
						     : "its answer broke off");
		snprintf(result->remedy, sizeof(result->remedy),
			"is this a receiver of profiles? %s", s->type->not_found_hint);
		return;
	}
	/* JSON comes from proxies; our request was protobuf, so a receiver's answer is, too. */
	if (s->answer.len && s->answer.data[0] != '{')
		read_response(s, s->answer.data, s->answer.len, result);
}

/* 200 is only that HTTP went well: what gRPC says counts. Without its word, in an answer that broke off, the request
 * may have been taken or not; it is sent again, as after a lost connection. */
static void read_grpc(struct sender *s, int code, struct send_result *result)
{
	_cleanup_buf_ struct buf message;

	buf_init(&message, MAX_ANSWER);
	if (s->grpc_status.code < 0 && code != CURLE_OK) {
		result->outcome = s->answer_too_long ? SEND_REFUSED : SEND_AGAIN;
		snprintf(result->reason, sizeof(result->reason),
			"%s port %s answered, but its answer %s", host_of(s), s->port,
			s->answer_too_long ? "is longer than one can be" : "broke off");
		snprintf(result->remedy, sizeof(result->remedy),
			"is this a receiver of profiles? %s", s->type->not_found_hint);
		return;
	}
	result->outcome = grpc_outcome(&s->grpc_status);
	if (s->grpc_status.retry_after_ns)
		result->retry_after_ns = s->grpc_status.retry_after_ns;
	if (result->outcome != SEND_TAKEN)
		grpc_say(&s->grpc_status, host_of(s), s->port, s->type->not_found_hint,
			result->reason, result->remedy);
	else if (grpc_message(s->answer.data, s->answer.len, &message) < 0)
		read_response(s, "\xff", 1, result); /* whatever it is, it is none */
	else
		read_response(s, message.data, message.len, result);
}

/* Without an answer (status 0) it may work later, whatever went wrong. One that broke off after its status still said
 * what it had to say. */
static enum send_outcome outcome_of(unsigned status)
{
	if (status >= 200 && status < 300)
		return SEND_TAKEN;
	return status < 200 || status == 429 || (status >= 502 && status <= 504) ? SEND_AGAIN
										 : SEND_REFUSED;
}

static void finish(struct transport_job *job, int code)
{
	struct sender *s = (struct sender *)job;
	struct send_result result = {.sent_bytes = s->len};
	const char *location = NULL;
	struct words_failure f = {.host = s->host,
		.scheme = s->scheme,
		.port = s->port,
		.path = s->path,
		.hint = s->type->not_found_hint,
		.timeout_ns = s->timeout_ns};
	curl_off_t retry_after = 0, connected = 0;
	long status = 0, request_size = 0;

	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(s->easy, CURLINFO_RETRY_AFTER, &retry_after);
	curl_easy_getinfo(s->easy, CURLINFO_REDIRECT_URL, &location);
	curl_easy_getinfo(s->easy, CURLINFO_CONNECT_TIME_T, &connected);
	curl_easy_getinfo(s->easy, CURLINFO_REQUEST_SIZE, &request_size);
	curl_easy_getinfo(s->easy, CURLINFO_OS_ERRNO, &f.os_errno);
	s->busy = false;
	result.http_status = (unsigned)status;
	result.duration_ns = clock_monotonic_ns() - s->started_ns;
	result.outcome = outcome_of(result.http_status);
	if (retry_after > 0)
		result.retry_after_ns =
			(uint64_t)MIN(retry_after, (curl_off_t)RETRY_AFTER_MAX_S) * NSEC_PER_SEC;
	f.code = result.http_status >= 200 ? 0 : code;
	f.http_status = result.http_status;
	f.connected = connected > 0 || request_size > 0; /* a kept connection took no time */
	f.location = location ? location : "";
	f.detail = f.code ? s->curl_error : s->answer.len ? (const char *)s->answer.data : "";
	if (s->grpc && status == 200)
		read_grpc(s, code, &result);
	else if (result.outcome == SEND_TAKEN)
		read_taken(s, code, &result);
	else
		words_say(&f, result.reason, result.remedy);
	s->done(s->userdata, &result);
}

int transport_add(void *handle, struct transport_job *job)
{
	curl_easy_setopt(handle, CURLOPT_PRIVATE, job);
	return curl_multi_add_handle(multi, handle) == CURLM_OK ? 0 : -ENOMEM;
}

void transport_remove(void *handle)
{
	curl_multi_remove_handle(multi, handle);
}

int transport_wait(int fd, unsigned timeout_ms, bool *readable)
{
	struct curl_waitfd extra = {.fd = fd, .events = CURL_WAIT_POLLIN};
	struct CURLMsg *m;
	int running, left;

	*readable = false;
	if (curl_multi_poll(multi, &extra, 1, (int)timeout_ms, NULL) != CURLM_OK)
		return -EIO;
	*readable = extra.revents != 0;
	if (curl_multi_perform(multi, &running) != CURLM_OK)
		return -EIO;
	while ((m = curl_multi_info_read(multi, &left))) {
		struct transport_job *job = NULL;
		CURLcode code = m->data.result;
		CURL *easy = m->easy_handle;

		if (m->msg != CURLMSG_DONE)
			continue;
		/* m is gone when the handle is taken out. */
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&job);
		curl_multi_remove_handle(multi, easy);
		job->finish(job, (int)code);
	}
	return 0;
}

/* ---- the row ------------------------------------------------------------------------------------- */

static const char *sender_endpoint(const struct sender *s)
{
	return s->endpoint;
}

static bool sender_packs(const struct sender *s)
{
	return s->gzip;
}

static const struct transport otlphttp = {
	.name = "otlphttp",
	.open = sender_open,
	.close = sender_close,
	.endpoint = sender_endpoint,
	.packs = sender_packs,
	.send = sender_send,
};

static const struct transport otlpgrpc = {
	.name = "otlpgrpc",
	.open = sender_open,
	.close = sender_close,
	.endpoint = sender_endpoint,
	.packs = sender_packs,
	.send = sender_send,
};

static const struct transport *const transports[] = {&otlphttp, &otlpgrpc};

const struct transport *transport_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(transports); i++)
		if (streq(transports[i]->name, name))
			return transports[i];
	return NULL;
}
