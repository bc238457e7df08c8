/* SPDX-License-Identifier: Apache-2.0 */

/* Text for people: widths, cutting, wrapping, times, numbers, colour only where a terminal shows it, and the one
 * place where text from elsewhere is made fit to be shown.
 *
 * Names come from what is profiled: a binary may call its functions, a process itself, whatever it likes, and a
 * terminal obeys escape sequences. So every string of every reply of agentd is cleaned as it arrives, found by the
 * message's own description: a field that is added later is cleaned as well. */

#include <stdarg.h>
#include <locale.h>
#include <sys/ioctl.h>
#include <time.h>
#include <wchar.h>
#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/cli.h"

#define ELLIPSIS "…"

/* ---- cleaning ---- */

static void clean_field(const ProtobufCFieldDescriptor *f, void *member)
{
	if (f->type == PROTOBUF_C_TYPE_STRING) {
		char *s = *(char **)member;

		if (s && s != f->default_value && *s)
			text_clean(s);
	} else if (f->type == PROTOBUF_C_TYPE_MESSAGE && *(ProtobufCMessage **)member) {
		out_clean(*(ProtobufCMessage **)member);
	}
}

void out_clean(ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *d = message->descriptor;

	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		char *base = (char *)message;

		if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(size_t *)(base + f->quantifier_offset);
			void **list = *(void ***)(base + f->offset);

			for (size_t k = 0; k < n; k++)
				clean_field(f, &list[k]);
		} else if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
			*(uint32_t *)(base + f->quantifier_offset) == f->id) {
			clean_field(f, base + f->offset);
		}
	}
}

const char *out_quote(const char *s, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s", s), at;

	if (n < size) {
		text_clean(buf);
		return buf;
	}
	/* The cut falls between characters. */
	for (at = size - sizeof(ELLIPSIS); at && ((unsigned char)buf[at] & 0xc0) == 0x80; at--)
		;
	buf[at] = '\0';
	text_clean(buf);
	memcpy(buf + at, ELLIPSIS, sizeof(ELLIPSIS));
	return buf;
}

/* ---- width ---- */

size_t out_width(FILE *f)
{
	struct winsize size;

	if (!isatty(fileno(f)))
		return 0;
	if (ioctl(fileno(f), TIOCGWINSZ, &size) < 0 || !size.ws_col)
		return 80;
	return MAX(size.ws_col, 20);
}

/* One character at s: its bytes, and its columns in *columns. */
static size_t take(const char *s, size_t *columns)
{
	static bool ready;
	uint32_t c;
	size_t len = text_utf8(s, &c);
	int w;

	if (*s == '\033' && s[1] == '[') {
		*columns = 0;
		return strcspn(s, "m") + (strchr(s, 'm') != NULL);
	}
	if (!len || c < 0x80) {
		*columns = 1;
		return 1;
	}
	if (!ready)
		setlocale(LC_CTYPE, "C.UTF-8");
	ready = true;
	w = wcwidth((wchar_t)c);
	*columns = w < 0 ? 1 : (size_t)w;
	return len;
}

size_t out_columns(const char *s)
{
	size_t n = 0, columns;

	while (*s) {
		s += take(s, &columns);
		n += columns;
	}
	return n;
}

void out_cut(char *s, size_t columns)
{
	size_t at = 0, n = 0, c;

	if (out_columns(s) <= columns)
		return;
	while (s[at]) {
		size_t len = take(s + at, &c);

		if (n + c + 1 > columns)
			break;
		n += c;
		at += len;
	}
	if (columns)
		memcpy(s + at, ELLIPSIS, sizeof(ELLIPSIS));
	else
		s[0] = '\0';
}

void out_wrap(FILE *f, const char *head, size_t indent, const char *text, size_t width)
{
	size_t at = out_columns(head), room = width > indent + 20 ? width : 0;
	bool first = true;

	fputs(head, f);
	/* A head that is too long gets a line of its own. */
	if (at + (at > 0) > indent && indent) {
		fputc('\n', f);
		at = 0;
	}
	fprintf(f, "%*s", (int)(indent - MIN(indent, at)), "");
	at = MAX(at, indent);
	while (*text) {
		size_t blanks = strspn(text, " "), len = blanks + strcspn(text + blanks, " "), c;
		char *word = strndup(text, len);

		if (!word)
			break;
		c = out_columns(word);
		if (room && !first && at + c > room) {
			fprintf(f, "\n%*s%s", (int)indent, "", word + blanks);
			at = indent + c - blanks;
		} else {
			fputs(word, f);
			at += c;
		}
		free(word);
		first = false;
		text += len;
	}
	fputc('\n', f);
}

void out_line(const char *head, size_t indent, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	if (text)
		out_wrap(stdout, head, indent, text, out_width(stdout));
}

/* ---- times and numbers ---- */

const char *out_ago(uint64_t unix_ns, char *buf, size_t size)
{
	uint64_t now = clock_unix_ns(), ago;
	char text[64];

	if (!unix_ns)
		return "never";
	ago = now > unix_ns ? now - unix_ns : 0;
	if (ago < NSEC_PER_SEC)
		return "just now";
	text_format_duration(ago - ago % NSEC_PER_SEC, text, sizeof(text));
	snprintf(buf, size, "%s ago", text);
	return buf;
}

const char *out_duration_since(uint64_t unix_ns, char *buf, size_t size)
{
	uint64_t now = clock_unix_ns(), ns = now > unix_ns ? now - unix_ns : 0;

	/* Nobody needs the milliseconds of how long something is up. */
	text_format_duration(ns - ns % NSEC_PER_SEC, buf, size);
	return buf;
}

const char *out_time(uint64_t unix_ns, char *buf, size_t size)
{
	time_t t = (time_t)(unix_ns / NSEC_PER_SEC);
	struct tm tm;

	if (!unix_ns || !localtime_r(&t, &tm))
		return "-";
	strftime(buf, size, "%Y-%m-%d %H:%M:%S", &tm);
	return buf;
}

const char *out_number(uint64_t n, char *buf, size_t size)
{
	char digits[24];
	size_t len = (size_t)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n),
	       at = 0;

	for (size_t i = 0; i < len && at + 2 < size; i++) {
		if (i && (len - i) % 3 == 0)
			buf[at++] = ',';
		buf[at++] = digits[i];
	}
	buf[at] = '\0';
	return buf;
}

const char *out_batches(uint64_t n, char *buf, size_t size)
{
	char number[32];

	snprintf(
		buf, size, "%s batch%s", out_number(n, number, sizeof(number)), n == 1 ? "" : "es");
	return buf;
}

const char *out_seconds(uint64_t ns, char *buf, size_t size)
{
	double s = (double)ns / 1e9;

	snprintf(buf, size, s < 10 ? "%.2f" : s < 1000 ? "%.1f" : "%.0f", s);
	return buf;
}

/* ---- colour ---- */

const char *out_bold(const struct cli *cli)
{
	return cli->color ? "\033[1m" : "";
}

const char *out_red(const struct cli *cli)
{
	return cli->color ? "\033[31m" : "";
}

const char *out_dim(const struct cli *cli)
{
	return cli->color ? "\033[2m" : "";
}

const char *out_plain(const struct cli *cli)
{
	return cli->color ? "\033[0m" : "";
}
