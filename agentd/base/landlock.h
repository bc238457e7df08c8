/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Landlock: which files a process may open from now on, whoever it is. What is open stays open. Only the calling thread
 * and what it starts later are held, so it is to be entered while there is one thread; no_new_privs has to be set.
 *
 * Rules follow the file that a path led to when the rule was made, and for a folder all that is below it: a file that is
 * replaced by another one of its name is not covered any more. A descriptor of a folder is no way around: what is
 * opened through it is judged like any path, also where another process opened it.
 *
 * Source: landlock(7), Documentation/userspace-api/landlock.rst. */

#include "agentd/base/err.h"

/* The version that this kernel offers; 0: none (too old, built without, not among its security modules, or forbidden). */
int landlock_abi(void);

/* Rules under which nothing is allowed of all that this kernel can forbid; with deny_tcp neither TCP. A descriptor, or
 * -EOPNOTSUPP: this kernel has none of it. */
int landlock_new(bool deny_tcp);
/* Allows reading of what a path leads to, links followed, and of what is below. What is not there is passed over. */
int landlock_read(int rules, const char *path);
/* Allows reading, making, writing, renaming and removing files (no folders) below a folder. Borrows folder. */
int landlock_write(int rules, int folder);
/* For ever. */
int landlock_enter(int rules);
