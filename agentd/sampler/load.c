/* SPDX-License-Identifier: Apache-2.0 */

/* The programs, loaded: with everything in them that is fixed from then on. One set of programs runs
 * on all kernels from 5.10 on (bpf/sampler.bpf.c). Runs in agentd. */

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
	s->program = s->skel->progs.sample_cpu;
	r = tables_size(s);
	if (r >= 0)
		r = sampler_bpf__load(s->skel);
	return r;
}

int programs_load(struct sampler *s, struct err_text *err)
{
	int r;

	preflight_catch_libbpf();
	r = load_once(s);
	return r < 0 ? preflight_explain_load(r, err) : 0;
}
