/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Children that run chain.c. */

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

		assert_true(i < 20000);
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
	rig_run(g, 20);
	rig_drop_records(g);
	for (unsigned i = 0; i < 1000 && g->n < n; i++)
		rig_run(g, 10);
	assert_true(g->n >= n);
	rig_stop(g);
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
