/* SPDX-License-Identifier: Apache-2.0 */

/* One message with descriptors over a SOCK_SEQPACKET socket: how the roles talk.
 *
 * The other end may be a process that a hostile file has taken over. So whatever arrives beyond
 * what the caller has room for is refused whole, and every descriptor that came with it is closed:
 * the kernel installs descriptors before we see the message, and a sender who could make us keep
 * some would empty our table.
 *
 * Source: unix(7), cmsg(3). All roles. */

#include <sys/socket.h>

#include "agentd/base/fdpass.h"

union control {
	char bytes[CMSG_SPACE(sizeof(int) * FDPASS_MAX_FDS)];
	struct cmsghdr align;
};

int fdpass_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control = {0};
	ssize_t n;

	/* An empty message would read as the end of the stream. */
	if (!len || n_fds > FDPASS_MAX_FDS)
		return -EINVAL;
	if (len > FDPASS_MAX_MESSAGE)
		return -EMSGSIZE;
	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET || errno == ENOTCONN ? -EPIPE : -errno;
	return 0;
}

/* Hands out the descriptors that came, up to room, and closes all others. How many came. */
static size_t take_fds(struct msghdr *msg, int *fds, size_t room)
{
	size_t came = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
			c->cmsg_len < CMSG_LEN(0))
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (came < room)
				fds[came] = fd;
			else
				close(fd);
			came++;
		}
	}
	return came;
}

ssize_t fdpass_recv(int sock, void *data, size_t size, int *fds, size_t *n_fds)
{
	size_t room = fds && n_fds ? MIN(*n_fds, (size_t)FDPASS_MAX_FDS) : 0, came;
	struct iovec iov = {.iov_base = data, .iov_len = size};
	struct msghdr msg;
	union control control;
	bool was_reset = false;
	ssize_t n;

	if (n_fds)
		*n_fds = 0;
	for (;;) {
		msg = (struct msghdr){.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.bytes,
			.msg_controllen = sizeof(control)};
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
		if (n >= 0)
			break;
		if (errno == EINTR)
			continue;
		/* A peer that ended with messages of ours unread is reported once, ahead of those
		 * that it had sent before; the next call has them, or the end. */
		if (errno != ECONNRESET || was_reset)
			return -errno;
		was_reset = true;
	}
	came = take_fds(&msg, fds, room);
	/* MSG_CTRUNC also when our own table of descriptors is full: then some are missing. */
	if (came > room || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		for (size_t i = 0; i < MIN(came, room); i++)
			close(fds[i]);
		return -EMSGSIZE;
	}
	if (n == 0) {
		for (size_t i = 0; i < came; i++)
			close(fds[i]);
		return 0;
	}
	if (n_fds)
		*n_fds = came;
	return n;
}
