/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A program that is run an instruction at a time (x86-64). Each call that it makes is seen as it happens, so its
 * call chain is known exactly, without any unwinder; and what it has mapped is there as rows. */

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

struct victim;
static int read_victim(struct victim *v, void *to, size_t size, uint64_t address);
#define UNWIND_READ(ctx, to, size, address) read_victim(ctx, to, size, address)

#include "agentd/elf/elf_file.h"
#include "agentd/unwind/unwind.h"
#include "bpf/unwind_step.h"

#define MAX_FILES  16
#define MAX_FRAMES 256
#define WINDOW     4096

struct file {
	char path[200];
	int fd;
	struct elf_file *elf;
	struct unwind_file *file;
	struct unwind_rules rules;
	struct unwind_page **pages;
	size_t n_pages;
};

struct mapping {
	uint64_t start, end, offset;
	struct file *file;
};

/* A call that has not returned, or (signal) code that was interrupted. */
struct call {
	uint64_t slot, address;
	bool signal;
};

struct victim {
	pid_t pid;
	struct file files[MAX_FILES];
	size_t n_files;
	struct mapping mappings[64];
	size_t n_mappings;
	struct call calls[MAX_FRAMES];
	size_t n_calls;
	bool undisturbed; /* it gets no signals but its own */
	/* Stack read at once. */
	uint64_t at;
	size_t len;
	uint8_t window[WINDOW];
	/* Sums. */
	uint64_t steps, walks, wrong, known_wrong, no_information, signals;
	uint64_t worst;
};

static int read_victim(struct victim *v, void *to, size_t size, uint64_t address)
{
	struct iovec here = {to, size}, there = {(void *)address, size};

	if (address >= v->at && size <= v->len && address - v->at <= v->len - size) {
		memcpy(to, v->window + (address - v->at), size);
		return 0;
	}
	return process_vm_readv(v->pid, &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

/* ---- files and mappings
 * ---------------------------------------------------------------------------------- */

static void copy_vdso(struct victim *v, struct file *f, uint64_t start, uint64_t end)
{
	uint8_t page[4096];

	f->fd = memfd_create("vdso", MFD_CLOEXEC);
	assert_true(f->fd >= 0);
	for (; start < end; start += sizeof(page)) {
		assert_int_equal(read_victim(v, page, sizeof(page), start), 0);
		assert_int_equal(write(f->fd, page, sizeof(page)), sizeof(page));
	}
}

static struct file *open_file(struct victim *v, const char *path, uint64_t start, uint64_t end)
{
	struct file *f;
	struct err_text err;

	for (size_t i = 0; i < v->n_files; i++) {
		if (streq(v->files[i].path, path))
			return &v->files[i];
	}
	assert_true(v->n_files < MAX_FILES);
	f = &v->files[v->n_files++];
	snprintf(f->path, sizeof(f->path), "%s", path);
	if (streq(path, "[vdso]"))
		copy_vdso(v, f, start, end);
	else
		f->fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(f->fd >= 0);
	assert_int_equal(elf_file_open(&f->elf, f->fd, &err), 0);
	assert_int_equal(unwind_file_open(&f->file, f->elf, &err), 0);
	assert_int_equal(unwind_rules_init(&f->rules), 0);
	return f;
}

static void read_mappings(struct victim *v)
{
	char name[64], line[512];
	FILE *maps;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)v->pid);
	maps = fopen(name, "re");
	assert_non_null(maps);
	v->n_mappings = 0;
	while (fgets(line, sizeof(line), maps)) {
		unsigned long long start, end, offset;
		char mode[8], path[256] = "";

		if (sscanf(line, "%llx-%llx %7s %llx %*s %*s %255s", &start, &end, mode, &offset,
			    path) < 4 ||
			mode[2] != 'x' || (path[0] != '/' && !streq(path, "[vdso]")))
			continue;
		assert_true(v->n_mappings < ARRAY_SIZE(v->mappings));
		v->mappings[v->n_mappings++] =
			(struct mapping){start, end, offset, open_file(v, path, start, end)};
	}
	fclose(maps);
}

static const struct mapping *find_mapping(struct victim *v, uint64_t pc)
{
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < v->n_mappings; i++) {
			if (pc >= v->mappings[i].start && pc < v->mappings[i].end)
				return &v->mappings[i];
		}
		if (pass == 0)
			read_mappings(v);
	}
	return NULL;
}

static const struct unwind_rule *find_rule(struct victim *v, uint64_t pc)
{
	const struct mapping *m = find_mapping(v, pc);
	uint64_t offset, page;
	struct file *f;

	if (!m)
		return NULL;
	f = m->file;
	offset = pc - m->start + m->offset;
	page = offset >> UNWIND_PAGE_SHIFT;
	if (page >= f->n_pages) {
		f->pages = realloc(f->pages, (page + 1) * sizeof(*f->pages));
		while (f->n_pages <= page)
			f->pages[f->n_pages++] = NULL;
	}
	if (!f->pages[page]) {
		f->pages[page] = malloc(sizeof(struct unwind_page));
		assert_non_null(f->pages[page]);
		assert_int_equal(
			unwind_file_page(f->file, (uint32_t)page, &f->rules, f->pages[page]), 0);
	}
	return &f->rules.rules[unwind_page_find(f->pages[page], offset)];
}

/* ---- the truth
 * ------------------------------------------------------------------------------------------ */

static void load_window(struct victim *v, uint64_t sp)
{
	struct iovec here = {v->window, WINDOW}, there = {(void *)sp, WINDOW};
	ssize_t n = process_vm_readv(v->pid, &here, 1, &there, 1, 0);

	v->at = sp;
	v->len = n > 0 ? (size_t)n : 0;
}

/* What the last instruction did to the chain. */
static void follow(
	struct victim *v, const struct user_regs_struct *before, const struct user_regs_struct *now)
{
	uint64_t top = 0;

	/* A handler has returned. */
	for (size_t i = v->n_calls; i-- > 0;) {
		if (!v->calls[i].signal)
			continue;
		if (v->calls[i].address == now->rip && v->calls[i].slot == now->rsp)
			v->n_calls = i;
		break;
	}
	while (v->n_calls && !v->calls[v->n_calls - 1].signal &&
		v->calls[v->n_calls - 1].slot < now->rsp)
		v->n_calls--;
	if (now->rsp != before->rsp - 8 || read_victim(v, &top, 8, now->rsp) < 0)
		return;
	if (top > before->rip + 1 && top <= before->rip + 8 && now->rip != top) {
		assert_true(v->n_calls < MAX_FRAMES);
		v->calls[v->n_calls++] = (struct call){.slot = now->rsp, .address = top};
	}
}

static void deliver(
	struct victim *v, const struct user_regs_struct *before, const struct user_regs_struct *now)
{
	uint64_t restorer = 0;

	assert_true(v->n_calls + 2 < MAX_FRAMES);
	assert_int_equal(read_victim(v, &restorer, 8, now->rsp), 0);
	v->calls[v->n_calls++] =
		(struct call){.slot = before->rsp, .address = before->rip, .signal = true};
	v->calls[v->n_calls++] = (struct call){.slot = now->rsp, .address = restorer};
	v->signals++;
}

static void close_files(struct victim *v)
{
	for (size_t i = 0; i < v->n_files; i++) {
		struct file *f = &v->files[i];

		for (size_t p = 0; p < f->n_pages; p++)
			free(f->pages[p]);
		free(f->pages);
		unwind_rules_deinit(&f->rules);
		unwind_file_close(f->file);
		elf_file_close(f->elf);
		close(f->fd);
	}
}

static pid_t start(const char *path)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		char *argv[] = {(char *)path, NULL, false}, *envp[] = {NULL};

		personality(ADDR_NO_RANDOMIZE);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execve(path, argv, envp);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL);
	return pid;
}

/* At full speed to the program's own first instruction: the dynamic linker is the same for all. */
static void skip_to_entry(struct victim *v, const char *path)
{
	struct user_regs_struct regs;
	size_t i = 0;
	uint64_t header[4], address;
	long word;
	int status;

	read_mappings(v);
	while (!streq(v->mappings[i].file->path, path)) {
		i++;
		assert_true(i < v->n_mappings);
	}
	assert_int_equal(pread(v->mappings[i].file->fd, header, sizeof(header), 0), sizeof(header));
	address = header[3]; /* e_entry */
	if (address < v->mappings[i].start)
		address += v->mappings[i].start - v->mappings[i].offset;
	word = ptrace(PTRACE_PEEKTEXT, v->pid, (void *)address, NULL);
	ptrace(PTRACE_POKETEXT, v->pid, (void *)address, (void *)((word & ~0xffL) | 0xcc));
	ptrace(PTRACE_CONT, v->pid, NULL, NULL);
	assert_int_equal(waitpid(v->pid, &status, 0), v->pid);
	assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	ptrace(PTRACE_POKETEXT, v->pid, (void *)address, (void *)word);
	assert_int_equal(ptrace(PTRACE_GETREGS, v->pid, NULL, &regs), 0);
	assert_int_equal(regs.rip, address + 1);
	regs.rip = address;
	ptrace(PTRACE_SETREGS, v->pid, NULL, &regs);
}

static bool in_handler(const struct victim *v)
{
	for (size_t i = 0; i < v->n_calls; i++) {
		if (v->calls[i].signal)
			return true;
	}
	return false;
}

static void run(struct victim *v, const char *path, unsigned every, bool from_entry,
	void (*walk)(struct victim *v, const struct user_regs_struct *regs))
{
	struct user_regs_struct before, now;
	int status, deliver_signal = 0;

	v->pid = start(path);
	if (from_entry)
		skip_to_entry(v, path);
	assert_int_equal(ptrace(PTRACE_GETREGS, v->pid, NULL, &before), 0);
	for (;;) {
		bool delivered = deliver_signal != 0;

		assert_int_equal(
			ptrace(PTRACE_SINGLESTEP, v->pid, NULL, (void *)(long)deliver_signal), 0);
		deliver_signal = 0;
		assert_int_equal(waitpid(v->pid, &status, 0), v->pid);
		if (!WIFSTOPPED(status))
			break;
		assert_int_equal(ptrace(PTRACE_GETREGS, v->pid, NULL, &now), 0);
		if (WSTOPSIG(status) != SIGTRAP) {
			deliver_signal = WSTOPSIG(status);
			before = now;
			continue;
		}
		v->steps++;
		load_window(v, now.rsp);
		if (delivered)
			deliver(v, &before, &now);
		else
			follow(v, &before, &now);
		if (v->steps % every == 0)
			walk(v, &now);
		before = now;
		if (!v->undisturbed && v->signals >= 3 && v->steps % 199 == 0 && !in_handler(v))
			deliver_signal = SIGUSR2;
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
