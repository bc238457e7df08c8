/* SPDX-License-Identifier: Apache-2.0 */

/* The last of several nets. agentd never answers with a secret that it knows as one; but people put passwords where
 * nobody expects them (into a URL, a label, a header's name, a file that is quoted in an error), and what leaves the
 * host in a support bundle cannot be taken back. So every text goes through here, whatever it is, and rather too much
 * is taken out than too little:
 *
 *   - in URLs, the user and password, and everything behind '?'
 *   - what follows "Bearer" and "Basic"
 *   - the value of whatever is called like a secret: KEY: value, KEY=value, "KEY": "value", also where the key is the
 *     value of "path" or "key" and the secret that of the "value" beside it
 *   - private keys in PEM, and JSON web tokens by their form
 *
 * Booleans and references (file:, cred:) stay: they are no secrets, and tell whether there is one. */

#include <ctype.h>
#include <strings.h>

#include "agentd/base/text.h"
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

	bool next_value; /* the next "value" belongs to what is called like a secret */
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

/* Behind "://". */
static void url(struct redaction *r)
{
	size_t whole = strcspn(r->p, " \t\n\"'<>`,;)"), authority = strcspn(r->p, "/?# \t\n\"'<>`"),
	       at = 0;

	authority = MIN(authority, whole);
	for (size_t i = 0; i < whole && i < authority; i++)
		if (r->p[i] == '@')
			at = i;
	/* A password may hold a slash: then the last '@' counts. */
	for (size_t i = 0; !at && i < whole; i++)
		if (r->p[i] == '@' && memchr(r->p, ':', i))
			at = i;
	if (at)
		replace(r, at);
	whole -= MIN(at, whole);
	for (size_t i = 0; i < whole; i++)
		if (r->p[i] == '?') {
			keep(r, i + 1);
			replace(r, whole - i - 1);
			return;
		}
	keep(r, whole);
}

/* A value behind "=" or ":", in quotes or up to the end of a word (of the line, for keys of headers and YAML). */
static void value(struct redaction *r, bool to_line_end, bool json)
{
	size_t len, skip;
	char quote;

	keep(r, strspn(r->p, " \t"));
	quote = *r->p;
	if (quote == '"' || quote == '\'') {
		keep(r, 1);
		for (len = 0; r->p[len] && r->p[len] != quote && r->p[len] != '\n'; len++)
			if (r->p[len] == '\\' && r->p[len + 1])
				len++;
	} else {
		len = strcspn(r->p, to_line_end ? "\n" : " \t\n,;\"'}])");
	}
	skip = len;
	while (skip && isspace((unsigned char)r->p[skip - 1]))
		skip--;
	/* A number or a word behind a comma of JSON */
	if (skip && r->p[skip - 1] == ',')
		skip--;
	/* A count in JSON. */
	if (is_harmless(r->p, skip) ||
		(quote >= '0' && quote <= '9' && json && strspn(r->p, "0123456789.") >= skip))
		keep(r, skip);
	else
		replace(r, skip);
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
	bool is_value = (name == 5 && strncmp(r->p, "value", 5) == 0) ||
		(name == 8 && strncmp(r->p, "fallback", 8) == 0);

	if (key && is_value && r->next_value) {
		r->next_value = false;
		keep(r, key);
		value(r, false, true);
	} else if (key && names_secret(r->p, name)) {
		/* "Authorization: Bearer x": all of the line; of JSON the value in quotes. */
		bool line = r->p[key - 1] == ':' && r->p[name] == ':';

		keep(r, key);
		value(r, line, !line);
	} else if (key &&
		((name == 4 && strncmp(r->p, "path", 4) == 0) ||
			(name == 3 && strncmp(r->p, "key", 3) == 0))) {
		size_t line = strcspn(r->p, "\n");

		r->next_value = names_secret(r->p + key, line - key);
		keep(r, key);
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
