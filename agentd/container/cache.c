/* SPDX-License-Identifier: Apache-2.0 */

/* Answers that are known, by container id: each until its time, the least recently used out first. A "no" is an
 * answer too, else every process of a nameless container would have its file looked for again. Pure; runs in
 * agentd. */

#include "agentd/base/map.h"
#include "agentd/container/private.h"

struct entry {
	char id[CONTAINER_ID_MAX + 1];
	bool named;
	uint64_t until_ns;
	struct container_facts facts;
	struct entry *newer, *older;
};

struct container_cache {
	struct map *by_id;
	size_t max;
	struct entry *newest, *oldest;
};

int container_cache_new(struct container_cache **ret, size_t max)
{
	struct container_cache *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	r = map_new(&c->by_id, 0);
	if (r < 0) {
		free(c);
		return r;
	}
	c->max = max;
	*ret = c;
	return 0;
}

static void take_out(struct container_cache *c, struct entry *e)
{
	*(e->newer ? &e->newer->older : &c->newest) = e->older;
	*(e->older ? &e->older->newer : &c->oldest) = e->newer;
	e->newer = e->older = NULL;
}

static void put_first(struct container_cache *c, struct entry *e)
{
	e->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = e;
	c->newest = e;
}

static void drop(struct container_cache *c, struct entry *e)
{
	take_out(c, e);
	map_remove(c->by_id, e->id, strlen(e->id));
	free(e);
}

struct container_cache *container_cache_free(struct container_cache *c)
{
	if (!c)
		return NULL;
	while (c->oldest)
		drop(c, c->oldest);
	map_free(c->by_id);
	free(c);
	return NULL;
}

size_t container_cache_size(const struct container_cache *c)
{
	return map_size(c->by_id);
}

bool container_cache_get(struct container_cache *c, const char *id, uint64_t now_ns, bool *named,
	struct container_facts *ret)
{
	struct entry *e = map_get_str(c->by_id, id);

	if (!e)
		return false;
	if (now_ns >= e->until_ns) {
		drop(c, e);
		return false;
	}
	take_out(c, e);
	put_first(c, e);
	*named = e->named;
	*ret = e->facts;
	return true;
}

void container_cache_put(struct container_cache *c, const char *id,
	const struct container_facts *facts, uint64_t until_ns)
{
	struct entry *e = map_get_str(c->by_id, id);

	if (e)
		drop(c, e);
	while (map_size(c->by_id) >= c->max && c->oldest)
		drop(c, c->oldest);
	e = calloc(1, sizeof(*e));
	if (!e)
		return;
	snprintf(e->id, sizeof(e->id), "%s", id);
	e->named = facts != NULL;
	if (facts)
		e->facts = *facts;
	e->until_ns = until_ns;
	if (map_put_str(c->by_id, e->id, e, NULL) < 0)
		free(e);
	else
		put_first(c, e);
}
