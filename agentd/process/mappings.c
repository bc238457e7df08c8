/* SPDX-License-Identifier: Apache-2.0 */
/* Executable mappings of an address space.
 *
 * Only executable ranges are kept: few dozen a process, so a sorted array with the last hit tried first
 * beats any tree. There is no record of munmap and none is needed: nothing runs in an unmapped range
 * before something is mapped there again, and that is an event that cuts what was there.
 * Fork shares the array (a server's thousand workers have one), the first change copies it.
 *
 * Invariants: sorted by start, no overlaps, every entry has start < end and a path. Runs in agentd. */

#include "agentd/process/mappings.h"

#include "agentd/base/map.h"
#include "agentd/process/process.h"

/* ---- paths --------------------------------------------------------------------------------------------- */

struct path_pool {
	struct map *by_text;
};

int path_pool_new(struct path_pool **ret)
{
	struct path_pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	r = map_new(&p->by_text, 0);
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct path_pool *path_pool_free(struct path_pool *p)
{
	if (!p)
		return NULL;
	map_free(p->by_text);
	free(p);
	return NULL;
}

struct path *path_get(struct path_pool *pool, const char *text)
{
	size_t len = strlen(text);
	struct path *p = map_get(pool->by_text, text, len);

	if (p)
		return path_ref(p);
	p = malloc(sizeof(*p) + len + 1);
	if (!p)
		return NULL;
	*p = (struct path){.pool = pool, .refs = 1, .len = (uint32_t)len};
	memcpy(p->text, text, len + 1);
	if (map_put(pool->by_text, text, len, p, NULL) < 0) {
		free(p);
		return NULL;
	}
	return p;
}

struct path *path_ref(struct path *p)
{
	if (p)
		p->refs++;
	return p;
}

struct path *path_unref(struct path *p)
{
	if (p && --p->refs == 0) {
		map_remove(p->pool->by_text, p->text, p->len);
		free(p);
	}
	return NULL;
}

/* ---- arrays -------------------------------------------------------------------------------------------- */

struct mappings *mappings_new(void)
{
	struct mappings *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->refs = 1;
	mappings_changed(m);
	return m;
}

void mappings_changed(struct mappings *m)
{
	static uint64_t changes;

	m->version = ++changes;
}

struct mappings *mappings_ref(struct mappings *m)
{
	if (m)
		m->refs++;
	return m;
}

struct mappings *mappings_unref(struct mappings *m)
{
	if (!m || --m->refs)
		return NULL;
	for (size_t i = 0; i < m->n; i++)
		path_unref(m->v[i].path);
	path_unref(m->program);
	free(m->v);
	free(m);
	return NULL;
}

/* The first entry that ends after address. */
static size_t lower(const struct mappings *m, uint64_t address)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->v[mid].end <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct mapping *mappings_find(struct mappings *m, uint64_t address)
{
	size_t i;

	if (!m || !m->n)
		return NULL;
	if (m->last < m->n &&
		address - m->v[m->last].start < m->v[m->last].end - m->v[m->last].start)
		return &m->v[m->last];
	i = lower(m, address);
	if (i == m->n || m->v[i].start > address)
		return NULL;
	m->last = i;
	return &m->v[i];
}

struct mapping *mappings_at_start(struct mappings *m, uint64_t start)
{
	struct mapping *found = mappings_find(m, start);

	return found && found->start == start ? found : NULL;
}

static int reserve(struct mappings *m, size_t n)
{
	size_t cap = MAX(m->cap * 2, (size_t)8);
	struct mapping *v;

	if (n <= m->cap)
		return 0;
	cap = MAX(cap, n);
	v = reallocarray(m->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	m->v = v;
	m->cap = cap;
	return 0;
}

/* Makes *m ours alone, with room for n entries. */
static int own(struct mappings **m, size_t n)
{
	struct mappings *copy;

	if ((*m)->refs == 1)
		return reserve(*m, n);
	copy = mappings_new();
	if (!copy || reserve(copy, MAX(n, (*m)->n)) < 0) {
		mappings_unref(copy);
		return -ENOMEM;
	}
	for (size_t i = 0; i < (*m)->n; i++) {
		copy->v[i] = (*m)->v[i];
		path_ref(copy->v[i].path);
		copy->v[i].opening = false; /* the answer goes to the other one */
	}
	copy->n = (*m)->n;
	copy->program = (*m)->program ? path_ref((*m)->program) : NULL;
	mappings_changed(copy);
	mappings_unref(*m);
	*m = copy;
	return 0;
}

static bool is_plain_memory(const struct mapping *m)
{
	return !m->key.inode && m->path->text[0] == '[' && strcmp(m->path->text, "[vdso]") != 0;
}

static bool joins(const struct mapping *low, const struct mapping *high)
{
	return low->end == high->start && low->path == high->path && is_plain_memory(low) &&
		is_plain_memory(high) && !low->opening && !high->opening;
}

static void drop_entry(struct mappings *m, size_t i)
{
	path_unref(m->v[i].path);
	memmove(&m->v[i], &m->v[i + 1], (m->n - i - 1) * sizeof(*m->v));
	m->n--;
}

/* Cuts [start, end) out of m, which has room for one more entry. Returns where start belongs. */
static size_t cut(struct mappings *m, uint64_t start, uint64_t end)
{
	size_t i = lower(m, start);

	if (i < m->n && m->v[i].start < start && m->v[i].end > end) {
		/* In the middle of one: two remain. */
		memmove(&m->v[i + 1], &m->v[i], (m->n - i) * sizeof(*m->v));
		m->n++;
		path_ref(m->v[i].path);
		m->v[i].end = start;
		m->v[i + 1].pgoff += end - m->v[i + 1].start;
		m->v[i + 1].start = end;
		m->v[i + 1].opening = false;
		return i + 1;
	}
	if (i < m->n && m->v[i].start < start)
		m->v[i++].end = start;
	while (i < m->n && m->v[i].end <= end)
		drop_entry(m, i);
	if (i < m->n && m->v[i].start < end) {
		m->v[i].pgoff += end - m->v[i].start;
		m->v[i].start = end;
		m->v[i].opening = false;
	}
	return i;
}

int mappings_replace(struct mappings **m, const struct mapping *new, size_t max)
{
	size_t i;
	int r;

	if (new->start >= new->end) {
		path_unref(new->path);
		return -EINVAL;
	}
	if ((*m)->n + 2 > max) {
		path_unref(new->path);
		return -E2BIG;
	}
	r = own(m, (*m)->n + 2);
	if (r < 0) {
		path_unref(new->path);
		return r;
	}
	mappings_changed(*m);
	i = cut(*m, new->start, new->end);
	if (i > 0 && joins(&(*m)->v[i - 1], new)) {
		(*m)->v[i - 1].end = new->end;
		path_unref(new->path);
		i--;
	} else {
		memmove(&(*m)->v[i + 1], &(*m)->v[i], ((*m)->n - i) * sizeof(*new));
		(*m)->v[i] = *new;
		(*m)->n++;
	}
	if (i + 1 < (*m)->n && joins(&(*m)->v[i], &(*m)->v[i + 1])) {
		(*m)->v[i].end = (*m)->v[i + 1].end;
		(*m)->v[i].told = MAX((*m)->v[i].told, (*m)->v[i + 1].told);
		drop_entry(*m, i + 1);
	}
	return 0;
}

int mappings_restore(
	struct mappings **m, const struct mappings *from, uint64_t start, uint64_t end, size_t max)
{
	int r;

	if (start >= end)
		return 0;
	r = own(m, (*m)->n + 1);
	if (r < 0)
		return r;
	mappings_changed(*m);
	cut(*m, start, end);
	for (size_t i = from ? lower(from, start) : 0;
		from && i < from->n && from->v[i].start < end; i++) {
		struct mapping part = from->v[i];

		path_ref(part.path);
		part.opening = false;
		if (part.start < start) {
			part.pgoff += start - part.start;
			part.start = start;
		}
		part.end = MIN(part.end, end);
		r = mappings_replace(m, &part, max);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool alike(const struct mapping *a, const struct mapping *b)
{
	return a->start - a->pgoff == b->start - b->pgoff && a->path == b->path &&
		file_key_equal(&a->key, &b->key);
}

uint64_t mappings_told_under(const struct mappings *m, const struct mapping *new)
{
	uint64_t files = 0;

	for (size_t i = m ? lower(m, new->start) : 0; m && i < m->n && m->v[i].start < new->end;
		i++)
		if (m->v[i].told && !alike(&m->v[i], new) && (m->v[i].key.inode || new->key.inode))
			files |= PROCESS_FILE_BIT(m->v[i].told);
	return files;
}

bool mappings_has_memory(struct mappings *m, const struct mapping *new)
{
	const struct mapping *old = mappings_find(m, new->start);

	return old && is_plain_memory(old) && is_plain_memory(new) &&
		old->path == new->path &&new->end <= old->end;
}

/* Text in large pages comes and goes by these. */
#define LARGE_PAGE (2ULL << 20)

static bool is_large_memory(const struct mapping *m)
{
	return is_plain_memory(m) && m->start % LARGE_PAGE == 0 && m->end % LARGE_PAGE == 0;
}

bool mappings_is_copied_text(struct mappings *m, const struct mapping *new)
{
	const struct mapping *old = m && m->program ? mappings_find(m, new->start) : NULL;

	return old && old->path == m->program && new->end <= old->end &&is_large_memory(new);
}

void mappings_fill_copied_text(struct mappings *m)
{
	size_t out = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct mapping *hole = &m->v[i], *high = &m->v[i + 1];
		struct mapping *low = out ? &m->v[out - 1] : NULL;

		if (!low || i + 1 == m->n || !is_large_memory(hole) || !low->key.inode ||
			low->end != hole->start || hole->end != high->start || !alike(low, high)) {
			m->v[out++] = *hole;
			continue;
		}
		low->end = high->end;
		path_unref(hole->path);
		path_unref(high->path);
		i++;
	}
	if (out != m->n)
		mappings_changed(m);
	m->n = out;
}

void mappings_carry_files(struct mappings *m, struct mappings *from)
{
	for (size_t i = 0; i < m->n; i++) {
		struct mapping *old = mappings_find(from, m->v[i].start);

		if (!old || !alike(old, &m->v[i]))
			continue;
		if (!m->v[i].file && old->file) {
			m->v[i].file = old->file;
			mappings_changed(m);
		}
		m->v[i].told = old->told;
		if (!m->v[i].key.generation)
			m->v[i].key.generation = old->key.generation;
	}
}

bool mappings_equal(const struct mappings *a, const struct mappings *b)
{
	if (!a || !b)
		return a == b;
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i].start != b->v[i].start || a->v[i].end != b->v[i].end ||
			!alike(&a->v[i], &b->v[i]))
			return false;
	return true;
}
