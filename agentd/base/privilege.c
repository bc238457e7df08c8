/* SPDX-License-Identifier: Apache-2.0 */

/* CAP_SYS_ADMIN, held back (privilege.h says why).
 *
 * It does not make agentd harmless: who takes it over can raise it as agentd does. It means that nothing in agentd leans
 * on it unnoticed, and that a mistake elsewhere is refused by the kernel. The sets are read and written as they are
 * each time, so that this gets along with whatever else changes them. Source: capabilities(7). Runs in agentd. */

#include <sys/capability.h>

#include "agentd/base/capability.h"
#include "agentd/base/macros.h"
#include "agentd/base/privilege.h"

static bool held_back;

static void free_caps(cap_t *caps)
{
	if (*caps)
		cap_free(*caps);
}

static bool has(cap_t caps, cap_value_t cap, cap_flag_t set)
{
	cap_flag_value_t value = CAP_CLEAR;

	return cap_get_flag(caps, cap, set, &value) == 0 && value == CAP_SET;
}

static int set_effective(bool on)
{
	CLEANUP(free_caps) cap_t caps = cap_get_proc();
	cap_value_t admin = CAP_SYS_ADMIN;

	if (!caps || cap_set_flag(caps, CAP_EFFECTIVE, 1, &admin, on ? CAP_SET : CAP_CLEAR) < 0 ||
		cap_set_proc(caps) < 0)
		return -errno;
	return 0;
}

int privilege_hold_back_admin(void)
{
	CLEANUP(free_caps) cap_t caps = cap_get_proc();
	int r;

	if (!caps)
		return -errno;
	if (!has(caps, CAP_SYS_ADMIN, CAP_EFFECTIVE) || !has(caps, CAP_BPF, CAP_EFFECTIVE) ||
		!has(caps, CAP_PERFMON, CAP_EFFECTIVE))
		return 0;
	r = set_effective(false);
	held_back = r == 0;
	return r;
}

void privilege_admin(bool on)
{
	int saved = errno;

	if (held_back)
		(void)set_effective(on);
	errno = saved;
}

bool privilege_has_admin(void)
{
	CLEANUP(free_caps) cap_t caps = cap_get_proc();

	return caps && has(caps, CAP_SYS_ADMIN, CAP_PERMITTED);
}
