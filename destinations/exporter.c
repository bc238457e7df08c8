/* SPDX-License-Identifier: Apache-2.0 */

/* The exporter: the only role that talks to the network.
 *
 * It gets its destinations and batches from agentd as sealed memfds, delivers, and says how far it is; and where an
 * administrator allowed it, it fetches debug files into descriptors of agentd's (fetch.c). It holds no
 * capability, is nobody, has an empty environment, and calls nothing that is not on its list below; it can read
 * files that everybody can read (resolv.conf, hosts, nsswitch.conf, the list of authorities), because resolving names
 * and checking certificates takes that. It is trusted with profiles and with secrets of destinations, and with nothing
 * else: agentd checks every count it gives.
 *
 * One loop: messages of agentd and all transfers wait in transport_wait(). Nothing in it blocks but the socket to
 * agentd, which always reads. When agentd is gone the socket ends and so does this process: what waits here agentd
 * has, too, or has lost itself.
 *
 * Source: seccomp(2). `--role exporter`. */

#include <poll.h>
#include <sys/syscall.h>

#include "agentd/base/clock.h"
#include "agentd/base/compress.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/base/text.h"
#include "destinations/deliver.h"
#include "destinations/fetch.h"
#include "destinations/link.h"

#define MAX_TESTS   16
#define MAX_WAIT_MS 60000

/* What libcurl, OpenSSL and the resolver call, on the kernels and architectures that there are. Modules of the name
 * service switch are loaded when a name is first resolved: executable mappings of files, sockets of other daemons. */
static const int syscalls[] = {
	/* files, for reading */
	SYS_read, SYS_readv, SYS_pread64, SYS_write, SYS_writev, SYS_close, SYS_openat, SYS_fstat,
	SYS_newfstatat, SYS_statx, SYS_lseek, SYS_faccessat, SYS_faccessat2, SYS_readlinkat,
	SYS_getdents64, SYS_fcntl, SYS_ioctl, SYS_dup, SYS_getcwd, SYS_fadvise64, SYS_fstatfs,
	SYS_statfs, SYS_sync_file_range, SYS_fdatasync,
#ifdef SYS_open
	SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_poll, SYS_select, SYS_pipe,
	SYS_epoll_wait, SYS_epoll_create, SYS_time, SYS_getrlimit, SYS_eventfd, SYS_arch_prctl,
#endif
	/* memory, threads (the resolver's), signals */
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk, SYS_futex, SYS_clone,
	SYS_clone3, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_set_tid_address,
	SYS_membarrier, SYS_sched_yield, SYS_sched_getaffinity, SYS_sigaltstack, SYS_rt_sigaction,
	SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_getpriority, SYS_sched_getparam,
	SYS_sched_getscheduler, SYS_prctl,
	/* the network */
	SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_sendto, SYS_recvfrom, SYS_sendmsg,
	SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown, SYS_getsockopt, SYS_setsockopt,
	SYS_getsockname, SYS_getpeername, SYS_ppoll, SYS_pselect6, SYS_pipe2, SYS_eventfd2,
	SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
	/* facts and time */
	SYS_getrandom, SYS_uname, SYS_sysinfo, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
	SYS_getppid, SYS_prlimit64, SYS_getrusage, SYS_clock_getres, SYS_clock_nanosleep,
	SYS_nanosleep, SYS_gettimeofday, SYS_times, SYS_timerfd_create, SYS_timerfd_settime, -1};

static const struct sandbox_policy policy = {
	.name = "exporter",
	.syscalls = syscalls,
	.exec_mappings = true, /* modules of the name service switch */
	.uid = 65534,
	.gid = 65534,
	.nofile = 1024,
	.nproc = 512, /* of all that runs as nobody: a thread for each name being resolved */
	.fsize = RLIM_INFINITY, /* lines of the log may go to a file */
	.data = 768UL << 20,    /* a batch of 64 MB, decoded and encoded, at the worst */
	.as = RLIM_INFINITY,
	.cpu_s = RLIM_INFINITY,
};

struct test {
	bool used;
	uint64_t id;
	const struct transport *transport;
	struct sender *sender;
	struct buf body;
};

static struct {
	struct deliver *destinations[2 * PROTOCOL_DESTINATIONS]; /* those that leave among them */
	size_t n_destinations;
	struct test tests[MAX_TESTS];
	uint64_t queue_bytes;
} x;

/* A socket that agentd does not read is as good as none. */
static void tell(const void *message, size_t len)
{
	int r = fdpass_send(SANDBOX_FD, message, len, NULL, 0);

	if (r == 0)
		return;
	if (r != -EPIPE)
		log_error("cannot tell agentd: %s", strerrordesc_np(-r));
	_exit(EXIT_FAILURE);
}

/* ---- configuration ------------------------------------------------------------------------------- */

static struct deliver *find(uint32_t id)
{
	for (size_t i = 0; i < x.n_destinations; i++)
		if (deliver_id(x.destinations[i]) == id)
			return x.destinations[i];
	return NULL;
}

static int configure_one(const struct destination_spec *spec)
{
	struct deliver *d = find(spec->id);
	int r;

	if (d)
		return deliver_configure(d, spec, x.queue_bytes);
	if (x.n_destinations == ARRAY_SIZE(x.destinations))
		return -ENOSPC;
	r = deliver_new(&d, spec, tell);
	if (r < 0)
		return r;
	x.destinations[x.n_destinations++] = d;
	return deliver_configure(d, spec, x.queue_bytes);
}

/* The bytes of a memfd, ended by NUL. */
static int read_memfd(int fd, size_t max, struct buf *out)
{
	size_t size;
	int r = io_check_sealed(fd, max, &size);

	if (r == 0 && size == 0)
		return 0;
	if (r == 0 && !buf_reserve(out, size + 1))
		r = -ENOMEM;
	if (r == 0)
		r = io_pread_all(fd, out->data, size, 0);
	if (r < 0)
		return r;
	out->len = size;
	out->data[size] = 0;
	return 0;
}

static int on_config(const struct message_config *m, int fd)
{
	_cleanup_buf_ struct buf bytes;
	struct destination_spec *specs = NULL;
	size_t n = 0;
	int r;

	buf_init(&bytes, PROTOCOL_CONFIG_MAX + 1);
	r = read_memfd(fd, PROTOCOL_CONFIG_MAX, &bytes);
	if (r == 0)
		r = protocol_get_specs((const char *)bytes.data, bytes.len, &specs, &n);
	if (r < 0)
		return r;
	x.queue_bytes = m->queue_bytes;
	for (size_t i = 0; i < x.n_destinations; i++) {
		bool stays = false;

		for (size_t k = 0; k < n; k++)
			stays |= specs[k].id == deliver_id(x.destinations[i]);
		if (!stays)
			deliver_leave(x.destinations[i]);
	}
	for (size_t k = 0; k < n && r == 0; k++)
		r = configure_one(&specs[k]);
	protocol_free_specs(specs, n);
	return r;
}

/* ---- batches ------------------------------------------------------------------------------------- */

/* A route to a destination that is not here any more, or for which there is no memory. */
static void refuse_route(const struct message_batch *m, const struct message_route *route)
{
	struct message_answer a = {
		.header = protocol_header(MESSAGE_ANSWER, sizeof(a)),
		.id = m->id,
		.destination = route->destination,
		.final = 1,
		.row = route->row,
		.counts = route->counts,
	};

	for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
		uint64_t settled = 0;

		for (size_t f = 0; f < FATES; f++)
			settled += route->counts.samples[f][t];
		a.counts.samples[FATE_EVICTED][t] += m->batch.samples[t] - settled;
	}
	tell(&a, sizeof(a));
}

static int on_batch(const struct message_batch *m, size_t len, int fd)
{
	struct message_held held = {
		.header = protocol_header(MESSAGE_HELD, sizeof(held)), .id = m->id};
	struct held_batch *b = NULL;
	int r;

	if (len != sizeof(*m) + m->n_routes * sizeof(m->routes[0]))
		return -EBADMSG;
	r = held_batch_new(&b, m->id, &m->batch, fd);
	if (r == -EBADMSG)
		return r;
	tell(&held, sizeof(held));
	for (size_t i = 0; i < m->n_routes; i++) {
		const struct message_route *route = &m->routes[i];
		struct deliver *d = b ? find(route->destination) : NULL;

		if (!d || deliver_push(d, b, route->row, &route->counts) < 0)
			refuse_route(m, route);
	}
	held_batch_unref(b);
	return 0;
}

/* ---- tests --------------------------------------------------------------------------------------- */

static void test_end(struct test *t, struct message_test_result *m)
{
	m->header = protocol_header(MESSAGE_TEST_RESULT, sizeof(*m));
	m->id = t->id;
	if (t->sender)
		snprintf(m->endpoint, sizeof(m->endpoint), "%s", t->transport->endpoint(t->sender));
	tell(m, sizeof(*m));
	if (t->sender)
		t->transport->close(t->sender);
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
	const struct destination_type *type = destination_type_find(spec->type);
	_cleanup_free_ struct option_value *options = NULL;
	char timeout[32];
	const void *body;
	size_t n, len;
	int r;

	t->transport = type ? transport_find(type->transport) : NULL;
	if (!t->transport)
		return err_set(err, -EINVAL, "there is no destination type %.80s", spec->type);
	/* A little before agentd stops waiting, so that there is a reason to give. */
	snprintf(timeout, sizeof(timeout), "%ums",
		deadline_ms > 1000 ? deadline_ms - 500 : MAX(deadline_ms / 2, 1U));
	options = test_options(type, spec, timeout, &n);
	if (!options)
		return err_set(err, -ENOMEM, "out of memory");
	r = t->transport->open(&t->sender, type, options, n, err);
	if (r < 0)
		return r;
	buf_init(&t->body, 1 << 20);
	r = profile_encode_empty("odi", clock_unix_ns(), &t->body);
	body = t->body.data;
	len = t->body.len;
	if (r == 0 && t->transport->packs(t->sender)) {
		_cleanup_buf_ struct buf raw = t->body;

		buf_init(&t->body, 1 << 20);
		r = compress_gzip(raw.data, raw.len, 6, &t->body);
		body = t->body.data;
		len = t->body.len;
	}
	if (r == 0)
		r = t->transport->send(t->sender, body, len, on_tested, t);
	return r < 0 ? err_set(err, r, "the request could not be made: %s", strerrordesc_np(-r))
		     : 0;
}

static int on_test(const struct message_test *m, int fd)
{
	_cleanup_buf_ struct buf bytes;
	struct destination_spec *specs = NULL;
	struct test none = {.id = m->id}, *t = &none;
	struct err_text err = {};
	size_t n = 0;
	int r;

	buf_init(&bytes, PROTOCOL_CONFIG_MAX + 1);
	r = read_memfd(fd, PROTOCOL_CONFIG_MAX, &bytes);
	if (r == 0)
		r = protocol_get_specs((const char *)bytes.data, bytes.len, &specs, &n);
	if (r == 0 && n != 1)
		r = -EBADMSG;
	for (size_t i = 0; i < MAX_TESTS && t == &none; i++)
		if (!x.tests[i].used)
			t = &x.tests[i];
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

/* ---- the loop ------------------------------------------------------------------------------------ */

/* Borrows *fd, but for what takes it. */
static int on_message(const void *message, size_t len, int *fd)
{
	const struct message_header *h = message;
	struct message_ping pong;

	if (len < sizeof(*h))
		return -EBADMSG;
	if (protocol_check(message, len, MESSAGE_CONFIG, sizeof(struct message_config)) == 0)
		return on_config(message, *fd);
	if (protocol_check(message, len, MESSAGE_BATCH, 0) == 0 &&
		len >= sizeof(struct message_batch))
		return on_batch(message, len, *fd);
	if (protocol_check(message, len, MESSAGE_TEST, sizeof(struct message_test)) == 0)
		return on_test(message, *fd);
	if (protocol_check(message, len, MESSAGE_FETCH, sizeof(struct message_fetch)) == 0)
		return fetch_start(message, TAKE_FD(*fd), tell);
	if (protocol_check(message, len, MESSAGE_FETCH_STOP, sizeof(struct message_fetch_stop)) ==
		0) {
		fetch_stop(((const struct message_fetch_stop *)message)->id);
		return 0;
	}
	if (protocol_check(message, len, MESSAGE_PING, sizeof(struct message_ping)) == 0) {
		memcpy(&pong, message, sizeof(pong));
		pong.header = protocol_header(MESSAGE_PONG, sizeof(pong));
		tell(&pong, sizeof(pong));
		return 0;
	}
	return -EBADMSG;
}

/* All messages that are there. 1: agentd is gone. */
static int read_messages(void)
{
	static union {
		struct message_header header;
		uint64_t align;
		uint8_t bytes[FDPASS_MAX_MESSAGE];
	} message;

	for (;;) {
		struct pollfd p = {.fd = SANDBOX_FD, .events = POLLIN};
		_cleanup_close_ int fd = -1;
		size_t n_fds = 1;
		ssize_t len;
		int r;

		if (poll(&p, 1, 0) <= 0)
			return 0;
		len = fdpass_recv(SANDBOX_FD, message.bytes, sizeof(message), &fd, &n_fds);
		if (len == 0)
			return 1;
		r = len < 0 ? (int)len : on_message(message.bytes, (size_t)len, &fd);
		if (r < 0) {
			log_error("a message of agentd cannot be used: %s", strerrordesc_np(-r));
			return r;
		}
	}
}

/* Every destination has its turn. Milliseconds until the next one. */
static unsigned run(void)
{
	uint64_t now = clock_monotonic_ns(), wake = now + MAX_WAIT_MS * NSEC_PER_MSEC;

	for (size_t i = 0; i < x.n_destinations;) {
		deliver_run(x.destinations[i], now, &wake);
		if (deliver_gone(x.destinations[i])) {
			deliver_free(x.destinations[i]);
			x.destinations[i] = x.destinations[--x.n_destinations];
		} else {
			i++;
		}
	}
	held_batch_settle();
	now = clock_monotonic_ns();
	return wake <= now ? 0 : (unsigned)((wake - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

static void deinit(void)
{
	for (size_t i = 0; i < x.n_destinations; i++)
		deliver_free(x.destinations[i]);
	for (size_t i = 0; i < MAX_TESTS; i++) {
		if (x.tests[i].sender)
			x.tests[i].transport->close(x.tests[i].sender);
		buf_deinit(&x.tests[i].body);
	}
	fetch_deinit();
	transport_deinit();
}

int exporter_main(void)
{
	struct err_text err = {};
	int r;

	/* libc's resolver would try for half a minute and more; requests are tried again anyway. */
	setenv("RES_OPTIONS", "timeout:2 attempts:2", 1);
	r = transport_init();
	if (r < 0)
		log_error("libcurl cannot be used");
	if (r == 0)
		r = sandbox_enter(&policy, &err);
	if (r < 0) {
		log_error("%s", err.text);
		return r;
	}
	for (;;) {
		bool readable;

		r = transport_wait(SANDBOX_FD, run(), &readable);
		if (r == 0 && readable)
			r = read_messages();
		if (r != 0)
			break;
	}
	deinit();
	return MIN(r, 0);
}
