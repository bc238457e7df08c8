/* SPDX-License-Identifier: Apache-2.0 */

/* gzip and zstd over whole buffers.
 *
 * Compressing serves the wire and the store; decompressing also serves what a stranger sent, where
 * a few bytes may claim to be gigabytes. So output is made in small steps against the caller's
 * bound, sizes that the input states are never believed, and the window that a zstd frame may ask
 * memory for is bounded too.
 *
 * Invariants: on failure out holds what it held before; peak memory is the output, one step, and
 * the library's state (zstd: a window of at most 8 MiB or the caller's max, whichever is more).
 *
 * Source: RFC 1952 (a file is one or more members), RFC 8878 (3.1.1.1.2: 8 MiB is the window that
 * every decoder should take). The exporter, the reader, agentd. */

#include <limits.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "agentd/base/compress.h"

#define STEP            16384
#define GZIP_WINDOW     (15 + 16) /* 32 KiB, gzip's header and trailer */
#define ZLIB_WINDOW     15        /* 32 KiB, zlib's own */
#define ZSTD_WINDOW_LOG 23

/* Takes back what a failed call appended. The buffer's own failure stays: it is the caller's to
 * see. */
static int undo(struct buf *out, size_t len, int r)
{
	if (r < 0 && out->len > len) {
		out->len = len;
		out->data[len] = '\0';
	}
	return r;
}

/* Appends one step of output within the bound. */
static int take_step(struct buf *out, size_t before, size_t max, const void *step, size_t len)
{
	if (len > max - (out->len - before))
		return -EFBIG;
	buf_add(out, step, len);
	return buf_error(out);
}

/* zlib counts its input in unsigned ints. */
static void feed(z_stream *z, size_t *left)
{
	uInt more = (uInt)MIN(*left, (size_t)UINT_MAX - z->avail_in);

	z->avail_in += more;
	*left -= more;
}

static void deflate_endp(z_stream *z)
{
	deflateEnd(z);
}

static void inflate_endp(z_stream *z)
{
	inflateEnd(z);
}

int compress_gzip(const void *data, size_t len, int level, struct buf *out)
{
	CLEANUP(deflate_endp) z_stream z = {.next_in = (Bytef *)data};
	size_t before = out->len, left = len;
	uint8_t step[STEP];
	int r = buf_error(out), done = Z_OK;

	if (level < 1 || level > 9)
		return -EINVAL;
	if (r == 0 &&
		deflateInit2(&z, level, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		r = -ENOMEM;
	while (r == 0 && done != Z_STREAM_END) {
		feed(&z, &left);
		z.next_out = step;
		z.avail_out = sizeof(step);
		done = deflate(&z, left ? Z_NO_FLUSH : Z_FINISH);
		if (done == Z_STREAM_ERROR)
			r = -EIO;
		else
			r = take_step(out, before, SIZE_MAX, step, sizeof(step) - z.avail_out);
	}
	return undo(out, before, r);
}

static int inflate_all(const void *data, size_t len, size_t max, struct buf *out, int window)
{
	CLEANUP(inflate_endp) z_stream z = {.next_in = (Bytef *)data};
	size_t before = out->len, left = len;
	uint8_t step[STEP];
	int r = buf_error(out);

	if (r == 0 && inflateInit2(&z, window) != Z_OK)
		r = -ENOMEM;
	while (r == 0) {
		int done;

		feed(&z, &left);
		z.next_out = step;
		z.avail_out = sizeof(step);
		done = inflate(&z, Z_NO_FLUSH);
		if (done == Z_MEM_ERROR) {
			r = -ENOMEM;
			break;
		}
		/* Z_BUF_ERROR: all input is used, and the member has not ended. */
		if (done != Z_OK && done != Z_STREAM_END) {
			r = -EBADMSG;
			break;
		}
		r = take_step(out, before, max, step, sizeof(step) - z.avail_out);
		if (r < 0 || done != Z_STREAM_END)
			continue;
		if (!z.avail_in && !left)
			break;
		/* Another member, or rubbish, which its header will show. */
		if (inflateReset(&z) != Z_OK)
			r = -EBADMSG;
	}
	return undo(out, before, r);
}

int decompress_gzip(const void *data, size_t len, size_t max, struct buf *out)
{
	return inflate_all(data, len, max, out, GZIP_WINDOW);
}

int decompress_zlib(const void *data, size_t len, size_t max, struct buf *out)
{
	return inflate_all(data, len, max, out, ZLIB_WINDOW);
}

static void free_cctx(ZSTD_CCtx **c)
{
	ZSTD_freeCCtx(*c);
}

static void free_dctx(ZSTD_DCtx **d)
{
	ZSTD_freeDCtx(*d);
}

int compress_zstd(const void *data, size_t len, int level, struct buf *out)
{
	CLEANUP(free_cctx) ZSTD_CCtx *c = NULL;
	ZSTD_inBuffer in = {.src = data, .size = len};
	size_t before = out->len, todo = 1;
	uint8_t step[STEP];
	int r = buf_error(out);

	if (level < 1 || level > 19)
		return -EINVAL;
	if (r < 0)
		return r;
	c = ZSTD_createCCtx();
	if (!c)
		return -ENOMEM;
	/* The size lets the library take tables that fit, and readers check the end. */
	if (ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level)) ||
		ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1)) ||
		ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(c, len)))
		return -EINVAL;
	while (r == 0 && todo) {
		ZSTD_outBuffer to = {.dst = step, .size = sizeof(step)};

		todo = ZSTD_compressStream2(c, &to, &in, ZSTD_e_end);
		if (ZSTD_isError(todo))
			r = ZSTD_getErrorCode(todo) == ZSTD_error_memory_allocation ? -ENOMEM
										    : -EIO;
		else
			r = take_step(out, before, SIZE_MAX, step, to.pos);
	}
	return undo(out, before, r);
}

static int zstd_error(size_t code)
{
	switch (ZSTD_getErrorCode(code)) {
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	case ZSTD_error_frameParameter_windowTooLarge:
		return -EFBIG;
	default:
		return -EBADMSG;
	}
}

int decompress_zstd(const void *data, size_t len, size_t max, struct buf *out)
{
	CLEANUP(free_dctx) ZSTD_DCtx *d = NULL;
	ZSTD_inBuffer in = {.src = data, .size = len};
	size_t before = out->len, todo = 1;
	uint8_t step[STEP];
	int r = buf_error(out), window = ZSTD_WINDOW_LOG;
	bool full = false;

	if (r < 0)
		return r;
	d = ZSTD_createDCtx();
	if (!d)
		return -ENOMEM;
	while (window < 27 && (1ULL << window) < max)
		window++;
	if (ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, window)))
		return -EINVAL;
	/* On while there is input, or output that the last step had no room for. */
	while (r == 0 && (in.pos < in.size || full)) {
		ZSTD_outBuffer to = {.dst = step, .size = sizeof(step)};

		todo = ZSTD_decompressStream(d, &to, &in);
		r = ZSTD_isError(todo) ? zstd_error(todo)
				       : take_step(out, before, max, step, to.pos);
		full = to.pos == to.size && todo != 0;
	}
	/* todo 0 is the end of a frame, and nothing else is an end. */
	if (r == 0 && todo != 0)
		r = -EBADMSG;
	return undo(out, before, r);
}

uint32_t compress_crc32(uint32_t crc, const void *data, size_t len)
{
	/* NULL would mean "the first value" to it. */
	return len ? (uint32_t)crc32_z(crc, data, len) : crc;
}
