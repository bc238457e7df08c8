/* SPDX-License-Identifier: Apache-2.0 */
/* The process table on real processes: what they are, what they have mapped, how they replace each other
 * and end. The events are made by the test, in the orders in which the kernel gives them; /proc is real. */

#include "tests/unit/process/harness.h"

#include <dirent.h>
#include <limits.h>
#include <sys/mount.h>

static struct fixture f;

static int setup(void **state)
{
	fixture_start(&f, NULL);
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(&f);
	return 0;
}

static struct entry *entry(struct sample_image key)
{
	struct image *image = process_find(f.table, &key);

	assert_non_null(image);
	return (struct entry *)image;
}

static struct file *file_of(size_t sample, size_t frame)
{
	struct file *file = process_file(f.table, f.given[sample].frames[frame].file);

	assert_non_null(file);
	return file;
}

static struct procfs_map text_of(pid_t pid, const char *end)
{
	struct procfs_map m;

	if (!find_mapping(pid, end, &m, NULL, 0))
		fail_msg("no mapping of %s in %d", end, pid);
	return m;
}

/* ---- facts and frames ----------------------------------------------------------------------------------------- */

static void test_running_process(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 3);
	struct procfs_map text = text_of(c.pid, "table_test"), libc = text_of(c.pid, "libc.so.6");
	struct sample_frame frames[] = {
		{.kind = FRAME_KERNEL, .offset = 0xffffffff81000000},
		native(text.start + 0x10),
		{.kind = FRAME_NATIVE, .flags = FRAME_RETURN, .offset = text.end},
		{.kind = FRAME_NATIVE, .flags = FRAME_RETURN, .offset = libc.start + 7},
		{.kind = FRAME_MARKER, .offset = MARKER_TRUNCATED},
	};
	const struct image *image;
	struct stat st, exe;

	send_sample_flags(&f, key, clock_monotonic_ns(), frames, 5, 0, 0);
	send_sample(&f, key, clock_monotonic_ns(), text.start);
	/* The stream stays where it is: the answer is of a moment behind it, and waits, and says so. */
	for (uint64_t end = clock_monotonic_ns() + PATIENCE; !f.n_waiting;) {
		assert_true(clock_monotonic_ns() < end);
		assert_true(sd_event_run(f.loop, 100000) >= 0);
		assert_int_equal(f.n_given, 0);
	}
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.n_facts, 1);
	image = process_find(f.table, &key);
	assert_int_equal(image->state, IMAGE_READY);
	assert_string_equal(image->exe, self_path());
	assert_string_equal(image->argv0, "a program");
	assert_string_equal(image->cmdline, "a program --child wait secret argument");
	assert_string_equal(image->comm, "table_test");
	assert_int_equal(image->ppid, getpid());
	assert_int_equal(image->uid, geteuid());
	assert_string_equal(image->otel_service_name, "shop");
	assert_int_equal(image->n_otel, 2);
	assert_string_equal(image->otel[0].key, "service.version");
	assert_string_equal(image->otel[0].value, "1.2,3");
	assert_true(image->start_unix_ns / NSEC_PER_SEC > 1600000000);
	assert_true(llabs((long long)(clock_unix_ns() - image->start_unix_ns)) <
		(long long)(60 * NSEC_PER_SEC));
	assert_int_equal(image->samples, 2);
	assert_int_equal(image->cpu_ns, 2 * 10101010);
	/* frames */
	assert_int_equal(f.given[0].n, 5);
	assert_string_equal(f.given[0].comm, "0123456789abcdef");
	assert_int_equal(f.given[0].frames[0].file, FILE_ID_KERNEL);
	assert_int_equal(f.given[0].frames[0].offset, 0xffffffff81000000);
	assert_int_equal(f.given[0].frames[1].offset, 0x10 + text.pgoff);
	assert_int_equal(f.given[0].frames[2].offset, text.end - text.start + text.pgoff);
	assert_int_equal(f.given[0].frames[2].flags, FRAME_RETURN);
	assert_int_equal(f.given[0].frames[2].file, f.given[0].frames[1].file);
	assert_int_equal(f.given[0].frames[3].offset, 7 + libc.pgoff);
	assert_int_not_equal(f.given[0].frames[3].file, f.given[0].frames[1].file);
	assert_int_equal(f.given[0].frames[4].kind, FRAME_MARKER);
	assert_int_equal(f.given[0].frames[4].offset, MARKER_TRUNCATED);
	/* the file */
	assert_int_equal(file_of(0, 1)->kind, FILE_ELF);
	assert_string_equal(file_of(0, 1)->path, self_path());
	assert_int_equal(image->exe_file, f.given[0].frames[1].file);
	assert_int_equal(stat(self_path(), &exe), 0);
	assert_int_equal(fstat(file_of(0, 1)->fd, &st), 0);
	assert_int_equal(st.st_ino, exe.st_ino);
	assert_int_equal(file_of(0, 1)->identity.inode, exe.st_ino);
	assert_int_equal(file_of(0, 1)->identity.size, exe.st_size);
	assert_int_equal(file_of(0, 1)->owner, exe.st_uid);
	assert_int_equal(fcntl(file_of(0, 1)->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_true(fcntl(file_of(0, 1)->fd, F_GETFD) & FD_CLOEXEC);
	/* another process of the same file */
	{
		struct child d = child_of(self_path(), "wait");

		send_sample(&f, key_of(d.pid, 1), clock_monotonic_ns(),
			text_of(d.pid, "table_test").start);
		run_until(&f, f.n_given == 3);
		assert_int_equal(f.given[2].frames[0].file, f.given[0].frames[1].file);
		child_stop(&d);
	}
	child_stop(&c);
}

/* The effective one, also of a program whose files in /proc are root's since it changed it. */
static void test_user(void **state)
{
	struct child c = child_of(self_path(), "user");
	struct sample_image key = key_of(c.pid, 0);

	send_sample(&f, key, clock_monotonic_ns(), text_of(c.pid, "table_test").start);
	run_until(&f, f.n_given == 1);
	assert_int_equal(process_find(f.table, &key)->uid, 65533);
	child_stop(&c);
}

/* An exec alone is read in a while, if the image is still there; a sample does not wait for that. */
static void test_exec_alone(void **state)
{
	struct child c = child_of(self_path(), "wait"), d = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1), gone = dead_key(1);
	struct process_counters n;
	uint64_t t0 = clock_monotonic_ns();

	send_exec(&f, key, t0, "prog");
	send_exec(&f, gone, t0, "prog");
	process_on_drained(f.table, t0 + EXEC_READ_DELAY_NS - 1);
	process_counters(f.table, &n);
	assert_int_equal(n.reads, 0);
	send_process(&f, SAMPLER_EXIT, gone, NOBODY_IMAGE, t0 + 1, "prog", NULL);
	process_on_drained(f.table, t0 + EXEC_READ_DELAY_NS);
	process_counters(f.table, &n);
	assert_int_equal(n.reads, 1);
	run_until(&f, f.n_facts == 1);
	assert_string_equal(process_find(f.table, &key)->exe, self_path());
	key = key_of(d.pid, 1);
	t0 = clock_monotonic_ns() + 3600 * NSEC_PER_SEC;
	send_exec(&f, key, t0, "prog");
	send_sample(&f, key, clock_monotonic_ns(), text_of(d.pid, "table_test").start);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_READY);
	child_stop(&c);
	child_stop(&d);
}

/* Nothing of the environment but the two variables may be in our memory. */
static void test_environment_stays_out(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 0);
	const struct image *image;

	send_sample(&f, key, clock_monotonic_ns(), text_of(c.pid, "table_test").start);
	run_until(&f, f.n_given == 1);
	image = process_find(f.table, &key);
	assert_null(strstr(image->cmdline, "hush"));
	for (size_t i = 0; i < image->n_otel; i++)
		assert_null(strstr(image->otel[i].value, "hush"));
	{
		struct process_counters n;

		process_counters(f.table, &n);
		assert_int_equal(n.otel_refused, 1); /* "bad" */
	}
	child_stop(&c);
}

static void test_deleted_and_replaced(void **state)
{
	char dir[] = "/tmp/odi-process-XXXXXX", path[64];
	struct child c, d;
	struct stat first, second;
	struct procfs_map m;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/prog", dir);
	copy_file(self_path(), path);
	assert_int_equal(stat(path, &first), 0);
	c = child_of(path, "wait");
	assert_int_equal(unlink(path), 0);
	copy_file(self_path(), path);
	assert_int_equal(stat(path, &second), 0);
	d = child_of(path, "wait");
	assert_true(find_mapping(c.pid, "prog (deleted)", &m, NULL, 0));
	send_sample(&f, key_of(c.pid, 0), clock_monotonic_ns(), m.start);
	run_until(&f, f.n_given == 1);
	send_sample(&f, key_of(d.pid, 0), clock_monotonic_ns(), text_of(d.pid, "prog").start);
	run_until(&f, f.n_given == 2);
	assert_string_equal(f.given[0].exe, path);
	assert_string_equal(file_of(0, 0)->path, path);
	assert_string_equal(file_of(1, 0)->path, path);
	assert_int_not_equal(f.given[0].frames[0].file, f.given[1].frames[0].file);
	assert_int_equal(file_of(0, 0)->identity.inode, first.st_ino);
	assert_int_equal(file_of(1, 0)->identity.inode, second.st_ino);
	assert_true(file_of(0, 0)->fd >= 0);
	child_stop(&c);
	child_stop(&d);
	unlink(path);
	rmdir(dir);
}

/* Another mount namespace and root: no path of it leads anywhere from here. */
static void test_other_root(void **state)
{
	struct child c = child_of(self_path(), "root");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text;
	struct file_key k;
	char path[PATH_MAX], host[PATH_MAX];
	struct stat st;
	uint64_t t0 = clock_monotonic_ns();

	if (!find_mapping(c.pid, "/prog", &text, path, sizeof(path)))
		fail_msg("the child did not exec in its own root");
	assert_int_equal(access(path, F_OK), -1);
	k = (struct file_key){.inode = text.inode, .major = text.major, .minor = text.minor};
	/* As the event has it: seen from within. */
	send_exec_begin(&f, c.pid, t0);
	send_mmap(
		&f, c.pid, t0 + 1, text.start, text.end - text.start, text.pgoff, &k, "/tmp/prog");
	send_exec(&f, key, t0 + 2, "prog");
	send_sample(&f, key, t0 + 3, text.start + 9);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_READY);
	assert_int_equal(file_of(0, 0)->kind, FILE_ELF);
	assert_string_equal(file_of(0, 0)->path, "/tmp/prog");
	assert_int_equal(entry(key)->image.exe_file, f.given[0].frames[0].file);
	assert_int_equal(f.given[0].frames[0].offset, 9 + text.pgoff);
	snprintf(host, sizeof(host), "/proc/%d/exe", c.pid);
	assert_int_equal(stat(host, &st), 0);
	assert_int_equal(file_of(0, 0)->identity.inode, st.st_ino);
	child_stop(&c);
	path[strlen(path) - strlen("/tmp/prog")] = 0;
	assert_int_equal(rmdir(path), 0);
}

static void test_vdso_anon_unmapped(void **state)
{
	struct child c = child_of(self_path(), "anon");
	struct sample_image key = key_of(c.pid, 0);
	struct procfs_map vdso = text_of(c.pid, "[vdso]"), anon = text_of(c.pid, "");
	struct sample_frame frames[] = {
		native(vdso.start + 0x20), native(anon.start + 4), native(0x1000)};
	struct process_counters n;
	struct stat st;
	char magic[4];

	/* text_of("") finds any: take the one without a name */
	for (bool found = false; !found;) {
		char name[64], line[4096];
		FILE *maps;

		snprintf(name, sizeof(name), "/proc/%d/maps", c.pid);
		maps = fopen(name, "re");
		while (!found && fgets(line, sizeof(line), maps)) {
			line[strcspn(line, "\n")] = 0;
			found = procfs_map(line, &anon) == 0 && anon.exec && !*anon.path;
		}
		fclose(maps);
		assert_true(found);
	}
	frames[1].offset = anon.start + 4;
	send_sample_flags(&f, key, clock_monotonic_ns(), frames, 3, 0, 0);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].frames[0].file, FILE_ID_VDSO);
	assert_int_equal(f.given[0].frames[0].offset, 0x20);
	assert_int_equal(process_file(f.table, FILE_ID_VDSO)->kind, FILE_VDSO);
	assert_int_equal(fstat(process_file(f.table, FILE_ID_VDSO)->fd, &st), 0);
	assert_int_equal(st.st_size, vdso.end - vdso.start);
	assert_int_equal(pread(process_file(f.table, FILE_ID_VDSO)->fd, magic, 4, 0), 4);
	assert_memory_equal(magic, "\177ELF", 4);
	assert_int_equal(file_of(0, 1)->kind, FILE_JIT);
	assert_string_equal(file_of(0, 1)->path, "[jit]");
	assert_int_equal(f.given[0].frames[1].kind, FRAME_JIT);
	assert_int_equal(f.given[0].frames[1].offset, anon.start + 4);
	assert_string_equal(file_of(0, 2)->path, "[unmapped]");
	assert_int_equal(f.given[0].frames[2].offset, 0x1000);
	process_counters(f.table, &n);
	assert_int_equal(n.frames, 3);
	assert_int_equal(n.frames_unmapped, 1);
	child_stop(&c);
}

/* A mapping no event told of: read afresh, once. */
static void test_unmapped_reads_again(void **state)
{
	struct child c = child_of(self_path(), "late-anon");
	struct sample_image key = key_of(c.pid, 0);
	struct procfs_map text = text_of(c.pid, "table_test"), m;
	struct process_counters before, after;
	uint64_t address = 0x7000000;

	send_sample(&f, key, clock_monotonic_ns(), text.start);
	run_until(&f, f.n_given == 1);
	assert_int_equal(write(c.go, "x", 1), 1);
	while (!find_mapping(c.pid, "", &m, NULL, 0) || m.start > address)
		sched_yield();
	send_sample(&f, key, clock_monotonic_ns(), address + 5);
	run_until(&f, f.n_given == 2);
	assert_string_equal(file_of(1, 0)->path, "[jit]");
	/* One that no reading helps does not make us read for every sample. */
	process_counters(f.table, &before);
	for (int i = 0; i < 50; i++)
		send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 52);
	process_counters(f.table, &after);
	assert_true(after.reads - before.reads <= 1);
	assert_string_equal(file_of(51, 0)->path, "[unmapped]");
	child_stop(&c);
}

static void test_kernel_thread(void **state)
{
	struct sample_image key = {.tgid = 2, .exec = 0, .start_boottime = 10000000};
	struct sample_frame frame = {.kind = FRAME_KERNEL, .offset = 0xffffffff81234567};
	struct process_counters n;

	send_sample_flags(&f, key, clock_monotonic_ns(), &frame, 1, SAMPLE_KERNEL_THREAD, 0);
	assert_int_equal(f.n_given, 1);
	assert_true(process_find(f.table, &key)->kernel_thread);
	assert_int_equal(process_find(f.table, &key)->state, IMAGE_READY);
	assert_string_equal(process_find(f.table, &key)->comm, "0123456789abcdef");
	process_counters(f.table, &n);
	assert_int_equal(n.reads, 0);
}

/* The first thread has ended, another runs on: /proc/PID/maps is empty then. */
static void test_leader_ended(void **state)
{
	struct child c = child_of(self_path(), "thread");
	struct sample_image key = key_of(c.pid, 0);
	char name[64];
	struct procfs_map text = {};
	pid_t tid = 0;
	struct sample_frame frame;
	DIR *tasks;

	for (struct procfs_stat s = {}; s.state != 'Z';) {
		struct buf b;

		buf_init(&b, 4096);
		snprintf(name, sizeof(name), "/proc/%d/stat", c.pid);
		assert_int_equal(io_read_file(AT_FDCWD, name, &b, 4096), 0);
		assert_int_equal(procfs_stat((const char *)b.data, &s), 0);
		buf_deinit(&b);
		sched_yield();
	}
	snprintf(name, sizeof(name), "/proc/%d/task", c.pid);
	tasks = opendir(name);
	assert_non_null(tasks);
	for (struct dirent *d; (d = readdir(tasks));)
		if (atoi(d->d_name) > 0 && atoi(d->d_name) != c.pid)
			tid = atoi(d->d_name);
	closedir(tasks);
	assert_true(tid > 0);
	assert_true(find_mapping(tid, "table_test", &text, NULL, 0));
	frame = native(text.start + 3);
	send_sample_flags(&f, key, clock_monotonic_ns(), &frame, 1, 0, tid);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_READY);
	assert_string_equal(f.given[0].exe, self_path());
	assert_int_equal(file_of(0, 0)->kind, FILE_ELF);
	assert_int_equal(f.given[0].frames[0].offset, 3 + text.pgoff);
	child_stop(&c);
}

/* ---- exec, fork, exit ------------------------------------------------------------------------------------------- */

static void wait_for_exe(pid_t pid, const char *end)
{
	struct procfs_map m;

	while (!find_mapping(pid, end, &m, NULL, 0))
		sched_yield();
}

/* When the sample is handed in, the process runs another program already: it must not be taken for that. */
static void test_exec_before_the_read(void **state)
{
	struct child c = child_of(self_path(), "exec");
	struct sample_image old = key_of(c.pid, 5), new = old;
	struct procfs_map text = text_of(c.pid, "table_test"), sleep_text;
	uint64_t t0 = clock_monotonic_ns(), t1;

	new.exec = 6;
	assert_int_equal(write(c.go, "x", 1), 1);
	wait_for_exe(c.pid, "/sleep");
	t1 = clock_monotonic_ns();
	send_sample(&f, old, t0, text.start + 1);
	/* The loop runs, so that the read comes back; the stream stays before the exec. */
	for (uint64_t end = clock_monotonic_ns() + PATIENCE; !f.n_waiting;) {
		assert_true(clock_monotonic_ns() < end);
		assert_true(sd_event_run(f.loop, 100000) >= 0);
	}
	assert_int_equal(f.n_given, 0);
	send_whole_exec(&f, new, t1, "sleep");
	sleep_text = text_of(c.pid, "/sleep");
	send_sample(&f, new, clock_monotonic_ns(), sleep_text.start + 2);
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.given[0].key.exec, 5);
	assert_int_equal(f.given[0].state, IMAGE_PARTIAL);
	assert_string_not_equal(f.given[0].exe, "/usr/bin/sleep");
	assert_int_equal(f.given[1].key.exec, 6);
	assert_int_equal(f.given[1].state, IMAGE_READY);
	assert_non_null(strstr(f.given[1].exe, "/sleep"));
	assert_non_null(strstr(file_of(1, 0)->path, "/sleep"));
	assert_int_equal(f.given[1].frames[0].offset, 2 + sleep_text.pgoff);
	assert_true(entry(old)->image.ended);
	assert_ptr_equal(process_find_pid(f.table, c.pid), process_find(f.table, &new));
	child_stop(&c);
}

/* Events told of every mapping: /proc's maps are not read, and samples resolve by what events said. */
static void test_exec_mappings_by_events(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = text_of(c.pid, "table_test"), libc = text_of(c.pid, "libc.so.6");
	struct file_key libc_key = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns();

	send_whole_exec(&f, key, t0, "prog");
	/* An early sample carries the new key before EXEC: here after it, with a mapping that only an event knows. */
	send_mmap(&f, c.pid, t0 + 100, 0x10000000, 0x1000, 0x5000, &libc_key,
		"/usr/lib/x86_64-linux-gnu/libc.so.6");
	send_sample(&f, key, t0 + 200, text.start);
	run_until(&f, f.n_given == 1);
	assert_true(entry(key)->maps_at == t0);
	assert_non_null(mappings_find(entry(key)->mappings, 0x10000000));
	/* Lost events: what events said is no longer believed. */
	send_lost(&f, clock_monotonic_ns());
	send_sample(&f, key, clock_monotonic_ns(), text.start + 8);
	run_until(&f, f.n_given == 2);
	assert_null(mappings_find(entry(key)->mappings, 0x10000000));
	assert_int_equal(f.given[1].frames[0].file, f.given[0].frames[0].file);
	assert_int_equal(f.given[1].frames[0].offset, 8 + text.pgoff);
	child_stop(&c);
}

static void test_sample_between_begin_and_exec(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 9), before = key;
	struct procfs_map text = text_of(c.pid, "table_test");
	struct file_key k = key_of_map(&text);
	uint64_t t0 = clock_monotonic_ns();

	before.exec = 8;
	send_process(&f, SAMPLER_FORK, before, NOBODY_IMAGE, t0, "sh", NULL);
	send_exec_begin(&f, c.pid, t0 + 1);
	send_mmap(
		&f, c.pid, t0 + 2, text.start, text.end - text.start, text.pgoff, &k, self_path());
	send_sample(&f, key, t0 + 3, text.start + 1);
	send_mmap(&f, c.pid, t0 + 4, 0x20000000, 0x1000, 0, &k, self_path());
	send_exec(&f, key, t0 + 5, "table_test");
	send_sample(&f, key, t0 + 6, 0x20000000);
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.given[0].frames[0].offset, 1 + text.pgoff);
	assert_int_equal(f.given[1].frames[0].offset, 0);
	assert_true(entry(before)->image.ended);
	assert_int_equal(entry(key)->maps_at, t0 + 1);
	child_stop(&c);
}

/* While a sample waits, its addresses keep their meaning. */
static void test_mapping_replaced_while_waiting(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = text_of(c.pid, "table_test"), libc = text_of(c.pid, "libc.so.6");
	struct file_key k = key_of_map(&text), l = key_of_map(&libc);
	uint64_t t0 = clock_monotonic_ns(), at = 0x30000000;

	send_exec_begin(&f, c.pid, t0);
	send_mmap(&f, c.pid, t0 + 1, at, 0x3000, 0x1000, &k, self_path());
	send_exec(&f, key, t0 + 2, "table_test");
	send_sample(&f, key, t0 + 3, at + 0x1004);
	send_mmap(&f, c.pid, t0 + 4, at + 0x1000, 0x1000, 0x7000, &l, "/lib/libc.so.6");
	send_sample(&f, key, t0 + 5, at + 0x1004);
	send_sample(&f, key, t0 + 6, at + 0x2004);
	send_sample(&f, key, t0 + 7, at + 0x4);
	send_mmap(&f, c.pid, t0 + 8, at, 0x3000, 0, &(struct file_key){}, "//anon");
	send_sample(&f, key, t0 + 9, at + 0x1004);
	assert_int_equal(f.n_given, 0);
	run_until(&f, f.n_given == 5);
	assert_int_equal(f.given[0].frames[0].offset, 0x2004);
	assert_int_equal(f.given[1].frames[0].offset, 0x7004);
	assert_int_equal(f.given[2].frames[0].offset, 0x3004);
	assert_int_equal(f.given[3].frames[0].offset, 0x1004);
	assert_string_equal(file_of(4, 0)->path, "[jit]");
	assert_int_equal(f.given[0].frames[0].file, f.given[2].frames[0].file);
	assert_int_not_equal(f.given[0].frames[0].file, f.given[1].frames[0].file);
	assert_true(f.given[4].epoch > f.given[0].epoch);
	for (size_t i = 1; i < 5; i++)
		assert_true(f.given[i].time_ns > f.given[i - 1].time_ns);
	child_stop(&c);
}

/* A snapshot of /proc that is newer than waiting mapping events does not reach back before them. */
static void test_snapshot_and_waiting_events(void **state)
{
	struct child c = child_of(self_path(), "late-anon");
	struct sample_image key = key_of(c.pid, 1);
	struct procfs_map text = text_of(c.pid, "table_test"), m;
	uint64_t t0 = clock_monotonic_ns(), at = 0x7000000;

	assert_int_equal(write(c.go, "x", 1), 1);
	while (!find_mapping(c.pid, "", &m, NULL, 0) || m.start > at)
		sched_yield();
	/* The child mapped it at t0 + 2: what ran there before is not known, and is not [anon]. */
	send_sample(&f, key, t0 + 1, at + 1);
	send_mmap(&f, c.pid, t0 + 2, at, 0x1000, 0, &(struct file_key){}, "//anon");
	send_sample(&f, key, t0 + 3, at + 1);
	send_sample(&f, key, t0 + 4, text.start);
	run_until(&f, f.n_given == 3);
	assert_string_equal(file_of(0, 0)->path, "[unmapped]");
	assert_string_equal(file_of(1, 0)->path, "[jit]");
	assert_int_equal(file_of(2, 0)->kind, FILE_ELF);
	child_stop(&c);
}

static void test_fork_child_is_read_by_itself(void **state)
{
	struct child c = child_of(self_path(), "fork");
	struct sample_image parent = key_of(c.pid, 4), child;
	struct procfs_map text = text_of(c.pid, "table_test");
	uint64_t t0 = clock_monotonic_ns();
	pid_t pid = 0;
	char name[64], line[64] = "";

	snprintf(name, sizeof(name), "/proc/%d/task/%d/children", c.pid, c.pid);
	while (!pid) {
		FILE *list = fopen(name, "re");

		if (list && fgets(line, sizeof(line), list))
			pid = atoi(line);
		if (list)
			fclose(list);
	}
	child = key_of(pid, 4);
	send_whole_exec(&f, parent, t0, "table_test");
	send_process(&f, SAMPLER_FORK, child, parent, t0 + 1000, "table_test", NULL);
	/* It shares what its parent has mapped; none of it is read again. */
	assert_ptr_equal(entry(child)->mappings, entry(parent)->mappings);
	send_sample(&f, child, t0 + 2000, text.start + 3);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_READY);
	assert_int_equal(f.given[0].frames[0].offset, 3 + text.pgoff);
	assert_int_equal(entry(child)->maps_at, t0 + 1000);
	assert_true(process_descends(f.table, process_find(f.table, &child), &parent));
	assert_false(process_descends(f.table, process_find(f.table, &parent), &child));
	/* What the child maps from now on is its own. */
	send_mmap(&f, pid, t0 + 3000, 0x40000000, 0x1000, 0, &(struct file_key){}, "//anon");
	assert_non_null(mappings_find(entry(child)->mappings, 0x40000000));
	assert_null(mappings_find(entry(parent)->mappings, 0x40000000));
	/* The parent's samples find the file the child's has assigned. */
	send_sample(&f, parent, t0 + 4000, text.start + 4);
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.given[1].frames[0].file, f.given[0].frames[0].file);
	kill(pid, SIGKILL);
	child_stop(&c);
}

/* ---- gone before it was read ---------------------------------------------------------------------------------- */

static void test_short_lived(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image parent = key_of(c.pid, 1), key = dead_key(1), child = key;
	struct procfs_map text = text_of(c.pid, "table_test");
	struct file_key known = key_of_map(&text), there,
			nowhere = {.inode = 99999999, .major = 250, .minor = 9};
	struct stat st;
	char true_path[PATH_MAX];
	uint64_t t0 = clock_monotonic_ns();

	child.exec = 2;
	assert_int_equal(stat("/bin/true", &st), 0);
	there = (struct file_key){
		.inode = st.st_ino, .major = major(st.st_dev), .minor = minor(st.st_dev)};
	send_sample(&f, parent, t0, text.start);
	run_until(&f, f.n_given == 1);
	/* forked, execed, sampled and gone before anybody looked */
	t0 = clock_monotonic_ns();
	send_process(&f, SAMPLER_FORK, key, parent, t0 + 1, "table_test", NULL);
	send_exec_begin(&f, (pid_t)key.tgid, t0 + 2);
	send_mmap(&f, (pid_t)key.tgid, t0 + 3, text.start, text.end - text.start, text.pgoff,
		&known, self_path());
	send_mmap(&f, (pid_t)key.tgid, t0 + 4, 0x7f0000000000, 0x10000, 0, &there,
		realpath("/bin/true", true_path));
	send_mmap(&f, (pid_t)key.tgid, t0 + 4, 0x7f0000100000, 0x10000, 0x2000, &nowhere,
		"/opt/no such/lib\033x.so");
	send_process(&f, SAMPLER_EXEC, child, NOBODY_IMAGE, t0 + 5, "quick",
		"/system.slice/quick.service");
	send_sample(&f, child, t0 + 6, text.start + 1);
	send_sample(&f, child, t0 + 7, 0x7f0000000010);
	send_sample(&f, child, t0 + 8, 0x7f0000100010);
	send_process(&f, SAMPLER_EXIT, child, NOBODY_IMAGE, t0 + 9, "quick", NULL);
	run_until(&f, f.n_given == 4);
	assert_int_equal(f.given[1].state, IMAGE_PARTIAL);
	assert_string_equal(f.given[1].exe, self_path()); /* what lies lowest */
	assert_string_equal(process_find(f.table, &child)->comm, "quick");
	assert_string_equal(process_find(f.table, &child)->unit, "quick.service");
	assert_int_equal(process_find(f.table, &child)->uid, geteuid());
	assert_string_equal(process_find(f.table, &child)->otel_service_name, "shop");
	assert_true(process_descends(f.table, process_find(f.table, &child), &parent));
	assert_true(process_find(f.table, &child)->ended);
	/* A file that was looked at before, one that its path and key still lead to, and one that is gone. */
	assert_int_equal(f.given[1].frames[0].file, f.given[0].frames[0].file);
	assert_int_equal(file_of(2, 0)->kind, FILE_ELF);
	assert_int_equal(file_of(2, 0)->identity.inode, st.st_ino);
	assert_int_equal(file_of(3, 0)->kind, FILE_UNOPENED);
	assert_string_equal(file_of(3, 0)->path, "/opt/no such/lib?x.so");
	assert_non_null(file_of(3, 0)->reason);
	assert_int_equal(f.given[3].frames[0].offset, 0x2010);
	child_stop(&c);
}

/* Forked, never execed, gone: it is what its parent was. */
static void test_short_lived_fork(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image parent = key_of(c.pid, 1), key = dead_key(1);
	struct procfs_map text = text_of(c.pid, "table_test");
	uint64_t t0 = clock_monotonic_ns();

	/* The parent was never seen before: it is read for its child's sake. */
	send_process(&f, SAMPLER_FORK, key, parent, t0 + 1, "worker", NULL);
	send_sample(&f, key, t0 + 2, text.start + 1);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_PARTIAL);
	assert_string_equal(f.given[0].exe, self_path());
	assert_string_equal(process_find(f.table, &key)->argv0, "a program");
	assert_string_equal(process_find(f.table, &key)->comm, "worker");
	child_stop(&c);
}

/* The number was given to another process meanwhile. */
static void test_pid_reuse(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image now = key_of(c.pid, 0), before = now;

	before.start_boottime -= 5 * NSEC_PER_SEC;
	send_sample(&f, before, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_PARTIAL);
	assert_string_equal(f.given[0].exe, "");
	send_sample(&f, now, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 2);
	assert_int_equal(f.given[1].state, IMAGE_READY);
	assert_true(process_find(f.table, &before)->ended);
	child_stop(&c);
}

static void test_storm(void **state)
{
	struct process_counters n;
	uint64_t t0 = clock_monotonic_ns();
	struct sample_image shell = key_of(getpid(), 1);

	for (uint32_t i = 0; i < 5000; i++) {
		struct sample_image key = {.tgid = 4000000 + i,
					    .exec = 1,
					    .start_boottime = 3600 * NSEC_PER_SEC},
				    next = key;
		struct file_key k = {.inode = 1 + i % 3, .major = 250, .minor = 7};
		uint64_t t = t0 + i * 1000;

		next.exec = 2;
		send_process(&f, SAMPLER_FORK, key, shell, t, "sh", NULL);
		send_exec_begin(&f, (pid_t)key.tgid, t + 1);
		send_mmap(&f, (pid_t)key.tgid, t + 2, 0x400000, 0x1000, 0, &k, "/gone/prog");
		send_exec(&f, next, t + 3, "prog");
		send_sample(&f, next, t + 4, 0x400010);
		send_process(&f, SAMPLER_EXIT, next, NOBODY_IMAGE, t + 5, "prog", NULL);
		if (i % 100 == 99)
			turn(&f);
	}
	run_until(&f, f.n_given == 5000);
	process_counters(f.table, &n);
	assert_int_equal(f.lost, 0);
	assert_true(n.images <= 16384);
	assert_int_equal(n.queued, 0);
	/* All of them go, and their parent stays. */
	process_on_drained(f.table, t0 + 100 * NSEC_PER_SEC);
	process_counters(f.table, &n);
	assert_true(n.images < 100);
	assert_true(f.n_gone >= 5000);
}

/* ---- ancestors, cgroups, containers --------------------------------------------------------------------------- */

static void test_ancestors(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 0), self = key_of(getpid(), EXEC_UNKNOWN),
			    real = key_of(getpid(), 7);
	const struct image *image, *parent;

	send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 1);
	image = process_find(f.table, &key);
	assert_true(process_descends(f.table, image, &self));
	parent = process_find(f.table, &image->parent);
	assert_non_null(parent);
	assert_string_equal(parent->exe, self_path());
	assert_int_equal(parent->ppid, getppid());
	/* The first event that names it makes it the real one; its children stay its own. */
	send_sample(&f, real, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 2);
	assert_ptr_equal(process_find(f.table, &real), parent);
	assert_true(process_descends(f.table, image, &real));
	assert_memory_equal(&image->parent, &real, sizeof(real));
	child_stop(&c);
}

static const char *v2_root(void)
{
	return access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup/unified"
									: "/sys/fs/cgroup";
}

static void move_to(pid_t pid, const char *path)
{
	char name[512], text[16];
	int fd;

	snprintf(name, sizeof(name), "%s%s", v2_root(), path);
	assert_int_equal(io_mkdir_p(name, 0755, NULL), 0);
	strcat(name, "/cgroup.procs");
	snprintf(text, sizeof(text), "%d", pid);
	fd = open(name, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static void remove_cgroup(const char *path)
{
	char name[512];

	snprintf(name, sizeof(name), "%s%s", v2_root(), path);
	for (int i = 0; i < 1000 && rmdir(name) < 0 && errno == EBUSY; i++)
		usleep(1000);
}

static void test_units(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 0);
	char base[64], one[128], two[128];

	snprintf(base, sizeof(base), "/odi-test-%d", getpid());
	snprintf(one, sizeof(one), "%s/system.slice/app@1.service", base);
	snprintf(two, sizeof(two), "%s/system.slice/other.service", base);
	move_to(c.pid, one);
	send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 1);
	assert_string_equal(process_find(f.table, &key)->unit, "app@1.service");
	assert_string_equal(process_find(f.table, &key)->slice, "system.slice");
	assert_int_equal(f.n_facts, 1);
	/* It moves: samples from then on wait for the new facts. */
	move_to(c.pid, two);
	send_process(
		&f, SAMPLER_CGROUP, key, NOBODY_IMAGE, clock_monotonic_ns(), "table_test", two);
	send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	assert_int_equal(f.n_given, 1);
	run_until(&f, f.n_given == 2);
	assert_string_equal(process_find(f.table, &key)->unit, "other.service");
	assert_int_equal(f.n_facts, 2);
	/* It moves back, and the event is lost. */
	move_to(c.pid, one);
	send_lost(&f, clock_monotonic_ns());
	send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 3);
	assert_string_equal(process_find(f.table, &key)->unit, "app@1.service");
	child_stop(&c);
	remove_cgroup(one);
	remove_cgroup(two);
	snprintf(one, sizeof(one), "%s/system.slice", base);
	remove_cgroup(one);
	remove_cgroup(base);
}

#define CONTAINER "4c01db0b339c1a8fd2a3c0f5b86ad2a9d6e6a4e0b9d4b7d0ff3f0a9b7c6d5e4f"

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static void test_container_name(void **state)
{
	char root[] = "/tmp/odi-process-XXXXXX", path[256], group[128], command[300];
	struct process_config config = {.host_root = root};
	struct child c = child_of(self_path(), "wait"), d = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 0);

	assert_non_null(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/var/lib/docker/containers/" CONTAINER, root);
	assert_int_equal(io_mkdir_p(path, 0755, NULL), 0);
	strcat(path, "/config.v2.json");
	write_file(path,
		"{\"ID\":\"" CONTAINER
		"\",\"Name\":\"/web\",\"Config\":{\"Image\":\"nginx:1\",\"Labels\":{}}}");
	snprintf(group, sizeof(group), "/odi-test-%d-docker/docker-" CONTAINER ".scope", getpid());
	move_to(c.pid, group);
	move_to(d.pid, group);
	fixture_stop(&f);
	fixture_start(&f, &config);
	send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 1);
	assert_string_equal(process_find(f.table, &key)->container_id, CONTAINER);
	assert_string_equal(process_find(f.table, &key)->container_runtime, "docker");
	assert_string_equal(process_find(f.table, &key)->container_name, "web");
	assert_int_equal(f.n_facts, 1); /* its first sample waited for the name */
	key = key_of(d.pid, 0);
	send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	run_until(&f, f.n_given == 2);
	assert_string_equal(process_find(f.table, &key)->container_name, "web");
	child_stop(&c);
	child_stop(&d);
	remove_cgroup(group);
	snprintf(group, sizeof(group), "/odi-test-%d-docker", getpid());
	remove_cgroup(group);
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	assert_int_equal(system(command), 0);
}

/* ---- survey ------------------------------------------------------------------------------------------------------ */

static size_t n_candidates;
static pid_t wanted_pid;
static bool found_wanted, found_self, found_kernel;

static void on_survey(void *userdata, const struct process_candidate *list, size_t n)
{
	n_candidates = n;
	for (size_t i = 0; i < n; i++) {
		assert_true(list[i].image->state != IMAGE_NEW);
		if (i)
			assert_true(list[i].cpu_time_ns <= list[i - 1].cpu_time_ns);
		found_kernel |= list[i].image->kernel_thread;
		if (list[i].image->key.tgid == (uint32_t)wanted_pid) {
			assert_string_equal(list[i].image->otel_service_name, "shop");
			found_wanted = true;
		}
		if (list[i].image->key.tgid == (uint32_t)getpid()) {
			assert_string_equal(list[i].image->exe, self_path());
			found_self = true;
		}
	}
}

static void test_survey(void **state)
{
	struct child c = child_of(self_path(), "wait");
	struct process_counters after;

	for (int round = 0; round < 3; round++) {
		n_candidates = 0;
		found_wanted = found_self = found_kernel = false;
		wanted_pid = c.pid;
		assert_int_equal(process_survey(f.table, on_survey, NULL), 0);
		assert_int_equal(process_survey(f.table, on_survey, NULL), -EBUSY);
		run_until(&f, n_candidates > 0);
		assert_true(found_wanted && found_self && found_kernel);
	}
	assert_int_equal(f.n_facts, 0);
	child_stop(&c);
	n_candidates = 0;
	assert_int_equal(process_survey(f.table, on_survey, NULL), 0);
	run_until(&f, n_candidates > 0);
	assert_null(process_find_pid(f.table, c.pid));
	process_counters(f.table, &after);
	/* Those of the last survey are there, not all that ever were; some may have ended meanwhile. */
	assert_true(after.images <= n_candidates + 20);
}

/* ---- the workload -------------------------------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
	usleep(20000); /* the leader ends first */
	child_ready();
	pause();
	return NULL;
}

/* Everything bound below a private folder, a copy of ourselves where nobody else sees it. */
static void own_root(void)
{
	char dir[] = "/tmp/odi-root-XXXXXX", path[64];

	if (!mkdtemp(dir) || unshare(CLONE_NEWNS) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("/", dir, NULL, MS_BIND | MS_REC, NULL) < 0)
		_exit(5);
	snprintf(path, sizeof(path), "%s/tmp", dir);
	if (mount("tmpfs", path, "tmpfs", 0, NULL) < 0)
		_exit(6);
	snprintf(path, sizeof(path), "%s/tmp/prog", dir);
	copy_file(self_path(), path);
	if (chroot(dir) < 0 || chdir("/") < 0)
		_exit(7);
	execl("/tmp/prog", "a program", "--child", "wait", NULL);
	_exit(8);
}

static int child_main(const char *mode)
{
	pthread_t thread;

	if (streq(mode, "anon"))
		(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (streq(mode, "thread")) {
		pthread_create(&thread, NULL, thread_main, NULL);
		pthread_exit(NULL);
	}
	if (streq(mode, "root"))
		own_root();
	if (streq(mode, "user") && setresuid(65534, 65533, 65532) < 0)
		_exit(9);
	if (streq(mode, "fork") && fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	child_ready();
	child_wait();
	if (streq(mode, "late-anon"))
		(void)mmap((void *)0x7000000, 4096, PROT_READ | PROT_EXEC,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (streq(mode, "exec"))
		execl("/bin/sleep", "sleep", "1000", NULL);
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_running_process),
		T(test_user),
		T(test_exec_alone),
		T(test_environment_stays_out),
		T(test_deleted_and_replaced),
		T(test_other_root),
		T(test_vdso_anon_unmapped),
		T(test_unmapped_reads_again),
		T(test_kernel_thread),
		T(test_leader_ended),
		T(test_exec_before_the_read),
		T(test_exec_mappings_by_events),
		T(test_sample_between_begin_and_exec),
		T(test_mapping_replaced_while_waiting),
		T(test_snapshot_and_waiting_events),
		T(test_fork_child_is_read_by_itself),
		T(test_short_lived),
		T(test_short_lived_fork),
		T(test_pid_reuse),
		T(test_storm),
		T(test_ancestors),
		T(test_units),
		T(test_container_name),
		T(test_survey),
	};

	if (argc > 2 && streq(argv[1], "--child"))
		return child_main(argv[2]);
	if (argc > 2 && streq(argv[1], "--role"))
		return streq(argv[2], "proc") ? process_reader_main() : container_role_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
