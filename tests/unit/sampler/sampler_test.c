/* SPDX-License-Identifier: Apache-2.0 */

/* Sampling on the kernel that runs here: counts that add up, stacks of known shape, verdicts,
 * rates, a full ring, and nothing left behind. Needs root. */

#include <dirent.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "tests/unit/sampler/harness.h"

#define RATE 997 /* a prime: in step with nothing */

static uint64_t cpu_time_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static volatile uint64_t burnt;

__attribute__((noinline)) static void burn_leaf(uint64_t rounds)
{
	/* Compilers leave out a leaf's frame, asked to keep it or not, unless it looks at it. */
	burnt += (uintptr_t)__builtin_frame_address(0);
	for (uint64_t i = 0; i < rounds; i++)
		burnt += i * i;
}

__attribute__((noinline)) static void burn_inner(uint64_t ns)
{
	while (cpu_time_ns() < ns)
		burn_leaf(200000);
	__asm__ volatile("");
}

__attribute__((noinline)) static void burn_outer(uint64_t ns)
{
	burn_inner(ns);
	__asm__ volatile("");
}

static void burn_child(void *userdata)
{
	burn_outer(*(uint64_t *)userdata);
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static uint64_t count_samples(const struct watch *w, pid_t pid)
{
	uint64_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		if (w->list[i].kind == SAMPLER_SAMPLE && (pid_t)w->list[i].pid == pid)
			n += w->list[i].count;
	return n;
}

static uint64_t square(uint64_t v)
{
	return v * v;
}

/* Five standard deviations around what was expected, and what was due but did not come. */
static void assert_near(uint64_t got, uint64_t expected, uint64_t late)
{
	uint64_t low = expected > late ? expected - late : 0;

	if (got < low && square(low - got) > 25 * low + 25)
		fail_msg(
			"%llu is far below %llu", (unsigned long long)got, (unsigned long long)low);
	if (got > expected && square(got - expected) > 25 * expected + 25)
		fail_msg("%llu is far above %llu", (unsigned long long)got,
			(unsigned long long)expected);
}

/* Children that are counted run on one CPU, so that ticks which did not come to others (an idle
 * virtual CPU may sleep through them) do not blur what is expected of them. */
static int home_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
	return cpu;
}

/* Of a stopped sampler whose rate never changed. */
static uint64_t late_on(const struct watch *w, int cpu)
{
	uint64_t count, taken = w->s->counts[cpu].of[COUNT_TAKEN], due;

	assert_int_equal(read(w->s->cpus[cpu].clock_fd, &count, sizeof(count)), sizeof(count));
	due = count / w->s->period_ns;
	return due > taken ? due - taken : 0;
}

/* ---- what a sample says ---------------------------------------------------------------------- */

static void test_busy_child(void **state)
{
	uint64_t ns = 400 * NSEC_PER_MSEC, cpu, in_chain = 0, in_user = 0;
	struct sample_image image;
	struct sampler_counters c;
	struct watch w;
	int home;
	pid_t pid;

	home = home_cpu();
	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn_walked(&w, burn_child, &ns, &image);
	cpu = wait_child(&w, pid);
	watch_stop(&w, &c);
	assert_near(count_samples(&w, pid), cpu / (NSEC_PER_SEC / RATE), late_on(&w, home));
	for (size_t i = 0; i < w.n; i++) {
		const struct seen *e = &w.list[i];

		if (e->kind != SAMPLER_SAMPLE || (pid_t)e->pid != pid)
			continue;
		assert_int_equal(e->value, NSEC_PER_SEC / RATE);
		assert_int_equal(e->tid, pid);
		assert_string_equal(e->comm, "sampler_test");
		/* burn_leaf < burn_inner < burn_outer: their addresses are ours, the child is a
		 * fork. What the kernel did meanwhile is not theirs. */
		if (!e->n_frames || e->frames[0].kind == FRAME_KERNEL)
			continue;
		in_user++;
		if (e->n_frames < 4 || e->frames[0].kind != FRAME_NATIVE)
			continue;
		in_chain += e->frames[0].offset - (uintptr_t)burn_leaf < 256 &&
			e->frames[1].offset - (uintptr_t)burn_inner < 256 &&
			e->frames[2].offset - (uintptr_t)burn_outer < 256;
	}
	assert_true(in_chain > in_user * 8 / 10);
	assert_int_equal(c.sampled_cpus, c.online_cpus);
	watch_close(&w);
}

__attribute__((noinline)) static void burn_deep(unsigned depth, uint64_t ns)
{
	if (depth)
		burn_deep(depth - 1, ns);
	else
		burn_inner(ns);
	__asm__ volatile("");
}

static void deep_child(void *userdata)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	burn_deep(300, UINT64_MAX);
}

/* Of the samples in burn_leaf(), those whose stack is cut off, or not. */
static uint64_t count_deep(const struct watch *w, pid_t pid, bool cut)
{
	uint64_t n = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct seen *e = &w->list[i];
		const struct sample_frame *last;

		if (e->kind != SAMPLER_SAMPLE || (pid_t)e->pid != pid || !e->n_frames)
			continue;
		if (e->frames[0].offset - (uintptr_t)burn_leaf >= 256)
			continue;
		last = &e->frames[e->n_frames - 1];
		n += (last->kind == FRAME_MARKER) == cut;
		if (last->kind != FRAME_MARKER)
			continue;
		assert_int_equal(e->n_frames, SAMPLE_DEFAULT_USER + 1);
		assert_int_equal(last->offset, MARKER_TRUNCATED);
	}
	return n;
}

static void test_deep_stack(void **state)
{
	struct sample_image image;
	struct sampler_counters c;
	struct watch w;
	pid_t pid;

	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn_walked(&w, deep_child, NULL, &image);
	WATCH_UNTIL(&w, count_deep(&w, pid, true) > 50);
	end_child(pid);
	watch_stop(&w, &c);
	assert_int_equal(count_deep(&w, pid, false), 0);
	watch_close(&w);
}

/* Reads zeroes from the kernel: most of its time is there. */
static void kernel_child(void *userdata)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	static char zeroes[1 << 20];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(fd, zeroes, sizeof(zeroes)) >= 0)
		;
	_exit(1);
}

/* Samples in the kernel; *with_both: those of them that have user frames, too. */
static uint64_t count_kernel(const struct watch *w, pid_t pid, uint64_t *with_both)
{
	uint64_t n = 0;

	*with_both = 0;
	for (size_t i = 0; i < w->n; i++) {
		const struct seen *e = &w->list[i];

		if (e->kind != SAMPLER_SAMPLE || (pid_t)e->pid != pid || !e->n_frames ||
			e->frames[0].kind != FRAME_KERNEL)
			continue;
		n++;
		for (size_t j = 0; j < e->n_frames; j++)
			if (e->frames[j].kind == FRAME_NATIVE) {
				++*with_both;
				break;
			}
	}
	return n;
}

static void test_kernel_frames(void **state)
{
	uint64_t kernel, both;
	struct sample_image image;
	struct sampler_counters c;
	struct watch w;
	pid_t pid;

	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn_walked(&w, kernel_child, NULL, &image);
	WATCH_UNTIL(&w, count_kernel(&w, pid, &both) > 300);
	end_child(pid);
	kernel = count_kernel(&w, pid, &both);
	assert_true(both > kernel * 9 / 10); /* not those of its beginning */

	sampler_set_kernel_frames(w.s, false);
	pid = spawn_walked(&w, kernel_child, NULL, &image);
	WATCH_UNTIL(&w, count_samples(&w, pid) > 50);
	end_child(pid);
	watch_stop(&w, &c);
	assert_int_equal(count_kernel(&w, pid, &both), 0);
	watch_close(&w);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void stoppable_child(void *userdata)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		burn_leaf(100000);
}

static void test_verdicts(void **state)
{
	struct sampler_counters c;
	struct sample_image image;
	uint64_t n, ignored;
	struct watch w;
	pid_t pid;

	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn(stoppable_child, NULL);
	WATCH_UNTIL(&w, count_samples(&w, pid) > 10); /* unknown: kept */
	image = need_seen(&w, SAMPLER_FORK, pid, NULL)->image;

	/* Ignored: from the first one on that is (another CPU may be at one just now) none comes. */
	assert_int_equal(sampler_raw_counter(w.s, COUNT_IGNORED), 0);
	assert_int_equal(sampler_set_verdict(w.s, &image, 0, 0, 0), 0);
	WATCH_UNTIL(&w, sampler_raw_counter(w.s, COUNT_IGNORED) > 0);
	sampler_drain(w.s);
	n = count_samples(&w, pid);
	ignored = sampler_raw_counter(w.s, COUNT_IGNORED);
	WATCH_UNTIL(&w, sampler_raw_counter(w.s, COUNT_IGNORED) > ignored + 50);
	assert_int_equal(count_samples(&w, pid), n);

	/* Another generation: unknown again. */
	sampler_next_generation(w.s);
	WATCH_UNTIL(&w, count_samples(&w, pid) > n + 10);

	/* Selected, then forgotten: comes either way. */
	assert_int_equal(sampler_set_verdict(w.s, &image, 1 << SAMPLE_TYPE_CPU, 1, 0), 0);
	sampler_forget(w.s, &image);
	sampler_forget(w.s, &image);
	n = count_samples(&w, pid);
	WATCH_UNTIL(&w, count_samples(&w, pid) > n);
	end_child(pid);
	watch_stop(&w, &c);
	watch_close(&w);
}

static void test_divisor(void **state)
{
	uint64_t ns = 500 * NSEC_PER_MSEC, cpu, records = 0, sum = 0;
	struct sample_image image;
	struct sampler_counters c;
	struct watch w;
	int home;
	pid_t pid;

	home = home_cpu();
	watch_open(&w, RATE);
	watch_start(&w);
	w.decide = true;
	w.decide_types = 1 << SAMPLE_TYPE_CPU;
	w.decide_divisor = 5;
	pid = spawn_walked(&w, burn_child, &ns, &image); /* begins when it is decided */
	cpu = wait_child(&w, pid);
	watch_stop(&w, &c);
	for (size_t i = 0; i < w.n; i++) {
		const struct seen *e = &w.list[i];

		if (e->kind != SAMPLER_SAMPLE || (pid_t)e->pid != pid)
			continue;
		assert_true(e->count == 1 || e->count == 5); /* 1: before the verdict was there */
		records++;
		sum += e->count;
	}
	assert_true(c.divided > records / 2);
	/* Each kept one stands for five: the variance is five times that of counting all. */
	assert_near(sum / 5, cpu / (NSEC_PER_SEC / RATE) / 5, late_on(&w, home) / 5 + 10);
	watch_close(&w);
}

/* ---- counts ---------------------------------------------------------------------------------- */

struct span {
	uint64_t before_on, after_on, before_off, after_off;
};

/* How many samples fell due in a span, at least and at most. */
static void add_span(
	const struct span *s, unsigned rate, unsigned cpus, uint64_t *low, uint64_t *high)
{
	uint64_t period = NSEC_PER_SEC / rate;

	*low += cpus * ((s->before_off - s->after_on) / period);
	*high += cpus * ((s->after_off - s->before_on) / period + 1);
}

static void test_rate_change(void **state)
{
	static const unsigned rates[] = {100, 1000, 37};
	uint64_t low = 0, high = 0, ns = NSEC_PER_SEC, at[3];
	struct sampler_counters c;
	struct err_text err;
	struct span span = {0};
	struct watch w;
	pid_t pid;

	watch_open(&w, rates[0]);
	pid = spawn(burn_child, &ns);
	span.before_on = clock_monotonic_ns();
	watch_start(&w);
	span.after_on = clock_monotonic_ns();
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct span next = {0};

		watch_run(&w, 300);
		span.before_off = next.before_on = clock_monotonic_ns();
		if (i + 1 < ARRAY_SIZE(rates))
			assert_int_equal(sampler_set_rate(w.s, rates[i + 1], &err), 0);
		else
			sampler_stop(w.s);
		span.after_off = next.after_on = clock_monotonic_ns();
		sampler_counters(w.s, &c);
		add_span(&span, rates[i], c.sampled_cpus, &low, &high);
		at[i] = span.after_off;
		span = next;
	}
	end_child(pid);
	sampler_drain(w.s);
	check_counts(&w, &c);
	/* A tick may be cut off where the rate changes. */
	assert_in_range(c.due, low - ARRAY_SIZE(rates) * c.sampled_cpus, high);
	/* Each sample has the value of its time. */
	for (size_t i = 0; i < w.n; i++) {
		const struct seen *e = &w.list[i];
		size_t phase = 0;

		if (e->kind != SAMPLER_SAMPLE)
			continue;
		while (phase + 1 < ARRAY_SIZE(rates) && e->time > at[phase])
			phase++;
		/* Between two readings of the clock either may hold. */
		if (e->value != NSEC_PER_SEC / rates[phase] && phase + 1 < ARRAY_SIZE(rates))
			assert_int_equal(e->value, NSEC_PER_SEC / rates[phase + 1]);
		else
			assert_int_equal(e->value, NSEC_PER_SEC / rates[phase]);
	}
	watch_close(&w);
}

static void test_stop_and_start(void **state)
{
	struct sampler_counters c, still;
	struct watch w;
	pid_t pid;
	uint64_t n;

	watch_open(&w, RATE);
	pid = spawn(stoppable_child, NULL);
	watch_run(&w, 50);
	sampler_drain(w.s);
	assert_int_equal(w.n, 0); /* nothing runs before the start */
	watch_start(&w);
	WATCH_UNTIL(&w, sampler_raw_counter(w.s, COUNT_SENT) > 0);
	watch_stop(&w, &c);
	n = w.n;
	watch_run(&w, 100);
	sampler_drain(w.s);
	sampler_counters(w.s, &still);
	assert_int_equal(w.n, n);
	assert_int_equal(still.due, c.due);
	assert_int_equal(still.taken, c.taken);
	watch_start(&w);
	WATCH_UNTIL(&w, sampler_raw_counter(w.s, COUNT_SENT) > c.sent);
	watch_stop(&w, &still);
	end_child(pid);
	watch_close(&w);
}

/* The ring wakes the loop for an image that nobody decided on; no timer is near. */
static void test_wakeup(void **state)
{
	struct sampler_config config = {.rate_hz = RATE, .drain_ms = 60000};
	struct watch w;
	pid_t pid;

	watch_open_with(&w, &config);
	watch_start(&w);
	pid = spawn(stoppable_child, NULL);
	for (int tries = 0; tries < 100 && !count_samples(&w, pid); tries++)
		watch_run(&w, 50);
	assert_true(count_samples(&w, pid) > 0);
	end_child(pid);
	watch_close(&w);
}

static void test_paused(void **state)
{
	struct sampler_counters before, after;
	struct watch w;
	pid_t pid;

	watch_open(&w, RATE);
	pid = spawn(stoppable_child, NULL);
	watch_start(&w);
	w.s->skel->data->settings.paused = 1;
	watch_run(&w, 50);
	sampler_counters(w.s, &before);
	WATCH_UNTIL(&w, sampler_raw_counter(w.s, COUNT_PAUSED) > before.paused + 50);
	watch_stop(&w, &after);
	assert_int_equal(after.taken, before.taken);
	end_child(pid);
	watch_close(&w);
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = {.tv_nsec = ms * (long)NSEC_PER_MSEC};

	nanosleep(&t, NULL);
}

static void test_full_ring(void **state)
{
	struct sampler_config config = {.rate_hz = 1000, .kernel_frames = true, .ring_bytes = 4096};
	struct sampler_counters c;
	uint64_t lost = 0;
	struct watch w;
	pid_t pid;

	watch_open_with(&w, &config);
	watch_start(&w);
	pid = spawn(stoppable_child, NULL);
	while (sampler_raw_counter(w.s, COUNT_LOST_RING) <= 50)
		sleep_ms(10); /* nobody reads */
	for (int i = 0; i < 100; i++)
		end_child(spawn(stoppable_child, NULL));
	end_child(pid);
	watch_stop(&w, &c);
	assert_true(c.lost_events > 50);
	for (size_t i = 0; i < w.n; i++)
		lost += w.list[i].kind == SAMPLER_LOST_EVENTS ? w.list[i].lost : 0;
	assert_int_equal(lost, c.lost_events);
	watch_close(&w);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static size_t count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_nothing_left(void **state)
{
	struct bpf_program *program;
	uint32_t ids[16];
	size_t n = 0, fds = count_fds();
	struct watch w;

	watch_open(&w, RATE);
	watch_start(&w);
	watch_run(&w, 50);
	bpf_object__for_each_program(program, w.s->skel->obj)
	{
		struct bpf_prog_info info = {0};
		uint32_t size = sizeof(info);

		if (bpf_program__fd(program) < 0)
			continue; /* the other way to walk */
		assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size), 0);
		ids[n++] = info.id;
	}
	assert_int_equal(n, 5);
	watch_close(&w); /* while it runs */
	assert_int_equal(count_fds(), fds);
	for (size_t i = 0; i < n; i++) {
		int fd = -1;

		/* The kernel frees a program after all CPUs have left it. */
		for (int tries = 0; tries < 500; tries++) {
			fd = bpf_prog_get_fd_by_id(ids[i]);
			if (fd < 0)
				break;
			close(fd);
			sleep_ms(10);
		}
		assert_true(fd < 0);
	}
}

static void test_bad_config(void **state)
{
	static const struct sampler_ops ops = {.on_event = on_event};
	static const struct sampler_config configs[] = {
		{.rate_hz = 0},
		{.rate_hz = 10000},
		{.rate_hz = 99, .ring_bytes = 5000},
		{.rate_hz = 99, .ring_bytes = 1024},
		{.rate_hz = 99, .max_user_frames = SAMPLE_MAX_USER + 1},
		{.rate_hz = 99, .rows_bytes = 3 << 20},
		{.rate_hz = 99, .rows_bytes = 1 << 19},
		{.rate_hz = 99, .rows_bytes = 2ULL << 30},
		{.rate_hz = 99, .stack_bytes = 128 << 10},
		{.rate_hz = 99, .stack_bytes = 1001},
	};
	struct sampler *s = NULL;
	struct sampler_counters c;
	struct err_text err;
	sd_event *loop = NULL;
	struct watch w;

	assert_true(sd_event_new(&loop) >= 0);
	for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
		assert_int_equal(sampler_new(&s, loop, &configs[i], &ops, NULL, &err), -EINVAL);
		assert_null(s);
		assert_true(strlen(err.text) > 20);
	}
	sd_event_unref(loop);
	assert_null(sampler_free(NULL));
	watch_open(&w, 99);
	assert_int_equal(sampler_set_rate(w.s, 0, &err), -EINVAL);
	assert_int_equal(sampler_set_rate(w.s, 1001, &err), -EINVAL);
	assert_int_equal(sampler_set_rate(w.s, 99, &err), 0);
	watch_stop(&w, &c);
	watch_close(&w);
}

/* In a child: keeps these capabilities alone and tries. */
static void powerless_child(void *userdata)
{
	static const struct sampler_ops ops = {.on_event = on_event};
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	struct sampler_config config = {.rate_hz = 99};
	struct sampler *s = NULL;
	struct err_text err = {""};
	sd_event *loop = NULL;
	int r;

	data[1].effective = data[1].permitted = *(uint32_t *)userdata;
	if (syscall(SYS_capset, &head, data) < 0 || sd_event_new(&loop) < 0)
		_exit(2);
	r = sampler_new(&s, loop, &config, &ops, NULL, &err);
	_exit(r == -EPERM && !s && strstr(err.text, "missing: CAP_BPF") && strstr(err.text, "sudo")
			? 0
			: 3);
}

static void test_missing_capability(void **state)
{
	uint32_t caps = 1U << (38 - 32); /* CAP_PERFMON alone */
	int status;

	assert_true(waitpid(spawn(powerless_child, &caps), &status, 0) > 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_features(void **state)
{
	const char *lines[16];
	struct watch w;
	size_t n;

	watch_open(&w, 99);
	n = sampler_features(w.s, lines, ARRAY_SIZE(lines));
	assert_true(n >= 3);
	for (size_t i = 0; i < n; i++)
		assert_true(strchr(lines[i], ':'));
	assert_int_equal(sampler_features(w.s, lines, 1), 1);
	watch_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy_child),
		cmocka_unit_test(test_deep_stack),
		cmocka_unit_test(test_kernel_frames),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_divisor),
		cmocka_unit_test(test_rate_change),
		cmocka_unit_test(test_stop_and_start),
		cmocka_unit_test(test_wakeup),
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_nothing_left),
		cmocka_unit_test(test_bad_config),
		cmocka_unit_test(test_missing_capability),
		cmocka_unit_test(test_features),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
