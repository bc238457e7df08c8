/* SPDX-License-Identifier: Apache-2.0 */

/* The programs, loaded: with everything in them that is fixed from then on, and the one of the two
 * that take samples which this kernel can run.
 *
 * The walk of a stack is a loop that the verifier must see to end. Where the kernel has bpf_loop()
 * (5.17) it is that; before, bounded loops that go on by tail calls. The helper is probed, not the
 * version; and where a kernel has it and refuses the program all the same, the other one is tried
 * before we give up. Runs in agentd. */

#include <fcntl.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/sampler/internal.h"

/* How deep perf lets us look; below SAMPLE_MAX_* only if the administrator said so. */
static uint32_t max_stack(void)
{
	_cleanup_buf_ struct buf b;
	unsigned long depth;

	buf_init(&b, 64);
	if (io_read_file(AT_FDCWD, "/proc/sys/kernel/perf_event_max_stack", &b, 64) < 0 || !b.len)
		return SAMPLE_MAX_KERNEL;
	depth = strtoul((char *)b.data, NULL, 10);
	return depth && depth < SAMPLE_MAX_KERNEL ? (uint32_t)depth : SAMPLE_MAX_KERNEL;
}

static struct bpf_program *program_of(struct sampler *s, const char *name)
{
	return bpf_object__find_program_by_name(s->skel->obj, name);
}

/* Of the two ways to walk, one is loaded. */
static int choose_walk(struct sampler *s)
{
	static const char *const by_tail_calls[] = {"sample_cpu_tail", "walk_tail"};

	s->program = program_of(s, s->tail_calls ? "sample_cpu_tail" : "sample_cpu");
	if (!s->program)
		return -ENOENT;
	bpf_program__set_autoload(program_of(s, "sample_cpu"), !s->tail_calls);
	for (size_t i = 0; i < ARRAY_SIZE(by_tail_calls); i++)
		if (program_of(s, by_tail_calls[i]))
			bpf_program__set_autoload(program_of(s, by_tail_calls[i]), s->tail_calls);
	return 0;
}

static int set_tail(struct sampler *s)
{
	const struct bpf_program *tail = program_of(s, "walk_tail");
	uint32_t zero = 0;
	int fd = tail ? bpf_program__fd(tail) : -ENOENT;

	if (fd < 0)
		return fd;
	return bpf_map_update_elem(bpf_map__fd(s->skel->maps.tails), &zero, &fd, BPF_ANY) < 0
		? -errno
		: 0;
}

static int load_once(struct sampler *s)
{
	struct sample_settings *settings;
	int r;

	s->skel = sampler_bpf__open();
	if (!s->skel)
		return -errno;
	s->skel->rodata->max_stack = max_stack();
	settings = (struct sample_settings *)&s->skel->data->settings;
	*settings = (struct sample_settings){
		.generation = 1,
		.kernel_frames = s->config.kernel_frames,
		.wakeup_gap_ns = WAKEUP_GAP_NS,
		.wakeup_bytes = (uint32_t)s->config.ring_bytes / 4,
		.period_ns = s->period_ns,
		.space_generation = 1,
		.slices_a_second = s->config.slices_a_second,
	};
	bpf_program__set_autoload(s->skel->progs.follow_cgroup, s->has_cgroup_moves);
	r = choose_walk(s);
	if (r >= 0)
		r = tables_size(s);
	if (r >= 0)
		r = sampler_bpf__load(s->skel);
	if (r >= 0 && s->tail_calls)
		r = set_tail(s);
	return r;
}

int programs_load(struct sampler *s, struct err_text *err)
{
	struct err_text first;
	int r;

	preflight_catch_libbpf();
	s->tail_calls = s->config.tail_calls ||
		libbpf_probe_bpf_helper(BPF_PROG_TYPE_PERF_EVENT, BPF_FUNC_loop, NULL) != 1;
	r = load_once(s);
	if (r >= 0)
		return 0;
	r = preflight_explain_load(r, err);
	if (s->tail_calls || r == -EPERM || r == -ENOMEM)
		return r;
	first = *err;
	sampler_bpf__destroy(TAKE_PTR(s->skel));
	s->tail_calls = true;
	preflight_catch_libbpf();
	if (load_once(s) < 0) {
		*err = first;
		return r;
	}
	log_warning(
		"stacks are walked by tail calls, since the kernel refused the other program: %s",
		first.text);
	return 0;
}
