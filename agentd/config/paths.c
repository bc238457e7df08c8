/* SPDX-License-Identifier: Apache-2.0 */

/* Whose file is it? What a configuration file says is done with root's rights, so nobody but root may be able to say it:
 * neither by writing to the file, nor by putting another in its place.
 *
 * Symbolic links are followed: configuration managers place files by them (a link to a store of versions, a mounted
 * folder whose "..data" is exchanged), and whoever could make one in a folder of root's could as well have made a file.
 * What counts is where the way ends: the file that was opened is judged by its descriptor, and all folders above it by the
 * path that the kernel knows it by, so that nothing can be exchanged between the look and the use. A folder that
 * everyone may write to is only good enough where its sticky bit keeps others' hands off root's file (/tmp).
 * Source: path_resolution(7), symlink(7), proc(5); sshd's checks of authorized_keys. Runs in agentd. */

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "agentd/config/config_private.h"

#define MAX_LINKS 40 /* as the kernel's */

/* ---- whose it is ----------------------------------------------------------------------------------- */

static bool owner_ok(const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid();
}

static int check_owner(
	const char *path, const char *what, const struct stat *st, struct err_text *err)
{
	bool sticky = S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX);

	if (!owner_ok(st))
		return err_set(err, -EPERM,
			"%s%s belongs to user %u, who could change it: chown root %s", what, path,
			(unsigned)st->st_uid, path);
	if ((st->st_mode & S_IWOTH) && !sticky)
		return err_set(err, -EPERM,
			"%s%s may be written by everyone on this host: chmod go-w %s", what, path,
			path);
	if ((st->st_mode & S_IWGRP) && !sticky && st->st_gid != 0)
		return err_set(err, -EPERM, "%s%s may be written by group %u: chmod g-w %s", what,
			path, (unsigned)st->st_gid, path);
	return 0;
}

/* Every folder above a real path, up to the root. */
static int check_folders(const char *real, const char *path, struct err_text *err)
{
	char folder[PATH_MAX];
	struct stat st;
	char *slash;
	int r;

	snprintf(folder, sizeof(folder), "%s", real);
	while ((slash = strrchr(folder, '/'))) {
		slash[slash == folder] = '\0';
		if (stat(folder, &st) < 0)
			return err_set(
				err, -errno, "cannot look at %s, where %s is: %m", folder, path);
		r = check_owner(folder, "", &st, err);
		if (r < 0)
			return err_prefix(err, r, "%s is not read", path);
		if (!folder[1])
			break;
	}
	return 0;
}

int config_open_trusted(const char *path, struct err_text *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char link[64], real[PATH_MAX];
	struct stat st;
	ssize_t n;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot read %s: %m", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "cannot read %s: it is not a regular file", path);
	r = check_owner(path, "", &st, err);
	if (r < 0)
		return err_prefix(err, r, "%s is not read", path);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, real, sizeof(real) - 1);
	if (n < 0)
		return err_set(err, -errno, "cannot tell where %s is: %m", path);
	real[n] = '\0';
	/* Without a name any more there is no folder to judge; its successor is read soon. */
	r = st.st_nlink ? check_folders(real, path, err) : 0;
	return r < 0 ? r : TAKE_FD(fd);
}

/* ---- the way there --------------------------------------------------------------------------------- */

/* `done` is real up to here; what is left of the way is in `rest`, which a link's target is put before. */
struct way {
	char done[PATH_MAX], rest[PATH_MAX];
	unsigned links;
};

/* The next part of rest into name; false: there is none. */
static bool next_part(struct way *w, char name[NAME_MAX + 1])
{
	size_t skip = strspn(w->rest, "/"), len = strcspn(w->rest + skip, "/");

	if (!len || len > NAME_MAX)
		return false;
	memcpy(name, w->rest + skip, len);
	name[len] = '\0';
	memmove(w->rest, w->rest + skip + len, strlen(w->rest + skip + len) + 1);
	return true;
}

/* False: the way is too long. */
static bool follow(struct way *w, const char *link)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	if (n <= 0 || ++w->links > MAX_LINKS)
		return false;
	target[n] = '\0';
	if (snprintf(joined, sizeof(joined), "%s%s", target, w->rest) >= (int)sizeof(joined))
		return false;
	if (target[0] == '/')
		w->done[0] = '\0';
	memcpy(w->rest, joined, strlen(joined) + 1);
	return true;
}

void config_path_way(const char *path,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata)
{
	struct way *w = calloc(1, sizeof(*w));
	char name[NAME_MAX + 1], here[PATH_MAX];
	struct stat st;

	if (!w)
		return;
	snprintf(w->rest, sizeof(w->rest), "%s", path);
	while (next_part(w, name)) {
		const char *folder = w->done[0] ? w->done : "/";
		bool there;

		if (snprintf(here, sizeof(here), "%s/%s", w->done, name) >= (int)sizeof(here))
			break;
		there = lstat(here, &st) == 0;
		if (!there || S_ISLNK(st.st_mode) || !w->rest[strspn(w->rest, "/")])
			visit(userdata, folder, name);
		if (!there)
			break;
		if (!S_ISLNK(st.st_mode))
			memcpy(w->done, here, strlen(here) + 1);
		else if (!follow(w, here))
			break;
	}
	free(w);
}
