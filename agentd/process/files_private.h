/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the file table: files.c, file_keys.c. Nobody else includes this. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/map.h"
#include "agentd/process/files.h"

#define KEYS_A_FILE 4

struct link {
	struct link *prev, *next;
};

struct node {
	struct file file; /* first: files_get() hands it out */
	struct link lru, open;
	uint32_t holds;
	uint64_t generation;     /* of the inode, where an event said it */
	uint64_t held_since;     /* when fd was opened */
	bool plain_numbers;      /* see files_known() */
	char *keys[KEYS_A_FILE]; /* in by_key */
	size_t next_key, name_len;
	char *name; /* in by_name: anonymous and unopened ones */
};

struct files {
	struct map *by_identity, *by_key, *by_name;
	struct node **slots; /* by id, open addressing: looked at for every frame */
	size_t mask, n, max, n_open, max_open;
	struct link lru, open; /* heads; most recent first */
	uint32_t next_id, crowd;
	uint64_t evicted;
	void (*on_gone)(void *userdata, uint32_t id);
	void *userdata;
};

struct node *files_node(const struct files *f, uint32_t id); /* NULL: gone */

/* ---- file_keys.c ---- */
char *files_key_text(
	const struct file_key *key, uint64_t generation, const char *path); /* the caller's */
void files_remember(struct files *f, struct node *n, const struct file_key *key, const char *path);
void files_forget_key(struct files *f, struct node *n, size_t at);
