/* SPDX-License-Identifier: Apache-2.0 */

/* The disk cache of fetched debug files.
 *
 * A file gets its name only when it is whole: it is written without one (O_TMPFILE; on file systems that cannot, with a name
 * that the next start removes) and then linked. So a crash leaves nothing half, and there is nothing to repair: the
 * folder itself is the index, the file's own times are the book: its modification time is when it was fetched,
 * its access time, set by us since mounts seldom do it, when it was used last. An index of it is kept in memory.
 *
 * The exporter wrote these files and might, if it were taken over, write to them still. So a file whose size is no longer what it
 * was is not used any more, and counted; a size that is right proves nothing, but nothing rests on it: what
 * is in a file is only ever parsed in the symbolizer, as a stranger's.
 *
 * Only agentd (root) may write to the folder, which is 0700; names are checked to be build ids, so none leads out of it.
 * Runs in agentd; calls here are few and short (no data is moved). */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/symbol/fetched.h"

#define MAX_BYTES_DEFAULT  (2ULL << 30)
#define MAX_FILE_DEFAULT   (1ULL << 30)
#define MAX_AGE_DEFAULT_NS (30 * 86400 * NSEC_PER_SEC)
#define MIN_FREE_DEFAULT   5
#define MIN_ROOM           (1ULL << 20) /* with less it is not worth to begin */
#define MAX_FILES          4096
#define UNFINISHED         ".unfinished"

struct entry {
	char build_id[41];
	uint64_t bytes;
	uint64_t fetched_ns, used_ns; /* unix time */
};

struct fetched {
	struct fetched_config config;
	int dir;
	struct entry *entries;
	size_t n, room;
	struct fetched_figures figures; /* but for files and bytes */
	uint64_t bytes;
};

static bool is_build_id(const char *s)
{
	size_t n = strspn(s, "0123456789abcdef");

	return !s[n] && n % 2 == 0 && n >= 16 && n <= 40;
}

static struct entry *find(const struct fetched *f, const char *build_id)
{
	for (size_t i = 0; i < f->n; i++)
		if (streq(f->entries[i].build_id, build_id))
			return &f->entries[i];
	return NULL;
}

static void drop(struct fetched *f, struct entry *e)
{
	if (unlinkat(f->dir, e->build_id, 0) < 0 && errno != ENOENT)
		log_warning("a fetched debug file cannot be removed: %s", strerrordesc_np(errno));
	f->bytes -= e->bytes;
	*e = f->entries[--f->n];
}

static struct entry *add(struct fetched *f, const char *build_id, uint64_t bytes)
{
	struct entry *e;

	if (f->n == f->room) {
		size_t room = MAX(2 * f->room, (size_t)16);
		struct entry *grown = reallocarray(f->entries, room, sizeof(*grown));

		if (!grown)
			return NULL;
		f->entries = grown;
		f->room = room;
	}
	e = &f->entries[f->n++];
	*e = (struct entry){.bytes = bytes};
	snprintf(e->build_id, sizeof(e->build_id), "%s", build_id);
	f->bytes += bytes;
	return e;
}

/* ---- room ---- */

/* Bytes that may still be written to the file system; negative: it has less free than it should. */
static int64_t disk_room(const struct fetched *f)
{
	struct statvfs s;

	if (fstatvfs(f->dir, &s) < 0)
		return 0;
	return (int64_t)(s.f_bavail * s.f_frsize) -
		(int64_t)(s.f_blocks * s.f_frsize / 100 * f->config.min_free_percent);
}

/* Those that are too old; those that were used longest ago, until `more` bytes fit. */
static void make_room(struct fetched *f, uint64_t more, uint64_t now)
{
	for (size_t i = 0; i < f->n;) {
		struct entry *e = &f->entries[i];

		/* A clock that was ahead must not keep files for ever. */
		if (e->fetched_ns <= now && now - e->fetched_ns <= f->config.max_age_ns)
			i++;
		else if (e->fetched_ns > now && e->fetched_ns - now < 86400 * NSEC_PER_SEC)
			i++;
		else {
			f->figures.expired++;
			drop(f, e);
		}
	}
	while (f->n &&
		(f->n >= MAX_FILES || f->bytes + more > f->config.max_bytes || disk_room(f) < 0)) {
		struct entry *oldest = &f->entries[0];

		for (size_t i = 1; i < f->n; i++)
			if (f->entries[i].used_ns < oldest->used_ns)
				oldest = &f->entries[i];
		f->figures.evicted++;
		drop(f, oldest);
	}
}

void fetched_trim(struct fetched *f)
{
	make_room(f, 0, clock_unix_ns());
}

bool fetched_disk_is_full(const struct fetched *f)
{
	return disk_room(f) < 0;
}

/* ---- the folder ---- */

static uint64_t ns_of(struct timespec t)
{
	return t.tv_sec < 0 ? 0 : (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* As files of ours are: regular, ours alone, with one name. */
static bool is_ours(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_uid == geteuid() && st->st_nlink == 1 &&
		!(st->st_mode & 0077) && st->st_size > 0;
}

static int take_over(struct fetched *f, const char *name)
{
	struct stat st;
	struct entry *e;

	if (fstatat(f->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!is_build_id(name) || !is_ours(&st) ||
		(uint64_t)st.st_size > f->config.max_file_bytes) {
		/* A folder stays where it is, and does no harm. */
		if (unlinkat(f->dir, name, 0) == 0 && !streq(name, UNFINISHED))
			f->figures.foreign++;
		return 0;
	}
	e = add(f, name, (uint64_t)st.st_size);
	if (!e)
		return -ENOMEM;
	e->fetched_ns = ns_of(st.st_mtim);
	e->used_ns = MAX(ns_of(st.st_atim), e->fetched_ns);
	return 0;
}

static int scan(struct fetched *f)
{
	int copy = openat(f->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	int r = 0;

	if (!d) {
		r = -errno;
		closep(&copy);
		return r;
	}
	while (r == 0) {
		const struct dirent *e = readdir(d);

		if (!e)
			break;
		if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
			r = take_over(f, e->d_name);
	}
	closedir(d);
	return r;
}

int fetched_new(struct fetched **ret, const char *folder, const struct fetched_config *config,
	struct err_text *err)
{
	CLEANUP(fetched_freep) struct fetched *f = calloc(1, sizeof(*f));
	struct stat st;
	int r = io_mkdir_p(folder, 0700, err);

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->dir = -1;
	if (r < 0)
		return r;
	f->config = *config;
	if (!f->config.max_bytes)
		f->config.max_bytes = MAX_BYTES_DEFAULT;
	if (!f->config.max_file_bytes)
		f->config.max_file_bytes = MAX_FILE_DEFAULT;
	if (!f->config.max_age_ns)
		f->config.max_age_ns = MAX_AGE_DEFAULT_NS;
	if (!f->config.min_free_percent)
		f->config.min_free_percent = MIN_FREE_DEFAULT;
	f->dir = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (f->dir < 0 || fstat(f->dir, &st) < 0)
		return err_set(err, -errno, "cannot open %s: %s", folder, strerrordesc_np(errno));
	if (st.st_uid != geteuid() || st.st_mode & 0022)
		return err_set(err, -EPERM,
			"%s is not used: others may write to it; remove it, it is made again",
			folder);
	r = scan(f);
	if (r < 0)
		return err_set(err, r, "cannot read %s: %s", folder, strerrordesc_np(-r));
	fetched_trim(f);
	*ret = TAKE_PTR(f);
	return 0;
}

struct fetched *fetched_free(struct fetched *f)
{
	if (!f)
		return NULL;
	closep(&f->dir);
	free(f->entries);
	free(f);
	return NULL;
}

/* ---- files ---- */

int fetched_begin(struct fetched *f, uint64_t *max_bytes)
{
	int64_t room;
	int fd;

	fetched_trim(f);
	room = disk_room(f);
	if (room < (int64_t)MIN_ROOM)
		return -ENOSPC;
	*max_bytes = MIN(MIN((uint64_t)room, f->config.max_file_bytes), f->config.max_bytes);
	fd = openat(f->dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		(void)unlinkat(f->dir, UNFINISHED, 0);
		fd = openat(f->dir, UNFINISHED, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	}
	return fd < 0 ? -errno : fd;
}

/* Under its name: by a link, or, where it has a name already, by another. */
static int give_name(struct fetched *f, int fd, bool has_name, const char *build_id)
{
	char path[40];

	if (has_name)
		return renameat(f->dir, UNFINISHED, f->dir, build_id) < 0 ? -errno : 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, f->dir, build_id, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

int fetched_commit(struct fetched *f, int fd, const char *build_id, uint64_t bytes)
{
	uint64_t now = clock_unix_ns();
	struct stat st;
	struct entry *e;
	int r;

	if (!is_build_id(build_id))
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !bytes || (uint64_t)st.st_size != bytes)
		return -EBADMSG;
	if (bytes > f->config.max_file_bytes || bytes > f->config.max_bytes)
		return -ENOSPC;
	fetched_remove(f, build_id);
	make_room(f, bytes, now);
	/* It takes its place on the disk already. */
	if (disk_room(f) < 0)
		return -ENOSPC;
	r = futimens(fd, (struct timespec[]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}});
	if (r < 0)
		return -errno;
	e = add(f, build_id, bytes);
	if (!e)
		return -ENOMEM;
	e->fetched_ns = e->used_ns = now;
	r = give_name(f, fd, st.st_nlink > 0, build_id);
	if (r < 0)
		drop(f, e);
	return r;
}

bool fetched_has(const struct fetched *f, const char *build_id)
{
	return find(f, build_id) != NULL;
}

int fetched_open(struct fetched *f, const char *build_id)
{
	struct entry *e = find(f, build_id);
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (!e)
		return -ENOENT;
	fd = openat(f->dir, build_id, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !is_ours(&st) || (uint64_t)st.st_size != e->bytes) {
		f->figures.foreign++;
		drop(f, e);
		return -ENOENT;
	}
	e->used_ns = clock_unix_ns();
	(void)futimens(fd, (struct timespec[]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}});
	return TAKE_FD(fd);
}

void fetched_remove(struct fetched *f, const char *build_id)
{
	struct entry *e = find(f, build_id);

	if (e)
		drop(f, e);
}

void fetched_figures(const struct fetched *f, struct fetched_figures *ret)
{
	*ret = f->figures;
	ret->files = f->n;
	ret->bytes = f->bytes;
}
