/* SPDX-License-Identifier: Apache-2.0 */

/* A still picture: an SVG with no script in it, for tickets, chats and documents. Services at the top, a row a frame
 * below, each with its full text as a tooltip.
 *
 * Children stand in falling order of time, so what is too narrow to be seen stands together at the right: it becomes
 * one grey block that says how much it is, instead of a comb of lines or a gap that looks like time of the parent.
 * Text is escaped here whatever cleaned it before: the file is opened by browsers. */

#include "agentd/base/hash.h"
#include "agentd/base/text.h"
#include "odictl/tree.h"

#define WIDTH     1200.0
#define MARGIN    16.0
#define HEAD      62.0
#define ROW       18.0
#define NARROW    1.2  /* below that a frame goes into the grey block */
#define CHARACTER 6.62 /* width of one at font size 11 */
#define MAX_ROWS  512

enum colour { COLOUR_SERVICE, COLOUR_NATIVE, COLOUR_KERNEL, COLOUR_RUNTIME, COLOURS };

static const struct {
	const char *name;
	unsigned hue, spread, saturation, lightness;
} colours[COLOURS] = {
	[COLOUR_SERVICE] = {"service", 212, 0, 18, 84},
	[COLOUR_NATIVE] = {"user space", 18, 34, 88, 74},
	[COLOUR_KERNEL] = {"kernel", 208, 16, 62, 79},
	[COLOUR_RUNTIME] = {"runtime", 100, 50, 48, 74},
};

static bool is_xml(uint32_t c)
{
	return c >= 0x20 && (c < 0x7f || c > 0x9f) && (c & 0xfffe) != 0xfffe;
}

/* At most so many characters, whole ones; what XML cannot hold becomes '?'. */
static void add_text(struct buf *out, const char *s, size_t max)
{
	for (size_t n = 0; *s && n < max; n++) {
		uint32_t c = 0;
		size_t len = text_utf8(s, &c);

		if (!len || !is_xml(c))
			buf_str(out, "?");
		else if (c == '<')
			buf_str(out, "&lt;");
		else if (c == '>')
			buf_str(out, "&gt;");
		else if (c == '&')
			buf_str(out, "&amp;");
		else if (c == '"')
			buf_str(out, "&quot;");
		else
			buf_add(out, s, len);
		s += len ? len : 1;
	}
}

static enum colour kind_of(const struct tree *t, const struct tree_node *n)
{
	uint32_t type = n->service ? 0 : t->functions[n->function].type;

	if (n->service)
		return COLOUR_SERVICE;
	/* enum profile_frame_type: none, native, kernel, then one a runtime, the last unknown. */
	return type == 2 ? COLOUR_KERNEL : type < 2 || type == 7 ? COLOUR_NATIVE : COLOUR_RUNTIME;
}

/* A module has the same shade in every picture: the hash has a fixed key. */
static void fill_of(const struct tree *t, uint32_t i, char *out, size_t size)
{
	static const struct hash_key key = {{1, 2}};
	const struct tree_node *n = &t->nodes[i];
	enum colour k = kind_of(t, n);
	const char *module = n->service ? "" : t->functions[n->function].module;
	uint64_t h = hash_bytes(&key, module, strlen(module));

	snprintf(out, size, "hsl(%u,%u%%,%u%%)",
		colours[k].hue + (unsigned)(h % (colours[k].spread + 1)), colours[k].saturation,
		colours[k].lightness + (unsigned)(h >> 32) % 5);
}

static void add_rect(struct buf *out, double x, size_t row, double w, const char *fill)
{
	buf_printf(out,
		"<rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%.0f\" rx=\"1.5\" fill=\"%s\"/>",
		x, HEAD + (double)row * ROW, MAX(w - 0.6, 0.4), ROW - 1, fill);
}

static void add_cost(const struct tree *t, uint64_t ns, struct buf *out)
{
	char seconds[32];

	buf_printf(out, "%s s, %.2f %%", out_seconds(ns, seconds, sizeof(seconds)),
		t->total_ns ? 100.0 * (double)ns / (double)t->total_ns : 0);
}

static size_t count_characters(const char *s)
{
	size_t n = 0;

	for (; *s; n++) {
		size_t len = text_utf8(s, NULL);

		s += len ? len : 1;
	}
	return n;
}

static void add_frame(
	const struct tree *t, uint32_t i, double x, size_t row, double w, struct buf *out)
{
	const struct tree_node *n = &t->nodes[i];
	const char *name = n->service ? n->service : t->functions[n->function].name;
	const char *module = n->service ? "service" : t->functions[n->function].module;
	size_t fit = w > 6 ? (size_t)((w - 6) / CHARACTER) : 0, length = count_characters(name);
	char fill[40];

	fill_of(t, i, fill, sizeof(fill));
	buf_str(out, "<g><title>");
	add_text(out, name, 400);
	buf_str(out, " (");
	add_text(out, module, 200);
	buf_str(out, ") ");
	add_cost(t, n->total_ns, out);
	buf_str(out, "</title>");
	add_rect(out, x, row, w, fill);
	/* Two letters and an ellipsis tell nobody anything. */
	if (fit >= 3 || (fit && length <= fit)) {
		buf_printf(out, "<text x=\"%.2f\" y=\"%.1f\"%s>", x + 3,
			HEAD + (double)row * ROW + 12.5, n->service ? " font-weight=\"bold\"" : "");
		add_text(out, name, length > fit ? fit - 1 : fit);
		buf_str(out, length > fit ? "…</text>" : "</text>");
	}
	buf_str(out, "</g>\n");
}

/* i and all its later siblings. */
static void add_rest(
	const struct tree *t, uint32_t i, double x, size_t row, double scale, struct buf *out)
{
	uint64_t ns = 0;
	size_t n = 0;

	for (; i; i = t->nodes[i].next_sibling, n++)
		ns += t->nodes[i].total_ns;
	if ((double)ns * scale < 0.3)
		return;
	buf_printf(out, "<g><title>%zu more: ", n);
	add_cost(t, ns, out);
	buf_str(out, "</title>");
	add_rect(out, x, row, (double)ns * scale, "#e3e5e8");
	buf_str(out, "</g>\n");
}

struct place {
	uint32_t node;
	double x;
};

/* Depth first, each node's children side by side below it; returns the number of rows. out NULL: only that. */
static size_t add_frames(const struct tree *t, struct buf *out)
{
	double scale = t->total_ns ? (WIDTH - 2 * MARGIN) / (double)t->total_ns : 0;
	_cleanup_free_ struct place *stack = calloc(MAX_ROWS, sizeof(*stack));
	size_t row = 0, rows = 0;

	if (!stack || !t->n_nodes)
		return 0;
	stack[0] = (struct place){t->nodes[0].first_child, MARGIN};
	for (;;) {
		uint32_t i = stack[row].node;
		double x = stack[row].x, w = i ? (double)t->nodes[i].total_ns * scale : 0;

		if (i && w < NARROW && out)
			add_rest(t, i, x, row, scale, out);
		if (w < NARROW) {
			if (!row)
				return rows;
			row--;
			continue;
		}
		stack[row] = (struct place){t->nodes[i].next_sibling, x + w};
		rows = MAX(rows, row + 1);
		if (out)
			add_frame(t, i, x, row, w, out);
		if (row + 1 < MAX_ROWS)
			stack[++row] = (struct place){t->nodes[i].first_child, x};
	}
}

/* What the colours mean, of those that occur; from the right margin to the left. */
static void add_legend(const struct tree *t, struct buf *out)
{
	bool used[COLOURS] = {};
	double x = WIDTH - MARGIN;

	for (size_t i = 1; i < t->n_nodes; i++)
		used[kind_of(t, &t->nodes[i])] = true;
	for (size_t k = COLOURS; k-- > 0;) {
		if (!used[k])
			continue;
		x -= (double)strlen(colours[k].name) * CHARACTER;
		buf_printf(out,
			"<text x=\"%.1f\" y=\"24\" fill=\"#57606a\">%s</text>"
			"<rect x=\"%.1f\" y=\"15\" width=\"11\" height=\"11\" rx=\"2\" "
			"fill=\"hsl(%u,%u%%,%u%%)\"/>\n",
			x, colours[k].name, x - 16, colours[k].hue + colours[k].spread / 2,
			colours[k].saturation, colours[k].lightness);
		x -= 16 + 18;
	}
}

static void add_head(const struct tree *t, const char *title, struct buf *out)
{
	char span[64], seconds[32], samples[32], from[40], to[40], host[256] = "";

	gethostname(host, sizeof(host) - 1);
	text_format_duration(tree_span_ns(t), span, sizeof(span));
	buf_printf(out, "<text x=\"%.0f\" y=\"26\" font-size=\"16\" font-weight=\"bold\">", MARGIN);
	add_text(out, title, 90);
	buf_printf(out, "</text>\n<text x=\"%.0f\" y=\"46\" fill=\"#57606a\">", MARGIN);
	add_text(out, host, 64);
	buf_printf(out, " · %s to %s · %s CPU seconds in %s (%.2f cores) · %s samples%s</text>\n",
		out_time(t->from_unix_ns, from, sizeof(from)),
		out_time(t->to_unix_ns, to, sizeof(to)),
		out_seconds(t->total_ns, seconds, sizeof(seconds)), span,
		tree_span_ns(t) ? (double)t->total_ns / (double)tree_span_ns(t) : 0,
		out_number(t->total_samples, samples, sizeof(samples)),
		t->total_samples ? "" : ": none in this span");
	add_legend(t, out);
}

void flame_svg(const struct tree *t, const char *title, struct buf *out)
{
	size_t rows = add_frames(t, NULL);
	double height = HEAD + (double)MAX(rows, (size_t)1) * ROW + MARGIN;

	buf_printf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
		"%.0f\" font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" "
		"font-size=\"11\" fill=\"#1f2328\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		WIDTH, height, WIDTH, height);
	add_head(t, title, out);
	add_frames(t, out);
	buf_str(out, "</svg>\n");
}
