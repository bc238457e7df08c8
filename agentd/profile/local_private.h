/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The local profiles' inside: files (local.c), reader children (local_job.c), queries
 * (local_query.c), roll-ups (local_roll.c). All runs in agentd. */

#include "agentd/base/sandbox.h"
#include "agentd/profile/reader_wire.h"

/* One file: NUMBER.LEVEL.odi, the number in 16 hex digits, never used again while a file has it.
 * A roll-up keeps the number and raises the level: of two files with one number the higher level
 * is the truth, whenever a crash came. */
struct segment {
	uint64_t number, from, to, bytes, blocks, samples[8];
	unsigned level;
	bool stuck; /* a roll-up of it failed: not tried again by this process */
};

/* ---- one reader child ---- */

struct local_job;
struct local_job_ops {
	/* The next message to send: its length into message (FDPASS_MAX_MESSAGE), descriptors
	 * into fds (closed after sending). 0: there are no more; negative: the job fails. */
	ssize_t (*next)(void *userdata, uint8_t *message, int *fds, size_t *n_fds);
	/* 1: that was all; 0; negative: it broke the contract. */
	int (*on_message)(
		void *userdata, const struct reader_head *head, const uint8_t *payload, size_t len);
	/* Once, last: 0 after on_message() said 1, else -errno and why. Frees the job itself
	 * (local_job_free()) or lets its owner do so. */
	void (*on_end)(void *userdata, int error, const struct err_text *why);
};
int local_job_new(struct local_job **ret, sd_event *loop, const struct local_job_ops *ops,
	void *userdata, unsigned deadline_ms, struct err_text *err);
/* Kills the child; on_end is not called. */
struct local_job *local_job_free(struct local_job *j);
DEFINE_FREEP(local_job_freep, struct local_job *, local_job_free)

/* ---- the whole ---- */

struct local_query_run;
struct local_roll;

struct local {
	sd_event *loop;
	sd_event_source *tick;
	int dir;
	struct local_config config;
	struct segment *segments; /* by number */
	size_t n_segments, room;
	uint64_t next_number;
	uint64_t active; /* number of the segment that is appended to; 0 none */
	int active_fd;
	uint64_t synced_ns; /* CLOCK_MONOTONIC */
	bool unsynced;
	struct local_state state;
	struct local_query_run *queries;
	int64_t last_query;
	bool stopping;
	struct local_roll *roll;
	uint64_t rolling; /* number of the segment that is being rolled up; 0 none */
};

void local_segment_name(char out[32], uint64_t number, unsigned level);
struct segment *local_segment(struct local *l, uint64_t number);
/* Forgets it and unlinks its file. */
void local_segment_remove(struct local *l, struct segment *s);
/* Reads the headers of a file into *ret (number, level set by the caller). Cuts off a torn tail
 * if repair. */
int local_segment_scan(struct local *l, int fd, struct segment *ret, bool repair);
void local_problem(struct local *l, const char *format, ...) PRINTF(2, 3);
/* Age, size, roll-ups, as of now: called by a timer, and by tests. */
void local_maintain(struct local *l, uint64_t now_unix_ns);

void local_queries_end(struct local *l);
/* Starts the next roll-up that is due, if none is under way. */
void local_roll_start(struct local *l, uint64_t now_unix_ns);
void local_roll_end(struct local *l);
