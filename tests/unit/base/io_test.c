/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "agentd/base/io.h"

static char folder[64];

static int make_tmp(void **s)
{
	strcpy(folder, "/tmp/odi-io-test-XXXXXX");
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_tmp(void **s)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static void put_file(const char *name, const char *text)
{
	_cleanup_close_ int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
}

static unsigned n_entries(void)
{
	DIR *d = opendir(".");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_read(void **s)
{
	_cleanup_buf_ struct buf b;
	char big[40001];

	buf_init(&b, 0);
	put_file("ten", "0123456789");
	buf_str(&b, "was here;");
	assert_int_equal(
		io_read_file(IO_NO_FD, "ten", &b, 10), 0); /* the bound itself is allowed */
	assert_string_equal((char *)b.data, "was here;0123456789");
	/* A refused file leaves nothing of itself. */
	assert_int_equal(io_read_file(IO_NO_FD, "ten", &b, 9), -EFBIG);
	assert_int_equal(io_read_file(IO_NO_FD, "ten", &b, 0), -EFBIG);
	assert_string_equal((char *)b.data, "was here;0123456789");
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(io_read_file(IO_NO_FD, "none", &b, 10), -ENOENT);
	assert_int_equal(io_read_file(IO_NO_FD, ".", &b, 10), -EISDIR);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	put_file("big", big);
	buf_reset(&b);
	assert_int_equal(io_read_file(IO_NO_FD, "big", &b, SIZE_MAX), 0);
	assert_int_equal(b.len, sizeof(big) - 1);
	assert_memory_equal(b.data, big, sizeof(big));
	buf_reset(&b);
	assert_int_equal(io_read_file(IO_NO_FD, "big", &b, sizeof(big) - 2), -EFBIG);
	assert_int_equal(b.len, 0);
}

static void test_read_special(void **s)
{
	_cleanup_buf_ struct buf b, small;
	_cleanup_close_ int dir = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	buf_init(&b, 0);
	/* A file without a size, relative to a folder. */
	assert_int_equal(io_read_file(dir, "status", &b, 65536), 0);
	assert_memory_equal(b.data, "Name:", 5);
	/* An endless one. */
	buf_reset(&b);
	assert_int_equal(io_read_file(IO_NO_FD, "/dev/zero", &b, 100000), -EFBIG);
	/* A FIFO that nobody writes to is empty, and is not waited for. */
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(io_read_file(IO_NO_FD, "fifo", &b, 10), 0);
	assert_int_equal(b.len, 0);
	/* The buffer's own bound is an error of its own. */
	buf_init(&small, 4);
	put_file("ten", "0123456789");
	assert_int_equal(io_read_file(IO_NO_FD, "ten", &small, 10), -E2BIG);
	assert_int_equal(small.len, 0);
}

static void test_pread(void **s)
{
	_cleanup_close_ int fd = -1;
	char data[8] = {0};

	put_file("ten", "0123456789");
	fd = open("ten", O_RDONLY | O_CLOEXEC);
	assert_int_equal(io_pread_all(fd, data, 4, 6), 0);
	assert_string_equal(data, "6789");
	assert_int_equal(io_pread_all(fd, data, 5, 6), -ENODATA);
	assert_int_equal(io_pread_all(fd, data, 1, UINT64_MAX), -ENODATA);
	assert_int_equal(io_pread_all(fd, data, 0, 100), 0);
	assert_int_equal(io_pread_all(-1, data, 1, 0), -EBADF);
}

static void ignore(int sig)
{
}

/* Writing more than a pipe holds, in the midst of signals, while a child reads slowly. */
static void test_write_all(void **s)
{
	enum { LEN = 1 << 20 };
	struct itimerval often = {{0, 2000}, {0, 2000}}, off = {0};
	struct sigaction action = {.sa_handler = ignore}; /* no SA_RESTART */
	_cleanup_free_ char *data = malloc(LEN);
	int ends[2], fd = open("copy", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct stat st;
	pid_t pid;

	assert_non_null(data);
	assert_int_equal(pipe(ends), 0);
	for (size_t i = 0; i < LEN; i++)
		data[i] = (char)(i * 7 + i / 251);
	pid = fork();
	if (pid == 0) {
		static char piece[10000];
		ssize_t n;

		close(ends[1]);
		while (usleep(3000) == 0 && (n = read(ends[0], piece, sizeof(piece))) > 0)
			if (write(fd, piece, (size_t)n) != n)
				_exit(1);
		_exit(0);
	}
	close(ends[0]);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	assert_int_equal(io_write_all(ends[1], data, LEN), 0);
	setitimer(ITIMER_REAL, &off, NULL);
	close(ends[1]);
	while (waitpid(pid, NULL, 0) < 0)
		assert_int_equal(errno, EINTR);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, LEN);
	{
		_cleanup_free_ char *back = malloc(LEN);

		assert_non_null(back);
		assert_int_equal(io_pread_all(fd, back, LEN, 0), 0);
		assert_memory_equal(back, data, LEN);
	}
	close(fd);
	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_int_equal(io_write_all(fd, "x", 1), -ENOSPC);
	close(fd);
}

static void test_write_atomic(void **s)
{
	_cleanup_buf_ struct buf b;
	_cleanup_close_ int dir = -1, reader = -1;
	mode_t umask_before = umask(077);
	char old[4] = {0}, name[256];
	struct stat st;
	unsigned before;

	buf_init(&b, 0);
	assert_int_equal(mkdir("d", 0755), 0);
	dir = open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	before = n_entries();
	put_file("d/f", "old");
	reader = open("d/f", O_RDONLY | O_CLOEXEC);
	assert_int_equal(io_write_atomic(dir, "f", "new!", 4, 0644), 0);
	umask(umask_before);
	/* Who had it open still has the old one, whole. */
	assert_int_equal(io_pread_all(reader, old, 3, 0), 0);
	assert_string_equal(old, "old");
	assert_int_equal(io_read_file(dir, "f", &b, 100), 0);
	assert_string_equal((char *)b.data, "new!");
	assert_int_equal(fstatat(dir, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	/* With a path, and with a name as long as names can be. */
	assert_int_equal(io_write_atomic(IO_NO_FD, "d/g", "", 0, 0600), 0);
	assert_int_equal(stat("d/g", &st), 0);
	assert_int_equal(st.st_size, 0);
	memset(name, 'n', 255);
	name[255] = '\0';
	assert_int_equal(io_write_atomic(dir, name, "x", 1, 0600), 0);
	assert_int_equal(io_write_atomic(dir, "", "x", 1, 0600), -EINVAL);
	assert_int_equal(io_write_atomic(dir, "a/", "x", 1, 0600), -EINVAL);
	assert_int_equal(io_write_atomic(dir, "none/a", "x", 1, 0600), -ENOENT);
	/* A failure at the last step leaves no temporary behind. */
	assert_int_equal(mkdir("d/sub", 0755), 0);
	assert_int_equal(io_write_atomic(dir, "sub", "x", 1, 0600), -EISDIR);
	assert_int_equal(fchdir(dir), 0);
	assert_int_equal(n_entries(), 4);
	assert_int_equal(chdir(".."), 0);
	assert_int_equal(n_entries(), before);
}

static void test_sealed(void **s)
{
	_cleanup_close_ int fd = io_sealed_memfd("test", "payload", 7), plain = -1, half = -1,
			    file = -1;
	char data[8] = {0};
	size_t size = 99;

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(read(fd, data, 7), 7); /* from the start */
	assert_string_equal(data, "payload");
	assert_int_equal(pwrite(fd, "X", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 3), -1);
	assert_int_equal(ftruncate(fd, 30), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	assert_int_equal(io_check_sealed(fd, 7, &size), 0);
	assert_int_equal(size, 7);
	size = 99;
	assert_int_equal(io_check_sealed(fd, 6, &size), -EPERM);
	/* What its sender could still change is refused, and so is what is no memfd. */
	plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(io_check_sealed(plain, 100, &size), -EPERM);
	half = memfd_create("half", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(fcntl(half, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	assert_int_equal(io_check_sealed(half, 100, &size), -EPERM);
	put_file("plain", "x");
	file = open("plain", O_RDONLY | O_CLOEXEC);
	assert_int_equal(io_check_sealed(file, 100, &size), -EPERM);
	assert_int_equal(io_check_sealed(-1, 100, &size), -EPERM);
	assert_int_equal(size, 99);
}

static void test_mkdir(void **s)
{
	struct err_text err = {""};
	mode_t umask_before = umask(077);
	char name[5000];
	struct stat st;

	assert_int_equal(io_mkdir_p("p//q/r/", 0750, &err), 0);
	umask(umask_before);
	assert_int_equal(stat("p/q/r", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(stat("p/q", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	/* One that is there keeps its mode. */
	assert_int_equal(io_mkdir_p("p/q/r", 0700, &err), 0);
	assert_int_equal(stat("p/q/r", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(io_mkdir_p("/", 0700, &err), 0);
	assert_string_equal(err.text, "");
	put_file("p/file", "");
	assert_int_equal(io_mkdir_p("p/file", 0700, &err), -ENOTDIR);
	assert_non_null(strstr(err.text, "p/file"));
	assert_int_equal(io_mkdir_p("p/file/x", 0700, &err), -ENOTDIR);
	assert_int_equal(io_mkdir_p("/proc/none/x", 0700, &err), -ENOENT);
	assert_int_equal(io_mkdir_p("", 0700, &err), -EINVAL);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(io_mkdir_p(name, 0700, NULL), -ENAMETOOLONG);
	/* A link to a folder is a folder. */
	assert_int_equal(symlink("p/q", "link"), 0);
	assert_int_equal(io_mkdir_p("link/z", 0700, &err), 0);
	assert_int_equal(stat("p/q/z", &st), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read, make_tmp, remove_tmp),
		cmocka_unit_test_setup_teardown(test_read_special, make_tmp, remove_tmp),
		cmocka_unit_test_setup_teardown(test_pread, make_tmp, remove_tmp),
		cmocka_unit_test_setup_teardown(test_write_all, make_tmp, remove_tmp),
		cmocka_unit_test_setup_teardown(test_write_atomic, make_tmp, remove_tmp),
		cmocka_unit_test_setup_teardown(test_sealed, make_tmp, remove_tmp),
		cmocka_unit_test_setup_teardown(test_mkdir, make_tmp, remove_tmp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
