/* SPDX-License-Identifier: Apache-2.0 */

/* Every way in which a request fails, as two sentences.
 *
 * The first says what happened, with the host, port or status that matters; the second what to do. What a backend said
 * is quoted, cut and cleaned. Users read these in `odictl status` and `destination test`, so a row here is worth
 * more than a page of documentation. Runs in the exporter. */

#include <stdarg.h>
#include <curl/curl.h>

#include "agentd/base/text.h"
#include "destinations/words.h"

#define QUOTE 160

static void put(char *out, const char *format, ...) PRINTF(2, 3);
static void put(char *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(out, PROTOCOL_TEXT, format, args);
	va_end(args);
	text_clean(out);
}

/* What the other side wrote, as `: "..."`, or nothing. */
static const char *quoted(const char *detail, char *out, size_t size)
{
	size_t len;

	while (*detail == ' ' || *detail == '\n' || *detail == '\r' || *detail == '\t')
		detail++;
	len = strcspn(detail, "\r\n");
	while (len && detail[len - 1] == ' ')
		len--;
	if (!len)
		return "";
	snprintf(out, size, ": \"%.*s\"", (int)MIN(len, (size_t)QUOTE), detail);
	return out;
}

static void say_connection(const struct words_failure *f, char *reason, char *remedy)
{
	if (f->os_errno == ECONNREFUSED) {
		put(reason, "connection refused by %s port %s", f->host, f->port);
		put(remedy,
			"nothing listens there: start the backend, or correct the port: odictl destination "
			"set NAME url=URL%s%s",
			*f->hint ? "; " : "", f->hint);
	} else if (f->os_errno == ENETUNREACH || f->os_errno == EHOSTUNREACH) {
		put(reason, "%s cannot be reached (%s)", f->host,
			strerrordesc_np((int)f->os_errno));
		put(remedy, "check this host's routes and any firewall in between");
	} else {
		put(reason, "no connection to %s port %s%s%s", f->host, f->port,
			f->os_errno ? ": " : "",
			f->os_errno ? strerrordesc_np((int)f->os_errno) : "");
		put(remedy, "check that the backend runs and that no firewall is in between");
	}
}

static void say_timeout(const struct words_failure *f, char *reason, char *remedy)
{
	char text[32];

	text_format_duration(f->timeout_ns, text, sizeof(text));
	if (f->connected && !f->secured) {
		put(reason, "%s port %s took the connection and did not begin TLS within %s",
			f->host, f->port, text);
		put(remedy,
			"does that port speak TLS? If not, use http:// instead of https:// in the url, or "
			"insecure");
	} else if (f->connected) {
		put(reason, "%s port %s took the connection and did not answer within %s", f->host,
			f->port, text);
		put(remedy,
			"is the backend overloaded, or is another service on that port? A longer "
			"`timeout` can be set");
	} else {
		put(reason, "no connection to %s port %s within %s", f->host, f->port, text);
		put(remedy, "a firewall may drop the packets, or the address is wrong");
	}
}

static void say_tls(const struct words_failure *f, char *reason, char *remedy)
{
	char quote[QUOTE + 8];

	put(reason, "the certificate or TLS of %s port %s was not accepted%s", f->host, f->port,
		quoted(f->detail, quote, sizeof(quote)));
	if (f->code == CURLE_SSL_CONNECT_ERROR)
		put(remedy,
			"does that port speak TLS? If not, use http:// instead of https:// in the url, or "
			"insecure");
	else if (f->code == CURLE_SSL_CACERT_BADFILE)
		put(remedy,
			"this host has no list of trusted authorities: install ca-certificates");
	else
		put(remedy,
			"the certificate must be valid, name the host of the url (or server-name), and come "
			"from an authority that this host trusts (/etc/ssl/certs) or that --ca FILE names "
			"(odictl destination set NAME ca=FILE)");
}

/* In TLS 1.3 a server looks at our certificate when the handshake is over for us: what it thinks of it comes instead of
 * an answer. */
static bool say_alert(const struct words_failure *f, char *reason, char *remedy)
{
	if (!strcasestr(f->detail, "alert") || !strcasestr(f->detail, "certificate"))
		return false;
	if (strcasestr(f->detail, "required")) {
		put(reason, "%s port %s wants a certificate of ours", f->host, f->port);
		put(remedy, "set cert and key: a client certificate that it trusts");
	} else {
		put(reason, "%s port %s does not accept our certificate", f->host, f->port);
		put(remedy,
			"has it run out, and does the backend trust the authority it comes from?");
	}
	return true;
}

/* libcurl's code. */
static void say_transfer(const struct words_failure *f, char *reason, char *remedy)
{
	char quote[QUOTE + 8];

	switch (f->code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		put(reason, "the name %s was not resolved", f->host);
		put(remedy,
			"is it spelled right, and does this host's DNS know it? Try: getent hosts %s",
			f->host);
		return;
	case CURLE_COULDNT_CONNECT:
		say_connection(f, reason, remedy);
		return;
	case CURLE_OPERATION_TIMEDOUT:
		say_timeout(f, reason, remedy);
		return;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_USE_SSL_FAILED:
		say_tls(f, reason, remedy);
		return;
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
		if (say_alert(f, reason, remedy))
			return;
		put(reason, "%s port %s closed the connection without a whole answer", f->host,
			f->port);
		put(remedy, "%s %s%sThe backend's own log may say more",
			streq(f->scheme, "https")
				? "does it want a certificate of ours (cert and key), or does another "
				  "service listen there?"
				: "does another service listen there, or does the port want TLS (https://)?",
			f->hint, *f->hint ? ". " : "");
		return;
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		put(reason, "%s port %s does not answer as an HTTP server does%s", f->host, f->port,
			quoted(f->detail, quote, sizeof(quote)));
		put(remedy, "is it a gRPC or another port of the backend? %s", f->hint);
		return;
	default:
		put(reason, "the request to %s port %s failed%s", f->host, f->port,
			quoted(*f->detail ? f->detail : curl_easy_strerror((CURLcode)f->code),
				quote, sizeof(quote)));
		put(remedy, "check the url and that the backend runs");
	}
}

static const struct {
	unsigned status;
	const char *what, *remedy;
} statuses[] = {
	{400, "did not understand the request",
		"a backend of another protocol, or one that speaks OTLP profiles of another version "
		"(v1.10 or later is needed)"},
	{401, "wants credentials, or others than these",
		"odictl destination set NAME bearer-token-file=FILE, or basic-user=USER basic-password-file=FILE, "
		"or secret-headers/KEY=FILE"},
	{403, "refuses these credentials", "check the token or tenant and its rights to write"},
	{405, "does not take POST there", "check the path of the url"},
	{407, "is a proxy that wants credentials",
		"set proxy-user and proxy-password, or check the url"},
	{408, "waited too long for the request", "check the network between here and there"},
	{413, "says that the request is too big", "raise the backend's limit for request bodies"},
	{415, "does not take protobuf (application/x-protobuf)",
		"is this the address of an OTLP receiver for profiles?"},
	{422, "refuses the profiles", "its own log says why"},
	{429, "says that too much is sent",
		"it is tried again later; raise its rate limit if it goes on"},
	{500, "failed while it took the profiles", "its own log says why"},
	{501, "does not know profiles", "switch profiles on in the backend, or use a newer one"},
	{502, "is a proxy whose backend did not answer", "it is tried again; is the backend up?"},
	{503, "is not available now", "it is tried again; is the backend up?"},
	{504, "is a proxy whose backend was too slow",
		"it is tried again; is the backend overloaded?"},
};

static void say_status(const struct words_failure *f, char *reason, char *remedy)
{
	char quote[QUOTE + 8];
	const char *said = quoted(f->detail, quote, sizeof(quote));

	if (f->http_status == 404) {
		put(reason, "%s port %s answered 404: it does not know the path %s", f->host,
			f->port, f->path);
		put(remedy, "%s", *f->hint ? f->hint : "check the path of the url");
		return;
	}
	if (f->http_status >= 300 && f->http_status < 400) {
		put(reason, "%s port %s answered %u and sends us elsewhere%s%.200s", f->host,
			f->port, f->http_status, *f->location ? ": " : "", f->location);
		put(remedy,
			"only redirects to the same host are followed, and none from https to http: set "
			"the url to where the profiles shall go");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (statuses[i].status != f->http_status)
			continue;
		put(reason, "%s port %s answered %u: it %s%s", f->host, f->port, f->http_status,
			statuses[i].what, said);
		put(remedy, "%s", statuses[i].remedy);
		return;
	}
	put(reason, "%s port %s answered %u%s", f->host, f->port, f->http_status, said);
	put(remedy, "the backend's own log may say why");
}

void words_say(
	const struct words_failure *f, char reason[PROTOCOL_TEXT], char remedy[PROTOCOL_TEXT])
{
	*reason = *remedy = 0;
	if (f->code)
		say_transfer(f, reason, remedy);
	else
		say_status(f, reason, remedy);
}
