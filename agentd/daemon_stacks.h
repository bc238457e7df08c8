/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How far the stacks of user space went, in samples, since profiling began. Pure. Runs in agentd. */

#include "agentd/base/macros.h"
#include "bpf/sample.h"

#define STACKS_FILES 256 /* files in which walks ended, told apart */

struct stacks_file {
	uint32_t file;
	uint8_t end; /* enum walk_end */
	uint64_t samples;
	char name[160]; /* path; "" not known */
};

struct stacks {
	uint64_t since_unix_ns;
	uint64_t ends[WALK_ENDS];
	uint64_t guessed; /* frames, times samples */
	uint64_t guessed_samples;
	struct stacks_file files[STACKS_FILES];
	size_t n_files;
	uint64_t other_files; /* samples of files that were put out of the list */
};

void stacks_reset(struct stacks *s, uint64_t now_unix_ns);
/* samples more ended so. A file that is new in the list is returned, for its name to be filled in; else
 * NULL. end_file matters only where stacks_end_has_file(). */
struct stacks_file *stacks_add(
	struct stacks *s, uint8_t end, uint16_t guessed, uint32_t end_file, uint64_t samples);
bool stacks_end_has_file(uint8_t end);
/* Of those with a user stack. */
uint64_t stacks_walked(const struct stacks *s);
/* The files by samples, most first: indices into files; their number. */
size_t stacks_top(const struct stacks *s, uint16_t *at, size_t max);

/* "no-information": never changes, for programs. And for people: a sentence's part, "%s" or so has no
 * place in it. */
const char *stacks_end_key(uint8_t end);
const char *stacks_end_text(uint8_t end);
