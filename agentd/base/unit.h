/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A role that the service manager runs as a unit of its own: its socket, its watchdog. */

#include "agentd/base/macros.h"

/* The listening socket that was handed over, at descriptor 3: 1; 0: there is none; -EINVAL: something else came. */
int unit_listens(void);
/* Microseconds within which unit_lives() is to be called; 0: nobody watches. */
uint64_t unit_watchdog_us(void);
void unit_lives(void);
