/* SPDX-License-Identifier: Apache-2.0 */

/* Debug files through the whole way: link -> exporter (a real, sandboxed child: this program again) -> HTTP -> a server
 * that does what the first part of the path says. What counts is what stands in the file, what is said of it, and
 * that it comes to an end. Waits are bounds for a test that went wrong, not measures. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "destinations/link.h"

#define WAIT_MS  60000
#define BUILD_ID "0123456789abcdef0123456789abcdef01234567"
#define SIZE     100000 /* of the sound file */

/* ---- the server ------------------------------------------------------------------------------------------------- */

static struct {
	_Atomic unsigned requests;
	_Atomic unsigned gone; /* answers that nobody wanted to the end */
	char last[1024];       /* the head of the last request */
} * seen;

static void put(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n <= 0) {
			seen->gone++;
			_exit(0);
		}
		at += n;
		len -= (size_t)n;
	}
}

static void say(int fd, const char *format, ...) PRINTF(2, 3);
static void say(int fd, const char *format, ...)
{
	char text[2048];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put(fd, text, (size_t)n);
}

static uint8_t content(size_t i)
{
	static const uint8_t magic[] = {0x7f, 'E', 'L', 'F'};

	return i < 4 ? magic[i] : (uint8_t)(i * 31 >> 3);
}

static void put_file(int fd, size_t n)
{
	uint8_t bytes[1000];

	for (size_t at = 0; at < n;) {
		size_t len = MIN(n - at, sizeof(bytes));

		for (size_t i = 0; i < len; i++)
			bytes[i] = content(at + i);
		put(fd, bytes, len);
		at += len;
	}
}

static void endless_chunks(int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\177ELF\r\n");
	for (;;)
		put(fd, "10\r\n0123456789abcdef\r\n", 22);
}

static void drip(int fd, const char *head)
{
	say(fd, "%s", head);
	for (;;) {
		usleep(100000);
		put(fd, "x", 1);
	}
}

/* Fast enough at each moment, and too slow for a whole file. */
static void trickle(int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n\r\n");
	put_file(fd, 4);
	for (;;) {
		char bytes[1000] = "";

		usleep(100000);
		put(fd, bytes, sizeof(bytes));
	}
}

/* Does what the path says. */
static void answer(int fd, const char *how, uint16_t port)
{
#define IS(word) (strncmp(how, word "/", sizeof(word)) == 0)
	if (IS("file") || IS("again"))
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", SIZE), put_file(fd, SIZE);
	else if (IS("big"))
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000000\r\n\r\n"),
			put_file(fd, 4);
	else if (IS("endless"))
		endless_chunks(fd);
	else if (IS("drip"))
		drip(fd, "HTTP/1.1 200 OK\r\n\r\n\177ELF");
	else if (IS("trickle"))
		trickle(fd);
	else if (IS("head"))
		for (say(fd, "HTTP/1.1 200 OK\r\n");;)
			say(fd, "X-More: %0200d\r\n", 0);
	else if (IS("never"))
		pause();
	else if (IS("short"))
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", SIZE),
			put_file(fd, SIZE / 2);
	else if (IS("html"))
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<p>x");
	else if (IS("empty"))
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	else if (IS("packed"))
		say(fd,
			"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
			"\x1f\x8b\x08");
	else if (IS("part"))
		say(fd, "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\n\177ELF");
	else if (IS("moved"))
		say(fd,
			"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%u/again/x\r\n"
			"Content-Length: 4\r\n\r\ngone",
			port);
	else if (IS("circle"))
		say(fd, "HTTP/1.1 302 Found\r\nLocation: /circle/x\r\nContent-Length: 0\r\n\r\n");
	else if (IS("host"))
		say(fd,
			"HTTP/1.1 302 Found\r\nLocation: http://localhost:%u/again/x\r\n"
			"Content-Length: 0\r\n\r\n",
			port);
	else if (IS("port"))
		say(fd,
			"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/again/x\r\n"
			"Content-Length: 0\r\n\r\n");
	else if (IS("scheme"))
		say(fd,
			"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n"
			"Content-Length: 0\r\n\r\n");
	else if (IS("busy"))
		say(fd, "HTTP/1.1 503 Later\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n");
	else
		say(fd, "HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nno\n");
#undef IS
}

static void serve(int fd, uint16_t port)
{
	char head[1024] = "";
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, head + len, 1, 0);

		if (n <= 0 || len > sizeof(head) - 2)
			_exit(0);
		head[++len] = 0;
		if (!strstr(head, "\r\n\r\n"))
			continue;
		seen->requests++;
		memcpy(seen->last, head, sizeof(head));
		answer(fd, head + strlen("GET /"), port);
		_exit(0);
	}
}

/* ---- what tests are made of --------------------------------------------------------------------------------------- */

struct world {
	sd_event *loop;
	struct link *link;
	pid_t server;
	uint16_t port;
	int file;
	struct link_fetch_result result;
	unsigned done;
};

static void start_server(struct world *w)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	w->port = ntohs(a.sin_port);
	w->server = fork();
	assert_true(w->server >= 0);
	if (w->server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		signal(SIGCHLD, SIG_IGN);
		for (;;) {
			int c = accept(fd, NULL, NULL);

			if (c >= 0 && fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				serve(c, w->port);
			}
			closep(&c);
		}
	}
	setpgid(w->server, w->server);
	close(fd);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct link_config config = {.hang_ms = 30000};
	struct err_text err;

	assert_non_null(w);
	assert_true(sd_event_new(&w->loop) >= 0);
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	w->file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_true(w->file >= 0);
	seen->requests = seen->gone = 0;
	start_server(w);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	link_free(w->link);
	sd_event_unref(w->loop);
	kill(-w->server, SIGKILL);
	waitpid(w->server, NULL, 0);
	close(w->file);
	free(w);
	return 0;
}

static void on_done(void *userdata, const struct link_fetch_result *result)
{
	struct world *w = userdata;

	w->result = *result;
	w->done++;
}

static int ask(struct world *w, const char *url, uint64_t max_bytes)
{
	struct link_fetch what = {.url = url,
		.build_id = BUILD_ID,
		.max_bytes = max_bytes,
		.connect_ms = 20000,
		.stall_ms = 2000, /* a server that waits for a CPU is none that stalls */
		.total_ms = strstr(url, "/trickle") ? 6000 : 30000};

	return link_fetch(w->link, &what, w->file, on_done, w);
}

static void run_until_done(struct world *w, unsigned done)
{
	uint64_t end = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC;

	while (w->done < done) {
		assert_true(clock_monotonic_ns() < end);
		assert_true(sd_event_run(w->loop, 100000) >= 0);
	}
}

static void start(struct world *w, const char *how)
{
	char url[128];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u/%s", w->port, how);
	assert_int_equal(ask(w, url, 2 * SIZE), 0);
}

/* How it comes out, and what is said. */
static void fetch(struct world *w, const char *how, enum fetch_outcome outcome, const char *said)
{
	unsigned done = w->done;

	start(w, how);
	run_until_done(w, done + 1);
	if (w->result.outcome != outcome || !strstr(w->result.reason, said))
		fail_msg("%s: %d, \"%s\" (%s); wanted %d, \"%s\"", how, w->result.outcome,
			w->result.reason, w->result.remedy, outcome, said);
	if (outcome != FETCH_FOUND && outcome != FETCH_NOT_FOUND && !*w->result.remedy)
		fail_msg("%s: nothing says what to do", how);
}

static void assert_file(struct world *w)
{
	_cleanup_free_ uint8_t *bytes = malloc(SIZE + 1);

	assert_int_equal(pread(w->file, bytes, SIZE + 1, 0), SIZE);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(bytes[i], content(i));
}

static uint64_t written(struct world *w)
{
	struct stat st;

	assert_int_equal(fstat(w->file, &st), 0);
	return (uint64_t)st.st_size;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void test_found(void **state)
{
	struct world *w = *state;

	fetch(w, "file/", FETCH_FOUND, "");
	assert_int_equal(w->result.bytes, SIZE);
	assert_int_equal(w->result.http_status, 200);
	assert_file(w);
	/* What servers know us by, and that no packing is asked for. */
	assert_non_null(
		strstr(seen->last, "GET /file/buildid/" BUILD_ID "/debuginfo HTTP/1.1\r\n"));
	assert_non_null(strstr(seen->last, "\r\nUser-Agent: odi/" ODI_VERSION "\r\n"));
	assert_non_null(strstr(seen->last, "\r\nAccept-Encoding: identity\r\n"));
}

static void test_failures(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *how;
		enum fetch_outcome outcome;
		const char *said;
	} rows[] = {
		{"nothing", FETCH_NOT_FOUND, "does not have it"},
		{"busy", FETCH_FAILED_SERVER, "answered 503"},
		{"big", FETCH_FAILED_FILE, "sent more than"},
		{"html", FETCH_FAILED_FILE, "no debug file"},
		{"packed", FETCH_FAILED_FILE, "no debug file"},
		{"empty", FETCH_FAILED_FILE, "no debug file"},
		{"part", FETCH_FAILED_SERVER, "answered 206"},
		{"head", FETCH_FAILED_SERVER, "head does not end"},
		{"never", FETCH_FAILED_SERVER, "less than 1 KB a second"},
		{"host", FETCH_FAILED_SERVER, "sends us to http://localhost"},
		{"port", FETCH_FAILED_SERVER, "sends us to http://127.0.0.1:1"},
		{"scheme", FETCH_FAILED_SERVER, "sends us nowhere"},
		{"circle", FETCH_FAILED_SERVER, "again and again"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		fetch(w, rows[i].how, rows[i].outcome, rows[i].said);
		if (streq(rows[i].how, "busy"))
			assert_int_equal(w->result.retry_after_ns, 77 * NSEC_PER_SEC);
	}
	/* Nothing of all this was written, but for the first bytes of one that was too big. */
	assert_true(written(w) <= 4);
}

/* Bytes that come are written up to the bound, and not one more. */
static void test_bounds(void **state)
{
	struct world *w = *state;

	fetch(w, "endless", FETCH_FAILED_FILE, "sent more than");
	assert_true(written(w) <= 2 * SIZE);
	assert_true(w->result.bytes <= 2 * SIZE && w->result.bytes > SIZE);
}

static void test_breaks_off(void **state)
{
	struct world *w = *state;

	fetch(w, "short", FETCH_FAILED_SERVER, "before the file was whole");
}

static void test_slow(void **state)
{
	struct world *w = *state;

	fetch(w, "drip", FETCH_FAILED_SERVER, "less than 1 KB a second");
	fetch(w, "trickle", FETCH_FAILED_SERVER, "did not send the whole file within 6");
}

static void test_redirect(void **state)
{
	struct world *w = *state;

	fetch(w, "moved", FETCH_FOUND, "");
	assert_file(w);
	assert_int_equal(seen->requests, 2);
}

static void test_nobody_there(void **state)
{
	struct world *w = *state;

	assert_int_equal(ask(w, "http://127.0.0.1:1", SIZE), 0);
	run_until_done(w, 1);
	assert_int_equal(w->result.outcome, FETCH_FAILED_SERVER);
	assert_non_null(strstr(w->result.reason, "Connection refused"));
	assert_int_equal(ask(w, "http://no-such-host.invalid/x", SIZE), 0);
	run_until_done(w, 2);
	assert_int_equal(w->result.outcome, FETCH_FAILED_SERVER);
	/* Files of this host are not for servers to be. */
	assert_int_equal(ask(w, "file:///etc", SIZE), 0);
	run_until_done(w, 3);
	assert_non_null(strstr(w->result.reason, "cannot be read"));
	assert_int_equal(written(w), 0);
}

/* The certificate is checked: a server without one is none. */
static void test_tls(void **state)
{
	struct world *w = *state;
	char url[64];

	snprintf(url, sizeof(url), "https://127.0.0.1:%u/file", w->port);
	assert_int_equal(ask(w, url, SIZE), 0);
	run_until_done(w, 1);
	assert_int_equal(w->result.outcome, FETCH_FAILED_SERVER);
	assert_int_equal(written(w), 0);
}

static void test_asked_wrongly(void **state)
{
	static const char *const bad[] = {"", "0123", "0123456789ABCDEF0123", "0123456789abcdef0",
		"../../../../etc/passwd", "0123456789abcdef/../x", BUILD_ID "00"};
	struct world *w = *state;
	struct link_fetch what = {.url = "http://127.0.0.1:1", .max_bytes = 1};
	char url[PROTOCOL_URL + 10];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		what.build_id = bad[i];
		assert_int_equal(link_fetch(w->link, &what, w->file, on_done, w), -EINVAL);
	}
	memset(url, 'x', sizeof(url) - 1);
	url[sizeof(url) - 1] = 0;
	assert_int_equal(ask(w, url, SIZE), -EINVAL);
	start(w, "never");
	assert_int_equal(ask(w, "http://127.0.0.1:1", SIZE), -EBUSY);
	link_fetch_cancel(w->link);
	assert_int_equal(w->done, 0);
}

/* One that is given up gives way to the next, and is not heard of again. */
static void test_cancel(void **state)
{
	struct world *w = *state;

	start(w, "drip");
	for (uint64_t end = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC; !seen->requests;) {
		assert_true(clock_monotonic_ns() < end);
		assert_true(sd_event_run(w->loop, 10000) >= 0);
	}
	link_fetch_cancel(w->link);
	for (uint64_t end = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC; !seen->gone;) {
		assert_true(clock_monotonic_ns() < end);
		assert_true(sd_event_run(w->loop, 10000) >= 0);
	}
	assert_int_equal(ftruncate(w->file, 0), 0);
	assert_int_equal(lseek(w->file, 0, SEEK_SET), 0);
	fetch(w, "file", FETCH_FOUND, "");
	assert_int_equal(w->done, 1);
	assert_file(w);
}

static void test_killed(void **state)
{
	struct world *w = *state;

	start(w, "drip");
	for (uint64_t end = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC; !seen->requests;) {
		assert_true(clock_monotonic_ns() < end);
		assert_true(sd_event_run(w->loop, 10000) >= 0);
	}
	assert_int_equal(kill(link_child_pid(w->link), SIGKILL), 0);
	run_until_done(w, 1);
	assert_int_equal(w->result.outcome, FETCH_FAILED_HERE);
	assert_int_equal(link_restarts(w->link), 1);
	assert_int_equal(ftruncate(w->file, 0), 0);
	assert_int_equal(lseek(w->file, 0, SEEK_SET), 0);
	fetch(w, "file", FETCH_FOUND, "");
	assert_file(w);
}

/* ---- an exporter that lies ---- */

static char folder[64];

static void lie(struct message_fetch_done *m, const char *how)
{
	m->outcome = FETCH_FOUND;
	if (streq(how, "bytes"))
		m->bytes = 10ULL * SIZE;
	else if (streq(how, "outcome"))
		m->outcome = FETCH_OUTCOMES;
	else if (streq(how, "text"))
		memset(m->reason, 'x', sizeof(m->reason));
	else if (streq(how, "id"))
		m->id += 1000;
}

static int liar_main(const char *how)
{
	static uint8_t bytes[FDPASS_MAX_MESSAGE] __attribute__((aligned(8)));

	for (;;) {
		int fd = -1;
		size_t n = 1;
		ssize_t len;

		(void)poll(&(struct pollfd){.fd = SANDBOX_FD, .events = POLLIN}, 1, -1);
		len = fdpass_recv(SANDBOX_FD, bytes, sizeof(bytes), &fd, &n);
		closep(&fd);
		if (len == 0 || (len < 0 && len != -EAGAIN))
			return 0;
		if (len > 0 &&
			protocol_check(bytes, (size_t)len, MESSAGE_FETCH,
				sizeof(struct message_fetch)) == 0) {
			struct message_fetch_done m = {
				.header = protocol_header(MESSAGE_FETCH_DONE, sizeof(m)),
				.id = ((const struct message_fetch *)bytes)->id};

			lie(&m, how);
			if (fdpass_send(SANDBOX_FD, &m, sizeof(m), NULL, 0) < 0)
				return 1;
		}
	}
}

static void test_lies(void **state)
{
	static const char *const lies[] = {"bytes", "outcome", "text", "id"};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/liar-%s", folder, lies[i]);
		sandbox_set_program(path);
		assert_int_equal(ask(w, "http://127.0.0.1:1", SIZE), 0);
		run_until_done(w, (unsigned)i + 1);
		/* It is not believed, and replaced. */
		assert_int_equal(w->result.outcome, FETCH_FAILED_HERE);
		assert_int_equal(link_restarts(w->link), i + 1);
	}
	sandbox_set_program("/proc/self/exe");
}

static void make_liars(void)
{
	char command[400];

	snprintf(folder, sizeof(folder), "/tmp/odi-fetch-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(command, sizeof(command),
		"for how in bytes outcome text id; do cp /proc/%d/exe %s/liar-$how || exit 1; done",
		getpid(), folder);
	assert_int_equal(system(command), 0);
}

static int role(void)
{
	char self[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *liar;

	sandbox_close_from(SANDBOX_FD + 1);
	log_init("exporter", LOG_LEVEL_INFO);
	self[MAX(n, 0)] = 0;
	liar = strstr(self, "/liar-");
	return liar ? liar_main(liar + 6) : exporter_main() < 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_found),
		TEST(test_failures),
		TEST(test_bounds),
		TEST(test_breaks_off),
		TEST(test_slow),
		TEST(test_redirect),
		TEST(test_nobody_there),
		TEST(test_tls),
		TEST(test_asked_wrongly),
		TEST(test_cancel),
		TEST(test_killed),
		TEST(test_lies),
	};
	char command[96];
	int r;

	if (argc >= 3 && streq(argv[1], "--role"))
		return role();
	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seen == MAP_FAILED)
		return 1;
	make_liars();
	r = cmocka_run_group_tests_name("destinations/fetch", tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) == 0 ? r : 1;
}
