/* SPDX-License-Identifier: Apache-2.0 */

/* The call tree as text for others to draw: folded stacks (Brendan Gregg's format: frames joined by ';', a blank,
 * a count), JSON, and the self-contained page, which is odictl/assets/flamegraph.html with the JSON in it. */

#include "odictl/assets/flamegraph.html.embed.h"
#include "odictl/tree.h"

static const char *node_name(const struct tree *t, uint32_t i)
{
	const struct tree_node *n = &t->nodes[i];

	return n->service ? n->service : i ? t->functions[n->function].name : "";
}

/* ';' and line ends have a meaning in the format, and an empty name would be no frame. */
static void add_folded_name(struct buf *out, const char *name)
{
	if (!*name)
		buf_str(out, "[unnamed]");
	while (*name) {
		size_t n = strcspn(name, ";\n\r");

		buf_add(out, name, n);
		name += n;
		if (*name)
			buf_str(out, *name++ == ';' ? ":" : " ");
	}
}

void flame_folded(const struct tree *t, struct buf *out)
{
	uint32_t path[TREE_MAX_DEPTH];

	for (uint32_t i = 1; i < t->n_nodes; i++) {
		size_t depth = 0;

		if (!t->nodes[i].self_samples)
			continue;
		for (uint32_t at = i; at && depth < ARRAY_SIZE(path); at = t->nodes[at].parent)
			path[depth++] = at;
		while (depth--) {
			add_folded_name(out, node_name(t, path[depth]));
			/* The mark by which tools colour kernel frames. */
			if (!t->nodes[path[depth]].service &&
				t->functions[t->nodes[path[depth]].function].type == 2)
				buf_str(out, "_[k]");
			buf_str(out, depth ? ";" : "");
		}
		buf_printf(out, " %llu\n", (unsigned long long)t->nodes[i].self_samples);
	}
}

static void add_functions(const struct tree *t, struct buf *out)
{
	buf_str(out, "\"functions\":[");
	for (size_t i = 0; i < t->n_functions; i++) {
		const struct tree_function *f = &t->functions[i];

		buf_str(out, i ? ",[" : "[");
		json_escape(out, f->name);
		buf_str(out, ",");
		json_escape(out, f->module);
		buf_str(out, ",");
		json_escape(out, f->file);
		buf_printf(out, ",%u,%d]", f->type, f->inlined);
	}
	buf_str(out, "]");
}

void flame_json(const struct tree *t, const char *title, struct buf *out)
{
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	buf_str(out, "{\"title\":");
	json_escape(out, title);
	buf_str(out, ",\"host\":");
	json_escape(out, host);
	buf_printf(out,
		",\"type\":\"cpu\",\"unit\":\"nanoseconds\",\"from\":%llu,\"to\":%llu,\"period_ns\":%llu,"
		"\"total_ns\":%llu,\"total_samples\":%llu,\"cut_nodes\":%llu,\n",
		(unsigned long long)(t->from_unix_ns / NSEC_PER_MSEC),
		(unsigned long long)(t->to_unix_ns / NSEC_PER_MSEC),
		(unsigned long long)t->period_ns, (unsigned long long)t->total_ns,
		(unsigned long long)t->total_samples, (unsigned long long)t->cut_nodes);
	add_functions(t, out);
	buf_str(out, ",\n\"nodes\":[");
	for (size_t i = 0; i < t->n_nodes; i++) {
		const struct tree_node *n = &t->nodes[i];

		buf_str(out, i ? ",[" : "[");
		buf_printf(out, "%u,", n->parent);
		if (n->service)
			json_escape(out, n->service);
		else
			buf_printf(out, "%u", i ? n->function : 0);
		buf_printf(out, ",%llu,%llu]", (unsigned long long)n->self_ns,
			(unsigned long long)n->total_ns);
	}
	buf_str(out, "]}\n");
}

static void add_html_text(struct buf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			buf_str(out, "&lt;");
		else if (*s == '&')
			buf_str(out, "&amp;");
		else
			buf_add(out, s, 1);
	}
}

void flame_html(const struct tree *t, const char *title, struct buf *out)
{
	static const char data_mark[] = "/*ODI_DATA*/", title_mark[] = "ODI_TITLE";
	const char *p = embed_flamegraph_html, *at_title = strstr(p, title_mark),
		   *at_data = strstr(p, data_mark);

	if (!at_title || !at_data || at_title > at_data) {
		out->failed = -EINVAL;
		return;
	}
	buf_add(out, p, (size_t)(at_title - p));
	add_html_text(out, title);
	p = at_title + strlen(title_mark);
	buf_add(out, p, (size_t)(at_data - p));
	flame_json(t, title, out);
	buf_str(out, at_data + strlen(data_mark));
}
