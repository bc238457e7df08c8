/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The contract between the programs in the kernel and user space: what travels in the ring, and
 * what user space tells the kernel. Compiled on both sides, so: fixed-width types, explicit
 * padding, asserted sizes. Times are CLOCK_MONOTONIC nanoseconds; pids are those of the initial pid
 * namespace; integers are of the host's byte order. Readers skip kinds that they do not know, by
 * header.size. */

#ifndef __bpf__
#include <stdint.h>
typedef uint8_t sample_u8;
typedef uint16_t sample_u16;
typedef uint32_t sample_u32;
typedef uint64_t sample_u64;
#else
typedef unsigned char sample_u8;
typedef unsigned short sample_u16;
typedef unsigned int sample_u32;
typedef unsigned long long sample_u64;
#endif

#define SAMPLE_VERSION 2
/* Frames of user space in one sample, unless told otherwise: at 127, 2.3 % of the stacks of clang at templates within
 * templates were cut, at 256 none of 352. */
#define SAMPLE_DEFAULT_USER 256
#define SAMPLE_MAX_USER     1024 /* the most that can be told */
#define SAMPLE_MAX_KERNEL   127  /* frames of the kernel, as perf's callchains have them */
#define SAMPLE_MAX_FRAMES   (SAMPLE_MAX_USER + SAMPLE_MAX_KERNEL + 2)
#define SAMPLE_COMM         16
#define SAMPLE_CGROUP_DEPTH 12
#define SAMPLE_CGROUP_NAME  128

/* What a process runs. A pid and a start time alone survive exec, so the exec count is part of it:
 * task->self_exec_id of the group leader (it goes up in begin_new_exec()). */
struct sample_image {
	sample_u32 tgid;
	sample_u32 exec;
	sample_u64 start_boottime; /* ns of CLOCK_BOOTTIME, task->group_leader->start_boottime */
};
_Static_assert(sizeof(struct sample_image) == 16, "image");

/* Profile types: bits in verdicts, numbers in samples. */
enum sample_type {
	SAMPLE_TYPE_CPU =
		0, /* value: ns of CPU time that one sample stands for (the event's period) */
	SAMPLE_TYPE_COUNT
};

enum frame_kind {
	FRAME_NONE = 0,
	FRAME_KERNEL = 1, /* offset: kernel address (already the call site: see FRAME_RETURN) */
	FRAME_NATIVE = 2, /* file 0: offset is an address of the image at the sample's time, to be
			     looked up in its mappings; file > 0: offset into that file */
	FRAME_JIT = 3,    /* file: code object id; offset within it */
	FRAME_MARKER = 4, /* offset: enum frame_marker; e.g. where a stack was cut */
			  /* 16 and up: one a language runtime */
};

enum frame_flag {
	FRAME_RETURN = 1,      /* offset is a return address: the call lies before it */
	FRAME_APPROXIMATE = 2, /* found by a guess (see the unwinder) */
};

enum frame_marker {
	MARKER_TRUNCATED = 1, /* more frames than fit */
	MARKER_NO_USER = 2,   /* the user stack could not be read */
	MARKER_LOST = 3,      /* the callers could not be followed: record_sample.end says why */
	MARKER_KERNEL = 4,    /* the kernel was at work, whose frames are left out */
};

struct sample_frame {
	sample_u8 kind;  /* enum frame_kind */
	sample_u8 flags; /* enum frame_flag */
	sample_u16 pad;
	sample_u32 file;
	sample_u64 offset;
};
_Static_assert(sizeof(struct sample_frame) == 16, "frame");

enum record_kind {
	RECORD_SAMPLE = 1,
	RECORD_EXEC = 2,   /* an image begins (after its first mappings are there) */
	RECORD_FORK = 3,   /* a new process (not a thread) */
	RECORD_EXIT = 4,   /* the last thread of a process ended */
	RECORD_CGROUP = 5, /* a process moved between cgroups: its verdict fell */
};

struct record_header {
	sample_u16 kind;
	sample_u16 version;
	sample_u32 size; /* of the whole record */
	sample_u64 time; /* ns, CLOCK_MONOTONIC */
	sample_u32 cpu;
	sample_u32 pad;
};
_Static_assert(sizeof(struct record_header) == 24, "header");

struct record_sample {
	struct record_header header;
	struct sample_image image;
	sample_u32 tid;
	sample_u16 type;     /* enum sample_type */
	sample_u16 n_frames; /* kernel frames first (leaf first), then user frames (leaf first) */
	sample_u64 value;    /* of one: see enum sample_type */
	sample_u32
		count; /* how many such samples this record stands for: sampling divisor or more */
	sample_u32 flags;       /* enum sample_flag */
	sample_u64 context;     /* 0 none; later a span or label set */
	char comm[SAMPLE_COMM]; /* of the thread; not always terminated */
	/* Not 0: more such samples of this CPU are counted under this id (bpf/tables.h), until the
	 * halves are turned over: keyed hash of CPU, image, verdict, space, thread if the verdict says
	 * so, type, context and frames. */
	sample_u64 id;
	sample_u8 end; /* enum walk_end */
	sample_u8 pad;
	sample_u16 guessed;  /* user frames with FRAME_APPROXIMATE */
	sample_u32 end_file; /* the file in which the walk ended; 0 none */
	sample_u32 space;    /* tag of the space by which it was walked; 0 none */
	sample_u32 stack;    /* bytes of struct sample_stack behind the frames; 0 none */
	struct sample_frame frames[];
};
_Static_assert(sizeof(struct record_sample) == 112, "sample");

/* Where and why a walk of a user stack ended. */
enum walk_end {
	WALK_NONE = 0,           /* no user stack: a kernel thread, a task that exits */
	WALK_ROOT = 1,           /* the outermost frame */
	WALK_NO_INFORMATION = 2, /* no rows for this code, nor a frame pointer to go by */
	WALK_UNSUPPORTED = 3,    /* rows that could not be read from the file */
	WALK_SWITCHED = 4,       /* the stack goes on elsewhere: Go's systemstack, coroutines */
	WALK_LOST_REGISTER = 5,  /* a rule counts from a register that is not known any more */
	WALK_UNREADABLE = 6,     /* stack memory that is not resident or not there */
	WALK_BAD_STACK = 7,      /* the stack contradicts the rows */
	WALK_DEPTH = 8,          /* as many frames as are taken */
	WALK_JIT = 9,            /* memory without a file, nor a frame pointer to go by */
	WALK_UNMAPPED = 10,      /* a return address where nothing executable is mapped */
	WALK_COMPAT = 11,        /* 32-bit code */
	WALK_SLICE = 12,         /* beyond the slice of the stack that was kept */
	WALK_REUSED = 13,        /* addresses were given to another file meanwhile */
	/* What the kernel could not know; user space goes on from the slice, if there is one, and no
	 * sample that has one keeps such an end. Without a slice the last frame is the one that was
	 * missed, by its address (file 0), and the marker follows. */
	WALK_MISS_SPACE = 16, /* nothing is known of the image's mappings, or it was replaced */
	WALK_MISS_MAP = 17,   /* an address in none of its maps, or in one without a known file */
	WALK_MISS_ROWS = 18,  /* the page's rows are not loaded, or were replaced */
	WALK_ENDS
};

/* What user space needs to go on: the walk's state after the frames in the record, and the stack from
 * there. */
#define SAMPLE_STACK_PAGES 32
#define SAMPLE_STACK_MAX   (124 << 10) /* bytes of a slice: in so many pages wherever it begins */
#define SAMPLE_STACK_PAGE  4096
struct sample_stack {
	sample_u64 state[40]; /* struct unwind_regs; where fp and aux lay, they were read */
	sample_u64 start;     /* address of bytes[0], a multiple of 8 */
	sample_u32 len;       /* of bytes */
	sample_u32 present;   /* bit i: bytes of page (start / SAMPLE_STACK_PAGE + i) were read */
	sample_u8 bytes[];    /* what was not read is not defined */
};
_Static_assert(sizeof(struct sample_stack) == 336, "stack");

enum sample_flag {
	SAMPLE_KERNEL_THREAD = 1, /* no address space of its own */
};

/* RECORD_EXEC, _FORK, _EXIT and _CGROUP. The cgroup is that of the v2 hierarchy, as a path from its
 * real root: "/" or "/system.slice/nginx.service", not terminated; it helps where the process is
 * gone before /proc could be read. One too deep or with too long a name for the record is left out
 * whole (length 0). */
struct record_process {
	struct record_header header;
	struct sample_image image;
	struct sample_image parent; /* FORK: the parent; EXEC: zero. */
	sample_u32 tid;             /* the thread that called exec or fork */
	sample_u32 cgroup_len;      /* bytes in cgroup; 0 not known */
	sample_u64 cgroup_id;
	char comm[SAMPLE_COMM];
	char cgroup[]; /* EXEC and CGROUP only; at most SAMPLE_CGROUP_DEPTH * SAMPLE_CGROUP_NAME */
};
_Static_assert(sizeof(struct record_process) == 88, "process");

/* What user space decided of an image, and where its mappings are: one look-up a sample. Absent means
 * unknown: kept, user space decides. A verdict of another generation counts as absent; its space is
 * good all the same. */
struct sample_verdict {
	sample_u32 types;      /* 1 << enum sample_type: collected; 0: the image is ignored */
	sample_u32 generation; /* of the configuration, struct sample_settings; 0: no verdict */
	sample_u16 divisor;    /* keep one sample in so many (0 and 1: all); counts are scaled */
	sample_u16 flags;      /* enum verdict_flag */
	sample_u32 runtime;    /* 0: none known */
	sample_u32 serial;     /* another one with each decision: part of record_sample.id */
	sample_u32 space;      /* unit of its block (bpf/tables.h); 0: none */
	sample_u32 space_tag;
	sample_u32 space_generation; /* of struct sample_settings: mappings may have been missed */
};
_Static_assert(sizeof(struct sample_verdict) == 32, "verdict");

enum verdict_flag {
	VERDICT_PER_THREAD = 1, /* counts are kept apart by thread, and by its name */
	VERDICT_UNCOUNTED = 2,  /* every sample is sent */
};

/* Written by user space at any time (the .data section of the programs). */
struct sample_settings {
	sample_u32 generation;
	sample_u32 kernel_frames; /* 0: leave them out */
	sample_u64 wakeup_gap_ns; /* wake the reader at most once in this time for urgent records */
	sample_u32 wakeup_bytes;  /* wake the reader when so much waits */
	sample_u32 paused;        /* 1: programs return at once (counted as paused) */
	sample_u64 period_ns;     /* of the events: what one sample stands for; see sampler.bpf.c */
	sample_u32 half;          /* of the counts (bpf/tables.h): 0 or 1 */
	sample_u32 space_generation; /* goes up when mapping records were lost: no space is good */
	sample_u32 slices_a_second;  /* a CPU, of four seconds at once: see bpf/slice.h */
	sample_u32 pad;
};
_Static_assert(sizeof(struct sample_settings) == 48, "settings");

/* Per-CPU counters, in samples of the event, one set a CPU. taken is what the programs saw (paused
 * runs are not part of it): taken = idle + ignored + divided + lost_* + sent + counted. */
enum sample_counter {
	COUNT_TAKEN,
	COUNT_IDLE,    /* pid 0 */
	COUNT_IGNORED, /* by verdict */
	COUNT_SENT, /* in the ring (each stands for itself; what a divisor left out is `divided`) */
	COUNT_DIVIDED,      /* left out by a sampling divisor, stood for by others' count */
	COUNT_LOST_RING,    /* the ring was full */
	COUNT_LOST_SCRATCH, /* no scratch memory (a nested run on this CPU) */
	COUNT_PAUSED,
	COUNT_EVENT_LOST, /* process records (not samples) that found the ring full: mappings and
			     verdicts of unknown images must be read afresh */
	COUNT_COUNTED,    /* under the id of a stack that was sent */
	COUNT_TABLE_FULL, /* sent, since its set of the counts is full */
	COUNT_SLICES,     /* sent with a slice of the stack */
	COUNT_NO_SLICE,   /* would have needed one: too many, or the ring is filling */
	COUNT_RUN_NS,     /* time in the sampling program, by its own clock */
	COUNT_IN_HALF,    /* not 0: a program is at work in the arrays of bpf/tables.h on this CPU;
			     1 + the half of the counts that it fills. Never more than one. */
	COUNT_TYPES
};
/* One a CPU, in an array that user space maps: reading it costs no system call. */
struct sample_counters {
	sample_u64 of[32]; /* by enum sample_counter */
};
_Static_assert(sizeof(struct sample_counters) == 256, "counters");
