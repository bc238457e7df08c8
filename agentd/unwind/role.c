/* SPDX-License-Identifier: Apache-2.0 */

/* The unwinder: a child that reads what programs say of their own frames, and nothing else.
 *
 * It is handed descriptors and numbers of pages and answers slots of rows. It starts by closing
 * itself in (no capability, no path, no network, no new process, a list of system calls, 150 MB),
 * then serves one request at a time until agentd closes the socket. The last few files stay open
 * here, least recently used out first; left alone for a moment it gives all of them back, since
 * opening one again costs less than what it holds.
 *
 * Files are read by small pieces, never mapped: one that is cut short is a short read, not a signal,
 * and of a library of 100 MB a page touches some KB.
 *
 * Whatever goes wrong with a file is either a page of which nothing is known, with a problem in
 * words, or ends the process: agentd knows which page it was at, since they are answered in order.
 *
 * Invariants. Each page has a dictionary of rules of its own (see slot.c). A request is bounded in
 * CPU time: it stops at the end of a page when it has taken long, so that others have their turn,
 * and a timer ends the process where a page has no end. Memory is bounded by the limit on data.
 * Nothing is logged once the sandbox is closed. Source: setitimer(2), seccomp(2). */

#include <malloc.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "agentd/base/fdpass.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/client.h"
#include "agentd/unwind/protocol.h"
#include "agentd/unwind/role.h"
#include "agentd/unwind/unwind.h"

#define FILES_MAX     16
#define KEEP_BUSY     (4 << 20) /* bytes of open files while requests come */
#define IDLE_MS       1000
#define CPU_LIMIT_S   2
#define CPU_ENOUGH_US 20000 /* of one request, then others have their turn */

struct open_file {
	uint32_t id;
	int fd;
	struct elf_file *elf;
	struct unwind_file *unwind; /* NULL: it could not be read, problem says why */
	char problem[ROWS_PROBLEM_MAX];
	uint64_t used;
};

struct role {
	int sock;
	struct open_file *files[FILES_MAX];
	uint64_t clock;
	struct unwind_page page;
	struct rows_request in;
	union {
		struct rows_slot slot;
		uint8_t bytes[ROWS_SLOT_MAX];
	} slot;
	union {
		struct rows_slot_message head;
		uint8_t bytes[ROWS_MESSAGE_MAX];
	} out;
};

const struct sandbox_policy *unwind_role_policy(void)
{
	static const int syscalls[] = {SYS_read, SYS_pread64, SYS_write, SYS_mmap, SYS_munmap,
		SYS_mremap, SYS_mprotect, SYS_brk, SYS_madvise, SYS_lseek, SYS_fstat,
		SYS_newfstatat, SYS_close, SYS_exit_group, SYS_rt_sigreturn, SYS_futex, SYS_fcntl,
		SYS_getrandom, SYS_recvmsg, SYS_sendmsg, SYS_sysinfo, SYS_setitimer,
		SYS_clock_gettime, -1};
	static const int refused[] = {
#ifdef SYS_readlink
		SYS_readlink,
#endif
		SYS_readlinkat, -1};
	static struct sandbox_policy policy = {
		.name = "unwinder",
		.syscalls = syscalls,
		.refused = refused,
		.deny_paths = true,
		.deny_network = true,
		.nofile = FILES_MAX + 16,
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

/* ---- files kept
 * --------------------------------------------------------------------------------------- */

static struct open_file *open_file_free(struct open_file *f)
{
	if (f) {
		unwind_file_close(f->unwind);
		elf_file_close(f->elf);
		closep(&f->fd);
		free(f);
	}
	return NULL;
}
DEFINE_FREEP(open_file_freep, struct open_file *, open_file_free)

static size_t memory(const struct role *role)
{
	size_t sum = 0;

	for (size_t i = 0; i < FILES_MAX; i++) {
		const struct open_file *f = role->files[i];

		if (!f)
			continue;
		sum += sizeof(*f) + (f->elf ? elf_file_memory(f->elf) : 0) +
			(f->unwind ? unwind_file_memory(f->unwind) : 0);
	}
	return sum;
}

/* The least recently used one, or a free place if empty is asked for. */
static struct open_file **oldest(struct role *role, bool empty)
{
	struct open_file **ret = NULL;

	for (size_t i = 0; i < FILES_MAX; i++) {
		if (!role->files[i]) {
			if (empty)
				return &role->files[i];
		} else if (!ret || role->files[i]->used < (*ret)->used) {
			ret = &role->files[i];
		}
	}
	return ret;
}

static void shrink(struct role *role, size_t bytes)
{
	while (memory(role) > bytes) {
		struct open_file **out = oldest(role, false);

		if (!out)
			break;
		*out = open_file_free(*out);
	}
}

static struct open_file *find_file(struct role *role, uint32_t id)
{
	for (size_t i = 0; i < FILES_MAX; i++)
		if (role->files[i] && role->files[i]->id == id)
			return role->files[i];
	return NULL;
}

static int read_file(struct open_file *f)
{
	struct err_text err = {0};
	int r = elf_file_open(&f->elf, f->fd, &err);

	if (r == 0)
		r = unwind_file_open(&f->unwind, f->elf, &err);
	if (r == 0)
		return 0;
	snprintf(f->problem, sizeof(f->problem), "%.*s", (int)sizeof(f->problem) - 1, err.text);
	text_clean(f->problem);
	f->elf = elf_file_close(f->elf);
	return r;
}

/* Consumes fd. NULL: no memory even for trying. */
static struct open_file *load(struct role *role, uint32_t id, int fd)
{
	CLEANUP(open_file_freep) struct open_file *f = calloc(1, sizeof(*f));
	struct open_file **place;

	if (!f) {
		close(fd);
		return NULL;
	}
	f->id = id;
	f->fd = fd;
	shrink(role, KEEP_BUSY);
	if (read_file(f) == -ENOMEM) {
		/* What others hold may be in the way. */
		shrink(role, 0);
		(void)read_file(f);
	}
	place = oldest(role, true);
	open_file_free(*place);
	*place = TAKE_PTR(f);
	return *place;
}

/* ---- one request
 * -------------------------------------------------------------------------------------- */

static struct rows_header header(uint64_t request, enum rows_message message, size_t size)
{
	return (struct rows_header){.version = ROWS_PROTOCOL,
		.message = (uint16_t)message,
		.size = (uint32_t)size,
		.request = request};
}

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

static int send_slot(struct role *role, uint32_t index, size_t total)
{
	struct rows_slot_message *m = &role->out.head;
	int r = 0;

	for (size_t at = 0, len; at < total && r == 0; at += len) {
		len = MIN(total - at, ROWS_MESSAGE_MAX - sizeof(*m));
		*m = (struct rows_slot_message){
			.header = header(
				role->in.header.request, ROWS_MESSAGE_SLOT, sizeof(*m) + len),
			.index = index,
			.total = (uint32_t)total,
			.at = (uint32_t)at,
		};
		memcpy(role->out.bytes + sizeof(*m), role->slot.bytes + at, len);
		r = fdpass_send(role->sock, m, sizeof(*m) + len, NULL, 0);
	}
	return r;
}

/* The page's slot. Its size. */
static size_t make_slot(struct role *role, struct open_file *f, uint32_t page)
{
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	int r;

	if (!f->unwind)
		return rows_slot_empty(&role->slot.slot, UNWIND_CFA_NONE);
	r = unwind_rules_init(&rules);
	if (r == 0)
		r = unwind_file_page(f->unwind, page, &rules, &role->page);
	if (r == 0)
		return rows_slot_pack(&role->page, &rules, &role->slot.slot, sizeof(role->slot));
	/* No text there, or no memory for it. */
	return rows_slot_empty(
		&role->slot.slot, r == -ENOENT ? UNWIND_CFA_NONE : UNWIND_CFA_UNSUPPORTED);
}

/* What most rows that were not understood have in common, in a sentence. */
static void describe(const struct open_file *f, char *out, size_t size)
{
	const struct unwind_counts *c = f->unwind ? unwind_file_counts(f->unwind) : NULL;
	const struct unwind_problem *first = NULL;
	int worst = -1;

	snprintf(out, size, "%s", f->problem);
	if (!c)
		return;
	for (int i = 0; i < UNWIND_PROBLEM_KINDS; i++)
		if (i != UNWIND_PROBLEM_SAVED_RULE && c->problems[i] &&
			(worst < 0 || c->problems[i] > c->problems[worst]))
			worst = i;
	if (worst < 0)
		return;
	for (uint32_t i = 0; i < c->n_kept && !first; i++)
		if (c->kept[i].kind == worst)
			first = &c->kept[i];
	snprintf(out, size, "%s, at 0x%llx first", unwind_problem_name(worst),
		(unsigned long long)(first ? first->vaddr : 0));
}

static int answer(struct role *role, struct open_file *f, struct rows_done_message *done)
{
	const struct rows_request *q = &role->in;
	uint64_t start_us = cpu_us();

	while (done->n_done < q->n) {
		int r = send_slot(role, done->n_done, make_slot(role, f, q->pages[done->n_done]));

		if (r < 0)
			return r;
		done->n_done++;
		if (done->n_done < q->n && cpu_us() - start_us > CPU_ENOUGH_US)
			break;
	}
	done->sources = f->unwind ? unwind_file_sources(f->unwind) : 0;
	describe(f, done->problem, sizeof(done->problem));
	return 0;
}

/* Consumes fd (-1: none came). */
static int serve(struct role *role, int fd)
{
	struct rows_done_message done = {
		.header = header(role->in.header.request, ROWS_MESSAGE_DONE, sizeof(done))};
	struct open_file *f = find_file(role, role->in.file);
	int r = 0;

	limit_cpu(CPU_LIMIT_S);
	if (f)
		closep(&fd);
	else if (fd >= 0)
		f = load(role, role->in.file, TAKE_FD(fd));
	if (f) {
		f->used = ++role->clock;
		r = answer(role, f, &done);
	} else {
		done.flags = ROWS_DONE_UNKNOWN_FILE;
	}
	if (r < 0)
		return r;
	limit_cpu(0);
	done.memory = memory(role);
	return fdpass_send(role->sock, &done, sizeof(done), NULL, 0);
}

static int loop(struct role *role)
{
	for (;;) {
		size_t n_fds = 1;
		int fd = -1, r;
		ssize_t len = fdpass_recv(role->sock, &role->in, sizeof(role->in), &fd, &n_fds);

		if (len == 0 || len == -EPIPE)
			return 0;
		if (len == -EAGAIN) {
			if (memory(role)) {
				shrink(role, 0);
				malloc_trim(0);
			}
			continue;
		}
		if (len < 0)
			return (int)len;
		r = rows_request_check(&role->in, (size_t)len);
		if (r == 0)
			r = serve(role, n_fds ? TAKE_FD(fd) : -1);
		closep(&fd);
		if (r == -EPIPE)
			return 0;
		if (r < 0)
			return r;
	}
}

static int prepare(int sock, struct err_text *err)
{
	struct timeval idle = {.tv_sec = IDLE_MS / 1000};

	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof(idle)) < 0)
		return err_set(err, -errno, "unwinder: no socket at descriptor %d: %m", sock);
	return sandbox_enter(unwind_role_policy(), err);
}

int unwind_role_main(void)
{
	struct rows_ready ready = {.header = header(0, ROWS_MESSAGE_READY, sizeof(ready))};
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
