/* SPDX-License-Identifier: Apache-2.0 */

/* A segment of any bytes: the walk over its blocks ends, stays within the file, and what it
 * reads is whole. Corpus: tests/fuzz/corpus/profile_block. */

#include <sys/mman.h>

#include "agentd/base/io.h"
#include "agentd/profile/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct segment_scan scan = {.end = size};
	struct segment_block block;
	_cleanup_buf_ struct buf raw;
	uint64_t last = 0;
	int r;

	buf_init(&raw, 0);
	if (fd < 0)
		fd = memfd_create("segment", MFD_CLOEXEC);
	check(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	while ((r = segment_next(fd, &scan, &block)) > 0) {
		CLEANUP(batch_freep) struct batch *b = NULL;

		check(block.offset >= last);
		last = block.offset + SEGMENT_HEADER + block.stored;
		check(last <= size && scan.offset == last && scan.tail == last);
		if (segment_read(fd, &block, &raw) == 0) {
			check(raw.len == block.raw);
			(void)profile_decode(raw.data, raw.len, &b, NULL);
		}
	}
	check(r == 0 && scan.tail <= size);
	return 0;
}
