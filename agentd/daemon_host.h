/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "agentd/daemon.h"

/* Fills daemon.host, .boot_id and .kernel_code from the running system. */
int daemon_host_facts(struct daemon *d, struct err_text *err);
void daemon_host_free(struct daemon *d);
/* Descriptors for the files that are being named; locked memory for maps on kernels before 5.11. */
void daemon_raise_limits(void);
