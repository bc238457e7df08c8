/* SPDX-License-Identifier: Apache-2.0 */

/* A spool of any content: opening it, reading what it says is there, and working on must not break anything. The first
 * byte says which file the rest is, and whether its checks are made right, so that what is behind them is reached.
 * libFuzzer. */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "destinations/spool_private.h"

#define INSTANCE 0x1122334455667788ULL
#define SEED     ((uint32_t)(INSTANCE ^ INSTANCE >> 32))
#define FILE_MAX 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put32(uint8_t *at, uint32_t v)
{
	memcpy(at, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* The head that both kinds of files begin with: 32 bytes, magic first, check last. */
static void mend_head(uint8_t *bytes, uint32_t magic)
{
	const uint64_t instance = INSTANCE, first = 1;

	put32(bytes, magic);
	put32(bytes + 4, 0);
	memcpy(bytes + 8, &instance, sizeof(instance));
	memcpy(bytes + 16, &first, sizeof(first));
	put32(bytes + 24, 0);
	put32(bytes + 28, 0);
	put32(bytes + 28, compress_crc32(0, bytes, 32));
}

static void mend_segment(uint8_t *bytes, size_t size)
{
	mend_head(bytes, 0x3153444fU);
	for (size_t at = 32; at + 152 <= size;) {
		uint8_t *h = bytes + at;
		uint32_t routes = get32(h + 36) % 8 + 1;
		size_t head = 152 + ((routes * 4 + 7) & ~7U), stored = get32(h + 24) % 512;

		if (at + head + stored > size)
			return;
		put32(h, 0x3142444fU);
		put32(h + 24, (uint32_t)stored);
		put32(h + 28, get32(h + 28) % 4096);
		put32(h + 36, routes);
		memset(h + 40 + 48 + 8, 0, 56); /* samples of the types that there are not */
		put32(h + 32, compress_crc32(0, h + head, stored));
		put32(h + 4, 0);
		put32(h + 4, compress_crc32(SEED, h, head));
		at += head + ((stored + 7) & ~7U);
	}
}

static void mend_journal(uint8_t *bytes, size_t size)
{
	mend_head(bytes, 0x3143444fU);
	for (size_t at = 32; at + 40 <= size;) {
		uint8_t *h = bytes + at;
		size_t len = 40 + 8 * (size_t)__builtin_popcount(get32(h + 32));

		if (at + len > size)
			return;
		put32(h, 0x3145444fU);
		h[8] = h[8] % 4 + 1;
		h[9] = 0;
		h[10] &= 1;
		h[11] = 0;
		put32(h + 4, 0);
		put32(h + 4, compress_crc32(SEED, h, len));
		at += len;
	}
}

static void put_file(int dirfd, const char *name, const uint8_t *data, size_t size)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || io_write_all(fd, data, size) < 0)
		abort();
}

static void empty(int dirfd)
{
	DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY));
	const struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			(void)unlinkat(dirfd, e->d_name, 0);
	if (d)
		closedir(d);
}

static void use(struct spool *s)
{
	static const uint32_t destinations[] = {1, 2};
	_cleanup_buf_ struct buf bytes;
	struct spool_batch *b, *next;
	struct batch_header header = {.serial = 9, .samples = {5}};
	struct spool_state state;
	unsigned n = 0;

	buf_init(&bytes, 0);
	for (b = NULL; (b = spool_next(s, b));) {
		(void)spool_read(s, b, &bytes);
		n++;
	}
	spool_get_state(s, &state);
	if (n != state.batches)
		abort();
	for (next = spool_next(s, NULL); (b = next);) {
		next = spool_next(s, b);
		for (uint32_t i = 0; i < b->n_routes; i++) {
			struct message_counts c = {0};

			if (b->routes[i].counts)
				c = *b->routes[i].counts;
			for (size_t t = 0; t < PROFILE_TYPES; t++) {
				uint64_t left = b->header.samples[t];

				for (size_t f = 0; f < FATES; f++)
					left -= c.samples[f][t];
				c.samples[FATE_EVICTED][t] += left;
			}
			(void)spool_progress(s, b, b->routes[i].destination, UINT64_MAX, &c, true);
		}
	}
	(void)spool_append(s, &header, "bytes", 5, destinations, 2, &b);
	(void)spool_commit(s);
	spool_reap(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[] = "/dev/shm/odi-fuzz-spool-XXXXXX";
	static int dirfd = -1;
	struct spool_config config = {.instance = INSTANCE};
	static uint8_t bytes[FILE_MAX];
	struct err_text err = {};
	struct spool *s = NULL;
	uint8_t how;

	if (dirfd < 0) {
		log_init("fuzz", LOG_LEVEL_ERROR);
		dirfd = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY) : -1;
		if (dirfd < 0)
			abort();
	}
	if (size < 40 || size - 1 > FILE_MAX)
		return 0;
	how = *data++;
	size--;
	memcpy(bytes, data, size);
	if (how & 2)
		how & 1 ? mend_segment(bytes, size) : mend_journal(bytes, size);
	put_file(dirfd, how & 1 ? "0000000000000001.segment" : "cursors", bytes, size);
	if (spool_open(&s, dirfd, &config, &err) == 0) {
		use(s);
		s = spool_close(s);
		/* What it made of it opens again. */
		if (spool_open(&s, dirfd, &config, &err) < 0)
			abort();
		s = spool_close(s);
	}
	empty(dirfd);
	return 0;
}
