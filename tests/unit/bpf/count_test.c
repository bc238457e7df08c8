/* SPDX-License-Identifier: Apache-2.0 */

/* Counting in the kernel (bpf/count.h): each sample is sent or counted once, whatever is turned over
 * meanwhile, and under an id that says all that makes it differ from another. Needs root. */

#include <pthread.h>
#include <sys/prctl.h>

#include "tests/unit/bpf/child.h"

#define IDS 4096

/* What was sent and counted of one id. */
struct sum {
	uint64_t id, sent, counted, last_ns;
	size_t record; /* the first one; index in rig.records */
	unsigned turn; /* in which it was sent last */
};

struct sums {
	struct sum list[IDS];
	size_t n, seen; /* records that were looked at */
	uint64_t counted, uncounted, again;
	unsigned turn;
};

static struct sum *sum_of(struct sums *s, uint64_t id)
{
	size_t i = 0;

	while (i < s->n && s->list[i].id != id)
		i++;
	assert_true(i < IDS);
	if (i == s->n)
		s->list[s->n++] = (struct sum){.id = id};
	return &s->list[i];
}

static void take_records(struct rig *g, struct sums *s)
{
	(void)ring_buffer__consume(g->ring);
	for (; s->seen < g->n; s->seen++) {
		const struct record_sample *r = g->records[s->seen], *first;
		struct sum *sum;

		if (!r->id) {
			s->uncounted++;
			continue;
		}
		sum = sum_of(s, r->id);
		if (!sum->sent++)
			sum->record = s->seen;
		else if (sum->turn == s->turn)
			s->again++; /* may be: from the half before, not yet turned over then */
		sum->turn = s->turn;
		first = g->records[sum->record];
		assert_int_equal(first->n_frames, r->n_frames);
		assert_memory_equal(first->frames, r->frames, r->n_frames * sizeof(r->frames[0]));
		assert_memory_equal(&first->image, &r->image, sizeof(r->image));
		assert_int_equal(first->header.cpu, r->header.cpu);
		assert_int_equal(first->end, r->end);
		assert_true(r->end < WALK_MISS_SPACE);
	}
}

static void wait_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* As user space does it. */
static void turn_over(struct rig *g, struct sums *s)
{
	uint32_t *half = (uint32_t *)&g->k->data->settings.half, old = *half;
	bool busy;

	__atomic_store_n(half, 1 - old, __ATOMIC_SEQ_CST);
	do {
		wait_ms(1);
		busy = false;
		for (unsigned i = 0; i < g->cpus; i++)
			busy |= __atomic_load_n(&g->counters[i].of[COUNT_IN_HALF],
					__ATOMIC_SEQ_CST) == 1 + old;
	} while (busy);
	take_records(g, s);
	for (unsigned cpu = 0; cpu < g->cpus; cpu++)
		for (size_t i = 0; i < COUNT_SETS * COUNT_WAYS; i++) {
			struct count_entry *e = &g->counts[cpu].half[old][i];
			struct sum *sum;

			if (!e->id)
				continue;
			assert_int_equal(i / COUNT_WAYS, e->id & (COUNT_SETS - 1));
			sum = sum_of(s, e->id);
			assert_true(sum->sent > 0); /* never counted before it was sent */
			sum->counted += e->samples;
			s->counted += e->samples;
			assert_true(e->samples == 0 || e->last_ns > sum->last_ns);
			if (e->samples)
				sum->last_ns = e->last_ns;
			memset(e, 0, sizeof(*e));
		}
	s->turn++;
}

/* ---- nothing lost, nothing twice
 * -------------------------------------------------------------------------------- */

static void check_sums(struct rig *g, const struct sums *s)
{
	uint64_t taken = rig_counter(g, COUNT_TAKEN), sent = rig_counter(g, COUNT_SENT);

	assert_int_equal(s->counted, rig_counter(g, COUNT_COUNTED));
	assert_int_equal(sent, s->seen);
	assert_int_equal(rig_counter(g, COUNT_LOST_RING), 0);
	assert_int_equal(rig_counter(g, COUNT_LOST_SCRATCH), 0);
	assert_int_equal(taken, rig_counter(g, COUNT_IDLE) + sent + s->counted);
	assert_true(rig_counter(g, COUNT_RUN_NS) > 0);
	for (unsigned i = 0; i < g->cpus; i++)
		assert_int_equal(g->counters[i].of[COUNT_IN_HALF], 0);
}

static void test_exact(void **state)
{
#if defined(__x86_64__)
	static const char *const what[] = {"chain", "kernel", "itself", "bare"};
#else
	static const char *const what[] = {"chain", "kernel", "itself", "stack"};
#endif
	struct rig_config config = {.slices_a_second = 0};
	struct child children[ARRAY_SIZE(what)];
	struct sums *s = calloc(1, sizeof(*s));
	struct rig g;

	assert_non_null(s);
	rig_open(&g, &config);
	rig_start(&g, 2 * RATE);
	for (size_t i = 0; i < ARRAY_SIZE(what); i++) {
		child_start(&children[i], what[i], 20);
		rig_drop_records(&g);
		child_know(&g, &children[i], 0);
	}
	rig_stop(&g);
	/* From zero, of all processes. */
	rig_drop_records(&g);
	g.only = 0;
	for (unsigned i = 0; i < g.cpus; i++)
		memset(&g.counters[i], 0, sizeof(g.counters[i]));
	memset(g.counts, 0, g.cpus * sizeof(*g.counts));
	rig_start(&g, 2 * RATE);
	for (unsigned i = 0; i < 250 || (i < 5000 && s->counted < 500); i++) {
		wait_ms(i % 7);
		turn_over(&g, s);
	}
	rig_stop(&g);
	turn_over(&g, s);
	turn_over(&g, s);
	check_sums(&g, s);
	assert_true(s->counted > 100);
	assert_true(s->n > 4);
	print_message("%zu stacks, %llu sent, %llu of them without an id, %llu counted\n", s->n,
		(unsigned long long)s->seen, (unsigned long long)s->uncounted,
		(unsigned long long)s->counted);
	for (size_t i = 0; i < ARRAY_SIZE(what); i++)
		child_end(&children[i]);
	rig_close(&g);
	free(s);
}

static void test_full(void **state)
{
	struct rig_config config = {0};
	struct child c;
	struct rig g;

	rig_open(&g, &config);
	child_start(&c, "itself", 10);
	rig_start(&g, RATE);
	child_know(&g, &c, 0);
	rig_stop(&g);
	rig_drop_records(&g);
	for (unsigned cpu = 0; cpu < g.cpus; cpu++)
		for (size_t i = 0; i < COUNT_SETS * COUNT_WAYS; i++)
			g.counts[cpu].half[0][i].id = ~0ULL;
	rig_start(&g, RATE);
	rig_await(&g, 20, false);
	rig_stop(&g);
	assert_true(rig_counter(&g, COUNT_TABLE_FULL) >= g.n);
	for (size_t i = 0; i < g.n; i++) {
		assert_int_equal(g.records[i]->id, 0);
		assert_int_equal(g.records[i]->end, WALK_ROOT);
	}
	child_end(&c);
	rig_close(&g);
}

/* What found no room in the ring is not in the table: user space would be told of a stack that it
 * never saw. */
static void test_ring_full(void **state)
{
	struct rig_config config = {.ring_bytes = 4096};
	struct child c;
	struct rig g;
	size_t entries = 0;
	uint64_t lost;

	rig_open(&g, &config);
	child_start(&c, "kernel", 30);
	rig_start(&g, RATE);
	child_know(&g, &c, 0);
	rig_stop(&g);
	g.task = c.pid; /* nobody else's samples fill it */
	rig_start(&g, RATE);
	lost = rig_counter(&g, COUNT_LOST_RING);
	for (unsigned i = 0; i < 20000 &&
		(rig_counter(&g, COUNT_LOST_RING) < lost + 20 || !rig_counter(&g, COUNT_COUNTED));
		i++)
		wait_ms(1);
	assert_true(rig_counter(&g, COUNT_LOST_RING) >= lost + 20);
	rig_stop(&g);
	for (unsigned cpu = 0; cpu < g.cpus; cpu++)
		for (size_t i = 0; i < COUNT_SETS * COUNT_WAYS; i++) {
			uint64_t id = g.counts[cpu].half[0][i].id;
			bool known = false;

			for (size_t k = 0; id && k < g.n; k++)
				known |= g.records[k]->id == id;
			assert_true(!id || known);
			entries += id != 0;
		}
	assert_true(entries > 0);
	child_end(&c);
	rig_close(&g);
}

/* ---- what an id is of
 * ------------------------------------------------------------------------------------------- */

static void *spin(void *arg)
{
	for (volatile uint64_t n = 0;; n++)
		;
	return arg;
}

static pid_t spinning_threads(unsigned n)
{
	int ready[2];
	char byte = 0;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pthread_t t;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pin(0) < 0)
			_exit(1);
		for (unsigned i = 0; i < n; i++)
			if (pthread_create(&t, NULL, spin, NULL) != 0)
				_exit(1);
		if (write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

/* How many different stacks there are in n samples of the one process that is known, and under how many
 * ids. */
static void count_ids(struct rig *g, uint64_t n, size_t *stacks, size_t *ids, size_t *threads)
{
	uint64_t counted = rig_counter(g, COUNT_COUNTED);

	*stacks = *ids = *threads = 0;
	rig_drop_records(g);
	memset(g->counts, 0, g->cpus * sizeof(*g->counts));
	rig_start(g, RATE);
	for (unsigned i = 0; i < RIG_PATIENCE && rig_counter(g, COUNT_COUNTED) - counted + g->n < n;
		i++)
		rig_run(g, 10);
	rig_stop(g);
	assert_true(rig_counter(g, COUNT_COUNTED) - counted + g->n >= n);
	for (size_t i = 0; i < g->n; i++) {
		const struct record_sample *r = g->records[i];
		bool new_stack = true, new_id = r->id != 0, new_thread = true;

		for (size_t k = 0; k < i; k++) {
			const struct record_sample *o = g->records[k];

			new_id &= o->id != r->id;
			new_thread &= o->tid != r->tid;
			new_stack &= o->n_frames != r->n_frames ||
				memcmp(o->frames, r->frames, r->n_frames * sizeof(r->frames[0])) !=
					0;
		}
		*stacks += new_stack;
		*ids += new_id;
		*threads += new_thread;
	}
}

static void test_threads(void **state)
{
	struct rig_config config = {.no_kernel = true};
	struct space_map maps[200];
	struct sample_image image;
	size_t stacks, ids, threads;
	struct rig g;
	uint32_t n;
	pid_t pid;

	rig_open(&g, &config);
	pid = spinning_threads(3);
	rig_start(&g, RATE);
	image = rig_meet(&g, pid);
	rig_stop(&g);
	n = rig_read_maps(&g, pid, maps, ARRAY_SIZE(maps), true);

	/* Of all threads together: a stack is sent once. */
	rig_set_space(&g, &image, maps, n, 0);
	count_ids(&g, 200, &stacks, &ids, &threads);
	assert_int_equal(ids, stacks);
	assert_int_equal(g.n, stacks);

	/* Each of its own. */
	rig_set_space(&g, &image, maps, n, VERDICT_PER_THREAD);
	count_ids(&g, 200, &stacks, &ids, &threads);
	assert_int_equal(threads, 3);
	assert_int_equal(ids, g.n);
	assert_true(ids > stacks);

	/* Another decision, or another period: other ids for the same stacks. */
	for (unsigned what = 0; what < 3; what++) {
		uint64_t before[64];
		size_t n_before = 0;

		rig_set_space(&g, &image, maps, n, 0);
		count_ids(&g, 200, &stacks, &ids, &threads);
		for (size_t i = 0; i < g.n && n_before < ARRAY_SIZE(before); i++)
			before[n_before++] = g.records[i]->id;
		if (what == 0)
			rig_set_space(&g, &image, maps, n, 0);
		else if (what == 1)
			g.k->data->settings.period_ns++;
		count_ids(&g, 200, &stacks, &ids, &threads);
		for (size_t i = 0; i < g.n; i++) {
			bool known = false;

			for (size_t k = 0; k < n_before; k++)
				known |= before[k] == g.records[i]->id;
			if (what < 2)
				assert_false(known);
			else if (known)
				n_before = 0; /* nothing changed: the same ids */
		}
		assert_true(what < 2 || n_before == 0);
	}

	/* Every one is sent. */
	rig_set_space(&g, &image, maps, n, VERDICT_UNCOUNTED);
	count_ids(&g, 200, &stacks, &ids, &threads);
	assert_int_equal(ids, 0);
	assert_true(g.n >= 200);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_ring_full),
		cmocka_unit_test(test_threads),
	};

	if (geteuid() != 0) {
		printf("cannot run - count_test: loading BPF programs takes root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, child_find, NULL);
}
