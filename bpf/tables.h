/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Memory that the programs and user space share: rows, the index to them, address spaces, and
 * counts of stacks. Four arrays that are mapped into agentd, each one value (counts: one a CPU), so
 * that neither side needs a system call or a hash of the kernel's.
 *
 * One writer each. Rows, index and spaces are written by agentd alone, but for `used` of the index;
 * counts by the program of that CPU alone, but for what user space clears in a half that no program
 * uses. Nothing but `used` is written into rows: a late store of a program would land in what
 * replaced them.
 *
 * Whoever reads what may be replaced meanwhile compares key, sequence number or tag again after the
 * read, and takes what it read for nothing when they changed. User space takes the keys away first,
 * waits until no CPU is in a program that began before (COUNT_IN_HALF), and only then writes other
 * things into that memory; the check after the read is for where that wait does not reach (a store
 * that another CPU does not see yet). So a program says that it is in COUNT_IN_HALF before its first
 * look at any of these arrays and until after its last. */

#include "bpf/unwind.h"

/* ---- rows: pages of text, in slots
 * ---------------------------------------------------------------------------------------------- */

/* The arena is cut into units; a slot is a run of units that begins with its head:
 *
 *   struct rows_slot | pc: u16[n_rows] | rule: u16[n_rows] | pad to 16 | struct unwind_rule[n_rules]
 *
 * Between two samples the program has used the caches for itself: a look-up costs the lines that it
 * touches, not its turns. So the head says where each part of the page begins among the rows, and what
 * is left to search lies in one line or two, where a search of the whole page touched seven.
 *
 * A page carries its own rules, those that its rows name, the fixed ones first: a slot stands for
 * itself, so that it can be replaced without asking what else names its rules.
 *
 * To the kernel the arena is an array of chunks, since before 6.9 or so no value may be larger than
 * KMALLOC_MAX_SIZE (4 MiB); mapped, they follow each other without a gap. No slot crosses from one
 * chunk into the next. */
#define ROWS_CHUNK_SHIFT     20
#define ROWS_CHUNK           (1 << ROWS_CHUNK_SHIFT) /* value_size of the map; max_entries: how many */
#define ROWS_UNIT_SHIFT      10
#define ROWS_UNIT            (1 << ROWS_UNIT_SHIFT)
#define ROWS_MAX             16384 /* in a slot; UNWIND_PAGE_ROWS */
#define ROWS_RULES_MAX       2048  /* in a slot */
#define ROWS_PART_SHIFT      10    /* bytes of text */
#define ROWS_PARTS           (UNWIND_PAGE_SIZE >> ROWS_PART_SHIFT)
#define ROWS_PART_TURNS      (ROWS_PART_SHIFT + 1) /* of a search among a part's rows */
#define ROWS_KEY(file, page) ((sample_u64)(file) << 32 | (sample_u32)(page))

struct rows_slot {
	sample_u64 key; /* ROWS_KEY(); 0: nothing here */
	sample_u32 seq; /* another one as soon as the contents are no longer to be believed */
	sample_u32 pad;
	sample_u32 n_rows;   /* 1 to ROWS_MAX; the first has pc 0 */
	sample_u32 n_rules;  /* UNWIND_FIXED_RULES to ROWS_RULES_MAX */
	sample_u32 rules_at; /* bytes from the head */
	sample_u32 size;     /* bytes of the whole slot */
	/* The row in which each part of the page begins; behind the last one, the last row. */
	sample_u16 part[ROWS_PARTS + 1];
	sample_u16 pad2[7];
};
_Static_assert(sizeof(struct rows_slot) == 176, "slot");
#define ROWS_SLOT_MAX (sizeof(struct rows_slot) + ROWS_MAX * 4 + ROWS_RULES_MAX * 16)

/* From a key to its slot: sets of four ways, a cache line each. The set: ROWS_SET(). A way's key is
 * written last and cleared first. After a search: way.key, way.unit, slot.key and slot.seq again. */
#define ROWS_WAYS 4
struct rows_way {
	sample_u64 key;
	sample_u32 unit; /* where the slot begins */
	sample_u32
		used; /* not 0: looked at since the hand of the clock came by last. Programs set it
			    where it is 0; of another page by then, it does no harm. */
};
struct rows_set {
	struct rows_way way[ROWS_WAYS];
};
_Static_assert(sizeof(struct rows_set) == 64, "set");
/* bits: of the number of sets, 1 to 20 */
#define ROWS_SET(key, bits) ((sample_u32)(((key)*0x9e3779b97f4a7c15ULL) >> (64 - (bits))))

/* ---- spaces: what an image has mapped executable
 * -------------------------------------------------------------------------------- */

enum space_kind {
	SPACE_FILE = 1,    /* rows by (file, address + bias) */
	SPACE_ANON = 2,    /* memory without a file: frames are (file, address), bias 0, no rows */
	SPACE_UNKNOWN = 3, /* user space does not know its file yet: a miss */
};

/* Sorted by start, none overlaps another. Units of one array: a block is a head, then its maps. */
struct space_map {
	sample_u64 start, end; /* addresses, even; end is the first one behind */
	sample_u64 bias;       /* file offset - address */
	sample_u32 file;       /* id of user space; SPACE_UNKNOWN: 0 */
	sample_u32 kind;       /* enum space_kind */
};
_Static_assert(sizeof(struct space_map) == 32, "map");

struct space_head {
	/* As in the verdicts that name this block; another one as soon as it is not to be believed.
	 * Odd, and addresses of maps are even: no map is taken for a head. */
	sample_u32 tag;
	sample_u32 n; /* maps behind it, at most SPACE_MAPS_MAX */
	sample_u64 pad[3];
};
_Static_assert(sizeof(struct space_head) == sizeof(struct space_map), "a head is a unit");
#define SPACE_MAPS_MAX 4095 /* what 12 turns of a search reach */

/* ---- counts: stacks that were sent
 * ------------------------------------------------------------------------------------------------ */

/* Two halves a CPU; settings.half says which one is filled. User space turns them over, waits until
 * no program is in the other one, reads and clears it: a stack is sent again in each half, so what
 * a count stands for is never older than that. A program stores 1 + settings.half in COUNT_IN_HALF,
 * then reads settings.half again and stores that instead if it changed: user space, which turns
 * settings.half over first and looks at COUNT_IN_HALF then, cannot miss it. */
#define COUNT_WAYS 4
#define COUNT_SETS 512 /* a power of two */

struct count_entry {
	sample_u64 id;      /* record_sample.id; 0: free */
	sample_u64 samples; /* further ones, after the one that was sent */
	sample_u64 last_ns; /* CLOCK_MONOTONIC, of the last one */
	sample_u64 pad;
};
struct count_table {
	struct count_entry half[2][COUNT_SETS * COUNT_WAYS]; /* set i: entries 4 i to 4 i + 3 */
};
_Static_assert(sizeof(struct count_table) == 131072, "counts");
