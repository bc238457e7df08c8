/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "agentd/daemon.h"

/* For struct symbol_ops: the separate debug file of a file, and the alternate file that debug information refers to. */
int daemon_open_debug(
	void *userdata, uint32_t file, const char *build_id, const char *debuglink, unsigned *n);
int daemon_open_alternate(
	void *userdata, uint32_t file, const char *build_id, const char *path, unsigned *n);
void daemon_on_debug(void *userdata, uint32_t file, unsigned n, const char *build_id);

/* symbols/paths may have changed: names that may be had by them are looked up afresh. */
void daemon_debug_paths_changed(struct daemon *d);
void daemon_debugfiles_free(struct daemon *d);
