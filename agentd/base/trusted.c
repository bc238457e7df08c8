/* SPDX-License-Identifier: Apache-2.0 */

/* Whether only root can change what a name leads to.
 *
 * A daemon that reads a file again when it changes does so with root's rights, long after somebody was allowed to name
 * it. If anyone else could put another file there, or a link to one, they would read through the daemon what they may
 * not read themselves. So every folder from / on, and the file itself, has to be root's alone, and so every folder that
 * links on the way lead through. Who may change a link is who may write its folder; in one with the sticky bit, whom
 * the link belongs to. Runs in agentd, odictl. */

#include <fcntl.h>

#include "agentd/base/trusted.h"
#include "agentd/base/way.h"

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

/* A link is what the folder that holds it makes of it; where others may write there, too (sticky), its owner's. */
static int judge_link(const struct way_step *s, struct err_text *err)
{
	struct stat folder;

	if (s->st->st_uid == 0 || s->st->st_uid == geteuid())
		return 0;
	if (lstat(s->folder, &folder) < 0)
		return err_set(err, -errno, "cannot read %.300s: %m", s->folder);
	if (!(folder.st_mode & (S_IWGRP | S_IWOTH)))
		return 0;
	return err_set(err, -EPERM,
		"%.300s is a link of uid %u, who may let it lead elsewhere: rm %.300s", s->path,
		(unsigned)s->st->st_uid, s->path);
}

static int on_step(void *userdata, const struct way_step *s)
{
	struct err_text *err = userdata;

	if (!s->st)
		return err_set(err, -errno, "cannot read %.300s: %m", s->path);
	return S_ISLNK(s->st->st_mode) ? judge_link(s, err) : judge(s->st, s->path, err);
}

int trusted_path(const char *path, struct err_text *err)
{
	struct err_text own = {};
	struct stat root;
	int r;

	err = err ? err : &own;
	if (path[0] != '/' || strstr(path, "/../"))
		return err_set(err, -EINVAL, "%.200s is no absolute path without ..", path);
	if (lstat("/", &root) < 0)
		return err_set(err, -errno, "cannot read /: %m");
	r = judge(&root, "/", err);
	if (r < 0)
		return r;
	err->text[0] = '\0';
	r = way_walk(path, on_step, err);
	return r < 0 && !err->text[0]
		? err_set(err, r, "cannot read %.300s: %s", path, strerrordesc_np(-r))
		: r;
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
