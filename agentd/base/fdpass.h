/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One message, with descriptors, over a SOCK_SEQPACKET socket: how the roles talk. */

#include "agentd/base/macros.h"

#define FDPASS_MAX_FDS     64
#define FDPASS_MAX_MESSAGE 65536

/* 0, or -errno (-EAGAIN: would block; -EPIPE: the other side is gone). Never raises SIGPIPE. Borrows fds. */
int fdpass_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds);
/* Receives one message of at most size bytes; a longer one, or one with more descriptors than *n_fds, is
 * -EMSGSIZE (its descriptors closed). *n_fds: in the room in fds, out how many came (CLOEXEC, owned by the
 * caller). Returns the length, 0 at the end of the stream (messages are never empty), or -errno. */
ssize_t fdpass_recv(int sock, void *data, size_t size, int *fds, size_t *n_fds);
