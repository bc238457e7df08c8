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
 * In a container's root, all of it is somebody else's: there no mount point is crossed at all but on the way to the program's
 * folder, and the file systems are those of that mount namespace. Folders that an administrator named are his to
 * answer for, but for one thing: what lies on a network or FUSE file system is told by its path, from mountinfo.
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

static int read_mountinfo(const struct debugfile_query *q, struct buf *text)
{
	int r = q->proc < 0 ? io_read_file(AT_FDCWD, "/proc/self/mountinfo", text, MOUNTINFO_MAX)
			    : io_read_file(q->proc, "mountinfo", text, MOUNTINFO_MAX);

	if (r < 0)
		return r;
	buf_add(text, "", 1);
	return text->failed ? -ENOMEM : 0;
}

static bool on_local_filesystem(const struct debugfile_query *q, int fd)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0 ||
		!(st.stx_mask & STATX_MNT_ID))
		return false;
	if (read_mountinfo(q, &text) < 0)
		return false;
	return is_local_mount((const char *)text.data, st.stx_mnt_id);
}

/* ---- places: each an O_PATH descriptor or -errno ---- */

static int in_tree(const struct debugfile_query *q, const char *path)
{
	return open_path(q->root, path, 0, RESOLVE_IN_ROOT | (q->proc >= 0 ? RESOLVE_NO_XDEV : 0));
}

/* PREFIX/xx/yyyy.debug. False: that is no build id. */
static bool build_id_path(
	const struct debugfile_query *q, const char *prefix, char *path, size_t size)
{
	size_t len = strlen(q->build_id);

	if (len < 4 || len > 80 || strspn(q->build_id, "0123456789abcdef") != len)
		return false;
	snprintf(path, size, "%s%.2s/%s.debug", prefix, q->build_id, q->build_id + 2);
	return true;
}

static int by_build_id(const struct debugfile_query *q)
{
	char path[160];

	return build_id_path(q, TREE "/.build-id/", path, sizeof(path)) ? in_tree(q, path)
									: -ENOENT;
}

/* Distributions keep alternate files in a folder of their own, and refer to them by paths of many kinds. */
static int in_alternates(const struct debugfile_query *q)
{
	const char *in = q->alternate ? strstr(q->alternate, "/.dwz/") : NULL;
	char path[PATH_MAX];

	if (!in || (size_t)snprintf(path, sizeof(path), TREE "%s", in) >= sizeof(path))
		return -ENOENT;
	return in_tree(q, path);
}

/* What is looked for by name: a plain one. NULL: nothing. */
static const char *plain_name(const struct debugfile_query *q)
{
	const char *name = q->debuglink, *slash;

	if (q->alternate) {
		slash = strrchr(q->alternate, '/');
		name = slash ? slash + 1 : q->alternate;
	}
	if (q->build_id_only || !*name || strlen(name) > NAME_MAX_OF_LINK || strchr(name, '/') ||
		streq(name, ".") || streq(name, ".."))
		return NULL;
	return name;
}

/* The length of the program's folder, with the slash. 0: there is no link, or no folder. */
static size_t folder_len(const struct debugfile_query *q)
{
	const char *slash = strrchr(q->path, '/');

	if (q->path[0] != '/' || !plain_name(q))
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
	if (!*subfolder && streq(q->path + len, plain_name(q)))
		return -ENOENT;
	memcpy(path, q->path, len);
	path[len] = '\0';
	folder = open_path(
		q->root, path, O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_CACHED);
	if (folder < 0)
		return folder;
	if (!on_local_filesystem(q, folder))
		return -EREMOTE;
	snprintf(name, sizeof(name), "%s%s", subfolder, plain_name(q));
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
			plain_name(q)) >= sizeof(path))
		return -ENOENT;
	return in_tree(q, path);
}

static int (*const places[DEBUGFILE_PLACES])(const struct debugfile_query *q) = {
	by_build_id, in_folder, in_subfolder, in_tree_by_link, in_alternates};

/* ---- opening ---- */

/* NULL: it may be opened. */
static const char *refusal(const struct debugfile_query *q, int fd, bool any_owner)
{
	struct stat st;

	if (!on_local_filesystem(q, fd))
		return "it is on a network or FUSE file system";
	if (fstat(fd, &st) < 0)
		return "it cannot be looked at";
	if (!S_ISREG(st.st_mode))
		return "it is not a regular file";
	if (!any_owner && st.st_uid != 0 && st.st_uid != q->owner)
		return "neither root nor the program's owner owns it";
	if (st.st_mode & S_IWOTH)
		return "everybody may write to it";
	if (st.st_size < 0 || (uint64_t)st.st_size > SIZE_MAX_OF_FILE)
		return "it is larger than may be opened";
	return NULL;
}

/* Consumes found, an O_PATH descriptor or -errno. */
static int open_found(const struct debugfile_query *q, int found, bool any_owner)
{
	_cleanup_close_ int fd = found;
	const char *why;
	char link[32];
	int ret;

	if (fd < 0)
		return fd;
	why = refusal(q, fd, any_owner);
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
		int fd = open_found(q, places[*n](q), false);

		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

/* ---- what an administrator named ---- */

/* Whether a mount point (as mountinfo has it: blanks and backslashes in octal) holds path; how long it is. */
static bool mount_holds(const char *point, const char *path, size_t *len)
{
	size_t n = 0;

	for (; *point && *point != ' '; point++, n++) {
		char c = *point;

		if (c == '\\' && point[1] && point[2] && point[3]) {
			c = (char)((point[1] - '0') << 6 | (point[2] - '0') << 3 |
				(point[3] - '0'));
			point += 3;
		}
		if (path[n] != c)
			return false;
	}
	*len = n;
	return n == 1 || path[n] == '/' || path[n] == '\0';
}

/* By its path alone: looking may wait for whoever serves the file system. */
static bool path_is_local(const struct debugfile_query *q, const char *path)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	size_t best = 0, len;
	bool local = false;

	if (read_mountinfo(q, &text) < 0)
		return false;
	for (const char *line = (const char *)text.data; *line;) {
		const char *end = strchrnul(line, '\n'), *point = line, *dash;

		for (int i = 0; i < 4 && point && point < end; i++)
			point = strchr(point, ' ') ? strchr(point, ' ') + 1 : NULL;
		dash = memmem(line, (size_t)(end - line), " - ", 3);
		/* Of those at one point the last is what is seen. */
		if (point && dash && mount_holds(point, path, &len) && len >= best) {
			best = len;
			local = is_local_type(dash + 3, strcspn(dash + 3, " \n"));
		}
		line = *end ? end + 1 : end;
	}
	return local;
}

static int named_place(const struct debugfile_query *q, int folder, unsigned n)
{
	const char *name = plain_name(q);
	char path[512];

	if (n == 1 && name)
		snprintf(path, sizeof(path), "%s", name);
	else if (n == 1 || !build_id_path(q, n ? "" : ".build-id/", path, sizeof(path)))
		return -ENOENT;
	return open_path(folder, path, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
}

int debugfile_open_named(const struct debugfile_query *q, const char *path, unsigned *n)
{
	_cleanup_close_ int at = -1;
	struct stat st;

	if (*n >= DEBUGFILE_NAMED_PLACES || !path_is_local(q, path))
		return -ENOENT;
	at = open_path(q->root, path, 0, RESOLVE_IN_ROOT);
	if (at < 0 || fstat(at, &st) < 0)
		return -ENOENT;
	if (!S_ISDIR(st.st_mode)) {
		int fd = *n == 0 ? open_found(q, TAKE_FD(at), true) : -ENOENT;

		return fd < 0 ? -ENOENT : fd;
	}
	if (!on_local_filesystem(q, at))
		return -ENOENT;
	for (; *n < DEBUGFILE_NAMED_PLACES; (*n)++) {
		int fd = open_found(q, named_place(q, at, *n), true);

		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}
