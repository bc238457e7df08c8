/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The memory in which one CPU makes its sample, and the look-ups of a walk: the map of an address,
 * the rule of a place in a file (bpf/tables.h).
 *
 * Scratch memory is a plain array with one value a CPU, since values of a per-CPU one end at 32
 * KiB. Programs on perf events are neither preempted nor nested; `busy` is for a kernel where that
 * should change. Numbers that change from frame to frame are kept there and not in registers: the
 * verifier follows a register through each of its values, and then again through all that comes
 * behind.
 *
 * All indices are masked or compared right before their use, whatever user space wrote: rows and
 * spaces may be replaced while they are read. What was found is compared with key and sequence
 * number again before it is believed. */

#include "bpf/wake.h"

#define UNWIND_READ(ctx, to, size, address) read_stack(ctx, to, size, address)
#define UNWIND_CODE(ctx, map, address, to, size)                                                   \
	bpf_probe_read_user(to, size, (const void *)(address))
#define UNWIND_FIND_MAP(ctx, address, map)       find_map(ctx, address, map)
#define UNWIND_FIND_RULE(ctx, key, offset, rule) find_rule(ctx, key, offset, rule)
#define UNWIND_EMIT(ctx, frame)                  emit_frame(ctx, &(frame))
#define UNWIND_KNOWN(ctx, pc)                    known_at(ctx, pc)
#define UNWIND_PC(ctx, i)                        rows_pc(ctx, i)

struct scratch;
struct rows_view;
struct unwind_known;
static __always_inline int read_stack(void *ctx, void *to, const __u32 size, __u64 address);
static __always_inline struct unwind_known *known_at(void *ctx, __u64 pc);
struct sample_frame;
static __always_inline int find_map(void *ctx, __u64 address, struct space_map *ret);
static __always_inline int find_rule(void *ctx, __u64 key, __u32 offset, struct unwind_rule *ret);
static __always_inline int emit_frame(void *ctx, const struct sample_frame *frame);
static __always_inline __u32 rows_pc(const void *view, __u32 i);

#include "bpf/unwind_walk.h"

/* A record with room behind its flexible array. */
#pragma clang diagnostic ignored "-Wgnu-variable-sized-type-not-at-end"

#define WINDOW 256 /* bytes of the stack that are read at once */

/* Places in the code are remembered in the order in which walks met them, a cache line each: between
 * two samples the program has used the caches for itself, and what lies in a row is fetched ahead.
 * Where a place is: after the one before it, as last time; else as its hash says. */
#define PLACES       512    /* the oldest make room */
#define PLACE_BITS   10     /* of the hash; more than one place may want to be found by one */
#define PLACES_START PLACES /* stands for the leaf: only what follows it counts */

struct place {
	struct unwind_known known;
	__u32 next; /* the place that followed last time */
	__u32 pad[3];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct place) == 64, "place");

struct scratch {
	__u32 busy;
	__u32 n_frames; /* in the record */
	__u32 n_user;   /* of them, of user space */
	__u32 n_stack;  /* in addresses */
	__u64 hash;     /* of the frames */
	__u32 space;    /* unit of the first map */
	__u32 n_maps;
	struct unwind_walk walk;
	__u64 leaf_pc;                 /* as it was when the walk began */
	struct sample_verdict verdict; /* a copy; generation 0: there is none */
	__u32 half;                    /* of the counts, 0 or 1; 2: not to be counted */
	__u32 has_user;                /* the task has a user stack */
	__u32 walked;                  /* by a space */
	__u64 slice_debt;              /* ns; see slice.h */
	__u64 doubtful_debt;           /* the same of samples with guesses */
	__u64 slice_at;                /* bytes of the slice that is being read */
	__u64 window_at;
	__u64 window_len; /* 0: nothing was read */
	__u8 window[WINDOW + 16];
	struct place places[PLACES + 1];
	__u16 place_of[1 << PLACE_BITS];
	__u32 place_last, place_new; /* the one that was found last; where the next new one goes */
	__u64 addresses[STACK_MAX];
	user_regs saved;
	struct {
		struct record_sample head;
		struct sample_frame frames[SAMPLE_MAX_FRAMES];
		struct sample_stack slice; /* where it may begin at the latest; see slice.h */
		__u8 room[SAMPLE_STACK_MAX + SAMPLE_STACK_PAGE];
	} record;
} __attribute__((aligned(64)));

/* Mapped by nobody; but values of such arrays begin at a page, and so lie as they are aligned. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set at load: possible CPUs */
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&scratch, &cpu);
}

/* ---- frames
 * ------------------------------------------------------------------------------------------------ */

/* Keyed by what it begins with (hash_key), so that nobody outside knows which stacks meet. */
static __always_inline __u64 hash_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9fb21c651e98df25ULL;
	return hash ^ hash >> 32;
}

/* False: full. */
static __always_inline bool add_frame(struct scratch *s, __u64 kind_flags_file, __u64 offset)
{
	__u32 at = *(volatile __u32 *)&s->n_frames;
	__u64 *to;

	if (at >= SAMPLE_MAX_FRAMES)
		return false;
	to = (__u64 *)&s->record.frames[at];
	to[0] = kind_flags_file;
	to[1] = offset;
	s->hash = hash_mix(hash_mix(s->hash, kind_flags_file), offset);
	s->n_frames = at + 1;
	return true;
}

static __always_inline int emit_frame(void *ctx, const struct sample_frame *frame)
{
	struct scratch *s = ctx;

	if (s->n_user >= max_user_frames ||
		!add_frame(s, frame->kind | frame->flags << 8 | (__u64)frame->file << 32,
			frame->offset))
		return WALK_DEPTH;
	s->n_user++;
	return 0;
}

static __always_inline void add_marker(struct scratch *s, __u64 marker)
{
	add_frame(s, FRAME_MARKER, marker);
}

/* ---- the stack
 * ------------------------------------------------------------------------------------------------- */

/* A read of some bytes costs as much as one of some hundred, and the frames of a stack lie side by
 * side: a window of it is read, within one page, so that a page that is not there takes nothing else
 * with it. size is 8 or 16. */
static __always_inline int read_stack(void *ctx, void *to, const __u32 size, __u64 address)
{
	struct scratch *s = ctx;
	__u64 at = address - s->window_at;

	if (UNWIND_RARE(at + size > s->window_len || at > WINDOW)) {
		__u64 start = address & ~7ULL, last = (address | 4095) - (WINDOW - 1);

		start = start < last ? start : last;
		at = address - start;
		s->window_len = 0;
		if (at + size > WINDOW ||
			bpf_probe_read_user(s->window, WINDOW, (const void *)start) != 0)
			return bpf_probe_read_user(to, size, (const void *)address);
		s->window_at = start;
		s->window_len = WINDOW;
	}
	at &= WINDOW - 1;
	if (size == 16)
		__builtin_memcpy(to, s->window + at, 16);
	else
		__builtin_memcpy(to, s->window + at, 8);
	return 0;
}

/* ---- spaces
 * ------------------------------------------------------------------------------------------------ */

static __always_inline const struct space_map *space_unit(const void *units, __u64 unit)
{
	return units + (unit & spaces_mask) * sizeof(struct space_map);
}

static __always_inline const void *space_units(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&spaces, &zero);
}

/* The last map that begins at or below the address; 12 turns reach all of SPACE_MAPS_MAX. */
static __always_inline int find_map(void *ctx, __u64 address, struct space_map *ret)
{
	struct scratch *s = ctx;
	const void *units = space_units();
	const struct space_map *map;
	__u64 at = s->space, left = s->n_maps;

	if (!units)
		return WALK_MISS_SPACE;
	for (int i = 0; i < 12; i++) {
		__u64 half = left >> 1, mask;

		if (left <= 1)
			break;
		mask = ~-(__u64)(space_unit(units, at + half)->start > address);
		UNWIND_OPAQUE(mask);
		at += half & mask;
		left -= half;
	}
	map = space_unit(units, at);
	if (!left || address - map->start >= map->end - map->start)
		return WALK_MISS_MAP;
	*ret = *map;
	return 0;
}

/* ---- rows
 * -------------------------------------------------------------------------------------------------- */

struct rows_view {
	const void *chunk;
	__u64 pcs; /* bytes into the chunk */
};

static __always_inline __u32 rows_pc(const void *ctx, __u32 i)
{
	const struct rows_view *view = ctx;

	return *(const __u16 *)(view->chunk + ((view->pcs + 2 * (__u64)i) & (ROWS_CHUNK - 2)));
}

static __always_inline struct rows_way *find_way(struct rows_set *set, __u64 key)
{
	struct rows_way *way = &set->way[0];

	if (way->key == key)
		return way;
	way = &set->way[1];
	if (way->key == key)
		return way;
	way = &set->way[2];
	if (way->key == key)
		return way;
	way = &set->way[3];
	return way->key == key ? way : NULL;
}

static __always_inline int find_rule(void *ctx, __u64 key, __u32 offset, struct unwind_rule *ret)
{
	const volatile struct rows_slot *slot;
	struct rows_view view;
	struct rows_set *set;
	struct rows_way *way;
	__u32 index = ROWS_SET(key, index_bits), chunk, seq, n, part, first, row, unit;
	__u64 at;

	set = bpf_map_lookup_elem(&rows_index, &index);
	if (!set)
		return WALK_MISS_ROWS;
	way = find_way(set, key);
	if (!way)
		return WALK_MISS_ROWS;
	unit = *(volatile __u32 *)&way->unit;
	chunk = unit >> (ROWS_CHUNK_SHIFT - ROWS_UNIT_SHIFT);
	view.chunk = bpf_map_lookup_elem(&rows, &chunk);
	if (!view.chunk)
		return WALK_MISS_ROWS;
	at = (__u64)unit * ROWS_UNIT & (ROWS_CHUNK - ROWS_UNIT);
	slot = view.chunk + at;
	if (slot->key != key)
		return WALK_MISS_ROWS;
	seq = slot->seq;
	n = slot->n_rows;
	if (n - 1 >= ROWS_MAX)
		return WALK_MISS_ROWS;
	view.pcs = at + sizeof(struct rows_slot);
	part = offset >> ROWS_PART_SHIFT & (ROWS_PARTS - 1);
	first = slot->part[part];
	row = unwind_search(
		&view, first, (__u16)(slot->part[part + 1] - first) + 1, offset, ROWS_PART_TURNS);
	row = rows_pc(&view, n + row);
	at = (at + slot->rules_at + sizeof(struct unwind_rule) * (__u64)row) &
		(ROWS_CHUNK - sizeof(struct unwind_rule));
	*ret = *(const struct unwind_rule *)(view.chunk + at);
	if (slot->key != key || slot->seq != seq || *(volatile __u64 *)&way->key != key ||
		*(volatile __u32 *)&way->unit != unit)
		return WALK_MISS_ROWS;
	if (!way->used)
		way->used = 1;
	return 0;
}

/* A page that is walked by what is remembered of it is looked at, too, and the clock should know. */
static __always_inline void touch_rows(const struct unwind_known *known)
{
	__u64 key = ROWS_KEY(known->file, (known->pc + known->bias) >> UNWIND_PAGE_SHIFT);
	__u32 index = ROWS_SET(key, index_bits);
	struct rows_set *set = bpf_map_lookup_elem(&rows_index, &index);
	struct rows_way *way = set ? find_way(set, key) : NULL;

	if (way && !way->used)
		way->used = 1;
}

static __always_inline struct place *place_at(struct scratch *s, __u32 i)
{
	return &s->places[i < PLACES ? i : PLACES];
}

/* Where the place is remembered, or will be. */
static __always_inline struct unwind_known *known_at(void *ctx, __u64 pc)
{
	struct scratch *s = ctx;
	struct place *last = place_at(s, *(volatile __u32 *)&s->place_last), *place;
	__u32 i = *(volatile __u32 *)&last->next;
	__u16 *by_hash;

	place = place_at(s, i);
	if (UNWIND_RARE(place->known.pc != pc || place->known.tag != s->walk.tag)) {
		by_hash = &s->place_of[(pc * 0x9e3779b97f4a7c15ULL) >> (64 - PLACE_BITS)];
		i = *by_hash;
		place = place_at(s, i);
		if (place->known.pc != pc || place->known.tag != s->walk.tag) {
			i = s->place_new & (PLACES - 1);
			s->place_new = i + 1;
			*by_hash = i;
			place = place_at(s, i);
			place->known.pc = 0;
		}
		last->next = i;
	} else if (UNWIND_RARE(!(++place->known.uses & 15))) {
		touch_rows(&place->known);
	}
	s->place_last = i;
	return &place->known;
}
