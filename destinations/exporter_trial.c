/* SPDX-License-Identifier: Apache-2.0 */

/* Tests of a destination (`odictl destination test`): one small request over the real path, beside all that is delivered.
 *
 * A test has a sender of its own, so it fails of what its options say and not of what a delivery is at, and nothing of
 * it goes into the queues or the ledger. Each is answered once, with how far it came: when the sender is done, or at once
 * where nothing could be sent. agentd waits for a bounded time; the sender's own timeout is a little shorter, so that
 * the answer has a reason in it. A folder that came for a test is forgotten with it.
 *
 * Bounds: MAX_TESTS at a time; one more is refused. Runs in the exporter. */

#include "agentd/base/text.h"
#include "destinations/exporter_private.h"

#define MAX_TESTS 16

struct test {
	bool used;
	uint64_t id;
	const struct transport *transport;
	struct sender *sender;
	struct buf body;
};

static struct test tests[MAX_TESTS];

static void test_end(struct test *t, struct message_test_result *m)
{
	m->header = protocol_header(MESSAGE_TEST_RESULT, sizeof(*m));
	m->id = t->id;
	if (t->sender)
		snprintf(m->endpoint, sizeof(m->endpoint), "%s", t->transport->endpoint(t->sender));
	exporter_tell(m, sizeof(*m));
	if (t->sender)
		t->transport->close(t->sender);
	transport_set_folder(TRANSPORT_TEST | t->id, -1);
	buf_deinit(&t->body);
	*t = (struct test){0};
}

static void on_tested(void *userdata, const struct send_result *result)
{
	struct message_test_result m = {
		.ok = result->outcome == SEND_TAKEN && !result->rejected_profiles &&
			!*result->remedy,
		.http_status = result->http_status,
		.duration_ns = result->duration_ns,
	};

	memcpy(m.reason, result->reason, sizeof(m.reason));
	memcpy(m.remedy, result->remedy, sizeof(m.remedy));
	m.n_steps = (uint32_t)MIN(result->n_steps, (size_t)PROTOCOL_STEPS);
	for (size_t i = 0; i < m.n_steps; i++)
		m.steps[i] = result->steps[i];
	test_end(userdata, &m);
}

/* The options with a timeout of at most the test's deadline. The list is the caller's to free. */
static struct option_value *test_options(const struct destination_type *type,
	const struct destination_spec *spec, const char *timeout, size_t *n)
{
	struct option_value *list = calloc(spec->n_options + 1, sizeof(*list));
	uint64_t set = 0, wanted = 0;

	if (!list)
		return NULL;
	*n = 0;
	(void)text_duration(timeout, &wanted);
	(void)text_duration(
		destination_option(type, spec->options, spec->n_options, "timeout"), &set);
	for (size_t i = 0; i < spec->n_options; i++)
		if (!streq(spec->options[i].name, "timeout") || set <= wanted)
			list[(*n)++] = spec->options[i];
	if (set > wanted)
		list[(*n)++] = (struct option_value){"timeout", timeout};
	return list;
}

static int test_start(struct test *t, const struct destination_spec *spec, uint32_t deadline_ms,
	struct err_text *err)
{
	const struct destination_type *type =
		destination_adopt(spec->type, spec->options, spec->n_options, err);
	_cleanup_free_ struct option_value *options = NULL;
	struct sender_setup setup = {
		.name = spec->name, .type = type, .folder = TRANSPORT_TEST | t->id, .test = true};
	char timeout[32];
	int r;

	if (!type)
		return -EINVAL;
	t->transport = transport_find(type->transport);
	if (!t->transport)
		return err_set(err, -EINVAL, "there is no destination type %.80s", spec->type);
	/* A little before agentd stops waiting, so that there is a reason to give. */
	snprintf(timeout, sizeof(timeout), "%ums",
		deadline_ms > 1000 ? deadline_ms - 500 : MAX(deadline_ms / 2, 1U));
	options = test_options(type, spec, timeout, &setup.n_options);
	if (!options)
		return err_set(err, -ENOMEM, "out of memory");
	setup.options = options;
	r = t->transport->open(&t->sender, &setup, err);
	if (r < 0)
		return r;
	buf_init(&t->body, 1 << 20);
	r = transport_probe(t->transport, t->sender, &t->body);
	if (r == 0)
		r = t->transport->send(t->sender, t->body.data, t->body.len, on_tested, t);
	return r < 0 ? err_set(err, r, "the request could not be made: %s", strerrordesc_np(-r))
		     : 0;
}

int exporter_on_test(const struct message_test *m, int fd)
{
	_cleanup_buf_ struct buf bytes;
	struct destination_spec *specs = NULL;
	struct test none = {.id = m->id}, *t = &none;
	struct err_text err = {};
	size_t n = 0;
	int r;

	buf_init(&bytes, PROTOCOL_CONFIG_MAX + 1);
	r = exporter_read_memfd(fd, PROTOCOL_CONFIG_MAX, &bytes);
	if (r == 0)
		r = protocol_get_specs((const char *)bytes.data, bytes.len, &specs, &n);
	if (r == 0 && n != 1)
		r = -EBADMSG;
	for (size_t i = 0; i < MAX_TESTS && t == &none && r == 0; i++)
		if (!tests[i].used)
			t = &tests[i];
	if (r == 0 && t == &none)
		r = err_set(&err, -EBUSY, "too many tests run at once");
	if (r == 0) {
		*t = (struct test){.used = true, .id = m->id};
		r = test_start(t, &specs[0], m->deadline_ms, &err);
	}
	protocol_free_specs(specs, n);
	if (r < 0 && r != -EBADMSG) {
		struct message_test_result result = {0};

		snprintf(result.reason, sizeof(result.reason), "%.500s", err.text);
		test_end(t, &result);
		return 0;
	}
	return r;
}

void exporter_end_tests(void)
{
	for (size_t i = 0; i < MAX_TESTS; i++) {
		if (tests[i].sender)
			tests[i].transport->close(tests[i].sender);
		if (tests[i].used)
			transport_set_folder(TRANSPORT_TEST | tests[i].id, -1);
		buf_deinit(&tests[i].body);
		tests[i] = (struct test){0};
	}
}
