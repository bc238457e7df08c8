/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Parsers of what /proc says of a process, and of OpenTelemetry's variables: pure text, no I/O, every
 * length bounded. The text is written by whoever is profiled. */

#include "agentd/base/macros.h"

struct procfs_stat {
	char comm[65];
	char state;
	int32_t ppid;
	uint32_t flags;
	uint64_t utime, stime, start; /* clock ticks */
};
#define PROCFS_KTHREAD 0x00200000u /* PF_KTHREAD, unchanged since 2.6.27 */

/* -EBADMSG when it is no stat line. */
int procfs_stat(const char *text, struct procfs_stat *ret);

struct procfs_status {
	uint32_t uid;    /* effective */
	uint32_t ns_pid; /* as the process itself knows it: in its innermost pid namespace */
};
/* The text of /proc/PID/status. -EBADMSG when it does not say both. */
int procfs_status(const char *text, struct procfs_status *ret);

struct procfs_map {
	uint64_t start, end, pgoff, inode;
	uint32_t major, minor;
	bool exec;
	const char *path; /* into the line; "" none */
};
/* One line without its end; it is written to. -EBADMSG. */
int procfs_map(char *line, struct procfs_map *ret);
/* Cuts " (deleted)" off; returns whether it was there. */
bool procfs_strip_deleted(char *path);

/* ---- environ: fed in pieces of any size; keeps the two variables and nothing else ------------------- */

#define ENVIRON_NAME_MAX 256   /* longer: not a name */
#define ENVIRON_LIST_MAX 16384 /* longer: not read, said as too long */

struct environ_scan {
	char service_name[ENVIRON_NAME_MAX + 1];
	char attributes[ENVIRON_LIST_MAX + 1];
	bool have_service_name, have_attributes, too_long;
	/* where the scan is */
	unsigned matching; /* bit a variable that the current entry may still be */
	size_t at, value_at;
	int in_value; /* -1 none, else which variable */
};
void environ_scan_init(struct environ_scan *s);
void environ_scan_feed(struct environ_scan *s, const char *data, size_t len);
void environ_scan_end(struct environ_scan *s);

/* ---- OTEL_RESOURCE_ATTRIBUTES ------------------------------------------------------------------------ */

#define OTEL_ATTRIBUTES_MAX 64
#define OTEL_KEY_MAX        128
#define OTEL_VALUE_MAX      256

struct attribute;
/* Percent-decoded per the OpenTelemetry specification (Resource SDK, "Specifying resource information
 * via an environment variable"); the last of a repeated key counts. *ret and every key and value
 * are the caller's, by otel_free(). Returns how many entries were refused (too many, too long,
 * not text), or -ENOMEM. */
int otel_parse(const char *text, struct attribute **ret, size_t *n);
void otel_free(struct attribute *list, size_t n);
