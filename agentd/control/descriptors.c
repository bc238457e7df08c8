/* SPDX-License-Identifier: Apache-2.0 */

/* Descriptors that clients pass beside their requests.
 *
 * The stream does not say which frame a descriptor belongs to: a client sends those of a request with
 * the first byte of its frame (api_call_with()), and the kernel ends a read behind the bytes that
 * descriptors came with (unix(7)). So they wait in the order of the requests, a request takes as many
 * from the front as it says that it brought, and what it brought is closed when it was handled, taken
 * or not: nothing of it may become the next one's. Who may not change anything passes none.
 *
 * Invariant: where no byte of a frame waits, no descriptor does. Runs in agentd. */

#include <sys/socket.h>

#include "agentd/base/log.h"
#include "agentd/control/control_private.h"

int connection_take_fds(struct connection *c, int *fds, size_t n)
{
	if (n > c->n_fds)
		return -EBADMSG;
	memcpy(fds, c->fds, n * sizeof(*fds));
	c->n_fds -= n;
	memmove(c->fds, c->fds + n, c->n_fds * sizeof(*fds));
	return 0;
}

void connection_drop_fds(struct connection *c, size_t n)
{
	int fds[CONTROL_MAX_FDS];

	if (connection_take_fds(c, fds, n) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* They are here before their frame is whole. -EMSGSIZE: too many. */
static int keep_fds(struct connection *c, struct msghdr *m)
{
	int r = m->msg_flags & MSG_CTRUNC ? -EMSGSIZE : 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (c->n_fds < CONTROL_MAX_FDS && c->caller.may_change) {
				c->fds[c->n_fds++] = fd;
			} else {
				close(fd);
				r = -EMSGSIZE;
			}
		}
	}
	return r;
}

ssize_t connection_receive(struct connection *c, void *to, size_t size)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(CONTROL_MAX_FDS * sizeof(int))];
	} control;
	struct iovec v = {to, size};
	struct msghdr m = {.msg_iov = &v,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n >= 0 && keep_fds(c, &m) < 0) {
		log_info(
			"control: a client (pid %d, uid %u) sent descriptors that nobody asked for",
			(int)c->caller.pid, (unsigned)c->caller.uid);
		errno = EMSGSIZE;
		return -1;
	}
	return n;
}
