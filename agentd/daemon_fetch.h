/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Debug files that are not on this host: which are wanted, which are fetched next, and what came of it. */

#include "agentd/daemon.h"

/* Its place among those of open_debug(): behind all on the host, and one that is still asked for stands behind it. */
#define FETCH_PLACE SYMBOL_DEBUG_LAST_PLACE

/* Of one build id. */
enum fetch_state {
	FETCH_STATE_NONE,   /* nothing is missing, as far as is known */
	FETCH_STATE_WANTED, /* could be fetched: it is not switched on, or its turn has not come */
	FETCH_STATE_UNDER_WAY,
	FETCH_STATE_HERE,      /* it was fetched and is in the cache */
	FETCH_STATE_NOT_FOUND, /* no server has it */
	FETCH_STATE_FAILED,    /* it is tried again later */
	FETCH_STATE_REFUSED,   /* what came was not the right file */
};

struct fetch_figures {   /* since agentd started, but where it says otherwise */
	bool on;         /* now: switched on */
	uint64_t wanted; /* now: build ids that wait to be asked for */
	uint64_t asked;  /* requests that were made, to all servers */
	uint64_t found, not_found,
		failed;   /* answers: asked = found + not_found + failed + stopped + under way */
	uint64_t stopped; /* requests that were given up since settings changed */
	uint64_t refused; /* of those found: it was not the right file, and was removed */
	uint64_t bytes;   /* that were received */
	uint64_t dropped; /* build ids that were not remembered: too many at once */
	uint64_t cached_files, cached_bytes; /* now */
	uint64_t evicted, expired;   /* that left the cache for want of room, for their age */
	char under_way[41];          /* now: its build id; "" none */
	uint64_t last_error_unix_ns; /* 0: there was none */
	char last_error[768];        /* what happened and what to do */
	char paused[160];            /* now: why nothing is fetched although something waits; "" */
};

int daemon_fetch_new(struct daemon *d, struct err_text *err);
void daemon_fetch_free(struct daemon *d);
/* The settings changed. */
void daemon_fetch_configure(struct daemon *d);

/* For open_debug (struct symbol_ops), when no place on the host from *n on has anything. A descriptor, which the caller owns,
 * and *n becomes FETCH_PLACE; or -ENOENT, and then the file is wanted. Asked for a place behind its own, it knows that the file
 * that it gave was not the right one, and removes it. */
int daemon_fetch_open(struct daemon *d, uint32_t file, const char *build_id, unsigned *n);
/* What is known of a file changed (struct symbol_ops). */
void daemon_fetch_on_facts(struct daemon *d, uint32_t file, const struct symbol_file_facts *facts);
/* Whether frames of any file are to be counted by daemon_fetch_weigh() */
bool daemon_fetch_cares(const struct daemon *d);
/* So many more samples have a frame in the file with this build id. */
void daemon_fetch_weigh(struct daemon *d, const char *build_id, uint64_t samples);
/* An interval was counted: begins what is to be fetched next. */
void daemon_fetch_next(struct daemon *d);

enum fetch_state daemon_fetch_state(const struct daemon *d, const char *build_id);
void daemon_fetch_figures(const struct daemon *d, struct fetch_figures *ret);
