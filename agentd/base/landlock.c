/* SPDX-License-Identifier: Apache-2.0 */

/* Landlock's three calls, of which libc has none.
 *
 * All accesses that the running kernel knows are handled, so that what is not allowed is denied, and a right that a
 * newer kernel adds is asked of it only where it is known: the kernel refuses bits that it does not know. On a kernel
 * before version 2 a file cannot be renamed into another folder under any rules; ours never are.
 *
 * Source: landlock(7), include/uapi/linux/landlock.h. Runs in every role that has a sandbox. */

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agentd/base/landlock.h"

/* Newer than the headers of some distributions that this builds on. */
#define ACCESS_FS_TRUNCATE  (1ULL << 14) /* version 3 */
#define ACCESS_FS_IOCTL_DEV (1ULL << 15) /* version 5 */
#define ACCESS_NET_TCP      3ULL         /* version 4: bind, connect */
#define SCOPE_ALL           3ULL         /* version 6: abstract UNIX sockets, signals */

#define READ_FILES   ((uint64_t)LANDLOCK_ACCESS_FS_READ_FILE)
#define READ_FOLDERS (READ_FILES | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE_FOLDERS                                                                              \
	(READ_FOLDERS | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |              \
		LANDLOCK_ACCESS_FS_REMOVE_FILE)

struct ruleset_attr {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

int landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi > 0 ? (int)abi : 0;
}

int landlock_new(bool deny_tcp)
{
	struct ruleset_attr attr = {.handled_access_fs = (1ULL << 13) - 1};
	size_t size = sizeof(attr.handled_access_fs);
	int abi = landlock_abi(), fd;

	if (!abi)
		return -EOPNOTSUPP;
	if (abi >= 2)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		attr.handled_access_fs |= ACCESS_FS_TRUNCATE;
	if (abi >= 4) {
		size += sizeof(attr.handled_access_net);
		attr.handled_access_net = deny_tcp ? ACCESS_NET_TCP : 0;
	}
	if (abi >= 5)
		attr.handled_access_fs |= ACCESS_FS_IOCTL_DEV;
	if (abi >= 6) {
		size += sizeof(attr.scoped);
		attr.scoped = SCOPE_ALL;
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	return fd < 0 ? -errno : fd;
}

static int allow(int rules, int fd, uint64_t access)
{
	const struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};

	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0
		? -errno
		: 0;
}

int landlock_read(int rules, const char *path)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
	struct stat st;

	/* Whoever cannot get there now cannot later. */
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return allow(rules, fd, S_ISDIR(st.st_mode) ? READ_FOLDERS : READ_FILES);
}

int landlock_write(int rules, int folder)
{
	return allow(rules, folder, WRITE_FOLDERS | (landlock_abi() >= 3 ? ACCESS_FS_TRUNCATE : 0));
}

int landlock_enter(int rules)
{
	return syscall(SYS_landlock_restrict_self, rules, 0) < 0 ? -errno : 0;
}
