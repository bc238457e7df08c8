/* SPDX-License-Identifier: Apache-2.0 */

/* The perf events: on every CPU a cpu-clock event that runs the sampling program, and a dummy event
 * whose ring tells of mappings.
 *
 * cpu-clock is an hrtimer, so a frequency would be turned into a period at once: we give the
 * period. Its own count is the time for which it ran, in ns of the scheduler's clock, and goes on
 * where ticks do not come (stolen time, ticks that found another BPF program running): count over
 * period is what was due. When the period changes or an event goes away, what was due until then is
 * added to sampler.due, whole ticks only: the kernel restarts the timer there.
 *
 * The rate is changed while the events are disabled, so that no sample is taken with one period and
 * valued with the other. Runs in agentd. */

#include <linux/perf_event.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <bpf/libbpf.h>
#include "agentd/base/log.h"
#include "agentd/base/privilege.h"
#include "agentd/sampler/internal.h"

static int perf_open(struct perf_event_attr *attr, unsigned cpu)
{
	int fd;

	privilege_admin(true);
	fd = (int)syscall(SYS_perf_event_open, attr, -1, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
	privilege_admin(false);
	return fd < 0 ? -errno : fd;
}

static int open_clock(struct sampler *s, unsigned cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = s->period_ns,
		.disabled = 1,
	};
	_cleanup_close_ int fd = perf_open(&attr, cpu);

	if (fd < 0)
		return fd;
	if (ioctl(fd, PERF_EVENT_IOC_SET_BPF, bpf_program__fd(s->program)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int open_track(unsigned cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = PERF_SAMPLE_TIME,
		.sample_id_all = 1,
		.disabled = 1,
		.mmap = 1,
		.mmap2 = 1,
		.comm = 1,
		.comm_exec = 1,
		.ksymbol = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark = PERF_WATERMARK,
	};

	return perf_open(&attr, cpu);
}

static int on_track(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct sampler *s = userdata;

	/* The CPU went away: it would be reported for ever. */
	if (revents & (EPOLLHUP | EPOLLERR)) {
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
		hotplug_check(s);
		return 0;
	}
	sampler_wake(s);
	return 0;
}

static uint64_t event_count(const struct cpu_events *c)
{
	uint64_t count;

	/* An event in error state reads as nothing; then nothing more is due. */
	if (c->clock_fd < 0 || read(c->clock_fd, &count, sizeof(count)) != sizeof(count))
		return c->count_base;
	return MAX(count, c->count_base);
}

int events_open(struct sampler *s, unsigned cpu, struct err_text *err)
{
	struct cpu_events *c = &s->cpus[cpu];
	_cleanup_close_ int clock = -1, track = -1;
	int r;

	clock = open_clock(s, cpu);
	if (clock < 0)
		return preflight_explain_perf(clock, cpu, err);
	track = open_track(cpu);
	if (track < 0)
		return preflight_explain_perf(track, cpu, err);
	r = perf_ring_init(&c->ring, track);
	if (r < 0)
		return preflight_explain_perf(r, cpu, err);
	r = sd_event_add_io(s->loop, &c->source, track, EPOLLIN, on_track, s);
	if (r >= 0 && s->running && ioctl(track, PERF_EVENT_IOC_ENABLE, 0) < 0)
		r = -errno;
	if (r >= 0 && s->running && ioctl(clock, PERF_EVENT_IOC_ENABLE, 0) < 0)
		r = -errno;
	if (r < 0) {
		c->source = sd_event_source_disable_unref(c->source);
		perf_ring_deinit(&c->ring);
		return preflight_explain_perf(r, cpu, err);
	}
	c->clock_fd = TAKE_FD(clock);
	c->track_fd = TAKE_FD(track);
	c->count_base = 0;
	return 0;
}

/* Adds what was due of this event until now. */
static void settle(struct sampler *s, struct cpu_events *c)
{
	uint64_t count = event_count(c);

	s->due += (count - c->count_base) / s->period_ns;
	c->count_base = count;
}

void events_close(struct sampler *s, unsigned cpu)
{
	struct cpu_events *c = &s->cpus[cpu];

	if (c->clock_fd < 0)
		return;
	(void)ioctl(c->clock_fd, PERF_EVENT_IOC_DISABLE, 0);
	settle(s, c);
	perf_ring_gather(s, &c->ring); /* what it still holds belongs into the next drain */
	c->source = sd_event_source_disable_unref(c->source);
	perf_ring_deinit(&c->ring);
	closep(&c->clock_fd);
	closep(&c->track_fd);
}

int cpu_table_new(struct sampler *s)
{
	s->cpus = calloc(s->n_cpus, sizeof(*s->cpus));
	if (!s->cpus)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_cpus; i++)
		s->cpus[i].clock_fd = s->cpus[i].track_fd = -1;
	return 0;
}

void events_close_all(struct sampler *s)
{
	for (size_t i = 0; i < s->n_cpus; i++)
		events_close(s, i);
}

static int ioctl_all(struct sampler *s, unsigned long request, bool clock)
{
	int r = 0;

	for (size_t i = 0; i < s->n_cpus; i++) {
		struct cpu_events *c = &s->cpus[i];

		if (c->clock_fd >= 0 && ioctl(clock ? c->clock_fd : c->track_fd, request, 0) < 0 &&
			!r)
			r = -errno;
	}
	return r;
}

int events_clock_ioctl(struct sampler *s, unsigned long request)
{
	return ioctl_all(s, request, true);
}

int events_track_ioctl(struct sampler *s, unsigned long request)
{
	return ioctl_all(s, request, false);
}

int events_set_period(struct sampler *s, uint64_t period_ns, struct err_text *err)
{
	int r = events_clock_ioctl(s, PERF_EVENT_IOC_DISABLE), code;

	for (size_t i = 0; i < s->n_cpus; i++)
		if (s->cpus[i].clock_fd >= 0)
			settle(s, &s->cpus[i]);
	s->period_ns = period_ns;
	__atomic_store_n(&s->skel->data->settings.period_ns, period_ns, __ATOMIC_RELEASE);
	for (size_t i = 0; i < s->n_cpus; i++) {
		struct cpu_events *c = &s->cpus[i];

		if (c->clock_fd < 0)
			continue;
		if (ioctl(c->clock_fd, PERF_EVENT_IOC_PERIOD, &period_ns) < 0 ||
			(s->running && ioctl(c->clock_fd, PERF_EVENT_IOC_ENABLE, 0) < 0)) {
			/* A new event has the new period from its start. */
			events_close(s, i);
			code = events_open(s, i, err);
			r = r < 0 ? r : code;
		}
	}
	return r;
}

uint64_t events_due(struct sampler *s)
{
	uint64_t due = s->due;

	for (size_t i = 0; i < s->n_cpus; i++)
		if (s->cpus[i].clock_fd >= 0)
			due += (event_count(&s->cpus[i]) - s->cpus[i].count_base) / s->period_ns;
	return due;
}

unsigned events_sampled(const struct sampler *s)
{
	unsigned n = 0;

	for (size_t i = 0; i < s->n_cpus; i++)
		n += s->cpus[i].clock_fd >= 0;
	return n;
}
