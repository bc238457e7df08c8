/* SPDX-License-Identifier: Apache-2.0 */

/* The sandbox is tested by trying: a child enters it, does what it must not do, and how it ended is looked
 * at. Only with root's privileges is there something to drop, so this asks for them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agentd/base/buf.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/landlock.h"
#include "agentd/base/sandbox.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define NOBODY      65534
#define NOT_ENTERED 111
#define WAIT_MS     20000 /* a bound for a test that went wrong, not a measure */
#define LIMITS_LEAVE                                                                               \
	.uid = (uid_t)-1, .gid = (gid_t)-1, .nofile = RLIM_INFINITY, .nproc = RLIM_INFINITY,       \
	.fsize = RLIM_INFINITY, .data = RLIM_INFINITY, .as = RLIM_INFINITY, .cpu_s = RLIM_INFINITY

static const int basic[] = {
	SYS_read, SYS_write, SYS_close, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_brk, -1};

/* ---- what a sandboxed child tries; its exit status is the answer ---- */

/* 0, or the errno that the call gave. */
static int outcome(long r)
{
	return r < 0 ? errno : 0;
}

static int try_nothing(void)
{
	return 0;
}

static int try_open(void)
{
	return outcome(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
}

static int try_unix_socket(void)
{
	return outcome(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int try_inet_socket(void)
{
	return outcome(socket(AF_INET, SOCK_DGRAM, 0));
}

/* The kernel takes an int and forgets the rest; the filter must not be fooled by it. */
static int try_disguised_socket(void)
{
	return outcome(syscall(SYS_socket, 0x100000000UL | AF_INET, SOCK_DGRAM, 0));
}

static int try_netlink_socket(void)
{
	return outcome(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int try_ring(void)
{
	return outcome(syscall(SYS_io_uring_setup, 1, NULL));
}

static int try_map(int prot)
{
	void *p = mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int try_map_data(void)
{
	return try_map(PROT_READ | PROT_WRITE);
}

static int try_map_code(void)
{
	return try_map(PROT_READ | PROT_EXEC);
}

static int try_make_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NOT_ENTERED : outcome(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int try_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return outcome(pid);
}

static int try_abort(void)
{
	abort();
}

/* The test itself; getppid() would be one call more to be killed for. */
static pid_t parent;

static int try_signal_parent(void)
{
	return outcome(syscall(SYS_tgkill, parent, parent, SIGWINCH));
}

static int try_dup(void)
{
	return outcome(dup(STDERR_FILENO));
}

#ifdef __x86_64__
/* getpid() by the number it has for 32-bit programs. */
static int try_other_abi(void)
{
	long r = 20;

	__asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
	return 0;
}
#endif

/* The wait status of a child that enters and tries. */
static int ended(const struct sandbox_policy *policy, int (*attempt)(void))
{
	int status;
	pid_t pid;

	parent = getpid();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct err_text err = {""};

		/* No core files, no message of a sanitizer about what is meant to happen. */
		signal(SIGABRT, SIG_DFL);
		if (sandbox_enter(policy, &err) != 0) {
			fprintf(stderr, "%s\n", err.text);
			_exit(NOT_ENTERED);
		}
		_exit(attempt());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect_exit(const struct sandbox_policy *policy, int (*attempt)(void), int code)
{
	int status = ended(policy, attempt);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), code);
}

static void expect_signal(const struct sandbox_policy *policy, int (*attempt)(void), int sig)
{
	int status = ended(policy, attempt);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), sig);
}

static void test_list(void **s)
{
	const struct sandbox_policy policy = {.name = "test", .syscalls = basic, LIMITS_LEAVE};

	expect_exit(&policy, try_nothing, 0);
	expect_exit(&policy, try_map_data, 0);
	expect_signal(&policy, try_open, SIGSYS);
	expect_signal(&policy, try_unix_socket, SIGSYS);
	expect_signal(&policy, try_inet_socket, SIGSYS);
	expect_signal(&policy, try_map_code, SIGSYS);
	expect_signal(&policy, try_make_code, SIGSYS);
	expect_signal(&policy, try_fork, SIGSYS);
	expect_signal(&policy, try_ring, SIGSYS);
	/* A failed assertion says what it is. Nobody else is signalled. */
	expect_signal(&policy, try_abort, SIGABRT);
	expect_signal(&policy, try_signal_parent, SIGSYS);
#ifdef __x86_64__
	expect_signal(&policy, try_other_abi, SIGSYS);
#endif
}

static void test_refused(void **s)
{
	static const int refused[] = {SYS_openat, SYS_mmap, SYS_tgkill, -1};
	const struct sandbox_policy policy = {
		.name = "test", .syscalls = basic, .refused = refused, LIMITS_LEAVE};
	const struct sandbox_policy no_list = {
		.name = "test", .refused = refused, .exec_mappings = true, LIMITS_LEAVE};

	expect_exit(&policy, try_open, EACCES);
	/* Refused wins over allowed. */
	expect_exit(&policy, try_map_data, EACCES);
	expect_signal(&policy, try_unix_socket, SIGSYS);
	expect_exit(&no_list, try_open, EACCES);
	expect_exit(&no_list, try_unix_socket, 0);
}

static void test_exec_mappings(void **s)
{
	struct sandbox_policy policy = {
		.name = "test", .syscalls = basic, .exec_mappings = true, LIMITS_LEAVE};

	expect_exit(&policy, try_map_code, 0);
	expect_exit(&policy, try_make_code, 0);
	policy.syscalls = NULL;
	expect_exit(&policy, try_make_code, 0);
	policy.exec_mappings = false;
	expect_exit(&policy, try_map_data, 0);
	expect_exit(&policy, try_map_code, EACCES);
	expect_exit(&policy, try_make_code, EACCES);
}

static void test_network(void **s)
{
	static const int with_socket[] = {SYS_socket, SYS_close, -1};
	struct sandbox_policy policy = {.name = "test", .exec_mappings = true, LIMITS_LEAVE};

	expect_exit(&policy, try_inet_socket, 0);
	policy.deny_network = true;
	for (int i = 0; i < 2; i++) {
		expect_exit(&policy, try_unix_socket, 0);
		expect_exit(&policy, try_inet_socket, EACCES);
		expect_exit(&policy, try_disguised_socket, EACCES);
		expect_exit(&policy, try_netlink_socket, EACCES);
		policy.syscalls = with_socket;
	}
	policy.syscalls = NULL;
	expect_exit(&policy, try_ring, EACCES);
	expect_exit(&policy, try_open, 0);
	policy.syscalls = with_socket;
	policy.deny_network = false;
	expect_exit(&policy, try_inet_socket, 0);
}

static int try_paths(void)
{
	static const char *const paths[] = {
		"/etc/hostname", "/proc/self/maps", ".", "/dev/null", "/"};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (open(paths[i], O_RDONLY | O_CLOEXEC) >= 0 || errno != EACCES)
			return (int)i + 1;
	if (open("/tmp/odi-sandbox-test", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0)
		return 20;
	return 0;
}

static void test_paths(void **s)
{
	struct sandbox_policy policy = {.name = "test", .exec_mappings = true, LIMITS_LEAVE};

	expect_exit(&policy, try_open, 0);
	if (landlock_abi() == 0) {
		print_message("this kernel has no Landlock: deny_paths is not tested\n");
		skip();
	}
	policy.deny_paths = true;
	expect_exit(&policy, try_paths, 0);
	/* As any user: it is not root's capabilities that are missing. */
	policy.keep_caps = true;
	expect_exit(&policy, try_paths, 0);
}

/* ---- identity ---- */

static bool no_caps(void)
{
	cap_t now = cap_get_proc(), none = cap_init();
	bool same = cap_compare(now, none) == 0;

	cap_free(now);
	cap_free(none);
	return same;
}

static int try_identity(void)
{
	uid_t r, e, saved;
	gid_t rg, eg, saved_g;
	int sig = 0;

	if (getresuid(&r, &e, &saved) < 0 || r != NOBODY || e != NOBODY || saved != NOBODY)
		return 1;
	if (getresgid(&rg, &eg, &saved_g) < 0 || rg != NOBODY || eg != NOBODY || saved_g != NOBODY)
		return 2;
	if (getgroups(0, NULL) != 0)
		return 3;
	if (!no_caps())
		return 4;
	for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++)
		if (cap_get_bound(cap) > 0 || cap_get_ambient(cap) > 0)
			return 5;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return 6;
	if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
		return 7;
	if (setuid(0) == 0)
		return 8;
	/* That the identity changed must not have cleared it. */
	if (prctl(PR_GET_PDEATHSIG, &sig, 0, 0, 0) < 0 || sig != SIGKILL)
		return 9;
	return 0;
}

static int try_root_without_caps(void)
{
	return no_caps() && chroot("/") < 0 && errno == EPERM ? 0 : 1;
}

static int try_kept_caps(void)
{
	if (getuid() != NOBODY)
		return 1;
	char path[64];

	/* What only capabilities allow: those to look at a process of root's are kept, others are not. */
	if (chroot("/") == 0 || setuid(0) == 0)
		return 2;
	snprintf(path, sizeof(path), "/proc/%d/environ", (int)parent);
	return outcome(open(path, O_RDONLY | O_CLOEXEC));
}

static int set_up_identity(void **s)
{
	static const gid_t groups[] = {0, 4, 24};

	/* In the forked children this is what they start from. */
	return setgroups(ARRAY_SIZE(groups), groups) < 0;
}

/* fork() clears the death signal, so it is set in the child, ahead of sandbox_enter(). */
static int enter_with_death_signal(const struct sandbox_policy *policy)
{
	struct err_text err;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || sandbox_enter(policy, &err) != 0)
		return NOT_ENTERED;
	return try_identity();
}

static void test_identity(void **s)
{
	struct sandbox_policy policy = {.name = "test", .exec_mappings = true, LIMITS_LEAVE};
	int status;
	pid_t pid;

	policy.uid = policy.gid = NOBODY;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(enter_with_death_signal(&policy));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_capabilities(void **s)
{
	struct sandbox_policy policy = {.name = "test", .exec_mappings = true, LIMITS_LEAVE};

	expect_exit(&policy, try_root_without_caps, 0);
	policy.keep_caps = true;
	policy.uid = policy.gid = NOBODY;
	expect_exit(&policy, try_kept_caps, 0);
}

/* Who is not root and asks for what is his already, or for less, gets in. */
static int enter_as_nobody(void)
{
	struct sandbox_policy policy = {.name = "test",
		.syscalls = basic,
		.deny_paths = true,
		.deny_network = true,
		LIMITS_LEAVE};
	struct err_text err;

	policy.uid = NOBODY - 1; /* cannot be taken, and is no loss */
	policy.gid = NOBODY;
	return sandbox_enter(&policy, &err) == 0 ? 0 : NOT_ENTERED;
}

static void test_not_root(void **s)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
			setresuid(NOBODY, NOBODY, NOBODY) < 0)
			_exit(NOT_ENTERED + 1);
		_exit(enter_as_nobody());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* ---- limits ---- */

static int try_limits(void)
{
	static const struct {
		int resource;
		rlim_t soft, hard;
	} want[] = {
		{RLIMIT_CORE, 0, 0},
		{RLIMIT_NOFILE, 3, 3},
		{RLIMIT_NPROC, 0, 0},
		{RLIMIT_FSIZE, 0, 0},
		{RLIMIT_CPU, 5, 6},
#ifndef SANITIZED
		{RLIMIT_DATA, 100 << 20, 100 << 20},
		{RLIMIT_AS, 1 << 30, 1 << 30},
#endif
	};
	struct rlimit now;

	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		if (getrlimit(want[i].resource, &now) < 0 || now.rlim_cur != want[i].soft ||
			now.rlim_max != want[i].hard)
			return (int)i + 1;
	return try_dup() == EMFILE ? 0 : 20;
}

/* A file that was open before: the limit on its size holds for it, too. */
static int written_fd = -1;

static int try_write_file(void)
{
	return outcome(write(written_fd, "x", 1));
}

static void test_limits(void **s)
{
	static const int calls[] = {SYS_prlimit64, SYS_getrlimit, SYS_dup, SYS_write, -1};
	struct sandbox_policy policy = {.name = "test",
		.syscalls = calls,
		.deny_paths = true,
		.deny_network = true,
		LIMITS_LEAVE};
	FILE *f = tmpfile();

	policy.nofile = 3;
	policy.nproc = policy.fsize = 0;
	policy.data = 100 << 20;
	policy.as = 1 << 30;
	policy.cpu_s = 5;
	/* Limits this low must not stop the steps that come after them. */
	assert_non_null(f);
	written_fd = fileno(f);
	expect_exit(&policy, try_limits, 0);
	expect_signal(&policy, try_write_file, SIGXFSZ);
	policy.fsize = RLIM_INFINITY;
	expect_exit(&policy, try_write_file, 0);
	fclose(f);
}

/* ---- roles ---- */

/* What a role finds when it starts, one fact a line. */
static int role_report(int argc, char **argv)
{
	_cleanup_buf_ struct buf b;
	struct sigaction pipe_action;
	struct stat in, out, err;
	struct dirent *entry;
	char byte, link[64];
	sigset_t mask;
	int sig = 0;
	DIR *d;

	buf_init(&b, 0);
	for (int i = 0; i < argc; i++)
		buf_printf(&b, "arg %s\n", argv[i]);
	for (char **e = environ; *e; e++)
		buf_printf(&b, "env %s\n", *e);
	d = opendir("/proc/self/fd");
	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(d))
			buf_printf(&b, "fd %s\n", entry->d_name);
	if (d)
		closedir(d);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	sigaction(SIGPIPE, NULL, &pipe_action);
	prctl(PR_GET_PDEATHSIG, &sig, 0, 0, 0);
	buf_printf(&b, "blocked %d pipe %s death %d\n", sigismember(&mask, SIGTERM),
		pipe_action.sa_handler == SIG_DFL ? "default" : "other", sig);
	fstat(0, &in);
	fstat(1, &out);
	fstat(2, &err);
	buf_printf(&b, "stdin %zd null %d stdout is stderr %d\n", read(0, &byte, 1),
		readlink("/proc/self/fd/0", link, sizeof(link)) == 9 &&
			memcmp(link, "/dev/null", 9) == 0,
		out.st_ino == err.st_ino && out.st_dev == err.st_dev);
	buf_printf(&b, "cloexec %d nonblock %d\n", fcntl(SANDBOX_FD, F_GETFD),
		fcntl(SANDBOX_FD, F_GETFL) & O_NONBLOCK);
	return fdpass_send(SANDBOX_FD, b.data, b.len, NULL, 0) == 0 ? 7 : 1;
}

/* Ends as roles do, by return from main(): all that libraries do then has to be allowed as well (a leak check
 * would not be: something is left for it to find). */
static int role_enter(void)
{
	const struct sandbox_policy policy = {
		.name = "entered", .syscalls = basic, .deny_paths = true, LIMITS_LEAVE};
	static void *volatile lost;
	struct err_text err;

	if (sandbox_enter(&policy, &err) != 0)
		return NOT_ENTERED;
	lost = malloc(5000);
	if (!lost)
		return 1;
	lost = NULL;
	return 6;
}

static int run_role(int argc, char **argv)
{
	if (streq(argv[2], "report"))
		return role_report(argc, argv);
	if (streq(argv[2], "enter"))
		return role_enter();
	if (streq(argv[2], "hang"))
		for (;;)
			pause();
	return 99;
}

static void wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r;

	do
		r = poll(&p, 1, WAIT_MS);
	while (r < 0 && errno == EINTR);
	assert_int_equal(r, 1);
}

static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);

	for (const char *p = strstr(text, line); p; p = strstr(p + 1, line))
		if ((p == text || p[-1] == '\n') && p[len] == '\n')
			return true;
	return false;
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static void test_spawn(void **s)
{
	static const char *const extra[] = {"--log-level", "debug", NULL};
	struct sandbox_child c = SANDBOX_CHILD_NONE;
	struct err_text err = {""};
	int leak = fcntl(STDERR_FILENO, F_DUPFD, 30), in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 20),
	    status = 0;
	char text[8192], described[64];
	sigset_t blocked, before;
	ssize_t n;

	/* What agentd has and a child must not get. stdin is closed: the numbers 0 to 3 come into use. */
	assert_true(leak >= 0);
	setenv("ODI_SECRET", "x", 1);
	setenv("ASAN_OPTIONS", "exitcode=42", 1);
	setenv("JOURNAL_STREAM", "1:2", 1);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	close(STDIN_FILENO);
	assert_int_equal(sandbox_spawn(&c, "report", extra, &err), 0);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGPIPE, SIG_DFL);
	assert_true(c.pid > 0);
	assert_int_equal(fcntl(c.sock, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	assert_int_equal(fcntl(c.sock, F_GETFD) & fcntl(c.pidfd, F_GETFD), FD_CLOEXEC);
	wait_readable(c.sock);
	n = fdpass_recv(c.sock, text, sizeof(text) - 1, NULL, NULL);
	assert_true(n > 0);
	text[n] = '\0';

	assert_non_null(strstr(
		text, "arg agentd\narg --role\narg report\narg --log-level\narg debug\nenv "));
	assert_int_equal(count(text, "arg "), 5);
	assert_true(has_line(text, "env ASAN_OPTIONS=exitcode=42"));
	assert_true(has_line(text, "env JOURNAL_STREAM=1:2"));
	assert_null(strstr(text, "ODI_SECRET"));
	assert_null(strstr(text, "PATH="));
	assert_int_equal(count(text, "fd "), 4);
	assert_true(has_line(text, "fd 3"));
	assert_true(has_line(text, "blocked 0 pipe default death 9"));
	assert_true(has_line(text, "stdin 0 null 1 stdout is stderr 1"));
	assert_true(has_line(text, "cloexec 0 nonblock 0"));

	wait_readable(c.pidfd);
	assert_int_equal(sandbox_reap(&c, &status), 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	sandbox_describe_status(status, described, sizeof(described));
	assert_string_equal(described, "exited with 7");
	assert_int_equal(c.pid, -1);
	/* Open until the sources on it are gone: see sandbox_reap(). */
	assert_true(fcntl(c.pidfd, F_GETFD) >= 0);
	/* The socket is still there to be read to its end. */
	assert_int_equal(fdpass_recv(c.sock, text, sizeof(text), NULL, NULL), 0);
	assert_int_equal(sandbox_reap(&c, &status), -ECHILD);
	sandbox_kill(&c);
	assert_int_equal(c.sock, -1);
	assert_int_equal(c.pidfd, -1);
	sandbox_kill(&c);
	/* Only now: until here 0 was the number of something of ours. */
	assert_true(in < 0 || dup2(in, STDIN_FILENO) == STDIN_FILENO);
	close(leak);
	closep(&in);
	unsetenv("ODI_SECRET");
	unsetenv("ASAN_OPTIONS");
	unsetenv("JOURNAL_STREAM");
}

static void test_role_returns(void **s)
{
	struct sandbox_child c = SANDBOX_CHILD_NONE;
	char described[80];
	int status = 0;

	assert_int_equal(sandbox_spawn(&c, "enter", NULL, NULL), 0);
	wait_readable(c.pidfd);
	assert_int_equal(sandbox_reap(&c, &status), 0);
	sandbox_describe_status(status, described, sizeof(described));
	assert_string_equal(described, "exited with 6");
	sandbox_kill(&c);
}

static void test_kill(void **s)
{
	struct sandbox_child c = SANDBOX_CHILD_NONE;
	int status = 0, pidfd;
	pid_t pid;

	assert_int_equal(sandbox_spawn(&c, "hang", NULL, NULL), 0);
	pid = c.pid;
	assert_int_equal(sandbox_reap(&c, &status), -EAGAIN);
	assert_int_equal(c.pid, pid);
	pidfd = c.pidfd;
	sandbox_kill(&c);
	assert_int_equal(c.pid, -1);
	assert_int_equal(fcntl(pidfd, F_GETFD), -1);
	/* It was reaped here: not even a zombie is left. */
	assert_int_equal(waitpid(pid, &status, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_no_program(void **s)
{
	struct sandbox_child c = SANDBOX_CHILD_NONE;
	char described[80];
	int status = 0;

	sandbox_set_program("/nonexistent/agentd");
	assert_int_equal(sandbox_spawn(&c, "report", NULL, NULL), 0);
	sandbox_set_program("/proc/self/exe");
	wait_readable(c.pidfd);
	assert_int_equal(sandbox_reap(&c, &status), 0);
	sandbox_describe_status(status, described, sizeof(described));
	assert_string_equal(described, "exited with 127 (its program could not be executed)");
	sandbox_kill(&c);
}

/* A parent that dies takes its children along. The test adopts the child to see how it ended. */
static void test_parent_dies(void **s)
{
	int report[2], status;
	pid_t middle, child = -1;

	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	assert_int_equal(pipe(report), 0);
	middle = fork();
	assert_true(middle >= 0);
	if (middle == 0) {
		struct sandbox_child c = SANDBOX_CHILD_NONE;

		if (sandbox_spawn(&c, "hang", NULL, NULL) != 0 ||
			write(report[1], &c.pid, sizeof(c.pid)) != sizeof(c.pid))
			_exit(1);
		_exit(0);
	}
	close(report[1]);
	assert_int_equal(read(report[0], &child, sizeof(child)), sizeof(child));
	close(report[0]);
	assert_int_equal(waitpid(middle, &status, 0), middle);
	assert_int_equal(status, 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	/* By the signal, or by its own look at its parent where that was gone already. */
	assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
		(WIFEXITED(status) && WEXITSTATUS(status) == 126));
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

/* What the kernel says of a child, before it enters and after. */
static void test_look(void **s)
{
	const struct sandbox_policy policy = {.name = "test",
		.syscalls = basic,
		.uid = NOBODY,
		.gid = NOBODY,
		.nofile = RLIM_INFINITY,
		.nproc = RLIM_INFINITY,
		.fsize = RLIM_INFINITY,
		.data = RLIM_INFINITY,
		.as = RLIM_INFINITY,
		.cpu_s = RLIM_INFINITY};
	struct sandbox_seen seen, own;
	int to[2], from[2];
	char byte = 0;
	pid_t pid;

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct err_text err = {""};

		if (read(to[0], &byte, 1) != 1 || sandbox_enter(&policy, &err) != 0 ||
			write(from[1], &byte, 1) != 1)
			_exit(NOT_ENTERED);
		_exit(read(to[0], &byte, 1) == 1 ? 0 : 1);
	}
	/* As its parent: a container may have a filter already. */
	assert_int_equal(sandbox_look(getpid(), &own), 0);
	assert_int_equal(own.no_new_privileges, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	assert_int_equal(own.filtered, prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2);
	assert_int_equal(sandbox_look(pid, &seen), 0);
	assert_int_equal(seen.filtered, own.filtered);
	assert_int_equal(seen.no_new_privileges, own.no_new_privileges);
	assert_int_equal(seen.capabilities, own.capabilities);
	assert_int_equal(seen.uid, 0);
	assert_int_not_equal(seen.capabilities, 0);
	assert_int_equal(write(to[1], &byte, 1), 1);
	close(from[1]);
	assert_int_equal(read(from[0], &byte, 1), 1);
	assert_int_equal(sandbox_look(pid, &seen), 0);
	assert_true(seen.filtered);
	assert_true(seen.no_new_privileges);
	assert_int_equal(seen.uid, NOBODY);
	assert_int_equal(seen.capabilities, 0);
	assert_int_equal(write(to[1], &byte, 1), 1);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(sandbox_look(pid, &seen) < 0);
	close(to[0]);
	close(to[1]);
	close(from[0]);
}

static void test_describe(void **s)
{
	char text[80];

	sandbox_describe_status(SIGSYS, text, sizeof(text));
	assert_string_equal(text, "killed by SIGSYS (a system call outside its list)");
	sandbox_describe_status(SIGTERM, text, sizeof(text));
	assert_string_equal(text, "killed by SIGTERM");
	sandbox_describe_status(1 << 8, text, sizeof(text));
	assert_string_equal(text, "exited with 1");
}

static void test_errors(void **s)
{
	static const char *const many[] = {"a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a",
		"a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a",
		"a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", NULL};
	struct sandbox_child c = SANDBOX_CHILD_NONE;
	struct err_text err = {""};

	assert_int_equal(sandbox_spawn(&c, "report", many, &err), -E2BIG);
	assert_string_equal(err.text, "cannot start the report: Argument list too long");
	assert_int_equal(c.pid, -1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_exec_mappings),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_not_root),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_spawn),
		cmocka_unit_test(test_role_returns),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_no_program),
		cmocka_unit_test(test_parent_dies),
		cmocka_unit_test(test_look),
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_errors),
	};

	if (argc > 2 && streq(argv[1], "--role"))
		return run_role(argc, argv);
	if (geteuid() != 0) {
		fprintf(stderr, "sandbox_test: run this as root: it tests what root loses\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, set_up_identity, NULL);
}
