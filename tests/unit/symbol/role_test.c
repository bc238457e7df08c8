/* SPDX-License-Identifier: Apache-2.0 */

/* The symbolizer's sandbox from inside: a process that closed itself in as the role does tries what it must not. And
 * from outside: what the kernel says of the real child. */

#include <sys/socket.h>
#include <sys/syscall.h>
#include "tests/unit/symbol/elf_builder.h"
#include "tests/unit/symbol/support.h"
#include "agentd/symbol/role.h"

/* The wait status of a child that enters the sandbox and then does this; its exit code is what it returned. */
static int inside(int (*attempt)(void))
{
	pid_t pid = fork();
	int status = 0;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct err_text err;

		if (sandbox_enter(symbol_role_policy(), &err) < 0)
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
static int do_exec_memory(void)
{
	return (int)syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0) != -1;
}
static int do_unlink(void)
{
	return (int)syscall(SYS_unlinkat, AT_FDCWD, "/tmp/x", 0);
}
static int do_readlink(void)
{
	char out[64];

	return syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", out, sizeof(out)) < 0 &&
			errno == EACCES
		? 42
		: 1;
}
/* glibc before 2.33 has realpath() call it */
static int do_lstat(void)
{
#ifdef SYS_lstat
	struct stat st;

	return syscall(SYS_lstat, "/proc/self", &st) < 0 && errno == EACCES ? 42 : 1;
#else
	return 42;
#endif
}
static void test_from_inside(void **state)
{
	static int (*const killed[])(void) = {do_open, do_socket, do_fork, do_exec, do_kill,
		do_ptrace, do_exec_memory, do_unlink};
	int status = inside(do_nothing);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	status = inside(do_readlink);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	status = inside(do_lstat);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	for (size_t i = 0; i < ARRAY_SIZE(killed); i++) {
		status = inside(killed[i]);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("attempt %zu was not stopped: status 0x%x", i, (unsigned)status);
	}
}

static void status_line(pid_t pid, const char *name, char *out, size_t size)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	out[0] = '\0';
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			snprintf(out, size, "%s", line + strlen(name));
	fclose(f);
	out[strcspn(out, "\n")] = '\0';
}

static void test_from_outside(void **state)
{
	static const struct built_symbol one[] = {{"alpha", 0, 16, STT_FUNC, STB_GLOBAL}};
	CLEANUP(built_free) struct built b = {0};
	struct room room;
	char text[256];
	size_t fds = 0;
	pid_t pid;
	FILE *f;

	built_init(&b, one, 1);
	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, memfd_of(b.data, b.len), "lib.so");
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "alpha");
	pid = symbol_child_pid(room.s);
	status_line(pid, "Seccomp:\t", text, sizeof(text));
	assert_string_equal(text, "2");
	status_line(pid, "NoNewPrivs:\t", text, sizeof(text));
	assert_string_equal(text, "1");
	status_line(pid, "CapPrm:\t", text, sizeof(text));
	assert_string_equal(text, "0000000000000000");
	status_line(pid, "CapEff:\t", text, sizeof(text));
	assert_string_equal(text, "0000000000000000");
	status_line(pid, "Groups:\t", text, sizeof(text));
	if (geteuid() == 0)
		assert_int_equal(strspn(text, " "), strlen(text));
	status_line(pid, "Uid:\t", text, sizeof(text));
	if (geteuid() == 0)
		assert_string_equal(text, "65534\t65534\t65534\t65534");
	/* Its standard ones, the socket, the file it holds. */
	snprintf(text, sizeof(text), "ls /proc/%d/fd | wc -l", pid);
	f = popen(text, "re");
	assert_int_equal(fscanf(f, "%zu", &fds), 1);
	pclose(f);
	assert_in_range(fds, 1, 5);
	room_deinit(&room);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_from_inside),
		cmocka_unit_test(test_from_outside),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
