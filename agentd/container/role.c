/* SPDX-License-Identifier: Apache-2.0 */

/* The sandboxed side: one request with one descriptor in, one flat answer out, until the socket
 * closes. Nothing is kept from one file to the next. A file that exhausts memory or time ends the
 * process; agentd counts it against that file. Runs as `--role container`. */

#include <sys/syscall.h>
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/container/private.h"

static const int syscalls[] = {SYS_read, SYS_pread64, SYS_fstat, SYS_newfstatat, SYS_lseek,
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_brk, SYS_madvise, SYS_futex, SYS_close,
	SYS_recvmsg, SYS_sendmsg, SYS_getrandom, SYS_write, -1};
static const int refused[] = {
#ifdef SYS_open
	SYS_open,
#endif
	SYS_openat, SYS_socket, -1};

static const struct sandbox_policy policy = {
	.name = "container",
	.syscalls = syscalls,
	.refused = refused,
	.deny_paths = true,
	.deny_network = true,
	.uid = 65534,
	.gid = 65534,
	.nofile = 16,
	.nproc = 0,
	.fsize = 0,
	.data = 96UL << 20, /* a tree of json-c takes some 20 times the text */
	.as = 512UL << 20,
	.cpu_s = 10, /* over its life; a fresh child answers what an old one had no time left for */
};

static int answer_one(const struct container_request *request, int fd, struct container_answer *a)
{
	_cleanup_buf_ struct buf data;
	int r;

	buf_init(&data, CONTAINER_FILE_MAX + 1);
	r = io_read_fd(fd, &data, CONTAINER_FILE_MAX);
	if (r < 0)
		return r == -EFBIG || r == -ENOMEM ? r : -EIO;
	if (request->kind == CONTAINER_REQUEST_DOCKER_ROOT)
		return container_parse_docker_root(data.data, data.len, a->path, sizeof(a->path));
	return container_parse(request->runtime, request->id, data.data, data.len, &a->facts);
}

int container_role_main(void)
{
	CLEANUP(closep) int fd = -1;
	struct container_facts warm;
	struct err_text err;

	/* json-c seeds its hash on first use, from a place that is out of reach afterwards. */
	(void)container_parse("", "000000000000", "{\"a\":{\"b\":1}}", 13, &warm);
	if (sandbox_enter(&policy, &err) < 0) {
		log_error("%s", err.text);
		return EXIT_FAILURE;
	}
	for (;;) {
		struct container_request request;
		struct container_answer a = {.magic = CONTAINER_MAGIC};
		size_t n_fds = 1;
		ssize_t len = fdpass_recv(SANDBOX_FD, &request, sizeof(request), &fd, &n_fds);

		if (len == -EINTR)
			continue;
		if (len <= 0)
			return len == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		if (len != sizeof(request) || request.magic != CONTAINER_MAGIC || n_fds != 1)
			return EXIT_FAILURE;
		request.runtime[sizeof(request.runtime) - 1] = 0;
		request.id[sizeof(request.id) - 1] = 0;
		a.serial = request.serial;
		a.result = answer_one(&request, fd, &a);
		closep(&fd);
		if (fdpass_send(SANDBOX_FD, &a, sizeof(a), NULL, 0) < 0)
			return EXIT_FAILURE;
	}
}
