/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Between agentd's side and the sandboxed side of this room: the same binary at both ends, so plain
 * structs. */

#include "agentd/container/container.h"

#define CONTAINER_MAGIC    0x6374706fU
#define CONTAINER_PATH_MAX 1024
#define CONTAINER_ID_MIN   12
#define CONTAINER_ID_MAX   64

enum container_request_kind {
	CONTAINER_REQUEST_FACTS = 1,
	CONTAINER_REQUEST_DOCKER_ROOT,
};

/* With one descriptor: the state file, opened for reading. */
struct container_request {
	uint32_t magic, kind; /* enum container_request_kind */
	uint64_t serial;
	char runtime[16];
	char id[CONTAINER_ID_MAX + 8];
};

/* Believed only after container_answer_check(). */
struct container_answer {
	uint32_t magic;
	int32_t result; /* 0, -ENOENT, -EBADMSG, -ENOMEM, -EFBIG, -EIO */
	uint64_t serial;
	struct container_facts facts;
	char path[CONTAINER_PATH_MAX];
};

/* Whether what the child said can be an answer to this request: -EBADMSG if not. */
int container_answer_check(
	const struct container_answer *a, size_t len, const struct container_request *request);
/* 12 to 64 lower-case hex digits. */
bool container_is_id(const char *id);
/* Absolute, clean, without "..". */
bool container_is_path(const char *path);

/* ---- places.c: where state files are ---- */

#define CONTAINER_PLACES_MAX 96

struct container_paths { /* from the root, without the first '/' */
	char *list[CONTAINER_PLACES_MAX];
	size_t n;
};
void container_paths_deinit(struct container_paths *p);
/* Adds where the runtime ("" any) may keep the id's state: below base for an added root, else (base
 * NULL) at the well-known places. More than fit are left out. */
int container_paths_add(struct container_paths *p, int root_fd, const char *runtime,
	const char *base, const char *id);
/* A state file, safe to hand on: regular, owned by root (or us), nobody else may write it, at most
 * CONTAINER_FILE_MAX. A descriptor or -errno. */
int container_open(int root_fd, const char *path);

/* ---- cache.c: answers that are known ---- */

#define CONTAINER_CACHE_MAX 4096

struct container_cache;
int container_cache_new(struct container_cache **ret, size_t max);
struct container_cache *container_cache_free(struct container_cache *c);
size_t container_cache_size(const struct container_cache *c);
/* False: not known, or no more. *named false: it is known that there is no name now. */
bool container_cache_get(struct container_cache *c, const char *id, uint64_t now_ns, bool *named,
	struct container_facts *ret);
/* facts NULL: there is no name. Without memory it is forgotten. */
void container_cache_put(struct container_cache *c, const char *id,
	const struct container_facts *facts, uint64_t until_ns);

/* For tests: 0 leaves one as it is. */
void container_namer_tune(
	struct container_namer *n, uint64_t deadline_ns, uint64_t idle_ns, uint64_t again_ns);
pid_t container_namer_child(const struct container_namer *n); /* -1 none */
