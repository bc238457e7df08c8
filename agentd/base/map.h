/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A hash table from byte-string keys to non-NULL pointers: open addressing, keyed hash. Keys are copied.
 * A fixed key size (map_new(sizeof(struct key))) or, with 0, keys of any length given at each call. */

#include "agentd/base/macros.h"

struct map;

int map_new(struct map **ret, size_t key_size);
/* free_value may be NULL. */
struct map *map_free_with(struct map *m, void (*free_value)(void *value));
static inline struct map *map_free(struct map *m)
{
	return map_free_with(m, NULL);
}
DEFINE_FREEP(map_freep, struct map *, map_free)

size_t map_size(const struct map *m);
void *map_get(const struct map *m, const void *key, size_t len);
/* 0 added, 1 replaced (*old, if asked for, is what was there), -ENOMEM. */
int map_put(struct map *m, const void *key, size_t len, void *value, void **old);
/* Returns what was there, or NULL. Allowed for the current entry while iterating. */
void *map_remove(struct map *m, const void *key, size_t len);
void map_clear_with(struct map *m, void (*free_value)(void *value));

struct map_iter {
	size_t at;
	const void *key;
	size_t key_len;
	void *value;
};
/* struct map_iter it = {0}; while (map_next(m, &it)) ...; no map_put meanwhile. */
bool map_next(const struct map *m, struct map_iter *it);

static inline void *map_get_str(const struct map *m, const char *key)
{
	return map_get(m, key, strlen(key));
}
static inline int map_put_str(struct map *m, const char *key, void *value, void **old)
{
	return map_put(m, key, strlen(key), value, old);
}
