/* SPDX-License-Identifier: Apache-2.0 */

/* Mappings and samples in the order of cause: a child maps two files in turn at the same address
 * and runs each for a moment. The two have their code at different offsets, so that where a sample was
 * says which of them was mapped: it must be the one whose mapping was handed out last before it.
 *
 * Drains follow each other without a pause, so that many begin amid what they hand out. */

#include "tests/unit/sampler/harness.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define CODE_AT 2048   /* bytes; of the second file */
#define ENOUGH  300    /* samples in each */
#define TURNS   10000U /* of the code's loop: a few microseconds */
#define AHEAD   400    /* mappings that were not handed out yet: their records fit into a ring */

#if defined(__aarch64__)
/* subs w0, w0, #1; b.ne -4; ret */
static const uint32_t code[] = {0x71000400, 0x54ffffe1, 0xd65f03c0};
#else
/* dec edi; jne -4; ret */
static const uint8_t code[] = {0xff, 0xcf, 0x75, 0xfc, 0xc3};
#endif

struct files {
	int fd[2];
	uint64_t inode[2];
	uint8_t *at; /* where both are mapped, in the child */
	size_t page;
	struct {                     /* with the child */
		uint64_t handed_out; /* mappings */
		uint32_t end;
	} * shared;
};

struct state {
	struct files files;
	pid_t pid;
	size_t events;      /* of the watch's list, that were looked at */
	int mapped;         /* 0 or 1; -1: none yet */
	size_t n[2], wrong; /* samples */
};

static void make_file(struct files *f, int which)
{
	struct stat st;

	f->fd[which] = memfd_create("order", MFD_CLOEXEC);
	assert_true(f->fd[which] >= 0);
	assert_int_equal(ftruncate(f->fd[which], (off_t)f->page), 0);
	assert_int_equal(pwrite(f->fd[which], code, sizeof(code), which * CODE_AT), sizeof(code));
	assert_int_equal(fstat(f->fd[which], &st), 0);
	f->inode[which] = st.st_ino;
}

static void take_turns(void *userdata)
{
	const struct files *f = userdata;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t i = 0; !__atomic_load_n(&f->shared->end, __ATOMIC_RELAXED); i++) {
		int which = i & 1;
		void (*run)(unsigned turns) = (void *)(f->at + which * CODE_AT);

		if (mmap(f->at, f->page, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED,
			    f->fd[which], 0) != f->at)
			_exit(1);
		do
			run(TURNS);
		while (i > AHEAD + __atomic_load_n(&f->shared->handed_out, __ATOMIC_RELAXED) &&
			!__atomic_load_n(&f->shared->end, __ATOMIC_RELAXED));
	}
}

/* Where it was in user space; 0 not known. */
static uint64_t leaf_of(const struct record_sample *r)
{
	for (size_t i = 0; i < r->n_frames; i++)
		if (r->frames[i].kind == FRAME_NATIVE)
			return r->frames[i].offset;
	return r->stack ? ((const struct sample_stack *)&r->frames[r->n_frames])->state[0] : 0;
}

/* What was mapped by the events that were handed out so far. */
static void follow(struct watch *w, struct state *t)
{
	for (; t->events < w->n; t->events++) {
		const struct seen *e = &w->list[t->events];

		if (e->kind != SAMPLER_MMAP || (pid_t)e->pid != t->pid ||
			e->start != (uint64_t)(uintptr_t)t->files.at)
			continue;
		assert_true(e->inode == t->files.inode[0] || e->inode == t->files.inode[1]);
		t->mapped = e->inode == t->files.inode[1];
		t->files.shared->handed_out++;
	}
}

static void judge(struct watch *w, const struct record_sample *r)
{
	struct state *t = w->userdata;
	uint64_t offset = leaf_of(r) - (uint64_t)(uintptr_t)t->files.at;
	int ran = offset >= CODE_AT;

	follow(w, t);
	if ((pid_t)r->image.tgid != t->pid || offset >= t->files.page)
		return;
	t->n[ran]++;
	t->wrong += ran != t->mapped;
}

/* Programs are loaded while two of us listen, so that the kernel says of one record that it ends
 * behind its end (ring.c), in rings that were filled before. No time may be made of that. */
static void load_some(struct watch *w, struct watch *other)
{
	struct watch more;

	for (int i = 0; i < 3; i++) {
		watch_open(&more, 97);
		watch_close(&more);
		sampler_drain(w->s);
		sampler_drain(other->s);
		assert_true(w->drained_to <= clock_monotonic_ns());
		assert_true(other->drained_to <= clock_monotonic_ns());
	}
	for (size_t i = 0; i < w->n; i++)
		assert_true(w->list[i].time <= clock_monotonic_ns());
}

static void test_order(void **unused)
{
	struct state t = {.mapped = -1, .files.page = (size_t)sysconf(_SC_PAGESIZE)};
	struct sampler_counters c;
	struct watch w, other;

	make_file(&t.files, 0);
	make_file(&t.files, 1);
	t.files.at = mmap(NULL, t.files.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	t.files.shared =
		mmap(NULL, t.files.page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(t.files.at != MAP_FAILED && t.files.shared != MAP_FAILED);
	watch_open(&w, SAMPLER_RATE_MAX);
	w.on_sample = judge;
	w.userdata = &t;
	watch_open(&other, 1);
	watch_start(&other);
	watch_start(&w);
	t.pid = spawn(take_turns, &t.files);
	for (uint64_t end = clock_monotonic_ns() + 300 * NSEC_PER_SEC;
		MIN(t.n[0], t.n[1]) < ENOUGH;) {
		assert_true(clock_monotonic_ns() < end);
		sampler_drain(w.s);
		sampler_drain(other.s);
		follow(&w, &t);
	}
	load_some(&w, &other);
	__atomic_store_n(&t.files.shared->end, 1, __ATOMIC_RELAXED);
	wait_child(&w, t.pid);
	watch_stop(&w, &c);
	print_message("# %zu and %zu samples by %llu mappings, %zu by the wrong one\n", t.n[0],
		t.n[1], (unsigned long long)t.files.shared->handed_out, t.wrong);
	assert_int_equal(c.lost_events, 0);
	assert_int_equal(t.wrong, 0);
	watch_close(&other);
	watch_close(&w);
	munmap(t.files.at, t.files.page);
	munmap(t.files.shared, t.files.page);
	close(t.files.fd[0]);
	close(t.files.fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
