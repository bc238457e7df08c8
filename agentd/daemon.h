/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The composition root: the one object that owns all others, shared by the daemon*.c files alone.
 *
 *   daemon.c           start, signals, the reload transaction's hooks, stop
 *   daemon_pipeline.c  a sample's way: events -> images -> the open interval -> names -> batch ->
 * out daemon_ledger.c    where every sample went daemon_status.c    `status`: one screen of truth
 *   daemon_verbs.c     the other verbs of the control socket */

#include <systemd/sd-event.h>
#include "agentd/config/config.h"
#include "agentd/container/container.h"
#include "agentd/control/control.h"
#include "agentd/process/process.h"
#include "agentd/profile/aggregate.h"
#include "agentd/profile/local.h"
#include "agentd/sampler/sampler.h"
#include "agentd/store/store.h"
#include "agentd/symbol/symbol.h"
#include "destinations/link.h"
#include "sources/source.h"

#define DAEMON_MAX_PENDING 4 /* closed intervals whose names are not all there yet */

struct daemon;

/* Whose an image is, under one generation of the configuration. Owned by image->assignment. */
struct assignment {
	struct source *source; /* NULL: nobody's; borrowed from the configuration in force */
	uint64_t generation;
	uint64_t interval; /* serial of the interval in which `resource` is valid */
	uint32_t resource;
	struct resource_attribute *attributes;
	size_t n_attributes;
};

/* One interval of samples, open or waiting for its names. */
struct interval {
	struct daemon *daemon;
	uint64_t serial;
	struct aggregate *aggregate;
	uint64_t from_unix_ns, to_unix_ns;
	uint64_t revision;
	uint32_t *files; /* held while names are asked for */
	size_t n_files, room_files;
	struct interval *next;
};

/* Samples, since agentd started. What the sampler counts is added up over its lives (profiling on
 * and off). */
struct ledger {
	struct sampler_counters past; /* of samplers that are gone */
	uint64_t ignored_user;        /* no source claims the image, found out in user space */
	uint64_t lost_queue, lost_table, lost_memory, lost_ring_end;
	uint64_t received; /* by on_sample and on_lost */
	uint64_t profiled; /* in batches handed over */
	uint64_t batches;
};

struct daemon {
	sd_event *loop;
	const char *socket_path, *state_dir, *config_file;
	bool accept_unknown_kernel;
	uint64_t started_unix_ns;

	struct store *store;
	struct config_manager *config;
	struct control_server *control;
	struct control_ops control_ops;

	struct sampler *sampler;   /* NULL: profiling is off, and no program is loaded */
	struct sampler *prepared;  /* between prepare and swap */
	char sampler_problem[768]; /* enabled, but could not start: why */
	uint64_t active_since_unix_ns;
	struct process_table *processes;
	struct symbolizer *symbols;
	struct local *local;
	struct link *link;
	struct host_facts host;
	char kernel_build_id[41];
	uint8_t boot_id[16];

	uint64_t interval_ns; /* of the configuration in force, also while it is being swapped in */
	uint64_t generation; /* of the configuration in force */
	struct interval *open;
	struct interval *pending; /* oldest first */
	size_t n_pending;
	sd_event_source *interval_timer, *drain_soon;
	uint64_t next_interval, batch_serial, batch_serial_saved;
	int64_t clock_offset_ns; /* monotonic to unix, as of the last drain */
	bool drained_once, stopping;

	struct ledger ledger;
	uint64_t frames, frames_named, user_frames, user_frames_named; /* by sample, over batches */
	uint64_t late_names;
};

int daemon_main(int argc, char **argv);

/* ---- daemon_pipeline.c ---- */
extern const struct sampler_ops daemon_sampler_ops;
extern const struct process_ops daemon_process_ops;
extern const struct symbol_ops daemon_symbol_ops;
int daemon_interval_open(struct daemon *d);
/* Ends the open interval and asks for its names; its batch goes out when they are there. */
void daemon_interval_close(struct daemon *d);
/* Arms the timer for the end of the open interval. */
int daemon_interval_arm(struct daemon *d);
/* Everything that was sampled so far is in the open interval when this returns. */
void daemon_settle(struct daemon *d);
/* Drops every image's assignment: the configuration behind it goes away. */
void daemon_forget_assignments(struct daemon *d);
void daemon_interval_free(struct interval *i);
/* What is open or waits for names, as one encoded batch; done(data, len) once, within deadline_ms.
 */
int daemon_snapshot(struct daemon *d, unsigned deadline_ms,
	void (*done)(void *userdata, const void *data, size_t len), void *userdata);
/* Runs the loop until no interval waits for names, at most so long. */
void daemon_finish_pending(struct daemon *d, uint64_t deadline_ns);

/* ---- daemon_ledger.c ---- */
void daemon_ledger_retire(struct daemon *d, struct sampler *s);
void daemon_ledger_fill(struct daemon *d, struct control_reply *r, Control__Ledger *l);

/* ---- daemon_status.c, daemon_verbs.c ---- */
void daemon_status(void *userdata, struct control_reply *r, const Control__GetStatus *request);
void daemon_verbs_init(struct daemon *d);
Control__SourceState *daemon_source_state(
	struct daemon *d, struct control_reply *r, struct source *s);
Control__DestinationState *daemon_destination_state(
	struct daemon *d, struct control_reply *r, const struct config_destination *c);
