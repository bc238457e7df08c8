/* SPDX-License-Identifier: Apache-2.0 */

/* The spool alone: what it promised is there after every kind of end.
 *
 * The calls by which it writes are this program's own (a definition here wins over libc's), so that each of them in turn
 * can fail or write half, and so that a loss of power can be played: what was synced is known, everything else is
 * gone. A kill -9 is closing without a commit. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "destinations/spool_private.h"

#define DAY (24 * 3600 * NSEC_PER_SEC)

/* ---- faults -------------------------------------------------------------------------------------- */

static struct {
	long at;    /* the call that fails; -1 none */
	long n;     /* calls so far */
	int error;  /* 0: a write of half the bytes, then ENOSPC */
	bool once;  /* else all that follow fail, too */
	int shadow; /* folder of what was synced; -1: nobody asks */
	char names[64][256];
	uint64_t inodes[64]; /* the spool's folder as of its last sync */
	size_t n_names;
} faults = {.at = -1, .shadow = -1};

static bool strikes(void)
{
	long n = faults.n++;

	if (faults.at < 0 || n < faults.at || (faults.once && n > faults.at))
		return false;
	return true;
}

static int strike(void)
{
	errno = faults.error ? faults.error : ENOSPC;
	return -1;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset);
int fdatasync(int fd);
int fsync(int fd);
int ftruncate(int fd, off_t size);
int fallocate(int fd, int mode, off_t offset, off_t len);
int unlinkat(int dirfd, const char *name, int flags);
int renameat(int from, const char *a, int to, const char *b);

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	if (!strikes())
		return syscall(SYS_pwrite64, fd, data, len, offset);
	if (!faults.error && len > 1)
		return syscall(SYS_pwrite64, fd, data, len / 2, offset);
	return strike();
}

static void copy_to(int from, int dirfd, const char *name)
{
	_cleanup_buf_ struct buf bytes;
	_cleanup_close_ int again = -1, to = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", from);
	again = open(path, O_RDONLY | O_CLOEXEC);
	buf_init(&bytes, 0);
	assert_int_equal(io_read_fd(again, &bytes, 64 << 20), 0);
	to = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(to >= 0);
	assert_int_equal(io_write_all(to, bytes.data, bytes.len), 0);
}

static void remember_file(int fd)
{
	struct stat st;
	char name[40];

	assert_int_equal(fstat(fd, &st), 0);
	snprintf(name, sizeof(name), "%llu", (unsigned long long)st.st_ino);
	copy_to(fd, faults.shadow, name);
}

static void remember_folder(int fd)
{
	int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fdopendir(again);
	const struct dirent *e;

	assert_non_null(d);
	faults.n_names = 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		assert_true(faults.n_names < ARRAY_SIZE(faults.names));
		snprintf(faults.names[faults.n_names], sizeof(faults.names[0]), "%s", e->d_name);
		faults.inodes[faults.n_names++] = e->d_ino;
	}
	closedir(d);
}

int fdatasync(int fd)
{
	int r;

	if (strikes())
		return strike();
	r = (int)syscall(SYS_fdatasync, fd);
	if (r == 0 && faults.shadow >= 0)
		remember_file(fd);
	return r;
}

int fsync(int fd)
{
	if (strikes())
		return strike();
	if (faults.shadow >= 0)
		remember_folder(fd);
	return 0;
}

int ftruncate(int fd, off_t size)
{
	return strikes() ? strike() : (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	return strikes() ? strike() : (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int unlinkat(int dirfd, const char *name, int flags)
{
	return strikes() ? strike() : (int)syscall(SYS_unlinkat, dirfd, name, flags);
}

int renameat(int from, const char *a, int to, const char *b)
{
	return strikes() ? strike() : (int)syscall(SYS_renameat2, from, a, to, b, 0);
}

/* ---- a spool of our own -------------------------------------------------------------------------- */

static uint64_t now_unix, now_boot;

static uint64_t test_unix(void)
{
	return now_unix;
}

static uint64_t test_boot(void)
{
	return now_boot;
}

struct world {
	char path[64];
	int dirfd;
	struct spool *spool;
	struct spool_config config;
};

static int make_folder(char path[64])
{
	int fd;

	/* Where syncing is cheap, if there is such a place: what is synced is played here anyway. */
	snprintf(path, 64, "/dev/shm/odi-spool-test-XXXXXX");
	if (!mkdtemp(path)) {
		snprintf(path, 64, "/tmp/odi-spool-test-XXXXXX");
		assert_non_null(mkdtemp(path));
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void empty_folder(int dirfd)
{
	DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	const struct dirent *e;

	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			(void)syscall(SYS_unlinkat, dirfd, e->d_name, 0);
	closedir(d);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	now_unix = 1800000000 * NSEC_PER_SEC;
	now_boot = 1000 * NSEC_PER_SEC;
	w->dirfd = make_folder(w->path);
	w->config = (struct spool_config){
		.instance = 0x1234567890abcdefULL,
		.unix_ns = test_unix,
		.boottime_ns = test_boot,
		.boot_id = {1, 2, 3},
	};
	faults.at = -1;
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	faults.at = -1;
	spool_close(w->spool);
	empty_folder(w->dirfd);
	rmdir(w->path);
	close(w->dirfd);
	free(w);
	return 0;
}

static void begin(struct world *w)
{
	struct err_text err = {};

	if (spool_open(&w->spool, w->dirfd, &w->config, &err) < 0)
		fail_msg("%s", err.text);
}

static void again(struct world *w)
{
	w->spool = spool_close(w->spool);
	begin(w);
}

/* Content that tells of itself: its number, then bytes that do not compress well. */
static void content(uint64_t serial, size_t size, struct buf *out)
{
	uint64_t x = serial * 0x9e3779b97f4a7c15ULL + 1;

	buf_reset(out);
	buf_add(out, &serial, sizeof(serial));
	while (out->len < size) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		buf_add(out, &x, sizeof(x));
	}
}

static int append(
	struct world *w, uint64_t serial, size_t size, unsigned n, struct spool_batch **ret)
{
	static const uint32_t destinations[] = {7, 8, 9};
	_cleanup_buf_ struct buf bytes;
	struct batch_header h = {.serial = serial,
		.from_unix_ns = now_unix - NSEC_PER_SEC,
		.to_unix_ns = now_unix,
		.boot_id = {1, 2, 3},
		.samples = {100}};

	buf_init(&bytes, 0);
	content(serial, size, &bytes);
	return spool_append(w->spool, &h, bytes.data, bytes.len, destinations, n, ret);
}

static struct spool_batch *put(struct world *w, uint64_t serial, size_t size, unsigned n)
{
	struct spool_batch *b = NULL;

	assert_int_equal(append(w, serial, size, n, &b), 0);
	assert_non_null(b);
	return b;
}

static int progress(struct world *w, struct spool_batch *b, uint32_t destination, uint64_t row,
	uint64_t delivered, uint64_t evicted)
{
	struct message_counts c = {0};

	c.samples[FATE_DELIVERED][0] = delivered;
	c.samples[FATE_EVICTED][0] = evicted;
	return spool_progress(w->spool, b, destination, row, &c, delivered + evicted == 100);
}

static struct spool_batch *find(struct world *w, uint64_t serial)
{
	for (struct spool_batch *b = NULL; (b = spool_next(w->spool, b));)
		if (b->header.serial == serial)
			return b;
	return NULL;
}

static unsigned count(struct world *w)
{
	unsigned n = 0;

	for (struct spool_batch *b = NULL; (b = spool_next(w->spool, b));)
		n++;
	return n;
}

/* 0: as it was written; -EBADMSG: the spool says that it is damaged. Never anything else. */
static int check_bytes(struct world *w, const struct spool_batch *b)
{
	_cleanup_buf_ struct buf is, should;
	int r;

	buf_init(&is, 0);
	buf_init(&should, 0);
	r = spool_read(w->spool, b, &is);
	if (r < 0)
		return r;
	content(b->header.serial, is.len, &should);
	assert_int_equal(is.len, should.len);
	assert_memory_equal(is.data, should.data, is.len);
	return 0;
}

static uint64_t total(struct world *w, uint32_t destination, enum fate fate)
{
	const struct spool_totals *list;
	size_t n = spool_get_totals(w->spool, &list);

	for (size_t i = 0; i < n; i++)
		if (list[i].destination == destination)
			return list[i].settled.samples[fate][0];
	return 0;
}

/* ---- what is promised ---------------------------------------------------------------------------- */

static void test_keeps(void **state)
{
	struct world *w = *state;
	struct spool_state s;

	begin(w);
	for (uint64_t i = 1; i <= 20; i++)
		put(w, i, 1000 * i, 1 + i % 3);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_false(spool_dirty(w->spool));
	again(w);
	assert_int_equal(count(w), 20);
	for (uint64_t i = 1; i <= 20; i++) {
		const struct spool_batch *b = find(w, i);

		assert_non_null(b);
		assert_int_equal(b->n_routes, 1 + i % 3);
		assert_int_equal(b->routes[0].destination, 7);
		assert_int_equal(b->header.samples[0], 100);
		assert_int_equal(check_bytes(w, b), 0);
	}
	spool_get_state(w->spool, &s);
	assert_int_equal(s.damaged, 0);
	assert_int_equal(s.newest_unix_ns, now_unix);
}

static void test_progress(void **state)
{
	struct world *w = *state;
	struct spool_batch *b;

	begin(w);
	b = put(w, 1, 100, 2);
	assert_int_equal(progress(w, b, 7, 5, 40, 0), 0);
	assert_int_equal(progress(w, b, 7, 6, 30, 0), -EBADMSG);  /* less */
	assert_int_equal(progress(w, b, 7, 6, 101, 0), -EBADMSG); /* more than there is */
	assert_int_equal(progress(w, b, 9, 6, 1, 0), -ENOENT);
	assert_int_equal(spool_commit(w->spool), 0);
	again(w);
	b = find(w, 1);
	assert_int_equal(b->routes[0].row, 5);
	assert_int_equal(b->routes[0].counts->samples[FATE_DELIVERED][0], 40);
	assert_null(b->routes[1].counts);
	assert_int_equal(progress(w, b, 7, 9, 60, 40), 0);
	assert_int_equal(progress(w, b, 8, 9, 100, 0), 0);
	assert_null(find(w, 1));
	assert_int_equal(spool_commit(w->spool), 0);
	again(w);
	assert_null(find(w, 1));
	assert_int_equal(total(w, 7, FATE_DELIVERED), 60);
	assert_int_equal(total(w, 7, FATE_EVICTED), 40);
	assert_int_equal(total(w, 8, FATE_DELIVERED), 100);
	spool_reap(w->spool);
	assert_int_equal(spool_commit(w->spool), 0);
	again(w);
	again(w);
	assert_int_equal(total(w, 7, FATE_DELIVERED), 60);
	assert_int_equal(total(w, 8, FATE_DELIVERED), 100);
}

static void read_whole(struct world *w, const char *name, struct buf *out)
{
	buf_reset(out);
	assert_int_equal(io_read_file(w->dirfd, name, out, 64 << 20), 0);
}

static void write_whole(struct world *w, const char *name, const void *data, size_t len)
{
	_cleanup_close_ int fd =
		openat(w->dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, data, len), 0);
}

#define SEGMENT "0000000000000001.segment"

/* A segment or a journal that ends anywhere: what is whole before it is there, and nothing else. */
static void test_torn_tail(void **state)
{
	struct world *w = *state;
	_cleanup_buf_ struct buf segment, journal;
	uint64_t ends[4] = {0};
	unsigned expected;

	buf_init(&segment, 0);
	buf_init(&journal, 0);
	begin(w);
	for (uint64_t i = 1; i <= 3; i++) {
		const struct spool_batch *b = put(w, i, 40 * i, 1);

		ends[i] = b->offset + b->stored;
	}
	assert_int_equal(progress(w, find(w, 1), 7, 3, 50, 0), 0);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_int_equal(progress(w, find(w, 1), 7, 9, 100, 0), 0);
	assert_int_equal(spool_commit(w->spool), 0);
	w->spool = spool_close(w->spool);
	read_whole(w, SEGMENT, &segment);
	read_whole(w, "cursors", &journal);
	(void)syscall(SYS_unlinkat, w->dirfd, "cursors", 0);
	for (size_t len = 0; len <= segment.len; len++) {
		write_whole(w, SEGMENT, segment.data, len);
		begin(w);
		expected = (len >= ends[1]) + (len >= ends[2]) + (len >= ends[3]);
		if (count(w) != expected)
			fail_msg("%u batches of %zu bytes, not %u", count(w), len, expected);
		for (struct spool_batch *b = NULL; (b = spool_next(w->spool, b));)
			assert_int_equal(check_bytes(w, b), 0);
		/* What is written now does not land behind what is torn. */
		put(w, 50, 100, 1);
		assert_int_equal(spool_commit(w->spool), 0);
		again(w);
		assert_int_equal(count(w), expected + 1);
		w->spool = spool_close(w->spool);
		empty_folder(w->dirfd);
	}
	for (size_t len = 0; len <= journal.len && len < 400; len++) {
		struct spool_batch *b;

		write_whole(w, SEGMENT, segment.data, segment.len);
		write_whole(w, "cursors", journal.data, len);
		begin(w);
		b = find(w, 1);
		/* Either as before any progress, or as after the first, or as after the second. */
		if (b)
			assert_true(!b->routes[0].counts ||
				(b->routes[0].row == 3 &&
					b->routes[0].counts->samples[0][0] == 50));
		assert_true(total(w, 7, 0) == 0 || total(w, 7, 0) == 50 || total(w, 7, 0) == 100);
		assert_int_equal(!b, total(w, 7, 0) == 100);
		assert_int_equal(progress(w, find(w, 2), 7, 9, 100, 0), 0);
		assert_int_equal(spool_commit(w->spool), 0);
		again(w);
		assert_null(find(w, 2));
		w->spool = spool_close(w->spool);
		empty_folder(w->dirfd);
	}
}

/* Every byte of a sealed segment, an open one and the journal is damaged in turn. */
static void test_flipped_bits(void **state)
{
	static const char *const files[] = {SEGMENT, "0000000000000004.segment", "cursors"};
	struct world *w = *state;
	struct buf good[ARRAY_SIZE(files)];

	w->config.max_bytes = 1 << 20; /* segments of 256 KiB */
	begin(w);
	for (uint64_t i = 1; i <= 3; i++)
		put(w, i, i == 3 ? 261200 : 60 * i, 2);
	for (uint64_t i = 4; i <= 6; i++)
		put(w, i, 50 * i, 2);
	assert_int_equal(progress(w, find(w, 1), 7, 3, 50, 0), 0);
	assert_int_equal(progress(w, find(w, 4), 7, 3, 100, 0), 0);
	assert_int_equal(spool_commit(w->spool), 0);
	w->spool = spool_close(w->spool);
	for (size_t f = 0; f < ARRAY_SIZE(files); f++) {
		buf_init(&good[f], 0);
		read_whole(w, files[f], &good[f]);
	}
	for (size_t f = 0; f < ARRAY_SIZE(files); f++) {
		size_t step = 1;

		for (size_t at = 0; at < good[f].len && at < 300000; at += step) {
			unsigned bad = 0, n;

			/* The big batch in the middle, and the journal's reserve, only here and there. */
			step = (f == 0 && at > 700 && at + 1200 < good[f].len) ? 9973
				: (f == 2 && at > 700)                         ? 40009
									       : 1;
			for (size_t g = 0; g < ARRAY_SIZE(files); g++)
				write_whole(w, files[g], good[g].data, good[g].len);
			good[f].data[at] ^= (uint8_t)(1U << (at % 8));
			write_whole(w, files[f], good[f].data, good[f].len);
			good[f].data[at] ^= (uint8_t)(1U << (at % 8));
			begin(w);
			n = count(w);
			for (struct spool_batch *b = NULL; (b = spool_next(w->spool, b));) {
				int r = check_bytes(w, b);

				assert_true(r == 0 || r == -EBADMSG);
				bad += r < 0;
			}
			/* One batch at most; a damaged head of a file costs the file. */
			if (at >= 32 ? n - bad < 5 : n < 3)
				fail_msg("byte %zu of %s cost %u batches", at, files[f],
					6 - n + bad);
			w->spool = spool_close(w->spool);
			empty_folder(w->dirfd);
		}
	}
	for (size_t f = 0; f < ARRAY_SIZE(files); f++)
		buf_deinit(&good[f]);
}

/* What was through is not delivered again though its file is still there. */
static void test_dropped_file_comes_back(void **state)
{
	struct world *w = *state;
	_cleanup_buf_ struct buf segment;

	buf_init(&segment, 0);
	begin(w);
	put(w, 1, 300000, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	read_whole(w, SEGMENT, &segment);
	assert_int_equal(progress(w, find(w, 1), 7, 3, 100, 0), 0);
	assert_int_equal(spool_commit(w->spool), 0);
	spool_reap(w->spool);
	assert_int_equal(faccessat(w->dirfd, SEGMENT, F_OK, 0), -1);
	w->spool = spool_close(w->spool);
	write_whole(w, SEGMENT, segment.data, segment.len);
	begin(w);
	assert_int_equal(count(w), 0);
	assert_int_equal(faccessat(w->dirfd, SEGMENT, F_OK, 0), -1);
	assert_int_equal(total(w, 7, FATE_DELIVERED), 100);
}

/* A disk that takes nothing for hours: what is to be noted does not grow meanwhile, and all of it is noted afterwards. */
static void test_failing_for_long(void **state)
{
	struct world *w = *state;
	struct spool_state s;

	begin(w);
	put(w, 1, 300000, 1);
	put(w, 2, 100, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_int_equal(progress(w, find(w, 1), 7, 3, 100, 0), 0);
	assert_int_equal(progress(w, find(w, 2), 7, 3, 100, 0), 0);
	faults.n = faults.at = 0;
	faults.once = false;
	faults.error = EROFS;
	for (unsigned i = 0; i < 30000; i++)
		spool_reap(w->spool);
	faults.at = -1;
	assert_in_range(w->spool->pending.len, 1, SPOOL_PENDING_MAX);
	assert_true(spool_dirty(w->spool));
	spool_get_state(w->spool, &s);
	assert_true(s.progress_behind);
	assert_int_equal(faccessat(w->dirfd, SEGMENT, F_OK, 0), 0);
	assert_int_equal(spool_commit(w->spool), 0);
	spool_reap(w->spool);
	assert_int_equal(faccessat(w->dirfd, SEGMENT, F_OK, 0), -1);
	again(w);
	assert_int_equal(count(w), 0);
	assert_int_equal(total(w, 7, FATE_DELIVERED), 200);
}

static void test_another_installation(void **state)
{
	struct world *w = *state;
	struct spool_state s;

	begin(w);
	put(w, 1, 100, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_int_equal(progress(w, find(w, 1), 7, 3, 50, 0), 0);
	assert_int_equal(spool_commit(w->spool), 0);
	w->spool = spool_close(w->spool);
	w->config.instance++;
	begin(w);
	assert_int_equal(count(w), 0);
	assert_int_equal(total(w, 7, FATE_DELIVERED), 0);
	spool_get_state(w->spool, &s);
	assert_int_equal(s.foreign, 2);
}

static void test_one_at_a_time(void **state)
{
	struct world *w = *state;
	struct spool *other = NULL;
	struct err_text err = {};

	begin(w);
	assert_int_equal(spool_open(&other, w->dirfd, &w->config, &err), -EBUSY);
	assert_null(other);
}

/* ---- bounds -------------------------------------------------------------------------------------- */

static unsigned make_room(struct world *w, uint64_t need)
{
	struct spool_batch *b;
	unsigned n = 0;

	spool_spare_none(w->spool);
	while ((b = spool_over(w->spool, need))) {
		for (uint32_t i = 0; i < b->n_routes; i++) {
			const struct spool_route *r = &b->routes[i];
			uint64_t delivered = r->counts ? r->counts->samples[FATE_DELIVERED][0] : 0;

			if (!r->final)
				assert_int_equal(progress(w, b, r->destination, 0, delivered,
							 100 - delivered),
					0);
		}
		n++;
	}
	return n;
}

static void test_bound_of_bytes(void **state)
{
	struct world *w = *state;
	unsigned evicted = 0;
	struct spool_state s;

	w->config.max_bytes = 4 << 20;
	begin(w);
	for (uint64_t i = 1; i <= 200; i++) {
		evicted += make_room(w, 100000);
		assert_true(spool_has_room(w->spool, 100000));
		put(w, i, 100000, 2);
		assert_int_equal(spool_commit(w->spool), 0);
		spool_reap(w->spool);
		spool_get_state(w->spool, &s);
		assert_true(s.bytes <= 4 << 20);
	}
	assert_true(evicted > 100);
	assert_int_equal(count(w) + evicted, 200);
	assert_null(find(w, 1));
	assert_non_null(find(w, 200));
	/* No gap: the oldest went. */
	assert_int_equal(spool_next(w->spool, NULL)->header.serial, evicted + 1);
	assert_int_equal(total(w, 7, FATE_EVICTED), 100 * evicted);
	again(w);
	assert_int_equal(count(w) + evicted, 200);
	assert_int_equal(total(w, 8, FATE_EVICTED), 100 * evicted);
}

/* What is larger than the whole spool may be drives nothing out of it. */
static void test_larger_than_the_spool(void **state)
{
	struct world *w = *state;

	w->config.max_bytes = 1 << 20;
	begin(w);
	put(w, 1, 100000, 1);
	put(w, 2, 100000, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_true(spool_could_hold(w->spool, 500000));
	assert_false(spool_could_hold(w->spool, 1 << 20)); /* the journal has its room */
	assert_false(spool_has_room(w->spool, 1 << 20));
	assert_null(spool_over(w->spool, 1 << 20));
	assert_null(spool_over(w->spool, UINT64_MAX));
	assert_int_equal(count(w), 2);
}

static void test_spared(void **state)
{
	struct world *w = *state;
	struct spool_batch *first, *b;

	w->config.max_bytes = 1 << 20;
	begin(w);
	first = put(w, 1, 200000, 1);
	for (uint64_t i = 2; i <= 4; i++)
		put(w, i, 200000, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	b = spool_over(w->spool, 300000);
	assert_ptr_equal(b, first);
	spool_spare(w->spool, b);
	b = spool_over(w->spool, 300000);
	assert_int_equal(b->header.serial, 2);
	spool_spare_none(w->spool);
	assert_ptr_equal(spool_over(w->spool, 300000), first);
}

static void test_bound_of_free_room(void **state)
{
	struct world *w = *state;

	w->config.min_free_permille = 1000; /* all of it */
	begin(w);
	assert_false(spool_has_room(w->spool, 100000));
	spool_configure(w->spool, 0, 0, 0);
	assert_true(spool_has_room(w->spool, 1));
	put(w, 1, 300000, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_int_equal(make_room(w, 100000), 0);
	spool_configure(w->spool, 0, 0, 1000);
	/* What is there goes, but no more than there is. */
	assert_int_equal(make_room(w, 100000), 1);
	assert_int_equal(make_room(w, 100000), 0);
}

static void test_age(void **state)
{
	struct world *w = *state;

	begin(w);
	put(w, 1, 100, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	assert_int_equal(spool_next_expiry(w->spool), now_boot + DAY);
	/* The wall clock jumps, the boot clock does not. */
	now_unix += 2 * DAY;
	assert_int_equal(make_room(w, 0), 0);
	now_unix -= 4 * DAY;
	assert_int_equal(make_room(w, 0), 0);
	again(w);
	assert_int_equal(make_room(w, 0), 0);
	/* Suspended for a day. */
	now_boot += DAY + 1;
	assert_int_equal(make_room(w, 0), 1);
	/* Of another boot: there is the wall clock only. */
	now_unix += 2 * DAY;
	put(w, 2, 100, 1);
	assert_int_equal(spool_commit(w->spool), 0);
	w->config.boot_id[0]++;
	again(w);
	now_boot += 10 * DAY;
	assert_int_equal(make_room(w, 0), 0);
	now_unix -= 100 * DAY;
	assert_int_equal(make_room(w, 0), 0);
	now_unix += 102 * DAY;
	assert_int_equal(make_room(w, 0), 1);
}

/* ---- a model, faults and losses of power --------------------------------------------------------- */

#define MODEL_BATCHES 4096

static struct model {
	struct {
		bool put, kept;   /* kept: a commit said so */
		uint64_t told[3]; /* delivered, as it was told after a good commit */
		uint64_t now[3];  /* delivered, as noted */
		unsigned n;
	} batches[MODEL_BATCHES];
	uint64_t n;
	bool behind; /* progress since the last good commit may be lost */
} model;

static uint64_t rng;

static uint64_t random_number(uint64_t bound)
{
	rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
	return rng % bound;
}

static void model_commit(struct world *w, uint64_t first)
{
	int r = spool_commit(w->spool);
	struct spool_state s;

	spool_get_state(w->spool, &s);
	for (uint64_t i = 1; i <= model.n; i++) {
		if (model.batches[i].put && i >= first && r == 0)
			model.batches[i].kept = true;
		if (model.batches[i].put && i >= first && r < 0)
			model.batches[i].put = false;
		if (!s.progress_behind)
			memcpy(model.batches[i].told, model.batches[i].now,
				sizeof(model.batches[i].told));
	}
}

/* After a restart: all that was promised, nothing that cannot be. lost_power: unsynced progress may be gone. */
static void model_check(struct world *w)
{
	for (uint64_t i = 1; i <= model.n; i++) {
		struct spool_batch *b = find(w, i);
		bool through = true;

		for (unsigned d = 0; d < model.batches[i].n; d++)
			through &= model.batches[i].told[d] == 100;
		if (model.batches[i].kept && !through && !b) {
			bool done = true;

			for (unsigned d = 0; d < model.batches[i].n; d++)
				done &= model.batches[i].now[d] == 100;
			if (!done)
				fail_msg("batch %llu was kept and is gone", (unsigned long long)i);
		}
		if (through && b && model.batches[i].kept)
			fail_msg("batch %llu was through and is back", (unsigned long long)i);
		if (!b)
			continue;
		assert_int_equal(check_bytes(w, b), 0);
		for (unsigned d = 0; d < b->n_routes && model.batches[i].kept; d++) {
			uint64_t is = b->routes[d].counts ? b->routes[d].counts->samples[0][0] : 0;

			if (is < model.batches[i].told[d] || is > model.batches[i].now[d])
				fail_msg("batch %llu: %llu delivered, told %llu, noted %llu",
					(unsigned long long)i, (unsigned long long)is,
					(unsigned long long)model.batches[i].told[d],
					(unsigned long long)model.batches[i].now[d]);
		}
	}
}

/* What the spool has now is what there is. */
static void model_adopt(struct world *w)
{
	for (uint64_t i = 1; i <= model.n; i++) {
		const struct spool_batch *b = find(w, i);

		model.batches[i].put = model.batches[i].kept = b != NULL;
		for (unsigned d = 0; b && d < b->n_routes; d++)
			model.batches[i].now[d] = model.batches[i].told[d] =
				b->routes[d].counts ? b->routes[d].counts->samples[0][0] : 0;
		for (unsigned d = 0; !b && d < 3; d++)
			model.batches[i].now[d] = model.batches[i].told[d] = 100;
	}
}

/* Some were given up; nobody was told yet. */
static void model_evicted(struct world *w)
{
	for (uint64_t i = 1; i <= model.n; i++)
		for (unsigned d = 0; model.batches[i].put && !find(w, i) && d < 3; d++)
			model.batches[i].now[d] = 100;
}

static void lose_power(struct world *w)
{
	w->spool = spool_close(w->spool);
	empty_folder(w->dirfd);
	for (size_t i = 0; i < faults.n_names; i++) {
		char name[40];
		int fd;

		snprintf(name, sizeof(name), "%llu", (unsigned long long)faults.inodes[i]);
		fd = openat(faults.shadow, name, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			copy_to(fd, w->dirfd, faults.names[i]);
		else
			write_whole(w, faults.names[i], "", 0);
		closep(&fd);
	}
	/* The inodes are others now. */
	empty_folder(faults.shadow);
	for (size_t i = 0; i < faults.n_names; i++) {
		int fd = openat(w->dirfd, faults.names[i], O_RDONLY | O_CLOEXEC);

		remember_file(fd);
		close(fd);
	}
	remember_folder(w->dirfd);
}

static void random_step(struct world *w, uint64_t *first)
{
	struct spool_batch *b = NULL;
	uint64_t k = random_number(10);

	if (k < 4 && model.n + 1 < MODEL_BATCHES) {
		unsigned n = 1 + (unsigned)random_number(3);

		if (make_room(w, 70000))
			model_evicted(w);
		model.n++;
		memset(&model.batches[model.n], 0, sizeof(model.batches[0]));
		model.batches[model.n].n = n;
		model.batches[model.n].put =
			append(w, model.n, 100 + random_number(60000), n, &b) == 0;
	} else if (k < 8) {
		for (uint64_t steps = random_number(20) + 1; steps-- > 0;)
			b = spool_next(w->spool, b);
		for (uint32_t i = 0; b && i < b->n_routes; i++) {
			uint64_t *now = &model.batches[b->header.serial].now[i];
			uint64_t more = *now + 25 * random_number(5);

			if (b->routes[i].final || random_number(3) == 0)
				continue;
			more = MIN(more, 100ULL);
			assert_int_equal(
				progress(w, b, b->routes[i].destination, more, more, 0), 0);
			*now = more;
		}
	} else {
		model_commit(w, *first);
		*first = model.n + 1;
		spool_reap(w->spool);
	}
}

static void run_schedule(struct world *w, uint64_t seed, unsigned steps)
{
	char shadow[64];
	uint64_t first = 1;

	rng = seed | 1;
	memset(&model, 0, sizeof(model));
	faults.shadow = make_folder(shadow);
	faults.n_names = 0;
	w->config.max_bytes = (1 + random_number(4)) << 20;
	begin(w);
	for (unsigned i = 0; i < steps; i++) {
		if (random_number(40) == 0) {
			static const int errors[] = {0, ENOSPC, EIO, EROFS};

			faults.error = errors[random_number(ARRAY_SIZE(errors))];
			faults.at = faults.n + (long)random_number(6);
			faults.once = random_number(2) == 0;
		}
		if (random_number(20) == 0)
			faults.at = -1;
		random_step(w, &first);
		if (random_number(30))
			continue;
		faults.at = -1;
		if (random_number(2))
			lose_power(w);
		else
			w->spool = spool_close(w->spool);
		begin(w);
		model_check(w);
		model_adopt(w);
		first = model.n + 1;
	}
	faults.at = -1;
	w->spool = spool_close(w->spool);
	empty_folder(w->dirfd);
	empty_folder(faults.shadow);
	rmdir(shadow);
	closep(&faults.shadow);
}

static void test_random_schedules(void **state)
{
	const char *set = getenv("ODI_TEST_SEED"), *rounds = getenv("ODI_TEST_ROUNDS");
	/* The same ones each time, unless many are asked for: what fails then has to do with a change. */
	uint64_t seed = set ? strtoull(set, NULL, 10) : rounds ? clock_monotonic_ns() : 1;
	unsigned long n = rounds ? strtoul(rounds, NULL, 10) : 12;

	for (unsigned long i = 0; i < n; i++, seed += 1000003) {
		printf("seed %llu (ODI_TEST_SEED, ODI_TEST_ROUNDS=1)\n", (unsigned long long)seed);
		fflush(stdout);
		run_schedule(*state, seed, 400);
	}
}

/* A short life with a fault at every call in turn. */
static void life(struct world *w, uint64_t *first)
{
	struct spool_batch *b;

	for (unsigned i = 0; i < 6; i++) {
		model.n++;
		memset(&model.batches[model.n], 0, sizeof(model.batches[0]));
		model.batches[model.n].n = 2;
		model.batches[model.n].put = append(w, model.n, 120000, 2, &b) == 0;
		if (i % 2 == 0)
			continue;
		model_commit(w, *first);
		*first = model.n + 1;
		b = spool_next(w->spool, NULL);
		for (uint32_t k = 0; b && k < b->n_routes; k++) {
			assert_int_equal(progress(w, b, b->routes[k].destination, 9, 100, 0), 0);
			model.batches[b->header.serial].now[k] = 100;
		}
		model_commit(w, *first);
		spool_reap(w->spool);
	}
}

static void test_fault_at_every_call(void **state)
{
	static const int errors[] = {0, ENOSPC, EIO, EROFS};
	struct world *w = *state;
	bool struck = true;

	w->config.max_bytes = 1 << 20;
	for (size_t e = 0; e < ARRAY_SIZE(errors); e++)
		for (int once = 0; once < 2; once++)
			for (long at = 0; struck || at == 0; at++) {
				uint64_t first = 1;

				memset(&model, 0, sizeof(model));
				begin(w);
				faults.n = 0;
				faults.at = at;
				faults.error = errors[e];
				faults.once = once;
				life(w, &first);
				struck = faults.n > at;
				faults.at = -1;
				again(w);
				model_check(w);
				/* And it works again. */
				model_adopt(w);
				first = model.n + 1;
				life(w, &first);
				again(w);
				model_check(w);
				w->spool = spool_close(w->spool);
				empty_folder(w->dirfd);
				assert_true(at < 500);
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		TEST(test_keeps),
		TEST(test_progress),
		TEST(test_torn_tail),
		TEST(test_flipped_bits),
		TEST(test_dropped_file_comes_back),
		TEST(test_failing_for_long),
		TEST(test_another_installation),
		TEST(test_one_at_a_time),
		TEST(test_bound_of_bytes),
		TEST(test_larger_than_the_spool),
		TEST(test_spared),
		TEST(test_bound_of_free_room),
		TEST(test_age),
		TEST(test_fault_at_every_call),
		TEST(test_random_schedules),
	};

	log_init("spool_test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
