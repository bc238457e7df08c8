/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A sampler with a loop around it that remembers what it was handed, and children of known
 * behaviour. Every record is checked for its shape and for the order of time as it comes. */

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <cmocka.h>
#include "agentd/base/clock.h"
#include "agentd/sampler/internal.h"

struct seen {
	enum sampler_event_kind kind;
	uint64_t time;
	struct sample_image image, parent;
	uint32_t pid, tid;
	uint64_t value, lost, cgroup_id;
	uint32_t count, flags, cpu;
	uint16_t n_frames;
	uint64_t id;
	uint32_t end, space, stack, turn;
	uint64_t pgoff, start, len, inode;
	char comm[SAMPLE_COMM + 1];
	char text[300]; /* path or cgroup */
	struct sample_frame *frames;
};

/* One call of on_count. */
struct told {
	uint64_t id, samples, last_ns;
	uint32_t turn;
	size_t at; /* so many events had been handed out */
};

struct watch {
	sd_event *loop;
	struct sampler *s;
	struct seen *list;
	size_t n, size;
	uint64_t last_time, backwards, drained_to;
	/* Children of this process are to be ignored or divided as soon as they are heard of. */
	bool decide;
	uint32_t decide_types;
	uint16_t decide_divisor;
	/* What sampler_collect() told; turn: how often it was called. */
	struct told *told;
	size_t n_told;
	uint32_t turn;
	unsigned drain_pause_ms; /* in on_drained */
	/* Called for each sample as it comes, if set. */
	void (*on_sample)(struct watch *w, const struct record_sample *r);
	void *userdata;
};

/* Kernel frames, then user frames; each part leaf first, its leaf alone no return address. */
static void check_sample(const struct record_sample *r)
{
	bool user = false;
	uint8_t last = FRAME_NONE;

	assert_true(r->image.tgid != 0 && r->tid != 0);
	assert_true(r->count >= 1);
	assert_int_equal(r->type, SAMPLE_TYPE_CPU);
	for (size_t i = 0; i < r->n_frames; i++) {
		const struct sample_frame *f = &r->frames[i];

		assert_int_equal(f->pad, 0);
		if (f->kind == FRAME_KERNEL) {
			assert_false(user);
			assert_true(f->offset >> 63);
		} else if (f->kind == FRAME_NATIVE) {
			user = true;
			/* Also 47-bit: what lies above in the chain may be garbage, the leaf not.
			 */
			if (f->kind != last)
				assert_false(f->offset >> 63);
		} else {
			assert_int_equal(f->kind, FRAME_MARKER);
		}
		if (f->kind == FRAME_MARKER)
			continue;
		assert_int_equal(f->flags & ~FRAME_APPROXIMATE, f->kind == last ? FRAME_RETURN : 0);
		last = f->kind;
	}
	if (r->flags & SAMPLE_KERNEL_THREAD)
		assert_false(user);
	/* What is counted is whole, and what has a slice is not. */
	if (r->id)
		assert_true(r->end < WALK_MISS_SPACE && !r->stack);
	if (r->stack)
		assert_true(r->end >= WALK_MISS_SPACE);
}

static struct seen *remember(struct watch *w, const struct sampler_event *e)
{
	struct seen *seen;

	if (w->n == w->size) {
		w->size = w->size ? 2 * w->size : 1024;
		w->list = reallocarray(w->list, w->size, sizeof(*w->list));
		assert_non_null(w->list);
	}
	seen = &w->list[w->n++];
	*seen = (struct seen){.kind = e->kind, .time = e->time_ns};
	return seen;
}

static void on_event(void *userdata, const struct sampler_event *e)
{
	struct watch *w = userdata;
	struct seen *seen = remember(w, e);

	if (e->kind != SAMPLER_LOST_EVENTS) {
		w->backwards += e->time_ns < w->last_time;
		w->last_time = MAX(w->last_time, e->time_ns);
	}
	switch (e->kind) {
	case SAMPLER_SAMPLE:
		check_sample(e->sample);
		seen->image = e->sample->image;
		seen->pid = e->sample->image.tgid;
		seen->tid = e->sample->tid;
		seen->value = e->sample->value;
		seen->count = e->sample->count;
		seen->flags = e->sample->flags;
		seen->cpu = e->sample->header.cpu;
		seen->n_frames = e->sample->n_frames;
		seen->id = e->sample->id;
		seen->end = e->sample->end;
		seen->space = e->sample->space;
		seen->stack = e->sample->stack;
		seen->turn = w->turn;
		if (w->on_sample)
			w->on_sample(w, e->sample);
		memcpy(seen->comm, e->sample->comm, SAMPLE_COMM);
		seen->frames = calloc(seen->n_frames + 1, sizeof(*seen->frames));
		memcpy(seen->frames, e->sample->frames, seen->n_frames * sizeof(*seen->frames));
		break;
	case SAMPLER_MMAP:
	case SAMPLER_EXEC_BEGIN:
		seen->pid = e->mmap.pid;
		seen->tid = e->mmap.tid;
		seen->start = e->mmap.start;
		seen->len = e->mmap.len;
		seen->pgoff = e->mmap.pgoff;
		seen->inode = e->mmap.inode;
		snprintf(seen->text, sizeof(seen->text), "%s", e->mmap.path);
		break;
	case SAMPLER_LOST_EVENTS:
		seen->lost = e->lost;
		break;
	case SAMPLER_KERNEL_CODE: /* of this host, at any time */
		break;
	default:
		seen->image = e->process->image;
		seen->parent = e->process->parent;
		seen->pid = e->process->image.tgid;
		seen->tid = e->process->tid;
		seen->cgroup_id = e->process->cgroup_id;
		memcpy(seen->comm, e->process->comm, SAMPLE_COMM);
		snprintf(seen->text, sizeof(seen->text), "%.*s", (int)e->process->cgroup_len,
			e->process->cgroup);
	}
	if (w->decide && e->kind == SAMPLER_FORK && (pid_t)seen->parent.tgid == getpid())
		sampler_set_verdict(
			w->s, &seen->image, w->decide_types, w->decide_divisor, VERDICT_UNCOUNTED);
}

static void on_drained(void *userdata, uint64_t up_to)
{
	struct watch *w = userdata;

	assert_true(up_to >= w->drained_to);
	w->drained_to = up_to;
	if (w->drain_pause_ms)
		nanosleep(&(struct timespec){.tv_nsec = w->drain_pause_ms * (long)NSEC_PER_MSEC},
			NULL);
}

static void on_count(void *userdata, uint64_t id, uint64_t samples, uint64_t last_ns)
{
	struct watch *w = userdata;

	assert_true(id && samples && last_ns);
	w->told = reallocarray(w->told, w->n_told + 1, sizeof(*w->told));
	assert_non_null(w->told);
	w->told[w->n_told++] = (struct told){id, samples, last_ns, w->turn, w->n};
}

static void watch_open_with(struct watch *w, const struct sampler_config *config)
{
	static const struct sampler_ops ops = {
		.on_event = on_event, .on_drained = on_drained, .on_count = on_count};
	struct err_text err = {""};

	*w = (struct watch){0};
	assert_true(sd_event_new(&w->loop) >= 0);
	if (sampler_new(&w->s, w->loop, config, &ops, w, &err) < 0)
		fail_msg("%s", err.text);
}

static void watch_open(struct watch *w, unsigned rate_hz)
{
	struct sampler_config config = {.rate_hz = rate_hz, .kernel_frames = true};

	watch_open_with(w, &config);
}

static void watch_start(struct watch *w)
{
	struct err_text err = {""};

	if (sampler_start(w->s, &err) < 0)
		fail_msg("%s", err.text);
}

static void watch_run(struct watch *w, unsigned ms)
{
	uint64_t end = clock_monotonic_ns() + ms * NSEC_PER_MSEC, now;

	while ((now = clock_monotonic_ns()) < end)
		assert_true(sd_event_run(w->loop, (end - now) / 1000 + 1) >= 0);
}

/* Until it holds of what came, however busy the machine is. */
#define WATCH_UNTIL(w, condition)                                                                  \
	do {                                                                                       \
		uint64_t end_ = clock_monotonic_ns() + 60 * NSEC_PER_SEC;                          \
		while (sampler_drain((w)->s), !(condition)) {                                      \
			if (clock_monotonic_ns() > end_)                                           \
				fail_msg("never came: %s", #condition);                            \
			watch_run(w, 20);                                                          \
		}                                                                                  \
	} while (0)

/* What must hold of the counts once nothing moves any more. */
static void check_counts(struct watch *w, struct sampler_counters *c)
{
	uint64_t samples = 0;

	sampler_counters(w->s, c);
	for (size_t i = 0; i < w->n; i++)
		samples += w->list[i].kind == SAMPLER_SAMPLE;
	assert_int_equal(c->taken, sampler_raw_counter(w->s, COUNT_TAKEN));
	assert_int_equal(c->taken,
		c->idle + c->ignored + c->divided + c->sent + c->counted + c->lost_ring +
			c->lost_scratch);
	assert_int_equal(c->due, c->taken + c->late);
	assert_int_equal(c->received, c->sent);
	assert_int_equal(c->received, samples);
	assert_int_equal(c->lost_memory, 0);
	assert_int_equal(w->s->merge.malformed, 0);
	/* Only what came late may be out of order, and that is counted. */
	assert_true(w->backwards <= w->s->merge.out_of_order);
}

static void watch_stop(struct watch *w, struct sampler_counters *c)
{
	sampler_stop(w->s);
	sampler_drain(w->s);
	check_counts(w, c);
}

static void watch_close(struct watch *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->list[i].frames);
	free(w->list);
	free(w->told);
	w->s = sampler_free(w->s);
	sd_event_unref(w->loop);
	*w = (struct watch){0};
}

/* The first of a kind and pid at or after *at, which moves behind it; NULL. */
static const struct seen *find_seen(
	const struct watch *w, enum sampler_event_kind kind, pid_t pid, size_t *at)
{
	size_t zero = 0;

	at = at ? at : &zero;
	while (*at < w->n) {
		const struct seen *seen = &w->list[(*at)++];

		if (seen->kind == kind && (pid_t)seen->pid == pid)
			return seen;
	}
	return NULL;
}

static const struct seen *need_seen(
	const struct watch *w, enum sampler_event_kind kind, pid_t pid, size_t *at)
{
	const struct seen *seen = find_seen(w, kind, pid, at);

	if (!seen)
		fail_msg("no event of kind %d for pid %d", kind, pid);
	return seen;
}

/* ---- children -------------------------------------------------------------------------------- */

/* Runs fn in a child, which ends by its status. */
static pid_t spawn(void (*fn)(void *), void *userdata)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		fn(userdata);
		_exit(0);
	}
	return pid;
}

/* What this process has mapped executable, as memory without files: walks go by the frame pointers
 * that everything here is compiled with. A forked child has the same. */
static inline size_t own_maps(struct space_map *maps, size_t max)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512], exec;
	size_t n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*c%*c%c", &start, &end, &exec) != 3 || exec != 'x' ||
			start >> 63) /* vsyscall */
			continue;
		assert_true(n < max);
		maps[n++] = (struct space_map){
			.start = start, .end = end, .file = 7, .kind = SPACE_ANON};
	}
	return n;
}

/* Sets them as the space of the image; returns its tag. */
static inline uint32_t set_own_maps(struct watch *w, const struct sample_image *image)
{
	struct space_map maps[64];
	size_t n = own_maps(maps, ARRAY_SIZE(maps));
	uint32_t tag = 0;

	assert_int_equal(sampler_set_space(w->s, image, maps, n, &tag), 0);
	assert_true(tag);
	return tag;
}

/* As spawn(), but it begins only when the kernel knows its space; returns its image. */
static inline pid_t spawn_walked(
	struct watch *w, void (*fn)(void *), void *userdata, struct sample_image *image)
{
	int gate[2];
	pid_t pid;

	assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char c;

		if (read(gate[0], &c, 1) == 1)
			fn(userdata);
		_exit(0);
	}
	sampler_drain(w->s);
	*image = need_seen(w, SAMPLER_FORK, pid, NULL)->image;
	set_own_maps(w, image);
	assert_int_equal(write(gate[1], "", 1), 1);
	close(gate[0]);
	close(gate[1]);
	return pid;
}

/* Keeps the loop going until the child ended; returns the CPU time that it had. */
static uint64_t wait_child(struct watch *w, pid_t pid)
{
	struct rusage use;
	int status;

	while (wait4(pid, &status, WNOHANG, &use) == 0)
		watch_run(w, 10);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return ((uint64_t)use.ru_utime.tv_sec + (uint64_t)use.ru_stime.tv_sec) * NSEC_PER_SEC +
		((uint64_t)use.ru_utime.tv_usec + (uint64_t)use.ru_stime.tv_usec) * 1000;
}
