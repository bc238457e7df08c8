/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Children that run chain.c. */

#include <errno.h>

#include "tests/unit/bpf/chain.h"
#include "tests/unit/bpf/rig.h"

#define RATE 997 /* a prime: in step with nothing */

static char program[200]; /* chain, which lies beside the test */

struct child {
	pid_t pid;
	struct truth *truth;
	struct space_map maps[200];
	uint32_t n_maps;
};

static void child_start(struct child *c, const char *what, int depth)
{
	int fd = memfd_create("truth", 0);
	char number[16];

	*c = (struct child){0};
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(*c->truth)), 0);
	c->truth = mmap(NULL, sizeof(*c->truth), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(c->truth != MAP_FAILED);
	snprintf(number, sizeof(number), "%d", depth);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		if (dup2(fd, 3) != 3)
			_exit(1);
		execl(program, program, what, number, NULL);
		_exit(1);
	}
	close(fd);
	for (unsigned i = 0; !__atomic_load_n(&c->truth->ready, __ATOMIC_ACQUIRE); i++) {
		struct timespec t = {.tv_nsec = 1000000};

		assert_true(i < 60000);
		assert_int_equal(waitpid(c->pid, NULL, WNOHANG), 0);
		nanosleep(&t, NULL);
	}
}

static void child_end(struct child *c)
{
	kill(c->pid, SIGKILL);
	assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
	munmap(c->truth, sizeof(*c->truth));
}

/* Meets the child and makes it known. */
static struct sample_image child_know(struct rig *g, struct child *c, uint16_t flags)
{
	struct sample_image image = rig_meet(g, c->pid);

	c->n_maps = rig_read_maps(g, c->pid, c->maps, ARRAY_SIZE(c->maps), true);
	rig_set_space(g, &image, c->maps, c->n_maps, flags);
	return image;
}

/* A rig that knows the child, with at least n samples of it from then on. Every one is sent. */
static inline void run_known(struct rig *g, struct child *c, unsigned n)
{
	rig_start(g, RATE);
	child_know(g, c, VERDICT_UNCOUNTED);
	/* The child is one thread, so that its samples come one after the other: behind the first one
	 * that knows it are no others, and the child is where it stays. */
	rig_drop_records(g);
	rig_await(g, 1, false);
	for (unsigned i = 0; i < RIG_PATIENCE && g->records[g->n - 1]->end == WALK_MISS_SPACE; i++)
		rig_run(g, 10);
	assert_true(g->records[g->n - 1]->end != WALK_MISS_SPACE);
	rig_drop_records(g);
	rig_await(g, n, false);
	rig_stop(g);
}

/* Where two programs, or threads, are to share a CPU: one that may be used. */
static inline int pin(pid_t pid)
{
	cpu_set_t all, one;
	int cpu = 0;

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return -errno;
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(pid, sizeof(one), &one) < 0 ? -errno : 0;
}

/* The address that a frame stands for; 0: none. */
static inline uint64_t address_of(const struct child *c, const struct sample_frame *f)
{
	if (f->kind != FRAME_NATIVE)
		return 0;
	for (uint32_t i = 0; i < c->n_maps; i++) {
		const struct space_map *m = &c->maps[i];

		if (m->file == f->file && f->offset - m->bias - m->start < m->end - m->start)
			return f->offset - m->bias;
	}
	return 0;
}

static inline const struct sample_frame *user_frames(const struct record_sample *r, size_t *n)
{
	size_t i = 0;

	while (i < r->n_frames && r->frames[i].kind == FRAME_KERNEL)
		i++;
	*n = r->n_frames - i;
	return &r->frames[i];
}

/* From the leaf's caller on all is as the program says, but for what it cannot know. How many frames
 * were compared. */
static inline size_t check_chain(
	const struct child *c, const struct record_sample *r, size_t at_most)
{
	size_t n, i, frames = MIN(c->truth->n, at_most);
	const struct sample_frame *f = user_frames(r, &n);

	if (n <= frames) {
		for (i = 0; i < n; i++)
			print_message("  file %u + %#llx flags %u\n", f[i].file,
				(unsigned long long)f[i].offset, f[i].flags);
		fail_msg("%zu frames, where %zu lie below the leaf", n, frames);
	}
	for (i = 0; i < frames; i++) {
		uint64_t truth = c->truth->pc[c->truth->n - 1 - i], got = address_of(c, &f[i + 1]);

		if (truth && truth != got)
			fail_msg("frame %zu of %zu: %#llx, not %#llx", i + 1, n,
				(unsigned long long)got, (unsigned long long)truth);
		assert_true(got != 0);
	}
	return i;
}

static int child_find(void **state)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 16);
	char *name;

	if (n <= 0)
		return -1;
	program[n] = 0;
	name = strrchr(program, '/');
	memcpy(name + 1, "chain", sizeof("chain"));
	return access(program, X_OK);
}
