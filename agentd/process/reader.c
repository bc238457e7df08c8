/* SPDX-License-Identifier: Apache-2.0 */
/* The /proc reader: a child that agentd can afford to lose.
 *
 * Reading a process's maps, cmdline or environ takes the target's own lock, and opening a file that
 * it mapped asks the file system that it chose: either may wait for as long as the target likes. So
 * agentd does neither. This child does, one request at a time, with those of agentd's capabilities that
 * /proc asks for and nothing else: no network, no writing, a short list of system calls. When it
 * hangs, agentd kills it and starts another.
 *
 * A process is named by pid and start time. Its folder, once it is open, is of that process alone, whoever
 * has the number later; that it still had its memory while it was read is looked at last. That it still
 * runs the same program is agentd's to say, which sees exec events. Where the first thread has ended, a
 * living thread's folder is read instead.
 *
 * Files are opened through map_files: what is mapped, whatever became of its path. First O_PATH, which
 * runs none of the file's own code; then only a regular file of a file system that answers by itself
 * is opened for reading.
 *
 * Sources: proc(5), openat2(2); kernel fs/proc/base.c, fs/proc/task_mmu.c. Runs as `--role proc`. */

#include "agentd/process/reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/base/text.h"
#include "agentd/process/process.h"

int reader_open_in(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int reader_open_pid(struct reader *r, uint32_t pid)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%u", pid);
	fd = openat(r->proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? (errno == ENOENT ? -ESRCH : -errno) : fd;
}

/* At most max bytes of a file, what is beyond is left; NUL-terminated in r->text. */
int reader_text(struct reader *r, int dir, const char *name, size_t max)
{
	_cleanup_close_ int fd = reader_open_in(dir, name);

	buf_reset(&r->text);
	if (fd < 0)
		return fd;
	while (r->text.len < max) {
		size_t want = MIN(sizeof(r->chunk), max - r->text.len);
		ssize_t n = read(fd, r->chunk, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf_add(&r->text, r->chunk, (size_t)n);
		/* Those that are read so come whole: a short read was the last one. */
		if ((size_t)n < want)
			break;
	}
	buf_add(&r->text, "", 1);
	return buf_error(&r->text);
}

int reader_stat(struct reader *r, int dir, struct procfs_stat *ret)
{
	int e = reader_text(r, dir, "stat", 4096);

	return e < 0 ? e : procfs_stat((const char *)r->text.data, ret);
}

/* Whether the process is still the one that was meant. */
int reader_check_start(struct reader *r, int dir, uint64_t ticks, struct procfs_stat *ret)
{
	struct procfs_stat stat;
	int e = reader_stat(r, dir, ret ? ret : &stat);

	if (e < 0)
		return e == -ENOENT ? -ESRCH : e;
	return ticks && (ret ? ret : &stat)->start != ticks ? -ESRCH : 0;
}

int reader_living_folder(struct reader *r, int dir, const struct reader_request *q, char state)
{
	int other;

	if ((state != 'Z' && state != 'X') || !q->tid || q->tid == q->pid)
		return dir;
	/* /proc/TID is there for every thread, though readdir does not show it. */
	other = reader_open_pid(r, q->tid);
	if (other < 0)
		return dir;
	close(dir);
	return other;
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

/* ---- SURVEY -------------------------------------------------------------------------------------------- */

static void survey_one(struct reader *r, uint32_t pid)
{
	_cleanup_close_ int dir = reader_open_pid(r, pid);
	struct reader_process row = {.pid = pid};
	struct procfs_stat stat;

	if (dir < 0 || reader_stat(r, dir, &stat) < 0 || stat.state == 'Z')
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
		e = reader_do_read(r, q);
		break;
	case READER_OPEN:
		e = reader_do_open(r, q, path, &fd);
		break;
	case READER_JIT:
		e = reader_do_jit(r, q, path, &fd);
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

static const int syscalls[] = {SYS_openat, SYS_openat2, SYS_read, SYS_pread64, SYS_close, SYS_fstat,
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
