/* SPDX-License-Identifier: Apache-2.0 */

/* The unwinder's sandbox from inside: a process that closed itself in as the role does tries what it
 * must not. And from outside: what the kernel says of the real child, and what it costs. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/sandbox.h"
#include "agentd/unwind/client.h"
#include "agentd/unwind/role.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define LIBC "/lib/x86_64-linux-gnu/libc.so.6"

/* The wait status of a child that enters the sandbox and then does this; its exit code is what it
 * returned. */
static int inside(int (*attempt)(void))
{
	pid_t pid = fork();
	int status = 0;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct err_text err;

		if (sandbox_enter(unwind_role_policy(), &err) < 0)
			syscall(SYS_exit_group, 111);
		syscall(SYS_exit_group, attempt());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int do_nothing(void)
{
	return 42;
}
static int do_open(void)
{
	return (int)syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY) >= 0;
}
static int do_socket(void)
{
	return (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) >= 0;
}
static int do_fork(void)
{
	return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) >= 0;
}
static int do_exec(void)
{
	return (int)syscall(SYS_execve, "/bin/true", NULL, NULL);
}
static int do_kill(void)
{
	return (int)syscall(SYS_kill, getppid(), 0);
}
static int do_ptrace(void)
{
	return (int)syscall(SYS_ptrace, 0, 0, 0, 0);
}
static int do_read_memory(void)
{
	return (int)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
}
static int do_bpf(void)
{
	return (int)syscall(SYS_bpf, 0, NULL, 0);
}
static int do_exec_memory(void)
{
	return (int)syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0) != -1;
}
static int do_unlink(void)
{
	return (int)syscall(SYS_unlinkat, AT_FDCWD, "/tmp/x", 0);
}
__attribute__((unused)) static int do_much_memory(void)
{
	return syscall(SYS_mmap, 0, 151 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0) == -1
		? 42
		: 1;
}

static void test_from_inside(void **state)
{
	static int (*const killed[])(void) = {do_open, do_socket, do_fork, do_exec, do_kill,
		do_ptrace, do_read_memory, do_bpf, do_exec_memory, do_unlink};
	int status = inside(do_nothing);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
#if !defined(SANITIZED) /* whose shadow needs more than any limit */
	status = inside(do_much_memory);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
#endif
	for (size_t i = 0; i < ARRAY_SIZE(killed); i++) {
		status = inside(killed[i]);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("attempt %zu was not stopped: status 0x%x", i, (unsigned)status);
	}
}

/* What a line of /proc/PID/NAME says behind its name. */
static void proc_line(pid_t pid, const char *file, const char *name, char *out, size_t size)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "re");
	assert_non_null(f);
	out[0] = '\0';
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			snprintf(out, size, "%s", line + strlen(name));
	fclose(f);
	out[strcspn(out, "\n")] = '\0';
}

static int fd;
static size_t came;

static int open_file(void *userdata, uint32_t file)
{
	return fd;
}

static void on_page(
	void *userdata, uint32_t file, uint32_t page, const struct rows_slot *slot, size_t size)
{
	came++;
}

static const struct unwinder_ops ops = {.open_file = open_file, .on_page = on_page};

static void test_from_outside(void **state)
{
	struct unwinder_config config = {0};
	struct unwinder *u = NULL;
	sd_event *loop = NULL;
	struct err_text err;
	char text[256];
	size_t fds = 0;
	pid_t pid;
	FILE *f;

	fd = open(LIBC, O_RDONLY | O_CLOEXEC);
	assert_true(sd_event_new(&loop) >= 0);
	assert_int_equal(unwinder_new(&u, loop, &config, &ops, NULL, &err), 0);
	for (uint32_t page = 0; page < 30; page++)
		assert_int_equal(unwinder_ask(u, 1, page), 0);
	while (came < 30)
		assert_true(sd_event_run(loop, 1000000) >= 0);
	pid = unwinder_child_pid(u);
	proc_line(pid, "status", "Seccomp:\t", text, sizeof(text));
	assert_string_equal(text, "2");
	proc_line(pid, "status", "NoNewPrivs:\t", text, sizeof(text));
	assert_string_equal(text, "1");
	proc_line(pid, "status", "CapPrm:\t", text, sizeof(text));
	assert_string_equal(text, "0000000000000000");
	proc_line(pid, "status", "CapEff:\t", text, sizeof(text));
	assert_string_equal(text, "0000000000000000");
	proc_line(pid, "status", "Groups:\t", text, sizeof(text));
	if (geteuid() == 0)
		assert_int_equal(strspn(text, " "), strlen(text));
	proc_line(pid, "status", "Uid:\t", text, sizeof(text));
	if (geteuid() == 0)
		assert_string_equal(text, "65534\t65534\t65534\t65534");
	/* Its standard ones, the socket, the file it holds. */
	snprintf(text, sizeof(text), "ls /proc/%d/fd | wc -l", pid);
	f = popen(text, "re");
	assert_int_equal(fscanf(f, "%zu", &fds), 1);
	pclose(f);
	assert_in_range(fds, 1, 5);
#if !defined(SANITIZED)
	/* Memory is a promise: that which is there for it alone, whoever else has mapped the same files. */
	proc_line(pid, "smaps_rollup", "Private_Dirty:", text, sizeof(text));
	if (*text)
		assert_in_range(strtoul(text, NULL, 10), 100, 1024);
#endif
	/* Left alone, it closes what it holds. */
	for (int i = 0; i < 100; i++) {
		struct timespec t = {.tv_nsec = 50000000};

		snprintf(text, sizeof(text), "ls /proc/%d/fd | wc -l", pid);
		f = popen(text, "re");
		assert_int_equal(fscanf(f, "%zu", &fds), 1);
		pclose(f);
		if (fds <= 4)
			break;
		nanosleep(&t, NULL);
	}
	assert_in_range(fds, 1, 4);
	u = unwinder_free(u);
	sd_event_unref(loop);
	close(fd);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_from_inside),
		cmocka_unit_test(test_from_outside),
	};

	if (argc >= 3 && streq(argv[1], "--role"))
		return unwind_role_main() < 0 ? 1 : 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
