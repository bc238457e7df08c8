/* SPDX-License-Identifier: Apache-2.0 */

/* Walks in the kernel that meet something unknown (mappings, files, rows), the slices that such
 * samples take along, and memory full of garbage, which a walk has to leave in bounds. Needs root. */

#include "agentd/base/clock.h"
#include "tests/unit/bpf/child.h"

/* ---- what is unknown
 * -------------------------------------------------------------------------------------------- */

static uint64_t seed = 0x2545f4914f6cdd1dULL;

static uint64_t any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static const struct sample_stack *stack_of(const struct record_sample *r)
{
	const struct sample_stack *s = (const void *)&r->frames[r->n_frames];

	assert_true(r->stack >= sizeof(*s));
	assert_int_equal(r->stack, sizeof(*s) + s->len);
	assert_int_equal(s->start & 7, 0);
	return s;
}

static uint64_t stack_end(const struct child *c)
{
	unsigned long long start, end = 0;
	char name[40], line[600];
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)c->pid);
	f = fopen(name, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[stack]"))
			assert_int_equal(sscanf(line, "%llx-%llx", &start, &end), 2);
	fclose(f);
	return end;
}

/* What of the slice lies still while the leaf runs: from the leaf's caller to the stack's end. (The
 * pages behind may be the kernel's own, which cannot be read from outside.) */
static void check_slice(const struct child *c, const struct record_sample *r, uint64_t from)
{
	const struct sample_stack *s = stack_of(r);
	struct unwind_regs regs;
	uint64_t end = stack_end(c);
	uint32_t pages = 0;
	char name[40];
	int fd;

	memcpy(&regs, s->state, sizeof(regs));
	assert_int_equal(s->start, (regs.sp - 128) & ~7ULL);
	assert_int_equal(regs.fp_at, 0);
	assert_int_equal(regs.aux_at, 0);
	snprintf(name, sizeof(name), "/proc/%d/mem", (int)c->pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && end > s->start);
	for (uint64_t at = MAX(from, s->start); at < MIN(s->start + s->len, end); at++) {
		uint64_t page = at / SAMPLE_STACK_PAGE - s->start / SAMPLE_STACK_PAGE;
		uint8_t byte;

		assert_true(page < SAMPLE_STACK_PAGES);
		if (!(s->present >> page & 1)) {
			at |= SAMPLE_STACK_PAGE - 1; /* not resident then; now it may be */
			continue;
		}
		pages |= 1U << page;
		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		assert_int_equal(byte, s->bytes[at - s->start]);
	}
	assert_true(pages != 0);
	close(fd);
}

static void test_no_space(void **state)
{
	struct rig_config config = {.slices_a_second = 1000, .stack_bytes = 16 << 10};
	struct child c;
	struct rig g;
	size_t slices = 0;

	rig_open(&g, &config);
	child_start(&c, "chain", 200);
	rig_start(&g, RATE);
	rig_meet(&g, c.pid);
	rig_await(&g, 20, true);
	rig_stop(&g);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];
		struct unwind_regs regs;
		size_t n;

		assert_int_equal(r->end, WALK_MISS_SPACE);
		assert_int_equal(r->space, 0);
		assert_int_equal(r->id, 0);
		user_frames(r, &n);
		if (r->stack == 0) {
			assert_int_equal(n, 1);
			assert_int_equal(r->frames[r->n_frames - 1].offset, MARKER_LOST);
			continue;
		}
		assert_int_equal(n, 0);
		memcpy(&regs, stack_of(r)->state, sizeof(regs));
		/* The code there was looked at, while it could be. */
		assert_int_equal(regs.flags & ~(UNWIND_REGS_TOP | UNWIND_REGS_NEXT),
			UNWIND_REGS_LEAF | UNWIND_REGS_SEEN);
		assert_int_equal(regs.sp, regs.leaf[UNWIND_DW_SP]);
		assert_int_equal(regs.fp, regs.leaf[UNWIND_DW_FP]);
		assert_int_equal(stack_of(r)->len, 16 << 10);
		check_slice(&c, r, regs.sp);
		slices++;
	}
	assert_true(slices > 10);
	assert_int_equal(rig_counter(&g, COUNT_SLICES) + rig_counter(&g, COUNT_NO_SLICE) > 0, 1);
	child_end(&c);
	rig_close(&g);
}

/* The page above the other stack is missing: what lies behind it is there all the same. */
static void test_slice_with_a_hole(void **state)
{
	struct rig_config config = {.slices_a_second = 1000, .stack_bytes = 56 << 10};
	const uint64_t page = 4096;
	struct child c;
	struct rig g;

	rig_open(&g, &config);
	child_start(&c, "stack", 3);
	rig_start(&g, RATE);
	rig_meet(&g, c.pid);
	rig_await(&g, 1, true);
	rig_stop(&g);
	for (size_t i = 0; i < g.n; i++) {
		const struct sample_stack *s;
		uint64_t hole = c.truth->area + 6 * page, first;

		if (!g.records[i]->stack)
			continue;
		s = stack_of(g.records[i]);
		first = s->start / page;
		assert_true(s->start > c.truth->area && s->start < hole);
		assert_true(s->len > hole + page - s->start);
		assert_int_equal(s->present >> (hole / page - first) & 1, 0);
		assert_int_equal(s->present >> (hole / page + 1 - first) & 1, 1);
		for (uint64_t k = 0; k < page; k++)
			assert_int_equal(s->bytes[hole + page + k - s->start], (uint8_t)(k * 7));
		assert_int_equal(s->present >> (hole / page - 1 - first) & 1, 1);
	}
	child_end(&c);
	rig_close(&g);
}

/* A page of rows that is not loaded: the frames before it stand, the state is the next one's. */
static void test_no_rows_loaded(void **state)
{
	struct rig_config config = {.slices_a_second = 1000};
	struct child c;
	struct rig g;
	size_t seen = 0;
	uint32_t libc;

	rig_open(&g, &config);
	child_start(&c, "chain", 10);
	run_known(&g, &c, 1);
	/* The file of main's caller is another one: its rows go. */
	libc = g.records[0]->frames[g.records[0]->n_frames - 2].file;
	for (size_t i = 0; i < 1 << RIG_BITS; i++)
		for (size_t way = 0; way < ROWS_WAYS; way++)
			if (g.index[i].way[way].key >> 32 == libc)
				g.index[i].way[way].key = 0;
	/* another tag, so that nothing that is remembered holds */
	rig_set_space(&g, &g.records[0]->image, c.maps, c.n_maps, VERDICT_UNCOUNTED);
	rig_drop_records(&g);
	g.task = c.pid; /* nobody else's samples take the slices */
	rig_start(&g, RATE);
	rig_await(&g, 20, true);
	rig_stop(&g);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];
		struct unwind_regs regs;
		size_t n;

		assert_int_equal(r->end, WALK_MISS_ROWS);
		assert_int_equal(r->space, g.tag);
		user_frames(r, &n);
		/* all but main's caller, which truth has, too */
		check_chain(&c, r, c.truth->n - 1 - 1);
		if (!r->stack) {
			assert_int_equal(n, c.truth->n + 1);
			continue;
		}
		assert_int_equal(n, c.truth->n);
		memcpy(&regs, stack_of(r)->state, sizeof(regs));
		assert_int_equal(regs.pc, c.truth->pc[0]);
		check_slice(&c, r, regs.sp);
		seen++;
	}
	assert_true(seen >= 10);
	child_end(&c);
	rig_close(&g);
}

/* A map whose file is not known, and one that is not there. */
static void test_no_map(void **state)
{
	struct rig_config config = {.slices_a_second = 1000};
	struct sample_image image;
	struct child c;
	struct rig g;

	rig_open(&g, &config);
	child_start(&c, "chain", 10);
	run_known(&g, &c, 1);
	image = g.records[0]->image;
	g.task = c.pid; /* nobody else's samples take the slices */
	for (unsigned what = 0; what < 3; what++) {
		struct space_map maps[200];
		uint32_t n = c.n_maps;
		size_t seen = 0;

		memcpy(maps, c.maps, sizeof(maps));
		/* the program itself is the first one */
		if (what == 0)
			maps[0].kind = SPACE_UNKNOWN;
		else if (what == 1)
			memmove(maps, maps + 1, --n * sizeof(maps[0]));
		else
			g.k->data->settings.space_generation++;
		rig_set_space(&g, &image, maps, n, 0);
		rig_drop_records(&g);
		rig_start(&g, RATE);
		rig_await(&g, 20, true);
		rig_stop(&g);
		for (size_t i = 0; i < g.n; i++) {
			const struct record_sample *r = g.records[i];

			assert_int_equal(r->end, what == 2 ? WALK_MISS_SPACE : WALK_MISS_MAP);
			assert_int_equal(r->id, 0);
			seen += r->stack > 0;
		}
		assert_true(seen > 10);
	}
	child_end(&c);
	rig_close(&g);
}

/* As many as in four seconds at once, then as the rate says, of which small ones count a quarter; none at
 * rate 0. */
static void test_slice_rate(void **state)
{
	struct rig_config config = {.slices_a_second = 2};
	struct child c;
	struct rig g;
	uint64_t since, at_most;
	size_t slices = 0;

	rig_open(&g, &config);
	child_start(&c, "itself", 3);
	since = clock_monotonic_ns();
	rig_start(&g, RATE);
	rig_meet(&g, c.pid);
	g.only = 0;
	for (unsigned i = 0; i < RIG_PATIENCE && (i < 60 || rig_counter(&g, COUNT_NO_SLICE) <= 100);
		i++)
		rig_run(&g, 10);
	rig_stop(&g);
	/* and one that was begun on credit */
	at_most = 4 * (4 * 2 + 1 + 2 * (clock_monotonic_ns() - since) / NSEC_PER_SEC + 1);
	for (unsigned i = 0; i < g.cpus; i++) {
		uint64_t n = g.counters[i].of[COUNT_SLICES];

		assert_in_range(n, 0, at_most);
		slices += n;
	}
	assert_in_range(slices, 8, g.cpus * at_most);
	assert_true(rig_counter(&g, COUNT_NO_SLICE) > 100);
	rig_close(&g);
	config.slices_a_second = 0;
	rig_open(&g, &config);
	rig_start(&g, RATE);
	rig_meet(&g, c.pid);
	rig_stop(&g);
	assert_int_equal(rig_counter(&g, COUNT_SLICES), 0);
	assert_true(rig_counter(&g, COUNT_NO_SLICE) > 0);
	child_end(&c);
	rig_close(&g);
}

/* Behind a guess, in no map: most likely the guess was wrong. Such samples have slices of their own, few, and
 * are counted without. Only the two programs are sampled, whatever else this host runs. */
static void test_doubtful(void **state)
{
	struct rig_config config = {.slices_a_second = 8};
	struct space_map maps[200];
	struct child c, other;
	struct rig g;
	size_t slices = 0, unmapped = 0;
	uint32_t libc, n = 0;
	uint64_t since;

	rig_open(&g, &config);
	/* What comes first is to leave all of the rate. */
	g.k->data->settings.slices_a_second = 0;
	/* There already, so that the rate has no time to be paid for. */
	child_start(&other, "itself", 3);
	assert_int_equal(kill(other.pid, SIGSTOP), 0);
	child_start(&c, "bare", 5);
	/* A rate is of a CPU: both are to be on one. */
	assert_int_equal(pin(other.pid), 0);
	assert_int_equal(pin(c.pid), 0);
	run_known(&g, &c, 1);
	libc = g.records[0]->frames[g.records[0]->n_frames - 2].file;
	for (uint32_t i = 0; i < c.n_maps; i++)
		if (c.maps[i].file != libc)
			maps[n++] = c.maps[i];
	assert_true(n > 0 && n < c.n_maps);
	rig_set_space(&g, &g.records[0]->image, maps, n, 0);
	rig_drop_records(&g);
	g.k->data->settings.slices_a_second = config.slices_a_second;
	g.task = c.pid;
	since = clock_monotonic_ns();
	rig_start(&g, RATE);
	/* on a busy machine, 600 ms may hold few samples */
	for (unsigned i = 0; i < RIG_PATIENCE && (i < 60 || rig_counter(&g, COUNT_COUNTED) <= 100);
		i++)
		rig_run(&g, 10);
	rig_stop(&g);
	for (size_t i = 0; i < g.n; i++) {
		const struct record_sample *r = g.records[i];

		if (!r->guessed)
			continue; /* not in the leaf */
		if (r->stack) {
			assert_int_equal(r->end, WALK_MISS_MAP);
			slices++;
			continue;
		}
		assert_int_equal(r->end, WALK_UNMAPPED);
		assert_int_equal(r->frames[r->n_frames - 1].offset, MARKER_LOST);
		assert_true(r->id != 0);
		unmapped++;
	}
	/* Of the rate and four seconds of it; each costs at least one, four times the quarter of a small one. */
	assert_in_range(
		slices, 1, 4 * 8 + 1 + 8 * (clock_monotonic_ns() - since) / NSEC_PER_SEC + 1);
	assert_true(unmapped > 0);
	assert_true(rig_counter(&g, COUNT_COUNTED) > 100);
	child_end(&c);
	/* Others' were not touched: the first samples of another have theirs one after the other, a millisecond
	 * apart, where what is left of one share would have to be waited for. */
	rig_drop_records(&g);
	g.only = g.task = other.pid;
	rig_start(&g, RATE);
	assert_int_equal(kill(other.pid, SIGCONT), 0);
	rig_await(&g, 8, false);
	rig_stop(&g);
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(g.records[i]->end, WALK_MISS_SPACE);
		assert_true(g.records[i]->stack > 0);
	}
	child_end(&other);
	rig_close(&g);
}

/* A space that is replaced again and again, others' addresses in its place meanwhile: no sample says
 * that it was walked by it and has frames that are not. */
static void test_space_replaced(void **state)
{
	struct rig_config config = {.slices_a_second = 1000, .no_kernel = true};
	uint64_t ends[WALK_ENDS] = {0};
	struct sample_image image;
	struct space_map *maps;
	struct space_head *head;
	struct child c;
	struct rig g;
	uint32_t tag;

	rig_open(&g, &config);
	child_start(&c, "chain", 90);
	run_known(&g, &c, 1);
	image = g.records[0]->image;
	rig_drop_records(&g);
	g.task = c.pid;
	rig_start(&g, 10 * RATE);
	for (unsigned i = 0;
		i < 60000 && (i < 2000 || ends[WALK_ROOT] < 300 || ends[WALK_MISS_SPACE] < 100);
		i++) {
		g.space_unit = 1;
		tag = rig_set_space(&g, &image, c.maps, c.n_maps, VERDICT_UNCOUNTED);
		head = (struct space_head *)&g.spaces[1];
		maps = (struct space_map *)(head + 1);
		assert_int_equal(head->tag, tag);
		usleep(any() % 400);
		__atomic_store_n(&head->tag, 0, __ATOMIC_SEQ_CST);
		for (uint32_t k = 0; k < c.n_maps; k++) {
			maps[k].bias += 4096;
			maps[k].file++;
		}
		usleep(any() % 100);
		(void)ring_buffer__consume(g.ring);
		for (size_t k = 0; k < g.n; k++) {
			const struct record_sample *r = g.records[k];
			size_t n;

			ends[r->end]++;
			if (r->end == WALK_MISS_SPACE) {
				assert_int_equal(r->space, 0);
				continue;
			}
			assert_int_equal(r->end, WALK_ROOT);
			assert_int_equal(user_frames(r, &n)->file, 1);
			check_chain(&c, r, TRUTH_MAX);
		}
		rig_drop_records(&g);
	}
	rig_stop(&g);
	assert_true(ends[WALK_ROOT] > 50 && ends[WALK_MISS_SPACE] > 50);
	child_end(&c);
	rig_close(&g);
}

/* ---- garbage
 * --------------------------------------------------------------------------------------------------- */

static void scribble(void *to, size_t size)
{
	uint64_t *at = to;

	for (size_t i = 0; i < size / 8; i++)
		at[i] = any() % 3 ? any() : any() % 65536;
}

/* Heads that are right for what is looked up, before rows and rules that are not. */
static void fill_garbage(struct rig *g, const struct child *c)
{
	scribble(g->rows, RIG_ROWS);
	memset(g->index, 0, sizeof(g->index[0]) << RIG_BITS);
	for (uint32_t i = 0; i < c->n_maps; i++) {
		const struct space_map *m = &c->maps[i];

		if (m->kind != SPACE_FILE)
			continue;
		for (uint64_t page = (m->start + m->bias) >> UNWIND_PAGE_SHIFT;
			page <= (m->end - 1 + m->bias) >> UNWIND_PAGE_SHIFT; page++) {
			uint64_t key = ROWS_KEY(m->file, page);
			struct rows_way *way = g->index[ROWS_SET(key, RIG_BITS)].way;
			uint32_t unit = (uint32_t)any() % (RIG_ROWS / ROWS_UNIT);
			struct rows_slot *slot =
				(struct rows_slot *)(g->rows + (size_t)unit * ROWS_UNIT);

			way += any() % ROWS_WAYS;
			way->key = key;
			way->unit = any() % 16 ? unit : (uint32_t)any();
			slot->key = key;
			if (any() % 4)
				slot->n_rows = 1 + (uint32_t)any() % ROWS_MAX;
			if (any() % 4)
				slot->rules_at = (uint32_t)any() % ROWS_CHUNK;
			/* rules of a shape that leads on */
			for (size_t k = 2; k < 200; k++) {
				struct unwind_rule *r = (struct unwind_rule *)slot + k;

				if ((size_t)((uint8_t *)(r + 1) - g->rows) > RIG_ROWS)
					break;
				r->cfa = (uint8_t)any() % 9;
				r->flags = (uint16_t)(any() % 3 ? any() & 0x380 : any());
				r->cfa_offset = (int32_t)(8 * (any() % 12));
				r->ra_offset = -1;
			}
		}
	}
}

static void check_garbage(struct rig *g, uint32_t max_user)
{
	for (size_t i = 0; i < g->n; i++) {
		const struct record_sample *r = g->records[i];
		size_t n;

		user_frames(r, &n);
		assert_true(n <= max_user + 1);
		assert_true(r->end < WALK_ENDS);
		assert_true(r->n_frames <= SAMPLE_MAX_FRAMES);
	}
}

static void test_garbage(void **state)
{
	struct rig_config config = {.slices_a_second = 1000, .max_user = SAMPLE_MAX_USER};
	uint64_t ends[WALK_ENDS] = {0};
	struct sample_image image;
	struct child c;
	struct rig g;
	uint32_t tag;

	rig_open(&g, &config);
	child_start(&c, "garbage", 2);
	run_known(&g, &c, 100);
	check_garbage(&g, SAMPLE_MAX_USER);
	image = g.records[0]->image;
	for (unsigned round = 0; round < 40; round++) {
		tag = rig_set_space(&g, &image, c.maps, c.n_maps, 0);
		fill_garbage(&g, &c);
		if (round % 4 == 3) {
			struct space_head *head =
				(struct space_head *)&g.spaces[g.space_unit - c.n_maps - 1];

			scribble(head + 1, c.n_maps * sizeof(struct space_map));
			head->n = (uint32_t)any();
			head->tag = tag;
		}
		rig_start(&g, RATE * 4);
		rig_run(&g, 20);
		/* and while it is walked */
		scribble(g.rows, RIG_ROWS / 16);
		rig_stop(&g);
		check_garbage(&g, SAMPLE_MAX_USER);
		for (size_t i = 0; i < g.n; i++)
			ends[g.records[i]->end]++;
		rig_drop_records(&g);
	}
	print_message("ends:");
	for (size_t i = 0; i < WALK_ENDS; i++)
		print_message(" %llu", (unsigned long long)ends[i]);
	print_message("\n");
	assert_int_equal(rig_counter(&g, COUNT_LOST_SCRATCH), 0);
	child_end(&c);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_slice_with_a_hole),
		cmocka_unit_test(test_no_rows_loaded),
		cmocka_unit_test(test_no_map),
		cmocka_unit_test(test_slice_rate),
		cmocka_unit_test(test_doubtful),
		cmocka_unit_test(test_space_replaced),
		cmocka_unit_test(test_garbage),
	};

	if (geteuid() != 0) {
		printf("cannot run - miss_test: loading BPF programs takes root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, child_find, NULL);
}
