/* SPDX-License-Identifier: Apache-2.0 */

/* Error text for people.
 *
 * A code says what kind of thing went wrong, which is enough for a program; a person needs to know
 * to what, and what to do about it. The text is made where the knowledge is and travels in the
 * caller's storage, so nothing here allocates and nothing here can fail.
 *
 * Invariants: the text is always terminated, valid UTF-8, on one line, free of control characters
 * (a file name or a reply of a stranger may be quoted in it, and it ends on terminals and in logs);
 * errno is as it was before the call. All roles. */

#include <stdarg.h>

#include "agentd/base/err.h"
#include "agentd/base/text.h"

static void put(struct err_text *err, char *text, int len)
{
	static const char cut[] = "...";

	if (len < 0)
		text[0] = '\0';
	if (len >= (int)sizeof(err->text))
		memcpy(text + sizeof(err->text) - sizeof(cut), cut, sizeof(cut));
	text_clean(text);
	memcpy(err->text, text, strlen(text) + 1);
}

int err_set(struct err_text *err, int code, const char *format, ...)
{
	char text[sizeof(err->text)];
	int saved = errno, len;
	va_list ap;

	if (!err)
		return code;
	/* By way of a second buffer: the arguments may quote the text that is being replaced. */
	va_start(ap, format);
	len = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	put(err, text, len);
	errno = saved;
	return code;
}

int err_prefix(struct err_text *err, int code, const char *format, ...)
{
	char text[sizeof(err->text)];
	int saved = errno, len, more;
	const char *rest;
	va_list ap;

	if (!err)
		return code;
	va_start(ap, format);
	len = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	/* Whoever failed below may have had nothing to say but its code. */
	rest = err->text[0] ? err->text : code < 0 ? strerrordesc_np(-code) : NULL;
	if (rest && len >= 0 && len < (int)sizeof(text)) {
		more = snprintf(text + len, sizeof(text) - (size_t)len, ": %s", rest);
		len += more;
	}
	put(err, text, len);
	errno = saved;
	return code;
}
