/* SPDX-License-Identifier: Apache-2.0 */

/* An interval's way out. At its end the interval's distinct frames are named by the symbolizer, never
 * longer than one interval more; the batch that comes of it is encoded once and handed over to the
 * exporter and to the local profiles. Nothing here waits: the loop runs on while names are made, and
 * several closed intervals may be on their way. Queries see what is open or waits for names as one
 * batch of the same make. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/daemon.h"
#include "agentd/daemon_jit.h"

#define SERIAL_STEP        64
#define NAMES_DEADLINE_MAX (10 * NSEC_PER_SEC)
#define MAX_BATCH_BYTES    (64U << 20)
#define TRIMS_SKIPPED_MAX  16

/* ---- intervals ---- */

void daemon_interval_free(struct interval *i)
{
	if (!i)
		return;
	for (size_t f = 0; f < i->n_files; f++)
		process_file_release(i->daemon->processes, i->files[f]);
	free(i->files);
	aggregate_free(i->aggregate);
	free(i);
}

static void begin_now(struct interval *i)
{
	i->from_unix_ns = clock_unix_ns();
	i->from_boot_ns = clock_boottime_ns();
}

int daemon_interval_open(struct daemon *d)
{
	struct interval *i = calloc(1, sizeof(*i));

	if (!i)
		return -ENOMEM;
	if (aggregate_new(&i->aggregate, 0) < 0) {
		free(i);
		return -ENOMEM;
	}
	i->daemon = d;
	i->serial = ++d->next_interval;
	begin_now(i);
	i->revision = d->in_force->revision;
	d->open = i;
	d->open_is_full = false;
	return 0;
}

static uint64_t take_serial(struct daemon *d)
{
	struct err_text err = {};
	uint64_t ahead;

	if (++d->batch_serial <= d->batch_serial_saved)
		return d->batch_serial;
	ahead = d->batch_serial + SERIAL_STEP - 1;
	d->state_problem[0] = '\0';
	/* Until it can be saved every batch tries again; they are numbered all the same. */
	if (store_state_set(d->store, "batch/serial", ahead, &err) < 0) {
		snprintf(d->state_problem, sizeof(d->state_problem),
			"the number of the last batch cannot be saved: %.180s", err.text);
		log_warning("%s", d->state_problem);
	} else {
		d->batch_serial_saved = ahead;
	}
	return d->batch_serial;
}

/* Loses what the interval holds, in the ledger and in words. */
static void give_up(struct daemon *d, struct interval *i, const char *what, int error)
{
	uint64_t samples = aggregate_samples(i->aggregate);

	d->ledger.lost_memory += samples;
	log_error("%llu samples of one interval are lost: %s: %s", (unsigned long long)samples,
		what, strerror(-error));
}

static void hand_over(struct daemon *d, struct interval *i)
{
	struct daemon_locate l = {.daemon = d};
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes = {};
	struct batch_header header = {
		.from_unix_ns = i->from_unix_ns,
		.to_unix_ns = i->to_unix_ns,
		.revision = i->revision,
	};
	uint64_t totals[PROFILE_TYPES];
	int r, fd;

	r = aggregate_build(
		i->aggregate, i->from_unix_ns, i->to_unix_ns, daemon_locate_frame, &l, &b);
	if (r < 0) {
		give_up(d, i, "its batch could not be built", r);
		return;
	}
	memcpy(header.boot_id, d->boot_id, sizeof(header.boot_id));
	header.serial = take_serial(d);
	batch_totals(b, totals);
	for (size_t t = 0; t < PROFILE_TYPES; t++)
		header.samples[t] = totals[t];
	daemon_count_names(d, b);
	buf_init(&bytes, MAX_BATCH_BYTES);
	r = profile_encode(b, &header, NULL, 0, &bytes);
	if (r < 0) {
		give_up(d, i, "its batch could not be encoded", r);
		return;
	}
	d->ledger.profiled += totals[SAMPLE_TYPE_CPU];
	d->ledger.batches++;
	local_append(d->local, &header, bytes.data, bytes.len);
	fd = io_sealed_memfd("odi-batch", bytes.data, bytes.len);
	if (fd < 0)
		log_error("a batch stays on this host only: no memory file: %s", strerror(-fd));
	else if ((r = link_send(d->link, &header, fd)) < 0)
		log_error("a batch stays on this host only: %s", strerror(-r));
}

/* A file whose frames wait for names must not be evicted before they have them. */
static void hold_files(struct interval *i, const struct daemon_frames *l)
{
	for (size_t q = 0; q < l->n; q++) {
		if (i->n_files && i->files[i->n_files - 1] == l->queries[q].file)
			continue;
		if (i->n_files == i->room_files) {
			size_t room = MAX(i->room_files * 2, (size_t)64);
			uint32_t *files = reallocarray(i->files, room, sizeof(*files));

			if (!files)
				return;
			i->files = files;
			i->room_files = room;
		}
		i->files[i->n_files++] = l->queries[q].file;
		process_file_hold(i->daemon->processes, l->queries[q].file);
	}
}

static void unlink_pending(struct daemon *d, struct interval *i)
{
	for (struct interval **p = &d->pending; *p; p = &(*p)->next) {
		if (*p == i) {
			*p = i->next;
			d->n_pending--;
			return;
		}
	}
}

/* Best when nobody waits for names that it might drop; but where the symbolizer never catches up,
 * somebody always does, and its cache has to keep its bounds. */
static void trim(struct daemon *d)
{
	if (d->pending && ++d->trims_skipped < TRIMS_SKIPPED_MAX)
		return;
	d->trims_skipped = 0;
	symbol_trim(d->symbols);
}

static void on_named(void *userdata, size_t late)
{
	struct interval *i = userdata;
	struct daemon *d = i->daemon;

	d->late_names += late;
	unlink_pending(d, i);
	hand_over(d, i);
	daemon_interval_free(i);
	trim(d);
}

struct carrying {
	struct aggregate *from, *to;
};

/* Sent a moment ago, into the interval that closes; what is counted of it comes into the next. */
static void carry(void *userdata, struct counts_place *place)
{
	struct carrying *c = userdata;

	if (place->fate == COUNTS_PLACED &&
		aggregate_carry(c->to, c->from, place->slot, &place->slot) < 0)
		place->fate = COUNTS_LOST;
}

/* What the kernel counted was taken (daemon_settle()) before this. */
void daemon_interval_close(struct daemon *d)
{
	struct interval *i = d->open, **tail = &d->pending;
	struct daemon_frames l = {};
	uint64_t wait;
	int r;

	if (aggregate_samples(i->aggregate) == 0) {
		begin_now(i);
		d->open_is_full = false;
		return;
	}
	r = daemon_interval_open(d);
	if (r < 0) /* tries again at the next tick; the counts go on in the same interval */
		return;
	i->to_unix_ns = d->open->from_unix_ns;
	/* Whoever sets the clock by a day makes neither a profile of a day nor one of no time. */
	i->from_unix_ns = clock_unix_begin(
		i->from_unix_ns, i->to_unix_ns, d->open->from_boot_ns - i->from_boot_ns);
	counts_each(d->counts, carry, &(struct carrying){i->aggregate, d->open->aggregate});
	while (*tail)
		tail = &(*tail)->next;
	*tail = i;
	d->n_pending++;
	aggregate_each_frame(i->aggregate, daemon_frames_add, &l);
	hold_files(i, &l);
	daemon_jit_refresh(d, &l);
	if (kernel_code_changed(d->kernel_code))
		symbol_forget_kernel(d->symbols);
	wait = MIN(d->in_force->profiling.interval_ns, NAMES_DEADLINE_MAX);
	if (d->n_pending > DAEMON_MAX_PENDING)
		wait = MIN(wait, NSEC_PER_SEC);
	r = symbol_resolve(d->symbols, l.queries, l.failed ? 0 : l.n, clock_monotonic_ns() + wait,
		on_named, i);
	free(l.queries);
	if (r < 0) /* no memory for the questions: the fallback names will do */
		on_named(i, l.n);
}

static int on_interval(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct daemon *d = userdata;

	daemon_settle(d);
	daemon_interval_close(d);
	return d->sampler ? daemon_interval_arm(d) : 0;
}

int daemon_interval_arm(struct daemon *d)
{
	uint64_t interval_us = d->in_force->profiling.interval_ns / 1000, now;
	int r = sd_event_now(d->loop, CLOCK_MONOTONIC, &now);

	if (r < 0)
		return r;
	if (!d->interval_timer)
		return sd_event_add_time(d->loop, &d->interval_timer, CLOCK_MONOTONIC,
			now + interval_us, 10000, on_interval, d);
	r = sd_event_source_set_time(d->interval_timer, now + interval_us);
	if (r < 0)
		return r;
	return sd_event_source_set_enabled(d->interval_timer, SD_EVENT_ONESHOT);
}

void daemon_finish_pending(struct daemon *d, uint64_t deadline_ns)
{
	while (d->pending && clock_monotonic_ns() < deadline_ns)
		if (sd_event_run(d->loop, 20000) < 0)
			break;
	/* Names that are not there by now: the fallbacks. */
	while (d->pending) {
		struct interval *i = d->pending;

		symbol_cancel(d->symbols, i);
		on_named(i, 0);
	}
}

/* ---- the open interval, as a query sees it ---- */

struct snapshot {
	struct daemon *daemon;
	struct snapshot *next;
	void (*done)(void *userdata, const void *data, size_t len);
	void *userdata;
};

static void snapshot_unlink(struct snapshot *s)
{
	struct snapshot **p = &s->daemon->snapshots;

	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
}

static int merge_interval(
	struct daemon *d, struct interval *i, uint64_t to_unix_ns, struct batch *into)
{
	struct daemon_locate l = {.daemon = d};
	CLEANUP(batch_freep) struct batch *b = NULL;
	int r = aggregate_build(
		i->aggregate, i->from_unix_ns, to_unix_ns, daemon_locate_frame, &l, &b);

	return r < 0 ? r : batch_merge(into, b, 0, 0);
}

static void on_snapshot_named(void *userdata, size_t late)
{
	_cleanup_free_ struct snapshot *s = userdata;
	struct daemon *d = s->daemon;
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes = {};
	struct batch_header header = {.to_unix_ns = clock_unix_ns()};
	int r = batch_new(&b);

	snapshot_unlink(s);
	buf_init(&bytes, MAX_BATCH_BYTES);
	for (struct interval *i = d->pending; r >= 0 && i; i = i->next)
		r = merge_interval(d, i, i->to_unix_ns, b);
	if (r >= 0)
		r = merge_interval(d, d->open, header.to_unix_ns, b);
	if (r >= 0 && batch_parts(b))
		r = profile_encode(b, &header, NULL, 0, &bytes);
	if (r < 0)
		log_warning("the open interval cannot be shown: %s", strerror(-r));
	s->done(s->userdata, r < 0 ? NULL : bytes.data, r < 0 ? 0 : bytes.len);
}

int daemon_snapshot(struct daemon *d, unsigned deadline_ms,
	void (*done)(void *userdata, const void *data, size_t len), void *userdata)
{
	struct daemon_frames l = {};
	struct snapshot *s = malloc(sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct snapshot){d, d->snapshots, done, userdata};
	d->snapshots = s;
	daemon_settle(d);
	aggregate_each_frame(d->open->aggregate, daemon_frames_add, &l);
	daemon_jit_refresh(d, &l);
	if (kernel_code_changed(d->kernel_code))
		symbol_forget_kernel(d->symbols);
	r = symbol_resolve(d->symbols, l.queries, l.failed ? 0 : l.n,
		clock_monotonic_ns() + deadline_ms * NSEC_PER_MSEC, on_snapshot_named, s);
	free(l.queries);
	if (r < 0)
		on_snapshot_named(s, l.n);
	return 0;
}

void daemon_snapshot_cancel(struct daemon *d, void *userdata)
{
	for (struct snapshot *s = d->snapshots, *next; s; s = next) {
		next = s->next;
		if (s->userdata != userdata)
			continue;
		symbol_cancel(d->symbols, s);
		snapshot_unlink(s);
		free(s);
	}
}
