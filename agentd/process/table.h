/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the process room: the table and its entries. Nobody else includes this. */

#include "agentd/base/log.h"
#include "agentd/base/map.h"
#include "agentd/process/client.h"
#include "agentd/process/files.h"
#include "agentd/process/mappings.h"
#include "agentd/process/process.h"

#define TICK_NS          10000000ULL /* USER_HZ is 100 on every architecture we run on */
#define EXEC_UNKNOWN     UINT32_MAX  /* sample_image.exec of entries that /proc alone told of */
#define LINGER_NS        (5 * NSEC_PER_SEC) /* an ended image's entry */
#define NAME_WAIT_NS     (1 * NSEC_PER_SEC) /* samples wait for a container's name */
#define HOLD_MAX_NS      (1 * NSEC_PER_SEC) /* an answer waits for the event stream to catch up */
#define READS_MAX        32                 /* under way */
#define EXEC_READS_A_SEC 100                /* images read for their exec alone */
#define EXEC_READS_BURST 64
#define QUEUE_BYTES_MAX  (8u << 20)
#define REFRESH_MIN_NS                                                                             \
	(1 * NSEC_PER_SEC) /* between reads of an image's mappings for an unmapped frame */
#define REFRESH_MAX_NS (64 * NSEC_PER_SEC)
#define ANCESTORS_MAX  64

/* What waits in an image's queue, in the order of events. */
struct queued {
	struct queued *next;
	uint64_t time_ns;
	size_t bytes; /* of the allocation */
	bool is_map;  /* else a sample */
	struct mapping map;
	struct record_sample sample; /* frames behind */
};

struct entry {
	struct image image; /* first: what others see */
	struct process_table *table;
	struct entry *lru_prev, *lru_next; /* all; most recently used first */
	struct entry *ended_next;          /* in order of their end */
	struct entry *want_next;
	struct entry *parent; /* counted in its children */
	unsigned children;
	struct mappings *mappings; /* NULL: none known */
	/* What is known as of when, and what is too old; CLOCK_MONOTONIC, 0: never. */
	uint64_t facts_at, facts_after, maps_at, maps_after;
	uint64_t superseded_ns; /* its process execed away from it */
	uint64_t ended_ns;
	/* What events said, for the case that /proc says nothing. */
	char *event_cgroup;
	uint64_t event_cgroup_ns;
	/* The queue. */
	struct queued *first, **last;
	size_t n_queued;
	uint32_t survey_serial;
	unsigned opens;                     /* OPEN requests under way */
	uint64_t refresh_next, refresh_gap; /* reads for unmapped frames */
	uint64_t name_deadline;
	bool sampled, surrogate, forked, facts_known, announced, wanted, reading, unreadable,
		in_ended;
	bool waits_parent, waits_name, running_queue, facts_changed, name_asked;
};

/* By pid: the image that runs now, and mappings of one whose exec has begun. */
struct slot {
	pid_t pid;
	struct entry *current;
	struct mappings *pending;
	uint64_t pending_ns;
};

/* An answer that waits until the events up to its time are known. */
struct held {
	struct held *next;
	struct sample_image key;
	uint64_t t0, t1, since;
	uint16_t flags;
	size_t len;
	uint8_t body[];
};

struct container_namer;
struct name_ask;
struct survey;

struct process_table {
	sd_event *loop;
	struct process_config config;
	struct process_ops ops;
	void *userdata;
	struct client *client;
	struct files *files;
	struct path_pool *paths;
	struct map *by_key, *by_pid;
	struct entry lru; /* head */
	struct entry *ended_first, **ended_last;
	struct entry *want_first, **want_last;
	struct held *held_first, **held_last;
	sd_event_source *soon, *timer; /* after this round of events; at the next deadline */
	struct container_namer *namer;
	char *docker_root;
	struct name_ask *asks;
	bool namer_failed, freeing, flushing, forcing, wake_waiting, wake_all, asking_name;
	size_t n_reading, n_queued, queued_bytes, n_waiting;
	uint64_t queued_samples; /* by their counts: for the ledger */
	uint64_t stream_ns, lost_ns, event_wall_ns;
	uint64_t exec_tokens_ns, exec_tokens;
	uint64_t last_reap, timer_at;
	struct survey *survey;
	uint32_t survey_serial;
	uint32_t unmapped; /* the file "[unmapped]" */
	struct process_counters counters;
};

static inline bool key_equal(const struct sample_image *a, const struct sample_image *b)
{
	return a->tgid == b->tgid && a->exec == b->exec && a->start_boottime == b->start_boottime;
}

/* ---- image.c: entries, their lists and their end -------------------------------------------------------- */
struct entry *image_find(struct process_table *t, const struct sample_image *key);
struct slot *image_slot(struct process_table *t, pid_t pid, bool create);
struct entry *image_current(struct process_table *t, pid_t pid);
/* Finds or makes (or adopts the surrogate of) the image; NULL: no memory or no room. */
struct entry *image_get(struct process_table *t, const struct sample_image *key, uint64_t time_ns);
struct entry *image_add_surrogate(struct process_table *t, pid_t pid, uint64_t start_ticks);
void image_set_parent(struct entry *e, struct entry *parent);
void image_end(struct entry *e, uint64_t time_ns);
void image_touch(struct entry *e);
void image_reap(struct process_table *t, uint64_t time_ns);
void image_free(struct entry *e, const char *why_samples_are_lost);
void image_lost(struct process_table *t, const char *cause, uint64_t samples);

/* ---- queue.c: samples and mapping events that wait ------------------------------------------------------- */
int queue_sample(struct entry *e, const struct record_sample *s);
int queue_map(struct entry *e, uint64_t time_ns, struct mapping *m); /* takes the path */
void queue_pop(struct entry *e);
/* Gives out what can be given out. */
void queue_run(struct entry *e);

/* ---- facts.c, reads.c: reading images and what comes of it ---------------------------------------------- */
void facts_init(struct image *image);
void facts_free(struct image *image);
/* READ's body onto the image; -EBADMSG. parent_start: clock ticks, 0 not known. */
int facts_apply(struct entry *e, const struct client_result *r, uint16_t flags);
/* What events and the parent say, where /proc says nothing (any more). */
void facts_set_name(struct image *image, const char *name, const char *container_image);
void facts_compose(struct entry *e);
void facts_from_event(struct entry *e, const struct record_process *p);

bool reads_needed(const struct entry *e);
void reads_want(
	struct entry *e); /* asks for what is needed, or gives up where nothing can be had */
void reads_pump(struct process_table *t);
void reads_release_held(struct process_table *t, uint64_t stream_ns); /* UINT64_MAX: all */
void reads_give_up(struct entry *e);
/* Whether its samples can be given out: facts, ancestors and name known or given up. Announces. */
bool reads_settle(struct entry *e);
/* Whether its container has a name, or none is to be had within a second; asks for it. */
bool reads_name_known(struct entry *e);
void reads_advance(struct entry *e); /* settles, and runs the queue */
void reads_run_waiting(struct process_table *t);

/* ---- names.c: containers' names ------------------------------------------------------------------------------ */
void names_ask(struct entry *e);
void names_free(struct process_table *t);

/* ---- resolve.c: frames to files --------------------------------------------------------------------------- */
/* 0 given out, -EAGAIN must wait. */
int resolve_sample(struct entry *e, const struct record_sample *s);
void resolve_map(struct entry *e, struct mapping *m); /* applies a mapping event; takes the path */
/* What a mapping record or a maps line is to us; false: of no interest. Its path is a new reference. */
bool resolve_mapping(struct process_table *t, struct mapping *ret, uint64_t start, uint64_t len,
	uint64_t pgoff, const struct file_key *key, const char *path);

/* ---- survey.c -------------------------------------------------------------------------------------------------- */
void survey_progress(struct process_table *t);
void survey_free(struct process_table *t);

/* ---- table.c ----------------------------------------------------------------------------------------------------- */
void table_soon(struct process_table *t); /* pump after this round of events */
void table_housekeeping(struct process_table *t);
void table_arm(struct process_table *t, uint64_t at_ns); /* the timer, no later than this */
