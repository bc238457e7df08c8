/* SPDX-License-Identifier: Apache-2.0 */

/* The whole way of a batch: link -> exporter (a real, sandboxed child: this program again) -> HTTP -> a receiver that
 * counts. Each batch has a service of its own, so what is lost or doubled shows by name. Waits are bounds for a test
 * that went wrong, not measures. */

#include "tests/unit/destinations/receiver.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "destinations/destination.h"
#include "destinations/link.h"
#include "destinations/protocol.h"
#include "destinations/spool.h"

#define WAIT_MS 180000
/* Where no exporter is to be taken for one that hangs, however long it waits for a CPU. */
#define HANG_MS 30000

static char test_folder[64]; /* for all that tests need files for */

struct world {
	sd_event *loop;
	struct link *link;
	struct receiver receivers[3];
	unsigned serial;
	uint64_t sent; /* samples */
	struct config_destination list[8];
	struct option_value options[8][6];
	size_t n;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct link_config config = {.hang_ms = HANG_MS};
	struct err_text err;

	assert_non_null(w);
	assert_true(sd_event_new(&w->loop) >= 0);
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(w->receivers); i++)
		w->receivers[i].pid = -1;
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	link_free(w->link);
	sd_event_unref(w->loop);
	for (size_t i = 0; i < ARRAY_SIZE(w->receivers); i++)
		receiver_free(&w->receivers[i]);
	free(w);
	return 0;
}

/* ---- what tests are made of ---- */

static struct config_destination *add(
	struct world *w, const char *name, const char *type, const char *url)
{
	struct config_destination *d = &w->list[w->n];

	*d = (struct config_destination){.name = (char *)(uintptr_t)name,
		.type = (char *)(uintptr_t)type,
		.enabled = true,
		.options = w->options[w->n],
		.n_options = 1};
	d->options[0] = (struct option_value){"url", url};
	w->n++;
	return d;
}

static void option(struct config_destination *d, const char *name, const char *value)
{
	d->options[d->n_options++] = (struct option_value){name, value};
}

static void configure(struct world *w)
{
	struct err_text err = {};

	if (link_configure(w->link, w->list, w->n, &err) < 0)
		fail_msg("%s", err.text);
}

static struct receiver *receive(struct world *w, size_t i)
{
	receiver_start(&w->receivers[i], 0);
	return &w->receivers[i];
}

static uint32_t text(struct batch *b, const char *s)
{
	int64_t at = batch_string(b, s);

	assert_true(at >= 0);
	return (uint32_t)at;
}

/* A stack of its own for each i, so that rows stay rows. */
static uint32_t stack(struct batch *b, unsigned i, size_t name_len)
{
	_cleanup_free_ char *name = calloc(1, name_len + 32);
	struct profile_function f = {0};
	struct profile_line line = {0};
	struct profile_location l = {.n_lines = 1, .frame_type = PROFILE_FRAME_NATIVE};
	uint32_t at;

	assert_non_null(name);
	snprintf(name, 32, "function_%u_", i);
	for (size_t k = strlen(name), n = k + name_len; k < n; k++)
		name[k] = (char)('a' + (k * 7 + i * 13 + k * k * i) % 26);
	f.name = f.system_name = text(b, name);
	line.function = (uint32_t)batch_function(b, &f);
	line.line = i + 1;
	l.address = 0x1000 + i;
	at = (uint32_t)batch_location(b, &l, &line);
	return (uint32_t)batch_stack(b, &at, 1);
}

struct content {
	unsigned rows, sources;
	size_t name_len;
	uint64_t age_ns;
};

/* The next batch, of the service "service-SERIAL". */
static struct batch_header make_content(struct world *w, const struct content *c, struct buf *bytes)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct batch_header header = {.serial = ++w->serial};
	uint64_t totals[PROFILE_TYPES];
	char service[32];

	assert_int_equal(batch_new(&b), 0);
	header.from_unix_ns = clock_unix_ns() - c->age_ns - NSEC_PER_SEC;
	header.to_unix_ns = header.from_unix_ns + NSEC_PER_SEC;
	snprintf(service, sizeof(service), "service-%u", w->serial);
	for (unsigned s = 0; s < MAX(c->sources, 1U); s++) {
		char source[32];
		struct profile_resource_attribute list[2] = {
			{text(b, "service.name"), text(b, service), false, 0}};
		struct profile_part *p = NULL;
		int64_t resource;

		snprintf(source, sizeof(source), "source-%u", s);
		if (c->sources)
			list[1] = (struct profile_resource_attribute){
				text(b, "odi.source"), text(b, source), false, 0};
		resource = batch_resource(b, list, c->sources ? 2 : 1);
		assert_true(resource > 0);
		for (unsigned i = 0; i < c->rows; i++) {
			uint32_t at = stack(b, i, c->name_len);

			assert_int_equal(batch_part(b, (uint32_t)resource, 0, NSEC_PER_SEC / 99,
						 header.from_unix_ns, NSEC_PER_SEC, &p),
				0);
			assert_int_equal(batch_add(b, p, at, (uint32_t[4]){0}, 1 + i % 3), 0);
		}
	}
	batch_totals(b, totals);
	header.samples[0] = totals[0];
	assert_int_equal(profile_encode(b, &header, NULL, 0, bytes), 0);
	return header;
}

/* It goes out; returns how many samples it has. */
static uint64_t send_made(
	struct world *w, const struct batch_header *header, const struct buf *bytes)
{
	int fd = io_sealed_memfd("test", bytes->data, bytes->len);

	assert_true(fd >= 0);
	assert_int_equal(link_send(w->link, header, fd), 0);
	w->sent += header->samples[0];
	return header->samples[0];
}

static uint64_t send_content(struct world *w, const struct content *c)
{
	_cleanup_buf_ struct buf bytes;
	struct batch_header header;

	buf_init(&bytes, 0);
	header = make_content(w, c, &bytes);
	return send_made(w, &header, &bytes);
}

static uint64_t send_batch(struct world *w)
{
	return send_content(w, &(struct content){.rows = 10, .sources = 2, .name_len = 8});
}

static const struct link_destination *row(struct world *w, const char *name)
{
	const struct link_destination *list;
	size_t n = link_destinations(w->link, &list);

	for (size_t i = 0; i < n; i++)
		if (streq(list[i].name, name))
			return &list[i];
	fail_msg("no row for %s", name);
	return NULL;
}

/* Closes at every moment, whatever the exporter does. */
static void assert_closes(struct world *w)
{
	const struct link_destination *list;
	size_t n = link_destinations(w->link, &list);

	for (size_t i = 0; i < n; i++)
		assert_int_equal(list[i].ledger[0].routed,
			list[i].ledger[0].delivered + list[i].ledger[0].held +
				list[i].ledger[0].evicted + list[i].ledger[0].rejected +
				list[i].ledger[0].shaped);
}

static void run_for(struct world *w, unsigned ms)
{
	uint64_t end = clock_monotonic_ns() + ms * NSEC_PER_MSEC;

	while (clock_monotonic_ns() < end)
		assert_true(sd_event_run(w->loop, 5000) >= 0);
	assert_closes(w);
}

#define RUN_UNTIL(w, condition)                                                                    \
	do {                                                                                       \
		uint64_t end_ = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC;                    \
		while (!(condition)) {                                                             \
			if (clock_monotonic_ns() > end_)                                           \
				fail_msg("never came: %s", #condition);                            \
			assert_true(sd_event_run((w)->loop, 20000) >= 0);                          \
			assert_closes(w);                                                          \
		}                                                                                  \
	} while (0)

static bool through(struct world *w, const char *name)
{
	return !row(w, name)->ledger[0].held;
}

static void assert_each_once(
	struct world *w, const struct receiver *r, unsigned from, uint64_t each)
{
	for (unsigned i = from; i <= w->serial; i++)
		if (r->shared->got[i] != each)
			fail_msg("service-%u arrived with %u samples of %llu", i, r->shared->got[i],
				(unsigned long long)each);
}

/* ---- delivery ---- */

static void test_delivers(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct config_destination *d = add(w, "p", "pyroscope", r->url);
	uint64_t each = 0;

	option(d, "tenant", "team-a");
	option(d, "headers/X-Extra", "yes indeed");
	configure(w);
	for (int i = 0; i < 5; i++)
		each = send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	assert_int_equal(r->shared->samples, w->sent);
	assert_each_once(w, r, 1, each);
	assert_int_equal(r->shared->connections, 1); /* kept alive */
	assert_int_equal(r->shared->own_attributes, 0);
	assert_int_equal(r->shared->broken, 0);
	assert_non_null(strstr(r->shared->head, "POST /v1development/profiles HTTP/1.1\r\n"));
	assert_non_null(strstr(r->shared->head, "\r\nContent-Type: application/x-protobuf\r\n"));
	assert_non_null(strstr(r->shared->head, "\r\nContent-Encoding: gzip\r\n"));
	assert_non_null(strstr(r->shared->head, "\r\nX-Scope-OrgID: team-a\r\n"));
	assert_non_null(strstr(r->shared->head, "\r\nX-Extra: yes indeed\r\n"));
	assert_non_null(strstr(r->shared->head, "\r\nUser-Agent: odi/" ODI_VERSION "\r\n"));
	assert_null(strstr(r->shared->head, "Expect"));
	RUN_UNTIL(w, streq(row(w, "p")->state, "ok") && row(w, "p")->requests == 5);
	assert_int_equal(row(w, "p")->sent_batches, 5);
	assert_int_equal(row(w, "p")->queued_batches, 0);
	assert_true(row(w, "p")->sent_bytes > 0);
	assert_int_equal(row(w, "p")->recent.batches, 5);
	assert_int_equal(row(w, "p")->recent.bytes, row(w, "p")->sent_bytes);
	assert_in_range(row(w, "p")->recent.span_ns, 1, 60 * NSEC_PER_SEC);
	assert_true(row(w, "p")->last_success_unix_ns > 0);
	assert_string_equal(row(w, "p")->last_error, "");
	assert_int_equal(link_restarts(w->link), 0);
}

static void test_two_destinations_one_fails(void **state)
{
	struct world *w = *state;
	struct receiver *good = receive(w, 0), *bad = receive(w, 1);
	struct config_destination *d;

	bad->shared->behaviour = ANSWER_NEVER;
	d = add(w, "good", "otlphttp", good->url);
	option(d, "compression", "none");
	add(w, "bad", "pyroscope", bad->url);
	configure(w);
	for (int i = 0; i < 20; i++)
		send_batch(w);
	RUN_UNTIL(w, through(w, "good"));
	assert_int_equal(row(w, "good")->ledger[0].delivered, w->sent);
	assert_null(strstr(good->shared->head, "Content-Encoding"));
	assert_int_equal(row(w, "bad")->ledger[0].held, w->sent);
	assert_int_equal(row(w, "bad")->queued_batches, 20);
}

static void test_splits(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint64_t n;

	add(w, "p", "pyroscope", r->url);
	configure(w);
	/* Too many rows for one profile, and too many bytes for one request. */
	n = send_content(w, &(struct content){.rows = 40000, .name_len = 4});
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(r->shared->got[1], n);
	assert_true(r->shared->taken >= 3);
	assert_true(r->shared->biggest_profile <= 16000);
	n = send_content(w, &(struct content){.rows = 3000, .sources = 3, .name_len = 3000});
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(r->shared->got[2], n);
	assert_true(r->shared->biggest <= 2000000);
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
}

/* ---- failures ---- */

struct failure {
	enum behaviour behaviour;
	int status;
	bool again;         /* held and tried again; else rejected, or delivered for 200 */
	const char *reason; /* in last_error */
};

static void test_failures(void **state)
{
	static const struct failure failures[] = {
		{ANSWER_STATUS, 400, false, "answered 400"},
		{ANSWER_STATUS, 401, true, "wants credentials"},
		{ANSWER_STATUS, 403, true, "refuses these credentials"},
		{ANSWER_STATUS, 404, true, "is this a Pyroscope? Its port is 4040"},
		{ANSWER_STATUS, 413, true, "too big"},
		{ANSWER_STATUS, 415, true, "does not take protobuf"},
		{ANSWER_STATUS, 422, false, "refuses the profiles"},
		{ANSWER_STATUS, 501, true, "does not know profiles"},
		{ANSWER_HTML, 200, true, "with a web page"},
		{ANSWER_STATUS, 500, false, "failed while it took"},
		{ANSWER_STATUS, 429, true, "answered 429"},
		{ANSWER_STATUS, 502, true, "answered 502"},
		{ANSWER_STATUS, 503, true, "answered 503"},
		{ANSWER_STATUS, 504, true, "answered 504"},
		{ANSWER_REDIRECT, 200, true, "sends us elsewhere"},
		{ANSWER_RESET, 200, true, "closed the connection"},
		{ANSWER_NOT_HTTP, 200, true, "does not answer as an HTTP server"},
		{ANSWER_NEVER, 200, true, "did not answer within"},
		{ANSWER_DRIP, 200, true, "does not answer as an HTTP server"},
	};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct config_destination *d = add(w, "p", "pyroscope", r->url);

	option(d, "timeout", "20s");
	configure(w);
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		const struct failure *f = &failures[i];
		bool hangs = f->behaviour == ANSWER_NEVER || f->behaviour == ANSWER_DRIP;
		uint64_t rejected = row(w, "p")->ledger[0].rejected,
			 delivered = row(w, "p")->ledger[0].delivered, n;

		r->shared->behaviour = f->behaviour;
		r->shared->status = f->status;
		d->options[1].value = hangs ? "400ms" : "20s";
		configure(w);
		n = send_batch(w);
		RUN_UNTIL(w, strstr(row(w, "p")->last_error, f->reason));
		assert_string_equal(row(w, "p")->state, "failing");
		if (f->again)
			assert_int_equal(row(w, "p")->ledger[0].held, n);
		r->shared->behaviour = ANSWER_STATUS;
		r->shared->status = 200;
		/* Other options are another chance at once, also for what is blocked. */
		d->options[1].value = "21s";
		configure(w);
		RUN_UNTIL(w, through(w, "p"));
		assert_int_equal(row(w, "p")->ledger[0].rejected, rejected + (f->again ? 0 : n));
		assert_int_equal(row(w, "p")->ledger[0].delivered, delivered + (f->again ? n : 0));
	}
	assert_int_equal(r->shared->samples, row(w, "p")->ledger[0].delivered);
}

/* What has an answer of 200 was taken, and is never sent again. */
static void test_taken_with_a_strange_answer(void **state)
{
	static const struct failure answers[] = {
		{ANSWER_GARBAGE, 200, false, "not as a receiver of OTLP does"},
		{ANSWER_ENDLESS, 200, false, "with more than an answer can be"},
	};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);

	add(w, "p", "pyroscope", r->url);
	configure(w);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		r->shared->behaviour = (int)answers[i].behaviour;
		send_batch(w);
		RUN_UNTIL(w, through(w, "p"));
		RUN_UNTIL(w, strstr(row(w, "p")->last_error, answers[i].reason));
		assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	}
	run_for(w, 300);
	assert_int_equal(r->shared->samples, w->sent);
	assert_int_equal(r->shared->requests, ARRAY_SIZE(answers));
}

/* What is too big for a backend goes in pieces; what is too big alone is rejected alone; the next ones fit at once. */
static void test_too_big_for_it(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint64_t n;
	unsigned refused;

	add(w, "p", "otlphttp", r->url);
	configure(w);
	r->shared->max_body = 20000;
	n = send_content(w, &(struct content){.rows = 60, .name_len = 3000});
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].delivered, n);
	assert_int_equal(r->shared->got[1], n);
	assert_true(r->shared->biggest <= 20000);
	refused = r->shared->requests - r->shared->taken;
	assert_true(refused > 0);
	n = send_content(w, &(struct content){.rows = 60, .name_len = 3000});
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(r->shared->requests - r->shared->taken, refused);
	assert_int_equal(r->shared->got[2], n);
	r->shared->max_body = 2000;
	n = send_content(w, &(struct content){.rows = 4, .name_len = 3000});
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].rejected, n);
	RUN_UNTIL(w, strstr(row(w, "p")->last_error, "answered 413"));
}

/* After an outage what is new comes first, then what waited: the newest or the oldest first. */
static void test_drains(void **state)
{
	struct world *w = *state;
	struct receiver *r[2] = {receive(w, 0), receive(w, 1)};
	struct config_destination *d[2] = {
		add(w, "newest", "otlphttp", r[0]->url), add(w, "oldest", "otlphttp", r[1]->url)};

	option(d[1], "drain", "oldest");
	for (size_t i = 0; i < 2; i++) {
		option(d[i], "drain-rate", "0");
		r[i]->shared->status = 503;
		r[i]->shared->delay_ms = 2000; /* until all four are there */
	}
	configure(w);
	for (int i = 0; i < 4; i++)
		send_batch(w);
	RUN_UNTIL(w, row(w, "newest")->failures && row(w, "oldest")->failures);
	for (size_t i = 0; i < 2; i++)
		atomic_store(&r[i]->shared->delay_ms, 0), atomic_store(&r[i]->shared->status, 200);
	RUN_UNTIL(w, through(w, "newest") && through(w, "oldest"));
	/* The last one, 4, was the live one, of both. */
	for (unsigned i = 1; i <= 4; i++) {
		static const unsigned want[2][4] = {{4, 3, 2, 1}, {4, 1, 2, 3}};

		for (size_t k = 0; k < 2; k++)
			assert_int_equal(r[k]->shared->order[i - 1], want[k][i - 1]);
	}
}

static void test_partial_success(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint64_t n;

	add(w, "p", "pyroscope", r->url);
	configure(w);
	r->shared->behaviour = ANSWER_PARTIAL;
	r->shared->number = 1; /* the only profile: the sources are made one */
	n = send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].rejected, n);
	RUN_UNTIL(w, strstr(row(w, "p")->last_error, "rejected 1 of its profiles: no"));
	run_for(w, 300);
	assert_int_equal(r->shared->requests, 1); /* never again */
}

/* Several profiles, one of them rejected, and nobody says which: the least that it can be is counted. */
static void test_partial_success_of_several(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes;
	struct batch_header header = {.serial = 1};

	assert_int_equal(batch_new(&b), 0);
	header.from_unix_ns = clock_unix_ns();
	for (unsigned i = 0; i < 3; i++) {
		char service[16];
		struct profile_resource_attribute a = {text(b, "service.name"), 0, false, 0};
		struct profile_part *p = NULL;
		uint32_t at = stack(b, i, 4);

		snprintf(service, sizeof(service), "service-%u", i);
		a.value = text(b, service);
		assert_int_equal(batch_part(b, (uint32_t)batch_resource(b, &a, 1), 0, 1000,
					 header.from_unix_ns, 1000, &p),
			0);
		assert_int_equal(batch_add(b, p, at, (uint32_t[4]){0}, 10 + i), 0);
	}
	header.samples[0] = 33;
	buf_init(&bytes, 0);
	assert_int_equal(profile_encode(b, &header, NULL, 0, &bytes), 0);
	r->shared->behaviour = ANSWER_PARTIAL;
	r->shared->number = 1;
	add(w, "p", "pyroscope", r->url);
	configure(w);
	assert_int_equal(
		link_send(w->link, &header, io_sealed_memfd("t", bytes.data, bytes.len)), 0);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].rejected, 10);
	assert_int_equal(row(w, "p")->ledger[0].delivered, 23);
	RUN_UNTIL(w, strstr(row(w, "p")->last_error, "of 3 profiles; it does not say which"));
}

static void test_retry_after(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint64_t start;

	add(w, "p", "pyroscope", r->url);
	configure(w);
	r->shared->retry_after = 2;
	r->shared->fail_next = 1;
	start = clock_monotonic_ns();
	send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	/* Not sooner than it was asked for. */
	assert_true(clock_monotonic_ns() - start >= 2 * NSEC_PER_SEC);
	assert_int_equal(r->shared->requests, 2);
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
}

static void test_refused_then_up(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint16_t port = r->port;
	uint64_t each = 0;

	receiver_stop(r);
	add(w, "p", "pyroscope", r->url);
	configure(w);
	for (int i = 0; i < 8; i++)
		each = send_batch(w);
	RUN_UNTIL(w, strstr(row(w, "p")->last_error, "connection refused"));
	assert_int_equal(row(w, "p")->ledger[0].held, w->sent);
	receiver_start(r, port);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	assert_each_once(w, r, 1, each);
}

static void test_too_old(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint64_t old;

	add(w, "p", "pyroscope", r->url);
	option(add(w, "o", "otlphttp", r->url), "drain-rate", "0");
	configure(w);
	old = send_content(w, &(struct content){.rows = 3, .age_ns = 2 * 3600 * NSEC_PER_SEC});
	RUN_UNTIL(w, through(w, "p") && through(w, "o"));
	assert_int_equal(row(w, "p")->ledger[0].evicted, old);
	assert_int_equal(row(w, "o")->ledger[0].delivered, old);
}

static void test_queue_is_bounded(void **state)
{
	struct link_config config = {.hang_ms = HANG_MS, .max_unheld_bytes = 64 << 10};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint16_t port = r->port;
	struct err_text err;

	link_free(w->link);
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	receiver_stop(r);
	add(w, "p", "pyroscope", r->url);
	configure(w);
	for (int i = 0; i < 60; i++) {
		send_content(w, &(struct content){.rows = 40, .name_len = 100});
		run_for(w, 5);
	}
	RUN_UNTIL(w, row(w, "p")->queued_bytes <= (64 << 10));
	assert_true(row(w, "p")->ledger[0].evicted > 0);
	receiver_start(r, port);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(r->shared->samples, row(w, "p")->ledger[0].delivered);
	assert_true(r->shared->got[w->serial] > 0); /* the newest are kept */
	assert_int_equal(r->shared->got[1], 0);
}

/* ---- configuration ---- */

static void test_disable_evicts(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);

	r->shared->status = 503;
	add(w, "p", "pyroscope", r->url);
	configure(w);
	for (int i = 0; i < 4; i++)
		send_batch(w);
	RUN_UNTIL(w, row(w, "p")->failures > 0);
	w->list[0].enabled = false;
	configure(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].evicted, w->sent);
	send_batch(w); /* nobody wants it */
	assert_int_equal(row(w, "p")->ledger[0].routed, row(w, "p")->ledger[0].evicted);
	w->list[0].enabled = true;
	r->shared->status = 200;
	configure(w);
	send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_true(row(w, "p")->ledger[0].delivered > 0);
	assert_int_equal(row(w, "p")->ledger[0].delivered, r->shared->samples);
}

static void test_options_keep_the_queue(void **state)
{
	struct world *w = *state;
	struct receiver *down = receive(w, 0), *up = receive(w, 1);
	uint64_t each = 0;

	receiver_stop(down);
	add(w, "p", "pyroscope", down->url);
	configure(w);
	for (int i = 0; i < 5; i++)
		each = send_batch(w);
	RUN_UNTIL(w, row(w, "p")->failures > 0);
	w->options[0][0].value = up->url;
	configure(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	assert_each_once(w, up, 1, each);
}

static void test_changes_leave_others_alone(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0), *other = receive(w, 1);
	uint64_t each = 0;
	char tenant[32];

	r->shared->delay_ms = 5;
	add(w, "stays", "pyroscope", r->url);
	option(add(w, "changes", "pyroscope", other->url), "tenant", tenant);
	for (int i = 0; i < 100; i++) {
		snprintf(tenant, sizeof(tenant), "t%d", i);
		w->n = i % 7 == 3 ? 1 : 2;
		w->list[1].enabled = i % 5 != 4;
		configure(w);
		each = send_batch(w);
		run_for(w, (unsigned)(i % 4) * 4);
	}
	w->n = 2;
	configure(w);
	RUN_UNTIL(w, through(w, "stays") && through(w, "changes"));
	assert_int_equal(row(w, "stays")->ledger[0].delivered, w->sent);
	assert_each_once(w, r, 1, each);
	assert_int_equal(link_restarts(w->link), 0);
}

/* ---- the exporter dies, hangs, lies ---- */

static void test_killed(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	unsigned kills = 0;
	pid_t last = -1;
	uint64_t each = 0, seed = clock_monotonic_ns() | 1, doubled = 0;

	print_message("seed %llu\n", (unsigned long long)seed);
	r->shared->delay_ms = 3;
	add(w, "p", "pyroscope", r->url);
	configure(w);
	while (kills < 30) {
		for (int i = 0; i < 4; i++)
			each = send_batch(w);
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		run_for(w, (unsigned)(seed % 150));
		if (link_child_pid(w->link) > 0 && link_child_pid(w->link) != last) {
			last = link_child_pid(w->link);
			kill(last, SIGKILL);
			kills++;
		}
	}
	RUN_UNTIL(w, through(w, "p") && link_restarts(w->link) >= kills);
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	assert_int_equal(row(w, "p")->ledger[0].evicted + row(w, "p")->ledger[0].rejected, 0);
	/* Nothing lost; doubled at most the request whose answer died, once a kill. */
	for (unsigned i = 1; i <= w->serial; i++) {
		assert_true(r->shared->got[i] >= each);
		assert_int_equal(r->shared->got[i] % each, 0);
		doubled += r->shared->got[i] / each - 1;
	}
	assert_true(doubled <= kills);
}

/* Killed between the requests of one batch: goes on where it was. */
static void test_killed_amid_a_batch(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	uint64_t n;

	r->shared->hold_after = 4;
	add(w, "p", "pyroscope", r->url);
	configure(w);
	n = send_content(w, &(struct content){.rows = 3000, .name_len = 4000});
	RUN_UNTIL(w, row(w, "p")->ledger[0].delivered > 0 && r->shared->requests > 4);
	assert_true(row(w, "p")->ledger[0].delivered < n);
	kill(link_child_pid(w->link), SIGKILL);
	r->shared->hold_after = 0;
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].delivered, n);
	assert_true(r->shared->got[1] >= n);
	assert_true(r->shared->got[1] < n + n / 3); /* one request of at least six */
	assert_int_equal(link_restarts(w->link), 1);
}

#define INSTANCE 77

static int get_instance(void *userdata, const char *key, uint64_t *value)
{
	*value = streq(key, "exporter/instance") ? INSTANCE : 1;
	return 0;
}

static int set_nothing(void *userdata, const struct link_value *list, size_t n)
{
	return 0;
}

/* What an exporter wrote and did not come to tell of. */
static void leave_in_spool(
	const char *folder, const struct batch_header *header, const struct buf *bytes)
{
	const struct spool_config config = {.instance = INSTANCE};
	_cleanup_close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct spool *s = NULL;
	struct spool_batch *b = NULL;
	struct err_text err = {};
	char command[256];

	assert_int_equal(spool_open(&s, fd, &config, &err), 0);
	assert_int_equal(
		spool_append(s, header, bytes->data, bytes->len, (uint32_t[]){1}, 1, &b), 0);
	assert_int_equal(spool_commit(s), 0);
	spool_close(s);
	/* Its lock is in the way of the one that comes. */
	snprintf(command, sizeof(command), "cd %s && rm lock && mkdir lock && chown -R %u . ",
		folder, geteuid() == 0 ? LINK_EXPORTER_UID : geteuid());
	assert_int_equal(system(command), 0);
}

/* A spool that can be opened only after its batch was handed over once more: that goes out once all the same. */
static void test_spool_opens_late(void **state)
{
	static const struct link_store store = {get_instance, set_nothing};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct config_destination *d = add(w, "p", "pyroscope", "http://127.0.0.1:9");
	_cleanup_buf_ struct buf bytes;
	struct link_config config = {.hang_ms = HANG_MS, .store = &store};
	struct batch_header header;
	struct link_spool s = {};
	struct err_text err = {};
	char folder[96], lock[128];
	uint64_t samples;

	buf_init(&bytes, 0);
	snprintf(folder, sizeof(folder), "%s/spool", test_folder);
	snprintf(lock, sizeof(lock), "%s/lock", folder);
	assert_int_equal(mkdir(folder, 0700), 0);
	header = make_content(w, &(struct content){.rows = 10, .name_len = 8}, &bytes);
	leave_in_spool(folder, &header, &bytes);
	link_free(w->link);
	config.spool_folder = folder;
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	configure(w);
	samples = send_made(w, &header, &bytes);
	RUN_UNTIL(w, (link_spool(w->link, &s), s.known && !s.on && s.memory_batches == 1));
	assert_int_equal(rmdir(lock), 0);
	RUN_UNTIL(w, (link_spool(w->link, &s), s.on && !s.memory_batches));
	d->options[0].value = r->url;
	configure(w);
	RUN_UNTIL(w, through(w, "p"));
	RUN_UNTIL(w, (link_spool(w->link, &s), !s.batches));
	assert_each_once(w, r, 1, samples);
	assert_int_equal(row(w, "p")->ledger[0].delivered, samples);
	assert_int_equal(link_restarts(w->link), 0);
}

static void test_hangs(void **state)
{
	/* Longer than one takes to start where it waits for a CPU. */
	struct link_config config = {.hang_ms = 4000};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct err_text err;

	link_free(w->link);
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	add(w, "p", "pyroscope", r->url);
	configure(w);
	send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	kill(link_child_pid(w->link), SIGSTOP);
	send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_true(link_restarts(w->link) >= 1);
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	/* One that only waits for a CPU may be taken for one that hangs, too: once more for each. */
	assert_true(r->shared->samples >= w->sent);
	assert_true(r->shared->samples <= w->sent * (1 + link_restarts(w->link)));
}

/* A copy of this program under another name is a role that lies. */
static void be_liar(struct world *w, const char *how)
{
	static char path[128];
	char self[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	_cleanup_buf_ struct buf bytes;
	_cleanup_close_ int fd = -1;

	assert_true(n > 0);
	self[n] = 0;
	snprintf(path, sizeof(path), "%s/liar-%s", test_folder, how);
	buf_init(&bytes, 0);
	assert_int_equal(io_read_file(IO_NO_FD, self, &bytes, 256 << 20), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, bytes.data, bytes.len), 0);
	sandbox_set_program(path);
}

static void test_lies(void **state)
{
	static const char *const lies[] = {"invent", "double", "more", "final", "garbage", "long",
		"status", "held", "pong", "batch", "less"};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);

	add(w, "p", "pyroscope", r->url);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		uint32_t before = link_restarts(w->link);

		be_liar(w, lies[i]);
		if (link_child_pid(w->link) > 0)
			kill(link_child_pid(w->link), SIGKILL);
		configure(w);
		send_batch(w);
		if (streq(lies[i], "double"))
			RUN_UNTIL(w, link_restarts(w->link) > before + (i > 0));
		else
			RUN_UNTIL(w, link_restarts(w->link) >= before + 2);
		/* "double" tells the truth first: that may stand. Nothing else may. */
		if (!streq(lies[i], "double") && !streq(lies[i], "less"))
			assert_int_equal(row(w, "p")->ledger[0].held, w->sent);
		sandbox_set_program("/proc/self/exe");
		if (link_child_pid(w->link) > 0)
			kill(link_child_pid(w->link), SIGKILL);
		RUN_UNTIL(w, through(w, "p"));
		w->sent = 0;
		/* "less" left counts that fit no row: that batch is given up, and nothing else. */
		assert_int_equal(row(w, "p")->ledger[0].routed,
			row(w, "p")->ledger[0].delivered + row(w, "p")->ledger[0].rejected);
		assert_int_equal(row(w, "p")->ledger[0].rejected, streq(lies[i], "less") ? 33 : 0);
	}
}

/* The liar: answers the first batch with what cannot be. */
static int liar_main(const char *how)
{
	static union {
		struct message_batch batch;
		uint8_t bytes[FDPASS_MAX_MESSAGE];
	} m;
	struct message_answer a = {
		.header = protocol_header(MESSAGE_ANSWER, sizeof(a)), .final = 1};
	struct message_held held = {.header = protocol_header(MESSAGE_HELD, sizeof(held))};
	struct message_status status = {.header = protocol_header(MESSAGE_STATUS, sizeof(status)),
		.destination = 1,
		.state = "glorious"};
	struct message_ping pong = {.header = protocol_header(MESSAGE_PONG, sizeof(pong))};

	for (;;) {
		_cleanup_close_ int fd = -1;
		size_t n_fds = 1;
		ssize_t len = fdpass_recv(SANDBOX_FD, m.bytes, sizeof(m), &fd, &n_fds);

		if (len <= 0)
			return 0;
		if (protocol_check(m.bytes, (size_t)len, MESSAGE_BATCH, 0) == 0)
			break;
	}
	held.id = a.id = m.batch.id;
	a.destination = m.batch.routes[0].destination;
	a.counts = m.batch.routes[0].counts;
	a.counts.samples[FATE_DELIVERED][0] = m.batch.batch.samples[0];
	if (streq(how, "invent"))
		a.destination = 77;
	if (streq(how, "batch"))
		a.id += 1000;
	if (streq(how, "more"))
		a.counts.samples[FATE_DELIVERED][0]++;
	if (streq(how, "final"))
		a.counts.samples[FATE_DELIVERED][0]--;
	if (streq(how, "less")) {
		a.final = 0;
		a.counts.samples[FATE_DELIVERED][0] = 5;
		fdpass_send(SANDBOX_FD, &a, sizeof(a), NULL, 0);
		a.counts.samples[FATE_DELIVERED][0] = 4;
	}
	if (streq(how, "garbage"))
		fdpass_send(SANDBOX_FD, "garbage", 7, NULL, 0);
	else if (streq(how, "long"))
		fdpass_send(SANDBOX_FD, m.bytes, 60000, NULL, 0);
	else if (streq(how, "status"))
		fdpass_send(SANDBOX_FD, &status, sizeof(status), NULL, 0);
	else if (streq(how, "pong"))
		for (int i = 0; i < 2; i++)
			fdpass_send(SANDBOX_FD, &pong, sizeof(pong), NULL, 0);
	else if (streq(how, "held"))
		for (int i = 0; i < 2; i++)
			fdpass_send(SANDBOX_FD, &held, sizeof(held), NULL, 0);
	else
		for (int i = 0; i < 2; i++)
			fdpass_send(SANDBOX_FD, &a, sizeof(a), NULL, 0);
	pause();
	return 0;
}

/* ---- destination test, names, TLS ---- */

struct tested {
	unsigned n;
	struct link_test_result result;
};

static void on_tested(void *userdata, const struct link_test_result *result)
{
	struct tested *t = userdata;

	t->n++;
	t->result = *result;
}

static const struct link_test_result *test_within(
	struct world *w, const struct config_destination *d, unsigned ms)
{
	static struct tested t;

	t = (struct tested){0};
	assert_int_equal(link_test(w->link, d, ms, on_tested, &t), 0);
	RUN_UNTIL(w, t.n);
	run_for(w, 50);
	assert_int_equal(t.n, 1);
	return &t.result;
}

static const struct link_test_result *test_one(struct world *w, const struct config_destination *d)
{
	return test_within(w, d, 20000);
}

static void test_destination_test(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct config_destination *d = add(w, "p", "pyroscope", r->url);
	char url[96];
	const struct link_test_result *t = test_one(w, d);

	if (!t->ok)
		fail_msg("%s; %s", t->reason, t->remedy);
	assert_int_equal(t->http_status, 200);
	assert_true(t->duration_ns > 0);
	assert_non_null(strstr(t->endpoint, "/v1development/profiles"));
	assert_int_equal(r->shared->broken, 0);
	assert_int_equal(r->shared->taken, 1);
	assert_int_equal(r->shared->samples, 0);

	r->shared->status = 404;
	t = test_one(w, d);
	assert_false(t->ok);
	assert_non_null(strstr(t->remedy, "is this a Pyroscope?"));
	r->shared->status = 401;
	t = test_one(w, d);
	assert_non_null(strstr(t->reason, "wants credentials"));
	r->shared->status = 415;
	t = test_one(w, d);
	assert_non_null(strstr(t->reason, "415"));
	r->shared->behaviour = ANSWER_HTML;
	assert_false(test_one(w, d)->ok);
	r->shared->behaviour = ANSWER_NEVER;
	t = test_within(w, d, 3000);
	/* The time that is left of three seconds: some passes before it is asked. */
	if (!strstr(t->reason, "did not answer within 2") &&
		!strstr(t->reason, "did not answer within 1"))
		fail_msg("%s", t->reason);
	/* A port that speaks no TLS. */
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", r->port);
	d->options[0].value = url;
	r->shared->behaviour = ANSWER_STATUS;
	t = test_one(w, d);
	assert_non_null(strstr(t->remedy, "use http:// instead of https://"));
	receiver_stop(r);
	d->options[0].value = r->url;
	t = test_one(w, d);
	assert_non_null(strstr(t->reason, "connection refused"));
	d->options[0].value = "http://no-such-host.invalid:4040";
	t = test_one(w, d);
	assert_false(t->ok);
	assert_non_null(strstr(t->reason, "no-such-host.invalid"));
}

/* A name goes through the resolver's thread and libc's files, all of it inside the sandbox. */
static void test_resolves_names(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	char url[64];

	snprintf(url, sizeof(url), "http://localhost:%u", r->port);
	add(w, "p", "pyroscope", url);
	configure(w);
	send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	assert_int_equal(link_restarts(w->link), 0);
}

/* A certificate that nobody vouches for: openssl's own server, with one made here. */
static void test_tls_is_verified(void **state)
{
	struct world *w = *state;
	struct config_destination *d;
	const struct link_test_result *t;
	char command[512], url[64];
	uint16_t port = 0;
	pid_t server;

	snprintf(command, sizeof(command),
		"openssl req -x509 -newkey rsa:2048 -nodes -keyout %s/key -out %s/cert -days 2 "
		"-subj /CN=localhost 2>/dev/null",
		test_folder, test_folder);
	assert_int_equal(system(command), 0);
	close(receiver_listen(&port)); /* a free one */
	snprintf(url, sizeof(url), "https://localhost:%u", port);
	snprintf(command, sizeof(command),
		"exec openssl s_server -accept %u -cert %s/cert -key %s/key -www -quiet "
		">/dev/null 2>&1",
		port, test_folder, test_folder);
	server = fork();
	assert_true(server >= 0);
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	d = add(w, "p", "pyroscope", url);
	do
		t = test_within(
			w, d, 20000); /* until it listens; reading all authorities takes time */
	while (strstr(t->reason, "refused"));
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	assert_false(t->ok);
	if (!strstr(t->reason, "was not accepted") || !strstr(t->remedy, "that this host trusts"))
		fail_msg("%s; %s", t->reason, t->remedy);
	assert_int_equal(link_restarts(w->link), 0);
}

/* What the exporter is while it works: nobody, without capabilities, filtered. */
static void test_is_sandboxed(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	_cleanup_buf_ struct buf status;
	char path[64];

	add(w, "p", "pyroscope", r->url);
	configure(w);
	send_batch(w);
	RUN_UNTIL(w, through(w, "p"));
	snprintf(path, sizeof(path), "/proc/%d/status", link_child_pid(w->link));
	buf_init(&status, 1 << 16);
	assert_int_equal(io_read_file(IO_NO_FD, path, &status, 1 << 16), 0);
	assert_non_null(strstr((char *)status.data, "\nSeccomp:\t2\n"));
	assert_non_null(strstr((char *)status.data, "\nNoNewPrivs:\t1\n"));
	assert_non_null(strstr((char *)status.data, "\nCapPrm:\t0000000000000000\n"));
	if (geteuid() == 0)
		assert_non_null(
			strstr((char *)status.data, "\nUid:\t65534\t65534\t65534\t65534\n"));
}

/* The query of a URL and headers may be secret: no text has them. */
static void test_secrets_stay_secret(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct config_destination *d;
	char url[128];

	r->shared->status = 503;
	snprintf(url, sizeof(url), "%s/path?token=hunter2", r->url);
	d = add(w, "p", "otlphttp", url);
	option(d, "headers/Authorization", "Bearer hunter2");
	configure(w);
	send_batch(w);
	RUN_UNTIL(w, row(w, "p")->failures > 0);
	assert_non_null(strstr(r->shared->head, "POST /path?token=hunter2"));
	assert_non_null(strstr(r->shared->head, "Authorization: Bearer hunter2"));
	assert_null(strstr(row(w, "p")->endpoint, "hunter2"));
	assert_null(strstr(row(w, "p")->last_error, "hunter2"));
	assert_non_null(strstr(row(w, "p")->endpoint, "/path"));
}

/* ---- the stop ---- */

static void test_flush(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);

	r->shared->delay_ms = 20;
	add(w, "p", "pyroscope", r->url);
	configure(w);
	for (int i = 0; i < 10; i++)
		send_batch(w);
	/* As at a stop: the loop has ended. */
	assert_true(sd_event_exit(w->loop, 0) >= 0);
	assert_true(sd_event_loop(w->loop) >= 0);
	link_flush(w->link, WAIT_MS);
	assert_int_equal(row(w, "p")->ledger[0].delivered, w->sent);
	assert_int_equal(r->shared->samples, w->sent);
}

static int get_only_instance(void *userdata, const char *key, uint64_t *value)
{
	*value = INSTANCE;
	return streq(key, "exporter/instance") ? 0 : -ENOENT;
}

/* While nothing can be sent, what was handed over last is waited for until the disk has it. */
static void test_flush_to_disk(void **state)
{
	static const struct link_store store = {get_only_instance, set_nothing};
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct link_config config = {.hang_ms = HANG_MS, .store = &store};
	struct link_spool s = {};
	struct err_text err = {};
	char folder[96];

	r->shared->status = 503;
	snprintf(folder, sizeof(folder), "%s/landed", test_folder);
	config.spool_folder = folder;
	link_free(w->link);
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	add(w, "p", "pyroscope", r->url);
	configure(w);
	send_batch(w);
	RUN_UNTIL(w, (link_spool(w->link, &s), s.on && streq(row(w, "p")->state, "failing")));
	send_batch(w);
	assert_true(sd_event_exit(w->loop, 0) >= 0);
	assert_true(sd_event_loop(w->loop) >= 0);
	link_flush(w->link, 1);
	assert_int_equal(row(w, "p")->ledger[0].evicted, 0);
	assert_int_equal(row(w, "p")->ledger[0].held, w->sent);
}

static void test_refuses(void **state)
{
	struct world *w = *state;
	struct batch_header header = {.samples = {1}};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	add(w, "p", "pyroscope", "http://127.0.0.1:1");
	configure(w);
	assert_int_equal(link_send(w->link, &header, fd), -EPERM);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken all the same */
	fd = io_sealed_memfd("x", "", 0);
	header.samples[PROFILE_TYPES] = 1;
	assert_int_equal(link_send(w->link, &header, fd), -EINVAL);
	assert_int_equal(row(w, "p")->ledger[0].routed, 0);
}

/* Bytes that are no batch: rejected, said, and the exporter lives. */
static void test_not_a_batch(void **state)
{
	struct world *w = *state;
	struct receiver *r = receive(w, 0);
	struct batch_header header = {.samples = {7}};

	header.from_unix_ns = header.to_unix_ns = clock_unix_ns();
	add(w, "p", "pyroscope", r->url);
	configure(w);
	assert_int_equal(link_send(w->link, &header, io_sealed_memfd("x", "\xff\xff\xff", 3)), 0);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].rejected, 7);
	/* A batch whose header says more than is in it. */
	assert_int_equal(link_send(w->link, &header, io_sealed_memfd("x", "", 0)), 0);
	RUN_UNTIL(w, through(w, "p"));
	assert_int_equal(row(w, "p")->ledger[0].rejected, 14);
	assert_int_equal(link_restarts(w->link), 0);
	assert_int_equal(r->shared->requests, 0);
}

static int role(const char *name)
{
	char self[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *liar;

	sandbox_close_from(SANDBOX_FD + 1);
	log_init(name, LOG_LEVEL_INFO);
	self[MAX(n, 0)] = 0;
	liar = strstr(self, "/liar-");
	if (liar)
		return liar_main(liar + 6);
	return exporter_main() < 0 ? 1 : 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_delivers),
		TEST(test_two_destinations_one_fails),
		TEST(test_splits),
		TEST(test_failures),
		TEST(test_taken_with_a_strange_answer),
		TEST(test_too_big_for_it),
		TEST(test_drains),
		TEST(test_partial_success),
		TEST(test_partial_success_of_several),
		TEST(test_resolves_names),
		TEST(test_tls_is_verified),
		TEST(test_is_sandboxed),
		TEST(test_retry_after),
		TEST(test_refused_then_up),
		TEST(test_too_old),
		TEST(test_queue_is_bounded),
		TEST(test_disable_evicts),
		TEST(test_options_keep_the_queue),
		TEST(test_changes_leave_others_alone),
		TEST(test_killed),
		TEST(test_killed_amid_a_batch),
		TEST(test_spool_opens_late),
		TEST(test_hangs),
		TEST(test_lies),
		TEST(test_destination_test),
		TEST(test_secrets_stay_secret),
		TEST(test_flush),
		TEST(test_flush_to_disk),
		TEST(test_refuses),
		TEST(test_not_a_batch),
	};
	char command[96];
	int r;

	if (argc >= 3 && streq(argv[1], "--role"))
		return role(argv[2]);
	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	snprintf(test_folder, sizeof(test_folder), "/tmp/odi-link-test-XXXXXX");
	if (!mkdtemp(test_folder))
		return 1;
	r = cmocka_run_group_tests_name("destinations/link", tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", test_folder);
	return system(command) == 0 ? r : 1;
}
