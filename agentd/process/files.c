/* SPDX-License-Identifier: Apache-2.0 */
/* The file table.
 *
 * A file is what fstat says of the descriptor that was opened through map_files: device, inode, size and
 * both times, so that a file that was written over is another one, and one that was renamed is not.
 * What maps and MMAP2 say (device, inode, generation and path as the mapping's file system
 * shows them) is a key under which a file can be found again when the process that mapped it is gone; it is
 * never compared with what fstat says. A key names the file that was seen under it last (file_keys.c).
 *
 * Files that nobody holds go, least recently used first, past max_files; when all are held there is
 * one stand-in for all others. Ids are never used again. Descriptors are closed, least recently used
 * first, past max_open. Runs in agentd. */

#include "agentd/process/files_private.h"

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/map.h"

#include <sys/stat.h>

/* ---- lists and slots ----------------------------------------------------------------------------------- */

static void unlink_node(struct link *l)
{
	if (!l->next)
		return;
	l->prev->next = l->next;
	l->next->prev = l->prev;
	l->prev = l->next = NULL;
}

static void put_first(struct link *head, struct link *l)
{
	unlink_node(l);
	l->next = head->next;
	l->prev = head;
	head->next->prev = l;
	head->next = l;
}

#define node_of(l, member) ((struct node *)((char *)(l)-offsetof(struct node, member)))

static size_t home(const struct files *f, uint32_t id)
{
	return (uint32_t)(id * 2654435769u) & f->mask;
}

struct node *files_node(const struct files *f, uint32_t id)
{
	for (size_t i = home(f, id); f->slots[i]; i = (i + 1) & f->mask)
		if (f->slots[i]->file.id == id)
			return f->slots[i];
	return NULL;
}

static void slot_put(struct files *f, struct node *n)
{
	size_t i = home(f, n->file.id);

	while (f->slots[i])
		i = (i + 1) & f->mask;
	f->slots[i] = n;
}

/* Closes the gap, so that a search may stop at an empty slot. */
static void slot_remove(struct files *f, uint32_t id)
{
	size_t i = home(f, id), j;

	while (f->slots[i] && f->slots[i]->file.id != id)
		i = (i + 1) & f->mask;
	if (!f->slots[i])
		return;
	for (j = (i + 1) & f->mask; f->slots[j]; j = (j + 1) & f->mask) {
		size_t want = home(f, f->slots[j]->file.id);

		if (((j - want) & f->mask) >= ((j - i) & f->mask)) {
			f->slots[i] = f->slots[j];
			i = j;
		}
	}
	f->slots[i] = NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static void close_node(struct files *f, struct node *n)
{
	if (n->file.fd < 0)
		return;
	closep(&n->file.fd);
	if (n->open.next) {
		unlink_node(&n->open);
		f->n_open--;
	}
}

static void set_fd(struct files *f, struct node *n, int *fd)
{
	if (n->file.fd >= 0 || *fd < 0)
		return;
	n->file.fd = TAKE_FD(*fd);
	n->held_since = clock_monotonic_ns();
	put_first(&f->open, &n->open);
	f->n_open++;
	while (f->n_open > f->max_open)
		close_node(f, node_of(f->open.prev, open));
}

static void free_node(struct files *f, struct node *n)
{
	close_node(f, n);
	for (size_t i = 0; i < KEYS_A_FILE; i++)
		files_forget_key(f, n, i);
	if (n->name) {
		map_remove(f->by_name, n->name, n->name_len);
		free(n->name);
	} else if (n->file.kind == FILE_ELF) {
		map_remove(f->by_identity, &n->file.identity, sizeof(n->file.identity));
	}
	if (f->on_gone)
		f->on_gone(f->userdata, n->file.id);
	unlink_node(&n->lru);
	slot_remove(f, n->file.id);
	f->n--;
	free(n->file.path);
	free(n->file.reason);
	free(n);
}

/* Whether there is room for one more. */
static bool make_room(struct files *f)
{
	if (f->n < f->max)
		return true;
	/* A held one is in use: out of the way of the next search. */
	for (size_t looked = 0; looked < 256; looked++) {
		struct node *n = node_of(f->lru.prev, lru);

		if (f->lru.prev == &f->lru)
			return false;
		if (!n->holds) {
			free_node(f, n);
			f->evicted++;
			return true;
		}
		put_first(&f->lru, &n->lru);
	}
	return false;
}

static struct node *new_node(struct files *f, enum file_kind kind, const char *path, uint32_t id)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->file.path = strdup(path);
	if (!n->file.path) {
		free(n);
		return NULL;
	}
	n->file.id = id ? id : f->next_id++;
	n->file.kind = kind;
	n->file.fd = -1;
	n->file.last_used_ns = clock_monotonic_ns();
	slot_put(f, n);
	f->n++;
	if (!id)
		put_first(&f->lru, &n->lru);
	return n;
}

/* All that found no room, when everything is in use. */
static uint32_t crowded(struct files *f)
{
	struct node *n;

	if (f->crowd)
		return f->crowd;
	n = new_node(f, FILE_ANON, "[too many files]", 0);
	if (!n)
		return 0;
	log_warning(
		"more files are in use than the table may hold (%zu): further ones are not named until the next interval",
		f->max);
	n->holds = 1; /* stays */
	return f->crowd = n->file.id;
}

/* ---- adding -------------------------------------------------------------------------------------------- */

uint32_t files_add(struct files *f, const struct file_seen *seen, const struct file_key *key,
	const char *path, int *fd)
{
	const struct file_identity *identity = &seen->identity;
	struct node *n = map_get(f->by_identity, identity, sizeof(*identity));

	if (!n) {
		if (!make_room(f))
			return crowded(f);
		n = new_node(f, FILE_ELF, path, 0);
		if (!n)
			return 0;
		n->file.identity = *identity;
		n->file.owner = seen->owner;
		n->file.shared_by_build_id =
			seen->owner == 0 && !(seen->mode & (S_IWGRP | S_IWOTH));
		if (map_put(f->by_identity, identity, sizeof(*identity), n, NULL) < 0) {
			free_node(f, n);
			return 0;
		}
	}
	n->plain_numbers = seen->plain_numbers;
	set_fd(f, n, fd);
	files_remember(f, n, key, path);
	files_touch(f, n->file.id);
	return n->file.id;
}

/* By a name of our own making. */
static struct node *add_named(
	struct files *f, const char *name, enum file_kind kind, const char *path, bool *added)
{
	struct node *n = map_get_str(f->by_name, name);

	*added = false;
	if (n)
		return n;
	if (!make_room(f))
		return NULL;
	n = new_node(f, kind, path, 0);
	if (!n)
		return NULL;
	n->name = strdup(name);
	n->name_len = strlen(name);
	if (!n->name || map_put_str(f->by_name, name, n, NULL) < 0) {
		free(TAKE_PTR(n->name));
		free_node(f, n);
		return NULL;
	}
	*added = true;
	return n;
}

uint32_t files_add_anon(struct files *f, const char *label)
{
	char name[128];
	bool added;
	struct node *n;

	snprintf(name, sizeof(name), "anon:%s", label);
	n = add_named(f, name, FILE_ANON, label, &added);
	if (!n)
		return crowded(f);
	files_touch(f, n->file.id);
	return n->file.id;
}

uint32_t files_add_jit(struct files *f, const char *name, const char *path)
{
	bool added;
	struct node *n = add_named(f, name, FILE_JIT, path, &added);

	if (!n)
		return crowded(f);
	files_touch(f, n->file.id);
	return n->file.id;
}

void files_set_reason(struct files *f, uint32_t id, const char *reason)
{
	struct node *n = files_node(f, id);

	if (!n)
		return;
	free(n->file.reason);
	n->file.reason = reason ? strdup(reason) : NULL;
}

void files_set_jit(struct files *f, uint32_t id, enum file_jit jit, const char *path, int *fd)
{
	struct node *n = files_node(f, id);
	char *copy = n && *path ? strdup(path) : NULL;

	if (copy) {
		free(n->file.path);
		n->file.path = copy;
	}
	if (n) {
		close_node(f, n);
		set_fd(f, n, fd);
		n->file.jit = jit;
		n->file.jit_replaced = true;
		files_set_reason(f, id, NULL);
	}
	closep(fd);
}

void files_drop(struct files *f, uint32_t id)
{
	struct node *n = files_node(f, id);

	if (n && !n->holds)
		free_node(f, n);
}

uint32_t files_add_unopened(
	struct files *f, const struct file_key *key, const char *path, const char *reason)
{
	_cleanup_free_ char *name = files_key_text(key, 0, path);
	bool added;
	struct node *n = name ? add_named(f, name, FILE_UNOPENED, path, &added) : NULL;

	if (!n)
		return crowded(f);
	if (added)
		n->file.reason = strdup(reason);
	files_touch(f, n->file.id);
	return n->file.id;
}

void files_reopen(struct files *f, uint32_t id, const struct file_identity *identity, int *fd)
{
	struct node *n = files_node(f, id);

	if (n && n->file.kind == FILE_ELF &&
		memcmp(&n->file.identity, identity, sizeof(*identity)) == 0)
		set_fd(f, n, fd);
	closep(fd);
}

/* ---- looking ------------------------------------------------------------------------------------------- */

struct file *files_get(struct files *f, uint32_t id)
{
	struct node *n = files_node(f, id);

	return n ? &n->file : NULL;
}

void files_touch(struct files *f, uint32_t id)
{
	struct node *n = files_node(f, id);

	if (!n)
		return;
	n->file.last_used_ns = clock_monotonic_ns();
	if (n->lru.next)
		put_first(&f->lru, &n->lru);
	if (n->open.next)
		put_first(&f->open, &n->open);
}

void files_hold(struct files *f, uint32_t id)
{
	struct node *n = files_node(f, id);

	if (n)
		n->holds++;
}

void files_release(struct files *f, uint32_t id)
{
	struct node *n = files_node(f, id);

	if (n && n->holds)
		n->holds--;
}

void files_counters(const struct files *f, struct process_counters *ret)
{
	ret->files = f->n;
	ret->open_files = f->n_open;
	ret->evicted_files = f->evicted;
}

/* ---- the kernel's own ---------------------------------------------------------------------------------- */

static int add_fixed(struct files *f)
{
	struct node *kernel = new_node(f, FILE_KERNEL, "[kernel]", FILE_ID_KERNEL);
	struct node *vdso = new_node(f, FILE_VDSO, "[vdso]", FILE_ID_VDSO);

	if (!kernel || !vdso)
		return -ENOMEM;
	/* Not in the list of open ones: it stays. */
	vdso->file.fd = files_copy_vdso();
	if (vdso->file.fd < 0) {
		vdso->file.fd = -1;
		log_warning("no copy of the vDSO could be made: its frames stay without names");
	}
	vdso->file.shared_by_build_id = true;
	return 0;
}

int files_new(struct files **ret, size_t max_files, size_t max_open,
	void (*on_gone)(void *userdata, uint32_t id), void *userdata)
{
	CLEANUP(files_freep) struct files *f = calloc(1, sizeof(*f));
	size_t slots = 64;
	int r;

	if (!f)
		return -ENOMEM;
	f->lru = (struct link){&f->lru, &f->lru};
	f->open = (struct link){&f->open, &f->open};
	f->max = max_files;
	f->max_open = max_open;
	f->next_id = FILE_ID_VDSO + 1;
	f->on_gone = on_gone;
	f->userdata = userdata;
	while (slots < (max_files + 8) * 2)
		slots *= 2;
	f->mask = slots - 1;
	f->slots = calloc(slots, sizeof(*f->slots));
	if (!f->slots)
		return -ENOMEM;
	r = map_new(&f->by_identity, sizeof(struct file_identity));
	if (r == 0)
		r = map_new(&f->by_key, 0);
	if (r == 0)
		r = map_new(&f->by_name, 0);
	if (r == 0)
		r = add_fixed(f);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(f);
	return 0;
}

struct files *files_free(struct files *f)
{
	if (!f)
		return NULL;
	f->on_gone = NULL;
	for (size_t i = 0; f->slots && i <= f->mask;) {
		/* Removal may move another one here. */
		if (f->slots[i])
			free_node(f, f->slots[i]);
		else
			i++;
	}
	map_free(f->by_identity);
	map_free(f->by_key);
	map_free(f->by_name);
	free(f->slots);
	free(f);
	return NULL;
}
