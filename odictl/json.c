/* SPDX-License-Identifier: Apache-2.0 */

/* JSON, written only: the machine-readable face of every command. Indented by two, keys in the order in which
 * they are given, so that output can be compared and read by people as well. */

#include <math.h>
#include <time.h>
#include "agentd/base/text.h"
#include "odictl/cli.h"

void json_init(struct json *j)
{
	buf_init(&j->out, 0);
	j->depth = 0;
	j->first = true;
	j->compact = false;
}

void json_init_compact(struct json *j)
{
	json_init(j);
	j->compact = true;
}

void json_escape(struct buf *b, const char *s)
{
	buf_str(b, "\"");
	while (*s) {
		uint32_t c;
		size_t len = text_utf8(s, &c);

		if (!len)
			buf_str(b, "\\ufffd");
		else if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", (char)c);
		/* '<' so that the text may stand inside a page's script; the line ends are JavaScript's */
		else if (c == '<' || c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 ||
			c == 0x2029)
			buf_printf(b, "\\u%04x", c);
		else
			buf_add(b, s, len);
		s += len ? len : 1;
	}
	buf_str(b, "\"");
}

static void line_break(struct json *j)
{
	if (j->depth && !j->compact)
		buf_printf(&j->out, "\n%*s", (int)j->depth * 2, "");
}

static void lead(struct json *j, const char *key)
{
	if (!j->first)
		buf_str(&j->out, j->compact ? ", " : ",");
	line_break(j);
	j->first = false;
	if (key) {
		json_escape(&j->out, key);
		buf_str(&j->out, ": ");
	}
}

void json_open(struct json *j, const char *key, char bracket)
{
	lead(j, key);
	buf_add(&j->out, &bracket, 1);
	j->depth++;
	j->first = true;
}

void json_close(struct json *j, char bracket)
{
	j->depth--;
	if (!j->first && !j->compact)
		buf_printf(&j->out, "\n%*s", (int)j->depth * 2, "");
	buf_add(&j->out, &bracket, 1);
	j->first = false;
}

void json_str(struct json *j, const char *key, const char *value)
{
	lead(j, key);
	json_escape(&j->out, value ? value : "");
}

void json_uint(struct json *j, const char *key, uint64_t value)
{
	lead(j, key);
	buf_printf(&j->out, "%llu", (unsigned long long)value);
}

void json_num(struct json *j, const char *key, double value)
{
	lead(j, key);
	buf_printf(&j->out, "%.6g", isfinite(value) ? value : 0.0);
}

void json_bool(struct json *j, const char *key, bool value)
{
	lead(j, key);
	buf_str(&j->out, value ? "true" : "false");
}

void json_time(struct json *j, const char *key, uint64_t unix_ns)
{
	time_t t = (time_t)(unix_ns / NSEC_PER_SEC);
	struct tm tm;

	lead(j, key);
	if (!unix_ns || !gmtime_r(&t, &tm)) {
		buf_str(&j->out, "null");
		return;
	}
	buf_printf(&j->out, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03uZ\"", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		(unsigned)(unix_ns % NSEC_PER_SEC / NSEC_PER_MSEC));
}

int json_print(struct json *j, FILE *f)
{
	int r = buf_error(&j->out) ? EXIT_FAILED : EXIT_DONE;

	if (!r)
		fprintf(f, "%s\n", (const char *)j->out.data);
	else
		fprintf(stderr, "odictl: out of memory\n");
	buf_deinit(&j->out);
	return r;
}
