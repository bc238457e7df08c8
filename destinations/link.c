/* SPDX-License-Identifier: Apache-2.0 */

/* The exporter's process as agentd sees it: started when it is needed, fed, listened to, replaced.
 *
 * agentd only ever reacts to what comes in, and never waits for the exporter: its socket is non-blocking (link_talk.c). A
 * ping goes out at intervals; one that stays without its pong for hang_ms means that the exporter
 * stands still, and it is killed. So is one that says what cannot be (link_ledger.c), or sends what is no message. A
 * new one starts after a pause that doubles up to a second; what the old one held it gets again. Before a dead
 * exporter's socket is closed all that it had said is read, so that no answer is lost that had been given.
 *
 * Without an enabled destination, a test and a debug file to fetch there is no exporter. Runs in agentd. */

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "destinations/link_private.h"

#define MAX_BYTES_DEFAULT (32U << 20)
#define HANG_MS_DEFAULT   10000
#define RESTART_MIN_NS    (20 * NSEC_PER_MSEC)
#define RESTART_MAX_NS    NSEC_PER_SEC
#define GOOD_LIFE_NS      (10 * NSEC_PER_SEC)
#define IDLE_NS           (30 * NSEC_PER_SEC)
#define ENDS_FOR_NOTHING  8
#define MESSAGES_A_TURN   256
#define FLUSH_STEP_MS     50
#define SOCKET_BYTES      (1 << 20)
#define END_WAIT_MS       100
#define LAND_MS           10000 /* at a stop, for the disk: a third of what systemd waits */

static bool has_enabled(const struct link *l)
{
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->enabled)
			return true;
	return false;
}

static bool wanted(const struct link *l)
{
	return l->tests || l->fetch || l->n_batches || l->metrics.address[0] || has_enabled(l);
}

/* ---- its end ------------------------------------------------------------------------------------- */

static void forget_child(struct link *l)
{
	l->on_socket = sd_event_source_disable_unref(l->on_socket);
	l->on_end = sd_event_source_disable_unref(l->on_end);
	sandbox_kill(&l->child);
	l->ping_sent_ns = 0;
	for (struct link_test_run *t = l->tests; t; t = t->next)
		t->sent = false;
	for (size_t i = 0; i < l->n_dests; i++) {
		struct link_dest *d = l->dests[i];

		d->past_requests = d->row.requests;
		d->past_failures = d->row.failures;
		d->past_bytes = d->row.sent_bytes;
		d->past_latencies = d->row.latencies;
	}
	l->stop_fetch = 0;
	link_metrics_forget(l);
	link_spool_end(l);
	ledger_take_back(l);
	ledger_drop_unused_dests(l);
	if (l->fetch && l->fetch->sent)
		link_fail_fetch(l, "the exporter ended meanwhile");
}

/* It ended, or has to. why: a sentence's end; NULL: as its status says. */
static void replace(struct link *l, const char *why)
{
	uint64_t now = clock_monotonic_ns(), pause;
	char status_text[160];
	bool murdered = false;
	int status;

	if (!link_alive(l))
		return;
	if (!why) {
		const char *ignored;

		/* What it had still said. */
		while (link_read(l, MESSAGES_A_TURN, &ignored) > 0)
			;
		/* Its socket closes a moment before it has ended. */
		if (l->child.pidfd >= 0)
			(void)poll(&(struct pollfd){.fd = l->child.pidfd, .events = POLLIN}, 1,
				END_WAIT_MS);
		if (l->child.pid > 0 && sandbox_reap(&l->child, &status) == 0) {
			sandbox_describe_status(status, status_text, sizeof(status_text));
			murdered = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		} else
			snprintf(status_text, sizeof(status_text), "closed its socket");
		why = status_text;
	}
	if (now - l->started_ns > GOOD_LIFE_NS)
		l->ends_in_a_row = 0;
	pause = MIN(RESTART_MIN_NS << MIN(l->ends_in_a_row, 10U), RESTART_MAX_NS);
	l->ends_in_a_row++;
	if (l->leaving) {
		forget_child(l);
		l->start_at_ns = now + pause;
		link_arm(l);
		return;
	}
	l->restarts++;
	if (!murdered && ++l->ends_for_nothing >= ENDS_FOR_NOTHING) {
		/* A batch that brings it down each time must not stop all others for ever. */
		log_error("exporter: it ended %d times without getting anything done; the oldest "
			  "batch that it had is given up",
			ENDS_FOR_NOTHING);
		ledger_give_up_oldest(l);
		l->ends_for_nothing = 0;
	}
	log_warning("exporter: %s; it is started again, what it held is handed over again", why);
	forget_child(l);
	l->start_at_ns = now + pause;
	link_arm(l);
}

static void lied(struct link *l, const char *why)
{
	char text[200];

	snprintf(text, sizeof(text), "it said what cannot be (%s), so it was killed", why);
	replace(l, text);
}

/* ---- what comes in ------------------------------------------------------------------------------- */

/* Reads, acts, feeds. */
static void serve(struct link *l)
{
	const char *why = NULL;
	int r = link_read(l, MESSAGES_A_TURN, &why);

	if (r == -EBADMSG) {
		lied(l, why);
		return;
	}
	if (r < 0) {
		replace(l, NULL);
		return;
	}
	ledger_drop_unused_dests(l);
	link_feed(l);
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	serve(userdata);
	return 0;
}

static int on_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	replace(userdata, NULL);
	return 0;
}

/* ---- its beginning ------------------------------------------------------------------------------- */

static int watch(struct link *l)
{
	int r;

	if (l->flushing)
		return 0; /* the loop has ended; link_flush() polls */
	r = sd_event_add_io(l->loop, &l->on_socket, l->child.sock, EPOLLIN, on_socket, l);
	if (r >= 0 && l->child.pidfd >= 0)
		r = sd_event_add_io(l->loop, &l->on_end, l->child.pidfd, EPOLLIN, on_end, l);
	return MIN(r, 0);
}

/* To one that is a unit of its own: its socket starts it. */
static int connect_exporter(struct link *l, struct err_text *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	int size = SOCKET_BYTES;

	if (strlen(l->config.exporter_socket) >= sizeof(a.sun_path))
		return err_set(err, -ENAMETOOLONG, "the path of the exporter's socket is too long");
	strcpy(a.sun_path, l->config.exporter_socket);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "no socket to the exporter: %m");
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
		return err_set(err, -errno,
			"the exporter cannot be reached at %.200s: %m; is odi-exporter.socket started?",
			l->config.exporter_socket);
	l->child = SANDBOX_CHILD_NONE;
	l->child.sock = TAKE_FD(fd);
	return 0;
}

static void start_exporter(struct link *l)
{
	struct err_text err = {};
	int r;

	if (link_alive(l))
		return;
	l->started_ns = clock_monotonic_ns();
	r = l->config.exporter_socket ? connect_exporter(l, &err)
				      : sandbox_spawn(&l->child, "exporter", NULL, &err);
	if (r == 0) {
		r = watch(l);
		if (r < 0)
			err_set(&err, r, "the exporter cannot be watched: %s", strerrordesc_np(-r));
	}
	if (r < 0) {
		/* Once, not with each try. */
		if (!l->unreachable)
			log_error("%s", err.text);
		l->unreachable = true;
		if (l->config.exporter_socket)
			link_spool_problem(l, err.text);
		if (link_alive(l))
			forget_child(l);
		l->start_at_ns = l->started_ns + RESTART_MAX_NS;
		return;
	}
	l->start_at_ns = 0;
	l->unreachable = l->leaving = false;
	l->config_dirty = true;
	link_spool_begin(l);
	l->next_ping_ns = l->started_ns;
	link_feed(l);
}

/* ---- time ---------------------------------------------------------------------------------------- */

static void ping(struct link *l, uint64_t now)
{
	struct message_ping m = {.header = protocol_header(MESSAGE_PING, sizeof(m))};
	uint64_t hang_ns = l->config.hang_ms * NSEC_PER_MSEC;

	if (l->ping_sent_ns && now - l->ping_sent_ns >= hang_ns) {
		/* The answer may be here and only we are late. */
		serve(l);
		if (link_alive(l) && l->ping_sent_ns && now - l->ping_sent_ns >= hang_ns)
			replace(l, "it stood still, so it was killed");
		return;
	}
	if (now < l->next_ping_ns)
		return;
	l->next_ping_ns = now + hang_ns / 4;
	if (l->ping_sent_ns)
		return;
	m.nonce = ++l->nonce;
	/* One that does not fit into the socket counts as sent: it stands still just the same. */
	l->ping_sent_ns = now;
	if (fdpass_send(l->child.sock, &m, sizeof(m), NULL, 0) < 0)
		l->nonce++;
}

static void tick(struct link *l)
{
	uint64_t now = clock_monotonic_ns();

	link_expire_tests(l, now);
	link_expire_fetch(l, now);
	if (l->save_at_ns && now >= l->save_at_ns)
		link_save(l);
	if (!wanted(l)) {
		if (!l->idle_since_ns)
			l->idle_since_ns = now;
		l->start_at_ns = 0;
		if (link_alive(l) && now - l->idle_since_ns >= IDLE_NS)
			forget_child(l);
	} else {
		l->idle_since_ns = 0;
		if (!link_alive(l) && now >= l->start_at_ns)
			start_exporter(l);
	}
	if (link_alive(l))
		ping(l, now);
	link_feed(l);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct link *l = userdata;

	tick(l);
	link_arm(l);
	return 0;
}

/* The timer, for what comes next. */
void link_arm(struct link *l)
{
	uint64_t next = UINT64_MAX, now = clock_monotonic_ns();

	if (link_alive(l))
		next = MIN(next, MAX(l->next_ping_ns, now));
	else if (wanted(l))
		next = MIN(next, MAX(l->start_at_ns, now));
	if (link_alive(l) && l->ping_sent_ns)
		next = MIN(next, l->ping_sent_ns + l->config.hang_ms * NSEC_PER_MSEC);
	for (const struct link_test_run *t = l->tests; t; t = t->next)
		next = MIN(next, t->deadline_ns);
	if (l->fetch)
		next = MIN(next, l->fetch->deadline_ns);
	if (l->save_at_ns)
		next = MIN(next, MAX(l->save_at_ns, now));
	if (l->flushing || !l->timer)
		return;
	if (next == UINT64_MAX) {
		(void)sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(l->timer, next / 1000 + 1);
	(void)sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT);
}

/* ---- the public side ----------------------------------------------------------------------------- */

int link_new(
	struct link **ret, sd_event *loop, const struct link_config *config, struct err_text *err)
{
	CLEANUP(link_freep) struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_set(err, -ENOMEM, "out of memory");
	l->child = SANDBOX_CHILD_NONE;
	l->loop = sd_event_ref(loop);
	l->config = *config;
	if (!l->config.max_unheld_bytes)
		l->config.max_unheld_bytes = MAX_BYTES_DEFAULT;
	if (!l->config.hang_ms)
		l->config.hang_ms = HANG_MS_DEFAULT;
	l->next_dest = 1;
	l->next_batch = UINT32_MAX; /* below it: batches that an exporter tells of */
	l->spool_folder = -1;
	r = link_spool_init(l, err);
	if (r < 0)
		return r;
	r = sd_event_add_time(loop, &l->timer, CLOCK_MONOTONIC, 0, 10000, on_timer, l);
	if (r < 0)
		return err_set(
			err, r, "the exporter's timer cannot be made: %s", strerrordesc_np(-r));
	(void)sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
	*ret = TAKE_PTR(l);
	return 0;
}

struct link *link_free(struct link *l)
{
	if (!l)
		return NULL;
	while (l->tests) {
		struct link_test_run *t = l->tests;

		l->tests = t->next;
		link_fail_test(t, "agentd is stopping", "try again when it runs");
	}
	link_fetch_cancel(l);
	link_save(l);
	link_spool_deinit(l);
	l->on_socket = sd_event_source_disable_unref(l->on_socket);
	l->on_end = sd_event_source_disable_unref(l->on_end);
	l->timer = sd_event_source_disable_unref(l->timer);
	sandbox_kill(&l->child);
	ledger_deinit(l);
	link_metrics_deinit(l);
	sd_event_unref(l->loop);
	free(l);
	return NULL;
}

int link_send(struct link *l, const struct batch_header *header, int memfd)
{
	int r = ledger_add(l, header, memfd);

	if (r < 0)
		return r;
	link_feed(l);
	ledger_bound(l);
	/* The exporter has the same bound: what is far above it it should have given up itself. */
	if (link_alive(l) &&
		(l->bytes / 2 > l->config.max_unheld_bytes + PROFILE_MAX_ENCODED ||
			l->n_batches > 2 * PROTOCOL_BATCHES))
		lied(l, "it keeps more than it may");
	return 0;
}

/* Whether something can still be expected to get through. */
static bool flows(const struct link *l)
{
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->open && !streq(l->dests[i]->row.state, "failing"))
			return true;
	return false;
}

/* Whether what only memory has can still be expected on the disk, however its destinations are. */
static bool lands(const struct link *l)
{
	if (!l->spool_wanted || l->unreachable || (l->spool.known && !l->spool.on))
		return false;
	for (size_t i = 0; i < l->n_batches; i++)
		if (!l->batches[i]->durable)
			return true;
	return false;
}

void link_flush(struct link *l, unsigned deadline_ms)
{
	uint64_t now = clock_monotonic_ns(), end = now + deadline_ms * NSEC_PER_MSEC, held = 0;
	uint64_t land_by = MAX(end, now + LAND_MS * NSEC_PER_MSEC);

	l->flushing = true;
	while ((now < end && flows(l)) || (now < land_by && lands(l))) {
		/* A negative descriptor is passed over. */
		struct pollfd p[] = {{.fd = l->child.sock, .events = POLLIN},
			{.fd = l->child.pidfd, .events = POLLIN}};

		if (poll(p, ARRAY_SIZE(p), FLUSH_STEP_MS) < 0 && errno != EINTR)
			break;
		if (link_alive(l) && p[0].revents)
			serve(l);
		else if (link_alive(l) && p[1].revents)
			replace(l, NULL);
		tick(l);
		now = clock_monotonic_ns();
	}
	held = ledger_evict_memory(l);
	if (held)
		log_warning(
			"%llu samples were neither delivered nor on the disk before the stop and are "
			"lost to their destinations; the local profiles have them",
			(unsigned long long)held);
	link_save(l);
	l->flushing = false;
}

pid_t link_child_pid(struct link *l)
{
	return l->child.pid;
}

uint32_t link_restarts(struct link *l)
{
	return l->restarts;
}
