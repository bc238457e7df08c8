/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The files that the exporter can open. */

#include "agentd/base/err.h"

/* For ever: what resolving names and checking certificates reads, and what is below these folders (borrowed; a negative
 * one is passed over). Once, before there is a second thread. 0; 1: this kernel has no Landlock, and what every user can
 * read this process can, too. */
int confine_enter(const int *folders, size_t n, struct err_text *err);
/* Whether files can be written below this folder, as far as it is up to this. */
bool confine_has(int folder);
/* Why another process has to take over to read what it has to, as a part of a sentence; NULL: no reason. Looks at most
 * every few seconds. */
const char *confine_outdated(uint64_t now_ns);
