/* SPDX-License-Identifier: Apache-2.0 */

/* Stacks that are not the thread's own: coroutines by ucontext, and by a switch of a few instructions as boost has
 * it, whose root is a word of zero or a trampoline without call frame information. */

#include <ucontext.h>
#include "step.h"

static ucontext_t outside, inside;

STEP void context_leaf(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
}

STEP void context_body(void)
{
	for (;;) {
		context_leaf(STEP_UNITS);
		swapcontext(&inside, &outside);
	}
}

STEP void context_round(void)
{
	swapcontext(&outside, &inside);
	STEP_AFTER();
}

/* switch_to(from, to): keeps the callee-saved registers on the stack that is left. */
__asm__(".text\n"
	".p2align 4\n"
	".type switch_to, @function\n"
	"switch_to:\n"
	"push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
	"mov %rsp, (%rdi)\n"
	"mov %rsi, %rsp\n"
	"pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\n"
	"ret\n"
	".size switch_to, . - switch_to\n"
	".type switch_start, @function\n"
	"switch_start:\n"
	"call *%rbx\n"
	"hlt\n"
	".size switch_start, . - switch_start\n");
void switch_to(void **from, void *to);
void switch_start(void);

static void *home, *away;

STEP void switched_leaf(uint64_t units)
{
	STEP_BODY(units, 0x2345671);
}

STEP void switched_body(void)
{
	for (;;) {
		switched_leaf(STEP_UNITS);
		switch_to(&away, home);
	}
}

STEP void switched_round(void)
{
	switch_to(&home, away);
	STEP_AFTER();
}

static void make_switched(int bare)
{
	uint64_t *top = (uint64_t *)((char *)calloc(1, 1 << 16) + (1 << 16) - 128);

	/* r15 r14 r13 r12 rbx rbp, then what `ret` goes to */
	memset(top, 0, 128);
	top[4] = (uint64_t)(uintptr_t)switched_body;
	top[6] = (uint64_t)(uintptr_t)(bare ? switched_body : switch_start);
	away = top;
}

int main(int argc, char **argv)
{
	step_begin(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "context")) {
		getcontext(&inside);
		inside.uc_stack.ss_sp = malloc(1 << 18);
		inside.uc_stack.ss_size = 1 << 18;
		makecontext(&inside, context_body, 0);
		while (step_on())
			context_round();
	} else {
		make_switched(argc > 2 && !strcmp(argv[1], "bare"));
		while (step_on())
			switched_round();
	}
	step_report("");
	return 0;
}
