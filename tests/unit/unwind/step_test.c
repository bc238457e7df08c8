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

#if defined(__x86_64__)

#include "tests/unit/unwind/victim.h"

static char folder[] = "/tmp/odi-step-XXXXXX";

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
	run(v, path, getenv("UNWIND_ALL_FILES") ? 1 : 3, !t->from_linker, walk);
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
