/* SPDX-License-Identifier: Apache-2.0 */
/* Samples that the kernel could not finish: walked on, waiting for files and rows, and bounded in that. */

#include "tests/unit/process/daemon.h"

/* ---- walks ---------------------------------------------------------------------------------------------------- */

/* The very first sample of a program nobody has met: whole. */
static void test_first_sample_is_whole(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6");
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
	struct process_config config = {.rows_wait_ms = 2000};
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test");
	struct made m = {.key = key,
		.time_ns = clock_monotonic_ns(),
		.pc = text.start + 8,
		.end = WALK_MISS_MAP,
		.slice = true};

	teardown(state);
	setup_with(&config);
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
	struct procfs_map text = map_of(c.pid, "_test");

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
	struct procfs_map text = map_of(c.pid, "_test");

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
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6");
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
	struct procfs_map text = map_of(c.pid, "_test"), text2 = map_of(e.pid, "_test");
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
	struct procfs_map text = map_of(c.pid, "_test");
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
	struct procfs_map text = map_of(c.pid, "_test");
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
	struct procfs_map text = map_of(c.pid, "_test");
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
	struct procfs_map text = map_of(c.pid, "_test");
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
	struct procfs_map text = map_of(c.pid, "_test");
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

/* Neither a user stack nor frames of the kernel (which may be off): never an empty stack. */
static void test_never_empty(void **state)
{
	struct child c = child_of(self_path(), "wait");

	send_made(&(struct made){
		.key = key_of(c.pid, 1), .time_ns = clock_monotonic_ns(), .end = WALK_NONE});
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].n, 1);
	assert_int_equal(f.given[0].end, WALK_NONE);
	assert_int_equal(f.given[0].frames[0].kind, FRAME_MARKER);
	assert_int_equal(f.given[0].frames[0].offset, MARKER_KERNEL);
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

/* One file in several pieces, out of order, far into it: one id, each piece its own bias. */
static void test_pieces(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test");
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

/* Programs that live for a tenth of a second, after the binary was seen once: all whole. */
static void test_short_lived(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image seen = key_of(c.pid, 1), shell = key_of(getpid(), 1);
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6");
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

/* vfork: the child has its parent's mappings until it execs, and the parent's stay. */
static void test_vfork(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image parent = key_of(c.pid, 1), child = dead_key(1), execed = child;
	struct procfs_map text = map_of(c.pid, "_test");
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
		T(test_never_empty),
		T(test_lost_ids),
		T(test_pieces),
		T(test_short_lived),
		T(test_vfork),
	};

	if (argc > 2 && streq(argv[1], "--child"))
		return child_main(argv[2]);
	if (argc > 2 && streq(argv[1], "--role"))
		return streq(argv[2], "proc") ? process_reader_main() : container_role_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
