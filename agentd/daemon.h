/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The composition root: the one object that owns all others, shared by the daemon*.c files alone.
 *
 *   daemon.c           start, signals, stop
 *   daemon_files.c     the configuration files: when they are read again
 *   daemon_handover.c  destinations on their way to the exporter: policy, secrets, operators' types
 *   daemon_reload.c    the hooks of the transaction by which configuration changes
 *   daemon_pipeline.c  a sample's way: events -> images -> whose is it -> the open interval
 *   daemon_unwind.c    rows and spaces on their way to the kernel
 *   daemon_counts.c    counts of the kernel and the samples that they belong to
 *   daemon_stacks.c    how far the stacks went
 *   daemon_cost.c      what we cost, and daemon_budget.c: the rate that follows from it
 *   daemon_interval.c  an interval's way: names -> batch -> out; the open one, as queries see it
 *   daemon_debugfiles.c  where debug files may be
 *   daemon_names.c     from frames to names and locations; daemon_disknames.c: over restarts
 *   daemon_fetch.c     debug files that are not on this host: what is wanted, and what came
 *   daemon_jit.c       the same for JIT-compiled code
 *   daemon_symbols.c   how well each binary is named; daemon_symbols_verb.c: as `odictl symbols` shows it
 *   daemon_ledger.c    where every sample went
 *   daemon_status.c    `status`: one screen of truth; daemon_status_unwind.c: its part on stacks
 *   daemon_metrics.c   our own metrics, of what the status says
 *   daemon_scrape.c    over HTTP, and to destinations
 *   daemon_timed.c     whose samples go with their times
 *   daemon_verbs.c     the table of the other verbs; daemon_sources.c, daemon_destinations.c,
 *                      daemon_candidates.c and daemon_query.c answer them
 *   daemon_survey.c    one survey of /proc at a time, for all who ask */

#include <systemd/sd-event.h>
#include "agentd/config/config.h"
#include "agentd/container/container.h"
#include "agentd/control/control.h"
#include "agentd/daemon_budget.h"
#include "agentd/daemon_counts.h"
#include "agentd/daemon_stacks.h"
#include "agentd/daemon_symbols.h"
#include "agentd/process/process.h"
#include "agentd/profile/aggregate.h"
#include "agentd/profile/local.h"
#include "agentd/sampler/sampler.h"
#include "agentd/store/store.h"
#include "agentd/symbol/kernel_code.h"
#include "agentd/symbol/symbol.h"
#include "agentd/unwind/client.h"
#include "destinations/link.h"
#include "sources/source.h"

#define DAEMON_MAX_PENDING 4 /* closed intervals that may wait for their names at leisure */

struct daemon;
struct snapshot;
struct survey_wait;
struct unwinding;
struct fetching;
struct cost;
struct names;
struct scrape;

/* Whose an image is, under one generation of the configuration. Owned by image->assignment. */
struct assignment {
	struct source *source; /* NULL: nobody's; borrowed from daemon.in_force */
	uint64_t generation;
	uint64_t interval; /* serial of the interval in which `resource` is valid */
	uint32_t resource;
	struct resource_attribute *attributes;
	size_t n_attributes;
	/* What the kernel walks its stacks by: told, or on the list of those to be told; when that
	 * failed, not again before. */
	bool space_told, space_listed;
	unsigned space_failures;
	uint64_t space_retry_ns;
	bool timed; /* a destination wants each of its samples with its time */
	uint64_t
		uncounted_ns; /* until then every sample is sent, see daemon_pipeline.c; 0: counted */
};

/* One interval of samples, open or waiting for its names. */
struct interval {
	struct daemon *daemon;
	uint64_t serial;
	struct aggregate *aggregate;
	uint64_t from_unix_ns, to_unix_ns;
	uint64_t from_boot_ns; /* by CLOCK_BOOTTIME, which nobody sets */
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
	uint64_t lost_counts; /* counted in the kernel, their stack lost on its way */
	uint64_t received;    /* by on_sample and on_lost */
	uint64_t collected;   /* by on_count */
	uint64_t profiled;    /* in batches handed over */
	uint64_t batches;
};

struct daemon {
	sd_event *loop;
	const char *socket_path, *state_dir;
	struct config_places places;         /* of the configuration files */
	const char *policy_file, *types_dir; /* NULL: in the configuration's folder */
	const char *
		exporter_socket; /* of an exporter that is a unit of its own; NULL: agentd starts one */
	bool accept_unknown_kernel;
	uint64_t started_unix_ns;

	struct store *store;
	struct config_manager *config;
	struct config_watch *files_watch;
	char files_said[768]; /* what was logged as wrong with the files; "" nothing is */
	struct control_server *control;
	struct control_ops control_ops;

	struct sampler *sampler;   /* NULL: profiling is off, and no program is loaded */
	struct sampler *prepared;  /* between prepare and swap; not started where it replaces one */
	char sampler_problem[768]; /* enabled, but could not start: why; "" else */
	char replace_problem[256]; /* settings that wait for a sampler that could not start; "" */
	char state_problem[256];   /* what the store could not keep for us; "" none */
	uint64_t active_since_unix_ns;
	struct process_table *processes;
	struct names *disknames; /* NULL: names are not kept over a restart */
	struct symbolizer *symbols;
	struct debugfiles *debugfiles; /* NULL: no places that an administrator named */
	struct unwinding *unwinding;
	struct counts *counts;
	struct stacks stacks;
	struct cost *cost;
	struct budget budget;
	struct local *local;
	struct link *link;
	struct handover *handover; /* policy and secrets */
	struct fetching *fetching;
	struct scrape *scrape; /* who gets our own metrics */
	struct figures *figures;
	struct host_facts host;
	struct kernel_code *kernel_code;
	uint8_t boot_id[16];

	/* What images are assigned by: config_current(), but already the next one while a swap goes on.
	 * Whoever decides during a swap must not borrow from what is about to be freed. */
	const struct config *in_force;
	uint64_t generation; /* of in_force */
	struct interval *open;
	struct interval *pending; /* oldest first */
	size_t n_pending;
	sd_event_source *interval_timer, *drain_soon, *close_soon;
	uint64_t next_interval, batch_serial, batch_serial_saved;
	int64_t clock_offset_ns; /* monotonic to unix, as of the last drain */
	bool drained_once;
	bool open_is_full;      /* to be closed as soon as nobody is in the middle of filling it */
	bool settling;          /* within daemon_settle() */
	bool quit;              /* asked to stop */
	uint32_t trims_skipped; /* ends of intervals since symbol_trim() */
	struct snapshot *snapshots;
	struct survey_wait *survey_waits;
	bool surveying;

	struct ledger ledger;
	struct { /* of samples that an agentd that was killed took with it; see daemon_spool.c */
		uint64_t count, from_unix_ns, to_unix_ns;
		uint64_t open_since_unix_ns; /* profiling is on since, as the store knows; 0: off */
	} gap;
	uint64_t frames, frames_named, user_frames, user_frames_named; /* by sample, over batches */
	uint64_t late_names;
};

int daemon_main(int argc, char **argv);

/* ---- daemon_pipeline.c, daemon_interval.c, daemon_names.c ---- */
extern const struct sampler_ops daemon_sampler_ops;
extern const struct process_ops daemon_process_ops;
extern const struct symbol_ops daemon_symbol_ops;
int daemon_interval_open(struct daemon *d);
/* Ends the open interval and asks for its names; its batch goes out when they are there. */
void daemon_interval_close(struct daemon *d);
/* Arms the timer for the end of the open interval. */
int daemon_interval_arm(struct daemon *d);
/* Everything that was sampled so far is in the open interval when this returns (but for what waits for
 * its image's facts), what the kernel counted included. Takes a millisecond, and every stack is sent
 * anew afterwards. Not from within a drain. */
void daemon_settle(struct daemon *d);
/* Runs handler in the loop's next round, once; *source is made at the first call. */
void daemon_defer(struct daemon *d, sd_event_source **source, sd_event_handler_t handler);
/* Whether a destination wants the source's samples with their times. In daemon_timed.c. */
bool daemon_source_timed(const struct daemon *d, const struct source *source);
/* Drops every image's assignment: the configuration behind it goes away. */
void daemon_forget_assignments(struct daemon *d);
void daemon_interval_free(struct interval *i);
/* What is open or waits for names, as one encoded batch; done(data, len) once, within deadline_ms and
 * perhaps before this returns. -ENOMEM: done is not called. */
int daemon_snapshot(struct daemon *d, unsigned deadline_ms,
	void (*done)(void *userdata, const void *data, size_t len), void *userdata);
/* Drops the snapshot that was asked for with this userdata: done will not be called. */
void daemon_snapshot_cancel(struct daemon *d, void *userdata);
/* Runs the loop until no interval waits for names, at most so long. */
void daemon_finish_pending(struct daemon *d, uint64_t deadline_ns);

/* ---- daemon_unwind.c ---- */
int daemon_unwinding_new(struct daemon *d, struct err_text *err);
void daemon_unwinding_free(struct daemon *d);
/* struct process_ops */
int daemon_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret);
void daemon_on_space(void *userdata, struct image *image);
void daemon_on_file_gone(void *userdata, uint32_t file);
/* The image was sampled: the kernel is told what it has mapped, unless it was. */
void daemon_space_wanted(struct daemon *d, struct image *image);
/* At the end of a drain: tells the kernel of the mappings of some images, forgets files that are gone. */
void daemon_unwinding_drained(struct daemon *d);
/* Walks that wait for rows go on though the loop does not run: before process_flush(), which gives out
 * those that still wait as they are. A third of a second at most. */
void daemon_unwinding_finish(struct daemon *d);
/* Another sampler, which knows nothing of what the one before was told. */
void daemon_unwinding_restart(struct daemon *d);
pid_t daemon_unwinder_pid(struct daemon *d);
void daemon_unwinder_counters(struct daemon *d, struct unwinder_counters *ret);
const struct unwind_file_facts *daemon_unwind_facts(struct daemon *d, uint32_t file);
void daemon_space_counters(const struct daemon *d, uint64_t *told, uint64_t *waiting);

/* ---- daemon_cost.c ---- */
int daemon_cost_new(struct daemon *d, struct err_text *err);
void daemon_cost_free(struct daemon *d);
/* Sampling began (anew: at the rate that is set; else the rate stays as it is). */
void daemon_cost_start(struct daemon *d, bool anew);
void daemon_cost_stop(struct daemon *d);
/* Share of the host's CPU time over the last window; *window_ns 0: not known yet. */
double daemon_cost_share(const struct daemon *d, uint64_t *window_ns);
/* In all programs' run time, ours in the kernel included; since agentd started. */
uint64_t daemon_bpf_ns(struct daemon *d, const struct sampler_counters *now);

/* ---- daemon_reload.c ---- */
extern const struct config_hooks daemon_config_hooks;
struct local_config daemon_local_config(const struct config *c);
/* Puts in place what start() found in force, sampler included. */
void daemon_begin(struct daemon *d);
/* Takes what was sampled, closes the interval, unloads the programs. */
void daemon_disable(struct daemon *d);

/* ---- daemon_survey.c ---- */
/* As process_survey(), but any number may ask: one that comes while a survey is under way gets its
 * answer. done is never called from within this. */
int daemon_survey(struct daemon *d,
	void (*done)(void *userdata, const struct process_candidate *list, size_t n),
	void *userdata);
void daemon_survey_cancel(struct daemon *d, void *userdata); /* done will not be called */

/* ---- daemon_ledger.c ---- */
void daemon_ledger_retire(struct daemon *d, struct sampler *s);
void daemon_ledger_fill(struct daemon *d, struct control_reply *r, Control__Ledger *l);

/* ---- daemon_status.c, daemon_status_unwind.c, daemon_status_sandbox.c, daemon_verbs.c ---- */
void daemon_status_unwinding(struct daemon *d, struct control_reply *r, Control__Status *s);
void daemon_status_sandboxes(struct daemon *d, struct control_reply *r, Control__Status *s);
/* Fills s from r's arena. settle: see daemon_settle(). 0 or -ENOMEM. */
int daemon_status_fill(
	struct daemon *d, struct control_reply *r, Control__Status *s, bool verbose, bool settle);
void daemon_status(void *userdata, struct control_reply *r, const Control__GetStatus *request);
void daemon_verbs_init(struct daemon *d);
/* The state of the source of that name, or of all ("", in the order of the configuration); with the
 * images that each takes and those that others take from it, if asked for. NULL: no memory. */
Control__SourceState **daemon_source_states(
	struct daemon *d, struct control_reply *r, const char *only, bool images, size_t *n);
Control__DestinationState *daemon_destination_state(
	struct daemon *d, struct control_reply *r, const struct config_destination *c);
