/* SPDX-License-Identifier: Apache-2.0 */

/* A section by name, compressed or not.
 *
 * Compressed sections (only .debug_frame is ever compressed) cannot be read in pieces: they are inflated
 * whole, to a bound. Source: gABI chapter 4 (SHF_COMPRESSED); binutils' .zdebug. Sandbox only. */

#include <elf.h>
#include <endian.h>

#include "agentd/base/compress.h"
#include "agentd/unwind/unwind_private.h"

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
