/* SPDX-License-Identifier: Apache-2.0 */

/* The whole way from a program's registers to its root, compared with the truth at every
 * instruction.
 *
 * chain.c is built in many ways and run under ptrace, an instruction at a time, from the dynamic
 * linker's first one on. Each call that it makes is seen as it happens, so its call chain is known
 * exactly, without any unwinder. At each instruction the registers and memory are walked by rows
 * and the one step function, and the return addresses have to be that chain: in prologues and
 * epilogues, in the PLT, in lazy binding, in signal handlers on either stack, in the C library and
 * the vDSO. Signals are sent at arbitrary instructions too.
 *
 * Every 3rd instruction in a normal run, each with UNWIND_ALL_FILES=1. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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

#if defined(__x86_64__)

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
	/* Stack read at once. */
	uint64_t at;
	size_t len;
	uint8_t window[WINDOW];
	/* Sums. */
	uint64_t steps, walks, wrong, known_wrong, no_information, signals;
	uint64_t worst;
};

static char folder[] = "/tmp/odi-step-XXXXXX";

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

/* ---- both
 * ------------------------------------------------------------------------------------------------ */

static void report(struct victim *v, const struct user_regs_struct *regs, size_t frame,
	uint64_t ours, int result)
{
	const struct mapping *m = find_mapping(v, regs->rip);
	uint64_t truth = frame < v->n_calls ? v->calls[v->n_calls - 1 - frame].address : 0;

	if (v->worst++ < 5)
		print_error(
			"at %s+%#llx (step %llu): frame %zu of %zu: ours %#llx (result %d), true %#llx\n",
			m ? m->file->path : "?",
			m ? (unsigned long long)(regs->rip - m->start + m->offset) : regs->rip,
			(unsigned long long)v->steps, frame, v->n_calls, (unsigned long long)ours,
			result, (unsigned long long)truth);
}

/* gcc's description of an epilogue that undoes a realigned stack still says, behind pop %rbp, that
 * rbp is saved where it points: the last two instructions, lea -8(%r10),%rsp and ret. */
static bool described_wrongly(struct victim *v, uint64_t pc)
{
	uint8_t code[8];

	if (read_victim(v, code, sizeof(code), pc - 4) < 0)
		return false;
	for (int at = 0; at <= 4; at += 4) {
		if ((code[at] & 0xfe) == 0x48 && code[at + 1] == 0x8d &&
			(code[at + 2] & 0xf8) == 0x60 && code[at + 3] == 0xf8)
			return true;
	}
	return false;
}

/* Such code is where the program is, or where a signal found it. */
static bool known_wrong(struct victim *v, uint64_t pc)
{
	if (described_wrongly(v, pc)) {
		v->known_wrong++;
		return true;
	}
	for (size_t i = 0; i < v->n_calls; i++) {
		if (v->calls[i].signal && described_wrongly(v, v->calls[i].address))
			return true;
	}
	return false;
}

/* Whether the first `frames` steps of a walk led out of a handler. */
static bool through_signal(const struct victim *v, size_t frames)
{
	for (size_t i = 1; i <= frames; i++) {
		if (v->calls[v->n_calls - i].signal)
			return true;
	}
	return false;
}

static void walk(struct victim *v, const struct user_regs_struct *regs)
{
	struct unwind_regs r;
	size_t frame = 0;
	int result = UNWIND_OK;

	UNWIND_REGS_LOAD(&r, regs);
	v->walks++;
	for (; frame < MAX_FRAMES; frame++) {
		const struct unwind_rule *rule = find_rule(v, unwind_lookup_pc(&r));

		result = rule ? unwind_step(&r, rule, v) : UNWIND_NO_INFORMATION;
		if (result != UNWIND_OK)
			break;
		if (frame >= v->n_calls || v->calls[v->n_calls - 1 - frame].address != r.pc) {
			if (known_wrong(v, regs->rip))
				return;
			v->wrong++;
			report(v, regs, frame, r.pc, result);
			return;
		}
	}
	if (frame == v->n_calls && result == UNWIND_ENDED)
		return;
	/* What the files do not describe: gcc's start-up code, longjmp's last instructions. Where
	 * signals arrive is chance, so a handler that interrupted such code adds nothing: the code's
	 * own instructions are counted. */
	if (result == UNWIND_NO_INFORMATION || result == UNWIND_UNSUPPORTED) {
		if (!through_signal(v, frame))
			v->no_information++;
		return;
	}
	if (known_wrong(v, regs->rip))
		return;
	v->wrong++;
	report(v, regs, frame, r.pc, result);
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

static void run(struct victim *v, const char *path, unsigned every, bool from_entry)
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
		if (v->signals >= 3 && v->steps % 199 == 0 && !in_handler(v))
			deliver_signal = SIGUSR2;
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct variant {
	const char *name, *compiler, *flags;
	const char *after; /* a command on the program */
	bool from_linker;  /* from the dynamic linker's first instruction */
	bool extra;        /* with UNWIND_ALL_FILES=1 */
};

static void step_through(const struct variant *t)
{
	struct victim *v = calloc(1, sizeof(*v));
	char command[900], path[128];

	assert_non_null(v);
	snprintf(path, sizeof(path), "%s/%s", folder, t->name);
	snprintf(command, sizeof(command),
		"%s -g0 %s -o %s tests/unit/unwind/chain.c -fno-optimize-sibling-calls -w",
		t->compiler, t->flags, path);
	assert_int_equal(system(command), 0);
	if (t->after) {
		snprintf(command, sizeof(command), "%s %s", t->after, path);
		assert_int_equal(system(command), 0);
	}
	run(v, path, getenv("UNWIND_ALL_FILES") ? 1 : 3, !t->from_linker);
	print_message(
		"%s (%s %s): %llu instructions, %llu walks, %llu wrong, %llu by gcc's word, %llu end where "
		"nothing is known, %llu signals\n",
		t->name, t->compiler, t->flags, (unsigned long long)v->steps,
		(unsigned long long)v->walks, (unsigned long long)v->wrong,
		(unsigned long long)v->known_wrong, (unsigned long long)v->no_information,
		(unsigned long long)v->signals);
	assert_int_equal(v->wrong, 0);
	assert_true(v->known_wrong < 10);
	assert_true(v->signals > 20);
	assert_true(v->walks > 2000);
	assert_true(v->no_information * 100 < v->walks);
	close_files(v);
	free(v);
	unlink(path);
}

#define OMIT "-fomit-frame-pointer -fasynchronous-unwind-tables "

static const struct variant variants[] = {
	{"gcc-O0", "gcc", "-O0 " OMIT, NULL, false, false},
	{"gcc-O1-fp", "gcc", "-O1 -fno-omit-frame-pointer", "strip", false, true},
	{"gcc-O2-lazy", "gcc", "-O2 -Wl,-z,lazy " OMIT, NULL, true, false},
	{"gcc-O3-static", "gcc", "-O3 -static " OMIT, "strip", false, true},
	{"gcc-O2-static-scan", "gcc", "-O2 -static -Wl,--no-eh-frame-hdr " OMIT,
		"strip -R .eh_frame_hdr", false, false},
	{"gcc-O2-static-pie", "gcc", "-O2 -static-pie " OMIT, NULL, false, true},
	{"gcc-Os-nopie", "gcc", "-Os -no-pie -fcf-protection=full " OMIT, NULL, false, true},
	{"gcc-O2-lto", "gcc", "-O2 -flto -mavx -mstackrealign " OMIT, NULL, false, false},
	{"gcc-O2-debug-frame", "gcc", "-O2 -fno-asynchronous-unwind-tables -fno-unwind-tables -g1",
		NULL, false, false},
	{"clang-O0", "clang", "-O0 " OMIT, NULL, false, true},
	{"clang-O1-lazy", "clang", "-O1 -Wl,-z,lazy " OMIT, "strip", false, false},
	{"clang-O2", "clang", "-O2 -mavx2 " OMIT, NULL, false, true},
	{"clang-O3-static", "clang", "-O3 -static " OMIT, NULL, false, false},
};

static void test_variant(void **state)
{
	const struct variant *t = *state;

	if (t->extra && !getenv("UNWIND_ALL_FILES")) {
		print_message("UNWIND_ALL_FILES is not set: %s is run in check-long\n", t->name);
		return;
	}
	step_through(*state);
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(variants)];
	int failed;

	if (!mkdtemp(folder))
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++)
		tests[i] = (struct CMUnitTest){.name = variants[i].name,
			.test_func = test_variant,
			.initial_state = (void *)&variants[i]};
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return failed;
}

#else

int main(void)
{
	printf("cannot run - step_test: single steps are followed on x86-64 only\n");
	return 0;
}

#endif
