/* SPDX-License-Identifier: Apache-2.0 */

/* Reading a section piece by piece.
 *
 * Call frame information of a big library is 10 MB and a page of text needs 10 KB of it, so it is
 * read through a window that follows what is asked for. Compressed sections (only .debug_frame is
 * ever compressed) cannot be read in pieces: they are inflated whole, to a bound.
 *
 * Invariant: what view_get() returns lies within the section and within the file, and a file that
 * shrinks meanwhile gives NULL. Source: gABI chapter 4 (SHF_COMPRESSED); binutils' .zdebug.
 * Sandbox only. */

#include <elf.h>
#include <endian.h>

#include "agentd/base/compress.h"
#include "agentd/unwind/unwind_private.h"

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

	if (pos > v->size || len > v->size - pos || len > UNWIND_ENTRY_MAX)
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

static int inflate_whole(struct view *v, const struct elf_file *elf, uint64_t offset, uint64_t size,
	uint64_t claimed, bool zstd)
{
	_cleanup_free_ uint8_t *packed = NULL;
	_cleanup_buf_ struct buf out;
	int r;

	buf_init(&out, 0);
	if (claimed > UNWIND_DEBUG_FRAME_MAX || size > UNWIND_DEBUG_FRAME_MAX)
		return -EFBIG;
	packed = malloc(size + 1);
	if (!packed)
		return -ENOMEM;
	r = elf_file_read(elf, packed, size, offset);
	if (r < 0)
		return r;
	r = zstd ? decompress_zstd(packed, size, UNWIND_DEBUG_FRAME_MAX, &out)
		 : decompress_zlib(packed, size, UNWIND_DEBUG_FRAME_MAX, &out);
	if (r < 0)
		return r;
	*v = (struct view){.elf = elf, .size = out.len, .whole = TAKE_PTR(out.data)};
	return v->whole ? 0 : -EBADMSG;
}

int view_section(struct view *v, const struct elf_file *elf, const char *name, size_t ahead)
{
	const struct elf_section *s = elf_file_find_name(elf, name);
	bool old = !strncmp(name, ".z", 2);
	Elf64_Chdr head;
	uint8_t magic[12];
	uint64_t size;
	int r;

	if (!s || s->type == SHT_NOBITS || s->size == 0)
		return -ENOENT;
	if (old) {
		if (s->size < sizeof(magic))
			return -EBADMSG;
		r = elf_file_read(elf, magic, sizeof(magic), s->offset);
		if (r < 0)
			return r;
		if (memcmp(magic, "ZLIB", 4) != 0)
			return -EBADMSG;
		memcpy(&size, magic + 4, sizeof(size));
		return inflate_whole(v, elf, s->offset + sizeof(magic), s->size - sizeof(magic),
			be64toh(size), false);
	}
	if (s->flags & SHF_COMPRESSED) {
		if (s->size < sizeof(head))
			return -EBADMSG;
		r = elf_file_read(elf, &head, sizeof(head), s->offset);
		if (r < 0)
			return r;
		if (head.ch_type != ELFCOMPRESS_ZLIB && head.ch_type != 2 /* zstd */)
			return -EBADMSG;
		return inflate_whole(v, elf, s->offset + sizeof(head), s->size - sizeof(head),
			head.ch_size, head.ch_type == 2);
	}
	view_init(v, elf, s->offset, s->size, s->addr, ahead);
	return 0;
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
