/* SPDX-License-Identifier: Apache-2.0 */

/* Whether a sandbox stands, as the kernel says it: a process that is in one cannot lie about it here. Landlock is not in
 * /proc; whether there is any is landlock_abi()'s to say.
 *
 * Source: proc_pid_status(5). Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/buf.h"
#include "agentd/base/io.h"
#include "agentd/base/sandbox.h"

#define STATUS_MAX 16384

/* The number behind "\nKey:"; false: there is none. */
static bool field(const char *status, const char *key, int base, uint64_t *ret)
{
	const char *p = strstr(status, key);
	char *end;

	if (!p)
		return false;
	*ret = strtoull(p + strlen(key), &end, base);
	return end != p + strlen(key);
}

int sandbox_look(pid_t pid, struct sandbox_seen *ret)
{
	_cleanup_buf_ struct buf b;
	char path[64];
	const char *s;
	uint64_t mode, privileges, permitted, inheritable, uid;
	int r;

	buf_init(&b, STATUS_MAX);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	r = io_read_file(IO_NO_FD, path, &b, STATUS_MAX - 1);
	if (r < 0)
		return r;
	buf_add(&b, "", 1);
	if (buf_error(&b) < 0)
		return buf_error(&b);
	s = (const char *)b.data;
	if (!field(s, "\nUid:", 10, &uid) || !field(s, "\nCapInh:", 16, &inheritable) ||
		!field(s, "\nCapPrm:", 16, &permitted) ||
		!field(s, "\nNoNewPrivs:", 10, &privileges) || !field(s, "\nSeccomp:", 10, &mode))
		return -ENODATA;
	*ret = (struct sandbox_seen){.capabilities = permitted | inheritable,
		.uid = (uid_t)uid,
		.no_new_privileges = privileges == 1,
		.filtered = mode == 2};
	return 0;
}
