/* SPDX-License-Identifier: Apache-2.0 */

/* Fetching a debug file from a debuginfod server.
 *
 * agentd asks for one file of one server and hands over an empty file of its own; what comes is written there piece by
 * piece, and never held. A server is a stranger, so everything about it is bounded: bytes (counted as they are written,
 * whatever the head of the answer said), bytes of the head, the time for a connection, for a phase in which next to
 * nothing comes, and for all. Nothing is unpacked here: the file is asked for as it is, and what does not begin as an
 * ELF file does is refused at its first bytes, so a compressed answer is not stored and cannot swell. Whether it is the
 * right file is found out elsewhere, in the symbolizer; here nothing is parsed.
 *
 * Redirects are followed three times at most and only to the host, the port and the scheme that the administrator named
 * (http to https is fine): the build ids that are asked for go nowhere else, and nobody makes this process ask other
 * hosts.
 *
 * Bytes are sent on to the disk while they come, so that the sync at the end, before agentd is told that the file
 * is whole, has little left to wait for.
 *
 * Source: debuginfod(8); RFC 9110; libcurl(3). Runs in the exporter. */

#include <fcntl.h>
#include <stdarg.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/fetch.h"
#include "destinations/http.h"

#define REDIRECTS_MAX 3
#define HEAD_MAX      (64U << 10)
#define STALL_BYTES   1024 /* a second: less than that is next to nothing */
#define SYNC_STEP     (8U << 20)
#define RETRY_MAX_S   3600
#define QUOTE         160

static const uint8_t elf_magic[4] = {0x7f, 'E', 'L', 'F'};

/* Why a transfer was broken off by us. */
enum fetch_stop_cause { STOP_NONE, STOP_STATUS, STOP_TOO_BIG, STOP_NO_ELF, STOP_HEAD, STOP_WRITE };

static struct fetch {
	struct transport_job job;
	CURL *easy; /* NULL: nothing is under way */
	struct curl_slist *headers;
	struct message_fetch what;
	fetch_tell_fn *tell;
	int fd;
	uint64_t deadline_ns;
	uint64_t bytes, synced, head_bytes, passed_over;
	unsigned redirects;
	enum fetch_stop_cause cause;
	int write_error;
	char host[280]; /* and port, for people */
	char curl_error[CURL_ERROR_SIZE];
} fetch = {.fd = -1};

static void forget(struct fetch *f)
{
	if (f->easy)
		curl_easy_cleanup(f->easy);
	curl_slist_free_all(f->headers);
	closep(&f->fd);
	*f = (struct fetch){.fd = -1};
}

/* ---- what comes ---- */

static size_t on_head(char *data, size_t size, size_t n, void *userdata)
{
	struct fetch *f = userdata;

	f->head_bytes += size * n;
	if (f->head_bytes <= HEAD_MAX)
		return size * n;
	f->cause = STOP_HEAD;
	return 0;
}

/* Begins to write out what lies behind, without waiting for it. */
static void sync_ahead(struct fetch *f)
{
	if (f->bytes - f->synced < SYNC_STEP)
		return;
	(void)sync_file_range(
		f->fd, (off_t)f->synced, (off_t)(f->bytes - f->synced), SYNC_FILE_RANGE_WRITE);
	f->synced = f->bytes;
}

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	struct fetch *f = userdata;
	size_t len = size * n;
	long status = 0;

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	/* What else it says is not wanted; its end is waited for, so that the connection can be used again. */
	if (status != 200) {
		f->passed_over += len;
		if (f->passed_over <= HEAD_MAX)
			return len;
		f->cause = STOP_STATUS;
	} else if (len > f->what.max_bytes - f->bytes)
		f->cause = STOP_TOO_BIG;
	for (size_t i = 0; i < len && f->bytes + i < sizeof(elf_magic) && !f->cause; i++)
		if ((uint8_t)data[i] != elf_magic[f->bytes + i])
			f->cause = STOP_NO_ELF;
	if (f->cause)
		return 0; /* ends the transfer */
	f->write_error = io_write_all(f->fd, data, len);
	if (f->write_error < 0) {
		f->cause = STOP_WRITE;
		return 0;
	}
	f->bytes += len;
	sync_ahead(f);
	return len;
}

/* ---- addresses ---- */

/* One part of a URL in `ret`; "" if it has none. */
static void url_part(CURLU *url, CURLUPart part, char *ret, size_t size)
{
	char *text = NULL;

	*ret = '\0';
	if (curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK && text)
		snprintf(ret, size, "%s", text);
	curl_free(text);
}

struct place {
	char scheme[16], host[256], port[8];
};

static bool place_of(const char *url, struct place *ret)
{
	CURLU *u = curl_url();
	bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK;

	if (ok) {
		url_part(u, CURLUPART_SCHEME, ret->scheme, sizeof(ret->scheme));
		url_part(u, CURLUPART_HOST, ret->host, sizeof(ret->host));
		url_part(u, CURLUPART_PORT, ret->port, sizeof(ret->port));
		ok = *ret->host && (streq(ret->scheme, "http") || streq(ret->scheme, "https"));
	}
	curl_url_cleanup(u);
	return ok;
}

/* Whether a redirect may be followed. */
static bool same_place(const struct place *from, const struct place *to)
{
	if (strcasecmp(from->host, to->host) != 0)
		return false;
	if (streq(from->scheme, to->scheme))
		return streq(from->port, to->port);
	return streq(from->scheme, "http") && streq(from->port, "80") &&
		streq(to->scheme, "https") && streq(to->port, "443");
}

/* ---- the end, in words ---- */

static void say(struct message_fetch_done *m, enum fetch_outcome outcome, const char *remedy,
	const char *format, ...) PRINTF(4, 5);
static void say(struct message_fetch_done *m, enum fetch_outcome outcome, const char *remedy,
	const char *format, ...)
{
	va_list args;

	m->outcome = outcome;
	va_start(args, format);
	vsnprintf(m->reason, sizeof(m->reason), format, args);
	va_end(args);
	snprintf(m->remedy, sizeof(m->remedy), "%s", remedy);
	text_clean(m->reason);
	text_clean(m->remedy);
}

static void say_cause(const struct fetch *f, struct message_fetch_done *m)
{
	char size[32];

	text_format_size(f->what.max_bytes, size, sizeof(size));
	switch (f->cause) {
	case STOP_TOO_BIG:
		say(m, FETCH_FAILED_FILE,
			"install the package with the debug file instead, or make room on the disk",
			"%s sent more than the %s that are allowed for one debug file", f->host,
			size);
		return;
	case STOP_NO_ELF:
		say(m, FETCH_FAILED_FILE,
			"is that the address of a debuginfod server, and is no proxy in between that "
			"packs or replaces files?",
			"%s answered with something that is no debug file", f->host);
		return;
	case STOP_HEAD:
		say(m, FETCH_FAILED_SERVER, "is that the address of a debuginfod server?",
			"%s sent an answer whose head does not end", f->host);
		return;
	default:
		say(m, FETCH_FAILED_HERE, "make room on the disk of the state folder",
			"a debug file could not be written: %s", strerrordesc_np(-f->write_error));
		return;
	}
}

static void say_timeout(const struct fetch *f, struct message_fetch_done *m, bool connected)
{
	char limit[32];

	if (!connected) {
		text_format_duration(f->what.connect_ms * NSEC_PER_MSEC, limit, sizeof(limit));
		say(m, FETCH_FAILED_SERVER,
			"a firewall may drop the packets, or the address is wrong",
			"no connection to %s within %s", f->host, limit);
		return;
	}
	/* libcurl rounds; the limit of a stall is far from that of all. */
	if (clock_monotonic_ns() + NSEC_PER_SEC / 2 < f->deadline_ns) {
		text_format_duration(f->what.stall_ms * NSEC_PER_MSEC, limit, sizeof(limit));
		say(m, FETCH_FAILED_SERVER, "it is tried again later; a mirror may be nearer",
			"%s sent less than 1 KB a second for %s", f->host, limit);
		return;
	}
	text_format_duration(f->what.total_ms * NSEC_PER_MSEC, limit, sizeof(limit));
	say(m, FETCH_FAILED_SERVER, "it is tried again later; a mirror may be nearer",
		"%s did not send the whole file within %s", f->host, limit);
}

/* libcurl's code. */
static void say_transfer(struct fetch *f, struct message_fetch_done *m, CURLcode code)
{
	curl_off_t connected = 0;
	long os_errno = 0;

	curl_easy_getinfo(f->easy, CURLINFO_CONNECT_TIME_T, &connected);
	curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &os_errno);
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		say(m, FETCH_FAILED_SERVER,
			"is it spelled right, and does this host's DNS know it? Try: getent hosts "
			"NAME",
			"the name of %s was not resolved", f->host);
		return;
	case CURLE_COULDNT_CONNECT:
		say(m, FETCH_FAILED_SERVER,
			"is the address right, does the server run, and is no firewall in between?",
			"no connection to %s%s%s", f->host, os_errno ? ": " : "",
			os_errno ? strerrordesc_np((int)os_errno) : "");
		return;
	case CURLE_OPERATION_TIMEDOUT:
		say_timeout(f, m, connected > 0);
		return;
	case CURLE_FILESIZE_EXCEEDED:
		f->cause = STOP_TOO_BIG;
		say_cause(f, m);
		return;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
		say(m, FETCH_FAILED_SERVER,
			"the certificate must be valid, name this host and come from an authority that "
			"this host trusts (package ca-certificates); http:// where the port speaks no "
			"TLS",
			"the certificate or TLS of %s was not accepted: %.*s", f->host, QUOTE,
			f->curl_error);
		return;
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
		say(m, FETCH_FAILED_SERVER, "it is tried again later; its own log may say why",
			"%s closed the connection before the file was whole", f->host);
		return;
	default:
		say(m, FETCH_FAILED_SERVER, "is that the address of a debuginfod server?",
			"the request to %s failed: %.*s", f->host, QUOTE,
			*f->curl_error ? f->curl_error : curl_easy_strerror(code));
	}
}

static void say_status(struct fetch *f, struct message_fetch_done *m)
{
	unsigned status = m->http_status;

	if (status == 404 || status == 410)
		say(m, FETCH_NOT_FOUND, "", "%s does not have it", f->host);
	else if (status == 429 || status == 503)
		say(m, FETCH_FAILED_SERVER, "it is tried again later",
			"%s answered %u: it is asked too much, or not available now", f->host,
			status);
	else if (status == 401 || status == 403 || status == 407)
		say(m, FETCH_FAILED_SERVER, "take a server that answers everybody",
			"%s answered %u: it wants credentials", f->host, status);
	else
		say(m, FETCH_FAILED_SERVER,
			"is that the address of a debuginfod server? Its own log may say why",
			"%s answered %u", f->host, status);
}

/* ---- the request ---- */

static int begin(struct fetch *f, const char *url)
{
	uint64_t now = clock_monotonic_ns();
	CURL *c = f->easy;
	long left_ms =
		f->deadline_ns > now ? (long)((f->deadline_ns - now) / NSEC_PER_MSEC + 1) : 1;

	if (curl_easy_setopt(c, CURLOPT_URL, url) != CURLE_OK)
		return -ENOMEM;
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, left_ms);
	f->head_bytes = f->passed_over = 0;
	return transport_add(c, &f->job);
}

/* The answer sends us elsewhere: there, if that is allowed. Positive: under way. */
static int follow(struct fetch *f, struct message_fetch_done *m)
{
	struct place from, to;
	const char *url = NULL;
	char copy[2 * PROTOCOL_URL];

	curl_easy_getinfo(f->easy, CURLINFO_REDIRECT_URL, &url);
	if (!url || strlen(url) >= sizeof(copy) || !place_of(url, &to) ||
		!place_of(f->what.url, &from)) {
		say(m, FETCH_FAILED_SERVER, "is that the address of a debuginfod server?",
			"%s answered %u and sends us nowhere", f->host, m->http_status);
		return 0;
	}
	if (!same_place(&from, &to)) {
		say(m, FETCH_FAILED_SERVER,
			"redirects to other hosts are not followed: set the url to where the files are",
			"%s answered %u and sends us to %s://%.200s:%s", f->host, m->http_status,
			to.scheme, to.host, to.port);
		return 0;
	}
	if (++f->redirects > REDIRECTS_MAX) {
		say(m, FETCH_FAILED_SERVER, "is that the address of a debuginfod server?",
			"%s redirects us again and again", f->host);
		return 0;
	}
	strcpy(copy, url);
	f->cause = STOP_NONE;
	if (begin(f, copy) == 0)
		return 1;
	say(m, FETCH_FAILED_HERE, "", "out of memory");
	return 0;
}

/* The whole file came: it has to be on the disk before agentd gives it its name. */
static void take(struct fetch *f, struct message_fetch_done *m)
{
	if (f->bytes < sizeof(elf_magic)) {
		f->cause = STOP_NO_ELF;
		say_cause(f, m);
		return;
	}
	if (fdatasync(f->fd) < 0) {
		f->write_error = -errno;
		f->cause = STOP_WRITE;
		say_cause(f, m);
		return;
	}
	m->outcome = FETCH_FOUND;
}

static void end(struct fetch *f, struct message_fetch_done *m)
{
	fetch_tell_fn *tell = f->tell;

	m->header = protocol_header(MESSAGE_FETCH_DONE, sizeof(*m));
	m->id = f->what.id;
	m->bytes = f->bytes;
	forget(f);
	tell(m, sizeof(*m));
}

static void finish(struct transport_job *job, int code)
{
	struct fetch *f = (struct fetch *)job;
	struct message_fetch_done m = {0};
	curl_off_t retry = 0;
	long status = 0;

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(f->easy, CURLINFO_RETRY_AFTER, &retry);
	m.http_status = (uint32_t)status;
	if (retry > 0)
		m.retry_after_ns = (uint64_t)MIN(retry, (curl_off_t)RETRY_MAX_S) * NSEC_PER_SEC;
	if (f->cause > STOP_STATUS)
		say_cause(f, &m);
	else if (code != CURLE_OK && !f->cause)
		say_transfer(f, &m, (CURLcode)code);
	else if (status >= 300 && status < 400) {
		if (follow(f, &m) > 0)
			return;
	} else if (status != 200)
		say_status(f, &m);
	else
		take(f, &m);
	end(f, &m);
}

static bool set_options(struct fetch *f)
{
	CURL *c = f->easy;

	/* As it is, and not packed. */
	f->headers = curl_slist_append(NULL, "Accept-Encoding: identity");
	if (!f->headers)
		return false;
	http_be_strict(c);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, f->headers);
	curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)f->what.connect_ms);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)MAX(f->what.stall_ms / 1000, 1U));
	curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)f->what.max_bytes);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->curl_error);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_head);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, f);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
	return true;
}

int fetch_start(const struct message_fetch *m, int fd, fetch_tell_fn *tell)
{
	struct fetch *f = &fetch;
	struct message_fetch_done failed = {0};
	char url[PROTOCOL_URL + 80];
	struct place place;
	size_t len;

	if (fd < 0 || !memchr(m->url, 0, sizeof(m->url)) ||
		!memchr(m->build_id, 0, sizeof(m->build_id)) ||
		!protocol_build_id_ok(m->build_id) || m->max_bytes > INT64_MAX) {
		closep(&fd);
		return -EBADMSG;
	}
	/* agentd asks for one at a time: what it no longer waits for is over. */
	if (f->easy)
		fetch_stop(f->what.id);
	f->what = *m;
	f->tell = tell;
	f->fd = fd;
	f->job.finish = finish;
	f->deadline_ns = clock_monotonic_ns() + m->total_ms * NSEC_PER_MSEC;
	if (!place_of(m->url, &place)) {
		say(&failed, FETCH_FAILED_SERVER, "use http://HOST or https://HOST",
			"the address of a debuginfod server cannot be read");
		end(f, &failed);
		return 0;
	}
	snprintf(f->host, sizeof(f->host), "%s port %s", place.host, place.port);
	for (len = strlen(m->url); len && m->url[len - 1] == '/';)
		len--;
	snprintf(url, sizeof(url), "%.*s/buildid/%s/debuginfo", (int)len, m->url, m->build_id);
	f->easy = curl_easy_init();
	if (!f->easy || !set_options(f) || begin(f, url) < 0) {
		say(&failed, FETCH_FAILED_HERE, "", "out of memory");
		end(f, &failed);
	}
	return 0;
}

void fetch_stop(uint64_t id)
{
	struct fetch *f = &fetch;

	if (!f->easy || f->what.id != id)
		return;
	transport_remove(f->easy);
	forget(f);
}

void fetch_deinit(void)
{
	fetch_stop(fetch.what.id);
}
