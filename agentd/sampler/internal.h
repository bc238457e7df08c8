/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of this room share; for no other room (unit tests of this one excepted). */

#include <systemd/sd-event.h>
#include "agentd/base/buf.h"
#include "agentd/sampler/halves.h"
#include "agentd/sampler/rows.h"
#include "agentd/sampler/sampler.h"
#include "agentd/sampler/spaces.h"
#include "bpf/sample.h"
#include "bpf/sampler.skel.h"

#define PERF_RING_BYTES  (128U << 10) /* per CPU, for mapping and exec records; power of two */
#define PERF_WATERMARK   (32U << 10)  /* bytes waiting there that wake us */
#define BPF_TAKE_MAX     (2U << 20)   /* bytes taken from the BPF ring at once */
#define SLACK_NS         (5 * NSEC_PER_MSEC) /* of the records of several CPUs: see merge.c */
#define WAKEUP_GAP_NS    (20 * NSEC_PER_MSEC)
#define CPU_CHECK_NS     (10 * NSEC_PER_SEC) /* uevents tell of most changes at once */
#define CPU_MISSING_NS   (NSEC_PER_SEC / 2)  /* less than between two drains: at the next one */
#define RING_PER_CPU     (1U << 20)
#define RING_MIN         (2U << 20)
#define RING_MAX         (16U << 20)
#define DEFAULT_VERDICTS 16384
#define DEFAULT_DRAIN_MS 1000
#define DEFAULT_ROWS     (8U << 20)
#define DEFAULT_SLICE    SLICE_MAX /* clang: main() alone takes 30 KiB, some stacks take 110 */
#define DEFAULT_SLICES   64
#define SLICE_MAX        ((uint32_t)SAMPLE_STACK_MAX)
#define SPACE_UNITS      65536U /* of struct space_map: 2 MiB */

/* One perf ring, read through its mapping. */
struct perf_ring {
	void *map; /* NULL: none */
	size_t map_size;
};

/* What is open on one CPU. */
struct cpu_events {
	int clock_fd; /* cpu-clock, runs the program; -1: this CPU is not sampled */
	int track_fd; /* dummy event: MMAP2, COMM and LOST records */
	struct perf_ring ring;
	sd_event_source *source;
	uint64_t count_base; /* of the event's count, ns: what is in sampler.due already */
	int failed;          /* errno of the last attempt, so that it is logged once */
};

/* A record that waits for its turn; its bytes are at offset in merge.store. */
struct stream_merge_entry {
	uint64_t time;
	uint32_t offset, size;
	bool perf; /* else of the BPF ring */
};

struct merge {
	struct buf store;
	struct stream_merge_entry *entries;
	size_t n, size;
	size_t bpf_taken;      /* bytes of the BPF ring in this round */
	uint64_t newest_bpf;   /* of what was taken from the BPF ring */
	uint64_t whole;        /* up to here nothing is missing that has to do with what is there */
	uint64_t handed_out;   /* horizon of the last hand-out */
	uint64_t out_of_order; /* records that came after their time had been handed out */
	uint64_t lost;         /* process and mapping records that were not kept here */
	uint64_t malformed;
	bool draining;
	bool slices; /* the store holds some, or did since it was wiped */
};

/* Memory that the programs work on, too. */
struct shared {
	void *at; /* NULL: none */
	size_t size;
};
enum {
	SHARED_COUNTERS,
	SHARED_COUNTS,
	SHARED_ROWS,
	SHARED_INDEX,
	SHARED_SPACES,
	SHARED_RING, /* of the BPF ring, how far it was read and written: a page each */
	SHARED_ARRAYS
};

struct sampler {
	sd_event *loop;
	struct sampler_config config;
	struct sampler_ops ops;
	void *userdata;
	struct sampler_bpf *skel;
	struct ring_buffer *ring;             /* libbpf's reader of the BPF ring */
	struct bpf_program *program;          /* the one that takes samples */
	const struct sample_counters *counts; /* mapped, one a CPU */
	struct shared shared[SHARED_ARRAYS];
	struct quiet quiet; /* for what the programs walk by */
	struct rows rows;
	struct spaces spaces;
	struct halves halves;
	uint32_t serial; /* of the last verdict */
	struct cpu_events *cpus;
	size_t n_cpus; /* possible ones */
	bool running, has_cgroup_moves;
	uint64_t period_ns;
	uint64_t due;                      /* of periods and events that are over */
	uint64_t received, lost_memory;    /* samples */
	uint64_t lost_perf, lost_bpf_told; /* process and mapping records */
	struct merge merge;
	sd_event_source *ring_source, *uevent_source, *timer;
	uint64_t drain_at_ns; /* what the timer is set to */
	bool woken;           /* by a ring, since the last drain by the timer */
	uint64_t last_cpu_check;
	unsigned n_online; /* as of then */
	char features[16][160];
	size_t n_features;
};

/* preflight.c: what can be said before the kernel is asked, and why it refused. */
int preflight_check(struct sampler *s, struct err_text *err);
int preflight_explain_load(int code, struct err_text *err);
int preflight_explain_perf(int code, unsigned cpu, struct err_text *err);
void preflight_feature(struct sampler *s, const char *format, ...) PRINTF(2, 3);
/* Catches what libbpf would print, for the log and for preflight_explain_load(). */
void preflight_catch_libbpf(void);

/* events.c: perf events of one CPU or all. */
int cpu_table_new(struct sampler *s);
void events_close_all(struct sampler *s);
int events_open(struct sampler *s, unsigned cpu, struct err_text *err);
void events_close(struct sampler *s, unsigned cpu);
/* The ioctl on all cpu-clock (or all tracking) events. 0 or the first -errno. */
int events_clock_ioctl(struct sampler *s, unsigned long request);
int events_track_ioctl(struct sampler *s, unsigned long request);
int events_set_period(struct sampler *s, uint64_t period_ns, struct err_text *err);
uint64_t events_due(struct sampler *s);
unsigned events_sampled(const struct sampler *s);

/* hotplug.c */
int hotplug_init(struct sampler *s);
int hotplug_open_online(struct sampler *s, struct err_text *err);
/* Opens and closes events so that they are what is online. Returns how many CPUs are online. */
unsigned hotplug_check(struct sampler *s);
/* As of the last check, if that was not long ago. */
unsigned hotplug_online(struct sampler *s);
/* Parses "0-3,8": calls back for each. -EINVAL when malformed. Pure. */
int cpu_list_parse(
	const char *text, unsigned max, void (*each)(void *userdata, unsigned cpu), void *userdata);
/* CPUs up to the highest in /sys/devices/system/cpu/possible. */
int cpus_possible(size_t *ret);

/* ring.c: perf's rings. Hands over every record that concerns us; the bytes are copied out. */
int perf_ring_init(struct perf_ring *r, int fd);
void perf_ring_deinit(struct perf_ring *r);
void perf_ring_gather(struct sampler *s, struct perf_ring *r);
/* The time in a record's trailer, 0 where there is none to be relied on; false when the record is
 * malformed or of no interest. */
bool perf_record_check(const void *record, size_t size, uint64_t *time);
/* Fills event from a checked record (it stays borrowed). */
void perf_record_event(const void *record, size_t size, struct sampler_event *event);

/* merge.c */
/* A record of a process or a mapping could not be kept: counted, and told as lost. */
void stream_merge_lost(struct sampler *s);
int stream_merge_add(struct sampler *s, uint64_t time, const void *record, size_t size, bool perf);
bool sample_record_check(const void *record, size_t size);
/* all: everything up to the call; else what is older than SLACK_NS. Either way only as far as the
 * stream is whole. True when more waits in a ring. */
bool stream_merge_drain(struct sampler *s, bool all);
void stream_merge_init(struct merge *m, size_t n_cpus);
void stream_merge_deinit(struct merge *m);
int stream_merge_on_record(void *userdata, void *data, size_t size);

/* tables.c */
int tables_size(struct sampler *s); /* before the programs are loaded */
int tables_map(struct sampler *s, struct err_text *err);
void tables_unmap(struct sampler *s);
void tables_features(struct sampler *s);

/* load.c: the programs, and which of the two that take samples. */
int programs_load(struct sampler *s, struct err_text *err);

/* sampler.c */
/* Something waits in a ring: drains as soon as it is old enough. */
void sampler_wake(struct sampler *s);
uint64_t sampler_raw_counter(const struct sampler *s, enum sample_counter which);
