/* SPDX-License-Identifier: Apache-2.0 */

/* What the kernel is told of images, and what it counts: verdicts and spaces in one entry, walks by
 * a space, counts taken exactly while samples go on, slices that are wiped. By bpf_loop() and by
 * tail calls. Needs root. */

#include <pthread.h>
#include <sys/prctl.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "tests/unit/sampler/harness.h"

#define RATE 997

static volatile uint64_t burnt;

__attribute__((noinline)) static void burn(uint64_t rounds)
{
	burnt += (uintptr_t)__builtin_frame_address(0);
	for (uint64_t i = 0; i < rounds; i++)
		burnt += i * i;
}

static uint64_t cpu_time_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void burn_child(void *userdata)
{
	while (cpu_time_ns() < *(uint64_t *)userdata)
		burn(200000);
}

static void stoppable_child(void *userdata)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		burn(100000);
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Whatever else runs here: there are slices for all. */
static void open_with_slices(struct watch *w)
{
	struct sampler_config config = {.rate_hz = RATE, .slices_a_second = 5000};

	watch_open_with(w, &config);
}

static struct sample_verdict entry_of(const struct watch *w, const struct sample_image *image)
{
	struct sample_verdict v = {0};

	(void)bpf_map_lookup_elem(bpf_map__fd(w->s->skel->maps.verdicts), image, &v);
	return v;
}

/* ---- one half -------------------------------------------------------------------------------- */

static uint64_t sum_ids, sum_samples;

static void add_up(void *userdata, uint64_t id, uint64_t samples, uint64_t last_ns)
{
	assert_int_equal(last_ns, id * 10);
	sum_ids += id;
	sum_samples += samples;
}

static void test_take(void **state)
{
	struct count_table *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	t->half[1][0] = (struct count_entry){.id = 3, .samples = 5, .last_ns = 30};
	t->half[1][COUNT_SETS * COUNT_WAYS - 1] =
		(struct count_entry){.id = 4, .samples = 1, .last_ns = 40};
	t->half[1][77] = (struct count_entry){.id = 9}; /* sent, and no more of it */
	t->half[0][5] = (struct count_entry){.id = 8, .samples = 100, .last_ns = 80};
	assert_int_equal(halves_take(t, 1, add_up, NULL), 6);
	assert_int_equal(sum_ids, 7);
	assert_int_equal(sum_samples, 6);
	for (size_t i = 0; i < ARRAY_SIZE(t->half[1]); i++)
		assert_int_equal(t->half[1][i].id | t->half[1][i].samples, 0);
	assert_int_equal(halves_take(t, 1, add_up, NULL), 0);
	assert_int_equal(t->half[0][5].samples, 100);
	assert_int_equal(halves_take(t, 0, NULL, NULL), 100);
	free(t);
}

/* ---- entries --------------------------------------------------------------------------------- */

static void test_entries(void **state)
{
	struct sample_image image = {.tgid = 4000000, .exec = 1, .start_boottime = 5};
	struct sample_verdict v, was;
	struct sampler_rows_counters rows;
	struct space_map map = {.start = 0x1000, .end = 0x2000, .file = 9, .kind = SPACE_FILE};
	struct watch w;
	uint32_t tag, again;

	watch_open(&w, RATE);
	/* A space alone is no verdict. */
	tag = set_own_maps(&w, &image);
	v = entry_of(&w, &image);
	assert_int_equal(v.generation, 0);
	assert_true(v.space && v.space_tag == tag);
	assert_int_equal(v.space_generation, w.s->skel->data->settings.space_generation);
	/* Each leaves the other as it is. */
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 3, VERDICT_PER_THREAD), 0);
	was = entry_of(&w, &image);
	assert_int_equal(was.types, 1);
	assert_int_equal(was.divisor, 3);
	assert_int_equal(was.flags, VERDICT_PER_THREAD);
	assert_int_equal(was.generation, w.s->skel->data->settings.generation);
	assert_true(was.space == v.space && was.space_tag == tag);
	assert_int_equal(sampler_set_space(w.s, &image, &map, 1, &again), 0);
	v = entry_of(&w, &image);
	assert_true(again != tag && v.space_tag == again);
	assert_true(v.types == 1 && v.divisor == 3 && v.serial == was.serial);
	/* Another decision has another serial, also when it is the same. */
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 3, VERDICT_PER_THREAD), 0);
	assert_int_not_equal(entry_of(&w, &image).serial, was.serial);
	assert_int_equal(entry_of(&w, &image).space_tag, again);
	/* Its file is forgotten: so is the block, by its tag. */
	sampler_rows_counters(w.s, &rows);
	assert_int_equal(rows.spaces, 1);
	assert_int_equal(rows.space_maps, 1);
	sampler_rows_forget(w.s, 9);
	sampler_rows_counters(w.s, &rows);
	assert_int_equal(rows.spaces, 0);
	assert_int_equal(w.s->spaces.units[v.space].start & 0xffffffff, 0); /* the head's tag */
	sampler_forget(w.s, &image);
	assert_int_equal(entry_of(&w, &image).serial, 0);
	/* n 0 */
	set_own_maps(&w, &image);
	assert_int_equal(sampler_set_space(w.s, &image, NULL, 0, &tag), 0);
	assert_int_equal(tag, 0);
	sampler_rows_counters(w.s, &rows);
	assert_int_equal(rows.spaces, 0);
	watch_close(&w);
}

/* ---- walks by a space ------------------------------------------------------------------------ */

/* Of samples of the pid from *from on. */
struct ends {
	uint64_t all, walked, missed, slices;
};

static struct ends ends_of(const struct watch *w, pid_t pid, uint32_t tag, size_t from)
{
	struct ends e = {0};

	for (size_t i = from; i < w->n; i++) {
		const struct seen *s = &w->list[i];

		if (s->kind != SAMPLER_SAMPLE || (pid_t)s->pid != pid)
			continue;
		e.all++;
		e.walked += s->space == tag && s->end < WALK_MISS_SPACE;
		e.missed += s->end == WALK_MISS_SPACE && s->space == 0;
		e.slices += s->stack > 0;
		if (s->stack)
			assert_in_range(s->stack, sizeof(struct sample_stack) + 256,
				sizeof(struct sample_stack) + DEFAULT_SLICE);
	}
	return e;
}

/* Runs until enough samples came, however busy the machine is. */
static struct ends watch_ends(struct watch *w, pid_t pid, uint32_t tag, bool walked)
{
	size_t from;
	struct ends e;

	sampler_drain(w->s);
	from = w->n;
	for (int i = 0; i < 500; i++) {
		watch_run(w, 20);
		sampler_drain(w->s);
		e = ends_of(w, pid, tag, from);
		/* Slices may be refused to some of what missed. */
		if ((walked ? e.walked : MIN(e.missed, e.slices)) > 20)
			return e;
	}
	fail_msg("%u of the samples are as they should be", (unsigned)e.all);
	return e;
}

static void test_spaces(void **state)
{
	struct sampler_counters c;
	struct sample_image image;
	struct watch w;
	struct ends e;
	uint32_t tag;
	pid_t pid;

	open_with_slices(&w);
	watch_start(&w);
	pid = spawn_walked(&w, stoppable_child, NULL, &image);
	tag = entry_of(&w, &image).space_tag;
	e = watch_ends(&w, pid, tag, true);
	assert_in_range(e.all, e.walked, e.walked + 2);

	sampler_distrust_spaces(w.s);
	e = watch_ends(&w, pid, tag, false);
	assert_in_range(e.all, e.missed, e.missed + 2);

	assert_int_equal(set_own_maps(&w, &image), tag); /* equal maps: the same block */
	(void)watch_ends(&w, pid, tag, true);

	/* Its block goes: the verdict names one that is not there. */
	spaces_forget(&w.s->spaces, &image);
	assert_int_equal(entry_of(&w, &image).space_tag, tag);
	(void)watch_ends(&w, pid, tag, false);
	end_child(pid);
	watch_stop(&w, &c);
	assert_true(c.slices > 40);
	assert_true(c.run_ns > 0);
	watch_close(&w);
}

/* ---- slices ---------------------------------------------------------------------------------- */

#define SECRET_WORDS 32
static const uint64_t secret_key = 0x5ec12e7a9b3d4f61ULL;

static void secret_child(void *userdata)
{
	volatile uint64_t secret[SECRET_WORDS];

	for (unsigned i = 0; i < SECRET_WORDS; i++)
		secret[i] = secret_key ^ i;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		burn(100000);
		burnt += secret[burnt % SECRET_WORDS];
	}
}

static size_t count_secrets(const void *data, size_t size)
{
	const uint8_t *at = data, *end = at + size;
	size_t n = 0;

	while (at + 8 <= end) {
		uint64_t word;

		memcpy(&word, at, 8);
		word ^= secret_key;
		n += word < SECRET_WORDS;
		at += 8;
	}
	return n;
}

static void look_for_secret(struct watch *w, const struct record_sample *r)
{
	size_t frames = sizeof(*r) + r->n_frames * sizeof(struct sample_frame);

	if (r->stack)
		*(size_t *)w->userdata +=
			count_secrets((const uint8_t *)r + frames, r->stack) >= SECRET_WORDS;
}

static void test_slices_are_wiped(void **state)
{
	size_t seen = 0, kept = 0;
	struct sampler_counters c;
	struct watch w;
	pid_t pid;

	open_with_slices(&w);
	w.on_sample = look_for_secret;
	w.userdata = &seen;
	watch_start(&w);
	pid = spawn(secret_child, NULL);
	/* What is too young stays, with its secrets; behind it is nothing. */
	for (int i = 0; i < 1000 && (seen <= 50 || kept <= 5); i++) {
		const struct buf *b = &w.s->merge.store;

		watch_run(&w, 15);
		if (i % 4 == 3)
			sampler_drain(w.s);
		kept += b->len > 0;
		assert_int_equal(count_secrets(b->data + b->len, b->size - b->len), 0);
	}
	end_child(pid);
	watch_stop(&w, &c);
	assert_true(seen > 50);
	assert_true(kept > 5);
	watch_close(&w);
}

static void tall_child(void *userdata)
{
	volatile uint8_t tall[64 << 10];

	memset((void *)tall, 1, sizeof(tall));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		burn(100000 + tall[burnt % sizeof(tall)]);
}

/* Where exec put the stack pointer; children have the stack of this process. */
static uint64_t stack_end(void)
{
	FILE *f = fopen("/proc/self/stat", "re");
	char line[1024];
	const char *at;
	uint64_t end;

	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	(void)fclose(f);
	at = strrchr(line, ')');
	for (int i = 2; i < 28; i++) {
		at = strchr(at + 1, ' ');
		assert_non_null(at);
	}
	end = strtoull(at, NULL, 10);
	assert_in_range(end, (uintptr_t)&line, (uintptr_t)&line + (1 << 20));
	return end;
}

struct tall {
	pid_t pid[2];
	uint64_t end; /* of their stacks */
	size_t slices, bytes, largest;
};

/* Those of our children are whole: from below the tall frame to the stack's end, and no further. */
static void note_tall(struct watch *w, const struct record_sample *r)
{
	const struct sample_stack *stack = (const void *)(r->frames + r->n_frames);
	struct tall *t = w->userdata;

	t->largest = MAX(t->largest, w->s->merge.store.size);
	t->bytes += r->stack;
	if (!r->stack || stack->start >= t->end - (64 << 10) ||
		((pid_t)r->image.tgid != t->pid[0] && (pid_t)r->image.tgid != t->pid[1]))
		return;
	assert_in_range(stack->start + stack->len, t->end, t->end + 256);
	t->slices++;
}

/* Several times of what is taken from the ring at once: all of it comes, in order, in little
 * memory. */
static void test_many_slices(void **state)
{
	struct sampler_config config = {
		.rate_hz = 1000, .slices_a_second = 5000, .ring_bytes = 16 << 20};
	struct sampler_counters c;
	struct tall tall = {.end = stack_end()};
	struct watch w;

	watch_open_with(&w, &config);
	w.on_sample = note_tall;
	w.userdata = &tall;
	for (int i = 0; i < 2; i++)
		tall.pid[i] = spawn(tall_child, NULL);
	watch_start(&w);
	/* Nobody reads until the ring refuses slices: it is half full then. */
	while (sampler_raw_counter(w.s, COUNT_NO_SLICE) == 0)
		nanosleep(&(struct timespec){.tv_nsec = 10 * NSEC_PER_MSEC}, NULL);
	for (int i = 0; i < 2; i++)
		end_child(tall.pid[i]);
	watch_stop(&w, &c);
	assert_true(tall.slices > 20);
	assert_in_range(tall.bytes, 3 * BPF_TAKE_MAX, config.ring_bytes);
	assert_int_equal(c.lost_ring, 0);
	assert_in_range(tall.largest, BPF_TAKE_MAX, 3 * BPF_TAKE_MAX);
	assert_in_range(w.s->merge.store.size, 1, 256 << 10);
	watch_close(&w);
}

/* ---- counts ---------------------------------------------------------------------------------- */

/* The id had been handed out with a stack, since the turn before. */
static bool was_sent(const struct watch *w, const struct told *t)
{
	for (size_t i = t->at; i > 0; i--) {
		const struct seen *s = &w->list[i - 1];

		if (s->kind == SAMPLER_SAMPLE && s->id == t->id && s->turn + 1 >= t->turn)
			return true;
	}
	return false;
}

static void collect(struct watch *w)
{
	w->turn++;
	sampler_collect(w->s);
}

/* Samples of a pid, those counted included. */
static uint64_t count_all(const struct watch *w, pid_t pid)
{
	uint64_t n = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct seen *s = &w->list[i];
		bool first = true;

		if (s->kind != SAMPLER_SAMPLE || (pid_t)s->pid != pid)
			continue;
		n++;
		for (size_t j = 0; s->id && j < i && first; j++)
			first = w->list[j].id != s->id;
		for (size_t j = 0; s->id && first && j < w->n_told; j++)
			n += w->told[j].id == s->id ? w->told[j].samples : 0;
	}
	return n;
}

static uint64_t square(uint64_t v)
{
	return v * v;
}

static void test_exact(void **state)
{
	uint64_t ns = 700 * NSEC_PER_MSEC, told = 0, n, due, cpu;
	struct sampler_counters c;
	struct sample_image image;
	struct watch w;
	pid_t pid, other;

	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn_walked(&w, burn_child, &ns, &image);
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 1, 0), 0);
	other = spawn_walked(&w, stoppable_child, NULL, &image);
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 1, VERDICT_PER_THREAD), 0);
	w.drain_pause_ms = 3; /* time for samples between a drain and what follows it */
	for (int i = 0; i < 25; i++) {
		watch_run(&w, (unsigned)i * 3);
		collect(&w);
		/* Told twice in a row: nothing is left but what came in between. */
		if (i % 5 == 0)
			collect(&w);
	}
	cpu = wait_child(&w, pid);
	end_child(other);
	sampler_stop(w.s);
	collect(&w);
	collect(&w);
	check_counts(&w, &c);
	assert_int_equal(c.counted, c.collected);
	for (size_t i = 0; i < w.n_told; i++) {
		assert_true(was_sent(&w, &w.told[i]));
		told += w.told[i].samples;
	}
	assert_int_equal(told, c.collected);
	assert_true(c.counted > 0);
	/* As many as its CPU time says, five standard deviations and what came late allowed. */
	n = count_all(&w, pid);
	due = cpu / (NSEC_PER_SEC / RATE);
	assert_true(n <= due || square(n - due) <= 25 * due);
	assert_true(n + c.late >= due || square(due - n - c.late) <= 25 * due);
	watch_close(&w);
}

static void test_flags(void **state)
{
	struct sample_image image;
	struct sampler_counters c;
	uint64_t sent = 0;
	struct watch w;
	pid_t pid;

	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn_walked(&w, stoppable_child, NULL, &image);
	assert_int_equal(sampler_set_verdict(w.s, &image, 1, 1, VERDICT_UNCOUNTED), 0);
	while (sent <= 20) {
		watch_run(&w, 20);
		sent = ends_of(&w, pid, 0, 0).all;
	}
	end_child(pid);
	sampler_stop(w.s);
	collect(&w);
	check_counts(&w, &c);
	for (size_t i = 0; i < w.n; i++)
		assert_true((pid_t)w.list[i].pid != pid || w.list[i].id == 0);
	watch_close(&w);
}

/* Two threads in one stack, on one CPU: counts are kept by CPU. */
static void *burn_thread(void *userdata)
{
	for (;;)
		burn(100000);
	return NULL;
}

static void threads_child(void *userdata)
{
	pthread_t thread[2];
	cpu_set_t set;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		_exit(1);
	for (unsigned i = 0; i < 2; i++)
		if (pthread_create(&thread[i], NULL, burn_thread, NULL) != 0)
			_exit(1);
	pthread_join(thread[0], NULL);
}

static bool same_stack(const struct seen *a, const struct seen *b)
{
	return a->cpu == b->cpu && a->n_frames == b->n_frames && a->end == b->end &&
		memcmp(a->frames, b->frames, a->n_frames * sizeof(*a->frames)) == 0;
}

/* Pairs of samples of the pid that were sent with an id and have the same stack: within one turn those
 * of one thread, or of any if threads are not kept apart, are counted and not sent. */
static size_t count_twins(const struct watch *w, pid_t pid)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct seen *a = &w->list[i];

		if (a->kind != SAMPLER_SAMPLE || (pid_t)a->pid != pid || !a->id)
			continue;
		for (size_t j = 0; j < i; j++) {
			const struct seen *b = &w->list[j];

			if (b->kind != SAMPLER_SAMPLE || (pid_t)b->pid != pid || !b->id ||
				!same_stack(a, b))
				continue;
			assert_int_not_equal(a->id, b->id);
			assert_int_not_equal(a->tid, b->tid);
			n++;
		}
	}
	return n;
}

static void threads_apart(bool per_thread)
{
	struct sample_image image;
	struct sampler_counters c;
	struct watch w;
	size_t twins = 0;
	pid_t pid;

	watch_open(&w, RATE);
	watch_start(&w);
	pid = spawn_walked(&w, threads_child, NULL, &image);
	assert_int_equal(
		sampler_set_verdict(w.s, &image, 1, 1, per_thread ? VERDICT_PER_THREAD : 0), 0);
	for (int i = 0; i < 500; i++) {
		watch_run(&w, 20);
		sampler_drain(w.s);
		twins = count_twins(&w, pid);
		if (per_thread ? twins > 0 : sampler_raw_counter(w.s, COUNT_COUNTED) > 300)
			break;
	}
	end_child(pid);
	sampler_stop(w.s);
	collect(&w);
	check_counts(&w, &c);
	assert_int_equal(twins > 0, per_thread);
	assert_true(c.counted > 0);
	watch_close(&w);
}

static void test_threads_together(void **state)
{
	threads_apart(false);
}

static void test_per_thread(void **state)
{
	threads_apart(true);
}

/* ---- a CPU that stands still ----------------------------------------------------------------- */

static void test_cpu_stays(void **state)
{
	const struct sample_counters *real;
	struct sample_counters *fake;
	struct sampler_counters c;
	struct count_table *t;
	struct watch w;

	watch_open(&w, RATE); /* and never started: only we count */
	real = w.s->counts;
	fake = calloc(w.s->n_cpus, sizeof(*fake));
	assert_non_null(fake);
	w.s->counts = w.s->halves.quiet.counts = fake;
	t = w.s->halves.tables;
	assert_int_equal(w.s->skel->data->settings.half, 0);
	t[0].half[0][3] = (struct count_entry){.id = 11, .samples = 2, .last_ns = 1};
	fake[0].of[COUNT_TAKEN] = 1;
	fake[0].of[COUNT_IN_HALF] = 1;
	collect(&w);
	assert_int_equal(w.s->skel->data->settings.half, 1);
	assert_int_equal(w.n_told, 0);
	assert_int_equal(t[0].half[0][3].samples, 2);

	/* Still there: the halves are turned, nothing is read, nothing is lost. */
	t[0].half[0][3].samples++;
	t[0].half[1][4] = (struct count_entry){.id = 12, .samples = 1, .last_ns = 1};
	collect(&w);
	assert_int_equal(w.s->skel->data->settings.half, 0);
	assert_int_equal(w.n_told, 0);

	/* It left. */
	fake[0].of[COUNT_IN_HALF] = 0;
	collect(&w);
	collect(&w);
	assert_int_equal(w.n_told, 2);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(w.told[i].samples, w.told[i].id == 11 ? 3 : 1);

	/* Left behind once, read before its half is filled again. */
	t[0].half[0][3] = (struct count_entry){.id = 13, .samples = 7, .last_ns = 1};
	assert_int_equal(w.s->skel->data->settings.half, 0);
	fake[0].of[COUNT_TAKEN] = 20;
	fake[0].of[COUNT_IN_HALF] = 1;
	collect(&w);
	assert_int_equal(w.n_told, 2);
	fake[0].of[COUNT_TAKEN] = 21; /* another run */
	collect(&w);
	assert_int_equal(w.n_told, 3);
	assert_int_equal(w.told[2].samples, 7);
	w.s->counts = real;
	sampler_counters(w.s, &c);
	assert_int_equal(c.collected, 3 + 1 + 7);
	free(fake);
	watch_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_spaces),
		cmocka_unit_test(test_slices_are_wiped),
		cmocka_unit_test(test_many_slices),
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_threads_together),
		cmocka_unit_test(test_per_thread),
		cmocka_unit_test(test_cpu_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
