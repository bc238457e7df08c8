/* SPDX-License-Identifier: Apache-2.0 */

/* A sample's way through agentd: the sampler's events go to the process table, which gives them
 * back with facts and files; a source claims the image (the verdict goes to the kernel, so that
 * what nobody claims costs one look-up there); counts go up in the open interval.
 *
 * Most samples never come: their stack was sent before, and the kernel counts them (on_count). What was
 * counted is booked as the sample was that was sent under the same id: to the same place, as the same
 * kind of stack.
 *
 * What is called back here runs deep inside a drain or a turn of the process table. It may decide
 * and count, and nothing else: closing an interval asks for names, for which a file may have to be
 * opened again, which the table does not allow from its own callbacks, and takes the counts of the
 * kernel, which is a drain itself. So a full interval is only marked, and closed in the loop's next
 * round. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "agentd/daemon.h"

#define MAX_RESOURCE_ATTRIBUTES 256
#define UNCOUNTED_NS            (30 * NSEC_PER_SEC) /* after addresses were given to another file */

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

/* The types that are wanted of a source's images, 1 << enum sample_type. */
static uint32_t wanted_types(const struct daemon *d, const struct source *source)
{
	if (!source)
		return 0;
	return source->types ? source->types : d->in_force->profiling.types;
}

static void set_verdict(struct daemon *d, const struct image *image, const struct assignment *a)
{
	uint16_t flags = a->source && a->source->per_thread ? VERDICT_PER_THREAD : 0;

	if (a->uncounted_ns || a->timed)
		flags |= VERDICT_UNCOUNTED;
	if (d->sampler)
		sampler_set_verdict(d->sampler, &image->key, wanted_types(d, a->source), 1, flags);
}

static struct assignment *assign(struct daemon *d, struct image *image)
{
	struct assignment *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->generation = d->generation;
	a->source = source_set_match(d->in_force->sources, d->processes, image, NULL, 0, NULL);
	if (a->source &&
		source_resource(a->source, image, &d->host, &a->attributes, &a->n_attributes) < 0) {
		assignment_free(a);
		return NULL;
	}
	if (image->assignment)
		a->uncounted_ns = ((struct assignment *)image->assignment)->uncounted_ns;
	a->timed = daemon_source_timed(d, a->source);
	drop_assignment(image);
	image->assignment = a;
	set_verdict(d, image, a);
	return a;
}

/* Whose it is now; NULL: no memory. */
static struct assignment *assignment_of(struct daemon *d, struct image *image)
{
	struct assignment *a = image->assignment;

	return a && a->generation == d->generation ? a : assign(d, image);
}

static bool wanted(void *userdata, struct image *image)
{
	struct daemon *d = userdata;
	struct assignment *a = assignment_of(d, image);

	return !a || wanted_types(d, a->source);
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
	struct aggregate_resource_attribute list[MAX_RESOURCE_ATTRIBUTES],
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

/* For the statistics: how the stack ended, of so many samples. */
static void count_stacks(struct daemon *d, const struct counts_place *p, uint64_t samples)
{
	struct stacks_file *f = stacks_add(&d->stacks, p->end, p->guessed, p->end_file, samples);
	const struct file *file = f ? process_file(d->processes, f->file) : NULL;

	if (file && file->path)
		snprintf(f->name, sizeof(f->name), "%s", file->path);
}

/* To the open interval. What became of it. */
static struct counts_place place_sample(
	struct daemon *d, struct image *image, const struct process_sample *s)
{
	struct counts_place p = {.fate = COUNTS_LOST,
		.value = s->value,
		.end = s->end,
		.guessed = s->guessed,
		.end_file = s->end_file,
		.files = s->files};
	struct assignment *a = assignment_of(d, image);
	struct aggregate_sample as;
	int64_t resource;
	int r;

	if (!a)
		return p;
	/* Taken before the kernel had its verdict. */
	if (!(wanted_types(d, a->source) & 1U << (s->type & 31))) {
		p.fate = COUNTS_IGNORED;
		return p;
	}
	resource = resource_in_open(d, a);
	if (resource < 0)
		return p;
	as = (struct aggregate_sample){
		.resource = (uint32_t)resource,
		.type = s->type,
		.period = s->value,
		.count = s->count,
		.time_unix_ns = s->time_ns + (uint64_t)d->clock_offset_ns,
		.timed = a->timed,
		.epoch = hash_local(&image->key, sizeof(image->key)) ^ image->mapping_epoch,
		.frames = s->frames,
		.n_frames = s->n_frames,
		.thread_name = a->source->per_thread ? s->comm : NULL,
		.thread_id = a->source->per_thread ? s->tid : -1,
		.cpu = a->source->per_cpu ? (int64_t)s->cpu : -1,
	};
	r = aggregate_add(d->open->aggregate, &as, &p.slot);
	if (r < 0)
		return p;
	if (r > 0)
		d->open_is_full = true;
	p.fate = COUNTS_PLACED;
	p.source = a->source;
	return p;
}

/* Samples that go where p says; time: of the last. */
static void book(struct daemon *d, const struct counts_place *p, uint64_t samples, uint64_t time_ns)
{
	uint64_t unix_ns = time_ns + (uint64_t)d->clock_offset_ns;

	if (p->fate == COUNTS_IGNORED) {
		d->ledger.ignored_user += samples;
	} else if (p->fate == COUNTS_LOST) {
		d->ledger.lost_memory += samples;
	} else {
		p->source->samples += samples;
		p->source->last_sample_unix_ns = MAX(p->source->last_sample_unix_ns, unix_ns);
		count_stacks(d, p, samples);
	}
}

/* What the kernel counted under an id, now that it is known of what. */
static void book_counted(struct daemon *d, const struct counts_due *due)
{
	static const struct sample_frame lost = {.kind = FRAME_MARKER, .offset = MARKER_LOST};
	struct counts_place p = due->place;
	struct image *image = process_find(d->processes, &due->image);

	if (p.fate == COUNTS_PLACED && due->reused) {
		p.end = WALK_REUSED;
		p.guessed = 0;
		p.end_file = 0;
		if (aggregate_restack(d->open->aggregate, p.slot, &lost, 1, &p.slot) < 0)
			p.fate = COUNTS_LOST;
	}
	if (p.fate == COUNTS_PLACED)
		aggregate_count(d->open->aggregate, p.slot, due->samples);
	book(d, &p, due->samples, due->last_ns);
	if (image) {
		image->samples += due->samples;
		image->cpu_ns += due->samples * p.value;
		image->last_sample_ns = MAX(image->last_sample_ns, due->last_ns);
	}
}

/* It has been calm since. */
static void count_again(struct daemon *d, const struct image *image, uint64_t time_ns)
{
	struct assignment *a = image->assignment;

	if (!a || !a->uncounted_ns || time_ns < a->uncounted_ns)
		return;
	a->uncounted_ns = 0;
	if (a->generation == d->generation)
		set_verdict(d, image, a);
}

static void on_sample(void *userdata, struct image *image, const struct process_sample *s)
{
	struct daemon *d = userdata;
	struct counts_place p = place_sample(d, image, s);
	struct counts_due due;

	d->ledger.received += s->count;
	book(d, &p, s->count, s->time_ns);
	if (p.fate == COUNTS_PLACED)
		daemon_space_wanted(d, image);
	count_again(d, image, s->time_ns);
	if (s->id && counts_placed(d->counts, s->id, &image->key, s->time_ns, &p, &due))
		book_counted(d, &due);
}

static void on_lost_id(void *userdata, uint64_t id)
{
	struct daemon *d = userdata;

	d->ledger.lost_counts += counts_dropped(d->counts, id);
}

static void on_reused(void *userdata, struct image *image, uint64_t time_ns, uint64_t files)
{
	struct daemon *d = userdata;
	struct assignment *a = assignment_of(d, image);

	counts_reused(d->counts, &image->key, time_ns, files);
	if (!a || !a->source)
		return;
	/* Of a count only the last time is known, of a sample its own: an image that goes on giving
	 * addresses away loses by that only what was sampled before we knew. */
	bool counted = !a->uncounted_ns;

	a->uncounted_ns = time_ns + UNCOUNTED_NS;
	if (counted)
		set_verdict(d, image, a);
}

static void on_lost(void *userdata, const char *cause, uint64_t samples)
{
	struct daemon *d = userdata;

	d->ledger.received += samples;
	if (streq(cause, "queue full"))
		d->ledger.lost_queue += samples;
	else if (streq(cause, "out of memory"))
		d->ledger.lost_memory += samples;
	else
		d->ledger.lost_table += samples;
}

void daemon_defer(struct daemon *d, sd_event_source **source, sd_event_handler_t handler)
{
	if (!*source)
		(void)sd_event_add_defer(d->loop, source, handler, d);
	if (*source)
		(void)sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}

static int on_drain_soon(sd_event_source *s, void *userdata)
{
	struct daemon *d = userdata;

	if (d->sampler)
		sampler_drain(d->sampler);
	return 0;
}

/* Samples wait for the stream to pass a moment behind us: the loop's next round drains, once. */
static void on_waiting(void *userdata)
{
	struct daemon *d = userdata;

	daemon_defer(d, &d->drain_soon, on_drain_soon);
}

const struct process_ops daemon_process_ops = {
	.on_waiting = on_waiting,
	.on_facts = on_facts,
	.on_sample = on_sample,
	.on_gone = on_gone,
	.on_lost = on_lost,
	.on_lost_id = on_lost_id,
	.wanted = wanted,
	.rows = daemon_rows,
	.on_space = daemon_on_space,
	.on_file_gone = daemon_on_file_gone,
	.on_reused = on_reused,
};

/* ---- from the sampler ---- */

static void on_event(void *userdata, const struct sampler_event *event)
{
	struct daemon *d = userdata;

	if (!d->drained_once) {
		d->clock_offset_ns = clock_unix_offset_ns();
		d->drained_once = true;
	}
	if (event->kind == SAMPLER_SAMPLE && event->sample->id)
		counts_sent(d->counts, event->sample->id);
	if (event->kind == SAMPLER_LOST_EVENTS)
		sampler_distrust_spaces(d->sampler);
	if (event->kind == SAMPLER_KERNEL_CODE || event->kind == SAMPLER_LOST_EVENTS)
		kernel_code_touch(d->kernel_code);
	process_on_event(d->processes, event);
}

static int on_close_soon(sd_event_source *s, void *userdata)
{
	struct daemon *d = userdata;

	if (d->open_is_full) {
		daemon_settle(d);
		daemon_interval_close(d);
	}
	return 0;
}

static void on_drained(void *userdata, uint64_t up_to_ns)
{
	struct daemon *d = userdata;

	process_on_drained(d->processes, up_to_ns);
	daemon_unwinding_drained(d);
	d->drained_once = false;
	if (d->open_is_full && !d->settling)
		daemon_defer(d, &d->close_soon, on_close_soon);
}

static void on_count(void *userdata, uint64_t id, uint64_t samples, uint64_t last_ns)
{
	struct daemon *d = userdata;
	struct counts_due due;
	int r = counts_add(d->counts, id, samples, last_ns, &due);

	d->ledger.collected += samples;
	if (r == 0)
		book_counted(d, &due);
	else if (r < 0)
		d->ledger.lost_counts += samples;
}

const struct sampler_ops daemon_sampler_ops = {
	.on_event = on_event,
	.on_drained = on_drained,
	.on_count = on_count,
};

void daemon_settle(struct daemon *d)
{
	struct process_counters pc = {};

	if (!d->sampler || d->settling)
		return;
	d->settling = true;
	counts_turn(d->counts);
	sampler_collect(d->sampler);
	process_counters(d->processes, &pc);
	d->ledger.lost_counts += counts_turned(d->counts, pc.queued == 0);
	d->settling = false;
}
