/* SPDX-License-Identifier: Apache-2.0 */

/* What the symbolizer's client keeps its names by, and where. A file is known by its identity (fstat of the
 * descriptor from map_files), its owner, and the file system: device numbers are given anew at every boot, and a
 * file system's id is not. Files of FUSE have no place here, since whoever serves them chooses all of that. Runs in
 * agentd. */

#include <linux/magic.h>
#include <sys/vfs.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/sha256.h"
#include "agentd/daemon_disknames.h"
#include "agentd/store/names.h"

#define AT_REST_NS (10 * NSEC_PER_SEC)

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

void daemon_disknames_open(struct daemon *d)
{
	_cleanup_free_ char *path = NULL;
	struct err_text err = {};

	if (asprintf(&path, "%s/names.db", d->state_dir) < 0)
		return;
	if (names_open(&d->disknames, path, &(struct names_config){}, &err) < 0)
		log_warning("names will not be kept over a restart: %s", err.text);
}

void daemon_disknames_close(struct daemon *d)
{
	d->disknames = names_close(d->disknames);
}

static int key(void *userdata, uint32_t file, uint8_t ret[static 32])
{
	struct daemon *d = userdata;
	const struct file *f = process_file(d->processes, file);
	int fd = f && f->kind == FILE_ELF ? process_file_open(d->processes, file) : -1;
	struct statfs fs;
	struct sha256 h;
	uint64_t parts[9];

	if (!d->disknames || fd < 0)
		return -ENOENT;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	if (fs.f_type == FUSE_SUPER_MAGIC)
		return -EOPNOTSUPP;
	parts[0] = f->identity.device;
	parts[1] = f->identity.inode;
	parts[2] = f->identity.size;
	parts[3] = (uint64_t)f->identity.mtime_ns;
	parts[4] = (uint64_t)f->identity.ctime_ns;
	parts[5] = f->owner;
	parts[6] = (uint64_t)fs.f_type;
	parts[7] = (uint32_t)fs.f_fsid.__val[0];
	parts[8] = (uint32_t)fs.f_fsid.__val[1];
	sha256_init(&h);
	sha256_add(&h, parts, sizeof(parts));
	sha256_final(&h, ret);
	return 0;
}

static int at_rest(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;
	const struct file *f = process_file(d->processes, file);

	return f && (int64_t)clock_unix_ns() - f->identity.ctime_ns > (int64_t)AT_REST_NS;
}

static int find(
	void *userdata, const uint8_t key[static 32], uint64_t *id, const void **facts, size_t *len)
{
	struct daemon *d = userdata;

	return names_find(d->disknames, key, id, facts, len);
}

static int put_file(
	void *userdata, const uint8_t key[static 32], const void *facts, size_t len, uint64_t *id)
{
	struct daemon *d = userdata;

	return names_put_file(d->disknames, key, facts, len, id);
}

static int get(void *userdata, uint64_t id, uint64_t address, const void **value, size_t *len)
{
	struct daemon *d = userdata;

	return names_get(d->disknames, id, address, value, len);
}

static int begin(void *userdata)
{
	struct daemon *d = userdata;

	return names_begin(d->disknames);
}

static int put(void *userdata, uint64_t id, uint64_t address, const void *value, size_t len)
{
	struct daemon *d = userdata;

	return names_put(d->disknames, id, address, value, len);
}

static int commit(void *userdata)
{
	struct daemon *d = userdata;

	return names_commit(d->disknames);
}

static int tidy(void *userdata)
{
	struct daemon *d = userdata;

	return names_tidy(d->disknames);
}

const struct symbol_disk daemon_disknames = {
	.key = key,
	.at_rest = at_rest,
	.find = find,
	.put_file = put_file,
	.get = get,
	.begin = begin,
	.put = put,
	.commit = commit,
	.tidy = tidy,
};
