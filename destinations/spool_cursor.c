/* SPDX-License-Identifier: Apache-2.0 */

/* The journal of progress.
 *
 * One file of entries behind each other, each with a check of its own:
 *
 *	PROGRESS  destination, number of a batch, row, counts: absolute, so the last one counts and a repeat is harmless
 *	TOTALS    what a destination settled of batches that are not here any more
 *	DROPPED   batches first to last are through everywhere and their file is to be deleted
 *	DISCARDED batches first to last were written, but syncing them failed and nobody was told of them
 *
 * The deed follows the word: a segment is deleted after DROPPED is on the disk, so one that is still there at a start is
 * deleted then and never delivered again. What was settled in all is TOTALS plus all PROGRESS, dropped or not.
 *
 * When the file has grown to twice of what it has to say it is written anew beside and renamed. Its room is reserved
 * ahead where the file system can, so that a full disk does not keep us from noting what was delivered. A torn end is
 * cut; what is damaged in between costs itself: progress that is lost so is made again, by sending again.
 * Runs in the exporter. */

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "destinations/spool_private.h"

#define JOURNAL_MAGIC 0x3143444fU /* "ODC1" */
#define ENTRY_MAGIC   0x3145444fU /* "ODE1" */
#define COMPACT_MIN   (1ULL << 20)
#define JOURNAL_MAX   (256ULL << 20)
#define CELLS         (FATES * PROTOCOL_TYPES)

enum entry_kind { ENTRY_PROGRESS = 1, ENTRY_TOTALS, ENTRY_DROPPED, ENTRY_DISCARDED };

struct journal_head {
	uint32_t magic, pad;
	uint64_t instance, next_seq;
	uint32_t pad2, check;
};
_Static_assert(sizeof(struct journal_head) == 32, "journal_head");

struct entry_head {
	uint32_t magic, check; /* of this, with 0 here, and the cells */
	uint16_t kind, final;
	uint32_t destination;
	uint64_t seq, row; /* of DROPPED: first, last */
	uint32_t mask;     /* which cells follow: those that are not 0 */
	uint32_t pad;
};
_Static_assert(sizeof(struct entry_head) == 40, "entry_head");
_Static_assert(CELLS == 32, "a bit for each cell");

/* ---- entries ------------------------------------------------------------------------------------- */

static void put_entry(const struct spool *s, struct buf *out, struct entry_head h,
	const struct message_counts *counts)
{
	uint64_t cells[CELLS];
	size_t n = 0;

	h.magic = ENTRY_MAGIC;
	for (size_t i = 0; counts && i < CELLS; i++) {
		uint64_t v = counts->samples[i / PROTOCOL_TYPES][i % PROTOCOL_TYPES];

		if (!v)
			continue;
		h.mask |= 1U << i;
		cells[n++] = v;
	}
	h.check =
		compress_crc32(compress_crc32(s->seed, &h, sizeof(h)), cells, n * sizeof(cells[0]));
	buf_add(out, &h, sizeof(h));
	buf_add(out, cells, n * sizeof(cells[0]));
}

/* The size of the entry at bytes; 0: it is none. */
static size_t get_entry(const struct spool *s, const uint8_t *bytes, size_t len,
	struct entry_head *ret, struct message_counts *counts)
{
	struct entry_head h;
	uint64_t cells[CELLS];
	uint32_t check;
	size_t n, at = 0;

	if (len < sizeof(h))
		return 0;
	memcpy(&h, bytes, sizeof(h));
	n = (size_t)__builtin_popcount(h.mask);
	if (h.magic != ENTRY_MAGIC || len - sizeof(h) < n * sizeof(cells[0]))
		return 0;
	memcpy(cells, bytes + sizeof(h), n * sizeof(cells[0]));
	check = h.check;
	h.check = 0;
	if (compress_crc32(compress_crc32(s->seed, &h, sizeof(h)), cells, n * sizeof(cells[0])) !=
			check ||
		h.kind < ENTRY_PROGRESS || h.kind > ENTRY_DISCARDED || h.final > 1)
		return 0;
	memset(counts, 0, sizeof(*counts));
	for (size_t i = 0; i < CELLS; i++)
		if (h.mask & (1U << i))
			counts->samples[i / PROTOCOL_TYPES][i % PROTOCOL_TYPES] = cells[at++];
	*ret = h;
	return sizeof(h) + n * sizeof(cells[0]);
}

/* ---- totals -------------------------------------------------------------------------------------- */

struct spool_totals *spool_totals_get(struct spool *s, uint32_t destination)
{
	struct spool_totals *grown;

	for (size_t i = 0; i < s->n_totals; i++)
		if (s->totals[i].destination == destination)
			return &s->totals[i];
	grown = reallocarray(s->totals, s->n_totals + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	s->totals = grown;
	grown[s->n_totals] = (struct spool_totals){.destination = destination};
	return &grown[s->n_totals++];
}

void spool_counts_add(struct message_counts *to, const struct message_counts *c, bool minus)
{
	for (size_t i = 0; i < CELLS; i++) {
		uint64_t *cell = &to->samples[i / PROTOCOL_TYPES][i % PROTOCOL_TYPES];
		uint64_t v = c->samples[i / PROTOCOL_TYPES][i % PROTOCOL_TYPES];

		*cell = minus ? *cell - MIN(v, *cell) : *cell + MIN(v, INT64_MAX - *cell);
	}
}

/* ---- reading ------------------------------------------------------------------------------------- */

void spool_replay_deinit(struct spool_replay *r)
{
	r->progress = map_free_with(r->progress, free);
	free(r->dropped);
	free(r->whole);
	*r = (struct spool_replay){0};
}

static int replay_progress(
	struct spool_replay *r, const struct entry_head *h, const struct message_counts *counts)
{
	struct spool_progress_key key = {h->seq, h->destination};
	struct spool_progress_value *v = map_get(r->progress, &key, sizeof(key));
	int error = 0;

	if (!v) {
		v = calloc(1, sizeof(*v));
		if (!v)
			return -ENOMEM;
		error = map_put(r->progress, &key, sizeof(key), v, NULL);
		if (error < 0) {
			free(v);
			return error;
		}
	}
	if (h->row >= v->row) {
		v->row = h->row;
		v->counts = *counts;
		v->final |= h->final != 0;
	}
	return 0;
}

bool spool_was_dropped(const struct spool_replay *r, uint64_t seq, bool file)
{
	for (size_t i = 0; i < r->n_dropped; i++)
		if (seq >= r->dropped[i].first && seq <= r->dropped[i].last &&
			(r->whole[i] || !file))
			return true;
	return false;
}

static int replay_dropped(struct spool *s, struct spool_replay *r, const struct entry_head *h)
{
	struct spool_range *grown = reallocarray(r->dropped, r->n_dropped + 1, sizeof(*grown));
	bool *whole;
	struct map_iter it = {0};

	if (grown)
		r->dropped = grown;
	whole = reallocarray(r->whole, r->n_dropped + 1, sizeof(*whole));
	if (whole)
		r->whole = whole;
	if (!grown || !whole)
		return -ENOMEM;
	whole[r->n_dropped] = h->kind == ENTRY_DROPPED;
	grown[r->n_dropped++] = (struct spool_range){h->seq, h->row};
	if (h->kind == ENTRY_DISCARDED && s->n_discarded < SPOOL_UNDEAD)
		s->discarded[s->n_discarded++] = (struct spool_range){h->seq, h->row};
	while (map_next(r->progress, &it)) {
		const struct spool_progress_key *key = it.key;
		struct spool_progress_value *v = it.value;
		struct spool_totals *t;

		if (key->seq < h->seq || key->seq > h->row)
			continue;
		if (h->kind == ENTRY_DISCARDED) {
			free(map_remove(r->progress, it.key, it.key_len));
			continue;
		}
		t = spool_totals_get(s, (uint32_t)key->destination);
		if (!t)
			return -ENOMEM;
		spool_counts_add(&t->settled, &v->counts, false);
		free(map_remove(r->progress, it.key, it.key_len));
	}
	return 0;
}

static int replay_one(struct spool *s, struct spool_replay *r, const struct entry_head *h,
	const struct message_counts *counts)
{
	struct spool_totals *t;

	switch (h->kind) {
	case ENTRY_PROGRESS:
		s->next_seq = MAX(s->next_seq, h->seq + 1);
		return replay_progress(r, h, counts);
	case ENTRY_DROPPED:
	case ENTRY_DISCARDED:
		s->next_seq = MAX(s->next_seq, h->row + 1);
		return replay_dropped(s, r, h);
	default:
		t = spool_totals_get(s, h->destination);
		if (!t)
			return -ENOMEM;
		t->settled = *counts;
		return 0;
	}
}

/* All entries; *end becomes where the last good one ends. */
static int replay(struct spool *s, struct spool_replay *r, const struct buf *bytes, uint64_t *end)
{
	bool lost = false;
	int error = 0;

	for (size_t at = sizeof(struct journal_head); at < bytes->len && error == 0;) {
		struct entry_head h;
		struct message_counts counts;
		size_t size = get_entry(s, bytes->data + at, bytes->len - at, &h, &counts);

		if (!size) {
			lost = true;
			at += 8;
			continue;
		}
		s->state.damaged += lost;
		lost = false;
		error = replay_one(s, r, &h, &counts);
		at += size;
		*end = at;
	}
	return error;
}

/* 0: it is ours; 1: it is not, or is none. */
static int check_head(struct spool *s, const struct buf *bytes)
{
	struct journal_head h;
	uint32_t check;

	if (bytes->len < sizeof(h))
		return 1;
	memcpy(&h, bytes->data, sizeof(h));
	check = h.check;
	h.check = 0;
	if (h.magic != JOURNAL_MAGIC || compress_crc32(0, &h, sizeof(h)) != check) {
		s->state.damaged++;
		/* Its entries have checks of their own, which begin with the instance. */
		return 0;
	}
	if (h.instance != s->config.instance) {
		s->state.foreign++;
		return 1;
	}
	s->next_seq = MAX(s->next_seq, h.next_seq);
	return 0;
}

int spool_cursor_load(struct spool *s, struct spool_replay *ret)
{
	_cleanup_buf_ struct buf bytes;
	_cleanup_close_ int fd =
		openat(s->dirfd, SPOOL_JOURNAL, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint64_t end = sizeof(struct journal_head);
	int r = map_new(&ret->progress, sizeof(struct spool_progress_key));

	buf_init(&bytes, JOURNAL_MAX);
	if (r < 0)
		return r;
	if (fd < 0 && errno == EROFS)
		fd = openat(s->dirfd, SPOOL_JOURNAL, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = io_read_fd(fd, &bytes, JOURNAL_MAX);
	if (r < 0)
		return r;
	if (check_head(s, &bytes) != 0)
		return 0; /* the first commit makes a new one */
	r = replay(s, ret, &bytes, &end);
	if (r < 0)
		return r;
	/* What is behind the end must not come back between later entries. */
	if (ftruncate(fd, (off_t)end) < 0 || fdatasync(fd) < 0)
		return 0;
	s->journal = TAKE_FD(fd);
	s->journal_size = s->journal_room = end;
	s->compact_at = MAX(2 * end, COMPACT_MIN);
	return 0;
}

/* ---- writing ------------------------------------------------------------------------------------- */

/* What is too much for `pending` is not lost: it fails then, and all is written anew when writing works again. */

static void put_progress(const struct spool *s, struct buf *out, const struct spool_batch *b,
	const struct spool_route *r)
{
	put_entry(s, out,
		(struct entry_head){.kind = ENTRY_PROGRESS,
			.final = r->final,
			.destination = r->destination,
			.seq = b->seq,
			.row = r->row},
		r->counts);
}

static void put_range(
	const struct spool *s, struct buf *out, enum entry_kind kind, struct spool_range range)
{
	put_entry(s, out,
		(struct entry_head){.kind = (uint16_t)kind, .seq = range.first, .row = range.last},
		NULL);
}

void spool_cursor_progress(
	struct spool *s, const struct spool_batch *b, const struct spool_route *r)
{
	put_progress(s, &s->pending, b, r);
}

void spool_cursor_dropped(struct spool *s, uint64_t first, uint64_t last)
{
	put_range(s, &s->pending, ENTRY_DROPPED, (struct spool_range){first, last});
}

void spool_cursor_discarded(struct spool *s, uint64_t first, uint64_t last)
{
	size_t kept = 0;

	/* Those whose file is gone need no word any more. */
	for (size_t i = 0; i < s->n_discarded; i++)
		if (s->oldest && s->discarded[i].last >= s->oldest->first_seq)
			s->discarded[kept++] = s->discarded[i];
	s->n_discarded = kept;
	if (s->n_discarded < SPOOL_UNDEAD)
		s->discarded[s->n_discarded++] = (struct spool_range){first, last};
	put_range(s, &s->pending, ENTRY_DISCARDED, (struct spool_range){first, last});
}

static void reserve(struct spool *s)
{
	if (s->journal_room >= s->journal_size + SPOOL_JOURNAL_ROOM / 4)
		return;
	/* Without it a full disk costs progress; no more. */
	if (fallocate(s->journal, 0, 0, (off_t)(s->journal_size + SPOOL_JOURNAL_ROOM)) == 0)
		s->journal_room = s->journal_size + SPOOL_JOURNAL_ROOM;
}

/* What there is to say, and no more. */
static void build(const struct spool *s, struct buf *out)
{
	struct journal_head h = {
		.magic = JOURNAL_MAGIC, .instance = s->config.instance, .next_seq = s->next_seq};

	h.check = compress_crc32(0, &h, sizeof(h));
	buf_add(out, &h, sizeof(h));
	for (size_t i = 0; i < s->n_totals; i++) {
		struct message_counts settled = s->totals[i].settled;
		uint32_t destination = s->totals[i].destination;

		for (const struct spool_segment *g = s->oldest; g; g = g->next)
			for (const struct spool_batch *b = g->first; b; b = b->next)
				for (uint32_t k = 0; k < b->n_routes; k++)
					if (b->routes[k].destination == destination &&
						b->routes[k].counts)
						spool_counts_add(
							&settled, b->routes[k].counts, true);
		put_entry(s, out,
			(struct entry_head){.kind = ENTRY_TOTALS, .destination = destination},
			&settled);
	}
	for (size_t i = 0; i < s->n_undead; i++)
		put_range(s, out, ENTRY_DROPPED, s->undead[i]);
	for (size_t i = 0; i < s->n_discarded; i++)
		put_range(s, out, ENTRY_DISCARDED, s->discarded[i]);
	for (const struct spool_segment *g = s->oldest; g; g = g->next)
		for (const struct spool_batch *b = g->first; b; b = b->next)
			for (uint32_t k = 0; k < b->n_routes; k++) {
				const struct spool_route *r = &b->routes[k];

				if (r->row || r->final || r->counts)
					put_progress(s, out, b, r);
			}
}

/* The journal anew, in place of the old one. */
static int rewrite(struct spool *s)
{
	_cleanup_buf_ struct buf bytes;
	_cleanup_close_ int fd = -1;
	int r;

	buf_init(&bytes, JOURNAL_MAX);
	build(s, &bytes);
	if (buf_error(&bytes))
		return buf_error(&bytes);
	fd = openat(s->dirfd, SPOOL_JOURNAL_NEW,
		O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = spool_pwrite(fd, bytes.data, bytes.len, 0);
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(s->dirfd, SPOOL_JOURNAL_NEW, s->dirfd, SPOOL_JOURNAL) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(s->dirfd, SPOOL_JOURNAL_NEW, 0);
		return r;
	}
	closep(&s->journal);
	s->journal = TAKE_FD(fd);
	s->journal_size = s->journal_room = bytes.len;
	s->compact_at = MAX(2 * bytes.len, COMPACT_MIN);
	buf_reset(&s->pending);
	s->pending.failed = 0;
	s->journal_dirty = false;
	s->folder_dirty = true;
	reserve(s);
	return 0;
}

static int append(struct spool *s)
{
	int r;

	if (s->pending.len) {
		reserve(s);
		r = spool_pwrite(s->journal, s->pending.data, s->pending.len, s->journal_size);
		if (r < 0)
			return r;
		s->journal_size += s->pending.len;
		s->journal_room = MAX(s->journal_room, s->journal_size);
		buf_reset(&s->pending);
		s->journal_dirty = true;
	}
	if (s->journal_dirty && fdatasync(s->journal) < 0) {
		s->state.sync_errors++;
		return -errno;
	}
	s->journal_dirty = false;
	return 0;
}

int spool_cursor_commit(struct spool *s)
{
	int r;

	if (s->journal < 0 || s->pending.failed)
		r = rewrite(s);
	else
		r = append(s);
	if (r == 0 && s->journal_size > s->compact_at) {
		if (rewrite(s) < 0)
			s->compact_at = s->journal_size + COMPACT_MIN; /* not at each commit */
	}
	/* Until the folder is on the disk a loss of power may bring an old journal back, which knows less. */
	if (r == 0 && s->folder_dirty) {
		if (fsync(s->dirfd) < 0)
			r = -errno;
		else
			s->folder_dirty = false;
	}
	/* A page whose sync failed may be gone though it says that it is clean: all is written anew. */
	if (r < 0 && s->journal_dirty)
		closep(&s->journal);
	s->state.write_errors += r < 0;
	s->state.progress_behind = r < 0;
	return r;
}
