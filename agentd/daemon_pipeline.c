/* SPDX-License-Identifier: Apache-2.0 */

/* A sample's way through agentd: the sampler's events go to the process table, which gives them
 * back with facts and files; a source claims the image (the verdict goes to the kernel, so that
 * what nobody claims costs one look-up there); counts go up in the open interval.
 *
 * What is called back here runs deep inside a drain or a turn of the process table. It may decide
 * and count, and nothing else: closing an interval asks for names, for which a file may have to be
 * opened again, which the table does not allow from its own callbacks. So a full interval is only
 * marked, and closed when the drain is over. */

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "agentd/base/log.h"
#include "agentd/daemon.h"

#define MAX_RESOURCE_ATTRIBUTES 256

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
	drop_assignment(image);
	image->assignment = a;
	if (d->sampler)
		sampler_set_verdict(d->sampler, &image->key, wanted_types(d, a->source), 1, 0);
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
	/* Taken before the kernel had its verdict. */
	if (!a->source || !(wanted_types(d, a->source) & 1U << (s->type & 31))) {
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
	r = aggregate_add(d->open->aggregate, &as, NULL);
	if (r < 0) {
		d->ledger.lost_memory += s->count;
		return;
	}
	a->source->samples += s->count;
	a->source->last_sample_unix_ns = as.time_unix_ns;
	if (r > 0)
		d->open_is_full = true;
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
	if (d->open_is_full)
		daemon_interval_close(d);
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
