/* SPDX-License-Identifier: Apache-2.0 */
/* The /proc reader: a child that agentd can afford to lose.
 *
 * Reading a process's maps, cmdline or environ takes the target's own lock, and opening a file that
 * it mapped asks the file system that it chose: either may wait for as long as the target likes. So
 * agentd does neither. This child does, one request at a time, with agentd's capabilities (they are what
 * /proc asks for) and nothing else: no network, no writing, a short list of system calls. When it
 * hangs, agentd kills it and starts another.
 *
 * A process is named by pid and start time, looked at before and after reading, so that an answer is
 * never about another process of the same number. That it still runs the same program is agentd's to
 * say, which sees exec events. Where the first thread has ended, a living thread's folder is read instead.
 *
 * Files are opened through map_files: what is mapped, whatever became of its path. First O_PATH, which
 * runs none of the file's own code; then only a regular file of a file system that answers by itself
 * is opened for reading.
 *
 * Sources: proc(5), openat2(2); kernel fs/proc/base.c, fs/proc/task_mmu.c. Runs as `--role proc`. */

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/base/text.h"
#include "agentd/process/process.h"
#include "agentd/process/procfs.h"
#include "agentd/process/protocol.h"

#define FILE_SIZE_MAX (16ULL << 30)
#define ENVIRON_MAX   (2u << 20) /* of it is looked at */
#define MAPS_MAX      (64u << 20)
#define MAGIC_CEPH    0x00c36400
#define MAGIC_CIFS    0xff534d42
#define MAGIC_SMB2    0xfe534d42
#define MAGIC_AFS     0x6b414653

struct reader {
	int sock, proc; /* proc: descriptor of /proc */
	struct buf body, text;
	char chunk[65536];
	struct environ_scan scan;
};

static int open_in(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static int open_pid(struct reader *r, uint32_t pid)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%u", pid);
	fd = openat(r->proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? (errno == ENOENT ? -ESRCH : -errno) : fd;
}

/* At most max bytes of a file, what is beyond is left; NUL-terminated in r->text. */
static int read_some(struct reader *r, int dir, const char *name, size_t max)
{
	_cleanup_close_ int fd = open_in(dir, name);

	buf_reset(&r->text);
	if (fd < 0)
		return fd;
	while (r->text.len < max) {
		ssize_t n = read(fd, r->chunk, MIN(sizeof(r->chunk), max - r->text.len));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		buf_add(&r->text, r->chunk, (size_t)n);
	}
	buf_add(&r->text, "", 1);
	return buf_error(&r->text);
}

static int read_stat(struct reader *r, int dir, struct procfs_stat *ret)
{
	int e = read_some(r, dir, "stat", 4096);

	return e < 0 ? e : procfs_stat((const char *)r->text.data, ret);
}

/* Whether the process is still the one that was meant. */
static int check_start(struct reader *r, int dir, uint64_t ticks, struct procfs_stat *ret)
{
	struct procfs_stat stat;
	int e = read_stat(r, dir, ret ? ret : &stat);

	if (e < 0)
		return e == -ENOENT ? -ESRCH : e;
	return ticks && (ret ? ret : &stat)->start != ticks ? -ESRCH : 0;
}

/* ---- answers ------------------------------------------------------------------------------------------- */

static int answer_part(
	struct reader *r, const struct reader_answer *head, const void *data, size_t len, int fd)
{
	char message[sizeof(*head) + READER_PART_MAX];

	memcpy(message, head, sizeof(*head));
	if (len)
		memcpy(message + sizeof(*head), data, len);
	return fdpass_send(r->sock, message, sizeof(*head) + len, fd >= 0 ? &fd : NULL, fd >= 0);
}

/* fd is borrowed. */
static int answer(struct reader *r, const struct reader_request *q, int status, uint64_t t0, int fd)
{
	struct reader_answer head = {.id = q->id, .op = q->op, .status = status, .t0 = t0};
	size_t at = 0, len = status < 0 ? 0 : r->body.len;

	if (status >= 0 && buf_error(&r->body)) {
		head.status = buf_error(&r->body);
		len = 0;
	}
	head.t1 = clock_monotonic_ns();
	while (len - at > READER_PART_MAX) {
		int e = answer_part(r, &head, r->body.data + at, READER_PART_MAX, -1);

		if (e < 0)
			return e;
		at += READER_PART_MAX;
	}
	head.flags = READER_LAST;
	return answer_part(
		r, &head, len ? r->body.data + at : NULL, len - at, head.status < 0 ? -1 : fd);
}

/* ---- READ ---------------------------------------------------------------------------------------------- */

static void add_text(
	struct reader *r, struct reader_facts *facts, int which, const void *data, size_t len)
{
	facts->len[which] = (uint32_t)len;
	buf_add(&r->body, data, len);
}

static void add_exe(struct reader *r, struct reader_facts *facts, int dir)
{
	char path[READER_PATH_MAX];
	ssize_t n = readlinkat(dir, "exe", path, sizeof(path) - 1);

	add_text(r, facts, TEXT_EXE, path, n > 0 ? (size_t)n : 0);
}

static void add_cgroup(struct reader *r, struct reader_facts *facts, int dir)
{
	char path[READER_PATH_MAX] = "";

	if (read_some(r, dir, "cgroup", 32768) == 0)
		cgroup_best((const char *)r->text.data, path, sizeof(path));
	add_text(r, facts, TEXT_CGROUP, path, strlen(path));
}

static void add_cmdline(struct reader *r, struct reader_facts *facts, int dir)
{
	if (read_some(r, dir, "cmdline", READER_CMDLINE_MAX) < 0)
		return;
	add_text(r, facts, TEXT_CMDLINE, r->text.data, r->text.len - 1);
}

/* Two variables; the rest is never kept, and what held it is wiped. */
static void add_environ(struct reader *r, struct reader_facts *facts, int dir)
{
	_cleanup_close_ int fd = open_in(dir, "environ");
	size_t total = 0;

	if (fd < 0)
		return;
	environ_scan_init(&r->scan);
	while (total < ENVIRON_MAX) {
		ssize_t n = read(fd, r->chunk, sizeof(r->chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		total += (size_t)n;
		environ_scan_feed(&r->scan, r->chunk, (size_t)n);
	}
	environ_scan_end(&r->scan);
	explicit_bzero(r->chunk, sizeof(r->chunk));
	if (r->scan.have_service_name)
		facts->flags |= FACT_HAS_SERVICE_NAME;
	if (r->scan.too_long)
		facts->flags |= FACT_OTEL_TOO_LONG;
	add_text(r, facts, TEXT_SERVICE, r->scan.service_name, strlen(r->scan.service_name));
	add_text(r, facts, TEXT_ATTRIBUTES, r->scan.attributes, strlen(r->scan.attributes));
	explicit_bzero(&r->scan, sizeof(r->scan));
}

struct maps_walk {
	struct reader *r;
	size_t n, max;
	/* For OPEN: the mapping that holds this address. */
	uint64_t address;
	struct procfs_map found;
};

static void add_map(struct maps_walk *w, const struct procfs_map *map)
{
	size_t len = strnlen(map->path, READER_PATH_MAX);
	struct reader_map row = {.start = map->start,
		.end = map->end,
		.pgoff = map->pgoff,
		.inode = map->inode,
		.major = map->major,
		.minor = map->minor,
		.path_len = (uint32_t)len};

	if (!map->exec || w->n == w->max)
		return;
	buf_add(&w->r->body, &row, sizeof(row));
	buf_add(&w->r->body, map->path, len);
	w->n++;
}

static void find_map(struct maps_walk *w, const struct procfs_map *map)
{
	if (map->exec && w->address >= map->start && w->address < map->end) {
		w->found = *map;
		w->found.path = NULL;
	}
}

/* Line by line: the whole of it may be many megabytes, of lines that are not executable. */
static int walk_maps(struct maps_walk *w, int dir,
	void (*visit)(struct maps_walk *w, const struct procfs_map *map))
{
	_cleanup_close_ int fd = open_in(dir, "maps");
	struct reader *r = w->r;
	size_t held = 0, total = 0;

	if (fd < 0)
		return fd;
	for (;;) {
		ssize_t n = read(fd, r->chunk + held, sizeof(r->chunk) - 1 - held);
		char *line = r->chunk, *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		total += (size_t)n;
		if (n == 0 || total > MAPS_MAX)
			return 0;
		held += (size_t)n;
		r->chunk[held] = 0;
		while ((end = memchr(line, '\n', held - (size_t)(line - r->chunk)))) {
			struct procfs_map map;

			*end = 0;
			if (procfs_map(line, &map) == 0)
				visit(w, &map);
			line = end + 1;
		}
		held -= (size_t)(line - r->chunk);
		memmove(r->chunk, line, held);
		if (held == sizeof(r->chunk) - 1)
			return -EBADMSG;
	}
}

/* The folder whose files tell of the address space: the process's own, or of the thread that is asked
 * about where the leader has ended. Takes and returns a descriptor. */
static int living_folder(struct reader *r, int dir, const struct reader_request *q, char state)
{
	int other;

	if ((state != 'Z' && state != 'X') || !q->tid || q->tid == q->pid)
		return dir;
	/* /proc/TID is there for every thread, though readdir does not show it. */
	other = open_pid(r, q->tid);
	if (other < 0)
		return dir;
	close(dir);
	return other;
}

static uint64_t start_of(struct reader *r, uint32_t pid)
{
	_cleanup_close_ int dir = pid ? open_pid(r, pid) : -1;
	struct procfs_stat stat;

	return dir >= 0 && read_stat(r, dir, &stat) == 0 ? stat.start : 0;
}

static int do_read(struct reader *r, const struct reader_request *q)
{
	_cleanup_close_ int dir = open_pid(r, q->pid), living = -1;
	struct reader_facts facts = {.uid = UINT32_MAX};
	struct maps_walk w = {.r = r, .max = q->max_mappings};
	struct procfs_stat stat;
	int e;

	if (dir < 0)
		return dir;
	e = check_start(r, dir, q->start_ticks, &stat);
	if (e < 0)
		return e;
	living = living_folder(r, dup(dir), q, stat.state);
	if (living < 0)
		return -EMFILE;
	facts.ppid = (uint32_t)stat.ppid;
	facts.start_ticks = stat.start;
	facts.flags = stat.flags & PROCFS_KTHREAD ? FACT_KERNEL_THREAD : 0;
	if (q->flags & READER_FACTS)
		facts.parent_start_ticks = start_of(r, facts.ppid);
	buf_add(&r->body, &facts, sizeof(facts));
	add_text(r, &facts, TEXT_COMM, stat.comm, strlen(stat.comm));
	if (!(facts.flags & FACT_KERNEL_THREAD) && q->flags & READER_FACTS) {
		add_exe(r, &facts, living);
		add_cgroup(r, &facts, living);
		add_cmdline(r, &facts, living);
		add_environ(r, &facts, living);
		if (read_some(r, living, "status", 8192) == 0)
			(void)procfs_status_uid((const char *)r->text.data, &facts.uid);
		if (!facts.len[TEXT_EXE])
			facts.flags |= FACT_NO_MEMORY;
	}
	if (!(facts.flags & FACT_KERNEL_THREAD) && q->flags & READER_MAPS) {
		e = walk_maps(&w, living, add_map);
		if (e < 0)
			return e == -ENOENT ? -ESRCH : e;
		if (!w.n)
			facts.flags |= FACT_NO_MEMORY;
	}
	facts.n_maps = (uint32_t)w.n;
	if (r->body.data && !buf_error(&r->body))
		memcpy(r->body.data, &facts, sizeof(facts));
	/* A zombie's number cannot be another's before it is reaped: it is the start time that counts. */
	return check_start(r, dir, stat.start, NULL);
}

/* ---- OPEN ---------------------------------------------------------------------------------------------- */

static bool refused_filesystem(int fd)
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

/* What is mapped: an O_PATH descriptor. The kernel's range may have been split or joined since the
 * event that told of it, so that maps is asked for the range that holds its first address. */
static int open_mapped(struct reader *r, const struct reader_request *q, const char *path)
{
	_cleanup_close_ int dir = open_pid(r, q->pid), living = -1, fd = -1;
	struct procfs_stat stat;
	int e;

	if (dir < 0)
		return dir;
	e = check_start(r, dir, q->start_ticks, &stat);
	if (e < 0)
		return e;
	living = living_folder(r, dup(dir), q, stat.state);
	if (living < 0)
		return -EMFILE;
	fd = map_link(q->start, q->end, living);
	if (fd == -ENOENT) {
		struct maps_walk w = {.r = r, .address = q->start};

		e = walk_maps(&w, living, find_map);
		if (e < 0)
			return e == -ENOENT ? -ESRCH : e;
		if (!w.found.end || w.found.inode != q->inode)
			return -ENOENT;
		fd = map_link(w.found.start, w.found.end, living);
	}
	if (fd < 0)
		return fd;
	if (is_other_file(r, q, path, fd))
		return -ESTALE;
	e = check_start(r, dir, stat.start, NULL);
	return e < 0 ? e : TAKE_FD(fd);
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

static int do_open(struct reader *r, const struct reader_request *q, const char *path, int *ret)
{
	_cleanup_close_ int fd =
		q->flags & READER_BY_PATH ? open_path(q, path) : open_mapped(r, q, path);
	struct reader_file file;
	struct stat st;
	char link[32];

	if (fd < 0)
		return fd;
	if (refused_filesystem(fd))
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
		.mode = st.st_mode};
	buf_add(&r->body, &file, sizeof(file));
	if (q->flags & READER_FD) {
		snprintf(link, sizeof(link), "self/fd/%d", fd);
		*ret = open_in(r->proc, link);
		if (*ret < 0)
			return *ret;
	}
	return 0;
}

/* ---- SURVEY -------------------------------------------------------------------------------------------- */

static void survey_one(struct reader *r, uint32_t pid)
{
	_cleanup_close_ int dir = open_pid(r, pid);
	struct reader_process row = {.pid = pid};
	struct procfs_stat stat;

	if (dir < 0 || read_stat(r, dir, &stat) < 0 || stat.state == 'Z')
		return;
	row.ppid = (uint32_t)stat.ppid;
	row.flags = stat.flags & PROCFS_KTHREAD ? FACT_KERNEL_THREAD : 0;
	row.start_ticks = stat.start;
	row.cpu_ticks = stat.utime + stat.stime;
	memcpy(row.comm, stat.comm, strnlen(stat.comm, sizeof(row.comm) - 1));
	buf_add(&r->body, &row, sizeof(row));
}

static int do_survey(struct reader *r)
{
	_cleanup_close_ int fd = openat(r->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return -errno;
	(void)TAKE_FD(fd);
	while ((entry = readdir(dir))) {
		uint64_t pid;

		if (text_u64(entry->d_name, 1, INT32_MAX, &pid) == 0)
			survey_one(r, (uint32_t)pid);
	}
	closedir(dir);
	return 0;
}

static int do_root(struct reader *r, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(r->proc);
	r->proc = fd;
	return 0;
}

/* ---- the role ------------------------------------------------------------------------------------------ */

static int serve(struct reader *r, const struct reader_request *q, const char *path)
{
	_cleanup_close_ int fd = -1;
	uint64_t t0 = clock_monotonic_ns();
	int e;

	buf_reset(&r->body);
	switch (q->op) {
	case READER_READ:
		e = do_read(r, q);
		break;
	case READER_OPEN:
		e = do_open(r, q, path, &fd);
		break;
	case READER_SURVEY:
		e = do_survey(r);
		break;
	case READER_ROOT:
		e = do_root(r, path);
		break;
	default:
		e = -EOPNOTSUPP;
	}
	return answer(r, q, e, t0, fd);
}

static const int syscalls[] = {SYS_openat, SYS_read, SYS_pread64, SYS_close, SYS_fstat,
	SYS_newfstatat, SYS_fstatfs, SYS_readlinkat, SYS_getdents64, SYS_lseek, SYS_dup, SYS_fcntl,
	SYS_sendmsg, SYS_recvmsg, SYS_ppoll, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect,
	SYS_madvise, SYS_brk, SYS_futex, SYS_getrandom, SYS_write, SYS_writev, SYS_rt_sigaction,
	SYS_tgkill, SYS_clock_nanosleep,
#ifdef SYS_open
	SYS_open, SYS_readlink, SYS_poll, SYS_stat,
#endif
	-1};

static int enter(struct err_text *err)
{
	const struct sandbox_policy policy = {.name = "odi-proc",
		.syscalls = syscalls,
		.keep_caps = true,
		.deny_network = true,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.nofile = 64,
		.nproc = RLIM_INFINITY,
		.fsize = 0,
		.data = 256u << 20,
		.as = RLIM_INFINITY,
		.cpu_s = RLIM_INFINITY};

	return sandbox_enter(&policy, err);
}

static int run(struct reader *r)
{
	char message[sizeof(struct reader_request) + READER_PATH_MAX];

	for (;;) {
		struct reader_request q;
		char path[READER_PATH_MAX + 1];
		size_t n_fds = 0;
		ssize_t n = fdpass_recv(r->sock, message, sizeof(message), NULL, &n_fds);
		int e;

		if (n == 0 || n == -EPIPE || n == -ECONNRESET)
			return 0;
		if (n < 0)
			return (int)n;
		if ((size_t)n < sizeof(q))
			return -EBADMSG;
		memcpy(&q, message, sizeof(q));
		if (q.path_len != (size_t)n - sizeof(q))
			return -EBADMSG;
		memcpy(path, message + sizeof(q), q.path_len);
		path[q.path_len] = 0;
		e = serve(r, &q, path);
		if (e == -EPIPE || e == -ECONNRESET)
			return 0;
		if (e < 0)
			return e;
	}
}

int process_reader_main(void)
{
	struct reader *r = calloc(1, sizeof(*r));
	struct err_text err = {};
	int e;

	if (!r)
		return EXIT_FAILURE;
	r->sock = SANDBOX_FD;
	r->proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->proc < 0) {
		log_error("cannot open /proc: %m");
		return EXIT_FAILURE;
	}
	buf_init(&r->body, READER_BODY_MAX);
	buf_init(&r->text, 1u << 20);
	e = enter(&err);
	if (e < 0) {
		log_error("the reader of /proc cannot enter its sandbox: %s", err.text);
		return EXIT_FAILURE;
	}
	e = run(r);
	if (e < 0)
		log_error("the reader of /proc ends: %s", strerror(-e));
	return e < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
