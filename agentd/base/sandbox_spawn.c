/* SPDX-License-Identifier: Apache-2.0 */

/* How child roles start and end.
 *
 * A child must not inherit what agentd holds: not a descriptor, not a variable, not a signal mask.
 * So it is a fresh program (the same binary: /proc/self/exe stays the one that runs, also after an
 * upgrade put another in its place) and everything it has it was given. Its end is seen on a pidfd,
 * which cannot be mistaken for another process that took the number.
 *
 * Invariants. Between clone and execve only async-signal-safe calls are made, with all signals
 * blocked; the child's own memory is a copy, so nothing it does can be seen here. A child dies with
 * its parent: by the death signal, and for the time before that is set by a look at the parent's
 * pid. agentd never waits for a child for long: one that is stuck in the kernel is put aside and
 * reaped later.
 *
 * Source: clone(2) (CLONE_PIDFD, kernel 5.2: the old call, since container runtimes' filters refuse
 * clone3), pidfd_open(2), prctl(2). agentd, and the roles that start others. */

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agentd/base/sandbox.h"

#define ARGS_MAX     32
#define SOCKET_BYTES (1 << 20)
#define KILL_WAIT_MS 100
#define UNDEAD_MAX   64
#define SPARE_FD     10 /* descriptors for the child are made above the numbers that it gives them */

static const char *program = "/proc/self/exe";

/* Killed and not yet ended. Bounded: beyond it they stay zombies until agentd ends, and cost a pid
 * each. */
static pid_t undead[UNDEAD_MAX];
static size_t n_undead;

void sandbox_set_program(const char *path)
{
	program = path;
}

void sandbox_close_from(int from)
{
	/* Kernels before 5.9 lack the call; closefrom() then reads /proc/self/fd. */
	if (close_range((unsigned)from, ~0U, 0) < 0)
		closefrom(from);
}

static void reap_undead(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < n_undead; i++)
		if (waitpid(undead[i], NULL, WNOHANG) == 0)
			undead[kept++] = undead[i];
	n_undead = kept;
}

/* All that the child needs, made before there is one. */
struct start {
	const char *argv[ARGS_MAX + 4];
	const char *envp[8];
	sigset_t no_signals;
	int sock, null;
	pid_t parent;
};

static int fill_arguments(struct start *s, const char *role, const char *const *extra)
{
	static const char *const kept[] = {
		"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "JOURNAL_STREAM"};
	size_t n = 0, n_env = 0;

	s->argv[n++] = "agentd";
	s->argv[n++] = "--role";
	s->argv[n++] = role;
	for (; extra && *extra; extra++) {
		if (n >= ARRAY_SIZE(s->argv) - 1)
			return -E2BIG;
		s->argv[n++] = *extra;
	}
	/* getenv() points behind the '='; the entry itself is what execve() wants. */
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		const char *value = getenv(kept[i]);

		if (value)
			s->envp[n_env++] = value - strlen(kept[i]) - 1;
	}
	return 0;
}

/* In the child: never returns, allocates nothing, leaves the copy of our memory alone. */
static _Noreturn void become(const struct start *s)
{
	static const char failed[] = "agentd: cannot execute the program of a child role\n";
	struct sigaction standard = {.sa_handler = SIG_DFL};

	for (int i = 1; i < NSIG; i++)
		(void)sigaction(i, &standard, NULL);
	if (dup2(s->null, STDIN_FILENO) < 0)
		_exit(126);
	if (fcntl(STDERR_FILENO, F_GETFD) < 0 && dup2(s->null, STDERR_FILENO) < 0)
		_exit(126);
	if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0 || dup2(s->sock, SANDBOX_FD) < 0)
		_exit(126);
	sandbox_close_from(SANDBOX_FD + 1);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != s->parent)
		_exit(126);
	(void)sigprocmask(SIG_SETMASK, &s->no_signals, NULL);
	execve(program, (char *const *)s->argv, (char *const *)s->envp);
	/* Nobody to tell but whoever reads this; the status says it once more. */
	if (write(STDERR_FILENO, failed, sizeof(failed) - 1) < 0)
		_exit(126);
	_exit(127);
}

static int make_socket(int ret[2])
{
	int size = SOCKET_BYTES;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) < 0)
		return -errno;
	/* A reply is a message of up to 64 KiB, and several may wait. FORCE needs CAP_NET_ADMIN;
	 * without it the host's own bound holds, which is enough for one message. */
	for (int i = 0; i < 2; i++)
		if (setsockopt(ret[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			(void)setsockopt(ret[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return fcntl(ret[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* Moves *fd out of the way of the child's 0 to 3. */
static int raise_fd(int *fd)
{
	int higher = fcntl(*fd, F_DUPFD_CLOEXEC, SPARE_FD);

	if (higher < 0)
		return -errno;
	close(*fd);
	*fd = higher;
	return 0;
}

static void close_pair(int (*fds)[2])
{
	closep(&(*fds)[0]);
	closep(&(*fds)[1]);
}

int sandbox_spawn(
	struct sandbox_child *ret, const char *role, const char *const *extra, struct err_text *err)
{
	CLEANUP(close_pair) int socks[2] = {-1, -1};
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct start start = {.parent = getpid()};
	sigset_t all, before;
	int pidfd = -1, r = 0;
	long pid;

	reap_undead();
	if (null < 0)
		return err_set(err, -errno, "cannot start the %s: /dev/null: %m", role);
	r = make_socket(socks);
	if (r == 0)
		r = raise_fd(&socks[1]);
	if (r == 0)
		r = raise_fd(&null);
	if (r == 0)
		r = fill_arguments(&start, role, extra);
	if (r < 0)
		return err_set(err, r, "cannot start the %s: %s", role, strerrordesc_np(-r));
	start.sock = socks[1];
	start.null = null;
	sigemptyset(&start.no_signals);
	/* No handler of ours may run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	/* The first three arguments have the same places on every architecture; the last two are 0.
	 */
	pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, NULL);
	if (pid == 0)
		become(&start);
	r = pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (r < 0)
		return err_set(err, r, "cannot start the %s: %s", role, strerrordesc_np(-r));
	*ret = (struct sandbox_child){.pid = (pid_t)pid, .pidfd = pidfd, .sock = TAKE_FD(socks[0])};
	return 0;
}

void sandbox_kill(struct sandbox_child *c)
{
	reap_undead();
	if (c->pid > 0) {
		struct pollfd ended = {.fd = c->pidfd, .events = POLLIN};

		(void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
		(void)poll(&ended, 1, KILL_WAIT_MS);
		/* One that waits for another's lock, or for a file system that never answers, dies
		 * when it comes back; until then agentd has other things to do. */
		if (waitpid(c->pid, NULL, WNOHANG) == 0 && n_undead < UNDEAD_MAX)
			undead[n_undead++] = c->pid;
	}
	closep(&c->pidfd);
	closep(&c->sock);
	*c = SANDBOX_CHILD_NONE;
}

int sandbox_reap(struct sandbox_child *c, int *status)
{
	pid_t pid;

	if (c->pid <= 0)
		return -ECHILD;
	do
		pid = waitpid(c->pid, status, WNOHANG);
	while (pid < 0 && errno == EINTR);
	if (pid == 0)
		return -EAGAIN;
	c->pid = -1;
	return pid < 0 ? -ECHILD : 0;
}

void sandbox_describe_status(int status, char *out, size_t size)
{
	static const struct {
		int signal;
		const char *why;
	} reasons[] = {
		{SIGSYS, " (a system call outside its list)"},
		{SIGKILL, " (by its parent, for its limits or for want of memory)"},
		{SIGXCPU, " (its CPU time was used up)"},
		{SIGXFSZ, " (it may not write files of that size)"},
		{SIGSEGV, " (a bad memory access)"},
		{SIGBUS, " (a bad memory access, or a file that was cut while it was read)"},
		{SIGABRT, " (it found itself in a wrong state)"},
		{SIGFPE, " (a division by zero)"},
	};
	const char *why = "", *name;

	if (WIFEXITED(status)) {
		why = WEXITSTATUS(status) == 127     ? " (its program could not be executed)"
			: WEXITSTATUS(status) == 126 ? " (it could not be set up)"
						     : "";
		snprintf(out, size, "exited with %d%s", WEXITSTATUS(status), why);
		return;
	}
	if (!WIFSIGNALED(status)) {
		snprintf(out, size, "ended with status 0x%x", (unsigned)status);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].signal == WTERMSIG(status))
			why = reasons[i].why;
	name = sigabbrev_np(WTERMSIG(status));
	if (name)
		snprintf(out, size, "killed by SIG%s%s", name, why);
	else
		snprintf(out, size, "killed by signal %d", WTERMSIG(status));
}
