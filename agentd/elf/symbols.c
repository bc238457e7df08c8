/* SPDX-License-Identifier: Apache-2.0 */

/* Symbol and string tables, in pieces.
 *
 * A table of a big program is a hundred megabytes, and one of a hostile program is whatever its
 * author wrote into a header. So neither is ever held: symbols pass through a buffer of 2,730
 * entries, strings through a window that follows the caller (linkers write names in the order of
 * their symbols, so a walk over a table reads its strings about once; but for .dynsym, which is in the
 * order of its hash table: whoever walks that had better hold all of them meanwhile).
 *
 * Source: gABI chapter 4, "Symbol Table" and "String Table". Runs in the sandbox only. */

#include <elf.h>

#include "agentd/elf/elf_private.h"

#define CHUNK 65536

int elf_strings_init(struct elf_strings *s, const struct elf_file *f,
	const struct elf_section *table, size_t window)
{
	if (!table || table->type != SHT_STRTAB || (table->flags & SHF_COMPRESSED))
		return -EBADMSG;
	*s = (struct elf_strings){
		.file = f, .offset = table->offset, .size = table->size, .window = window};
	s->data = malloc(window);
	return s->data ? 0 : -ENOMEM;
}

void elf_strings_deinit(struct elf_strings *s)
{
	free(s->data);
	s->data = NULL;
}

int elf_strings_resize(struct elf_strings *s, size_t window)
{
	char *data = window == s->window ? s->data : realloc(s->data, window);

	if (!data)
		return -ENOMEM;
	s->data = data;
	s->window = window;
	s->len = MIN(s->len, window);
	return 0;
}

/* Moves the window to pos; one that is large enough holds all. */
static int fill(struct elf_strings *s, uint64_t pos)
{
	size_t len;
	int r;

	if (s->window >= s->size)
		pos = 0;
	len = (size_t)MIN(s->size - pos, (uint64_t)s->window);
	s->len = 0;
	r = elf_file_read(s->file, s->data, len, s->offset + pos);
	if (r < 0)
		return r;
	s->at = pos;
	s->len = len;
	return 0;
}

ssize_t elf_strings_get(struct elf_strings *s, uint64_t pos, char *out, size_t size, bool *cut)
{
	size_t got = 0;

	if (cut)
		*cut = false;
	if (!s->data || pos >= s->size)
		return -EBADMSG;
	while (got < size - 1) {
		const char *from;
		size_t have, n;

		if (pos >= s->size)
			return -EBADMSG; /* the last string of the table has no end */
		if (pos < s->at || pos - s->at >= s->len) {
			int r = fill(s, pos);

			if (r < 0)
				return r;
		}
		from = s->data + (pos - s->at);
		have = (size_t)(s->at + s->len - pos);
		have = MIN(have, size - 1 - got);
		n = strnlen(from, have);
		memcpy(out + got, from, n);
		got += n;
		pos += n;
		if (n < have) {
			out[got] = '\0';
			return (ssize_t)got;
		}
	}
	out[got] = '\0';
	if (cut)
		*cut = true;
	return (ssize_t)got;
}

static struct elf_symbol decode(const struct elf_file *f, const uint8_t *p)
{
	if (f->is64) {
		Elf64_Sym s;

		memcpy(&s, p, sizeof(s));
		return (struct elf_symbol){.value = s.st_value,
			.size = s.st_size,
			.name = s.st_name,
			.section = s.st_shndx,
			.type = ELF64_ST_TYPE(s.st_info),
			.bind = ELF64_ST_BIND(s.st_info)};
	}
	Elf32_Sym s;

	memcpy(&s, p, sizeof(s));
	return (struct elf_symbol){.value = s.st_value,
		.size = s.st_size,
		.name = s.st_name,
		.section = s.st_shndx,
		.type = ELF32_ST_TYPE(s.st_info),
		.bind = ELF32_ST_BIND(s.st_info)};
}

int elf_file_each_symbol(const struct elf_file *f, const struct elf_section *table,
	int (*visit)(void *userdata, const struct elf_symbol *symbol), void *userdata)
{
	const size_t entry = f->is64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
	const size_t per_chunk = CHUNK / entry;
	_cleanup_free_ uint8_t *chunk = NULL;
	uint64_t n = table->size / entry;

	if (table->entsize != entry || (table->flags & SHF_COMPRESSED))
		return -EBADMSG;
	if (n > ELF_FILE_MAX_SYMBOLS)
		return -E2BIG;
	chunk = malloc(per_chunk * entry);
	if (!chunk)
		return -ENOMEM;
	for (uint64_t at = 0; at < n; at += per_chunk) {
		size_t here = (size_t)MIN(n - at, (uint64_t)per_chunk);
		int r = elf_file_read(f, chunk, here * entry, table->offset + at * entry);

		if (r < 0)
			return r;
		for (size_t i = at == 0 ? 1 : 0; i < here; i++) {
			struct elf_symbol symbol = decode(f, chunk + i * entry);

			r = visit(userdata, &symbol);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
