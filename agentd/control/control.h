/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The control socket: who may call, one row a verb, one handler each. It sees the rest of agentd only through
 * struct control_ops. Many clients, bounded per uid; slow or silent ones harm nobody (bounded output queues, time
 * limits). Root and group `odi` may change, group `odi-view` may read (SO_PEERCRED and SO_PEERGROUPS); any other
 * peer gets one Hello with a refusal and is closed before anything of its is read. Runs in agentd. */

#include <sys/types.h>
#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "agentd/wire/control.pb-c.h"
#include "agentd/config/config.h"

struct control_caller {
	uid_t uid;
	pid_t pid;
	bool may_change;
};

/* A reply under construction: fill `body` from the arena (control_alloc, control_strdup), which lives until it is
 * sent. Asynchronous handlers keep the pointer; if the client goes away `cancelled` is called and the pointer dies. */
struct control_reply;
void *control_alloc(struct control_reply *r, size_t size);    /* zeroed; NULL: no memory */
char *control_strdup(struct control_reply *r, const char *s); /* "" for NULL */
char *control_printf(struct control_reply *r, const char *format, ...) PRINTF(2, 3);
/* The lines of text (NULL: none) that end, each without its end. NULL and none: no memory. */
char **control_lines(struct control_reply *r, const char *text, size_t *n);
/* One that nobody waits for: for filling what a reply would say. NULL: no memory. */
struct control_reply *control_reply_detached(void);
struct control_reply *control_reply_free(struct control_reply *r); /* a detached one */
DEFINE_FREEP(control_reply_freep, struct control_reply *, control_reply_free)
/* Sends body (a Reply with its oneof set; id and final are set here) and, if final, ends the request. */
void control_send(struct control_reply *r, Control__Reply *body, bool final);
/* Ends it with an error; code from the errno by control_code(). */
void control_fail(struct control_reply *r, int error, const struct err_text *err);
Control__Code control_code(int error);
/* An asynchronous handler that sets none is not told, and what it sends later is dropped. */
void control_on_cancel(struct control_reply *r, void (*cancelled)(void *userdata), void *userdata);

struct control_ops { /* each fills and sends its reply, now or later; called from the event loop */
	/* config verbs (Apply, GetConfig, GetHistory) are answered by the control room itself from these two */
	struct config_manager *config;
	struct store *store;
	/* Of an Apply, a change that came with a descriptor (borrowed): *value becomes what the document gets, to be
	 * freed. NULL: no change may come with one. forget: the change came to nothing. */
	int (*keep_file)(void *userdata, const char *path, const char *set, int fd, char **value,
		struct err_text *err);
	void (*forget_files)(void *userdata);
	/* After an Apply: sentences about what it does now ("matches nothing yet"). */
	void (*describe_effects)(void *userdata, struct control_reply *r,
		const Control__Apply *apply, Control__Applied *applied);
	void (*status)(void *userdata, struct control_reply *r, const Control__GetStatus *request);
	void (*sources)(
		void *userdata, struct control_reply *r, const Control__GetSources *request);
	void (*candidates)(
		void *userdata, struct control_reply *r, const Control__GetCandidates *request);
	void (*destinations)(
		void *userdata, struct control_reply *r, const Control__GetDestinations *request);
	void (*destination_types)(void *userdata, struct control_reply *r);
	void (*source_kinds)(void *userdata, struct control_reply *r);
	void (*symbols)(
		void *userdata, struct control_reply *r, const Control__GetSymbols *request);
	void (*metrics)(void *userdata, struct control_reply *r);
	void (*policy)(void *userdata, struct control_reply *r);
	void (*spool)(void *userdata, struct control_reply *r, const Control__GetSpool *request);
	void (*drop_spool)(
		void *userdata, struct control_reply *r, const Control__DropSpool *request);
	void (*test_destination)(
		void *userdata, struct control_reply *r, const Control__TestDestination *request);
	/* Sends QueryPart replies, the last one final; cancelled through control_on_cancel(). */
	void (*query)(void *userdata, struct control_reply *r, const Control__RunQuery *request);
};

struct control_server;
/* Makes the socket (0666 in a folder of the caller's making, or takes listen_fd >= 0). A socket file that a live agentd
 * answers on is an error; a stale one is replaced. */
int control_server_new(struct control_server **ret, sd_event *loop, const char *path, int listen_fd,
	const struct control_ops *ops, void *userdata, struct err_text *err);
struct control_server *control_server_free(struct control_server *s);
DEFINE_FREEP(control_server_freep, struct control_server *, control_server_free)
