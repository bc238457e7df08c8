/* SPDX-License-Identifier: Apache-2.0 */

/* The spool as a whole: opening, what is kept. Bounds are in spool_bounds.c.
 *
 * Memory holds a small record for each batch and its routes, no bytes of it; bytes are read when a destination gets to
 * the batch. Two files are open at a time: the segment that is written and the one that is read.
 *
 * Opening reads the journal, then the segments in order: those that it says are through are deleted, the others' batches
 * get their progress. What a process before wrote and did not sync is synced then. Nothing is ever appended to a file of
 * a process before. Runs in the exporter. */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "destinations/spool_private.h"

#define MAX_BYTES_DEFAULT  (512ULL << 20)
#define MAX_AGE_DEFAULT_NS (24 * 3600 * NSEC_PER_SEC)
#define BYTES_MIN          (1ULL << 20)
_Static_assert(SPOOL_JOURNAL_ROOM < BYTES_MIN, "there is room beside the journal");

/* ---- opening ------------------------------------------------------------------------------------- */

static int take_lock(struct spool *s, struct err_text *err)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	s->lock = openat(
		s->dirfd, SPOOL_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (s->lock < 0)
		return err_set(err, -errno, "the spool's lock cannot be opened: %m");
	/* Of this open file, not of this process: it goes when the descriptor does. */
	if (fcntl(s->lock, F_OFD_SETLK, &whole) < 0)
		return err_set(err, errno == EAGAIN || errno == EACCES ? -EBUSY : -errno,
			errno == EAGAIN || errno == EACCES ? "another process uses the spool"
							   : "the spool cannot be locked: %m");
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Numbers of the segments, sorted. */
static int list_segments(struct spool *s, uint64_t **ret, size_t *n)
{
	int fd = openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	uint64_t *list = calloc(SPOOL_MAX_SEGMENTS, sizeof(*list));
	const struct dirent *e;

	*n = 0;
	if (!d || !list) {
		int r = d ? -ENOMEM : -errno;

		if (d)
			closedir(d);
		else
			closep(&fd);
		free(list);
		return r;
	}
	while ((e = readdir(d)) && *n < SPOOL_MAX_SEGMENTS) {
		uint64_t seq = spool_segment_parse(e->d_name);

		if (seq)
			list[(*n)++] = seq;
	}
	closedir(d);
	qsort(list, *n, sizeof(*list), by_number);
	*ret = list;
	return 0;
}

static void delete_file(struct spool *s, uint64_t first, uint64_t last)
{
	char name[32];

	spool_segment_name(first, name);
	if (unlinkat(s->dirfd, name, 0) == 0 || errno == ENOENT) {
		s->folder_dirty = true;
		return;
	}
	s->state.write_errors++;
	for (size_t i = 0; i < s->n_undead; i++)
		if (s->undead[i].first == first)
			return;
	if (s->n_undead < SPOOL_UNDEAD)
		s->undead[s->n_undead++] = (struct spool_range){first, last};
}

static int load_segments(struct spool *s, const struct spool_replay *replay)
{
	_cleanup_free_ uint64_t *list = NULL;
	size_t n;
	int r = list_segments(s, &list, &n);

	for (size_t i = 0; i < n && r >= 0; i++) {
		s->next_seq = MAX(s->next_seq, list[i] + 1);
		if (spool_was_dropped(replay, list[i], true)) {
			delete_file(s, list[i], list[i]);
			continue;
		}
		r = spool_segment_load(s, list[i], i + 1 == n);
		if (r == 1)
			delete_file(s, list[i], list[i]);
		else if (r < 0 && r != -ENOMEM) {
			/* One file that cannot be read must not cost the others. */
			log_error("spool: a file cannot be read: %s", strerrordesc_np(-r));
			s->state.damaged++;
			r = 0;
		}
		if (s->newest)
			s->next_seq = MAX(s->next_seq, s->newest->last_seq + 1);
	}
	return MIN(r, 0);
}

/* Counts that the batch can have. */
static bool fits(const struct spool_batch *b, const struct message_counts *c, bool final)
{
	for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
		uint64_t left = b->header.samples[t];

		for (size_t f = 0; f < FATES; f++) {
			if (c->samples[f][t] > left)
				return false;
			left -= c->samples[f][t];
		}
		if (final && left)
			return false;
	}
	return true;
}

static bool is_zero(const struct message_counts *c)
{
	static const struct message_counts zero;

	return memcmp(c, &zero, sizeof(zero)) == 0;
}

static int set_route(struct spool_route *route, uint64_t row, const struct message_counts *counts)
{
	if (counts && !is_zero(counts)) {
		if (!route->counts)
			route->counts = malloc(sizeof(*counts));
		if (!route->counts)
			return -ENOMEM;
		*route->counts = *counts;
	}
	route->row = row;
	return 0;
}

static void close_route(struct spool *s, struct spool_batch *b, struct spool_route *route)
{
	route->final = true;
	if (--b->n_open)
		return;
	b->segment->n_open--;
	s->n_open--;
}

static void add_total(struct spool *s, uint32_t destination, const struct message_counts *more)
{
	struct spool_totals *t = spool_totals_get(s, destination);

	if (t)
		spool_counts_add(&t->settled, more, false);
}

/* What the journal says of batches that are here; what it says of others only adds up. */
static int apply(struct spool *s, struct spool_replay *replay)
{
	struct map_iter it = {0};
	int r = 0;

	for (struct spool_segment *g = s->oldest; g; g = g->next)
		for (struct spool_batch *b = g->first; b; b = b->next)
			for (uint32_t i = 0; i < b->n_routes && r == 0; i++) {
				struct spool_route *route = &b->routes[i];
				struct spool_progress_key key = {b->seq, route->destination};
				struct spool_progress_value *v =
					map_get(replay->progress, &key, sizeof(key));

				if (!v)
					continue;
				if (!fits(b, &v->counts, v->final)) {
					s->state.damaged++;
					memset(&v->counts, 0, sizeof(v->counts));
					continue;
				}
				r = set_route(route, v->row, &v->counts);
				if (r == 0 && v->final)
					close_route(s, b, route);
			}
	while (map_next(replay->progress, &it) && r == 0) {
		const struct spool_progress_key *key = it.key;
		const struct spool_progress_value *v = it.value;

		add_total(s, (uint32_t)key->destination, &v->counts);
	}
	return r;
}

static int recover(struct spool *s, struct err_text *err)
{
	CLEANUP(spool_replay_deinit) struct spool_replay replay = {0};
	int r = spool_cursor_load(s, &replay);

	s->replay = &replay;
	if (r == 0)
		r = load_segments(s, &replay);
	s->replay = NULL;
	s->committed_seq = s->next_seq;
	if (r == 0)
		r = apply(s, &replay);
	if (r < 0)
		return err_set(err, r, "the spool cannot be read: %s", strerrordesc_np(-r));
	if (fsync(s->dirfd) < 0)
		s->state.sync_errors++;
	for (const struct spool_segment *g = s->oldest; g; g = g->next)
		if (g->last)
			s->state.newest_unix_ns =
				MAX(s->state.newest_unix_ns, g->last->header.to_unix_ns);
	return 0;
}

int spool_open(
	struct spool **ret, int dirfd, const struct spool_config *config, struct err_text *err)
{
	CLEANUP(spool_closep) struct spool *s = calloc(1, sizeof(*s));
	uint64_t began = clock_monotonic_ns();
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->dirfd = s->lock = s->write_fd = s->read_fd = s->journal = -1;
	s->config = *config;
	if (!s->config.unix_ns)
		s->config.unix_ns = clock_unix_ns;
	if (!s->config.boottime_ns)
		s->config.boottime_ns = clock_boottime_ns;
	spool_configure(s, config->max_bytes, config->max_age_ns, config->min_free_permille);
	s->seed = (uint32_t)(config->instance ^ config->instance >> 32);
	s->next_seq = 1;
	s->round = 1;
	buf_init(&s->pending, SPOOL_PENDING_MAX);
	s->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	if (s->dirfd < 0)
		return err_set(err, -errno, "the spool's folder: %m");
	r = take_lock(s, err);
	if (r == 0)
		r = recover(s, err);
	if (r < 0)
		return r;
	s->state.recovery_ns = clock_monotonic_ns() - began;
	*ret = TAKE_PTR(s);
	return 0;
}

struct spool *spool_close(struct spool *s)
{
	if (!s)
		return NULL;
	while (s->oldest)
		spool_segment_forget(s, s->oldest);
	closep(&s->write_fd);
	closep(&s->read_fd);
	closep(&s->journal);
	closep(&s->lock);
	closep(&s->dirfd);
	buf_deinit(&s->pending);
	free(s->totals);
	free(s);
	return NULL;
}

void spool_configure(
	struct spool *s, uint64_t max_bytes, uint64_t max_age_ns, unsigned min_free_permille)
{
	s->config.max_bytes = max_bytes ? MAX(max_bytes, BYTES_MIN) : MAX_BYTES_DEFAULT;
	s->config.max_age_ns = max_age_ns ? max_age_ns : MAX_AGE_DEFAULT_NS;
	s->config.min_free_permille = MIN(min_free_permille, 1000U);
}

/* ---- what is kept -------------------------------------------------------------------------------- */

struct spool_batch *spool_next(const struct spool *s, const struct spool_batch *b)
{
	const struct spool_segment *g = b ? b->segment : s->oldest;
	struct spool_batch *next = b ? b->next : g ? g->first : NULL;

	for (;;) {
		for (; next; next = next->next)
			if (next->n_open)
				return next;
		/* Segments that are through are passed over as a whole. */
		do
			g = g ? g->next : NULL;
		while (g && !g->n_open);
		if (!g)
			return NULL;
		next = g->first;
	}
}

int spool_append(struct spool *s, const struct batch_header *header, const void *bytes, size_t size,
	const uint32_t *destinations, size_t n, struct spool_batch **ret)
{
	int r;

	if (!n || n > PROTOCOL_DESTINATIONS || size > PROFILE_MAX_ENCODED)
		return -EINVAL;
	r = spool_segment_append(s, header, bytes, size, destinations, n, ret);
	if (r == 0)
		s->state.newest_unix_ns = MAX(s->state.newest_unix_ns, header->to_unix_ns);
	return r;
}

int spool_progress(struct spool *s, struct spool_batch *b, uint32_t destination, uint64_t row,
	const struct message_counts *counts, bool final)
{
	struct message_counts more = {0};
	struct spool_route *route = NULL;
	int r;

	for (uint32_t i = 0; i < b->n_routes && !route; i++)
		if (b->routes[i].destination == destination)
			route = &b->routes[i];
	if (!route || route->final)
		return -ENOENT;
	if (counts && !fits(b, counts, final))
		return -EBADMSG;
	for (size_t f = 0; counts && f < FATES; f++)
		for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
			uint64_t before = route->counts ? route->counts->samples[f][t] : 0;

			if (counts->samples[f][t] < before)
				return -EBADMSG;
			more.samples[f][t] = counts->samples[f][t] - before;
		}
	r = set_route(route, MAX(row, route->row), counts);
	if (r < 0)
		return r;
	add_total(s, destination, &more);
	if (final)
		close_route(s, b, route);
	spool_cursor_progress(s, b, route);
	return 0;
}

bool spool_dirty(const struct spool *s)
{
	return s->segment_dirty || s->folder_dirty || s->seal_error || spool_cursor_pending(s);
}

/* What was not synced was never there; the caller has it in memory. */
static void discard(struct spool *s)
{
	uint64_t first = s->committed_seq;

	for (struct spool_segment *g = s->oldest; g; g = g->next) {
		struct spool_batch **p = &g->first, *kept = NULL;

		while (*p) {
			struct spool_batch *b = *p;

			if (b->seq < first) {
				kept = b;
				p = &b->next;
				continue;
			}
			for (uint32_t i = 0; i < b->n_routes; i++) {
				struct spool_totals *t =
					spool_totals_get(s, b->routes[i].destination);

				if (t && b->routes[i].counts)
					spool_counts_add(&t->settled, b->routes[i].counts, true);
			}
			g->n_open -= b->n_open > 0;
			s->n_open -= b->n_open > 0;
			*p = b->next;
			spool_batch_free(b);
		}
		g->last = kept;
	}
	if (s->next_seq > first)
		spool_cursor_discarded(s, first, s->next_seq - 1);
}

int spool_commit(struct spool *s)
{
	int r = s->seal_error;

	s->seal_error = 0;
	if (s->segment_dirty && fdatasync(s->write_fd) < 0) {
		/* Which of its pages are on the disk nobody knows any more. */
		r = -errno;
		s->state.sync_errors++;
		closep(&s->write_fd);
		if (s->newest)
			s->newest->sealed = true;
	}
	s->segment_dirty = false;
	if (s->folder_dirty) {
		if (fsync(s->dirfd) < 0) {
			s->state.sync_errors++;
			r = r < 0 ? r : -errno;
		} else {
			s->folder_dirty = false;
		}
	}
	if (r < 0)
		discard(s);
	s->committed_seq = s->next_seq;
	if (spool_cursor_pending(s))
		(void)spool_cursor_commit(s);
	return r;
}

/* A segment that is written to goes, too, when it is worth it. */
static bool through(const struct spool_segment *g)
{
	return !g->n_open && (g->sealed || g->size >= SPOOL_SEGMENT_MIN);
}

static void retry_undead(struct spool *s)
{
	struct spool_range again[SPOOL_UNDEAD];
	size_t n = s->n_undead;

	memcpy(again, s->undead, n * sizeof(again[0]));
	s->n_undead = 0;
	for (size_t i = 0; i < n; i++)
		delete_file(s, again[i].first, again[i].last);
}

void spool_reap(struct spool *s)
{
	bool any = false;

	for (struct spool_segment *g = s->oldest; g; g = g->next) {
		if (!through(g))
			continue;
		spool_cursor_dropped(s, g->first_seq, MAX(g->last_seq, g->first_seq));
		any = true;
	}
	if (!any)
		return;
	/* The word first. Without it the file would be delivered again after a crash. */
	if (spool_cursor_commit(s) < 0)
		return;
	retry_undead(s);
	for (struct spool_segment *g = s->oldest, *next; g; g = next) {
		next = g->next;
		if (!through(g))
			continue;
		s->next_seq = MAX(s->next_seq, g->first_seq + 1);
		delete_file(s, g->first_seq, g->last_seq);
		spool_segment_forget(s, g);
	}
}

/* ---- what it says -------------------------------------------------------------------------------- */

size_t spool_get_totals(const struct spool *s, const struct spool_totals **list)
{
	*list = s->totals;
	return s->n_totals;
}

void spool_forget(struct spool *s, uint32_t destination)
{
	for (size_t i = 0; i < s->n_totals; i++) {
		if (s->totals[i].destination != destination)
			continue;
		s->totals[i] = s->totals[--s->n_totals];
		return;
	}
}
