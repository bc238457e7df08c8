/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A byte buffer that grows up to a cap. A failed append sets `failed` (-ENOMEM or -E2BIG), later ones do
 * nothing: check once at the end by buf_error(). data is always NUL-terminated when len > 0. */

#include "agentd/base/macros.h"

struct buf {
	uint8_t *data;
	size_t len, size, cap; /* cap 0: no bound but memory */
	int failed;
};

void buf_init(struct buf *b, size_t cap);
void buf_deinit(struct buf *b);
void buf_reset(struct buf *b); /* len 0, keeps the memory */
void buf_add(struct buf *b, const void *data, size_t len);
void buf_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *format, ...) PRINTF(2, 3);
/* Makes room for len more bytes and returns where they go (NULL on failure); buf_commit takes them. */
void *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);
/* The buffer's bytes as a string the caller frees; "" when empty; NULL when it failed. */
char *buf_take_str(struct buf *b);
static inline int buf_error(const struct buf *b)
{
	return b->failed;
}
#define _cleanup_buf_ CLEANUP(buf_deinit)
