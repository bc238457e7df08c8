/* SPDX-License-Identifier: Apache-2.0 */
/* The /proc reader as something that hangs, dies and comes back; and every bound of the table. */

#include "tests/unit/process/harness.h"

static struct fixture f;

static int teardown(void **state)
{
	fixture_stop(&f);
	return 0;
}

static struct procfs_map text_of(pid_t pid)
{
	struct procfs_map m;

	assert_true(find_mapping(pid, "reader_test", &m, NULL, 0));
	return m;
}

static struct process_counters counters(void)
{
	struct process_counters n;

	process_counters(f.table, &n);
	return n;
}

static pid_t reader_pid(void)
{
	return client_pid(f.table->client);
}

/* A request under way, so that a reader runs. */
static void start_reader(struct child *c)
{
	send_sample(&f, key_of(c->pid, 0), clock_monotonic_ns(), text_of(c->pid).start);
	run_until(&f, f.n_given == 1);
	assert_true(reader_pid() > 0);
}

/* ---- hanging, dying ---------------------------------------------------------------------------------------------- */

static void test_deadline(void **state)
{
	/* One reader outlives it, others have to be started within it, however busy this host is. */
	struct process_config config = {.read_deadline_ms = 5000};
	struct child c[4];
	struct sample_image keys[4];
	pid_t stopped;

	fixture_start(&f, &config);
	for (size_t i = 0; i < 4; i++) {
		c[i] = child_of(self_path(), "wait");
		keys[i] = key_of(c[i].pid, 0);
	}
	start_reader(&c[0]);
	stopped = reader_pid();
	assert_int_equal(kill(stopped, SIGSTOP), 0);
	for (size_t i = 1; i < 4; i++)
		send_sample(&f, keys[i], clock_monotonic_ns(), text_of(c[i].pid).start);
	run_until(&f, f.n_given == 4);
	/* One request was the culprit; the others were asked again, of another reader. */
	assert_int_equal(counters().reads_timed_out, 1);
	assert_int_equal(counters().reader_restarts, 1);
	assert_int_not_equal(reader_pid(), stopped);
	assert_int_equal(kill(stopped, 0), -1);
	assert_int_equal(process_find(f.table, &keys[1])->state, IMAGE_PARTIAL);
	assert_int_equal(process_find(f.table, &keys[2])->state, IMAGE_READY);
	assert_int_equal(process_find(f.table, &keys[3])->state, IMAGE_READY);
	/* The culprit is not read again. */
	send_sample(&f, keys[1], clock_monotonic_ns(), 0x1000);
	assert_int_equal(f.n_given, 5);
	for (size_t i = 0; i < 4; i++)
		child_stop(&c[i]);
}

/* Killed by somebody else: nobody pays for it, the first time. */
static void test_killed(void **state)
{
	struct child c = child_of(self_path(), "wait");

	fixture_start(&f, NULL);
	start_reader(&c);
	for (int round = 0; round < 5; round++) {
		struct child d = child_of(self_path(), "wait");
		size_t before = f.n_given;

		run_until(&f, reader_pid() > 0);
		kill(reader_pid(), SIGSTOP);
		send_sample(&f, key_of(d.pid, 0), clock_monotonic_ns(), text_of(d.pid).start);
		assert_true(sd_event_run(f.loop, 1000) >= 0);
		kill(reader_pid(), SIGKILL);
		run_until(&f, f.n_given == before + 1);
		assert_int_equal(f.given[before].state, IMAGE_READY);
		child_stop(&d);
	}
	assert_true(counters().reader_restarts >= 5);
	assert_int_equal(counters().reads_timed_out, 0);
	child_stop(&c);
}

static void test_no_reader_to_be_had(void **state)
{
	struct child c = child_of(self_path(), "wait");

	fixture_start(&f, NULL);
	sandbox_set_program("/nonexistent/program");
	send_sample(&f, key_of(c.pid, 0), clock_monotonic_ns(), text_of(c.pid).start);
	run_until(&f, f.n_given == 1);
	assert_int_equal(f.given[0].state, IMAGE_PARTIAL);
	sandbox_set_program("/proc/self/exe");
	/* It is tried again, for whoever comes next. */
	{
		struct child d = child_of(self_path(), "wait");

		send_sample(&f, key_of(d.pid, 0), clock_monotonic_ns(), text_of(d.pid).start);
		run_until(&f, f.n_given == 2);
		assert_int_equal(f.given[1].state, IMAGE_READY);
		child_stop(&d);
	}
	child_stop(&c);
}

static void test_flush(void **state)
{
	struct process_config config = {.read_deadline_ms = 5000};
	struct child c = child_of(self_path(), "wait"), d = child_of(self_path(), "wait");

	fixture_start(&f, &config);
	/* No loop runs, and the stream goes no further. */
	send_sample(&f, key_of(c.pid, 0), clock_monotonic_ns(), text_of(c.pid).start);
	assert_int_equal(f.n_given, 0);
	process_flush(f.table);
	assert_int_equal(f.n_given, 1);
	assert_int_equal(f.given[0].state, IMAGE_READY);
	assert_int_equal(process_file(f.table, f.given[0].frames[0].file)->kind, FILE_ELF);
	/* Nor does a reader that hangs keep it. */
	kill(reader_pid(), SIGSTOP);
	send_sample(&f, key_of(d.pid, 0), clock_monotonic_ns(), text_of(d.pid).start);
	process_flush(f.table);
	assert_int_equal(f.n_given, 2);
	assert_int_equal(counters().queued, 0);
	child_stop(&c);
	child_stop(&d);
}

/* What the child is: no network, no writing, nothing of ours. */
static void test_sandbox(void **state)
{
	struct child c = child_of(self_path(), "wait");
	char path[64];
	struct buf b;

	fixture_start(&f, NULL);
	start_reader(&c);
	snprintf(path, sizeof(path), "/proc/%d/status", reader_pid());
	buf_init(&b, 65536);
	assert_int_equal(io_read_file(AT_FDCWD, path, &b, 65536), 0);
	assert_non_null(strstr((char *)b.data, "Seccomp:\t2"));
	assert_non_null(strstr((char *)b.data, "NoNewPrivs:\t1"));
	buf_reset(&b);
	snprintf(path, sizeof(path), "/proc/%d/environ", reader_pid());
	assert_int_equal(io_read_file(AT_FDCWD, path, &b, 65536), 0);
	assert_null(b.data ? memmem(b.data, b.len, "PATH=", 5) : NULL);
	buf_deinit(&b);
	child_stop(&c);
}

/* ---- bounds -------------------------------------------------------------------------------------------------------- */

static void test_queue_bound(void **state)
{
	struct process_config config = {.max_queued = 10};
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 0);

	fixture_start(&f, &config);
	for (int i = 0; i < 25; i++)
		send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	assert_int_equal(f.lost, 15);
	assert_string_equal(f.lost_cause, "queue full");
	assert_int_equal(counters().queued, 10);
	run_until(&f, f.n_given == 10);
	assert_int_equal(counters().queued, 0);
	child_stop(&c);
}

static void test_image_bound(void **state)
{
	struct process_config config = {.max_images = 50};
	struct sample_image key = {.start_boottime = 3600 * NSEC_PER_SEC};

	fixture_start(&f, &config);
	for (uint32_t i = 0; i < 1000; i++) {
		key.tgid = 4100000 + i;
		send_process(&f, SAMPLER_FORK, key, NOBODY_IMAGE, clock_monotonic_ns(), "x", NULL);
		assert_true(counters().images <= 50);
	}
	assert_int_equal(counters().evicted_images, 950);
	/* Samples of images that had to go are counted, none is lost in silence. */
	for (uint32_t i = 0; i < 200; i++) {
		key.tgid = 4200000 + i;
		send_sample(&f, key, clock_monotonic_ns(), 0x1000);
	}
	run_until(&f, f.n_given + f.lost == 200);
	assert_true(counters().images <= 50);
	/* The latest is there, the first is not. */
	assert_non_null(process_find(f.table, &key));
	key.tgid = 4200000;
	assert_null(process_find(f.table, &key));
}

static void test_mapping_bound(void **state)
{
	struct process_config config = {.max_mappings = 20};
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 1);
	uint64_t t0 = clock_monotonic_ns();
	struct entry *e;

	fixture_start(&f, &config);
	send_exec_begin(&f, c.pid, t0);
	for (uint64_t i = 0; i < 100; i++) {
		struct file_key k = {.inode = 5 + i, .major = 1, .minor = 1};

		send_mmap(&f, c.pid, t0 + 1 + i, 0x10000000 + i * 0x10000, 0x1000, 0, &k, "/x");
	}
	/* Memory without a file is joined, however often it grows. */
	for (uint64_t i = 0; i < 100; i++)
		send_mmap(&f, c.pid, t0 + 200 + i, 0x5000000 + i * 0x1000, 0x1000, 0,
			&(struct file_key){}, "//anon");
	send_exec(&f, key, t0 + 300, "x");
	e = (struct entry *)process_find(f.table, &key);
	assert_true(e->mappings->n <= 20);
	assert_true(counters().mappings_refused >= 80);
	child_stop(&c);
}

/* Descriptors beyond the bound are closed and come back when they are asked for. */
static void test_open_files_bound(void **state)
{
	struct process_config config = {.max_open_files = 1};
	struct child c = child_of(self_path(), "wait");
	struct sample_image key = key_of(c.pid, 0);
	struct procfs_map libc;
	uint32_t first, second;
	struct stat st;
	int fd;

	fixture_start(&f, &config);
	assert_true(find_mapping(c.pid, "libc.so.6", &libc, NULL, 0));
	send_sample(&f, key, clock_monotonic_ns(), text_of(c.pid).start);
	run_until(&f, f.n_given == 1);
	send_sample(&f, key, clock_monotonic_ns(), libc.start);
	run_until(&f, f.n_given == 2);
	first = f.given[0].frames[0].file;
	second = f.given[1].frames[0].file;
	assert_int_equal(counters().open_files, 1);
	assert_int_equal(process_file(f.table, first)->fd, -1);
	assert_true(process_file(f.table, second)->fd >= 0);
	fd = process_file_open(f.table, first);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_ino, process_file(f.table, first)->identity.inode);
	assert_int_equal(process_file(f.table, second)->fd, -1);
	assert_int_equal(counters().open_files, 1);
	child_stop(&c);
	/* Nobody maps it any more. */
	assert_true(process_file_open(f.table, second) < 0);
	assert_int_equal(process_file_open(f.table, 9999), -ENOENT);
}

static void send_file(struct sample_image key, uint64_t n)
{
	struct file_key k = {.inode = 1000 + n, .major = 240, .minor = 3};
	char path[32];
	uint64_t t = clock_monotonic_ns();

	snprintf(path, sizeof(path), "/gone/%lu", (unsigned long)n);
	send_mmap(&f, (pid_t)key.tgid, t, 0x10000000, 0x1000, 0, &k, path);
	send_sample(&f, key, t, 0x10000000);
}

static void test_files_bound(void **state)
{
	struct process_config config = {.max_files = 20};
	struct sample_image key = {
		.tgid = 4300000, .exec = 1, .start_boottime = 3600 * NSEC_PER_SEC};
	uint32_t held;

	fixture_start(&f, &config);
	send_exec_begin(&f, (pid_t)key.tgid, clock_monotonic_ns());
	send_exec(&f, key, clock_monotonic_ns(), "x");
	send_file(key, 0);
	run_until(&f, f.n_given == 1);
	held = f.given[0].frames[0].file;
	process_file_hold(f.table, held);
	for (uint64_t i = 1; i < 200; i++) {
		send_file(key, i);
		run_until(&f, f.n_given == i + 1);
		assert_true(counters().files <= 21);
		assert_string_not_equal(
			process_file(f.table, f.given[i].frames[0].file)->path, "[too many files]");
	}
	assert_true(counters().evicted_files > 150);
	assert_non_null(process_file(f.table, held));
	assert_string_equal(process_file(f.table, held)->path, "/gone/0");
	/* Ids are never used again. */
	for (size_t i = 1; i < 200; i++)
		assert_true(f.given[i].frames[0].file > f.given[i - 1].frames[0].file);
	process_file_release(f.table, held);
	for (uint64_t i = 200; i < 240; i++) {
		send_file(key, i);
		run_until(&f, f.n_given == i + 1);
	}
	assert_null(process_file(f.table, held));
	/* All held: there is a stand-in, and it is said. */
	for (uint64_t i = 240; i < 300; i++) {
		send_file(key, i);
		run_until(&f, f.n_given == i + 1);
		process_file_hold(f.table, f.given[i].frames[0].file);
	}
	assert_string_equal(
		process_file(f.table, f.given[299].frames[0].file)->path, "[too many files]");
	assert_true(counters().files <= 21);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_teardown(name, teardown)
		T(test_deadline),
		T(test_killed),
		T(test_no_reader_to_be_had),
		T(test_flush),
		T(test_sandbox),
		T(test_queue_bound),
		T(test_image_bound),
		T(test_mapping_bound),
		T(test_open_files_bound),
		T(test_files_bound),
	};

	if (argc > 2 && streq(argv[1], "--child")) {
		child_ready();
		pause();
	}
	if (argc > 2 && streq(argv[1], "--role"))
		return streq(argv[2], "proc") ? process_reader_main() : container_role_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
