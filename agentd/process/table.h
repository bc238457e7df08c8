/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the process room: the table and its entries. Nobody else includes this. */

#include "agentd/base/log.h"
#include "agentd/base/map.h"
#include "agentd/process/client.h"
#include "agentd/process/files.h"
#include "agentd/process/mappings.h"
#include "agentd/process/process.h"
#include "agentd/unwind/walk.h"

#define TICK_NS            10000000ULL /* USER_HZ is 100 on every architecture we run on */
#define EXEC_UNKNOWN       UINT32_MAX  /* sample_image.exec of entries that /proc alone told of */
#define LINGER_NS          (5 * NSEC_PER_SEC)    /* an ended image's entry */
#define READS_MAX          32                    /* under way */
#define EXEC_READ_DELAY_NS (300 * NSEC_PER_MSEC) /* from its exec, unless it is sampled before */
#define EXEC_READS_A_SEC   100                   /* images read for their exec alone */
#define EXEC_READS_BURST   64
#define QUEUE_BYTES_MAX    (16u << 20) /* slices of stacks included */
#define REFRESH_MIN_NS                                                                             \
	(1 * NSEC_PER_SEC) /* between reads of an image's mappings for an unmapped frame */
#define REFRESH_MAX_NS (64 * NSEC_PER_SEC)
#define ANCESTORS_MAX  64

/* A slice of a stack that waits with its sample; wiped when it goes. */
struct slice_link {
	struct slice_link *prev, *next;
};
struct slice {
	struct slice_link link; /* first; of all, oldest first */
	struct queued *owner;
	size_t len;
	struct sample_stack stack;
};

/* What waits in an image's queue, in the order of events. */
struct queued {
	struct queued *next;
	uint64_t time_ns;
	size_t bytes;         /* of the allocation, without the slice */
	bool is_map;          /* else a sample */
	bool reused, dropped; /* struct arrived */
	struct slice *slice;
	struct mapping map;
	struct record_sample sample; /* frames behind */
};

/* A sample, from the ring or from the queue. */
struct arrived {
	const struct record_sample *s;
	const struct sample_stack *stack; /* NULL: none */
	size_t stack_len;
	bool reused;  /* it was walked by mappings that had changed: see spaces.c */
	bool dropped; /* its slice was dropped */
};

struct entry {
	struct image image; /* first: what others see */
	struct process_table *table;
	struct entry *lru_prev, *lru_next; /* all; most recently used first */
	struct entry *ended_next;          /* in order of their end */
	struct entry *want_next;
	struct entry *busy_prev, *busy_next; /* with something in the queue */
	struct entry *wait_prev, *wait_next; /* for its ancestors or its container's name */
	struct entry *rows_next, *space_next, *later_next;
	uint64_t later_ns;
	struct entry *parent; /* counted in its children */
	unsigned children;
	struct mappings *mappings; /* NULL: none known */
	struct jit *jit;           /* NULL: no code of its own making was seen */
	/* What is known as of when, and what is too old; CLOCK_MONOTONIC, 0: never. */
	uint64_t facts_at, facts_after, maps_at, maps_after;
	uint64_t superseded_ns; /* its process execed away from it */
	uint64_t ended_ns;
	/* What events said, for the case that /proc says nothing. */
	char *event_cgroup;
	uint64_t event_cgroup_ns;
	/* The queue. */
	struct queued *first, **last;
	size_t n_queued, queued_maps;
	uint64_t rows_since; /* rows have been waited for since then; 0: not */
	/* What the kernel was told of its mappings (spaces.c). */
	uint64_t told_version;                      /* struct mappings; 0: nothing */
	uint64_t space_ns;                          /* when it had been told */
	uint64_t reused_ns, fixed_ns, reused_files; /* PROCESS_FILE_BIT() */
	uint32_t space_tag, fixed_tag;
	uint32_t survey_serial;
	unsigned opens;                     /* OPEN requests under way */
	uint64_t refresh_next, refresh_gap; /* reads for unmapped frames */
	uint64_t name_deadline;
	bool sampled, surrogate, forked, facts_known, announced, wanted, reading, unreadable,
		in_ended;
	bool waits_parent, waits_name, running_queue, facts_changed, name_asked;
	bool waits_rows, space_listed, later_listed;
};

struct jit;
struct jit_list {
	struct jit *first, *last;
	size_t n;
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
	struct entry busy, waiting; /* heads */
	struct entry *rows_first, **rows_last, *space_first, **space_last;
	struct entry *later_first, **later_last; /* by time */
	struct slice_link slices;                /* head */
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
	uint32_t unmapped;                /* the file "[unmapped]" */
	uint32_t anon;                    /* the file "[anon]": jit_anon() */
	struct jit_list jits, jits_ended; /* of images; of such that are gone, oldest first */
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
/* Right before that, of each sample. */
void image_lost_id(struct process_table *t, uint64_t id);

/* ---- queue.c: samples and mapping events that wait ------------------------------------------------------- */
int queue_sample(struct entry *e, const struct arrived *a);
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
bool reads_maps_needed(const struct entry *e);
void reads_want(
	struct entry *e); /* asks for what is needed, or gives up where nothing can be had */
/* For its exec alone: in a moment, if it is still there. */
void reads_later(struct entry *e, uint64_t time_ns);
void reads_not_later(struct entry *e);
void reads_due(struct process_table *t);
void reads_wait_no_more(struct entry *e);
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
int resolve_sample(struct entry *e, const struct arrived *a);
/* Whether it needs nothing that waits in the image's queue. */
bool resolve_is_whole(struct process_table *t, const struct arrived *a);
uint32_t resolve_unmapped(struct process_table *t); /* the file "[unmapped]" */
/* Whether a fresh read of the mappings may know more; asks for it. */
bool resolve_refresh(struct entry *e, uint64_t sample_ns);

/* ---- opens.c: mappings and their files --------------------------------------------------------------------- */
void opens_map(struct entry *e, struct mapping *m); /* applies a mapping event; takes the path */
/* What a mapping record or a maps line is to us; false: of no interest. Its path is a new reference. */
bool opens_mapping(struct process_table *t, struct mapping *ret, uint64_t start, uint64_t len,
	uint64_t pgoff, const struct file_key *key, const char *path);
/* The file behind a mapping of e->mappings: 0 and *ret, -EAGAIN: asked for, -ENOMEM. */
int opens_file(struct entry *e, struct mapping *m, pid_t tid, const struct file **ret);
/* The same without asking anybody: 0 where it would have to. */
uint32_t opens_known(struct entry *e, struct mapping *m);

/* ---- jit.c: code that a process made for itself --------------------------------------------------------------- */
/* Frames in memory without a file become the image's own; sees to it that they get names. */
void jit_frames(struct entry *e, struct sample_frame *frames, size_t n, uint64_t time_ns);
uint32_t jit_anon(struct process_table *t); /* the file of such memory, "[anon]" */
void jit_end(struct entry *e);              /* the entry goes away */
void jit_housekeeping(struct process_table *t);
void jit_free_all(struct process_table *t);

/* ---- walks.c: the walk in user space ------------------------------------------------------------------------- */
struct walked {
	size_t n;
	uint8_t end;
	uint16_t guessed;
	uint32_t end_file;
	bool waits; /* what it is is not all: for rows or for a file */
};
void walks_go(struct entry *e, const struct arrived *a, struct sample_frame *frames, size_t n,
	struct walked *ret);
/* Asks for the rows of the frame at which a sample without a slice ended. */
void walks_ask(struct entry *e, const struct sample_frame *frame);
void walks_forget(struct entry *e);
void walks_expire(struct process_table *t); /* what has waited for too long; arms the timer */
/* Whether e has waited for rows for as long as it may. */
bool walks_late(const struct entry *e);

/* ---- spaces.c: what the kernel walks by ---------------------------------------------------------------------- */
/* A mapping event has come, and is not applied yet. */
void spaces_on_map(struct entry *e, uint64_t time_ns, const struct mapping *m);
/* The files of a sample's frames, as the kernel walked them: PROCESS_FILE_BIT(). */
uint64_t spaces_files(const struct record_sample *s);
/* Whether a sample that has come was walked by addresses that meant something else by then. */
bool spaces_distrust(const struct entry *e, const struct record_sample *s);
/* A sample was given out that the kernel could not finish. */
void spaces_on_miss(struct entry *e, const struct record_sample *s);
void spaces_changed(struct entry *e); /* looks whether what was told is out of date */
void spaces_tell(struct process_table *t);
void spaces_drop(struct entry *e);

/* ---- survey.c -------------------------------------------------------------------------------------------------- */
void survey_progress(struct process_table *t);
void survey_free(struct process_table *t);

/* ---- table.c ----------------------------------------------------------------------------------------------------- */
void table_soon(struct process_table *t); /* pump after this round of events */
void table_housekeeping(struct process_table *t);
void table_arm(struct process_table *t, uint64_t at_ns); /* the timer, no later than this */
