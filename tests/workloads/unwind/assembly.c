/* SPDX-License-Identifier: Apache-2.0 */

/* Code that nothing describes: assembly with a frame pointer and without, the same copied into memory without a file
 * as a just-in-time compiler does, and one that calls back. The program itself keeps frame pointers. */

#include <sys/mman.h>
#include "step.h"

#define LOOP                                                                                       \
	"mov %rdi, %rax\n"                                                                         \
	"1: mov %rax, %rcx\n"                                                                      \
	"shr $29, %rcx\n"                                                                          \
	"xor %rcx, %rax\n"                                                                         \
	"imul $0x5851f42d, %rax, %rax\n"                                                           \
	"dec %rdi\n"                                                                               \
	"jnz 1b\n"
#define FUNCTION(name, body)                                                                       \
	".p2align 4\n"                                                                             \
	".globl " #name "\n"                                                                       \
	".type " #name ", @function\n" #name ":\n" body ".size " #name ", . - " #name "\n"

__asm__(".text\n" FUNCTION(asm_bare, LOOP "ret\n") /* nothing on the stack but where to return */
	FUNCTION(asm_pushed,
		"push %rbx\npush %r12\npush %r13\nsub $24, %rsp\n"
		"movq $0, (%rsp)\nmovq $1, 8(%rsp)\n" LOOP
		"add $24, %rsp\npop %r13\npop %r12\npop %rbx\nret\n") FUNCTION(asm_framed,
		"push %rbp\nmov %rsp, %rbp\nsub $32, %rsp\n" LOOP
		"leave\nret\n") FUNCTION(asm_outer,
		"push %rbp\nmov %rsp, %rbp\nsub $16, %rsp\ncall asm_framed\nleave\nret\n")
		FUNCTION(asm_back,
			"push %rbp\nmov %rsp, %rbp\nsub $16, %rsp\ncall *%rsi\nleave\nret\n")
			FUNCTION(asm_end, "ret\n"));
void asm_bare(uint64_t units);
void asm_pushed(uint64_t units);
void asm_outer(uint64_t units);
void asm_back(uint64_t units, void (*f)(uint64_t));
void asm_end(void);

static void (*jit_bare)(uint64_t), (*jit_outer)(uint64_t),
	(*jit_back)(uint64_t, void (*)(uint64_t));

STEP void back_leaf(uint64_t units)
{
	STEP_BODY(units, 0x2345671);
}

STEP void bare_call(void)
{
	asm_bare(STEP_UNITS);
	STEP_AFTER();
}

STEP void pushed_call(void)
{
	asm_pushed(STEP_UNITS);
	STEP_AFTER();
}

STEP void framed_call(void)
{
	asm_outer(STEP_UNITS);
	STEP_AFTER();
}

STEP void back_call(void)
{
	asm_back(STEP_UNITS, back_leaf);
	STEP_AFTER();
}

STEP void jit_bare_call(void)
{
	jit_bare(STEP_UNITS);
	STEP_AFTER();
}

STEP void jit_framed_call(void)
{
	jit_outer(STEP_UNITS);
	STEP_AFTER();
}

STEP void jit_back_call(void)
{
	jit_back(STEP_UNITS, back_leaf);
	STEP_AFTER();
}

STEP void asm_round(void)
{
	bare_call();
	pushed_call();
	framed_call();
	back_call();
	STEP_AFTER();
}

STEP void jit_round(void)
{
	jit_bare_call();
	jit_framed_call();
	jit_back_call();
	STEP_AFTER();
}

static void make_jit(void)
{
	size_t size = (size_t)((char *)asm_end - (char *)asm_bare);
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || size > 4096)
		exit(1);
	memcpy(at, (char *)asm_bare, size);
	if (mprotect(at, 4096, PROT_READ | PROT_EXEC))
		exit(1);
	*(void **)&jit_bare = at;
	*(void **)&jit_outer = at + ((char *)asm_outer - (char *)asm_bare);
	*(void **)&jit_back = at + ((char *)asm_back - (char *)asm_bare);
}

int main(int argc, char **argv)
{
	int jit = argc > 2 && !strcmp(argv[1], "jit");

	step_begin(argc, argv);
	make_jit();
	while (step_on()) {
		if (jit)
			jit_round();
		else
			asm_round();
	}
	step_report("");
	return 0;
}
