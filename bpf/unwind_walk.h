/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* A walk, frame by frame, compiled into the programs in the kernel and into user space, so that a
 * walk that the kernel could not finish goes on in user space as if nothing had happened.
 *
 * One turn of unwind_walk_turn(): the mapping of the frame's pc (the one of the frame before, most of
 * the time), its row, the frame itself, the step to its caller. Where there are no rows, or none
 * that can be read: by the frame pointer, if it is one (above sp, rising, aligned, and what lies
 * there returns into executable memory); and a leaf without even that by the nearest word of its
 * stack that is an address behind a call instruction. Both are marked FRAME_APPROXIMATE.
 *
 * The includer says, before including this:
 *   UNWIND_READ(ctx, to, size, address)    0 when all bytes were read
 *   UNWIND_FIND_MAP(ctx, address, map)     fills *map, struct space_map: 0; WALK_UNMAPPED where
 *                                          nothing executable is; WALK_MISS_*
 *   UNWIND_FIND_RULE(ctx, key, offset, rule)   fills *rule from the page's rows: 0; WALK_MISS_ROWS
 *   UNWIND_EMIT(ctx, frame)                takes one struct sample_frame: 0; WALK_DEPTH: full
 * Each of the three may return other ends of enum walk_end where it cannot go on (WALK_SLICE in
 * user space). */

#include "bpf/tables.h"
#include "bpf/unwind_step.h"
