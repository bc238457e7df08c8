/* SPDX-License-Identifier: Apache-2.0 */

/* JSON, written only: the machine-readable face of every command. Indented by two, keys in the order in which
 * they are given, so that output can be compared and read by people as well. */

#include <math.h>
#include <time.h>
#include "odictl/cli.h"

void json_init(struct json *j)
{
	buf_init(&j->out, 0);
	j->depth = 0;
	j->first = true;
}

void json_escape(struct buf *b, const char *s)
{
	buf_str(b, "\"");
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c == '<') /* so that the text may stand inside a page's script */
			buf_str(b, "\\u003c");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\u%04x", c);
		else
			buf_add(b, &c, 1);
	}
	buf_str(b, "\"");
}

static void lead(struct json *j, const char *key)
{
	if (!j->first)
		buf_str(&j->out, ",");
	if (j->depth)
		buf_printf(&j->out, "\n%*s", (int)j->depth * 2, "");
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
	if (!j->first)
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
	buf_deinit(&j->out);
	return r;
}
