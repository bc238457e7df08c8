/* SPDX-License-Identifier: Apache-2.0 */

/* Every program, alone, before the verifier of the kernel that this runs on, with the numbers at
 * which it has most to look at. The end of the verifier's log is shown of one that it refuses; of
 * the others, what they cost it: it looks at no more than LIMIT instructions. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "agentd/base/macros.h"
#include "bpf/sample.h"
#include "bpf/sampler.skel.h"
#include "bpf/tables.h"

#define CPUS          2
#define LIMIT         1000000 /* instructions that a verifier looks at: BPF_COMPLEXITY_LIMIT_INSNS */
#define ROWS_BYTES    (8U << 20)
#define INDEX_BITS    12
#define SPACE_UNITS   65536
#define MOST_PROGRAMS 16
#define LOG_NUMBERS   4 /* of what was looked at, alone */
#define LOG_STEPS     1 /* all of it */
#define LOG_LINES     150

#define LOG_SIZE (16U << 20) /* what the oldest kernel takes at most */

static char *log_text;

static int on_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

static void size_maps(struct sampler_bpf *k)
{
	struct {
		struct bpf_map *map;
		uint32_t entries;
	} const sizes[] = {
		{k->maps.counters, CPUS},
		{k->maps.counts, CPUS},
		{k->maps.scratch, CPUS},
		{k->maps.rows, ROWS_BYTES / (uint32_t)bpf_map__value_size(k->maps.rows)},
		{k->maps.rows_index, 1U << INDEX_BITS},
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		assert_int_equal(bpf_map__set_max_entries(sizes[i].map, sizes[i].entries), 0);
	assert_int_equal(
		bpf_map__set_value_size(k->maps.spaces, SPACE_UNITS * sizeof(struct space_map)), 0);
	k->rodata->max_user_frames = SAMPLE_MAX_USER;
	k->rodata->index_bits = INDEX_BITS;
	k->rodata->spaces_mask = SPACE_UNITS - 1;
}

/* What the verifier says of a program that it took. */
static void show_cost(const struct bpf_program *p)
{
	const char *seen = strstr(log_text, "processed ");
	unsigned long n = seen ? strtoul(seen + strlen("processed "), NULL, 10) : 0;
	struct bpf_prog_info info = {0};
	uint32_t size = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &size), 0);
	fprintf(stderr, "# %s: %zu instructions, %lu looked at, %u bytes of machine code\n",
		bpf_program__name(p), bpf_program__insn_cnt(p), n, info.jited_prog_len);
	assert_in_range(n, 1, LIMIT);
}

/* Loads the program of that name alone. */
static int load_alone(const char *name, unsigned log_level)
{
	struct sampler_bpf *k = sampler_bpf__open();
	struct bpf_program *p, *chosen;
	int r;

	assert_non_null(k);
	size_maps(k);
	bpf_object__for_each_program(p, k->obj) bpf_program__set_autoload(p, false);
	chosen = bpf_object__find_program_by_name(k->obj, name);
	assert_non_null(chosen);
	bpf_program__set_autoload(chosen, true);
	log_text[0] = '\0';
	assert_int_equal(bpf_program__set_log_buf(chosen, log_text, LOG_SIZE), 0);
	assert_int_equal(bpf_program__set_log_level(chosen, log_level), 0);
	r = sampler_bpf__load(k);
	if (r == 0)
		show_cost(chosen);
	sampler_bpf__destroy(k);
	return r;
}

static void test_program(void **state)
{
	const char *name = *state, *at;
	int r = load_alone(name, LOG_NUMBERS), lines = 0;

	if (r < 0) {
		fprintf(stderr, "# %s is refused: %s: the end of what the verifier says:\n", name,
			strerror(-r));
		(void)load_alone(name, LOG_STEPS);
		for (at = log_text + strlen(log_text); at > log_text && lines < LOG_LINES; at--)
			lines += at[-1] == '\n';
		fprintf(stderr, "%s\n", at);
	}
	assert_int_equal(r, 0);
}

int main(void)
{
	static struct CMUnitTest tests[MOST_PROGRAMS];
	struct sampler_bpf *k = sampler_bpf__open();
	struct bpf_program *p;
	size_t n = 0;
	int r;

	log_text = malloc(LOG_SIZE);
	if (!k || !log_text)
		return 1;
	libbpf_set_print(on_libbpf);
	bpf_object__for_each_program(p, k->obj)
	{
		char *name = strdup(bpf_program__name(p));

		if (!name || n == MOST_PROGRAMS)
			return 1;
		tests[n++] = (struct CMUnitTest){
			.name = name, .test_func = test_program, .initial_state = name};
	}
	r = _cmocka_run_group_tests("verifier", tests, n, NULL, NULL);
	for (size_t i = 0; i < n; i++)
		free(tests[i].initial_state);
	sampler_bpf__destroy(k);
	free(log_text);
	return r;
}
