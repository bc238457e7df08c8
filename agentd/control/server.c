/* SPDX-License-Identifier: Apache-2.0 */

/* The control socket: whose call is taken at all.
 *
 * The socket's file is open to everyone, so that a user without the right gets a sentence instead of
 * "permission denied"; what counts is what the kernel says of the peer at connect(2): its uid and its
 * groups (SO_PEERCRED, SO_PEERGROUPS; unix(7)). Who may nothing is told so and closed before a byte
 * of its is read. Group names are looked up once: a look-up may ask a directory server, and the loop
 * does not wait for one.
 *
 * Bounds: connections a user and altogether, with room kept for root, so that nobody else can lock
 * the administrator out; when descriptors run out, accepting pauses instead of spinning. A socket
 * file is only replaced after it was asked and nobody answered. Runs in agentd. */

#include <fcntl.h>
#include <grp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/control/control_private.h"

#define GROUP_CHANGE "odi"
#define GROUP_VIEW   "odi-view"
#define BACKLOG      64
#define ACCEPTS      16 /* in one turn of the loop */
#define RETRY_US     (500 * 1000)
#define MAX_GROUPS   65536 /* NGROUPS_MAX, and one */

/* ---- who ----------------------------------------------------------------------------------------- */

static bool has_group(gid_t wanted, gid_t gid, const gid_t *groups, size_t n)
{
	if (wanted == (gid_t)-1)
		return false;
	if (gid == wanted)
		return true;
	for (size_t i = 0; i < n; i++)
		if (groups[i] == wanted)
			return true;
	return false;
}

int control_access(
	const struct control_server *s, uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	/* agentd's own user: without root it holds nothing that this user does not. */
	if (uid == 0 || uid == geteuid() || has_group(s->change_gid, gid, groups, n))
		return 1;
	return has_group(s->view_gid, gid, groups, n) ? 0 : -EACCES;
}

static int peer(const struct control_server *s, int fd, struct control_caller *ret)
{
	_cleanup_free_ gid_t *groups = NULL;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	len = 64 * sizeof(*groups);
	for (;;) {
		free(groups);
		groups = malloc(len);
		if (!groups)
			return -ENOMEM;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
			break;
		/* ERANGE: len says how much is needed. */
		if (errno != ERANGE || len > MAX_GROUPS * sizeof(*groups))
			return -errno;
	}
	r = control_access(s, cred.uid, cred.gid, groups, len / sizeof(*groups));
	if (r < 0)
		return r;
	*ret = (struct control_caller){.uid = cred.uid, .pid = cred.pid, .may_change = r > 0};
	return 0;
}

static gid_t group_id(const char *name)
{
	struct group group, *found = NULL;
	char text[8192];

	if (getgrnam_r(name, &group, text, sizeof(text), &found) != 0 || !found)
		return (gid_t)-1;
	return found->gr_gid;
}

/* ---- accepting ----------------------------------------------------------------------------------- */

static void refuse(int fd, Control__Code code, const char *text)
{
	Control__Hello hello = CONTROL__HELLO__INIT;
	_cleanup_buf_ struct buf out;

	buf_init(&out, 0);
	hello.protocol = API_PROTOCOL;
	hello.version = (char *)ODI_VERSION;
	hello.access = "none";
	hello.refusal = (char *)text;
	hello.refusal_code = code;
	/* A new socket's buffer has room; a peer that made it otherwise gets nothing. */
	if (api_frame_pack(&hello.base, API_MAX_REPLY, &out) == 0)
		send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static size_t connections_of(const struct control_server *s, uid_t uid)
{
	size_t n = 0;

	for (const struct connection *c = s->connections; c; c = c->next)
		n += c->caller.uid == uid;
	return n;
}

static void take(struct control_server *s, int fd)
{
	struct control_caller caller;
	int r = peer(s, fd, &caller);

	if (r == -EACCES) {
		refuse(fd, CONTROL__CODE__PERMISSION,
			"agentd answers root, the group odi (may change) and the group odi-view (may look): "
			"put sudo before the command, or ask an administrator for "
			"'usermod -aG odi-view USER'");
		close(fd);
		return;
	}
	if (r < 0) {
		log_warning("control: a peer could not be identified: %s", strerrordesc_np(-r));
		close(fd);
		return;
	}
	if (connections_of(s, caller.uid) >= s->limits.connections_uid) {
		refuse(fd, CONTROL__CODE__BUSY,
			"this user has too many connections to agentd: end one of its odictl commands");
		close(fd);
		return;
	}
	if (caller.uid != 0 && s->n_not_root >= s->limits.connections) {
		refuse(fd, CONTROL__CODE__BUSY, "agentd has too many connections: try again later");
		close(fd);
		return;
	}
	r = connection_new(s, fd, &caller);
	if (r < 0)
		log_warning("control: a connection could not be served: %s", strerrordesc_np(-r));
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct control_server *s = userdata;

	return sd_event_source_set_enabled(s->accept_source, SD_EVENT_ON);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct control_server *s = userdata;

	for (unsigned i = 0; i < ACCEPTS; i++) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (client >= 0) {
			take(s, client);
			continue;
		}
		if (errno == EAGAIN)
			return 0;
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		/* No descriptors or no memory: the queue stays readable, so wait instead of asking
		 * again at once. */
		log_warning("control: no connection can be taken now: %m");
		sd_event_source_set_enabled(s->accept_source, SD_EVENT_OFF);
		sd_event_source_set_time(s->retry_source, clock_monotonic_ns() / 1000 + RETRY_US);
		sd_event_source_set_enabled(s->retry_source, SD_EVENT_ONESHOT);
		return 0;
	}
	return 0;
}

/* ---- the socket ---------------------------------------------------------------------------------- */

static int alive(const char *path, int fd, struct err_text *err)
{
	struct ucred cred = {};
	socklen_t len = sizeof(cred);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	return err_set(err, -EADDRINUSE,
		"another agentd (pid %d) answers on %s: stop it, or give this one another --socket",
		(int)cred.pid, path);
}

/* A file in the way: a stale socket is removed, all else is an error. */
static int clear_way(const char *path, const struct sockaddr_un *address, struct err_text *err)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "cannot look at %s: %m", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST,
			"%s is there and is not a socket: move it away, or give another --socket",
			path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "cannot make a socket: %m");
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return alive(path, fd, err);
	if (errno == EAGAIN)
		return err_set(err, -EADDRINUSE,
			"another agentd has %s, and does not answer: stop it, or give this one "
			"another --socket",
			path);
	if (errno != ECONNREFUSED)
		return err_set(err, -errno, "cannot replace %s: %m", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "cannot remove the stale %s: %m", path);
	return 0;
}

static int make_socket(struct control_server *s, const char *path, struct err_text *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int r;

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, -ENAMETOOLONG,
			"a socket's path has at most %zu bytes, this has %zu: %.128s",
			sizeof(address.sun_path) - 1, strlen(path), path);
	strcpy(address.sun_path, path);
	r = clear_way(path, &address, err);
	if (r < 0)
		return r;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return err_set(err, -errno, "cannot make a socket: %m");
	if (bind(s->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_set(err, -errno, "cannot make the socket %s: %m", path);
	/* Nobody gets in before listen(2). */
	s->path = strdup(path);
	if (!s->path || stat(path, &st) < 0 || chmod(path, 0666) < 0)
		return err_set(err, s->path ? -errno : -ENOMEM, "cannot open %s to all: %m", path);
	s->device = st.st_dev;
	s->inode = st.st_ino;
	if (listen(s->fd, BACKLOG) < 0)
		return err_set(err, -errno, "cannot listen on %s: %m", path);
	return 0;
}

static int check_socket(int fd, struct err_text *err)
{
	int domain = 0, type = 0, listening = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return err_set(err, -errno, "the descriptor handed over is not a socket: %m");
	if (domain != AF_UNIX || type != SOCK_STREAM || !listening)
		return err_set(err, -EINVAL,
			"the socket handed over is not a listening UNIX stream socket "
			"(ListenStream= in the socket unit)");
	/* systemd hands over sockets that wait (NonBlocking=), and accept() is called until there is nobody left. */
	domain = fcntl(fd, F_GETFL);
	if (domain < 0 || fcntl(fd, F_SETFL, domain | O_NONBLOCK) < 0)
		return err_set(err, -errno, "the socket handed over cannot be used: %m");
	return 0;
}

static int add_sources(struct control_server *s)
{
	int r = sd_event_add_io(s->loop, &s->accept_source, s->fd, EPOLLIN, on_accept, s);

	if (r >= 0)
		r = sd_event_source_set_priority(s->accept_source, SD_EVENT_PRIORITY_NORMAL + 10);
	if (r >= 0)
		r = sd_event_add_time(
			s->loop, &s->retry_source, CLOCK_MONOTONIC, 0, 0, on_retry, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->retry_source, SD_EVENT_OFF);
	if (r >= 0)
		r = logs_init(s);
	return r < 0 ? r : 0;
}

int control_server_new(struct control_server **ret, sd_event *loop, const char *path, int listen_fd,
	const struct control_ops *ops, void *userdata, struct err_text *err)
{
	CLEANUP(control_server_freep) struct control_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		closep(&listen_fd);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->fd = listen_fd;
	s->loop = sd_event_ref(loop);
	s->ops = ops;
	s->userdata = userdata;
	s->limits = control_default_limits;
	s->change_gid = group_id(GROUP_CHANGE);
	s->view_gid = group_id(GROUP_VIEW);
	r = listen_fd >= 0 ? check_socket(listen_fd, err) : make_socket(s, path, err);
	if (r < 0)
		return r;
	r = add_sources(s);
	if (r < 0)
		return err_set(err, r, "cannot serve %s: %s", path, strerrordesc_np(-r));
	*ret = TAKE_PTR(s);
	return 0;
}

struct control_server *control_server_free(struct control_server *s)
{
	struct stat st;

	if (!s)
		return NULL;
	while (s->connections)
		connection_close(s->connections);
	logs_deinit(s);
	sd_event_source_disable_unref(s->accept_source);
	sd_event_source_disable_unref(s->retry_source);
	/* Somebody may have put another one there. */
	if (s->path && s->inode && lstat(s->path, &st) == 0 && st.st_dev == s->device &&
		st.st_ino == s->inode)
		unlink(s->path);
	closep(&s->fd);
	sd_event_unref(s->loop);
	free(s->path);
	free(s);
	return NULL;
}
