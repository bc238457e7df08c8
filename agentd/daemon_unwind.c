/* SPDX-License-Identifier: Apache-2.0 */

/* What the kernel walks stacks by, on its way there: rows of the pages that samples touch, and what
 * each image has mapped.
 *
 * Rows are asked for by walks that the kernel could not finish and that go on here. What the sampler's
 * arena has not is asked of the unwinder; its answer goes into the arena, and the walk starts again.
 * Files may have to be opened for that, which the process table does not allow from its own callbacks,
 * so what walks ask for is handed on in the loop's next round. For the same reason a file that is gone
 * is forgotten later: its id is never used again.
 *
 * Spaces are told at the end of a drain, some images each time: a storm of short-lived processes
 * must not take the daemon's time, and who is not told yet is walked here meanwhile. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/map.h"
#include "agentd/daemon.h"

#define SPACES_A_DRAIN 64
#define MAX_LISTED     16384 /* images; as many as the process table has */
#define MAX_ASKS       4096  /* pages that walks asked for in one round */
#define MAX_REFUSED    4096  /* pages that the arena did not take */
#define FINISH_NS      (300 * NSEC_PER_MSEC)
#define FINISH_STEP_MS 20
#define RETRY_MIN_NS   NSEC_PER_SEC
#define RETRY_MAX_NS   (64 * NSEC_PER_SEC)

struct unwinding {
	struct unwinder *unwinder;
	struct map *asks;    /* ROWS_KEY() -> (void *)1 */
	struct map *refused; /* the same */
	sd_event_source *ask_soon;
	struct sample_image *listed; /* a ring: images whose space is to be told */
	size_t first, n_listed, room;
	struct space_map *maps; /* SPACE_MAPS_MAX */
	uint32_t *gone;         /* files */
	size_t n_gone, room_gone;
	uint64_t told, failed;
};

/* ---- rows ---- */

static int on_ask_soon(sd_event_source *s, void *userdata)
{
	struct daemon *d = userdata;
	struct unwinding *u = d->unwinding;
	struct map_iter it = {0};

	/* Refused for want of room: whoever waits asks again when others' pages have come. */
	while (map_next(u->asks, &it)) {
		uint64_t key;

		memcpy(&key, it.key, sizeof(key));
		(void)unwinder_ask(u->unwinder, (uint32_t)(key >> 32), (uint32_t)key);
	}
	map_clear_with(u->asks, NULL);
	return 0;
}

int daemon_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	struct daemon *d = userdata;
	struct unwinding *u = d->unwinding;
	const struct rows_slot *slot;
	uint64_t key = ROWS_KEY(file, page);

	if (!d->sampler)
		return -ENOENT;
	slot = sampler_rows_find(d->sampler, file, page);
	if (slot) {
		*ret = slot;
		return 0;
	}
	if (map_get(u->refused, &key, sizeof(key)))
		return -ENOENT;
	if (map_size(u->asks) < MAX_ASKS &&
		map_put(u->asks, &key, sizeof(key), (void *)1, NULL) < 0)
		return -ENOENT;
	daemon_defer(d, &u->ask_soon, on_ask_soon);
	return -EAGAIN;
}

void daemon_unwinding_finish(struct daemon *d)
{
	struct unwinding *u = d->unwinding;
	uint64_t until = clock_monotonic_ns() + FINISH_NS;

	do
		(void)on_ask_soon(NULL, d);
	while ((unwinder_wait(u->unwinder, FINISH_STEP_MS) || map_size(u->asks)) &&
		clock_monotonic_ns() < until);
}

static int open_file(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;

	return process_file_open(d->processes, file);
}

static const char *file_name(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;
	const struct file *f = process_file(d->processes, file);

	return f ? f->path : NULL;
}

static void on_page(
	void *userdata, uint32_t file, uint32_t page, const struct rows_slot *slot, size_t size)
{
	struct daemon *d = userdata;
	struct unwinding *u = d->unwinding;
	uint64_t key = ROWS_KEY(file, page);
	int r = d->sampler ? sampler_rows_add(d->sampler, file, page, slot, size) : 0;

	/* -EAGAIN: its place is not free this very moment. Who wants the page asks for it again; any
	 * other refusal would only be repeated. */
	if (r == 0)
		map_remove(u->refused, &key, sizeof(key));
	else if (r != -EAGAIN && map_size(u->refused) < MAX_REFUSED)
		(void)map_put(u->refused, &key, sizeof(key), (void *)1, NULL);
	if (r < 0 && r != -EAGAIN)
		log_debug("rows of page %u of file %u find no room: %s", page, file, strerror(-r));
}

static void on_idle(void *userdata)
{
	struct daemon *d = userdata;

	process_rows_ready(d->processes);
}

static const struct unwinder_ops unwinder_ops = {
	.open_file = open_file,
	.on_page = on_page,
	.on_idle = on_idle,
	.file_name = file_name,
};

/* ---- files that are gone ---- */

void daemon_on_file_gone(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;
	struct unwinding *u = d->unwinding;

	if (u->n_gone == u->room_gone) {
		size_t room = MAX(u->room_gone * 2, (size_t)64);
		uint32_t *gone = reallocarray(u->gone, room, sizeof(*gone));

		if (!gone) /* what is known of it goes with age */
			return;
		u->gone = gone;
		u->room_gone = room;
	}
	u->gone[u->n_gone++] = file;
}

static void forget_files(struct daemon *d)
{
	struct unwinding *u = d->unwinding;

	for (size_t i = 0; i < u->n_gone; i++) {
		if (d->sampler)
			sampler_rows_forget(d->sampler, u->gone[i]);
		unwinder_forget_file(u->unwinder, u->gone[i]);
		if (d->symbols)
			symbol_forget_file(d->symbols, u->gone[i]);
	}
	u->n_gone = 0;
}

/* ---- spaces ---- */

static int list_grow(struct unwinding *u)
{
	size_t room = MAX(u->room * 2, (size_t)256);
	struct sample_image *listed;

	if (u->n_listed >= MAX_LISTED)
		return -ENOBUFS;
	listed = calloc(room, sizeof(*listed));
	if (!listed)
		return -ENOMEM;
	for (size_t i = 0; i < u->n_listed; i++)
		listed[i] = u->listed[(u->first + i) % u->room];
	free(u->listed);
	u->listed = listed;
	u->first = 0;
	u->room = room;
	return 0;
}

static void list(struct daemon *d, struct image *image, struct assignment *a)
{
	struct unwinding *u = d->unwinding;

	if (a->space_listed || (u->n_listed == u->room && list_grow(u) < 0))
		return;
	u->listed[(u->first + u->n_listed++) % u->room] = image->key;
	a->space_listed = true;
}

/* The assignment, if the kernel shall know what the image has mapped. */
static struct assignment *claimed(struct daemon *d, const struct image *image)
{
	struct assignment *a = image->assignment;

	return d->sampler && a && a->generation == d->generation && a->source && !image->ended &&
			!image->kernel_thread
		? a
		: NULL;
}

void daemon_on_space(void *userdata, struct image *image)
{
	struct daemon *d = userdata;
	struct assignment *a = claimed(d, image);

	if (a)
		list(d, image, a);
}

void daemon_space_wanted(struct daemon *d, struct image *image)
{
	struct assignment *a = claimed(d, image);

	if (a && !a->space_told &&
		(!a->space_retry_ns || image->last_sample_ns >= a->space_retry_ns))
		list(d, image, a);
}

static void tell(struct daemon *d, struct image *image, struct assignment *a)
{
	struct unwinding *u = d->unwinding;
	size_t n = process_space(d->processes, image, u->maps, SPACE_MAPS_MAX);
	uint32_t tag = 0;
	int r;

	/* Not known, or not now: daemon_on_space() comes when it is. */
	a->space_told = true;
	if (!n)
		return;
	r = sampler_set_space(d->sampler, &image->key, u->maps, n, &tag);
	if (r == 0) {
		process_space_set(d->processes, image, tag);
		a->space_failures = 0;
		u->told++;
		return;
	}
	u->failed++;
	a->space_told = false;
	a->space_retry_ns = clock_monotonic_ns() +
		MIN(RETRY_MIN_NS << MIN(a->space_failures, 6U), RETRY_MAX_NS);
	a->space_failures++;
	log_debug("the kernel cannot be told what process %u has mapped: %s", image->key.tgid,
		strerror(-r));
}

void daemon_unwinding_drained(struct daemon *d)
{
	struct unwinding *u = d->unwinding;

	for (size_t i = 0; i < SPACES_A_DRAIN && u->n_listed; i++) {
		struct image *image = process_find(d->processes, &u->listed[u->first]);
		struct assignment *a;

		u->first = (u->first + 1) % u->room;
		u->n_listed--;
		if (!image)
			continue;
		if (image->assignment)
			((struct assignment *)image->assignment)->space_listed = false;
		a = claimed(d, image);
		if (a)
			tell(d, image, a);
	}
	forget_files(d);
}

void daemon_unwinding_restart(struct daemon *d)
{
	map_clear_with(d->unwinding->refused, NULL);
	d->unwinding->told = d->unwinding->failed = 0;
}

/* ---- life ---- */

int daemon_unwinding_new(struct daemon *d, struct err_text *err)
{
	struct unwinding *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_set(err, -ENOMEM, "out of memory");
	d->unwinding = u;
	u->maps = calloc(SPACE_MAPS_MAX, sizeof(*u->maps));
	r = u->maps ? map_new(&u->asks, sizeof(uint64_t)) : -ENOMEM;
	if (r == 0)
		r = map_new(&u->refused, sizeof(uint64_t));
	if (r < 0)
		return err_set(err, r, "out of memory");
	return unwinder_new(
		&u->unwinder, d->loop, &(struct unwinder_config){}, &unwinder_ops, d, err);
}

void daemon_unwinding_free(struct daemon *d)
{
	struct unwinding *u = TAKE_PTR(d->unwinding);

	if (!u)
		return;
	unwinder_free(u->unwinder);
	sd_event_source_disable_unref(u->ask_soon);
	map_free(u->asks);
	map_free(u->refused);
	free(u->listed);
	free(u->maps);
	free(u->gone);
	free(u);
}

/* ---- for the status ---- */

pid_t daemon_unwinder_pid(struct daemon *d)
{
	return unwinder_child_pid(d->unwinding->unwinder);
}

void daemon_unwinder_counters(struct daemon *d, struct unwinder_counters *ret)
{
	unwinder_counters(d->unwinding->unwinder, ret);
}

const struct unwind_file_facts *daemon_unwind_facts(struct daemon *d, uint32_t file)
{
	return unwinder_file_facts(d->unwinding->unwinder, file);
}

void daemon_space_counters(const struct daemon *d, uint64_t *told, uint64_t *waiting)
{
	*told = d->unwinding->told;
	*waiting = d->unwinding->n_listed;
}
