/* SPDX-License-Identifier: Apache-2.0 */
/* The file table's keys: what maps and MMAP2 say of a file.
 *
 * A new process maps the same libraries as the last one, and to open each of them again for each process
 * costs more than all else about it. So a key is believed without a look where it can be: on file systems
 * on which maps and fstat give the same numbers and a pair of them names one file (ext4, xfs, tmpfs...; not
 * btrfs, overlayfs), while our own descriptor keeps the inode, and with it its number, from
 * being given away, and as long as fstat says that nobody wrote to it. Runs in agentd. */

#include "agentd/process/files_private.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

char *files_key_text(const struct file_key *key, uint64_t generation, const char *path)
{
	char *text;

	if (asprintf(&text, "%x:%x:%lx:%lx:%s", key->major, key->minor, (unsigned long)key->inode,
		    (unsigned long)generation, path) < 0)
		return NULL;
	return text;
}

/* A key has one owner, the file seen last. Owners that lost it still name it; hence the look. */
void files_forget_key(struct files *f, struct node *n, size_t at)
{
	if (!n->keys[at])
		return;
	if (map_get_str(f->by_key, n->keys[at]) == n)
		map_remove(f->by_key, n->keys[at], strlen(n->keys[at]));
	free(n->keys[at]);
	n->keys[at] = NULL;
}

static void remember_key(struct files *f, struct node *n, const struct file_key *key,
	uint64_t generation, const char *path)
{
	_cleanup_free_ char *text = files_key_text(key, generation, path);

	if (!text || map_get_str(f->by_key, text) == n)
		return;
	files_forget_key(f, n, n->next_key);
	if (map_put_str(f->by_key, text, n, NULL) < 0)
		return;
	n->keys[n->next_key] = TAKE_PTR(text);
	n->next_key = (n->next_key + 1) % KEYS_A_FILE;
}

void files_remember(struct files *f, struct node *n, const struct file_key *key, const char *path)
{
	if (!key->inode)
		return;
	remember_key(f, n, key, 0, path);
	if (key->generation) {
		n->generation = key->generation;
		remember_key(f, n, key, key->generation, path);
	}
}

static int64_t ns_of(struct timespec t)
{
	return t.tv_sec * (int64_t)NSEC_PER_SEC + t.tv_nsec;
}

uint32_t files_guess(struct files *f, const struct file_key *key, const char *path)
{
	_cleanup_free_ char *text = NULL;
	struct node *n = NULL;

	if (key->generation) {
		_cleanup_free_ char *exact = files_key_text(key, key->generation, path);

		n = exact ? map_get_str(f->by_key, exact) : NULL;
	}
	if (!n) {
		text = files_key_text(key, 0, path);
		n = text ? map_get_str(f->by_key, text) : NULL;
		/* The number was given to another file since. */
		if (n && key->generation && n->generation && n->generation != key->generation)
			n = NULL;
	}
	if (!n)
		return 0;
	files_touch(f, n->file.id);
	return n->file.id;
}

bool files_unchanged(const struct files *f, uint32_t id)
{
	const struct node *n = files_node(f, id);
	struct stat st;

	if (!n || n->file.kind != FILE_ELF)
		return n;
	if (n->file.fd < 0 || fstat(n->file.fd, &st) < 0)
		return false;
	return st.st_size == (off_t)n->file.identity.size &&
		ns_of(st.st_mtim) == n->file.identity.mtime_ns &&
		ns_of(st.st_ctim) == n->file.identity.ctime_ns;
}

uint32_t files_known(
	struct files *f, const struct file_key *key, const char *path, uint64_t since_ns)
{
	uint32_t id = files_guess(f, key, path);
	struct node *n = id ? files_node(f, id) : NULL;
	bool same_generation;

	if (!n || !n->plain_numbers || n->file.fd < 0)
		return 0;
	same_generation = key->generation && key->generation == n->generation;
	if (!same_generation && n->held_since > since_ns)
		return 0;
	if (n->file.identity.inode != key->inode ||
		n->file.identity.device != makedev(key->major, key->minor))
		return 0;
	return files_unchanged(f, id) ? id : 0;
}
