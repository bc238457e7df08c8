/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Our side of live_test.c: a stopped process's files as slots of rows, its mappings, and the walk over
 * its memory and over a slice of its stack. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "agentd/elf/elf_file.h"
#include "agentd/unwind/slot.h"
#include "agentd/unwind/unwind.h"
#include "agentd/unwind/walk.h"
#include "bpf/tables.h"

struct live;
static int live_read(struct live *l, void *to, size_t size, uint64_t address);
static int live_map(struct live *l, uint64_t address, struct space_map *ret);
static int live_rule(struct live *l, uint64_t key, uint32_t offset, struct unwind_rule *ret);
static int live_emit(struct live *l, struct sample_frame frame);
#define UNWIND_READ(ctx, to, size, address)      live_read(ctx, to, size, address)
#define UNWIND_FIND_MAP(ctx, address, map)       live_map(ctx, address, map)
#define UNWIND_FIND_RULE(ctx, key, offset, rule) live_rule(ctx, key, offset, rule)
#define UNWIND_CODE(ctx, map, address, to, size) live_read(ctx, to, size, address)
#define UNWIND_EMIT(ctx, frame)                  live_emit(ctx, frame)
#include "bpf/unwind_walk.h"

#define MAX_FRAMES 1024
#define MAX_FILES  128
#define WINDOW     16384
#define SLICE      (56 << 10)

/* ---- files: opened once, whichever program maps them --------------------------------------------------- */

struct file {
	dev_t device;
	ino_t inode;
	bool vdso;
	int fd;
	char path[256];
	struct elf_file *elf;
	struct unwind_file *unwind;
	struct rows_slot **pages;
	size_t n_pages;
};

static struct file files[MAX_FILES];
static size_t n_files;

struct live {
	pid_t pid;
	struct space_map maps[512];
	size_t n_maps;
	uint8_t window[WINDOW]; /* of the stack, from at */
	uint64_t at;
	size_t len;
	struct unwind_walk walk;
	struct sample_frame ours[MAX_FRAMES];
	size_t n_ours;
	struct sample_frame sliced[MAX_FRAMES]; /* by the slice */
	struct unwind_walk_result slice;
};

static int live_read(struct live *l, void *to, size_t size, uint64_t address)
{
	struct iovec here = {to, size}, there = {(void *)address, size};

	if (address >= l->at && size <= l->len && address - l->at <= l->len - size) {
		memcpy(to, l->window + (address - l->at), size);
		return 0;
	}
	return process_vm_readv(l->pid, &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

static int live_emit(struct live *l, struct sample_frame frame)
{
	if (l->n_ours == MAX_FRAMES)
		return WALK_DEPTH;
	l->ours[l->n_ours++] = frame;
	return 0;
}

static int live_map(struct live *l, uint64_t address, struct space_map *ret)
{
	for (size_t i = 0; i < l->n_maps; i++) {
		if (address >= l->maps[i].start && address < l->maps[i].end) {
			*ret = l->maps[i];
			return 0;
		}
	}
	return WALK_UNMAPPED;
}

/* A page as the kernel gets it. */
static const struct rows_slot *slot_of(struct file *f, uint32_t page)
{
	static struct unwind_page rows;
	static _Alignas(16) uint8_t room[ROWS_SLOT_MAX + 64];
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	struct rows_slot *slot = (struct rows_slot *)(void *)room;
	size_t size;

	if (page >= f->n_pages) {
		f->pages = realloc(f->pages, (page + 1) * sizeof(*f->pages));
		assert_non_null(f->pages);
		while (f->n_pages <= page)
			f->pages[f->n_pages++] = NULL;
	}
	if (f->pages[page])
		return f->pages[page];
	assert_int_equal(unwind_rules_init(&rules), 0);
	if (unwind_file_page(f->unwind, page, &rules, &rows) == 0)
		size = rows_slot_pack(&rows, &rules, slot, sizeof(room));
	else
		size = rows_slot_empty(slot, UNWIND_CFA_NONE);
	assert_int_equal(rows_slot_check(slot, size), 0);
	f->pages[page] = malloc(size);
	assert_non_null(f->pages[page]);
	memcpy(f->pages[page], slot, size);
	return f->pages[page];
}

static int live_rule(struct live *l, uint64_t key, uint32_t offset, struct unwind_rule *ret)
{
	(void)l;
	*ret = *rows_slot_rule(slot_of(&files[(key >> 32) - 1], (uint32_t)key), offset);
	return 0;
}

static int copy_vdso(struct live *l, uint64_t start, uint64_t end)
{
	uint8_t page[4096];
	int fd = memfd_create("vdso", MFD_CLOEXEC);

	assert_true(fd >= 0);
	for (; start < end; start += sizeof(page)) {
		assert_int_equal(live_read(l, page, sizeof(page), start), 0);
		assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	}
	return fd;
}

/* Its id, or 0: memory without a file, or no ELF file. */
static uint32_t file_of(struct live *l, const char *path, uint64_t start, uint64_t end)
{
	bool vdso = streq(path, "[vdso]");
	struct err_text err;
	struct stat s = {0};
	struct file *f;
	int fd;

	if (path[0] != '/' && !vdso)
		return 0;
	fd = vdso ? copy_vdso(l, start, end) : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &s) < 0)
		return 0;
	for (size_t i = 0; i < n_files; i++) {
		if (vdso ? files[i].vdso
			 : files[i].device == s.st_dev && files[i].inode == s.st_ino) {
			close(fd);
			return (uint32_t)i + 1;
		}
	}
	assert_true(n_files < MAX_FILES);
	f = &files[n_files];
	*f = (struct file){.device = s.st_dev, .inode = s.st_ino, .vdso = vdso, .fd = fd};
	snprintf(f->path, sizeof(f->path), "%s", path);
	if (elf_file_open(&f->elf, fd, &err) < 0 ||
		unwind_file_open(&f->unwind, f->elf, &err) < 0) {
		f->elf = elf_file_close(f->elf);
		close(fd);
		return 0;
	}
	return (uint32_t)++n_files;
}

static void close_files(void)
{
	for (size_t i = 0; i < n_files; i++) {
		for (size_t p = 0; p < files[i].n_pages; p++)
			free(files[i].pages[p]);
		free(files[i].pages);
		unwind_file_close(files[i].unwind);
		elf_file_close(files[i].elf);
		close(files[i].fd);
	}
	n_files = 0;
}

/* Both sides' view of the mappings, when they changed. False: the process is gone. */
static bool read_maps(struct live *l)
{
	static char text[1 << 20];
	char name[64], *line, *rest;
	size_t len = 0;
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)l->pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (len < sizeof(text) - 1 && (n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	close(fd);
	text[len] = 0;
	l->n_maps = 0;
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		unsigned long long start, end, offset;
		char mode[8], path[256] = "";
		struct space_map *m;

		if (sscanf(line, "%llx-%llx %7s %llx %*s %*s %255s", &start, &end, mode, &offset,
			    path) < 4 ||
			mode[2] != 'x' || streq(path, "[vsyscall]"))
			continue;
		assert_true(l->n_maps < ARRAY_SIZE(l->maps));
		m = &l->maps[l->n_maps++];
		*m = (struct space_map){.start = start, .end = end, .bias = offset - start};
		m->file = file_of(l, path, start, end);
		m->kind = m->file ? SPACE_FILE : SPACE_ANON;
		if (!m->file)
			m->bias = 0;
	}
	return l->n_maps > 0;
}

static void our_walk(struct live *l, const struct user_regs_struct *regs)
{
	struct iovec here = {l->window, WINDOW}, there = {(void *)regs->rsp, WINDOW};
	ssize_t n = process_vm_readv(l->pid, &here, 1, &there, 1, 0);
	unsigned turns = 0;

	l->at = regs->rsp;
	l->len = n > 0 ? (size_t)n : 0;
	l->n_ours = 0;
	unwind_walk_begin(&l->walk);
	UNWIND_REGS_LOAD(&l->walk.regs, regs);
	while (!unwind_walk_turn(&l->walk, l))
		assert_true(++turns <= UNWIND_WALK_TURNS(MAX_FRAMES));
	l->len = 0;
}

/* ---- the same from a slice of the stack
 * ------------------------------------------------------------------------------------------------- */

static int slice_map(void *userdata, uint64_t address, struct space_map *ret)
{
	return live_map(userdata, address, ret) == 0 ? 0 : -ENOENT;
}

static int slice_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	*ret = slot_of(&files[file - 1], page);
	return 0;
}

static ssize_t slice_code(void *userdata, uint32_t file, uint64_t offset, void *to, size_t n)
{
	return pread(files[file - 1].fd, to, n, (off_t)offset);
}

/* As the programs in the kernel take it: page by page, from a little below the stack pointer. */
static void slice_walk(struct live *l, const struct user_regs_struct *regs)
{
	static _Alignas(8) uint8_t room[sizeof(struct sample_stack) + SLICE];
	static const struct unwind_walk_ops ops = {slice_map, slice_rows, slice_code};
	struct sample_stack *s = (struct sample_stack *)(void *)room;
	struct unwind_regs r = {0};

	UNWIND_REGS_LOAD(&r, regs);
	memcpy(s->state, &r, sizeof(s->state));
	s->start = (regs->rsp - 128) & ~7ULL;
	s->len = SLICE;
	s->present = 0;
	for (uint64_t at = s->start; at < s->start + SLICE;) {
		uint64_t next = MIN((at | (SAMPLE_STACK_PAGE - 1)) + 1, s->start + SLICE);

		if (live_read(l, s->bytes + (at - s->start), next - at, at) == 0)
			s->present |= 1u << (at / SAMPLE_STACK_PAGE - s->start / SAMPLE_STACK_PAGE);
		at = next;
	}
	assert_int_equal(unwind_walk(s, sizeof(*s) + SLICE, &ops, l, l->sliced, 0, MAX_FRAMES,
				 MAX_FRAMES, &l->slice),
		0);
}

/* Whether that was the same walk, as far as the slice goes. Code that has no file cannot be looked at
 * behind the process's back, so guesses may differ. */
static bool slice_agrees(const struct live *l)
{
	size_t n = l->slice.n_frames;

	if (l->walk.guessed || l->slice.guessed)
		return true;
	if (unwind_walk_marker(l->slice.end))
		n--;
	if (n > l->n_ours || memcmp(l->sliced, l->ours, n * sizeof(l->ours[0])) != 0)
		return false;
	return l->slice.end == WALK_SLICE ||
		(n == l->n_ours && l->slice.end == l->walk.end &&
			l->slice.end_file == l->walk.end_file);
}
