/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the /proc reader (reader.c): what its parts share. Nobody else includes this. */

#include "agentd/process/procfs.h"
#include "agentd/process/protocol.h"

struct reader {
	int sock, proc; /* proc: descriptor of /proc */
	struct buf body, text;
	char chunk[65536];
	struct environ_scan scan;
};

/* Descriptors or -errno; -ESRCH: no such process. */
int reader_open_in(int dir, const char *name);
int reader_open_pid(struct reader *r, uint32_t pid);
/* At most max bytes of a file, what is beyond is left; NUL-terminated in r->text. */
int reader_text(struct reader *r, int dir, const char *name, size_t max);
int reader_stat(struct reader *r, int dir, struct procfs_stat *ret);
/* Whether the process is still the one that was meant. ret may be NULL. */
int reader_check_start(struct reader *r, int dir, uint64_t ticks, struct procfs_stat *ret);
/* The folder whose files tell of the address space: the process's own, or of the thread that is asked
 * about where the leader has ended. Takes and returns a descriptor. */
int reader_living_folder(struct reader *r, int dir, const struct reader_request *q, char state);

struct reader_walk {
	struct reader *r;
	size_t n, max;
	/* For OPEN: the mapping that holds this address. */
	uint64_t address;
	struct procfs_map found;
};
int reader_walk_maps(struct reader_walk *w, int dir,
	void (*visit)(struct reader_walk *w, const struct procfs_map *map));

/* What is mapped there: an O_PATH descriptor, or -errno. */
int reader_open_mapped(struct reader *r, const struct reader_request *q, const char *path);
/* Of a kind that may not answer, or that cannot be told. */
bool reader_refused_filesystem(int fd);

/* The requests; answers' bodies go to r->body. */
int reader_do_read(struct reader *r, const struct reader_request *q);
int reader_do_jit(struct reader *r, const struct reader_request *q, const char *dump, int *ret);
int reader_do_open(struct reader *r, const struct reader_request *q, const char *path, int *ret);
