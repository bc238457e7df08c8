/* SPDX-License-Identifier: Apache-2.0 */

/* Where a stripped file says that its debug information is, and the little of it that some keep within.
 *
 * A name in .gnu_debuglink is a claim, and becomes part of a path on the other side of the sandbox: only a
 * plain name passes here (and agentd, which believes nothing of us, looks again). The CRC-32 is the common
 * one of IEEE 802.3, which liblzma brings, too.
 *
 * .gnu_debugdata is unpacked whole, since xz has no other way. Its size unpacked is known at the end only, so
 * that it is bounded on the way; and the dictionary, whose size the author chose, by liblzma's own limit.
 * Distributions pack it with 8 MB of dictionary and come to a few hundred kilobytes.
 *
 * Source: GDB manual, "Separate Debug Files" and "MiniDebugInfo". Runs in the sandbox only. */

#include <elf.h>
#include <lzma.h>

#include "agentd/base/text.h"
#include "agentd/elf/cursor.h"
#include "agentd/elf/elf_private.h"

#define CHUNK          65536
#define DICTIONARY_MAX (36 << 20) /* what `xz -8` takes */

bool elf_file_has_debug_info(const struct elf_file *f)
{
	static const char *const names[] = {".debug_info", ".zdebug_info"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct elf_section *s = elf_file_find_name(f, names[i]);

		if (s && s->type != SHT_NOBITS && s->size)
			return true;
	}
	return false;
}

/* ---- .gnu_debuglink ---- */

static bool is_plain_name(const char *name)
{
	return *name && !strchr(name, '/') && !streq(name, ".") && !streq(name, "..") &&
		text_is_clean(name, ELF_FILE_LINK_MAX);
}

void elf_file_debuglink(const struct elf_file *f, struct elf_debuglink *ret)
{
	const struct elf_section *s = elf_file_find_name(f, ".gnu_debuglink");
	uint8_t data[ELF_FILE_LINK_MAX + 4 + sizeof(ret->crc)];
	size_t len, at;

	*ret = (struct elf_debuglink){0};
	if (!s || s->type == SHT_NOBITS || (s->flags & SHF_COMPRESSED) || s->size > sizeof(data) ||
		elf_file_read(f, data, (size_t)s->size, s->offset) < 0)
		return;
	len = strnlen((char *)data, (size_t)s->size);
	at = (len + 4) & ~(size_t)3; /* behind the name's NUL, padded to 4 */
	if (len >= sizeof(ret->name) || !elf_within(at, sizeof(ret->crc), s->size))
		return;
	memcpy(ret->name, data, len);
	if (is_plain_name(ret->name))
		memcpy(&ret->crc, data + at, sizeof(ret->crc));
	else
		*ret->name = '\0';
}

int elf_file_crc(const struct elf_file *f, uint64_t max, uint32_t *ret)
{
	_cleanup_free_ uint8_t *chunk = NULL;
	uint32_t crc = 0;

	if (f->size > max)
		return -EFBIG;
	chunk = malloc(CHUNK);
	if (!chunk)
		return -ENOMEM;
	for (uint64_t at = 0; at < f->size; at += CHUNK) {
		size_t n = (size_t)MIN(f->size - at, (uint64_t)CHUNK);
		int r = elf_file_read(f, chunk, n, at);

		if (r < 0)
			return r;
		crc = lzma_crc32(chunk, n, crc);
	}
	*ret = crc;
	return 0;
}

/* ---- the alternate file ---- */

#define ID_MAX 20

static void set_hex(char *out, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", data[i]);
}

/* A section that holds a name and, at the end, an identity. Its length; 0: there is none. */
static size_t read_small(const struct elf_file *f, const char *name, uint8_t *data, size_t max)
{
	const struct elf_section *s = elf_file_find_name(f, name);

	if (!s || s->type == SHT_NOBITS || (s->flags & SHF_COMPRESSED) || s->size > max ||
		elf_file_read(f, data, (size_t)s->size, s->offset) < 0)
		return 0;
	return (size_t)s->size;
}

static bool take_path(struct cursor *c, char path[static ELF_FILE_LINK_MAX])
{
	const uint8_t *end = memchr(c->at, '\0', (size_t)(c->end - c->at));
	size_t len = end ? (size_t)(end - c->at) : ELF_FILE_LINK_MAX;

	if (len >= ELF_FILE_LINK_MAX)
		return false;
	memcpy(path, cursor_take(c, len + 1), len + 1);
	return text_is_clean(path, ELF_FILE_LINK_MAX);
}

/* DWARF 5, 7.3.6. */
static bool read_sup(const struct elf_file *f, bool *alternate, struct elf_altlink *ret)
{
	uint8_t data[ELF_FILE_LINK_MAX + 64];
	struct cursor c = {.at = data};
	const uint8_t *sum;
	uint64_t len;

	c.end = data + read_small(f, ".debug_sup", data, sizeof(data));
	if (cursor_u16(&c) != 5)
		return false;
	*alternate = cursor_u8(&c) != 0;
	if (!take_path(&c, ret->path))
		return false;
	len = cursor_uleb(&c);
	sum = len && len <= ID_MAX ? cursor_take(&c, len) : NULL;
	if (sum)
		set_hex(ret->build_id, sum, (size_t)len);
	return sum != NULL;
}

void elf_file_altlink(const struct elf_file *f, struct elf_altlink *ret)
{
	uint8_t data[ELF_FILE_LINK_MAX + ID_MAX];
	size_t size = read_small(f, ".gnu_debugaltlink", data, sizeof(data));
	struct cursor c = {.at = data, .end = data + size};
	bool alternate = false;

	*ret = (struct elf_altlink){0};
	if (!size) {
		if (!read_sup(f, &alternate, ret) || alternate)
			*ret = (struct elf_altlink){0};
		return;
	}
	if (take_path(&c, ret->path) && c.end > c.at && c.end - c.at <= ID_MAX)
		set_hex(ret->build_id, c.at, (size_t)(c.end - c.at));
	else
		*ret = (struct elf_altlink){0};
}

bool elf_file_is_alternate(const struct elf_file *f, const struct elf_altlink *link)
{
	struct elf_altlink own = {0};
	struct elf_ids ids;
	bool alternate = false;

	elf_file_ids(f, &ids);
	if (*link->build_id && streq(ids.gnu, link->build_id))
		return true;
	return read_sup(f, &alternate, &own) && alternate && streq(own.build_id, link->build_id);
}

/* ---- .gnu_debugdata ---- */

struct unpacked {
	uint8_t *data;
	size_t len, room;
};

static void unpacked_deinit(struct unpacked *u)
{
	free(u->data);
}

static int grow(struct unpacked *u)
{
	size_t room = MIN(MAX(u->room * 2, (size_t)4 * CHUNK), (size_t)ELF_FILE_DEBUGDATA_MAX + 1);
	uint8_t *data;

	if (u->len > ELF_FILE_DEBUGDATA_MAX)
		return -EFBIG;
	data = realloc(u->data, room);
	if (!data)
		return -ENOMEM;
	u->data = data;
	u->room = room;
	return 0;
}

static int from_lzma(lzma_ret r)
{
	return r == LZMA_OK                ? 0
		: r == LZMA_STREAM_END     ? 1
		: r == LZMA_MEM_ERROR      ? -ENOMEM
		: r == LZMA_MEMLIMIT_ERROR ? -EFBIG
					   : -EBADMSG;
}

/* 1: the stream is over. */
static int unpack(lzma_stream *stream, struct unpacked *u, lzma_action action)
{
	int r = 0;

	while (r == 0) {
		if (u->len == u->room) {
			r = grow(u);
			if (r < 0)
				return r;
		}
		stream->next_out = u->data + u->len;
		stream->avail_out = u->room - u->len;
		r = from_lzma(lzma_code(stream, action));
		u->len = u->room - stream->avail_out;
		if (r == 0 && stream->avail_out && !stream->avail_in)
			break; /* all that this piece gives */
	}
	return r;
}

static int unpack_section(const struct elf_file *f, const struct elf_section *s, struct unpacked *u)
{
	_cleanup_free_ uint8_t *chunk = malloc(CHUNK);
	CLEANUP(lzma_end) lzma_stream stream = LZMA_STREAM_INIT;
	int r = chunk ? from_lzma(lzma_stream_decoder(&stream, DICTIONARY_MAX, 0)) : -ENOMEM;

	for (uint64_t at = 0; at < s->size && r == 0; at += CHUNK) {
		size_t n = (size_t)MIN(s->size - at, (uint64_t)CHUNK);

		r = elf_file_read(f, chunk, n, s->offset + at);
		if (r < 0)
			return r;
		stream.next_in = chunk;
		stream.avail_in = n;
		r = unpack(&stream, u, at + n == s->size ? LZMA_FINISH : LZMA_RUN);
	}
	if (r == 1)
		return 0;
	return r < 0 ? r : -EBADMSG; /* cut short */
}

int elf_file_open_debugdata(
	struct elf_file **ret, const struct elf_file *f, struct err_text *problem)
{
	CLEANUP(unpacked_deinit) struct unpacked u = {0};
	const struct elf_section *s = elf_file_find_name(f, ".gnu_debugdata");
	int r;

	if (!s || s->type == SHT_NOBITS || !s->size)
		return 0;
	r = unpack_section(f, s, &u);
	if (r == -EFBIG)
		return err_set(problem, r, "its mini debug information is too big");
	if (r < 0)
		return err_set(problem, r, "its mini debug information %s",
			r == -ENOMEM ? "is too big for the memory allowed" : "is damaged");
	r = elf_file_open_memory(ret, TAKE_PTR(u.data), u.len, NULL);
	if (r < 0)
		return err_set(problem, r, "its mini debug information is damaged");
	return 0;
}
