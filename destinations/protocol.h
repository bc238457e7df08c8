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
 *
 * A route is where delivery goes on: `row` is how many rows of the shaped batch (see shape.h) are settled. agentd
 * remembers it from the last answer and gives it to the successor of an exporter that died. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"
#include "agentd/profile/profile.h"
#include "sources/source.h"

#define PROTOCOL_MAGIC        0x3174786fU /* "oxt1" */
#define PROTOCOL_VERSION      2
#define PROTOCOL_TYPES        8 /* as in batch_header.samples; those past PROFILE_TYPES are 0 */
#define PROTOCOL_DESTINATIONS 128
#define PROTOCOL_NAME         80
#define PROTOCOL_TEXT         512
#define PROTOCOL_URL          1024
#define PROTOCOL_BUILD_ID     44 /* hex digits of a build id, and zeroes */
#define PROTOCOL_CONFIG_MAX   (8U << 20)
#define PROTOCOL_WINDOW       32   /* batches that agentd sends ahead of their HELD */
#define PROTOCOL_BATCHES      8192 /* that either end keeps at most */

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
	uint32_t durable,
		pad; /* 1: survives the exporter's death, so agentd may forget the bytes; 0 for now */
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
	char state[24];
	char endpoint[PROTOCOL_TEXT], last_error[PROTOCOL_TEXT];
};
_Static_assert(sizeof(struct message_status) == 1112, "message_status");

struct message_test_result {
	struct message_header header;
	uint64_t id, duration_ns;
	uint32_t ok, http_status;
	char endpoint[PROTOCOL_TEXT], reason[PROTOCOL_TEXT], remedy[PROTOCOL_TEXT];
};
_Static_assert(sizeof(struct message_test_result) == 1576, "message_test_result");

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
