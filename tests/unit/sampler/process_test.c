/* SPDX-License-Identifier: Apache-2.0 */

/* Processes and mappings, followed on the kernel that runs here: fork, exec in place (by a thread
 * too), mappings, moves between cgroups, exit, CPUs that come and go. Needs root. */

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <bpf/bpf.h>
#include "tests/unit/sampler/harness.h"

#define CHILD_WORD "--exec-child"

/* Whether the kernel has a verdict for the image. */
static bool has_verdict(const struct watch *w, const struct sample_image *image)
{
	struct sample_verdict v;

	return bpf_map_lookup_elem(bpf_map__fd(w->s->skel->maps.verdicts), image, &v) == 0 &&
		v.generation == w->s->skel->data->settings.generation;
}

static void assert_same_image(const struct sample_image *a, const struct sample_image *b)
{
	assert_int_equal(a->tgid, b->tgid);
	assert_int_equal(a->exec, b->exec);
	assert_int_equal(a->start_boottime, b->start_boottime);
}

/* A child that waits at a gate until the parent lets it go on. */
struct gate {
	int fds[2];
};

static void gate_wait(struct gate *g)
{
	char c;

	close(g->fds[1]);
	if (read(g->fds[0], &c, 1) < 0)
		_exit(4);
}

static void gate_open(struct gate *g)
{
	close(g->fds[0]);
	close(g->fds[1]);
}

static void exec_self(void)
{
	execl("/proc/self/exe", "again", CHILD_WORD, (char *)NULL);
	_exit(5);
}

static void exec_child(void *userdata)
{
	gate_wait(userdata);
	exec_self();
}

static void test_exec_in_place(void **state)
{
	const struct seen *fork_, *begin, *exec, *exit_, *map, *end;
	struct sample_image old, me_parent;
	struct sampler_counters c;
	struct gate g;
	struct watch w;
	size_t at = 0, after_exec, maps = 0;
	bool program = false, loader = false, in_verdict;
	pid_t pid;

	watch_open(&w, 99);
	watch_start(&w);
	assert_int_equal(pipe2(g.fds, O_CLOEXEC), 0);
	pid = spawn(exec_child, &g);
	sampler_drain(w.s);
	old = need_seen(&w, SAMPLER_FORK, pid, NULL)->image;
	assert_int_equal(sampler_set_verdict(w.s, &old, 0, 0, 0), 0);
	in_verdict = has_verdict(&w, &old);
	gate_open(&g);
	wait_child(&w, pid);
	watch_stop(&w, &c);

	fork_ = need_seen(&w, SAMPLER_FORK, pid, &at);
	begin = need_seen(&w, SAMPLER_EXEC_BEGIN, pid, &at);
	for (size_t i = at; i < w.n; i++) {
		map = &w.list[i];
		if ((pid_t)map->pid == pid && map->kind == SAMPLER_EXEC)
			break;
		if (map->kind != SAMPLER_MMAP || (pid_t)map->pid != pid)
			continue;
		maps++;
		assert_true(map->len > 0 && map->start > 0);
		program = program || strstr(map->text, "process_test");
		loader = loader || strstr(map->text, "ld-") || strstr(map->text, "/ld");
	}
	exec = need_seen(&w, SAMPLER_EXEC, pid, &at);
	after_exec = at;
	end = need_seen(&w, SAMPLER_MMAP, pid, &at); /* libc, by the loader, of the new image */
	at = after_exec;
	exit_ = need_seen(&w, SAMPLER_EXIT, pid, &at);

	assert_true(maps >= 2 && program && loader);
	assert_true(fork_->time < begin->time && begin->time < exec->time &&
		exec->time < end->time && end->time < exit_->time);
	me_parent = fork_->parent;
	assert_int_equal(me_parent.tgid, getpid());
	assert_int_equal(fork_->tid, getpid());
	assert_int_equal(begin->tid, pid);
	assert_int_equal(
		fork_->image.exec, me_parent.exec); /* a child starts with its parent's count */
	assert_int_equal(exec->image.exec, old.exec + 1);
	assert_int_equal(exec->image.start_boottime, old.start_boottime);
	assert_int_equal(exec->tid, pid);
	assert_int_equal(exec->text[0], '/');
	assert_string_equal(exec->comm, "exe");
	assert_same_image(&exec->image, &exit_->image);
	assert_true(in_verdict);
	assert_false(has_verdict(&w, &old));
	watch_close(&w);
}

static void *exec_thread(void *userdata)
{
	exec_self();
	return NULL;
}

static void thread_exec_child(void *userdata)
{
	pthread_t thread;

	gate_wait(userdata);
	if (pthread_create(&thread, NULL, exec_thread, NULL) != 0)
		_exit(6);
	pthread_join(thread, NULL);
}

/* The thread that calls exec becomes the leader: same process, next image. */
static void test_exec_by_a_thread(void **state)
{
	const struct seen *fork_, *exec, *exit_;
	struct sampler_counters c;
	struct gate g;
	struct watch w;
	size_t at = 0;
	pid_t pid;

	watch_open(&w, 99);
	watch_start(&w);
	assert_int_equal(pipe2(g.fds, O_CLOEXEC), 0);
	pid = spawn(thread_exec_child, &g);
	gate_open(&g);
	wait_child(&w, pid);
	watch_stop(&w, &c);
	fork_ = need_seen(&w, SAMPLER_FORK, pid, &at);
	assert_null(find_seen(&w, SAMPLER_FORK, pid, &(size_t){at})); /* the thread is no process */
	need_seen(&w, SAMPLER_EXEC_BEGIN, pid, &at);
	exec = need_seen(&w, SAMPLER_EXEC, pid, &at);
	assert_int_equal(exec->image.exec, fork_->image.exec + 1);
	assert_int_equal(exec->image.start_boottime, fork_->image.start_boottime);
	assert_int_not_equal(exec->tid, pid);
	exit_ = need_seen(&w, SAMPLER_EXIT, pid, &at);
	assert_same_image(&exec->image, &exit_->image);
	/* Only the end of the process is one, not that of its first leader. */
	assert_null(find_seen(&w, SAMPLER_EXIT, pid, &at));
	at = 0;
	assert_ptr_equal(find_seen(&w, SAMPLER_EXIT, pid, &at), exit_);
	watch_close(&w);
}

static void map_child(void *userdata)
{
	int fd;

	gate_wait(userdata);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 4096) == MAP_FAILED)
		_exit(7);
	if (mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) == MAP_FAILED)
		_exit(8);
}

static void test_mappings(void **state)
{
	const struct seen *map;
	struct sampler_counters c;
	struct stat st;
	struct gate g;
	struct watch w;
	size_t at = 0;
	pid_t pid;

	watch_open(&w, 99);
	watch_start(&w);
	assert_int_equal(pipe2(g.fds, O_CLOEXEC), 0);
	pid = spawn(map_child, &g);
	gate_open(&g);
	wait_child(&w, pid);
	watch_stop(&w, &c);
	assert_int_equal(stat("/proc/self/exe", &st), 0);
	map = need_seen(&w, SAMPLER_MMAP, pid, &at);
	assert_int_equal(map->pgoff, 4096);
	assert_int_equal(map->len, 8192);
	assert_int_equal(map->inode, st.st_ino);
	assert_non_null(strstr(map->text, "process_test"));
	map = need_seen(&w, SAMPLER_MMAP, pid, &at);
	assert_int_equal(map->len, 4096);
	assert_string_equal(map->text, "//anon");
	watch_close(&w);
}

/* A verdict falls when its process ends. */
static void test_exit(void **state)
{
	struct sampler_counters c;
	struct sample_image image;
	struct gate g;
	struct watch w;
	pid_t pid;

	watch_open(&w, 99);
	watch_start(&w);
	assert_int_equal(pipe2(g.fds, O_CLOEXEC), 0);
	pid = spawn((void (*)(void *))gate_wait, &g);
	sampler_drain(w.s);
	image = need_seen(&w, SAMPLER_FORK, pid, NULL)->image;
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 1, 0), 0);
	assert_true(has_verdict(&w, &image));
	gate_open(&g);
	wait_child(&w, pid);
	watch_stop(&w, &c);
	assert_same_image(&need_seen(&w, SAMPLER_EXIT, pid, NULL)->image, &image);
	assert_false(has_verdict(&w, &image));
	watch_close(&w);
}

/* ---- cgroups --------------------------------------------------------------------------------- */

/* Where the v2 hierarchy is mounted, or false. */
static bool find_cgroup2(char *out, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/mounts", "re");
	char line[1024], where[512], type[64];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %511s %63s", where, type) == 2 && streq(type, "cgroup2")) {
			snprintf(out, size, "%s", where);
			return true;
		}
	return false;
}

static bool write_pid(const char *folder, pid_t pid)
{
	char path[1400];
	_cleanup_fclose_ FILE *f = NULL;

	snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
	f = fopen(path, "we");
	return f && fprintf(f, "%d", pid) > 0 && fflush(f) == 0;
}

static void test_cgroups(void **state)
{
	char root[512], outer[600], inner[1200], expected[300];
	const struct seen *moved, *exec;
	struct sampler_counters c;
	struct sample_image image;
	struct sample_verdict v;
	uint32_t tag;
	struct stat st;
	struct gate g;
	struct watch w;
	size_t at = 0;
	pid_t pid;

	if (!find_cgroup2(root, sizeof(root))) {
		print_message(
			"no cgroup v2 is mounted here: moves between cgroups are not tested\n");
		skip();
	}
	snprintf(outer, sizeof(outer), "%s/odi-test-%d.slice", root, getpid());
	snprintf(inner, sizeof(inner), "%s/app@1.service", outer);
	if (mkdir(outer, 0755) < 0 || mkdir(inner, 0755) < 0) {
		print_message("%s cannot be changed: moves between cgroups are not tested\n", root);
		skip();
	}
	assert_int_equal(stat(inner, &st), 0);
	watch_open(&w, 99);
	watch_start(&w);
	assert_int_equal(pipe2(g.fds, O_CLOEXEC), 0);
	pid = spawn(exec_child, &g);
	sampler_drain(w.s);
	image = need_seen(&w, SAMPLER_FORK, pid, NULL)->image;
	tag = set_own_maps(&w, &image);
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 1, 0), 0);
	assert_true(has_verdict(&w, &image));
	assert_true(write_pid(inner, pid));
	assert_false(has_verdict(&w, &image));
	/* What is mapped is the same as before. */
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(w.s->skel->maps.verdicts), &image, &v), 0);
	assert_int_equal(v.space_tag, tag);
	gate_open(&g);
	wait_child(&w, pid);
	watch_stop(&w, &c);
	assert_int_equal(rmdir(inner), 0);
	assert_int_equal(rmdir(outer), 0);

	snprintf(expected, sizeof(expected), "/odi-test-%d.slice/app@1.service", getpid());
	moved = need_seen(&w, SAMPLER_CGROUP, pid, &at);
	assert_same_image(&moved->image, &image);
	assert_non_null(strstr(moved->text, expected));
	assert_int_equal(moved->cgroup_id, st.st_ino);
	exec = need_seen(&w, SAMPLER_EXEC, pid, &at);
	assert_string_equal(exec->text, moved->text);
	assert_int_equal(exec->cgroup_id, st.st_ino);
	watch_close(&w);
}

/* ---- order and CPUs -------------------------------------------------------------------------- */

/* Many short processes at once: each has its events, in order, and its samples fall between them. Returns
 * how many events were lost; then nothing can be said. */
static uint64_t follow_many(void)
{
	enum { CHILDREN = 60 };
	struct sampler_counters c;
	pid_t pids[CHILDREN];
	struct gate g;
	struct watch w;

	watch_open(&w, 1000);
	watch_start(&w);
	for (size_t i = 0; i < CHILDREN; i++) {
		assert_int_equal(pipe2(g.fds, O_CLOEXEC), 0);
		pids[i] = spawn(exec_child, &g);
		gate_open(&g);
	}
	for (size_t i = 0; i < CHILDREN; i++)
		wait_child(&w, pids[i]);
	watch_stop(&w, &c);
	for (size_t i = 0; !c.lost_events && i < CHILDREN; i++) {
		size_t at = 0;
		uint64_t begin = need_seen(&w, SAMPLER_FORK, pids[i], &at)->time, end;
		const struct seen *exec;

		exec = need_seen(&w, SAMPLER_EXEC, pids[i], &at);
		end = need_seen(&w, SAMPLER_EXIT, pids[i], &at)->time;
		assert_true(begin < exec->time && exec->time < end);
		for (size_t j = 0; j < w.n; j++) {
			const struct seen *e = &w.list[j];

			if (e->kind != SAMPLER_SAMPLE || (pid_t)e->pid != pids[i])
				continue;
			assert_true(e->time > begin);
			/* The new image's count is there from a little before its record on. */
			if (e->time > exec->time)
				assert_int_equal(e->image.exec, exec->image.exec);
		}
	}
	watch_close(&w);
	return c.lost_events;
}

/* What others on this host map or start may fill the rings, so once has to be without a loss. */
static void test_many(void **state)
{
	uint64_t lost = follow_many();

	for (int i = 0; lost && i < 20; i++) {
		print_message("%llu events were lost, of whoever on this host: once more\n",
			(unsigned long long)lost);
		lost = follow_many();
	}
	assert_int_equal(lost, 0);
}

/* Events that are missing of a CPU that is online are opened by the look of each second; those of a
 * CPU that went keep what was due. */
static void test_events_come_back(void **state)
{
	struct sampler_counters before, after, c;
	struct watch w;

	watch_open(&w, 997);
	watch_start(&w);
	watch_run(&w, 100);
	sampler_counters(w.s, &before);
	events_close(w.s, 0);
	assert_int_equal(events_sampled(w.s), before.sampled_cpus - 1);
	assert_true(events_due(w.s) >= before.due);
	WATCH_UNTIL(&w, events_sampled(w.s) == before.sampled_cpus);
	sampler_counters(w.s, &after);
	WATCH_UNTIL(&w, events_due(w.s) > after.due);
	watch_stop(&w, &c);
	assert_int_equal(c.sampled_cpus, c.online_cpus);
	watch_close(&w);
}

static bool write_text(const char *path, const char *text)
{
	_cleanup_fclose_ FILE *f = fopen(path, "we");

	return f && fputs(text, f) >= 0 && fflush(f) == 0;
}

/* Takes the last CPU away for a moment: its events go and come back, and what was due stays. */
static void test_hotplug(void **state)
{
	struct sampler_counters before, without, again, c;
	unsigned last = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1, noticed[2];
	char path[96];
	struct watch w;

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", last);
	if (!getenv("ODI_TEST_HOTPLUG")) {
		print_message(
			"no CPU is taken offline unless ODI_TEST_HOTPLUG is set: not tested\n");
		skip();
	}
	if (!last || access(path, W_OK) < 0) {
		print_message("no CPU can be taken offline here: hotplug is not tested\n");
		skip();
	}
	watch_open(&w, 997);
	watch_start(&w);
	watch_run(&w, 200);
	sampler_counters(w.s, &before);
	assert_int_equal(before.sampled_cpus, before.online_cpus);
	if (!write_text(path, "0")) {
		print_message(
			"the kernel refuses to take CPU %u offline: hotplug is not tested\n", last);
		watch_close(&w);
		skip();
	}
	watch_run(&w, 300);               /* the uevent, or a hang-up of its events */
	noticed[0] = events_sampled(w.s); /* before sampler_counters() looks for itself */
	sampler_counters(w.s, &without);
	assert_true(write_text(path, "1")); /* nothing is asserted while it is away */
	watch_run(&w, 300);
	noticed[1] = events_sampled(w.s);
	sampler_counters(w.s, &again);
	watch_stop(&w, &c);
	assert_int_equal(noticed[0], before.sampled_cpus - 1);
	assert_int_equal(noticed[1], before.sampled_cpus);
	assert_true(without.due > before.due && again.due > without.due);
	assert_int_equal(without.online_cpus, before.online_cpus - 1);
	/* The event that went took nothing of what was due with it: were it so, taken would pass
	 * due. */
	assert_true(events_due(w.s) + 2 * before.online_cpus >= c.taken);
	assert_int_equal(c.lost_events, 0);
	watch_close(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exec_in_place),
		cmocka_unit_test(test_exec_by_a_thread),
		cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_exit),
		cmocka_unit_test(test_cgroups),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_events_come_back),
		cmocka_unit_test(test_hotplug),
	};

	if (argc > 1 && streq(argv[1], CHILD_WORD))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
