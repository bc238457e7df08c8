/* SPDX-License-Identifier: Apache-2.0 */

/* One reader child, from agentd's side: sends what it is to read, takes what it answers, and
 * sees to its end, whichever comes first: the answer, its death, a broken contract, the
 * deadline. Never blocks: the child may be stopped, slow or lying. */

#include "agentd/profile/local_private.h"

#define MESSAGES_AT_ONCE 16 /* a turn of the loop; others have work too */

struct local_job {
	sd_event *loop;
	sd_event_source *io, *ended, *deadline;
	struct sandbox_child child;
	const struct local_job_ops *ops;
	void *userdata;
	uint8_t *out, *in; /* FDPASS_MAX_MESSAGE each */
	size_t out_len;    /* 0: none waits */
	int fds[FDPASS_MAX_FDS];
	size_t n_fds;
	bool all_sent;
};

static void close_fds(struct local_job *j)
{
	for (size_t i = 0; i < j->n_fds; i++)
		closep(&j->fds[i]);
	j->n_fds = 0;
}

struct local_job *local_job_free(struct local_job *j)
{
	if (!j)
		return NULL;
	sd_event_source_disable_unref(j->io);
	sd_event_source_disable_unref(j->ended);
	sd_event_source_disable_unref(j->deadline);
	sandbox_kill(&j->child);
	close_fds(j);
	sd_event_unref(j->loop);
	free(j->out);
	free(j->in);
	free(j);
	return NULL;
}

/* The owner frees the job within. */
static void end(struct local_job *j, int error, const char *why)
{
	struct err_text text = {""};

	if (error)
		err_set(&text, error, "%s", why);
	j->ops->on_end(j->userdata, error, &text);
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata)
{
	end(userdata, -ETIMEDOUT,
		"reading the local profiles took too long and was stopped; ask for a shorter time");
	return 0;
}

/* It ended, or is about to, without an answer. */
static int on_ended(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
	struct local_job *j = userdata;
	char how[128], why[256];
	int status = 0;

	if (sandbox_reap(&j->child, &status) < 0)
		return 0;
	sandbox_describe_status(status, how, sizeof(how));
	snprintf(why, sizeof(why), "the reader of the local profiles %s before it had answered",
		how);
	end(j, -EIO, why);
	return 0;
}

/* 0: go on; 1: all is sent for now; negative: the job failed. */
static int send_next(struct local_job *j)
{
	ssize_t n;
	int r;

	if (!j->out_len && !j->all_sent) {
		j->n_fds = 0;
		n = j->ops->next(j->userdata, j->out, j->fds, &j->n_fds);
		if (n < 0)
			return (int)n;
		j->out_len = (size_t)n;
		j->all_sent = n == 0;
	}
	if (!j->out_len)
		return 1;
	r = fdpass_send(j->child.sock, j->out, j->out_len, j->fds, j->n_fds);
	if (r == -EAGAIN)
		return 1;
	/* It is gone: how is known in a moment, and says more. */
	if (r == -EPIPE) {
		j->all_sent = true;
		r = 1;
	}
	close_fds(j);
	j->out_len = 0;
	return r;
}

/* 1: no message now; 2: the job is no more. */
static int receive(struct local_job *j)
{
	struct reader_head head;
	ssize_t n = fdpass_recv(j->child.sock, j->in, FDPASS_MAX_MESSAGE, NULL, NULL);
	int r;

	if (n == -EAGAIN)
		return 1;
	if (n <= 0) { /* the end of the stream; on_ended() tells why */
		(void)sd_event_source_set_enabled(j->io, SD_EVENT_OFF);
		return 1;
	}
	if ((size_t)n < sizeof(head)) {
		end(j, -EPROTO, "the reader of the local profiles sent nonsense");
		return 2;
	}
	memcpy(&head, j->in, sizeof(head));
	if (head.kind == READER_FAILED) {
		char why[512];

		snprintf(why, sizeof(why), "the reader of the local profiles: %.*s",
			(int)MIN(n - (ssize_t)sizeof(head), 400),
			(const char *)j->in + sizeof(head));
		end(j, -EIO, why);
		return 2;
	}
	r = j->ops->on_message(j->userdata, &head, j->in + sizeof(head), (size_t)n - sizeof(head));
	if (r == 0)
		return 0;
	end(j, MIN(r, 0),
		"the reader of the local profiles sent an answer that breaks its contract");
	return 2;
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
	struct local_job *j = userdata;
	int r = 0;

	for (int i = 0; i < MESSAGES_AT_ONCE && r == 0; i++)
		r = send_next(j);
	if (r < 0) {
		end(j, r, "the local profiles could not be handed to their reader");
		return 0;
	}
	if (r == 1 && j->all_sent)
		(void)sd_event_source_set_io_events(j->io, EPOLLIN);
	for (int i = 0, got = 0; i < MESSAGES_AT_ONCE && got == 0; i++) {
		got = receive(j);
		if (got == 2)
			return 0;
	}
	return 0;
}

int local_job_new(struct local_job **ret, sd_event *loop, const struct local_job_ops *ops,
	void *userdata, unsigned deadline_ms, struct err_text *err)
{
	CLEANUP(local_job_freep) struct local_job *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_set(err, -ENOMEM, "out of memory");
	j->child = SANDBOX_CHILD_NONE;
	j->ops = ops;
	j->userdata = userdata;
	j->loop = sd_event_ref(loop);
	j->out = malloc(FDPASS_MAX_MESSAGE);
	j->in = malloc(FDPASS_MAX_MESSAGE);
	if (!j->out || !j->in)
		return err_set(err, -ENOMEM, "out of memory");
	r = sandbox_spawn(&j->child, "reader", NULL, err);
	if (r < 0)
		return r;
	r = sd_event_add_io(loop, &j->io, j->child.sock, EPOLLIN | EPOLLOUT, on_io, j);
	/* After what it sent: an answer that is there counts, even if its sender has ended. */
	if (r >= 0)
		r = sd_event_add_io(loop, &j->ended, j->child.pidfd, EPOLLIN, on_ended, j);
	if (r >= 0)
		r = sd_event_source_set_priority(j->ended, SD_EVENT_PRIORITY_NORMAL + 1);
	if (r >= 0)
		r = sd_event_add_time_relative(loop, &j->deadline, CLOCK_MONOTONIC,
			deadline_ms * 1000ULL, 1000, on_deadline, j);
	if (r < 0)
		return err_set(
			err, r, "cannot watch the reader of the local profiles: %s", strerror(-r));
	*ret = TAKE_PTR(j);
	return 0;
}
