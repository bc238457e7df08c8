/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A tar archive of small files, in memory (POSIX.1-1988 ustar). */

#include "agentd/base/buf.h"

/* Names of at most 100 bytes; regular files, 0600, of root. Errors stay in out. */
void tar_add(struct buf *out, const char *name, const void *data, size_t len, uint64_t mtime_s);
void tar_end(struct buf *out);
