/* SPDX-License-Identifier: Apache-2.0 */

/* The local profiles' files. Runs in agentd, which only appends, and reads headers; what decodes
 * is the reader role.
 *
 * A segment is an hour's worth of batches at most, or a sixteenth of the room, so that evicting
 * the oldest file never takes much. Batches are appended with O_APPEND; the disk is told to keep
 * them at most every 5 s, so a crash of the machine costs the last seconds of local history (a
 * crash of agentd costs nothing: the page cache has it). At start only headers are read; a torn
 * tail is cut off, counted and said.
 *
 * Bounds: bytes first (the oldest file goes), then age. A roll-up's output is counted only once
 * it has taken its source's place, so the folder may for a moment hold one segment more than
 * max_bytes says.
 *
 * Failures to write are counted and shown, and never reach the sampler. */

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/profile/local_private.h"

#define HOUR_NS          (3600 * NSEC_PER_SEC)
#define SYNC_GAP_NS      (5 * NSEC_PER_SEC)
#define TICK_US          (30 * USEC_PER_SEC)
#define SEGMENT_SHARE    16
#define SEGMENT_SMALLEST 65536
#define MIN_BYTES        (1U << 20)
#define SUFFIX           ".odi"

void local_problem(struct local *l, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(l->state.last_problem, sizeof(l->state.last_problem), format, args);
	va_end(args);
	log_warning("local profiles: %s", l->state.last_problem);
}

/* ---- segments ---- */

void local_segment_name(char out[32], uint64_t number, unsigned level)
{
	snprintf(out, 32, "%016" PRIx64 ".%u" SUFFIX, number, level);
}

/* The position of the first segment with this number or a larger one. */
static size_t segment_position(const struct local *l, uint64_t number)
{
	size_t low = 0, high = l->n_segments;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (l->segments[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct segment *local_segment(struct local *l, uint64_t number)
{
	size_t at = segment_position(l, number);

	return at < l->n_segments && l->segments[at].number == number ? &l->segments[at] : NULL;
}

static int segment_insert(struct local *l, const struct segment *s)
{
	size_t at = segment_position(l, s->number);

	if (l->n_segments == l->room) {
		size_t room = l->room * 2 + 16;
		struct segment *list = reallocarray(l->segments, room, sizeof(*list));

		if (!list)
			return -ENOMEM;
		l->segments = list;
		l->room = room;
	}
	memmove(l->segments + at + 1, l->segments + at, (l->n_segments - at) * sizeof(*s));
	l->segments[at] = *s;
	l->n_segments++;
	return 0;
}

static void close_active(struct local *l)
{
	if (l->active_fd >= 0 && l->unsynced)
		(void)fdatasync(l->active_fd);
	l->unsynced = false;
	closep(&l->active_fd);
	l->active = 0;
}

void local_segment_remove(struct local *l, struct segment *s)
{
	size_t at = (size_t)(s - l->segments);
	char name[32];

	if (s->number == l->active)
		close_active(l);
	local_segment_name(name, s->number, s->level);
	if (unlinkat(l->dir, name, 0) < 0 && errno != ENOENT)
		local_problem(l, "cannot remove %s: %s", name, strerror(errno));
	memmove(s, s + 1, (l->n_segments - at - 1) * sizeof(*s));
	l->n_segments--;
}

int local_segment_scan(struct local *l, int fd, struct segment *ret, bool repair)
{
	struct segment_scan scan = {0};
	struct segment_block block, last = {0};
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	scan.end = (uint64_t)st.st_size;
	ret->bytes = ret->blocks = ret->from = ret->to = 0;
	memset(ret->samples, 0, sizeof(ret->samples));
	while ((r = segment_next(fd, &scan, &block)) > 0) {
		ret->from = ret->blocks ? MIN(ret->from, block.header.from_unix_ns)
					: block.header.from_unix_ns;
		ret->to = MAX(ret->to, block.header.to_unix_ns);
		ret->blocks++;
		for (size_t i = 0; i < ARRAY_SIZE(ret->samples); i++)
			ret->samples[i] += block.header.samples[i];
		last = block;
	}
	l->state.damaged += repair ? scan.damaged : 0;
	ret->bytes = scan.end;
	/* Power that failed may leave the last block's place without its bytes; the others were
	 * synced with it. */
	if (r == 0 && repair && ret->blocks && segment_check(fd, &last) == -EBADMSG) {
		l->state.damaged++;
		local_problem(l, "the last block of a file was damaged and is left out");
		if (last.offset + SEGMENT_HEADER + last.stored == scan.tail)
			scan.tail = last.offset;
		ret->blocks--; /* from and to may be too wide by it */
		for (size_t i = 0; i < ARRAY_SIZE(ret->samples); i++)
			ret->samples[i] -= last.header.samples[i];
	}
	if (r == 0 && repair && scan.tail < scan.end) {
		local_problem(l,
			"%" PRIu64
			" bytes at the end of a file were no whole block and are cut off",
			scan.end - scan.tail);
		if (ftruncate(fd, (off_t)scan.tail) == 0)
			ret->bytes = scan.tail;
	}
	return r;
}

/* ---- start ---- */

static bool parse_name(const char *name, uint64_t *number, unsigned *level)
{
	int end = 0;

	return sscanf(name, "%16" SCNx64 ".%1u" SUFFIX "%n", number, level, &end) == 2 && end &&
		!name[end] && *number && *level < SEGMENT_LEVELS;
}

/* One file of the folder. */
static int load_file(struct local *l, const char *name)
{
	struct segment s = {0}, *known;
	_cleanup_close_ int fd = -1;
	int r;

	if (!parse_name(name, &s.number, &s.level)) {
		const char *dot = strrchr(name, '.');

		/* Of a roll-up that was interrupted: its source is still there. */
		if (dot && streq(dot, ".tmp"))
			(void)unlinkat(l->dir, name, 0);
		return 0;
	}
	l->next_number = MAX(l->next_number, s.number + 1);
	known = local_segment(l, s.number);
	if (known && known->level >= s.level) { /* rolled up already */
		(void)unlinkat(l->dir, name, 0);
		return 0;
	}
	if (known)
		local_segment_remove(l, known);
	fd = openat(l->dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	r = fd < 0 ? -errno : local_segment_scan(l, fd, &s, true);
	if (r < 0) {
		l->state.damaged++;
		local_problem(l, "cannot read %s: %s", name, strerror(-r));
		return 0;
	}
	r = segment_insert(l, &s);
	if (r >= 0 && !s.blocks)
		local_segment_remove(l, local_segment(l, s.number));
	return r;
}

static int load(struct local *l)
{
	int fd = openat(l->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		r = -errno;
		closep(&fd);
		return r;
	}
	for (struct dirent *e; (e = readdir(d)) && r >= 0;)
		r = load_file(l, e->d_name);
	closedir(d);
	return r;
}

/* ---- bounds ---- */

static uint64_t held_bytes(const struct local *l)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < l->n_segments; i++)
		sum += l->segments[i].bytes;
	return sum;
}

static struct segment *oldest(struct local *l)
{
	struct segment *found = NULL;

	for (size_t i = 0; i < l->n_segments; i++) {
		if (!found || l->segments[i].to < found->to)
			found = &l->segments[i];
	}
	return found;
}

/* Makes room for more bytes. */
static void evict_for(struct local *l, uint64_t more)
{
	uint64_t held = held_bytes(l);

	while (l->n_segments && held + more > l->config.max_bytes) {
		struct segment *s = oldest(l);

		held -= s->bytes;
		l->state.evicted += s->blocks;
		local_segment_remove(l, s);
	}
}

static void evict_aged(struct local *l, uint64_t now)
{
	for (size_t i = l->n_segments; i-- > 0;) {
		struct segment *s = &l->segments[i];

		if (s->to < now && now - s->to > l->config.max_age_ns) {
			l->state.evicted += s->blocks;
			local_segment_remove(l, s);
		}
	}
}

static void sync_active(struct local *l)
{
	uint64_t now = clock_monotonic_ns();

	if (!l->unsynced || l->active_fd < 0 || (l->synced_ns && now - l->synced_ns < SYNC_GAP_NS))
		return;
	if (fdatasync(l->active_fd) < 0) {
		l->state.write_errors++;
		local_problem(l, "cannot bring a segment to the disk: %s", strerror(errno));
	}
	l->synced_ns = now;
	l->unsynced = false;
}

void local_maintain(struct local *l, uint64_t now)
{
	struct segment *s = l->active ? local_segment(l, l->active) : NULL;

	sync_active(l);
	/* Nothing was appended for long: it can be rolled up as well. */
	if (s && s->to < now && now - s->to > l->config.fine_ns)
		close_active(l);
	evict_aged(l, now);
	evict_for(l, 0);
	local_roll_start(l, now);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct local *l = userdata;

	local_maintain(l, clock_unix_ns());
	(void)sd_event_source_set_time_relative(source, TICK_US);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* ---- appending ---- */

static uint64_t segment_limit(const struct local *l)
{
	return MAX(l->config.max_bytes / SEGMENT_SHARE, (uint64_t)SEGMENT_SMALLEST);
}

/* Whether a block of this time may go behind what the segment has. */
static bool fits(const struct local *l, const struct segment *s, uint64_t from)
{
	return s && s->level == 0 && s->number != l->rolling &&
		s->from / HOUR_NS == from / HOUR_NS && s->bytes < segment_limit(l);
}

static int open_active(struct local *l, uint64_t from)
{
	struct segment *s = l->active ? local_segment(l, l->active) : NULL, fresh = {0};
	char name[32];
	int r;

	if (fits(l, s, from) && l->active_fd >= 0)
		return 0;
	close_active(l);
	/* After a restart the last one goes on, or a process that restarts often would leave a
	 * file each time. */
	s = l->n_segments ? &l->segments[l->n_segments - 1] : NULL;
	if (fits(l, s, from) && !s->stuck) {
		local_segment_name(name, s->number, 0);
		l->active_fd = openat(l->dir, name, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
		if (l->active_fd >= 0) {
			l->active = s->number;
			return 0;
		}
	}
	fresh.number = l->next_number++;
	fresh.from = from; /* which hour it is of */
	local_segment_name(name, fresh.number, 0);
	l->active_fd = openat(l->dir, name, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (l->active_fd < 0)
		return -errno;
	r = segment_insert(l, &fresh);
	if (r < 0) {
		(void)unlinkat(l->dir, name, 0);
		closep(&l->active_fd);
		return r;
	}
	(void)fsync(l->dir);
	l->active = fresh.number;
	return 0;
}

static int write_block(struct local *l, const struct buf *block)
{
	struct segment *s = local_segment(l, l->active);
	int r = io_write_all(l->active_fd, block->data, block->len);

	if (r < 0) {
		/* What was written of it would be a damaged stretch for ever. */
		if (ftruncate(l->active_fd, (off_t)s->bytes) < 0)
			s->stuck = true;
		if (!s->blocks || s->stuck)
			close_active(l);
		if (!s->blocks)
			local_segment_remove(l, s);
	}
	return r;
}

int local_append(struct local *l, const struct batch_header *header, const void *data, size_t len)
{
	struct batch_header h = *header;
	_cleanup_buf_ struct buf block;
	struct segment *s;
	int r;

	buf_init(&block, 0);
	h.to_unix_ns = MAX(h.from_unix_ns, h.to_unix_ns);
	r = segment_put(&block, &h, 0, data, len);
	if (r >= 0 && block.len > l->config.max_bytes)
		r = -EFBIG;
	if (r >= 0) {
		evict_for(l, block.len);
		r = open_active(l, h.from_unix_ns);
	}
	if (r >= 0)
		r = write_block(l, &block);
	if (r < 0) {
		l->state.write_errors++;
		local_problem(l, "a batch could not be kept on this host: %s", strerror(-r));
		return r;
	}
	s = local_segment(l, l->active);
	s->from = s->blocks ? MIN(s->from, h.from_unix_ns) : h.from_unix_ns;
	s->to = MAX(s->to, h.to_unix_ns);
	s->bytes += block.len;
	s->blocks++;
	for (size_t i = 0; i < ARRAY_SIZE(s->samples); i++)
		s->samples[i] += h.samples[i];
	l->unsynced = true;
	sync_active(l);
	return 0;
}

/* ---- life ---- */

void local_configure(struct local *l, const struct local_config *config)
{
	l->config = *config;
	if (!l->config.max_bytes)
		l->config.max_bytes = 256ULL << 20;
	l->config.max_bytes = MAX(l->config.max_bytes, (uint64_t)MIN_BYTES);
	if (!l->config.max_age_ns)
		l->config.max_age_ns = 7 * 24 * HOUR_NS;
	if (!l->config.fine_ns)
		l->config.fine_ns = HOUR_NS;
	if (!l->config.middle_ns)
		l->config.middle_ns = 24 * HOUR_NS;
	evict_for(l, 0);
}

int local_new(struct local **ret, sd_event *loop, const char *dir,
	const struct local_config *config, struct err_text *err)
{
	CLEANUP(local_freep) struct local *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_set(err, -ENOMEM, "out of memory");
	l->dir = l->active_fd = -1;
	l->next_number = 1;
	l->loop = sd_event_ref(loop);
	r = io_mkdir_p(dir, 0700, err);
	if (r < 0)
		return r;
	l->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->dir < 0)
		return err_set(err, -errno, "cannot open the local profiles' folder %s: %m", dir);
	r = load(l);
	if (r < 0)
		return err_set(
			err, r, "cannot read the local profiles' folder %s: %s", dir, strerror(-r));
	local_configure(l, config);
	r = sd_event_add_time_relative(
		loop, &l->tick, CLOCK_BOOTTIME, TICK_US, USEC_PER_SEC, on_tick, l);
	if (r >= 0)
		r = sd_event_source_set_priority(l->tick, SD_EVENT_PRIORITY_IDLE);
	if (r < 0)
		return err_set(err, r, "cannot set a timer: %s", strerror(-r));
	*ret = TAKE_PTR(l);
	return 0;
}

struct local *local_free(struct local *l)
{
	if (!l)
		return NULL;
	local_queries_end(l);
	local_roll_end(l);
	sd_event_source_disable_unref(l->tick);
	close_active(l);
	closep(&l->dir);
	sd_event_unref(l->loop);
	free(l->segments);
	free(l);
	return NULL;
}

void local_state(struct local *l, struct local_state *ret)
{
	uint64_t from = UINT64_MAX, to = 0;

	l->state.bytes = l->state.blocks = 0;
	for (size_t i = 0; i < l->n_segments; i++) {
		const struct segment *s = &l->segments[i];

		l->state.bytes += s->bytes;
		l->state.blocks += s->blocks;
		if (s->blocks) {
			from = MIN(from, s->from);
			to = MAX(to, s->to);
		}
	}
	l->state.from_unix_ns = to ? from : 0;
	l->state.to_unix_ns = to;
	*ret = l->state;
}
