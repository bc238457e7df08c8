/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The text of /proc/kallsyms as an index. Sandbox only. */

#include "agentd/base/err.h"

struct kallsyms;

int kallsyms_new(struct kallsyms **ret);
struct kallsyms *kallsyms_free(struct kallsyms *k);
DEFINE_FREEP(kallsyms_freep, struct kallsyms *, kallsyms_free)

/* Any piece of the text, in order; lines may be cut anywhere. -E2BIG, -ENOMEM. */
int kallsyms_add(struct kallsyms *k, const char *text, size_t len);
/* After the last piece. -EPERM: all addresses are zero (kernel.kptr_restrict); -ENODATA: no function. */
int kallsyms_finish(struct kallsyms *k);
/* The function that holds an address, and its module: "vmlinux" for the kernel itself; with brackets for code
 * that the kernel made while it ran ("[bpf]", "[__builtin__ftrace]"). False: none. Borrowed. */
bool kallsyms_find(
	const struct kallsyms *k, uint64_t address, const char **name, const char **module);
/* The same, and the addresses [*from, *to) that it is the answer for. */
bool kallsyms_find_range(const struct kallsyms *k, uint64_t address, const char **name,
	const char **module, uint64_t *from, uint64_t *to);
size_t kallsyms_functions(const struct kallsyms *k);
size_t kallsyms_memory(const struct kallsyms *k);
