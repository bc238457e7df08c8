/* SPDX-License-Identifier: Apache-2.0 */

/* Segments are append-only: a block is written once, whole, and a crash can only leave a torn
 * one at the end. Each header carries a checksum of itself and one of the bytes behind it, so
 * that a file's blocks are found by reading 144 bytes each, and damage anywhere costs the block
 * that it is in: behind a bad header the next good one is looked for, by its magic and its
 * checksum.
 *
 * The checksum is SipHash-1-3 with a fixed key (part of the format): not a defence, but the
 * house has it, and 64 bits of it miss an error once in 2^64. Numbers are little-endian.
 *
 * Written by agentd and by the reader role (roll-ups); read by the reader role. agentd itself
 * reads headers only. */

#include <endian.h>
#include <sys/types.h>

#include "agentd/base/compress.h"
#include "agentd/base/hash.h"
#include "agentd/base/io.h"
#include "agentd/profile/segment.h"

#define MAGIC   0x5049444fU /* "ODIP" */
#define VERSION 1
#define LEVEL   3 /* zstd's own default: 300 MB/s, and higher ones gain a few per cent */
#define SEARCH  65536

struct disk_header {
	uint32_t magic;
	uint8_t version, level;
	uint16_t size;
	uint32_t stored, raw;
	uint64_t check;
	uint8_t boot_id[16];
	uint64_t serial, from, to, revision, samples[8];
	uint64_t header_check; /* of all before */
};
_Static_assert(sizeof(struct disk_header) == SEGMENT_HEADER, "block header");

static const struct hash_key check_key = {{0x6f6469206c6f6361ULL, 0x6c20626c6f636b31ULL}};

static uint64_t checksum(const void *data, size_t len)
{
	return hash_bytes(&check_key, data, len);
}

int segment_put(struct buf *out, const struct batch_header *header, unsigned level, const void *raw,
	size_t len)
{
	struct disk_header h = {.magic = htole32(MAGIC),
		.version = VERSION,
		.level = (uint8_t)level,
		.size = htole16(SEGMENT_HEADER),
		.raw = htole32((uint32_t)len),
		.serial = htole64(header->serial),
		.from = htole64(header->from_unix_ns),
		.to = htole64(header->to_unix_ns),
		.revision = htole64(header->revision)};
	size_t at = out->len, stored;
	int r;

	if (len > PROFILE_MAX_ENCODED)
		return -EFBIG;
	memcpy(h.boot_id, header->boot_id, sizeof(h.boot_id));
	for (size_t i = 0; i < ARRAY_SIZE(h.samples); i++)
		h.samples[i] = htole64(header->samples[i]);
	buf_add(out, &h, sizeof(h)); /* its place */
	r = buf_error(out);
	if (r >= 0)
		r = compress_zstd(raw, len, LEVEL, out);
	if (r < 0)
		return r;
	stored = out->len - at - sizeof(h);
	if (stored > SEGMENT_MAX_BLOCK)
		return -EFBIG;
	h.stored = htole32((uint32_t)stored);
	h.check = htole64(checksum(out->data + at + sizeof(h), stored));
	h.header_check = htole64(checksum(&h, offsetof(struct disk_header, header_check)));
	memcpy(out->data + at, &h, sizeof(h));
	return 0;
}

/* Whether these bytes are a header of ours, whose block ends at or before `end`. */
static bool parse_header(const void *data, uint64_t offset, uint64_t end, struct segment_block *ret)
{
	struct disk_header h;

	memcpy(&h, data, sizeof(h));
	if (le32toh(h.magic) != MAGIC || h.version != VERSION ||
		le16toh(h.size) != SEGMENT_HEADER || h.level >= SEGMENT_LEVELS ||
		le64toh(h.header_check) != checksum(&h, offsetof(struct disk_header, header_check)))
		return false;
	*ret = (struct segment_block){.offset = offset,
		.level = h.level,
		.stored = le32toh(h.stored),
		.raw = le32toh(h.raw),
		.check = le64toh(h.check),
		.header = {.serial = le64toh(h.serial),
			.from_unix_ns = le64toh(h.from),
			.to_unix_ns = le64toh(h.to),
			.revision = le64toh(h.revision)}};
	memcpy(ret->header.boot_id, h.boot_id, sizeof(h.boot_id));
	for (size_t i = 0; i < ARRAY_SIZE(h.samples); i++)
		ret->header.samples[i] = le64toh(h.samples[i]);
	return ret->stored <= SEGMENT_MAX_BLOCK && ret->raw <= PROFILE_MAX_ENCODED &&
		offset + SEGMENT_HEADER + ret->stored <= end;
}

/* Looks for the next good header behind scan->offset. 1, 0, -errno. */
static int search(int fd, const struct segment_scan *scan, struct segment_block *ret)
{
	_cleanup_free_ uint8_t *window = malloc(SEARCH);
	const uint32_t magic = htole32(MAGIC);
	uint64_t at = scan->offset + 1;

	if (!window)
		return -ENOMEM;
	while (at + SEGMENT_HEADER <= scan->end) {
		size_t len = (size_t)MIN((uint64_t)SEARCH, scan->end - at);
		uint8_t *p = window;
		int r = io_pread_all(fd, window, len, at);

		if (r < 0)
			return r;
		while ((p = memmem(p, len - (size_t)(p - window), &magic, sizeof(magic)))) {
			size_t in = (size_t)(p - window);

			if (in + SEGMENT_HEADER > len)
				break; /* the next window has all of it */
			if (parse_header(p, at + in, scan->end, ret))
				return 1;
			p++;
		}
		at += MAX(len - (SEGMENT_HEADER - 1), (size_t)1);
	}
	return 0;
}

int segment_next(int fd, struct segment_scan *scan, struct segment_block *ret)
{
	uint8_t header[SEGMENT_HEADER];
	int r = 0;

	if (scan->offset >= scan->end)
		return 0;
	if (scan->end - scan->offset >= SEGMENT_HEADER) {
		r = io_pread_all(fd, header, sizeof(header), scan->offset);
		if (r < 0)
			return r;
		r = parse_header(header, scan->offset, scan->end, ret);
	}
	if (!r) {
		scan->damaged++;
		r = search(fd, scan, ret);
		if (r <= 0) {
			scan->offset = scan->end;
			return r;
		}
	}
	scan->offset = ret->offset + SEGMENT_HEADER + ret->stored;
	scan->tail = scan->offset;
	return 1;
}

static int read_stored(int fd, const struct segment_block *block, uint8_t **ret)
{
	_cleanup_free_ uint8_t *stored = malloc(block->stored + 1U);
	int r;

	if (!stored)
		return -ENOMEM;
	r = io_pread_all(fd, stored, block->stored, block->offset + SEGMENT_HEADER);
	if (r < 0)
		return r;
	if (checksum(stored, block->stored) != block->check)
		return -EBADMSG;
	*ret = TAKE_PTR(stored);
	return 0;
}

int segment_check(int fd, const struct segment_block *block)
{
	_cleanup_free_ uint8_t *stored = NULL;

	return read_stored(fd, block, &stored);
}

int segment_read(int fd, const struct segment_block *block, struct buf *raw)
{
	_cleanup_free_ uint8_t *stored = NULL;
	int r = read_stored(fd, block, &stored);

	if (r < 0)
		return r;
	buf_reset(raw);
	r = decompress_zstd(stored, block->stored, block->raw, raw);
	if (r >= 0 && raw->len != block->raw)
		return -EBADMSG;
	return r == -EFBIG ? -EBADMSG : r;
}
