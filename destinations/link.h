/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* agentd's side of the exporter: starts it (or takes a socket from the service manager), hands it configuration and
 * batches as sealed memfds, and believes none of its words: lengths, names and states are checked, counts may not
 * exceed what was handed over. A batch that is not `held` yet is handed over again to the exporter's successor.
 * The ledger's destination rows are made of its answers. Runs in agentd. */

#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "agentd/config/config.h"
#include "agentd/profile/profile.h"
#include "destinations/protocol.h"

struct link_destination { /* what the exporter said last, checked */
	char name[80], type[40];
	char endpoint[512];
	char state[24]; /* "ok", "failing", "idle" */
	char last_error[512];
	uint64_t last_success_unix_ns, last_failure_unix_ns;
	uint64_t requests, failures, sent_batches, sent_bytes;
	uint32_t queued_batches;
	uint64_t queued_bytes;
	/* in samples, by profile type, since agentd started, over restarts of the exporter:
	 * routed = delivered + held + evicted + rejected + shaped */
	struct {
		uint64_t routed, delivered, held, evicted, rejected, shaped;
	} ledger[PROFILE_TYPES];
};

struct link_test_result {
	bool ok;
	char endpoint[512], reason[512], remedy[512];
	unsigned http_status;
	uint64_t duration_ns;
};

struct link_config {
	size_t max_unheld_bytes; /* batches kept for a restarting exporter; 0: 32 MiB; older ones are evicted, counted */
	unsigned hang_ms; /* a ping without answer for so long: killed and restarted; 0: 10,000 */
};

struct link;

int link_new(
	struct link **ret, sd_event *loop, const struct link_config *config, struct err_text *err);
struct link *link_free(struct link *l);
DEFINE_FREEP(link_freep, struct link *, link_free)
/* The destinations in force (enabled and disabled), as agentd/config has them. */
int link_configure(
	struct link *l, const struct config_destination *list, size_t n, struct err_text *err);
/* Hands over one batch: consumes the sealed memfd. Routed to every enabled destination. */
int link_send(struct link *l, const struct batch_header *header, int memfd);
size_t link_destinations(
	struct link *l, const struct link_destination **list); /* borrowed until the loop runs on */
/* Sends an empty, valid profile through the real path; done exactly once, by deadline. */
int link_test(struct link *l, const struct config_destination *d, unsigned deadline_ms,
	void (*done)(void *userdata, const struct link_test_result *result), void *userdata);

/* ---- debug files from debuginfod servers (link_fetch.c) ---- */

struct link_fetch {           /* all borrowed until link_fetch() returns */
	const char *url;      /* of the server, http or https, shorter than PROTOCOL_URL */
	const char *build_id; /* see protocol_build_id_ok() */
	uint64_t max_bytes;
	unsigned connect_ms, stall_ms, total_ms;
};

struct link_fetch_result { /* checked, but for the file's content */
	enum fetch_outcome outcome;
	unsigned http_status;          /* 0: there was no answer */
	uint64_t bytes;                /* that were written */
	uint64_t retry_after_ns;       /* what the server asked for; 0 nothing */
	char reason[512], remedy[512]; /* "" where it was found */
};

/* The exporter fetches a debug file into fd, an empty file open for writing, of which it gets a descriptor; fd stays the
 * caller's. done is called exactly once, from the loop, unless it is cancelled. One at a time: -EBUSY. -EINVAL: the
 * URL or build id cannot be. */
int link_fetch(struct link *l, const struct link_fetch *what, int fd,
	void (*done)(void *userdata, const struct link_fetch_result *result), void *userdata);
/* done will not be called. Nothing is under way afterwards. */
void link_fetch_cancel(struct link *l);
/* Batches wait at a destination that works: what could wait should leave the network to them. */
bool link_is_behind(const struct link *l);

/* At a stop: waits until all that was handed over is delivered or held, at most so long. */
void link_flush(struct link *l, unsigned deadline_ms);
pid_t link_child_pid(struct link *l);
uint32_t link_restarts(struct link *l);

/* The role (`--role exporter`): everything else in this folder. */
int exporter_main(void);
