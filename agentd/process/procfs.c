/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers of /proc's text and of OpenTelemetry's variables.
 *
 * A process chooses its own name, its arguments, its environment and the names of the files it
 * maps, so nothing here trusts a separator: comm may hold blanks and brackets (the last ')' ends it),
 * a path may hold anything but a newline. Of the environment two variables are taken, by a scan that
 * never holds more than those: what else is there is none of our business.
 *
 * Sources: proc(5); Documentation/filesystems/proc.rst; the OpenTelemetry specification, Resource SDK.
 * Runs in the /proc reader and (otel_parse) in agentd. */

#include "agentd/process/procfs.h"

#include <ctype.h>
#include <inttypes.h>
#include "agentd/base/text.h"
#include "agentd/process/process.h"

int procfs_stat(const char *text, struct procfs_stat *ret)
{
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	unsigned long flags, utime, stime;
	unsigned long long start;
	size_t len;

	if (!open || !close || close < open)
		return -EBADMSG;
	len = MIN((size_t)(close - open - 1), sizeof(ret->comm) - 1);
	memcpy(ret->comm, open + 1, len);
	ret->comm[len] = 0;
	/* state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime
	 * cstime priority nice threads itrealvalue starttime */
	if (sscanf(close + 1,
		    " %c %" SCNd32
		    " %*d %*d %*d %*d %lu %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu",
		    &ret->state, &ret->ppid, &flags, &utime, &stime, &start) != 6)
		return -EBADMSG;
	ret->flags = (uint32_t)flags;
	ret->utime = utime;
	ret->stime = stime;
	ret->start = start;
	return 0;
}

static bool hex(char **at, uint64_t *ret, char end)
{
	char *stop;

	if (!isxdigit((unsigned char)**at))
		return false;
	errno = 0;
	*ret = strtoull(*at, &stop, 16);
	if (errno || *stop != end)
		return false;
	*at = stop + 1;
	return true;
}

/* The n-th number (from 0) of the line that begins so; the last one, if n is -1. */
static int status_number(const char *text, const char *key, int n, uint32_t *ret)
{
	const char *line = text, *at;
	unsigned long v = 0;
	int found = -1;

	while (line && strncmp(line, key, strlen(key)) != 0) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	if (!line)
		return -EBADMSG;
	for (at = line + strlen(key); *at && *at != '\n' && (n < 0 || found < n);) {
		char *end;

		at += strspn(at, " \t");
		if (*at < '0' || *at > '9')
			break;
		v = strtoul(at, &end, 10);
		at = end;
		found++;
	}
	if (found < 0 || (n >= 0 && found < n) || v > UINT32_MAX)
		return -EBADMSG;
	*ret = (uint32_t)v;
	return 0;
}

int procfs_status(const char *text, struct procfs_status *ret)
{
	int r = status_number(text, "Uid:", 1, &ret->uid);

	if (r < 0)
		return r;
	r = status_number(text, "NSpid:", -1, &ret->ns_pid);
	/* A kernel without pid namespaces. */
	return r < 0 ? status_number(text, "Pid:", 0, &ret->ns_pid) : 0;
}

int procfs_map(char *line, struct procfs_map *ret)
{
	uint64_t major, minor;
	char *at = line;

	if (!hex(&at, &ret->start, '-') || !hex(&at, &ret->end, ' ') || strnlen(at, 5) < 5 ||
		at[4] != ' ')
		return -EBADMSG;
	ret->exec = at[2] == 'x';
	at += 5;
	if (!hex(&at, &ret->pgoff, ' ') || !hex(&at, &major, ':') || !hex(&at, &minor, ' ') ||
		!isdigit((unsigned char)*at) || ret->start >= ret->end || major > UINT32_MAX ||
		minor > UINT32_MAX)
		return -EBADMSG;
	ret->major = (uint32_t)major;
	ret->minor = (uint32_t)minor;
	ret->inode = strtoull(at, &at, 10);
	while (*at == ' ')
		at++;
	ret->path = at;
	return 0;
}

bool procfs_strip_deleted(char *path)
{
	size_t len = strlen(path);

	if (len <= 10 || !streq(path + len - 10, " (deleted)"))
		return false;
	path[len - 10] = 0;
	return true;
}

/* ---- environ ------------------------------------------------------------------------------------------- */

static const char *const variables[] = {"OTEL_SERVICE_NAME=", "OTEL_RESOURCE_ATTRIBUTES="};
#define ALL_VARIABLES 3u

static void next_entry(struct environ_scan *s)
{
	s->matching = ALL_VARIABLES;
	s->at = s->value_at = 0;
	s->in_value = -1;
}

void environ_scan_init(struct environ_scan *s)
{
	memset(s, 0, sizeof(*s));
	next_entry(s);
}

/* The first of a name counts, as getenv(3) has it. */
static void end_value(struct environ_scan *s)
{
	bool *have = s->in_value == 0 ? &s->have_service_name : &s->have_attributes;
	char *value = s->in_value == 0 ? s->service_name : s->attributes;
	size_t max = s->in_value == 0 ? ENVIRON_NAME_MAX : ENVIRON_LIST_MAX;

	if (s->in_value < 0)
		return;
	*have = true;
	if (s->value_at > max) {
		s->too_long = true;
		s->value_at = 0;
	}
	value[s->value_at] = 0;
}

static void scan_value(struct environ_scan *s, char c)
{
	char *value = s->in_value == 0 ? s->service_name : s->attributes;
	size_t max = s->in_value == 0 ? ENVIRON_NAME_MAX : ENVIRON_LIST_MAX;

	if (s->value_at < max)
		value[s->value_at] = c;
	if (s->value_at <= max)
		s->value_at++;
}

static void scan_name(struct environ_scan *s, char c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(variables); i++) {
		if (!(s->matching & 1u << i))
			continue;
		if (variables[i][s->at] != c) {
			s->matching &= ~(1u << i);
			continue;
		}
		if (!variables[i][s->at + 1]) {
			s->matching = 0;
			if (!(i == 0 ? s->have_service_name : s->have_attributes))
				s->in_value = (int)i;
			return;
		}
	}
	s->at++;
}

void environ_scan_feed(struct environ_scan *s, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!data[i]) {
			end_value(s);
			next_entry(s);
		} else if (s->in_value >= 0) {
			scan_value(s, data[i]);
		} else if (s->matching) {
			scan_name(s, data[i]);
		} else {
			const char *end = memchr(data + i, 0, len - i);

			i = end ? (size_t)(end - data) - 1 : len;
		}
	}
}

void environ_scan_end(struct environ_scan *s)
{
	end_value(s);
	next_entry(s);
}

/* ---- attributes ---------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Trims, decodes %XX; false when it is not clean text of 1 (empty: 0) to max bytes. out holds max + 1. */
static bool decode(const char *s, size_t len, size_t min, size_t max, char *out)
{
	size_t n = 0;

	while (len && (*s == ' ' || *s == '\t')) {
		s++;
		len--;
	}
	while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
		len--;
	for (size_t i = 0; i < len; i++) {
		int c = (unsigned char)s[i];

		if (c == '%') {
			int high = i + 2 < len ? hex_digit(s[i + 1]) : -1;
			int low = high >= 0 ? hex_digit(s[i + 2]) : -1;

			if (low < 0)
				return false;
			c = high * 16 + low;
			i += 2;
		}
		if (n == max || !c)
			return false;
		out[n++] = (char)c;
	}
	out[n] = 0;
	return n >= min && text_is_clean(out, max);
}

void otel_free(struct attribute *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((void *)list[i].key);
		free((void *)list[i].value);
	}
	free(list);
}

/* 0 kept, 1 no room, -ENOMEM. */
static int keep(struct attribute *list, size_t *n, const char *key, const char *value)
{
	_cleanup_free_ char *k = NULL, *v = strdup(value);

	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < *n; i++)
		if (streq(list[i].key, key)) {
			free((void *)list[i].value);
			list[i].value = TAKE_PTR(v);
			return 0;
		}
	if (*n == OTEL_ATTRIBUTES_MAX)
		return 1;
	k = strdup(key);
	if (!k)
		return -ENOMEM;
	list[(*n)++] = (struct attribute){TAKE_PTR(k), TAKE_PTR(v)};
	return 0;
}

int otel_parse(const char *text, struct attribute **ret, size_t *n)
{
	struct attribute *list = calloc(OTEL_ATTRIBUTES_MAX, sizeof(*list));
	size_t count = 0;
	int refused = 0;

	if (!list)
		return -ENOMEM;
	while (*text) {
		size_t len = strcspn(text, ",");
		const char *eq = memchr(text, '=', len);
		char key[OTEL_KEY_MAX + 1], value[OTEL_VALUE_MAX + 1];
		int r = 1;

		if (eq && decode(text, (size_t)(eq - text), 1, OTEL_KEY_MAX, key) &&
			decode(eq + 1, len - (size_t)(eq + 1 - text), 0, OTEL_VALUE_MAX, value)) {
			r = keep(list, &count, key, value);
			if (r < 0) {
				otel_free(list, count);
				return r;
			}
		} else if (!eq && strspn(text, " \t") >= len) {
			r = 0; /* a trailing comma is no attribute, and no error */
		}
		refused += r;
		text += len + (text[len] == ',');
	}
	if (!count) {
		free(list);
		list = NULL;
	}
	*ret = list;
	*n = count;
	return refused;
}
