/* SPDX-License-Identifier: Apache-2.0 */

/* The sampler as a whole: loads the programs, owns what the other files of this room work on, and
 * turns the loop's wake-ups into drains.
 *
 * Order of starting: tracking events first, then the process programs, then the clocks, so that
 * whatever a sample is of can be known; stopping goes the other way. Everything dies with its
 * descriptor: no program is pinned, and after sampler_free() none is loaded.
 *
 * The loop is woken by the rings (the programs decide when: an image nobody decided on, an exec,
 * much waiting) and by a timer. A ring's wake-up only sets the timer: the record that woke us is
 * too young to be handed out (merge.c), and what comes until it is old enough goes along. So the
 * ring is watched for edges. A wake-up costs more than most of what it finds, so that between
 * those of the rings the drains are far apart. Runs in agentd. */

#include <linux/perf_event.h>
#include <sys/epoll.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/sampler/internal.h"

#define SETTLE_NS    (SLACK_NS + NSEC_PER_MSEC)
#define PUNCTUAL_PER 8 /* of a time that is waited, such a part more is as good */

static void set_timer(struct sampler *s, uint64_t after_ns)
{
	uint64_t accuracy = MAX(after_ns / PUNCTUAL_PER / 1000, (uint64_t)1);

	s->drain_at_ns = clock_monotonic_ns() + after_ns;
	if (sd_event_source_set_time(s->timer, s->drain_at_ns / 1000) < 0 ||
		sd_event_source_set_time_accuracy(s->timer, accuracy) < 0 ||
		sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT) < 0)
		log_error(
			"the sampler's timer cannot be set; samples come only when their ring fills");
}

static uint64_t drain_gap(const struct sampler *s)
{
	return s->config.drain_ms * NSEC_PER_MSEC;
}

void sampler_wake(struct sampler *s)
{
	uint64_t gap = MIN(SETTLE_NS, drain_gap(s));

	/* Not later for each that follows. */
	if (s->running && s->drain_at_ns > clock_monotonic_ns() + gap)
		set_timer(s, gap);
	s->woken = true;
}

static int on_ring(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	sampler_wake(userdata);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct sampler *s = userdata;
	bool woken = s->woken, more = stream_merge_drain(s, false);
	uint64_t gap = drain_gap(s);

	s->woken = false;
	/* More often while a CPU that is there is not sampled. */
	if (clock_monotonic_ns() - s->last_cpu_check >=
		(events_sampled(s) < s->n_online ? CPU_MISSING_NS : CPU_CHECK_NS))
		hotplug_check(s);
	/* What came close behind the record that woke us may have had reason to, too. */
	if (woken && s->merge.n)
		gap = MIN(SETTLE_NS, gap);
	set_timer(s, more ? 0 : gap);
	return 0;
}

/* ---- construction ---------------------------------------------------------------------------- */

static int check_unwinding(struct sampler_config *c, struct err_text *err)
{
	c->max_user_frames = c->max_user_frames ? c->max_user_frames : SAMPLE_DEFAULT_USER;
	c->rows_bytes = c->rows_bytes ? c->rows_bytes : DEFAULT_ROWS;
	c->stack_bytes = c->stack_bytes ? c->stack_bytes : DEFAULT_SLICE;
	c->slices_a_second = c->slices_a_second ? c->slices_a_second : DEFAULT_SLICES;
	if (c->max_user_frames > SAMPLE_MAX_USER)
		return err_set(err, -EINVAL,
			"stacks of %u frames are more than the %d that can be taken",
			c->max_user_frames, SAMPLE_MAX_USER);
	if (c->rows_bytes < (1U << 20) || c->rows_bytes > (1U << 30) ||
		(c->rows_bytes & (c->rows_bytes - 1)))
		return err_set(err, -EINVAL,
			"%zu bytes for unwinding rows is not a power of two from 1 MiB to 1 GiB",
			c->rows_bytes);
	if (c->stack_bytes > SLICE_MAX || c->stack_bytes % 8)
		return err_set(err, -EINVAL,
			"slices of %zu bytes of stack are not a multiple of 8 up to %u",
			c->stack_bytes, SLICE_MAX);
	return 0;
}

/* What a second of all CPUs may bring at the default rate and depth while nothing is known, several
 * times over. */
static size_t ring_by_cpus(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	size_t bytes = RING_MIN;

	while (bytes < RING_MAX && bytes < RING_PER_CPU * (size_t)MAX(cpus, 1L))
		bytes *= 2;
	return bytes;
}

static int check_config(struct sampler_config *c, struct err_text *err)
{
	if (c->rate_hz < SAMPLER_RATE_MIN || c->rate_hz > SAMPLER_RATE_MAX)
		return err_set(err, -EINVAL, "a sampling rate of %u Hz is not between %d and %d",
			c->rate_hz, SAMPLER_RATE_MIN, SAMPLER_RATE_MAX);
	c->ring_bytes = c->ring_bytes ? c->ring_bytes : ring_by_cpus();
	c->max_verdicts = c->max_verdicts ? c->max_verdicts : DEFAULT_VERDICTS;
	c->drain_ms = c->drain_ms ? c->drain_ms : DEFAULT_DRAIN_MS;
	if (c->ring_bytes > (256U << 20) || (c->ring_bytes & (c->ring_bytes - 1)) ||
		c->ring_bytes % (size_t)sysconf(_SC_PAGESIZE))
		return err_set(err, -EINVAL,
			"a ring of %zu bytes is not a power of two from a page to 256 MiB",
			c->ring_bytes);
	return check_unwinding(c, err);
}

static int join_loop(struct sampler *s, struct err_text *err)
{
	int fd = bpf_map__fd(s->skel->maps.ring), r;

	s->ring = ring_buffer__new(fd, stream_merge_on_record, s, NULL);
	if (!s->ring)
		return err_set(err, -errno, "cannot map the samples' ring: %m");
	r = sd_event_add_io(s->loop, &s->ring_source, fd, EPOLLIN | EPOLLET, on_ring, s);
	if (r >= 0)
		r = sd_event_add_time(s->loop, &s->timer, CLOCK_MONOTONIC, 0, 0, on_timer, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
	if (r < 0)
		return err_set(
			err, r, "cannot add the sampler to the event loop: %s", strerror(-r));
	return 0;
}

int sampler_new(struct sampler **ret, sd_event *loop, const struct sampler_config *config,
	const struct sampler_ops *ops, void *userdata, struct err_text *err)
{
	CLEANUP(sampler_freep) struct sampler *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->config = *config;
	s->ops = *ops;
	s->userdata = userdata;
	s->loop = sd_event_ref(loop);
	r = check_config(&s->config, err);
	if (r < 0)
		return r;
	s->period_ns = NSEC_PER_SEC / s->config.rate_hz;
	r = cpus_possible(&s->n_cpus);
	if (r < 0)
		return err_set(err, r,
			"cannot read which CPUs there are in /sys/devices/system/cpu/possible: %s",
			strerror(-r));
	stream_merge_init(&s->merge, s->n_cpus);
	r = cpu_table_new(s);
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = preflight_check(s, err);
	if (r >= 0)
		r = programs_load(s, err);
	if (r >= 0)
		r = tables_map(s, err);
	if (r >= 0)
		r = join_loop(s, err);
	if (r >= 0)
		r = hotplug_open_online(s, err);
	if (r < 0)
		return r;
	if (hotplug_init(s) < 0)
		log_debug("no uevents here: CPUs that come and go are noticed within a second");
	tables_features(s);
	*ret = TAKE_PTR(s);
	return 0;
}

struct sampler *sampler_free(struct sampler *s)
{
	if (!s)
		return NULL;
	if (s->skel)
		sampler_stop(s);
	if (s->cpus)
		events_close_all(s);
	sd_event_source_disable_unref(s->timer);
	sd_event_source_disable_unref(s->ring_source);
	sd_event_source_disable_unref(s->uevent_source);
	ring_buffer__free(s->ring);
	tables_unmap(s);
	sampler_bpf__destroy(s->skel);
	stream_merge_deinit(&s->merge);
	free(s->cpus);
	sd_event_unref(s->loop);
	free(s);
	return NULL;
}

/* ---- running --------------------------------------------------------------------------------- */

static int attach_one(
	struct bpf_link **link, struct bpf_program *program, const char *what, struct err_text *err)
{
	if (*link)
		return 0;
	*link = bpf_program__attach(program);
	if (*link)
		return 0;
	return err_set(err, -errno, "cannot follow %s by its tracepoint: %m", what);
}

static void detach(struct bpf_link **link)
{
	bpf_link__destroy(*link);
	*link = NULL;
}

static int attach_programs(struct sampler *s, struct err_text *err)
{
	struct sampler_bpf *k = s->skel;
	int r;

	r = attach_one(&k->links.follow_fork, k->progs.follow_fork, "new processes", err);
	if (r >= 0)
		r = attach_one(&k->links.follow_exec, k->progs.follow_exec, "exec", err);
	if (r >= 0)
		r = attach_one(&k->links.follow_exit, k->progs.follow_exit, "processes' ends", err);
	if (r >= 0 && s->has_cgroup_moves)
		r = attach_one(&k->links.follow_cgroup, k->progs.follow_cgroup,
			"moves between cgroups", err);
	return r;
}

int sampler_start(struct sampler *s, struct err_text *err)
{
	int r;

	if (s->running)
		return 0;
	s->running = true;
	hotplug_check(s); /* a CPU may have come since sampler_new() */
	r = events_track_ioctl(s, PERF_EVENT_IOC_ENABLE);
	if (r < 0)
		err_set(err, r, "cannot follow mappings: %s", strerror(-r));
	if (r >= 0)
		r = attach_programs(s, err);
	if (r >= 0) {
		r = events_clock_ioctl(s, PERF_EVENT_IOC_ENABLE);
		if (r < 0)
			err_set(err, r, "cannot start the sampling clocks: %s", strerror(-r));
	}
	if (r < 0) {
		sampler_stop(s);
		return r;
	}
	set_timer(s, drain_gap(s));
	return 0;
}

void sampler_stop(struct sampler *s)
{
	if (s->cpus)
		(void)events_clock_ioctl(s, PERF_EVENT_IOC_DISABLE);
	detach(&s->skel->links.follow_cgroup);
	detach(&s->skel->links.follow_exit);
	detach(&s->skel->links.follow_exec);
	detach(&s->skel->links.follow_fork);
	if (s->cpus)
		(void)events_track_ioctl(s, PERF_EVENT_IOC_DISABLE);
	if (s->timer)
		(void)sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
	s->running = false;
}

int sampler_set_rate(struct sampler *s, unsigned rate_hz, struct err_text *err)
{
	struct sampler_config c = s->config;
	int r;

	c.rate_hz = rate_hz;
	r = check_config(&c, err);
	if (r < 0 || rate_hz == s->config.rate_hz)
		return r;
	s->config.rate_hz = rate_hz;
	return events_set_period(s, NSEC_PER_SEC / rate_hz, err);
}

void sampler_set_kernel_frames(struct sampler *s, bool on)
{
	s->config.kernel_frames = on;
	__atomic_store_n(&s->skel->data->settings.kernel_frames, on, __ATOMIC_RELEASE);
}

void sampler_drain(struct sampler *s)
{
	stream_merge_drain(s, true);
}

/* ---- counting -------------------------------------------------------------------------------- */

uint64_t sampler_raw_counter(const struct sampler *s, enum sample_counter which)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n_cpus; i++)
		sum += __atomic_load_n(&s->counts[i].of[which], __ATOMIC_RELAXED);
	return sum;
}

/* Run time as the kernel counts it while kernel.bpf_stats_enabled is set. */
static void add_run_time(struct sampler *s, struct sampler_counters *ret)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, s->skel->obj)
	{
		struct bpf_prog_info info = {0};
		uint32_t size = sizeof(info);

		if (bpf_program__fd(program) < 0 ||
			bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) < 0)
			continue;
		ret->bpf_run_ns += info.run_time_ns;
		ret->bpf_runs += info.run_cnt;
	}
}

void sampler_counters(struct sampler *s, struct sampler_counters *ret)
{
	uint64_t due = events_due(s);

	*ret = (struct sampler_counters){
		.idle = sampler_raw_counter(s, COUNT_IDLE),
		.ignored = sampler_raw_counter(s, COUNT_IGNORED),
		.divided = sampler_raw_counter(s, COUNT_DIVIDED),
		.sent = sampler_raw_counter(s, COUNT_SENT),
		.paused = sampler_raw_counter(s, COUNT_PAUSED),
		.lost_ring = sampler_raw_counter(s, COUNT_LOST_RING),
		.lost_scratch = sampler_raw_counter(s, COUNT_LOST_SCRATCH),
		.lost_events = sampler_raw_counter(s, COUNT_EVENT_LOST) + s->lost_perf,
		.counted = sampler_raw_counter(s, COUNT_COUNTED),
		.lost_memory = s->lost_memory,
		.received = s->received,
		.collected = s->halves.collected,
		.table_full = sampler_raw_counter(s, COUNT_TABLE_FULL),
		.slices = sampler_raw_counter(s, COUNT_SLICES),
		.slices_refused = sampler_raw_counter(s, COUNT_NO_SLICE),
		.run_ns = sampler_raw_counter(s, COUNT_RUN_NS),
		.online_cpus = hotplug_online(s),
		.sampled_cpus = events_sampled(s),
	};
	/* What became of them, not COUNT_TAKEN: a sample being taken right now is in that one
	 * alone, and the ledger would not close. Both agree when the events stand still (a unit
	 * test holds them to it). */
	ret->taken = ret->idle + ret->ignored + ret->divided + ret->sent + ret->counted +
		ret->lost_ring + ret->lost_scratch;
	ret->due = MAX(due, ret->taken);
	ret->late = ret->due - ret->taken;
	add_run_time(s, ret);
}

size_t sampler_features(struct sampler *s, const char **lines, size_t max)
{
	size_t n = MIN(max, s->n_features);

	for (size_t i = 0; i < n; i++)
		lines[i] = s->features[i];
	return n;
}
