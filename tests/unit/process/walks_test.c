/* SPDX-License-Identifier: Apache-2.0 */
/* Samples that the kernel could not finish, and what the kernel is told of an image's mappings. The
 * processes and their mappings are real, stacks are made: return addresses into real text, one frame
 * pointer above the other, and rows that say so. */

#include "tests/unit/process/harness.h"

#include "agentd/unwind/slot.h"

static struct fixture f;

/* ---- what the daemon does ------------------------------------------------------------------------------------- */

#define PAGES_MAX 64

static struct {
	struct {
		uint32_t file, page;
	} asked[PAGES_MAX];
	size_t n_asked, n_calls, n_waits;
	size_t n_ready; /* of the pages asked for so many are there; */
	bool ready;     /* or all */
	bool refuses;   /* there never will be any */
	struct rows_slot *slot;
	size_t n_space, n_reused, n_file_gone;
	struct sample_image space_of, reused_of;
	uint64_t reused_ns, lost_ids[4];
	size_t n_lost_ids;
	bool unwanted;
} d;

/* CFA = fp + 16, return address and fp below it: for all of the page. */
static struct rows_slot *fp_slot(void)
{
	static const struct unwind_rule rule = {.cfa = UNWIND_CFA_FP,
		.flags = UNWIND_FP_SAVED,
		.cfa_offset = 16,
		.ra_offset = -1,
		.fp_offset = -2};
	struct rows_slot *slot = calloc(1, ROWS_SLOT_MAX);
	struct unwind_rule rules[UNWIND_FIXED_RULES + 1] = {{0}};
	struct unwind_page page = {.n = 1, .rule = {UNWIND_FIXED_RULES}};
	struct unwind_rules dictionary = {.rules = rules, .n = ARRAY_SIZE(rules)};
	size_t size;

	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++)
		rules[i].cfa = (uint8_t)i;
	rules[UNWIND_FIXED_RULES] = rule;
	size = rows_slot_pack(&page, &dictionary, slot, ROWS_SLOT_MAX);
	assert_int_equal(rows_slot_check(slot, size), 0);
	return slot;
}

static int rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	d.n_calls++;
	if (d.refuses)
		return -ENOENT;
	for (size_t i = 0; i < d.n_asked; i++)
		if (d.asked[i].file == file && d.asked[i].page == page) {
			*ret = d.slot;
			return d.ready || i < d.n_ready ? 0 : -EAGAIN;
		}
	assert_true(d.n_asked < PAGES_MAX);
	d.asked[d.n_asked].file = file;
	d.asked[d.n_asked++].page = page;
	return -EAGAIN;
}

static void on_space(void *userdata, struct image *image)
{
	d.n_space++;
	d.space_of = image->key;
}

static void on_reused(void *userdata, struct image *image, uint64_t time_ns)
{
	d.n_reused++;
	d.reused_of = image->key;
	d.reused_ns = time_ns;
}

static void on_file_gone(void *userdata, uint32_t file)
{
	d.n_file_gone++;
}

static void on_lost_id(void *userdata, uint64_t id)
{
	d.lost_ids[d.n_lost_ids++ % ARRAY_SIZE(d.lost_ids)] = id;
}

static bool wanted(void *userdata, struct image *image)
{
	assert_ptr_equal(image->assignment, userdata);
	return !d.unwanted;
}

static const struct process_ops ops = {.rows = rows,
	.on_space = on_space,
	.on_reused = on_reused,
	.on_file_gone = on_file_gone,
	.on_lost_id = on_lost_id,
	.wanted = wanted};

static int setup_with(const struct process_config *config)
{
	memset(&d, 0, sizeof(d));
	d.slot = fp_slot();
	fixture_start_with(&f, config, &ops);
	return 0;
}

static int setup(void **state)
{
	return setup_with(NULL);
}

static int teardown(void **state)
{
	fixture_stop(&f);
	free(d.slot);
	return 0;
}

/* Rows of all that was asked for, until nothing more is. */
static void rows_come(void)
{
	size_t before;

	d.ready = true;
	do {
		before = d.n_asked;
		process_rows_ready(f.table);
	} while (d.n_asked > before);
}

/* ---- samples -------------------------------------------------------------------------------------------------- */

#define STACK 0x7ffc00001000ULL

struct made {
	struct sample_image key;
	uint64_t time_ns, id, pc;
	const uint64_t *returns; /* n of them, then a return address 0 */
	size_t n;
	enum walk_end end;
	bool slice;
	uint32_t space, slice_bytes; /* more bytes than it needs */
	const struct sample_frame *frames;
	size_t n_frames;
	uint16_t guessed;
};

/* As the kernel sends it: frames, then the walk's state and the stack. */
static void send_made(const struct made *m)
{
	size_t frames = m->n_frames * sizeof(*m->frames);
	uint32_t words = (uint32_t)(2 * (m->n + 1)), len = words * 8 + m->slice_bytes;
	size_t stack = m->slice ? sizeof(struct sample_stack) + len : 0;
	struct record_sample *s = calloc(1, sizeof(*s) + frames + stack);
	struct sampler_event event = {.kind = SAMPLER_SAMPLE, .time_ns = m->time_ns, .sample = s};

	s->header = (struct record_header){.kind = RECORD_SAMPLE,
		.version = SAMPLE_VERSION,
		.time = m->time_ns,
		.size = (uint32_t)(sizeof(*s) + frames + stack)};
	s->image = m->key;
	s->tid = m->key.tgid;
	s->n_frames = (uint16_t)m->n_frames;
	s->value = 10101010;
	s->count = 1;
	s->id = m->id;
	s->end = (uint8_t)m->end;
	s->guessed = m->guessed;
	s->space = m->space;
	s->stack = (uint32_t)stack;
	if (frames)
		memcpy(s->frames, m->frames, frames);
	if (m->slice) {
		struct sample_stack *to = (void *)&s->frames[m->n_frames];
		struct unwind_regs regs = {
			.pc = m->pc, .sp = STACK, .fp = STACK, .flags = UNWIND_REGS_LEAF};

		memcpy(to->state, &regs, sizeof(regs));
		to->start = STACK;
		to->len = len;
		to->present = ~0U;
		for (size_t i = 0; i <= m->n; i++) {
			uint64_t pair[2] = {STACK + 16 * (i + 1), i < m->n ? m->returns[i] : 0};

			memcpy(to->bytes + 16 * i, pair, sizeof(pair));
		}
	}
	process_on_event(f.table, &event);
	free(s);
}

static struct procfs_map map_of(pid_t pid, const char *end)
{
	struct procfs_map m;

	if (!find_mapping(pid, end, &m, NULL, 0))
		fail_msg("no mapping of %s in %d", end, pid);
	return m;
}

static struct process_counters counters(void)
{
	struct process_counters n;

	process_counters(f.table, &n);
	return n;
}

static size_t space_of(struct sample_image key, struct space_map *maps)
{
	struct image *image = process_find(f.table, &key);

	assert_non_null(image);
	return process_space(f.table, image, maps, 4096);
}

static void space_set(struct sample_image key, uint32_t tag)
{
	process_space_set(f.table, process_find(f.table, &key), tag);
}

static const struct space_map *map_at(const struct space_map *maps, size_t n, uint64_t address)
{
	for (size_t i = 0; i < n; i++)
		if (address - maps[i].start < maps[i].end - maps[i].start)
			return &maps[i];
	return NULL;
}

static struct space_map maps[4096];

static void sorted(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_true(maps[i].start < maps[i].end);
		assert_true(i == 0 || maps[i - 1].end <= maps[i].start);
		assert_int_equal(maps[i].kind == SPACE_UNKNOWN, maps[i].file == 0);
		if (maps[i].kind != SPACE_FILE)
			assert_int_equal(maps[i].bias, 0);
	}
}

/* ---- walks ---------------------------------------------------------------------------------------------------- */

/* The very first sample of a program nobody has met: whole. */
static void test_first_sample_is_whole(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6");
	const uint64_t returns[] = {libc.start + 0x1000, text.start + 0x20};
	const struct sample_frame kernel = {.kind = FRAME_KERNEL, .offset = 0xffffffff81000000};

	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.returns = returns,
		.n = 2,
		.end = WALK_MISS_SPACE,
		.slice = true,
		.frames = &kernel,
		.n_frames = 1,
		.guessed = 3});
	run_until(&f, d.n_asked == 1);
	for (int i = 0; i < 5; i++)
		process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(f.n_given, 0);
	d.n_ready = 1;
	process_rows_ready(f.table);
	/* libc has still to be opened, and its rows to be asked for. */
	run_until(&f, d.n_asked == 2);
	assert_int_equal(f.n_given, 0);
	rows_come();
	assert_int_equal(f.n_given, 1);
	assert_int_equal(f.given[0].end, WALK_ROOT);
	assert_int_equal(f.given[0].n, 4);
	assert_int_equal(f.given[0].frames[0].file, FILE_ID_KERNEL);
	assert_int_equal(f.given[0].frames[1].offset, 8 + text.pgoff);
	assert_int_equal(f.given[0].frames[1].flags, 0);
	assert_int_equal(f.given[0].frames[2].offset, 0x1000 + libc.pgoff);
	assert_int_equal(f.given[0].frames[2].flags, FRAME_RETURN);
	assert_int_equal(f.given[0].frames[3].offset, 0x20 + text.pgoff);
	assert_int_equal(f.given[0].frames[3].file, f.given[0].frames[1].file);
	assert_int_equal(f.given[0].end_file, f.given[0].frames[1].file);
	assert_int_equal(f.given[0].guessed, 3);
	assert_string_equal(process_file(f.table, f.given[0].frames[1].file)->path, self_path());
	assert_int_equal(d.asked[0].file, f.given[0].frames[1].file);
	assert_int_equal(d.asked[0].page, (8 + text.pgoff) >> UNWIND_PAGE_SHIFT);
	assert_int_equal(d.asked[1].page, (0xfff + libc.pgoff) >> UNWIND_PAGE_SHIFT);
	assert_int_equal(counters().walks, 1);
	assert_int_equal(counters().walks_waited, 1);
	child_stop(&c);
}

/* Rows that do not come hold nobody up for ever: neither the first nor what stands behind it. */
static void test_rows_that_never_come(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct made m = {.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_MAP,
		.slice = true};

	for (int i = 0; i < 3; i++)
		send_made(&m);
	run_until(&f, f.n_given == 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(f.given[i].end, WALK_MISS_ROWS);
		assert_int_equal(f.given[i].n, 1);
		assert_int_equal(f.given[i].frames[0].kind, FRAME_MARKER);
		assert_int_equal(f.given[i].frames[0].offset, MARKER_LOST);
	}
	assert_int_equal(counters().walks_late, 3);
	/* The next one gets its own time. */
	send_made(&m);
	run_until(&f, d.n_calls > 3);
	assert_int_equal(f.n_given, 3);
	rows_come();
	assert_int_equal(f.n_given, 4);
	assert_int_equal(f.given[3].end, WALK_ROOT);
	child_stop(&c);
}

static void test_rows_refused(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");

	d.refuses = true;
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_ROWS,
		.slice = true});
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].frames[0].kind, FRAME_NATIVE);
	assert_true(f.given[0].end < WALK_MISS_SPACE);
	child_stop(&c);
}

/* At a stop nothing waits. */
static void test_flush(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");

	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_SPACE,
		.slice = true});
	process_flush(f.table);
	assert_int_equal(f.n_given, 1);
	assert_int_equal(f.given[0].end, WALK_MISS_ROWS);
	assert_int_equal(counters().queued, 0);
	/* Nobody is in the list who has gone. */
	process_rows_ready(f.table);
	child_stop(&c);
}

static bool wait_rows(void *userdata, unsigned ms)
{
	d.n_waits++;
	/* One page each time. */
	if (d.n_ready == d.n_asked)
		return false;
	d.n_ready++;
	process_rows_ready(f.table);
	return true;
}

/* Unless rows can be had while the loop stands still. */
static void test_flush_with_rows(void **state)
{
	struct process_ops more = ops;
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6");
	const uint64_t returns[] = {libc.start + 0x1000, text.start + 0x20};

	fixture_stop(&f);
	more.wait_rows = wait_rows;
	fixture_start_with(&f, NULL, &more);
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.returns = returns,
		.n = 2,
		.end = WALK_MISS_SPACE,
		.slice = true});
	process_flush(f.table);
	assert_int_equal(f.n_given, 1);
	assert_int_equal(f.given[0].end, WALK_ROOT);
	assert_int_equal(f.given[0].n, 3);
	assert_int_equal(d.n_waits, 2);
	child_stop(&c);
}

/* Only who waits for rows is tried again. */
static void test_who_is_woken(void **state)
{
	struct child c = child_of(self_path(), "wait"), e = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1), other = key_of(e.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), text2 = map_of(e.pid, "walks_test");
	struct made m = {.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_SPACE,
		.slice = true};
	size_t calls;

	send_made(&m);
	run_until(&f, d.n_calls == 1);
	m.key = other;
	m.pc = text2.start + 8;
	m.time_ns = clock_monotonic_ns();
	send_made(&m); /* not read yet */
	calls = d.n_calls;
	process_rows_ready(f.table);
	assert_int_equal(d.n_calls, calls + 1);
	assert_int_equal(f.n_given, 0);
	rows_come();
	assert_int_equal(f.n_given, 1);
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.given[1].end, WALK_ROOT);
	child_stop(&c);
	child_stop(&e);
}

/* What the kernel finished goes out as it is, past others that wait for rows. */
static void test_whole_samples(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct sample_frame frames[3] = {{.kind = FRAME_KERNEL, .offset = 1}};
	uint32_t id;

	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 1);
	id = f.given[0].frames[0].file;
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_ROWS,
		.slice = true});
	assert_int_equal(f.n_given, 1);
	frames[1] = (struct sample_frame){.kind = FRAME_NATIVE, .file = id, .offset = 0x123456};
	frames[2] = (struct sample_frame){
		.kind = FRAME_NATIVE, .flags = FRAME_RETURN, .file = id, .offset = 7ULL << 32};
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.id = 4711,
		.end = WALK_ROOT,
		.guessed = 2,
		.frames = frames,
		.n_frames = 3,
		.space = 9});
	assert_int_equal(f.n_given, 2);
	assert_int_equal(f.given[1].id, 4711);
	assert_int_equal(f.given[1].end, WALK_ROOT);
	assert_int_equal(f.given[1].guessed, 2);
	assert_int_equal(f.given[1].n, 3);
	assert_int_equal(f.given[1].frames[0].file, FILE_ID_KERNEL);
	assert_memory_equal(&f.given[1].frames[1], &frames[1], 2 * sizeof(frames[0]));
	/* An id of a file that nobody knows is no file. */
	frames[1].file = 0x7fffffff;
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.end = WALK_ROOT,
		.frames = frames,
		.n_frames = 3});
	rows_come();
	assert_int_equal(f.n_given, 4);
	assert_string_equal(process_file(f.table, f.given[3].frames[1].file)->path, "[unmapped]");
	child_stop(&c);
}

/* The kernel had no slice to spare: the next sample is to have its rows. */
static void test_miss_without_slice(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	const struct sample_frame frames[2] = {
		native(text.start + 0x30), {.kind = FRAME_MARKER, .offset = MARKER_LOST}};

	for (size_t n = 2; n >= 1; n--)
		send_made(&(struct made){.key = key,
			.time_ns = clock_monotonic_ns(),
			.end = WALK_MISS_SPACE,
			.frames = frames,
			.n_frames = n});
	run_until(&f, f.n_given == 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(f.given[i].end, WALK_MISS_SPACE);
		assert_int_equal(f.given[i].n, 2);
		assert_int_equal(f.given[i].frames[0].offset, 0x30 + text.pgoff);
		assert_int_equal(f.given[i].frames[1].offset, MARKER_LOST);
	}
	assert_int_equal(d.n_asked, 1);
	assert_int_equal(d.asked[0].file, f.given[0].frames[0].file);
	child_stop(&c);
}

/* More slices than there is room for: samples stay, the oldest lose their callers. */
static void test_slices_overflow(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	const uint64_t returns[] = {text.start + 0x20};
	size_t n = QUEUE_BYTES_MAX / 50000 + 50, dropped = 0;
	struct made m = {.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.returns = returns,
		.n = 1,
		.end = WALK_MISS_SPACE,
		.slice = true,
		.slice_bytes = 50000};

	for (size_t i = 0; i < n; i++) {
		m.time_ns++;
		send_made(&m);
	}
	assert_int_equal(f.lost, 0);
	dropped = counters().slices_dropped;
	assert_true(dropped >= 40 && dropped < 200);
	d.ready = true;
	run_until(&f, d.n_asked == 1);
	rows_come();
	assert_int_equal(f.n_given, n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(f.given[i].end, i < dropped ? WALK_SLICE : WALK_ROOT);
		assert_int_equal(f.given[i].n, i < dropped ? 1 : 2);
		assert_int_equal(
			f.given[i].frames[0].kind, i < dropped ? FRAME_MARKER : FRAME_NATIVE);
	}
	child_stop(&c);
}

static void test_slice_that_lies(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct record_sample *s;
	struct sampler_event event = {.kind = SAMPLER_SAMPLE, .time_ns = clock_monotonic_ns()};
	size_t size = sizeof(*s) + sizeof(struct sample_stack);

	s = calloc(1, size);
	s->header.size = (uint32_t)size;
	s->header.time = event.time_ns;
	s->image = key;
	s->count = 1;
	s->end = WALK_MISS_SPACE;
	event.sample = s;
	/* Beyond the record: there is none. */
	s->stack = sizeof(struct sample_stack) + 8;
	process_on_event(f.table, &event);
	/* Beyond itself. */
	s->stack = sizeof(struct sample_stack);
	((struct sample_stack *)(void *)s->frames)->len = 4096;
	process_on_event(f.table, &event);
	free(s);
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 3);
	assert_int_equal(f.given[0].end, WALK_MISS_SPACE);
	assert_int_equal(f.given[1].end, WALK_BAD_STACK);
	assert_int_equal(f.given[1].frames[0].offset, MARKER_LOST);
	child_stop(&c);
}

/* What no source claims is neither opened nor walked. */
static void test_unwanted(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	const struct sample_frame frames[2] = {
		{.kind = FRAME_KERNEL, .offset = 0xffffffff81000000}, native(text.start)};

	d.unwanted = true;
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_SPACE,
		.slice = true,
		.frames = frames,
		.n_frames = 2});
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].n, 1);
	assert_int_equal(f.given[0].frames[0].kind, FRAME_KERNEL);
	assert_int_equal(d.n_calls, 0);
	assert_int_equal(counters().opens, 0);
	child_stop(&c);
}

static void test_lost_ids(void **state)
{
	struct process_config config = {.max_queued = 2};
	struct sample_image key = key_of(getpid(), 1);

	teardown(state);
	setup_with(&config);
	for (uint64_t id = 1; id <= 3; id++)
		send_made(&(struct made){
			.key = key, .time_ns = clock_monotonic_ns(), .id = id, .end = WALK_ROOT});
	assert_int_equal(f.lost, 1);
	assert_int_equal(d.n_lost_ids, 1);
	assert_int_equal(d.lost_ids[0], 3);
}

/* ---- spaces --------------------------------------------------------------------------------------------------- */

static void test_space(void **state)
{
	struct child c = child_of(self_path(), "anon");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6"),
			  vdso = map_of(c.pid, "[vdso]");
	struct file_key libc_key = key_of_map(&libc);
	const struct space_map *m;
	size_t n;

	/* Facts alone are nobody's business but the table's. */
	send_exec(&f, key, clock_monotonic_ns(), "prog");
	run_until(&f, f.n_facts == 1);
	assert_int_equal(d.n_space, 0);
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 1);
	turn(&f);
	assert_int_equal(d.n_space, 1);
	assert_memory_equal(&d.space_of, &key, sizeof(key));
	n = space_of(key, maps);
	assert_true(n >= 4);
	sorted(n);
	m = map_at(maps, n, text.start);
	assert_int_equal(m->kind, SPACE_FILE);
	assert_int_equal(m->file, f.given[0].frames[0].file);
	assert_int_equal(m->start + m->bias, text.pgoff);
	m = map_at(maps, n, libc.start);
	assert_int_equal(m->kind, SPACE_UNKNOWN); /* nobody asked for it */
	m = map_at(maps, n, vdso.start);
	assert_int_equal(m->kind, SPACE_FILE);
	assert_int_equal(m->file, FILE_ID_VDSO);
	assert_int_equal(m->start + m->bias, 0);
	space_set(key, 1);
	for (int i = 0; i < 3; i++)
		process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 1);
	/* A file became known. The daemon asks whenever it is told to. */
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = libc.start,
		.end = WALK_MISS_MAP,
		.slice = true,
		.space = 1});
	run_until(&f, d.n_asked == 1);
	run_until(&f, d.n_space == 2);
	n = space_of(key, maps);
	rows_come();
	assert_int_equal(f.n_given, 2);
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 2);
	m = map_at(maps, n, libc.start);
	assert_int_equal(m->kind, SPACE_FILE);
	assert_int_equal(m->file, f.given[1].frames[0].file);
	space_set(key, 2);
	/* A library more. */
	send_mmap(&f, c.pid, clock_monotonic_ns(), 0x10000000, 0x1000, 5ULL << 32, &libc_key,
		"/usr/lib/x86_64-linux-gnu/libc.so.6");
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 3);
	assert_int_equal(d.n_reused, 0);
	n = space_of(key, maps);
	sorted(n);
	m = map_at(maps, n, 0x10000800);
	assert_int_equal(
		m->kind, SPACE_UNKNOWN); /* it may be another file of that name and number */
	space_set(key, 3);
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 3);
	/* The kernel has dropped it. One from before it was told says nothing. */
	send_made(&(struct made){.key = key, .time_ns = 1, .end = WALK_MISS_SPACE});
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 3);
	send_made(&(struct made){
		.key = key, .time_ns = clock_monotonic_ns(), .end = WALK_MISS_SPACE});
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 4);
	/* Events were lost: none until they were read afresh. */
	send_lost(&f, clock_monotonic_ns());
	assert_int_equal(space_of(key, maps), 0);
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 5);
	assert_true(space_of(key, maps) > 0);
	assert_null(map_at(maps, space_of(key, maps), 0x10000800));
	child_stop(&c);
}

static struct image *find(struct sample_image key)
{
	return process_find(f.table, &key);
}

/* The same files once more: known without a look, as long as they are what they were. */
static void test_known_files(void **state)
{
	char dir[] = "/tmp/odi-walks-XXXXXX", path[64];
	struct child c, e;
	struct sample_image key;
	struct procfs_map text, libc;
	const uint64_t *returns;
	uint32_t first, libc_file;
	uint64_t opens;
	size_t n;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/prog", dir);
	copy_file(self_path(), path);
	c = child_of(path, "wait");
	key = key_of(c.pid, 1);
	text = map_of(c.pid, "/prog");
	libc = map_of(c.pid, "libc.so.6");
	returns = (uint64_t[]){libc.start + 0x1000};
	d.ready = true;
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.returns = returns,
		.n = 1,
		.end = WALK_MISS_SPACE,
		.slice = true});
	for (int i = 0; f.n_given == 0 && i < 10000; i++) {
		turn(&f);
		process_rows_ready(f.table);
	}
	assert_int_equal(f.n_given, 1);
	first = f.given[0].frames[0].file;
	libc_file = f.given[0].frames[1].file;
	opens = counters().opens;
	assert_int_equal(opens, 2);
	child_stop(&c);
	/* Another process: both are there at once, by a fresh read of its mappings. */
	c = child_of(path, "wait");
	key = key_of(c.pid, 1);
	text = map_of(c.pid, "/prog");
	libc = map_of(c.pid, "libc.so.6");
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.given[1].frames[0].file, first);
	n = space_of(key, maps);
	assert_int_equal(map_at(maps, n, text.start)->file, first);
	assert_int_equal(map_at(maps, n, libc.start)->file, libc_file);
	assert_int_equal(counters().opens, opens);
	child_stop(&c);
	/* Somebody touches the file: it has to be looked at, and is another one. */
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "\177ELF", 4, 0), 4);
	close(fd);
	c = child_of(path, "wait");
	key = key_of(c.pid, 1);
	text = map_of(c.pid, "/prog");
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 3);
	assert_int_not_equal(f.given[2].frames[0].file, first);
	assert_int_equal(counters().opens, opens + 1);
	/* And a new file of that name, while the old one runs on. */
	assert_int_equal(unlink(path), 0);
	copy_file(self_path(), path);
	e = child_of(path, "wait");
	send_sample(&f, key_of(e.pid, 1), clock_monotonic_ns(), map_of(e.pid, "/prog").start);
	run_until(&f, f.n_given == 4);
	assert_int_not_equal(f.given[3].frames[0].file, f.given[2].frames[0].file);
	assert_int_equal(counters().opens, opens + 2);
	child_stop(&c);
	child_stop(&e);
	unlink(path);
	rmdir(dir);
}

/* Forked workers share what they have mapped: the file that one has asked for is known to all. */
static void test_workers(void **state)
{
	struct child c = child_of(self_path(), "fork");
	struct sample_image parent = key_of(c.pid, 4), child;
	struct procfs_map text = map_of(c.pid, "walks_test");
	uint64_t t0 = clock_monotonic_ns();
	char name[64], line[64] = "";
	pid_t pid = 0;

	snprintf(name, sizeof(name), "/proc/%d/task/%d/children", c.pid, c.pid);
	while (!pid) {
		FILE *list = fopen(name, "re");

		if (list && fgets(line, sizeof(line), list))
			pid = atoi(line);
		if (list)
			fclose(list);
	}
	child = key_of(pid, 4);
	send_whole_exec(&f, parent, t0, "walks_test");
	send_process(&f, SAMPLER_FORK, child, parent, t0 + 1000, "walks_test", NULL);
	send_sample(&f, parent, t0 + 2000, text.start);
	run_until(&f, f.n_given == 1);
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 1);
	space_of(parent, maps);
	space_set(parent, 1);
	/* The child's first sample: no open, and the kernel is told, before we know who it is. */
	send_made(&(struct made){.key = child,
		.time_ns = t0 + 3000,
		.pc = text.start,
		.end = WALK_MISS_SPACE,
		.slice = true});
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 2);
	assert_int_equal(f.n_facts, 1);
	assert_memory_equal(&d.space_of, &child, sizeof(child));
	assert_int_equal(map_at(maps, space_of(child, maps), text.start)->kind, SPACE_FILE);
	run_until(&f, d.n_asked == 1);
	rows_come();
	assert_int_equal(f.given[1].frames[0].file, f.given[0].frames[0].file);
	assert_int_equal(counters().opens, 1);
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 2);
	/* A mapping of the child's own is not its parent's. */
	space_set(child, 2);
	send_mmap(&f, pid, t0 + 4000, text.start, 0x1000, 0, &(struct file_key){}, "//anon");
	assert_int_equal(d.n_reused, 1);
	assert_memory_equal(&d.reused_of, &child, sizeof(child));
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, 3);
	assert_int_equal(map_at(maps, space_of(child, maps), text.start)->kind, SPACE_ANON);
	assert_int_equal(map_at(maps, space_of(parent, maps), text.start)->kind, SPACE_FILE);
	kill(pid, SIGKILL);
	child_stop(&c);
}

/* ---- reuse ---------------------------------------------------------------------------------------------------- */

static void test_reuse(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 0x30000000, t1;
	struct sample_frame frames[2] = {{.kind = FRAME_KERNEL, .offset = 1}};
	struct made m = {.key = key, .end = WALK_ROOT, .frames = frames, .n_frames = 2, .id = 5};

	send_exec_begin(&f, c.pid, t0);
	send_mmap(
		&f, c.pid, t0 + 1, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_mmap(&f, c.pid, t0 + 2, at, 0x3000, 0x1000, &k, "/lib/one.so");
	send_exec(&f, key, t0 + 3, "walks_test");
	send_sample(&f, key, t0 + 4, text.start);
	run_until(&f, f.n_given == 1);
	frames[1] = (struct sample_frame){
		.kind = FRAME_NATIVE, .file = f.given[0].frames[0].file, .offset = 0x10};
	/* Nothing told, nothing to be distrusted. */
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x3000, 0x2000, &k, "/lib/one.so");
	assert_int_equal(d.n_reused, 0);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 1);
	/* The same again (mprotect says so, too), and more of it beside: no reuse. */
	t1 = clock_monotonic_ns();
	send_mmap(&f, c.pid, t1, at, 0x3000, 0x2000, &k, "/lib/one.so");
	send_mmap(&f, c.pid, t1, at + 0x3000, 0x1000, 0x5000, &k, "/lib/one.so");
	assert_int_equal(d.n_reused, 0);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 2);
	/* Another file. */
	t1 = clock_monotonic_ns();
	send_mmap(&f, c.pid, t1, at, 0x1000, 0, &l, "/lib/two.so");
	assert_int_equal(d.n_reused, 1);
	assert_int_equal(d.reused_ns, t1);
	m.space = 2;
	m.time_ns = t1 - 1; /* ran before */
	send_made(&m);
	m.time_ns = t1;
	send_made(&m);
	m.space = 0; /* not walked by anything */
	m.end = WALK_MISS_SPACE;
	m.slice = true;
	m.pc = text.start;
	d.ready = true;
	send_made(&m);
	m.slice = false;
	m.end = WALK_ROOT;
	process_on_drained(f.table, clock_monotonic_ns());
	assert_true(space_of(key, maps) > 0);
	assert_int_equal(map_at(maps, space_of(key, maps), at)->kind, SPACE_UNKNOWN);
	m.space = 3; /* by the new one, before we say that it is in place */
	m.time_ns = clock_monotonic_ns();
	space_set(key, 3);
	send_made(&m);
	m.space = 2; /* by the old one, a moment before */
	send_made(&m);
	m.time_ns = clock_monotonic_ns();
	m.space = 4;
	send_made(&m);
	process_rows_ready(f.table);
	run_until(&f, f.n_given == 7);
	{
		static const uint8_t ends[] = {
			0, WALK_ROOT, WALK_REUSED, WALK_ROOT, WALK_REUSED, WALK_ROOT, WALK_ROOT};
		size_t n_reused = 0;

		/* Whole ones may have passed the one that waited for its rows. */
		for (size_t i = 1; i < 7; i++) {
			n_reused += f.given[i].end == WALK_REUSED;
			assert_int_equal(f.given[i].id, 5);
			assert_int_equal(f.given[i].frames[0].kind, FRAME_KERNEL);
			assert_int_equal(f.given[i].frames[1].kind,
				f.given[i].end == WALK_REUSED ? FRAME_MARKER : FRAME_NATIVE);
		}
		assert_int_equal(f.given[1].end, ends[1]);
		assert_int_equal(f.given[2].end, ends[2]);
		assert_int_equal(n_reused, 2);
	}
	assert_int_equal(counters().reused, 2);
	/* Memory without a file where a file was, and the other way round; not memory over memory. */
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x1000, 0, &(struct file_key){}, "//anon");
	assert_int_equal(d.n_reused, 2);
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x1000, 0, &(struct file_key){}, "//anon");
	assert_int_equal(d.n_reused, 2);
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x1000, 0, &l, "/lib/two.so");
	assert_int_equal(d.n_reused, 3);
	child_stop(&c);
}

/* While samples wait, events wait behind them: reuse is known at once all the same, and is over only when the
 * kernel was told of all of them. */
static void test_reuse_behind_a_queue(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 0x30000000, t1;
	struct made m = {.key = key, .pc = text.start, .end = WALK_MISS_ROWS, .slice = true};
	size_t told;
	struct sample_frame frame;

	send_exec_begin(&f, c.pid, t0);
	send_mmap(
		&f, c.pid, t0 + 1, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_exec(&f, key, t0 + 3, "walks_test");
	send_sample(&f, key, t0 + 4, text.start);
	run_until(&f, f.n_given == 1);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 1);
	m.time_ns = clock_monotonic_ns();
	m.space = 1;
	send_made(&m); /* waits for rows */
	assert_int_equal(f.n_given, 1);
	t1 = clock_monotonic_ns();
	send_mmap(&f, c.pid, t1, at, 0x1000, 0, &k, "/lib/one.so");
	assert_int_equal(d.n_reused, 0);
	send_mmap(&f, c.pid, t1 + 1, at, 0x1000, 0, &l, "/lib/two.so");
	assert_int_equal(d.n_reused, 1);
	assert_int_equal(space_of(key, maps), 0);
	told = d.n_space;
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, told);
	frame = (struct sample_frame){
		.kind = FRAME_NATIVE, .file = f.given[0].frames[0].file, .offset = 0x10};
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.end = WALK_ROOT,
		.space = 1,
		.frames = &frame,
		.n_frames = 1});
	rows_come();
	assert_int_equal(f.n_given, 3);
	assert_int_equal(f.given[2].end + f.given[1].end, WALK_REUSED + WALK_ROOT);
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, told + 1);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 2);
	send_made(&(struct made){.key = key,
		.time_ns = clock_monotonic_ns(),
		.end = WALK_ROOT,
		.space = 2,
		.frames = &frame,
		.n_frames = 1});
	assert_int_equal(f.given[3].end, WALK_ROOT);
	child_stop(&c);
}

/* ---- particular mappings --------------------------------------------------------------------------------------- */

#define LARGE (2ULL << 20)

/* A program copies its text into large pages: it is still that text. */
static void test_copied_text(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 64 * LARGE + 0x5000, lib = 128 * LARGE;
	const struct space_map *m;
	size_t n;

	send_exec_begin(&f, c.pid, t0);
	send_mmap(&f, c.pid, t0 + 1, at, 5 * LARGE, 0x1000, &k, self_path());
	send_mmap(&f, c.pid, t0 + 2, lib, 5 * LARGE, 0x1000, &l, "/lib/two.so");
	send_exec(&f, key, t0 + 3, "walks_test");
	send_sample(&f, key, t0 + 4, at);
	run_until(&f, f.n_given == 1);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 1);
	send_mmap(&f, c.pid, clock_monotonic_ns(), 65 * LARGE, 3 * LARGE, 0, &(struct file_key){},
		"//anon");
	assert_int_equal(d.n_reused, 0);
	n = space_of(key, maps);
	m = map_at(maps, n, 66 * LARGE);
	assert_int_equal(m->kind, SPACE_FILE);
	assert_int_equal(m->start, at);
	assert_int_equal(m->end, at + 5 * LARGE);
	/* Not what is no large page, reaches beyond, or lies in a library: that may have gone before. */
	send_mmap(&f, c.pid, clock_monotonic_ns(), 65 * LARGE + 0x1000, LARGE, 0,
		&(struct file_key){}, "//anon");
	assert_int_equal(d.n_reused, 1);
	n = space_of(key, maps);
	assert_int_equal(map_at(maps, n, 65 * LARGE + 0x1000)->kind, SPACE_ANON);
	assert_int_equal(map_at(maps, n, 65 * LARGE)->kind, SPACE_FILE);
	space_set(key, 2);
	send_mmap(&f, c.pid, clock_monotonic_ns(), 68 * LARGE, 3 * LARGE, 0, &(struct file_key){},
		"//anon");
	assert_int_equal(d.n_reused, 2);
	send_mmap(&f, c.pid, clock_monotonic_ns(), lib + LARGE, LARGE, 0, &(struct file_key){},
		"//anon");
	assert_int_equal(d.n_reused, 3);
	n = space_of(key, maps);
	assert_int_equal(map_at(maps, n, lib + LARGE)->kind, SPACE_ANON);
	child_stop(&c);
}

/* One file in several pieces, out of order, far into it: one id, each piece its own bias. */
static void test_pieces(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct file_key k = key_of_map(&text);
	uint64_t t0 = clock_monotonic_ns();
	const uint64_t far = 5ULL << 32, returns[] = {0x30000100, 0x20000100};

	k.generation = 77;
	send_exec_begin(&f, c.pid, t0);
	send_mmap(
		&f, c.pid, t0 + 1, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_mmap(&f, c.pid, t0 + 2, 0x30000000, 0x1000, 0x1000, &k, self_path());
	send_mmap(&f, c.pid, t0 + 3, 0x20000000, 0x1000, far, &k, self_path());
	send_exec(&f, key, t0 + 4, "walks_test");
	d.ready = true;
	send_made(&(struct made){.key = key,
		.time_ns = t0 + 5,
		.pc = text.start,
		.returns = returns,
		.n = 2,
		.end = WALK_MISS_SPACE,
		.slice = true});
	for (int i = 0; f.n_given == 0 && i < 10000; i++) {
		turn(&f);
		process_rows_ready(f.table);
	}
	assert_int_equal(f.given[0].n, 3);
	assert_int_equal(f.given[0].frames[1].offset, 0x1100);
	assert_int_equal(f.given[0].frames[2].offset, far + 0x100);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(f.given[0].frames[i].file, f.given[0].frames[0].file);
	/* The mapping of the first one was looked at, the others are known by it. */
	assert_int_equal(counters().opens, 1);
	child_stop(&c);
}

/* A file without a name. */
static void test_memfd(void **state)
{
	struct child c = child_of(self_path(), "memfd");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map m;
	const struct file *file;

	assert_true(find_mapping(c.pid, "/memfd:odi-walks (deleted)", &m, NULL, 0));
	send_sample(&f, key, clock_monotonic_ns(), m.start + 5);
	run_until(&f, f.n_given == 1);
	file = process_file(f.table, f.given[0].frames[0].file);
	assert_int_equal(file->kind, FILE_ELF);
	assert_true(file->fd >= 0);
	assert_string_equal(file->path, "/memfd:odi-walks");
	assert_int_equal(f.given[0].frames[0].offset, 5);
	child_stop(&c);
}

/* exec by another thread than the first: the process keeps its number, and begins anew. */
static void test_exec_in_a_thread(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image old = key_of(c.pid, 1), new = old;
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct file_key k = key_of_map(&text);
	uint64_t t0 = clock_monotonic_ns();
	struct sampler_event begin = {.kind = SAMPLER_EXEC_BEGIN,
		.time_ns = t0 + 10,
		.mmap = {.pid = c.pid, .tid = c.pid + 7}};

	new.exec = 2;
	send_exec_begin(&f, c.pid, t0);
	send_mmap(&f, c.pid, t0 + 1, 0x10000000, 0x1000, 0, &k, "/old");
	send_exec(&f, old, t0 + 2, "old");
	process_on_event(f.table, &begin);
	send_mmap(
		&f, c.pid, t0 + 11, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_exec(&f, new, t0 + 12, "new");
	send_sample(&f, new, t0 + 13, text.start + 1);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].key.exec, 2);
	assert_int_equal(f.given[0].frames[0].offset, 1 + text.pgoff);
	assert_null(map_at(maps, space_of(new, maps), 0x10000000));
	assert_true(find(old)->ended);
	child_stop(&c);
}

/* vfork: the child has its parent's mappings until it execs, and the parent's stay. */
static void test_vfork(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image parent = key_of(c.pid, 1), child = dead_key(1), execed = child;
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct file_key k = key_of_map(&text);
	uint64_t t0 = clock_monotonic_ns();

	execed.exec = 2;
	send_whole_exec(&f, parent, t0, "walks_test");
	send_process(&f, SAMPLER_FORK, child, parent, t0 + 1000, "walks_test", NULL);
	d.ready = true;
	send_made(&(struct made){.key = child,
		.time_ns = t0 + 1001,
		.pc = text.start + 3,
		.end = WALK_MISS_SPACE,
		.slice = true});
	send_exec_begin(&f, (pid_t)child.tgid, t0 + 1002);
	send_mmap(&f, (pid_t)child.tgid, t0 + 1003, 0x10000000, 0x1000, 0, &k, self_path());
	send_exec(&f, execed, t0 + 1004, "next");
	send_made(&(struct made){.key = execed,
		.time_ns = t0 + 1005,
		.pc = 0x10000005,
		.end = WALK_MISS_SPACE,
		.slice = true});
	send_sample(&f, parent, t0 + 1006, text.start + 4);
	for (int i = 0; f.n_given < 3 && i < 10000; i++) {
		turn(&f);
		process_rows_ready(f.table);
	}
	assert_int_equal(f.n_given, 3);
	for (size_t i = 0; i < 3; i++) {
		uint64_t want = f.given[i].key.tgid == parent.tgid ? text.pgoff + 4
			: f.given[i].key.exec == 1                 ? text.pgoff + 3
								   : 5;

		assert_int_equal(f.given[i].frames[0].offset, want);
	}
	child_stop(&c);
}

/* Programs that live for a tenth of a second, after the binary was seen once: all whole. */
static void test_short_lived(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image seen = key_of(c.pid, 1), shell = key_of(getpid(), 1);
	struct procfs_map text = map_of(c.pid, "walks_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	const uint64_t returns[] = {libc.start + 0x1000, text.start + 0x20};
	uint64_t t0 = clock_monotonic_ns(), opens;

	d.ready = true;
	send_whole_exec(&f, seen, t0, "walks_test");
	send_made(&(struct made){.key = seen,
		.time_ns = t0 + 100,
		.pc = text.start + 8,
		.returns = returns,
		.n = 2,
		.end = WALK_MISS_SPACE,
		.slice = true});
	for (int i = 0; f.n_given == 0 && i < 10000; i++) {
		turn(&f);
		process_rows_ready(f.table);
	}
	opens = counters().opens;
	child_stop(&c);
	for (uint32_t i = 0; i < 40; i++) {
		struct sample_image key = dead_key(1), prog = key;
		pid_t pid = (pid_t)key.tgid;

		prog.exec = 2;
		t0 = clock_monotonic_ns();
		send_process(&f, SAMPLER_FORK, key, shell, t0, "sh", NULL);
		send_exec_begin(&f, pid, t0 + 1);
		send_mmap(&f, pid, t0 + 2, text.start, text.end - text.start, text.pgoff, &k,
			self_path());
		send_mmap(&f, pid, t0 + 3, libc.start, libc.end - libc.start, libc.pgoff, &l,
			"/usr/lib/x86_64-linux-gnu/libc.so.6");
		send_exec(&f, prog, t0 + 4, "prog");
		send_made(&(struct made){.key = prog,
			.time_ns = t0 + 5,
			.pc = text.start + 8,
			.returns = returns,
			.n = 2,
			.end = WALK_MISS_SPACE,
			.slice = true});
		send_process(&f, SAMPLER_EXIT, prog, NOBODY_IMAGE, t0 + 6, "prog", NULL);
	}
	run_until(&f, f.n_given == 41);
	for (size_t i = 1; i < 41; i++) {
		assert_int_equal(f.given[i].end, WALK_ROOT);
		assert_int_equal(f.given[i].n, 3);
		assert_string_equal(f.given[i].exe, self_path());
		for (size_t j = 0; j < 3; j++)
			assert_memory_equal(&f.given[i].frames[j], &f.given[0].frames[j],
				sizeof(f.given[0].frames[j]));
	}
	assert_int_equal(counters().opens, opens);
	/* Nobody is told of what has ended. */
	process_on_drained(f.table, clock_monotonic_ns());
	assert_memory_equal(&d.space_of, &seen, sizeof(seen));
}

/* Ids go away with their files, and samples that still carry them lose nothing but the name. */
static void test_files_go(void **state)
{
	struct process_config config = {.max_files = 4};
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "walks_test");
	struct file_key k = key_of_map(&text);
	uint64_t at = 0x10000000;

	teardown(state);
	setup_with(&config);
	send_whole_exec(&f, key, clock_monotonic_ns(), "walks_test");
	for (int i = 0; i < 8; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/lib/gone-%d", i);
		k.inode = 99000000 + (uint64_t)i;
		send_mmap(&f, c.pid, clock_monotonic_ns(), at + 0x10000 * (uint64_t)i, 0x1000, 0,
			&k, path);
		send_sample(&f, key, clock_monotonic_ns(), at + 0x10000 * (uint64_t)i);
	}
	run_until(&f, f.n_given == 8);
	assert_true(d.n_file_gone >= 4);
	assert_int_equal(counters().evicted_files, d.n_file_gone);
	assert_true(counters().files <= 4);
	child_stop(&c);
}

/* ---- the workload ---------------------------------------------------------------------------------------------- */

static int child_main(const char *mode)
{
	if (streq(mode, "anon"))
		(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (streq(mode, "fork") && fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	if (streq(mode, "memfd")) {
		int fd = memfd_create("odi-walks", MFD_CLOEXEC);

		if (fd < 0 || ftruncate(fd, 8192) < 0 ||
			mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
			_exit(9);
		close(fd);
	}
	child_ready();
	child_wait();
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_first_sample_is_whole),
		T(test_rows_that_never_come),
		T(test_rows_refused),
		T(test_flush),
		T(test_flush_with_rows),
		T(test_who_is_woken),
		T(test_whole_samples),
		T(test_miss_without_slice),
		T(test_slices_overflow),
		T(test_slice_that_lies),
		T(test_unwanted),
		T(test_lost_ids),
		T(test_space),
		T(test_known_files),
		T(test_workers),
		T(test_reuse),
		T(test_reuse_behind_a_queue),
		T(test_copied_text),
		T(test_pieces),
		T(test_memfd),
		T(test_exec_in_a_thread),
		T(test_vfork),
		T(test_short_lived),
		T(test_files_go),
	};

	if (argc > 2 && streq(argv[1], "--child"))
		return child_main(argv[2]);
	if (argc > 2 && streq(argv[1], "--role"))
		return streq(argv[2], "proc") ? process_reader_main() : container_role_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
