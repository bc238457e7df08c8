/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names of containers, from the runtimes' own state files (docker.sock is root-equivalent: never used).
 * agentd (through the /proc reader) opens the file; this room parses it in the sandbox (`--role container`)
 * by json-c: Docker's config.v2.json, containerd's and CRI-O's OCI config.json annotations, Podman's
 * containers.json. */

#include <systemd/sd-event.h>
#include "agentd/base/err.h"

struct container_facts {
	char name[256];		/* "" none */
	char image[256];
	struct {
		char key[64], value[256];	/* k8s.pod.name, k8s.namespace.name, k8s.container.name, k8s.pod.uid, ... */
	} k8s[8];
	size_t n_k8s;
};

/* Parses one state file's bytes for the container id. -ENOENT: not in there; -EBADMSG: not what it should be. */
int container_parse(const char *runtime, const char *id, const void *data, size_t len, struct container_facts *ret);

struct container_namer;	/* agentd's side: owns the sandboxed child, caches by id (bounded), asks in order */
int container_namer_new(struct container_namer **ret, sd_event *loop, const char *root /* NULL: "/" */);
struct container_namer *container_namer_free(struct container_namer *n);
/* Asks for a container's facts; done is called back exactly once, perhaps before this returns (cached); facts is
 * NULL when there is no name to be had. */
int container_ask(struct container_namer *n, const char *runtime, const char *id,
	void (*done)(void *userdata, const char *id, const struct container_facts *facts), void *userdata);

/* The role: parse requests from SANDBOX_FD until it closes. */
int container_role_main(void);
