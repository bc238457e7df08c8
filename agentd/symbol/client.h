/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The insides of agentd's side, shared by client.c (callers), files.c (queues, answers) and
 * child.c (the process). */

#include "agentd/base/map.h"
#include "agentd/base/sandbox.h"
#include "agentd/symbol/cache.h"
#include "agentd/symbol/protocol.h"
#include "agentd/symbol/ranges.h"

/* Entries of the cache that nobody asked about: names that came along for a range. No address has this bit. */
#define SYMBOL_EXTRA_KEY (1ULL << 63)
#define PENDING_MAX      65536 /* addresses waiting over all files */

#define DEBUG_TRIES_MAX 16 /* debug files tried for one file */

enum debug_state {
	DEBUG_UNKNOWN, /* not known yet whether a separate debug file is wanted */
	DEBUG_SEEKING, /* wanted: the next place is tried */
	DEBUG_USED,    /* that at debug_place is the right one */
	DEBUG_NONE,    /* not wanted, or not to be had */
};

/* A file's names on the disk (diskcache.c). */
enum disk_state {
	DISK_UNKNOWN, /* not looked for yet */
	DISK_OFF,     /* it has no place there */
	DISK_HAS,     /* disk_id */
	DISK_REPLACE, /* there are none, or none that are good enough */
};

/* What a file is asked with: less after each failure that may have been for what is left out. */
enum effort {
	EFFORT_ALL,
	EFFORT_CHEAP, /* without debug information */
	EFFORT_OWN,   /* and without a separate debug file */
};

/* One file's queue and what is known of it. */
struct symbol_file {
	uint32_t id;
	uint32_t generation; /* kernel: goes up when names are to be read afresh */
	struct symbol_file_facts facts;
	char named_by[24], problem[192];
	enum debug_state debug;
	unsigned debug_place;      /* SEEKING: from here on; USED: there */
	uint64_t debug_checked_ns; /* NONE: since then */
	unsigned debug_tries;      /* SEEKING: files that were not the right ones */
	char *debuglink;           /* NULL: none */
	/* The same of the alternate file that debug information refers to. */
	enum debug_state alt;
	unsigned alt_place, alt_tries;
	uint64_t alt_checked_ns;
	char *altlink;
	char alt_build_id[41];
	char debug_note[96]; /* why one that was found is not used; "" */
	bool costly;         /* it has something that EFFORT_CHEAP leaves out */
	enum effort effort;
	char effort_note[96];        /* why not EFFORT_ALL */
	struct symbol_ranges ranges; /* that answers hold for */
	uint64_t *pending;           /* addresses in the order asked, from head on */
	size_t head, n, size;
	uint64_t queued,
		answered; /* serials: of the last address queued, of the last answered or given up */
	bool in_queue;
	bool changed;             /* while it was being asked */
	struct symbol_file *next; /* in the queue of files */
	uint64_t loaded_by;       /* serial of the child that holds its index; 0 none */
	uint64_t retry_at_ns;     /* in back-off until then */
	unsigned failures;        /* in a row */
	uint32_t used;            /* symbolizer.trims at the last question */
	enum disk_state disk;
	enum symbol_demangle disk_mode; /* of disk_key and disk_id */
	bool disk_write;                /* what is read of it now may be kept */
	uint8_t disk_key[32];
	uint64_t disk_id;          /* HAS */
	uint64_t disk_debug_files; /* struct disk_facts */
};

/* One symbol_resolve() under way: done when each of its files has answered up to a serial. */
struct symbol_wait {
	uint32_t file;
	uint64_t serial;
	bool over;
};

struct symbol_key {
	uint32_t file;
	uint64_t address;
};

struct symbol_waiter {
	struct symbolizer *s;
	struct symbol_waiter *next;
	struct symbol_wait *waits;
	size_t n_waits, n_left;
	struct symbol_key *keys; /* what was missing */
	size_t n_keys;
	sd_event_source *timer;
	void (*done)(void *userdata, size_t late);
	void *userdata;
};

enum child_state {
	CHILD_NONE,
	CHILD_STARTING, /* its sandbox is not closed yet */
	CHILD_IDLE,
	CHILD_BUSY,
};

struct symbolizer {
	sd_event *loop;
	struct symbol_config config;
	const struct symbol_ops *ops;
	void *userdata;
	struct symbol_cache *cache;
	struct map *files; /* id -> struct symbol_file */
	struct symbol_file *queue, **queue_tail;
	size_t n_pending;
	struct symbol_waiter *waiters;
	struct symbol_counters counters;

	struct sandbox_child child;
	enum child_state state;
	uint64_t child_serial;
	unsigned child_failures;     /* in a row */
	uint64_t request;            /* serial */
	struct symbol_file *current; /* BUSY: whose request; NULL: forgotten meanwhile */
	uint32_t current_n, current_next;
	uint64_t current_addresses[SYMBOL_ADDRESSES_MAX];
	enum symbol_demangle demangle, current_demangle;
	bool current_had_fd, current_had_debug, current_may_ask, current_had_alt,
		current_may_ask_alt;
	struct symbol_facts_message current_facts;
	sd_event_source *io, *exit, *timer; /* timer: deadline, restart or idleness, by state */
	sd_event_source *later;
	struct symbol_key *disk_keys; /* named, not on the disk yet: from disk_head on */
	size_t disk_head, disk_n, disk_size;
	sd_event_source *disk_timer;
	uint32_t trims;
	uint64_t message[SYMBOL_MESSAGE_MAX / 8];
};

/* ---- client.c ------------------------------------------------------------------------------------------------ */

/* Waits for this file are over as far as it has answered. Callbacks come by symbol_run_waiters(). */
void symbol_on_progress(struct symbolizer *s, uint32_t file, uint64_t answered);
/* Calls back the waiters that have all. The last thing that an event does. */
void symbol_run_waiters(struct symbolizer *s);

/* The chain of what has no name: module and address. NULL: no memory. */
const struct symbol_chain *symbol_fallback_chain(
	struct symbolizer *s, uint32_t file, uint64_t address);

/* ---- files.c ------------------------------------------------------------------------------------------------- */

/* Made if it was not there. NULL: no memory. */
struct symbol_file *symbol_file_get(struct symbolizer *s, uint32_t id);
void symbol_file_free(void *value);
/* Adds one address. -ENOBUFS: too many wait, -ENOMEM. */
int symbol_file_add(struct symbolizer *s, struct symbol_file *f, uint64_t address);
/* Into the queue of files, behind the others, if it has anything to ask; and out of it. */
void symbol_file_enqueue(struct symbolizer *s, struct symbol_file *f);
void symbol_file_unqueue(struct symbolizer *s, struct symbol_file *f);
/* The first n addresses of its queue are answered, with that state where rows did not say better. */
void symbol_file_settle(
	struct symbolizer *s, struct symbol_file *f, size_t n, enum symbol_state state);
uint16_t symbol_file_kind(struct symbolizer *s, uint32_t file); /* enum symbol_file_kind */
/* Never NULL or "". */
const char *symbol_module_name(struct symbolizer *s, uint32_t file);
/* What goes with a request. fd is borrowed, the others are to be closed; -1 none. */
struct symbol_hand_over {
	int fd;
	int own;   /* the kernel's, also in fd */
	int debug; /* perhaps its debug file */
	int alt;   /* perhaps the alternate file */
	uint16_t flags;
};
#define SYMBOL_HAND_OVER_NONE                                                                      \
	((struct symbol_hand_over){.fd = -1, .own = -1, .debug = -1, .alt = -1})
static inline void symbol_hand_over_close(struct symbol_hand_over *h)
{
	closep(&h->own);
	closep(&h->debug);
	closep(&h->alt);
}

/* The next file with something to ask, out of the queue. NULL: none. */
struct symbol_file *symbol_next_file(struct symbolizer *s, struct symbol_hand_over *ret);

/* The current request: addresses that rows name; the end of it; or that it came to nothing. */
int symbol_on_names(struct symbolizer *s, const struct symbol_names_view *view);
void symbol_on_done(struct symbolizer *s, const struct symbol_done_message *done);

enum symbol_blame {
	BLAME_CRASH, /* the child ended by itself: once may be chance, it is asked again behind the others */
	BLAME_TIMEOUT, /* it took too long */
	BLAME_LIE,     /* the answer broke the contract */
};
void symbol_on_failed(struct symbolizer *s, enum symbol_blame blame, const char *why);
/* Gives up all that waits, since no child can be had now. */
void symbol_give_up_all(struct symbolizer *s, const char *why);

/* ---- child.c ------------------------------------------------------------------------------------------------- */

/* Starts what can be started: a child, the next request. */
void symbol_pump(struct symbolizer *s);
void symbol_child_stop(struct symbolizer *s);
