/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "agentd/daemon.h"

/* Names over restarts, in STATE_DIR/names.db. Where it cannot be had, names are kept in memory only, and the log says so. */
void daemon_disknames_open(struct daemon *d);
void daemon_disknames_close(struct daemon *d);
extern const struct symbol_disk daemon_disknames;
