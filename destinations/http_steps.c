/* SPDX-License-Identifier: Apache-2.0 */

/* How far a test of a destination came, step by step, each with its time.
 *
 * The times are libcurl's own. What it tells of TLS is in its certificate list, and its version only in the lines
 * that it writes for people, which are read here and nowhere else. A step that was not reached is left out; the
 * one that failed is the last.
 *
 * Source: curl_easy_getinfo(3). Runs in the exporter. */

#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "destinations/http.h"

#define TLS_LINE "SSL connection using "

static int on_debug(CURL *easy, curl_infotype type, char *data, size_t size, void *userdata)
{
	struct http *h = userdata;
	const char *at;
	size_t len;

	if (type != CURLINFO_TEXT || size <= sizeof(TLS_LINE))
		return 0;
	at = memmem(data, size, TLS_LINE, sizeof(TLS_LINE) - 1);
	if (!at)
		return 0;
	at += sizeof(TLS_LINE) - 1;
	for (len = 0; at + len < data + size && at[len] > ' '; len++)
		;
	snprintf(h->tls_version, sizeof(h->tls_version), "%.*s",
		(int)MIN(len, sizeof(h->tls_version) - 1), at);
	return 0;
}

void http_watch_tls(struct http *h)
{
	CURL *c = h->easy;

	curl_easy_setopt(c, CURLOPT_CERTINFO, 1L);
	curl_easy_setopt(c, CURLOPT_VERBOSE, 1L);
	curl_easy_setopt(c, CURLOPT_DEBUGFUNCTION, on_debug);
	curl_easy_setopt(c, CURLOPT_DEBUGDATA, h);
	/* From the beginning, whatever is kept. */
	curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(c, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
}

/* ---- the certificate ---- */

/* The value of KEY in "C = US, O = Some, CN = Name"; spaces around '=' as the library's version has them. */
static bool name_part(const char *text, const char *key, char *out, size_t size)
{
	size_t len = strlen(key);

	for (const char *at = text; at; at = strpbrk(at, ",;")) {
		at += strspn(at, ",; ");
		if (strncmp(at, key, len) == 0 && (at[len] == ' ' || at[len] == '=')) {
			at += len + strspn(at + len, " =");
			snprintf(out, size, "%.*s", (int)strcspn(at, ",;"), at);
			return *out;
		}
	}
	return false;
}

static void take_certificate(struct http *h)
{
	struct curl_certinfo *info = NULL;

	if (curl_easy_getinfo(h->easy, CURLINFO_CERTINFO, &info) != CURLE_OK || !info ||
		info->num_of_certs < 1)
		return;
	for (const struct curl_slist *l = info->certinfo[0]; l; l = l->next) {
		if (strncasecmp(l->data, "Issuer:", 7) == 0 &&
			!name_part(l->data + 7, "CN", h->tls_issuer, sizeof(h->tls_issuer)) &&
			!name_part(l->data + 7, "O", h->tls_issuer, sizeof(h->tls_issuer)))
			snprintf(h->tls_issuer, sizeof(h->tls_issuer), "%.100s", l->data + 7);
		if (strncasecmp(l->data, "Expire date:", 12) == 0)
			snprintf(h->tls_expires, sizeof(h->tls_expires), "%.60s", l->data + 12);
	}
	text_clean(h->tls_issuer);
}

/* Whole days until then. */
static bool days_left(const char *text, int64_t *ret)
{
	static const char *const formats[] = {"%b %d %H:%M:%S %Y", "%Y-%m-%d %H:%M:%S"};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct tm tm = {0};

		if (!strptime(text, formats[i], &tm))
			continue;
		*ret = ((int64_t)timegm(&tm) - (int64_t)(clock_unix_ns() / NSEC_PER_SEC)) / 86400;
		return true;
	}
	return false;
}

static void say_tls(struct http *h, char *out, size_t size)
{
	int64_t days;
	size_t n;

	take_certificate(h);
	n = (size_t)snprintf(out, size, "%s", *h->tls_version ? h->tls_version : "TLS");
	if (*h->tls_issuer && n < size)
		n += (size_t)snprintf(out + n, size - n, ", certificate by %s", h->tls_issuer);
	if (n < size && days_left(h->tls_expires, &days))
		snprintf(out + n, size - n,
			days < 0            ? ", run out %lld days ago"
				: days == 1 ? ", good for %lld more day"
					    : ", good for %lld more days",
			(long long)(days < 0 ? -days : days));
}

/* ---- the steps ---- */

static struct message_test_step *add(
	struct http *h, struct send_result *r, const char *name, bool ok, uint64_t ns)
{
	struct message_test_step *s = &h->steps[r->n_steps++];

	*s = (struct message_test_step){.ok = ok, .duration_ns = ns};
	snprintf(s->name, sizeof(s->name), "%s", name);
	return s;
}

static uint64_t time_of(struct http *h, CURLINFO info)
{
	curl_off_t us = 0;

	curl_easy_getinfo(h->easy, info, &us);
	return us > 0 ? (uint64_t)us * 1000 : 0;
}

/* The backend's answer as three steps: that there was one, that it knows us, that it took the request. */
static void add_answer(struct http *h, struct send_result *r, uint64_t ns)
{
	int code = h->grpc ? h->grpc_status.code : -1;
	bool denied = r->http_status == 401 || r->http_status == 403 || r->http_status == 407 ||
		code == 7 || code == 16;
	long version = 0;
	char name[32];
	struct message_test_step *s = add(h, r, "answer", r->http_status != 0, ns);

	if (!r->http_status)
		return;
	curl_easy_getinfo(h->easy, CURLINFO_HTTP_VERSION, &version);
	snprintf(s->detail, sizeof(s->detail), "%u over HTTP/%s%s%s", r->http_status,
		version == CURL_HTTP_VERSION_2_0           ? "2"
			: version == CURL_HTTP_VERSION_1_0 ? "1.0"
							   : "1.1",
		code >= 0 ? ", " : "", code >= 0 ? grpc_name(code, name, sizeof(name)) : "");
	/* Of a wrong path or a failure nobody can tell whether the credentials were looked at. */
	if (denied || r->outcome == SEND_TAKEN)
		add(h, r, "auth", !denied, 0);
	if (!denied)
		add(h, r, "accepted", r->outcome == SEND_TAKEN && !r->rejected_profiles, 0);
}

void http_take_steps(struct http *h, int code, struct send_result *r)
{
	uint64_t resolved = time_of(h, CURLINFO_NAMELOOKUP_TIME_T),
		 connected = time_of(h, CURLINFO_CONNECT_TIME_T),
		 secured = time_of(h, CURLINFO_APPCONNECT_TIME_T),
		 answered = time_of(h, CURLINFO_STARTTRANSFER_TIME_T), end = r->duration_ns;
	bool tls = streq(h->scheme, "https"), stood;
	struct message_test_step *s;
	const char *address = NULL;
	long port = 0, local_port = 0;

	r->steps = h->steps;
	r->n_steps = 0;
	curl_easy_getinfo(h->easy, CURLINFO_PRIMARY_IP, &address);
	curl_easy_getinfo(h->easy, CURLINFO_PRIMARY_PORT, &port);
	curl_easy_getinfo(h->easy, CURLINFO_LOCAL_PORT, &local_port);
	/* Some versions count the time of TLS to that of the connection, and have none when TLS fails. */
	stood = connected > 0 || local_port > 0;
	connected = stood && !connected ? resolved : connected;
	s = add(h, r, "resolve", resolved > 0 || stood, resolved ? resolved : end);
	if (!s->ok)
		return;
	if (h->proxy)
		snprintf(s->detail, sizeof(s->detail), "through the proxy %.150s", h->proxy);
	s = add(h, r, "connect", stood,
		stood ? connected - MIN(resolved, connected) : end - MIN(resolved, end));
	if (address && *address)
		snprintf(s->detail, sizeof(s->detail), "%.64s port %ld", address, port);
	if (!s->ok)
		return;
	if (tls) {
		s = add(h, r, "tls", secured > 0,
			secured ? secured - MIN(connected, secured) : end - MIN(connected, end));
		say_tls(h, s->detail, sizeof(s->detail));
		if (!s->ok)
			return;
	}
	connected = MAX(connected, secured);
	if (code != CURLE_OK && !r->http_status)
		answered = 0;
	add_answer(
		h, r, answered ? answered - MIN(connected, answered) : end - MIN(connected, end));
}
