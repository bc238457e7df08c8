/* SPDX-License-Identifier: Apache-2.0 */

/* Files of batches, read back: whole ones when the spool is opened, and a single batch when a destination gets to it.
 * Their format: spool_segment.h.
 *
 * With an index a file costs its heads alone, so that opening a full spool reads kilobytes and no batch. Without one (the
 * newest, or a crash came in between) the records are read one by one and their bytes checked: the last one may be torn.
 * What is no record is passed over, up to the next thing that is one with a right check: a flipped bit costs one batch.
 * No record is believed without its check, which begins with the instance's number; a file of another instance is thrown
 * away. Runs in the exporter. */

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "destinations/spool_segment.h"

#define WINDOW (128U << 10)

/* ---- whole files --------------------------------------------------------------------------------- */

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
	const struct spool *s, const uint8_t *bytes, size_t avail, struct spool_record_head *ret)
{
	struct spool_record_head h;
	uint32_t check;
	size_t size;

	if (avail < sizeof(h))
		return 0;
	memcpy(&h, bytes, sizeof(h));
	if (h.magic != SPOOL_RECORD_MAGIC || !h.n_routes || h.n_routes > PROTOCOL_DESTINATIONS ||
		h.raw > PROFILE_MAX_ENCODED || h.stored > 2 * PROFILE_MAX_ENCODED)
		return 0;
	size = spool_head_size(h.n_routes);
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

static int take_record(struct spool *s, struct spool_segment *g, const struct spool_record_head *h,
	const uint8_t *routes, uint64_t payload)
{
	CLEANUP(spool_batch_freep) struct spool_batch *b = calloc(1, sizeof(*b));
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
	spool_batch_add(s, g, TAKE_PTR(b));
	return 0;
}

static bool payload_ok(struct window *w, uint64_t offset, const struct spool_record_head *h)
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
	uint64_t at = sizeof(struct spool_segment_head);
	bool lost = false;
	int r = 0;

	while (at + sizeof(struct spool_record_head) <= w->size && r == 0) {
		struct spool_record_head h;
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
		at += size + SPOOL_ALIGN8(h.stored);
	}
	return r;
}

/* By the index at the end. 0; 1: there is none that can be used. */
static int read_index(struct spool *s, struct spool_segment *g, struct window *w)
{
	struct spool_segment_tail t;
	_cleanup_free_ uint8_t *index = NULL;
	uint64_t payload;
	uint32_t check;
	int r = 0;

	if (w->size < sizeof(struct spool_segment_head) + sizeof(t) ||
		io_pread_all(w->fd, &t, sizeof(t), w->size - sizeof(t)) < 0)
		return 1;
	check = t.check;
	t.check = 0;
	if (t.magic != SPOOL_TAIL_MAGIC || compress_crc32(0, &t, sizeof(t)) != check ||
		t.index_len > SPOOL_INDEX_MAX || t.index_offset > w->size - sizeof(t) ||
		t.index_len != w->size - sizeof(t) - t.index_offset)
		return 1;
	index = malloc(t.index_len + 1);
	if (!index)
		return -ENOMEM;
	if (io_pread_all(w->fd, index, t.index_len, t.index_offset) < 0 ||
		compress_crc32(0, index, t.index_len) != t.index_check)
		return 1;
	for (size_t at = 0; at + sizeof(payload) < t.index_len && r == 0;) {
		struct spool_record_head h;
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
	struct spool_segment_head h;
	uint32_t check;

	if (w->size < sizeof(h))
		return 1; /* torn before anything was in it */
	if (io_pread_all(w->fd, &h, sizeof(h), 0) < 0)
		return -EIO;
	check = h.check;
	h.check = 0;
	if (h.magic != SPOOL_SEGMENT_MAGIC || compress_crc32(0, &h, sizeof(h)) != check) {
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
	g = spool_segment_add(s, first_seq);
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

/* ---- one batch ----------------------------------------------------------------------------------- */

int spool_read(struct spool *s, const struct spool_batch *b, struct buf *out)
{
	_cleanup_free_ uint8_t *stored = malloc((size_t)b->stored + 1);
	int r;

	if (!stored)
		return -ENOMEM;
	if (s->read_segment != b->segment) {
		closep(&s->read_fd);
		s->read_segment = NULL;
		s->read_fd = spool_segment_open(s, b->segment->first_seq, O_RDONLY);
		if (s->read_fd < 0) {
			r = s->read_fd;
			s->read_fd = -1;
			return r;
		}
		s->read_segment = b->segment;
	}
	r = io_pread_all(s->read_fd, stored, b->stored, b->offset);
	if (r < 0)
		return r == -ENODATA ? -EBADMSG : r;
	buf_reset(out);
	if (compress_crc32(0, stored, b->stored) != b->check)
		r = -EBADMSG;
	else
		r = decompress_zstd(stored, b->stored, b->raw, out);
	if (r == 0 && out->len != b->raw)
		r = -EBADMSG;
	if (r == -EBADMSG || r == -EFBIG) {
		s->state.damaged++;
		return -EBADMSG;
	}
	return r;
}
