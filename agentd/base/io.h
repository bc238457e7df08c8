/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Files, whole and bounded. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"

#define IO_NO_FD -1

/* Reads to the end or -EFBIG past max bytes. Works for /proc (size 0) files. */
int io_read_fd(int fd, struct buf *out, size_t max);
int io_read_file(int dirfd, const char *path, struct buf *out, size_t max);
/* All of it, over EINTR and short writes. */
int io_write_all(int fd, const void *data, size_t len);
int io_pread_all(int fd, void *data, size_t len, uint64_t offset); /* -ENODATA at an early end */
/* A temporary in the same folder, fsync, rename, fsync of the folder. */
int io_write_atomic(int dirfd, const char *name, const void *data, size_t len, unsigned mode);
/* A memfd with these bytes, sealed (write, shrink, grow, seal), position 0. Returns the descriptor. */
int io_sealed_memfd(const char *name, const void *data, size_t len);
/* 0 if fd is a memfd sealed as above and at most max bytes, *size set; -EPERM otherwise. */
int io_check_sealed(int fd, size_t max, size_t *size);
/* mkdir -p, last part with mode, checked to be a folder. */
int io_mkdir_p(const char *path, unsigned mode, struct err_text *err);
