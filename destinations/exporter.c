/* SPDX-License-Identifier: Apache-2.0 */

/* The exporter: the only role that talks to the network.
 *
 * It gets its destinations and batches from agentd as sealed memfds, delivers, and says how far it is; and where an
 * administrator allowed it, it fetches debug files into descriptors of agentd's (fetch.c). It holds no
 * capability, is nobody, has an empty environment, calls nothing that is not on its list below, and can open no file but
 * its own and what resolving names and checking certificates takes (confine.c). It is trusted with profiles and with
 * secrets of destinations, and with nothing else: agentd checks every count it gives.
 *
 * One loop: messages of agentd and all transfers wait in transport_wait(). Nothing in it blocks but the socket to
 * agentd, which always reads. When agentd is gone the socket ends and so does this process: what waits here agentd
 * has, too, or has lost itself.
 *
 * Source: seccomp(2). `--role exporter`. */

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/base/unit.h"
#include "destinations/confine.h"
#include "destinations/exporter_private.h"
#include "destinations/fetch.h"
#include "destinations/link.h"
#include "destinations/metrics_http.h"
#include "destinations/metrics_push.h"

#define MAX_WAIT_MS 60000
#define DRAIN_NS    (5 * NSEC_PER_SEC)
#define OUT_KEPT    (256U << 10)

/* What libcurl, OpenSSL and the resolver call, on the kernels and architectures that there are. Modules of the name
 * service switch are loaded when a name is first resolved: executable mappings of files, sockets of other daemons. */
static const int syscalls[] = {
	/* files, for reading */
	SYS_read, SYS_readv, SYS_pread64, SYS_write, SYS_writev, SYS_close, SYS_openat, SYS_fstat,
	SYS_newfstatat, SYS_statx, SYS_lseek, SYS_faccessat, SYS_faccessat2, SYS_readlinkat,
	SYS_getdents64, SYS_fcntl, SYS_ioctl, SYS_dup, SYS_getcwd, SYS_fadvise64, SYS_fstatfs,
	SYS_statfs, SYS_sync_file_range, SYS_fdatasync, SYS_landlock_create_ruleset,
	SYS_landlock_add_rule, SYS_landlock_restrict_self,
	/* files of the spool */
	SYS_pwrite64, SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_unlinkat, SYS_renameat,
	SYS_renameat2,
#ifdef SYS_open
	SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_poll, SYS_select, SYS_pipe,
	SYS_epoll_wait, SYS_epoll_create, SYS_time, SYS_getrlimit, SYS_eventfd, SYS_arch_prctl,
#endif
	/* memory, threads (the resolver's), signals */
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk, SYS_futex, SYS_clone,
	SYS_clone3, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_set_tid_address,
	SYS_membarrier, SYS_sched_yield, SYS_sched_getaffinity, SYS_sigaltstack, SYS_rt_sigaction,
	SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_getpriority, SYS_sched_getparam,
	SYS_sched_getscheduler, SYS_prctl,
	/* the network */
	SYS_socket, SYS_accept4, SYS_listen, SYS_socketpair, SYS_connect, SYS_bind, SYS_sendto,
	SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown,
	SYS_getsockopt, SYS_setsockopt, SYS_getsockname, SYS_getpeername, SYS_ppoll, SYS_pselect6,
	SYS_pipe2, SYS_eventfd2, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
	/* facts and time */
	SYS_getrandom, SYS_uname, SYS_sysinfo, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
	SYS_getppid, SYS_prlimit64, SYS_getrusage, SYS_clock_getres, SYS_clock_nanosleep,
	SYS_nanosleep, SYS_gettimeofday, SYS_times, SYS_timerfd_create, SYS_timerfd_settime, -1};

static const struct sandbox_policy policy = {
	.name = "exporter",
	.syscalls = syscalls,
	.exec_mappings = true, /* modules of the name service switch */
	.uid = 65534,
	.gid = 65534,
	.nofile = 1024,
	.nproc = 512, /* of all that runs as nobody: a thread for each name being resolved */
	.fsize = RLIM_INFINITY, /* lines of the log may go to a file */
	.data = 768UL << 20,    /* a batch of 64 MB, decoded and encoded, at the worst */
	.as = RLIM_INFINITY,
	.cpu_s = RLIM_INFINITY,
};

static struct {
	int sock;            /* to agentd; -1: a unit of its own that waits for one */
	int listener;        /* of such a unit; else -1 */
	uid_t agent;         /* whose its socket is: the one user but root who can connect */
	const char *leaving; /* why another one is to take over; NULL: it is not */
} x = {.sock = SANDBOX_FD, .listener = -1, .agent = (uid_t)-1};

/* Messages on their way: each a length, padded, and itself. */
static struct buf out;

static void send_one(const void *message, size_t len)
{
	int r = x.sock < 0 ? 0 : fdpass_send(x.sock, message, len, NULL, 0);

	if (r == 0 || (r == -EPIPE && x.listener >= 0))
		return;
	/* A socket that agentd does not read is as good as none. */
	if (r != -EPIPE)
		log_error("cannot tell agentd: %s", strerrordesc_np(-r));
	_exit(EXIT_FAILURE);
}

void exporter_tell(const void *message, size_t len)
{
	const struct message_header *h = message;
	uint64_t n = len;

	if (h->kind == MESSAGE_ANSWER)
		keep_note(message);
	buf_add(&out, &n, sizeof(n));
	buf_add(&out, message, len);
	buf_add(&out, (uint8_t[8]){0}, -len % 8);
	if (buf_error(&out)) {
		log_error("out of memory");
		_exit(EXIT_FAILURE);
	}
}

/* What is told is on the disk before. */
static void flush(void)
{
	keep_commit();
	for (size_t at = 0; at < out.len;) {
		uint64_t n;

		memcpy(&n, out.data + at, sizeof(n));
		at += sizeof(n);
		send_one(out.data + at, n);
		at += (n + 7) & ~7ULL;
	}
	if (out.size > OUT_KEPT)
		buf_deinit(&out);
	buf_reset(&out);
}

/* ---- messages ------------------------------------------------------------------------------------ */

int exporter_read_memfd(int fd, size_t max, struct buf *out)
{
	size_t size;
	int r = io_check_sealed(fd, max, &size);

	if (r == 0 && size == 0)
		return 0;
	if (r == 0 && !buf_reserve(out, size + 1))
		r = -ENOMEM;
	if (r == 0)
		r = io_pread_all(fd, out->data, size, 0);
	if (r < 0)
		return r;
	out->len = size;
	out->data[size] = 0;
	return 0;
}

static int on_folder(const struct message_folder *m, int fd)
{
	if (fd >= 0 && !confine_has(fd))
		x.leaving = "it is to write in another folder";
	return transport_set_folder(m->key, fd);
}

static void on_listen(const struct message_listen *m)
{
	struct message_listening answer = {
		.header = protocol_header(MESSAGE_LISTENING, sizeof(answer))};
	struct err_text err = {};
	char address[PROTOCOL_ADDRESS + 1];

	snprintf(address, sizeof(address), "%.*s", PROTOCOL_ADDRESS, m->address);
	if (metrics_http_listen(address, &err) < 0)
		snprintf(answer.problem, sizeof(answer.problem), "%.500s", err.text);
	exporter_tell(&answer, sizeof(answer));
}

static int on_metrics(const struct message_metrics *m, int fd)
{
	_cleanup_buf_ struct buf bytes;
	int r;

	buf_init(&bytes, PROTOCOL_METRICS_MAX + 1);
	r = exporter_read_memfd(fd, PROTOCOL_METRICS_MAX, &bytes);
	if (r < 0)
		return r;
	if (m->otlp)
		metrics_push(bytes.data, bytes.len);
	else
		metrics_http_text(bytes.data, bytes.len);
	return 0;
}

/* Borrows *fd, but for what takes it. */
static int on_message(const void *message, size_t len, int *fd)
{
	const struct message_header *h = message;
	struct message_ping pong;

	if (len < sizeof(*h))
		return -EBADMSG;
	if (protocol_check(message, len, MESSAGE_CONFIG, sizeof(struct message_config)) == 0)
		return exporter_on_config(message, *fd);
	if (protocol_check(message, len, MESSAGE_BATCH, 0) == 0 &&
		len >= sizeof(struct message_batch))
		return keep_on_batch(message, len, *fd);
	if (protocol_check(message, len, MESSAGE_TEST, sizeof(struct message_test)) == 0)
		return exporter_on_test(message, *fd);
	if (protocol_check(message, len, MESSAGE_FOLDER, sizeof(struct message_folder)) == 0)
		return on_folder(message, TAKE_FD(*fd));
	if (protocol_check(message, len, MESSAGE_FETCH, sizeof(struct message_fetch)) == 0)
		return fetch_start(message, TAKE_FD(*fd), exporter_tell);
	if (protocol_check(message, len, MESSAGE_FETCH_STOP, sizeof(struct message_fetch_stop)) ==
		0) {
		fetch_stop(((const struct message_fetch_stop *)message)->id);
		return 0;
	}
	if (protocol_check(message, len, MESSAGE_SPOOL, sizeof(struct message_spool)) == 0)
		return keep_on_spool(message, fd);
	if (protocol_check(message, len, MESSAGE_ADOPT, 0) == 0 &&
		len >= sizeof(struct message_adopt))
		return keep_on_adopt(message, len);
	if (protocol_check(message, len, MESSAGE_SPOOL_DROP, sizeof(struct message_spool_drop)) ==
		0) {
		keep_on_drop(message);
		return 0;
	}
	if (protocol_check(message, len, MESSAGE_LISTEN, sizeof(struct message_listen)) == 0) {
		on_listen(message);
		return 0;
	}
	if (protocol_check(message, len, MESSAGE_METRICS, sizeof(struct message_metrics)) == 0)
		return on_metrics(message, *fd);
	if (protocol_check(message, len, MESSAGE_PING, sizeof(struct message_ping)) == 0) {
		memcpy(&pong, message, sizeof(pong));
		pong.header = protocol_header(MESSAGE_PONG, sizeof(pong));
		exporter_tell(&pong, sizeof(pong));
		return 0;
	}
	return -EBADMSG;
}

static union {
	struct message_header header;
	uint64_t align;
	uint8_t bytes[FDPASS_MAX_MESSAGE];
} message;

/* One message: 0; 1: agentd is gone. */
static int read_message(void)
{
	_cleanup_close_ int fd = -1;
	size_t n_fds = 1;
	ssize_t len = fdpass_recv(x.sock, message.bytes, sizeof(message), &fd, &n_fds);
	int r;

	if (len == 0)
		return 1;
	r = len < 0 ? (int)len : on_message(message.bytes, (size_t)len, &fd);
	if (r < 0)
		log_error("a message of agentd cannot be used: %s", strerrordesc_np(-r));
	return r;
}

/* All that are there; none that is the next exporter's. */
static int read_messages(void)
{
	while (!x.leaving) {
		struct pollfd p = {.fd = x.sock, .events = POLLIN};
		int r = poll(&p, 1, 0) <= 0 ? 0 : read_message();

		if (r != 0 || !p.revents)
			return r;
	}
	return 0;
}

/* ---- a unit of its own --------------------------------------------------------------------------- */

/* What it had asked for itself ends with it; deliveries go on. */
static int lose_agentd(void)
{
	if (x.listener < 0)
		return 1;
	log_info("agentd is gone; deliveries go on, and another one may come");
	closep(&x.sock);
	(void)metrics_http_listen("", NULL); /* there is nobody to ask */
	exporter_end_tests();
	fetch_deinit();
	return 0;
}

/* What is under way ends as it began, so that it is not sent twice. */
static void finish_sending(int fd)
{
	uint64_t end = clock_monotonic_ns() + DRAIN_NS;
	bool ignored;

	while (exporter_sends() && clock_monotonic_ns() < end &&
		transport_wait(fd, 100, &ignored) == 0)
		;
	flush();
}

/* The next one has the same, and may open what it has to. */
static int leave(void)
{
	struct message_leaving m = {.header = protocol_header(MESSAGE_LEAVING, sizeof(m))};

	finish_sending(-1);
	snprintf(m.why, sizeof(m.why), "%s", x.leaving);
	exporter_tell(&m, sizeof(m));
	flush();
	return 1;
}

/* Another agentd: it is told what the disk has, as after a start. */
static int find_agentd(void)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	_cleanup_close_ int fd = accept4(x.listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
		(peer.uid != 0 && peer.uid != geteuid() && peer.uid != x.agent)) {
		log_warning("a connection of uid %u was refused: only agentd may", peer.uid);
		return 0;
	}
	finish_sending(x.listener);
	exporter_free_destinations();
	keep_deinit();
	x.sock = TAKE_FD(fd);
	log_info("agentd (pid %d) is here", peer.pid);
	return 0;
}

/* The socket that the service manager listens on, and the folder that it made. 0: this is no unit of its own. */
static int be_unit(void)
{
	const char *folder = getenv("STATE_DIRECTORY");
	struct sockaddr_un address = {};
	socklen_t size = sizeof(address) - 1;
	int fd, n = unit_listens();
	struct stat st;

	if (n == 0)
		return 0;
	if (n < 0) {
		log_error("the service manager is to hand over one listening socket "
			  "(ListenSequentialPacket=)");
		return -EINVAL;
	}
	fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0)
		log_warning("there is no StateDirectory=: batches are held in memory");
	else
		keep_set_folder(fd);
	if (getsockname(SANDBOX_FD, (struct sockaddr *)&address, &size) == 0 &&
		stat(address.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
		!(st.st_mode & (S_IRWXG | S_IRWXO)))
		x.agent = st.st_uid;
	x.listener = SANDBOX_FD;
	x.sock = -1;
	return 1;
}

/* ---- the loop, and its beginning and end --------------------------------------------------------- */

static void ask_for_metrics(void)
{
	const struct message_metrics m = {
		.header = protocol_header(MESSAGE_METRICS_WANTED, sizeof(m))};

	exporter_tell(&m, sizeof(m));
}

/* Every destination has its turn. Milliseconds until the next one. */
static unsigned run(void)
{
	uint64_t now = clock_monotonic_ns(), wake = now + MAX_WAIT_MS * NSEC_PER_MSEC;
	uint64_t watchdog = unit_watchdog_us();

	exporter_run_destinations(now, &wake);
	keep_run(now, &wake);
	if (metrics_http_run(now, &wake))
		ask_for_metrics();
	held_batch_settle();
	flush();
	if (watchdog) {
		unit_lives();
		wake = MIN(wake, now + watchdog * 1000 / 2);
	}
	now = clock_monotonic_ns();
	return wake <= now ? 0 : (unsigned)((wake - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

static int turn(void)
{
	bool readable;
	unsigned wait_ms;
	int sock, r;

	/* Without agentd nobody would start the next one. */
	if (x.sock >= 0 && !x.leaving)
		x.leaving = confine_outdated(clock_monotonic_ns());
	if (x.sock >= 0 && x.leaving)
		return leave();
	wait_ms = run();
	sock = x.sock >= 0 ? x.sock : x.listener;
	r = transport_wait(metrics_http_wait_fd(sock), wait_ms, &readable);

	/* What was answered is noted before anything else is sent. */
	flush();
	if (r < 0 || !readable)
		return r;
	if (x.sock < 0)
		return poll(&(struct pollfd){.fd = sock, .events = POLLIN}, 1, 0) > 0
			? find_agentd()
			: 0;
	r = read_messages();
	flush();
	return r == 1 ? lose_agentd() : r;
}

static void deinit(void)
{
	exporter_free_destinations();
	exporter_end_tests();
	fetch_deinit();
	keep_deinit();
	transport_deinit();
	buf_deinit(&out);
}

/* agentd's first message may bring the spool's folder, which the sandbox is to let through. It is looked at inside. */
static int enter(struct err_text *err)
{
	_cleanup_close_ int fd = -1;
	size_t n_fds = 1;
	ssize_t len = 0;
	int r = be_unit();

	if (r < 0)
		return err_set(err, r, "this cannot be a unit of its own");
	if (r == 0) {
		len = fdpass_recv(x.sock, message.bytes, sizeof(message), &fd, &n_fds);
		if (len < 0)
			return err_set(err, (int)len, "agentd cannot be heard: %s",
				strerrordesc_np((int)-len));
		if (len == 0)
			return 1;
	}
	r = sandbox_enter(&policy, err);
	if (r == 0 && len)
		r = on_message(message.bytes, (size_t)len, &fd);
	return r;
}

int exporter_main(void)
{
	struct err_text err = {};
	int r;

	/* libc's resolver would try for half a minute and more; requests are tried again anyway. */
	setenv("RES_OPTIONS", "timeout:2 attempts:2", 1);
	buf_init(&out, 0);
	r = transport_init();
	if (r < 0)
		log_error("libcurl cannot be used");
	if (r == 0)
		r = enter(&err);
	if (r < 0 && err.text[0])
		log_error("%s", err.text);
	while (r == 0)
		r = turn();
	(void)metrics_http_listen("", NULL);
	metrics_push_deinit();
	deinit();
	return MIN(r, 0);
}
