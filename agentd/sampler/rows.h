/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The arena of rows and the index to it (bpf/tables.h), on memory that the programs read: which page
 * lies where, and which one goes when another needs its place. For this room alone. */

#include "agentd/sampler/quiet.h"
#include "bpf/tables.h"

#define ROWS_FILES 1024

struct rows {
	uint8_t *arena;        /* borrowed */
	struct rows_set *sets; /* borrowed */
	struct quiet *quiet;   /* borrowed */
	unsigned bits;         /* of the number of sets */
	uint32_t n_units;
	uint8_t *len;  /* by unit: of the slot that begins there, in units; 0 free */
	uint32_t hand; /* of the clock: a unit that is free or begins a slot */
	uint32_t free_units;
	uint32_t seq;                 /* the last one given */
	bool retired;                 /* some free memory may still be read by a program */
	uint32_t of_file[ROWS_FILES]; /* pages of the files that share a number here */
	uint64_t pages, used_bytes, added, evicted;
};

/* Bits of the index of an arena of that many bytes: two ways for each unit, so that of slots of two
 * units (small ones) one set in 250 has to put one out. */
unsigned rows_index_bits(size_t bytes);
/* arena: bytes of them, a power of two, at least 1 MiB, zeroed; sets: 1 << bits of them, zeroed.
 * -ENOMEM. */
int rows_init(struct rows *r, void *arena, size_t bytes, struct rows_set *sets, unsigned bits,
	struct quiet *quiet);
void rows_deinit(struct rows *r);
/* Replaces what is there for (file, page). -EBADMSG: not a slot; -EAGAIN: the memory is still being
 * read, what was there for the page is gone, try again later. */
int rows_add(struct rows *r, uint32_t file, uint32_t page, const void *slot, size_t size);
/* Borrowed until the next rows_add() or _forget_file(); NULL. Marks it as used. */
const struct rows_slot *rows_find(struct rows *r, uint32_t file, uint32_t page);
void rows_forget_file(struct rows *r, uint32_t file);
