/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The exporter's spool and the gap: see daemon_spool.c. */

#include "agentd/daemon_verbs.h"

/* Makes d->link. */
int daemon_link_new(struct daemon *d, struct err_text *err);
void daemon_spool_configure(struct daemon *d, const struct config *c);

/* What the store knows of gaps; before profiling begins. */
void daemon_gap_load(struct daemon *d);
/* Profiling begins or ends, in order. */
void daemon_gap_profiling(struct daemon *d, bool on);
/* Profiling is off at this start: the gap, if there is one, ends here and not when it is switched on one day. */
void daemon_gap_off(struct daemon *d);
/* Where the last gap begins; 0: there was none. */
uint64_t daemon_gap_from(const struct daemon *d);

Control__SpoolState *daemon_spool_state(struct daemon *d, struct control_reply *r);
void daemon_get_spool(void *userdata, struct control_reply *r, const Control__GetSpool *request);
void daemon_drop_spool(void *userdata, struct control_reply *r, const Control__DropSpool *request);
