/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files that fetch debug files: what is wanted (daemon_fetch_wants.c) and the asking for it
 * (daemon_fetch.c). */

#include "agentd/base/clock.h"
#include "agentd/base/map.h"
#include "agentd/daemon_fetch.h"
#include "agentd/symbol/fetched.h"

#define FETCH_MAX_FILES   32 /* files of one build id that are told when it came */
#define FETCH_MAX_SERVERS CONFIG_MAX_URLS
#define FETCH_DAY_NS      (86400 * NSEC_PER_SEC)

/* Of one build id at one server. */
struct fetch_answer {
	uint64_t retry_ns; /* monotonic; not before; 0: it was not asked yet */
	bool not_found;
	uint8_t failures; /* in a row */
};

struct fetch_want {
	char build_id[41];
	uint64_t weight;     /* samples with a frame in it */
	uint64_t not_before; /* monotonic: at no server */
	bool refused;
	struct {
		uint32_t id;
		bool given; /* it was handed what is in the cache */
	} files[FETCH_MAX_FILES];
	size_t n_files;
	struct fetch_answer answers[FETCH_MAX_SERVERS];
};

struct fetch_server {
	char *url;
	uint64_t retry_ns;
	unsigned failures;
};

struct fetching {
	struct fetched *cache; /* NULL: it could not be made, and nothing is fetched */
	struct map *wants;     /* by build id */
	struct fetch_server servers[FETCH_MAX_SERVERS];
	size_t n_servers;
	bool on;
	sd_event_source *timer;
	/* under way */
	char build_id[41]; /* "" none */
	size_t server;
	int fd;
	/* bounds */
	uint64_t requests_left, filled_ns;
	uint64_t day_ns, day_bytes;
	uint64_t pause_ns; /* nothing before; for the disk */
	struct fetch_figures figures;
};

/* What is remembered of a build id; NULL: nothing. */
struct fetch_want *fetch_find(const struct fetching *f, const char *build_id);
