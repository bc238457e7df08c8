/* SPDX-License-Identifier: Apache-2.0 */

/* Where debug files may be, in this order: the folders of the container that a file is in, those of the host, files and
 * folders that the administrator named (symbols/paths), and what was fetched.
 *
 * A file is in a container when every living process that maps it is in one and the same mount namespace, which is
 * not ours. Then its owner could as well have put the names into the file itself, and choosing its debug file gives him no
 * more. A file that anybody else maps, too (one of the host, bound into a container), is named by what the host has
 * alone. Of the host's folders only those by build id are looked into for a container's file: its path means
 * nothing there.
 *
 * The number of a place says which it is, whether there is something there or not: a container that is gone
 * leaves the others' as they are. What an administrator's file has for a build id, the symbolizer tells when it was
 * handed to it: from then on it is handed out for that build id only, until it is another file.
 *
 * Runs in agentd. Nothing here is read but stat and mountinfo of a process. */

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/daemon_debugfiles.h"
#include "agentd/daemon_fetch.h"
#include "agentd/process/procfs.h"
#include "agentd/symbol/debugfile.h"

#define PLACE_HOST  8
#define PLACE_NAMED 16
#define USERS_MAX   16 /* processes that are looked at */
#define STAT_MAX    4096
#define TICK_NS     (10 * NSEC_PER_MSEC) /* USER_HZ is 100 everywhere */

_Static_assert(DEBUGFILE_PLACES <= PLACE_HOST, "the container's");
_Static_assert(DEBUGFILE_PLACES <= PLACE_NAMED - PLACE_HOST, "the host's");
_Static_assert(PLACE_NAMED + CONFIG_MAX_PATHS * DEBUGFILE_NAMED_PLACES < FETCH_PLACE, "named ones");

struct named {
	char *path;
	/* What was opened there last, and its build id; "" not known. */
	struct {
		dev_t device;
		ino_t inode;
		off_t size;
		struct timespec mtime, ctime;
	} identity;
	char build_id[41];
};

struct debugfiles {
	size_t n;
	struct named v[CONFIG_MAX_PATHS];
};

/* ---- containers ---- */

struct container {
	int root, proc; /* -1 none */
	bool is;        /* the file is a container's */
};

static void container_deinit(struct container *c)
{
	closep(&c->root);
	closep(&c->proc);
}

/* /proc/PID of that very process. */
static int open_process(const struct image *image)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	_cleanup_close_ int fd = -1;
	struct procfs_stat stat;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", image->key.tgid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (io_read_file(fd, "stat", &text, STAT_MAX) < 0)
		return -ESRCH;
	buf_add(&text, "", 1);
	if (text.failed || procfs_stat((const char *)text.data, &stat) < 0 ||
		stat.start != image->key.start_boottime / TICK_NS)
		return -ESRCH;
	return TAKE_FD(fd);
}

static bool mount_namespace(int folder, const char *path, ino_t *ret)
{
	struct stat st;

	if (fstatat(folder, path, &st, 0) < 0)
		return false;
	*ret = st.st_ino;
	return true;
}

static void find_container(struct daemon *d, uint32_t file, struct container *ret)
{
	const struct image *users[USERS_MAX];
	size_t n = process_file_users(d->processes, file, users, USERS_MAX);
	ino_t own, first = 0, ns;

	if (!n || !mount_namespace(AT_FDCWD, "/proc/self/ns/mnt", &own))
		return;
	for (size_t i = 0; i < n; i++) {
		_cleanup_close_ int proc = open_process(users[i]);

		if (proc < 0 || !mount_namespace(proc, "ns/mnt", &ns))
			continue;
		if (ns == own || (first && ns != first)) {
			container_deinit(ret);
			ret->is = false;
			return;
		}
		if (first)
			continue;
		first = ns;
		ret->is = true;
		ret->root = openat(proc, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
		ret->proc = TAKE_FD(proc);
	}
}

/* ---- what an administrator named ---- */

static bool may_fit(struct named *v, int fd, const char *build_id)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	if (st.st_dev == v->identity.device && st.st_ino == v->identity.inode &&
		st.st_size == v->identity.size &&
		memcmp(&st.st_mtim, &v->identity.mtime, sizeof(st.st_mtim)) == 0 &&
		memcmp(&st.st_ctim, &v->identity.ctime, sizeof(st.st_ctim)) == 0)
		return !*v->build_id || !*build_id || streq(v->build_id, build_id);
	v->identity.device = st.st_dev;
	v->identity.inode = st.st_ino;
	v->identity.size = st.st_size;
	v->identity.mtime = st.st_mtim;
	v->identity.ctime = st.st_ctim;
	v->build_id[0] = '\0';
	return true;
}

static int open_named(struct daemon *d, const struct debugfile_query *q, unsigned *n)
{
	for (; d->debugfiles && *n < PLACE_NAMED + d->debugfiles->n * DEBUGFILE_NAMED_PLACES;) {
		unsigned at = *n - PLACE_NAMED, place = at % DEBUGFILE_NAMED_PLACES;
		struct named *v = &d->debugfiles->v[at / DEBUGFILE_NAMED_PLACES];
		_cleanup_close_ int fd = debugfile_open_named(q, v->path, &place);

		if (fd < 0)
			place = DEBUGFILE_NAMED_PLACES;
		*n = at - at % DEBUGFILE_NAMED_PLACES + place + PLACE_NAMED;
		if (fd >= 0 && (place || may_fit(v, fd, q->build_id)))
			return TAKE_FD(fd);
		*n += fd >= 0;
	}
	return -ENOENT;
}

void daemon_on_debug(void *userdata, uint32_t file, unsigned n, const char *build_id)
{
	struct daemon *d = userdata;
	unsigned at = n - PLACE_NAMED;

	if (n < PLACE_NAMED || !d->debugfiles || at >= d->debugfiles->n * DEBUGFILE_NAMED_PLACES ||
		at % DEBUGFILE_NAMED_PLACES)
		return;
	snprintf(d->debugfiles->v[at / DEBUGFILE_NAMED_PLACES].build_id,
		sizeof(d->debugfiles->v[0].build_id), "%s", build_id);
}

void daemon_debugfiles_free(struct daemon *d)
{
	for (size_t i = 0; d->debugfiles && i < d->debugfiles->n; i++)
		free(d->debugfiles->v[i].path);
	free(d->debugfiles);
	d->debugfiles = NULL;
}

static bool same_paths(const struct daemon *d, const struct config *c)
{
	size_t n = d->debugfiles ? d->debugfiles->n : 0;

	if (n != MIN(c->symbols.n_paths, (size_t)CONFIG_MAX_PATHS))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!streq(d->debugfiles->v[i].path, c->symbols.paths[i]))
			return false;
	return true;
}

void daemon_debug_paths_changed(struct daemon *d)
{
	const struct config *c = d->in_force;

	if (same_paths(d, c))
		return;
	daemon_debugfiles_free(d);
	if (c->symbols.n_paths)
		d->debugfiles = calloc(1, sizeof(*d->debugfiles));
	for (size_t i = 0; d->debugfiles && i < MIN(c->symbols.n_paths, (size_t)CONFIG_MAX_PATHS);
		i++) {
		char *path = strdup(c->symbols.paths[i]);

		if (!path)
			break;
		d->debugfiles->v[d->debugfiles->n++].path = path;
	}
	symbol_debug_places_changed(d->symbols);
}

/* ---- all places ---- */

static int open_host(
	struct daemon *d, const struct container *c, struct debugfile_query *q, unsigned *n)
{
	_cleanup_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	unsigned place = *n - PLACE_HOST;
	int fd = -ENOENT;

	if (root < 0)
		return -ENOENT;
	q->root = root;
	q->proc = -1;
	q->build_id_only = c->is;
	if (*n < PLACE_NAMED) {
		fd = debugfile_open(q, &place);
		*n = fd < 0 ? PLACE_NAMED : PLACE_HOST + place;
	}
	q->build_id_only = false; /* the administrator's word */
	return fd < 0 ? open_named(d, q, n) : fd;
}

static int open_somewhere(struct daemon *d, uint32_t file, struct debugfile_query *q, unsigned *n)
{
	CLEANUP(container_deinit) struct container c = {.root = -1, .proc = -1};
	const struct file *f = process_file(d->processes, file);
	int fd;

	if (!f)
		return -ENOENT;
	q->path = f->path ? f->path : "";
	q->owner = f->owner;
	if (*n < PLACE_NAMED)
		find_container(d, file, &c);
	if (*n < PLACE_HOST && c.root >= 0) {
		q->root = c.root;
		q->proc = c.proc;
		fd = debugfile_open(q, n);
		if (fd >= 0)
			return fd;
	}
	*n = MAX(*n, (unsigned)PLACE_HOST);
	return open_host(d, &c, q, n);
}

int daemon_open_debug(
	void *userdata, uint32_t file, const char *build_id, const char *debuglink, unsigned *n)
{
	struct debugfile_query q = {.build_id = build_id, .debuglink = debuglink};
	int fd = open_somewhere(userdata, file, &q, n);

	return fd == -ENOENT ? daemon_fetch_open(userdata, file, build_id, n) : fd;
}

int daemon_open_alternate(
	void *userdata, uint32_t file, const char *build_id, const char *path, unsigned *n)
{
	struct debugfile_query q = {.build_id = build_id, .debuglink = "", .alternate = path};

	return open_somewhere(userdata, file, &q, n);
}
