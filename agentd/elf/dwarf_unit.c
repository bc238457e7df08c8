/* SPDX-License-Identifier: Apache-2.0 */

/* Functions of one unit, and what was inlined into one of them.
 *
 * libdw's own dwarf_getscopes() walks the whole unit for each address; a unit of a big program has a
 * hundred thousand entries. So the functions that have code are listed once, and only the children
 * of the one that holds the address are looked through. Nearly all are found at the unit's top and
 * within its namespaces, in Rust also within types. Some (gcc's lambdas) are nested in other functions:
 * a second, deep list has these, and is made only when an address was not found in the first.
 *
 * Bounds: ENTRIES_MAX entries looked at for a list, DWARF_FILE_DEPTH_MAX levels. Source: DWARF 5,
 * 2.17 (ranges), 3.3 (subroutines). Runs in the sandbox. */

#include <dwarf.h>
#include <stdlib.h>

#include "agentd/elf/dwarf_private.h"

#define ENTRIES_MAX (16 << 20)

/* ---- ranges ---- */

int dwarf_ranges_add(struct dwarf_ranges *r, uint64_t start, uint64_t end, Dwarf_Off die)
{
	if (start >= end || !start)
		return 0;
	if (r->n == r->room) {
		size_t room = MIN(MAX(r->room * 2, (size_t)64), r->max);
		struct dwarf_range *v;

		if (r->n == r->max)
			return -ENOSPC;
		v = reallocarray(r->v, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		r->v = v;
		r->room = room;
	}
	r->v[r->n++] = (struct dwarf_range){start, end, die};
	return 0;
}

int dwarf_ranges_add_die(struct dwarf_ranges *r, Dwarf_Die *die)
{
	Dwarf_Addr base, start, end;
	ptrdiff_t at = 0;
	int ret = 0;

	while (ret == 0 && (at = dwarf_ranges(die, at, &base, &start, &end)) > 0)
		ret = dwarf_ranges_add(r, start, end, dwarf_dieoffset(die));
	return ret;
}

/* Wider ones first among those that begin together, so that the last before an address is the
 * narrowest. */
static int compare(const void *a, const void *b)
{
	const struct dwarf_range *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	if (x->end != y->end)
		return x->end > y->end ? -1 : 1;
	return x->die < y->die ? -1 : x->die > y->die;
}

void dwarf_ranges_sort(struct dwarf_ranges *r)
{
	/* Most are in order: heap and merge sorts would take their time all the same. */
	for (size_t i = 1; i < r->n; i++) {
		if (compare(&r->v[i - 1], &r->v[i]) > 0) {
			qsort(r->v, r->n, sizeof(*r->v), compare);
			return;
		}
	}
}

const struct dwarf_range *dwarf_ranges_find(const struct dwarf_ranges *r, uint64_t address)
{
	size_t low = 0, high = r->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (r->v[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	/* Ranges that overlap are rare and few; not worth more than a look at the nearest. */
	for (size_t i = low, looked = 0; i-- > 0 && looked < 16; looked++)
		if (address < r->v[i].end)
			return &r->v[i];
	return NULL;
}

/* ---- the list ---- */

struct listing {
	struct dwarf_ranges *ret;
	size_t looked;
	bool types; /* functions lie within types, too */
	bool deep;  /* and within functions and blocks */
};

static bool is_type(int tag)
{
	return tag == DW_TAG_structure_type || tag == DW_TAG_class_type ||
		tag == DW_TAG_union_type || tag == DW_TAG_enumeration_type;
}

static bool to_enter(const struct listing *l, int tag)
{
	switch (tag) {
	case DW_TAG_namespace:
	case DW_TAG_module:
		return true;
	case DW_TAG_subprogram:
	case DW_TAG_lexical_block:
		return l->deep;
	default:
		return (l->types || l->deep) && is_type(tag);
	}
}

static int list_children(struct listing *l, Dwarf_Die *parent, int depth)
{
	Dwarf_Die die;
	int r;

	if (dwarf_child(parent, &die) != 0)
		return 0;
	do {
		int tag = dwarf_tag(&die);

		if (l->looked++ > ENTRIES_MAX)
			return 0;
		r = tag == DW_TAG_subprogram ? dwarf_ranges_add_die(l->ret, &die) : 0;
		if (r != -ENOMEM && depth < DWARF_FILE_DEPTH_MAX && to_enter(l, tag))
			r = list_children(l, &die, depth + 1);
		if (r == -ENOMEM)
			return r;
	} while (dwarf_siblingof(&die, &die) == 0);
	return 0;
}

int dwarf_unit_functions(Dwarf_Die *unit, struct dwarf_ranges *ret, bool deep)
{
	struct listing l = {.ret = ret, .types = dwarf_srclang(unit) == DW_LANG_Rust, .deep = deep};
	int r = list_children(&l, unit, 0);

	if (r == 0)
		dwarf_ranges_sort(ret);
	return r;
}

/* ---- the chain ---- */

static bool holds(Dwarf_Die *die, uint64_t address)
{
	return dwarf_haspc(die, address) == 1;
}

/* The child of parent through which the chain goes on: an inlined function, or a block around some.
 * A block without addresses of its own may have both. */
static bool next_inner(Dwarf_Die *parent, uint64_t address, Dwarf_Die *ret, int depth)
{
	Dwarf_Die die;

	if (depth > DWARF_FILE_DEPTH_MAX || dwarf_child(parent, &die) != 0)
		return false;
	do {
		int tag = dwarf_tag(&die);

		if (tag == DW_TAG_inlined_subroutine && holds(&die, address)) {
			*ret = die;
			return true;
		}
		if (tag != DW_TAG_lexical_block && tag != DW_TAG_try_block &&
			tag != DW_TAG_catch_block)
			continue;
		if (holds(&die, address))
			return next_inner(&die, address, ret, depth + 1);
		if (!dwarf_hasattr(&die, DW_AT_low_pc) && !dwarf_hasattr(&die, DW_AT_ranges) &&
			next_inner(&die, address, ret, depth + 1))
			return true;
	} while (dwarf_siblingof(&die, &die) == 0);
	return false;
}

size_t dwarf_unit_chain(Dwarf_Die *function, uint64_t address, Dwarf_Die *chain, size_t max)
{
	size_t n = 0;

	chain[n++] = *function;
	while (n < max && next_inner(&chain[n - 1], address, &chain[n], 0))
		n++;
	for (size_t i = 0; i < n / 2; i++) {
		Dwarf_Die other = chain[i];

		chain[i] = chain[n - 1 - i];
		chain[n - 1 - i] = other;
	}
	return n;
}
