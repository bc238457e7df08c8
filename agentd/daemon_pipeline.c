/* SPDX-License-Identifier: Apache-2.0 */

/* A sample's way through agentd: the sampler's events go to the process table, which gives them
 * back with facts and files; a source claims the image (the verdict goes to the kernel, so that
 * what nobody claims costs one look-up there); counts go up in the open interval. At its end the
 * interval's distinct frames are named by the symbolizer, never longer than one interval more; the
 * batch that comes of it is encoded once and handed over to the exporter and to the local profiles.
 * Nothing here waits: the loop runs on while names are made. */

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/daemon.h"
#include "agentd/daemon_names.h"

#define SERIAL_STEP        64
#define NAMES_DEADLINE_MAX (10 * NSEC_PER_SEC)
#define MAX_BATCH_BYTES    (64U << 20)

/* ---- whose is it ---- */

static void assignment_free(struct assignment *a)
{
	if (!a)
		return;
	resource_attributes_free(a->attributes, a->n_attributes);
	free(a);
}

static void drop_assignment(struct image *image)
{
	assignment_free(image->assignment);
	image->assignment = NULL;
}

static void forget_one(void *userdata, struct image *image)
{
	drop_assignment(image);
}

void daemon_forget_assignments(struct daemon *d)
{
	process_each(d->processes, forget_one, NULL);
}

static void send_verdict(struct daemon *d, const struct image *image, const struct source *source)
{
	uint32_t types = 0;

	if (!d->sampler)
		return;
	if (source)
		types = source->types ? source->types : config_current(d->config)->profiling.types;
	sampler_set_verdict(d->sampler, &image->key, types, 1);
}

static struct assignment *assign(struct daemon *d, struct image *image)
{
	const struct config *c = config_current(d->config);
	struct assignment *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->generation = d->generation;
	a->source = source_set_match(c->sources, d->processes, image, NULL, 0, NULL);
	if (a->source &&
		source_resource(a->source, image, &d->host, &a->attributes, &a->n_attributes) < 0) {
		assignment_free(a);
		return NULL;
	}
	drop_assignment(image);
	image->assignment = a;
	send_verdict(d, image, a->source);
	if (a->source)
		a->source->images++;
	return a;
}

static void on_facts(void *userdata, struct image *image)
{
	struct daemon *d = userdata;

	drop_assignment(image);
	if (d->sampler)
		assign(d, image);
}

static void on_gone(void *userdata, struct image *image)
{
	struct daemon *d = userdata;

	drop_assignment(image);
	if (d->sampler)
		sampler_forget(d->sampler, &image->key);
}

/* ---- into the open interval ---- */

/* The resource's attributes and, in its place among the sorted keys, the source's name: `--source`
 * of queries needs it on this host; the exporter takes it off. */
static int64_t resource_in_open(struct daemon *d, struct assignment *a)
{
	struct aggregate_resource_attribute list[256],
		mark = {"odi.source", a->source->name, false};
	size_t n = 0;
	bool marked = false;
	int64_t index;

	if (a->interval == d->open->serial)
		return a->resource;
	for (size_t i = 0; i < a->n_attributes && n + 2 < ARRAY_SIZE(list); i++) {
		if (!marked && strcmp(mark.key, a->attributes[i].key) < 0) {
			list[n++] = mark;
			marked = true;
		}
		list[n++] = (struct aggregate_resource_attribute){
			a->attributes[i].key, a->attributes[i].value, a->attributes[i].is_int};
	}
	if (!marked)
		list[n++] = mark;
	index = aggregate_resource(d->open->aggregate, list, n);
	if (index >= 0) {
		a->resource = (uint32_t)index;
		a->interval = d->open->serial;
	}
	return index;
}

static void on_sample(void *userdata, struct image *image, const struct process_sample *s)
{
	struct daemon *d = userdata;
	struct assignment *a = image->assignment;
	struct aggregate_sample as;
	int64_t resource;
	int r;

	d->ledger.received += s->count;
	if (!a || a->generation != d->generation)
		a = assign(d, image);
	if (!a) {
		d->ledger.lost_memory += s->count;
		return;
	}
	if (!a->source) {
		d->ledger.ignored_user += s->count;
		return;
	}
	resource = resource_in_open(d, a);
	if (resource < 0) {
		d->ledger.lost_memory += s->count;
		return;
	}
	as = (struct aggregate_sample){
		.resource = (uint32_t)resource,
		.type = s->type,
		.period = s->value,
		.count = s->count,
		.time_unix_ns = s->time_ns + (uint64_t)d->clock_offset_ns,
		.epoch = hash_local(&image->key, sizeof(image->key)) ^ image->mapping_epoch,
		.frames = s->frames,
		.n_frames = s->n_frames,
		.thread_name = a->source->per_thread ? s->comm : NULL,
		.thread_id = a->source->per_thread ? s->tid : -1,
		.cpu = a->source->per_cpu ? (int64_t)s->cpu : -1,
	};
	r = aggregate_add(d->open->aggregate, &as);
	if (r < 0) {
		d->ledger.lost_memory += s->count;
		return;
	}
	a->source->samples += s->count;
	a->source->last_sample_unix_ns = as.time_unix_ns;
	if (r > 0)
		daemon_interval_close(d);
}

static void on_lost(void *userdata, const char *cause, uint64_t samples)
{
	struct daemon *d = userdata;

	d->ledger.received += samples;
	if (streq(cause, "queue full"))
		d->ledger.lost_queue += samples;
	else
		d->ledger.lost_table += samples;
}

static int on_drain_soon(sd_event_source *s, void *userdata)
{
	struct daemon *d = userdata;

	daemon_settle(d);
	return 0;
}

/* Samples wait for the stream to pass a moment behind us: the loop's next round drains, once. */
static void on_waiting(void *userdata)
{
	struct daemon *d = userdata;

	if (!d->drain_soon)
		sd_event_add_defer(d->loop, &d->drain_soon, on_drain_soon, d);
	if (d->drain_soon)
		sd_event_source_set_enabled(d->drain_soon, SD_EVENT_ONESHOT);
}

const struct process_ops daemon_process_ops = {
	.on_waiting = on_waiting,
	.on_facts = on_facts,
	.on_sample = on_sample,
	.on_gone = on_gone,
	.on_lost = on_lost,
};

static void on_event(void *userdata, const struct sampler_event *event)
{
	struct daemon *d = userdata;

	if (!d->drained_once) {
		d->clock_offset_ns = clock_unix_offset_ns();
		d->drained_once = true;
	}
	process_on_event(d->processes, event);
}

static void on_drained(void *userdata, uint64_t up_to_ns)
{
	struct daemon *d = userdata;

	process_on_drained(d->processes, up_to_ns);
	d->drained_once = false;
}

const struct sampler_ops daemon_sampler_ops = {
	.on_event = on_event,
	.on_drained = on_drained,
};

void daemon_settle(struct daemon *d)
{
	if (d->sampler)
		sampler_drain(d->sampler);
}

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
	i->from_unix_ns = clock_unix_ns();
	i->revision = d->config ? config_current(d->config)->revision : 0;
	d->open = i;
	return 0;
}

static uint64_t take_serial(struct daemon *d)
{
	struct err_text err = {};

	if (++d->batch_serial > d->batch_serial_saved) {
		d->batch_serial_saved = d->batch_serial + SERIAL_STEP - 1;
		if (store_state_set(d->store, "batch/serial", d->batch_serial_saved, &err) < 0)
			log_warning("cannot save the batch serial: %s", err.text);
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

static void on_named(void *userdata, size_t late)
{
	struct interval *i = userdata;
	struct daemon *d = i->daemon;

	d->late_names += late;
	unlink_pending(d, i);
	hand_over(d, i);
	daemon_interval_free(i);
	if (!d->pending)
		symbol_trim(d->symbols);
}

void daemon_interval_close(struct daemon *d)
{
	struct interval *i = d->open, **tail = &d->pending;
	struct daemon_frames l = {};
	uint64_t wait;
	int r;

	if (aggregate_samples(i->aggregate) == 0) {
		i->from_unix_ns = clock_unix_ns();
		return;
	}
	r = daemon_interval_open(d);
	if (r < 0) {
		d->open =
			i; /* tries again at the next tick; the counts go on in the same interval */
		return;
	}
	i->to_unix_ns = d->open->from_unix_ns;
	while (*tail)
		tail = &(*tail)->next;
	*tail = i;
	d->n_pending++;
	aggregate_each_frame(i->aggregate, daemon_frames_add, &l);
	hold_files(i, &l);
	wait = MIN(d->interval_ns, NAMES_DEADLINE_MAX);
	if (d->n_pending > DAEMON_MAX_PENDING || d->stopping)
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
	uint64_t interval_us = d->interval_ns / 1000, now;
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
			return;
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
	void (*done)(void *userdata, const void *data, size_t len);
	void *userdata;
};

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
	struct snapshot *s = userdata;
	struct daemon *d = s->daemon;
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes = {};
	struct batch_header header = {.to_unix_ns = clock_unix_ns()};
	int r = batch_new(&b);

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
	free(s);
}

int daemon_snapshot(struct daemon *d, unsigned deadline_ms,
	void (*done)(void *userdata, const void *data, size_t len), void *userdata)
{
	struct daemon_frames l = {};
	struct snapshot *s = malloc(sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct snapshot){d, done, userdata};
	daemon_settle(d);
	aggregate_each_frame(d->open->aggregate, daemon_frames_add, &l);
	r = symbol_resolve(d->symbols, l.queries, l.failed ? 0 : l.n,
		clock_monotonic_ns() + deadline_ms * NSEC_PER_MSEC, on_snapshot_named, s);
	free(l.queries);
	if (r < 0)
		on_snapshot_named(s, l.n);
	return 0;
}
