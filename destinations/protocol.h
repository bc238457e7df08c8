/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What agentd and the exporter say to each other: flat messages over a SOCK_SEQPACKET socket, each a header and one
 * struct (a batch: and its routes), never more than 64 KiB. Both ends are the same build when agentd starts the
 * exporter; the version is for an exporter that is a unit of its own. All counts are in samples, by profile type.
 *
 * agentd -> exporter                               exporter -> agentd
 *   CONFIG + memfd (destinations_encode)             HELD: the batch was taken in
 *   BATCH + memfd, routes                            ANSWER: how far a batch is at a destination; FINAL is the last
 *   TEST + memfd (one destination)                   STATUS: how a destination is, for people
 *   PING                                             TEST_RESULT, PONG
 *   FETCH + empty file, FETCH_STOP                   FETCH_DONE: what became of the file
 *   SPOOL + folder (the first time; before all else) TOTALS, RECOVERED: what the spool has; READY: that was all
 *   ADOPT: a recovered batch, by agentd's number     SPOOL_STATE: for people
 *   SPOOL_DROP                                       SPOOL_DROPPED
 *
 * A route is where delivery goes on: `row` is how many rows of the shaped batch (see shape.h) are settled. agentd
 * remembers it from the last answer and gives it to the successor of an exporter that died, unless the spool has the
 * batch: then the successor says so itself, and what is further counts. Numbers of destinations are the same over
 * restarts of both; agentd's store gives them. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"
#include "agentd/profile/profile.h"
#include "destinations/latency.h"
#include "sources/source.h"

#define PROTOCOL_MAGIC        0x3174786fU /* "oxt1" */
#define PROTOCOL_VERSION      3
#define PROTOCOL_TYPES        8 /* as in batch_header.samples; those past PROFILE_TYPES are 0 */
#define PROTOCOL_DESTINATIONS 128
#define PROTOCOL_NAME         80
#define PROTOCOL_TEXT         512
#define PROTOCOL_URL          1024
#define PROTOCOL_BUILD_ID     44 /* hex digits of a build id, and zeroes */
#define PROTOCOL_CONFIG_MAX   (8U << 20)
#define PROTOCOL_WINDOW       32    /* batches that agentd sends ahead of their HELD */
#define PROTOCOL_BATCHES      16384 /* that either end keeps at most */

enum message_kind {
	MESSAGE_CONFIG = 1,
	MESSAGE_BATCH,
	MESSAGE_TEST,
	MESSAGE_PING,
	MESSAGE_HELD,
	MESSAGE_ANSWER,
	MESSAGE_STATUS,
	MESSAGE_TEST_RESULT,
	MESSAGE_PONG,
	MESSAGE_FETCH,
	MESSAGE_FETCH_STOP,
	MESSAGE_FETCH_DONE,
	MESSAGE_FOLDER,
	MESSAGE_SPOOL,
	MESSAGE_ADOPT,
	MESSAGE_SPOOL_DROP,
	MESSAGE_TOTALS,
	MESSAGE_RECOVERED,
	MESSAGE_READY,
	MESSAGE_SPOOL_STATE,
	MESSAGE_SPOOL_DROPPED,
	MESSAGE_LISTEN,         /* where our metrics can be had */
	MESSAGE_LISTENING,      /* whether they can */
	MESSAGE_METRICS_WANTED, /* somebody does */
	MESSAGE_METRICS,        /* + memfd */
	MESSAGE_LEAVING,        /* the exporter ends, so that another one takes over */
};

struct message_header {
	uint32_t magic;
	uint16_t version, kind;
	uint32_t size; /* of the whole message */
	uint32_t pad;
};
_Static_assert(sizeof(struct message_header) == 16, "message_header");

struct message_config {
	struct message_header header;
	uint64_t queue_bytes; /* bound of one destination's queue */
};
_Static_assert(sizeof(struct message_config) == 24, "message_config");

enum fate { FATE_DELIVERED, FATE_REJECTED, FATE_EVICTED, FATE_SHAPED, FATES };

struct message_counts {
	uint64_t samples[FATES][PROTOCOL_TYPES];
};
_Static_assert(sizeof(struct message_counts) == 256, "message_counts");

struct message_route {
	uint32_t destination, pad;
	uint64_t row;
	struct message_counts counts;
};
_Static_assert(sizeof(struct message_route) == 272, "message_route");

struct message_batch {
	struct message_header header;
	uint64_t id; /* agentd's own, 1 first, never used twice */
	struct batch_header batch;
	uint32_t n_routes, pad;
	struct message_route routes[];
};
_Static_assert(sizeof(struct message_batch) == 144, "message_batch");
_Static_assert(
	sizeof(struct message_batch) + PROTOCOL_DESTINATIONS * sizeof(struct message_route) <=
		65536,
	"a batch with all routes fits a message");

struct message_test {
	struct message_header header;
	uint64_t id;
	uint32_t deadline_ms, pad;
};
_Static_assert(sizeof(struct message_test) == 32, "message_test");

struct message_ping { /* and its pong */
	struct message_header header;
	uint64_t nonce;
};
_Static_assert(sizeof(struct message_ping) == 24, "message_ping");

struct message_held {
	struct message_header header;
	uint64_t id;
	/* 1: in the spool, so agentd may forget the bytes. It may be said once more, with 1 after 0. */
	uint32_t durable, pad;
};
_Static_assert(sizeof(struct message_held) == 32, "message_held");

struct message_answer {
	struct message_header header;
	uint64_t id;
	uint32_t destination, final;
	uint64_t row;
	struct message_counts
		counts; /* since agentd handed the batch over for the first time; they only grow */
};
_Static_assert(sizeof(struct message_answer) == 296, "message_answer");

struct message_status {
	struct message_header header;
	uint32_t destination, pad;
	uint64_t last_success_unix_ns, last_failure_unix_ns;
	uint64_t requests, failures, sent_bytes; /* since this exporter started */
	struct latencies latencies;              /* of them, but for tries with nothing in them */
	char state[24];
	char endpoint[PROTOCOL_TEXT], last_error[PROTOCOL_TEXT];
};
_Static_assert(sizeof(struct message_status) == 1448, "message_status");

/* How far a test came: resolve, connect, tls, answer, auth, accepted; those that it came to. */
struct message_test_step {
	char name[16];
	uint32_t ok, pad;
	uint64_t duration_ns;
	char detail[200]; /* in words; "" none */
};
_Static_assert(sizeof(struct message_test_step) == 232, "message_test_step");
#define PROTOCOL_STEPS 6

struct message_test_result {
	struct message_header header;
	uint64_t id, duration_ns;
	uint32_t ok, http_status;
	char endpoint[PROTOCOL_TEXT], reason[PROTOCOL_TEXT], remedy[PROTOCOL_TEXT];
	uint32_t n_steps, pad;
	struct message_test_step steps[PROTOCOL_STEPS];
};
_Static_assert(sizeof(struct message_test_result) == 2976, "message_test_result");

/* The folder of a destination that writes files, as a descriptor beside; without one it is forgotten. Goes before the
 * CONFIG or TEST that needs it. key: see transport_set_folder(). */
#define TRANSPORT_TEST (1ULL << 63) /* and the id of a test */
struct message_folder {
	struct message_header header;
	uint64_t key;
};
_Static_assert(sizeof(struct message_folder) == 24, "message_folder");

/* A debug file is wanted of a debuginfod server. What comes is written to the descriptor, from its beginning on. One
 * at a time. Protocol of the servers: debuginfod(8), "webapi": GET URL/buildid/BUILDID/debuginfo. */
struct message_fetch {
	struct message_header header;
	uint64_t id;        /* goes up */
	uint64_t max_bytes; /* more is not written, and fails */
	/* bounds: of a connection; of a time with next to no bytes; of all */
	uint32_t connect_ms, stall_ms, total_ms, pad;
	char build_id[PROTOCOL_BUILD_ID]; /* lower-case hex */
	char pad2[4];
	char url[PROTOCOL_URL]; /* of the server */
};
_Static_assert(sizeof(struct message_fetch) == 1120, "message_fetch");

struct message_fetch_stop { /* no answer comes, unless it was on its way */
	struct message_header header;
	uint64_t id;
};
_Static_assert(sizeof(struct message_fetch_stop) == 24, "message_fetch_stop");

enum fetch_outcome {
	FETCH_FOUND,         /* whole, and on its way to the disk */
	FETCH_NOT_FOUND,     /* the server does not have it */
	FETCH_FAILED_SERVER, /* the server would fail for other files, too */
	FETCH_FAILED_FILE,   /* what came for this one cannot be used */
	FETCH_FAILED_HERE,   /* the disk, memory: neither is to blame */
	FETCH_OUTCOMES,
};

struct message_fetch_done {
	struct message_header header;
	uint64_t id;
	uint64_t bytes; /* written */
	uint64_t retry_after_ns;
	uint32_t outcome, http_status;
	char reason[PROTOCOL_TEXT], remedy[PROTOCOL_TEXT];
};
_Static_assert(sizeof(struct message_fetch_done) == 1072, "message_fetch_done");

/* ---- the spool ---- */

/* Comes before all else, with the spool's folder beside it if there is one; then again, without, when a setting
 * changes. An exporter that is a unit of its own has a folder of its own. */
struct message_spool {
	struct message_header header;
	uint64_t instance; /* of agentd's store: whose numbers of destinations these are */
	uint64_t max_bytes, max_age_ns;
	uint8_t boot_id[16];
	uint32_t min_free_permille, pad;
};
_Static_assert(sizeof(struct message_spool) == 64, "message_spool");

/* What a destination settled over all batches that ever were in this spool. */
struct message_totals {
	struct message_header header;
	uint32_t destination, pad;
	struct message_counts settled;
};
_Static_assert(sizeof(struct message_totals) == 280, "message_totals");

/* A batch that is in the spool and not through everywhere; oldest first. Its routes are those that are open. */
struct message_recovered {
	struct message_header header;
	uint64_t seq; /* the spool's own number */
	uint64_t size;
	struct batch_header batch;
	uint32_t n_routes, pad;
	struct message_route routes[];
};
_Static_assert(sizeof(struct message_recovered) == 152, "message_recovered");

/* All that was in the spool was told; or (spool 0) it cannot be used now, and may later. */
struct message_ready {
	struct message_header header;
	uint32_t spool, pad;
	uint64_t newest_unix_ns; /* end of the newest batch that ever was in it; 0 none */
};
_Static_assert(sizeof(struct message_ready) == 32, "message_ready");

/* A recovered batch is agentd's batch `id`. The routes are those that are open as agentd sees it, and how far. */
struct message_adopt {
	struct message_header header;
	uint64_t seq, id;
	uint32_t n_routes, pad;
	struct message_route routes[];
};
_Static_assert(sizeof(struct message_adopt) == 40, "message_adopt");

struct message_spool_drop { /* give up what ended before */
	struct message_header header;
	uint64_t id, before_unix_ns;
};
_Static_assert(sizeof(struct message_spool_drop) == 32, "message_spool_drop");

struct message_spool_dropped {
	struct message_header header;
	uint64_t id, batches, samples; /* samples: once for each destination */
};
_Static_assert(sizeof(struct message_spool_dropped) == 40, "message_spool_dropped");

struct message_spool_state {
	struct message_header header;
	uint64_t bytes, max_bytes, free_bytes, disk_bytes;
	uint64_t damaged, write_errors, sync_errors;
	uint64_t memory_bytes; /* of batches that are held in memory only */
	uint64_t recovery_ns;
	uint32_t on, segments; /* on 0: nothing is written to the disk now */
	uint32_t batches, memory_batches;
	char problem[PROTOCOL_TEXT]; /* "" none */
};
_Static_assert(sizeof(struct message_spool_state) == 616, "message_spool_state");

/* What it may open cannot be changed any more, and has to be (destinations/confine.h). Its last message. */
struct message_leaving {
	struct message_header header;
	char why[PROTOCOL_TEXT]; /* a part of a sentence */
};

#define PROTOCOL_ADDRESS 80
struct message_listen {
	struct message_header header;
	char address[PROTOCOL_ADDRESS]; /* IP:PORT; "": nowhere */
};
_Static_assert(sizeof(struct message_listen) == 96, "message_listen");

struct message_listening {
	struct message_header header;
	char problem[PROTOCOL_TEXT]; /* "": all is as it was asked for */
};
_Static_assert(sizeof(struct message_listening) == 528, "message_listening");

struct message_metrics { /* also MESSAGE_METRICS_WANTED, without a memfd */
	struct message_header header;
	uint32_t otlp,
		pad; /* 1: an OTLP request, for destinations that want metrics; 0: text, for who asked */
};
_Static_assert(sizeof(struct message_metrics) == 24, "message_metrics");
#define PROTOCOL_METRICS_MAX (8U << 20)

/* A build id that may be asked for: 8 to 20 bytes as lower-case hex. */
bool protocol_build_id_ok(const char *build_id);

/* One destination as it is handed over. Strings are borrowed from the bytes it was decoded from. */
struct destination_spec {
	uint32_t id;
	const char *name, *type;
	struct option_value *options;
	size_t n_options;
};

struct message_header protocol_header(enum message_kind kind, size_t size);
/* 0 if a message of len bytes has a sound header of that kind and exactly size bytes (0: any), else -EBADMSG. */
int protocol_check(const void *message, size_t len, enum message_kind kind, size_t size);

/* The bytes of a configuration's memfd. */
void protocol_put_spec(struct buf *out, const struct destination_spec *spec);
/* At most PROTOCOL_DESTINATIONS; -EBADMSG. Free with protocol_free_specs(); bytes must outlive them and end with NUL. */
int protocol_get_specs(const char *bytes, size_t len, struct destination_spec **ret, size_t *n);
void protocol_free_specs(struct destination_spec *specs, size_t n);
