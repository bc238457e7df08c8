/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Opens the separate debug files of programs, as agentd: only looks for them, never into them. */

#include <sys/types.h>
#include "agentd/base/macros.h"

#define DEBUGFILE_PLACES       5
#define DEBUGFILE_NAMED_PLACES 3

struct debugfile_query {
	int root;         /* folder that all paths are under: "/", or that of a container */
	int proc;         /* /proc/PID of a process in that container, open; -1: it is the host's */
	const char *path; /* of the program or library, as the kernel says it; "" not known */
	uid_t owner;      /* its owner */
	const char *build_id;  /* hex, "" none */
	const char *debuglink; /* "" none */
	const char *
		alternate; /* NULL, or an alternate file is looked for: its path, as its user says it */
	bool build_id_only; /* places by name are left out */
};

/* What stands at the n-th place where its debug file may be, or at the next one that has any; *n says which. Places,
 * best first: /usr/lib/debug/.build-id/xx/yyyy.debug; DIR/NAME, DIR/.debug/NAME and /usr/lib/debug/DIR/NAME, where DIR
 * is the program's folder and NAME the debug link (or the last part of the alternate
 * file's path); of an alternate file also /usr/lib/debug/.dwz/PATH.
 *
 * A regular file of at most 16 GB on a local file system, owned by root or by the program's owner, which nobody
 * else may write to; others are passed over. Returns a descriptor for reading, which the caller owns; -ENOENT: none
 * from there on. Never waits for a file system that a user or a network answers for, as far as users can
 * choose it: what administrators mounted under /usr/lib/debug is looked up. */
int debugfile_open(const struct debugfile_query *q, unsigned *n);

/* The same of a file or folder that the administrator named; q->root is "/". The places of a folder are
 * FOLDER/.build-id/xx/yyyy.debug, FOLDER/NAME and FOLDER/xx/yyyy.debug; a file is its own first place. Its owner may be anybody,
 * but nobody else may write to it; links lead nowhere outside of the folder. */
int debugfile_open_named(const struct debugfile_query *q, const char *path, unsigned *n);
