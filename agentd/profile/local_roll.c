/* SPDX-License-Identifier: Apache-2.0 */

/* Roll-ups: a segment whose batches are older than an hour becomes one by the minute, later one
 * by ten minutes. The reader role does it (it decodes): it gets the segment and a temporary
 * file. What it wrote is believed only after its headers were read and their sums are those of
 * the source; then it is synced, renamed to the source's number at the next level, and the
 * source is removed. A crash in between leaves the old one, or both, of which the higher level
 * counts.
 *
 * One at a time, at most one a second, so that a day's backlog is no burst. Runs in agentd. */

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/profile/local_private.h"

#define DEADLINE_MS 300000
#define PAUSE_US    USEC_PER_SEC

static const uint64_t slots[SEGMENT_LEVELS] = {0, 60 * NSEC_PER_SEC, 600 * NSEC_PER_SEC};

struct local_roll {
	struct local *local;
	struct local_job *job;
	uint64_t number;
	unsigned level; /* of the source */
	uint64_t bytes;
	int source, output;
	bool sent;
	struct reader_rolled done;
};

static void temporary_name(char out[32], uint64_t number)
{
	snprintf(out, 32, "%016" PRIx64 ".tmp", number);
}

static void roll_free(struct local_roll *x, bool keep_output)
{
	char name[32];

	temporary_name(name, x->number);
	if (!keep_output)
		(void)unlinkat(x->local->dir, name, 0);
	x->local->roll = NULL;
	x->local->rolling = 0;
	local_job_free(x->job);
	closep(&x->source);
	closep(&x->output);
	free(x);
}

void local_roll_end(struct local *l)
{
	if (l->roll)
		roll_free(l->roll, false);
}

static ssize_t next_message(void *userdata, uint8_t *message, int *fds, size_t *n_fds)
{
	struct local_roll *x = userdata;
	struct reader_head head = {READER_ROLL, 1};
	struct reader_roll order = {
		.bytes = x->bytes, .slot_ns = slots[x->level + 1], .level = x->level + 1};

	if (x->sent)
		return 0;
	x->sent = true;
	memcpy(message, &head, sizeof(head));
	memcpy(message + sizeof(head), &order, sizeof(order));
	fds[0] = fcntl(x->source, F_DUPFD_CLOEXEC, 0);
	*n_fds = fds[0] >= 0;
	fds[1] = fcntl(x->output, F_DUPFD_CLOEXEC, 0);
	*n_fds += fds[1] >= 0;
	return *n_fds == 2 ? (ssize_t)(sizeof(head) + sizeof(order)) : -EMFILE;
}

static int on_message(
	void *userdata, const struct reader_head *head, const uint8_t *payload, size_t len)
{
	struct local_roll *x = userdata;

	if (head->kind != READER_ROLLED || len != sizeof(x->done))
		return -EPROTO;
	memcpy(&x->done, payload, sizeof(x->done));
	return 1;
}

/* Puts the new segment in the old one's place, if it holds what that held. */
static int take_output(struct local_roll *x, struct err_text *why)
{
	struct local *l = x->local;
	struct segment *s = local_segment(l, x->number),
		       fresh = {.number = x->number, .level = x->level + 1};
	char temporary[32], name[32], old[32];
	int r;

	if (!s || s->level != x->level) /* evicted meanwhile */
		return err_set(why, -ESTALE, "the segment is gone");
	r = local_segment_scan(l, x->output, &fresh, false);
	if (r < 0)
		return err_set(why, r, "its roll-up cannot be read: %s", strerror(-r));
	/* What was damaged is lost here and counted; the rest must all be there. */
	for (size_t i = 0; i < ARRAY_SIZE(s->samples); i++) {
		if (fresh.samples[i] > s->samples[i] ||
			(fresh.samples[i] < s->samples[i] && !x->done.damaged))
			return err_set(why, -EBADMSG,
				"its roll-up has %" PRIu64 " samples of %" PRIu64, fresh.samples[i],
				s->samples[i]);
	}
	if (!fresh.blocks) /* all of it was damaged */
		return err_set(why, -ENODATA, "nothing of it could be read");
	temporary_name(temporary, x->number);
	local_segment_name(old, s->number, s->level);
	local_segment_name(name, fresh.number, fresh.level);
	if (fdatasync(x->output) < 0 || renameat(l->dir, temporary, l->dir, name) < 0 ||
		fsync(l->dir) < 0)
		return err_set(why, -errno, "its roll-up cannot be put in place: %m");
	(void)unlinkat(l->dir, old, 0);
	l->state.damaged += x->done.damaged;
	log_debug("local profiles: %s rolled up, %" PRIu64 " bytes become %" PRIu64, old, s->bytes,
		fresh.bytes);
	*s = fresh;
	return 0;
}

static void on_end(void *userdata, int error, const struct err_text *why)
{
	struct local_roll *x = userdata;
	struct local *l = x->local;
	struct err_text text = *why;
	struct segment *s;
	int r = error ? error : take_output(x, &text);

	s = local_segment(l, x->number);
	if (r < 0 && s && s->level == x->level) {
		s->stuck = true;
		local_problem(l, "a segment stays as it is: %s", text.text);
	}
	roll_free(x, r >= 0);
	/* The next one soon, not at the next tick. */
	if (r >= 0)
		(void)sd_event_source_set_time_relative(l->tick, PAUSE_US);
}

static struct segment *due(struct local *l, uint64_t now)
{
	const uint64_t ages[] = {l->config.fine_ns, l->config.middle_ns};

	for (size_t i = 0; i < l->n_segments; i++) {
		struct segment *s = &l->segments[i];

		if (s->level + 1 < SEGMENT_LEVELS && !s->stuck && s->number != l->active &&
			s->blocks && s->to < now && now - s->to > ages[s->level])
			return s;
	}
	return NULL;
}

static int roll_new(struct local *l, const struct segment *s, struct err_text *err)
{
	struct local_roll *x = calloc(1, sizeof(*x));
	static const struct local_job_ops ops = {next_message, on_message, on_end};
	char name[32], temporary[32];
	int r = 0;

	if (!x)
		return err_set(err, -ENOMEM, "out of memory");
	*x = (struct local_roll){.local = l,
		.number = s->number,
		.level = s->level,
		.bytes = s->bytes,
		.output = -1};
	local_segment_name(name, s->number, s->level);
	temporary_name(temporary, s->number);
	x->source = openat(l->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (x->source >= 0)
		x->output = openat(l->dir, temporary,
			O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (x->output < 0)
		r = err_set(err, -errno, "cannot open its files: %m");
	if (r >= 0)
		r = local_job_new(&x->job, l->loop, &ops, x, DEADLINE_MS, err);
	if (r < 0) {
		roll_free(x, false);
		return r;
	}
	l->roll = x;
	l->rolling = x->number;
	return 0;
}

void local_roll_start(struct local *l, uint64_t now)
{
	struct err_text err = {""};
	struct segment *s = l->roll ? NULL : due(l, now);

	if (s && roll_new(l, s, &err) < 0) {
		s->stuck = true;
		local_problem(l, "a segment cannot be rolled up: %s", err.text);
	}
}
