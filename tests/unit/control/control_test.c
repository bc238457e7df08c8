/* SPDX-License-Identifier: Apache-2.0 */

/* The control socket from outside: a real server in a process of its own, with a real store and configuration, and
 * clients that ask, race, lie, dawdle and vanish. When the server ends it has to have freed everything: it runs to
 * its end, so that the sanitizer sees what it left. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/control/control_private.h"
#include "agentd/store/store.h"
#include "tests/unit/config/fakes.h"

#define GID_CHANGE 54321
#define GID_VIEW   54322
#define NOBODY     65534

static char folder[64], path[96], db[96], error_file[96];
static pid_t server = -1;
static struct control_limits limits;

static struct shared {
	int cancelled, late_sent, effects, forgotten;
	int candidates, destinations; /* how often they were asked for */
	int held;                     /* connections of another process */
	size_t connections, out_bytes;
	rlim_t nofile;
} * shared;

/* ---- the server's side ---- */

static struct control_server *running;
static struct control_reply *kept; /* by a handler that is not told of cancellation */

static void fake_status(void *userdata, struct control_reply *r, const Control__GetStatus *request)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Status status = CONTROL__STATUS__INIT;

	shared->connections = running->n_connections;
	shared->out_bytes = running->out_bytes;
	status.healthy = true;
	status.version = control_printf(r, "%s-%d", "fake", 1);
	status.host = control_strdup(r, NULL);
	reply.body_case = CONTROL__REPLY__BODY_STATUS;
	reply.status = &status;
	control_send(r, &reply, true);
}

/* What the document gets is what the file holds. */
static int fake_keep_file(void *userdata, const char *path, const char *set, int fd, char **value,
	struct err_text *err)
{
	char text[64] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0 || streq(text, "wrong"))
		return err_set(err, -EINVAL, "%s: %s is wrong", path, set);
	*value = strdup(text);
	return 0;
}

static void fake_forget_files(void *userdata)
{
	shared->forgotten++;
}

/* As many bytes as the name says. */
static void fake_sources(
	void *userdata, struct control_reply *r, const Control__GetSources *request)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Sources sources = CONTROL__SOURCES__INIT;
	Control__SourceState state = CONTROL__SOURCE_STATE__INIT, *list = &state;
	size_t size = (size_t)atol(request->name);

	state.match = control_alloc(r, size + 1);
	memset(state.match, 'm', size);
	sources.sources = &list;
	sources.n_sources = 1;
	reply.body_case = CONTROL__REPLY__BODY_SOURCES;
	reply.sources = &sources;
	control_send(r, &reply, true);
}

static void on_cancelled(void *userdata)
{
	++*(int *)userdata;
}

/* Never answers; is told when nobody waits any more. */
static void fake_candidates(
	void *userdata, struct control_reply *r, const Control__GetCandidates *request)
{
	control_on_cancel(r, on_cancelled, &shared->cancelled);
	shared->candidates++;
}

/* Answers later, and is not told. */
static int on_later(sd_event_source *s, uint64_t usec, void *userdata)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Destinations body = CONTROL__DESTINATIONS__INIT;

	reply.body_case = CONTROL__REPLY__BODY_DESTINATIONS;
	reply.destinations = &body;
	control_send(kept, &reply, false);
	control_send(TAKE_PTR(kept), &reply, true);
	shared->late_sent++;
	return 0;
}

static void fake_destinations(
	void *userdata, struct control_reply *r, const Control__GetDestinations *request)
{
	kept = r;
	shared->destinations++;
	sd_event_add_time_relative(
		running->loop, NULL, CLOCK_MONOTONIC, 200000, 1000, on_later, NULL);
}

static void fake_types(void *userdata, struct control_reply *r)
{
	struct err_text err;

	err_set(&err, -EPERM, "the kernel said no");
	control_fail(r, -EPERM, &err);
}

static void fake_query(void *userdata, struct control_reply *r, const Control__RunQuery *request)
{
	for (uint64_t i = 1; i <= 5; i++) {
		Control__Reply reply = CONTROL__REPLY__INIT;
		Control__QueryPart part = CONTROL__QUERY_PART__INIT;

		part.total_ns = i;
		reply.body_case = CONTROL__REPLY__BODY_QUERY_PART;
		reply.query_part = &part;
		control_send(r, &reply, i == 5);
	}
}

static void fake_test(
	void *userdata, struct control_reply *r, const Control__TestDestination *request)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__DestinationTested body = CONTROL__DESTINATION_TESTED__INIT;

	log_info("a destination was tested");
	body.ok = true;
	reply.body_case = CONTROL__REPLY__BODY_DESTINATION_TESTED;
	reply.destination_tested = &body;
	control_send(r, &reply, true);
}

static void fake_effects(void *userdata, struct control_reply *r, const Control__Apply *apply,
	Control__Applied *applied)
{
	shared->effects++;
	applied->effects = control_alloc(r, sizeof(*applied->effects));
	applied->effects[applied->n_effects++] = control_printf(r, "%zu changes", apply->n_changes);
}

static int on_stop(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	return sd_event_exit(sd_event_source_get_event(s), 0);
}

static int serve(int ready)
{
	struct control_ops ops = {.describe_effects = fake_effects,
		.keep_file = fake_keep_file,
		.forget_files = fake_forget_files,
		.status = fake_status,
		.sources = fake_sources,
		.candidates = fake_candidates,
		.destinations = fake_destinations,
		.destination_types = fake_types,
		.query = fake_query,
		.test_destination = fake_test};
	struct err_text err = {""};
	sd_event *loop = NULL;
	sigset_t mask;
	int r;

	/* Its lines, and a sanitizer's: shown when it does not end well. */
	dup2(open(error_file, O_WRONLY | O_CREAT | O_APPEND, 0600), STDERR_FILENO);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	sd_event_new(&loop);
	sd_event_add_signal(loop, NULL, SIGTERM, on_stop, NULL);
	r = store_open(&ops.store, db, &err);
	if (r == 0)
		r = config_manager_new(&ops.config, ops.store, NULL, NULL, NULL, &err);
	if (r == 0)
		r = control_server_new(&running, loop, path, -1, &ops, NULL, &err);
	if (r < 0) {
		err_prefix(&err, 0, "%d", r);
		return write(ready, err.text, strlen(err.text)) > 0 ? 3 : 4;
	}
	running->limits = limits;
	running->change_gid = GID_CHANGE;
	running->view_gid = GID_VIEW;
	if (shared->nofile)
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){shared->nofile, shared->nofile});
	if (write(ready, "ok", 2) != 2)
		return 5;
	close(ready);
	r = sd_event_loop(loop);
	control_server_free(running);
	config_manager_free(ops.config);
	store_close(ops.store);
	sd_event_unref(loop);
	return r < 0;
}

/* ---- the tests' side ---- */

static char said[800];

static bool start_server(void)
{
	int pipes[2];
	ssize_t n;

	assert_int_equal(pipe(pipes), 0);
	server = fork();
	if (server == 0) {
		close(pipes[0]);
		exit(serve(pipes[1]));
	}
	close(pipes[1]);
	n = read(pipes[0], said, sizeof(said) - 1);
	said[MAX(n, 0)] = 0;
	close(pipes[0]);
	return streq(said, "ok");
}

static void stop_server(void)
{
	int status = -1;

	if (server <= 0)
		return;
	kill(server, SIGTERM);
	waitpid(server, &status, 0);
	server = -1;
	if (status != 0) {
		_cleanup_buf_ struct buf b;

		buf_init(&b, 0);
		io_read_file(IO_NO_FD, error_file, &b, 1 << 20);
		print_message("%s", b.len ? (char *)b.data : "");
	}
	/* Not killed, nothing left, no sanitizer's complaint. */
	assert_int_equal(status, 0);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/control_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(chmod(folder, 0755), 0);
	snprintf(path, sizeof(path), "%s/agentd.sock", folder);
	snprintf(db, sizeof(db), "%s/state.db", folder);
	snprintf(error_file, sizeof(error_file), "%s/stderr", folder);
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	limits = control_default_limits;
	return 0;
}

static int teardown(void **state)
{
	char command[100];

	stop_server();
	munmap(shared, sizeof(*shared));
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static void must_start(void)
{
	if (!start_server())
		fail_msg("%s", said);
}

static struct api_client *must_connect(void)
{
	struct api_client *c = NULL;
	struct err_text err = {""};

	if (api_connect(&c, path, &err) < 0)
		fail_msg("%s", err.text);
	return c;
}

static Control__Reply *reply;
static struct err_text err;

static int call(struct api_client *c, Control__Request *q)
{
	api_reply_free(TAKE_PTR(reply));
	err.text[0] = 0;
	return api_call(c, q, &reply, &err);
}

#define CALL(c, member, CASE, init)                                                                \
	({                                                                                         \
		Control__Request q_ = CONTROL__REQUEST__INIT;                                      \
		q_.verb_case = CONTROL__REQUEST__VERB_##CASE;                                      \
		q_.member = &(init);                                                               \
		call(c, &q_);                                                                      \
	})

static int get_status(struct api_client *c)
{
	return CALL(c, get_status, GET_STATUS, ((Control__GetStatus)CONTROL__GET_STATUS__INIT));
}

static int get_sources(struct api_client *c, char *name)
{
	Control__GetSources s = CONTROL__GET_SOURCES__INIT;

	s.name = name;
	return CALL(c, get_sources, GET_SOURCES, s);
}

static int apply_full(struct api_client *c, const char *setting, const char *value,
	uint64_t expected, const char *layer, bool dry_run)
{
	Control__Apply a = CONTROL__APPLY__INIT;
	Control__Change change = CONTROL__CHANGE__INIT, *list = &change;

	change.path = (char *)setting;
	change.what_case = value ? CONTROL__CHANGE__WHAT_SET : CONTROL__CHANGE__WHAT_REMOVE;
	if (value)
		change.set = (char *)value;
	else
		change.remove = true;
	a.layer = (char *)layer;
	a.changes = &list;
	a.n_changes = 1;
	a.expected_revision = expected;
	a.dry_run = dry_run;
	a.reason = "set a\nthing";
	return CALL(c, apply, APPLY, a);
}

static int apply(struct api_client *c, const char *setting, const char *value)
{
	return apply_full(c, setting, value, 0, "local", false);
}

static void wait_for(bool (*condition)(struct api_client *c), struct api_client *c)
{
	for (int i = 0; i < 6000; i++) {
		if (condition(c))
			return;
		usleep(10000);
	}
	fail_msg("it did not happen within a minute");
}

/* Raw sockets, for what the library would never send. */
static int raw(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void put(int fd, const void *data, size_t len)
{
	/* The server may have closed already. */
	if (send(fd, data, len, MSG_NOSIGNAL) < 0)
		assert_true(errno == EPIPE || errno == ECONNRESET);
}

#define HELLO "\0\0\0\x02\x08\x01"

/* Until the server closes; what it said last as a Reply. */
static Control__Reply *last_words(int fd)
{
	static uint8_t data[1 << 20];
	size_t len = 0;
	Control__Reply *last = NULL;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	bool hello = true;

	for (;;) {
		ssize_t n;

		assert_int_equal(poll(&p, 1, 60000), 1);
		n = recv(fd, data + len, sizeof(data) - len, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	for (size_t at = 0;;) {
		const uint8_t *payload;
		size_t n;
		ssize_t used = api_frame_find(data + at, len - at, API_MAX_REPLY, &payload, &n);

		if (used <= 0)
			break;
		at += (size_t)used;
		if (!hello) {
			api_reply_free(last);
			last = control__reply__unpack(NULL, n, payload);
		}
		hello = false;
	}
	close(fd);
	return last;
}

static void closes_with(int fd, const char *words)
{
	Control__Reply *last = last_words(fd);

	assert_non_null(last);
	assert_non_null(last->error);
	assert_int_equal(last->error->code, CONTROL__CODE__INVALID);
	if (!strstr(last->error->message, words))
		fail_msg("\"%s\" does not say \"%s\"", last->error->message, words);
	api_reply_free(last);
}

static void still_serves(void)
{
	struct api_client *c = must_connect();

	assert_int_equal(get_status(c), 0);
	api_close(c);
}

/* ---- talking ---- */

static void test_hello_and_status(void **state)
{
	struct api_client *c;
	struct stat st;

	must_start();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	c = must_connect();
	assert_string_equal(api_hello(c)->access, "change");
	assert_string_equal(api_hello(c)->version, ODI_VERSION);
	assert_int_equal(get_status(c), 0);
	assert_string_equal(reply->status->version, "fake-1");
	assert_string_equal(reply->status->host, "");
	assert_true(reply->final);
	api_close(c);
	stop_server();
	/* It takes its socket with it. */
	assert_int_equal(access(path, F_OK), -1);
}

static void test_apply(void **state)
{
	Control__GetConfig g = CONTROL__GET_CONFIG__INIT;
	Control__GetHistory h = CONTROL__GET_HISTORY__INIT;
	struct api_client *c;
	size_t settings;

	must_start();
	c = must_connect();
	assert_int_equal(apply(c, "profiling/rate", "49"), 0);
	assert_int_equal(reply->applied->revision, 1);
	assert_true(reply->applied->changed);
	assert_int_equal(reply->applied->n_effects, 1);
	assert_string_equal(reply->applied->effects[0], "1 changes");
	assert_int_equal(reply->applied->n_diff, 1);
	assert_string_equal(reply->applied->diff[0], "+profiling/rate = 49");
	assert_int_equal(apply(c, "profiling/rate", "49"), 0);
	assert_false(reply->applied->changed);
	assert_int_equal(reply->applied->revision, 1);
	assert_int_equal(apply_full(c, "profiling/rate", "50", 0, "local", true), 0);
	assert_false(reply->applied->changed);
	assert_string_equal(reply->applied->diff[0], "~profiling/rate: 49 -> 50");
	assert_int_equal(reply->applied->n_effects, 0);
	assert_int_equal(apply(c, "profiling/rate", "ten"), -EINVAL);
	assert_non_null(strstr(err.text, "from 1 to 1000"));
	assert_int_equal(apply(c, "sources/nope", NULL), -ENOENT);
	assert_int_equal(apply_full(c, "profiling/rate", "50", 7, "local", false), -ESTALE);
	assert_int_equal(apply_full(c, "profiling/rate", "50", 0, "files", false), -EINVAL);
	assert_int_equal(apply_full(c, "profiling/rate", "50", 0, "remote", false), -EINVAL);
	assert_int_equal(apply_full(c, "profiling/rate", "50", 0, "", false), -EINVAL);

	g.prefix = "profiling/rate";
	assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
	assert_int_equal(reply->config->n_values, 1);
	assert_string_equal(reply->config->values[0]->value, "49");
	assert_string_equal(reply->config->values[0]->layer, "local");
	assert_string_equal(reply->config->values[0]->origin, "odictl (uid 0)");
	assert_false(reply->config->values[0]->is_default);
	g.prefix = "";
	assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
	config_schema(&settings);
	assert_int_equal(reply->config->n_values, settings);
	assert_int_equal(reply->config->revision, 1);

	assert_int_equal(CALL(c, get_history, GET_HISTORY, h), 0);
	assert_int_equal(reply->history->n_entries, 1);
	assert_string_equal(reply->history->entries[0]->user, "root");
	/* What a client says of itself is cleaned. */
	assert_string_equal(reply->history->entries[0]->reason, "set a?thing");
	assert_string_equal(reply->history->entries[0]->diff[0], "+profiling/rate = 49");
	assert_int_equal(strlen(reply->history->entries[0]->hash), 64);
	api_close(c);
}

/* An Apply of two settings whose values come by descriptor. */
static int apply_files_to(struct api_client *c, char *layer, const char *one, const char *other,
	uint32_t said, uint32_t first, size_t n_fds)
{
	Control__Request q = CONTROL__REQUEST__INIT;
	Control__Apply a = CONTROL__APPLY__INIT;
	Control__Change changes[2] = {CONTROL__CHANGE__INIT, CONTROL__CHANGE__INIT};
	Control__Change *list[] = {&changes[0], &changes[1]};
	int fds[16], r;

	for (size_t i = 0; i < n_fds; i++) {
		const char *text = i % 2 ? other : one;

		fds[i] = io_sealed_memfd("test", text, strlen(text));
		assert_true(fds[i] >= 0);
	}
	for (uint32_t i = 0; i < 2; i++) {
		changes[i].path = i ? "profiling/interval" : "profiling/rate";
		changes[i].what_case = CONTROL__CHANGE__WHAT_SET;
		changes[i].set = "";
		changes[i].descriptor = first + i;
	}
	a.layer = layer;
	a.changes = list;
	a.n_changes = 2;
	a.descriptors = said;
	q.verb_case = CONTROL__REQUEST__VERB_APPLY;
	q.apply = &a;
	api_reply_free(reply);
	reply = NULL;
	err.text[0] = 0;
	r = api_call_with(c, &q, fds, n_fds, &reply, &err);
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	return r;
}

static int apply_files(struct api_client *c, const char *one, const char *other, uint32_t said,
	uint32_t first, size_t n_fds)
{
	return apply_files_to(c, "local", one, other, said, first, n_fds);
}

static void assert_value(struct api_client *c, char *path, const char *value)
{
	Control__GetConfig g = CONTROL__GET_CONFIG__INIT;

	g.prefix = path;
	assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
	assert_string_equal(reply->config->values[0]->value, value);
}

static void test_descriptors(void **state)
{
	Control__GetConfig g = CONTROL__GET_CONFIG__INIT;
	struct api_client *c;

	must_start();
	c = must_connect();
	assert_int_equal(apply_files(c, "33", "7s", 2, 1, 2), 0);
	g.prefix = "profiling/interval";
	assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
	assert_string_equal(reply->config->values[0]->value, "7s");
	assert_int_equal(shared->forgotten, 1);
	/* One of them is not taken: nothing is changed, and what was kept is given up. */
	assert_int_equal(apply_files(c, "34", "wrong", 2, 1, 2), -EINVAL);
	assert_non_null(strstr(err.text, "is wrong"));
	assert_int_equal(shared->forgotten, 2);
	/* Others than were said. */
	assert_int_equal(apply_files(c, "35", "8s", 2, 2, 2), -EINVAL);
	assert_int_equal(apply_files(c, "35", "8s", 3, 1, 2), -EINVAL);
	api_close(c);
	c = must_connect();
	assert_int_equal(apply_files(c, "35", "8s", 0, 1, 0), -EINVAL);
	assert_int_equal(apply_files(c, "35", "8s", UINT32_MAX, 1, 2), -EINVAL);
	api_close(c);
	still_serves();
	c = must_connect();
	g.prefix = "profiling/rate";
	assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
	assert_string_equal(reply->config->values[0]->value, "33");
	api_close(c);
}

static size_t server_fds(void)
{
	char folder_of[64];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(folder_of, sizeof(folder_of), "/proc/%d/fd", (int)server);
	d = opendir(folder_of);
	assert_non_null(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* What came with a request that did not take it is nobody's: the next one has its own. */
static void test_descriptors_of_the_refused(void **state)
{
	Control__GetStatus g = CONTROL__GET_STATUS__INIT;
	Control__Request status = CONTROL__REQUEST__INIT;
	struct api_client *c;
	size_t before;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	must_start();
	c = must_connect();
	assert_int_equal(get_status(c), 0);
	before = server_fds();
	/* Refused before it was looked at; more than it speaks of; fewer; beside what takes none. */
	assert_int_equal(apply_files_to(c, "files", "41", "9s", 2, 1, 2), -EINVAL);
	assert_int_equal(server_fds(), before);
	assert_int_equal(apply_files(c, "33", "7s", 2, 1, 2), 0);
	assert_value(c, "profiling/rate", "33");
	assert_value(c, "profiling/interval", "7s");
	assert_int_equal(apply_files(c, "42", "11s", 2, 1, 16), 0);
	assert_int_equal(apply_files(c, "34", "8s", 2, 1, 2), 0);
	assert_value(c, "profiling/rate", "34");
	assert_int_equal(apply_files(c, "43", "12s", 3, 1, 2), -EINVAL);
	status.verb_case = CONTROL__REQUEST__VERB_GET_STATUS;
	status.get_status = &g;
	api_reply_free(TAKE_PTR(reply));
	assert_int_equal(api_call_with(c, &status, &fd, 1, &reply, &err), 0);
	assert_int_equal(server_fds(), before);
	assert_int_equal(apply_files(c, "35", "9s", 2, 1, 2), 0);
	assert_value(c, "profiling/rate", "35");
	assert_value(c, "profiling/interval", "9s");
	/* As often as anybody likes. */
	for (int i = 0; i < 40; i++)
		assert_int_equal(apply_files_to(c, "files", "44", "13s", 0, 1, 16), -EINVAL);
	assert_int_equal(server_fds(), before);
	api_close(c);
	close(fd);
}

static void pack_apply(struct buf *out, uint64_t id, char *layer, char *setting)
{
	Control__Request q = CONTROL__REQUEST__INIT;
	Control__Apply a = CONTROL__APPLY__INIT;
	Control__Change change = CONTROL__CHANGE__INIT, *list = &change;

	change.path = setting;
	change.what_case = CONTROL__CHANGE__WHAT_SET;
	change.set = "";
	change.descriptor = 1;
	a.layer = layer;
	a.changes = &list;
	a.n_changes = 1;
	a.descriptors = 1;
	q.id = id;
	q.verb_case = CONTROL__REQUEST__VERB_APPLY;
	q.apply = &a;
	assert_int_equal(api_frame_pack(&q.base, API_MAX_REQUEST, out), 0);
}

static void put_with(int fd, const struct buf *b, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(CONTROL_MAX_FDS * sizeof(int))];
	} control = {};
	struct iovec v = {b->data, b->len};
	struct msghdr m = {.msg_iov = &v,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(n_fds * sizeof(*fds))};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n_fds * sizeof(*fds));
	memcpy(CMSG_DATA(h), fds, n_fds * sizeof(*fds));
	assert_int_equal(sendmsg(fd, &m, MSG_NOSIGNAL), b->len);
}

/* Two requests that come at once, with the descriptors of both: that of the refused one goes with it. */
static void test_descriptors_of_two(void **state)
{
	static const char *const values[] = {"45", "46"};
	_cleanup_buf_ struct buf out;
	struct api_client *c;
	int fds[2], fd;

	must_start();
	fd = raw();
	buf_init(&out, 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = io_sealed_memfd("test", values[i], strlen(values[i]));
		assert_true(fds[i] >= 0);
	}
	buf_add(&out, HELLO, sizeof(HELLO) - 1);
	pack_apply(&out, 1, "files", "profiling/rate");
	pack_apply(&out, 2, "local", "profiling/rate");
	put_with(fd, &out, fds, ARRAY_SIZE(fds));
	put(fd, "\0\0\0\x01\xff",
		5); /* no request: what is before it is answered, and then it is closed */
	closes_with(fd, "not a request");
	c = must_connect();
	assert_value(c, "profiling/rate", "46");
	api_close(c);
	close(fds[0]);
	close(fds[1]);
}

/* More than a connection may have waiting for requests that are not whole. */
static void test_descriptors_too_many(void **state)
{
	_cleanup_buf_ struct buf out;
	struct api_client *c;
	int fds[CONTROL_MAX_FDS], null = open("/dev/null", O_RDONLY | O_CLOEXEC), fd;
	size_t before;

	must_start();
	c = must_connect();
	assert_int_equal(get_status(c), 0);
	before = server_fds();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = null;
	buf_init(&out, 0);
	buf_add(&out, HELLO "\0\0\1\0\xff", sizeof(HELLO) + 4);
	fd = raw();
	put_with(fd, &out, fds, ARRAY_SIZE(fds));
	out.len = 1;
	put_with(fd, &out, fds, 1);
	assert_null(last_words(fd));
	assert_int_equal(get_status(c), 0);
	assert_int_equal(shared->connections, 1);
	assert_int_equal(server_fds(), before);
	api_close(c);
	close(null);
}

static void test_secrets_stay(void **state)
{
	Control__Apply a = CONTROL__APPLY__INIT;
	Control__Change changes[3], *list[3];
	static const char *const paths[] = {"destinations/p/type", "destinations/p/options/url",
		"destinations/p/options/token"};
	static const char *const values[] = {
		"pyroscope", "http://p:4040", "secret:00112233445566778899aabbccddeeff"};
	Control__GetConfig g = CONTROL__GET_CONFIG__INIT;
	struct api_client *c;

	must_start();
	c = must_connect();
	for (int i = 0; i < 3; i++) {
		control__change__init(&changes[i]);
		changes[i].path = (char *)paths[i];
		changes[i].what_case = CONTROL__CHANGE__WHAT_SET;
		changes[i].set = (char *)values[i];
		list[i] = &changes[i];
	}
	a.layer = "local";
	a.changes = list;
	a.n_changes = 3;
	assert_int_equal(CALL(c, apply, APPLY, a), 0);
	for (size_t i = 0; i < reply->applied->n_diff; i++)
		assert_null(strstr(reply->applied->diff[i], "00112233"));
	g.prefix = "destinations/p/options/token";
	assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
	assert_string_equal(reply->config->values[0]->value, "(secret)");
	/* A change that says nothing, and one that says to keep. */
	control__change__init(&changes[0]);
	changes[0].path = "profiling/rate";
	a.n_changes = 1;
	assert_int_equal(CALL(c, apply, APPLY, a), -EINVAL);
	changes[0].what_case = CONTROL__CHANGE__WHAT_REMOVE;
	changes[0].remove = false;
	assert_int_equal(CALL(c, apply, APPLY, a), -EINVAL);
	api_close(c);
}

/* An answer lists so many findings, and says how many there are beyond. */
static void test_check_files(void **state)
{
	Control__Apply a = CONTROL__APPLY__INIT;
	Control__CheckFiles q = CONTROL__CHECK_FILES__INIT;
	_cleanup_buf_ struct buf text;
	struct api_client *c;

	must_start();
	c = must_connect();
	buf_init(&text, 0);
	buf_str(&text, "sources:\n");
	for (int i = 0; i < 1000; i++)
		buf_printf(&text, "  - {name: s%d, kind: process, match: x, enabled: false}\n", i);
	buf_str(&text, "host:\n  labels:\n");
	for (int i = 0; i < 60; i++)
		buf_printf(&text, "    l%d: x\n", i);
	buf_add(&text, "", 1);
	a.layer = "local";
	a.document_name = "all.yaml";
	a.document = (char *)text.data;
	if (CALL(c, apply, APPLY, a) < 0)
		fail_msg("%s", err.text);
	/* Each of them was set before, which is worth a line. */
	q.document_name = "/etc/odi/agentd.yaml";
	q.document = (char *)text.data;
	assert_int_equal(CALL(c, check_files, CHECK_FILES, q), 0);
	assert_int_equal(reply->files_checked->n_findings, 1000);
	assert_int_equal(reply->files_checked->more, 60);
	for (size_t i = 0; i < 1000; i++)
		assert_true(reply->files_checked->findings[i]->warning);
	q.document = "host:\n  labels:\n    l1: y\n";
	assert_int_equal(CALL(c, check_files, CHECK_FILES, q), 0);
	assert_int_equal(reply->files_checked->n_findings, 1);
	assert_int_equal(reply->files_checked->more, 0);
	api_close(c);
}

static void test_verbs(void **state)
{
	Control__GetDestinationTypes t = CONTROL__GET_DESTINATION_TYPES__INIT;
	Control__GetSourceKinds k = CONTROL__GET_SOURCE_KINDS__INIT;
	Control__RunQuery q = CONTROL__RUN_QUERY__INIT;
	Control__GetDestinations d = CONTROL__GET_DESTINATIONS__INIT;
	struct api_client *c;

	must_start();
	c = must_connect();
	/* The kernel's EPERM is not the caller's. */
	assert_int_equal(CALL(c, get_destination_types, GET_DESTINATION_TYPES, t), -EOPNOTSUPP);
	assert_string_equal(err.text, "the kernel said no");
	/* One that is not there. */
	assert_int_equal(CALL(c, get_source_kinds, GET_SOURCE_KINDS, k), -EOPNOTSUPP);
	assert_int_equal(CALL(c, run_query, RUN_QUERY, q), 0);
	for (uint64_t i = 1; i <= 5; i++) {
		assert_int_equal(reply->query_part->total_ns, i);
		assert_int_equal(reply->final, i == 5);
		api_reply_free(TAKE_PTR(reply));
		assert_int_equal(api_next(c, 60000, &reply, &err), 0);
	}
	assert_null(reply);
	/* Later, from the loop. */
	assert_int_equal(CALL(c, get_destinations, GET_DESTINATIONS, d), 0);
	assert_false(reply->final);
	/* Just under the bound of a reply, and past it. */
	assert_int_equal(get_sources(c, "16777100"), 0);
	assert_int_equal(strlen(reply->sources->sources[0]->match), 16777100);
	assert_int_equal(get_sources(c, "16777300"), -EIO);
	assert_non_null(strstr(err.text, "larger than a reply"));
	assert_int_equal(get_status(c), 0);
	api_close(c);
}

static bool one_cancelled(struct api_client *c)
{
	return shared->cancelled == 1;
}
static bool two_cancelled(struct api_client *c)
{
	return shared->cancelled == 2;
}
static bool late_sent(struct api_client *c)
{
	return shared->late_sent == 1;
}
static bool two_candidates(struct api_client *c)
{
	return shared->candidates == 2;
}
static bool one_destinations(struct api_client *c)
{
	return shared->destinations == 1;
}

static void test_cancel(void **state)
{
	/* {id 5, get_candidates}, {id 6, cancel 5}, {id 7, get_status} */
	static const char bytes[] =
		HELLO "\0\0\0\x04\x08\x05\x3a\x00"
		      "\0\0\0\x06\x08\x06\x12\x02\x08\x05"
		      "\0\0\0\x06\x08\x07\x12\x02\x08\x63" /* cancel 99: nothing */
		      "\0\0\0\x04\x08\x08\x22\x00";
	Control__GetDestinations d = CONTROL__GET_DESTINATIONS__INIT;
	Control__Reply *last;
	int fd;

	must_start();
	fd = raw();
	put(fd, bytes, sizeof(bytes) - 1);
	wait_for(one_cancelled, NULL);
	shutdown(fd, SHUT_WR);
	last = last_words(fd);
	assert_int_equal(last->id, 8);
	/* This unpacked GetConfig: all verbs were answered in order. */
	assert_int_equal(last->body_case, CONTROL__REPLY__BODY_CONFIG);
	api_reply_free(last);
	/* A client that goes away is a cancellation as well. */
	fd = raw();
	put(fd, bytes, 4 + 2 + 8);
	wait_for(two_candidates, NULL);
	close(fd);
	wait_for(two_cancelled, NULL);
	/* And where the handler is not told, its late answer goes nowhere. */
	{
		struct api_client *c = must_connect();
		Control__Request q = CONTROL__REQUEST__INIT;
		_cleanup_buf_ struct buf b;

		buf_init(&b, 0);
		q.id = 1;
		q.verb_case = CONTROL__REQUEST__VERB_GET_DESTINATIONS;
		q.get_destinations = &d;
		api_frame_pack(&q.base, API_MAX_REQUEST, &b);
		put(api_fd(c), b.data, b.len);
		wait_for(one_destinations, NULL);
		api_close(c);
	}
	wait_for(late_sent, NULL);
	still_serves();
}

/* ---- who ---- */

/* Connects as another user: 0 when it answered what was expected. */
static void as_user(gid_t group, int (*test)(void))
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		gid_t groups[] = {NOBODY, group};

		if (setgroups(group ? 2 : 1, groups) < 0 || setgid(NOBODY) < 0 ||
			setuid(NOBODY) < 0)
			_exit(99);
		_exit(test());
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int is_refused(void)
{
	struct api_client *c = NULL;

	if (api_connect(&c, path, &err) != -EACCES)
		return 1;
	return strstr(err.text, "group odi") ? 0 : 2;
}

static int may_view(void)
{
	struct api_client *c = NULL;
	Control__TestDestination t = CONTROL__TEST_DESTINATION__INIT;

	if (api_connect(&c, path, &err) < 0)
		return 1;
	if (!streq(api_hello(c)->access, "view") || get_status(c) != 0)
		return 2;
	if (apply(c, "profiling/rate", "7") != -EACCES || !strstr(err.text, "odi-view"))
		return 3;
	if (apply_full(c, "profiling/rate", "7", 0, "local", true) != -EACCES)
		return 4;
	return CALL(c, test_destination, TEST_DESTINATION, t) == -EACCES ? 0 : 5;
}

static int may_change(void)
{
	struct api_client *c = NULL;

	if (api_connect(&c, path, &err) < 0)
		return 1;
	if (!streq(api_hello(c)->access, "change"))
		return 2;
	return apply(c, "profiling/rate", "11") == 0 ? 0 : 3;
}

/* Sends before it reads: its bytes are not looked at, and the refusal still arrives. */
static int refused_with_bytes(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	const uint8_t *payload;
	uint8_t data[4096];
	Control__Hello *h;
	size_t len;
	ssize_t n;

	strcpy(a.sun_path, path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return 1;
	send(fd, HELLO "\0\0\0\x04\x08\x05\x22\x00", 14, MSG_NOSIGNAL);
	n = recv(fd, data, sizeof(data), 0);
	if (n <= 0 || api_frame_find(data, (size_t)n, API_MAX_REPLY, &payload, &len) != n)
		return 2;
	h = control__hello__unpack(NULL, len, payload);
	if (!h || !streq(h->access, "none") || h->refusal_code != CONTROL__CODE__PERMISSION)
		return 3;
	return recv(fd, data, sizeof(data), 0) <= 0 ? 0 : 4;
}

static void test_access(void **state)
{
	Control__GetHistory h = CONTROL__GET_HISTORY__INIT;
	struct api_client *c;

	must_start();
	as_user(0, is_refused);
	as_user(0, refused_with_bytes);
	as_user(GID_VIEW + 1, is_refused);
	as_user(GID_VIEW, may_view);
	as_user(GID_CHANGE, may_change);
	c = must_connect();
	assert_int_equal(CALL(c, get_history, GET_HISTORY, h), 0);
	assert_int_equal(reply->history->n_entries, 1);
	assert_int_equal(reply->history->entries[0]->uid, NOBODY);
	api_close(c);
}

static void test_access_rules(void **state)
{
	struct control_server s = {.change_gid = 10, .view_gid = 20};
	struct control_server none = {.change_gid = (gid_t)-1, .view_gid = (gid_t)-1};
	gid_t both[] = {5, 20, 10}, bad[] = {(gid_t)-1};

	assert_int_equal(control_access(&s, 0, 0, NULL, 0), 1);
	assert_int_equal(control_access(&s, 1000, 10, NULL, 0), 1);
	assert_int_equal(control_access(&s, 1000, 20, NULL, 0), 0);
	assert_int_equal(control_access(&s, 1000, 30, both, 1), -EACCES);
	assert_int_equal(control_access(&s, 1000, 30, both, 2), 0);
	assert_int_equal(control_access(&s, 1000, 30, both, 3), 1);
	/* A group that does not exist is nobody's. */
	assert_int_equal(control_access(&none, 1000, (gid_t)-1, bad, 1), -EACCES);
	assert_int_equal(control_access(&none, 0, 0, NULL, 0), 1);
}

static int fills_up(void)
{
	struct api_client *c = NULL;

	for (int i = 0; i < 3; i++)
		if (api_connect(&c, path, &err) < 0)
			return 10 + i;
	if (api_connect(&c, path, &err) != -EBUSY || !strstr(err.text, "too many connections"))
		return 1;
	return 0;
}

static void test_many_connections(void **state)
{
	struct api_client *c[3], *one = NULL;

	limits.connections_uid = 3;
	must_start();
	for (int i = 0; i < 3; i++)
		c[i] = must_connect();
	assert_int_equal(api_connect(&one, path, &err), -EBUSY);
	/* Another user is not concerned. */
	as_user(GID_CHANGE, fills_up);
	api_close(c[0]);
	for (int i = 0; i < 6000 && api_connect(&one, path, &err) < 0; i++)
		usleep(10000);
	assert_non_null(one);
	assert_int_equal(get_status(one), 0);
	api_close(one);
	api_close(c[1]);
	api_close(c[2]);
}

static int exceeds_all(void)
{
	struct api_client *c = NULL;

	for (int i = 0; i < 4; i++)
		if (api_connect(&c, path, &err) < 0)
			return 10 + i;
	if (api_connect(&c, path, &err) != -EBUSY)
		return 1;
	/* Held while the parent looks. */
	shared->held = 4;
	for (int i = 0; i < 6000 && shared->held; i++)
		usleep(10000);
	return 0;
}

static bool all_held(struct api_client *c)
{
	return shared->held == 4;
}

static void test_room_for_root(void **state)
{
	pid_t pid;
	int status;

	limits.connections = 4;
	must_start();
	pid = fork();
	if (pid == 0) {
		gid_t group = GID_VIEW;

		if (setgroups(1, &group) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(99);
		_exit(exceeds_all());
	}
	for (int i = 0; i < 6000 && !all_held(NULL) && waitpid(pid, &status, WNOHANG) == 0; i++)
		usleep(10000);
	assert_true(all_held(NULL));
	still_serves();
	shared->held = 0;
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void test_no_descriptors_left(void **state)
{
	int fds[64];

	shared->nofile = 24;
	must_start();
	for (int i = 0; i < 40; i++)
		fds[i] = raw();
	usleep(200000);
	for (int i = 0; i < 40; i++)
		close(fds[i]);
	/* It goes on by itself. */
	still_serves();
}

/* ---- hostile bytes ---- */

static void test_garbage(void **state)
{
	int fd;

	must_start();
	/* Not a frame at all: the length is judged by its four bytes. */
	fd = raw();
	put(fd, "GET / HTTP/1.1\r\n\r\n", 18);
	closes_with(fd, "longer than a request");
	/* Oversized by one. */
	fd = raw();
	put(fd, HELLO "\x00\x10\x00\x01", 10);
	closes_with(fd, "longer than a request");
	/* A frame that is no message. */
	fd = raw();
	put(fd, "\0\0\0\x02\xff\xff", 6);
	closes_with(fd, "not a Hello");
	fd = raw();
	put(fd, HELLO "\0\0\0\x03\xff\xff\xff", 13);
	closes_with(fd, "not a request");
	/* Another protocol; no protocol. */
	fd = raw();
	put(fd, "\0\0\0\x02\x08\x09", 6);
	closes_with(fd, "another protocol");
	fd = raw();
	put(fd, "\0\0\0\0", 4);
	closes_with(fd, "another protocol");
	/* An id that is 0, one that is in use, a verb that is not known. */
	fd = raw();
	put(fd, HELLO "\0\0\0\x02\x22\x00", 12);
	closes_with(fd, "id is 0");
	fd = raw();
	put(fd, HELLO "\0\0\0\x04\x08\x05\x3a\x00\0\0\0\x04\x08\x05\x3a\x00", 22);
	closes_with(fd, "not answered yet");
	fd = raw();
	put(fd, HELLO "\0\0\0\x05\x08\x05\x9a\x06\x00", 15);
	shutdown(fd, SHUT_WR);
	closes_with(fd, "does not know that request");
	/* Cut in the middle, at each byte. */
	for (size_t i = 0; i < 14; i++) {
		fd = raw();
		put(fd, HELLO "\0\0\0\x04\x08\x05\x3a\x00", i);
		close(fd);
	}
	still_serves();
}

static void test_random_bytes(void **state)
{
	uint8_t data[600];

	must_start();
	srand(7);
	for (int round = 0; round < 300; round++) {
		size_t len = (size_t)rand() % sizeof(data);
		int fd = raw();

		for (size_t i = 0; i < len; i++)
			data[i] = (uint8_t)rand();
		if (round % 2) {
			/* A plausible frame around it. */
			put(fd, HELLO, 6);
			put(fd, (uint8_t[]){0, 0, (uint8_t)(len >> 8), (uint8_t)len}, 4);
		}
		put(fd, data, len);
		close(fd);
	}
	still_serves();
}

/* Half a million changes in one frame: refused before they are memory. */
static void test_amplification(void **state)
{
	size_t inner = 1000000, total;
	uint8_t *frame = calloc(1, inner + 32), *p = frame + 4;
	int fd;

	must_start();
	*p++ = 0x08, *p++ = 0x01; /* id 1 */
	*p++ = 0x1a;              /* apply */
	*p++ = (uint8_t)(inner & 0x7f) | 0x80, *p++ = (uint8_t)(inner >> 7 & 0x7f) | 0x80,
	*p++ = (uint8_t)(inner >> 14);
	for (size_t i = 0; i < inner / 2; i++)
		*p++ = 0x12, *p++ = 0x00; /* an empty Change */
	total = (size_t)(p - frame) - 4;
	frame[1] = (uint8_t)(total >> 16), frame[2] = (uint8_t)(total >> 8),
	frame[3] = (uint8_t)total;
	fd = raw();
	put(fd, HELLO, 6);
	put(fd, frame, (size_t)(p - frame));
	closes_with(fd, "not a request");
	free(frame);
	still_serves();
}

static void test_silent_client(void **state)
{
	struct api_client *c;
	uint64_t before;
	int fd;

	limits.hello_ns = 2000 * NSEC_PER_MSEC;
	must_start();
	c = must_connect();
	before = clock_monotonic_ns();
	fd = raw();
	closes_with(fd, "no Hello came");
	assert_true(clock_monotonic_ns() - before >= 2000 * NSEC_PER_MSEC);
	/* One that greeted may be silent. */
	assert_int_equal(get_status(c), 0);
	api_close(c);
}

static void test_half_a_frame(void **state)
{
	Control__Reply *last;
	int fd;

	limits.frame_ns = 100 * NSEC_PER_MSEC;
	must_start();
	fd = raw();
	put(fd, HELLO "\0\0\0\x04\x08", 11);
	last = last_words(fd);
	assert_null(last);
	still_serves();
}

/* ---- slow clients ---- */

static bool nothing_waits(struct api_client *c)
{
	assert_int_equal(get_status(c), 0);
	return shared->out_bytes == 0 && shared->connections == 1;
}

/* Asks for a lot and reads nothing. */
static int greedy(unsigned requests, const char *bytes)
{
	int fd = raw();

	put(fd, HELLO, 6);
	for (unsigned i = 1; i <= requests; i++) {
		Control__Request q = CONTROL__REQUEST__INIT;
		Control__GetSources s = CONTROL__GET_SOURCES__INIT;
		_cleanup_buf_ struct buf b;

		buf_init(&b, 0);
		q.id = i;
		q.verb_case = CONTROL__REQUEST__VERB_GET_SOURCES;
		q.get_sources = &s;
		s.name = (char *)bytes;
		api_frame_pack(&q.base, API_MAX_REQUEST, &b);
		put(fd, b.data, b.len);
	}
	return fd;
}

static bool first_reply_waits(struct api_client *c)
{
	assert_int_equal(get_status(c), 0);
	return shared->out_bytes > 1000000; /* more than a Hello */
}

static void test_client_that_does_not_read(void **state)
{
	struct api_client *c;
	int fd;

	limits.stall_ns = 3000 * NSEC_PER_MSEC;
	must_start();
	c = must_connect();
	fd = greedy(3, "8000000");
	/* Meanwhile others are served; its queue is paused after the first reply. */
	wait_for(first_reply_waits, c);
	assert_int_equal(shared->connections, 2);
	assert_in_range(shared->out_bytes, 7000000, 8100000);
	wait_for(nothing_waits, c);
	close(fd);
	api_close(c);
}

static void test_queue_bound(void **state)
{
	struct api_client *c;
	int fd;

	limits.out_bytes = 1000000;
	must_start();
	c = must_connect();
	fd = greedy(1, "2000000");
	wait_for(nothing_waits, c);
	close(fd);
	api_close(c);
}

static bool three_wait(struct api_client *c)
{
	assert_int_equal(get_status(c), 0);
	return shared->connections == 4 && shared->out_bytes >= 8000000 &&
		shared->out_bytes <= 10 << 20;
}

static void test_bound_of_all_queues(void **state)
{
	struct pollfd closed = {.events = 0};
	struct api_client *c;
	int fds[4];

	limits.out_bytes_all = 10 << 20;
	must_start();
	c = must_connect();
	for (int i = 0; i < 4; i++)
		fds[i] = greedy(1, i == 1 ? "6000000" : "3000000");
	/* The one that held most is gone, the others are not. */
	closed.fd = fds[1];
	assert_int_equal(poll(&closed, 1, 60000), 1);
	assert_true(closed.revents & POLLHUP);
	wait_for(three_wait, c);
	for (int i = 0; i < 4; i++) {
		closed.fd = fds[i];
		assert_int_equal(poll(&closed, 1, 0), i == 1);
	}
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	api_close(c);
}

/* Many requests at once come back in order, though only a few are handled at a time. */
static void test_pipeline(void **state)
{
	_cleanup_buf_ struct buf b, got;
	unsigned n = 30000, seen = 0;
	size_t sent = 0, at = 0;
	bool hello = true;
	int fd;

	must_start();
	fd = raw();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	buf_init(&b, 0);
	buf_init(&got, 0);
	buf_add(&b, HELLO, 6);
	for (unsigned i = 1; i <= n; i++) {
		Control__Request q = CONTROL__REQUEST__INIT;
		Control__GetStatus s = CONTROL__GET_STATUS__INIT;

		q.id = i;
		q.verb_case = CONTROL__REQUEST__VERB_GET_STATUS;
		q.get_status = &s;
		api_frame_pack(&q.base, API_MAX_REQUEST, &b);
	}
	while (seen < n) {
		struct pollfd p = {.fd = fd, .events = POLLIN | (sent < b.len ? POLLOUT : 0)};
		const uint8_t *payload;
		ssize_t used;
		size_t len;

		assert_int_equal(poll(&p, 1, 60000), 1);
		if (p.revents & POLLOUT) {
			ssize_t k = send(fd, b.data + sent, b.len - sent, MSG_NOSIGNAL);

			sent += (size_t)MAX(k, 0);
		}
		if (p.revents & POLLIN) {
			void *to = buf_reserve(&got, 65536);
			ssize_t k = recv(fd, to, 65536, 0);

			assert_true(k > 0);
			buf_commit(&got, (size_t)k);
		}
		while ((used = api_frame_find(
				got.data + at, got.len - at, API_MAX_REPLY, &payload, &len)) > 0) {
			Control__Reply *r;

			at += (size_t)used;
			if (hello) {
				hello = false;
				continue;
			}
			r = control__reply__unpack(NULL, len, payload);
			assert_int_equal(r->id, ++seen);
			api_reply_free(r);
		}
	}
	close(fd);
	still_serves();
}

static bool four_cancelled(struct api_client *c)
{
	return shared->cancelled == 4;
}

static void test_in_flight(void **state)
{
	_cleanup_buf_ struct buf b;
	Control__Reply *last;
	int fd;

	limits.in_flight = 4;
	must_start();
	fd = raw();
	buf_init(&b, 0);
	buf_add(&b, HELLO, 6);
	for (unsigned i = 1; i <= 5; i++) {
		Control__Request q = CONTROL__REQUEST__INIT;
		Control__GetCandidates s = CONTROL__GET_CANDIDATES__INIT;

		q.id = i;
		q.verb_case = CONTROL__REQUEST__VERB_GET_CANDIDATES;
		q.get_candidates = &s;
		api_frame_pack(&q.base, API_MAX_REQUEST, &b);
	}
	put(fd, b.data, b.len);
	shutdown(fd, SHUT_WR);
	last = last_words(fd);
	assert_int_equal(last->id, 5);
	assert_int_equal(last->error->code, CONTROL__CODE__BUSY);
	api_reply_free(last);
	wait_for(four_cancelled, NULL);
}

/* ---- logs ---- */

static void test_logs(void **state)
{
	Control__GetLogs g = CONTROL__GET_LOGS__INIT;
	Control__TestDestination t = CONTROL__TEST_DESTINATION__INIT;
	struct api_client *c, *other;
	uint64_t last;

	must_start();
	c = must_connect();
	other = must_connect();
	assert_int_equal(apply(c, "profiling/rate", "49"), 0);
	assert_int_equal(CALL(c, get_logs, GET_LOGS, g), 0);
	assert_true(reply->final);
	assert_true(reply->logs->n_lines >= 1);
	assert_string_equal(reply->logs->lines[reply->logs->n_lines - 1]->text,
		"revision 1 by uid 0: set a?thing");
	g.level = LOG_LEVEL_ERROR;
	assert_int_equal(CALL(c, get_logs, GET_LOGS, g), 0);
	assert_int_equal(reply->logs->n_lines, 0);
	g.level = 0;
	g.lines = 1;
	g.follow = true;
	assert_int_equal(CALL(c, get_logs, GET_LOGS, g), 0);
	assert_false(reply->final);
	assert_int_equal(reply->logs->n_lines, 1);
	last = reply->logs->lines[0]->serial;
	for (int i = 0; i < 3; i++) {
		struct err_text e;

		assert_int_equal(CALL(other, test_destination, TEST_DESTINATION, t), 0);
		api_reply_free(TAKE_PTR(reply));
		assert_int_equal(api_next(c, 60000, &reply, &e), 0);
		assert_int_equal(reply->logs->n_lines, 1);
		assert_int_equal(reply->logs->lines[0]->serial, ++last);
		assert_string_equal(reply->logs->lines[0]->text, "a destination was tested");
	}
	api_close(c);
	assert_int_equal(CALL(other, test_destination, TEST_DESTINATION, t), 0);
	assert_int_equal(get_status(other), 0);
	api_close(other);
}

/* ---- races and sockets ---- */

static void test_two_clients_race(void **state)
{
	struct api_client *a, *b;
	int won[2] = {0, 0};

	must_start();
	a = must_connect();
	b = must_connect();
	assert_int_equal(apply(a, "profiling/rate", "100"), 0);
	for (uint64_t revision = 1; revision <= 20; revision++) {
		char one[16], two[16];
		struct api_client *first = revision % 2 ? a : b, *second = revision % 2 ? b : a;

		snprintf(one, sizeof(one), "%d", (int)(200 + revision));
		snprintf(two, sizeof(two), "%d", (int)(300 + revision));
		assert_int_equal(
			apply_full(first, "profiling/rate", one, revision, "local", false), 0);
		assert_int_equal(reply->applied->revision, revision + 1);
		assert_int_equal(
			apply_full(second, "profiling/rate", two, revision, "local", false),
			-ESTALE);
		won[revision % 2]++;
	}
	assert_int_equal(won[0] + won[1], 20);
	api_close(a);
	api_close(b);
}

/* Two processes at once, each adding its own: every one is there, none twice. */
static void test_processes_at_once(void **state)
{
	Control__GetHistory h = CONTROL__GET_HISTORY__INIT;
	struct api_client *c;
	pid_t pids[3];
	int status;

	must_start();
	for (int p = 0; p < 3; p++) {
		pids[p] = fork();
		if (pids[p] == 0) {
			struct api_client *mine = must_connect();

			for (int i = 0; i < 15; i++) {
				char name[48];

				snprintf(name, sizeof(name), "sources/p%d-%d/kind", p, i);
				if (apply(mine, name, "host") != 0)
					_exit(1);
			}
			_exit(0);
		}
	}
	for (int p = 0; p < 3; p++) {
		waitpid(pids[p], &status, 0);
		assert_int_equal(status, 0);
	}
	c = must_connect();
	assert_int_equal(CALL(c, get_history, GET_HISTORY, h), 0);
	assert_int_equal(reply->history->n_entries, 45);
	for (size_t i = 0; i < 45; i++)
		assert_int_equal(reply->history->entries[i]->revision, 45 - i);
	api_close(c);
}

static void test_server_killed(void **state)
{
	Control__GetConfig g = CONTROL__GET_CONFIG__INIT;
	struct api_client *c;
	char rate[16] = "";

	for (int round = 0; round < 5; round++) {
		must_start();
		c = must_connect();
		if (round) {
			g.prefix = "profiling/rate";
			assert_int_equal(CALL(c, get_config, GET_CONFIG, g), 0);
			assert_string_equal(reply->config->values[0]->value, rate);
		}
		snprintf(rate, sizeof(rate), "%d", 10 + round);
		assert_int_equal(apply(c, "profiling/rate", rate), 0);
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
		server = -1;
		assert_int_equal(get_status(c), -ECONNREFUSED);
		api_close(c);
	}
}

static void test_second_server(void **state)
{
	char words[64], other[96];
	pid_t first;

	must_start();
	first = server;
	snprintf(other, sizeof(other), "%s/other.db", folder);
	strcpy(db, other);
	assert_false(start_server());
	waitpid(server, NULL, 0);
	server = first;
	snprintf(words, sizeof(words), "(pid %d) answers on", (int)first);
	if (!strstr(said, words))
		fail_msg("\"%s\"", said);
	still_serves();
}

static void test_stale_socket(void **state)
{
	must_start();
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	assert_int_equal(access(path, F_OK), 0);
	must_start();
	still_serves();
}

static void test_other_file_in_the_way(void **state)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600), status;

	close(fd);
	assert_false(start_server());
	waitpid(server, &status, 0);
	server = -1;
	assert_non_null(strstr(said, "is not a socket"));
	assert_int_equal(access(path, F_OK), 0);
}

static void test_long_path(void **state)
{
	struct err_text e = {""};
	struct control_ops ops = {};
	struct control_server *s = NULL;
	sd_event *loop = NULL;
	char longer[200];
	int pair[2];

	assert_true(sd_event_new(&loop) >= 0);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(control_server_new(&s, loop, longer, -1, &ops, NULL, &e), -ENAMETOOLONG);
	/* What is handed over has to be a listening socket. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(control_server_new(&s, loop, path, pair[0], &ops, NULL, &e), -EINVAL);
	assert_int_equal(fcntl(pair[0], F_GETFD), -1);
	close(pair[1]);
	assert_null(s);
	sd_event_unref(loop);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_hello_and_status),
		TEST(test_apply),
		TEST(test_descriptors),
		TEST(test_descriptors_of_the_refused),
		TEST(test_descriptors_of_two),
		TEST(test_descriptors_too_many),
		TEST(test_secrets_stay),
		TEST(test_check_files),
		TEST(test_verbs),
		TEST(test_cancel),
		TEST(test_access),
		cmocka_unit_test(test_access_rules),
		TEST(test_many_connections),
		TEST(test_room_for_root),
		TEST(test_no_descriptors_left),
		TEST(test_garbage),
		TEST(test_random_bytes),
		TEST(test_amplification),
		TEST(test_silent_client),
		TEST(test_half_a_frame),
		TEST(test_client_that_does_not_read),
		TEST(test_queue_bound),
		TEST(test_bound_of_all_queues),
		TEST(test_pipeline),
		TEST(test_in_flight),
		TEST(test_logs),
		TEST(test_two_clients_race),
		TEST(test_processes_at_once),
		TEST(test_server_killed),
		TEST(test_second_server),
		TEST(test_stale_socket),
		TEST(test_other_file_in_the_way),
		TEST(test_long_path),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	api_reply_free(reply);
	return r;
}
