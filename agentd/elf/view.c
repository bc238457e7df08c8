/* SPDX-License-Identifier: Apache-2.0 */

/* Reading a section piece by piece.
 *
 * Call frame information of a big library is 10 MB and a page of text needs 10 KB of it; Go's table of
 * functions is as long, and a name needs a few hundred bytes of it. So they are read through a window
 * that follows what is asked for.
 *
 * Invariant: what view_get() returns lies within the section and within the file, and a file that
 * shrinks meanwhile gives NULL. Sandbox only. */

#include "agentd/elf/view.h"

void view_init(struct view *v, const struct elf_file *elf, uint64_t offset, uint64_t size,
	uint64_t addr, size_t ahead)
{
	*v = (struct view){
		.elf = elf, .offset = offset, .size = size, .addr = addr, .ahead = ahead};
}

void view_deinit(struct view *v)
{
	free(v->whole);
	free(v->window);
	*v = (struct view){0};
}

const uint8_t *view_get(struct view *v, uint64_t pos, size_t len)
{
	uint64_t start;
	size_t want;

	if (pos > v->size || len > v->size - pos || len > VIEW_GET_MAX)
		return NULL;
	if (v->whole)
		return v->whole + pos;
	if (v->window && pos >= v->at && pos - v->at <= v->len && len <= v->len - (pos - v->at))
		return v->window + (pos - v->at);
	/* A search jumps about before it closes in: blocks at fixed places are hit again, from
	 * either side. */
	start = pos - pos % v->ahead;
	if (len > v->ahead - (size_t)(pos - start))
		start = pos;
	want = MAX((size_t)(pos - start) + len, (size_t)MIN((uint64_t)v->ahead, v->size - start));
	if (want > v->room || !v->window) {
		uint8_t *more = realloc(v->window, want + 1);

		if (!more)
			return NULL;
		v->window = more;
		v->room = want;
	}
	v->len = 0;
	if (elf_file_read(v->elf, v->window, want, v->offset + start) < 0)
		return NULL;
	v->at = start;
	v->len = want;
	return v->window + (pos - start);
}

int view_vaddr(const struct elf_file *elf, uint64_t vaddr, uint64_t *offset, uint64_t *len)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);

	for (size_t i = 0; i < n; i++) {
		if (vaddr < s[i].vaddr || vaddr - s[i].vaddr >= s[i].file_size)
			continue;
		*offset = s[i].offset + (vaddr - s[i].vaddr);
		*len = s[i].file_size - (vaddr - s[i].vaddr);
		return 0;
	}
	return -ENOENT;
}
