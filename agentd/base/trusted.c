/* SPDX-License-Identifier: Apache-2.0 */

/* Whether only root can change what a name leads to.
 *
 * A daemon that reads a file again when it changes does so with root's rights, long after somebody was allowed to name
 * it. If anyone else could put another file there, or a link to one, they would read through the daemon what they may
 * not read themselves. So every folder from / on, and the file itself, has to be root's alone. Links are resolved
 * first; who may change a link is who may write its folder, and those are looked at, too. Runs in agentd, odictl. */

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "agentd/base/trusted.h"

#define MAX_LINKS 16

static int judge(const struct stat *st, const char *shown, struct err_text *err)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(err, -EPERM, "%s belongs to uid %u: chown root %s", shown,
			(unsigned)st->st_uid, shown);
	if (st->st_mode & (S_IWGRP | S_IWOTH) && !(S_ISDIR(st->st_mode) && st->st_mode & S_ISVTX))
		return err_set(err, -EPERM,
			"%s may be written by others than its owner: chmod go-w %s", shown, shown);
	return 0;
}

int trusted_fd(int fd, unsigned kind, const char *shown, struct err_text *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot read %s: %m", shown);
	if ((st.st_mode & S_IFMT) != kind)
		return err_set(err, -EINVAL, "%s is not a %s", shown,
			kind == S_IFDIR ? "folder" : "regular file");
	return judge(&st, shown, err);
}

/* Each folder above path, from the root on. */
static int judge_folders(const char *path, struct err_text *err)
{
	char part[PATH_MAX];
	struct stat st;

	for (const char *slash = path; (slash = strchr(slash, '/')); slash++) {
		size_t len = MAX((size_t)(slash - path), (size_t)1);

		if (len >= sizeof(part))
			return err_set(err, -ENAMETOOLONG, "the path is too long");
		memcpy(part, path, len);
		part[len] = 0;
		if (lstat(part, &st) < 0)
			return err_set(err, -errno, "cannot read %s: %m", part);
		if (!S_ISLNK(st.st_mode) && judge(&st, part, err) < 0)
			return -EPERM;
		if (S_ISLNK(st.st_mode) && trusted_path(part, err) < 0)
			return -EPERM;
	}
	return 0;
}

static int judge_path(const char *path, unsigned links, struct err_text *err)
{
	char target[PATH_MAX], next[2 * PATH_MAX];
	struct stat st;
	ssize_t n;
	int r;

	if (path[0] != '/' || strstr(path, "/../") || links > MAX_LINKS)
		return err_set(err, -EINVAL, "%.200s is no absolute path without ..", path);
	r = judge_folders(path, err);
	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return err_set(err, -errno, "cannot read %.300s: %m", path);
	if (!S_ISLNK(st.st_mode))
		return judge(&st, path, err);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return err_set(err, -errno, "cannot read %.300s: %m", path);
	target[n] = 0;
	if (target[0] == '/')
		snprintf(next, sizeof(next), "%s", target);
	else
		snprintf(next, sizeof(next), "%.*s/%s", (int)(strrchr(path, '/') - path), path,
			target);
	/* What a link of several steps leads to is resolved by the system; only its way is ours to judge. */
	if (strstr(next, "..")) {
		char *real = realpath(path, NULL);

		if (!real)
			return err_set(err, -errno, "cannot read %.300s: %m", path);
		r = judge_path(real, links + 1, err);
		free(real);
		return r;
	}
	return judge_path(next, links + 1, err);
}

int trusted_path(const char *path, struct err_text *err)
{
	return judge_path(path, 0, err);
}

int trusted_open(const char *path, struct err_text *err)
{
	_cleanup_close_ int fd = -1;
	int r = trusted_path(path, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_set(err, -errno, "cannot read %.300s: %m", path);
	r = trusted_fd(fd, S_IFREG, path, err);
	return r < 0 ? r : TAKE_FD(fd);
}
