/* SPDX-License-Identifier: Apache-2.0 */

/* Our own metrics on their way to the exporter, on agentd's side.
 *
 * The exporter listens, since it is the one that has a network; what it says of an address that cannot be had is shown
 * by status. The text is made when the exporter asks for it, no more than once in FRESH_NS: whoever scrapes in a loop
 * gets the last one. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/link_private.h"

#define FRESH_NS (250 * NSEC_PER_MSEC)

void link_set_metrics(struct link *l, link_metrics_fn *make, void *userdata)
{
	l->metrics.make = make;
	l->metrics.userdata = userdata;
}

void link_metrics_listen(struct link *l, const char *address)
{
	snprintf(l->metrics.address, sizeof(l->metrics.address), "%s", address);
	l->metrics.problem[0] = '\0';
	l->metrics.dirty = true;
	link_feed(l);
	link_arm(l);
}

const char *link_metrics_problem(const struct link *l)
{
	return l->metrics.problem;
}

int link_on_listening(struct link *l, const struct message_listening *m, const char **why)
{
	*why = "texts that do not end";
	if (!memchr(m->problem, 0, sizeof(m->problem)))
		return -EBADMSG;
	if (m->problem[0] && !l->metrics.problem[0])
		log_error("%s", m->problem);
	memcpy(l->metrics.problem, m->problem, sizeof(l->metrics.problem));
	text_clean(l->metrics.problem);
	return 0;
}

void link_metrics_push(struct link *l)
{
	l->metrics.push = true;
	link_feed(l);
}

void link_metrics_forget(struct link *l)
{
	l->metrics.dirty = l->metrics.address[0] != '\0';
	l->metrics.wanted = false;
}

void link_metrics_deinit(struct link *l)
{
	buf_deinit(&l->metrics.text);
}

int link_on_metrics_wanted(struct link *l, const char **why)
{
	*why = "";
	/* One that was asked before it was told to stop may come after. */
	if (!l->metrics.address[0])
		return 0;
	l->metrics.wanted = true;
	return 0;
}

static int send_bytes(struct link *l, bool otlp, const struct buf *bytes)
{
	struct message_metrics m = {
		.header = protocol_header(MESSAGE_METRICS, sizeof(m)), .otlp = otlp};
	_cleanup_close_ int fd = io_sealed_memfd("odi-metrics", bytes->data, bytes->len);

	return fd < 0 ? fd : fdpass_send(l->child.sock, &m, sizeof(m), &fd, 1);
}

static int send_listen(struct link *l)
{
	struct message_listen m = {.header = protocol_header(MESSAGE_LISTEN, sizeof(m))};
	int r;

	memcpy(m.address, l->metrics.address, sizeof(m.address));
	r = fdpass_send(l->child.sock, &m, sizeof(m), NULL, 0);
	if (r == 0)
		l->metrics.dirty = false;
	return r;
}

static int send_text(struct link *l)
{
	uint64_t now = clock_monotonic_ns();
	int r = 0;

	if (!l->metrics.made_ns || now - l->metrics.made_ns > FRESH_NS) {
		buf_deinit(&l->metrics.text);
		buf_init(&l->metrics.text, PROTOCOL_METRICS_MAX);
		if (!l->metrics.make ||
			l->metrics.make(l->metrics.userdata, false, &l->metrics.text) < 0 ||
			buf_error(&l->metrics.text))
			buf_deinit(&l->metrics.text); /* an empty one says that there is none */
		l->metrics.made_ns = clock_monotonic_ns();
	}
	r = send_bytes(l, false, &l->metrics.text);
	if (r == 0)
		l->metrics.wanted = false;
	return r;
}

static int send_push(struct link *l)
{
	_cleanup_buf_ struct buf bytes;
	int r;

	buf_init(&bytes, PROTOCOL_METRICS_MAX);
	r = l->metrics.make ? l->metrics.make(l->metrics.userdata, true, &bytes) : -ENOSYS;
	if (r < 0 || buf_error(&bytes)) {
		l->metrics.push = false;
		return 0;
	}
	r = send_bytes(l, true, &bytes);
	if (r == 0)
		l->metrics.push = false;
	return r;
}

int link_feed_metrics(struct link *l)
{
	int r = 0;

	if (l->metrics.dirty)
		r = send_listen(l);
	if (r == 0 && l->metrics.wanted)
		r = send_text(l);
	if (r == 0 && l->metrics.push)
		r = send_push(l);
	return r;
}
