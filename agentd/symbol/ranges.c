/* SPDX-License-Identifier: Apache-2.0 */

/* Ranges of addresses that have one name. Programs come to ever new addresses within the same functions, the kernel's
 * above all, and each question may make the symbolizer read the file again; a function asked about once is known
 * whole. Sorted, since functions are few (thousands) and new ones soon become rare. Runs in agentd. */

#include <stdlib.h>
#include <string.h>

#include "agentd/symbol/ranges.h"

#define RANGES_MAX 16384 /* of one file: 400 KB; then it begins anew */

void symbol_ranges_deinit(struct symbol_ranges *r)
{
	free(r->list);
	*r = (struct symbol_ranges){0};
}

/* The first range that ends behind address. */
static size_t first_behind(const struct symbol_ranges *r, uint64_t address)
{
	size_t low = 0, high = r->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (r->list[middle].to <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool symbol_ranges_find(const struct symbol_ranges *r, uint64_t address, uint64_t *key)
{
	size_t i = first_behind(r, address);

	if (i == r->n || r->list[i].from > address)
		return false;
	*key = r->list[i].key;
	return true;
}

void symbol_ranges_set(struct symbol_ranges *r, uint64_t from, uint64_t to, uint64_t key)
{
	size_t first = first_behind(r, from), end = first;
	bool alone = to - from <= 1; /* then there is nothing to keep, only to take away */

	while (end < r->n && r->list[end].from < to)
		end++;
	if (alone && first == end)
		return;
	if (r->n == r->room && first == end) {
		size_t room = r->room ? r->room * 2 : 64;
		struct symbol_range *grown =
			room > RANGES_MAX ? NULL : reallocarray(r->list, room, sizeof(*grown));

		if (!grown) {
			r->n = 0;
			return;
		}
		r->list = grown;
		r->room = room;
	}
	memmove(r->list + first + !alone, r->list + end, (r->n - end) * sizeof(*r->list));
	r->n = r->n - (end - first) + !alone;
	if (!alone)
		r->list[first] = (struct symbol_range){from, to, key};
}
