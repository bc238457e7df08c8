/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's names by (file, address).
 *
 * Programs stay in the same few thousand addresses, so a name is asked for once and used for hours. Three sets,
 * each by open addressing: entries (24 bytes an address), chains (one for all addresses of a function), strings.
 * Entries point at chains, chains at strings, nothing points back: what is unused is found by marking.
 *
 * Invariants. Contents are equal exactly when pointers are. Nothing that was given out moves or goes before
 * symbol_cache_trim(). Keys come from profiled programs, so all hashing is keyed. An entry's age counts trims
 * since its last use; beyond a bound the older half goes. Runs in agentd. */

#include "agentd/base/hash.h"
#include "agentd/symbol/cache.h"

#define ENTRIES_DEFAULT 131072
#define STRINGS_DEFAULT (24 << 20)
#define AGES            256
#define EPOCH_MASK      ((1U << 28) - 1)

/* Heads every chain and string. */
struct node {
	uint64_t hash;
	bool marked;
};

struct string {
	struct node node;
	size_t len;
	char text[];
};

struct chain {
	struct node node;
	struct symbol_chain chain;
	struct symbol_function functions[];
};

struct set {
	struct node **slots;
	size_t size, n;
};

struct symbol_cache {
	size_t max_entries, max_string_bytes;
	struct symbol_entry *entries;
	size_t size, n;
	uint32_t epoch;
	struct set strings, chains;
	size_t string_bytes;
};

int symbol_cache_new(struct symbol_cache **ret, size_t max_entries, size_t max_string_bytes)
{
	struct symbol_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->max_entries = max_entries ? max_entries : ENTRIES_DEFAULT;
	c->max_string_bytes = max_string_bytes ? max_string_bytes : STRINGS_DEFAULT;
	*ret = c;
	return 0;
}

static void set_deinit(struct set *s)
{
	for (size_t i = 0; i < s->size; i++)
		free(s->slots[i]);
	free(s->slots);
}

struct symbol_cache *symbol_cache_free(struct symbol_cache *c)
{
	if (c) {
		set_deinit(&c->strings);
		set_deinit(&c->chains);
		free(c->entries);
		free(c);
	}
	return NULL;
}

/* ---- sets ---------------------------------------------------------------------------------------------------- */

static void set_insert(struct set *s, struct node *node)
{
	size_t at = node->hash & (s->size - 1);

	while (s->slots[at])
		at = (at + 1) & (s->size - 1);
	s->slots[at] = node;
}

static int set_resize(struct set *s, size_t size)
{
	struct set to = {.slots = calloc(size, sizeof(*to.slots)), .size = size, .n = s->n};

	if (!to.slots)
		return -ENOMEM;
	for (size_t i = 0; i < s->size; i++)
		if (s->slots[i])
			set_insert(&to, s->slots[i]);
	free(s->slots);
	*s = to;
	return 0;
}

static int set_add(struct set *s, struct node *node)
{
	if ((s->n + 1) * 4 > s->size * 3) {
		int r = set_resize(s, s->size ? s->size * 2 : 256);

		if (r < 0)
			return r;
	}
	set_insert(s, node);
	s->n++;
	return 0;
}

/* Frees what is not marked and takes the marks away. Without memory for it all stay: a sweep is for saving,
 * and whoever points at one of them may stay too. */
static int set_sweep(struct set *s, bool keep_all)
{
	size_t size = 256, marked = 0;
	struct set to;

	for (size_t i = 0; i < s->size; i++)
		marked += s->slots[i] && s->slots[i]->marked;
	while (size * 3 < marked * 4 + 4)
		size *= 2;
	to = (struct set){.slots = keep_all ? NULL : calloc(size, sizeof(*to.slots)), .size = size};
	for (size_t i = 0; i < s->size; i++) {
		struct node *node = s->slots[i];

		if (!node)
			continue;
		if (to.slots && !node->marked) {
			free(node);
			continue;
		}
		node->marked = false;
		if (to.slots) {
			set_insert(&to, node);
			to.n++;
		}
	}
	if (!to.slots)
		return -ENOMEM;
	free(s->slots);
	*s = to;
	return 0;
}

/* ---- strings and chains ---------------------------------------------------------------------------------------- */

const char *symbol_cache_string(struct symbol_cache *c, const char *s)
{
	size_t len = strlen(s);
	uint64_t hash = hash_local(s, len);
	struct string *string;

	for (size_t at = hash; c->strings.size; at++) {
		struct node *node = c->strings.slots[at & (c->strings.size - 1)];

		if (!node)
			break;
		string = (struct string *)node;
		if (node->hash == hash && string->len == len && memcmp(string->text, s, len) == 0)
			return string->text;
	}
	string = malloc(sizeof(*string) + len + 1);
	if (!string)
		return NULL;
	*string = (struct string){.node.hash = hash, .len = len};
	memcpy(string->text, s, len + 1);
	if (set_add(&c->strings, &string->node) < 0) {
		free(string);
		return NULL;
	}
	c->string_bytes += sizeof(*string) + len + 1;
	return string->text;
}

static struct string *string_of(const char *text)
{
	return (struct string *)(void *)((char *)(uintptr_t)text - offsetof(struct string, text));
}

static uint64_t chain_hash(const struct chain *n)
{
	uint64_t parts[3] = {n->chain.n | (uint64_t)n->chain.fallback << 16,
		(uintptr_t)n->chain.module,
		hash_local(n->functions, n->chain.n * sizeof(n->functions[0]))};

	return hash_local(parts, sizeof(parts));
}

static bool chain_equal(const struct chain *a, const struct chain *b)
{
	return a->chain.n == b->chain.n && a->chain.fallback == b->chain.fallback &&
		a->chain.module == b->chain.module &&
		memcmp(a->functions, b->functions, a->chain.n * sizeof(a->functions[0])) == 0;
}

/* A copy whose strings are ours. Zeroed first, so that padding compares equal. */
static struct chain *own_chain(struct symbol_cache *c, const struct symbol_chain *like)
{
	struct chain *n = calloc(1, sizeof(*n) + like->n * sizeof(n->functions[0]));
	bool ok = n;

	if (!n)
		return NULL;
	n->chain.n = like->n;
	n->chain.fallback = like->fallback;
	n->chain.functions = n->functions;
	ok &= (n->chain.module = symbol_cache_string(c, like->module)) != NULL;
	for (size_t i = 0; i < like->n && ok; i++) {
		const struct symbol_function *from = &like->functions[i];
		struct symbol_function *to = &n->functions[i];

		to->name = symbol_cache_string(c, from->name);
		to->system_name = symbol_cache_string(c, from->system_name);
		to->file = symbol_cache_string(c, from->file);
		to->line = from->line;
		to->start_line = from->start_line;
		to->inlined = from->inlined;
		ok = to->name && to->system_name && to->file;
	}
	if (!ok) {
		free(n);
		return NULL;
	}
	return n;
}

const struct symbol_chain *symbol_cache_chain(
	struct symbol_cache *c, const struct symbol_chain *like)
{
	struct chain *n = own_chain(c, like);

	if (!n)
		return NULL;
	n->node.hash = chain_hash(n);
	for (size_t at = n->node.hash; c->chains.size; at++) {
		struct node *node = c->chains.slots[at & (c->chains.size - 1)];

		if (!node)
			break;
		if (node->hash == n->node.hash && chain_equal((struct chain *)node, n)) {
			free(n);
			return &((struct chain *)node)->chain;
		}
	}
	if (set_add(&c->chains, &n->node) < 0) {
		free(n);
		return NULL;
	}
	return &n->chain;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static size_t entry_at(const struct symbol_cache *c, uint32_t file, uint64_t address)
{
	uint64_t key[2] = {file, address};

	return hash_local(key, sizeof(key)) & (c->size - 1);
}

/* The slot that holds the key, or the free one where it belongs. */
static struct symbol_entry *entry_slot(
	const struct symbol_cache *c, uint32_t file, uint64_t address)
{
	size_t at = entry_at(c, file, address);

	while (c->entries[at].file &&
		(c->entries[at].file != file || c->entries[at].address != address))
		at = (at + 1) & (c->size - 1);
	return &c->entries[at];
}

/* Moves the entries that keep() wants into a table of the right size. */
static int entries_rebuild(struct symbol_cache *c, size_t room,
	bool (*keep)(void *userdata, const struct symbol_entry *e), void *userdata)
{
	struct symbol_cache to = {.size = 1024};

	while (to.size * 3 < room * 4)
		to.size *= 2;
	to.entries = calloc(to.size, sizeof(*to.entries));
	if (!to.entries)
		return -ENOMEM;
	for (size_t i = 0; i < c->size; i++) {
		struct symbol_entry *e = &c->entries[i];

		if (!e->file || (keep && !keep(userdata, e)))
			continue;
		*entry_slot(&to, e->file, e->address) = *e;
		to.n++;
	}
	free(c->entries);
	c->entries = to.entries;
	c->size = to.size;
	c->n = to.n;
	return 0;
}

struct symbol_entry *symbol_cache_find(struct symbol_cache *c, uint32_t file, uint64_t address)
{
	struct symbol_entry *e;

	if (!c->size || !file)
		return NULL;
	e = entry_slot(c, file, address);
	if (!e->file)
		return NULL;
	e->epoch = c->epoch & EPOCH_MASK;
	return e;
}

struct symbol_entry *symbol_cache_add(struct symbol_cache *c, uint32_t file, uint64_t address)
{
	struct symbol_entry *e = symbol_cache_find(c, file, address);

	if (e || !file)
		return e;
	if (c->n >= c->max_entries * 2)
		return NULL;
	if ((c->n + 1) * 4 > c->size * 3 && entries_rebuild(c, (c->n + 1) * 2, NULL, NULL) < 0)
		return NULL;
	e = entry_slot(c, file, address);
	*e = (struct symbol_entry){
		.file = file, .address = address, .epoch = c->epoch & EPOCH_MASK};
	c->n++;
	return e;
}

static bool is_other_file(void *userdata, const struct symbol_entry *e)
{
	return e->file != *(uint32_t *)userdata;
}

void symbol_cache_expire_file(struct symbol_cache *c, uint32_t file)
{
	for (size_t i = 0; i < c->size; i++)
		if (c->entries[i].file == file && c->entries[i].state != SYMBOL_PENDING)
			c->entries[i].state = SYMBOL_PROVISIONAL;
}

void symbol_cache_drop_file(struct symbol_cache *c, uint32_t file)
{
	if (c->n)
		(void)entries_rebuild(c, c->n, is_other_file, &file);
}

struct keep {
	uint32_t file;
	const uint64_t *addresses;
	size_t n;
};

static int compare_addresses(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_kept(void *userdata, const struct symbol_entry *e)
{
	const struct keep *k = userdata;

	return e->file != k->file || e->state == SYMBOL_PENDING ||
		(k->n &&
			bsearch(&e->address, k->addresses, k->n, sizeof(*k->addresses),
				compare_addresses));
}

void symbol_cache_drop_others(
	struct symbol_cache *c, uint32_t file, const uint64_t *addresses, size_t n)
{
	struct keep keep = {.file = file, .addresses = addresses, .n = n};

	if (c->n)
		(void)entries_rebuild(c, c->n, is_kept, &keep);
}

struct unlike {
	uint32_t file;
	const char *module;
};

static bool is_like(void *userdata, const struct symbol_entry *e)
{
	const struct unlike *u = userdata;

	return e->file != u->file || e->state == SYMBOL_PENDING ||
		(e->state == SYMBOL_NAMED && streq(e->chain->module, u->module));
}

void symbol_cache_drop_unlike(struct symbol_cache *c, uint32_t file, const char *module)
{
	struct unlike unlike = {.file = file, .module = module};

	if (c->n)
		(void)entries_rebuild(c, c->n, is_like, &unlike);
}

/* ---- trimming ------------------------------------------------------------------------------------------------------ */

struct drop {
	const struct symbol_cache *c;
	size_t age, of_age; /* kept: all younger than age, and so many of that age */
};

static size_t entry_age(const struct symbol_cache *c, const struct symbol_entry *e)
{
	return MIN((c->epoch - e->epoch) & EPOCH_MASK, (size_t)AGES - 1);
}

static bool is_young(void *userdata, const struct symbol_entry *e)
{
	struct drop *d = userdata;
	size_t age = entry_age(d->c, e);

	if (e->state == SYMBOL_PENDING || age < d->age)
		return true;
	if (age > d->age || !d->of_age)
		return false;
	d->of_age--;
	return true;
}

static void drop_older_half(struct symbol_cache *c)
{
	size_t ages[AGES] = {0}, kept = 0, pending = 0;
	struct drop drop = {.c = c};

	for (size_t i = 0; i < c->size; i++) {
		if (!c->entries[i].file)
			continue;
		ages[entry_age(c, &c->entries[i])]++;
		pending += c->entries[i].state == SYMBOL_PENDING;
	}
	while (kept + ages[drop.age] < c->n / 2)
		kept += ages[drop.age++];
	drop.of_age = c->n / 2 - kept;
	(void)entries_rebuild(c, c->n / 2 + pending, is_young, &drop);
}

static void mark_all(struct symbol_cache *c)
{
	for (size_t i = 0; i < c->size; i++) {
		const struct symbol_chain *chain = c->entries[i].file ? c->entries[i].chain : NULL;
		struct chain *n;

		if (!chain)
			continue;
		n = (struct chain *)(void *)((char *)(uintptr_t)chain -
			offsetof(struct chain, chain));
		if (n->node.marked)
			continue;
		n->node.marked = true;
		string_of(chain->module)->node.marked = true;
		for (size_t f = 0; f < chain->n; f++) {
			string_of(chain->functions[f].name)->node.marked = true;
			string_of(chain->functions[f].system_name)->node.marked = true;
			string_of(chain->functions[f].file)->node.marked = true;
		}
	}
}

void symbol_cache_outdate(struct symbol_cache *c)
{
	for (size_t i = 0; i < c->size; i++)
		if (c->entries[i].file && c->entries[i].state == SYMBOL_NAMED)
			c->entries[i].state = SYMBOL_PROVISIONAL;
}

void symbol_cache_trim(struct symbol_cache *c)
{
	c->epoch++;
	if (c->n <= c->max_entries && c->string_bytes <= c->max_string_bytes)
		return;
	drop_older_half(c);
	mark_all(c);
	/* Strings of chains that go are not marked: they may go only if those did. */
	(void)set_sweep(&c->strings, set_sweep(&c->chains, false) < 0);
	c->string_bytes = 0;
	for (size_t i = 0; i < c->strings.size; i++)
		if (c->strings.slots[i])
			c->string_bytes += sizeof(struct string) +
				((struct string *)c->strings.slots[i])->len + 1;
}

void symbol_cache_size(const struct symbol_cache *c, uint64_t *entries, uint64_t *string_bytes)
{
	*entries = c->n;
	*string_bytes = c->string_bytes;
}
