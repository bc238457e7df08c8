/* SPDX-License-Identifier: Apache-2.0 */

/* Where separate debug files are, and whether one may be opened.
 *
 * Name and build id were written by the program's author, and the program's folder may be that author's, too. So:
 * a build id is hex, a link is a plain name; in the program's folder no symbolic link is followed and no mount point
 * crossed; and whoever owns the file must be root or the program's owner, so that nobody has names read
 * from what he could not read himself. What it holds is proven in the sandbox (native.c).
 *
 * Looking up a name in a FUSE or network file system asks whoever serves it, who may never answer, and this
 * process has no time for that. The program's folder is therefore taken from the kernel's cache of names alone
 * (RESOLVE_CACHED: a program that runs keeps its folders there), the file system's type is read from mountinfo
 * (statfs would ask it), and only then is anything looked up in it. Under /usr/lib/debug, which is root's, links are
 * followed, since distributions put them there.
 *
 * Opened by O_PATH first: what is no regular file is never opened for reading. Runs in agentd. Source: GDB manual,
 * "Separate Debug Files"; openat2(2), kernels from 5.12 on (before, the program's folder is not looked into). */

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agentd/base/buf.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/symbol/debugfile.h"

#define SIZE_MAX_OF_FILE (16ULL << 30)
#define MOUNTINFO_MAX    (16 << 20)
#define NAME_MAX_OF_LINK 255
#define TREE             "usr/lib/debug"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

static int open_path(int folder, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | flags, .resolve = resolve | RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* ---- file systems ---- */

static bool is_local_type(const char *type, size_t len)
{
	static const char *const local[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs",
		"f2fs", "zfs", "jfs", "tmpfs", "ramfs", "rootfs", "overlay", "squashfs", "erofs",
		"iso9660"};

	for (size_t i = 0; i < ARRAY_SIZE(local); i++)
		if (strlen(local[i]) == len && memcmp(local[i], type, len) == 0)
			return true;
	return false;
}

/* A line: "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw". */
static bool is_local_mount(const char *mountinfo, uint64_t id)
{
	for (const char *line = mountinfo; *line;) {
		const char *end = strchrnul(line, '\n'), *dash;

		if (strtoull(line, NULL, 10) == id) {
			dash = memmem(line, (size_t)(end - line), " - ", 3);
			return dash && is_local_type(dash + 3, strcspn(dash + 3, " \n"));
		}
		line = *end ? end + 1 : end;
	}
	return false;
}

static bool on_local_filesystem(int fd)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0 ||
		!(st.stx_mask & STATX_MNT_ID))
		return false;
	if (io_read_file(AT_FDCWD, "/proc/self/mountinfo", &text, MOUNTINFO_MAX) < 0)
		return false;
	buf_add(&text, "", 1);
	if (text.failed)
		return false;
	return is_local_mount((const char *)text.data, st.stx_mnt_id);
}

/* ---- places: each an O_PATH descriptor or -errno ---- */

static int in_tree(const struct debugfile_query *q, const char *path)
{
	return open_path(q->root, path, 0, RESOLVE_IN_ROOT);
}

static int by_build_id(const struct debugfile_query *q)
{
	size_t len = strlen(q->build_id);
	char path[160];

	if (len < 4 || len > 80 || strspn(q->build_id, "0123456789abcdef") != len)
		return -ENOENT;
	snprintf(path, sizeof(path), TREE "/.build-id/%.2s/%s.debug", q->build_id, q->build_id + 2);
	return in_tree(q, path);
}

/* The length of the program's folder, with the slash. 0: there is no link, or no folder. */
static size_t folder_len(const struct debugfile_query *q)
{
	const char *slash = strrchr(q->path, '/');

	if (q->path[0] != '/' || !*q->debuglink || strlen(q->debuglink) > NAME_MAX_OF_LINK ||
		strchr(q->debuglink, '/') || streq(q->debuglink, ".") || streq(q->debuglink, ".."))
		return 0;
	return (size_t)(slash - q->path) + 1;
}

static int beside(const struct debugfile_query *q, const char *subfolder)
{
	_cleanup_close_ int folder = -1;
	char path[PATH_MAX], name[NAME_MAX_OF_LINK + 16];
	size_t len = folder_len(q);

	if (!len || len >= sizeof(path))
		return -ENOENT;
	/* It may be its own debug file's name, when that lies elsewhere. */
	if (!*subfolder && streq(q->path + len, q->debuglink))
		return -ENOENT;
	memcpy(path, q->path, len);
	path[len] = '\0';
	folder = open_path(
		q->root, path, O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_CACHED);
	if (folder < 0)
		return folder;
	if (!on_local_filesystem(folder))
		return -EREMOTE;
	snprintf(name, sizeof(name), "%s%s", subfolder, q->debuglink);
	return open_path(folder, name, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

static int in_folder(const struct debugfile_query *q)
{
	return beside(q, "");
}

static int in_subfolder(const struct debugfile_query *q)
{
	return beside(q, ".debug/");
}

static int in_tree_by_link(const struct debugfile_query *q)
{
	char path[PATH_MAX];
	size_t len = folder_len(q);

	if (!len ||
		(size_t)snprintf(path, sizeof(path), TREE "%.*s%s", (int)len, q->path,
			q->debuglink) >= sizeof(path))
		return -ENOENT;
	return in_tree(q, path);
}

static int (*const places[DEBUGFILE_PLACES])(const struct debugfile_query *q) = {
	by_build_id, in_folder, in_subfolder, in_tree_by_link};

/* ---- opening ---- */

/* NULL: it may be opened. */
static const char *refusal(const struct debugfile_query *q, int fd)
{
	struct stat st;

	if (!on_local_filesystem(fd))
		return "it is on a network or FUSE file system";
	if (fstat(fd, &st) < 0)
		return "it cannot be looked at";
	if (!S_ISREG(st.st_mode))
		return "it is not a regular file";
	if (st.st_uid != 0 && st.st_uid != q->owner)
		return "neither root nor the program's owner owns it";
	if (st.st_mode & S_IWOTH)
		return "everybody may write to it";
	if (st.st_size < 0 || (uint64_t)st.st_size > SIZE_MAX_OF_FILE)
		return "it is larger than may be opened";
	return NULL;
}

static int open_place(const struct debugfile_query *q, unsigned n)
{
	_cleanup_close_ int fd = places[n](q);
	const char *why;
	char link[32];
	int ret;

	if (fd < 0)
		return fd;
	why = refusal(q, fd);
	if (why) {
		log_debug("the debug file of %s is not read: %s", q->path, why);
		return -EPERM;
	}
	/* Non-blocking: its owner may hold a lease on it. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ret = open(link, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return ret < 0 ? -errno : ret;
}

int debugfile_open(const struct debugfile_query *q, unsigned *n)
{
	for (; *n < DEBUGFILE_PLACES; (*n)++) {
		int fd = open_place(q, *n);

		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}
