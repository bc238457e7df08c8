/* SPDX-License-Identifier: Apache-2.0 */

/* What the service manager says to a unit, and is told by it. Thin, so that libsystemd stays in this room.
 * Source: sd_listen_fds(3), sd_watchdog_enabled(3). The exporter. */

#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "agentd/base/unit.h"

int unit_listens(void)
{
	int n = sd_listen_fds(0);

	if (n <= 0)
		return 0;
	return n == 1 && sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, NULL, 0) > 0
		? 1
		: -EINVAL;
}

uint64_t unit_watchdog_us(void)
{
	uint64_t us;

	return sd_watchdog_enabled(0, &us) > 0 ? us : 0;
}

void unit_lives(void)
{
	(void)sd_notify(0, "WATCHDOG=1");
}
