/* SPDX-License-Identifier: Apache-2.0 */

/* The symbolizer: a child that parses what profiled users wrote, and nothing else.
 *
 * It is handed descriptors and addresses and answers names. It starts by closing itself in (no capability, no
 * path, no network, no new process, a list of system calls, 150 MB), then serves one request at a time until
 * agentd closes the socket. What it knows of the last files it keeps, what is worth least out first; left
 * alone for a while it gives most of its memory back.
 *
 * Whatever goes wrong with a file is either answered as a problem or ends the process: agentd knows which file
 * it was at. It logs nothing once it is closed in, since it could not even look up the time zone.
 *
 * Invariants. A request is bounded in CPU time (a timer ends the process; before that it stops by itself and
 * answers what it has), in bytes of answer, and in memory; agentd bounds the time on the clock. Nothing that a
 * file says is used after the request but its index. Source: reference figures of what the readers need in
 * system calls; setitimer(2), seccomp(2). */

#include <fcntl.h>
#include <malloc.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/symbol/resolver.h"
#include "agentd/symbol/role.h"
#include "agentd/symbol/symbol.h"

#define FILES_MAX     48         /* those of one program; memory is what bounds */
#define KEEP_BUSY     (20 << 20) /* bytes of indices while requests come */
#define KEEP_IDLE     (8 << 20)  /* when left alone for IDLE_S */
#define IDLE_S        5
#define CPU_LIMIT_S   5
#define CPU_ENOUGH_US 2000000 /* stop and answer what is there */
#define CHECK_EVERY   64      /* addresses between looks at the clock */
#define WHOLE_COST_US 20000 /* of a file that took so long to read, functions are answered whole, */
#define WHOLE_SHARE   2     /* in the half of that time at most */
#define WHOLE_BYTES   4096  /* of a function */
#define WHOLE_ROWS    512   /* of a request */

/* A kind of frame is a row. */
static const struct resolver *const resolvers[] = {
	&resolver_native, &resolver_kernel, &resolver_perfmap, &resolver_jitdump};

struct loaded {
	uint32_t file, generation;
	int fd, debug_fd, alt_fd;
	const struct resolver *resolver;
	void *state; /* NULL: it could not be read, the facts say why */
	struct symbol_facts_message facts;
	uint64_t cost_us; /* of the request that it was read for */
	uint64_t worth;   /* see touch() */
};

struct role {
	int sock;
	struct loaded *files[FILES_MAX];
	uint64_t clock; /* worth of what went last */
	struct symbol_writer writer;
	struct found found, others[2]; /* others: of answer_whole() */
	union {
		struct symbol_request request;
		uint8_t bytes[sizeof(struct symbol_request) + SYMBOL_ADDRESSES_MAX * 8];
	} in;
};

const struct sandbox_policy *symbol_role_policy(void)
{
	static const int syscalls[] = {SYS_read, SYS_pread64, SYS_write, SYS_mmap, SYS_munmap,
		SYS_mremap, SYS_mprotect, SYS_brk, SYS_madvise, SYS_lseek, SYS_fstat,
		SYS_newfstatat, SYS_close, SYS_exit_group, SYS_rt_sigreturn, SYS_futex, SYS_fcntl,
		SYS_getrandom, SYS_recvmsg, SYS_sendmsg, SYS_sysinfo, SYS_setitimer,
		SYS_clock_gettime, -1};
	/* By which libdw asks what its file is called, in vain; with lstat in glibc before 2.33. */
	static const int refused[] = {
#ifdef SYS_readlink
		SYS_readlink, SYS_lstat,
#endif
		SYS_readlinkat, -1};
	static struct sandbox_policy policy = {
		.name = "symbolizer",
		.syscalls = syscalls,
		.refused = refused,
		.deny_paths = true,
		.deny_network = true,
		.nofile = 32 + 3 * FILES_MAX,
		.fsize = 0,
		.nproc = 0,
		.data = 150 << 20,
		.as = RLIM_INFINITY,    /* data says it all: files are read, not mapped */
		.cpu_s = RLIM_INFINITY, /* by request */
	};

	policy.uid = sandbox_nobody();
	policy.gid = (gid_t)policy.uid;
	return &policy;
}

/* ---- files kept ------------------------------------------------------------------------------------------------ */

static struct loaded *loaded_free(struct loaded *l)
{
	if (l) {
		if (l->state)
			l->resolver->close(l->state);
		closep(&l->fd);
		closep(&l->debug_fd);
		closep(&l->alt_fd);
		free(l);
	}
	return NULL;
}
DEFINE_FREEP(loaded_freep, struct loaded *, loaded_free)

static size_t loaded_memory(const struct loaded *l)
{
	return sizeof(*l) + (l->state ? l->resolver->memory(l->state) : 0);
}

static size_t memory(const struct role *role)
{
	size_t sum = 0;

	for (size_t i = 0; i < FILES_MAX; i++)
		if (role->files[i])
			sum += loaded_memory(role->files[i]);
	return sum;
}

/* What has not been asked about for long goes first, and the sooner the less time it takes to make it again for the
 * memory that it has: worth is the clock at its last use and the microseconds that a mebibyte of it took (Cao
 * and Irani, Cost-Aware WWW Proxy Caching Algorithms, 1997: GreedyDual-Size). */
static void touch(const struct role *role, struct loaded *l)
{
	l->worth = role->clock + (l->cost_us << 20) / loaded_memory(l);
}

static struct loaded **least_worth(struct role *role)
{
	struct loaded **ret = NULL;

	for (size_t i = 0; i < FILES_MAX; i++)
		if (role->files[i] && (!ret || role->files[i]->worth < (*ret)->worth))
			ret = &role->files[i];
	if (ret)
		role->clock = MAX(role->clock, (*ret)->worth);
	return ret;
}

static void shrink(struct role *role, size_t bytes)
{
	bool any = false;

	while (memory(role) > bytes) {
		struct loaded **out = least_worth(role);

		if (!out)
			break;
		*out = loaded_free(*out);
		any = true;
	}
	if (any)
		malloc_trim(0);
}

/* A free slot. An older generation of the same file makes room first. */
static struct loaded **make_slot(struct role *role, uint32_t file)
{
	struct loaded **slot;

	for (size_t i = 0; i < FILES_MAX; i++)
		if (role->files[i] && role->files[i]->file == file)
			role->files[i] = loaded_free(role->files[i]);
	for (size_t i = 0; i < FILES_MAX; i++)
		if (!role->files[i])
			return &role->files[i];
	slot = least_worth(role);
	*slot = loaded_free(*slot);
	return slot;
}

static struct loaded *find_loaded(struct role *role, const struct symbol_request *q)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		struct loaded *l = role->files[i];

		if (l && l->file == q->file && l->generation == q->generation &&
			l->resolver->kind == q->kind)
			return l;
	}
	return NULL;
}

static struct symbol_header header(
	const struct symbol_request *q, enum symbol_message message, size_t size)
{
	return (struct symbol_header){.version = SYMBOL_PROTOCOL,
		.message = (uint16_t)message,
		.size = (uint32_t)size,
		.request = q ? q->header.request : 0};
}

/* Consumes descriptors. 0: *ret is set, and kept; RESOLVER_WANTS_*: another file is wanted, and facts say
 * which; -ENOMEM. */
static int load(struct role *role, const struct symbol_request *q, const struct resolver *by,
	int fds[static SYMBOL_REQUEST_FDS], struct symbol_facts_message *facts, struct loaded **ret)
{
	CLEANUP(loaded_freep) struct loaded *l = NULL;
	struct resolver_input in = {.flags = q->flags};
	struct loaded **slot;
	int r = 0;

	shrink(role, KEEP_BUSY);
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	*l = (struct loaded){.file = q->file,
		.generation = q->generation,
		.fd = TAKE_FD(fds[0]),
		.debug_fd = TAKE_FD(fds[1]),
		.alt_fd = TAKE_FD(fds[2]),
		.resolver = by};
	in.fd = l->fd;
	in.debug_fd = l->debug_fd;
	in.alt_fd = l->alt_fd;
	for (int try = 0; try < 3; try++) {
		memset(&l->facts, 0, sizeof(l->facts));
		snprintf(l->facts.named_by, sizeof(l->facts.named_by), "none");
		r = by->open(&l->state, &in, &l->facts);
		if (r != -ENOMEM)
			break;
		/* The others' indices may be what is in the way, or what it costs most by. */
		if (try == 0)
			shrink(role, 0);
		else
			in.flags |= SYMBOL_REQUEST_CHEAP;
	}
	if (r == 0 && in.flags != q->flags && !*l->facts.problem)
		snprintf(l->facts.problem, sizeof(l->facts.problem),
			"its debug information is too big for the memory allowed");
	if (r > 0) {
		*facts = l->facts;
		return r;
	}
	if (r < 0 && !*l->facts.problem)
		snprintf(l->facts.problem, sizeof(l->facts.problem), "%s", strerrordesc_np(-r));
	slot = make_slot(role, q->file);
	*ret = *slot = TAKE_PTR(l);
	return 0;
}

/* ---- one request --------------------------------------------------------------------------------------------------- */

static uint64_t cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

/* At its end SIGPROF ends the process. */
static void limit_cpu(unsigned seconds)
{
	struct itimerval timer = {.it_value.tv_sec = seconds};

	setitimer(ITIMER_PROF, &timer, NULL);
}

static int flush(struct role *role, size_t *sent)
{
	size_t size = symbol_writer_take(&role->writer);

	*sent += size;
	return size ? fdpass_send(role->sock, role->writer.message, size, NULL, 0) : 0;
}

/* ---- functions as a whole ----
 *
 * A sample falls to ever new instructions of the same functions. Where it took long to read a file (debug information
 * that has to be inflated), and it may be gone from memory when the next one comes, the other lines of the
 * function are answered at once: by looking every address up, since only that says where answers change. */

static bool same_answer(const struct found *a, const struct found *b)
{
	if (a->n != b->n || a->text_len != b->text_len ||
		memcmp(a->text, b->text, a->text_len) != 0)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->functions[i].line != b->functions[i].line ||
			a->functions[i].start_line != b->functions[i].start_line ||
			a->functions[i].inlined != b->functions[i].inlined)
			return false;
	return true;
}

struct whole {
	uint64_t spent_us, until; /* until: functions below are done */
	uint32_t rows;
};

/* run is the answer of [from, to). */
static int put_run(struct role *role, struct found *run, uint32_t i, uint64_t address,
	uint64_t from, uint64_t to, size_t *sent)
{
	int64_t distance = (int64_t)(from - address);
	int r;

	run->before = 0;
	run->behind = (uint32_t)(to - from - 1);
	r = symbol_writer_add_extra(&role->writer, i, distance, run);
	if (r != -ENOBUFS)
		return r;
	r = flush(role, sent);
	if (r < 0)
		return r;
	/* What no message holds is not needed. */
	(void)symbol_writer_add_extra(&role->writer, i, distance, run);
	return 0;
}

static int answer_whole(struct role *role, const struct symbol_request *q, struct loaded *l,
	uint32_t i, struct whole *w, size_t *sent)
{
	uint64_t address = q->addresses[i], from = role->found.function_from,
		 to = role->found.function_to, begin, started = cpu_us();
	struct found *run = NULL, *next = &role->others[0];
	int r = 0;

	if (to <= address || from > address || address < w->until || w->rows >= WHOLE_ROWS ||
		w->spent_us >= l->cost_us / WHOLE_SHARE)
		return 0;
	begin = from = MAX(from, address - MIN(address, (uint64_t)WHOLE_BYTES / 2));
	to = MIN(to, address + WHOLE_BYTES / 2);
	w->until = to;
	for (uint64_t at = from; at <= to && r >= 0 && w->rows < WHOLE_ROWS; at++) {
		bool named;

		found_reset(next);
		next->demangle = role->found.demangle;
		named = at < to && l->resolver->find(l->state, at, next) == 1;
		if (run && named && same_answer(run, next))
			continue;
		if (run) {
			r = put_run(role, run, i, address, begin, at, sent);
			w->rows++;
		}
		begin = at;
		run = named ? next : NULL;
		next = run == &role->others[0] ? &role->others[1] : &role->others[0];
	}
	w->spent_us += cpu_us() - started;
	return r;
}

/* Looks addresses up until all are done or a bound is met; *done: how many. */
static int answer(struct role *role, const struct symbol_request *q, struct loaded *l,
	uint64_t start_us, uint32_t *done)
{
	struct whole whole = {0};
	size_t sent = 0;
	uint32_t i;
	int r;

	role->writer.request = q->header.request;
	role->found.demangle = SYMBOL_REQUEST_DEMANGLE(q->flags);
	for (i = 0; i < q->n && l->state; i++) {
		if (i && i % CHECK_EVERY == 0 && cpu_us() - start_us > CPU_ENOUGH_US)
			break;
		found_reset(&role->found);
		r = l->resolver->find(l->state, q->addresses[i], &role->found);
		if (r == 0)
			continue;
		if (r < 0) {
			/* It cannot be read any more (cut short, a file system that went away): what was
			 * known of it is worth nothing, and the next request begins anew. */
			snprintf(l->facts.problem, sizeof(l->facts.problem),
				"cannot read it any more: %s", strerrordesc_np(-r));
			l->generation--;
			i = q->n;
			break;
		}
		r = symbol_writer_add(&role->writer, i, &role->found);
		if (r == -ENOBUFS) {
			r = flush(role, &sent);
			if (r < 0)
				return r;
			if (sent > SYMBOL_REPLY_MAX - 2 * SYMBOL_MESSAGE_MAX)
				break;
			r = symbol_writer_add(&role->writer, i, &role->found);
		}
		if (r == 0 && role->found.n && l->cost_us >= WHOLE_COST_US)
			r = answer_whole(role, q, l, i, &whole, &sent);
		if (r < 0)
			return r;
	}
	*done = l->state ? i : q->n;
	return flush(role, &sent);
}

static int send_facts(
	struct role *role, const struct symbol_request *q, struct symbol_facts_message *facts)
{
	facts->header = header(q, SYMBOL_MESSAGE_FACTS, sizeof(*facts));
	return fdpass_send(role->sock, facts, sizeof(*facts), NULL, 0);
}

/* What is kept of a file that is being written takes in what is new. NULL: it could not, and is gone. */
static struct loaded *refresh(struct role *role, struct loaded *l)
{
	if (!l || !l->resolver->refresh)
		return l;
	if (l->state && l->resolver->refresh(l->state, &l->facts) == 0)
		return l;
	for (size_t i = 0; i < FILES_MAX; i++)
		if (role->files[i] == l)
			role->files[i] = NULL;
	return loaded_free(l);
}

/* Borrows fds (-1: none came), takes those that it keeps. */
static int serve(
	struct role *role, const struct symbol_request *q, int fds[static SYMBOL_REQUEST_FDS])
{
	struct symbol_done_message done = {.header = header(q, SYMBOL_MESSAGE_DONE, sizeof(done))};
	struct loaded *l = find_loaded(role, q);
	const struct resolver *by = NULL;
	struct symbol_facts_message facts;
	uint64_t start_us = cpu_us();
	int r = 0;

	limit_cpu(CPU_LIMIT_S);
	l = refresh(role, l);
	for (size_t i = 0; i < ARRAY_SIZE(resolvers); i++)
		if (resolvers[i]->kind == q->kind)
			by = resolvers[i];
	if (!l && fds[0] >= 0 && by)
		r = load(role, q, by, fds, &facts, &l);
	if (l)
		l->cost_us = MAX(l->cost_us, cpu_us() - start_us);
	if (r > 0) {
		done.flags =
			r == RESOLVER_WANTS_ALT ? SYMBOL_DONE_WANTS_ALT : SYMBOL_DONE_WANTS_DEBUG;
		r = send_facts(role, q, &facts);
	} else if (l) {
		r = answer(role, q, l, start_us, &done.n_done);
		if (r == 0)
			r = send_facts(role, q, &l->facts);
	} else {
		done.flags = SYMBOL_DONE_UNKNOWN_FILE;
		r = 0;
	}
	if (r < 0)
		return r;
	limit_cpu(0);
	done.cpu_us = cpu_us() - start_us;
	if (l) {
		l->cost_us = MAX(l->cost_us, done.cpu_us);
		touch(role, l);
	}
	done.memory = memory(role);
	return fdpass_send(role->sock, &done, sizeof(done), NULL, 0);
}

static bool is_request(const struct symbol_request *q, size_t len)
{
	return len >= sizeof(*q) && q->header.version == SYMBOL_PROTOCOL &&
		q->header.message == SYMBOL_MESSAGE_REQUEST && q->header.size == len &&
		q->n <= SYMBOL_ADDRESSES_MAX && len == sizeof(*q) + q->n * sizeof(q->addresses[0]);
}

/* Descriptors by what the request says of them: the file's own, its debug file, the alternate file. */
static bool sort_fds(
	const struct symbol_request *q, int fds[static SYMBOL_REQUEST_FDS], size_t n_fds)
{
	bool debug = q->flags & SYMBOL_REQUEST_HAS_DEBUG, alt = q->flags & SYMBOL_REQUEST_HAS_ALT;

	if (n_fds != (size_t)(debug + alt) + 1 && (n_fds || debug || alt))
		return false;
	if (alt && !debug)
		fds[2] = TAKE_FD(fds[1]);
	return true;
}

static int loop(struct role *role)
{
	for (;;) {
		int fds[SYMBOL_REQUEST_FDS] = {-1, -1, -1}, r = -EBADMSG;
		size_t n_fds = ARRAY_SIZE(fds);
		ssize_t len = fdpass_recv(role->sock, &role->in, sizeof(role->in), fds, &n_fds);

		if (len == 0 || len == -EPIPE)
			return 0;
		if (len == -EAGAIN) {
			shrink(role, KEEP_IDLE);
			malloc_trim(0);
			continue;
		}
		if (len < 0)
			return (int)len;
		if (is_request(&role->in.request, (size_t)len) &&
			sort_fds(&role->in.request, fds, n_fds))
			r = serve(role, &role->in.request, fds);
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			closep(&fds[i]);
		if (r == -EPIPE)
			return 0;
		if (r < 0)
			return r;
	}
}

static int prepare(int sock, struct err_text *err)
{
	struct timeval idle = {.tv_sec = IDLE_S};

	/* Big blocks are mapped, so that freeing them gives them back. */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	mallopt(M_TRIM_THRESHOLD, 512 << 10);
	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof(idle)) < 0)
		return err_set(err, -errno, "symbolizer: no socket at descriptor %d: %m", sock);
	return sandbox_enter(symbol_role_policy(), err);
}

int symbol_role_main(void)
{
	struct symbol_ready ready = {.header = header(NULL, SYMBOL_MESSAGE_READY, sizeof(ready))};
	struct err_text err = {0};
	struct role *role;
	int r = prepare(SANDBOX_FD, &err);

	if (r < 0) {
		log_error("%s", err.text);
		return r;
	}
	role = calloc(1, sizeof(*role));
	if (!role)
		return -ENOMEM;
	role->sock = SANDBOX_FD;
	r = fdpass_send(role->sock, &ready, sizeof(ready), NULL, 0);
	return r < 0 ? r : loop(role);
}
