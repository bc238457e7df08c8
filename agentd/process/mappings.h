/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Executable mappings of one address space: a sorted array, shared between processes that forked from
 * each other until one of them changes it. */

#include "agentd/base/macros.h"

/* Paths are shared: a host maps the same few hundred files everywhere. */
struct path_pool;
struct path {
	struct path_pool *pool;
	unsigned refs;
	uint32_t len;
	char text[]; /* clean, " (deleted)" stripped */
};

int path_pool_new(struct path_pool **ret);
struct path_pool *path_pool_free(struct path_pool *p); /* after all paths are gone */
/* Returns a reference, or NULL: no memory. */
struct path *path_get(struct path_pool *p, const char *text);
struct path *path_ref(struct path *p);
struct path *path_unref(struct path *p);

/* What maps and MMAP2 say of a file: a look-up key, never compared with what fstat says. */
struct file_key {
	uint64_t inode, generation; /* generation 0: not known */
	uint32_t major, minor;
};

struct mapping {
	uint64_t start, end, pgoff;
	struct file_key key;
	struct path *path; /* owned */
	uint32_t file;     /* struct file id; 0: nobody asked yet */
	uint32_t told;     /* the one that the kernel was told; 0: none */
	bool opening;      /* asked, not answered */
};

struct mappings {
	unsigned refs;
	size_t n, cap, last;
	struct mapping *v;
	uint64_t version;     /* another one with each change, over all sets */
	struct path *program; /* owned: the executable's, which is never unmapped; NULL not known */
};

struct mappings *mappings_new(void); /* NULL: no memory */
struct mappings *mappings_ref(struct mappings *m);
struct mappings *mappings_unref(struct mappings *m);
DEFINE_FREEP(mappings_unrefp, struct mappings *, mappings_unref)

/* Borrowed until the next change; NULL when nothing is mapped there. */
struct mapping *mappings_find(struct mappings *m, uint64_t address);
struct mapping *mappings_at_start(struct mappings *m, uint64_t start);
/* Puts new in, cutting what it overlaps (which keeps its offsets); neighbours without a file are joined.
 * *m is copied first if it is shared. Takes new's path. -E2BIG past max, -ENOMEM, -EINVAL (empty or
 * wrapping range); *m is unharmed then. */
int mappings_replace(struct mappings **m, const struct mapping *new, size_t max);
/* Makes [start, end) of *m what it is in from (which may be NULL: empty). */
int mappings_restore(
	struct mappings **m, const struct mappings *from, uint64_t start, uint64_t end, size_t max);
/* Files that are known in from and mapped alike in m. */
void mappings_carry_files(struct mappings *m, struct mappings *from);
/* The files that the kernel was told of, PROCESS_FILE_BIT(), of what new lies over as something else. */
uint64_t mappings_told_under(const struct mappings *m, const struct mapping *new);
/* Whether new is memory without a file within such memory. */
bool mappings_has_memory(struct mappings *m, const struct mapping *new);
/* What v holds was changed from outside (a file's id). */
void mappings_changed(struct mappings *m);
/* Whether memory without a file lies where the program itself has copied its own text to, for large
 * pages: within a mapping of the executable, which is never unmapped, and aligned as such pages are. */
bool mappings_is_copied_text(struct mappings *m, const struct mapping *new);
/* The same for what /proc said: memory without a file that fills, to the byte, a hole in the mapping of a
 * file. Such holes become the file's again. */
void mappings_fill_copied_text(struct mappings *m);
bool mappings_equal(const struct mappings *a, const struct mappings *b);
static inline bool file_key_equal(const struct file_key *a, const struct file_key *b)
{
	return a->inode == b->inode && a->major == b->major && a->minor == b->minor &&
		(a->generation == b->generation || !a->generation || !b->generation);
}
