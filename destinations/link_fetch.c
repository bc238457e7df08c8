/* SPDX-License-Identifier: Apache-2.0 */

/* Debug files: agentd's side of what fetch.c does in the exporter.
 *
 * One file is under way at a time. The exporter gets a descriptor of a file of agentd's and answers once; agentd waits
 * a little longer than the bounds that it gave, and then does without. An exporter that dies takes its fetch with it:
 * that is a failure like others, and what to do next is the caller's matter. What is said of a fetch that nobody waits
 * for any more is passed over; how many bytes there are the caller can see himself. Runs in agentd. */

#include <fcntl.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/text.h"
#include "destinations/link_private.h"

#define ANSWER_SLACK_NS (10 * NSEC_PER_SEC)
#define BEHIND_BATCHES  3

static struct link_fetch_run *fetch_free(struct link_fetch_run *f)
{
	if (f)
		closep(&f->fd);
	free(f);
	return NULL;
}

/* It is off the link before done is called, which may begin the next. */
static void end(struct link *l, const struct link_fetch_result *result)
{
	struct link_fetch_run *f = TAKE_PTR(l->fetch);

	f->done(f->userdata, result);
	fetch_free(f);
}

void link_fail_fetch(struct link *l, const char *reason)
{
	struct link_fetch_result result = {.outcome = FETCH_FAILED_HERE};

	if (!l->fetch)
		return;
	snprintf(result.reason, sizeof(result.reason), "%s", reason);
	snprintf(result.remedy, sizeof(result.remedy), "it is tried again later");
	end(l, &result);
}

void link_expire_fetch(struct link *l, uint64_t now_ns)
{
	if (!l->fetch || now_ns < l->fetch->deadline_ns)
		return;
	if (l->fetch->sent)
		l->stop_fetch = l->fetch->message.id;
	link_fail_fetch(l, "the exporter did not answer in time");
}

int link_feed_fetch(struct link *l)
{
	struct link_fetch_run *f = l->fetch;
	int r = 0;

	if (l->stop_fetch) {
		struct message_fetch_stop m = {
			.header = protocol_header(MESSAGE_FETCH_STOP, sizeof(m)),
			.id = l->stop_fetch};

		r = fdpass_send(l->child.sock, &m, sizeof(m), NULL, 0);
		if (r == 0)
			l->stop_fetch = 0;
	}
	if (r == 0 && f && !f->sent) {
		r = fdpass_send(l->child.sock, &f->message, sizeof(f->message), &f->fd, 1);
		if (r == 0) {
			f->sent = true;
			closep(&f->fd);
		}
	}
	return r;
}

int link_on_fetch_done(struct link *l, const struct message_fetch_done *m, const char **why)
{
	struct link_fetch_result result = {.http_status = m->http_status, .bytes = m->bytes};

	*why = "a debug file that was not asked for";
	if (!m->id || m->id > l->next_fetch)
		return -EBADMSG;
	*why = "texts that do not end";
	if (!memchr(m->reason, 0, sizeof(m->reason)) || !memchr(m->remedy, 0, sizeof(m->remedy)))
		return -EBADMSG;
	*why = "an outcome that there is not";
	if (m->outcome >= FETCH_OUTCOMES)
		return -EBADMSG;
	if (!l->fetch || !l->fetch->sent || l->fetch->message.id != m->id)
		return 0; /* it came too late */
	*why = "more bytes than a file may have";
	if (m->bytes > l->fetch->message.max_bytes)
		return -EBADMSG;
	result.outcome = m->outcome;
	result.retry_after_ns = MIN(m->retry_after_ns, 3600 * NSEC_PER_SEC);
	memcpy(result.reason, m->reason, sizeof(result.reason));
	memcpy(result.remedy, m->remedy, sizeof(result.remedy));
	text_clean(result.reason);
	text_clean(result.remedy);
	end(l, &result);
	return 0;
}

int link_fetch(struct link *l, const struct link_fetch *what, int fd,
	void (*done)(void *userdata, const struct link_fetch_result *result), void *userdata)
{
	struct link_fetch_run *f;

	if (l->fetch)
		return -EBUSY;
	if (!protocol_build_id_ok(what->build_id) || strlen(what->url) >= PROTOCOL_URL)
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (f->fd < 0) {
		free(f);
		return -errno;
	}
	f->message = (struct message_fetch){
		.header = protocol_header(MESSAGE_FETCH, sizeof(f->message)),
		.id = ++l->next_fetch,
		.max_bytes = what->max_bytes,
		.connect_ms = what->connect_ms,
		.stall_ms = what->stall_ms,
		.total_ms = what->total_ms,
	};
	strcpy(f->message.build_id, what->build_id);
	strcpy(f->message.url, what->url);
	f->deadline_ns = clock_monotonic_ns() + what->total_ms * NSEC_PER_MSEC + ANSWER_SLACK_NS;
	f->done = done;
	f->userdata = userdata;
	l->fetch = f;
	link_feed(l);
	link_arm(l); /* starts the exporter, if need be */
	return 0;
}

void link_fetch_cancel(struct link *l)
{
	if (!l->fetch)
		return;
	if (l->fetch->sent)
		l->stop_fetch = l->fetch->message.id;
	l->fetch = fetch_free(l->fetch);
	link_feed(l);
}

bool link_is_behind(const struct link *l)
{
	for (size_t i = 0; i < l->n_dests; i++)
		if (l->dests[i]->enabled && l->dests[i]->open > BEHIND_BATCHES &&
			!streq(l->dests[i]->row.state, "failing"))
			return true;
	return false;
}
