/* SPDX-License-Identifier: Apache-2.0 */
/* The /proc reader's answer to "open what the runtime wrote of the code that it made".
 *
 * A jitdump is found by its mapping: the runtime maps its first page executable, so that whoever profiles it
 * sees it. A perf map lies in the process's own /tmp, named by the number that the process itself knows as
 * its own: the path is walked below its root, through no link of /proc, and its last part is no link at all.
 * Whoever wrote it, it is believed only of a process of the file's owner: one link, a regular file of a file
 * system that answers by itself, not too long. So nobody has us read what is not theirs, and nothing waits.
 *
 * Source: openat2(2), proc(5); perf's documentation, tools/perf/Documentation/{jit-interface,
 * jitdump-specification}.txt. Runs in the role `proc`. */

#include "agentd/process/reader.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define JIT_SIZE_MAX (4ULL << 30)

static int open_below(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static int open_perf_map(int dir, const struct procfs_status *status, char *path, size_t size)
{
	_cleanup_close_ int root = openat(dir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (root < 0)
		return -errno;
	snprintf(path, size, "/tmp/perf-%u.map", status->ns_pid);
	return open_below(root, path + 1);
}

static int check(int fd, uint32_t uid, bool mapped, struct stat *st)
{
	if (reader_refused_filesystem(fd))
		return -EREMOTE;
	if (fstat(fd, st) < 0)
		return -errno;
	if (!S_ISREG(st->st_mode))
		return -ENOEXEC;
	/* One that is mapped may have no name any more. */
	if (st->st_nlink > 1 || (!st->st_nlink && !mapped))
		return -EMLINK;
	if (st->st_uid != uid)
		return -EPERM;
	return st->st_size > (off_t)JIT_SIZE_MAX ? -EFBIG : 0;
}

int reader_do_jit(struct reader *r, const struct reader_request *q, const char *dump, int *ret)
{
	_cleanup_close_ int dir = reader_open_pid(r, q->pid), fd = -1;
	bool mapped = q->end != 0;
	struct procfs_status status;
	struct reader_file file = {};
	char path[64] = "", link[32];
	struct stat st;
	int e;

	if (dir < 0)
		return dir;
	e = reader_check_start(r, dir, q->start_ticks, NULL);
	if (e == 0)
		e = reader_text(r, dir, "status", 16384);
	if (e == 0)
		e = procfs_status((const char *)r->text.data, &status);
	if (e < 0)
		return e == -ENOENT ? -ESRCH : e;
	fd = mapped ? reader_open_mapped(r, q, dump)
		    : open_perf_map(dir, &status, path, sizeof(path));
	if (fd < 0)
		return fd;
	e = check(fd, status.uid, mapped, &st);
	if (e < 0)
		return e;
	/* Whether it was still that process; its folder below another's root would be another's file. */
	e = reader_check_start(r, dir, q->start_ticks, NULL);
	if (e < 0)
		return e;
	file = (struct reader_file){.device = st.st_dev,
		.inode = st.st_ino,
		.size = (uint64_t)st.st_size,
		.owner = st.st_uid,
		.mode = st.st_mode};
	buf_add(&r->body, &file, sizeof(file));
	buf_add(&r->body, path, strlen(path));
	snprintf(link, sizeof(link), "self/fd/%d", fd);
	*ret = reader_open_in(r->proc, link);
	return *ret < 0 ? *ret : 0;
}
