/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Our own metrics, from what `odictl status` says. */

#include "agentd/daemon.h"
#include "agentd/wire/metrics.h"

/* From a filled status: fills m. Pure. */
void daemon_metrics_fill(struct metrics *m, const Control__Status *s);
/* settle: everything that was sampled so far is counted where it belongs, which costs some (daemon_settle()). */
int daemon_metrics_make(struct daemon *d, bool settle, struct metrics **ret);
/* The verb. */
void daemon_get_metrics(void *userdata, struct control_reply *r);

/* ---- daemon_scrape.c: over HTTP, and to destinations that want them ---- */
int daemon_scrape_new(struct daemon *d, struct err_text *err); /* after the link */
void daemon_scrape_free(struct daemon *d);
void daemon_scrape_configure(struct daemon *d, const struct config *next);
