/* SPDX-License-Identifier: Apache-2.0 */

/* inotify on the folders of the configuration, never on files: editors and package managers put a new file in the place
 * of the old one, and configuration managers exchange a link somewhere on the way.
 *
 * Every look begins anew, with a descriptor of its own: folders come and go, links lead elsewhere, and the kernel's
 * watches follow inodes and not names. The folders are watched before they are read, so that no change falls between.
 * A folder above (/etc) is watched for the one name that matters in it. What an event says counts for nothing but that
 * it happened: the files are read as a whole, so that queue overflows and lost order do no harm. A writer who never
 * pauses makes a reading a second. Source: inotify(7). Runs in agentd. */

#include <limits.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "agentd/base/clock.h"
#include "agentd/config/config_private.h"
#include "agentd/config/watch.h"

#define QUIET_NS    (250 * NSEC_PER_MSEC)
#define LATEST_NS   (2 * NSEC_PER_SEC)
#define GAP_NS      (1 * NSEC_PER_SEC)
#define MAX_WATCHES 256
#define EVENTS                                                                                     \
	(IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |        \
		IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct watched {
	int wd;
	char *name; /* NULL: anything in the folder */
};

struct config_watch {
	struct config_manager *m;
	sd_event *loop; /* borrowed */
	sd_event_source *io, *timer;
	int fd;
	struct watched list[MAX_WATCHES];
	size_t n;
	uint64_t first_ns, last_told_ns; /* of what was not told yet, 0 nothing; monotonic */
	struct err_text problem;
	void (*changed)(void *userdata);
	void *userdata;
};

/* ---- looking --------------------------------------------------------------------------------------- */

static void forget(struct config_watch *w)
{
	w->io = sd_event_source_disable_unref(w->io);
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	for (size_t i = 0; i < w->n; i++)
		free(w->list[i].name);
	w->n = 0;
}

static void not_watched(struct config_watch *w, const char *folder, const char *why)
{
	if (!w->problem.text[0])
		err_set(&w->problem, 0, "%s is not watched for changes: %s", folder, why);
}

static void on_folder(void *userdata, const char *folder, const char *name)
{
	struct config_watch *w = userdata;
	int wd = inotify_add_watch(w->fd, folder, EVENTS);

	if (wd < 0) {
		/* The way to it is watched as far as it is there. */
		if (errno != ENOENT && errno != ENOTDIR)
			not_watched(w, folder, strerrordesc_np(errno));
		return;
	}
	for (size_t i = 0; i < w->n; i++)
		if (w->list[i].wd == wd &&
			(!w->list[i].name || (name && streq(w->list[i].name, name))))
			return;
	if (w->n == MAX_WATCHES) {
		not_watched(w, folder, "too many links and folders");
		return;
	}
	w->list[w->n] = (struct watched){.wd = wd, .name = name ? strdup(name) : NULL};
	w->n += !name || w->list[w->n].name;
}

static int on_events(sd_event_source *source, int fd, uint32_t events, void *userdata);

void config_watch_look(struct config_watch *w)
{
	forget(w);
	w->problem.text[0] = '\0';
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd < 0 || sd_event_add_io(w->loop, &w->io, w->fd, EPOLLIN, on_events, w) < 0) {
		not_watched(
			w, "the configuration", w->fd < 0 ? strerrordesc_np(errno) : "no memory");
		forget(w);
		return;
	}
	config_each_folder(w->m, on_folder, w);
}

/* ---- telling --------------------------------------------------------------------------------------- */

/* Something happened: tells after a while of quiet. */
static void happened(struct config_watch *w)
{
	uint64_t now = clock_monotonic_ns(), at;

	if (!w->first_ns)
		w->first_ns = now;
	at = MIN(now + QUIET_NS, w->first_ns + LATEST_NS);
	at = MAX(at, w->last_told_ns + GAP_NS);
	sd_event_source_set_time(w->timer, at / 1000);
	sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct config_watch *w = userdata;

	w->first_ns = 0;
	w->last_told_ns = clock_monotonic_ns();
	config_watch_look(w);
	w->changed(w->userdata);
	return 0;
}

static bool matters(const struct config_watch *w, const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW)
		return true;
	for (size_t i = 0; i < w->n; i++) {
		const struct watched *x = &w->list[i];

		if (x->wd == e->wd && (!x->name || !e->len || streq(x->name, e->name)))
			return true;
	}
	return false;
}

static int on_events(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct config_watch *w = userdata;
	union {
		struct inotify_event event;
		char bytes[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
	} buf;
	bool any = false;
	ssize_t n = read(fd, &buf, sizeof(buf));

	for (char *p = buf.bytes; n > 0 && p < buf.bytes + n;) {
		const struct inotify_event *e = (const struct inotify_event *)p;

		any = any || matters(w, e);
		p += sizeof(*e) + e->len;
	}
	if (any)
		happened(w);
	return 0;
}

int config_watch_new(struct config_watch **ret, sd_event *loop, struct config_manager *m,
	void (*changed)(void *userdata), void *userdata, struct err_text *err)
{
	CLEANUP(config_watch_freep) struct config_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	w->fd = -1;
	w->m = m;
	w->loop = loop;
	w->changed = changed;
	w->userdata = userdata;
	r = sd_event_add_time(loop, &w->timer, CLOCK_MONOTONIC, 0, 50000, on_timer, w);
	if (r < 0)
		return err_set(
			err, r, "no timer for the configuration files: %s", strerrordesc_np(-r));
	config_watch_look(w);
	happened(w);
	*ret = TAKE_PTR(w);
	return 0;
}

const char *config_watch_problem(const struct config_watch *w)
{
	return w->problem.text[0] ? w->problem.text : NULL;
}

struct config_watch *config_watch_free(struct config_watch *w)
{
	if (!w)
		return NULL;
	forget(w);
	sd_event_source_disable_unref(w->timer);
	free(w);
	return NULL;
}
