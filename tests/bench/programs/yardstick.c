/* SPDX-License-Identifier: Apache-2.0 */

/* yardstick OBJECT CPU HZ SECONDS: runs each program of the object by a cpu-clock event on one CPU and
 * prints its mean run time in nanoseconds as JSON. kernel.bpf_stats_enabled has to be on. */

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int measure(struct bpf_program *p, int cpu, unsigned hz, unsigned seconds, double *ret)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.freq = 1,
		.sample_freq = hz};
	int event = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);
	struct bpf_link *link;

	if (event < 0)
		return -1;
	link = bpf_program__attach_perf_event(p, event);
	if (!link)
		return -1;
	sleep(seconds);
	if (bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &size) < 0 || info.run_cnt == 0)
		return -1;
	*ret = (double)info.run_time_ns / (double)info.run_cnt;
	bpf_link__destroy(link);
	return 0;
}

int main(int argc, char **argv)
{
	struct bpf_object *o;
	struct bpf_program *p;
	const char *separator = "{";
	double ns;

	if (argc != 5) {
		fprintf(stderr, "usage: yardstick OBJECT CPU HZ SECONDS\n");
		return 2;
	}
	o = bpf_object__open_file(argv[1], NULL);
	if (!o || bpf_object__load(o) < 0)
		return 1;
	bpf_object__for_each_program(p, o)
	{
		if (measure(p, atoi(argv[2]), (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]),
			    &ns) < 0) {
			fprintf(stderr, "yardstick: %s did not run\n", bpf_program__name(p));
			return 1;
		}
		printf("%s\"%s\": %.1f", separator, bpf_program__name(p), ns);
		separator = ", ";
	}
	puts("}");
	bpf_object__close(o);
	return 0;
}
