/* SPDX-License-Identifier: Apache-2.0 */

/* Where walks of user stacks ended, by count: a profile whose stacks break off lies about callers, so
 * what share of them is whole, and whose fault the others are, has to be seen at any time.
 *
 * Files are told apart where something could be done about the file. The list is bounded: at the bound
 * the one with the fewest samples goes into a common sum, so that all sums stay exact. Runs in agentd. */

#include "agentd/daemon_stacks.h"

/* In the order of enum walk_end. */
static const struct {
	const char *key, *text;
	bool has_file;
} ends[WALK_ENDS] = {
	[WALK_NONE] = {"none", "no user stack", false},
	[WALK_ROOT] = {"root", "to the root", false},
	[WALK_NO_INFORMATION] = {"no-information", "no unwind information", true},
	[WALK_UNSUPPORTED] = {"unsupported", "unwind information that is not understood", true},
	[WALK_SWITCHED] = {"switched", "the stack goes on elsewhere (goroutine, coroutine)", false},
	[WALK_LOST_REGISTER] = {"lost-register", "a register that is not known any more", true},
	[WALK_UNREADABLE] = {"unreadable", "page not resident", false},
	[WALK_BAD_STACK] = {"bad-stack", "a stack that contradicts the unwind information", true},
	[WALK_DEPTH] = {"depth", "depth limit", false},
	[WALK_JIT] = {"jit", "JIT code without frame pointers", false},
	[WALK_UNMAPPED] = {"unmapped", "a return address outside of all mappings", false},
	[WALK_COMPAT] = {"compat", "32-bit code", false},
	[WALK_SLICE] = {"slice", "deeper than the part of the stack that was kept", false},
	[WALK_REUSED] = {"reused", "addresses given to another file meanwhile", false},
	[WALK_MISS_SPACE] = {"miss-space", "process met for the first time, its stack was not kept",
		false},
	[WALK_MISS_MAP] = {"miss-map", "mapping met for the first time, the stack was not kept",
		false},
	[WALK_MISS_ROWS] = {"miss-rows", "code met for the first time, the stack was not kept",
		false},
};

static uint8_t known(uint8_t end)
{
	return end < WALK_ENDS && ends[end].key ? end : WALK_BAD_STACK;
}

void stacks_reset(struct stacks *s, uint64_t now_unix_ns)
{
	*s = (struct stacks){.since_unix_ns = now_unix_ns};
}

bool stacks_end_has_file(uint8_t end)
{
	return ends[known(end)].has_file;
}

const char *stacks_end_key(uint8_t end)
{
	return ends[known(end)].key;
}

const char *stacks_end_text(uint8_t end)
{
	return ends[known(end)].text;
}

static struct stacks_file *fewest(struct stacks *s)
{
	struct stacks_file *f = &s->files[0];

	for (size_t i = 1; i < s->n_files; i++)
		if (s->files[i].samples < f->samples)
			f = &s->files[i];
	return f;
}

struct stacks_file *stacks_add(
	struct stacks *s, uint8_t end, uint16_t guessed, uint32_t end_file, uint64_t samples)
{
	struct stacks_file *f;

	end = known(end);
	s->ends[end] += samples;
	s->guessed += guessed * samples;
	s->guessed_samples += guessed ? samples : 0;
	if (!ends[end].has_file)
		return NULL;
	for (size_t i = 0; i < s->n_files; i++) {
		f = &s->files[i];
		if (f->file == end_file && f->end == end) {
			f->samples += samples;
			return NULL;
		}
	}
	if (s->n_files < STACKS_FILES) {
		f = &s->files[s->n_files++];
	} else {
		f = fewest(s);
		s->other_files += f->samples;
	}
	*f = (struct stacks_file){.file = end_file, .end = end, .samples = samples};
	return f;
}

uint64_t stacks_walked(const struct stacks *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < WALK_ENDS; i++)
		n += i == WALK_NONE ? 0 : s->ends[i];
	return n;
}

size_t stacks_top(const struct stacks *s, uint16_t *at, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_files; i++) {
		size_t k = n < max ? n++ : max;

		/* Into its place among those that are there; the last falls out. */
		for (; k && s->files[at[k - 1]].samples < s->files[i].samples; k--)
			if (k < max)
				at[k] = at[k - 1];
		if (k < max)
			at[k] = (uint16_t)i;
	}
	return n;
}
