/* SPDX-License-Identifier: Apache-2.0 */

/* The walk in the kernel and the walk in user space are one text compiled twice: of the same stack
 * both make the same frames, marks and end. Samples of one program are taken twice: with all known,
 * walked in the kernel; and with nothing known, walked here from their slices. Needs root. */

#include "agentd/unwind/walk.h"
#include "tests/unit/bpf/child.h"

struct side {
	const struct rig *g;
	const struct child *c;
	int mem;         /* of the child */
	uint32_t absent; /* a file whose rows have not come; 0: none */
};

static int find_map(void *userdata, uint64_t address, struct space_map *ret)
{
	const struct side *s = userdata;

	for (uint32_t i = 0; i < s->c->n_maps; i++)
		if (address - s->c->maps[i].start < s->c->maps[i].end - s->c->maps[i].start) {
			*ret = s->c->maps[i];
			return 0;
		}
	return -ENOENT;
}

static int find_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	const struct side *s = userdata;
	uint64_t key = ROWS_KEY(file, page);
	const struct rows_set *set = &s->g->index[ROWS_SET(key, RIG_BITS)];

	for (unsigned i = 0; i < ROWS_WAYS; i++)
		if (set->way[i].key == key && file != s->absent) {
			*ret = (const void *)(s->g->rows + (size_t)set->way[i].unit * ROWS_UNIT);
			return 0;
		}
	return -EAGAIN;
}

static ssize_t read_code(void *userdata, uint32_t file, uint64_t offset, void *to, size_t n)
{
	const struct side *s = userdata;

	for (uint32_t i = 0; i < s->c->n_maps; i++) {
		const struct space_map *m = &s->c->maps[i];

		if (m->file == file && offset - m->bias - m->start < m->end - m->start)
			return pread(s->mem, to, n, (off_t)(offset - m->bias));
	}
	return -ENOENT;
}

/* The whole stack of a sample that has a slice, as record. */
static struct record_sample *walk_here(struct side *s, const struct record_sample *r)
{
	static const struct unwind_walk_ops ops = {
		.map = find_map, .rows = find_rows, .code = read_code};
	const struct sample_stack *stack = (const void *)&r->frames[r->n_frames];
	struct record_sample *whole =
		calloc(1, sizeof(*r) + SAMPLE_MAX_FRAMES * sizeof(r->frames[0]));
	struct unwind_walk_result result;
	int code;

	assert_non_null(whole);
	memcpy(whole, r, sizeof(*r) + r->n_frames * sizeof(r->frames[0]));
	s->absent = 1;
	assert_int_equal(unwind_walk(stack, r->stack, &ops, s, whole->frames, r->n_frames,
				 SAMPLE_DEFAULT_USER, SAMPLE_MAX_FRAMES, &result),
		-EAGAIN);
	s->absent = 0;
	code = unwind_walk(stack, r->stack, &ops, s, whole->frames, r->n_frames,
		SAMPLE_DEFAULT_USER, SAMPLE_MAX_FRAMES, &result);
	assert_int_equal(code, 0);
	whole->n_frames = (uint16_t)result.n_frames;
	whole->end = result.end;
	whole->guessed = result.guessed;
	whole->end_file = result.end_file;
	whole->stack = 0;
	return whole;
}

/* All but where exactly the leaf was. */
static void check_same(const struct record_sample *there, const struct record_sample *here)
{
	size_t n, m;
	const struct sample_frame *a = user_frames(there, &n), *b = user_frames(here, &m);

	/* Another stack than that of the slice is only in the kernel's reach. */
	if (here->end == WALK_SLICE) {
		assert_true(m > 4 && m < n);
		assert_int_equal(b[m - 1].offset, MARKER_LOST);
		assert_memory_equal(a + 1, b + 1, (m - 2) * sizeof(*a));
		return;
	}
	assert_int_equal(n, m);
	assert_int_equal(a[0].file, b[0].file);
	assert_int_equal(a[0].flags, b[0].flags);
	assert_memory_equal(a + 1, b + 1, (n - 1) * sizeof(*a));
	assert_int_equal(there->end, here->end);
	assert_int_equal(there->guessed, here->guessed);
	assert_int_equal(there->end_file, here->end_file);
}

static void check_agreement(const char *what, int depth, uint8_t end, uint8_t end_here)
{
	struct rig_config config = {.slices_a_second = 1000, .stack_bytes = 56 << 10};
	struct sample_image image;
	struct record_sample *there, *here;
	struct side side = {0};
	struct child c;
	struct rig g;
	char name[40];
	size_t seen = 0;

	rig_open(&g, &config);
	child_start(&c, what, depth);
	run_known(&g, &c, 5);
	image = g.records[0]->image;
	/* one that was not interrupted in the kernel: its leaf is the program's */
	for (size_t i = 0; i + 1 < g.n && g.records[0]->frames[0].kind == FRAME_KERNEL; i++) {
		there = g.records[0];
		g.records[0] = g.records[i + 1];
		g.records[i + 1] = there;
	}
	there = g.records[0];
	g.records[0] = g.records[--g.n];
	if (there->end != end)
		fail_msg("%s: ended by %u", what, there->end);
	check_chain(&c, there, (size_t)(end == WALK_ROOT ? TRUTH_MAX : 20));
	rig_drop_records(&g);
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(g.k->maps.verdicts), &image), 0);

	snprintf(name, sizeof(name), "/proc/%d/mem", (int)c.pid);
	side = (struct side){.g = &g, .c = &c, .mem = open(name, O_RDONLY | O_CLOEXEC)};
	assert_true(side.mem >= 0);
	g.task = c.pid; /* nobody else's samples take the slices */
	rig_start(&g, RATE);
	rig_await(&g, 20, true);
	rig_stop(&g);
	for (size_t i = 0; i < g.n; i++) {
		if (!g.records[i]->stack ||
			(g.records[i]->n_frames > 0) != (there->frames[0].kind == FRAME_KERNEL))
			continue;
		here = walk_here(&side, g.records[i]);
		assert_int_equal(here->end, end_here);
		check_same(there, here);
		free(here);
		seen++;
	}
	assert_true(seen >= 5);
	close(side.mem);
	free(there);
	child_end(&c);
	rig_close(&g);
}

static void test_whole(void **state)
{
	check_agreement("itself", 60, WALK_ROOT, WALK_ROOT);
	check_agreement("chain", 60, WALK_ROOT, WALK_ROOT);
	check_agreement("stack", 10, WALK_ROOT, WALK_SLICE);
}

static void test_cut(void **state)
{
	check_agreement("chain", SAMPLE_DEFAULT_USER + 44, WALK_DEPTH, WALK_DEPTH);
}

static void test_guessed(void **state)
{
#if defined(__x86_64__)
	check_agreement("bare", 5, WALK_ROOT, WALK_ROOT);
	check_agreement("jit-pointer", 5, WALK_ROOT, WALK_ROOT);
	check_agreement("jit-leaf", 1, WALK_ROOT, WALK_ROOT);
	check_agreement("jit-bare", 1, WALK_ROOT, WALK_ROOT);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_guessed),
	};

	if (geteuid() != 0) {
		printf("cannot run - agree_test: loading BPF programs takes root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, child_find, NULL);
}
