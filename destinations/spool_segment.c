/* SPDX-License-Identifier: Apache-2.0 */

/* Files of batches.
 *
 * A segment is named by the number of its first batch and begins with a head; records follow, each a head with the
 * numbers of the destinations and a check of its own, then the compressed bytes, whose check is in the head. All is
 * aligned to 8 bytes. A full segment ends with an index (the heads again, each with where its bytes are) and a tail that tells where it is, so that
 * opening a full spool reads kilobytes and no batch.
 *
 * Without an index (the newest, or a crash came in between) the records are read one by one and their bytes checked:
 * the last one may be torn. What is no record is passed over, up to the next thing that is one with a right check: a
 * flipped bit costs one batch. Checks of heads begin with the instance's number, which no profiled program knows, so
 * that none can put what looks like a record into a batch.
 *
 * Writing: a record that could not be written whole is cut off again; where that fails, too, nothing more goes into the
 * segment. Runs in the exporter. */

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "destinations/spool_private.h"

#define SEGMENT_MAGIC 0x3153444fU /* "ODS1" */
#define RECORD_MAGIC  0x3142444fU /* "ODB1" */
#define TAIL_MAGIC    0x3149444fU /* "ODI1" */
#define ZSTD_LEVEL    1
#define WINDOW        (128U << 10)
#define INDEX_MAX     (64U << 20)
#define ALIGN8(n)     (((uint64_t)(n) + 7) & ~7ULL)

struct segment_head {
	uint32_t magic, pad;
	uint64_t instance, first_seq;
	uint32_t pad2, check;
};
_Static_assert(sizeof(struct segment_head) == 32, "segment_head");

struct record_head {
	uint32_t magic;
	uint32_t check; /* of this and the routes, with 0 here */
	uint64_t seq, boottime_ns;
	uint32_t stored, raw, payload_check, n_routes;
	struct batch_header header;
};
_Static_assert(sizeof(struct record_head) == 152, "record_head");

struct segment_tail {
	uint32_t magic, check; /* of this, with 0 here */
	uint64_t index_offset;
	uint32_t index_len, index_check;
};
_Static_assert(sizeof(struct segment_tail) == 24, "segment_tail");

static size_t head_size(uint32_t n_routes)
{
	return sizeof(struct record_head) + ALIGN8(n_routes * sizeof(uint32_t));
}

/* ---- names and memory ---------------------------------------------------------------------------- */

void spool_segment_name(uint64_t first_seq, char out[32])
{
	snprintf(out, 32, "%016" PRIx64 ".segment", first_seq);
}

uint64_t spool_segment_parse(const char *name)
{
	char again[32];
	uint64_t seq = strtoull(name, NULL, 16);

	spool_segment_name(seq, again);
	return streq(again, name) ? seq : 0;
}

int spool_segment_open(const struct spool *s, uint64_t first_seq, int flags)
{
	char name[32];
	int fd;

	spool_segment_name(first_seq, name);
	fd = openat(s->dirfd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	return fd < 0 ? -errno : fd;
}

struct spool_batch *spool_batch_free(struct spool_batch *b)
{
	if (!b)
		return NULL;
	for (uint32_t i = 0; i < b->n_routes; i++)
		free(b->routes[i].counts);
	free(b->routes);
	free(b);
	return NULL;
}
DEFINE_FREEP(batchp, struct spool_batch *, spool_batch_free)

void spool_segment_free(struct spool_segment *g)
{
	while (g->first) {
		struct spool_batch *b = g->first;

		g->first = b->next;
		spool_batch_free(b);
	}
	free(g);
}

void spool_segment_forget(struct spool *s, struct spool_segment *g)
{
	struct spool_segment **p = &s->oldest, *before = NULL;

	while (*p != g) {
		before = *p;
		p = &(*p)->next;
	}
	*p = g->next;
	if (s->newest == g) {
		s->newest = before;
		closep(&s->write_fd);
		s->segment_dirty = false;
	}
	if (s->read_segment == g) {
		closep(&s->read_fd);
		s->read_segment = NULL;
	}
	s->n_segments--;
	s->bytes -= g->size;
	s->n_open -= g->n_open;
	spool_segment_free(g);
}

/* By its first number; files are read in that order. */
static struct spool_segment *add_segment(struct spool *s, uint64_t first_seq)
{
	struct spool_segment *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->first_seq = first_seq;
	g->last_seq = first_seq - 1;
	if (s->newest)
		s->newest->next = g;
	else
		s->oldest = g;
	s->newest = g;
	s->n_segments++;
	return g;
}

static void add_batch(struct spool *s, struct spool_segment *g, struct spool_batch *b)
{
	b->segment = g;
	if (g->last)
		g->last->next = b;
	else
		g->first = b;
	g->last = b;
	g->last_seq = b->seq;
	g->n_open++;
	s->n_open++;
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* The last bytes that were read of a file. */
struct window {
	int fd;
	uint64_t offset, size; /* of the file: size */
	size_t len;
	uint8_t *bytes;
};

static void window_deinit(struct window *w)
{
	free(w->bytes);
	closep(&w->fd);
}

/* len bytes at offset, len at most WINDOW; NULL: they are not there, or reading failed. */
static const uint8_t *window_at(struct window *w, uint64_t offset, size_t len)
{
	uint64_t left;

	if (offset > w->size || len > w->size - offset || len > WINDOW)
		return NULL;
	if (offset >= w->offset && offset + len <= w->offset + w->len)
		return w->bytes + (offset - w->offset);
	left = w->size - offset;
	w->len = 0;
	if (io_pread_all(w->fd, w->bytes, MIN(left, (uint64_t)WINDOW), offset) < 0)
		return NULL;
	w->offset = offset;
	w->len = MIN(left, (uint64_t)WINDOW);
	return w->bytes;
}

static bool header_ok(const struct batch_header *h)
{
	for (size_t t = 0; t < PROTOCOL_TYPES; t++)
		if (h->samples[t] > (t < PROFILE_TYPES ? INT64_MAX : 0))
			return false;
	return true;
}

/* A record's head with its routes at bytes (avail of them). Its size, 0: it is none. */
static size_t head_at(
	const struct spool *s, const uint8_t *bytes, size_t avail, struct record_head *ret)
{
	struct record_head h;
	uint32_t check;
	size_t size;

	if (avail < sizeof(h))
		return 0;
	memcpy(&h, bytes, sizeof(h));
	if (h.magic != RECORD_MAGIC || !h.n_routes || h.n_routes > PROTOCOL_DESTINATIONS ||
		h.raw > PROFILE_MAX_ENCODED || h.stored > 2 * PROFILE_MAX_ENCODED)
		return 0;
	size = head_size(h.n_routes);
	if (avail < size)
		return 0;
	check = h.check;
	h.check = 0;
	if (compress_crc32(compress_crc32(s->seed, &h, sizeof(h)), bytes + sizeof(h),
		    size - sizeof(h)) != check ||
		!header_ok(&h.header))
		return 0;
	*ret = h;
	return size;
}

static int take_record(struct spool *s, struct spool_segment *g, const struct record_head *h,
	const uint8_t *routes, uint64_t payload)
{
	CLEANUP(batchp) struct spool_batch *b = calloc(1, sizeof(*b));
	uint32_t destination;

	if (spool_was_dropped(s->replay, h->seq, false))
		return 0;
	if (!b)
		return -ENOMEM;
	*b = (struct spool_batch){.seq = h->seq,
		.header = h->header,
		.boottime_ns = h->boottime_ns,
		.offset = payload,
		.stored = h->stored,
		.raw = h->raw,
		.check = h->payload_check};
	b->routes = calloc(h->n_routes, sizeof(*b->routes));
	if (!b->routes)
		return -ENOMEM;
	b->n_routes = b->n_open = h->n_routes;
	for (uint32_t i = 0; i < b->n_routes; i++) {
		memcpy(&destination, routes + i * sizeof(destination), sizeof(destination));
		b->routes[i].destination = destination;
	}
	add_batch(s, g, TAKE_PTR(b));
	return 0;
}

static bool payload_ok(struct window *w, uint64_t offset, const struct record_head *h)
{
	uint32_t crc = 0;

	for (uint64_t done = 0; done < h->stored;) {
		size_t n = MIN(h->stored - done, (uint64_t)WINDOW);
		const uint8_t *p = window_at(w, offset + done, n);

		if (!p)
			return false;
		crc = compress_crc32(crc, p, n);
		done += n;
	}
	return crc == h->payload_check;
}

/* Record by record. */
static int scan(struct spool *s, struct spool_segment *g, struct window *w)
{
	uint64_t at = sizeof(struct segment_head);
	bool lost = false;
	int r = 0;

	while (at + sizeof(struct record_head) <= w->size && r == 0) {
		struct record_head h;
		size_t avail = MIN(w->size - at, (uint64_t)WINDOW / 2), size;
		const uint8_t *p = window_at(w, at, avail);

		size = p ? head_at(s, p, avail, &h) : 0;
		if (!size || h.seq <= g->last_seq || h.stored > w->size - at - size) {
			/* Where the next one begins nobody knows. A file's end is no loss of its own:
			 * what is torn there was never promised to anybody. */
			lost = true;
			at += 8;
			continue;
		}
		s->state.damaged += lost;
		lost = false;
		if (payload_ok(w, at + size, &h)) {
			p = window_at(w, at, size);
			r = p ? take_record(s, g, &h, p + sizeof(h), at + size) : -EIO;
		} else {
			s->state.damaged++;
		}
		at += size + ALIGN8(h.stored);
	}
	return r;
}

/* By the index at the end. 0; 1: there is none that can be used. */
static int read_index(struct spool *s, struct spool_segment *g, struct window *w)
{
	struct segment_tail t;
	_cleanup_free_ uint8_t *index = NULL;
	uint64_t payload;
	uint32_t check;
	int r = 0;

	if (w->size < sizeof(struct segment_head) + sizeof(t) ||
		io_pread_all(w->fd, &t, sizeof(t), w->size - sizeof(t)) < 0)
		return 1;
	check = t.check;
	t.check = 0;
	if (t.magic != TAIL_MAGIC || compress_crc32(0, &t, sizeof(t)) != check ||
		t.index_len > INDEX_MAX || t.index_offset > w->size - sizeof(t) ||
		t.index_len != w->size - sizeof(t) - t.index_offset)
		return 1;
	index = malloc(t.index_len + 1);
	if (!index)
		return -ENOMEM;
	if (io_pread_all(w->fd, index, t.index_len, t.index_offset) < 0 ||
		compress_crc32(0, index, t.index_len) != t.index_check)
		return 1;
	for (size_t at = 0; at + sizeof(payload) < t.index_len && r == 0;) {
		struct record_head h;
		size_t size;

		memcpy(&payload, index + at, sizeof(payload));
		at += sizeof(payload);
		size = head_at(s, index + at, t.index_len - at, &h);
		if (!size || h.seq <= g->last_seq || payload > t.index_offset ||
			h.stored > t.index_offset - payload)
			return -EBADMSG;
		r = take_record(s, g, &h, index + at + sizeof(h), payload);
		at += size;
	}
	g->sealed = true;
	return r;
}

static void empty(struct spool *s, struct spool_segment *g)
{
	while (g->first) {
		struct spool_batch *b = g->first;

		g->first = b->next;
		spool_batch_free(b);
	}
	g->last = NULL;
	g->last_seq = g->first_seq - 1;
	s->n_open -= g->n_open;
	g->n_open = 0;
}

/* 0; 1: not one of ours, or not one at all. */
static int check_head(struct spool *s, struct window *w, uint64_t first_seq)
{
	struct segment_head h;
	uint32_t check;

	if (w->size < sizeof(h))
		return 1; /* torn before anything was in it */
	if (io_pread_all(w->fd, &h, sizeof(h), 0) < 0)
		return -EIO;
	check = h.check;
	h.check = 0;
	if (h.magic != SEGMENT_MAGIC || compress_crc32(0, &h, sizeof(h)) != check) {
		/* Its name still says where it belongs; whose it is its records do not say. */
		s->state.damaged++;
		return 1;
	}
	if (h.instance != s->config.instance) {
		s->state.foreign++;
		return 1;
	}
	return h.first_seq == first_seq ? 0 : 1;
}

int spool_segment_load(struct spool *s, uint64_t first_seq, bool newest)
{
	CLEANUP(window_deinit) struct window w = {.fd = -1};
	struct spool_segment *g;
	struct stat st;
	int r;

	w.fd = spool_segment_open(s, first_seq, O_RDONLY);
	if (w.fd < 0)
		return w.fd;
	if (fstat(w.fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 1;
	w.size = (uint64_t)st.st_size;
	w.bytes = malloc(WINDOW);
	if (!w.bytes)
		return -ENOMEM;
	r = check_head(s, &w, first_seq);
	if (r != 0)
		return r;
	g = add_segment(s, first_seq);
	if (!g)
		return -ENOMEM;
	g->size = w.size;
	s->bytes += g->size;
	r = read_index(s, g, &w);
	if (r == 1 || r == -EBADMSG) {
		empty(s, g);
		newest = true;
		r = scan(s, g, &w);
	}
	/* Of a process before: its end may be torn, so nothing is put behind it. What it wrote and did not come to sync
	 * is kept from now on, so it is to survive a loss of power, too. */
	if (newest && fdatasync(w.fd) < 0)
		s->state.sync_errors++;
	g->sealed = true;
	return r;
}

/* ---- writing ------------------------------------------------------------------------------------- */

int spool_pwrite(int fd, const void *data, size_t len, uint64_t offset)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Puts len bytes at the newest segment's end, all or nothing. */
static int put(struct spool *s, const void *data, size_t len)
{
	struct spool_segment *g = s->newest;
	int r = spool_pwrite(s->write_fd, data, len, g->size);

	if (r == 0) {
		g->size += len;
		s->bytes += len;
		s->segment_dirty = true;
		return 0;
	}
	s->state.write_errors++;
	if (ftruncate(s->write_fd, (off_t)g->size) < 0) {
		/* What is torn stays behind the last record, and no other comes behind it. */
		if (fdatasync(s->write_fd) < 0)
			s->seal_error = -errno;
		g->sealed = true;
		s->segment_dirty = false;
		closep(&s->write_fd);
	}
	return r;
}

static int begin(struct spool *s)
{
	struct segment_head h = {.magic = SEGMENT_MAGIC, .instance = s->config.instance};
	char name[32];
	int r;

	/* One that stayed empty has the number that would be the next. */
	if (s->newest)
		s->next_seq = MAX(s->next_seq, s->newest->first_seq + 1);
	h.first_seq = s->next_seq;
	if (s->n_segments >= SPOOL_MAX_SEGMENTS)
		return -EMFILE;
	h.check = compress_crc32(0, &h, sizeof(h));
	/* Numbers are never used twice: a file of that name is one that could not be begun. */
	s->write_fd = spool_segment_open(s, s->next_seq, O_RDWR | O_CREAT | O_TRUNC);
	if (s->write_fd < 0) {
		r = s->write_fd;
		s->write_fd = -1;
		s->state.write_errors++;
		return r;
	}
	if (!add_segment(s, s->next_seq)) {
		r = -ENOMEM;
	} else {
		s->folder_dirty = true;
		r = put(s, &h, sizeof(h));
		if (r == 0)
			return 0;
		spool_segment_forget(s, s->newest);
	}
	closep(&s->write_fd);
	spool_segment_name(h.first_seq, name);
	(void)unlinkat(s->dirfd, name, 0);
	return r;
}

static void put_head(const struct spool *s, struct buf *out, const struct spool_batch *b)
{
	struct record_head h = {
		.magic = RECORD_MAGIC,
		.seq = b->seq,
		.boottime_ns = b->boottime_ns,
		.stored = b->stored,
		.raw = b->raw,
		.payload_check = b->check,
		.n_routes = b->n_routes,
		.header = b->header,
	};
	uint32_t routes[PROTOCOL_DESTINATIONS + 1] = {0};
	size_t rest = head_size(b->n_routes) - sizeof(h);

	for (uint32_t i = 0; i < b->n_routes; i++)
		routes[i] = b->routes[i].destination;
	h.check = compress_crc32(compress_crc32(s->seed, &h, sizeof(h)), routes, rest);
	buf_add(out, &h, sizeof(h));
	buf_add(out, routes, rest);
}

void spool_segment_seal(struct spool *s)
{
	struct spool_segment *g = s->newest;
	_cleanup_buf_ struct buf index = {0};
	struct segment_tail t = {.magic = TAIL_MAGIC};

	if (!g || g->sealed || s->write_fd < 0)
		return;
	buf_init(&index, INDEX_MAX + sizeof(t));
	for (const struct spool_batch *b = g->first; b; b = b->next) {
		buf_add(&index, &b->offset, sizeof(b->offset));
		put_head(s, &index, b);
	}
	t.index_offset = g->size;
	t.index_len = (uint32_t)index.len;
	t.index_check = compress_crc32(0, index.data, index.len);
	t.check = compress_crc32(0, &t, sizeof(t));
	buf_add(&index, &t, sizeof(t));
	/* The records first: an index says that they are on the disk, and whoever finds one does not sync them again. One
	 * that is lost, with the power or for want of room, costs time alone: the file is read record by record. */
	if (s->segment_dirty && fdatasync(s->write_fd) < 0) {
		s->seal_error = -errno;
		s->state.sync_errors++;
	} else if (!buf_error(&index)) {
		(void)put(s, index.data, index.len);
	}
	closep(&s->write_fd);
	s->segment_dirty = false;
	g->sealed = true;
}

static uint64_t segment_bytes(const struct spool *s)
{
	return MAX(MIN(s->config.max_bytes / 64, SPOOL_SEGMENT_MAX), SPOOL_SEGMENT_MIN);
}

static struct spool_batch *new_batch(
	struct spool *s, const struct batch_header *header, const uint32_t *destinations, size_t n)
{
	struct spool_batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->seq = s->next_seq;
	b->header = *header;
	b->boottime_ns = s->config.boottime_ns();
	b->routes = calloc(n, sizeof(*b->routes));
	if (!b->routes)
		return spool_batch_free(b);
	b->n_routes = b->n_open = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		b->routes[i].destination = destinations[i];
	return b;
}

/* The whole record. */
static int build(const struct spool *s, struct spool_batch *b, size_t size,
	const struct buf *packed, struct buf *out)
{
	static const uint8_t zeroes[8];

	b->raw = (uint32_t)size;
	b->stored = (uint32_t)packed->len;
	b->check = compress_crc32(0, packed->data, packed->len);
	put_head(s, out, b);
	buf_add(out, packed->data, packed->len);
	buf_add(out, zeroes, ALIGN8(packed->len) - packed->len);
	return buf_error(out);
}

int spool_segment_append(struct spool *s, const struct batch_header *header, const void *bytes,
	size_t size, const uint32_t *destinations, size_t n, struct spool_batch **ret)
{
	CLEANUP(batchp) struct spool_batch *b = NULL;
	_cleanup_buf_ struct buf packed, record;
	struct spool_segment *g = s->newest;
	int r;

	buf_init(&packed, 0);
	buf_init(&record, 0);
	r = compress_zstd(bytes, size, ZSTD_LEVEL, &packed);
	if (r < 0)
		return r;
	if (g && !g->sealed && g->first &&
		g->size + head_size((uint32_t)n) + packed.len > segment_bytes(s))
		spool_segment_seal(s);
	if (!g || g->sealed)
		r = begin(s);
	if (r < 0)
		return r;
	b = new_batch(s, header, destinations, n);
	if (!b)
		return -ENOMEM;
	r = build(s, b, size, &packed, &record);
	if (r < 0)
		return r;
	g = s->newest;
	b->offset = g->size + head_size(b->n_routes);
	r = put(s, record.data, record.len);
	s->next_seq++;
	if (r < 0) {
		/* It may be there after all, but for its padding. */
		if (g->sealed)
			spool_cursor_discarded(s, b->seq, b->seq);
		return r;
	}
	*ret = b;
	add_batch(s, g, TAKE_PTR(b));
	return 0;
}
