/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files of the control room and by its tests. */

#include "agentd/api/api.h"
#include "agentd/control/control.h"

#define CONTROL_MAX_FDS 16

struct control_limits {
	size_t connections;          /* of all users but root */
	size_t connections_uid;      /* of one user */
	size_t in_flight;            /* requests of one connection */
	size_t out_bytes;            /* waiting for one client */
	size_t out_bytes_all;        /* waiting for all of them */
	size_t out_pause;            /* with so much waiting, no more requests are read */
	size_t unpack_bytes;         /* memory of one unpacked request */
	uint64_t hello_ns, frame_ns; /* until the first frame; until a begun one is whole */
	uint64_t stall_ns;           /* without a client taking out_progress bytes */
	size_t out_progress;
};
extern const struct control_limits control_default_limits;

struct connection;

struct control_server {
	sd_event *loop;
	int fd;
	char *path;   /* NULL: the socket was handed over */
	dev_t device; /* of the socket's file, to remove only our own */
	ino_t inode;
	sd_event_source *accept_source, *retry_source, *logs_source;
	const struct control_ops *ops;
	void *userdata;
	struct control_limits limits;
	gid_t change_gid, view_gid; /* (gid_t)-1: no such group */
	struct connection *connections;
	size_t n_connections, n_not_root, out_bytes;
	size_t n_followers;
};

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	max_align_t data[];
};

struct control_reply {
	struct connection *connection; /* NULL: the client is gone and the handler does not know */
	struct control_reply *next;
	uint64_t id;
	struct arena_block *arena;
	void (*cancelled)(void *userdata);
	void *cancel_userdata;
	bool follows_logs;
	uint32_t log_level;
	uint64_t log_serial; /* last that was sent */
};

struct connection {
	struct control_server *server;
	struct connection *next, **link;
	int fd;
	struct control_caller caller;
	sd_event_source *io, *timer, *more;
	struct buf in, out;
	size_t in_at, out_at; /* bytes of in that were used, of out that were sent */
	size_t out_counted;   /* of out, in server->out_bytes */
	size_t out_mark;      /* sent since the stall limit was set */
	bool pending;         /* whole frames wait for the next turn */
	bool greeted;         /* the client's Hello came */
	bool closing;         /* no more is read; closed once out is empty */
	bool doomed;          /* closed at the next turn of the loop */
	uint64_t hello_until, frame_until, stall_until; /* 0: not set */
	struct control_reply *replies;
	size_t n_replies;
	int fds[CONTROL_MAX_FDS]; /* that came with frames not handled yet */
	size_t n_fds;
};

/* ---- server.c */
/* What the peer may: 1 change, 0 view, -EACCES. */
int control_access(
	const struct control_server *s, uid_t uid, gid_t gid, const gid_t *groups, size_t n);

/* ---- connection.c */
int connection_new(struct control_server *s, int fd, const struct control_caller *caller);
void connection_close(struct connection *c);
/* Queues a message. */
void connection_send(struct connection *c, const ProtobufCMessage *message);
/* Says what is wrong with what it sent, and closes once that is sent. */
void connection_violation(struct connection *c, const char *text);
void connection_doom(struct connection *c);

/* ---- descriptors.c */
/* recv(), and the descriptors that come beside: -1 with errno EMSGSIZE when there are more than may wait. */
ssize_t connection_receive(struct connection *c, void *to, size_t size);
/* The first n descriptors that came become the caller's; -EBADMSG: there are not so many. */
int connection_take_fds(struct connection *c, int *fds, size_t n);
/* Closes the first n of those that came; n at most c->n_fds. */
void connection_drop_fds(struct connection *c, size_t n);

/* ---- reply.c */
struct control_reply *reply_new(struct connection *c, uint64_t id);
struct control_reply *reply_find(struct connection *c, uint64_t id);
void reply_fail_code(struct control_reply *r, Control__Code code, const char *text);
/* Tells the handler that nobody waits any more, and ends it. */
void reply_cancel(struct control_reply *r);
const struct control_caller *reply_caller(const struct control_reply *r);

/* ---- verbs.c */
void verbs_dispatch(struct connection *c, const Control__Request *request);

/* ---- verbs_config.c */
void verb_check_files(
	struct control_server *s, struct control_reply *r, const Control__CheckFiles *q);
void verb_get_keys(struct control_reply *r);

/* ---- logs.c */
void logs_get(struct control_server *s, struct control_reply *r, const Control__GetLogs *request);
int logs_init(struct control_server *s);
void logs_deinit(struct control_server *s);
