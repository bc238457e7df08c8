/* SPDX-License-Identifier: Apache-2.0 */

/* Records are believed only as far as their lengths go; CPU lists likewise; the merge keeps the
 * order of time and its bounds. Nothing here needs a privilege. */

#include <linux/perf_event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agentd/sampler/internal.h"

#define MMAP2_HEAD 72 /* bytes before the path */

/* An MMAP2 record: header, pid, tid, addresses, identity, path, time. Returns its size. */
static size_t make_mmap2(uint8_t *out, const char *path, uint64_t time)
{
	size_t room = (strlen(path) + 1 + 7) & ~(size_t)7, size = MMAP2_HEAD + room + 8;
	struct perf_event_header header = {.type = PERF_RECORD_MMAP2, .size = (uint16_t)size};
	uint32_t pids[2] = {41, 42};
	uint64_t where[3] = {0x1000, 0x2000, 0x3000};

	memset(out, 0, size);
	memcpy(out, &header, sizeof(header));
	memcpy(out + 8, pids, sizeof(pids));
	memcpy(out + 16, where, sizeof(where));
	strcpy((char *)out + MMAP2_HEAD, path);
	memcpy(out + size - 8, &time, 8);
	return size;
}

static void set_size(uint8_t *record, size_t size)
{
	((struct perf_event_header *)record)->size = (uint16_t)size;
}

static void test_perf_records(void **state)
{
	uint8_t r[512] __attribute__((aligned(8)));
	struct sampler_event event;
	uint64_t time = 0;
	size_t size = make_mmap2(r, "/usr/bin/true", 77);

	assert_true(perf_record_check(r, size, &time));
	assert_int_equal(time, 77);
	perf_record_event(r, size, &event);
	assert_int_equal(event.kind, SAMPLER_MMAP);
	assert_int_equal(event.mmap.pid, 41);
	assert_int_equal(event.mmap.tid, 42);
	assert_int_equal(event.mmap.start, 0x1000);
	assert_int_equal(event.mmap.len, 0x2000);
	assert_int_equal(event.mmap.pgoff, 0x3000);
	assert_string_equal(event.mmap.path, "/usr/bin/true");

	/* Every shorter length is refused or, where it leaves a terminated path, still in bounds.
	 */
	for (size_t cut = 0; cut < size; cut++) {
		set_size(r, cut);
		if (perf_record_check(r, cut, &time))
			assert_true(cut % 8 == 0 && cut >= MMAP2_HEAD + 16);
		assert_false(perf_record_check(r, size, &time)); /* header and length differ */
	}
	size = make_mmap2(r, "0123456", 1);
	memset(r + MMAP2_HEAD, 'x', 8); /* a path without an end */
	assert_false(perf_record_check(r, size, &time));
	size = make_mmap2(r, "", 1);
	((struct perf_event_header *)r)->misc = PERF_RECORD_MISC_MMAP_BUILD_ID;
	assert_false(perf_record_check(r, size, &time));
}

static void test_comm_and_lost(void **state)
{
	uint64_t r[8] = {0}, time;
	struct perf_event_header *header = (struct perf_event_header *)r;
	struct sampler_event event;

	*header = (struct perf_event_header){.type = PERF_RECORD_COMM, .size = 40};
	assert_false(perf_record_check(r, 40, &time)); /* a new name only */
	header->misc = PERF_RECORD_MISC_COMM_EXEC;
	assert_true(perf_record_check(r, 40, &time));
	perf_record_event(r, 40, &event);
	assert_int_equal(event.kind, SAMPLER_EXEC_BEGIN);

	*header = (struct perf_event_header){.type = PERF_RECORD_LOST, .size = 32};
	r[2] = 9;
	assert_true(perf_record_check(r, 32, &time));
	perf_record_event(r, 32, &event);
	assert_int_equal(event.kind, SAMPLER_LOST_EVENTS);
	assert_int_equal(event.lost, 9);
	header->size = 24;
	assert_false(perf_record_check(r, 24, &time));
	*header = (struct perf_event_header){.type = PERF_RECORD_KSYMBOL, .size = 40};
	r[4] = UINT64_MAX / 2; /* whatever the ring held before: see ring.c */
	assert_true(perf_record_check(r, 40, &time));
	assert_int_equal(time, 0);
	perf_record_event(r, 40, &event);
	assert_int_equal(event.kind, SAMPLER_KERNEL_CODE);
	*header = (struct perf_event_header){.type = PERF_RECORD_FORK, .size = 48};
	assert_false(perf_record_check(r, 48, &time));
}

static void test_bpf_records(void **state)
{
	uint64_t space[64] = {0};
	struct record_sample *sample = (struct record_sample *)space;
	struct record_process *process = (struct record_process *)space;

	sample->header.kind = RECORD_SAMPLE;
	sample->header.version = SAMPLE_VERSION;
	sample->header.size = sizeof(*sample) + 2 * sizeof(struct sample_frame);
	sample->n_frames = 2;
	assert_true(sample_record_check(sample, sample->header.size));
	assert_false(sample_record_check(sample, sample->header.size - 8));
	sample->n_frames = 3;
	assert_false(sample_record_check(sample, sample->header.size));
	sample->n_frames = 2;
	sample->header.version++;
	assert_false(sample_record_check(sample, sample->header.size));
	sample->header.version--;
	sample->header.kind = 99;
	assert_false(sample_record_check(sample, sample->header.size));
	assert_false(sample_record_check(sample, 4));

	memset(space, 0, sizeof(space));
	process->header.kind = RECORD_EXEC;
	process->header.version = SAMPLE_VERSION;
	process->header.size = sizeof(*process) + 5;
	process->cgroup_len = 5;
	assert_true(sample_record_check(process, process->header.size));
	process->cgroup_len = 6;
	assert_false(sample_record_check(process, process->header.size));
	process->cgroup_len = UINT32_MAX;
	assert_false(sample_record_check(process, process->header.size));
}

static union {
	struct record_sample sample;
	uint64_t space[20000];
} big;

/* A sample with a slice of len bytes from start on. Its size. */
static size_t make_slice(
	uint64_t start, uint32_t len, uint32_t present, struct sample_stack **stack)
{
	struct record_sample *sample = &big.sample;

	memset(&big, 0, sizeof(big));
	*stack = (struct sample_stack *)&sample->frames[3];
	**stack = (struct sample_stack){.start = start, .len = len, .present = present};
	sample->n_frames = 3;
	sample->end = WALK_MISS_ROWS;
	sample->stack = (uint32_t)sizeof(**stack) + len;
	sample->header.kind = RECORD_SAMPLE;
	sample->header.version = SAMPLE_VERSION;
	sample->header.size =
		(uint32_t)(sizeof(*sample) + 3 * sizeof(sample->frames[0])) + sample->stack;
	return sample->header.size;
}

static void test_slices(void **state)
{
	struct sample_stack *stack;
	size_t size;

	size = make_slice(0x7ffe1000, 8192, 3, &stack);
	assert_true(sample_record_check(&big, size));
	stack->present = 4; /* a page behind the last */
	assert_false(sample_record_check(&big, size));
	size = make_slice(0x7ffe1ff8, 8192, 7, &stack); /* touches three */
	assert_true(sample_record_check(&big, size));
	stack->start++;
	assert_false(sample_record_check(&big, size));
	size = make_slice(0x7ffe1000, 8192, 3, &stack);
	stack->len -= 8;
	assert_false(sample_record_check(&big, size));
	stack->len = UINT32_MAX;
	assert_false(sample_record_check(&big, size));
	stack->len = 8192;
	big.sample.n_frames = SAMPLE_MAX_FRAMES + 1;
	assert_false(sample_record_check(&big, size));
	big.sample.n_frames = 4;
	assert_false(sample_record_check(&big, size));
	big.sample.n_frames = 3;
	big.sample.end = WALK_ENDS;
	assert_false(sample_record_check(&big, size));
	big.sample.end = WALK_MISS_ROWS;
	big.sample.stack = UINT32_MAX;
	assert_false(sample_record_check(&big, size));
	/* Every other length is refused. */
	size = make_slice(0x7ffe1000, 256, 1, &stack);
	for (size_t cut = 0; cut < size; cut += 8) {
		big.sample.header.size = (uint32_t)cut;
		assert_false(sample_record_check(&big, cut));
	}
	/* The largest, and one that is larger. */
	size = make_slice(0x7ffe1000, SLICE_MAX, 0x7fffffff, &stack);
	assert_true(sample_record_check(&big, size));
	size = make_slice(0x7ffe1000, SLICE_MAX + 8, 0x7fffffff, &stack);
	assert_false(sample_record_check(&big, size));
	/* Nothing of it was there. */
	size = make_slice(0x7ffe1000, 0, 0, &stack);
	assert_true(sample_record_check(&big, size));
}

static void add_up(void *userdata, unsigned cpu)
{
	*(uint64_t *)userdata |= 1ULL << cpu;
}

static void test_cpu_lists(void **state)
{
	static const struct {
		const char *text;
		int result;
		uint64_t mask;
	} lists[] = {
		{"0-1\n", 0, 3},
		{"0\n", 0, 1},
		{"0,2-3,7", 0, 0x8d},
		{"", 0, 0},
		{"\n", 0, 0},
		{"3-1", -EINVAL, 0},
		{"0-64", -EINVAL, 0},
		{"99999999999", -EINVAL, 0},
		{"0;1", -EINVAL, 1},
		{"0-", -EINVAL, 0},
		{"x", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		uint64_t mask = 0;

		assert_int_equal(cpu_list_parse(lists[i].text, 64, add_up, &mask), lists[i].result);
		assert_int_equal(mask, lists[i].mask);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_perf_records),
		cmocka_unit_test(test_comm_and_lost),
		cmocka_unit_test(test_bpf_records),
		cmocka_unit_test(test_slices),
		cmocka_unit_test(test_cpu_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
