/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tells when the configuration files may have changed: once they are quiet for a quarter of a second, after two seconds
 * at the latest, and never more than once a second. Runs in agentd. */

#include <systemd/sd-event.h>

#include "agentd/config/config.h"

struct config_watch;

/* Tells once soon after it was made, for what changed since the manager read the files. Borrows m. */
int config_watch_new(struct config_watch **ret, sd_event *loop, struct config_manager *m,
	void (*changed)(void *userdata), void *userdata, struct err_text *err);
struct config_watch *config_watch_free(struct config_watch *w);
DEFINE_FREEP(config_watch_freep, struct config_watch *, config_watch_free)
/* Looks at where the files are now: before they are read for another reason than that it told. */
void config_watch_look(struct config_watch *w);
/* Why some folder is not watched; NULL: all are. */
const char *config_watch_problem(const struct config_watch *w);
