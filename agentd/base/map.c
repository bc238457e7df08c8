/* SPDX-License-Identifier: Apache-2.0 */

/* A hash table from bytes to pointers: open addressing with linear probing, at most three quarters
 * full.
 *
 * Keys are chosen by what is profiled, so the hash is keyed (hash.h). A removed entry leaves a mark
 * behind
 * ("tomb") instead of moving its followers: that is what makes removal of the current entry safe
 * while iterating. Marks are swept whenever the next slot is empty anyway, and at every rehash.
 *
 * Invariants: hash 0 is an empty slot, 1 a tomb, all else an entry with a value that is not NULL;
 * there is always an empty slot, so every probe ends; slots move only in map_put() and
 * map_clear_with(). With a fixed key size the keys lie beside the slots in one array (aligned as
 * the key's struct is), without one each key is an allocation of its own. All roles. */

#include "agentd/base/hash.h"
#include "agentd/base/map.h"

enum { HASH_EMPTY = 0, HASH_TOMB = 1, SLOTS_MIN = 16 };

struct slot {
	uint64_t hash;
	void *value;
	char *key; /* owned; only without a fixed key size */
	size_t len;
};

struct map {
	size_t key_size; /* 0: any */
	size_t n_slots;  /* 0 or a power of two */
	size_t live, tombs;
	struct slot *slots;
	uint8_t *keys; /* n_slots * key_size */
};

int map_new(struct map **ret, size_t key_size)
{
	struct map *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->key_size = key_size;
	*ret = m;
	return 0;
}

static const void *key_at(const struct map *m, size_t i)
{
	return m->key_size ? (const void *)(m->keys + i * m->key_size) : m->slots[i].key;
}

static uint64_t hash_of(const void *key, size_t len)
{
	uint64_t hash = hash_local(key, len);

	return hash > HASH_TOMB ? hash : hash + 2;
}

static bool len_fits(const struct map *m, size_t len)
{
	return !m->key_size || len == m->key_size;
}

/* The entry's slot, or n_slots. */
static size_t find(const struct map *m, uint64_t hash, const void *key, size_t len)
{
	size_t mask = m->n_slots - 1;

	if (!m->live)
		return m->n_slots;
	for (size_t i = hash & mask;; i = (i + 1) & mask) {
		const struct slot *s = &m->slots[i];

		if (s->hash == HASH_EMPTY)
			return m->n_slots;
		if (s->hash == hash && s->len == len &&
			(!len || memcmp(key_at(m, i), key, len) == 0))
			return i;
	}
}

/* The first slot on the hash's way that holds no entry. There is one. */
static size_t find_free(const struct slot *slots, size_t n_slots, uint64_t hash)
{
	size_t mask = n_slots - 1, i = hash & mask;

	while (slots[i].hash > HASH_TOMB)
		i = (i + 1) & mask;
	return i;
}

/* Moves all entries to tables at most half full; also how tombs go, and how a table shrinks. */
static int rehash(struct map *m)
{
	_cleanup_free_ struct slot *slots = NULL;
	_cleanup_free_ uint8_t *keys = NULL;
	size_t n = SLOTS_MIN;

	while (n / 2 < m->live + 1)
		n *= 2;
	slots = calloc(n, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	if (m->key_size) {
		keys = reallocarray(NULL, n, m->key_size);
		if (!keys)
			return -ENOMEM;
	}
	for (size_t i = 0; i < m->n_slots; i++) {
		size_t to;

		if (m->slots[i].hash <= HASH_TOMB)
			continue;
		to = find_free(slots, n, m->slots[i].hash);
		slots[to] = m->slots[i];
		if (keys)
			memcpy(keys + to * m->key_size, key_at(m, i), m->key_size);
	}
	free(m->slots);
	free(m->keys);
	m->slots = TAKE_PTR(slots);
	m->keys = TAKE_PTR(keys);
	m->n_slots = n;
	m->tombs = 0;
	return 0;
}

size_t map_size(const struct map *m)
{
	return m->live;
}

void *map_get(const struct map *m, const void *key, size_t len)
{
	size_t i;

	if (!m->live || !len_fits(m, len))
		return NULL;
	i = find(m, hash_of(key, len), key, len);
	return i < m->n_slots ? m->slots[i].value : NULL;
}

int map_put(struct map *m, const void *key, size_t len, void *value, void **old)
{
	_cleanup_free_ char *copy = NULL;
	uint64_t hash;
	size_t i;
	int r;

	if (!value || !len_fits(m, len))
		return -EINVAL;
	hash = hash_of(key, len);
	i = find(m, hash, key, len);
	if (i < m->n_slots) {
		if (old)
			*old = m->slots[i].value;
		m->slots[i].value = value;
		return 1;
	}
	if (!m->key_size) {
		copy = malloc(len ? len : 1);
		if (!copy)
			return -ENOMEM;
		if (len)
			memcpy(copy, key, len);
	}
	if ((m->live + m->tombs + 1) * 4 > m->n_slots * 3) {
		r = rehash(m);
		if (r < 0)
			return r;
	}
	i = find_free(m->slots, m->n_slots, hash);
	m->tombs -= m->slots[i].hash == HASH_TOMB;
	m->slots[i] =
		(struct slot){.hash = hash, .value = value, .key = TAKE_PTR(copy), .len = len};
	if (m->key_size)
		memcpy(m->keys + i * m->key_size, key, len);
	m->live++;
	return 0;
}

void *map_remove(struct map *m, const void *key, size_t len)
{
	size_t i, mask = m->n_slots - 1;
	void *value;

	if (!m->live || !len_fits(m, len))
		return NULL;
	i = find(m, hash_of(key, len), key, len);
	if (i == m->n_slots)
		return NULL;
	value = m->slots[i].value;
	/* key may be this entry's own (an iterator's): it is not looked at again. */
	free(m->slots[i].key);
	m->slots[i] = (struct slot){.hash = HASH_TOMB};
	m->tombs++;
	m->live--;
	/* No probe passes over marks that an empty slot follows. */
	if (m->slots[(i + 1) & mask].hash == HASH_EMPTY)
		for (; m->slots[i].hash == HASH_TOMB; i = (i - 1) & mask) {
			m->slots[i].hash = HASH_EMPTY;
			m->tombs--;
		}
	return value;
}

void map_clear_with(struct map *m, void (*free_value)(void *value))
{
	struct slot *slots = TAKE_PTR(m->slots);
	size_t n = m->n_slots;

	/* Empty before the first callback, so that one which looks into the map finds it
	 * consistent. */
	free(TAKE_PTR(m->keys));
	m->n_slots = m->live = m->tombs = 0;
	for (size_t i = 0; i < n; i++) {
		if (slots[i].hash <= HASH_TOMB)
			continue;
		free(slots[i].key);
		if (free_value)
			free_value(slots[i].value);
	}
	free(slots);
}

struct map *map_free_with(struct map *m, void (*free_value)(void *value))
{
	if (m) {
		map_clear_with(m, free_value);
		free(m);
	}
	return NULL;
}

bool map_next(const struct map *m, struct map_iter *it)
{
	for (; it->at < m->n_slots; it->at++) {
		const struct slot *s = &m->slots[it->at];

		if (s->hash <= HASH_TOMB)
			continue;
		it->key = key_at(m, it->at);
		it->key_len = s->len;
		it->value = s->value;
		it->at++;
		return true;
	}
	return false;
}
