/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the table's tests share: a table on a loop, makers of events, real children, and a record of what
 * the table gave out. The test program is its own reader (`--role proc`) and its own workload (`--child`). */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/container/container.h"
#include "agentd/process/procfs.h"
#include "agentd/process/table.h"

#define GIVEN_MAX 20000
#define PATIENCE  (60 * NSEC_PER_SEC) /* a bound for a test that went wrong, not a measure */

struct given {
	struct sample_image key;
	char exe[256], comm[32];
	uint64_t time_ns, epoch;
	uint32_t count;
	enum image_state state;
	uint64_t id;
	uint8_t end;
	uint16_t guessed;
	uint32_t end_file;
	size_t n;
	struct sample_frame frames[8];
};

struct fixture {
	sd_event *loop;
	struct process_table *table;
	struct given *given;
	size_t n_given, n_facts, n_gone, n_waiting;
	uint64_t lost;
	char lost_cause[64];
	bool assert_facts_first;
};

static void on_facts(void *userdata, struct image *image)
{
	struct fixture *f = userdata;

	f->n_facts++;
	assert_true(image->state != IMAGE_NEW);
	image->assignment = f; /* what a daemon does: on_sample checks that it was asked first */
}

static void on_sample(void *userdata, struct image *image, const struct process_sample *s)
{
	struct fixture *f = userdata;
	struct given *g = &f->given[f->n_given];

	assert_ptr_equal(image->assignment, f);
	assert_true(f->n_given < GIVEN_MAX);
	*g = (struct given){.key = image->key,
		.time_ns = s->time_ns,
		.count = s->count,
		.state = image->state,
		.id = s->id,
		.end = s->end,
		.guessed = s->guessed,
		.end_file = s->end_file,
		.n = s->n_frames,
		.epoch = image->mapping_epoch};
	snprintf(g->exe, sizeof(g->exe), "%s", image->exe);
	snprintf(g->comm, sizeof(g->comm), "%s", s->comm);
	memcpy(g->frames, s->frames, MIN(s->n_frames, 8) * sizeof(g->frames[0]));
	for (size_t i = 0; i < s->n_frames; i++)
		if (s->frames[i].kind == FRAME_NATIVE)
			assert_non_null(process_file(f->table, s->frames[i].file));
	f->n_given++;
}

static void on_gone(void *userdata, struct image *image)
{
	struct fixture *f = userdata;

	assert_ptr_equal(image->assignment, f);
	f->n_gone++;
}

static void on_lost(void *userdata, const char *cause, uint64_t samples)
{
	struct fixture *f = userdata;

	f->lost += samples;
	snprintf(f->lost_cause, sizeof(f->lost_cause), "%s", cause);
}

static void on_waiting(void *userdata)
{
	((struct fixture *)userdata)->n_waiting++;
}

/* more: what a test has of its own beside these. May be NULL. */
static inline void fixture_start_with(
	struct fixture *f, const struct process_config *config, const struct process_ops *more)
{
	struct process_ops ops = more ? *more : (struct process_ops){};
	struct process_config patient = config ? *config : (struct process_config){};
	struct err_text err = {};

	/* How long a reader takes to start on a busy host is nobody's concern here: what ends by time
	 * does so where a test asks for it. */
	if (!patient.read_deadline_ms)
		patient.read_deadline_ms = PATIENCE / NSEC_PER_MSEC;
	if (!patient.name_wait_ms)
		patient.name_wait_ms = PATIENCE / NSEC_PER_MSEC;
	if (!patient.hold_max_ms)
		patient.hold_max_ms = PATIENCE / NSEC_PER_MSEC;
	if (!patient.rows_wait_ms)
		patient.rows_wait_ms = PATIENCE / NSEC_PER_MSEC;

	ops.on_facts = on_facts;
	ops.on_sample = on_sample;
	ops.on_gone = on_gone;
	ops.on_lost = on_lost;
	ops.on_waiting = on_waiting;
	memset(f, 0, sizeof(*f));
	f->given = calloc(GIVEN_MAX, sizeof(*f->given));
	assert_int_equal(sd_event_new(&f->loop), 0);
	if (process_table_new(&f->table, f->loop, &patient, &ops, f, &err) < 0)
		fail_msg("%s", err.text);
}

static inline void fixture_start(struct fixture *f, const struct process_config *config)
{
	fixture_start_with(f, config, NULL);
}

static inline void fixture_stop(struct fixture *f)
{
	process_table_free(f->table);
	sd_event_unref(f->loop);
	free(f->given);
}

/* One turn; the stream is drained up to now, as the sampler would. */
static inline void turn(struct fixture *f)
{
	assert_true(sd_event_run(f->loop, 10000) >= 0);
	process_on_drained(f->table, clock_monotonic_ns());
}

#define run_until(f, condition)                                                                    \
	do {                                                                                       \
		uint64_t end_ = clock_monotonic_ns() + PATIENCE;                                   \
		while (!(condition)) {                                                             \
			if (clock_monotonic_ns() > end_)                                           \
				fail_msg("waited in vain for: %s", #condition);                    \
			turn(f);                                                                   \
		}                                                                                  \
	} while (0)

/* ---- events ------------------------------------------------------------------------------------------------- */

static inline struct sample_image key_of(pid_t pid, uint32_t exec)
{
	char path[64];
	struct buf text;
	struct procfs_stat stat;
	struct sample_image key = {.tgid = (uint32_t)pid, .exec = exec};

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	buf_init(&text, 4096);
	assert_int_equal(io_read_file(AT_FDCWD, path, &text, 4096), 0);
	assert_int_equal(procfs_stat((const char *)text.data, &stat), 0);
	key.start_boottime =
		stat.start * TICK_NS + 1234567; /* the kernel's is finer than /proc's */
	buf_deinit(&text);
	return key;
}

static inline struct sample_frame native(uint64_t address)
{
	return (struct sample_frame){.kind = FRAME_NATIVE, .offset = address};
}

static inline void send_sample_flags(struct fixture *f, struct sample_image key, uint64_t time_ns,
	const struct sample_frame *frames, size_t n, uint32_t flags, pid_t tid)
{
	struct record_sample *s = calloc(1, sizeof(*s) + n * sizeof(*frames));
	struct sampler_event event = {.kind = SAMPLER_SAMPLE, .time_ns = time_ns, .sample = s};

	s->header = (struct record_header){.kind = RECORD_SAMPLE,
		.time = time_ns,
		.size = (uint32_t)(sizeof(*s) + n * sizeof(*frames))};
	s->image = key;
	s->tid = tid ? (uint32_t)tid : key.tgid;
	s->n_frames = (uint16_t)n;
	s->value = 10101010;
	s->count = 1;
	s->flags = flags;
	memcpy(s->comm, "0123456789abcdef", 16); /* not terminated */
	if (n)
		memcpy(s->frames, frames, n * sizeof(*frames));
	process_on_event(f->table, &event);
	free(s);
}

static inline void send_sample(
	struct fixture *f, struct sample_image key, uint64_t time_ns, uint64_t address)
{
	struct sample_frame frame = native(address);

	send_sample_flags(f, key, time_ns, &frame, 1, 0, 0);
}

static inline void send_process(struct fixture *f, enum sampler_event_kind kind,
	struct sample_image key, struct sample_image parent, uint64_t time_ns, const char *comm,
	const char *cgroup)
{
	size_t len = cgroup ? strlen(cgroup) : 0;
	struct record_process *p = calloc(1, sizeof(*p) + len + 1);
	struct sampler_event event = {.kind = kind, .time_ns = time_ns, .process = p};

	p->header.time = time_ns;
	p->image = key;
	p->parent = parent;
	p->tid = key.tgid;
	p->cgroup_len = (uint32_t)len;
	memcpy(p->comm, comm, strnlen(comm, sizeof(p->comm)));
	if (len)
		memcpy(p->cgroup, cgroup, len);
	process_on_event(f->table, &event);
	free(p);
}

#define NOBODY_IMAGE ((struct sample_image){0})

static inline void send_exec(
	struct fixture *f, struct sample_image key, uint64_t time_ns, const char *comm)
{
	send_process(f, SAMPLER_EXEC, key, NOBODY_IMAGE, time_ns, comm, NULL);
}

static inline void send_exec_begin(struct fixture *f, pid_t pid, uint64_t time_ns)
{
	struct sampler_event event = {
		.kind = SAMPLER_EXEC_BEGIN, .time_ns = time_ns, .mmap = {.pid = pid, .tid = pid}};

	process_on_event(f->table, &event);
}

static inline void send_mmap(struct fixture *f, pid_t pid, uint64_t time_ns, uint64_t start,
	uint64_t len, uint64_t pgoff, const struct file_key *key, const char *path)
{
	struct sampler_event event = {.kind = SAMPLER_MMAP,
		.time_ns = time_ns,
		.mmap = {.pid = pid,
			.tid = pid,
			.start = start,
			.len = len,
			.pgoff = pgoff,
			.major = key->major,
			.minor = key->minor,
			.inode = key->inode,
			.generation = key->generation,
			.prot = PROT_READ | PROT_EXEC,
			.path = path}};

	process_on_event(f->table, &event);
}

static inline void send_lost(struct fixture *f, uint64_t time_ns)
{
	struct sampler_event event = {.kind = SAMPLER_LOST_EVENTS, .time_ns = time_ns, .lost = 1};

	process_on_event(f->table, &event);
}

/* ---- children ----------------------------------------------------------------------------------------------- */

struct child {
	pid_t pid;
	int go; /* writing here lets it go on */
};

/* Forks; what: the child's arguments (it execs path); it is ready when this returns. */
static inline struct child child_start(
	const char *path, const char *const *argv, const char *const *envp)
{
	int ready[2], go[2];
	struct child c;
	char byte;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(go), 0);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (c.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
		dup2(ready[1], 100);
		dup2(go[0], 101);
		closefrom(102);
		for (int fd = 3; fd < 100; fd++)
			close(fd);
		execve(path, (char *const *)argv, (char *const *)envp);
		_exit(127);
	}
	close(ready[1]);
	close(go[0]);
	c.go = go[1];
	if (read(ready[0], &byte, 1) != 1)
		fail_msg("the child %s did not start", path);
	close(ready[0]);
	return c;
}

static inline void child_stop(struct child *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	close(c->go);
}

static inline struct child child_of(const char *path, const char *mode)
{
	const char *argv[] = {"a program", "--child", mode, "secret argument", NULL};
	const char *envp[] = {"PATH=/bin", "OTEL_SERVICE_NAME=shop", "PASSWORD=hush",
		"OTEL_RESOURCE_ATTRIBUTES=service.version=1.2%2C3,deployment.environment=prod,bad",
		NULL};

	return child_start(path, argv, envp);
}

static inline void child_ready(void)
{
	if (write(100, "r", 1) != 1)
		_exit(3);
}

static inline void child_wait(void)
{
	char byte;

	if (read(101, &byte, 1) < 0)
		_exit(4);
}

/* The first executable mapping whose path ends so. */
static inline bool find_mapping(
	pid_t pid, const char *end, struct procfs_map *ret, char *path, size_t size)
{
	char name[64], line[4096];
	FILE *maps;
	bool found = false;

	snprintf(name, sizeof(name), "/proc/%d/maps", pid);
	maps = fopen(name, "re");
	while (maps && !found && fgets(line, sizeof(line), maps)) {
		size_t n, m = strlen(end);

		line[strcspn(line, "\n")] = 0;
		if (procfs_map(line, ret) < 0 || !ret->exec)
			continue;
		n = strlen(ret->path);
		found = n >= m && strcmp(ret->path + n - m, end) == 0;
		if (found && path)
			snprintf(path, size, "%s", ret->path);
	}
	if (maps)
		fclose(maps);
	return found;
}

static inline const char *self_path(void)
{
	static char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	assert_true(n > 0);
	path[n] = 0;
	return path;
}

static inline void copy_file(const char *from, const char *to)
{
	struct buf b;
	int fd;

	buf_init(&b, 0);
	assert_int_equal(io_read_file(AT_FDCWD, from, &b, 256u << 20), 0);
	fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, b.data, b.len), 0);
	close(fd);
	buf_deinit(&b);
}

static inline struct file_key key_of_map(const struct procfs_map *m)
{
	return (struct file_key){.inode = m->inode, .major = m->major, .minor = m->minor};
}

/* Events of an exec as the kernel gives them, for what a live process has mapped now. */
static inline void send_whole_exec(
	struct fixture *f, struct sample_image key, uint64_t time_ns, const char *comm)
{
	char name[64], line[4096];
	FILE *maps;

	send_exec_begin(f, (pid_t)key.tgid, time_ns);
	snprintf(name, sizeof(name), "/proc/%u/maps", key.tgid);
	maps = fopen(name, "re");
	while (maps && fgets(line, sizeof(line), maps)) {
		struct procfs_map m;
		struct file_key k;

		line[strcspn(line, "\n")] = 0;
		if (procfs_map(line, &m) < 0 || !m.exec)
			continue;
		k = key_of_map(&m);
		send_mmap(f, (pid_t)key.tgid, ++time_ns, m.start, m.end - m.start, m.pgoff, &k,
			m.path);
	}
	if (maps)
		fclose(maps);
	send_exec(f, key, time_ns + 1, comm);
}

/* A pid that nobody has any more, with a start in the past. */
static inline struct sample_image dead_key(uint32_t exec)
{
	pid_t pid = fork();
	struct sample_image key;

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	key = key_of(pid, exec);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return key;
}
