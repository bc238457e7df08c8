/* SPDX-License-Identifier: Apache-2.0 */

/* Layers, one over the other.
 *
 * Merging is by path for settings and labels of the host, and by object for sources and
 * destinations: such an object belongs wholly to the strongest layer that has it, so that nobody has
 * to wonder where half of a source comes from. Runs in agentd. */

#include "agentd/base/map.h"
#include "agentd/base/text.h"
#include "agentd/config/config_private.h"

void merged_deinit(struct merged *m)
{
	free(m->values);
	*m = (struct merged){};
}

static size_t merged_lower(const struct merged *m, const char *path)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(m->values[middle].entry->path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct merged_value *merged_find(const struct merged *m, const char *path)
{
	size_t i = merged_lower(m, path);

	return i < m->n && streq(m->values[i].entry->path, path) ? &m->values[i] : NULL;
}

bool merged_has(const struct merged *m, const char *path)
{
	char first[CONFIG_PATH_MAX + 1];
	size_t i;

	if (merged_find(m, path))
		return true;
	if (snprintf(first, sizeof(first), "%s/", path) >= (int)sizeof(first))
		return false;
	i = merged_lower(m, first);
	return i < m->n && text_starts(m->values[i].entry->path, first);
}

static int by_path(const void *a, const void *b)
{
	const struct merged_value *x = a, *y = b;

	return strcmp(x->entry->path, y->entry->path);
}

int config_merge(const struct config_doc *const docs[LAYERS], struct merged *ret)
{
	struct merged m CLEANUP(merged_deinit) = {};
	CLEANUP(map_freep) struct map *owners = NULL; /* object or path -> layer + 1 */
	size_t n = 0;
	int r;

	for (size_t layer = 0; layer < LAYERS; layer++)
		n += docs[layer] ? config_doc_size(docs[layer]) : 0;
	m.values = calloc(n + 1, sizeof(*m.values));
	r = map_new(&owners, 0);
	if (!m.values || r < 0)
		return -ENOMEM;
	for (size_t layer = LAYERS; layer-- > 0;) {
		for (size_t i = 0; docs[layer] && i < config_doc_size(docs[layer]); i++) {
			const struct config_entry *e = config_doc_at(docs[layer], i);
			size_t len = config_object_len(e->path);
			void *owner;

			len = len ? len : strlen(e->path);
			owner = map_get(owners, e->path, len);
			if (owner && (uintptr_t)owner != layer + 1)
				continue;
			if (!owner)
				r = map_put(owners, e->path, len, (void *)(layer + 1), NULL);
			if (r < 0)
				return r;
			m.values[m.n++] = (struct merged_value){
				.entry = e, .layer = (enum config_layer)layer};
		}
	}
	qsort(m.values, m.n, sizeof(*m.values), by_path);
	*ret = m;
	m = (struct merged){};
	return 0;
}

int config_built_in(struct config_doc **ret)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	size_t n;
	const struct config_setting *s = config_schema(&n);
	int r = config_doc_new(&d);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = config_doc_set(d, s[i].path, s[i].option.fallback, 0);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(d);
	return 0;
}
