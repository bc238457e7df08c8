/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* CAP_SYS_ADMIN, held back. Where kernel.perf_event_paranoid is 3 or 4 (Debian, Ubuntu), only it opens perf events; all
 * else that agentd does takes smaller capabilities. So it stays permitted and is effective only within one call. */

#include <stdbool.h>

/* Takes it out of the effective set, if BPF and PERFMON are there to do without (kernel 5.8; else nothing is changed).
 * 0, or -errno. Once, at the start of a process. */
int privilege_hold_back_admin(void);
/* on: effective again, off: no longer; nothing where it was not held back. errno stays as it was. */
void privilege_admin(bool on);
/* Whether it may be raised, or is effective: what counts when something is explained. */
bool privilege_has_admin(void);
