/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The way that a path leads, part by part, through every symbolic link on it. */

#include <sys/stat.h>

#include "agentd/base/macros.h"

struct way_step {
	const char *folder;      /* that it is in; without links, "/" for the root */
	const char *name, *path; /* in the folder; with it */
	const struct stat
		*st; /* of itself, not of what it leads to; NULL: not there, or errno says why */
	bool last;   /* of what is left to go; a link's target still comes */
};

/* Calls step for each part but the root, in the order in which the kernel goes. Ends where a part is not there and where
 * step returns something else than 0, which is returned. -ENAMETOOLONG, -ELOOP, -errno of a link. */
int way_walk(
	const char *path, int (*step)(void *userdata, const struct way_step *s), void *userdata);
