/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names of containers, from the runtimes' own state files (docker.sock is root-equivalent: never used).
 * agentd opens the file (root's own folders, never a container's); this room parses it in the sandbox
 * (`--role container`) by json-c: Docker's config.v2.json, containerd's and CRI-O's OCI config.json
 * annotations, Podman's containers.json. */

#include <systemd/sd-event.h>
#include "agentd/base/err.h"

#define CONTAINER_FILE_MAX (4U << 20) /* bytes of a state file */

struct container_facts {
	char name[256];  /* "" none; Kubernetes: the container's name within its pod */
	char image[256]; /* as the runtime was asked for it: "nginx:1.25"; "" not known */
	struct {
		char key[64],
			value[256]; /* k8s.pod.name, k8s.namespace.name, k8s.container.name, k8s.pod.uid */
	} k8s[8];
	size_t n_k8s;
};

/* Parses one state file's bytes for the container id (12 to 64 lower-case hex digits; the file's own id must
 * begin with it). All text is clean. runtime is a hint ("" any): the shape decides. -ENOENT: not in there, or
 * nothing said of it; -EBADMSG: not what it should be; -ENOMEM. Pure; for the sandbox. */
int container_parse(const char *runtime, const char *id, const void *data, size_t len,
	struct container_facts *ret);
/* Docker's daemon.json: where it keeps its state, an absolute path. -ENOENT: it does not say. */
int container_parse_docker_root(const void *data, size_t len, char *ret, size_t size);

struct container_namer; /* agentd's side: owns the sandboxed child, caches by id (bounded), asks in order */
/* root: where the host's file system begins (for tests). Well-known folders are looked at by themselves; the
 * child starts with the first question and ends after 30 s without one. */
int container_namer_new(
	struct container_namer **ret, sd_event *loop, const char *root /* NULL: "/" */);
/* What is still asked is dropped without being called back. */
struct container_namer *container_namer_free(struct container_namer *n);
DEFINE_FREEP(container_namer_freep, struct container_namer *, container_namer_free)
/* One more place to look at, before the well-known ones: Docker's data-root (holds containers/ID/), containerd's
 * task folder (holds NAMESPACE/ID/), the storage or run root of Podman or CRI-O (holds overlay-containers/).
 * path is absolute, seen from root; the same one again is fine. -EINVAL, -E2BIG (16). */
int container_namer_add_root(struct container_namer *n, const char *runtime, const char *path);
void container_namer_clear_roots(
	struct container_namer *n); /* the added ones: before a reload adds its own */
/* Asks for a container's facts; done is called back exactly once if this returns 0, perhaps before it returns;
 * facts (borrowed for the call) is NULL when there is no name to be had now: ask again later, an answer of that
 * kind is kept for 10 s only. done may ask in turn. -ENOMEM. */
int container_ask(struct container_namer *n, const char *runtime, const char *id,
	void (*done)(void *userdata, const char *id, const struct container_facts *facts),
	void *userdata);

struct container_counters {
	uint64_t asked, from_cache, named,
		nameless; /* asked = from_cache + named + nameless + refused + waiting */
	uint64_t refused; /* not an id, or too many waiting */
	uint64_t files, files_failed; /* given to the child; of these, cost it its life */
	uint64_t starts;              /* of the child */
};
void container_namer_counters(const struct container_namer *n, struct container_counters *ret);

/* The role: parse requests from SANDBOX_FD until it closes. */
int container_role_main(void);
