/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "agentd/base/buf.h"

/* Whole buffers; appended to out. level: 1 to 9 (gzip), 1 to 19 (zstd). 0 or -errno. */
int compress_gzip(const void *data, size_t len, int level, struct buf *out);
int compress_zstd(const void *data, size_t len, int level, struct buf *out);
/* Refuse (-EFBIG) past max bytes of output, whatever the input claims; -EBADMSG on damage. */
int decompress_gzip(const void *data, size_t len, size_t max, struct buf *out);
/* RFC 1950, as ELF sections have it. */
int decompress_zlib(const void *data, size_t len, size_t max, struct buf *out);
int decompress_zstd(const void *data, size_t len, size_t max, struct buf *out);

/* CRC-32 (IEEE 802.3) over pieces; 0 first. */
uint32_t compress_crc32(uint32_t crc, const void *data, size_t len);
