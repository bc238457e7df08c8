/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What agentd and its /proc reader say to each other: one request a message; an answer is one message or
 * more, the last one flagged, their bodies end to end. Both sides are the same binary, so structs
 * travel as they are; agentd still checks every length, since the reader reads hostile text. */

#include "agentd/base/buf.h"

enum reader_op {
	READER_READ = 1, /* facts and, if asked, mappings of one process */
	READER_OPEN,     /* the file behind one mapping: identity and, if asked, a descriptor */
	READER_SURVEY,   /* every process's start, CPU time, name */
	READER_ROOT,     /* path: look there instead of at /proc */
	READER_JIT, /* what names a process's JIT code: the jitdump mapped there, with start and end; else its
			    perf map, whose path follows struct reader_file in the answer */
};

enum reader_flag {
	READER_FACTS = 1,
	READER_MAPS = 2,
	READER_FD = 4, /* OPEN: pass a descriptor */
	READER_BY_PATH =
		8, /* OPEN: the process is gone; by path, and only if maps' inode and device agree */
	READER_LAST = 16,   /* in answers */
	READER_PARENT = 32, /* READ: when its parent began, too */
};

#define READER_PATH_MAX    4096
#define READER_CMDLINE_MAX 4096
#define READER_BODY_MAX    (4u << 20) /* of one answer */
#define READER_PART_MAX    60000

struct reader_request {
	uint32_t id;
	uint16_t op, flags;
	uint32_t pid, tid;    /* tid: read this thread where the leader has ended; 0: none */
	uint64_t start_ticks; /* the process must have begun then; 0: any */
	uint64_t start, end;  /* OPEN: the mapping */
	uint64_t inode;
	uint32_t major, minor;
	uint32_t max_mappings;
	uint32_t path_len; /* OPEN: behind it, not terminated */
};
_Static_assert(sizeof(struct reader_request) == 64, "request");

struct reader_answer {
	uint32_t id;
	uint16_t op, flags;
	int32_t status; /* 0 or -errno: -ESRCH gone (or another process now) */
	uint32_t pad;
	uint64_t t0, t1; /* CLOCK_MONOTONIC before and after reading; in the last part */
};
_Static_assert(sizeof(struct reader_answer) == 32, "answer");

enum reader_fact_flag {
	FACT_KERNEL_THREAD = 1,
	FACT_NO_MEMORY = 2, /* a zombie, or ending: it has no address space any more */
	FACT_OTEL_TOO_LONG = 4,
	FACT_HAS_SERVICE_NAME = 8,
};

/* READ's body: this, its strings end to end (comm, cgroup, cmdline, OTEL_SERVICE_NAME,
 * OTEL_RESOURCE_ATTRIBUTES, exe; lengths in that order, no NULs but within cmdline), then rows. */
enum { TEXT_COMM, TEXT_CGROUP, TEXT_CMDLINE, TEXT_SERVICE, TEXT_ATTRIBUTES, TEXT_EXE, TEXT_COUNT };
struct reader_facts {
	uint32_t flags, ppid, uid, n_maps;
	uint64_t start_ticks, parent_start_ticks; /* 0: not known */
	uint32_t len[TEXT_COUNT];
};
_Static_assert(sizeof(struct reader_facts) == 56, "facts");

struct reader_map {
	uint64_t start, end, pgoff, inode;
	uint32_t major, minor, path_len, pad; /* path behind it, not terminated */
};

struct reader_file {
	uint64_t device, inode, size;
	int64_t mtime_ns, ctime_ns;
	uint32_t owner, mode;
	uint32_t flags; /* enum reader_file_flag */
	uint32_t pad;
};
enum reader_file_flag {
	/* On its file system, device and inode name one file, and maps shows what fstat does. */
	READER_PLAIN_NUMBERS = 1,
};

struct reader_process {
	uint32_t pid, ppid, flags, pad;
	uint64_t start_ticks, cpu_ticks;
	char comm[16];
};
