/* SPDX-License-Identifier: Apache-2.0 */

/* Frames, and the client against servers that behave, lie, stop and go away. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agentd/api/api.h"

static char folder[64], path[96];
static pid_t server = -1;

static int setup(void **state)
{
	strcpy(folder, "/tmp/api_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	chmod(folder, 0755);
	snprintf(path, sizeof(path), "%s/s", folder);
	return 0;
}

static int teardown(void **state)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
		server = -1;
	}
	unlink(path);
	rmdir(folder);
	return 0;
}

static int listen_on(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(a.sun_path, path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	chmod(path, 0666);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

/* One connection, served by script in a child. */
static void serve(void (*script)(int fd))
{
	int fd = listen_on();

	server = fork();
	if (server == 0) {
		int c = accept(fd, NULL, NULL);

		script(c);
		/* Read what is left, so that closing does not take answers with it. */
		shutdown(c, SHUT_WR);
		while (read(c, (char[4096]){0}, 4096) > 0)
			;
		_exit(0);
	}
	close(fd);
}

static void put(int fd, const ProtobufCMessage *m)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 0);
	api_frame_pack(m, API_MAX_REPLY, &b);
	for (size_t i = 0; i < b.len;) {
		ssize_t n = write(fd, b.data + i, b.len - i);

		if (n <= 0)
			_exit(1);
		i += (size_t)n;
	}
}

static void put_hello(int fd, unsigned protocol, const char *refusal, Control__Code code)
{
	Control__Hello h = CONTROL__HELLO__INIT;

	h.protocol = protocol;
	h.version = "9.9";
	h.access = "change";
	h.refusal = (char *)refusal;
	h.refusal_code = code;
	put(fd, &h.base);
}

/* The next frame from the client; the caller ends the process, so nothing is freed. */
static Control__Request *get_request(int fd, bool hello)
{
	static uint8_t data[65536];
	static size_t len;

	for (;;) {
		const uint8_t *payload;
		size_t n;
		ssize_t used = api_frame_find(data, len, API_MAX_REQUEST, &payload, &n), got;

		if (used > 0) {
			Control__Request *r =
				hello ? NULL : control__request__unpack(NULL, n, payload);

			memmove(data, data + used, len - (size_t)used);
			len -= (size_t)used;
			if (!hello && !r)
				_exit(1);
			return r;
		}
		got = read(fd, data + len, sizeof(data) - len);
		if (got <= 0)
			_exit(1);
		len += (size_t)got;
	}
}

static void put_status(int fd, uint64_t id, uint64_t revision, bool final)
{
	Control__Reply r = CONTROL__REPLY__INIT;
	Control__Status s = CONTROL__STATUS__INIT;

	s.revision = revision;
	r.id = id;
	r.final = final;
	r.body_case = CONTROL__REPLY__BODY_STATUS;
	r.status = &s;
	put(fd, &r.base);
}

/* ---- frames ---- */

static void test_frames(void **state)
{
	Control__Hello h = CONTROL__HELLO__INIT;
	_cleanup_buf_ struct buf b;
	const uint8_t *payload;
	size_t len;

	buf_init(&b, 0);
	h.version = "0123456789";
	assert_int_equal(api_frame_pack(&h.base, 11, &b), -E2BIG);
	assert_int_equal(b.len, 0);
	assert_int_equal(api_frame_pack(&h.base, 12, &b), 0);
	assert_int_equal(b.len, 16);
	assert_memory_equal(b.data, "\0\0\0\x0c", 4);
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(api_frame_find(b.data, i, 12, &payload, &len), 0);
	assert_int_equal(api_frame_find(b.data, b.len, 12, &payload, &len), 16);
	assert_int_equal(len, 12);
	assert_ptr_equal(payload, b.data + 4);
	assert_int_equal(api_frame_find(b.data, b.len, 11, &payload, &len), -EMSGSIZE);
	/* Judged by the header alone. */
	assert_int_equal(api_frame_find((const uint8_t *)"\xff\xff\xff\xff", 4, API_MAX_REPLY,
				 &payload, &len),
		-EMSGSIZE);
	assert_int_equal(api_frame_find((const uint8_t *)"\0\0\0\0", 4, 0, &payload, &len), 4);
	assert_int_equal(len, 0);
}

static void test_codes(void **state)
{
	static const int errors[] = {-EINVAL, -ENOENT, -EEXIST, -ESTALE, -EACCES, -EPERM,
		-EOPNOTSUPP, -EBUSY, -EIO, -ECANCELED};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		assert_int_equal(api_error_of(api_code_of(errors[i])), errors[i]);
	assert_int_equal(api_code_of(-ENOSPC), CONTROL__CODE__UNAVAILABLE);
	assert_int_equal(api_code_of(-12345), CONTROL__CODE__INTERNAL);
	assert_int_equal(api_error_of((Control__Code)77), -EIO);
}

/* ---- connecting ---- */

static void connect_fails(int code, const char *words)
{
	struct api_client *c = NULL;
	struct err_text err = {""};

	assert_int_equal(api_connect(&c, path, &err), code);
	assert_null(c);
	if (!strstr(err.text, words))
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_not_running(void **state)
{
	char saved[96];

	connect_fails(-ECONNREFUSED, "agentd is not running");
	close(listen_on()); /* a stale socket file */
	connect_fails(-ECONNREFUSED, "start it with 'systemctl start odi' or 'agentd'");
	unlink(path);
	fclose(fopen(path, "w"));
	connect_fails(-ECONNREFUSED, path);
	memcpy(saved, path, sizeof(path));
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	connect_fails(-ECONNREFUSED, "agentd");
	memcpy(path, saved, sizeof(path));
	{
		struct api_client *c = NULL;
		struct err_text err;
		char longer[300];

		memset(longer, 'y', sizeof(longer) - 1);
		longer[sizeof(longer) - 1] = 0;
		assert_int_equal(api_connect(&c, longer, &err), -ECONNREFUSED);
		assert_non_null(strstr(err.text, "longer than"));
	}
}

static void test_no_permission(void **state)
{
	pid_t pid;
	int status, fd = listen_on();

	chmod(path, 0600);
	pid = fork();
	if (pid == 0) {
		struct api_client *c = NULL;
		struct err_text err = {""};

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(9);
		_exit(api_connect(&c, path, &err) == -EACCES && strstr(err.text, "group odi") ? 0
											      : 1);
	}
	waitpid(pid, &status, 0);
	close(fd);
	assert_int_equal(status, 0);
}

static void refuse(int fd)
{
	put_hello(fd, 1, "not for you: ask", CONTROL__CODE__PERMISSION);
}
static void refuse_busy(int fd)
{
	put_hello(fd, 1, "too many", CONTROL__CODE__BUSY);
}
static void other_protocol(int fd)
{
	put_hello(fd, 7, "", CONTROL__CODE__OK);
}
static void garbage(int fd)
{
	if (write(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) < 0)
		_exit(1);
}
static void bad_message(int fd)
{
	if (write(fd, "\0\0\0\2\xff\xff", 6) < 0)
		_exit(1);
}
static void empty_hello(int fd)
{
	if (write(fd, "\0\0\0\0", 4) < 0)
		_exit(1);
}
static void nothing(int fd)
{
}
static void half(int fd)
{
	if (write(fd, "\0\0\0\x20", 4) < 0)
		_exit(1);
}

static void test_bad_servers(void **state)
{
	static const struct {
		void (*script)(int fd);
		int code;
		const char *words;
	} cases[] = {
		{refuse, -EACCES, "not for you: ask"},
		{refuse_busy, -EBUSY, "too many"},
		{other_protocol, -EPROTO, "speaks protocol 7"},
		{garbage, -EPROTO, "does not speak agentd's protocol"},
		{bad_message, -EPROTO, "does not speak agentd's protocol"},
		{empty_hello, -EPROTO, "does not speak agentd's protocol"},
		{nothing, -ECONNREFUSED, "closed the connection"},
		{half, -ECONNREFUSED, "closed the connection"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		serve(cases[i].script);
		connect_fails(cases[i].code, cases[i].words);
		waitpid(server, NULL, 0);
		server = -1;
	}
}

/* ---- calling ---- */

static void answers(int fd)
{
	Control__Request *q;
	Control__Reply r = CONTROL__REPLY__INIT;
	Control__Error e = CONTROL__ERROR__INIT;

	put_hello(fd, 1, "", CONTROL__CODE__OK);
	get_request(fd, true);
	/* One answer, behind one that nobody asked for. */
	q = get_request(fd, false);
	put_status(fd, 999, 1, true);
	put_status(fd, q->id, 2, true);
	/* An error. */
	q = get_request(fd, false);
	e.code = CONTROL__CODE__MANAGED;
	e.message = "set by a file";
	r.id = q->id;
	r.final = true;
	r.error = &e;
	put(fd, &r.base);
	/* A stream of three. */
	q = get_request(fd, false);
	for (uint64_t i = 1; i <= 3; i++)
		put_status(fd, q->id, i, i == 3);
	/* A stream that the client leaves for another question. */
	q = get_request(fd, false);
	put_status(fd, q->id, 10, false);
	put_status(fd, q->id, 11, false);
	q = get_request(fd, false);
	put_status(fd, q->id - 1, 12, false);
	put_status(fd, q->id, 20, true);
	/* An answer without a body. */
	q = get_request(fd, false);
	r = (Control__Reply)CONTROL__REPLY__INIT;
	r.id = q->id;
	r.final = true;
	put(fd, &r.base);
	/* And gone. */
	get_request(fd, false);
}

static int ask(struct api_client *c, Control__Reply **ret, struct err_text *err)
{
	Control__Request q = CONTROL__REQUEST__INIT;
	Control__GetStatus s = CONTROL__GET_STATUS__INIT;

	q.verb_case = CONTROL__REQUEST__VERB_GET_STATUS;
	q.get_status = &s;
	return api_call(c, &q, ret, err);
}

static void test_calls(void **state)
{
	struct api_client *c = NULL;
	struct err_text err = {""};
	Control__Reply *r = NULL;

	serve(answers);
	assert_int_equal(api_connect(&c, path, &err), 0);
	assert_string_equal(api_hello(c)->version, "9.9");
	assert_true(api_fd(c) >= 0);

	assert_int_equal(ask(c, &r, &err), 0);
	assert_int_equal(r->status->revision, 2);
	api_reply_free(TAKE_PTR(r));
	assert_int_equal(api_next(c, 0, &r, &err), 0);
	assert_null(r);

	assert_int_equal(ask(c, &r, &err), -EPERM);
	assert_string_equal(err.text, "set by a file");
	assert_null(r);

	assert_int_equal(ask(c, &r, &err), 0);
	for (uint64_t i = 1; i <= 3; i++) {
		assert_non_null(r);
		assert_int_equal(r->status->revision, i);
		api_reply_free(TAKE_PTR(r));
		assert_int_equal(api_next(c, 5000, &r, &err), 0);
	}
	assert_null(r);

	assert_int_equal(ask(c, &r, &err), 0);
	assert_int_equal(r->status->revision, 10);
	api_reply_free(TAKE_PTR(r));
	assert_int_equal(api_next(c, 5000, &r, &err), 0);
	api_reply_free(TAKE_PTR(r));
	assert_int_equal(api_next(c, 50, &r, &err), -ETIMEDOUT);
	assert_null(r);
	assert_int_equal(ask(c, &r, &err), 0);
	assert_int_equal(r->status->revision, 20);
	api_reply_free(TAKE_PTR(r));

	assert_int_equal(ask(c, &r, &err), -EPROTO);
	assert_int_equal(ask(c, &r, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "closed the connection"));
	assert_null(r);
	api_close(c);
}

static void slowly(int fd)
{
	Control__Hello h = CONTROL__HELLO__INIT;
	_cleanup_buf_ struct buf b;

	h.protocol = 1;
	h.version = "slow";
	buf_init(&b, 0);
	api_frame_pack(&h.base, API_MAX_REPLY, &b);
	for (size_t i = 0; i < b.len; i++) {
		if (write(fd, b.data + i, 1) != 1)
			_exit(1);
		usleep(1000);
	}
}

static void test_byte_by_byte(void **state)
{
	struct api_client *c = NULL;
	struct err_text err = {""};

	serve(slowly);
	assert_int_equal(api_connect(&c, path, &err), 0);
	assert_string_equal(api_hello(c)->version, "slow");
	api_close(c);
}

static void large(int fd)
{
	Control__Reply r = CONTROL__REPLY__INIT;
	Control__QueryPart p = CONTROL__QUERY_PART__INIT;
	Control__Request *q;
	size_t n = 15;
	char *strings[16], *megabyte = malloc((1 << 20) + 1);

	memset(megabyte, 'x', 1 << 20);
	megabyte[1 << 20] = 0;
	for (size_t i = 0; i < n; i++)
		strings[i] = megabyte;
	put_hello(fd, 1, "", CONTROL__CODE__OK);
	get_request(fd, true);
	q = get_request(fd, false);
	r.id = q->id;
	r.body_case = CONTROL__REPLY__BODY_QUERY_PART;
	r.query_part = &p;
	p.strings = strings;
	p.n_strings = n;
	put(fd, &r.base);
	/* The next one claims to be larger than is allowed. */
	if (write(fd, "\x01\x00\x00\x01", 4) != 4)
		_exit(1);
}

static void test_large(void **state)
{
	struct api_client *c = NULL;
	struct err_text err = {""};
	Control__Reply *r = NULL;

	serve(large);
	assert_int_equal(api_connect(&c, path, &err), 0);
	assert_int_equal(ask(c, &r, &err), 0);
	assert_int_equal(r->query_part->n_strings, 15);
	assert_int_equal(strlen(r->query_part->strings[14]), 1 << 20);
	api_reply_free(TAKE_PTR(r));
	assert_int_equal(api_next(c, 5000, &r, &err), -EPROTO);
	api_close(c);
}

static void test_large_request(void **state)
{
	Control__Request q = CONTROL__REQUEST__INIT;
	Control__GetSources s = CONTROL__GET_SOURCES__INIT;
	struct api_client *c = NULL;
	struct err_text err = {""};
	Control__Reply *r = NULL;

	serve(slowly);
	assert_int_equal(api_connect(&c, path, &err), 0);
	s.name = calloc(1, API_MAX_REQUEST + 1);
	memset(s.name, 'n', API_MAX_REQUEST);
	q.verb_case = CONTROL__REQUEST__VERB_GET_SOURCES;
	q.get_sources = &s;
	assert_int_equal(api_call(c, &q, &r, &err), -EINVAL);
	assert_non_null(strstr(err.text, "larger than 1024 KB"));
	free(s.name);
	api_close(c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_codes),
		TEST(test_not_running),
		TEST(test_no_permission),
		TEST(test_bad_servers),
		TEST(test_calls),
		TEST(test_byte_by_byte),
		TEST(test_large),
		TEST(test_large_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
