/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Rows of files, as agentd asks for them: one page of 64 KiB at a time, made by a child in a sandbox
 * (`--role unwinder`), which is handed descriptors and answers slots (bpf/tables.h).
 *
 * A page is asked for once, however many want it; the child works on one request at a time, which is
 * all pages that wait of one file, files in turn. A child that dies, hangs or lies costs the page it
 * was at (one that died may have been killed: it is tried once more): that page is answered as one
 * without rows, and so is what else is asked of the file until a while has passed, longer each time.
 * Then those pages are asked for again by themselves, and on_page comes a second time for them.
 *
 * Nothing here waits. The child is started ahead, ends itself to nothing when it was of no use for
 * long, and is started anew at need. Runs in agentd, but for unwind_role_main(). */

#include <sys/types.h>
#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "bpf/tables.h"

struct unwinder;

struct unwinder_ops {
	/* Descriptor of the file, borrowed until the next call, or -errno. */
	int (*open_file)(void *userdata, uint32_t file);
	/* The page's slot (checked here, rows_slot_check()); borrowed during the call. Also called for a page
	 * that has no rows, or of a file that cannot be read: one row, UNWIND_CFA_NONE, or
	 * UNWIND_CFA_UNSUPPORTED when the child failed at it. */
	void (*on_page)(void *userdata, uint32_t file, uint32_t page, const struct rows_slot *slot,
		size_t size);
	/* Everything that had come was handed out: wake who waits. */
	void (*on_idle)(void *userdata);
	/* What to call the file in sentences; "" or NULL: by its number. May be NULL itself. */
	const char *(*file_name)(void *userdata, uint32_t file);
};

struct unwinder_config {
	size_t max_pending;    /* pages asked and not answered; 0: 4,096 */
	unsigned deadline_ms;  /* a page; 0: 2,000 */
	unsigned idle_exit_ms; /* the child ends after so long without a question; 0: 30,000 */
	unsigned back_off_ms;  /* the first one of a file, doubled up to an hour; 0: 30,000 */
};

/* Of one file: what its rows are made from, and what could not be read. Pages that were asked for
 * twice count twice. */
struct unwind_file_facts {
	unsigned sources; /* enum unwind_source */
	uint64_t pages, rows, bytes;
	uint64_t unsupported; /* rows */
	char problem[160];    /* "" none */
};

struct unwinder_counters {
	uint64_t asked, answered, pages, rows,
		bytes;        /* answered: failed ones too; pages: whole ones */
	uint64_t unsupported; /* rows */
	uint64_t requests;
	uint64_t refused; /* too many pending */
	uint64_t crashes, timeouts, lies;
	uint64_t restarts;
	uint64_t cpu_us;       /* of the child, in all its lives */
	uint64_t child_memory; /* bytes it holds of files, as it says */
	uint64_t pending;
};

/* Copies config; borrows ops for its life. The child is under way when this returns; that it cannot
 * be started is no error here (it is tried again when asked). */
int unwinder_new(struct unwinder **ret, sd_event *loop, const struct unwinder_config *config,
	const struct unwinder_ops *ops, void *userdata, struct err_text *err);
struct unwinder *unwinder_free(struct unwinder *u);
DEFINE_FREEP(unwinder_freep, struct unwinder *, unwinder_free)

/* 0: asked (on_page will come, never from within this call); 1: it is already under way; -ENOBUFS,
 * -ENOMEM. */
int unwinder_ask(struct unwinder *u, uint32_t file, uint32_t page);
/* For a moment in which the loop does not run (a swap of samplers): waits for the child, at most so long, and
 * hands out what it says. Whether anything is still pending. Not from within a callback. */
bool unwinder_wait(struct unwinder *u, unsigned ms);
/* What is pending of it is dropped without on_page (on_idle comes), and its facts go. */
void unwinder_forget_file(struct unwinder *u, uint32_t file);
/* NULL: not met. Borrowed until the next call. */
const struct unwind_file_facts *unwinder_file_facts(struct unwinder *u, uint32_t file);
void unwinder_counters(struct unwinder *u, struct unwinder_counters *ret);
pid_t unwinder_child_pid(struct unwinder *u); /* -1: none runs */

/* The role (`--role unwinder`). 0 at the end of the socket, or -errno. */
int unwind_role_main(void);
