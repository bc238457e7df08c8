/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of agentd's side of the exporter:
 *	link.c		its process
 *	link_talk.c	messages
 *	link_dests.c	destinations as they are configured, and what is shown of them
 *	link_ledger.c	what was handed over and what became of it
 *	link_giveup.c	what agentd itself gives up
 *	link_spool.c	what waits on the exporter's disk
 *	link_recover.c	what an exporter finds there at its start
 *	link_store.c	numbers that outlive agentd
 *	link_folder.c	folders of destinations that write files
 *	link_fetch.c	debug files
 *	link_metrics.c	our own metrics
 *	link_trial.c	tests of destinations */

#include "agentd/base/map.h"
#include "agentd/base/sandbox.h"
#include "destinations/link.h"
#include "destinations/protocol.h"

struct link_dest {
	uint32_t id; /* never used twice */
	bool configured, enabled;
	uint64_t order;  /* when it was made: the same under another name */
	struct buf spec; /* as it goes into the configuration's memfd */
	size_t open;     /* batches that are not through there */
	struct link_destination row;
	/* of exporters that are gone; row has the sum */
	uint64_t past_requests, past_failures, past_bytes;
	struct latencies past_latencies;
	struct rate rate;
	/* Of what was settled, the part that the spool's totals have; and those, as an exporter said at its start. */
	struct message_counts spooled, told;
	bool has_told, ledger_dirty;
};

struct link_route {
	uint32_t destination;
	bool final;
	bool unseen; /* the spool did not tell of it: it is through there, or lost */
	uint64_t row;
	struct message_counts *counts; /* NULL: nothing is settled */
};

/* A batch, until it is through at every destination. */
struct link_batch {
	uint64_t id;
	struct batch_header header;
	void *bytes; /* mapped */
	size_t size;
	int memfd; /* -1: it was handed over; made again from bytes if it has to go once more */
	bool given, held; /* to, and by, the exporter that lives */
	bool durable;     /* the spool has it: there are no bytes here */
	bool adopt;       /* the exporter is to be told that it is this one */
	uint64_t seq;     /* the spool's number; for adopt */
	uint32_t session; /* of the exporter that said so last */
	struct link_route *routes;
	size_t n_routes, n_open;
};

struct link_test_run {
	uint64_t id, deadline_ns;
	struct buf spec;
	bool sent;
	uint64_t started_ns;
	void (*done)(void *userdata, const struct link_test_result *result);
	void *userdata;
	struct link_test_run *next;
};

struct link_fetch_run {
	struct message_fetch message;
	int fd;
	bool sent;
	uint64_t deadline_ns; /* of the exporter's answer, which has bounds of its own */
	void (*done)(void *userdata, const struct link_fetch_result *result);
	void *userdata;
};

struct link {
	sd_event *loop;
	struct link_config config;
	struct sandbox_child child;
	sd_event_source *on_socket, *on_end, *timer;
	uint32_t restarts;
	unsigned ends_in_a_row,
		ends_for_nothing; /* the latter: without any progress, and not by a stranger's SIGKILL */
	uint64_t started_ns, start_at_ns, idle_since_ns; /* 0 none */
	uint64_t ping_sent_ns, next_ping_ns, nonce;      /* ping_sent_ns 0: none is out */
	bool config_dirty, flushing, unreachable;
	bool leaving; /* it said that it ends, so that another one takes over */

	struct link_dest **dests;
	size_t n_dests, room_dests;
	uint32_t next_dest;
	struct link_destination *rows; /* what link_destinations() lent */

	struct link_batch **batches; /* by id, oldest first */
	size_t n_batches, room_batches, bytes;
	uint64_t next_batch, next_recovered;

	/* the spool */
	int spool_folder; /* -1 none */
	/* unopened: the exporter could not open it (yet); ready: all that was in it was told */
	bool spool_wanted, spool_dirty, spool_given, unopened, ready, reconciled;
	struct link_spool_settings spool_settings;
	struct link_spool spool;
	uint64_t instance, newest_unix_ns;
	uint32_t session;
	struct map *by_identity; /* while an exporter tells of its spool */
	struct link_given_up {
		uint8_t boot_id[16];
		uint64_t serial;
	} given_up[16]; /* though the spool has them */
	size_t n_given_up;
	uint64_t *refused; /* numbers of the spool that are to be given up */
	size_t n_refused;
	struct link_drop_run *drop; /* NULL none */
	uint64_t next_drop;
	uint64_t save_at_ns; /* 0: nothing is to be saved */

	struct link_test_run *tests;
	uint64_t next_test;

	struct {
		char address[PROTOCOL_ADDRESS], problem[PROTOCOL_TEXT];
		bool dirty, wanted, push; /* what the exporter is to be sent */
		link_metrics_fn *make;
		void *userdata;
		struct buf text;
		uint64_t made_ns;
	} metrics;

	struct link_fetch_run *fetch;    /* NULL none */
	uint64_t next_fetch, stop_fetch; /* the latter: to be told to stop; 0 none */
};

static inline bool link_alive(const struct link *l)
{
	return l->child.sock >= 0;
}

/* ---- link_talk.c ---- */

/* Sends all that can go out now. */
void link_feed(struct link *l);
/* Up to max messages. How many; 0: none is there; -EPIPE: it is gone; -EBADMSG: it lies, *why. */
int link_read(struct link *l, size_t max, const char **why);

/* Whether a text of a message ends within it. */
static inline bool link_text_ends(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

/* ---- link_dests.c ---- */

/* As it goes into the configuration's memfd. out is set up here, and is the caller's to free on failure, too. */
int link_put_spec(struct buf *out, uint32_t id, const struct config_destination *c);

/* ---- link_trial.c ---- */

/* 0, or what sending failed with. */
int link_send_test(struct link *l, struct link_test_run *t, uint64_t now_ns);
int link_on_test_result(struct link *l, const struct message_test_result *m, const char **why);
/* t is off the list and is freed. */
void link_fail_test(struct link_test_run *t, const char *reason, const char *remedy);
/* Ends those whose time is over. */
void link_expire_tests(struct link *l, uint64_t now_ns);

/* ---- link_folder.c ---- */

/* Hands over the folder of a destination that writes files; of others nothing. key 0: the destination's id. */
int link_send_folder(struct link *l, const struct buf *spec, uint64_t key);

/* ---- link_metrics.c ---- */

int link_feed_metrics(struct link *l);
int link_on_listening(struct link *l, const struct message_listening *m, const char **why);
int link_on_metrics_wanted(struct link *l, const char **why);
void link_metrics_forget(struct link *l); /* the exporter is gone */
void link_metrics_deinit(struct link *l);

/* ---- link_fetch.c ---- */

/* 0, or what sending failed with. */
int link_feed_fetch(struct link *l);
int link_on_fetch_done(struct link *l, const struct message_fetch_done *m, const char **why);
/* Ends the one that the exporter was at: it is gone, or too late. */
void link_fail_fetch(struct link *l, const char *reason);
void link_expire_fetch(struct link *l, uint64_t now_ns);
/* The timer is to be set anew. In link.c. */
void link_arm(struct link *l);

/* ---- link_spool.c ---- */

/* What is wrong with it, when there is no exporter to say so. */
void link_spool_problem(struct link *l, const char *text);
int link_spool_init(struct link *l, struct err_text *err);
void link_spool_deinit(struct link *l);
/* Before all else that goes out, and then what else there is of it. 0 or what sending failed with. */
int link_feed_spool(struct link *l);
int link_on_spool_state(struct link *l, const struct message_spool_state *m, const char **why);
int link_on_spool_dropped(struct link *l, const struct message_spool_dropped *m, const char **why);
/* Another exporter is to begin; the one before is gone. */
void link_spool_begin(struct link *l);
void link_spool_end(struct link *l);

/* ---- link_recover.c ---- */

int link_on_totals(struct link *l, const struct message_totals *m, const char **why);
int link_on_recovered(
	struct link *l, const struct message_recovered *m, size_t len, const char **why);
int link_on_ready(struct link *l, const struct message_ready *m, const char **why);

/* ---- link_store.c ---- */

/* 0, also without a store. */
int link_store_set(struct link *l, const char *key, uint64_t value);
uint64_t link_store_get(struct link *l, const char *key, uint64_t fallback);
/* The number of a destination, and its totals. */
int link_load_dest(struct link *l, struct link_dest *d);
/* It was removed: it shall not be the same when it comes again. */
void link_forget_dest(struct link *l, const struct link_dest *d);
/* It is called otherwise now; what waits for it stays its own. */
void link_rename_dest(struct link *l, struct link_dest *d, const char *name);
void link_save_soon(struct link *l, struct link_dest *d);

/* ---- link_ledger.c ---- */

struct link_dest *ledger_dest(struct link *l, uint32_t id);
void ledger_free_dest(struct link_dest *d);
/* Takes the memfd in any case. */
int ledger_add(struct link *l, const struct batch_header *header, int memfd);
/* 0, or -EBADMSG: what it says cannot be; *why then is a part of a sentence. */
int ledger_answer(struct link *l, const struct message_answer *a, const char **why);
int ledger_held(struct link *l, const struct message_held *m, const char **why);
void ledger_drop_unused_dests(struct link *l);
void ledger_deinit(struct link *l);
/* What of a batch is settled on a route. */
const struct message_counts *ledger_route_counts(const struct link_route *r);
/* Samples of a type that these counts leave. */
uint64_t ledger_left(const struct link_batch *b, const struct message_counts *c, size_t t);
/* NULL: they can follow those of the route. */
const char *ledger_check_counts(const struct link_batch *b, const struct link_route *route,
	const struct message_counts *counts, bool final);
/* Takes counts that are right. The batch is gone afterwards if this was its last open route: true. */
bool ledger_take(struct link *l, struct link_batch *b, size_t i,
	const struct message_counts *counts, bool final);
/* The spool has it from now on. */
void ledger_make_durable(struct link *l, struct link_batch *b);
/* A batch that only the spool has; its number orders it before all others. Takes nothing on failure. */
int ledger_add_recovered(
	struct link *l, const struct message_recovered *m, struct link_batch **ret);

/* ---- link_giveup.c ---- */

/* The exporter is gone: all goes to the next one, but for what is over the bound or has nowhere to go. */
void ledger_take_back(struct link *l);
/* Evicts what the exporter was not given of destinations that are not enabled. */
void ledger_evict_unrouted(struct link *l);
/* Gives up the oldest batch that the exporter had. */
void ledger_give_up_oldest(struct link *l);
/* Evicts, oldest first, what is over the bound and not with the exporter. */
void ledger_bound(struct link *l);
/* At a stop: gives up what only memory has. Returns how many samples. */
uint64_t ledger_evict_memory(struct link *l);
