/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* agentd's names by (file, address): entries, chains and strings, each kept once. Sizes in bytes. */

#include "agentd/symbol/symbol.h"

enum symbol_state {
	SYMBOL_NONE = 0,
	SYMBOL_PENDING,     /* asked for; the chain, if any, is a fallback */
	SYMBOL_NAMED,       /* answered with names */
	SYMBOL_FALLBACK,    /* answered: no source knows it */
	SYMBOL_PROVISIONAL, /* not answered (file not readable, back-off): asked again after a trim */
};

struct symbol_entry {
	uint64_t address;
	uint32_t file;                  /* 0: a free slot */
	uint32_t epoch : 28, state : 4; /* epoch: of the last use */
	const struct symbol_chain *chain;
};

struct symbol_cache;

int symbol_cache_new(struct symbol_cache **ret, size_t max_entries, size_t max_string_bytes);
struct symbol_cache *symbol_cache_free(struct symbol_cache *c);
DEFINE_FREEP(symbol_cache_freep, struct symbol_cache *, symbol_cache_free)

/* NULL: not there. Borrowed until the next symbol_cache_add, _drop_file or _trim. Counts as a use. */
struct symbol_entry *symbol_cache_find(struct symbol_cache *c, uint32_t file, uint64_t address);
/* The entry, made with state SYMBOL_NONE and no chain if it was not there. NULL: no memory, or full (twice the
 * bound). */
struct symbol_entry *symbol_cache_add(struct symbol_cache *c, uint32_t file, uint64_t address);
/* The one chain of these contents; strings are copied. NULL: no memory. Lives until a trim finds it unused. */
const struct symbol_chain *symbol_cache_chain(
	struct symbol_cache *c, const struct symbol_chain *like);
const char *symbol_cache_string(struct symbol_cache *c, const char *s);
/* Entries of this file are to be asked for again, and keep their chains until then; but for pending ones. */
void symbol_cache_expire_file(struct symbol_cache *c, uint32_t file);
/* Entries of this file go; chains that were borrowed stay until the next trim. */
void symbol_cache_drop_file(struct symbol_cache *c, uint32_t file);
/* The same, but for those of these addresses (sorted), and pending ones. */
void symbol_cache_drop_others(
	struct symbol_cache *c, uint32_t file, const uint64_t *addresses, size_t n);
/* Every name stays, and is asked for again. */
void symbol_cache_outdate(struct symbol_cache *c);
/* The same, but for those named as functions of this module, and pending ones. */
void symbol_cache_drop_unlike(struct symbol_cache *c, uint32_t file, const char *module);
/* Beyond a bound the least recently used half goes (never a pending entry), and what nobody uses any more. */
void symbol_cache_trim(struct symbol_cache *c);
void symbol_cache_size(const struct symbol_cache *c, uint64_t *entries, uint64_t *string_bytes);
