/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The configuration files in the running daemon (daemon_files.c). */

#include "agentd/daemon.h"

/* Says what is wrong with the files that were read at start, and watches them from now on. */
int daemon_files_new(struct daemon *d, struct err_text *err);
void daemon_files_free(struct daemon *d);
/* Now; asked: by somebody, so that the outcome is logged in any case. */
void daemon_files_reload(struct daemon *d, bool asked);
/* How many values of files have no effect; the first in words. */
size_t daemon_files_hidden(struct daemon *d, struct err_text *first);
/* Why changes of some file would not be seen; NULL: they would. */
const char *daemon_files_unwatched(const struct daemon *d);
