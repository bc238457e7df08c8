/* SPDX-License-Identifier: Apache-2.0 */

/* What agentd and the exporter say to each other, on agentd's side.
 *
 * What goes out is a function of state (the configuration that is dirty, batches not given, tests not sent), so a
 * full socket is no special case: what did not fit goes out when there is room. What comes in is checked as a whole
 * before anything of it is taken: kind, size, texts that end, states that there are; counts in link_ledger.c. One wrong
 * message is enough for link.c to replace the exporter. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/link_private.h"

/* ---- what goes out ------------------------------------------------------------------------------- */

static int send_config(struct link *l)
{
	struct message_config m = {
		.header = protocol_header(MESSAGE_CONFIG, sizeof(m)),
		.queue_bytes = l->config.max_unheld_bytes,
	};
	_cleanup_buf_ struct buf bytes;
	_cleanup_close_ int fd = -1;
	int r = 0;

	buf_init(&bytes, PROTOCOL_CONFIG_MAX);
	for (size_t i = 0; i < l->n_dests && r == 0; i++) {
		if (!l->dests[i]->enabled)
			continue;
		buf_add(&bytes, l->dests[i]->spec.data, l->dests[i]->spec.len);
		r = link_send_folder(l, &l->dests[i]->spec, 0);
	}
	/* Those of tests, too: what an exporter may write in is settled with its first configuration. */
	for (const struct link_test_run *t = l->tests; t && r == 0; t = t->next)
		r = link_send_folder(l, &t->spec, TRANSPORT_TEST | t->id);
	if (r < 0 || buf_error(&bytes))
		return r < 0 ? r : buf_error(&bytes);
	fd = io_sealed_memfd("odi-destinations", bytes.data, bytes.len);
	if (fd < 0)
		return fd;
	r = fdpass_send(l->child.sock, &m, sizeof(m), &fd, 1);
	if (r == 0)
		l->config_dirty = false;
	return r;
}

static int send_batch(struct link *l, struct link_batch *b)
{
	static union {
		struct message_batch batch;
		uint8_t bytes[FDPASS_MAX_MESSAGE];
	} m;
	size_t len;
	int r;

	m.batch = (struct message_batch){.id = b->id, .batch = b->header};
	for (size_t i = 0; i < b->n_routes; i++)
		if (!b->routes[i].final)
			m.batch.routes[m.batch.n_routes++] = (struct message_route){
				.destination = b->routes[i].destination,
				.row = b->routes[i].row,
				.counts = *ledger_route_counts(&b->routes[i]),
			};
	len = sizeof(m.batch) + m.batch.n_routes * sizeof(m.batch.routes[0]);
	m.batch.header = protocol_header(MESSAGE_BATCH, len);
	if (b->memfd < 0)
		b->memfd = io_sealed_memfd("odi-batch", b->bytes, b->size);
	if (b->memfd < 0)
		return b->memfd;
	r = fdpass_send(l->child.sock, &m, len, &b->memfd, 1);
	if (r < 0)
		return r;
	b->given = true;
	closep(&b->memfd);
	return 0;
}

/* Batches in order, a window ahead of what the exporter says it took in. */
static int send_batches(struct link *l)
{
	size_t ahead = 0;
	int r = 0;

	for (size_t i = 0; i < l->n_batches && ahead < PROTOCOL_WINDOW && r == 0; i++) {
		struct link_batch *b = l->batches[i];

		if (!b->given)
			r = send_batch(l, b);
		ahead += !b->held;
	}
	return r;
}

/* All that can go out now. */
void link_feed(struct link *l)
{
	bool full;
	int r = 0;

	if (!link_alive(l))
		return;
	/* Its first message brings the spool's folder; the rest of it goes by what was configured. */
	if (!l->spool_given)
		r = link_feed_spool(l);
	if (r == 0 && l->config_dirty)
		r = send_config(l);
	if (r == 0)
		r = link_feed_spool(l);
	for (struct link_test_run *t = l->tests; t && r == 0; t = t->next)
		if (!t->sent)
			r = link_send_test(l, t, clock_monotonic_ns());
	/* What the spool has comes before what is new. */
	if (r == 0 && (l->ready || l->unopened || !l->spool_wanted))
		r = send_batches(l);
	if (r == 0)
		r = link_feed_metrics(l);
	if (r == 0)
		r = link_feed_fetch(l);
	full = r == -EAGAIN;
	/* A closed socket is seen by reading; for want of memory or descriptors the timer tries again. */
	if (r < 0 && !full && r != -EPIPE)
		log_error("exporter: cannot hand over: %s", strerrordesc_np(-r));
	if (l->on_socket)
		(void)sd_event_source_set_io_events(l->on_socket, EPOLLIN | (full ? EPOLLOUT : 0));
}

/* ---- what comes in ------------------------------------------------------------------------------- */

static int on_status(struct link *l, const struct message_status *m, const char **why)
{
	struct link_dest *d = ledger_dest(l, m->destination);

	*why = "a destination that there is not";
	if (!m->destination || m->destination >= l->next_dest)
		return -EBADMSG;
	*why = "texts that do not end";
	if (!link_text_ends(m->state, sizeof(m->state)) ||
		!link_text_ends(m->endpoint, sizeof(m->endpoint)) ||
		!link_text_ends(m->last_error, sizeof(m->last_error)))
		return -EBADMSG;
	*why = "a state that there is not";
	if (!streq(m->state, "ok") && !streq(m->state, "failing") && !streq(m->state, "idle"))
		return -EBADMSG;
	if (!d)
		return 0; /* removed meanwhile */
	memcpy(d->row.state, m->state, sizeof(d->row.state));
	memcpy(d->row.endpoint, m->endpoint, sizeof(d->row.endpoint));
	memcpy(d->row.last_error, m->last_error, sizeof(d->row.last_error));
	text_clean(d->row.endpoint);
	text_clean(d->row.last_error);
	/* A new exporter has not succeeded yet; what the old one said stays true. */
	d->row.last_success_unix_ns = MAX(d->row.last_success_unix_ns, m->last_success_unix_ns);
	d->row.last_failure_unix_ns = MAX(d->row.last_failure_unix_ns, m->last_failure_unix_ns);
	d->row.requests = d->past_requests + m->requests;
	d->row.failures = d->past_failures + m->failures;
	if (d->past_bytes + m->sent_bytes > d->row.sent_bytes)
		rate_note(&d->rate, clock_monotonic_ns(), 0,
			d->past_bytes + m->sent_bytes - d->row.sent_bytes);
	d->row.sent_bytes = d->past_bytes + m->sent_bytes;
	latency_add(&d->row.latencies, &d->past_latencies, &m->latencies);
	return 0;
}

static int on_leaving(struct link *l, const struct message_leaving *m, const char **why)
{
	char text[sizeof(m->why)];

	*why = "texts that do not end";
	if (!link_text_ends(m->why, sizeof(m->why)))
		return -EBADMSG;
	memcpy(text, m->why, sizeof(text));
	text_clean(text);
	if (!l->leaving)
		log_info("exporter: another one takes over: %s", text);
	l->leaving = true;
	return 0;
}

static int on_message(struct link *l, const void *m, size_t len, const char **why)
{
	if (protocol_check(m, len, MESSAGE_ANSWER, sizeof(struct message_answer)) == 0)
		return ledger_answer(l, m, why);
	if (protocol_check(m, len, MESSAGE_HELD, sizeof(struct message_held)) == 0)
		return ledger_held(l, m, why);
	if (protocol_check(m, len, MESSAGE_STATUS, sizeof(struct message_status)) == 0)
		return on_status(l, m, why);
	if (protocol_check(m, len, MESSAGE_TEST_RESULT, sizeof(struct message_test_result)) == 0)
		return link_on_test_result(l, m, why);
	if (protocol_check(m, len, MESSAGE_LISTENING, sizeof(struct message_listening)) == 0)
		return link_on_listening(l, m, why);
	if (protocol_check(m, len, MESSAGE_METRICS_WANTED, sizeof(struct message_metrics)) == 0)
		return link_on_metrics_wanted(l, why);
	if (protocol_check(m, len, MESSAGE_FETCH_DONE, sizeof(struct message_fetch_done)) == 0)
		return link_on_fetch_done(l, m, why);
	if (protocol_check(m, len, MESSAGE_TOTALS, sizeof(struct message_totals)) == 0)
		return link_on_totals(l, m, why);
	if (protocol_check(m, len, MESSAGE_RECOVERED, 0) == 0 &&
		len >= sizeof(struct message_recovered))
		return link_on_recovered(l, m, len, why);
	if (protocol_check(m, len, MESSAGE_READY, sizeof(struct message_ready)) == 0)
		return link_on_ready(l, m, why);
	if (protocol_check(m, len, MESSAGE_SPOOL_STATE, sizeof(struct message_spool_state)) == 0)
		return link_on_spool_state(l, m, why);
	if (protocol_check(m, len, MESSAGE_SPOOL_DROPPED, sizeof(struct message_spool_dropped)) ==
		0)
		return link_on_spool_dropped(l, m, why);
	if (protocol_check(m, len, MESSAGE_LEAVING, sizeof(struct message_leaving)) == 0)
		return on_leaving(l, m, why);
	if (protocol_check(m, len, MESSAGE_PONG, sizeof(struct message_ping)) == 0) {
		*why = "a pong without its ping";
		if (!l->ping_sent_ns || ((const struct message_ping *)m)->nonce != l->nonce)
			return -EBADMSG;
		l->ping_sent_ns = 0;
		return 0;
	}
	*why = "no message that there is";
	return -EBADMSG;
}

/* Up to max messages. How many; 0: none is there; -EPIPE: it is gone; -EBADMSG: it lies, *why. */
int link_read(struct link *l, size_t max, const char **why)
{
	static union {
		struct message_header header;
		uint64_t align;
		uint8_t bytes[FDPASS_MAX_MESSAGE];
	} m;
	int n = 0;

	while ((size_t)n < max && link_alive(l)) {
		ssize_t len = fdpass_recv(l->child.sock, m.bytes, sizeof(m), NULL, NULL);
		int r;

		if (len == -EAGAIN)
			return n;
		if (len == -EMSGSIZE) {
			*why = "a message that is too long";
			return -EBADMSG;
		}
		if (len <= 0)
			return -EPIPE;
		r = on_message(l, m.bytes, (size_t)len, why);
		if (r < 0)
			return r;
		n++;
	}
	return n;
}
