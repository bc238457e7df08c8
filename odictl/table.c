/* SPDX-License-Identifier: Apache-2.0 */

/* Tables whose columns line up. On a terminal a row is never wider than the window: a wrapped table cannot be read.
 * What gives way is the widest left-aligned column, as that is where names stand; numbers are never cut, unless
 * nothing else is left. */

#include "agentd/base/text.h"
#include "odictl/cli.h"

#define MAX_COLUMNS 12
#define GAP         2
#define LEAST       8 /* columns that a name keeps */

struct table {
	size_t columns, rows, room;
	char **cells; /* rows x columns; row 0 the headers */
	char align[MAX_COLUMNS];
};

void table_row(struct table *t, const char *const *cells)
{
	if (!t)
		return;
	if (t->rows == t->room) {
		size_t room = t->room ? t->room * 2 : 32;
		char **grown = reallocarray(t->cells, room * t->columns, sizeof(*grown));

		if (!grown)
			return;
		t->cells = grown;
		t->room = room;
	}
	for (size_t i = 0; i < t->columns; i++) {
		const char *from = cells[i] ? cells[i] : "";
		size_t n = strlen(from);
		char *cell = malloc(n + sizeof("…")); /* room for out_cut() */

		if (cell) {
			memcpy(cell, from, n + 1);
			text_clean(cell);
		}
		t->cells[t->rows * t->columns + i] = cell;
	}
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

static const char *cell_at(const struct table *t, size_t r, size_t c)
{
	const char *cell = t->cells[r * t->columns + c];

	return cell ? cell : "";
}

/* Takes columns off the widest ones until a row fits, or nothing may be taken any more. */
static void shrink(const struct table *t, size_t *widths, size_t columns)
{
	size_t sum = GAP * (t->columns - 1), least[MAX_COLUMNS];

	for (size_t c = 0; c < t->columns; c++) {
		sum += widths[c];
		least[c] = t->align[c] == 'r'
			? widths[c]
			: MIN(widths[c], MAX(out_columns(cell_at(t, 0, c)), (size_t)LEAST));
	}
	while (sum > columns) {
		size_t widest = t->columns;

		for (size_t c = 0; c < t->columns; c++)
			if (widths[c] > least[c] &&
				(widest == t->columns || widths[c] > widths[widest]))
				widest = c;
		if (widest == t->columns)
			return;
		widths[widest]--;
		sum--;
	}
}

static void print_row(struct table *t, size_t r, const size_t *widths, FILE *f, size_t columns)
{
	_cleanup_buf_ struct buf line;
	size_t end = t->columns;
	char *text;

	buf_init(&line, 0);
	/* No blanks at the end of a line. */
	while (end && !*cell_at(t, r, end - 1))
		end--;
	for (size_t c = 0; c < end; c++) {
		char *cell = t->cells[r * t->columns + c];
		int pad;

		if (cell && columns)
			out_cut(cell, widths[c]);
		pad = (int)(widths[c] - MIN(out_columns(cell_at(t, r, c)), widths[c]));
		if (c)
			buf_printf(&line, "%*s", GAP, "");
		if (t->align[c] == 'r')
			buf_printf(&line, "%*s", pad, "");
		buf_str(&line, cell_at(t, r, c));
		if (t->align[c] != 'r' && c + 1 < end)
			buf_printf(&line, "%*s", pad, "");
	}
	buf_add(&line, "\0\0\0", sizeof("…"));
	text = (char *)line.data;
	if (buf_error(&line))
		return;
	if (columns)
		out_cut(text, columns);
	fprintf(f, "%s\n", text);
}

void table_fit(struct table *t, FILE *f, size_t columns)
{
	size_t widths[MAX_COLUMNS] = {};

	if (!t)
		return;
	for (size_t r = 0; r < t->rows; r++)
		for (size_t c = 0; c < t->columns; c++)
			widths[c] = MAX(widths[c], out_columns(cell_at(t, r, c)));
	if (columns)
		shrink(t, widths, columns);
	for (size_t r = 0; r < t->rows; r++)
		print_row(t, r, widths, f, columns);
	table_free(t);
}

void table_print(struct table *t, FILE *f)
{
	table_fit(t, f, out_width(f));
}
