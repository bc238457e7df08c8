/* SPDX-License-Identifier: Apache-2.0 */

/* A destination's options as a handle of libcurl.
 *
 * TLS 1.2 at least, the system's authorities or those of the option `ca`; certificates and keys come as contents, which
 * agentd or odictl read, since this role can read no such file. With `server-name` the URL is of that name and
 * CURLOPT_CONNECT_TO leads it to the real host, so that the name is both asked for (SNI) and checked, and the Host
 * header stays the real one.
 *
 * Redirects are followed to the same host alone, and never from https to http: profiles and credentials go where the
 * administrator said and nowhere else. A proxy is an option; a role has no environment to take one from.
 *
 * Values of headers, credentials and the query of a URL may be secrets: none is ever put into a text.
 *
 * Source: libcurl-easy(3), RFC 9110 section 15.4, RFC 7617. Runs in the exporter. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "destinations/http.h"

#define CONNECT_MAX_MS 10000

/* The headers may be older than the library that runs, which says itself whether it knows an option. */
#define OPTION_SSLCERT_BLOB ((CURLoption)40291)
#define OPTION_SSLKEY_BLOB  ((CURLoption)40292)
#define OPTION_CAINFO_BLOB  ((CURLoption)40309)
struct blob { /* curl_blob */
	void *data;
	size_t len;
	unsigned flags;
};
#define BLOB_COPY 1

/* ---- what libcurl calls -------------------------------------------------------------------------- */

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	struct http *h = userdata;

	if (h->answer.len + size * n > HTTP_MAX_ANSWER) {
		h->answer_too_long = true;
		return 0; /* ends the transfer */
	}
	buf_add(&h->answer, data, size * n);
	return buf_error(&h->answer) ? 0 : size * n;
}

/* gRPC's prefix and the body behind it, without copying that. */
static size_t on_read(char *out, size_t size, size_t n, void *userdata)
{
	struct http *h = userdata;
	size_t room = size * n, done = 0;

	for (; h->read < GRPC_PREFIX && done < room; done++)
		out[done] = (char)h->prefix[h->read++];
	if (h->read >= GRPC_PREFIX) {
		size_t at = h->read - GRPC_PREFIX, more = MIN(room - done, h->len - at);

		memcpy(out + done, h->body + at, more);
		h->read += more;
		done += more;
	}
	return done;
}

/* libcurl sends anew what a kept connection lost at once. */
static int on_seek(void *userdata, curl_off_t offset, int origin)
{
	struct http *h = userdata;

	if (origin != SEEK_SET || offset < 0 || (size_t)offset > h->len + GRPC_PREFIX)
		return CURL_SEEKFUNC_CANTSEEK;
	h->read = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
	struct http *h = userdata;

	grpc_take_header(&h->grpc_status, line, size * n);
	return size * n;
}

/* ---- where to ------------------------------------------------------------------------------------ */

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

static int parse_url(struct http *h, const char *url, struct err_text *err)
{
	h->url = curl_url();
	if (!h->url)
		return -ENOMEM;
	if (curl_url_set(h->url, CURLUPART_URL, url, 0) != CURLUE_OK)
		return err_set(err, -EINVAL, "the url cannot be read");
	if (url_part(h->url, CURLUPART_SCHEME, 0, &h->scheme) < 0 ||
		url_part(h->url, CURLUPART_HOST, 0, &h->host) < 0 ||
		url_part(h->url, CURLUPART_PORT, CURLU_DEFAULT_PORT, &h->port) < 0 ||
		url_part(h->url, CURLUPART_PATH, 0, &h->path) < 0)
		return err_set(err, -EINVAL, "the url needs a scheme and a host");
	if (!streq(h->scheme, "http") && !streq(h->scheme, "https"))
		return err_set(err, -EINVAL, "the url must begin with http:// or https://");
	return 0;
}

/* Takes the URL apart, adds the type's path to one without. */
static int set_url(struct http *h, const char *url, struct err_text *err)
{
	size_t len;
	int r = parse_url(h, url, err);

	if (r < 0)
		return r;
	if (streq(h->path, "/") && h->type->path[0]) {
		free(h->path);
		h->path = strdup(h->type->path);
		if (!h->path || curl_url_set(h->url, CURLUPART_PATH, h->path, 0) != CURLUE_OK)
			return -ENOMEM;
	}
	len = (size_t)snprintf(h->endpoint, sizeof(h->endpoint), "%s://%s:%s%s", h->scheme, h->host,
		h->port, h->path);
	if (len >= sizeof(h->endpoint))
		memcpy(h->endpoint + sizeof(h->endpoint) - 4, "...", 4);
	text_clean(h->endpoint);
	return 0;
}

static int append(struct curl_slist **list, const char *text)
{
	struct curl_slist *longer = curl_slist_append(*list, text);

	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

/* The certificate is another name's: that one is asked for, at the same place. */
static int set_server_name(struct http *h, const char *name, struct err_text *err)
{
	char text[1024];
	int r;

	if (!streq(h->scheme, "https"))
		return 0;
	if (strlen(name) > 253 || curl_url_set(h->url, CURLUPART_HOST, name, 0) != CURLUE_OK)
		return err_set(err, -EINVAL, "server-name: expected the name of a host");
	snprintf(text, sizeof(text), "%s:%s:%s:%s", name, h->port, h->host, h->port);
	r = append(&h->connect_to, text);
	if (r < 0)
		return r;
	snprintf(text, sizeof(text), streq(h->port, "443") ? "Host: %s" : "Host: %s:%s", h->host,
		h->port);
	curl_easy_setopt(h->easy, CURLOPT_CONNECT_TO, h->connect_to);
	return append(&h->headers, text);
}

int http_follow(struct http *h, const char *location)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *base_host = NULL;
	CURLU *url = curl_url();
	bool same;

	if (!url)
		return -ENOMEM;
	if (curl_url_set(url, CURLUPART_URL, location, 0) != CURLUE_OK ||
		url_part(url, CURLUPART_SCHEME, 0, &scheme) < 0 ||
		url_part(url, CURLUPART_HOST, 0, &host) < 0 ||
		url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT, &port) < 0 ||
		url_part(h->url, CURLUPART_HOST, 0, &base_host) < 0)
		same = false;
	else /* the same service; or another port of the host, with TLS instead of without */
		same = strcasecmp(host, base_host) == 0 &&
			((streq(scheme, h->scheme) && streq(port, h->port)) ||
				(streq(scheme, "https") && streq(h->scheme, "http")));
	free(scheme);
	free(host);
	free(port);
	free(base_host);
	if (!same) {
		curl_url_cleanup(url);
		return -EPERM;
	}
	curl_url_cleanup(h->redirected);
	h->redirected = url;
	curl_easy_setopt(h->easy, CURLOPT_CURLU, url);
	return 0;
}

/* ---- headers and credentials --------------------------------------------------------------------- */

static int add_header(struct http *h, const char *name, const char *value)
{
	_cleanup_buf_ struct buf line;

	buf_init(&line, 16384);
	/* "Name;" is how libcurl sends a header without a value; "Name:" would take it out. */
	if (*value)
		buf_printf(&line, "%s: %s", name, value);
	else
		buf_printf(&line, "%s;", name);
	return buf_error(&line) ? buf_error(&line) : append(&h->headers, (const char *)line.data);
}

static int set_own_headers(struct http *h)
{
	static const char *const packings[] = {
		[SHAPE_PLAIN] = NULL, [SHAPE_GZIP] = "gzip", [SHAPE_ZSTD] = "zstd"};
	int r = add_header(h, "Content-Type", h->grpc ? "application/grpc" : h->type->content_type);

	if (r == 0 && packings[h->packing])
		r = add_header(
			h, h->grpc ? "grpc-encoding" : "Content-Encoding", packings[h->packing]);
	if (r == 0 && h->grpc)
		r = add_header(h, "te", "trailers");
	/* libcurl would wait a second for a 100 that many backends never send. */
	return r < 0 ? r : append(&h->headers, "Expect:");
}

/* The transport's own, those that options become, and the map of further ones. */
static int set_headers(struct http *h, const struct sender_setup *u)
{
	const struct destination_type *t = h->type;
	int r = set_own_headers(h);

	for (size_t i = 0; t->options[i].name && r >= 0; i++) {
		const char *value = sender_option(u, t->options[i].name);

		if (t->option_headers[i] && *value)
			r = add_header(h, t->option_headers[i], value);
	}
	for (size_t i = 0; i < u->n_options && r >= 0; i++)
		if (text_starts(u->options[i].name, "headers/"))
			r = add_header(h, u->options[i].name + 8, u->options[i].value);
	return r;
}

/* A copy without the line's end that files of secrets have; too long or with control characters: -EINVAL. */
static int secret_text(const char *from, char *out, size_t size)
{
	size_t len = strlen(from);

	while (len && (from[len - 1] == '\n' || from[len - 1] == '\r'))
		len--;
	if (len >= size)
		return -EINVAL;
	memcpy(out, from, len);
	out[len] = 0;
	return text_is_clean(out, size) ? 0 : -EINVAL;
}

static int set_credentials(struct http *h, const struct sender_setup *u, struct err_text *err)
{
	const char *user = sender_option(u, "basic-user");
	const char *password = sender_option(u, "basic-password");
	const char *token = sender_option(u, "bearer-token");
	char text[8192], line[8192 + 16];
	int r = 0;

	if (*token && *user)
		return err_set(err, -EINVAL,
			"bearer-token and basic-user are both set; a request has one of them");
	if (*user || *password) {
		if (secret_text(password, text, sizeof(text)) < 0)
			return err_set(err, -EINVAL, "basic-password is not one line of text");
		curl_easy_setopt(h->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(h->easy, CURLOPT_USERNAME, user);
		curl_easy_setopt(h->easy, CURLOPT_PASSWORD, text);
	}
	if (*token) {
		if (secret_text(token, text, sizeof(text)) < 0 || !*text)
			return err_set(err, -EINVAL, "bearer-token is not one line of text");
		snprintf(line, sizeof(line), "Bearer %s", text);
		r = add_header(h, "Authorization", line);
	}
	explicit_bzero(text, sizeof(text));
	explicit_bzero(line, sizeof(line));
	return r;
}

/* ---- TLS and proxies ----------------------------------------------------------------------------- */

static int set_blob(
	struct http *h, CURLoption option, const char *name, const char *pem, struct err_text *err)
{
	struct blob blob = {(void *)(uintptr_t)pem, strlen(pem), BLOB_COPY};
	CURLcode code;

	if (!*pem)
		return 0;
	if (!strstr(pem, "-----BEGIN "))
		return err_set(err, -EINVAL,
			"%s is no PEM: expected a text with a line -----BEGIN ...-----", name);
	code = curl_easy_setopt(h->easy, option, &blob);
	if (code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	if (code != CURLE_OK)
		return err_set(err, -EOPNOTSUPP,
			"%s: the libcurl of this host is too old for it (7.77 or newer is needed)",
			name);
	return 0;
}

static int set_tls(struct http *h, const struct sender_setup *u, struct err_text *err)
{
	const struct destination_type *t = h->type;
	const char *cert = sender_option(u, "cert");
	const char *key = sender_option(u, "key");
	const char *name = sender_option(u, "server-name");
	CURL *c = h->easy;
	int r;

	if (!*cert != !*key)
		return err_set(err, -EINVAL, "cert and key belong together: %s is missing",
			*cert ? "key" : "cert");
	r = set_blob(h, OPTION_CAINFO_BLOB, "ca", sender_option(u, "ca"), err);
	if (r == 0)
		r = set_blob(h, OPTION_SSLCERT_BLOB, "cert", cert, err);
	if (r == 0)
		r = set_blob(h, OPTION_SSLKEY_BLOB, "key", key, err);
	if (r == 0 && *name)
		r = set_server_name(h, name, err);
	if (r < 0)
		return r;
	if (destination_flag(t, u->options, u->n_options, "insecure-skip-verify")) {
		curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return 0;
}

static int set_proxy(struct http *h, const struct sender_setup *u, struct err_text *err)
{
	const char *proxy = sender_option(u, "proxy");
	const char *user = sender_option(u, "proxy-user");
	const char *password = sender_option(u, "proxy-password");
	const char *at = strrchr(proxy, '@'), *sep = strstr(proxy, "://");
	char text[4096];

	/* "": not what the environment may say. */
	curl_easy_setopt(h->easy, CURLOPT_PROXY, proxy);
	if (!*proxy)
		return 0;
	at = at ? at + 1 : sep ? sep + 3 : proxy;
	h->proxy = strndup(at, strcspn(at, "/"));
	if (!h->proxy)
		return -ENOMEM;
	text_clean(h->proxy);
	curl_easy_setopt(h->easy, CURLOPT_NOPROXY, sender_option(u, "no-proxy"));
	if (*user) {
		if (secret_text(password, text, sizeof(text)) < 0)
			return err_set(err, -EINVAL, "proxy-password is not one line of text");
		curl_easy_setopt(h->easy, CURLOPT_PROXYUSERNAME, user);
		curl_easy_setopt(h->easy, CURLOPT_PROXYPASSWORD, text);
		explicit_bzero(text, sizeof(text));
	}
	/* gRPC needs HTTP/2 from end to end. */
	if (h->grpc)
		curl_easy_setopt(h->easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	/* What the proxy says is no status of the backend's. */
	curl_easy_setopt(h->easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	return 0;
}

/* ---- the handle ---------------------------------------------------------------------------------- */

static void set_grpc(struct http *h)
{
	bool tls = streq(h->scheme, "https");
	CURL *c = h->easy;

	curl_easy_setopt(c, CURLOPT_HTTP_VERSION,
		(long)(tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
	/* Before libcurl 8, a kept connection of HTTP/2 without TLS fails at its second request. */
	if (!tls)
		curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(c, CURLOPT_READDATA, h);
	curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(c, CURLOPT_SEEKDATA, h);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
}

void http_be_strict(CURL *c)
{
	curl_easy_setopt(c, CURLOPT_USERAGENT, "odi/" ODI_VERSION);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A name that is still being resolved must not be waited for when its request has ended. */
	curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
#endif
}

static void set_handle(struct http *h)
{
	uint64_t timeout_ms = MAX(h->timeout_ns / NSEC_PER_MSEC, (uint64_t)1);
	CURL *c = h->easy;

	http_be_strict(c);
	curl_easy_setopt(c, CURLOPT_CURLU, h->url);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, h->headers);
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(
		c, CURLOPT_CONNECTTIMEOUT_MS, (long)MIN(timeout_ms, (uint64_t)CONNECT_MAX_MS));
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->curl_error);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
	if (h->grpc)
		set_grpc(h);
	if (h->test)
		http_watch_tls(h);
}

struct sender *http_close(struct sender *s)
{
	struct http *h = (struct http *)s;

	if (!h)
		return NULL;
	if (h->base.busy)
		transport_remove(h->easy);
	curl_easy_cleanup(h->easy);
	curl_url_cleanup(h->url);
	curl_url_cleanup(h->redirected);
	curl_slist_free_all(h->headers);
	curl_slist_free_all(h->connect_to);
	buf_deinit(&h->answer);
	free(h->scheme);
	free(h->host);
	free(h->port);
	free(h->path);
	free(h->proxy);
	free(h);
	return NULL;
}

int http_open(struct sender **ret, const struct sender_setup *u, struct err_text *err)
{
	struct http *h = calloc(1, sizeof(*h));
	CLEANUP(http_freep) struct sender *s = (struct sender *)h;
	const struct destination_type *t = u->type;
	int r;

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	buf_init(&h->answer, HTTP_MAX_ANSWER + 1);
	h->type = t;
	h->test = u->test;
	h->grpc = !streq(t->transport, "otlphttp");
	h->form = streq(t->transport, "parca") ? SHAPE_WRITE_RAW : SHAPE_OTLP;
	/* The pprofs in a WriteRaw are packed already. */
	h->packing = h->form == SHAPE_WRITE_RAW ? SHAPE_PLAIN : sender_packing(u);
	h->easy = curl_easy_init();
	if (text_duration(sender_option(u, "timeout"), &h->timeout_ns) < 0 || !h->timeout_ns)
		h->timeout_ns = 10 * NSEC_PER_SEC;
	r = h->easy ? set_url(h, sender_option(u, t->endpoint_option), err) : -ENOMEM;
	if (r >= 0)
		r = set_headers(h, u);
	if (r >= 0)
		r = set_credentials(h, u, err);
	if (r >= 0)
		r = set_tls(h, u, err);
	if (r >= 0)
		r = set_proxy(h, u, err);
	if (r == -ENOMEM)
		return err_set(err, r, "out of memory");
	if (r < 0)
		return r;
	set_handle(h);
	*ret = TAKE_PTR(s);
	return 0;
}
