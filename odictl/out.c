/* SPDX-License-Identifier: Apache-2.0 */

/* Text for people: tables that line up, times, numbers, and colour only where a terminal shows it. */

#include <time.h>
#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/cli.h"

#define MAX_COLUMNS 12

struct table {
	size_t columns, rows, room;
	char **cells; /* rows x columns; row 0 the headers */
	char align[MAX_COLUMNS];
};

/* What a terminal shows of UTF-8 text, near enough: one column a code point. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

void table_row(struct table *t, const char *const *cells)
{
	if (t->rows == t->room) {
		size_t room = t->room ? t->room * 2 : 32;
		char **grown = reallocarray(t->cells, room * t->columns, sizeof(*grown));

		if (!grown)
			return;
		t->cells = grown;
		t->room = room;
	}
	for (size_t i = 0; i < t->columns; i++)
		t->cells[t->rows * t->columns + i] = strdup(cells[i] ? cells[i] : "");
	t->rows++;
}

struct table *table_new(const char *const *headers, const char *align)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->columns = MIN(strlen(align), (size_t)MAX_COLUMNS);
	memcpy(t->align, align, t->columns);
	table_row(t, headers);
	return t;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->rows * t->columns; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

void table_print(struct table *t, FILE *f)
{
	size_t widths[MAX_COLUMNS] = {};

	if (!t)
		return;
	for (size_t r = 0; r < t->rows; r++)
		for (size_t c = 0; c < t->columns; c++)
			widths[c] = MAX(widths[c], width(t->cells[r * t->columns + c]));
	for (size_t r = 0; r < t->rows; r++) {
		for (size_t c = 0; c < t->columns; c++) {
			const char *cell = t->cells[r * t->columns + c];
			int pad = (int)(widths[c] - width(cell));
			bool last = c + 1 == t->columns;

			if (t->align[c] == 'r')
				fprintf(f, "%*s%s%s", pad, "", cell, last ? "\n" : "  ");
			else
				fprintf(f, "%s%*s%s", cell, last ? 0 : pad, "", last ? "\n" : "  ");
		}
	}
	table_free(t);
}

const char *out_ago(uint64_t unix_ns, char *buf, size_t size)
{
	uint64_t now = clock_unix_ns();
	char text[64];

	if (!unix_ns)
		return "never";
	text_format_duration(now > unix_ns ? now - unix_ns : 0, text, sizeof(text));
	snprintf(buf, size, "%s ago", text);
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

const char *out_seconds(uint64_t ns, char *buf, size_t size)
{
	double s = (double)ns / 1e9;

	snprintf(buf, size, s < 10 ? "%.2f" : s < 1000 ? "%.1f" : "%.0f", s);
	return buf;
}

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
