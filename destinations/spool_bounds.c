/* SPDX-License-Identifier: Apache-2.0 */

/* What the spool may take, and what has to go for it.
 *
 * Bounds: bytes of all files, age, number of batches, and the room that the disk keeps free; the last one also where
 * what fills the disk is not ours. Age is measured by the boot clock for batches of this boot, so that a jump of the
 * wall clock throws nothing away; for those of another boot there is only the wall clock. A batch whose time is in the
 * future is new. No batch is given up here: the owner is told which batch is next, and settles it. Runs in the
 * exporter. */

#include <sys/vfs.h>

#include "destinations/spool_private.h"

static uint64_t age(const struct spool *s, const struct spool_batch *b)
{
	uint64_t from = b->header.from_unix_ns, now = s->config.unix_ns();

	if (memcmp(b->header.boot_id, s->config.boot_id, sizeof(s->config.boot_id)) == 0) {
		from = b->boottime_ns;
		now = s->config.boottime_ns();
	}
	return now > from ? now - from : 0;
}

static uint64_t used(const struct spool *s)
{
	return s->bytes + MAX(s->journal_room, s->journal_size);
}

bool spool_could_hold(const struct spool *s, uint64_t need)
{
	return need <= s->config.max_bytes - SPOOL_JOURNAL_ROOM;
}

static bool disk(const struct spool *s, uint64_t *total, uint64_t *avail)
{
	struct statfs st;

	if (fstatfs(s->dirfd, &st) < 0)
		return false;
	*total = (uint64_t)st.f_blocks * (uint64_t)st.f_bsize;
	*avail = (uint64_t)st.f_bavail * (uint64_t)st.f_bsize;
	return true;
}

bool spool_has_room(struct spool *s, uint64_t need)
{
	uint64_t total, avail, keep;

	if (used(s) + need > s->config.max_bytes || s->n_open >= PROTOCOL_BATCHES)
		return false;
	if (!s->config.min_free_permille || !disk(s, &total, &avail))
		return true;
	keep = total / 1000 * s->config.min_free_permille;
	return avail >= keep && avail - keep >= need;
}

struct spool_batch *spool_over(struct spool *s, uint64_t need)
{
	struct spool_batch *b = NULL;

	do
		b = spool_next(s, b);
	while (b && b->spared == s->round);
	if (b && age(s, b) > s->config.max_age_ns)
		return b;
	/* What no giving up makes room for costs nobody anything. */
	if (spool_has_room(s, need) || !spool_could_hold(s, need))
		return NULL;
	spool_reap(s);
	if (spool_has_room(s, need))
		return NULL;
	/* One that is written to is closed to let go of it, too. */
	if (b && b->segment == s->newest)
		spool_segment_seal(s);
	return b;
}

void spool_spare(struct spool *s, struct spool_batch *b)
{
	b->spared = s->round;
}

void spool_spare_none(struct spool *s)
{
	s->round++;
}

uint64_t spool_next_expiry(const struct spool *s)
{
	const struct spool_batch *b = spool_next(s, NULL);
	uint64_t now = s->config.boottime_ns(), old;

	if (!b)
		return UINT64_MAX;
	old = age(s, b);
	return old >= s->config.max_age_ns ? now : now + (s->config.max_age_ns - old);
}

void spool_get_state(const struct spool *s, struct spool_state *ret)
{
	*ret = s->state;
	ret->bytes = used(s);
	ret->max_bytes = s->config.max_bytes;
	ret->segments = s->n_segments;
	ret->batches = s->n_open;
	ret->free_bytes = ret->disk_bytes = 0;
	(void)disk(s, &ret->disk_bytes, &ret->free_bytes);
}
