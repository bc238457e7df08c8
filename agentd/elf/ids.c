/* SPDX-License-Identifier: Apache-2.0 */

/* What a file calls itself: GNU and Go build ids from its notes, and the hash that backends know
 * files by when they carry neither.
 *
 * A build id is a claim of the file's author. It is given out as text for a person and a backend;
 * whoever shares anything by it must trust the file's owner first (HOUSE.md, file identity).
 *
 * Source: gABI chapter 5, "Note Section" (entries are padded to 4, in segments aligned to 8 also to
 * 8); Go's cmd/internal/buildid (name "Go", type 4); OpenTelemetry's semantic conventions for the
 * hash. Runs in the sandbox only. */

#include <elf.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "agentd/elf/elf_private.h"
#include "agentd/base/sha256.h"

#define NOTES_MAX      65536 /* bytes read of one range */
#define GO_BUILD_ID    4     /* note type */
#define HASHED_AT_ENDS 4096

static void hex(const uint8_t *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[data[i] >> 4];
		out[2 * i + 1] = digits[data[i] & 15];
	}
	out[2 * len] = '\0';
}

static void take_note(
	const Elf64_Nhdr *n, const uint8_t *name, const uint8_t *desc, struct elf_ids *ret)
{
	if (n->n_namesz != 4)
		return;
	if (n->n_type == NT_GNU_BUILD_ID && memcmp(name, "GNU", 4) == 0 && !*ret->gnu &&
		n->n_descsz > 0 && n->n_descsz * 2 < sizeof(ret->gnu))
		hex(desc, n->n_descsz, ret->gnu);
	if (n->n_type == GO_BUILD_ID && memcmp(name, "Go\0", 4) == 0 && !*ret->go &&
		n->n_descsz > 0 && n->n_descsz < sizeof(ret->go)) {
		memcpy(ret->go, desc, n->n_descsz);
		ret->go[n->n_descsz] = '\0';
		text_clean(ret->go);
	}
}

static void walk_notes(const uint8_t *data, size_t len, uint32_t align, struct elf_ids *ret)
{
	const uint64_t mask = align - 1;
	uint64_t at = 0;

	/* Sizes are 32 bits and sums are 64: nothing wraps. */
	while (elf_within(at, sizeof(Elf64_Nhdr), len)) {
		Elf64_Nhdr n; /* the same in both classes */
		uint64_t name = at + sizeof(n), desc;

		memcpy(&n, data + at, sizeof(n));
		desc = (name + n.n_namesz + mask) & ~mask;
		if (!elf_within(name, n.n_namesz, len) || !elf_within(desc, n.n_descsz, len))
			return;
		take_note(&n, data + name, data + desc, ret);
		at = (desc + n.n_descsz + mask) & ~mask;
	}
}

void elf_file_ids(const struct elf_file *f, struct elf_ids *ret)
{
	_cleanup_free_ uint8_t *data = malloc(NOTES_MAX);

	*ret = (struct elf_ids){0};
	for (size_t i = 0; data && i < f->n_notes; i++) {
		const struct elf_note_range *range = &f->notes[i];
		size_t len = (size_t)MIN(range->size, (uint64_t)NOTES_MAX);

		if (elf_file_read(f, data, len, range->offset) == 0)
			walk_notes(data, len, range->align, ret);
	}
}

int elf_file_htlhash(int fd, char out[33])
{
	uint8_t data[HASHED_AT_ENDS], length[8], sum[32];
	struct sha256 hash;
	struct stat st;
	uint64_t size;
	size_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0)
		return -EINVAL;
	size = (uint64_t)st.st_size;
	n = (size_t)MIN(size, (uint64_t)sizeof(data));
	sha256_init(&hash);
	for (int end = 0; end < 2; end++) {
		r = io_pread_all(fd, data, n, end ? size - n : 0);
		if (r < 0)
			return r;
		sha256_add(&hash, data, n);
	}
	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)(size >> (56 - 8 * i));
	sha256_add(&hash, length, sizeof(length));
	sha256_final(&hash, sum);
	hex(sum, 16, out);
	return 0;
}
