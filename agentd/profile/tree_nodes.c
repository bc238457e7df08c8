/* SPDX-License-Identifier: Apache-2.0 */

/* The call tree's nodes: found by (parent, function), found whole by a stack's hash, and cut
 * down when they are too many. Runs in the reader role.
 *
 * Invariants: a node comes after its parent; the total of a node is its self and its children's
 * totals. So a node is never larger than its parent, and what stays after the smallest were cut
 * is a tree. What a parent lost is in one child named "[other]": the sum stays right, and no
 * function is credited with what another one used. Cutting may happen several times while a
 * large answer is gathered; what is cut and met again is counted as cut again. */

#include "agentd/profile/tree_private.h"

#define NO_NODE UINT32_MAX

/* ---- interning ---- */

static bool equal_string(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;

	return streq(w->t->strings.at[at], w->content);
}

int64_t tree_string(struct tree *t, const char *s)
{
	struct wanted w = {t, s};
	size_t len = strlen(s);
	uint32_t hash = hash32(s, len);
	int64_t found = intern_find(&t->strings.index, hash, equal_string, &w);
	struct text_chunk *c = t->text;
	const char *copy;

	if (found >= 0)
		return found;
	if (!c || c->size - c->used < len + 1) {
		size_t size = MAX((size_t)65536, len + 1);

		c = malloc(sizeof(*c) + size);
		if (!c)
			return -ENOMEM;
		*c = (struct text_chunk){.next = t->text, .size = size};
		t->text = c;
	}
	copy = memcpy(c->data + c->used, s, len + 1);
	c->used += len + 1;
	return TABLE_INTERN(t, strings, &copy, hash, equal_string, &w);
}

struct function_key {
	uint32_t name, module, file, kind;
};

static bool equal_function(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct query_function *a = &w->t->functions.at[at], *x = w->content;

	return a->name == x->name && a->module == x->module && a->file == x->file &&
		a->frame_type == x->frame_type && a->inlined == x->inlined;
}

int64_t tree_function(struct tree *t, const struct query_function *f)
{
	struct function_key k = {
		f->name, f->module, f->file, f->frame_type | (uint32_t)f->inlined << 8};
	struct wanted w = {t, f};

	return TABLE_INTERN(t, functions, f, hash32(&k, sizeof(k)), equal_function, &w);
}

static uint32_t hash_node(uint32_t parent, uint32_t function, uint32_t service)
{
	uint32_t k[3] = {parent, function, service};

	return hash32(k, sizeof(k));
}

static bool equal_node(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct node *a = &w->t->nodes.at[at], *x = w->content;

	return a->parent == x->parent && a->function == x->function && a->service == x->service;
}

int64_t tree_node(struct tree *t, uint32_t parent, uint32_t function, uint32_t service)
{
	struct node entry = {.parent = parent, .function = function, .service = service};
	struct wanted w = {t, &entry};

	return TABLE_INTERN(t, nodes, &entry, hash_node(parent, function, service), equal_node, &w);
}

/* ---- leaves: whole stacks ---- */

static int leaves_grow(struct tree *t)
{
	uint32_t n = t->n_leaf_slots ? t->n_leaf_slots * 2 : 1024;
	struct leaf *slots = calloc(n, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->n_leaf_slots; i++) {
		uint32_t at = (uint32_t)t->leaves[i].hash & (n - 1);

		if (!t->leaves[i].node)
			continue;
		while (slots[at].node)
			at = (at + 1) & (n - 1);
		slots[at] = t->leaves[i];
	}
	free(t->leaves);
	t->leaves = slots;
	t->n_leaf_slots = n;
	return 0;
}

/* Whether the path from the node up to the service is this one (path: leaf last). */
static bool is_path(
	const struct tree *t, uint32_t node, uint32_t service, const uint32_t *path, uint32_t n)
{
	for (; n; n--) {
		const struct node *x = &t->nodes.at[node];

		if (!x->parent ||
			x->function != path[n - 1]) /* children of the root are services */
			return false;
		node = x->parent;
	}
	return !t->nodes.at[node].parent && node && t->nodes.at[node].service == service;
}

int64_t tree_leaf(struct tree *t, uint32_t service, const uint32_t *path, uint32_t n)
{
	uint64_t hash = hash_local(path, n * sizeof(*path)) ^ (service * 0x9e3779b97f4a7c15ULL);
	int64_t node;
	uint32_t at;

	if ((t->n_leaves + 1) * 2 > t->n_leaf_slots) {
		int r = leaves_grow(t);

		if (r < 0)
			return r;
	}
	for (at = (uint32_t)hash & (t->n_leaf_slots - 1); t->leaves[at].node;
		at = (at + 1) & (t->n_leaf_slots - 1)) {
		if (t->leaves[at].hash == hash &&
			is_path(t, t->leaves[at].node - 1, service, path, n))
			return t->leaves[at].node - 1;
	}
	node = tree_node(t, 0, 0, service);
	for (uint32_t i = 0; i < n && node >= 0; i++)
		node = tree_node(t, (uint32_t)node, path[i], 0);
	if (node < 0)
		return node;
	t->leaves[at] = (struct leaf){hash, (uint32_t)node + 1};
	t->n_leaves++;
	return node;
}

/* ---- pruning ---- */

/* Nodes come after their parents, always: they are made so, and pruning keeps their order. */
static void sum_totals(struct tree *t)
{
	for (uint32_t i = 0; i < t->nodes.n; i++)
		t->nodes.at[i].total_ns = t->nodes.at[i].self_ns;
	for (uint32_t i = t->nodes.n; i-- > 1;)
		t->nodes.at[t->nodes.at[i].parent].total_ns += t->nodes.at[i].total_ns;
}

struct rank {
	uint64_t total;
	uint32_t node;
};

static int by_total(const void *a, const void *b)
{
	const struct rank *x = a, *y = b;

	if (x->total != y->total)
		return x->total < y->total ? 1 : -1;
	return x->node < y->node ? -1 : x->node > y->node; /* a parent before its children */
}

/* How many nodes there are if the `keep` first of the ranking stay: themselves and an "[other]"
 * where one is missing. parents: scratch by node. */
static uint32_t nodes_if(
	const struct tree *t, const struct rank *ranking, uint32_t keep, uint8_t *losers)
{
	uint32_t n = keep;

	memset(losers, 0, t->nodes.n);
	for (uint32_t i = keep; i < t->nodes.n; i++) {
		uint32_t parent = t->nodes.at[ranking[i].node].parent;

		losers[parent] = 1;
	}
	for (uint32_t i = 0; i < keep; i++)
		n += losers[ranking[i].node];
	return n;
}

static int rebuild_nodes(struct tree *t, struct node *nodes, uint32_t n)
{
	free(t->nodes.at);
	intern_deinit(&t->nodes.index);
	t->nodes.at = nodes;
	t->nodes.n = n;
	t->nodes.room = n;
	if (t->n_leaf_slots)
		memset(t->leaves, 0, t->n_leaf_slots * sizeof(*t->leaves));
	t->n_leaves = 0;
	for (uint32_t i = 0; i < n; i++) {
		int r = intern_push(&t->nodes.index,
			hash_node(nodes[i].parent, nodes[i].function, nodes[i].service));

		if (r < 0)
			return r;
	}
	return 0;
}

/* The child of a node that stands for what was cut there: below the root it is a service. */
struct other {
	uint32_t name, function;
	uint32_t *at; /* by parent in the new order; 0 none yet */
	struct node *nodes;
	uint32_t n;
};

static bool is_other(const struct other *o, const struct node *x)
{
	return x->parent ? x->function == o->function : x->service == o->name;
}

static void give_to_other(struct other *o, uint32_t parent, uint64_t ns, uint64_t samples)
{
	if (!o->at[parent]) {
		o->nodes[o->n] = (struct node){.parent = parent};
		if (parent)
			o->nodes[o->n].function = o->function;
		else
			o->nodes[o->n].service = o->name;
		o->at[parent] = o->n++;
	}
	o->nodes[o->at[parent]].self_ns += ns;
	o->nodes[o->at[parent]].self_samples += samples;
}

static int other_init(struct tree *t, struct other *o, uint32_t n_after, uint32_t keep)
{
	struct query_function f = {0};
	int64_t name = tree_string(t, OTHER), function;

	if (name < 0)
		return (int)name;
	f.name = (uint32_t)name;
	function = tree_function(t, &f);
	if (function < 0)
		return (int)function;
	o->name = (uint32_t)name;
	o->function = (uint32_t)function;
	o->at = calloc((size_t)keep + 1, sizeof(*o->at));
	o->nodes = calloc((size_t)n_after + 1, sizeof(*o->nodes));
	return o->at && o->nodes ? 0 : -ENOMEM;
}

static void other_deinit(struct other *o)
{
	free(o->at);
	free(o->nodes);
}

/* The kept nodes in their old order, then the "[other]" ones. samples: by node, with those below
 * it. */
static int cut_nodes(struct tree *t, const struct rank *ranking, uint32_t keep, uint32_t n_after,
	const uint64_t *samples)
{
	CLEANUP(other_deinit) struct other o = {0};
	_cleanup_free_ uint32_t *map = malloc((size_t)t->nodes.n * sizeof(*map));
	int r = other_init(t, &o, n_after, keep);

	if (r < 0 || !map)
		return r < 0 ? r : -ENOMEM;
	memset(map, 0xff, (size_t)t->nodes.n * sizeof(*map));
	for (uint32_t i = 0; i < keep; i++)
		map[ranking[i].node] = 0;
	for (uint32_t i = 0; i < t->nodes.n; i++) {
		struct node *x = &o.nodes[o.n];

		if (map[i] == NO_NODE)
			continue;
		*x = t->nodes.at[i];
		x->parent = i ? map[x->parent] : 0;
		map[i] = o.n;
		if (i && is_other(&o, x)) /* of an earlier cut */
			o.at[x->parent] = o.n;
		o.n++;
	}
	for (uint32_t i = 1; i < t->nodes.n; i++) {
		const struct node *x = &t->nodes.at[i];

		if (map[i] != NO_NODE)
			continue;
		t->cut += !is_other(&o, x);
		if (map[x->parent] != NO_NODE) /* else it is within a total that is moved */
			give_to_other(&o, map[x->parent], x->total_ns, samples[i]);
	}
	return rebuild_nodes(t, TAKE_PTR(o.nodes), o.n);
}

/* Samples of cut subtrees, by node: as totals of ns are, so that both can be moved at once. */
static void sum_samples(struct tree *t, uint64_t *samples)
{
	for (uint32_t i = 0; i < t->nodes.n; i++)
		samples[i] = t->nodes.at[i].self_samples;
	for (uint32_t i = t->nodes.n; i-- > 1;)
		samples[t->nodes.at[i].parent] += samples[i];
}

int tree_prune(struct tree *t, uint32_t max)
{
	_cleanup_free_ struct rank *ranking = NULL;
	_cleanup_free_ uint8_t *losers = NULL;
	_cleanup_free_ uint64_t *samples = NULL;
	uint32_t low = 1, high = max, n = t->nodes.n;
	int r;

	sum_totals(t);
	if (n <= max)
		return 0;
	ranking = calloc(n, sizeof(*ranking));
	losers = calloc(n, 1);
	samples = calloc(n, sizeof(*samples));
	if (!ranking || !losers || !samples)
		return -ENOMEM;
	sum_samples(t, samples);
	for (uint32_t i = 0; i < n; i++)
		ranking[i] = (struct rank){t->nodes.at[i].total_ns, i};
	ranking[0].total = UINT64_MAX; /* the root stays, also where all are 0 */
	qsort(ranking, n, sizeof(*ranking), by_total);
	/* The largest number to keep for which all, with their "[other]", fit: one more kept
	 * adds 0 to 2. */
	while (low < high) {
		uint32_t middle = low + (high - low + 1) / 2;

		if (nodes_if(t, ranking, middle, losers) <= max)
			low = middle;
		else
			high = middle - 1;
	}
	r = cut_nodes(t, ranking, low, nodes_if(t, ranking, low, losers), samples);
	if (r < 0)
		return r;
	sum_totals(t);
	return 0;
}
