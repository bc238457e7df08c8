/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The walk in user space (bpf/unwind_walk.h): of a sample that the kernel could not finish, from its
 * slice of the stack. Stateless between tries: what is not there yet is asked for by the callbacks,
 * and the walk is begun again when it has come. Runs in agentd; reads no process's memory. */

#include "agentd/base/err.h"
#include "bpf/sample.h"
#include "bpf/tables.h"

struct unwind_walk_ops {
	/* The executable mapping of an address: 0, -ENOENT: none, -EAGAIN: its file is not known yet. */
	int (*map)(void *userdata, uint64_t address, struct space_map *ret);
	/* As process_ops.rows. */
	int (*rows)(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret);
	/* Bytes of a mapped file (for the look at a call instruction): their number or -errno. */
	ssize_t (*code)(void *userdata, uint32_t file, uint64_t offset, void *to, size_t n);
};

struct unwind_walk_result {
	size_t n_frames; /* in frames, those that were there included */
	uint8_t end;     /* enum walk_end */
	uint16_t guessed;
	uint32_t end_file;
};

/* Goes on from stack (len: bytes of it that are there; checked) into frames, of which n are filled and
 * max may be, user frames (all but the kernel's) max_user of them; the marker that the end wants is added. 0; -EAGAIN:
 * *ret is what there is so far (WALK_MISS_ROWS or WALK_MISS_MAP), for who will not wait; -EBADMSG (the slice
 * contradicts itself: nothing was added). */
int unwind_walk(const struct sample_stack *stack, size_t len, const struct unwind_walk_ops *ops,
	void *userdata, struct sample_frame *frames, size_t n, size_t max_user, size_t max,
	struct unwind_walk_result *ret);
