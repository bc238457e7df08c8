/* SPDX-License-Identifier: Apache-2.0 */

/* What differs between two documents, for people and for the history.
 *
 * One walk over two sorted lists. The lines are also how the manager learns after a restart who set
 * what, so their form is part of the contract: a path holds no blank, hence ends at the first one.
 * Secrets are hidden here, before anything is kept. Runs in agentd. */

#include "agentd/config/config_private.h"

static bool is_order(const char *path)
{
	struct config_path p;

	if (config_path_parse(path, &p, NULL) < 0)
		return false;
	return (p.kind == PATH_SOURCE_FIELD || p.kind == PATH_DESTINATION_FIELD) &&
		streq(p.key, "order");
}

static void one(const struct config_doc *from, const struct config_doc *to,
	const struct config_entry *old, const struct config_entry *new, struct buf *out)
{
	const char *path = old ? old->path : new->path;

	if (!out || is_order(path))
		return;
	if (!old)
		buf_printf(out, "+%s = %s\n", path, config_shown(to, path, new->value));
	else if (!new)
		buf_printf(out, "-%s\n", path);
	else
		buf_printf(out, "~%s: %s -> %s\n", path, config_shown(from, path, old->value),
			config_shown(to, path, new->value));
}

size_t config_diff(const struct config_doc *from, const struct config_doc *to, struct buf *out)
{
	size_t i = 0, k = 0, n = 0;

	while (i < config_doc_size(from) || k < config_doc_size(to)) {
		const struct config_entry *a =
			i < config_doc_size(from) ? config_doc_at(from, i) : NULL;
		const struct config_entry *b =
			k < config_doc_size(to) ? config_doc_at(to, k) : NULL;
		int order = !a ? 1 : !b ? -1 : strcmp(a->path, b->path);

		i += order <= 0;
		k += order >= 0;
		if (order == 0 && streq(a->value, b->value))
			continue;
		one(from, to, order <= 0 ? a : NULL, order >= 0 ? b : NULL, out);
		n++;
	}
	return n;
}
