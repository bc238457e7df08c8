/* SPDX-License-Identifier: Apache-2.0 */

/* The step in the kernel and the step here are one text compiled twice: on the same rows,
 * registers and memory, many of them garbage, both have to make the same frames and end the same
 * way. step.bpf.c is the kernel's half; the verifier has to take it as it is for perf events and
 * for raw tracepoints, and for arm64's names too it has to compile. Needs root. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agentd/base/macros.h"
#include "bpf/unwind.h"

#define ROWS   1024
#define RULES  64
#define FRAMES 32

/* As in step.bpf.c. */
struct walk {
	struct unwind_regs regs;
	struct unwind_rule rules[RULES];
	uint64_t base;
	uint32_t n_rows, result, n_frames, pad;
	uint16_t pc[ROWS], rule[ROWS];
	struct {
		uint64_t pc, sp, fp, fp_at;
	} frames[FRAMES];
};

static int through[2] = {-1, -1};

/* A pipe takes from user memory what the kernel's reader takes, and no address that is none of user memory.
 * process_vm_readv() does not read the vDSO's data, which may lie among the libraries. */
static int read_self(void *to, size_t size, uint64_t address)
{
	/* Not write(), which sanitizers would look into before. */
	if (syscall(SYS_write, through[1], address, size) != (long)size)
		return -1;
	assert_int_equal(read(through[0], to, size), size);
	return 0;
}

#define UNWIND_READ(ctx, to, size, address) read_self(to, size, address)
#define UNWIND_PC(ctx, i)                   (((struct walk *)(ctx))->pc[(i) & (ROWS - 1)])

#include "bpf/unwind_step.h"

static void walk_here(struct walk *w)
{
	for (uint32_t i = 0; i < FRAMES; i++) {
		uint32_t row = unwind_search(
			w, 0, w->n_rows, (uint32_t)(unwind_lookup_pc(&w->regs) - w->base), 16);
		int result = unwind_step(
			&w->regs, &w->rules[w->rule[row & (ROWS - 1)] & (RULES - 1)], w);

		w->frames[i].pc = w->regs.pc;
		w->frames[i].sp = w->regs.sp;
		w->frames[i].fp = w->regs.fp;
		w->frames[i].fp_at = w->regs.fp_at;
		w->result = (uint32_t)result;
		w->n_frames = i + 1;
		if (result != UNWIND_OK)
			break;
	}
}

/* ---- the kernel's half
 * ---------------------------------------------------------------------------------- */

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int run_command(const char *format, const char *folder)
{
	char command[1024];
	int status;

	snprintf(command, sizeof(command), format, folder, folder, folder);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int get_pinned(const char *folder, const char *name)
{
	char path[200];
	union bpf_attr attr = {.pathname = (uint64_t)(uintptr_t)path};
	int fd;

	snprintf(path, sizeof(path), "%s/pin/%s", folder, name);
	fd = (int)bpf(BPF_OBJ_GET, &attr);
	assert_true(fd >= 0);
	return fd;
}

static void walk_there(int program, int map, struct walk *w)
{
	uint32_t zero = 0;
	union bpf_attr element = {.map_fd = (uint32_t)map,
		.key = (uint64_t)(uintptr_t)&zero,
		.value = (uint64_t)(uintptr_t)w};
	union bpf_attr run = {.test.prog_fd = (uint32_t)program};

	assert_int_equal(bpf(BPF_MAP_UPDATE_ELEM, &element), 0);
	assert_int_equal(bpf(BPF_PROG_TEST_RUN, &run), 0);
	assert_int_equal(bpf(BPF_MAP_LOOKUP_ELEM, &element), 0);
}

/* ---- garbage
 * -------------------------------------------------------------------------------------------- */

static uint64_t seed = 0x243f6a8885a308d3ULL;

static uint64_t any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t any_of(uint64_t n)
{
	return any() % n;
}

/* Rules of real shapes with numbers that are not too wild, so that walks go some way. */
static struct unwind_rule any_rule(void)
{
	static const uint16_t flags[] = {0, 0, 0, UNWIND_FP_SAVED, UNWIND_FP_SAVED,
		UNWIND_FP_SAVED | UNWIND_AUX_SAVED, UNWIND_DEREF, UNWIND_PLT, UNWIND_RA_AUX,
		UNWIND_RA_LEAF, UNWIND_FP_LOST, UNWIND_AUX_LOST, UNWIND_APPROXIMATE,
		UNWIND_DEREF | UNWIND_SIGNAL | UNWIND_MOVES | UNWIND_RA_SP | UNWIND_FP_SAVED |
			UNWIND_AUX_SAVED | UNWIND_SAVED_SP,
		UNWIND_FP_SAVED | UNWIND_SAVED_FP, 0xffff};
	struct unwind_rule rule = {.cfa = (uint8_t)(any_of(8) ? 4 + any_of(5) : any_of(12)),
		.reg = (uint8_t)any_of(32),
		.flags = flags[any_of(ARRAY_SIZE(flags))],
		.cfa_offset = (int32_t)(8 * any_of(12)),
		.cfa_add = (int16_t)(8 * any_of(2)),
		.ra_offset = -1,
		.fp_offset = -2,
		.aux_offset = (int16_t)-any_of(5)};

	if (any_of(4))
		rule.cfa = UNWIND_CFA_SP;
	if (any_of(10) == 0)
		rule.cfa_offset = (int32_t)any();
	if (any_of(10) == 0)
		rule.ra_offset = (int16_t)any_of(20);
	return rule;
}

static void fill(struct walk *w, uint64_t *stack, size_t n)
{
	uint64_t at = (uint64_t)(uintptr_t)stack;

	memset(w, 0, sizeof(*w));
	w->base = 0x10000;
	w->n_rows = 1 + (uint32_t)any_of(ROWS);
	for (uint32_t i = 0; i < w->n_rows; i++) {
		w->pc[i] = (uint16_t)(i * (65536 / w->n_rows));
		w->rule[i] = (uint16_t)any_of(RULES);
	}
	for (unsigned i = 0; i < RULES; i++)
		w->rules[i] = any_rule();
	/* Addresses of code, of the stack, and neither. */
	for (size_t i = 0; i < n; i++)
		stack[i] = any_of(3) ? w->base + any_of(65536)
			: any_of(8)  ? at + 8 * any_of(n)
			: any_of(2)  ? any()
				     : 0;
	w->regs.pc = w->base + any_of(65536);
	w->regs.sp = at + 8 * any_of(n / 8);
	w->regs.fp = at + 8 * any_of(n);
	w->regs.aux = at + 8 * any_of(n);
	w->regs.fp_at = any_of(3) ? 0 : at + 8 * any_of(n);
	w->regs.leaf_at = any_of(2) ? 0 : at + 8 * any_of(n);
	w->regs.flags = any_of(4) ? UNWIND_REGS_LEAF : (uint32_t)any_of(64);
	for (unsigned i = 0; i < UNWIND_LEAF_REGS; i++)
		w->regs.leaf[i] = any_of(2) ? at + 8 * any_of(n) : w->base + any_of(65536);
}

static void test_same_frames(void **state)
{
	char folder[] = "/sys/fs/bpf/odi-step-XXXXXX", objects[] = "/tmp/odi-step-XXXXXX";
	const size_t n = 512;
	uint64_t *stack = mmap(NULL, n * 8, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0),
		 frames = 0, by_result[UNWIND_BAD_STACK + 1] = {0};
	struct walk *here = malloc(sizeof(*here)), *there = malloc(sizeof(*there));
	int program, map;
	char command[600];

	assert_int_equal(pipe2(through, O_CLOEXEC), 0);
	if (access("/sys/fs/bpf", W_OK) < 0 || !mkdtemp(folder)) {
		/* A place of our own for the pins. */
		assert_int_equal(
			run_command(
				"mkdir -p /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf%.0s%.0s%.0s",
				""),
			0);
		assert_non_null(mkdtemp(folder));
	}
	assert_non_null(mkdtemp(objects));
	assert_int_equal(
		run_command(
			"for m in arm64 x86; do clang -target bpf -mcpu=v2 -D__TARGET_ARCH_$m -O2 "
			"-g -Wall -Werror -Wno-unused-function -I. -I/usr/include/$(uname -m)-linux-gnu -c "
			"-o %1$s/step-$m.o tests/unit/bpf/step.bpf.c || exit 1; done",
			objects),
		0);
	snprintf(command, sizeof(command),
		"PATH=$PATH:/usr/sbin bpftool prog loadall %s/step-x86.o %s/pin pinmaps %s/pin >%s/log 2>&1 "
		"|| { tail -n 30 %s/log; exit 1; }",
		objects, folder, folder, objects, objects);
	assert_int_equal(system(command), 0);
	program = get_pinned(folder, "step_tp");
	map = get_pinned(folder, "walks");
	run_command("rm -rf %s", folder);
	run_command("rm -rf %s", objects);
	for (unsigned i = 0; i < 3000; i++) {
		fill(here, stack, n);
		*there = *here;
		walk_here(here);
		walk_there(program, map, there);
		assert_int_equal(here->n_frames, there->n_frames);
		assert_int_equal(here->result, there->result);
		assert_memory_equal(here, there, sizeof(*here));
		frames += here->n_frames;
		by_result[here->result]++;
	}
	print_message("%llu frames; walks by result:", (unsigned long long)frames);
	for (size_t i = 0; i < ARRAY_SIZE(by_result); i++) {
		print_message(" %llu", (unsigned long long)by_result[i]);
		assert_true(by_result[i] > 0 || i == UNWIND_OK);
	}
	print_message("\n");
	assert_true(frames > 5000);
	close(program);
	close(map);
	munmap(stack, n * 8);
	free(here);
	free(there);
	close(through[0]);
	close(through[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_frames),
	};

	if (geteuid() != 0) {
		printf("cannot run - bpf_test: loading BPF programs takes root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
