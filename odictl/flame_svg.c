/* SPDX-License-Identifier: Apache-2.0 */

/* A still picture: an SVG with no script in it, for tickets, chats and documents. Root at the top, a row a frame,
 * each with its full text as a tooltip; frames narrower than half a pixel are left out. */

#include "agentd/base/hash.h"
#include "agentd/base/text.h"
#include "odictl/tree.h"

#define WIDTH     1200.0
#define ROW       17.0
#define MARGIN    10.0
#define HEAD      44.0
#define CHARACTER 6.6 /* width of one at font size 11 */
#define MAX_DEPTH 512

static void add_text(struct buf *out, const char *s, size_t max)
{
	size_t n = 0;

	for (; *s; s++) {
		/* Characters, not bytes; a cut never falls inside one. */
		if (((unsigned char)*s & 0xc0) != 0x80 && n++ >= max)
			break;
		if (*s == '<')
			buf_str(out, "&lt;");
		else if (*s == '>')
			buf_str(out, "&gt;");
		else if (*s == '&')
			buf_str(out, "&amp;");
		else if ((unsigned char)*s < 0x20)
			buf_str(out, "?");
		else
			buf_add(out, s, 1);
	}
}

/* The same module has the same colour in every picture: a plain hash, not the keyed one. */
static void colour(const struct tree *t, uint32_t i, char out[32])
{
	static const struct hash_key key = {{1, 2}};
	const struct tree_node *n = &t->nodes[i];
	const struct tree_function *f = &t->functions[n->function];
	uint64_t h;

	if (n->service) {
		snprintf(out, 32, "#c9d1da");
		return;
	}
	h = hash_bytes(&key, f->module, strlen(f->module));
	if (f->type == 2)
		snprintf(out, 32, "hsl(%u,45%%,%u%%)", 205 + (unsigned)(h % 20),
			72 + (unsigned)(h >> 8) % 8);
	else
		snprintf(out, 32, "hsl(%u,75%%,%u%%)", (unsigned)(h % 55),
			68 + (unsigned)(h >> 8) % 9);
}

static void add_frame(
	const struct tree *t, uint32_t i, double x, double y, double w, struct buf *out)
{
	const struct tree_node *n = &t->nodes[i];
	const char *name = n->service ? n->service : t->functions[n->function].name;
	const char *module = n->service ? "service" : t->functions[n->function].module;
	size_t letters = w > 3 * CHARACTER ? (size_t)((w - 4) / CHARACTER) : 0, length = 0;
	char fill[32], seconds[32];

	colour(t, i, fill);
	for (const char *s = name; *s; s++)
		length += ((unsigned char)*s & 0xc0) != 0x80;
	buf_printf(out, "<g><title>");
	add_text(out, name, 400);
	buf_str(out, " (");
	add_text(out, module, 200);
	buf_printf(out, ") %s s, %.2f %%</title>",
		out_seconds(n->total_ns, seconds, sizeof(seconds)),
		t->total_ns ? 100.0 * (double)n->total_ns / (double)t->total_ns : 0);
	buf_printf(out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\"/>",
		x, y, MAX(w - 0.4, 0.3), ROW - 1, fill);
	if (letters) {
		buf_printf(out, "<text x=\"%.2f\" y=\"%.1f\">", x + 2, y + 12);
		add_text(out, name, length > letters ? letters - 1 : letters);
		buf_str(out, length > letters ? "…</text>" : "</text>");
	}
	buf_str(out, "</g>\n");
}

struct place {
	uint32_t node;
	double x;
};

/* Depth first, each node's children side by side below it; returns the deepest row. */
static size_t add_frames(const struct tree *t, struct buf *out, bool measure)
{
	double scale = t->total_ns ? (WIDTH - 2 * MARGIN) / (double)t->total_ns : 0;
	struct place *stack = calloc(MAX_DEPTH + 1, sizeof(*stack));
	size_t depth = 0, deepest = 0;

	if (!stack || !t->n_nodes) {
		free(stack);
		return 0;
	}
	stack[0] = (struct place){t->nodes[0].first_child, MARGIN};
	for (;;) {
		uint32_t i = stack[depth].node;
		double x = stack[depth].x, w;

		if (!i) {
			if (!depth)
				break;
			depth--;
			continue;
		}
		w = (double)t->nodes[i].total_ns * scale;
		stack[depth] = (struct place){t->nodes[i].next_sibling, x + w};
		if (w < 0.5)
			continue;
		deepest = MAX(deepest, depth + 1);
		if (!measure)
			add_frame(t, i, x, HEAD + (double)depth * ROW, w, out);
		if (depth < MAX_DEPTH)
			stack[++depth] = (struct place){t->nodes[i].first_child, x};
	}
	free(stack);
	return deepest;
}

void flame_svg(const struct tree *t, const char *title, struct buf *out)
{
	size_t rows = add_frames(t, NULL, true);
	double height = HEAD + (double)MAX(rows, (size_t)1) * ROW + MARGIN;
	char span[64], seconds[32], samples[32];

	text_format_duration(tree_span_ns(t), span, sizeof(span));
	buf_printf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
		"%.0f\" font-family=\"ui-monospace,Menlo,Consolas,monospace\" font-size=\"11\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
		"<text x=\"%.0f\" y=\"20\" font-size=\"15\" font-weight=\"bold\">",
		WIDTH, height, WIDTH, height, MARGIN);
	add_text(out, title, 120);
	buf_printf(out,
		"</text>\n<text x=\"%.0f\" y=\"36\" fill=\"#555\">%s CPU seconds in %s, %s samples%s"
		"</text>\n",
		MARGIN, out_seconds(t->total_ns, seconds, sizeof(seconds)), span,
		out_number(t->total_samples, samples, sizeof(samples)),
		t->total_samples ? "" : ": no samples in this span");
	add_frames(t, out, false);
	buf_str(out, "</svg>\n");
}
