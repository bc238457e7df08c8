/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agentd/base/fdpass.h"

static int ours, theirs;

static int make_pair(void **s)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	ours = pair[0];
	theirs = pair[1];
	return 0;
}

static int close_pair(void **s)
{
	closep(&ours);
	closep(&theirs);
	return 0;
}

static unsigned n_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_message(void **s)
{
	_cleanup_close_ int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct stat a, b;
	char data[64];
	int fds[4], sent[2];
	size_t n_fds = 4;

	sent[0] = sent[1] = file;
	assert_int_equal(fdpass_send(ours, "hello", 5, sent, 2), 0);
	assert_int_equal(fdpass_send(ours, "bye", 3, NULL, 0), 0);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), fds, &n_fds), 5);
	assert_memory_equal(data, "hello", 5);
	assert_int_equal(n_fds, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		assert_int_equal(fstat(fds[i], &a), 0);
		assert_int_equal(fstat(file, &b), 0);
		assert_int_equal(a.st_rdev, b.st_rdev);
		close(fds[i]);
	}
	n_fds = 4;
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), fds, &n_fds), 3);
	assert_int_equal(n_fds, 0);
}

static void test_bounds(void **s)
{
	static uint8_t out[FDPASS_MAX_MESSAGE + 1], in[FDPASS_MAX_MESSAGE];
	int fds[FDPASS_MAX_FDS + 1], got[FDPASS_MAX_FDS];
	size_t n_fds = FDPASS_MAX_FDS;

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 31);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = 2;
	assert_int_equal(fdpass_send(ours, out, sizeof(out), NULL, 0), -EMSGSIZE);
	assert_int_equal(fdpass_send(ours, out, 1, fds, FDPASS_MAX_FDS + 1), -EINVAL);
	assert_int_equal(fdpass_send(ours, out, 0, NULL, 0), -EINVAL);
	assert_int_equal(fdpass_send(ours, out, FDPASS_MAX_MESSAGE, fds, FDPASS_MAX_FDS), 0);
	assert_int_equal(fdpass_recv(theirs, in, sizeof(in), got, &n_fds), FDPASS_MAX_MESSAGE);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(n_fds, FDPASS_MAX_FDS);
	for (size_t i = 0; i < n_fds; i++)
		close(got[i]);
}

/* What is too much is refused whole, and no descriptor stays. */
static void test_too_much(void **s)
{
	char data[8];
	int fds[8] = {2, 2, 2, 2, 2, 2, 2, 2}, got[8];
	unsigned before = n_open();
	size_t n_fds = 8;

	assert_int_equal(fdpass_send(ours, "nine bytes", 10, fds, 3), 0);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), got, &n_fds), -EMSGSIZE);
	assert_int_equal(n_fds, 0);
	n_fds = 2;
	assert_int_equal(fdpass_send(ours, "x", 1, fds, 3), 0);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), got, &n_fds), -EMSGSIZE);
	assert_int_equal(n_fds, 0);
	assert_int_equal(fdpass_send(ours, "x", 1, fds, 1), 0);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), NULL, NULL), -EMSGSIZE);
	assert_int_equal(n_open(), before);
	/* And the socket still works. */
	assert_int_equal(fdpass_send(ours, "x", 1, NULL, 0), 0);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), NULL, NULL), 1);
}

/* More descriptors than any of ours sends: a stranger's message may carry 253. */
static void test_flood_of_descriptors(void **s)
{
	enum { N = 253 };
	static union {
		char bytes[CMSG_SPACE(sizeof(int) * N)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (char[]){'x'}, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	unsigned before = n_open();
	int fds[N], got[FDPASS_MAX_FDS];
	size_t n_fds = FDPASS_MAX_FDS;
	char data[8];

	for (size_t i = 0; i < N; i++)
		fds[i] = 2;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	assert_int_equal(sendmsg(ours, &msg, 0), 1);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), got, &n_fds), -EMSGSIZE);
	assert_int_equal(n_fds, 0);
	assert_int_equal(n_open(), before);

	/* An empty message reads as the end; what came with it is closed. */
	iov.iov_len = 0;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	msg.msg_controllen = CMSG_SPACE(sizeof(int));
	n_fds = FDPASS_MAX_FDS;
	assert_int_equal(sendmsg(ours, &msg, 0), 0);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), got, &n_fds), 0);
	assert_int_equal(n_fds, 0);
	assert_int_equal(n_open(), before);
}

static void test_ends(void **s)
{
	char data[8];

	/* What the peer said last is read although it left our message unread (ECONNRESET). */
	assert_int_equal(fdpass_send(ours, "unread", 6, NULL, 0), 0);
	assert_int_equal(fdpass_send(theirs, "last", 4, NULL, 0), 0);
	closep(&theirs);
	assert_int_equal(fdpass_recv(ours, data, sizeof(data), NULL, NULL), 4);
	assert_memory_equal(data, "last", 4);
	assert_int_equal(fdpass_recv(ours, data, sizeof(data), NULL, NULL), 0);
	/* SIGPIPE would end this test. */
	assert_int_equal(fdpass_send(ours, "x", 1, NULL, 0), -EPIPE);
	assert_int_equal(fdpass_send(-1, "x", 1, NULL, 0), -EBADF);
}

static void test_would_block(void **s)
{
	static char data[60000];
	int r;

	assert_int_equal(fcntl(ours, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(fdpass_recv(ours, data, sizeof(data), NULL, NULL), -EAGAIN);
	for (int i = 0; (r = fdpass_send(ours, data, sizeof(data), NULL, 0)) == 0; i++)
		assert_true(i < 1000);
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(fdpass_recv(theirs, data, sizeof(data), NULL, NULL), sizeof(data));
	assert_int_equal(fdpass_send(ours, data, sizeof(data), NULL, 0), 0);
}

#define with_pair(test) cmocka_unit_test_setup_teardown(test, make_pair, close_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(test_message),
		with_pair(test_bounds),
		with_pair(test_too_much),
		with_pair(test_flood_of_descriptors),
		with_pair(test_ends),
		with_pair(test_would_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
