/* SPDX-License-Identifier: Apache-2.0 */

/* The call tree of a query. A node is (parent, function); below the root there is one node a service. Runs in the
 * reader role, over hundreds of batches with thousands of stacks that are mostly the same, so:
 *
 * - Batches have dictionaries of their own; a location becomes its chain of functions of this tree once a batch.
 * - A stack is looked up whole, by the hash of its functions, and found again at its leaf; only a new one is walked
 *   node by node. What the hash finds is checked along the parents, so a collision costs time and nothing else.
 *
 * Inlined functions are nodes of their own (innermost last). Values are conserved: total of a node is its self and its
 * children's totals, always. When a tree has more nodes than wanted, those with the smallest totals are cut (a child is
 * never larger than its parent, so what stays is a tree), and what a parent lost is in one child named "[other]": the
 * sum stays right and no function is credited with what another one used.
 *
 * A part counts when the middle of its time lies within the query's: rolled-up parts are long, and each belongs to
 * exactly one of two adjoining queries. */

#include "agentd/base/hash.h"
#include "agentd/profile/batch_private.h"
#include "agentd/profile/tree.h"

#define DEFAULT_NODES 50000
#define MAX_NODES     1000000
#define HELD_NODES    8
#define MAX_ROWS      10000
#define OTHER         "[other]"
#define NO_NODE       UINT32_MAX

struct node {
	uint32_t parent, function, service;
	uint64_t self_ns, self_samples, total_ns;
};

struct leaf {
	uint64_t hash;
	uint32_t node; /* + 1; 0 empty */
};

/* What of a batch was translated already. */
struct view {
	const struct batch *b;
	uint32_t *chain_first, *chain_n; /* by location, into chains; chain_n 0: not yet */
	uint32_t *chains;                /* functions of the tree, outermost first */
	uint32_t n_chains, chains_room;
};

struct tree {
	const struct query *q;
	uint32_t max_nodes, held_nodes;
	struct text_chunk *text;
	TABLE(const char *) strings;
	TABLE(struct query_function) functions;
	TABLE(struct node) nodes;
	TABLE(struct query_group_row) rows;
	struct leaf *leaves;
	uint32_t n_leaf_slots, n_leaves;
	uint32_t *path;
	uint32_t path_room;
	uint64_t from, to, newest, period;
	uint64_t total_ns, total_samples, cut;
	/* of tree_finish() */
	struct query_node *out_nodes;
	struct query_function *out_functions;
	struct query_group_row *out_rows;
	char **out_strings;
};

struct wanted {
	const struct tree *t;
	const void *content;
};

/* ---- interning ------------------------------------------------------------------------------------------------ */

static bool equal_string(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;

	return streq(w->t->strings.at[at], w->content);
}

static int64_t intern_string(struct tree *t, const char *s)
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

static int64_t intern_function(struct tree *t, const struct query_function *f)
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

static int64_t intern_node(struct tree *t, uint32_t parent, uint32_t function, uint32_t service)
{
	struct node entry = {.parent = parent, .function = function, .service = service};
	struct wanted w = {t, &entry};

	return TABLE_INTERN(t, nodes, &entry, hash_node(parent, function, service), equal_node, &w);
}

/* ---- leaves: whole stacks --------------------------------------------------------------------------------------- */

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

/* The node of a whole path (leaf last) below its service. */
static int64_t find_leaf(struct tree *t, uint32_t service, const uint32_t *path, uint32_t n)
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
	node = intern_node(t, 0, 0, service);
	for (uint32_t i = 0; i < n && node >= 0; i++)
		node = intern_node(t, (uint32_t)node, path[i], 0);
	if (node < 0)
		return node;
	t->leaves[at] = (struct leaf){hash, (uint32_t)node + 1};
	t->n_leaves++;
	return node;
}

/* ---- pruning ------------------------------------------------------------------------------------------------------ */

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

/* How many nodes there are if the `keep` first of the ranking stay: themselves and an "[other]" where one is missing.
 * parents: scratch by node. */
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
	int64_t name = intern_string(t, OTHER), function;

	if (name < 0)
		return (int)name;
	f.name = (uint32_t)name;
	function = intern_function(t, &f);
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

/* The kept nodes in their old order, then the "[other]" ones. samples: by node, with those below it. */
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

static int prune(struct tree *t, uint32_t max)
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
	/* The largest number to keep for which all, with their "[other]", fit: one more kept adds 0 to 2. */
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

/* ---- batches -------------------------------------------------------------------------------------------------------- */

static void view_deinit(struct view *v)
{
	free(v->chain_first);
	free(v->chain_n);
	free(v->chains);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* The functions of one location, translated on first use. */
static int view_location(struct tree *t, struct view *v, uint32_t location)
{
	const struct profile_location *l = batch_location_at(v->b, location);
	const struct profile_line *lines = batch_lines(v->b, l);
	uint32_t n = MAX(l->n_lines, 1U);
	int64_t module, name, file, at;
	int r;

	if (v->chain_n[location])
		return 0;
	r = ARRAY_GROW(v->chains, v->chains_room, v->n_chains, n);
	if (r < 0)
		return r;
	module = intern_string(
		t, base_name(batch_string_at(v->b, batch_mapping_at(v->b, l->mapping)->filename)));
	v->chain_first[location] = v->n_chains;
	for (uint32_t i = n; i-- > 0;) {
		struct query_function f = {.frame_type = l->frame_type, .inlined = i + 1 < n};
		const struct profile_function *from =
			batch_function_at(v->b, l->n_lines ? lines[i].function : 0);

		name = intern_string(
			t, from->name ? batch_string_at(v->b, from->name) : "[unknown]");
		file = intern_string(t, batch_string_at(v->b, from->filename));
		if (module < 0 || name < 0 || file < 0)
			return -ENOMEM;
		f.name = (uint32_t)name;
		f.module = (uint32_t)module;
		f.file = (uint32_t)file;
		at = intern_function(t, &f);
		if (at < 0)
			return (int)at;
		v->chains[v->n_chains++] = (uint32_t)at;
	}
	v->chain_n[location] = n;
	return 0;
}

/* The path of a stack into t->path, outermost first. Returns its length. */
static int64_t view_stack(struct tree *t, struct view *v, uint32_t stack)
{
	size_t n_locations;
	const uint32_t *locations = batch_stack_at(v->b, stack, &n_locations);
	uint32_t n = 0;

	for (size_t i = n_locations; i-- > 0;) {
		int r = view_location(t, v, locations[i]);

		if (r >= 0)
			r = ARRAY_GROW(t->path, t->path_room, n, v->chain_n[locations[i]]);
		if (r < 0)
			return r;
		memcpy(t->path + n, v->chains + v->chain_first[locations[i]],
			v->chain_n[locations[i]] * sizeof(*t->path));
		n += v->chain_n[locations[i]];
	}
	return n;
}

static const char *resource_text(const struct batch *b, uint32_t resource, const char *key)
{
	size_t n;
	const struct profile_resource_attribute *a = batch_resource_at(b, resource, &n);

	for (size_t i = 0; i < n; i++) {
		if (!a[i].is_int && streq(batch_string_at(b, a[i].key), key))
			return batch_string_at(b, a[i].value);
	}
	return NULL;
}

/* "nginx (1234)", "nginx", "1234" or "". */
static void process_name(const struct batch *b, uint32_t resource, char *out, size_t size)
{
	size_t n;
	const struct profile_resource_attribute *a = batch_resource_at(b, resource, &n);
	const char *name = resource_text(b, resource, "process.executable.name");
	long long pid = -1;

	for (size_t i = 0; i < n; i++) {
		if (a[i].is_int && streq(batch_string_at(b, a[i].key), "process.pid"))
			pid = a[i].number;
	}
	if (pid >= 0)
		snprintf(out, size, name ? "%.200s (%lld)" : "%.0s%lld", name ? name : "", pid);
	else
		snprintf(out, size, "%.200s", name ? name : "");
}

/* "worker [1235]", "worker", "[1235]" or "". */
static void thread_name(
	const struct batch *b, const struct profile_sample *s, char *out, size_t size)
{
	const char *name = NULL;
	long long tid = -1;

	for (size_t i = 0; i < 4 && s->attributes[i]; i++) {
		const struct profile_attribute *a = batch_attribute_at(b, s->attributes[i]);
		const char *key = batch_string_at(b, a->key);

		if (!a->is_int && streq(key, "thread.name"))
			name = batch_string_at(b, a->value);
		else if (a->is_int && streq(key, "thread.id"))
			tid = a->number;
	}
	if (tid >= 0)
		snprintf(out, size, "%.200s%s[%lld]", name ? name : "", name ? " " : "", tid);
	else
		snprintf(out, size, "%.200s", name ? name : "");
}

static bool equal_row(const void *ctx, uint32_t at)
{
	const struct wanted *w = ctx;
	const struct query_group_row *a = &w->t->rows.at[at], *x = w->content;

	return a->service == x->service && a->process == x->process && a->thread == x->thread;
}

static int add_row(struct tree *t, uint32_t service, const char *process, const char *thread,
	uint64_t ns, uint64_t samples)
{
	bool full = t->rows.n >= MAX_ROWS;
	int64_t p = intern_string(t, full ? OTHER : process),
		h = intern_string(t, full ? OTHER : thread);
	struct query_group_row row = {
		.service = service, .process = (uint32_t)p, .thread = (uint32_t)h};
	struct wanted w = {t, &row};
	uint32_t k[3] = {service, row.process, row.thread};
	int64_t at;

	if (p < 0 || h < 0)
		return -ENOMEM;
	at = TABLE_INTERN(t, rows, &row, hash32(k, sizeof(k)), equal_row, &w);
	if (at < 0)
		return (int)at;
	t->rows.at[at].ns += ns;
	t->rows.at[at].samples += samples;
	return 0;
}

static bool wants_part(const struct tree *t, const struct batch *b, const struct profile_part *p)
{
	uint64_t middle = p->time_unix_ns + p->duration_ns / 2;
	const char *service = resource_text(b, p->resource, "service.name");
	const char *source = resource_text(b, p->resource, "odi.source");

	return p->type == t->q->type && middle >= t->q->from_unix_ns && middle < t->q->to_unix_ns &&
		(!*t->q->service || (service && streq(service, t->q->service))) &&
		(!*t->q->source || (source && streq(source, t->q->source)));
}

static int add_sample(struct tree *t, struct view *v, const struct profile_part *p,
	uint32_t service, const char *process, const struct profile_sample *s)
{
	uint64_t samples = s->value + s->n_timestamps, ns, sum;
	int64_t n, node;
	char thread[300];

	/* More nanoseconds than 500 years of all CPUs: not a batch of ours. */
	if (__builtin_mul_overflow(samples, MAX(p->period, 1UL), &ns) ||
		__builtin_add_overflow(t->total_ns, ns, &sum))
		return -EBADMSG;
	n = view_stack(t, v, s->stack);
	if (n < 0)
		return (int)n;
	node = find_leaf(t, service, t->path, (uint32_t)n);
	if (node < 0)
		return (int)node;
	t->nodes.at[node].self_ns += ns;
	t->nodes.at[node].self_samples += samples;
	t->total_ns = sum;
	t->total_samples += samples;
	thread_name(v->b, s, thread, sizeof(thread));
	return add_row(t, service, process, thread, ns, samples);
}

static int add_part(struct tree *t, struct view *v, const struct profile_part *p)
{
	const char *name = resource_text(v->b, p->resource, "service.name");
	int64_t service = intern_string(t, name && *name ? name : "[unknown]");
	char process[300];
	int r = (int)MIN(service, 0);

	process_name(v->b, p->resource, process, sizeof(process));
	for (uint32_t i = 0; i < p->n_samples && r >= 0; i++)
		r = add_sample(t, v, p, (uint32_t)service, process, &p->samples[i]);
	if (p->n_samples && r >= 0) {
		t->from = t->from ? MIN(t->from, p->time_unix_ns) : p->time_unix_ns;
		t->to = MAX(t->to, p->time_unix_ns + p->duration_ns);
		if (p->time_unix_ns >= t->newest) {
			t->newest = p->time_unix_ns;
			t->period = p->period;
		}
	}
	if (r >= 0 && t->nodes.n > t->held_nodes)
		r = prune(t, t->held_nodes / 2);
	return r;
}

int tree_add(struct tree *t, const struct batch *b)
{
	CLEANUP(view_deinit) struct view v = {.b = b};
	int r = 0;

	v.chain_first = calloc(batch_locations(b) + 1, sizeof(*v.chain_first));
	v.chain_n = calloc(batch_locations(b) + 1, sizeof(*v.chain_n));
	if (!v.chain_first || !v.chain_n)
		return -ENOMEM;
	for (size_t i = 0; i < batch_parts(b) && r >= 0; i++) {
		const struct profile_part *p = batch_part_at(b, i);

		if (wants_part(t, b, p))
			r = add_part(t, &v, p);
	}
	return r;
}

/* ---- the tree ---------------------------------------------------------------------------------------------------------- */

int tree_new(struct tree **ret, const struct query *q)
{
	CLEANUP(tree_freep) struct tree *t = calloc(1, sizeof(*t));
	static const struct query_function none;
	int64_t r;

	if (!t)
		return -ENOMEM;
	t->q = q;
	t->max_nodes =
		MIN(MAX(q->max_nodes ? q->max_nodes : DEFAULT_NODES, 16U), (uint32_t)MAX_NODES);
	t->held_nodes = MAX(t->max_nodes * HELD_NODES, 100000U);
	r = intern_string(t, "");
	if (r >= 0)
		r = intern_function(t, &none);
	if (r >= 0)
		r = intern_node(t, 0, 0, 0);
	if (r < 0)
		return (int)r;
	*ret = TAKE_PTR(t);
	return 0;
}

struct tree *tree_free(struct tree *t)
{
	if (!t)
		return NULL;
	for (struct text_chunk *c = t->text, *next; c; c = next) {
		next = c->next;
		free(c);
	}
#define FREE_TABLE(x)                                                                              \
	do {                                                                                       \
		free(t->x.at);                                                                     \
		intern_deinit(&t->x.index);                                                        \
	} while (0)
	FREE_TABLE(strings);
	FREE_TABLE(functions);
	FREE_TABLE(nodes);
	FREE_TABLE(rows);
	free(t->leaves);
	free(t->path);
	free(t->out_nodes);
	free(t->out_functions);
	free(t->out_rows);
	free(t->out_strings);
	free(t);
	return NULL;
}

/* New indices in order of first use; 0 stays 0. */
static uint32_t renumber(uint32_t *map, uint32_t *n, uint32_t i)
{
	if (i && !map[i])
		map[i] = ++*n;
	return map[i];
}

static uint32_t out_string(struct tree *t, uint32_t *map, uint32_t *n, uint32_t i)
{
	uint32_t at = renumber(map, n, i);

	t->out_strings[at] = (char *)t->strings.at[i];
	return at;
}

static void out_function(struct tree *t, uint32_t *strings, uint32_t *n, uint32_t at, uint32_t i)
{
	const struct query_function *f = &t->functions.at[i];
	struct query_function *o = &t->out_functions[at];

	memset(o, 0, sizeof(*o)); /* goes to another process as bytes: padding as well */
	o->name = out_string(t, strings, n, f->name);
	o->module = out_string(t, strings, n, f->module);
	o->file = out_string(t, strings, n, f->file);
	o->frame_type = f->frame_type;
	o->inlined = f->inlined;
}

int tree_finish(struct tree *t, struct query_result *ret)
{
	_cleanup_free_ uint32_t *functions = NULL, *strings = NULL;
	uint32_t n_functions = 0, n_strings = 0;
	int r = prune(t, t->max_nodes);

	if (r < 0)
		return r;
	functions = calloc((size_t)t->functions.n + 1, sizeof(*functions));
	strings = calloc((size_t)t->strings.n + 1, sizeof(*strings));
	t->out_nodes = calloc((size_t)t->nodes.n + 1, sizeof(*t->out_nodes));
	t->out_functions = calloc((size_t)t->functions.n + 1, sizeof(*t->out_functions));
	t->out_rows = calloc((size_t)t->rows.n + 1, sizeof(*t->out_rows));
	t->out_strings = calloc((size_t)t->strings.n + 1, sizeof(*t->out_strings));
	if (!functions || !strings || !t->out_nodes || !t->out_functions || !t->out_rows ||
		!t->out_strings)
		return -ENOMEM;
	t->out_strings[0] = (char *)t->strings.at[0];
	for (uint32_t i = 0; i < t->nodes.n; i++) {
		const struct node *x = &t->nodes.at[i];
		struct query_node *o = &t->out_nodes[i];
		uint32_t before = n_functions;

		o->parent = x->parent;
		o->function = renumber(functions, &n_functions, x->function);
		if (n_functions != before)
			out_function(t, strings, &n_strings, n_functions, x->function);
		o->service = out_string(t, strings, &n_strings, x->service);
		o->self_ns = x->self_ns;
		o->total_ns = x->total_ns;
		o->self_samples = x->self_samples;
	}
	for (uint32_t i = 0; i < t->rows.n; i++) {
		struct query_group_row *o = &t->out_rows[i];

		*o = t->rows.at[i];
		o->service = out_string(t, strings, &n_strings, o->service);
		o->process = out_string(t, strings, &n_strings, o->process);
		o->thread = out_string(t, strings, &n_strings, o->thread);
	}
	*ret = (struct query_result){.strings = t->out_strings,
		.n_strings = n_strings + 1,
		.functions = t->out_functions,
		.n_functions = n_functions + 1,
		.nodes = t->out_nodes,
		.n_nodes = t->nodes.n,
		.rows = t->out_rows,
		.n_rows = t->rows.n,
		.from_unix_ns = t->from,
		.to_unix_ns = t->to,
		.total_ns = t->total_ns,
		.total_samples = t->total_samples,
		.cut_nodes = t->cut,
		.period_ns = t->period};
	return 0;
}
