/* SPDX-License-Identifier: Apache-2.0 */

/* Files of batches: what is in memory of them, and writing. Their format: spool_segment.h; reading them back:
 * spool_segment_read.c.
 *
 * Records go behind each other, a batch each, compressed; a full segment gets its index and is never written to again. A
 * record that could not be written whole is cut off again; where that fails, too, nothing more goes into the segment.
 * Numbers of batches are never used twice, so neither are names of files. Runs in the exporter. */

#include <fcntl.h>
#include <inttypes.h>

#include "agentd/base/compress.h"
#include "destinations/spool_segment.h"

#define ZSTD_LEVEL 1

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

struct spool_segment *spool_segment_add(struct spool *s, uint64_t first_seq)
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

void spool_batch_add(struct spool *s, struct spool_segment *g, struct spool_batch *b)
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
	struct spool_segment_head h = {
		.magic = SPOOL_SEGMENT_MAGIC, .instance = s->config.instance};
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
	if (!spool_segment_add(s, s->next_seq)) {
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
	struct spool_record_head h = {
		.magic = SPOOL_RECORD_MAGIC,
		.seq = b->seq,
		.boottime_ns = b->boottime_ns,
		.stored = b->stored,
		.raw = b->raw,
		.payload_check = b->check,
		.n_routes = b->n_routes,
		.header = b->header,
	};
	uint32_t routes[PROTOCOL_DESTINATIONS + 1] = {0};
	size_t rest = spool_head_size(b->n_routes) - sizeof(h);

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
	struct spool_segment_tail t = {.magic = SPOOL_TAIL_MAGIC};

	if (!g || g->sealed || s->write_fd < 0)
		return;
	buf_init(&index, SPOOL_INDEX_MAX + sizeof(t));
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
	buf_add(out, zeroes, SPOOL_ALIGN8(packed->len) - packed->len);
	return buf_error(out);
}

int spool_segment_append(struct spool *s, const struct batch_header *header, const void *bytes,
	size_t size, const uint32_t *destinations, size_t n, struct spool_batch **ret)
{
	CLEANUP(spool_batch_freep) struct spool_batch *b = NULL;
	_cleanup_buf_ struct buf packed, record;
	struct spool_segment *g = s->newest;
	int r;

	buf_init(&packed, 0);
	buf_init(&record, 0);
	r = compress_zstd(bytes, size, ZSTD_LEVEL, &packed);
	if (r < 0)
		return r;
	if (g && !g->sealed && g->first &&
		g->size + spool_head_size((uint32_t)n) + packed.len > segment_bytes(s))
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
	b->offset = g->size + spool_head_size(b->n_routes);
	r = put(s, record.data, record.len);
	s->next_seq++;
	if (r < 0) {
		/* It may be there after all, but for its padding. */
		if (g->sealed)
			spool_cursor_discarded(s, b->seq, b->seq);
		return r;
	}
	*ret = b;
	spool_batch_add(s, g, TAKE_PTR(b));
	return 0;
}
