/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sampler: BPF objects, perf events, and the one stream of events that everything else lives
 * on.
 *
 * A cpu-clock event on every online CPU runs the sampling program; a dummy software event a CPU
 * brings MMAP2, COMM and LOST records of perf (there is no munmap record, nor any need of one).
 * Records of the BPF ring and of all perf rings are merged by time and handed out in one order.
 * Runs in agentd. */

#include <sys/types.h>
#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "bpf/sample.h"
#include "bpf/tables.h"

#define SAMPLER_RATE_MIN     1
#define SAMPLER_RATE_MAX     1000
#define SAMPLER_RATE_DEFAULT 99

enum sampler_event_kind {
	SAMPLER_SAMPLE, /* .sample */
	SAMPLER_EXEC,   /* .process */
	SAMPLER_FORK,   /* .process */
	SAMPLER_EXIT,   /* .process; maybe twice for an image whose last threads end together */
	SAMPLER_CGROUP, /* .process */
	/* .mmap.pid, .mmap.tid: perf's COMM with the exec bit: the old address space is gone; mappings
	 * that follow belong to the image whose SAMPLER_EXEC comes next. */
	SAMPLER_EXEC_BEGIN,
	SAMPLER_MMAP, /* .mmap: an executable range was mapped */
	/* .lost: process or mapping records were lost: read mappings afresh on next use. */
	SAMPLER_LOST_EVENTS,
	/* The kernel got or lost code of its own making: a BPF program, a trampoline. */
	SAMPLER_KERNEL_CODE,
};

struct sampler_mmap {
	pid_t pid, tid;
	uint64_t start, len, pgoff; /* pgoff in bytes */
	uint32_t major, minor;
	uint64_t inode, generation;
	uint32_t prot, flags;
	const char
		*path; /* as the kernel names it; may be "//anon", "[vdso]", with " (deleted)"... */
};

struct sampler_event {
	enum sampler_event_kind kind;
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	union {
		const struct record_sample
			*sample; /* lengths were checked against the record's size */
		const struct record_process *process;
		struct sampler_mmap mmap;
		uint64_t lost;
	};
};

struct sampler_config {
	unsigned rate_hz; /* SAMPLER_RATE_MIN .. MAX */
	bool kernel_frames;
	size_t ring_bytes;          /* power of two; 0: by the number of CPUs, 2 to 16 MiB */
	uint32_t max_verdicts;      /* 0: 16,384 */
	unsigned drain_ms;          /* longest time between two drains; 0: 1000 */
	bool accept_unknown_kernel; /* sample even where the version does not tell of the nofault fix */
	uint32_t max_user_frames; /* 1 to SAMPLE_MAX_USER; 0: SAMPLE_DEFAULT_USER */
	size_t rows_bytes;        /* of the arena of rows: power of two, 1 MiB to 1 GiB; 0: 8 MiB */
	size_t stack_bytes;       /* of a slice, at most and by default (0) 124 KiB */
	uint32_t slices_a_second; /* a CPU; of small ones up to four times as many; 0: 64 */
};

/* Callbacks may set and forget verdicts, spaces and rows, and go to the next generation; nothing else
 * of this header. */
struct sampler_ops {
	void (*on_event)(void *userdata, const struct sampler_event *event);
	/* After a drain handed out its last event. */
	void (*on_drained)(void *userdata, uint64_t up_to_ns);
	/* Called back by sampler_collect(): that many further samples of the stack that was sent under
	 * this id; the last of them at last_ns. Each id once a call; twice where a CPU could not be
	 * read the time before. */
	void (*on_count)(void *userdata, uint64_t id, uint64_t samples, uint64_t last_ns);
};

/* Samples of one type, since sampler_new(). due = taken + late; taken = idle + ignored + divided + sent +
 * counted + lost_ring + lost_scratch. */
struct sampler_counters {
	/* What the events' own count says, over their period (rate changes accounted for). That count
	 * is of the scheduler's clock, ticks are of CLOCK_MONOTONIC: they drift by up to 0.05 %, and
	 * due is never said to be less than taken. */
	uint64_t due;
	uint64_t taken; /* what the program saw */
	/* due - taken: time stolen by the hypervisor, ticks shadowed by other BPF programs, and ticks
	 * that some virtual machines leave out on an idle CPU. */
	uint64_t late;
	uint64_t idle, ignored, divided, sent, paused;
	uint64_t lost_ring, lost_scratch, lost_events;
	uint64_t counted;     /* in the kernel, under the id of a stack that was sent */
	uint64_t lost_memory; /* taken from the ring, but no memory to hold them */
	/* Handed to on_event: sent = received + lost_memory + waiting (in the ring or the merge). */
	uint64_t received;
	uint64_t collected; /* handed to on_count; counted = collected + still in the kernel */
	uint64_t table_full, slices, slices_refused;
	uint64_t
		run_ns; /* in the sampling program, by its own clock, kernel.bpf_stats_enabled or not */
	uint64_t bpf_run_ns; /* of our programs, 0 unless kernel.bpf_stats_enabled */
	uint64_t bpf_runs;
	unsigned online_cpus, sampled_cpus; /* they differ when an event could not be opened */
};

struct sampler;

/* Loads the programs and opens the events, all disabled: nothing runs before sampler_start(). Fails
 * with a sentence and remedy: not root or which capability is missing, no BTF, perf_event_paranoid,
 * lockdown, a kernel in the range that freezes (nofault.h). */
int sampler_new(struct sampler **ret, sd_event *loop, const struct sampler_config *config,
	const struct sampler_ops *ops, void *userdata, struct err_text *err);
/* Detaches, unloads. What is still in the rings is dropped: drain first. */
struct sampler *sampler_free(struct sampler *s);
DEFINE_FREEP(sampler_freep, struct sampler *, sampler_free)

int sampler_start(struct sampler *s, struct err_text *err);
int sampler_set_rate(struct sampler *s, unsigned rate_hz, struct err_text *err);
void sampler_set_kernel_frames(struct sampler *s, bool on);
/* Stops the events (ioctl DISABLE): no sample after it returns; drain, then free. */
void sampler_stop(struct sampler *s);

/* ---- unwinding tables
 * ---------------------------------------------------------------------------------------------------- */

/* Rows of one page of a file, as a slot's bytes (bpf/tables.h), key and seq excepted, which are
 * set here. Checked as if an enemy had written them: -EBADMSG. Replaces what is there for the key;
 * may put out others, by the clock. -EAGAIN: the place is still being read by a CPU that stands still;
 * what was there for the key is gone, try again later. */
int sampler_rows_add(
	struct sampler *s, uint32_t file, uint32_t page, const void *slot, size_t size);
/* Borrowed until the next sampler_rows_add() or _forget(); NULL: not loaded. Marks it as used. */
const struct rows_slot *sampler_rows_find(struct sampler *s, uint32_t file, uint32_t page);
/* All pages of a file, and all spaces that name it. */
void sampler_rows_forget(struct sampler *s, uint32_t file);
struct sampler_rows_counters {
	uint64_t bytes, used_bytes, pages, added, evicted, spaces, space_maps, spaces_evicted;
};
void sampler_rows_counters(struct sampler *s, struct sampler_rows_counters *ret);

/* What the image has mapped executable, sorted; copied. Images with equal maps share them. n 0: forget.
 * *tag: what samples walked by it will carry. May put out the spaces of images that were sampled
 * least recently. An image's tags rise (as serial numbers do). -E2BIG past SPACE_MAPS_MAX,
 * -EINVAL not sorted or an odd address, -ENOSPC, -ENOMEM, -EAGAIN as above. */
int sampler_set_space(struct sampler *s, const struct sample_image *image,
	const struct space_map *maps, size_t n, uint32_t *tag);
/* Mapping records were lost: no space is believed until it is set again. */
void sampler_distrust_spaces(struct sampler *s);

/* Takes what the kernel counted (on_count) after handing out everything up to now (as sampler_drain()).
 * Takes about a millisecond. */
void sampler_collect(struct sampler *s);

/* Verdicts carry the current generation. sampler_next_generation() makes all earlier ones count as
 * absent. */
int sampler_set_verdict(struct sampler *s, const struct sample_image *image, uint32_t types,
	uint16_t divisor, uint16_t flags /* enum verdict_flag */);
void sampler_forget(struct sampler *s, const struct sample_image *image);
void sampler_next_generation(struct sampler *s);

/* Hands out everything up to now, in order; returns only then. Called by tests, before a swap and
 * at a stop. */
void sampler_drain(struct sampler *s);
void sampler_counters(struct sampler *s, struct sampler_counters *ret);

/* The kernel's verdict on features, for status --verbose: one line each, borrowed. */
size_t sampler_features(struct sampler *s, const char **lines, size_t max);
