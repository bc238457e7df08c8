/* SPDX-License-Identifier: Apache-2.0 */

/* Where a function begins, when nothing says what it is called.
 *
 * Nearly every file on a host has unwind tables, stripped or not, and the linker sorts their addresses into
 * .eh_frame_hdr. An entry's beginning is its function's, and its entry in .eh_frame says how long that is. So all
 * addresses of a function can go by one of them, and a profile of a stripped program has one frame a function, not
 * one an instruction.
 *
 * The table is searched where it stands; for static programs, which have none, one is made. Only what linkers write is
 * understood (offsets of 4 bytes from the table itself); other files have no extents here. Of an entry's common part only the encoding of addresses matters, which
 * is nearly always that of the last one.
 *
 * Invariants: a search ends whatever the table holds; what is answered contains the address and is at most
 * EXTENT_MAX long. Sandbox only. Source: LSB 5.0, 10.5 and 10.6. */

#include <elf.h>

#include "agentd/elf/cursor.h"
#include "agentd/elf/extent.h"
#include "agentd/elf/view.h"

#define WINDOW_TABLE   4096
#define WINDOW_ENTRIES 4096
#define ENTRY_MAX      256 /* bytes of an entry that are looked at */
#define EXTENT_MAX     (64ULL << 20)
#define SCAN_MAX       (64ULL << 20) /* bytes of a section that are read through */
#define OWN_MAX        262144        /* functions in a table of our own */
/* Encodings of DW_EH_PE_*: the format in the low four bits, what it counts from above. */
#define PE_UDATA4  0x03
#define PE_DATA_S4 0x3b /* from the table on, 4 bytes with a sign */
#define PE_OMIT    0xff
#define PE_FORMAT  0x07
#define PE_SIGNED  0x08
#define PE_PCREL   0x10

struct extent {
	uint64_t start, length;
};

struct elf_extents {
	struct view table, entries;
	uint64_t table_vaddr;
	uint64_t n;
	struct extent *own; /* in the table's place; NULL: there is one */
	/* The last common part that was read. */
	uint64_t cie;
	uint8_t encoding;
};

struct elf_extents *elf_extents_close(struct elf_extents *x)
{
	if (x) {
		view_deinit(&x->table);
		view_deinit(&x->entries);
		free(x->own);
		free(x);
	}
	return NULL;
}

size_t elf_extents_memory(const struct elf_extents *x)
{
	return x ? sizeof(*x) + x->table.room + x->entries.room +
			(x->own ? x->n * sizeof(*x->own) : 0)
		 : 0;
}

/* ---- entries ----------------------------------------------------------------------------------------------- */

/* What is there of [vaddr, vaddr + ENTRY_MAX). */
static struct cursor entry_at(struct elf_extents *x, uint64_t vaddr)
{
	uint64_t pos = vaddr - x->entries.addr;
	size_t len = 0;
	const uint8_t *p = NULL;

	if (vaddr >= x->entries.addr && pos < x->entries.size) {
		len = (size_t)MIN((uint64_t)ENTRY_MAX, x->entries.size - pos);
		p = view_get(&x->entries, pos, len);
	}
	return (struct cursor){p, p ? p + len : NULL, !p};
}

/* How addresses are written by the entries that share this common part. */
static uint8_t encoding_of(struct elf_extents *x, uint64_t vaddr)
{
	struct cursor c = entry_at(x, vaddr);
	uint8_t version, encoding = 0;
	const char *augmentation;

	if (vaddr == x->cie)
		return x->encoding;
	cursor_take(&c, 8); /* length, and 0 for a common part */
	version = cursor_u8(&c);
	if (c.bad || version != 1)
		return PE_OMIT;
	augmentation = (const char *)c.at;
	while (cursor_u8(&c))
		;
	if (c.bad || augmentation[0] != 'z')
		return *augmentation || c.bad ? PE_OMIT : 0;
	cursor_uleb(&c);
	cursor_sleb(&c);
	cursor_u8(&c); /* the return address's register */
	cursor_uleb(&c);
	for (const char *a = augmentation + 1; *a && *a != 'R'; a++) {
		static const uint8_t sizes[] = {8, 0, 2, 4, 8, 0, 2, 4};

		if (*a == 'L')
			cursor_u8(&c);
		else if (*a == 'P')
			cursor_take(&c, sizes[cursor_u8(&c) & PE_FORMAT]);
		else if (*a != 'S' && *a != 'B')
			return PE_OMIT;
	}
	if (strchr(augmentation, 'R'))
		encoding = cursor_u8(&c);
	if (c.bad)
		return PE_OMIT;
	x->cie = vaddr;
	x->encoding = encoding;
	return encoding;
}

/* An entry's code, as [*start, *start + *length), and where the next entry is. False: it has none (a common part) or is
 * not understood; *next is set all the same, 0: there is no next. */
static bool read_entry(
	struct elf_extents *x, uint64_t at, uint64_t *start, uint64_t *length, uint64_t *next)
{
	struct cursor c = entry_at(x, at);
	uint32_t size = cursor_u32(&c), back = cursor_u32(&c);
	uint8_t encoding;
	int32_t v;

	*next = c.bad || !size || size == UINT32_MAX ? 0 : at + 4 + size;
	if (!*next || !back || back > at + 4)
		return false;
	encoding = encoding_of(x, at + 4 - back);
	if (encoding == PE_OMIT || (encoding & ~(PE_FORMAT | PE_SIGNED | PE_PCREL)))
		return false;
	c = entry_at(x, at);
	cursor_take(&c, 8);
	switch (encoding & PE_FORMAT) {
	case 0:
	case 4:
		*start = cursor_u64(&c);
		*length = cursor_u64(&c);
		break;
	case 3:
		v = (int32_t)cursor_u32(&c);
		*start = encoding & PE_SIGNED ? (uint64_t)(int64_t)v : (uint32_t)v;
		*length = cursor_u32(&c);
		break;
	default:
		return false;
	}
	if (encoding & PE_PCREL)
		*start += at + 8;
	return !c.bad;
}

/* ---- a table of our own ------------------------------------------------------------------------------------ */

static int compare_extents(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Static programs have no table of the linker's: the section is read through once. */
static int scan(struct elf_extents *x)
{
	uint64_t at = x->entries.addr, end = at + x->entries.size, next, start, length;
	size_t room = 0;

	for (; at && at < end; at = next) {
		if (!read_entry(x, at, &start, &length, &next) || !length || length > EXTENT_MAX)
			continue;
		if (x->n == OWN_MAX)
			break;
		if (x->n == room) {
			struct extent *grown;

			room = room ? room * 2 : 1024;
			grown = reallocarray(x->own, room, sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			x->own = grown;
		}
		x->own[x->n++] = (struct extent){start, length};
	}
	if (x->n)
		qsort(x->own, x->n, sizeof(*x->own), compare_extents);
	return 0;
}

/* ---- opening and looking up -------------------------------------------------------------------------------- */

static bool find_header(const struct elf_file *elf, Elf64_Phdr *ret)
{
	Elf64_Ehdr h;
	uint64_t at;

	if (elf_file_read(elf, &h, sizeof(h), 0) < 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
		h.e_phentsize != sizeof(*ret))
		return false;
	for (unsigned i = 0; i < MIN(h.e_phnum, ELF_FILE_MAX_PHDRS); i++)
		if (__builtin_add_overflow(h.e_phoff, i * sizeof(*ret), &at) ||
			elf_file_read(elf, ret, sizeof(*ret), at) < 0)
			return false;
		else if (ret->p_type == PT_GNU_EH_FRAME)
			return true;
	return false;
}

/* The linker's table. False: there is none of the usual kind. */
static bool open_table(struct elf_extents *x, const struct elf_file *elf)
{
	const struct elf_segment *s;
	uint8_t head[12];
	Elf64_Phdr p;
	size_t n;
	uint32_t entries;

	if (!find_header(elf, &p) || p.p_filesz < sizeof(head) ||
		elf_file_read(elf, head, sizeof(head), p.p_offset) < 0)
		return false;
	/* Version 1; how .eh_frame's address is written does not matter, but it has to be 4 bytes. */
	if (head[0] != 1 || (head[1] & PE_FORMAT) != PE_UDATA4 || head[2] != PE_UDATA4 ||
		head[3] != PE_DATA_S4)
		return false;
	memcpy(&entries, head + 8, sizeof(entries));
	x->table_vaddr = p.p_vaddr;
	view_init(&x->table, elf, p.p_offset + sizeof(head), p.p_filesz - sizeof(head), 0,
		WINDOW_TABLE);
	x->n = MIN(entries, x->table.size / 8);
	/* Entries lie anywhere in its segment. */
	s = elf_file_segments(elf, &n);
	for (size_t i = 0; i < n; i++)
		if (s[i].vaddr <= p.p_vaddr && p.p_vaddr - s[i].vaddr < s[i].file_size)
			view_init(&x->entries, elf, s[i].offset, s[i].file_size, s[i].vaddr,
				WINDOW_ENTRIES);
	return x->n;
}

int elf_extents_open(struct elf_extents **ret, const struct elf_file *elf)
{
	CLEANUP(elf_extents_closep) struct elf_extents *x = calloc(1, sizeof(*x));
	const struct elf_section *section;
	int r;

	*ret = NULL;
	if (!x)
		return -ENOMEM;
	x->cie = UINT64_MAX;
	if (!open_table(x, elf)) {
		section = elf_file_find_name(elf, ".eh_frame");
		if (!section || section->type == SHT_NOBITS || section->size > SCAN_MAX)
			return 0;
		view_deinit(&x->table);
		view_init(&x->entries, elf, section->offset, section->size, section->addr,
			WINDOW_ENTRIES);
		x->n = 0;
		r = scan(x);
		if (r < 0 || !x->n)
			return r;
	}
	*ret = TAKE_PTR(x);
	return 0;
}

/* Number i of the table; entry: not set of one of our own. */
static bool get(struct elf_extents *x, uint64_t i, uint64_t *start, uint64_t *entry)
{
	const uint8_t *p;
	int32_t v[2];

	if (x->own) {
		*start = x->own[i].start;
		return true;
	}
	p = view_get(&x->table, i * 8, 8);
	if (!p)
		return false;
	memcpy(v, p, sizeof(v));
	*start = x->table_vaddr + (uint64_t)(int64_t)v[0];
	*entry = x->table_vaddr + (uint64_t)(int64_t)v[1];
	return true;
}

bool elf_extents_find(struct elf_extents *x, uint64_t vaddr, uint64_t *from, uint64_t *to)
{
	uint64_t low = 0, n = x->n, start, entry = 0, begin, length, next;

	if (!n)
		return false;
	while (n > 1) {
		uint64_t half = n / 2;

		if (!get(x, low + half, &start, &entry))
			return false;
		if (start <= vaddr) {
			low += half;
			n -= half;
		} else {
			n = half;
		}
	}
	if (!get(x, low, &start, &entry) || vaddr < start)
		return false;
	if (x->own)
		length = x->own[low].length;
	else if (!read_entry(x, entry, &begin, &length, &next) || begin != start)
		return false;
	if (length > EXTENT_MAX || vaddr - start >= length)
		return false;
	*from = start;
	*to = start + length;
	return true;
}
