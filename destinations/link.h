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
#include "destinations/rate.h"

struct link_destination { /* what the exporter said last, checked */
	char name[80], type[40];
	char endpoint[512];
	char state[24]; /* "ok", "failing", "idle" */
	char last_error[512];
	uint64_t last_success_unix_ns, last_failure_unix_ns;
	uint64_t requests, failures, sent_batches, sent_bytes;
	struct latencies latencies; /* of requests */
	struct rate_sum recent;     /* what went lately */
	uint32_t queued_batches;
	uint64_t queued_bytes;
	uint64_t queued_since_unix_ns; /* beginning of the oldest batch that waits; 0 none */
	/* in samples, by profile type, since it was added, over restarts of both where there is a store; else since
	 * agentd started: routed = delivered + held + evicted + rejected + shaped */
	struct {
		uint64_t routed, delivered, held, evicted, rejected, shaped;
	} ledger[PROFILE_TYPES];
};

#define LINK_TEST_STEPS 6

struct link_test_step { /* resolve, connect, tls, answer, auth, accepted: those that it came to, in order */
	char name[16];
	bool ok;
	uint64_t duration_ns;
	char detail[200]; /* in words, "" none */
};

struct link_test_result {
	struct link_test_step steps[LINK_TEST_STEPS];
	size_t n_steps;
	bool ok;
	char endpoint[512], reason[512], remedy[512];
	unsigned http_status;
	uint64_t duration_ns;
};

/* Small values that outlive agentd: numbers of destinations, totals of the ledger. */
struct link_value {
	char key[192];
	uint64_t value;
	bool drop;
};

struct link_store {
	int (*get)(void *userdata, const char *key, uint64_t *value); /* -ENOENT: there is none */
	int (*set)(void *userdata, const struct link_value *list, size_t n); /* all or none */
};

#define LINK_EXPORTER_UID 65534 /* of an exporter that agentd starts, and its group */

struct link_config {
	size_t max_unheld_bytes; /* batches kept for a restarting exporter; 0: 32 MiB; older ones are evicted, counted */
	unsigned hang_ms; /* a ping without answer for so long: killed and restarted; 0: 10,000 */
	/* Where batches wait: a folder, made if need be and given to the exporter's user. NULL: in memory only, unless
	 * the exporter is a unit of its own. */
	const char *spool_folder;
	/* Of an exporter that is a unit of its own, which is then used; NULL: agentd starts one. */
	const char *exporter_socket;
	uint8_t boot_id[16];
	const struct link_store *store; /* NULL none */
	void *store_userdata;
};

struct link_spool_settings {
	uint64_t max_bytes, max_age_ns; /* 0: 512 MiB, 24 h */
	unsigned min_free_permille;     /* of the disk, that stay free */
};

struct link_spool { /* what the exporter said last */
	bool on;    /* new batches go to the disk */
	bool known; /* it has said something */
	uint64_t bytes, max_bytes, free_bytes, disk_bytes;
	uint64_t damaged, write_errors, sync_errors;
	uint64_t memory_bytes, recovery_ns;
	uint32_t segments, batches, memory_batches;
	char problem[512];
};

struct link_waiting { /* a batch that is not through everywhere */
	const struct batch_header *header;
	size_t size;
	bool durable;
	const char *const *destinations; /* names, of those that it waits for */
	size_t n_destinations;
	uint64_t samples; /* that wait, of all types, at the destination that lacks most */
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

/* ---- the spool (link_spool.c), and what outlives agentd (link_store.c) ---- */

void link_configure_spool(struct link *l, const struct link_spool_settings *settings);
void link_spool(const struct link *l, struct link_spool *ret);
/* Oldest first. */
void link_spool_each(struct link *l, void (*visit)(void *userdata, const struct link_waiting *w),
	void *userdata);
/* Gives up what ended before; done is called once, from the loop, with how many batches and samples, or an error.
 * -EBUSY: one is under way; -EHOSTDOWN: there is no exporter. */
int link_spool_drop(struct link *l, uint64_t before_unix_ns,
	void (*done)(void *userdata, int error, uint64_t batches, uint64_t samples),
	void *userdata);
void link_spool_drop_cancel(struct link *l, void *userdata);
/* End of the newest batch that was ever kept, as the exporter said after its start; 0: none, or not said yet. */
uint64_t link_newest_unix_ns(const struct link *l);
/* Keeps the ledger's totals in the store now, instead of soon. */
void link_save(struct link *l);

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

/* At a stop: waits until all that was handed over is delivered, at most so long, or on the disk, at most 10 s. What is
 * neither is evicted, counted. */
void link_flush(struct link *l, unsigned deadline_ms);
pid_t link_child_pid(struct link *l);
uint32_t link_restarts(struct link *l);

/* ---- our own metrics (link_metrics.c) ---- */

/* Writes them as OpenMetrics text or as an OTLP request. */
typedef int link_metrics_fn(void *userdata, bool otlp, struct buf *out);
void link_set_metrics(struct link *l, link_metrics_fn *make, void *userdata);
/* Serves them at IP:PORT; "": nowhere. */
void link_metrics_listen(struct link *l, const char *address);
const char *link_metrics_problem(
	const struct link *l); /* why they cannot be had there; "" they can, or are not to be */
/* To the destinations that want them. */
void link_metrics_push(struct link *l);

/* The role (`--role exporter`): everything else in this folder. */
int exporter_main(void);
