/* SPDX-License-Identifier: Apache-2.0 */

/* Which CPUs are online, followed.
 *
 * A CPU that comes online has no events, one that went takes its events' timers with it. The kernel
 * says so by a uevent; those do not reach every network namespace, so the list in sysfs is also
 * read once a second (4 us). A uevent is only a reason to look: what it says is not believed. Runs
 * in agentd. */

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/sampler/internal.h"

#define CPU_FOLDER      "/sys/devices/system/cpu/"
#define CPU_LIMIT       8192 /* as many as any kernel is built for */
#define UEVENTS_AT_ONCE 64

int cpu_list_parse(
	const char *text, unsigned max, void (*each)(void *userdata, unsigned cpu), void *userdata)
{
	while (*text && *text != '\n') {
		unsigned first, last;
		int used;

		if (sscanf(text, "%5u%n", &first, &used) != 1)
			return -EINVAL;
		text += used;
		last = first;
		if (*text == '-') {
			if (sscanf(++text, "%5u%n", &last, &used) != 1)
				return -EINVAL;
			text += used;
		}
		if (last < first || last >= max)
			return -EINVAL;
		for (unsigned cpu = first; cpu <= last; cpu++)
			each(userdata, cpu);
		if (*text == ',')
			text++;
		else if (*text && *text != '\n')
			return -EINVAL;
	}
	return 0;
}

static int read_list(
	const char *name, unsigned max, void (*each)(void *userdata, unsigned cpu), void *userdata)
{
	_cleanup_buf_ struct buf b;
	int r;

	buf_init(&b, 65536);
	r = io_read_file(AT_FDCWD, name, &b, 65536);
	if (r < 0)
		return r;
	if (!b.len)
		return -ENODATA;
	return cpu_list_parse((char *)b.data, max, each, userdata);
}

static void note_highest(void *userdata, unsigned cpu)
{
	size_t *n = userdata;

	*n = MAX(*n, (size_t)cpu + 1);
}

int cpus_possible(size_t *ret)
{
	size_t n = 0;
	int r = read_list(CPU_FOLDER "possible", CPU_LIMIT, note_highest, &n);

	if (r < 0)
		return r;
	*ret = n;
	return n ? 0 : -ENODATA;
}

static void note_online(void *userdata, unsigned cpu)
{
	((bool *)userdata)[cpu] = true;
}

int hotplug_open_online(struct sampler *s, struct err_text *err)
{
	_cleanup_free_ bool *online = calloc(s->n_cpus, sizeof(*online));
	int r;

	if (!online)
		return err_set(err, -ENOMEM, "out of memory");
	r = read_list(CPU_FOLDER "online", s->n_cpus, note_online, online);
	if (r < 0)
		return err_set(err, r, "cannot read which CPUs are online in " CPU_FOLDER "online");
	for (size_t i = 0; i < s->n_cpus; i++) {
		if (!online[i])
			continue;
		r = events_open(s, i, err);
		if (r < 0 && r != -ENODEV) /* gone since it was listed */
			return r;
	}
	return 0;
}

static void follow_one(struct sampler *s, unsigned cpu, bool online)
{
	struct cpu_events *c = &s->cpus[cpu];
	struct err_text err;
	int r;

	if (!online) {
		c->failed = 0;
		if (c->clock_fd < 0)
			return;
		events_close(s, cpu);
		log_info("CPU %u went offline", cpu);
		return;
	}
	if (c->clock_fd >= 0)
		return;
	r = events_open(s, cpu, &err);
	if (r == c->failed && r < 0)
		return; /* said already; tried again in a second */
	if (r < 0)
		log_error("CPU %u is not sampled: %s", cpu, err.text);
	else
		log_info("CPU %u is sampled", cpu);
	c->failed = r;
}

unsigned hotplug_check(struct sampler *s)
{
	_cleanup_free_ bool *online = calloc(s->n_cpus, sizeof(*online));
	unsigned n = 0;

	s->last_cpu_check = clock_monotonic_ns();
	if (!online || read_list(CPU_FOLDER "online", s->n_cpus, note_online, online) < 0) {
		log_warning("cannot read which CPUs are online; going on with those that were");
		return events_sampled(s);
	}
	for (size_t i = 0; i < s->n_cpus; i++) {
		follow_one(s, i, online[i]);
		n += online[i];
	}
	s->n_online = n;
	return n;
}

unsigned hotplug_online(struct sampler *s)
{
	bool old = clock_monotonic_ns() - s->last_cpu_check >= CPU_CHECK_NS;

	return old || !s->n_online ? hotplug_check(s) : s->n_online;
}

/* Whether a uevent (NUL-separated lines) is of the subsystem cpu. */
static bool is_of_cpu(const char *text, size_t len)
{
	static const char line[] = "SUBSYSTEM=cpu";

	return memmem(text, len, line, sizeof(line)); /* with its NUL: "cpuidle" is another */
}

static int on_uevent(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct sampler *s = userdata;
	char text[4096];
	bool look = false;

	for (int i = 0; i < UEVENTS_AT_ONCE; i++) {
		ssize_t n = recv(fd, text, sizeof(text), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			look = true; /* ENOBUFS: some were lost */
		if (n < 0)
			break;
		look = look || is_of_cpu(text, (size_t)n);
	}
	if (look)
		hotplug_check(s);
	return 0;
}

int hotplug_init(struct sampler *s)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
	_cleanup_close_ int fd = socket(
		AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	int r;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	r = sd_event_add_io(s->loop, &s->uevent_source, fd, EPOLLIN, on_uevent, s);
	if (r < 0)
		return r;
	sd_event_source_set_io_fd_own(s->uevent_source, true);
	TAKE_FD(fd);
	return 0;
}
