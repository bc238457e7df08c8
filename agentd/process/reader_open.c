/* SPDX-License-Identifier: Apache-2.0 */
/* The /proc reader's answer to "open the file that is mapped there".
 *
 * Through map_files: what is mapped, whatever became of its path. First O_PATH, which runs none of the file's
 * own code; then only a regular file of a file system that answers by itself is opened for reading.
 *
 * Source: kernel fs/proc/base.c (map_files), open(2). Runs in the role `proc`. */

#include "agentd/process/reader.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "agentd/base/text.h"

#define FILE_SIZE_MAX (16ULL << 30)
#define MAGIC_CEPH    0x00c36400
#define MAGIC_CIFS    0xff534d42
#define MAGIC_SMB2    0xfe534d42
#define MAGIC_AFS     0x6b414653

bool reader_refused_filesystem(int fd)
{
	static const unsigned long refused[] = {FUSE_SUPER_MAGIC, NFS_SUPER_MAGIC, CODA_SUPER_MAGIC,
		AFS_SUPER_MAGIC, SMB_SUPER_MAGIC, MAGIC_CEPH, MAGIC_CIFS, MAGIC_SMB2, MAGIC_AFS};
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if ((uint32_t)fs.f_type == (uint32_t)refused[i])
			return true;
	return false;
}

/* Not btrfs, bcachefs (an inode's number is its subvolume's) nor those that lie upon others. */
static bool plain_numbers(int fd)
{
	static const unsigned long plain[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
		TMPFS_MAGIC, SQUASHFS_MAGIC, EROFS_SUPER_MAGIC_V1};
	struct statfs fs;

	for (size_t i = 0; fstatfs(fd, &fs) == 0 && i < ARRAY_SIZE(plain); i++)
		if ((uint32_t)fs.f_type == (uint32_t)plain[i])
			return true;
	return false;
}

static int map_link(uint64_t start, uint64_t end, int dir)
{
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "map_files/%lx-%lx", (unsigned long)start, (unsigned long)end);
	fd = openat(dir, name, O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && streq(s + n - m, end);
}

/* Another program's file at the same address, since the process execed? The path tells (as far as both go: a
 * process in a chroot sees less of it than we do), or else the inode's number. */
static bool is_other_file(
	struct reader *r, const struct reader_request *q, const char *path, int fd)
{
	char link[32], now[READER_PATH_MAX];
	struct stat st;
	ssize_t n;

	snprintf(link, sizeof(link), "self/fd/%d", fd);
	n = readlinkat(r->proc, link, now, sizeof(now) - 1);
	if (n <= 0 || !q->path_len)
		return false;
	now[n] = 0;
	procfs_strip_deleted(now);
	text_clean(now);
	return !ends_with(now, path) && !ends_with(path, now) && fstat(fd, &st) == 0 &&
		st.st_ino != q->inode;
}

static void find_map(struct reader_walk *w, const struct procfs_map *map)
{
	if (map->exec && w->address >= map->start && w->address < map->end) {
		w->found = *map;
		w->found.path = NULL;
	}
}

/* What is mapped: an O_PATH descriptor. The kernel's range may have been split or joined since the
 * event that told of it, so that maps is asked for the range that holds its first address. */
int reader_open_mapped(struct reader *r, const struct reader_request *q, const char *path)
{
	_cleanup_close_ int dir = reader_open_pid(r, q->pid), living = -1, fd = -1;
	struct procfs_stat stat;
	int e;

	if (dir < 0)
		return dir;
	e = reader_check_start(r, dir, q->start_ticks, &stat);
	if (e < 0)
		return e;
	living = reader_living_folder(r, dup(dir), q, stat.state);
	if (living < 0)
		return -EMFILE;
	fd = map_link(q->start, q->end, living);
	if (fd == -ENOENT) {
		struct reader_walk w = {.r = r, .address = q->start};

		e = reader_walk_maps(&w, living, find_map);
		if (e < 0)
			return e == -ENOENT ? -ESRCH : e;
		if (!w.found.end || w.found.inode != q->inode)
			return -ENOENT;
		fd = map_link(w.found.start, w.found.end, living);
	}
	if (fd < 0)
		return fd;
	return is_other_file(r, q, path, fd) ? -ESTALE : TAKE_FD(fd);
}

/* The file that a process mapped which is gone. Only the host's own view can be asked, so device and inode
 * must be what the kernel said of the mapping; where a file system shows others in fstat than in
 * maps (overlayfs, btrfs), it is not opened: a file too few, never a wrong one. */
static int open_path(const struct reader_request *q, const char *path)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_ino != q->inode || major(st.st_dev) != q->major || minor(st.st_dev) != q->minor)
		return -ESTALE;
	return TAKE_FD(fd);
}

int reader_do_open(struct reader *r, const struct reader_request *q, const char *path, int *ret)
{
	_cleanup_close_ int fd =
		q->flags & READER_BY_PATH ? open_path(q, path) : reader_open_mapped(r, q, path);
	struct reader_file file;
	struct stat st;
	char link[32];

	if (fd < 0)
		return fd;
	if (reader_refused_filesystem(fd))
		return -EREMOTE;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOEXEC;
	if (st.st_size < 0 || (uint64_t)st.st_size > FILE_SIZE_MAX)
		return -EFBIG;
	file = (struct reader_file){.device = st.st_dev,
		.inode = st.st_ino,
		.size = (uint64_t)st.st_size,
		.mtime_ns = st.st_mtim.tv_sec * (int64_t)NSEC_PER_SEC + st.st_mtim.tv_nsec,
		.ctime_ns = st.st_ctim.tv_sec * (int64_t)NSEC_PER_SEC + st.st_ctim.tv_nsec,
		.owner = st.st_uid,
		.mode = st.st_mode,
		.flags = plain_numbers(fd) ? READER_PLAIN_NUMBERS : 0};
	buf_add(&r->body, &file, sizeof(file));
	if (q->flags & READER_FD) {
		snprintf(link, sizeof(link), "self/fd/%d", fd);
		*ret = reader_open_in(r->proc, link);
		if (*ret < 0)
			return *ret;
	}
	return 0;
}
