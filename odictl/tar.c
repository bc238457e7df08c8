/* SPDX-License-Identifier: Apache-2.0 */

/* Source: POSIX.1-2008, pax, "ustar Interchange Format": blocks of 512 bytes, numbers in octal, two empty blocks at the
 * end. */

#include "odictl/tar.h"

#define BLOCK 512

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
	char link[100], magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155];
	char padding[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

static void pad(struct buf *out)
{
	static const char zeros[BLOCK];

	if (out->len % BLOCK)
		buf_add(out, zeros, BLOCK - out->len % BLOCK);
}

void tar_add(struct buf *out, const char *name, const void *data, size_t len, uint64_t mtime_s)
{
	struct header h = {.type = '0', .magic = "ustar", .version = {'0', '0'}};
	const unsigned char *bytes = (const unsigned char *)&h;
	unsigned sum = 0;

	snprintf(h.name, sizeof(h.name), "%s", name);
	snprintf(h.mode, sizeof(h.mode), "%07o", 0600);
	snprintf(h.uid, sizeof(h.uid), "%07o", 0);
	snprintf(h.gid, sizeof(h.gid), "%07o", 0);
	snprintf(h.size, sizeof(h.size), "%011llo", (unsigned long long)len);
	snprintf(h.mtime, sizeof(h.mtime), "%011llo", (unsigned long long)mtime_s);
	snprintf(h.user, sizeof(h.user), "root");
	snprintf(h.group, sizeof(h.group), "root");
	/* The sum counts its own field as blanks. */
	memset(h.checksum, ' ', sizeof(h.checksum));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += bytes[i];
	snprintf(h.checksum, sizeof(h.checksum), "%06o", sum & 0777777);
	buf_add(out, &h, sizeof(h));
	if (len)
		buf_add(out, data, len);
	pad(out);
}

void tar_end(struct buf *out)
{
	static const char zeros[2 * BLOCK];

	buf_add(out, zeros, sizeof(zeros));
}
