/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel is told of an image's mappings, when, and when it is not believed any more. */

#include "tests/unit/process/daemon.h"

/* ---- spaces --------------------------------------------------------------------------------------------------- */

static void test_space(void **state)
{
	struct child c = child_of(self_path(), "anon");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6"),
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
	struct procfs_map text = map_of(c.pid, "_test");
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
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 0x30000000, t1;
	struct sample_frame frames[2] = {{.kind = FRAME_KERNEL, .offset = 1}};
	struct made m = {.key = key, .end = WALK_ROOT, .frames = frames, .n_frames = 2, .id = 5};

	k.generation = 77; /* so that the second mapping is known by the first */
	send_exec_begin(&f, c.pid, t0);
	send_mmap(
		&f, c.pid, t0 + 1, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_mmap(&f, c.pid, t0 + 2, at, 0x3000, 0x1000, &k, self_path());
	send_exec(&f, key, t0 + 3, "walks_test");
	send_sample(&f, key, t0 + 4, text.start);
	run_until(&f, f.n_given == 1);
	frames[1] = (struct sample_frame){
		.kind = FRAME_NATIVE, .file = f.given[0].frames[0].file, .offset = 0x10};
	/* Nothing told, nothing to be distrusted. */
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x3000, 0x2000, &k, self_path());
	assert_int_equal(d.n_reused, 0);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 1);
	/* The same again (mprotect says so, too), and more of it beside: no reuse. */
	t1 = clock_monotonic_ns();
	send_mmap(&f, c.pid, t1, at, 0x3000, 0x2000, &k, self_path());
	send_mmap(&f, c.pid, t1, at + 0x3000, 0x1000, 0x5000, &k, self_path());
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
	at += 0x1000;
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x1000, 0, &(struct file_key){}, "//anon");
	assert_int_equal(d.n_reused, 2);
	/* Whoever was not there is believed. */
	m.time_ns = clock_monotonic_ns();
	m.space = 3;
	send_made(&m);
	frames[1].file = FILE_ID_VDSO;
	send_made(&m);
	run_until(&f, f.n_given == 9);
	assert_int_equal(f.given[7].end, WALK_REUSED);
	assert_int_equal(f.given[8].end, WALK_ROOT);
	assert_int_equal(d.reused_files & PROCESS_FILE_BIT(FILE_ID_VDSO), 0);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 5);
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x1000, 0, &(struct file_key){}, "//anon");
	assert_int_equal(d.n_reused, 2);
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x1000, 0, &l, "/lib/two.so");
	assert_int_equal(d.n_reused, 3);
	child_stop(&c);
}

/* The same file at the same place, but written to since it was looked at: what the kernel walks by is of the
 * old one. */
static void test_written_over(void **state)
{
	char dir[] = "/tmp/odi-walks-XXXXXX", path[64];
	struct child c;
	struct sample_image key;
	struct procfs_map text;
	struct file_key k;
	const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/prog", dir);
	copy_file(self_path(), path);
	c = child_of(path, "wait");
	key = key_of(c.pid, 1);
	text = map_of(c.pid, "/prog");
	k = key_of_map(&text);
	k.generation = 7;
	send_exec_begin(&f, c.pid, clock_monotonic_ns());
	send_mmap(&f, c.pid, clock_monotonic_ns(), text.start, text.end - text.start, text.pgoff,
		&k, path);
	send_exec(&f, key, clock_monotonic_ns(), "prog");
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 1);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 1);
	send_mmap(&f, c.pid, clock_monotonic_ns(), text.start, text.end - text.start, text.pgoff,
		&k, path);
	assert_int_equal(d.n_reused, 0);
	assert_true(space_of(key, maps) > 0);
	space_set(key, 2);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	send_mmap(&f, c.pid, clock_monotonic_ns(), text.start, text.end - text.start, text.pgoff,
		&k, path);
	assert_int_equal(d.n_reused, 1);
	assert_int_equal(map_at(maps, space_of(key, maps), text.start)->kind, SPACE_UNKNOWN);
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 2);
	assert_int_not_equal(f.given[1].frames[0].file, f.given[0].frames[0].file);
	child_stop(&c);
	unlink(path);
	rmdir(dir);
}

/* Code that is made at run time: its memory is mapped once, and said to be executable again and again. */
static void test_memory_again(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test");
	const uint64_t at = 0x30000000;
	uint64_t epoch;
	size_t told;

	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 1);
	send_mmap(&f, c.pid, clock_monotonic_ns(), at, 0x10000, 0, &(struct file_key){}, "//anon");
	assert_true(space_of(key, maps) > 0);
	space_set(key, 1);
	process_on_drained(f.table, clock_monotonic_ns());
	told = d.n_space;
	epoch = find(key)->mapping_epoch;
	send_mmap(&f, c.pid, clock_monotonic_ns(), at + 0x1000, 0x1000, 0, &(struct file_key){},
		"//anon");
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, told);
	assert_int_equal(d.n_reused, 0);
	assert_true(find(key)->mapping_epoch > epoch);
	/* More of it is news. */
	send_mmap(&f, c.pid, clock_monotonic_ns(), at + 0xf000, 0x2000, 0, &(struct file_key){},
		"//anon");
	process_on_drained(f.table, clock_monotonic_ns());
	assert_int_equal(d.n_space, told + 1);
	assert_int_equal(map_at(maps, space_of(key, maps), at)->end, at + 0x11000);
	child_stop(&c);
}

/* While samples wait, events wait behind them: reuse is known at once all the same, and is over only when the
 * kernel was told of all of them. */
static void test_reuse_behind_a_queue(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 0x30000000, t1;
	struct made m = {.key = key, .pc = text.start, .end = WALK_MISS_ROWS, .slice = true};
	size_t told;
	struct sample_frame frame;

	k.generation = 77;
	send_exec_begin(&f, c.pid, t0);
	send_mmap(
		&f, c.pid, t0 + 1, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_mmap(&f, c.pid, t0 + 2, at, 0x1000, 0, &k, self_path());
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
	send_mmap(&f, c.pid, t1, at, 0x1000, 0, &k, self_path());
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
	struct procfs_map text = map_of(c.pid, "_test"), libc = map_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 64 * LARGE + 0x5000, lib = 128 * LARGE;
	const struct space_map *m;
	size_t n;

	send_exec_begin(&f, c.pid, t0);
	send_mmap(&f, c.pid, t0 + 1, at, 5 * LARGE, 0x1000, &k, self_path());
	send_mmap(&f, c.pid, t0 + 2, lib, 5 * LARGE, 0x1000, &l, "/lib/two.so");
	send_exec(&f, key, t0 + 3, "walks_test");
	send_sample(&f, key, t0 + 4, at);
	send_sample(&f, key, t0 + 5, lib);
	run_until(&f, f.n_given == 2);
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
	struct procfs_map text = map_of(c.pid, "_test");
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

/* Ids go away with their files, and samples that still carry them lose nothing but the name. */
static void test_files_go(void **state)
{
	struct process_config config = {.max_files = 4};
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = map_of(c.pid, "_test");
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_space),
		T(test_known_files),
		T(test_workers),
		T(test_reuse),
		T(test_written_over),
		T(test_memory_again),
		T(test_reuse_behind_a_queue),
		T(test_copied_text),
		T(test_memfd),
		T(test_exec_in_a_thread),
		T(test_files_go),
	};

	if (argc > 2 && streq(argv[1], "--child"))
		return child_main(argv[2]);
	if (argc > 2 && streq(argv[1], "--role"))
		return streq(argv[2], "proc") ? process_reader_main() : container_role_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
