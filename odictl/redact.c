/* SPDX-License-Identifier: Apache-2.0 */

/* The last of several nets. agentd never answers with a secret that it knows as one; but people put passwords where
 * nobody expects them (into a URL, a label, a header's name, a file that is quoted in an error), and what leaves the
 * host in a support bundle cannot be taken back. So every text goes through here, whatever it is, and rather too much
 * is taken out than too little:
 *
 *   - in URLs, the user and password, and everything behind '?'
 *   - what follows "Bearer" and "Basic"
 *   - the value of whatever is called like a secret: KEY: value, KEY=value; in JSON also where the key is the value of
 *     "path" or "key", and the secret that of the "value" beside it
 *   - private keys in PEM, and JSON web tokens by their form
 *
 * Booleans and references (file:, cred:) stay: they are no secrets, and tell whether there is one. */

#include <ctype.h>
#include <strings.h>

#include "agentd/base/text.h"
#include "odictl/cli.h"
#include "odictl/redact.h"

#define REPLACED "(secret)"
#define KEY_MAX  200

static const char *const secret_words[] = {"password", "passwd", "passphrase", "token", "secret",
	"apikey", "api-key", "api_key", "access-key", "access_key", "private-key", "private_key",
	"authorization", "credential", "cookie", "x-scope-orgid-key"};

static const char *find_word(const char *text, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i + n <= len; i++)
		if (strncasecmp(text + i, word, n) == 0)
			return text + i;
	return NULL;
}

static bool names_secret(const char *text, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(secret_words); i++)
		if (find_word(text, len, secret_words[i]))
			return true;
	return false;
}

static bool is_harmless(const char *value, size_t len)
{
	static const char *const words[] = {"true", "false", "null", "yes", "no", "none", "on",
		"off", "key=value", "key=secret", "text", "file", REPLACED, "[", "{", "[]", "{}"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strlen(words[i]) == len && strncasecmp(words[i], value, len) == 0)
			return true;
	return !len || strncmp(value, "file:/", 6) == 0 || strncmp(value, "cred:", 5) == 0;
}

struct redaction {
	const char *p; /* what is left of the text */
	struct buf *out;
	size_t n;
};

static void replace(struct redaction *r, size_t skip)
{
	buf_str(r->out, REPLACED);
	r->p += skip;
	r->n++;
}

static void keep(struct redaction *r, size_t len)
{
	buf_add(r->out, r->p, len);
	r->p += len;
}

/* Behind "://". A password may hold any character but blanks and quotes: what ends a URL in a sentence ends none here
 * before its '@'. */
static void url(struct redaction *r)
{
	size_t span = strcspn(r->p, " \t\n\"'<>`"), authority = MIN(strcspn(r->p, "/?#"), span);
	size_t at = 0;

	for (size_t i = 0; i < authority; i++)
		if (r->p[i] == '@')
			at = i;
	for (size_t i = 0; !at && i < span; i++)
		if (r->p[i] == '@' && memchr(r->p, ':', i))
			at = i;
	if (at)
		replace(r, at);
	span -= at;
	for (size_t i = 0; i < span; i++)
		if (r->p[i] == '?' && i + 1 < span) {
			keep(r, i + 1);
			replace(r, span - i - 1);
			return;
		}
	keep(r, span);
}

/* A value behind "=" or ":", in quotes or up to the next blank (the line's end, for keys of headers and YAML). */
static void value(struct redaction *r, bool to_line_end)
{
	size_t len;
	char quote;

	keep(r, strspn(r->p, " \t"));
	quote = *r->p;
	if (quote == '"' || quote == '\'') {
		keep(r, 1);
		for (len = 0; r->p[len] && r->p[len] != quote && r->p[len] != '\n'; len++)
			if (r->p[len] == '\\' && r->p[len + 1])
				len++;
	} else {
		len = strcspn(r->p, to_line_end ? "\n" : " \t\n");
	}
	while (len && isspace((unsigned char)r->p[len - 1]))
		len--;
	if (is_harmless(r->p, len))
		keep(r, len);
	else
		replace(r, len);
}

static bool is_key_char(char c)
{
	return isalnum((unsigned char)c) || strchr("_-./", c);
}

/* At the start of a word: is it "KEY=", "KEY:", "\"KEY\":"? Its length with all up to the value; 0: no. */
static size_t key_len(const char *p, size_t *name_len)
{
	size_t n = 0, end;

	while (p[n] && is_key_char(p[n]) && n < KEY_MAX)
		n++;
	*name_len = end = n;
	if (p[end] == '"' || p[end] == '\'')
		end++;
	end += strspn(p + end, " ");
	return n && (p[end] == '=' || (p[end] == ':' && p[end + 1] != '/')) ? end + 1 : 0;
}

static bool is_jwt(const char *p, size_t len)
{
	size_t dots = 0;

	for (size_t i = 0; i < len; i++)
		dots += p[i] == '.';
	return len > 40 && strncmp(p, "eyJ", 3) == 0 && dots == 2;
}

/* One word of the text, with what belongs to it. */
static void word(struct redaction *r)
{
	size_t name, key = key_len(r->p, &name);

	if (key && names_secret(r->p, name)) {
		/* "Authorization: Bearer x": all of the line. */
		bool line = r->p[key - 1] == ':' && r->p[name] == ':';

		keep(r, key);
		value(r, line);
	} else if ((name == 6 && strncasecmp(r->p, "bearer", 6) == 0) ||
		(name == 5 && strncasecmp(r->p, "basic", 5) == 0)) {
		keep(r, name);
		if (r->p[0] == ' ' && strcspn(r->p + 1, " \t\n\"',") >= 8) {
			keep(r, 1);
			replace(r, strcspn(r->p, " \t\n\"',"));
		}
	} else if (is_jwt(r->p, name)) {
		replace(r, name);
	} else {
		keep(r, MAX(name, (size_t)1));
	}
}

static void pem(struct redaction *r)
{
	const char *end = strstr(r->p, "-----END");

	replace(r, end ? (size_t)(end - r->p) : strlen(r->p));
}

size_t redact(const char *text, struct buf *out)
{
	struct redaction r = {.p = text, .out = out};

	while (*r.p) {
		if (strncmp(r.p, "://", 3) == 0) {
			keep(&r, 3);
			url(&r);
		} else if (strncmp(r.p, "-----BEGIN ", 11) == 0 &&
			find_word(r.p, strcspn(r.p, "\n"), "PRIVATE KEY")) {
			pem(&r);
		} else if (is_key_char(*r.p)) {
			word(&r);
		} else {
			keep(&r, 1);
		}
	}
	return r.n;
}

/* ---- JSON ------------------------------------------------------------------------------------------ */

/* The text of a string that starts behind its quote, as far as our own writer's escapes go; where it ends, or NULL. */
static const char *unescape(const char *p, struct buf *out)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";

	for (; *p && *p != '"'; p++) {
		const char *short_form;

		if (*p != '\\') {
			buf_add(out, p, 1);
			continue;
		}
		p++;
		short_form = *p ? strchr(from, *p) : NULL;
		if (*p == 'u' && strspn(p + 1, "0123456789abcdefABCDEF") >= 4) {
			/* Control characters, '<' and line separators: nothing that a secret is told by. */
			buf_add(out, strncasecmp(p + 1, "003c", 4) == 0 ? "<" : "?", 1);
			p += 4;
		} else if (short_form) {
			buf_add(out, &to[short_form - from], 1);
		} else if (*p) {
			buf_add(out, p, 1);
		} else {
			return NULL;
		}
	}
	buf_add(out, "", 1);
	return *p ? p + 1 : NULL;
}

static bool is_key(const char *key, const char *const *names)
{
	for (; *names; names++)
		if (streq(key, *names))
			return true;
	return false;
}

/* key: its own, or of its list; "" none. *named: the last path or key was called like a secret. */
static size_t put_string(const char *key, const char *text, bool *named, struct buf *out)
{
	static const char *const names[] = {"path", "key", "name", NULL},
				 *const values[] = {"value", "fallback", "default", NULL};
	_cleanup_buf_ struct buf clean;
	size_t n = 0;

	buf_init(&clean, 0);
	if (is_key(key, names))
		*named = names_secret(text, strlen(text));
	if ((names_secret(key, strlen(key)) || (*named && is_key(key, values))) &&
		!is_harmless(text, strlen(text))) {
		buf_str(&clean, REPLACED);
		n = 1;
	} else {
		n = redact(text, &clean);
	}
	json_escape(out, clean.len ? (const char *)clean.data : "");
	return n;
}

size_t redact_json(const char *text, struct buf *out)
{
	_cleanup_buf_ struct buf string, key;
	bool named = false;
	size_t n = 0;

	buf_init(&string, 0);
	buf_init(&key, 0);
	while (*text) {
		size_t other = strcspn(text, "\"");
		const char *end;

		buf_add(out, text, other);
		/* Texts of a list are of the list's key. */
		if (memchr(text, '{', other) || memchr(text, '}', other))
			buf_reset(&key);
		text += other;
		if (!*text)
			break;
		buf_reset(&string);
		end = unescape(text + 1, &string);
		/* Cut, or no JSON: as any text. */
		if (!end || buf_error(&string))
			return n + redact(text, out);
		if (end[strspn(end, " ")] == ':') {
			buf_add(out, text, (size_t)(end - text));
			buf_reset(&key);
			buf_add(&key, string.data, string.len);
		} else {
			n += put_string(key.len ? (const char *)key.data : "",
				(const char *)string.data, &named, out);
		}
		text = end;
	}
	return n;
}
